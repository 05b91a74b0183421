//! The points of a distribution that is held whole: exact, signed, a tenth of a microsecond.
//!
//! For what is measured against the truth, where a histogram's three digits would be coarser than the error. Out of
//! scope: what a node that runs for months shows ([`crate::writer::Distribution`]).

use serde::Serialize;

/// The points of a distribution, µs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are at most this.
    pub p50: f64,
    /// 90 % are.
    pub p90: f64,
    /// 99 % are.
    pub p99: f64,
    /// 99.9 % are.
    pub p999: f64,
    /// All are.
    pub max: f64,
}

impl Quantiles {
    /// Those of these values, given in nanoseconds; `None` of none.
    #[must_use]
    pub fn of_ns(mut values_ns: Vec<i64>) -> Option<Self> {
        values_ns.sort_unstable();
        let last = values_ns.len().checked_sub(1)?;
        // The nearest rank: the least value that so many are not above.
        let at = |thousandths: usize| {
            let rank = (values_ns.len() * thousandths).div_ceil(1_000);
            tenths_of_us(values_ns[rank.saturating_sub(1).min(last)])
        };
        Some(Self { p50: at(500), p90: at(900), p99: at(990), p999: at(999), max: at(1_000) })
    }
}

#[expect(clippy::cast_precision_loss, reason = "printed with one digit behind the point")]
fn tenths_of_us(ns: i64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values_ns: impl IntoIterator<Item = i64>, expected: [f64; 5]) {
        let Quantiles { p50, p90, p99, p999, max } =
            Quantiles::of_ns(values_ns.into_iter().collect()).unwrap();
        assert_eq!([p50, p90, p99, p999, max], expected);
    }

    #[test]
    fn points_are_values_that_were_measured() {
        check([7_000], [7.0; 5]);
        check([1_000, -3_000], [-3.0, 1.0, 1.0, 1.0, 1.0]);
        check((1..=1_000).rev().map(|us| us * 1_000), [500.0, 900.0, 990.0, 999.0, 1_000.0]);
        check([-1_249, -1_249, -1_251], [-1.2, -1.2, -1.2, -1.2, -1.2]);
        assert_eq!(Quantiles::of_ns(Vec::new()), None);
    }
}
