//! The simulated network with an origin behind every address, each with a character of its own.
//!
//! [`Network`] takes the place of the shard's ring: it is the engine's [`Wire`], and hands out completions.
//! Within one connection they come in order (except where a character's point is that they do not); across
//! connections they come shuffled.
//!
//! In scope: what an origin may do to us, and when. Out of scope: what we make of it (the engine), and
//! whether that was right ([`super::check`]), for which [`Character::may_end_as`] says what the truth is.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::clock::{Agenda, Random};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::clock::{Micros, Mono};
use crate::probe::{Broken, Departure};
use crate::sample::{Failure, MissReason};
use crate::shard::engine::{Close, ConnId, NoSocket, Route, Wire};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// How an origin behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Character {
    /// Answers at once and correctly.
    Fast,
    /// Thinks for up to twice the timeout.
    Slow,
    /// Mostly fast, and now and then very slow.
    HeavyTailed,
    /// Drops SYNs.
    Dead,
    /// Answers SYNs with RST.
    Refusing,
    /// Has no route.
    Unreachable,
    /// Sends RST in the middle of its response.
    Resets,
    /// Sends FIN in the middle of its response.
    ClosesEarly,
    /// Announces more than it sends, and then closes, or waits.
    LyingLength,
    /// Chunks, at odd cuts.
    Chunked,
    /// A body that decodes to a thousand times what came.
    Coded,
    /// A body without end.
    EndlessBody,
    /// A head without end.
    EndlessHead,
    /// A byte at a time.
    Drip,
    /// Does not speak HTTP.
    Garbage,
    /// Sends more than it announced.
    Surplus,
    /// Ends its body with FIN.
    UntilClose,
    /// Accepts, and never says a word.
    Silent,
    /// Accepts, and closes.
    SilentClose,
    /// Closes kept connections when it likes, also just while a request is on its way.
    IdleCloser,
    /// Forgets kept connections: the next request is answered with RST, or not at all.
    Forgets,
    /// Answers while the request is still being sent.
    EarlyAnswer,
    /// 503, correctly.
    Unavailable,
    /// Has a name that does not resolve.
    Nameless,
}

/// All of them, to choose from.
pub const CHARACTERS: [Character; 24] = [
    Character::Fast,
    Character::Slow,
    Character::HeavyTailed,
    Character::Dead,
    Character::Refusing,
    Character::Unreachable,
    Character::Resets,
    Character::ClosesEarly,
    Character::LyingLength,
    Character::Chunked,
    Character::Coded,
    Character::EndlessBody,
    Character::EndlessHead,
    Character::Drip,
    Character::Garbage,
    Character::Surplus,
    Character::UntilClose,
    Character::Silent,
    Character::SilentClose,
    Character::IdleCloser,
    Character::Forgets,
    Character::EarlyAnswer,
    Character::Unavailable,
    Character::Nameless,
];

impl Character {
    /// Whether a probe of such an origin may truthfully end so; `None` is up.
    ///
    /// `late`: FIN and RST carry no kernel time, so an agent that stalled may have to call them a timeout.
    #[must_use]
    pub const fn may_end_as(self, failure: Option<Failure>, late: bool) -> bool {
        use Failure as F;
        let timeout = matches!(failure, Some(F::TtfbTimeout | F::TransferTimeout));
        match self {
            Self::Fast | Self::Chunked | Self::Coded | Self::EarlyAnswer => failure.is_none(),
            // What it sends too much may be in the kernel already when the next request leaves.
            Self::Surplus => failure.is_none() || late && matches!(failure, Some(F::MalformedResponse)),
            Self::UntilClose => failure.is_none() || late && timeout,
            Self::Slow | Self::HeavyTailed | Self::Drip => failure.is_none() || timeout,
            Self::Dead => matches!(failure, Some(F::ConnectTimeout)),
            Self::Refusing => matches!(failure, Some(F::ConnectRefused)),
            Self::Unreachable => matches!(failure, Some(F::NetworkUnreachable)),
            Self::Resets => matches!(failure, Some(F::Reset)) || late && timeout,
            Self::ClosesEarly | Self::SilentClose => {
                matches!(failure, Some(F::ClosedEarly)) || late && timeout
            }
            Self::LyingLength => matches!(failure, Some(F::ClosedEarly | F::TransferTimeout)),
            Self::EndlessBody => matches!(failure, Some(F::BodyTooLarge | F::TransferTimeout)),
            Self::EndlessHead => matches!(failure, Some(F::HeadTooLarge | F::TransferTimeout)),
            Self::Garbage => matches!(failure, Some(F::MalformedResponse)),
            Self::Silent => matches!(failure, Some(F::TtfbTimeout)),
            Self::IdleCloser => matches!(failure, None | Some(F::ClosedEarly | F::Reset)) || late && timeout,
            Self::Forgets => matches!(failure, None | Some(F::Reset | F::TtfbTimeout)),
            Self::Unavailable => matches!(failure, Some(F::StatusUnexpected)),
            Self::Nameless => matches!(failure, Some(F::DnsNotFound | F::DnsFailed)),
        }
    }

    /// Whether a connection may serve another request after a whole response of this origin.
    pub(super) const fn keeps(self) -> bool {
        !matches!(self, Self::Surplus | Self::UntilClose)
    }
}

/// One origin.
#[derive(Clone, Debug)]
pub struct Origin {
    /// How it behaves.
    pub character: Character,
    /// Whether its endpoint keeps the connection; else the origin says goodbye after its response.
    pub kept: bool,
    /// The endpoint's timeout, for those that aim at it.
    pub timeout: Micros,
    /// There and back, ns.
    pub round_trip_ns: u64,
    response: Rc<[u8]>,
}

impl Origin {
    /// An origin of `character`.
    #[must_use]
    pub fn new(character: Character, kept: bool, timeout: Micros, random: &mut Random) -> Self {
        let round_trip_ns = random.between_orders(50 * US, 60 * MS);
        Self { character, kept, timeout, round_trip_ns, response: response(character, random).into() }
    }

    /// Where every origin listens.
    pub const PORT: u16 = 80;

    /// The address of the origin of endpoint number `endpoint`.
    #[must_use]
    pub fn ip(endpoint: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 | endpoint)
    }

    /// The same with its port.
    #[must_use]
    pub fn address(endpoint: u32) -> SocketAddr {
        SocketAddr::new(Self::ip(endpoint).into(), Self::PORT)
    }
}

fn response(character: Character, random: &mut Random) -> Vec<u8> {
    let body_bytes = usize::try_from(random.between_orders(0, 20_000)).unwrap_or_default();
    let length = |announced: usize, sent: usize| {
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\nServer: sim\r\nContent-Length: {announced}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + sent, b'x');
        bytes
    };
    match character {
        Character::LyingLength => length(body_bytes + 10, body_bytes),
        Character::Surplus => length(body_bytes, body_bytes + 3),
        Character::UntilClose => {
            let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            bytes.resize(bytes.len() + body_bytes, b'x');
            bytes
        }
        Character::Chunked => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..random.between(0, 5) {
                let chunk_bytes = usize::try_from(random.between(1, 3_000)).unwrap_or(1);
                bytes.extend(format!("{chunk_bytes:x}\r\n").into_bytes());
                bytes.resize(bytes.len() + chunk_bytes, b'x');
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            bytes
        }
        Character::Coded => {
            // Some goes at decoding: a few hundred bytes, of which each receive brings a part.
            let body = vec![b'x'; random_bytes(random, 4 * crate::config::DECODED_BYTES_PER_GO)];
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let coded =
                encoder.write_all(&body).and_then(|()| encoder.finish()).expect("memory does not fail");
            let length = coded.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n");
            [head.into_bytes(), coded].concat()
        }
        Character::EndlessBody => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        Character::EndlessHead => b"HTTP/1.1 200 OK\r\n".to_vec(),
        Character::Garbage => {
            let mut bytes = vec![b'\0'; 1];
            bytes.resize_with(40, || random.draw().to_le_bytes()[0]);
            bytes
        }
        Character::Drip => length(body_bytes % 30, body_bytes % 30),
        Character::Unavailable => {
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".to_vec()
        }
        // At least a byte of body, so that the middle is never the end.
        _ => length(body_bytes + 1, body_bytes + 1),
    }
}

fn random_bytes(random: &mut Random, bytes_max: usize) -> usize {
    usize::try_from(random.between(1, bytes_max as u64)).unwrap_or(1)
}

/// Something that happens to a connection.
#[derive(Clone, Debug)]
enum What {
    Connected,
    Sent(u64),
    Bytes {
        of: Rc<[u8]>,
        from: usize,
        to: usize,
    },
    /// The response is whole: the connection is at rest, as the origin sees it.
    Served,
    Endless,
    Broken(Broken),
    /// The origin's FIN on an idle connection, unless its request number has changed.
    IdleFin(u32),
    Released,
}

/// What the world hands to the engine.
#[derive(Clone, Debug)]
pub enum Completion {
    /// See [`crate::shard::engine::Event`].
    Connected,
    /// So many bytes.
    Sent(u64),
    /// A part of a response.
    Received {
        /// The response,
        of: Rc<[u8]>,
        /// from here,
        from: usize,
        /// to here.
        to: usize,
        /// When the kernel had it.
        at: Mono,
    },
    /// See [`crate::shard::engine::Event`].
    Broken(Broken),
    /// See [`crate::shard::engine::Event`].
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Live,
    Closing,
    Gone,
}

#[derive(Clone, Debug)]
struct Socket {
    key: ConnId,
    origin: usize,
    life: Life,
    /// Nothing more is to come from the kernel.
    ended: bool,
    /// A request has been sent on it,
    asked: bool,
    /// and which is on it: 0 is the first.
    request: u32,
    /// Nothing on this connection happens before this.
    last_at: Mono,
    /// When the FIN of an idle connection reaches us.
    fin_at: Option<Mono>,
}

/// All origins and the way to them.
#[derive(Debug)]
pub struct Network {
    /// The present, set by the world.
    pub now: Mono,
    /// Chance of [`NoSocket`], per mille.
    pub no_socket: u64,
    origins: Vec<Origin>,
    sockets: Vec<Socket>,
    agenda: Agenda<(ConnId, What)>,
    random: Random,
    filler: Rc<[u8]>,
}

impl Network {
    /// A network with these origins, by endpoint number.
    #[must_use]
    pub fn new(origins: Vec<Origin>, random: Random) -> Self {
        Self {
            now: Mono(0),
            no_socket: 0,
            origins,
            sockets: Vec::new(),
            agenda: Agenda::default(),
            random,
            filler: b"A: b\r\n".repeat(100_000).into(),
        }
    }

    /// The origin of an endpoint.
    #[must_use]
    pub fn origin(&self, endpoint: usize) -> &Origin {
        &self.origins[endpoint]
    }

    /// When the next completion is there.
    #[must_use]
    pub fn next_at(&self) -> Option<Mono> {
        self.agenda.next_at()
    }

    /// What has happened by now, shuffled across connections but not within.
    pub fn completions(&mut self, into: &mut Vec<(ConnId, Completion)>) {
        while let Some((at, (key, what))) = self.agenda.take(self.now) {
            if let Some(completion) = self.happen(at, key, what) {
                into.push((key, completion));
            }
        }
        for at in 1..into.len() {
            if into[at - 1].0.index != into[at].0.index && self.random.chance(300) {
                into.swap(at - 1, at);
            }
        }
    }

    fn happen(&mut self, at: Mono, key: ConnId, what: What) -> Option<Completion> {
        let stray = self.random.chance(200);
        let socket = self.sockets.get_mut(key.index as usize)?;
        if matches!(what, What::Released) {
            assert!(socket.key == key && socket.life == Life::Closing, "the network released {key:?}");
            socket.life = Life::Gone;
            return Some(Completion::Released);
        }
        let live = socket.key == key && socket.life == Life::Live;
        if live && socket.ended {
            return None;
        }
        // What the kernel had under way when the connection was closed may still come, once in a while.
        if !live && !stray {
            return None;
        }
        match what {
            What::Connected => Some(Completion::Connected),
            What::Sent(bytes) => Some(Completion::Sent(bytes)),
            What::Bytes { of, from, to } => Some(Completion::Received { of, from, to, at }),
            What::Broken(how) => {
                socket.ended |= live;
                Some(Completion::Broken(how))
            }
            What::Released => None,
            What::Served => {
                if live {
                    self.rest(key, at);
                }
                None
            }
            What::IdleFin(request) => {
                if !live || request != socket.request || socket.fin_at.is_none() {
                    return None;
                }
                socket.ended = true;
                Some(Completion::Broken(Broken::Closed))
            }
            What::Endless => {
                if !live {
                    return None;
                }
                let slow = self.random.between(MS, 20 * MS);
                self.note(key, Mono(at.0 + slow), What::Endless);
                Some(Completion::Received { of: Rc::clone(&self.filler), from: 0, to: self.filler.len(), at })
            }
        }
    }

    /// How long the handshake of a connection took, as the kernel knows.
    pub fn round_trip(&self, key: ConnId) -> Micros {
        let socket = &self.sockets[key.index as usize];
        Micros::from_nanos(self.origins[socket.origin].round_trip_ns)
    }

    /// The origin has sent its whole response.
    fn rest(&mut self, key: ConnId, at: Mono) {
        let (origin, request) = {
            let socket = &self.sockets[key.index as usize];
            (self.origins[socket.origin].clone(), socket.request)
        };
        if !origin.kept || !origin.character.keeps() {
            if self.random.chance(800) {
                let pause = self.random.between_orders(10 * US, SECOND);
                self.note(key, Mono(at.0 + pause), What::Broken(Broken::Closed));
            }
        } else if origin.character == Character::IdleCloser {
            // Around the length of an interval, to meet the next request every now and then.
            let pause = self.random.between_orders(MS, 300 * SECOND);
            self.sockets[key.index as usize].fin_at = Some(Mono(at.0 + pause));
            // Not through `note`: what comes before the FIN must not wait for it.
            self.agenda.note(Mono(at.0 + pause), (key, What::IdleFin(request)));
        }
    }

    /// Notes what happens to a connection, not before what is to happen to it already.
    fn note(&mut self, key: ConnId, at: Mono, what: What) {
        let socket = &mut self.sockets[key.index as usize];
        let at = at.max(socket.last_at);
        socket.last_at = at;
        self.agenda.note(at, (key, what));
    }

    /// The answer to a request that leaves at `leaves`.
    fn serve(&mut self, key: ConnId, leaves: Mono, request_bytes: u64) {
        let origin = self.origins[self.sockets[key.index as usize].origin].clone();
        let timeout_ns = origin.timeout.as_nanos();
        let think_ns = match origin.character {
            Character::Slow => self.random.between(0, 2 * timeout_ns),
            Character::HeavyTailed if self.random.chance(50) => {
                self.random.between_orders(MS, 4 * timeout_ns)
            }
            _ => self.random.between_orders(10 * US, 20 * MS),
        };
        let mut at = leaves.0 + origin.round_trip_ns + think_ns;
        let early = origin.character == Character::EarlyAnswer;
        if !early {
            self.note(key, leaves, What::Sent(request_bytes));
        }
        if origin.character == Character::Silent {
            return;
        }
        if origin.character == Character::SilentClose {
            return self.note(key, Mono(at), What::Broken(Broken::Closed));
        }
        let whole = origin.response.len();
        let end = match origin.character {
            Character::Resets | Character::ClosesEarly => {
                usize::try_from(self.random.between(1, whole as u64 - 1)).unwrap_or(1)
            }
            _ => whole,
        };
        let pieces = match origin.character {
            Character::Drip => end as u64,
            _ => self.random.between_orders(1, 8),
        };
        let drip_ns = timeout_ns / (60 + self.random.between(0, 240));
        let mut from = 0;
        for piece in 0..pieces {
            let left = end - from;
            if left == 0 {
                break;
            }
            let to = match origin.character {
                Character::Drip => from + 1,
                _ if piece + 1 == pieces => end,
                _ => from + usize::try_from(self.random.between(1, left as u64)).unwrap_or(left),
            };
            self.note(key, Mono(at), What::Bytes { of: Rc::clone(&origin.response), from, to });
            from = to;
            at += if origin.character == Character::Drip {
                drip_ns
            } else {
                self.random.between_orders(0, 5 * MS)
            };
        }
        let last = match origin.character {
            Character::Resets => What::Broken(Broken::Reset),
            Character::ClosesEarly | Character::UntilClose => What::Broken(Broken::Closed),
            Character::LyingLength if self.random.chance(500) => What::Broken(Broken::Closed),
            Character::LyingLength => return,
            Character::EndlessBody | Character::EndlessHead => What::Endless,
            _ => What::Served,
        };
        self.note(key, Mono(at), last);
        if early {
            let later = self.random.between_orders(US, 2 * SECOND);
            self.agenda.note(Mono(at + later), (key, What::Sent(request_bytes)));
        }
    }
}

impl Wire for Network {
    fn open(&mut self, conn: ConnId, route: Route<'_>) -> Result<(), NoSocket> {
        if self.random.chance(self.no_socket) {
            return Err(NoSocket(MissReason::InflightLimit));
        }
        let SocketAddr::V4(address) = route.address else {
            return Err(NoSocket(MissReason::InflightLimit));
        };
        let origin = usize::try_from(address.ip().to_bits() & 0x00ff_ffff).unwrap_or_default();
        let socket = Socket {
            key: conn,
            origin,
            life: Life::Live,
            ended: false,
            asked: false,
            request: 0,
            last_at: self.now,
            fin_at: None,
        };
        match self.sockets.get_mut(conn.index as usize) {
            Some(old) => *old = socket,
            None => {
                assert_eq!(conn.index as usize, self.sockets.len(), "connections are numbered from below");
                self.sockets.push(socket);
            }
        }
        let round_trip_ns = self.origins[origin].round_trip_ns;
        let stands = Mono(self.now.0 + round_trip_ns);
        match self.origins[origin].character {
            Character::Dead => {}
            Character::Refusing => self.note(conn, stands, What::Broken(Broken::Refused)),
            Character::Unreachable => self.note(conn, stands, What::Broken(Broken::Unreachable)),
            _ => self.note(conn, stands, What::Connected),
        }
        Ok(())
    }

    /// All that is sent waits for its completion.
    fn send(&mut self, conn: ConnId, request: &Arc<[u8]>) -> Departure {
        let now = self.now;
        let departure = Departure { at: now, until: now, bytes: 0 };
        let socket = &mut self.sockets[conn.index as usize];
        assert!(socket.key == conn && socket.life == Life::Live, "sent on what lives");
        socket.last_at = socket.last_at.max(now);
        if !std::mem::replace(&mut socket.asked, true) {
            self.serve(conn, now, request.len() as u64);
            return departure;
        }
        let origin = &self.origins[socket.origin];
        let (character, round_trip_ns) = (origin.character, origin.round_trip_ns);
        let crossing = socket.fin_at.is_some_and(|fin_at| now.0 + round_trip_ns >= fin_at.0);
        if crossing {
            // The origin had closed before the request came: FIN is on its way to us, and RST will be.
            let reset_first = self.random.chance(300);
            let how = if reset_first { Broken::Reset } else { Broken::Closed };
            self.note(conn, Mono(now.0 + round_trip_ns), What::Broken(how));
            return departure;
        }
        socket.fin_at = None;
        socket.request += 1;
        if character == Character::Forgets && self.random.chance(300) {
            self.note(conn, now, What::Sent(request.len() as u64));
            if self.random.chance(500) {
                self.note(conn, Mono(now.0 + round_trip_ns), What::Broken(Broken::Reset));
            }
            return departure;
        }
        self.serve(conn, now, request.len() as u64);
        departure
    }

    fn has_news(&mut self, conn: ConnId) -> bool {
        let is_news = |what: &What| !matches!(what, What::Sent(_) | What::IdleFin(_) | What::Released);
        self.agenda.until(self.now).any(|(key, what)| *key == conn && is_news(what))
    }

    fn watch(&mut self, conn: ConnId) {
        // No event is lost here; what may be asked for is checked.
        let socket = &self.sockets[conn.index as usize];
        assert!(socket.key == conn && socket.life == Life::Live, "watched while it lives");
    }

    fn close(&mut self, conn: ConnId, _abruptly: bool) -> Close {
        let now = self.now;
        let done = {
            let ended = self.sockets[conn.index as usize].ended;
            ended && self.random.chance(500)
        };
        let socket = &mut self.sockets[conn.index as usize];
        assert!(socket.key == conn && socket.life == Life::Live, "closed once");
        if done {
            socket.life = Life::Gone;
            return Close::Done;
        }
        socket.life = Life::Closing;
        let pause = self.random.between_orders(US, 10 * MS);
        self.agenda.note(Mono(now.0 + pause), (conn, What::Released));
        Close::Pending
    }
}
