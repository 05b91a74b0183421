//! From names to addresses: what is known, what is being asked, and what to do next.
//!
//! ```text
//! intern ─► NameId          lookup ─► Known | Failed | Pending ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┐
//!                                                                                      ▼
//!            poll ─► Ask ─► the driver's socket ─► answered, failed, or time ─► … ─► poll ─► Wake
//!                             (one per Ask)                                       └► Close
//! ```
//!
//! A *name* is what a URL has, with the family of addresses that its endpoint wants. It stands for one or two
//! *questions* (A, AAAA) per candidate of the search list, and several names may need the same question. A question
//! is *in flight* once at most, however many wait for it: at one server at a time, over UDP, and over TCP when the
//! answer did not fit.
//!
//! In scope: the order of candidates and servers, tries and their timeouts, single flight, asking again before an
//! answer's time is over, using old answers while no server answers. Out of scope: sockets. The contract with who
//! has them:
//!
//! - Each [`Action::Ask`] is sent over a connected socket of its own, so that the kernel draws the source port and
//!   drops what other hosts send. Exactly one [`Action::Close`] follows for it, whatever happens; what the driver
//!   says about it later is ignored.
//! - Call [`Resolver::poll`] until it gives nothing, after every other call that may have caused something; call
//!   [`Resolver::expire`] when [`Resolver::next_wake`] has come.
//!
//! Whom a name is asked of, and in which order: resolv.conf(5), with two differences. A server that did not answer
//! goes to the end of the list for [`SHUN`], so that a dead first one does not cost a timeout per name. A search
//! list ends at a failure: glibc goes on to the next domain when a server failed, which sends a probe to another
//! host than the one that was meant.
//!
//! Invariants: every lookup that was `Pending` is ended by exactly one `Wake` of its name and mode; no question is
//! in flight twice; queries, names and queues are bounded; an address past its time is never handed out unflagged.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::cache::{Cache, Lifetimes, QuestionIndex, REFRESH_PERCENT, View, What};
use super::conf::{SERVERS_MAX, Settings};
use super::entropy::Entropy;
use super::message::{self, Kind, NotOurs, Reply};
use super::name::Name;
use crate::clock::{Micros, Mono};
use crate::sample::Failure;

/// For how long a server that did not answer is asked after all others.
pub(super) const SHUN: Micros = Micros::from_millis(30_000);
/// Datagrams for one query that are no answer to it; after so many the server is given up. Forging an answer takes
/// thousands (RFC 5452).
pub const STRAYS_MAX: u32 = 16;
/// Names that nobody holds, kept for who comes back: where redirects lead to.
pub const RELEASED_NAMES_MAX: usize = 4096;

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// All, IPv6 first.
    PreferV6,
    /// All, IPv4 first.
    PreferV4,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Family {
    /// The kinds to ask for, in order of preference.
    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::PreferV6 => &[Kind::Aaaa, Kind::A],
            Self::PreferV4 => &[Kind::A, Kind::Aaaa],
            Self::V4 => &[Kind::A],
            Self::V6 => &[Kind::Aaaa],
        }
    }
}

/// A name that was interned. Of no use after its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId {
    index: u32,
    generation: u32,
}

impl NameId {
    /// What cannot be asked for: it does not exist.
    const IMPOSSIBLE: Self = Self { index: u32::MAX, generation: 0 };
    /// One name too many.
    const NO_ROOM: Self = Self { index: u32::MAX, generation: 1 };
}

/// How a lookup is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// From what is known, if its time is not over.
    Cached,
    /// By a query that is answered after the lookup began. Lookups of one name that wait at the same time share it,
    /// so a query may have left before the lookup: no question is in flight twice.
    Every,
}

/// Addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// All of them: the preferred family first, ascending within it. The same allocation as before if they are
    /// the same as before.
    pub addresses: Arc<[IpAddr]>,
    /// Some are past their time to live, for want of newer ones.
    pub stale: bool,
}

/// What is known of a name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its addresses.
    Known(Known),
    /// Not yet: a [`Action::Wake`] with this name and mode follows.
    Pending,
    /// It is known that there are none, or that nobody can tell.
    Failed(Failure),
}

/// One query at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId {
    flight: u32,
    generation: u32,
}

/// How a query travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A connection, for answers that do not fit a datagram.
    Tcp,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect a new socket to `server` and send `message`.
    Ask {
        /// Whose answer it will be.
        query: QueryId,
        /// Where to.
        server: SocketAddr,
        /// How.
        transport: Transport,
        /// The bytes; over TCP with their length in front.
        message: Vec<u8>,
    },
    /// Close the socket of this query: exactly once for each `Ask`.
    Close {
        /// Which one.
        query: QueryId,
    },
    /// End every lookup of this name in this mode that is pending.
    Wake {
        /// Whose.
        name: NameId,
        /// Which of its lookups.
        mode: Mode,
        /// What they waited for.
        result: Result<Known, Failure>,
        /// When it came: the arrival of the last answer, or the moment of giving up.
        at: Mono,
    },
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queries sent.
    pub asked: u64,
    /// Those of them over TCP.
    pub asked_tcp: u64,
    /// Answers: addresses, or that there are none.
    pub answered: u64,
    /// Servers that did not answer in time.
    pub timeouts: u64,
    /// Servers that could not be reached, failed, refused, or whose answer was broken.
    pub errors: u64,
    /// Messages that were no answer to their query.
    pub strays: u64,
    /// Questions that no server answered.
    pub given_up: u64,
    /// Lookups and wakes that handed out addresses past their time.
    pub stale: u64,
}

/// The resolver of one shard.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    lifetimes: Lifetimes,
    entropy: Entropy,
    servers: Vec<Server>,
    /// The server that the next query begins with, if they take turns.
    turn: usize,
    cache: Cache,
    entries: Vec<Option<Entry>>,
    free_entries: Vec<u32>,
    by_name: HashMap<EntryKey, u32>,
    /// Names that nobody holds, oldest release first.
    released: BTreeMap<u64, u32>,
    releases: u64,
    flights: Vec<Option<Flight>>,
    free_flights: Vec<u32>,
    /// Distinguishes who has the same place one after the other.
    generation: u32,
    /// Questions to be asked that somebody waits for, and that nobody does.
    urgent: VecDeque<QuestionIndex>,
    idle: VecDeque<QuestionIndex>,
    timers: BTreeSet<(Mono, Timer)>,
    actions: VecDeque<Action>,
    /// Kept for its allocation: what an evaluation needs to be asked.
    needed: Vec<QuestionIndex>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A query's server has not answered in time.
    Deadline(u32),
    /// An answer's time is nearly over.
    Refresh(QuestionIndex),
    /// Who waits has waited long enough to be given an old answer.
    Stale(QuestionIndex),
}

#[derive(Clone, Copy, Debug)]
struct Server {
    address: SocketAddr,
    /// Until when it is asked last.
    shunned_until: Mono,
}

/// What makes two names the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EntryKey {
    name: Name,
    /// Written with a final dot: no search list.
    absolute: bool,
    family: Family,
}

/// One name.
#[derive(Debug)]
struct Entry {
    key: EntryKey,
    generation: u32,
    /// How many hold it.
    held: u32,
    /// Its place in `released`.
    released: Option<u64>,
    /// The hosts file has it: nothing is ever asked.
    hosts: Option<Arc<[IpAddr]>>,
    /// The questions of the candidates tried so far, in order, each with all kinds of the family.
    questions: Vec<QuestionIndex>,
    /// Somebody looks it up from the cache: what it needs is kept fresh while it is held.
    prefetched: bool,
    /// Lookups from the cache wait, since then.
    cached_waits: Option<Mono>,
    /// Lookups by a query of their own wait, since then.
    every_waits: Option<Mono>,
    /// The addresses handed out last, whether or not they still hold.
    addresses: Arc<[IpAddr]>,
    /// What a lookup from the cache gets until then.
    outcome: Result<Known, Failure>,
    until: Mono,
}

/// One question under way.
#[derive(Debug)]
struct Flight {
    question: QuestionIndex,
    query: QueryId,
    /// Servers, by their number, in the order in which they are asked.
    order: [usize; SERVERS_MAX],
    /// Servers given up so far, every round counted.
    tries: usize,
    id: u16,
    transport: Transport,
    edns: bool,
    deadline: Mono,
    /// What came over TCP so far.
    received: Vec<u8>,
    strays: u32,
    /// A server said something, and it was no answer.
    erred: bool,
    /// A server said nothing.
    timed_out: bool,
}

/// Why a server is given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    /// It did not answer in time.
    Silent,
    /// There is no way to it, or nobody listens there.
    Unreachable,
    /// It has no answer for us.
    Erred,
}

/// What can be said about a name at the moment.
enum Step {
    /// All there is to know.
    Done(Result<Known, Failure>),
    /// `needed` must be asked first.
    Needs,
}

impl Resolver {
    /// A resolver that knows nothing yet but the hosts file.
    #[must_use]
    pub fn new(mut settings: Settings, entropy: Entropy) -> Self {
        settings.servers.truncate(SERVERS_MAX);
        settings.attempts = settings.attempts.max(1);
        settings.timeout = settings.timeout.max(Micros::from_millis(1));
        settings.queries_max = settings.queries_max.clamp(1, u32::MAX as usize);
        settings.names_max = settings.names_max.min(super::conf::NAMES_MAX);
        let server = |address: &SocketAddr| Server { address: *address, shunned_until: Mono(0) };
        Self {
            lifetimes: Lifetimes::new(&settings),
            servers: settings.servers.iter().map(server).collect(),
            settings,
            entropy,
            turn: 0,
            cache: Cache::default(),
            entries: Vec::new(),
            free_entries: Vec::new(),
            by_name: HashMap::new(),
            released: BTreeMap::new(),
            releases: 0,
            flights: Vec::new(),
            free_flights: Vec::new(),
            generation: 0,
            urgent: VecDeque::new(),
            idle: VecDeque::new(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            needed: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Holds `name` until it is [released](Self::release), as often as it was interned.
    ///
    /// It always gives an id. Looking up what is no name fails as `dns_not_found`; looking up one name more than
    /// `names_max` fails as `dns_failed`.
    pub fn intern(&mut self, name: &str, family: Family) -> NameId {
        let Ok(parsed) = Name::parse(name) else { return NameId::IMPOSSIBLE };
        let key = EntryKey { name: parsed, absolute: name.ends_with('.'), family };
        if let Some(&index) = self.by_name.get(&key) {
            let entry = self.entries[index as usize].as_mut().expect("a name in the table has its entry");
            entry.held += 1;
            if let Some(place) = entry.released.take() {
                self.released.remove(&place);
            }
            let id = NameId { index, generation: entry.generation };
            self.arm_all(index);
            return id;
        }
        if self.by_name.len() >= self.settings.names_max && !self.evict_oldest() {
            return NameId::NO_ROOM;
        }
        let generation = self.next_generation();
        let hosts = self.hosts_of(&key);
        let entry = Entry {
            key: key.clone(),
            generation,
            held: 1,
            released: None,
            hosts,
            questions: Vec::new(),
            prefetched: false,
            cached_waits: None,
            every_waits: None,
            addresses: Arc::default(),
            outcome: Err(Failure::DnsFailed),
            until: Mono(0),
        };
        let index = self.free_entries.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("NAMES_MAX and RELEASED_NAMES_MAX are far below")
        });
        self.entries[index as usize] = Some(entry);
        self.by_name.insert(key, index);
        NameId { index, generation }
    }

    /// Gives a name back that was interned. The last one to do so must not look it up again.
    ///
    /// It is not asked for any more, and kept, among [`RELEASED_NAMES_MAX`] others, for who comes back.
    pub fn release(&mut self, id: NameId) {
        let releases = self.releases;
        let Some(entry) = self.entry_mut(id) else { return };
        debug_assert!(entry.held > 0, "released as often as interned");
        entry.held = entry.held.saturating_sub(1);
        if entry.held > 0 || entry.released.is_some() {
            return;
        }
        entry.released = Some(releases);
        self.releases += 1;
        self.released.insert(releases, id.index);
        if self.released.len() > RELEASED_NAMES_MAX {
            self.evict_oldest();
        }
    }

    /// What is known of a name.
    pub fn lookup(&mut self, id: NameId, mode: Mode, now: Mono) -> Lookup {
        let no_servers = self.servers.is_empty();
        let Some(entry) = self.entry_mut(id) else {
            let no_name = id == NameId::IMPOSSIBLE;
            return Lookup::Failed(if no_name { Failure::DnsNotFound } else { Failure::DnsFailed });
        };
        if let Some(addresses) = &entry.hosts {
            return Lookup::Known(Known { addresses: Arc::clone(addresses), stale: false });
        }
        if no_servers {
            return Lookup::Failed(Failure::DnsFailed);
        }
        let since = match mode {
            Mode::Cached => {
                let newly_used = !entry.prefetched;
                entry.prefetched = true;
                if now < entry.until {
                    let outcome = entry.outcome.clone();
                    if newly_used {
                        self.arm_all(id.index);
                    }
                    return self.found(outcome);
                }
                if newly_used {
                    self.arm_all(id.index);
                }
                None
            }
            Mode::Every if entry.every_waits.is_some() => return Lookup::Pending,
            Mode::Every => Some(now),
        };
        match self.evaluate(id.index, since, now) {
            Step::Done(outcome) => self.found(outcome),
            Step::Needs => {
                self.want_needed(true, now);
                let entry = self.entry_mut(id).expect("just looked at");
                match since {
                    None => entry.cached_waits = entry.cached_waits.or(Some(now)),
                    Some(_) => entry.every_waits = since,
                }
                Lookup::Pending
            }
        }
    }

    /// Begins to ask for a name that will be looked up from the cache, before anybody waits for it.
    pub fn warm(&mut self, id: NameId, now: Mono) {
        let no_servers = self.servers.is_empty();
        let Some(entry) = self.entry_mut(id) else { return };
        entry.prefetched = true;
        if entry.hosts.is_none() && !no_servers {
            self.arm_all(id.index);
            if matches!(self.evaluate(id.index, None, now), Step::Needs) {
                self.want_needed(false, now);
            }
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, now: Mono) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let question = self.next_to_ask()?;
            self.take_off(question, now);
        }
    }

    /// Bytes came for a query: over UDP one datagram, over TCP what there was. `arrived`: when the kernel had
    /// them; `now`: when we have.
    pub fn answered(&mut self, query: QueryId, bytes: &[u8], arrived: Mono, now: Mono) {
        let flight = self.flights.get_mut(query.flight as usize).and_then(Option::as_mut);
        let Some(flight) = flight.filter(|flight| flight.query == query) else { return };
        let message = match flight.transport {
            Transport::Udp => bytes,
            Transport::Tcp => {
                let room = message::MESSAGE_BYTES_MAX + 2 - flight.received.len();
                flight.received.extend(&bytes[..bytes.len().min(room)]);
                let Some(length) = message::frame_length(&flight.received) else { return };
                match flight.received.get(2..2 + length) {
                    Some(message) => message,
                    None => return,
                }
            }
        };
        let question = &self.cache[flight.question];
        let reply = message::read(message, flight.id, &question.name, question.kind);
        self.heard(query.flight, reply, arrived.min(now), now);
    }

    /// A query's socket failed: refused, closed, unreachable, or it could not be made.
    pub fn failed(&mut self, query: QueryId, now: Mono) {
        if self.flight_mut(query).is_some() {
            self.give_up_server(query.flight, GivenUp::Unreachable, now);
        }
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due: servers that did not answer, answers whose time is nearly over.
    pub fn expire(&mut self, now: Mono) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Deadline(flight) => self.give_up_server(flight, GivenUp::Silent, now),
                Timer::Refresh(index) => {
                    self.cache[index].refresh_timer = None;
                    if self.in_use(index) {
                        self.want(index, false, now);
                    }
                }
                Timer::Stale(index) => {
                    self.cache[index].stale_timer = None;
                    self.review_users(index, now, now);
                }
            }
        }
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Names in the table, held or not.
    #[must_use]
    pub fn names(&self) -> usize {
        self.by_name.len()
    }

    /// Questions in the cache, answered or not.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.cache.len()
    }

    /// Queries in flight.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.flights.len() - self.free_flights.len()
    }

    // --- names -------------------------------------------------------------------------------------------

    /// The addresses of the hosts file, if it has some of the family; else DNS is asked, as glibc does.
    fn hosts_of(&self, key: &EntryKey) -> Option<Arc<[IpAddr]>> {
        let all = self.settings.hosts.addresses(&key.name);
        let mut addresses = Vec::with_capacity(all.len());
        for kind in key.family.kinds() {
            addresses.extend(all.iter().filter(|address| address.is_ipv4() == (*kind == Kind::A)));
        }
        (!addresses.is_empty()).then(|| addresses.into())
    }

    fn entry_mut(&mut self, id: NameId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id.index as usize)?.as_mut();
        entry.filter(|entry| entry.generation == id.generation)
    }

    fn entry(&self, index: u32) -> &Entry {
        self.entries[index as usize].as_ref().expect("a question's users are in the table")
    }

    fn entry_at(&mut self, index: u32) -> &mut Entry {
        self.entries[index as usize].as_mut().expect("a question's users are in the table")
    }

    /// Whether there was one to evict.
    fn evict_oldest(&mut self) -> bool {
        let Some((_, index)) = self.released.pop_first() else { return false };
        let entry = self.entries[index as usize].take().expect("released names are in the table");
        self.by_name.remove(&entry.key);
        self.free_entries.push(index);
        let name = NameId { index, generation: entry.generation };
        let waits =
            [(Mode::Cached, entry.cached_waits.is_some()), (Mode::Every, entry.every_waits.is_some())];
        for (mode, _) in waits.into_iter().filter(|(_, waits)| *waits) {
            // It was held by nobody, so this reaches nobody but who broke the contract; who waits is not forgotten.
            let result = Err(Failure::DnsFailed);
            self.actions.push_back(Action::Wake { name, mode, result, at: Mono(0) });
        }
        self.drop_questions(index, &entry.questions);
        true
    }

    /// The `n`th name to try, in the order of resolv.conf(5).
    fn candidate(&self, key: &EntryKey, n: usize) -> Option<Name> {
        let as_it_is = std::iter::once_with(|| Some(key.name.clone()));
        if key.absolute || self.settings.search.is_empty() {
            return as_it_is.flatten().nth(n);
        }
        let searched = self.settings.search.iter().map(|domain| key.name.below(domain));
        let dots = key.name.labels().count() - 1;
        if dots >= usize::from(self.settings.ndots) {
            as_it_is.chain(searched).flatten().nth(n)
        } else {
            searched.chain(as_it_is).flatten().nth(n)
        }
    }

    /// What can be said about a name, from the cache (`since`: only from what was learnt since then).
    fn evaluate(&mut self, index: u32, since: Option<Mono>, now: Mono) -> Step {
        self.needed.clear();
        let kinds = self.entry(index).key.family.kinds();
        let waits_since = self.entry(index).cached_waits;
        let mut addresses = Vec::new();
        let mut until = Mono::NEVER;
        for candidate in 0.. {
            let from = candidate * kinds.len();
            if self.entry(index).questions.len() <= from {
                let Some(name) = self.candidate(&self.entry(index).key, candidate) else { break };
                for kind in kinds {
                    let question = self.cache.acquire(&name, *kind, index);
                    self.entry_at(index).questions.push(question);
                }
            }
            let (mut stale, mut no_name, mut failure) = (false, false, None);
            let mut lapsed = Vec::new();
            for place in from..from + kinds.len() {
                let question = self.entry(index).questions[place];
                match self.cache[question].view(&self.lifetimes, now, since, waits_since) {
                    View::Fresh(what, expires) => {
                        until = until.min(expires);
                        match what {
                            What::Addresses(found) => addresses.extend_from_slice(found),
                            What::NoData => {}
                            What::NoName => no_name = true,
                        }
                    }
                    View::Stale(found) => {
                        addresses.extend_from_slice(found);
                        stale = true;
                    }
                    View::Lapsed => lapsed.push(question),
                    View::Failed(class) => failure = Some(class),
                    View::Unknown => self.needed.push(question),
                }
            }
            if addresses.is_empty() {
                // Both at once, or the failure of one is forgotten before that of the other comes.
                self.needed.extend_from_slice(&lapsed);
            }
            if !self.needed.is_empty() {
                return Step::Needs;
            }
            if !addresses.is_empty() {
                // What would have been tried next is of no interest any more.
                self.forget_beyond(index, from + kinds.len());
                let until = if stale || failure.is_some() || !lapsed.is_empty() { now } else { until };
                let addresses = self.shared(index, &addresses);
                return self.conclude(index, since, Ok(Known { addresses, stale }), until);
            }
            // Servers that deny a name for the kind that they do not know are common; those that deny one that
            // exists in neither kind are not.
            if let (Some(class), false) = (failure, no_name) {
                return self.conclude(index, since, Err(class), now);
            }
        }
        self.conclude(index, since, Err(Failure::DnsNotFound), until)
    }

    /// Keeps what was concluded for lookups from the cache, until its time is over.
    fn conclude(
        &mut self,
        index: u32,
        since: Option<Mono>,
        outcome: Result<Known, Failure>,
        until: Mono,
    ) -> Step {
        if since.is_none() {
            let entry = self.entry_at(index);
            entry.outcome = outcome.clone();
            entry.until = until;
        }
        Step::Done(outcome)
    }

    /// The addresses as they were handed out before, if they are the same.
    fn shared(&mut self, index: u32, addresses: &[IpAddr]) -> Arc<[IpAddr]> {
        let entry = self.entry_at(index);
        if *entry.addresses != *addresses {
            entry.addresses = addresses.into();
        }
        Arc::clone(&entry.addresses)
    }

    fn found(&mut self, outcome: Result<Known, Failure>) -> Lookup {
        match outcome {
            Ok(known) => {
                self.counts.stale += u64::from(known.stale);
                Lookup::Known(known)
            }
            Err(failure) => Lookup::Failed(failure),
        }
    }

    /// Looks again at every name that uses the question; ends their lookups, or asks what comes next.
    fn review_users(&mut self, question: QuestionIndex, at: Mono, now: Mono) {
        // A review may change who uses other questions, not who uses this one for a name that is being reviewed.
        let users = self.cache[question].users.clone();
        for index in users {
            self.review(index, at, now);
        }
    }

    fn review(&mut self, index: u32, at: Mono, now: Mono) {
        let entry = self.entry_at(index);
        entry.until = Mono(0);
        let name = NameId { index, generation: entry.generation };
        let is_kept_fresh = entry.prefetched && entry.held > 0;
        if entry.cached_waits.is_some() || is_kept_fresh {
            let waits = entry.cached_waits.is_some();
            match self.evaluate(index, None, now) {
                Step::Done(result) if waits => {
                    self.entry_at(index).cached_waits = None;
                    self.wake(name, Mode::Cached, result, at);
                }
                Step::Done(..) => {}
                Step::Needs => self.want_needed(waits, now),
            }
        }
        if let Some(since) = self.entry(index).every_waits {
            match self.evaluate(index, Some(since), now) {
                Step::Done(result) => {
                    self.entry_at(index).every_waits = None;
                    self.wake(name, Mode::Every, result, at);
                }
                Step::Needs => self.want_needed(true, now),
            }
        }
    }

    fn wake(&mut self, name: NameId, mode: Mode, result: Result<Known, Failure>, at: Mono) {
        self.counts.stale += u64::from(matches!(&result, Ok(known) if known.stale));
        self.actions.push_back(Action::Wake { name, mode, result, at });
    }

    // --- questions ---------------------------------------------------------------------------------------

    /// Whether a name needs this question kept fresh.
    fn in_use(&self, question: QuestionIndex) -> bool {
        self.cache[question].users.iter().any(|user| {
            let entry = self.entry(*user);
            entry.held > 0 && entry.prefetched
        })
    }

    fn want_needed(&mut self, urgent: bool, now: Mono) {
        let needed = std::mem::take(&mut self.needed);
        for question in &needed {
            self.want(*question, urgent, now);
        }
        self.needed = needed;
    }

    /// The question must be asked, unless it is being asked.
    fn want(&mut self, index: QuestionIndex, urgent: bool, now: Mono) {
        let question = &mut self.cache[index];
        question.wanted_since.get_or_insert(now);
        if let Some(at) = question.refresh_timer.take() {
            self.timers.remove(&(at, Timer::Refresh(index)));
        }
        if question.flight.is_none() {
            let (queued, queue) = if urgent {
                (&mut question.queued.urgent, &mut self.urgent)
            } else {
                (&mut question.queued.idle, &mut self.idle)
            };
            if !*queued {
                *queued = true;
                queue.push_back(index);
            }
        }
        // Who waits need not wait for ever, if there is an old answer.
        if urgent && question.stale_timer.is_none() {
            // If it may be used already, who still waits here wants no old answer.
            question.stale_timer = question.stale_at(&self.lifetimes).filter(|at| *at > now);
            self.timers.extend(question.stale_timer.map(|at| (at, Timer::Stale(index))));
        }
        self.shorten_queues();
    }

    /// Questions that went while they stood in a queue leave their places there; they must not add up.
    fn shorten_queues(&mut self) {
        let length_max = 2 * self.cache.len() + 1024;
        let cache = &mut self.cache;
        if self.urgent.len() > length_max {
            self.urgent.retain(|index| cache.get_mut(*index).is_some_and(|question| question.queued.urgent));
        }
        if self.idle.len() > length_max {
            self.idle.retain(|index| cache.get_mut(*index).is_some_and(|question| question.queued.idle));
        }
    }

    /// Takes the next question out of its queue, if there is room for one more in flight. Those that nobody waits
    /// for may have half of it.
    fn next_to_ask(&mut self) -> Option<QuestionIndex> {
        let in_flight = self.in_flight();
        while in_flight < self.settings.queries_max {
            let Some(index) = self.urgent.pop_front() else { break };
            let Some(question) = self.cache.get_mut(index) else { continue };
            let queued = std::mem::take(&mut question.queued.urgent);
            if queued && question.flight.is_none() && question.wanted_since.is_some() {
                return Some(index);
            }
        }
        while in_flight < self.settings.queries_max.div_ceil(2) {
            let index = self.idle.pop_front()?;
            let Some(question) = self.cache.get_mut(index) else { continue };
            let queued = std::mem::take(&mut question.queued.idle);
            if queued && question.flight.is_none() && question.wanted_since.is_some() {
                return Some(index);
            }
        }
        None
    }

    /// Sets the timer for asking again, for each question of a name that is kept fresh.
    fn arm_all(&mut self, index: u32) {
        for place in 0..self.entry(index).questions.len() {
            let question = self.entry(index).questions[place];
            self.arm(question);
        }
    }

    fn arm(&mut self, index: QuestionIndex) {
        if !self.in_use(index) {
            return;
        }
        let question = &mut self.cache[index];
        if question.refresh_timer.is_none() && question.wanted_since.is_none() {
            question.refresh_timer = question.refresh_at;
            self.timers.extend(question.refresh_timer.map(|at| (at, Timer::Refresh(index))));
        }
    }

    /// The name uses its first `keep` questions only.
    fn forget_beyond(&mut self, index: u32, keep: usize) {
        if self.entry(index).questions.len() > keep {
            let gone = self.entry_at(index).questions.split_off(keep);
            self.drop_questions(index, &gone);
        }
    }

    fn drop_questions(&mut self, user: u32, questions: &[QuestionIndex]) {
        for &index in questions {
            let Some(question) = self.cache.release(index, user) else { continue };
            if let Some(at) = question.refresh_timer {
                self.timers.remove(&(at, Timer::Refresh(index)));
            }
            if let Some(at) = question.stale_timer {
                self.timers.remove(&(at, Timer::Stale(index)));
            }
            if let Some(flight) = question.flight {
                self.close(flight);
                self.land(flight);
            }
        }
    }

    // --- flights -----------------------------------------------------------------------------------------

    fn flight_mut(&mut self, query: QueryId) -> Option<&mut Flight> {
        let flight = self.flights.get_mut(query.flight as usize)?.as_mut();
        flight.filter(|flight| flight.query == query)
    }

    fn flight_at(&mut self, index: u32) -> &mut Flight {
        self.flights[index as usize].as_mut().expect("a flight has its place until it lands")
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Begins to ask a question.
    fn take_off(&mut self, question: QuestionIndex, now: Mono) {
        let index = self.free_flights.pop().unwrap_or_else(|| {
            self.flights.push(None);
            u32::try_from(self.flights.len() - 1).expect("queries_max is far below")
        });
        self.cache[question].flight = Some(index);
        let order = self.order(now);
        self.flights[index as usize] = Some(Flight {
            question,
            query: QueryId { flight: index, generation: 0 },
            order,
            tries: 0,
            id: 0,
            transport: Transport::Udp,
            edns: true,
            deadline: Mono(0),
            received: Vec::new(),
            strays: 0,
            erred: false,
            timed_out: false,
        });
        self.ask(index, Transport::Udp, now);
    }

    /// The servers, those that did not answer lately last.
    fn order(&mut self, now: Mono) -> [usize; SERVERS_MAX] {
        let count = self.servers.len();
        if self.settings.rotate {
            self.turn = (self.turn + 1) % count;
        }
        let mut order = [0; SERVERS_MAX];
        for (place, number) in order.iter_mut().take(count).enumerate() {
            *number = (place + self.turn) % count;
        }
        order[..count].sort_by_key(|number| self.servers[*number].shunned_until > now);
        order
    }

    /// Asks the flight's present server.
    fn ask(&mut self, index: u32, transport: Transport, now: Mono) {
        let query = QueryId { flight: index, generation: self.next_generation() };
        let id = self.entropy.id();
        let deadline = now + self.settings.timeout;
        let server_count = self.servers.len();
        let flight = self.flights[index as usize].as_mut().expect("a flight has its place until it lands");
        flight.query = query;
        flight.id = id;
        flight.transport = transport;
        flight.deadline = deadline;
        flight.strays = 0;
        flight.received = Vec::new();
        let server = self.servers[flight.order[flight.tries % server_count]].address;
        let question = &self.cache[flight.question];
        let mut message = message::query(id, &question.name, question.kind, flight.edns);
        if transport == Transport::Tcp {
            message = message::framed(&message);
            self.counts.asked_tcp += 1;
        }
        self.counts.asked += 1;
        self.timers.insert((deadline, Timer::Deadline(index)));
        self.actions.push_back(Action::Ask { query, server, transport, message });
    }

    /// What a server said, or that it was not the server.
    fn heard(&mut self, index: u32, reply: Result<Reply, NotOurs>, at: Mono, now: Mono) {
        let server_count = self.servers.len();
        let flight = self.flight_at(index);
        match reply {
            Err(NotOurs) => {
                flight.strays += 1;
                // On a connection there are no strays: it is the server that is confused.
                let too_many = flight.strays > STRAYS_MAX || flight.transport == Transport::Tcp;
                self.counts.strays += 1;
                if too_many {
                    self.give_up_server(index, GivenUp::Erred, now);
                }
            }
            Ok(Reply::Truncated) if flight.transport == Transport::Udp => {
                self.close(index);
                self.ask(index, Transport::Tcp, now);
            }
            Ok(Reply::EdnsRefused) if flight.edns => {
                flight.edns = false;
                let transport = flight.transport;
                self.close(index);
                self.ask(index, transport, now);
            }
            Ok(Reply::Truncated | Reply::EdnsRefused | Reply::ServerFailed) => {
                self.give_up_server(index, GivenUp::Erred, now);
            }
            Ok(Reply::Answer(answer)) => {
                let number = flight.order[flight.tries % server_count];
                self.servers[number].shunned_until = Mono(0);
                self.counts.answered += 1;
                let percent = self.refresh_percent();
                self.close(index);
                let question = self.land(index);
                self.cache[question].answered(&self.lifetimes, answer, at, now, percent);
                self.settled(question, at, now);
            }
        }
    }

    fn refresh_percent(&mut self) -> u64 {
        let (least, most) = REFRESH_PERCENT;
        least + self.entropy.number() % (most - least + 1)
    }

    /// Goes on to the next server, or gives the question up.
    fn give_up_server(&mut self, index: u32, why: GivenUp, now: Mono) {
        self.close(index);
        let tries_max = self.servers.len() * usize::from(self.settings.attempts);
        let server_count = self.servers.len();
        let flight = self.flight_at(index);
        let number = flight.order[flight.tries % server_count];
        flight.tries += 1;
        flight.erred |= why == GivenUp::Erred;
        flight.timed_out |= why == GivenUp::Silent;
        let (tries, erred, timed_out) = (flight.tries, flight.erred, flight.timed_out);
        match why {
            GivenUp::Silent => self.counts.timeouts += 1,
            GivenUp::Unreachable | GivenUp::Erred => self.counts.errors += 1,
        }
        // One that answers, if only to say that it failed, is alive: it may be the name's fault.
        if why != GivenUp::Erred {
            self.servers[number].shunned_until = now + SHUN;
        }
        if tries < tries_max {
            self.ask(index, Transport::Udp, now);
            return;
        }
        self.counts.given_up += 1;
        let question = self.land(index);
        let failure = if timed_out && !erred { Failure::DnsTimeout } else { Failure::DnsFailed };
        let percent = self.refresh_percent();
        self.cache[question].gave_up(failure, now, percent);
        self.settled(question, now, now);
    }

    /// The question has its answer, or none: timers are set, and who waits is told.
    fn settled(&mut self, index: QuestionIndex, at: Mono, now: Mono) {
        if let Some(stale_at) = self.cache[index].stale_timer.take() {
            self.timers.remove(&(stale_at, Timer::Stale(index)));
        }
        self.arm(index);
        self.review_users(index, at, now);
    }

    /// The flight's present query is over.
    fn close(&mut self, index: u32) {
        let flight = self.flight_at(index);
        let (deadline, query) = (flight.deadline, flight.query);
        // It is not there any more if it was what brought us here.
        self.timers.remove(&(deadline, Timer::Deadline(index)));
        self.actions.push_back(Action::Close { query });
    }

    /// Frees the place of a flight whose query is closed, and hands back its question.
    fn land(&mut self, index: u32) -> QuestionIndex {
        let flight = self.flights[index as usize].take().expect("a flight lands once");
        self.free_flights.push(index);
        if let Some(question) = self.cache.get_mut(flight.question) {
            question.flight = None;
        }
        flight.question
    }
}
