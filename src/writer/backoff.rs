//! [`Backoff`]: how long to wait before trying the store again.
//!
//! Doubles from `RECONNECT_PAUSE_MIN` to `RECONNECT_PAUSE_MAX`, and takes a random part of the upper half, so
//! that a hundred nodes do not come back to a restarted database in the same millisecond.

use crate::clock::Micros;
use crate::config::{RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};

/// Pauses between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Micros,
    random: u64,
}

impl Backoff {
    /// A policy whose randomness comes from `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { pause: RECONNECT_PAUSE_MIN, random: seed | 1 }
    }

    /// An attempt failed: how long to wait before the next.
    pub(crate) fn failed(&mut self) -> Micros {
        let pause = self.pause.0;
        self.pause = Micros((pause * 2).min(RECONNECT_PAUSE_MAX.0));
        // xorshift64: never zero from a seed that is not.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Micros(pause / 2 + self.random % (pause / 2 + 1))
    }

    /// An attempt succeeded: the next failure waits briefly again.
    pub(crate) const fn succeeded(&mut self) {
        self.pause = RECONNECT_PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_start_over() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(seed);
            let mut whole = RECONNECT_PAUSE_MIN.0;
            for _ in 0..20 {
                let pause = backoff.failed().0;
                assert!((whole / 2..=whole).contains(&pause), "seed {seed}: {pause} of {whole}");
                whole = (whole * 2).min(RECONNECT_PAUSE_MAX.0);
            }
            backoff.succeeded();
            assert!(backoff.failed() <= RECONNECT_PAUSE_MIN);
        }
    }

    #[test]
    fn nodes_do_not_wait_alike() {
        let mut pauses: Vec<Micros> = (0..100).map(|node| Backoff::new(node * 2 + 1).failed()).collect();
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 50, "{} different", pauses.len());
    }
}
