//! Numbers that nobody has to be unable to guess: what `${uuid}` stands for in a request.
//!
//! SplitMix64 (Steele, Lea and Flood, 2014), seeded once per shard. Out of scope: anything that an attacker must not
//! foresee; DNS has its own.

/// A stream of numbers that follows from its seed.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u128 {
        let high = self.half();
        (high as u128) << 64 | self.half() as u128
    }

    /// Half of one.
    pub const fn half(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // Vigna's splitmix64.c with seed 0.
        let mut random = Random::new(0);
        assert_eq!(random.draw(), 0xe220_a839_7b1d_cdaf_6e78_9e6a_a1b9_65f4);
        assert_ne!(random.draw(), Random::new(1).draw());
    }
}
