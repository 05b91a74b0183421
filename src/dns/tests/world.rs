//! A simulated world for the resolver: names, servers with bad habits, a clock, and a check at every step.
//!
//! [`World`] is the driver. What it checks whenever the resolver does or says anything:
//!
//! - a question is in flight once at most, and each query is closed exactly once;
//! - a wake ends lookups that were pending, exactly once for each name and mode;
//! - addresses handed out are those of the newest answer that was delivered, all of them and nothing else, within its
//!   time or flagged, and never those of a forgery;
//! - queries in flight are bounded.
//!
//! Messages are written and read with hickory-proto: another implementation than the one under test.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::clock::{Micros, Mono};
use crate::dns::Entropy;
use crate::dns::conf::Settings;
use crate::dns::resolver::{Action, Family, Known, Lookup, Mode, NameId, QueryId, Resolver, Transport};
use crate::sample::Failure;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// What no honest server ever says.
const FORGED: Ipv4Addr = Ipv4Addr::new(6, 6, 6, 6);
/// Each question is asked at this instant or later, so that subtracting from it is safe.
pub(super) const START: Mono = Mono(1_000 * SECOND);

/// What a name has.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
    pub(super) ttl_s: u32,
    /// Names between this one and its addresses.
    pub(super) aliases: u32,
    /// The last alias leads back to the first.
    pub(super) is_loop: bool,
}

impl Host {
    pub(super) fn v4(last: u8, ttl_s: u32) -> Self {
        Self { v4: vec![Ipv4Addr::new(192, 0, 2, last)], ttl_s, ..Self::default() }
    }

    fn addresses(&self, kind: RecordType) -> Vec<IpAddr> {
        if self.is_loop {
            return Vec::new();
        }
        let mut addresses: Vec<IpAddr> = match kind {
            RecordType::A => self.v4.iter().map(|address| (*address).into()).collect(),
            _ => self.v6.iter().map(|address| (*address).into()).collect(),
        };
        addresses.sort_unstable();
        addresses
    }
}

/// How a server behaves. Percentages of its answers; 0 or false is how it should be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Says nothing at all.
    pub(super) dead: bool,
    /// Nobody listens: the port answers with an ICMP error.
    pub(super) closed: bool,
    pub(super) loses: u64,
    pub(super) fails: u64,
    pub(super) truncates: u64,
    /// A datagram with another id, and a forged address, comes before the answer.
    pub(super) wrong_id: u64,
    /// The same with another question.
    pub(super) wrong_question: u64,
    pub(super) garbage: u64,
    pub(super) refuses_edns: bool,
    /// An answer takes up to this.
    pub(super) delay_max_ns: u64,
}

#[derive(Debug)]
enum Event {
    /// Bytes, and what is known once they were read, if they end an honest answer.
    Bytes(QueryId, Vec<u8>, Option<Truth>),
    Broken(QueryId),
}

type Question = (String, RecordType);
/// What was delivered when, and when its time is over.
#[derive(Debug)]
struct Delivered {
    addresses: Vec<IpAddr>,
    at: Mono,
    expires: Mono,
}

/// Addresses, and for how long.
type Truth = (Vec<IpAddr>, Micros);

pub(super) struct World {
    pub(super) resolver: Resolver,
    pub(super) now: Mono,
    pub(super) zone: HashMap<String, Host>,
    pub(super) habits: Vec<Habits>,
    pub(super) random: Entropy,
    pub(super) asked: Vec<(String, RecordType, usize, Transport)>,
    pub(super) wakes: Vec<(NameId, Mode, Result<Known, Failure>)>,
    pub(super) records_asked: bool,
    servers: Vec<std::net::SocketAddr>,
    queries_max: usize,
    stale_max: Micros,
    open: HashMap<QueryId, Question>,
    in_flight: BTreeSet<Question>,
    seen_queries: BTreeSet<QueryId>,
    agenda: BTreeMap<(Mono, u64), Event>,
    events: u64,
    waiting: BTreeMap<(NameId, Mode), Mono>,
    /// The newest honest answer that was delivered, per question.
    delivered: HashMap<Question, Delivered>,
    /// The names that each id may stand for, to know what it may be given.
    names: HashMap<NameId, (Vec<String>, Family)>,
}

impl World {
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        let servers = settings.servers.clone();
        Self {
            queries_max: settings.queries_max,
            stale_max: settings.stale_max,
            resolver: Resolver::new(settings, Entropy::seeded(seed)),
            now: START,
            zone: HashMap::new(),
            habits: vec![Habits { delay_max_ns: 20 * MS, ..Habits::default() }; servers.len()],
            random: Entropy::seeded(seed ^ 0x5eed),
            asked: Vec::new(),
            wakes: Vec::new(),
            records_asked: false,
            servers,
            open: HashMap::new(),
            in_flight: BTreeSet::new(),
            seen_queries: BTreeSet::new(),
            agenda: BTreeMap::new(),
            events: 0,
            waiting: BTreeMap::new(),
            delivered: HashMap::new(),
            names: HashMap::new(),
        }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random.number() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Interns a name; `candidates` are the full names it may be found as.
    pub(super) fn intern(&mut self, name: &str, family: Family, candidates: &[&str]) -> NameId {
        let id = self.resolver.intern(name, family);
        let candidates = candidates.iter().map(|name| (*name).to_owned()).collect();
        self.names.insert(id, (candidates, family));
        id
    }

    pub(super) fn lookup(&mut self, id: NameId, mode: Mode) -> Lookup {
        let lookup = self.resolver.lookup(id, mode, self.now);
        match &lookup {
            Lookup::Known(known) => self.check_known(id, known, (mode == Mode::Every).then_some(self.now)),
            Lookup::Pending => {
                self.waiting.entry((id, mode)).or_insert(self.now);
            }
            Lookup::Failed(_) => {}
        }
        self.settle();
        lookup
    }

    /// A lookup that must be waited for, up to `patience`.
    pub(super) fn resolve(&mut self, id: NameId, mode: Mode, patience: u64) -> Result<Known, Failure> {
        match self.lookup(id, mode) {
            Lookup::Known(known) => return Ok(known),
            Lookup::Failed(failure) => return Err(failure),
            Lookup::Pending => {}
        }
        let end = Mono(self.now.0 + patience);
        while self.waiting.contains_key(&(id, mode)) {
            assert!(self.now < end, "{:?} {mode:?} was not woken", self.names[&id]);
            self.advance(Mono(self.now.0 + MS));
        }
        let woken = self.wakes.iter().rev().find(|(name, woken, _)| *name == id && *woken == mode);
        woken.expect("it was just woken").2.clone()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn open_queries(&self) -> usize {
        self.open.len()
    }

    pub(super) fn advance_by(&mut self, ns: u64) {
        self.advance(Mono(self.now.0 + ns));
    }

    /// Lets time pass: deliveries and timers in their order.
    pub(super) fn advance(&mut self, to: Mono) {
        loop {
            let delivery = self.agenda.keys().next().map(|(at, _)| *at);
            let timer = self.resolver.next_wake();
            let next = delivery.into_iter().chain(timer).min().filter(|at| *at <= to);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if delivery.is_some_and(|at| at <= self.now) {
                let (_, event) = self.agenda.pop_first().expect("just looked at");
                self.deliver(event);
            }
            if self.resolver.next_wake().is_some_and(|at| at <= self.now) {
                self.resolver.expire(self.now);
                assert!(self.resolver.next_wake().is_none_or(|at| at > self.now), "what is due is done");
            }
            self.settle();
        }
        self.now = self.now.max(to);
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Bytes(query, bytes, truth) => {
                if let (Some(question), Some((addresses, ttl))) = (self.open.get(&query), truth) {
                    let delivered = Delivered { addresses, at: now, expires: now + ttl };
                    self.delivered.insert(question.clone(), delivered);
                }
                self.resolver.answered(query, &bytes, now, now);
            }
            Event::Broken(query) => self.resolver.failed(query, now),
        }
    }

    /// Does what the resolver wants.
    fn settle(&mut self) {
        while let Some(action) = self.resolver.poll(self.now) {
            match action {
                Action::Ask { query, server, transport, message } => {
                    let number = self.servers.iter().position(|address| *address == server);
                    self.ask(query, number.expect("one of the servers"), transport, &message);
                }
                Action::Close { query } => {
                    let open = self.open.remove(&query).expect("a query is closed once");
                    assert!(self.in_flight.remove(&open));
                }
                Action::Wake { name, mode, result, at } => {
                    let since = self.waiting.remove(&(name, mode));
                    let since =
                        since.unwrap_or_else(|| panic!("nobody waits for {:?} {mode:?}", self.names[&name]));
                    assert!(at <= self.now && at >= START);
                    match &result {
                        Ok(known) => self.check_known(name, known, (mode == Mode::Every).then_some(since)),
                        Err(failure) => assert!(matches!(
                            failure,
                            Failure::DnsNotFound | Failure::DnsTimeout | Failure::DnsFailed
                        )),
                    }
                    assert!(!matches!((mode, &result), (Mode::Every, Ok(known)) if known.stale));
                    self.wakes.push((name, mode, result));
                }
            }
            assert!(self.open.len() <= self.queries_max, "queries in flight are bounded");
        }
        assert_eq!(self.open.len(), self.resolver.in_flight());
    }

    fn ask(&mut self, query: QueryId, server: usize, transport: Transport, message: &[u8]) {
        assert!(self.seen_queries.insert(query), "an id is used once");
        let message = match transport {
            Transport::Udp => message,
            Transport::Tcp => {
                assert_eq!(usize::from(message[0]) << 8 | usize::from(message[1]), message.len() - 2);
                &message[2..]
            }
        };
        let asked = Message::from_vec(message).expect("a query is well formed");
        assert_eq!(
            (asked.metadata.message_type, asked.metadata.recursion_desired),
            (MessageType::Query, true)
        );
        assert_eq!((asked.queries.len(), asked.answers.len(), asked.additionals.len()), (1, 0, 0));
        let name = asked.queries[0].name().to_ascii().trim_end_matches('.').to_owned();
        let question = (name, asked.queries[0].query_type());
        assert!(self.in_flight.insert(question.clone()), "{question:?} is in flight twice");
        if self.records_asked {
            self.asked.push((question.0.clone(), question.1, server, transport));
        }
        self.open.insert(query, question.clone());
        self.answer(query, &asked, &question, self.habits[server], transport);
    }

    fn answer(
        &mut self,
        query: QueryId,
        asked: &Message,
        question: &Question,
        habits: Habits,
        transport: Transport,
    ) {
        if habits.dead || self.percent(habits.loses) {
            return;
        }
        let at = Mono(self.now.0 + 1 + self.below(habits.delay_max_ns + 1));
        if habits.closed {
            return self.schedule(at, Event::Broken(query));
        }
        let mut forgery = Message::response(asked.metadata.id, OpCode::Query);
        let forged = Record::from_rdata(asked.queries[0].name().clone(), 3_600, RData::A(A(FORGED)));
        forgery.add_query(asked.queries[0].clone()).add_answer(forged);
        if transport == Transport::Udp && self.percent(habits.wrong_id) {
            forgery.metadata.id ^= 1;
            self.schedule(Mono(at.0 - 1), Event::Bytes(query, forgery.to_vec().unwrap(), None));
            forgery.metadata.id ^= 1;
        }
        if transport == Transport::Udp && self.percent(habits.wrong_question) {
            forgery.queries[0].set_name(Name::from_str("forged.example.").unwrap());
            self.schedule(Mono(at.0 - 1), Event::Bytes(query, forgery.to_vec().unwrap(), None));
        }
        if transport == Transport::Udp && self.percent(habits.garbage) {
            let garbage = (0..self.below(600)).map(|_| (self.random.number() >> 56) as u8).collect();
            self.schedule(Mono(at.0 - 1), Event::Bytes(query, garbage, None));
        }

        let (mut reply, mut truth) = self.honest(asked, question);
        if habits.refuses_edns && asked.edns.is_some() {
            reply = Message::error_msg(asked.metadata.id, OpCode::Query, ResponseCode::FormErr);
            truth = None;
        } else if self.percent(habits.fails) {
            reply = Message::response(asked.metadata.id, OpCode::Query);
            reply.add_query(asked.queries[0].clone());
            let codes = [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::YXDomain];
            reply.metadata.response_code = codes[self.below(3) as usize];
            truth = None;
        } else if transport == Transport::Udp && self.percent(habits.truncates) {
            reply.metadata.truncation = true;
            reply.answers.clear();
            truth = None;
        }
        let mut bytes = reply.to_vec().unwrap();
        if transport == Transport::Tcp {
            let length = u16::try_from(bytes.len()).unwrap();
            bytes.splice(0..0, [(length >> 8) as u8, (length & 0xff) as u8]);
            while bytes.len() > 1 {
                let cut = 1 + self.below(bytes.len() as u64 - 1) as usize;
                let rest = bytes.split_off(cut);
                self.schedule(at, Event::Bytes(query, bytes, None));
                bytes = rest;
            }
        }
        self.schedule(at, Event::Bytes(query, bytes, truth));
    }

    fn schedule(&mut self, at: Mono, event: Event) {
        self.events += 1;
        self.agenda.insert((at.max(self.now), self.events), event);
    }

    /// What an honest server says, and what is true from then on.
    fn honest(&mut self, asked: &Message, question: &Question) -> (Message, Option<(Vec<IpAddr>, Micros)>) {
        let mut reply = Message::response(asked.metadata.id, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.add_query(asked.queries[0].clone());
        let mut owner = asked.queries[0].name().clone();
        let host = self.zone.get(&question.0).cloned();
        let addresses = host.as_ref().map(|host| host.addresses(question.1)).unwrap_or_default();
        if let Some(host) = &host {
            for link in 0..host.aliases {
                let last_leads_back = host.is_loop && link + 1 == host.aliases;
                let next = if last_leads_back {
                    asked.queries[0].name().clone()
                } else {
                    Name::from_str(&format!("alias{link}.{}.", question.0)).unwrap()
                };
                reply.add_answer(Record::from_rdata(
                    owner,
                    host.ttl_s + 5,
                    RData::CNAME(CNAME(next.clone())),
                ));
                owner = next;
            }
            let mut shuffled = addresses.clone();
            let turn = self.random.number() as usize % shuffled.len().max(1);
            shuffled.rotate_left(turn);
            for address in shuffled {
                let data = match address {
                    IpAddr::V4(address) => RData::A(A(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                };
                reply.add_answer(Record::from_rdata(owner.clone(), host.ttl_s, data));
            }
        } else {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        if addresses.is_empty() {
            let root = Name::from_str("example.").unwrap();
            let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 30);
            reply.add_authority(Record::from_rdata(root, 600, RData::SOA(soa)));
        }
        let ttl_s = u64::from(host.map_or(0, |host| host.ttl_s)).max(1);
        let is_loop = self.zone.get(&question.0).is_some_and(|host| host.is_loop);
        (reply, (!is_loop).then(|| (addresses, Micros::from_millis(ttl_s * 1_000))))
    }

    /// Addresses handed out are those of the newest answers, and flagged if their time is over. Who asked for a query
    /// of its own `since` then gets what came since then.
    fn check_known(&self, id: NameId, known: &Known, since: Option<Mono>) {
        let (candidates, family) = &self.names[&id];
        let kinds: &[RecordType] = match family {
            Family::PreferV6 => &[RecordType::AAAA, RecordType::A],
            Family::PreferV4 => &[RecordType::A, RecordType::AAAA],
            Family::V4 => &[RecordType::A],
            Family::V6 => &[RecordType::AAAA],
        };
        assert!(!known.addresses.is_empty(), "known is at least one");
        let fits = candidates.iter().any(|name| {
            let (mut fresh, mut usable) = (Vec::new(), Vec::new());
            for kind in kinds {
                let Some(delivered) = self.delivered.get(&(name.clone(), *kind)) else { continue };
                let Delivered { addresses, at, expires } = delivered;
                let is_fresh = since.map_or(self.now < *expires, |since| *at >= since);
                if is_fresh {
                    fresh.extend_from_slice(addresses);
                }
                if is_fresh || known.stale && self.now < *expires + self.stale_max {
                    usable.extend_from_slice(addresses);
                }
            }
            *known.addresses == *fresh && !known.stale || known.stale && *known.addresses == *usable
        });
        let delivered: Vec<_> =
            self.delivered.iter().filter(|((name, _), _)| candidates.contains(name)).collect();
        assert!(fits, "{known:?} for {candidates:?} at {:?}, delivered: {delivered:?}", self.now);
    }
}
