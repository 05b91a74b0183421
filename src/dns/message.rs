//! DNS messages: one question out, and what an answer to it says.
//!
//! ```text
//! 0       2        4        6        8        10       12
//! ├─ id ──┼ flags ─┼ qdcount┼ ancount┼ nscount┼ arcount┼ question ┼ answers ┼ authority ┼ additional …
//!          QR opcode AA TC RD · RA Z AD CD rcode
//! ```
//!
//! [`read`] walks a message in place and builds nothing but the addresses it hands back. Names are compared where
//! they stand. A general decoder builds each of them, and follows compression pointers as long as they lead
//! backwards: 64 KiB of such chains, which one hostile answer can hold, took hickory-proto 0.26.3 148 ms of a shard's
//! time, and take 0.2 ms here, where a name has at most [`POINTERS_MAX`] of them (the test `chains_of_pointers…`,
//! with `DNS_ORACLE_COST` set, development profile). The additional section is of no use, and not looked at.
//!
//! In scope: A and AAAA, CNAME chains, NXDOMAIN and NODATA with their SOA (RFC 2308), truncation, EDNS(0) for
//! its buffer size alone (RFC 6891). Out of scope: who asks whom and when ([`super::Resolver`]), DNSSEC (the
//! resolver that we ask validates, or does not).
//!
//! Invariants: no message is believed whose id or question is not ours; addresses handed back are of the type
//! asked for, sorted, distinct, and at most [`ADDRESSES_MAX`]; no bytes make it panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{NAME_BYTES_MAX, Name};

/// Largest answer over UDP that we ask for: fits one Ethernet frame over IPv6, so that it is never fragmented
/// (the DNS flag day of 2020 agreed on it).
pub const UDP_ANSWER_BYTES_MAX: u16 = 1232;
/// Most addresses kept of one answer. Where there are more, the lowest are kept: servers rotate the order, and
/// another choice with every answer would look like a change.
pub const ADDRESSES_MAX: usize = 64;
/// Longest chain of CNAMEs that is followed; BIND stops at 16, Unbound at 11.
pub const CHAIN_LENGTH_MAX: usize = 16;
/// Most compression pointers in one name. Servers need one per name, two now and then.
pub const POINTERS_MAX: usize = 16;
/// Longest message over TCP: its length is 16 bits (RFC 1035, section 4.2.2).
pub const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

const HEADER_BYTES: usize = 12;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// What a server said to our question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What is the case.
    Answer(Answer),
    /// The answer did not fit: it must be asked for over TCP.
    Truncated,
    /// The server does not know EDNS, or says so: the question must be put without it.
    EdnsRefused,
    /// The server failed, refused, sent us to somebody else, or its answer is broken.
    ServerFailed,
}

/// What is the case, and for how many seconds: for a negative answer, if the server said so (RFC 2308).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are addresses.
    Addresses {
        /// Sorted and distinct; at least one.
        addresses: Vec<IpAddr>,
        /// The least over the chain that led to them.
        ttl_s: u32,
    },
    /// The name exists, without addresses of this kind.
    NoData(Option<u32>),
    /// The name does not exist.
    NoName(Option<u32>),
}

/// The message is no answer to our question: another's, a stray, or a forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

/// The bytes of a query for the addresses of `name`: recursion desired, EDNS(0) if `edns`.
#[must_use]
pub fn query(id: u16, name: &Name, kind: Kind, edns: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_BYTES + name.wire().len() + 4 + 11);
    let mut put = |value: u16| message.extend(network_order(value));
    put(id);
    put(0x0100); // A query, recursion desired.
    [1, 0, 0, u16::from(edns)].into_iter().for_each(&mut put);
    message.extend(name.wire());
    let mut put = |value: u16| message.extend(network_order(value));
    put(kind.code());
    put(CLASS_IN);
    if edns {
        // The root's name, the type, our buffer's size as class; extended code, version and flags zero; no data.
        message.push(0);
        let mut put = |value: u16| message.extend(network_order(value));
        [TYPE_OPT, UDP_ANSWER_BYTES_MAX, 0, 0, 0].into_iter().for_each(&mut put);
    }
    message
}

/// Puts the length in front that TCP needs (RFC 1035, section 4.2.2).
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a query is at most 300 bytes");
    [&network_order(length)[..], message].concat()
}

/// What `message` says to the query `id` for the addresses of `name`.
pub fn read(message: &[u8], id: u16, name: &Name, kind: Kind) -> Result<Reply, NotOurs> {
    let header = Header::read(message).ok_or(NotOurs)?;
    if header.id != id || !header.is_response || header.opcode != 0 {
        return Err(NotOurs);
    }
    let rcode = header.rcode;
    // A server that cannot read the query, for its EDNS, cannot repeat its question either.
    if header.questions == 0 && rcode == Rcode::FORMAT_ERROR {
        return Ok(Reply::EdnsRefused);
    }
    if header.questions != 1 {
        return Err(NotOurs);
    }
    let mut walk = Walk { message, at: HEADER_BYTES };
    match walk.question() {
        Some((at, asked, class)) if asked == kind.code() && class == CLASS_IN => {
            if !name_is(message, at, name.wire()) {
                return Err(NotOurs);
            }
        }
        _ => return Err(NotOurs),
    }
    if header.is_truncated {
        return Ok(Reply::Truncated);
    }
    Ok(match rcode {
        Rcode::NO_ERROR | Rcode::NO_NAME => {
            sections(walk, header, name, kind).map_or(Reply::ServerFailed, Reply::Answer)
        }
        Rcode::FORMAT_ERROR | Rcode::NOT_IMPLEMENTED => Reply::EdnsRefused,
        _ => Reply::ServerFailed,
    })
}

/// What answers and authority say; `None` if that is broken, or no answer.
fn sections(mut walk: Walk<'_>, header: Header, name: &Name, kind: Kind) -> Option<Answer> {
    let message = walk.message;
    let answers_at = walk.at;
    // Once over all of it, so that a message broken anywhere is not believed in part.
    for _ in 0..header.answers {
        walk.record()?;
    }
    let mut authority = walk;

    let mut owner = Owner::start(name);
    let mut chain_length = 0;
    let mut chain_ttl_s = u32::MAX;
    let mut found = Found { ttl_s: u32::MAX, addresses: Vec::new() };
    // Records may come in any order, and nearly always the chain is in order and in front: then one pass follows
    // all of it, and a second one sees that nothing is left. Each pass but the last goes a link further.
    loop {
        let mut progress = false;
        found.clear();
        let mut walk = Walk { message, at: answers_at };
        for _ in 0..header.answers {
            let record = walk.record()?;
            if record.class != CLASS_IN || !owner.is(message, record.name_at) {
                continue;
            }
            if record.kind == TYPE_CNAME {
                chain_length += 1;
                if chain_length > CHAIN_LENGTH_MAX {
                    return None;
                }
                chain_ttl_s = chain_ttl_s.min(record.ttl_s);
                owner = Owner::read(message, record.data_at, record.data_at + record.data.len())?;
                found.clear();
                progress = true;
            } else if record.kind == kind.code() {
                found.keep(address(kind, record.data)?, record.ttl_s);
            }
        }
        if !progress {
            break;
        }
    }
    if !found.addresses.is_empty() && header.rcode == Rcode::NO_ERROR {
        let ttl_s = found.ttl_s.min(chain_ttl_s);
        return Some(Answer::Addresses { addresses: found.addresses, ttl_s });
    }

    let mut negative_ttl_s = None;
    for _ in 0..header.authorities {
        let record = authority.record()?;
        if record.class == CLASS_IN && record.kind == TYPE_SOA {
            let soa_ttl_s = record.ttl_s.min(soa_minimum_s(message, &record)?);
            negative_ttl_s = Some(soa_ttl_s.min(chain_ttl_s));
        }
    }
    if header.rcode == Rcode::NO_NAME {
        return Some(Answer::NoName(negative_ttl_s));
    }
    // "Ask them instead": what an authoritative server says to a question that is not its own, and what a
    // resolver that does not resolve would pass on. It is no answer (RFC 2308, section 2.2).
    let is_referral = header.answers == 0 && header.authorities > 0 && negative_ttl_s.is_none();
    if is_referral && !header.is_authoritative && !header.recursion_available {
        return None;
    }
    Some(Answer::NoData(negative_ttl_s))
}

/// The addresses found so far, lowest first.
#[derive(Debug)]
struct Found {
    ttl_s: u32,
    addresses: Vec<IpAddr>,
}

impl Found {
    fn clear(&mut self) {
        self.addresses.clear();
        self.ttl_s = u32::MAX;
    }

    fn keep(&mut self, address: IpAddr, ttl_s: u32) {
        self.ttl_s = self.ttl_s.min(ttl_s);
        let Err(index) = self.addresses.binary_search(&address) else { return };
        if index < ADDRESSES_MAX {
            self.addresses.truncate(ADDRESSES_MAX - 1);
            self.addresses.insert(index, address);
        }
    }
}

fn address(kind: Kind, data: &[u8]) -> Option<IpAddr> {
    match kind {
        Kind::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        Kind::Aaaa => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
    }
}

/// The last of an SOA's numbers, which bounds how long "there is none" holds (RFC 2308, section 4).
fn soa_minimum_s(message: &[u8], record: &Record<'_>) -> Option<u32> {
    let end = record.data_at + record.data.len();
    let primary_end = skip_name(message, record.data_at)?;
    let numbers_at = skip_name(message, primary_end)?;
    if numbers_at.checked_add(20)? != end {
        return None;
    }
    read_u32(message, end - 4).map(ttl)
}

/// Whose records are looked for, in lower case: the name asked for, or where a CNAME led.
struct Owner {
    wire: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Owner {
    fn start(name: &Name) -> Self {
        let mut wire = [0; NAME_BYTES_MAX];
        let length = name.wire().len();
        wire[..length].copy_from_slice(name.wire());
        Self { wire, length }
    }

    /// The name at `at`, whose uncompressed part must end at `end`.
    fn read(message: &[u8], at: usize, end: usize) -> Option<Self> {
        if skip_name(message, at)? != end {
            return None;
        }
        let mut wire = [0; NAME_BYTES_MAX];
        let mut length = 0;
        let mut labels = Labels::new(message, at);
        while let Some(label) = labels.next()? {
            // Room for the length, the label and the final zero.
            if length + 1 + label.len() + 1 > NAME_BYTES_MAX {
                return None;
            }
            wire[length] = u8::try_from(label.len()).ok()?;
            let place = &mut wire[length + 1..length + 1 + label.len()];
            place.copy_from_slice(label);
            place.make_ascii_lowercase();
            length += 1 + label.len();
        }
        Some(Self { wire, length: length + 1 })
    }

    fn is(&self, message: &[u8], at: usize) -> bool {
        name_is(message, at, &self.wire[..self.length])
    }
}

/// Whether the name at `at` is the one that `wire` spells in lower case.
fn name_is(message: &[u8], at: usize, wire: &[u8]) -> bool {
    let mut labels = Labels::new(message, at);
    let mut rest = wire;
    loop {
        let Some(label) = labels.next() else { return false };
        let Some((&length, after)) = rest.split_first() else { return false };
        match label {
            None => return length == 0,
            Some(label) => {
                let Some((expected, after)) = after.split_at_checked(usize::from(length)) else {
                    return false;
                };
                if !label.eq_ignore_ascii_case(expected) {
                    return false;
                }
                rest = after;
            }
        }
    }
}

/// Where the name that begins at `at` ends, pointers not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let length = *message.get(at)?;
        match length >> 6 {
            0b00 if length == 0 => return Some(at + 1),
            0b00 => at += 1 + usize::from(length),
            0b11 => return (at + 2 <= message.len()).then_some(at + 2),
            _ => return None,
        }
        if at - start >= NAME_BYTES_MAX {
            return None;
        }
    }
}

/// The labels of a name in a message, through its compression pointers.
struct Labels<'m> {
    message: &'m [u8],
    at: usize,
    /// Pointers must lead in front of everything read so far: that alone rules out loops.
    lowest: usize,
    pointers: usize,
}

impl<'m> Labels<'m> {
    const fn new(message: &'m [u8], at: usize) -> Self {
        Self { message, at, lowest: at, pointers: 0 }
    }

    /// The next label, `Some(None)` at the end of the name, `None` if it is broken.
    #[expect(clippy::option_option, reason = "the outer one is for `?`")]
    fn next(&mut self) -> Option<Option<&'m [u8]>> {
        loop {
            let length = *self.message.get(self.at)?;
            match length >> 6 {
                0b00 if length == 0 => return Some(None),
                0b00 => {
                    let start = self.at + 1;
                    self.at = start + usize::from(length);
                    return self.message.get(start..self.at).map(Some);
                }
                0b11 => {
                    let target = usize::from(read_u16(self.message, self.at)? & 0x3fff);
                    self.pointers += 1;
                    if target >= self.lowest || self.pointers > POINTERS_MAX {
                        return None;
                    }
                    self.at = target;
                    self.lowest = target;
                }
                _ => return None,
            }
        }
    }
}

/// A position between two parts of a message.
#[derive(Clone, Copy)]
struct Walk<'m> {
    message: &'m [u8],
    at: usize,
}

/// One resource record, its name not read.
struct Record<'m> {
    name_at: usize,
    kind: u16,
    class: u16,
    ttl_s: u32,
    data_at: usize,
    data: &'m [u8],
}

impl<'m> Walk<'m> {
    /// Where the question's name is, its type and its class.
    fn question(&mut self) -> Option<(usize, u16, u16)> {
        let name_at = self.at;
        let fields_at = skip_name(self.message, name_at)?;
        self.at = fields_at + 4;
        Some((name_at, read_u16(self.message, fields_at)?, read_u16(self.message, fields_at + 2)?))
    }

    fn record(&mut self) -> Option<Record<'m>> {
        let name_at = self.at;
        let fields_at = skip_name(self.message, name_at)?;
        let data_at = fields_at + 10;
        let data_bytes = usize::from(read_u16(self.message, fields_at + 8)?);
        let data = self.message.get(data_at..data_at + data_bytes)?;
        self.at = data_at + data_bytes;
        Some(Record {
            name_at,
            kind: read_u16(self.message, fields_at)?,
            class: read_u16(self.message, fields_at + 2)?,
            ttl_s: ttl(read_u32(self.message, fields_at + 4)?),
            data_at,
            data,
        })
    }
}

/// Response codes (RFC 1035, section 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rcode(u16);

impl Rcode {
    const NO_ERROR: Self = Self(0);
    const FORMAT_ERROR: Self = Self(1);
    const NO_NAME: Self = Self(3);
    const NOT_IMPLEMENTED: Self = Self(4);
}

#[derive(Clone, Copy)]
struct Header {
    id: u16,
    is_response: bool,
    opcode: u16,
    is_authoritative: bool,
    is_truncated: bool,
    recursion_available: bool,
    rcode: Rcode,
    questions: u16,
    answers: u16,
    authorities: u16,
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        // The count of additional records, which nobody reads, must be there too.
        let flags = read_u16(message, 2)?;
        read_u16(message, 10)?;
        Some(Self {
            id: read_u16(message, 0)?,
            is_response: flags & 0x8000 != 0,
            opcode: flags >> 11 & 0xf,
            is_authoritative: flags & 0x0400 != 0,
            is_truncated: flags & 0x0200 != 0,
            recursion_available: flags & 0x0080 != 0,
            rcode: Rcode(flags & 0xf),
            questions: read_u16(message, 4)?,
            answers: read_u16(message, 6)?,
            authorities: read_u16(message, 8)?,
        })
    }
}

/// A time to live with its highest bit set is zero (RFC 2181, section 8).
const fn ttl(seconds: u32) -> u32 {
    if seconds > i32::MAX.cast_unsigned() { 0 } else { seconds }
}

/// The length in front of a message over TCP, once both its bytes are there.
#[must_use]
pub(super) fn frame_length(bytes: &[u8]) -> Option<usize> {
    read_u16(bytes, 0).map(usize::from)
}

#[expect(clippy::big_endian_bytes, reason = "the network's order")]
fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

#[expect(clippy::big_endian_bytes, reason = "the network's order")]
fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[expect(clippy::big_endian_bytes, reason = "the network's order")]
const fn network_order(value: u16) -> [u8; 2] {
    value.to_be_bytes()
}
