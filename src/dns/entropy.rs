//! Numbers that a forger must not be able to guess: the ids of queries.
//!
//! An answer is believed if its id and question are ours and it came from the server's address to our port. The
//! port is the kernel's choice; the id is 16 bits from here (RFC 5452). A core asks nobody for randomness: it is
//! given an [`Entropy`].

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use crate::shard::random::Random;

/// A source of numbers.
pub struct Entropy(Box<dyn FnMut() -> u64 + Send>);

impl Entropy {
    /// Any source.
    pub fn new(source: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Unpredictable: SipHash of a counter, under a key of 128 bits that the standard library has drawn from the
    /// system.
    #[must_use]
    pub fn unpredictable() -> Self {
        let key = RandomState::new();
        let mut count = 0_u64;
        Self::new(move || {
            count += 1;
            key.hash_one(count)
        })
    }

    /// Numbers that a seed repeats, for tests and simulation.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self::new(move || random.half())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        (self.0)()
    }

    /// The next id of a query.
    pub fn id(&mut self) -> u16 {
        (self.number() >> 48) as u16
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}
