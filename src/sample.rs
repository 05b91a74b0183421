//! The record of one due slot: [`Sample`], and the closed sets of codes in it.
//!
//! A sample is a line and a half of cache, `Copy` and without pointers, so that it crosses from a shard to the
//! writer as plain bytes. Its fields are the columns of the `metrics` table. Text for people (names of failures)
//! lives in the lookup tables that the migrations fill, and in [`Failure::name`].
//!
//! A probe that followed redirects or was tried again also leaves a *step* for each hop and each attempt: the same
//! struct with [`Detail::step`] set, which goes to the table `steps` and is no slot's sample.
//!
//! The codes are a contract: stored for years, never reused, never renumbered. New ones go at the end of
//! their block of ten.
//!
//! Invariants: for a probed sample the phases present sum to `total_us` exactly, and `write_us` lies within
//! `processing_us`.

use crate::clock::{Micros, Wall};

/// The key of an endpoint in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub i32);

impl EndpointId {
    /// The canary of a shard: no endpoint of anybody's, but the shard's own, whose answers it knows. Never stored.
    #[must_use]
    pub fn canary_of(shard: usize) -> Self {
        Self(-1 - i32::try_from(shard).unwrap_or(i32::MAX - 1))
    }

    /// Whether it is a canary's.
    #[must_use]
    pub const fn is_canary(self) -> bool {
        self.0 < 0
    }
}

/// "This phase did not happen", in every `_us` column.
pub const ABSENT: i32 = -1;

/// What is stored about one due slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// The scheduled time of the slot: not the time of sending.
    pub ts: Wall,
    /// Whose slot it was.
    pub endpoint_id: EndpointId,
    /// Actual start minus scheduled slot, µs. For a missed slot: how late the decision to miss it fell.
    pub lag_us: i32,
    /// The five phases, µs; [`ABSENT`] for one that was not reached.
    pub phases: Phases,
    /// From start to verdict, µs; [`ABSENT`] if missed.
    pub total_us: i32,
    /// How long it took until the kernel had the last byte of the request, µs: the first part of `processing_us`, and
    /// absent with it.
    pub write_us: i32,
    /// The agent's own delay, µs: how long arrived bytes waited for us, plus our parsing.
    pub agent_us: i32,
    /// Bytes received on the wire above TCP (head and body), saturating.
    pub bytes_in: i32,
    /// Bytes sent above TCP, saturating.
    pub bytes_out: i32,
    /// How long we handled this probe's bytes, by the monotonic clock, ns, saturating.
    pub cpu_ns: i32,
    /// See [`Flags`].
    pub flags: Flags,
    /// HTTP status code, 0 if none was received.
    pub status: i16,
    /// What became of the slot.
    pub outcome: Outcome,
    /// Why it is not up: a [`Failure`] code if down, a [`MissReason`] code if missed, 0 if up.
    pub reason: i16,
    /// Which of the slot's probes, where the endpoint has every address of its name probed: from 0, in the order of the
    /// addresses. With slot and endpoint it is the key of a row, and with the step that of a step's.
    pub twin: i16,
    /// What most probes have nothing to say about.
    pub detail: Detail,
}

// `shard` to `writer` traffic and the row width of `metrics` are computed from it.
const _: () = assert!(size_of::<Sample>() == 104);

/// What most probes have nothing to say about: [`Detail::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Detail {
    /// The address that was connected to, last; IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2), all zero if
    /// there was none.
    pub address: [u8; 16],
    /// Until when the origin's certificate is valid, seconds since the Unix epoch; 0 without TLS.
    pub tls_not_after_s: u32,
    /// The cipher suite (IANA's number), which implies the version for TLS 1.3; 0 without TLS.
    pub tls_cipher: u16,
    /// Which pattern decided a mismatch: its place among `body_match`, then `body_forbid`; [`NO_PATTERN`] for none.
    pub pattern: i16,
    /// Redirects followed; in a step, how many had been before it.
    pub redirects: u8,
    /// Which attempt this was, from 1; 0 where retries are off.
    pub attempt: u8,
    /// What became of the body patterns.
    pub body: BodyMatch,
    /// Which step of a probe this is, from 1; 0 for the sample of a slot.
    pub step: u8,
}

/// "No pattern is to blame", in [`Detail::pattern`].
pub const NO_PATTERN: i16 = -1;

impl Detail {
    /// Nothing to say.
    pub const NONE: Self = Self {
        address: [0; 16],
        tls_not_after_s: 0,
        tls_cipher: 0,
        pattern: NO_PATTERN,
        redirects: 0,
        attempt: 0,
        body: BodyMatch::NotAsked,
        step: 0,
    };
}

/// What became of an endpoint's body patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BodyMatch {
    /// There are none.
    NotAsked = 0,
    /// All of `body_match` were found, and none of `body_forbid`.
    Matched = 1,
    /// They were not.
    NotMatched = 2,
    /// The probe ended before there was a body to look at.
    NotEvaluated = 3,
    /// The body was cut off, by its limit or by a failure, before it was certain.
    NoVerdict = 4,
}

impl BodyMatch {
    /// As in the table `body_matches`, in JSON and on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Matched => "matched",
            Self::NotMatched => "not_matched",
            Self::NotEvaluated => "not_evaluated",
            Self::NoVerdict => "no_verdict",
        }
    }

    /// All of them, for the lookup table.
    pub const ALL: [Self; 5] =
        [Self::NotAsked, Self::Matched, Self::NotMatched, Self::NotEvaluated, Self::NoVerdict];
}

/// The phases of a probe, µs. Names follow blackbox_exporter's `probe_http_duration_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Phases {
    /// Name to address.
    pub resolve_us: i32,
    /// TCP handshake.
    pub connect_us: i32,
    /// TLS handshake.
    pub tls_us: i32,
    /// Request sent to first byte of the response.
    pub processing_us: i32,
    /// First byte to the end of the response.
    pub transfer_us: i32,
}

impl Phases {
    /// No phase reached.
    pub const NONE: Self = Self {
        resolve_us: ABSENT,
        connect_us: ABSENT,
        tls_us: ABSENT,
        processing_us: ABSENT,
        transfer_us: ABSENT,
    };

    /// In order, as stored.
    #[must_use]
    pub const fn as_array(&self) -> [i32; 5] {
        [self.resolve_us, self.connect_us, self.tls_us, self.processing_us, self.transfer_us]
    }

    /// Their names, in the same order: the columns without `_us`.
    pub const NAMES: [&'static str; 5] = ["resolve", "connect", "tls", "processing", "transfer"];

    /// The sum of the phases that happened.
    #[must_use]
    pub fn sum_us(&self) -> i32 {
        self.as_array().into_iter().filter(|us| *us != ABSENT).fold(0, i32::saturating_add)
    }

    /// Phase by phase, those of two hops together; a phase that neither has is absent.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            resolve_us: plus(self.resolve_us, other.resolve_us),
            connect_us: plus(self.connect_us, other.connect_us),
            tls_us: plus(self.tls_us, other.tls_us),
            processing_us: plus(self.processing_us, other.processing_us),
            transfer_us: plus(self.transfer_us, other.transfer_us),
        }
    }

    /// Time to first byte: the first four phases, if a byte came.
    #[must_use]
    pub fn ttfb_us(&self) -> Option<i32> {
        (self.transfer_us != ABSENT).then(|| self.sum_us() - self.transfer_us)
    }
}

/// Two spans together, µs; [`ABSENT`] if there is neither.
#[must_use]
pub const fn plus(one_us: i32, other_us: i32) -> i32 {
    match (one_us, other_us) {
        (ABSENT, us) | (us, ABSENT) => us,
        (one_us, other_us) => one_us.saturating_add(other_us),
    }
}

/// What became of a due slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Outcome {
    /// Probed, and every expectation held.
    Up = 1,
    /// Probed, and failed; the sample's `reason` is a [`Failure`].
    Down = 2,
    /// Not probed; the sample's `reason` is a [`MissReason`].
    Missed = 3,
}

impl Outcome {
    /// As in the table `outcomes`, in JSON and on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Missed => "missed",
        }
    }

    /// All of them, for the lookup table.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Missed];
}

/// Declares a closed set of stable codes with their names, so that code, name and list cannot drift apart.
macro_rules! codes {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident = $code:literal $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum $enum { $($(#[$doc])* $variant = $code,)+ }

        impl $enum {
            /// Every code, ascending: the rows of the lookup table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable code that is stored.
            #[must_use]
            pub const fn code(self) -> i16 { self as i16 }

            /// The stable name that people read.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The reverse of [`Self::code`].
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    /// Why a probe found its endpoint down. Blocks: 10 resolve, 20 connect, 30 tls, 40 send and receive,
    /// 50 response, 60 expectations, 70 redirects, 80 policy.
    Failure {
        /// The name does not exist or has no address of the wanted family.
        DnsNotFound = 10 "dns_not_found",
        /// No answer from the resolver in time.
        DnsTimeout = 11 "dns_timeout",
        /// The resolver answered with an error other than "not found".
        DnsFailed = 12 "dns_failed",
        /// The origin answered the SYN with RST.
        ConnectRefused = 20 "connect_refused",
        /// No answer to the SYN in time.
        ConnectTimeout = 21 "connect_timeout",
        /// No route, or an ICMP unreachable.
        NetworkUnreachable = 22 "network_unreachable",
        /// Any other error of `connect(2)`.
        ConnectFailed = 23 "connect_failed",
        /// The certificate's validity is over.
        TlsExpired = 30 "tls_expired",
        /// The certificate is for another name.
        TlsName = 31 "tls_name",
        /// The chain ends in no root that we trust.
        TlsUntrusted = 32 "tls_untrusted",
        /// Not TLS, or no common version or cipher, or an alert.
        TlsProtocol = 33 "tls_protocol",
        /// The handshake did not end in time.
        TlsTimeout = 34 "tls_timeout",
        /// The certificate is not valid yet.
        TlsNotYetValid = 35 "tls_not_yet_valid",
        /// A certificate of the chain is broken, revoked, or may not be used like this.
        TlsChain = 36 "tls_chain",
        /// The origin ended the handshake with an alert.
        TlsAlert = 37 "tls_alert",
        /// The request could not be sent.
        SendFailed = 40 "send_failed",
        /// No first byte in time.
        TtfbTimeout = 41 "ttfb_timeout",
        /// The response did not end in time.
        TransferTimeout = 42 "transfer_timeout",
        /// The whole probe took too long.
        TotalTimeout = 43 "total_timeout",
        /// The origin closed before the response was whole.
        ClosedEarly = 44 "closed_early",
        /// The origin reset the connection.
        Reset = 45 "reset",
        /// Too long nothing came, in the middle of a response.
        IdleTimeout = 46 "idle_timeout",
        /// What came is not an HTTP/1.x response.
        MalformedResponse = 50 "malformed_response",
        /// The head is over its limit in bytes or fields.
        HeadTooLarge = 51 "head_too_large",
        /// The body is over its limit.
        BodyTooLarge = 52 "body_too_large",
        /// A content coding could not be decoded.
        DecodeFailed = 53 "decode_failed",
        /// The status is not among those expected.
        StatusUnexpected = 60 "status_unexpected",
        /// The body lacks what it must contain.
        BodyMismatch = 61 "body_mismatch",
        /// The body contains what it must not.
        BodyForbidden = 62 "body_forbidden",
        /// The body was cut off by its limit before the patterns were certain.
        BodyNoVerdict = 63 "body_no_verdict",
        /// A field of the head is not as expected.
        HeaderMismatch = 64 "header_mismatch",
        /// All was well, and took longer than expected.
        TooSlow = 65 "too_slow",
        /// Another version of HTTP than expected.
        VersionUnexpected = 66 "version_unexpected",
        /// The certificate is about to expire.
        CertExpiring = 67 "cert_expiring",
        /// It was expected to be down, and is up.
        UpUnexpected = 68 "up_unexpected",
        /// More redirects than allowed.
        TooManyRedirects = 70 "too_many_redirects",
        /// A redirect that is not followed, for safety.
        RedirectBlocked = 71 "redirect_blocked",
        /// A redirect to where we have been.
        RedirectLoop = 72 "redirect_loop",
        /// A redirect to nowhere: no or no usable `Location`.
        RedirectInvalid = 73 "redirect_invalid",
        /// The address is not allowed to be probed.
        PolicyBlocked = 80 "policy_blocked",
    }
}

codes! {
    /// Why a due slot was not probed. Shares the column with [`Failure`], hence the numbers.
    MissReason {
        /// The endpoint's previous probe was still in flight, and had started on time.
        Overlap = 200 "overlap",
        /// The shard had as many probes in flight as it may, or the process as many files open, or the machine as many
        /// local ports in use.
        InflightLimit = 201 "inflight_limit",
        /// The shard came to the slot only when the next one was already due; or to the one before so late that its
        /// probe was still in flight.
        Late = 202 "late",
        /// As many probes were in flight to this address, or in this second, as may be.
        OriginLimit = 203 "origin_limit",
        /// The agent's own delay was over its budget, and this endpoint was shed.
        Overload = 204 "overload",
        /// This machine does not have the `source` that the endpoint is to be probed from, or may not use it.
        NoSource = 205 "no_source",
    }
}

/// How a sample came about, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Flags(pub i32);

impl Flags {
    /// The endpoint asks for a reused connection (else: fresh).
    pub const REUSE: Self = Self(1);
    /// This probe did run on a connection that had served one before.
    pub const REUSED: Self = Self(1 << 1);
    /// The last phase was cut off by a timeout: its value is a lower bound.
    pub const CENSORED: Self = Self(1 << 2);
    /// No kernel timestamp was had for a phase's end; user-space time stands in for it.
    pub const USER_TIME: Self = Self(1 << 3);
    /// The probe's last connection was TLS,
    pub const TLS: Self = Self(1 << 4);
    /// whose handshake resumed a session (else: a full handshake).
    pub const TLS_RESUMED: Self = Self(1 << 5);
    /// The address came from an answer of DNS past its time to live, for want of a newer one.
    pub const DNS_STALE: Self = Self(1 << 6);
    /// The probe waited for DNS: its resolve phase is not that of a cache.
    pub const DNS_ASKED: Self = Self(1 << 7);
    /// Reading stopped as soon as the verdict was certain: transfer and sizes are lower bounds.
    pub const STOPPED: Self = Self(1 << 8);
    /// The agent's delay or its lag is over budget: the larger of 1 ms and a tenth of the total.
    pub const TAINTED: Self = Self(1 << 9);

    /// Their names, lowest bit first.
    pub const NAMES: [&'static str; 10] = [
        "reuse",
        "reused",
        "censored",
        "user_time",
        "tls",
        "tls_resumed",
        "dns_stale",
        "dns_asked",
        "stopped",
        "tainted",
    ];

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Sample {
    /// The sample of a slot that was not probed, decided `lag` after it was due.
    #[must_use]
    pub fn missed(ts: Wall, endpoint_id: EndpointId, lag: Micros, reason: MissReason, flags: Flags) -> Self {
        Self {
            ts,
            endpoint_id,
            lag_us: clamp_us(lag.0),
            phases: Phases::NONE,
            total_us: ABSENT,
            write_us: ABSENT,
            agent_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            cpu_ns: 0,
            status: 0,
            outcome: Outcome::Missed,
            reason: reason.code(),
            twin: 0,
            flags,
            detail: Detail::NONE,
        }
    }

    /// The failure class, if the endpoint was down.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        match self.outcome {
            Outcome::Down => Failure::from_code(self.reason),
            Outcome::Up | Outcome::Missed => None,
        }
    }

    /// The reason, if the slot was missed.
    #[must_use]
    pub const fn miss_reason(&self) -> Option<MissReason> {
        match self.outcome {
            Outcome::Missed => MissReason::from_code(self.reason),
            Outcome::Up | Outcome::Down => None,
        }
    }

    /// The name of the failure or miss reason, empty if up.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        self.failure().map(Failure::name).or_else(|| self.miss_reason().map(MissReason::name)).unwrap_or("")
    }

    /// Invariant of this module: the phases that happened sum to the total.
    #[must_use]
    pub fn phases_sum_to_total(&self) -> bool {
        self.outcome == Outcome::Missed || self.phases.sum_us() == self.total_us
    }

    /// Invariant of this module: writing the request is a part of processing it, and there is none without the other.
    #[must_use]
    pub fn write_is_within_processing(&self) -> bool {
        let processing_us = self.phases.processing_us;
        (self.write_us == ABSENT) == (processing_us == ABSENT)
            && (ABSENT..=processing_us).contains(&self.write_us)
    }
}

/// A count of microseconds (or of bytes, or nanoseconds) as stored: 31 bits, saturating.
#[must_use]
pub fn clamp_us(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_across_both_enums_and_reversible() {
        let mut codes: Vec<i16> = Failure::ALL.iter().map(|failure| failure.code()).collect();
        codes.extend(MissReason::ALL.iter().map(|reason| reason.code()));
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted, codes, "ascending, no code twice");
        for failure in Failure::ALL {
            assert_eq!(Failure::from_code(failure.code()), Some(*failure));
        }
        assert_eq!(Failure::from_code(0), None);
    }

    #[test]
    fn ttfb_is_known_only_once_a_byte_came() {
        let mut phases = Phases { connect_us: 10, processing_us: 5, ..Phases::NONE };
        assert_eq!(phases.ttfb_us(), None);
        phases.transfer_us = 0;
        assert_eq!(phases.ttfb_us(), Some(15));
        assert_eq!(phases.sum_us(), 15);
    }
}
