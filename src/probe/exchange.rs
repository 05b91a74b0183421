//! One request and its response on one connection, as a state machine: what happened on the wire goes in, an
//! [`Ending`] and the phases come out.
//!
//! ```text
//!            connected            handshake done          first byte           end of response
//! Connecting ─────────► Securing ───────────────► Waiting ──────────► Reading ─────────────────► ending
//!     │                    │     (TLS only)          ▲  │                │
//!     │                    │   start on a reused connection              │
//!     └── error, closed, deadline ─────────────────────┴─────────────────┴─────────────────────► ending
//! ```
//!
//! In scope: the phases of one hop and their exact sum, what TLS asks to be sent, the failure class of whatever went
//! wrong, the limits of time. Out of scope: names, redirects, retries and expectations ([`super::Probe`]), sockets and
//! timers ([`crate::shard`]), framing ([`crate::http`]).
//!
//! A phase ends when the kernel saw the bytes (`arrived`), not when we did (`seen`); the difference is the agent's
//! delay. For the same reason limits are compared with `arrived`: whether an endpoint made it in time must not
//! depend on how busy we were. While the origin waits for us, to send the request when the connection stands or to
//! answer a flight of the TLS handshake, time is the agent's too, and lies between two phases, in neither.
//!
//! A body that decodes to much more than came is decoded in goes ([`Exchange::catch_up`]), so that nobody waits for it
//! for long. What comes meanwhile, and that the connection broke, is kept and looked at in its turn, as of the time at
//! which it came: neither verdict nor phases depend on the goes. Each receive pays for a go, so what is kept is no more
//! than came while the body was being made, a go for each: of 10 MiB 320 receives, 1.3 MiB, and as much for each
//! further coding.
//!
//! Invariants: phases never overlap and are never negative, and they end at a limit at the latest, however late we
//! looked. Their sum is the total; what is left out of it is in [`Exchange::agent_ns`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::Profile;
use super::body::{Body, BodyProgress};
use crate::clock::{Micros, Mono};
use crate::config;
use crate::http::coding::{Backlog, Claim, DecodeMemory};
use crate::http::{Progress, Response};
use crate::sample::{ABSENT, Failure, Flags, MissReason, Phases, clamp_us};
use crate::tls;

/// One exchange under way.
#[derive(Debug)]
pub struct Exchange {
    /// When the connection was asked for, or the request on a reused one.
    started: Mono,
    /// The probe's deadline.
    deadline: Mono,
    /// When the connection stood; the start itself on a reused one.
    connected: Option<Mono>,
    /// When the first flight of the TLS handshake left.
    greeted: Option<Mono>,
    /// When the last flight of the origin's handshake arrived.
    secured: Option<Mono>,
    /// When the request began to leave,
    asked: Option<Mono>,
    /// and when the kernel had all of it, as far as we know.
    written: Option<Mono>,
    /// When the first byte of the response arrived.
    first_byte: Option<Mono>,
    /// Latest arrival: what the response's end is, once it is whole.
    last_byte: Mono,
    /// Since when the origin waits for us.
    owes_since: Option<Mono>,
    /// What we took to answer flights of the TLS handshake, ns: in no phase,
    answering_ns: u64,
    /// nor is what we took to say something else that the origin waited for, ns.
    keeping_ns: u64,
    /// Σ (seen − arrived) over the bytes that ended a phase, ns.
    waited_ns: u64,
    /// Our own handling so far, ns.
    cpu_ns: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Bytes given to the wire to send whose leaving has not been heard of.
    unsent_bytes: u64,
    flags: Flags,
    request: Arc<[u8]>,
    response: Response,
    body: Body,
    memory: DecodeMemory,
    go_bytes: usize,
    behind: Option<Box<Behind>>,
    /// Since when what comes now may have been there, if we were not looking.
    blind_since: Option<Mono>,
    tls: Option<Box<Secured>>,
}

/// What is yet to be looked at while a body is being decoded.
#[derive(Debug)]
struct Behind {
    /// What framing said of the receive that is being decoded, until that is done.
    undecided: Option<Undecided>,
    receives: VecDeque<Receive>,
    /// How the connection broke behind them, when we saw it, and since when we had been blind then.
    broken: Option<(Broken, Mono, Option<Mono>)>,
}

/// A receive that framing has seen, and the decoder not all of.
#[derive(Debug)]
struct Undecided {
    fed: Result<Progress, Failure>,
    arrived: Mono,
    /// Since when its bytes wait for us, as far as that is not counted yet, and our handling until then.
    since: Mono,
    cpu_ns: u64,
}

/// A receive that nobody has looked at.
#[derive(Debug)]
struct Receive {
    bytes: Box<[u8]>,
    arrived: Option<Mono>,
    seen: Mono,
    blind_since: Option<Mono>,
    /// Its part of what decoding may take.
    _claim: Claim,
}

/// The TLS side of an exchange, and what is to be sent when the handshake is done.
#[derive(Debug)]
struct Secured {
    session: tls::Session,
    /// Plaintext of one receive, kept for its memory.
    plain: Vec<u8>,
}

/// What a call to send came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// When it began to leave,
    pub at: Mono,
    /// and when the call was over.
    pub until: Mono,
    /// How much the kernel has taken, bytes.
    pub bytes: u64,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What went wrong; `None` if the response is whole.
    pub failure: Option<Failure>,
    /// When: the end of the last phase.
    pub at: Mono,
    /// What the connection is fit for now.
    pub parting: Parting,
}

/// What a connection is fit for when its exchange has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Another exchange: both sides keep it alive, and nothing odd happened.
    Keep,
    /// Nothing; but the response was whole, and the origin may say goodbye first.
    Linger,
    /// Nothing at all.
    Close,
    /// Nothing at all, and the fault is ours: the slot is missed, for this reason.
    GiveUp(MissReason),
}

/// A time in which nobody looked at what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blind {
    /// When somebody last had,
    pub since: Mono,
    /// and did again.
    pub until: Mono,
}

/// What ended a connection, or an attempt at one, before the response was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The origin sent FIN.
    Closed,
    /// The origin sent RST to an established connection.
    Reset,
    /// The origin answered the SYN with RST.
    Refused,
    /// The network gave up on the SYN, or on retransmissions.
    TimedOut,
    /// No route, or an ICMP unreachable.
    Unreachable,
    /// The kernel would not send.
    SendFailed,
    /// All local ports are taken: our fault, and not the origin's.
    NoPort,
    /// Any other error.
    Other,
}

/// What an exchange is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The TCP handshake.
    Connecting,
    /// The TLS handshake.
    Securing,
    /// The first byte of the response.
    Waiting,
    /// The rest of it.
    Reading,
}

impl Exchange {
    /// An exchange on a new connection, asked for at `now`. With a `session`, the request is sent when the TLS
    /// handshake is done.
    #[must_use]
    pub fn fresh(
        profile: &Profile,
        request: &Arc<[u8]>,
        session: Option<tls::Session>,
        now: Mono,
        deadline: Mono,
    ) -> Self {
        let secured = |session| Box::new(Secured { session, plain: Vec::new() });
        let tls = session.map(secured);
        let flags = if tls.is_some() { Flags::TLS } else { Flags(0) };
        Self::new(profile, request, tls, flags, now, deadline)
    }

    /// An exchange on a connection that has served one before; `session` is its TLS session, if it has one.
    #[must_use]
    pub fn reused(
        profile: &Profile,
        request: &Arc<[u8]>,
        session: Option<tls::Session>,
        now: Mono,
        deadline: Mono,
    ) -> Self {
        let mut exchange = Self::fresh(profile, request, session, now, deadline);
        exchange.flags = exchange.flags.with(Flags::REUSED);
        exchange.connected = Some(now);
        if let Some(tls) = &mut exchange.tls {
            exchange.secured = Some(now);
            tls.session.send(request);
        }
        exchange
    }

    fn new(
        profile: &Profile,
        request: &Arc<[u8]>,
        tls: Option<Box<Secured>>,
        flags: Flags,
        now: Mono,
        deadline: Mono,
    ) -> Self {
        // Patterns may be certain within the limit of a body that is longer: then only what is read counts.
        let announced_max =
            if profile.expect.body.is_some() { u64::MAX } else { profile.expect.body_bytes_max };
        Self {
            started: now,
            deadline,
            connected: None,
            greeted: None,
            secured: None,
            asked: None,
            written: None,
            first_byte: None,
            last_byte: now,
            owes_since: None,
            answering_ns: 0,
            keeping_ns: 0,
            waited_ns: 0,
            cpu_ns: 0,
            bytes_in: 0,
            bytes_out: 0,
            unsent_bytes: 0,
            flags,
            request: Arc::clone(request),
            response: Response::expecting(profile.head_request, profile.expect.fields.clone())
                .with_body_limit(announced_max),
            body: Body::new(&profile.expect),
            memory: DecodeMemory::default(),
            go_bytes: config::DECODED_BYTES_PER_GO,
            behind: None,
            blind_since: None,
            tls,
        }
    }

    /// The same, with the memory for decoding that all of a shard's share.
    #[must_use]
    pub fn sharing(self, memory: &DecodeMemory) -> Self {
        Self { memory: memory.clone(), ..self }
    }

    /// The same, with goes of another size.
    #[cfg(test)]
    pub(super) fn in_goes_of(self, go_bytes: usize) -> Self {
        Self { go_bytes, ..self }
    }

    /// What is to be sent now, if anything: the request on a plain connection that stands, and what TLS wants on
    /// others. [`Self::departed`] says when it was.
    pub fn take_output(&mut self) -> Option<Arc<[u8]>> {
        let output = match &mut self.tls {
            None if self.connected.is_some() && self.asked.is_none() => Arc::clone(&self.request),
            None => return None,
            Some(tls) => {
                let mut output = Vec::new();
                tls.session.take_output(&mut output);
                if output.is_empty() {
                    self.owes_since = None;
                    return None;
                }
                output.into()
            }
        };
        self.unsent_bytes += output.len() as u64;
        Some(output)
    }

    /// What was taken to be sent left like this. For how long the origin had waited for it, ns: by so much the deadline
    /// has moved.
    pub fn departed(&mut self, departure: Departure) -> u64 {
        let at = departure.at.max(self.last_byte);
        let owed_ns = self.owes_since.take().map_or(0, |since| at.nanos_since(since));
        self.deadline = Mono(self.deadline.0 + owed_ns);
        if self.tls.is_some() && self.secured.is_none() {
            if self.greeted.is_none() {
                self.greeted = Some(at);
                self.keeping_ns += owed_ns;
            } else {
                self.answering_ns += owed_ns;
            }
        } else if self.asked.is_none() {
            // The last flight of the TLS handshake goes out together with the request.
            self.asked = Some(at);
            // An origin that speaks before it is spoken to has answered at once.
            self.last_byte = at;
            self.keeping_ns += owed_ns;
            if self.flags.has(Flags::REUSED) {
                self.keeping_ns += at.nanos_since(self.started);
            }
        }
        self.sent(departure.bytes, departure.until);
        owed_ns
    }

    /// Says of what is handed in next whether nobody had looked before. Stamps are no more than the latest that each
    /// can be then: the kernel merges what it holds, under the stamp of the last (a FIN, or bytes that nobody asked
    /// for). So they make nothing late; how long it has waited for us is the most that it can be.
    pub fn blind(&mut self, blind: Option<Blind>) {
        self.blind_since = blind.filter(|blind| self.started < blind.until).map(|blind| blind.since);
        if self.blind_since.is_some() {
            self.flags = self.flags.with(Flags::TAINTED);
        }
    }

    /// The connection stands, as we see at `seen`.
    ///
    /// The handshake's end has no stamp of the kernel's, but the kernel knows how long it took: what it took us to
    /// notice is ours.
    pub fn connected(&mut self, profile: &Profile, round_trip: Option<Micros>, seen: Mono) -> Option<Ending> {
        let seen = seen.max(self.started);
        let stood = round_trip.map_or(seen, |span| (self.started + span).min(seen));
        if stood > self.limit(profile) {
            return Some(self.timed_out(profile));
        }
        self.connected = Some(stood);
        self.last_byte = stood;
        self.owes_since = Some(stood);
        None
    }

    /// The kernel had taken `bytes` by `by`.
    pub fn sent(&mut self, bytes: u64, by: Mono) {
        self.bytes_out += bytes;
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
        if self.unsent_bytes == 0 && self.asked.is_some() {
            self.written.get_or_insert(by);
        }
    }

    /// Adds to our own handling time, ns.
    pub const fn charge(&mut self, cpu_ns: u64) {
        self.cpu_ns += cpu_ns;
    }

    /// Whether it speaks TLS, and may have something to answer after each receive.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What it waits for.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match (self.connected, self.first_byte) {
            (None, _) => Stage::Connecting,
            (Some(_), None) if self.tls.is_some() && self.secured.is_none() => Stage::Securing,
            (Some(_), None) => Stage::Waiting,
            (Some(_), Some(_)) => Stage::Reading,
        }
    }

    /// The span of time that the present stage has to itself, if it is limited, and when that began.
    #[must_use]
    pub fn own_limit(&self, profile: &Profile) -> Option<(Micros, Mono)> {
        let timeouts = &profile.timeouts;
        match self.stage() {
            Stage::Connecting => timeouts.connect.map(|span| (span, self.started)),
            Stage::Securing => {
                let greeted = self.greeted.or(self.connected).unwrap_or(self.started);
                timeouts.tls.map(|span| (span, Mono(greeted.0 + self.answering_ns)))
            }
            Stage::Waiting => timeouts.ttfb.map(|span| (span, self.asked.unwrap_or(self.started))),
            Stage::Reading => timeouts.idle.map(|span| (span, self.last_byte)),
        }
    }

    /// Bytes that the kernel had at `arrived` (`None`: it gave no stamp) and we at `seen`.
    pub fn received(
        &mut self,
        profile: &Profile,
        input: &[u8],
        arrived: Option<Mono>,
        seen: Mono,
    ) -> Option<Ending> {
        if input.is_empty() {
            return None;
        }
        if let Some(behind) = &mut self.behind {
            let Some(claim) = self.memory.claim(input.len() + size_of::<Receive>()) else {
                let arrived = self.clamp_arrival(arrived, seen);
                return Some(self.our_fault(MissReason::Overload, arrived));
            };
            let blind_since = self.blind_since;
            behind.receives.push_back(Receive {
                bytes: input.into(),
                arrived,
                seen,
                blind_since,
                _claim: claim,
            });
            return self.catch_up(profile, seen);
        }
        let arrived = self.clamp_arrival(arrived, seen);
        let arrived = self.in_doubt(profile, arrived);
        self.look_at(profile, input, arrived, seen)
    }

    /// A stamp, after a time of blindness: in time, and waited for us since that began.
    fn in_doubt(&mut self, profile: &Profile, arrived: Mono) -> Mono {
        let Some(since) = self.blind_since else { return arrived };
        let arrived = arrived.min(self.limit(profile)).max(self.last_byte);
        self.waited_ns += arrived.nanos_since(since.max(self.last_byte));
        arrived
    }

    /// Whether there is something that came and was not looked at: [`Self::catch_up`] does.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// One go at what came and was not looked at, of [`config::DECODED_BYTES_PER_GO`].
    pub fn catch_up(&mut self, profile: &Profile, now: Mono) -> Option<Ending> {
        let mut behind = self.behind.take()?;
        let ending = if let Some(undecided) = behind.undecided.take() {
            if self.body.go_on(self.go_bytes) == Backlog::Left {
                behind.undecided = Some(undecided);
                None
            } else {
                let Undecided { fed, arrived, since, cpu_ns } = undecided;
                let ending = self.judge(profile, fed, arrived);
                if ending.is_some() {
                    self.waited_ns += now.nanos_since(since).saturating_sub(self.cpu_ns - cpu_ns);
                }
                ending
            }
        } else if let Some(Receive { bytes, arrived, seen, blind_since, .. }) = behind.receives.pop_front() {
            self.blind_since = blind_since;
            let arrived = self.clamp_arrival(arrived, seen);
            let arrived = self.in_doubt(profile, arrived);
            self.look_at(profile, &bytes, arrived, now)
        } else {
            behind.broken.take().map(|(how, seen, blind_since)| {
                self.blind_since = blind_since;
                self.broke(profile, how, seen)
            })
        };
        // What has just been looked at may be more than a go.
        let undecided = self.behind.take().and_then(|behind| behind.undecided);
        behind.undecided = behind.undecided.take().or(undecided);
        let is_over = behind.undecided.is_none() && behind.receives.is_empty() && behind.broken.is_none();
        let Some(ending) = ending else {
            self.behind = (!is_over).then_some(behind);
            return None;
        };
        // Whatever came behind the end, nobody asked for it.
        let parting = if is_over || matches!(ending.parting, Parting::GiveUp(_)) {
            ending.parting
        } else {
            Parting::Close
        };
        Some(Ending { parting, ..ending })
    }

    /// Bytes that the kernel had at `arrived`, looked at at `seen`.
    fn look_at(&mut self, profile: &Profile, input: &[u8], arrived: Mono, seen: Mono) -> Option<Ending> {
        if arrived > self.limit(profile) {
            return Some(self.timed_out(profile));
        }
        self.bytes_in += input.len() as u64;
        if self.tls.is_some() {
            self.received_tls(profile, input, arrived, seen)
        } else {
            self.received_plain(profile, input, arrived, seen)
        }
    }

    fn received_plain(
        &mut self,
        profile: &Profile,
        input: &[u8],
        arrived: Mono,
        seen: Mono,
    ) -> Option<Ending> {
        let first_input = self.first_byte.is_none();
        if first_input {
            self.first_byte = Some(arrived);
            self.waited_ns += seen.nanos_since(arrived);
        }
        self.last_byte = arrived;
        let since = if first_input { seen } else { arrived };
        let ending = self.read(profile, input, arrived, since)?;
        self.waited_ns += seen.nanos_since(since);
        Some(ending)
    }

    fn received_tls(&mut self, profile: &Profile, input: &[u8], arrived: Mono, seen: Mono) -> Option<Ending> {
        self.last_byte = arrived;
        let tls = self.tls.as_mut().expect("the caller has looked");
        let mut plain = std::mem::take(&mut tls.plain);
        plain.clear();
        let result = tls.session.received(input, &mut plain);
        if self.secured.is_none() {
            self.owes_since = Some(arrived);
            if result.is_ok() && !tls.session.is_handshaking() {
                self.secured = Some(arrived);
                // Its sending ends the agent's part; see `take_output`.
                tls.session.send(&self.request);
            }
        }
        if let Err(failure) = result {
            return Some(self.ending(Some(failure), arrived));
        }
        let mut ending = None;
        if !plain.is_empty() {
            let mut since = arrived;
            if self.first_byte.is_none() {
                self.first_byte = Some(arrived);
                self.asked.get_or_insert(arrived);
                self.waited_ns += seen.nanos_since(arrived);
                since = seen;
            }
            ending = self.read(profile, &plain, arrived, since);
            if ending.is_some() {
                self.waited_ns += seen.nanos_since(since);
            }
        }
        if let Some(tls) = &mut self.tls {
            tls.plain = plain;
        }
        ending
    }

    /// Plaintext of the response, whose waiting for us is counted up to `since`.
    fn read(&mut self, profile: &Profile, plain: &[u8], arrived: Mono, since: Mono) -> Option<Ending> {
        let (response, body) = (&mut self.response, &mut self.body);
        let mut rest = plain;
        if response.status().is_none() {
            // What the head says of the body is needed before its first byte.
            match response.feed_head(plain) {
                Ok(head_bytes) => rest = &plain[head_bytes..],
                Err(failure) => return Some(self.ending(Some(failure), arrived)),
            }
            response.status()?;
            body.begin(response, &self.memory);
        }
        let fed = response.feed(rest, &mut |payload| body.push(payload));
        if body.go_on(self.go_bytes) == Backlog::Left {
            let undecided = Undecided { fed, arrived, since, cpu_ns: self.cpu_ns };
            self.behind = Some(Box::new(Behind {
                undecided: Some(undecided),
                receives: VecDeque::new(),
                broken: None,
            }));
            return None;
        }
        self.judge(profile, fed, arrived)
    }

    /// What framing and body together come to, when all that came has been decoded.
    fn judge(&mut self, profile: &Profile, fed: Result<Progress, Failure>, arrived: Mono) -> Option<Ending> {
        let progress = self.body.progress(&profile.expect);
        match (fed, progress) {
            // There is no memory left to decode it with.
            (_, BodyProgress::Starved) => Some(self.our_fault(MissReason::Overload, arrived)),
            (_, BodyProgress::Failed(failure)) => Some(self.ending(Some(failure), arrived)),
            // Whatever framing says of what lies behind the limit: nobody looks there.
            (_, BodyProgress::Cut) => Some(self.stopped(arrived)),
            (Err(Failure::BodyTooLarge), _) if profile.expect.body.is_some() => {
                match self.body.is_certain() {
                    true => Some(self.stopped(arrived)),
                    false => Some(self.ending(Some(Failure::BodyNoVerdict), arrived)),
                }
            }
            (Err(failure), _) => Some(self.ending(Some(failure), arrived)),
            (Ok(Progress::Complete { .. }), _) => {
                let failure = self.body.finish().err();
                Some(self.ending(failure, arrived))
            }
            (Ok(Progress::More), BodyProgress::Enough) => Some(self.stopped(arrived)),
            (Ok(Progress::More), BodyProgress::More) => None,
        }
    }

    /// We lack what it takes, so that nothing is known of the origin.
    fn our_fault(&mut self, reason: MissReason, at: Mono) -> Ending {
        let ending = self.ending(None, at);
        Ending { parting: Parting::GiveUp(reason), ..ending }
    }

    /// Enough is known, though there is more to come.
    fn stopped(&mut self, at: Mono) -> Ending {
        self.flags = self.flags.with(Flags::STOPPED);
        let ending = self.ending(None, at);
        Ending { parting: Parting::Close, ..ending }
    }

    /// The connection broke at `seen`, or could not be made.
    pub fn broken(&mut self, profile: &Profile, how: Broken, seen: Mono) -> Option<Ending> {
        match &mut self.behind {
            Some(behind) => {
                behind.broken.get_or_insert((how, seen, self.blind_since));
                None
            }
            None => Some(self.broke(profile, how, seen)),
        }
    }

    fn broke(&mut self, profile: &Profile, how: Broken, seen: Mono) -> Ending {
        // Blind, we take it for as early as it can have been.
        let at = self.blind_since.unwrap_or(seen).max(self.last_byte);
        if at > self.limit(profile) && deadline_may_come_first(how) {
            return self.timed_out(profile);
        }
        // With bytes that came in the same time, that time has been counted.
        if self.blind_since.is_some_and(|since| self.last_byte <= since) {
            self.waited_ns += seen.nanos_since(at);
        }
        // What is certain whenever it is seen must not make the exchange longer than its time.
        let at = at.min(self.limit(profile)).max(self.last_byte);
        let securing = self.stage() == Stage::Securing;
        let failure = match (how, self.connected.is_some()) {
            (Broken::Closed, true) if securing => Failure::TlsProtocol,
            (Broken::Closed, true) => match self.end_of_stream() {
                // The close was the end of the body; FIN has no stamp of the kernel's.
                Ok(()) => {
                    self.flags = self.flags.with(Flags::USER_TIME);
                    let failure = self.body.finish().err();
                    let ending = self.ending(failure, at);
                    return Ending { parting: Parting::Close, ..ending };
                }
                Err(failure) => failure,
            },
            (Broken::Refused, true) | (Broken::Reset, _) => Failure::Reset,
            (Broken::TimedOut, _) => return self.timed_out_at(profile, at),
            (Broken::SendFailed, _) => Failure::SendFailed,
            (Broken::Refused, false) => Failure::ConnectRefused,
            (Broken::Unreachable, _) => Failure::NetworkUnreachable,
            (Broken::NoPort, _) => return self.our_fault(MissReason::InflightLimit, at),
            (Broken::Closed | Broken::Other, false) => Failure::ConnectFailed,
            (Broken::Other, true) => Failure::Reset,
        };
        self.ending(Some(failure), at)
    }

    /// FIN: the end of a body that ends so, but over TLS only if the origin said that it meant it: else anybody on
    /// the way may have cut it off (RFC 8446, section 6.1). A body whose length is known needs no such word.
    fn end_of_stream(&mut self) -> Result<(), Failure> {
        let ended = self.response.eof();
        match &self.tls {
            Some(tls) if ended.is_ok() && !tls.session.peer_closed_cleanly() => Err(Failure::ClosedEarly),
            _ => ended,
        }
    }

    /// Time is up. The phase it fell into is cut off there, however late we noticed.
    pub fn timed_out(&mut self, profile: &Profile) -> Ending {
        self.timed_out_at(profile, self.limit(profile))
    }

    /// What it ended with is not the origin's word but ours: the probe is given up at `at`.
    pub fn given_up(&mut self, failure: Failure, at: Mono) -> Ending {
        self.ending(Some(failure), at.max(self.last_byte))
    }

    /// The status of the response, 0 if there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().unwrap_or(0)
    }

    /// The response, for what it says beside its status.
    #[must_use]
    pub const fn response(&self) -> &Response {
        &self.response
    }

    /// The request, as it was before TLS.
    #[must_use]
    pub const fn request(&self) -> &Arc<[u8]> {
        &self.request
    }

    /// What became of the body patterns.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Bytes received and sent above TCP.
    #[must_use]
    pub const fn bytes(&self) -> (u64, u64) {
        (self.bytes_in, self.bytes_out)
    }

    /// How it came about.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        self.flags
    }

    /// What TLS tells, if this is TLS.
    #[must_use]
    pub fn tls_facts(&self) -> Option<tls::Facts> {
        self.tls.as_ref().map(|tls| tls.session.facts())
    }

    /// The TLS session, for the next exchange on the same connection.
    #[must_use]
    pub fn into_session(self) -> Option<tls::Session> {
        self.tls.map(|tls| tls.session)
    }

    /// (Time that arrived bytes waited for us, and that the origin did; our handling), ns.
    #[must_use]
    pub const fn agent_ns(&self) -> (u64, u64) {
        (self.waited_ns + self.answering_ns + self.keeping_ns, self.cpu_ns)
    }

    /// The phases up to `end`, µs, and how much of the time until then is in none of them.
    #[must_use]
    pub fn phases(&self, end: Mono) -> Phases {
        let mut phases = Phases::NONE;
        let after_start_ns = |at: Mono| at.min(end).nanos_since(self.started);
        let end_ns = after_start_ns(end);
        let span_us = |from_ns: u64, to_ns: u64| clamp_us(to_ns / 1_000 - from_ns.min(to_ns) / 1_000);
        let connected_ns = self.connected.map(after_start_ns);
        if !self.flags.has(Flags::REUSED) {
            phases.connect_us = span_us(0, connected_ns.unwrap_or(end_ns));
        }
        let Some(connected_ns) = connected_ns else { return phases };
        let secured_ns = self.secured.map(after_start_ns);
        if self.tls.is_some() && !self.flags.has(Flags::REUSED) {
            let greeted_ns = self.greeted.map_or(connected_ns, after_start_ns);
            let until_ns = secured_ns.unwrap_or(end_ns).max(greeted_ns);
            let spent_us = span_us(greeted_ns, until_ns);
            phases.tls_us = (spent_us - clamp_us(self.answering_ns / 1_000)).max(0);
        }
        if self.tls.is_some() && secured_ns.is_none() {
            return phases;
        }
        let Some(asked_ns) = self.asked.map(after_start_ns) else { return phases };
        let first_byte_ns = self.first_byte.map(after_start_ns);
        phases.processing_us = span_us(asked_ns, first_byte_ns.unwrap_or(end_ns).max(asked_ns));
        if let Some(first_byte_ns) = first_byte_ns {
            phases.transfer_us = span_us(first_byte_ns, end_ns);
        }
        debug_assert!(phases.as_array().iter().all(|us| *us >= ABSENT), "no phase is negative");
        phases
    }

    /// How long the request took to leave, as a part of the processing phase, µs; absent with that phase.
    ///
    /// We may notice late that it has left, but an origin that has begun to answer, or a probe that has ended, does not
    /// wait for it any more.
    #[must_use]
    pub fn write_us(&self, processing_us: i32) -> i32 {
        let written_us = match (self.asked, self.written) {
            (Some(asked), Some(written)) => clamp_us(written.nanos_since(asked) / 1_000),
            _ => i32::MAX,
        };
        written_us.min(processing_us)
    }

    /// A stamp within what is possible: not before the last event, not after we saw it. Kernel stamps are
    /// wall time, so a stepped clock must not be able to make a phase negative.
    fn clamp_arrival(&mut self, arrived: Option<Mono>, seen: Mono) -> Mono {
        let earliest = self.last_byte.max(self.started);
        match arrived {
            Some(arrived) => arrived.clamp(earliest, seen.max(earliest)),
            None => {
                self.flags = self.flags.with(Flags::USER_TIME);
                seen.max(earliest)
            }
        }
    }

    /// Until when the present stage may last.
    fn limit(&self, profile: &Profile) -> Mono {
        self.own_limit(profile).map_or(self.deadline, |(span, from)| self.deadline.min(from + span))
    }

    /// Whether the present stage may not last beyond `at`.
    #[must_use]
    pub fn is_late(&self, profile: &Profile, at: Mono) -> bool {
        self.limit(profile) <= at
    }

    fn timed_out_at(&mut self, profile: &Profile, at: Mono) -> Ending {
        self.flags = self.flags.with(Flags::CENSORED);
        // A stage without a limit of its own has the probe's. One that has kept its own is not to blame for the
        // whole's.
        let own = self.own_limit(profile).map(|(span, from)| from + span);
        let failure = match (self.stage(), own) {
            (_, Some(own)) if at < own => Failure::TotalTimeout,
            (Stage::Connecting, _) => Failure::ConnectTimeout,
            (Stage::Securing, _) => Failure::TlsTimeout,
            (Stage::Waiting, _) => Failure::TtfbTimeout,
            (Stage::Reading, Some(_)) => Failure::IdleTimeout,
            (Stage::Reading, None) => Failure::TransferTimeout,
        };
        self.ending(Some(failure), at)
    }

    fn ending(&mut self, failure: Option<Failure>, at: Mono) -> Ending {
        // An origin may answer before it has read, and thus before we have sent, all of the request; the rest
        // of that one must not get in front of the next.
        let request_sent = self.bytes_out > 0 && self.unsent_bytes == 0;
        let parting = match (failure, self.response.reusable() && request_sent) {
            (None, true) => Parting::Keep,
            (None, false) => Parting::Linger,
            (Some(_), _) => Parting::Close,
        };
        Ending { failure, at, parting }
    }
}

/// FIN and RST carry no stamp: seen after the deadline, they may have come before it or after. Bytes that came
/// in time have been handed in before, so only a response that was still incomplete is judged late.
const fn deadline_may_come_first(how: Broken) -> bool {
    matches!(how, Broken::Closed | Broken::Reset | Broken::TimedOut | Broken::Other)
}
