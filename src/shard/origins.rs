//! Politeness: how many probes one origin address may have in flight, and how many may start there per second.
//!
//! Endpoints are dealt to shards by their id, not by where they lead: ten thousand of them behind one address are
//! spread over all shards, and each shard holds its [`Share`] of the node's [`Caps`]. Shares add up to the caps, but
//! that no shard's is nothing: of a rate below one per shard and second each has one start in a longer span, and of
//! fewer probes in flight than shards each has one, which is more than was said.
//!
//! This machine's own loopback is not counted: whoever probes it knows what it bears. Out of scope: what becomes of a
//! slot that is refused here (`engine`: it is missed, with the reason `origin_limit`).
//!
//! Invariant: memory is bounded by the addresses with a probe in flight, and the probes started within the last span.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::clock::{Micros, Mono};
use crate::config;

/// What one address is spared by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Probes in flight.
    pub inflight_max: u32,
    /// Probes started per second.
    pub probes_per_s_max: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            inflight_max: config::ORIGIN_INFLIGHT_DEFAULT,
            probes_per_s_max: config::ORIGIN_PROBES_PER_S_DEFAULT,
        }
    }
}

impl Caps {
    /// No cap, in either.
    pub const NONE: u32 = u32::MAX;

    /// What shard number `shard` of so many may do of it.
    #[must_use]
    pub fn share(self, shard: usize, shards: usize) -> Share {
        let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
        let has_more = |rest: u32| u32::try_from(shard).is_ok_and(|shard| shard < rest);
        let part = |whole: u32| match whole {
            Self::NONE => Self::NONE,
            whole => (whole / shards + u32::from(has_more(whole % shards))).max(1),
        };
        let rate = self.probes_per_s_max.max(1);
        let stretch = if rate < shards { (shards, rate) } else { (1, 1) };
        Share {
            inflight_max: part(self.inflight_max),
            starts_max: part(self.probes_per_s_max),
            span: Micros((config::ORIGIN_SPAN.0 * u64::from(stretch.0)).div_ceil(u64::from(stretch.1))),
        }
    }
}

/// What one address is spared by a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Probes in flight.
    pub inflight_max: u32,
    /// Probes started
    pub starts_max: u32,
    /// in any span of this length.
    pub span: Micros,
}

impl Share {
    /// No cap, in either.
    pub const NONE: Self =
        Self { inflight_max: Caps::NONE, starts_max: Caps::NONE, span: config::ORIGIN_SPAN };
}

/// How busy each address is.
#[derive(Debug)]
pub struct Origins {
    share: Share,
    loads: HashMap<IpAddr, Load>,
    swept_at: Mono,
}

#[derive(Debug, Default)]
struct Load {
    inflight: u32,
    /// When probes have started, within the last span.
    starts: VecDeque<Mono>,
}

/// Nothing more may start here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Origins {
    /// Nobody is busy.
    #[must_use]
    pub fn new(share: Share) -> Self {
        Self { share, loads: HashMap::new(), swept_at: Mono(0) }
    }

    /// Whether an address is counted at all.
    #[must_use]
    pub fn counts(ip: IpAddr) -> bool {
        !ip.to_canonical().is_loopback()
    }

    /// A probe of `ip` wants to start at `now`.
    ///
    /// # Errors
    /// If as many are in flight, or have started within the last span, as may.
    pub fn start(&mut self, ip: IpAddr, now: Mono) -> Result<(), Full> {
        self.sweep(now);
        let Share { inflight_max, starts_max, span } = self.share;
        let load = self.loads.entry(ip).or_default();
        while load.starts.front().is_some_and(|start| now >= *start + span) {
            load.starts.pop_front();
        }
        if load.inflight >= inflight_max || load.starts.len() >= starts_max as usize {
            return Err(Full);
        }
        load.inflight += 1;
        if starts_max != Caps::NONE {
            load.starts.push_back(now);
        }
        Ok(())
    }

    /// A probe of `ip` that had started has ended.
    pub fn end(&mut self, ip: IpAddr) {
        let load = self.loads.get_mut(&ip).expect("it was counted when it started");
        debug_assert!(load.inflight > 0, "ended once");
        load.inflight -= 1;
    }

    /// Forgets who is idle, once a span: the cost is spread over the starts of that span.
    fn sweep(&mut self, now: Mono) {
        let span = self.share.span;
        if now < self.swept_at + span {
            return;
        }
        self.swept_at = now;
        let is_recent = |start: &Mono| now < *start + span;
        self.loads.retain(|_, load| load.inflight > 0 || load.starts.back().is_some_and(is_recent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const SPAN: Micros = Micros::from_millis(1_000);

    fn origins(inflight_max: u32, starts_max: u32) -> Origins {
        Origins::new(Share { inflight_max, starts_max, span: SPAN })
    }

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn probes_in_flight_are_capped_per_address() {
        let mut origins = origins(2, 100);
        assert_eq!([A, A, A, B].map(|ip| origins.start(ip, at(0))), [Ok(()), Ok(()), Err(Full), Ok(())]);
        origins.end(A);
        assert_eq!(origins.start(A, at(1)), Ok(()));
    }

    #[test]
    fn shares_add_up_to_what_the_node_may_and_without_a_cap_there_is_none() {
        for (inflight_max, probes_per_s_max) in [(1, 1), (1, 3), (3, 2), (7, 5), (256, 1_000), (4_097, 1)] {
            for shards in 1_u32..=9 {
                let caps = Caps { inflight_max, probes_per_s_max };
                let shares: Vec<Share> =
                    (0..shards as usize).map(|shard| caps.share(shard, shards as usize)).collect();
                assert!(
                    shares.iter().all(|share| share.inflight_max > 0 && share.starts_max > 0),
                    "{shares:?}"
                );
                let inflight: u32 = shares.iter().map(|share| share.inflight_max).sum();
                assert_eq!(inflight, inflight_max.max(shards), "no shard may have none: {caps:?} {shares:?}");
                let spans = |share: &Share| share.span.0 as f64 / config::ORIGIN_SPAN.0 as f64;
                let rate: f64 = shares.iter().map(|share| f64::from(share.starts_max) / spans(share)).sum();
                assert!((rate - f64::from(probes_per_s_max)).abs() < 1e-4, "{rate}: {caps:?} {shares:?}");
                let starts: u32 = shares.iter().map(|share| share.starts_max).sum();
                assert!(shares.iter().all(|share| share.span == shares[0].span), "{shares:?}");
                assert_eq!(starts, probes_per_s_max.max(shards), "within one span: {caps:?} {shares:?}");
            }
        }
        let none = Caps { inflight_max: Caps::NONE, probes_per_s_max: Caps::NONE };
        assert_eq!(none.share(2, 3), Share::NONE);
    }

    #[test]
    fn starts_are_capped_in_any_span() {
        let mut origins = origins(100, 2);
        let mut start = |ms| origins.start(A, at(ms)).is_ok();
        assert_eq!(
            [0, 600, 999, 1_000, 1_599, 1_600, 1_999, 2_000].map(&mut start),
            [true, true, false, true, false, true, false, true]
        );
    }

    #[test]
    fn who_is_idle_is_forgotten_and_who_is_not_is_kept() {
        let mut origins = origins(1, 100);
        origins.start(A, at(0)).unwrap();
        origins.start(B, at(0)).unwrap();
        origins.end(B);
        let c = "2001:db8::1".parse().unwrap();
        origins.start(c, at(5_000)).unwrap();
        assert_eq!(origins.loads.len(), 2, "B is gone");
        assert_eq!(origins.start(A, at(5_001)), Err(Full), "still in flight");
    }

    #[test]
    fn loopback_is_nobodys_origin() {
        for (ip, counts) in
            [("127.0.0.1", false), ("::1", false), ("::ffff:127.9.9.9", false), ("10.0.0.1", true)]
        {
            assert_eq!(Origins::counts(ip.parse().unwrap()), counts, "{ip}");
        }
    }
}
