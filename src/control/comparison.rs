//! Two configurations measured in turn, and what their difference is, with its 95 % confidence interval. Pure.
//!
//! Rounds come in pairs, one of each configuration right after the other; what counts is the difference within a pair,
//! so that what drifts from one minute to the next drops out. The interval is Student's for the mean of the paired
//! differences: with ten pairs one in twenty intervals of two equal configurations leaves out zero, per figure.

use std::fmt;

use serde::Serialize;

use crate::sample::Sample;

/// What one round of one configuration came to: the figures, in the order of [`FIGURES`].
pub type Figures = [f64; FIGURES.len()];

/// What is compared, and its name in the report.
pub const FIGURES: [&str; 5] =
    ["ttfb_p50_us", "ttfb_p90_us", "ttfb_p99_us", "cpu_us_per_probe", "probes_per_s"];

/// The difference of one figure between the two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Which figure.
    pub figure: &'static str,
    /// Mean over the rounds of A,
    pub a: f64,
    /// and of B.
    pub b: f64,
    /// A less B,
    pub difference: f64,
    /// which lies between this,
    pub low: f64,
    /// and this, with 95 % confidence.
    pub high: f64,
    /// Whether zero does not.
    pub differs: bool,
}

/// The figures of a round: of its samples, the CPU it took and how long it was.
#[must_use]
pub fn figures<'a>(
    samples: impl Iterator<Item = &'a Sample>,
    cpu_us_per_probe: f64,
    probes_per_s: f64,
) -> Figures {
    let mut ttfb_us: Vec<i32> = samples.filter_map(|sample| sample.phases.ttfb_us()).collect();
    ttfb_us.sort_unstable();
    let at = |percent: usize| {
        let rank = (ttfb_us.len() * percent).div_ceil(100);
        ttfb_us.get(rank.saturating_sub(1)).map_or(f64::NAN, |us| f64::from(*us))
    };
    [at(50), at(90), at(99), cpu_us_per_probe, probes_per_s]
}

/// The differences of all figures. Pairs of which a figure is not a number (nothing was answered) do not count for it;
/// with fewer than two pairs nothing is said of it.
#[must_use]
pub fn compare(rounds: &[(Figures, Figures)]) -> Vec<Difference> {
    let of = |(index, figure): (usize, &&'static str)| {
        let pairs: Vec<(f64, f64)> = rounds.iter().map(|(a, b)| (a[index], b[index])).collect();
        let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| (a - b).is_finite()).collect();
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
        let half_width = half_width(&differences)?;
        let difference = mean(differences.iter().copied());
        let (low, high) = (difference - half_width, difference + half_width);
        Some(Difference {
            figure,
            a: mean(pairs.iter().map(|(a, _)| *a)),
            b: mean(pairs.iter().map(|(_, b)| *b)),
            difference,
            low,
            high,
            differs: low > 0.0 || high < 0.0,
        })
    };
    FIGURES.iter().enumerate().filter_map(of).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a count of rounds")]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Half the width of the 95 % confidence interval of the mean; `None` of fewer than two values.
#[expect(clippy::cast_precision_loss, reason = "a count of rounds")]
fn half_width(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let mean = mean(values.iter().copied());
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom as f64;
    Some(student(freedom) * (variance / values.len() as f64).sqrt())
}

/// The 97.5 % point of Student's distribution with so many degrees of freedom. Beyond the table its last entry: a
/// little too wide.
fn student(freedom: usize) -> f64 {
    const POINTS: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    POINTS[freedom.clamp(1, POINTS.len()) - 1]
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figure, a, b, difference, low, high, differs } = self;
        let word = if *differs { "differs" } else { "no difference shown" };
        write!(
            f,
            "{figure:>18} {a:>11.2} {b:>11.2} {difference:>+11.2} {:>24} {:>+8.2} %  {word}",
            format!("[{low:+.2}, {high:+.2}]"),
            100.0 * difference / b,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::random::Random;

    fn of_first_figure(pairs: &[(f64, f64)]) -> Difference {
        let figures = |value: f64| [value, f64::NAN, f64::NAN, 1.0, 1.0];
        let rounds: Vec<_> = pairs.iter().map(|(a, b)| (figures(*a), figures(*b))).collect();
        let found = compare(&rounds);
        assert_eq!(found.len(), 3, "what is not a number in every round is not said");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn the_interval_is_that_of_a_worked_example() {
        // Differences 1, 2, 3, 4: mean 2.5, s = 1.29099, t(3) = 3.182; half width 2.0540.
        let found = of_first_figure(&[(11.0, 10.0), (22.0, 20.0), (33.0, 30.0), (44.0, 40.0)]);
        assert!((found.difference - 2.5).abs() < 1e-9);
        assert!((found.low - 0.4460).abs() < 1e-3 && (found.high - 4.5540).abs() < 1e-3, "{found:?}");
        assert!(found.differs);
        assert_eq!((found.a, found.b), (27.5, 25.0));
    }

    #[test]
    fn drift_that_both_share_is_no_difference() {
        let pairs: Vec<(f64, f64)> =
            (0..10).map(|round| f64::from(round * round)).map(|at| (at, at)).collect();
        let found = of_first_figure(&pairs);
        assert_eq!((found.low, found.high, found.differs), (0.0, 0.0, false));
    }

    #[test]
    fn one_interval_in_twenty_leaves_out_the_truth() {
        let mut random = Random::new(7);
        // A sum of twelve even numbers is near enough to a normal one.
        #[expect(clippy::cast_precision_loss, reason = "32 bits")]
        let mut normal = || (0..12).map(|_| (random.half() >> 32) as f64 / 2_f64.powi(32)).sum::<f64>() - 6.0;
        let mut wrong = 0;
        for _ in 0..4_000 {
            let pairs: Vec<(f64, f64)> = (0..10).map(|_| (100.0 + normal(), 100.0 + normal())).collect();
            wrong += u32::from(of_first_figure(&pairs).differs);
        }
        assert!((140..=260).contains(&wrong), "{wrong} of 4,000, and 200 are expected");
    }

    #[test]
    fn one_round_says_nothing() {
        assert_eq!(compare(&[]), []);
        assert_eq!(compare(&[([1.0; 5], [2.0; 5])]), []);
    }
}
