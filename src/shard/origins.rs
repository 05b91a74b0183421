//! Politeness: how many probes one origin address may have in flight, and how many may start there per second.
//!
//! Endpoints are dealt to shards by their id, not by where they lead: ten thousand of them behind one address are
//! spread over all shards, and each shard holds its share of the cap.
//!
//! This machine's own loopback is not counted: whoever probes it knows what it bears. Out of scope: what becomes of a
//! slot that is refused here (`engine`: it is missed, with the reason `origin_limit`).
//!
//! Invariant: memory is bounded by the addresses with a probe in flight, or started in the last second.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::clock::{Micros, Mono};
use crate::config;

/// What one address is spared.
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

    /// A shard's share of what a node of so many may do; at least one.
    #[must_use]
    pub fn share(self, shards: usize) -> Self {
        let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
        let share = |whole: u32| if whole == Self::NONE { whole } else { (whole / shards).max(1) };
        Self { inflight_max: share(self.inflight_max), probes_per_s_max: share(self.probes_per_s_max) }
    }
}

/// How busy each address is.
#[derive(Debug)]
pub struct Origins {
    caps: Caps,
    loads: HashMap<IpAddr, Load>,
    swept_at: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    inflight: u32,
    /// Start of the second that is being counted.
    second: Mono,
    started: u32,
}

/// Nothing more may start here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

const SECOND: Micros = Micros::from_millis(1_000);

impl Origins {
    /// Nobody is busy.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, loads: HashMap::new(), swept_at: Mono(0) }
    }

    /// Whether an address is counted at all.
    #[must_use]
    pub fn counts(ip: IpAddr) -> bool {
        !ip.to_canonical().is_loopback()
    }

    /// A probe of `ip` wants to start at `now`.
    ///
    /// # Errors
    /// If as many are in flight, or have started in this second, as may.
    pub fn start(&mut self, ip: IpAddr, now: Mono) -> Result<(), Full> {
        self.sweep(now);
        let load = self.loads.entry(ip).or_insert(Load { inflight: 0, second: now, started: 0 });
        if now >= load.second + SECOND {
            (load.second, load.started) = (now, 0);
        }
        if load.inflight >= self.caps.inflight_max || load.started >= self.caps.probes_per_s_max {
            return Err(Full);
        }
        load.inflight += 1;
        load.started += 1;
        Ok(())
    }

    /// A probe of `ip` that had started has ended.
    pub fn end(&mut self, ip: IpAddr) {
        let load = self.loads.get_mut(&ip).expect("it was counted when it started");
        debug_assert!(load.inflight > 0, "ended once");
        load.inflight -= 1;
    }

    /// Forgets who is idle, once a second: the cost is spread over the starts of that second.
    fn sweep(&mut self, now: Mono) {
        if now < self.swept_at + SECOND {
            return;
        }
        self.swept_at = now;
        self.loads.retain(|_, load| load.inflight > 0 || now < load.second + SECOND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn origins(inflight_max: u32, probes_per_s_max: u32) -> Origins {
        Origins::new(Caps { inflight_max, probes_per_s_max })
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
    fn a_node_deals_its_caps_out_and_without_one_there_is_none() {
        let shares = |whole: u32| {
            let caps = Caps { inflight_max: whole, probes_per_s_max: whole };
            [1, 2, 3].map(|shards| caps.share(shards).probes_per_s_max)
        };
        assert_eq!(shares(256), [256, 128, 85]);
        assert_eq!(shares(1), [1, 1, 1], "none has nothing to do");
        assert_eq!(shares(Caps::NONE), [Caps::NONE; 3]);
    }

    #[test]
    fn starts_are_capped_per_second() {
        let mut origins = origins(100, 2);
        let mut start = |ms| origins.start(A, at(ms));
        assert_eq!(
            [0, 500, 999, 1_000, 1_001, 1_999].map(&mut start).map(|result| result.is_ok()),
            [true, true, false, true, true, false]
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
