//! Where and when: which shard an endpoint belongs to, and its phase within its interval.
//!
//! Both come from one low-discrepancy sequence in the plane, the points `(frac(id/φ), frac(id/g))`, with the
//! golden ratio φ and the plastic number g = 1.3247… (g³ = g + 1). The first coordinate is the phase, the
//! second is cut into shards. A hash would give Poisson-distributed slots (a millisecond with mean 10 then
//! often sees 20); here the phases of consecutive ids fill the interval evenly, overall **and** within every
//! shard. Coordinates are fractions of 2^64, computed with wrapping multiplications: exact, the same on every
//! machine.
//!
//! Why not both from g, as the sequence R2 (M. Roberts, 2018) has it: R2 is even in squares, and a shard's
//! slice of time is a thin strip. The continued fraction of g has a term of 141 after the denominator 48,131,
//! so hundreds of thousands of ids cluster; that of φ has only ones, which is the best there is in one
//! dimension. Measured at up to a million ids, with 1 to 64 shards and buckets of 10 slots on average: R2 has
//! 0 to 30 slots in a bucket (variance 9.6; Poisson has 10), this 5 to 16 (variance 1.2).
//!
//! Limits: evenness is a property of runs of consecutive ids. Ids with random gaps, or endpoints whose
//! intervals are drawn at random, are at worst as uneven as a hash would make them.
//!
//! Invariant: both are functions of the id (and the number of shards) alone. Phases do not change with
//! restarts, shards or other endpoints; changing a constant here would shift every slot of every user.

use crate::sample::EndpointId;

/// 2^64 / φ.
const PHASE_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// 2^64 / g.
const SHARD_STEP: u64 = 0xc13f_a9a9_02a6_328f;

/// The phase of an endpoint, in 2^-32 of its interval.
#[must_use]
pub const fn phase32(id: EndpointId) -> u32 {
    // The upper half; nothing is lost that a shift by 32 does not drop.
    let [_, _, _, _, a, b, c, d] = PHASE_STEP.wrapping_mul(bits(id)).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The shard, out of `shards`, that an endpoint belongs to. `shards` is at least 1.
#[must_use]
pub fn shard_of(id: EndpointId, shards: usize) -> usize {
    assert!(shards >= 1, "a node has a shard");
    let point = u128::from(SHARD_STEP.wrapping_mul(bits(id)));
    usize::try_from((point * shards as u128) >> 64).unwrap_or(0)
}

/// Ids are positive; a negative one is as good as any other.
const fn bits(id: EndpointId) -> u64 {
    (id.0 as i64).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_what_they_are_said_to_be() {
        // On the reciprocals: a = 1/φ solves a² + a = 1, b = 1/g solves b³ + b² = 1.
        let a = PHASE_STEP as f64 / 2_f64.powi(64);
        let b = SHARD_STEP as f64 / 2_f64.powi(64);
        assert!((a * a + a - 1.0).abs() < 1e-15, "{a}");
        assert!((b * b * b + b * b - 1.0).abs() < 1e-15, "{b}");
        assert_eq!((PHASE_STEP % 2, SHARD_STEP % 2), (1, 1), "odd: all 2^64 points are visited");
    }

    #[test]
    fn phases_are_a_contract() {
        // Changing these shifts the slots of every endpoint in existence.
        assert_eq!(phase32(EndpointId(0)), 0);
        assert_eq!(phase32(EndpointId(1)), 0x9e37_79b9);
        assert_eq!(phase32(EndpointId(2)), 0x3c6e_f372);
        assert_eq!([1, 2, 3, 4].map(|id| shard_of(EndpointId(id), 4)), [3, 2, 1, 0]);
        let _ = (phase32(EndpointId(-1)), shard_of(EndpointId(i32::MIN), 3));
    }

    /// The least and the most that any bucket got.
    fn spread(buckets: usize, points: impl Iterator<Item = usize>) -> (u32, u32) {
        let mut counts = vec![0_u32; buckets];
        points.for_each(|bucket| counts[bucket] += 1);
        (*counts.iter().min().unwrap(), *counts.iter().max().unwrap())
    }

    fn bucket_of(id: i32, buckets: usize) -> usize {
        (phase32(EndpointId(id)) as usize * buckets) >> 32
    }

    #[test]
    fn every_millisecond_gets_its_share() {
        // (endpoints, interval in ms): mean 4 to 200 slots per millisecond; a hash would stray by several
        // square roots of that. Ids need not begin at 1.
        for first in [1, 77_777, 2_000_000_000] {
            for (count, interval_ms) in
                [(20_000, 5_000), (100_000, 10_000), (300_000, 30_000), (1_000_000, 5_000)]
            {
                let ids = first..first + count;
                let mean = f64::from(count) / interval_ms as f64;
                let (least, most) = spread(interval_ms, ids.map(|id| bucket_of(id, interval_ms)));
                assert!(
                    f64::from(most) - mean <= 4.0 && mean - f64::from(least) <= 4.0,
                    "{count} in {interval_ms} ms from {first}: {least}..={most}, mean {mean}"
                );
            }
        }
    }

    #[test]
    fn shards_get_equal_parts_and_each_is_even_in_itself() {
        const COUNT: i32 = 200_000;
        for shards in [1, 2, 3, 7, 8, 31, 64] {
            let mean = f64::from(COUNT) / shards as f64;
            let (least, most) = spread(shards, (1..=COUNT).map(|id| shard_of(EndpointId(id), shards)));
            assert!(f64::from(most - least) <= 20.0, "{shards} shards: {least}..={most} of {mean}");

            // Each shard's own phases, in buckets of ten slots on average.
            let buckets = usize::try_from(COUNT).unwrap() / shards / 10;
            for shard in 0..shards {
                let own = (1..=COUNT).filter(|id| shard_of(EndpointId(*id), shards) == shard);
                let (least, most) = spread(buckets, own.map(|id| bucket_of(id, buckets)));
                assert!(least >= 2 && most <= 18, "shard {shard} of {shards}: {least}..={most}, mean 10");
            }
        }
    }

    #[test]
    fn no_burst_at_the_start_of_the_interval() {
        // The first n endpoints cover the whole interval, whatever n: what one prober gets wrong by
        // starting everything in the first tenth.
        for count in [10, 100, 1_000] {
            let (least, _) = spread(5, (1..=count).map(|id| bucket_of(id, 5)));
            assert!(least as i32 >= count / 5 - 2, "{count}: {least}");
        }
    }
}
