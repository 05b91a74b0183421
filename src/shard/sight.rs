//! Whether a shard was looking when something arrived.
//!
//! The kernel stamps what arrives, and merges what nobody has read yet under the stamp of the last of it: a FIN, or the
//! end of a body whose first byte came long before. So a stamp is the truth only as long as somebody reads along. A
//! shard that was stopped, or kept busy, was *blind*: what it is handed next may have been there since it last looked.
//!
//! In scope: when it was. Out of scope: what follows for a probe (`probe::exchange`).

use std::time::Duration;

use crate::clock::Mono;
use crate::config;
use crate::probe::Blind;

/// When a shard looked, and whether it was kept from it.
#[derive(Debug, Default)]
pub struct Sight {
    looked_at: Option<Mono>,
    /// Of this look and of the one before it: what came in a time of blindness may be handed out in two goes.
    blind: [Option<Blind>; 2],
}

impl Sight {
    /// It looks at `now`, after it meant to wait for `wait` at most.
    pub fn look(&mut self, now: Mono, wait: Duration) {
        let before = self.looked_at.replace(now);
        let expected = wait + config::BLIND_MIN.as_duration();
        let blind = before.filter(|before| now.since(*before) > expected);
        self.blind = [blind.map(|since| Blind { since, until: now }), self.blind[0]];
    }

    /// It stops looking: nothing is under way.
    pub fn rest(&mut self) {
        *self = Self::default();
    }

    /// The time of blindness out of which what it sees now may come.
    #[must_use]
    pub fn blind(&self) -> Option<Blind> {
        self.blind[1].or(self.blind[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_looking_and_being_kept_from_it_is_not() {
        let at = |us: u64| Mono(us * 1_000);
        let mut sight = Sight::default();
        let mut look = |now_us, wait_us| {
            sight.look(at(now_us), Duration::from_micros(wait_us));
            sight.blind().map(|blind| blind.since)
        };
        assert_eq!(look(5_000_000, 0), None, "nobody had looked before, and nothing was under way");
        assert_eq!(look(5_002_000, 2_000), None, "waited in vain");
        assert_eq!(look(5_002_900, 0), None, "was busy for a little while");
        assert_eq!(look(5_055_000, 2_000), Some(at(5_002_900)), "was stopped");
        assert_eq!(look(5_055_100, 0), Some(at(5_002_900)), "and may have more of it to see");
        assert_eq!(look(5_055_200, 0), None);
        assert_eq!(look(5_057_000, 0), Some(at(5_055_200)), "was busy for too long");
        let blind = Blind { since: at(5_055_200), until: at(5_057_000) };
        assert_eq!(sight.blind(), Some(blind));
        sight.rest();
        sight.look(at(9_000_000), Duration::ZERO);
        assert_eq!(sight.blind(), None);
    }
}
