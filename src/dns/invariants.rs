//! What must hold for any bytes whatever: one function for the fuzz target and the property tests.
//!
//! It lives in the library, and not in a test, because the fuzz crate links to it; the program does not call it, so
//! it is not in there.

use std::net::SocketAddr;

use super::conf::{Hosts, Settings};
use super::entropy::Entropy;
use super::message::{self, ADDRESSES_MAX, Answer, Kind, Reply};
use super::name::Name;
use super::resolver::{Action, Family, Lookup, Mode, Resolver, Transport};
use crate::clock::{Micros, Mono};

/// The question that arbitrary bytes are taken to answer.
const NAME: &str = "www.example.com";
/// When the question is put.
const START: Mono = Mono(1_000_000_000);

/// Checks arbitrary bytes as an answer, over UDP, over TCP whole and byte by byte, and as files. Panics where an
/// invariant is broken.
pub fn check(data: &[u8]) {
    check_message(data);
    let over_udp = ask(Transport::Udp, &[data]);
    // Over TCP the bytes after the message, and a second one, are nobody's.
    let framed = message_in_frame(data);
    let whole = ask(Transport::Tcp, &[&framed]);
    assert_eq!(whole, ask(Transport::Tcp, &framed.chunks(1).collect::<Vec<_>>()), "the cut does not matter");
    assert!(over_udp.is_none() || whole == over_udp, "one message is read alike over both");
    let text = String::from_utf8_lossy(data);
    let settings = Settings::from_resolv_conf(&text);
    assert!(!settings.servers.is_empty() && settings.attempts > 0 && settings.timeout.0 > 0);
    let _ = Hosts::parse(&text);
    let _ = super::conf::servers(&text);
}

/// What a message says to a question, with the id that it bears, so that its first two bytes are no obstacle.
fn check_message(data: &[u8]) {
    let id = data.first_chunk().map_or(0, |[high, low]| u16::from(*high) << 8 | u16::from(*low));
    let name = Name::parse(NAME).expect("a name");
    for kind in [Kind::A, Kind::Aaaa] {
        if let Ok(Reply::Answer(Answer::Addresses { addresses, .. })) = message::read(data, id, &name, kind) {
            assert!(!addresses.is_empty() && addresses.len() <= ADDRESSES_MAX, "some, and not too many");
            assert!(addresses.is_sorted_by(|a, b| a < b), "sorted and distinct");
            assert!(addresses.iter().all(|address| address.is_ipv4() == (kind == Kind::A)), "of the kind");
        }
    }
}

fn message_in_frame(data: &[u8]) -> Vec<u8> {
    let data = &data[..data.len().min(message::MESSAGE_BYTES_MAX)];
    let (high, low) = (data.len() >> 8, data.len() & 0xff);
    let length = [high, low].map(|byte| u8::try_from(byte).expect("below 256"));
    [&length[..], data].concat()
}

/// Feeds `pieces` to a resolver that has asked [`NAME`]'s address, and says what the lookup got from them; `None` if
/// it still waits.
fn ask(transport: Transport, pieces: &[&[u8]]) -> Option<Lookup> {
    let server = SocketAddr::from(([192, 0, 2, 1], 53));
    let settings = Settings { servers: vec![server], attempts: 1, ..Settings::default() };
    // The id is the one that the message has in its first two bytes, wherever it is to be found.
    let first: Vec<u8> = pieces.iter().copied().flatten().copied().take(4).collect();
    let id = match (transport, &first[..]) {
        (Transport::Udp, [high, low, ..]) | (Transport::Tcp, [_, _, high, low]) => {
            u64::from(*high) << 8 | u64::from(*low)
        }
        _ => 0,
    };
    let mut resolver = Resolver::new(settings, Entropy::new(move || id << 48));
    let name = resolver.intern(NAME, Family::V4);
    assert_eq!(resolver.lookup(name, Mode::Cached, START), Lookup::Pending);
    let Some(Action::Ask { mut query, message, .. }) = resolver.poll(START) else { unreachable!("it asks") };
    if transport == Transport::Tcp {
        let mut truncated = message;
        truncated[2] |= 0x82;
        resolver.answered(query, &truncated, START, START);
        assert_eq!(resolver.poll(START), Some(Action::Close { query }));
        let Some(Action::Ask { query: second, .. }) = resolver.poll(START) else { unreachable!("over TCP") };
        query = second;
    }
    for piece in pieces {
        resolver.answered(query, piece, START, START);
        resolver.expire(START + Micros(1));
    }
    let mut woken = None;
    while let Some(action) = resolver.poll(START) {
        if let Action::Wake { result, .. } = action {
            assert!(woken.is_none(), "woken once");
            woken = Some(result.map_or_else(Lookup::Failed, Lookup::Known));
        }
    }
    woken
}
