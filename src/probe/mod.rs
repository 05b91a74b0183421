//! One probe as a state machine: what happened on the wire goes in, a [`Verdict`] and a sample come out.
//!
//! ```text
//!            connected          first byte            end of response
//! Connecting ─────────► Waiting ──────────► Reading ─────────────────► verdict
//!     │                    ▲  │                │
//!     │        start on a reused connection    │
//!     └── error, closed, deadline ─┴───────────┴──────────────────────► verdict
//! ```
//!
//! In scope: the phases and their exact sum, the failure class of whatever went wrong, the deadline.
//! Out of scope: sockets and timers ([`crate::shard`]), framing ([`crate::http`]).
//!
//! A phase ends when the kernel saw the bytes (`arrived`), not when we did (`seen`); the difference is the
//! agent's delay. For the same reason the deadline is compared with `arrived`: whether an endpoint made it in
//! time must not depend on how busy we were.
//!
//! Invariants: the phases that happened sum to the total exactly (every stamp is floored to whole microseconds
//! after the start, so that differences of stamps telescope), and the total never exceeds the timeout, however
//! late we looked.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Plan, Resolve};

use crate::clock::{Micros, Mono, Wall};
use crate::http::{Progress, Response};
use crate::sample::{ABSENT, Detail, EndpointId, Failure, Flags, Outcome, Phases, Sample, clamp_us};

/// A probe in flight.
#[derive(Debug)]
pub struct Probe {
    scheduled_at: Wall,
    endpoint_id: EndpointId,
    flags: Flags,
    lag: Micros,
    started: Mono,
    deadline: Mono,
    /// When the connection stood; the start itself on a reused one.
    connected: Option<Mono>,
    /// When the first byte of the response arrived.
    first_byte: Option<Mono>,
    /// Latest arrival: what the response's end is, once it is whole.
    last_byte: Mono,
    /// Σ (seen − arrived) over the bytes that ended a phase, ns.
    waited_ns: u64,
    /// Our own handling so far, ns.
    cpu_ns: u64,
    bytes_in: u64,
    bytes_out: u64,
    response: Response,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The failure class; `None` is up.
    pub failure: Option<Failure>,
    /// When: the end of the last phase.
    pub at: Mono,
    /// What the connection is fit for now.
    pub parting: Parting,
}

/// What a connection is fit for when its probe has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Another probe: both sides keep it alive, and nothing odd happened.
    Keep,
    /// Nothing; but the response was whole, and the origin may say goodbye first.
    Linger,
    /// Nothing at all.
    Close,
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
    /// Any other error.
    Other,
}

impl Probe {
    /// A probe that starts now. `reused`: on a connection that stands already.
    #[must_use]
    pub fn start(
        plan: &Plan,
        endpoint_id: EndpointId,
        scheduled_at: Wall,
        lag: Micros,
        now: Mono,
        reused: bool,
    ) -> Self {
        let flags = if reused { plan.flags().with(Flags::REUSED) } else { plan.flags() };
        Self {
            scheduled_at,
            endpoint_id,
            flags,
            lag,
            started: now,
            deadline: now + plan.timeout,
            connected: reused.then_some(now),
            first_byte: None,
            last_byte: now,
            waited_ns: 0,
            cpu_ns: 0,
            bytes_in: 0,
            bytes_out: 0,
            response: Response::new(plan.head_request),
        }
    }

    /// When the probe must have its verdict.
    #[must_use]
    pub const fn deadline(&self) -> Mono {
        self.deadline
    }

    /// The connection stands; the request is on its way.
    ///
    /// Nothing promises that this completion is seen before those of the bytes that followed: then they have
    /// said so already.
    pub fn connected(&mut self, at: Mono) {
        if self.connected.is_none() {
            self.connected = Some(at.max(self.started));
        }
    }

    /// `bytes` of the request left.
    pub const fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Adds to our own handling time, ns.
    pub const fn charge(&mut self, cpu_ns: u64) {
        self.cpu_ns += cpu_ns;
    }

    /// Bytes of the response, which the kernel had at `arrived` (`None`: it gave no stamp) and we at `seen`.
    pub fn received(
        &mut self,
        plan: &Plan,
        input: &[u8],
        arrived: Option<Mono>,
        seen: Mono,
    ) -> Option<Verdict> {
        if input.is_empty() {
            return None;
        }
        let arrived = self.clamp_arrival(arrived, seen);
        if arrived > self.deadline {
            return Some(self.timed_out());
        }
        let first_input = self.first_byte.is_none();
        if first_input {
            // Bytes prove a connection: its handshake's completion may be reaped in the same turn, late, or
            // after them.
            self.connected = Some(self.connected.map_or(arrived, |connected| connected.min(arrived)));
            self.first_byte = Some(arrived);
            self.waited_ns += seen.nanos_since(arrived);
        }
        self.last_byte = arrived;
        self.bytes_in += input.len() as u64;
        let failure = match self.response.feed(input, &mut |_payload| {}) {
            Ok(Progress::More) => return None,
            Ok(Progress::Complete { consumed: _ }) => self.expectation_failed(plan),
            Err(failure) => Some(failure),
        };
        if !first_input {
            self.waited_ns += seen.nanos_since(arrived);
        }
        Some(self.verdict(failure, arrived))
    }

    /// The connection broke at `seen`, or could not be made.
    pub fn broken(&mut self, plan: &Plan, how: Broken, seen: Mono) -> Verdict {
        if seen > self.deadline && deadline_may_come_first(how) {
            return self.timed_out();
        }
        // What is certain whenever it is seen must not make the probe longer than its timeout.
        let at = seen.min(self.deadline).max(self.last_byte);
        let failure = match (how, self.connected.is_some()) {
            (Broken::Closed, true) => match self.response.eof() {
                // The close was the end of the body; FIN has no stamp of the kernel's.
                Ok(()) => {
                    self.flags = self.flags.with(Flags::USER_TIME);
                    let verdict = self.verdict(self.expectation_failed(plan), at);
                    return Verdict { parting: Parting::Close, ..verdict };
                }
                Err(failure) => failure,
            },
            (Broken::Reset | Broken::Refused, true) => Failure::Reset,
            (Broken::TimedOut, _) => return self.timed_out_at(at),
            (Broken::SendFailed, _) => Failure::SendFailed,
            (Broken::Refused | Broken::Reset, false) => Failure::ConnectRefused,
            (Broken::Unreachable, _) => Failure::NetworkUnreachable,
            (Broken::Closed | Broken::Other, false) => Failure::ConnectFailed,
            (Broken::Other, true) => Failure::Reset,
        };
        self.verdict(Some(failure), at)
    }

    /// The deadline has passed. The phase it fell into is cut off there, however late we noticed.
    pub fn timed_out(&mut self) -> Verdict {
        self.timed_out_at(self.deadline)
    }

    /// The sample of this probe, `cpu_ns` more of our handling included.
    #[must_use]
    pub fn sample(&self, verdict: Verdict, cpu_ns: u64) -> Sample {
        let cpu_ns = self.cpu_ns + cpu_ns;
        let phases = self.phases(verdict.at);
        Sample {
            ts: self.scheduled_at,
            endpoint_id: self.endpoint_id,
            lag_us: clamp_us(self.lag.0),
            phases,
            total_us: phases.sum_us(),
            agent_us: clamp_us((self.waited_ns + cpu_ns) / 1_000),
            bytes_in: clamp_us(self.bytes_in),
            bytes_out: clamp_us(self.bytes_out),
            cpu_ns: clamp_us(cpu_ns),
            status: self.response.status().map_or(0, u16::cast_signed),
            outcome: if verdict.failure.is_some() { Outcome::Down } else { Outcome::Up },
            reason: verdict.failure.map_or(0, Failure::code),
            flags: self.flags,
            detail: Detail::NONE,
        }
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

    fn expectation_failed(&self, plan: &Plan) -> Option<Failure> {
        let status = self.response.status()?;
        (!plan.expect_status.contains(status)).then_some(Failure::StatusUnexpected)
    }

    fn timed_out_at(&mut self, at: Mono) -> Verdict {
        self.flags = self.flags.with(Flags::CENSORED);
        // A handshake seen to end after the deadline was most likely done before it, while we were stopped: the
        // kernel does not wait for us, and had it been late, the deadline would have been handled first.
        let failure = match (self.connected, self.first_byte) {
            (None, _) => Failure::ConnectTimeout,
            (Some(_), None) => Failure::TtfbTimeout,
            (Some(_), Some(_)) => Failure::TransferTimeout,
        };
        self.verdict(Some(failure), at)
    }

    fn verdict(&self, failure: Option<Failure>, at: Mono) -> Verdict {
        let whole = matches!(failure, None | Some(Failure::StatusUnexpected));
        // An origin may answer before it has read, and thus before we have sent, all of the request; the rest
        // of that one must not get in front of the next.
        let request_sent = self.bytes_out > 0;
        let parting = match (whole, self.response.reusable() && request_sent) {
            (true, true) => Parting::Keep,
            (true, false) => Parting::Linger,
            (false, _) => Parting::Close,
        };
        Verdict { failure, at, parting }
    }

    fn phases(&self, end: Mono) -> Phases {
        let after_start_us = |at: Mono| clamp_us(at.nanos_since(self.started) / 1_000);
        let end_us = after_start_us(end);
        let reused = self.flags.has(Flags::REUSED);
        let mut phases = Phases::NONE;
        let connected_us = self.connected.map(|at| after_start_us(at).min(end_us));
        let first_byte_us = self.first_byte.map(|at| after_start_us(at).min(end_us));
        if !reused {
            phases.connect_us = connected_us.unwrap_or(end_us);
        }
        if let Some(connected_us) = connected_us {
            phases.processing_us = first_byte_us.unwrap_or(end_us).max(connected_us) - connected_us;
        }
        if let Some(first_byte_us) = first_byte_us {
            phases.transfer_us = end_us - first_byte_us;
        }
        debug_assert!(phases.as_array().iter().all(|us| *us >= ABSENT), "no phase is negative");
        debug_assert_eq!(phases.sum_us(), end_us, "phases telescope to the total");
        phases
    }
}

/// FIN and RST carry no stamp: seen after the deadline, they may have come before it or after. Bytes that came
/// in time have been handed in before, so only a response that was still incomplete is judged late.
const fn deadline_may_come_first(how: Broken) -> bool {
    matches!(how, Broken::Closed | Broken::Reset | Broken::TimedOut | Broken::Other)
}

/// The sample of an endpoint whose address is not known: down at once, in no time, without a packet.
#[must_use]
pub fn unresolved_sample(
    plan: &Plan,
    endpoint_id: EndpointId,
    scheduled_at: Wall,
    lag: Micros,
    failure: Failure,
) -> Sample {
    Sample {
        ts: scheduled_at,
        endpoint_id,
        lag_us: clamp_us(lag.0),
        phases: Phases { resolve_us: 0, ..Phases::NONE },
        total_us: 0,
        agent_us: 0,
        bytes_in: 0,
        bytes_out: 0,
        cpu_ns: 0,
        status: 0,
        outcome: Outcome::Down,
        reason: failure.code(),
        flags: plan.flags(),
        detail: Detail::NONE,
    }
}
