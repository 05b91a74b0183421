//! Simulated time and chance: an agenda of what will happen when, and a generator that a seed replays.
//!
//! Nobody sleeps: whoever takes the next entry off an [`Agenda`] makes it that time. Out of scope: what the
//! entries mean. Invariant: of two entries for one instant the one noted first comes first, so that order is a
//! function of the seed alone.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::clock::Mono;

/// What will happen, by time.
#[derive(Debug)]
pub struct Agenda<T> {
    entries: BinaryHeap<Entry<T>>,
    noted: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Mono,
    serial: u64,
    what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BinaryHeap::new(), noted: 0 }
    }
}

impl<T> Agenda<T> {
    /// Notes that `what` happens at `at`.
    pub fn note(&mut self, at: Mono, what: T) {
        self.noted += 1;
        self.entries.push(Entry { at, serial: self.noted, what });
    }

    /// When the next entry happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Mono> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// What has happened by `now` and was not taken, in no order.
    pub fn until(&self, now: Mono) -> impl Iterator<Item = &T> {
        self.entries.iter().filter(move |entry| entry.at <= now).map(|entry| &entry.what)
    }

    /// The next entry, if it is not after `now`.
    pub fn take(&mut self, now: Mono) -> Option<(Mono, T)> {
        if self.next_at()? > now {
            return None;
        }
        self.entries.pop().map(|entry| (entry.at, entry.what))
    }
}

/// Reversed, because the heap hands out its greatest.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl<T> Eq for Entry<T> {}

/// `SplitMix64`: small, and good enough to choose weather with.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream number `stream` of `seed`. Streams do not disturb one another: whether the database draws
    /// more or fewer numbers changes nothing on the network.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.0 = random.draw();
        random
    }

    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from `from` to `to`, both included.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.draw() % (to - from + 1)
    }

    /// The same with orders of magnitude equally likely: most spans are short, some are very long.
    pub fn between_orders(&mut self, from: u64, to: u64) -> u64 {
        let (low, high) = ((from + 1).ilog2(), (to + 1).ilog2());
        let order = self.between(low.into(), high.into());
        self.between(1 << order, (1 << order) * 2).clamp(from, to)
    }

    /// True `per_mille` times in a thousand.
    pub const fn chance(&mut self, per_mille: u64) -> bool {
        self.draw() % 1_000 < per_mille
    }
}

/// Spreads every bit of `value` over the whole word.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agenda_keeps_time_and_then_order() {
        let mut agenda = Agenda::default();
        for (at, what) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            agenda.note(Mono(at), what);
        }
        let taken: String = std::iter::from_fn(|| agenda.take(Mono(5))).map(|(_, what)| what).collect();
        assert_eq!(taken, "abcd");
        assert_eq!(agenda.next_at(), Some(Mono(9)));
    }

    #[test]
    fn draws_stay_in_bounds_and_streams_apart() {
        let (mut one, mut two) = (Random::new(7, 1), Random::new(7, 2));
        assert_ne!(one.draw(), two.draw());
        for _ in 0..10_000 {
            assert!((3..=9).contains(&one.between(3, 9)));
            assert!((0..=1_000_000).contains(&one.between_orders(0, 1_000_000)));
        }
    }
}
