//! One probe: as many exchanges as its redirects and retries make, and the sample that sums them up.
//!
//! ```text
//!            name known            response whole, or not
//! Resolving ───────────► Exchange ────────────────────────► judged ──► Done: a sample
//!     ▲                                                       │
//!     └───────── next hop of a redirect, next attempt ◄───────┘
//! ```
//!
//! In scope: phases over all hops, expectations, redirects followed, attempts made, what the sample says.
//! Out of scope: one exchange ([`Exchange`]), names and connections ([`crate::shard::engine`]), where a redirect
//! leads ([`crate::http::redirect`]).
//!
//! Phases of hops are summed, as curl and blackbox_exporter do; what each hop took stands in its step. What lies
//! between two hops, and between an answer of DNS and the connection it was for, is ours and in no phase.
//!
//! Invariants: the phases that happened sum to the total exactly, and the total never exceeds the timeout, however
//! late we looked.

pub mod body;
mod exchange;
mod plan;
#[cfg(test)]
mod tests;

pub use exchange::{Blind, Broken, Departure, Ending, Exchange, Parting, Stage};
pub use plan::{ClosePolicy, Expect, HostPort, Plan, Profile, Source, Timeouts};

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use url::Url;

use crate::clock::{Micros, Mono, Wall};
use crate::config;
use crate::http::redirect;
use crate::sample::{
    ABSENT, BodyMatch, Detail, EndpointId, Failure, Flags, MissReason, Outcome, Phases, Sample, clamp_us,
    plus,
};
use crate::tls;

/// A probe in flight.
#[derive(Debug)]
pub struct Probe {
    scheduled_at: Wall,
    endpoint_id: EndpointId,
    /// Which of the slot's probes.
    twin: i16,
    flags: Flags,
    lag: Micros,
    started: Mono,
    deadline: Mono,
    /// From 1.
    attempt: u8,
    redirects: u8,
    /// Of the hops of this attempt that are over,
    phases: Phases,
    /// and how long their requests took to leave.
    write_us: i32,
    /// Of the present hop: how long it waited for its name; [`ABSENT`] if it needs none.
    resolve_us: i32,
    resolving_since: Mono,
    address: Option<SocketAddr>,
    /// Where a redirect has led to.
    hop: Option<Box<Hop>>,
    exchange: Option<Exchange>,
    /// When the last exchange ended, if there was one, and when we saw that.
    ended_at: Mono,
    ended_seen: Mono,
    /// What the last exchange found out.
    last: Option<(i16, Detail)>,
    /// Time in no phase, and our handling, of all that is over, ns.
    agent_ns: u64,
    cpu_ns: u64,
    bytes_in: u64,
    bytes_out: u64,
    steps: Vec<Sample>,
}

/// The present hop of a probe that was redirected, and where it has been.
#[derive(Debug)]
pub struct Hop {
    /// Whom it leads to,
    pub origin: HostPort,
    /// with which request.
    pub request: Arc<[u8]>,
    url: Url,
    trail: redirect::Trail,
}

/// What is to be done after an exchange has ended.
#[derive(Debug)]
pub enum Next {
    /// The probe is over.
    Done(Verdict),
    /// It is over, and says nothing of the endpoint: we had no port for it, or no room for the answer.
    Missed(MissReason),
    /// Another exchange, at the next hop's place or as another attempt: [`Probe::hop`] says where.
    Again,
}

/// What an exchange leaves behind.
#[derive(Debug)]
pub struct Left {
    /// Where its connection leads.
    pub address: Option<SocketAddr>,
    /// The TLS session on it.
    pub session: Option<tls::Session>,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The failure class; `None` is up.
    pub failure: Option<Failure>,
    /// When: the end of the last phase.
    pub at: Mono,
}

impl Probe {
    /// A probe that starts now.
    #[must_use]
    pub fn start(plan: &Plan, endpoint_id: EndpointId, scheduled_at: Wall, lag: Micros, now: Mono) -> Self {
        Self {
            scheduled_at,
            endpoint_id,
            twin: 0,
            flags: plan.flags(),
            lag,
            started: now,
            deadline: now + plan.profile.timeout,
            attempt: 1,
            redirects: 0,
            phases: Phases::NONE,
            write_us: ABSENT,
            resolve_us: ABSENT,
            resolving_since: now,
            address: None,
            hop: None,
            exchange: None,
            ended_at: now,
            ended_seen: now,
            last: None,
            agent_ns: 0,
            cpu_ns: 0,
            bytes_in: 0,
            bytes_out: 0,
            steps: Vec::new(),
        }
    }

    /// The same slot's probe of another address, number `number`: the name was known to have several.
    #[must_use]
    pub fn twin(&self, plan: &Plan, number: i16) -> Self {
        let mut twin = Self::start(plan, self.endpoint_id, self.scheduled_at, self.lag, self.started);
        (twin.flags, twin.resolve_us, twin.resolving_since) =
            (self.flags, self.resolve_us, self.resolving_since);
        twin.twin = number;
        twin
    }

    /// When the probe must have its verdict.
    #[must_use]
    pub const fn deadline(&self) -> Mono {
        self.deadline
    }

    /// Where the present hop leads, if that is not where the endpoint does.
    #[must_use]
    pub fn hop(&self) -> Option<&Hop> {
        self.hop.as_deref()
    }

    /// Whether the first exchange of the first attempt is still to come or under way: only that may use a connection
    /// kept from before, and leave one behind.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.attempt == 1 && self.redirects == 0
    }

    /// The exchange under way.
    pub const fn exchange(&mut self) -> Option<&mut Exchange> {
        self.exchange.as_mut()
    }

    /// Adds to our own handling time, ns.
    pub const fn charge(&mut self, cpu_ns: u64) {
        match &mut self.exchange {
            Some(exchange) => exchange.charge(cpu_ns),
            None => self.cpu_ns += cpu_ns,
        }
    }

    /// The address is known: it was had at `arrived`, which is `now` unless DNS had to be asked. By as much as we have
    /// waited since, the deadline moves.
    pub fn resolved(&mut self, arrived: Mono, now: Mono, stale: bool, asked: bool) {
        let arrived = arrived.clamp(self.resolving_since, now.max(self.resolving_since));
        self.resolve_us = clamp_us(arrived.min(self.deadline).nanos_since(self.resolving_since) / 1_000);
        let gap_ns = now.nanos_since(arrived);
        self.agent_ns += gap_ns;
        self.deadline = Mono(self.deadline.0 + gap_ns);
        if stale {
            self.flags = self.flags.with(Flags::DNS_STALE);
        }
        if asked {
            self.flags = self.flags.with(Flags::DNS_ASKED);
        }
    }

    /// The present hop has no address: the failure was known at `at`.
    pub fn unresolved(&mut self, failure: Failure, at: Mono) -> Ending {
        let at = at.min(self.deadline).max(self.resolving_since);
        self.resolve_us = clamp_us(at.nanos_since(self.resolving_since) / 1_000);
        Ending { failure: Some(failure), at, parting: Parting::Close }
    }

    /// The exchange with `address` begins.
    pub fn begin(&mut self, address: SocketAddr, exchange: Exchange) {
        debug_assert!(self.exchange.is_none(), "one exchange at a time");
        self.address = Some(address);
        self.exchange = Some(exchange);
    }

    /// What the exchange had to say left like this. The probe has as much longer as the origin had to wait for it.
    pub fn departed(&mut self, departure: Departure) {
        let owed_ns = self.exchange.as_mut().map_or(0, |exchange| exchange.departed(departure));
        self.deadline = Mono(self.deadline.0 + owed_ns);
    }

    /// The present hop may not be made, or cannot.
    #[must_use]
    pub fn refused(&self, failure: Failure, now: Mono) -> Ending {
        Ending { failure: Some(failure), at: now.min(self.deadline), parting: Parting::Close }
    }

    /// The span of time that the present stage has to itself, if it is limited.
    #[must_use]
    pub fn stage_limit(&self, plan: &Plan) -> Option<Micros> {
        match &self.exchange {
            Some(exchange) => exchange.own_limit(&plan.profile).map(|(span, _)| span),
            None => plan.profile.timeouts.resolve,
        }
    }

    /// Time is up for the present stage, or for all.
    pub fn timed_out(&mut self, plan: &Plan, now: Mono) -> Ending {
        match &mut self.exchange {
            Some(exchange) => exchange.timed_out(&plan.profile),
            None => {
                self.flags = self.flags.with(Flags::CENSORED);
                let own = plan.profile.timeouts.resolve.map(|span| self.resolving_since + span);
                let at = own.map_or(self.deadline, |own| own.min(self.deadline)).min(now);
                let own_is_kept = own.is_some_and(|own| self.deadline < own);
                let failure = if own_is_kept { Failure::TotalTimeout } else { Failure::DnsTimeout };
                self.resolve_us = clamp_us(at.nanos_since(self.resolving_since) / 1_000);
                Ending { failure: Some(failure), at, parting: Parting::Close }
            }
        }
    }

    /// The exchange is over, or was never made: is that the verdict, or does it go on? With what it leaves behind.
    /// `seen`: when we know it.
    pub fn ended(&mut self, plan: &Plan, ending: Ending, seen: Mono) -> (Next, Left) {
        if let Parting::GiveUp(reason) = ending.parting {
            return (Next::Missed(reason), self.leave());
        }
        let redirect = if ending.failure.is_none() { self.redirect(plan) } else { None };
        let (hop, failure) = match redirect {
            Some(Ok(hop)) => (Some(hop), None),
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, ending.failure.or_else(|| self.unmet(plan, ending.at))),
        };
        let expected_down = plan.profile.expect.down;
        let tried_enough = self.attempt > plan.profile.retries || ending.at >= self.deadline || expected_down;
        let is_over = hop.is_none() && (failure.is_none() || tried_enough);
        if !is_over || !self.steps.is_empty() {
            let step = self.step(plan, failure, ending.at);
            self.steps.push(step);
        }
        self.add_up(ending.at);
        if is_over {
            let failure = match (expected_down, failure) {
                (false, failure) => failure,
                (true, Some(_)) => None,
                (true, None) => Some(Failure::UpUnexpected),
            };
            self.last = Some(self.result(plan));
            let left = self.leave();
            return (Next::Done(Verdict { failure, at: ending.at }), left);
        }
        self.ended_at = ending.at;
        self.ended_seen = seen.max(ending.at);
        self.hop = hop;
        if self.hop.is_some() {
            self.redirects += 1;
        } else {
            self.attempt += 1;
            self.redirects = 0;
            (self.phases, self.write_us) = (Phases::NONE, ABSENT);
        }
        (Next::Again, self.leave())
    }

    /// The next exchange is about to be made. What lies between it and the last one is ours: by so much the deadline
    /// moves.
    pub fn go_on(&mut self, now: Mono) {
        let gap_ns = now.nanos_since(self.ended_at);
        self.deadline = Mono(self.deadline.0 + gap_ns);
        // The end has waited for us until we saw it, and has been counted.
        self.agent_ns += now.nanos_since(self.ended_seen);
        self.resolve_us = ABSENT;
        self.resolving_since = now;
    }

    /// What is said of a slot whose probe has nothing to say.
    #[must_use]
    pub fn missed(&self, reason: MissReason) -> Sample {
        let twin = self.twin;
        Sample { twin, ..Sample::missed(self.scheduled_at, self.endpoint_id, self.lag, reason, self.flags) }
    }

    /// What the exchange that is over leaves to the next on its connection.
    fn leave(&mut self) -> Left {
        let session = self.exchange.take().and_then(Exchange::into_session);
        Left { address: self.address.take(), session }
    }

    /// The samples of this probe: its steps, if there was more than one, and last that of its slot. `cpu_ns` of our
    /// handling is added.
    pub fn samples(mut self, verdict: Verdict, cpu_ns: u64, put: &mut impl FnMut(Sample)) {
        let (status, detail) = self.last.unwrap_or((0, Detail::NONE));
        self.steps.drain(..).for_each(&mut *put);
        let cpu_ns = self.cpu_ns + cpu_ns;
        let agent_us = clamp_us((self.agent_ns + cpu_ns) / 1_000);
        let total_us = self.phases.sum_us();
        let mut flags = self.flags;
        let budget_us = config::AGENT_BUDGET_US.max(total_us / config::AGENT_BUDGET_SHARE);
        if agent_us > budget_us || clamp_us(self.lag.0) > budget_us {
            flags = flags.with(Flags::TAINTED);
        }
        put(Sample {
            ts: self.scheduled_at,
            endpoint_id: self.endpoint_id,
            lag_us: clamp_us(self.lag.0),
            phases: self.phases,
            total_us,
            write_us: self.write_us,
            agent_us,
            bytes_in: clamp_us(self.bytes_in),
            bytes_out: clamp_us(self.bytes_out),
            cpu_ns: clamp_us(cpu_ns),
            flags,
            status,
            outcome: if verdict.failure.is_some() { Outcome::Down } else { Outcome::Up },
            reason: verdict.failure.map_or(0, Failure::code),
            twin: self.twin,
            detail,
        });
    }

    /// What the sample says of the exchange that decided.
    fn result(&self, plan: &Plan) -> (i16, Detail) {
        (self.status(), self.detail(plan, 0))
    }

    fn status(&self) -> i16 {
        self.exchange.as_ref().map_or(0, Exchange::status).cast_signed()
    }

    fn detail(&self, plan: &Plan, step: u8) -> Detail {
        let facts = self.exchange.as_ref().and_then(Exchange::tls_facts);
        let body = self.exchange.as_ref().map(Exchange::body);
        let not_asked = plan.profile.expect.body.is_none();
        Detail {
            address: self.address.map_or([0; 16], |address| mapped(address.ip())),
            tls_not_after_s: facts.and_then(|facts| facts.not_after_s).map_or(0, seconds),
            tls_cipher: facts.map_or(0, |facts| facts.cipher),
            pattern: body.map_or(crate::sample::NO_PATTERN, body::Body::pattern),
            redirects: self.redirects,
            attempt: if plan.profile.retries == 0 { 0 } else { self.attempt },
            body: match body {
                _ if not_asked => BodyMatch::NotAsked,
                Some(body) => body.state(),
                None => BodyMatch::NotEvaluated,
            },
            step,
        }
    }

    /// The record of the present hop, which ended at `at`.
    fn step(&self, plan: &Plan, failure: Option<Failure>, at: Mono) -> Sample {
        let phases = self.hop_phases(at);
        let ((waited_ns, cpu_ns), (bytes_in, bytes_out)) = self
            .exchange
            .as_ref()
            .map_or(((0, 0), (0, 0)), |exchange| (exchange.agent_ns(), exchange.bytes()));
        let flags = self.exchange.as_ref().map_or(self.flags, |exchange| self.flags.with(exchange.flags()));
        Sample {
            ts: self.scheduled_at,
            endpoint_id: self.endpoint_id,
            lag_us: clamp_us(self.lag.0),
            phases,
            total_us: phases.sum_us(),
            write_us: self.hop_write_us(&phases),
            agent_us: clamp_us((waited_ns + cpu_ns) / 1_000),
            bytes_in: clamp_us(bytes_in),
            bytes_out: clamp_us(bytes_out),
            cpu_ns: clamp_us(cpu_ns),
            flags,
            status: self.status(),
            outcome: if failure.is_some() { Outcome::Down } else { Outcome::Up },
            reason: failure.map_or(0, Failure::code),
            twin: self.twin,
            detail: self.detail(plan, u8::try_from(self.steps.len() + 1).unwrap_or(u8::MAX)),
        }
    }

    fn hop_phases(&self, at: Mono) -> Phases {
        let phases = self.exchange.as_ref().map_or(Phases::NONE, |exchange| exchange.phases(at));
        Phases { resolve_us: self.resolve_us, ..phases }
    }

    fn hop_write_us(&self, phases: &Phases) -> i32 {
        self.exchange.as_ref().map_or(ABSENT, |exchange| exchange.write_us(phases.processing_us))
    }

    /// Adds the hop that ends at `at` to what is over.
    fn add_up(&mut self, at: Mono) {
        let phases = self.hop_phases(at);
        self.phases = self.phases.plus(&phases);
        self.write_us = plus(self.write_us, self.hop_write_us(&phases));
        if let Some(exchange) = &self.exchange {
            let ((waited_ns, cpu_ns), (bytes_in, bytes_out)) = (exchange.agent_ns(), exchange.bytes());
            self.agent_ns += waited_ns;
            self.cpu_ns += cpu_ns;
            self.bytes_in += bytes_in;
            self.bytes_out += bytes_out;
            self.flags = self.flags.with(exchange.flags());
            if exchange.tls_facts().is_some_and(|facts| facts.resumed) {
                self.flags = self.flags.with(Flags::TLS_RESUMED);
            }
        }
    }

    /// Where a whole response leads to, if it is a redirect that is to be followed.
    fn redirect(&mut self, plan: &Plan) -> Option<Result<Box<Hop>, Failure>> {
        let exchange = self.exchange.as_ref()?;
        let status = exchange.status();
        let profile = &plan.profile;
        if profile.redirects == 0
            || !redirect::is_redirect(status, exchange.response().location().is_some())
            || profile.expect.status.contains(status)
        {
            return None;
        }
        Some(Hop::follow(plan, self.hop.as_deref(), exchange).map(Box::new))
    }

    /// The first expectation that a whole response does not meet.
    fn unmet(&self, plan: &Plan, at: Mono) -> Option<Failure> {
        let exchange = self.exchange.as_ref()?;
        let expect = &plan.profile.expect;
        let response = exchange.response();
        let status = response.status()?;
        if !expect.status.contains(status) {
            return Some(Failure::StatusUnexpected);
        }
        if expect.minor_version.is_some_and(|minor| response.minor_version() != Some(minor)) {
            return Some(Failure::VersionUnexpected);
        }
        if response.unmet().is_some() {
            return Some(Failure::HeaderMismatch);
        }
        if let Some(failure) = exchange.body().failed_expectation() {
            return Some(failure);
        }
        if let (Some(within_s), Some(facts)) = (expect.cert_expires_within_s, exchange.tls_facts()) {
            let now_s = (self.scheduled_at + self.lag).0 / 1_000_000;
            if facts.not_after_s.is_some_and(|not_after_s| not_after_s - now_s < within_s) {
                return Some(Failure::CertExpiring);
            }
        }
        let total_us = self.phases.plus(&self.hop_phases(at)).sum_us();
        expect.within.filter(|within| u64::from(total_us.unsigned_abs()) > within.0).map(|_| Failure::TooSlow)
    }
}

impl Hop {
    /// Where the response of `exchange` leads, after `from` or, at first, after the endpoint itself.
    fn follow(plan: &Plan, from: Option<&Self>, exchange: &Exchange) -> Result<Self, Failure> {
        let location = exchange.response().location().unwrap_or_default();
        let (base, request) = match from {
            None => (plan.origin.url_of(exchange.request()), exchange.request()),
            Some(hop) => (Some(hop.url.clone()), &hop.request),
        };
        let base = base.ok_or(Failure::RedirectInvalid)?;
        let mut trail = from.map_or_else(
            || redirect::Trail::new(request.split(|byte| *byte == b' ').next().unwrap_or_default(), &base),
            |hop| hop.trail.clone(),
        );
        let rules = redirect::Rules {
            downgrade_allowed: plan.profile.redirect_downgrade,
            secret_fields: &plan.profile.secret_fields,
        };
        let next = redirect::follow(request, &base, exchange.status(), location, rules)?;
        trail.enter(&next, plan.profile.redirects.into())?;
        let origin = HostPort::of_url(&next.url).ok_or(Failure::RedirectInvalid)?;
        Ok(Self { origin, url: next.url, request: next.request.into(), trail })
    }
}

/// An address as the store has it.
fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Seconds since the epoch as stored: to 2106.
fn seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
}
