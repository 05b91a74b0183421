//! Messages: vectors, hickory-proto as the oracle, hostile bytes, and what the worst of them cost.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};
use hickory_proto::rr::{Name as OtherName, RData, Record, RecordType};
use proptest::prelude::*;

use crate::dns::Name;
use crate::dns::message::{ADDRESSES_MAX, Answer, CHAIN_LENGTH_MAX, Kind, NotOurs, Reply, query, read};

const ID: u16 = 0x1234;

fn name() -> Name {
    Name::parse("www.example.com").unwrap()
}

fn other(text: &str) -> OtherName {
    OtherName::from_str(text).unwrap()
}

fn response(code: ResponseCode) -> Message {
    let mut message = Message::response(ID, OpCode::Query);
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.add_query(Query::query(other("WWW.example.com."), RecordType::A));
    message
}

fn a(owner: &str, ttl_s: u32, last: u8) -> Record {
    Record::from_rdata(other(owner), ttl_s, RData::A(A::new(192, 0, 2, last)))
}

fn cname(owner: &str, ttl_s: u32, target: &str) -> Record {
    Record::from_rdata(other(owner), ttl_s, RData::CNAME(CNAME(other(target))))
}

fn soa(ttl_s: u32, minimum_s: u32) -> Record {
    let data = SOA::new(other("ns.example.com."), other("admin.example.com."), 1, 2, 3, 4, minimum_s);
    Record::from_rdata(other("example.com."), ttl_s, RData::SOA(data))
}

fn with(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Vec<u8> {
    let mut message = response(code);
    message.add_answers(answers);
    message.add_authorities(authorities);
    message.to_vec().unwrap()
}

fn addresses(ttl_s: u32, lasts: &[u8]) -> Result<Reply, NotOurs> {
    let addresses = lasts.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
    Ok(Reply::Answer(Answer::Addresses { addresses, ttl_s }))
}

fn check(bytes: &[u8], expected: Result<Reply, NotOurs>) {
    assert_eq!(read(bytes, ID, &name(), Kind::A), expected, "{}", bytes.escape_ascii());
}

#[test]
fn a_query_is_what_another_implementation_reads() {
    for (kind, other_kind) in [(Kind::A, RecordType::A), (Kind::Aaaa, RecordType::AAAA)] {
        for edns in [false, true] {
            let message = Message::from_vec(&query(ID, &name(), kind, edns)).unwrap();
            assert_eq!(message.metadata.id, ID);
            assert!(message.metadata.recursion_desired);
            assert_eq!(message.queries, [Query::query(other("www.example.com."), other_kind)]);
            assert_eq!(message.edns.map(|edns| edns.max_payload()), edns.then_some(1232));
        }
    }
}

#[test]
fn answers_and_chains() {
    use ResponseCode::{NXDomain, NoError};
    let www = "www.example.com.";
    check(&with(NoError, vec![a(www, 60, 2), a(www, 30, 1), a(www, 90, 2)], vec![]), addresses(30, &[1, 2]));
    let chain =
        vec![cname(www, 5, "x.example."), cname("x.example.", 60, "Y.example."), a("y.EXAMPLE.", 60, 1)];
    check(&with(NoError, chain.clone(), vec![]), addresses(5, &[1]));
    let reversed = chain.iter().rev().cloned().collect();
    check(&with(NoError, reversed, vec![]), addresses(5, &[1]));
    check(&with(NoError, vec![a("other.example.", 60, 9), a(www, 60, 1)], vec![]), addresses(60, &[1]));
    check(&with(NoError, vec![a(www, u32::MAX, 1)], vec![]), addresses(0, &[1]));

    let no_data = |ttl_s| Ok(Reply::Answer(Answer::NoData(ttl_s)));
    check(&with(NoError, vec![], vec![soa(600, 30)]), no_data(Some(30)));
    check(&with(NoError, vec![], vec![soa(20, 30)]), no_data(Some(20)));
    check(&with(NoError, vec![cname(www, 7, "x.example.")], vec![soa(600, 30)]), no_data(Some(7)));
    check(&with(NoError, vec![a("other.example.", 60, 9)], vec![]), no_data(None));
    check(&with(NXDomain, vec![], vec![soa(600, 30)]), Ok(Reply::Answer(Answer::NoName(Some(30)))));
    check(&with(NXDomain, vec![], vec![]), Ok(Reply::Answer(Answer::NoName(None))));

    let failed = Ok(Reply::ServerFailed);
    check(&with(NoError, vec![cname(www, 60, www)], vec![]), failed.clone());
    let long = |links: usize| {
        let owner = |n| if n == 0 { www.to_owned() } else { format!("n{n}.example.") };
        let mut chain: Vec<Record> = (0..links).map(|n| cname(&owner(n), 60, &owner(n + 1))).collect();
        chain.push(a(&owner(links), 60, 1));
        with(NoError, chain, vec![])
    };
    check(&long(CHAIN_LENGTH_MAX), addresses(60, &[1]));
    check(&long(CHAIN_LENGTH_MAX + 1), failed.clone());
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotZone] {
        check(&with(code, vec![a(www, 60, 1)], vec![]), failed.clone());
    }
    check(&with(ResponseCode::FormErr, vec![], vec![]), Ok(Reply::EdnsRefused));

    let mut referral = response(NoError);
    referral.metadata.recursion_available = false;
    referral.add_authority(Record::from_rdata(other("com."), 60, RData::NS(NS(other("ns.example.")))));
    check(&referral.to_vec().unwrap(), failed);
    let mut truncated = response(NoError);
    truncated.metadata.truncation = true;
    check(&truncated.to_vec().unwrap(), Ok(Reply::Truncated));
}

#[test]
fn only_answers_to_our_question_are_believed() {
    let good = with(ResponseCode::NoError, vec![a("www.example.com.", 60, 1)], vec![]);
    check(&good, addresses(60, &[1]));
    assert_eq!(read(&good, ID + 1, &name(), Kind::A), Err(NotOurs), "another id");
    assert_eq!(read(&good, ID, &name(), Kind::Aaaa), Err(NotOurs), "another type");
    for text in ["ww.example.com", "www.example.co", "example.com", "a.www.example.com"] {
        assert_eq!(read(&good, ID, &Name::parse(text).unwrap(), Kind::A), Err(NotOurs), "{text}");
    }
    let broken = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    check(&broken(2, 0x01), Err(NotOurs)); // A query.
    check(&broken(2, 0xa9), Err(NotOurs)); // Another opcode.
    check(&broken(5, 0), Err(NotOurs)); // No question.
    check(&broken(5, 2), Err(NotOurs)); // Two.
    check(&broken(12 + 17 + 3, 3), Err(NotOurs)); // Another class.
    for length in 0..good.len() {
        let reply = read(&good[..length], ID, &name(), Kind::A);
        assert!(matches!(reply, Err(NotOurs) | Ok(Reply::ServerFailed)), "cut at {length}: {reply:?}");
    }
}

#[test]
fn vectors() {
    // One a line: a word for what is expected, then the message in hexadecimal, blanks as one likes; `#` comments.
    let text = include_str!("../../../tests/data/dns/messages.txt");
    let mut count = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (expected, hex) = line.split_once(' ').unwrap();
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        let expected = match expected {
            "not_ours" => Err(NotOurs),
            "failed" => Ok(Reply::ServerFailed),
            "edns_refused" => Ok(Reply::EdnsRefused),
            "truncated" => Ok(Reply::Truncated),
            "no_data" => Ok(Reply::Answer(Answer::NoData(None))),
            "no_name" => Ok(Reply::Answer(Answer::NoName(None))),
            "192.0.2.1" => addresses(60, &[1]),
            unknown => panic!("{unknown}"),
        };
        check(&bytes, expected);
        count += 1;
    }
    assert!(count >= 12, "vectors were found: {count}");
}

#[test]
fn of_too_many_addresses_the_lowest_are_kept_whatever_their_order() {
    let record = |n: u32| Record::from_rdata(other("www.example.com."), 60, RData::A(A(n.into())));
    let mut kept = Vec::new();
    for turn in [0, 1, 500, 999] {
        let mut records: Vec<Record> = (0..1_000).map(record).collect();
        records.rotate_left(turn);
        let Ok(Reply::Answer(Answer::Addresses { addresses, .. })) =
            read(&with(ResponseCode::NoError, records, vec![]), ID, &name(), Kind::A)
        else {
            panic!()
        };
        kept.push(addresses);
    }
    assert_eq!(kept[0].len(), ADDRESSES_MAX);
    assert_eq!(kept[0].last(), Some(&IpAddr::from([0, 0, 0, 63])));
    assert!(kept.iter().all(|addresses| *addresses == kept[0]));
}

/// A 64 KiB message whose names are chains of compression pointers, each one in front of the one before: our id and
/// question first. A decoder that follows them all takes thousands of steps for each of thousands of names.
fn pointer_chains() -> Vec<u8> {
    let mut message = query(ID, &name(), Kind::A, false);
    message[2] |= 0x80;
    // An unknown record whose data is a chain: a pointer to the question's name, then each to the one before.
    message.extend(b"\x00\xff\x00\x00\x01\x00\x00\x00\x00");
    let length_at = message.len();
    message.extend([0, 0]);
    let mut target = 12_usize;
    while message.len() < 0x3ffe {
        let at = message.len();
        message.extend([0xc0 | (target >> 8) as u8, (target & 0xff) as u8]);
        target = at;
    }
    let data_bytes = message.len() - length_at - 2;
    message[length_at..length_at + 2].copy_from_slice(&[(data_bytes >> 8) as u8, (data_bytes & 0xff) as u8]);
    let mut answers = 1_u16;
    while message.len() + 16 <= usize::from(u16::MAX) {
        message.extend([0xc0 | (target >> 8) as u8, (target & 0xff) as u8]);
        message.extend(b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        answers += 1;
    }
    message[6..8].copy_from_slice(&[(answers >> 8) as u8, (answers & 0xff) as u8]);
    message
}

#[test]
fn chains_of_pointers_are_not_followed_for_long() {
    // Work is counted by time here, generously: followed to their ends, these are 33 million steps.
    let message = pointer_chains();
    let started = crate::clock::Mono::now();
    for _ in 0..10 {
        check(&message, Ok(Reply::Answer(Answer::NoData(None))));
    }
    let each = crate::clock::Mono::now().since(started) / 10;
    println!("{} bytes of pointers: {each:?}", message.len());
    if let Ok(other) = std::env::var("DNS_ORACLE_COST") {
        let started = crate::clock::Mono::now();
        let result = Message::from_vec(&message).map(|message| message.answers.len());
        println!("hickory-proto ({other}): {:?}, {result:?}", crate::clock::Mono::now().since(started));
    }
    assert!(each < std::time::Duration::from_millis(50), "{each:?}");
}

/// What hickory-proto makes of a message, in our words; `None` where the two may differ for good reasons.
fn oracle(bytes: &[u8]) -> Option<(Vec<IpAddr>, u32)> {
    let message = Message::from_vec(bytes).ok()?;
    let mut owner = message.queries[0].name().to_lowercase();
    let mut ttl_s = u32::MAX;
    for _ in 0..=CHAIN_LENGTH_MAX {
        let of = |record: &&Record| record.name.to_lowercase() == owner;
        let next = message.answers.iter().filter(of).find_map(|record| match &record.data {
            RData::CNAME(CNAME(target)) => Some((target.to_lowercase(), record.ttl)),
            _ => None,
        });
        let Some((target, link_ttl_s)) = next else { break };
        ttl_s = ttl_s.min(link_ttl_s);
        owner = target;
    }
    let mut found = Vec::new();
    for record in message.answers.iter().filter(|record| record.name.to_lowercase() == owner) {
        match &record.data {
            RData::A(A(address)) => found.push(IpAddr::V4(*address)),
            RData::AAAA(AAAA(_)) | RData::CNAME(_) => continue,
            _ => continue,
        }
        ttl_s = ttl_s.min(record.ttl);
    }
    found.sort_unstable();
    found.dedup();
    Some((found, ttl_s))
}

/// A few records around a few names, so that chains come about by chance.
fn records() -> impl Strategy<Value = Vec<Record>> {
    let names = ["www.example.com.", "a.example.", "b.example.", "c.a.example.", "WWW.EXAMPLE.com."];
    let record = (0..5_usize, 0..5_usize, 0..3_u8, 0..200_u32, 0..10_u8).prop_map(
        move |(owner, target, sort, ttl, last)| match sort {
            0 => cname(names[owner], ttl, names[target]),
            1 => a(names[owner], ttl, last),
            _ => {
                let address = format!("2001:db8::{last}").parse().unwrap();
                Record::from_rdata(other(names[owner]), ttl, RData::AAAA(AAAA(address)))
            }
        },
    );
    prop::collection::vec(record, 0..8)
}

proptest! {
    #[test]
    fn another_implementation_agrees(records in records()) {
        // One alias per name: with two, which one is followed is a matter of taste.
        let mut aliased = std::collections::HashSet::new();
        let records: Vec<Record> = records
            .into_iter()
            .filter(|record| !matches!(record.data, RData::CNAME(_)) || aliased.insert(record.name.to_lowercase()))
            .collect();
        let bytes = with(ResponseCode::NoError, records, vec![]);
        let (found, ttl_s) = oracle(&bytes).unwrap();
        match read(&bytes, ID, &name(), Kind::A).unwrap() {
            Reply::Answer(Answer::Addresses { addresses, ttl_s: ours_s }) => {
                prop_assert_eq!(addresses, found);
                prop_assert_eq!(ours_s, ttl_s);
            }
            Reply::Answer(Answer::NoData(None)) => prop_assert_eq!(found, Vec::<IpAddr>::new()),
            // A loop: the oracle goes round until its bound, and sees what stands where it stops.
            Reply::ServerFailed => {}
            reply => prop_assert!(false, "{:?}", reply),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        super::super::invariants::check(&bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(
        records in records(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = with(ResponseCode::NoError, records, vec![soa(60, 60)]);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 4);
        super::super::invariants::check(&bytes);
    }
}
