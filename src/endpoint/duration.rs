//! Durations as people write them: a number and a unit, `500ms 30s 5m 1h 1d 1.5s`.
//!
//! Exact: the value is computed in integers, and what does not come to whole microseconds is refused rather
//! than rounded. A number without a unit is refused too: half of its readers would take it for milliseconds.

use crate::clock::Micros;

/// Units and their length in µs, longest first.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Most digits before and after the point: enough for any limit, and 10^9 days in µs fit 128 bits.
const DIGITS_MAX: usize = 9;

/// Parses a duration; the error says what is wrong with the text.
pub fn parse(text: &str) -> Result<Micros, String> {
    let split = text.find(|character: char| !(character.is_ascii_digit() || character == '.'));
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let shape = |digits: &str| {
        (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !shape(whole) || !shape(fraction) {
        return Err(format!("{text:?} is not a duration such as \"500ms\", \"30s\" or \"5m\""));
    }
    if unit.is_empty() {
        return Err(format!("{text:?} has no unit; write \"{text}s\" if seconds are meant"));
    }
    let unit = if unit == "µs" { "us" } else { unit };
    let Some((_, unit_us)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("{text:?} has an unknown unit; known are us, ms, s, m, h and d"));
    };
    let digits = |digits: &str| digits.bytes().fold(0_u64, |value, byte| value * 10 + u64::from(byte - b'0'));
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let scaled = (u128::from(digits(whole)) * scale + u128::from(digits(fraction))) * u128::from(*unit_us);
    if scaled % scale != 0 {
        return Err(format!("{text:?} is finer than a microsecond"));
    }
    match u64::try_from(scaled / scale) {
        Ok(us) => Ok(Micros(us)),
        Err(_) => Err(format!("{text:?} is too long")),
    }
}

/// Writes a duration so that [`parse`] gives it back: in the largest unit that it is a whole number of.
#[must_use]
pub fn write(span: Micros) -> String {
    let (number, unit) = in_unit(span);
    format!("{number}{unit}")
}

/// The same for prose, with a space between number and unit: `100 ms`.
#[must_use]
pub fn prose(span: Micros) -> String {
    let (number, unit) = in_unit(span);
    format!("{number} {unit}")
}

fn in_unit(span: Micros) -> (u64, &'static str) {
    if span.0 == 0 {
        return (0, "s");
    }
    let (name, unit_us) =
        UNITS.iter().find(|(_, unit_us)| span.0.is_multiple_of(*unit_us)).unwrap_or(&UNITS[5]);
    (span.0 / unit_us, name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_are_understood() {
        for (text, us) in [
            ("500ms", 500_000_u64),
            ("30s", 30_000_000),
            ("5m", 300_000_000),
            ("1h", 3_600_000_000),
            ("1d", 86_400_000_000),
            ("1.5s", 1_500_000),
            ("0.25ms", 250),
            ("0s", 0),
            ("7us", 7),
            ("7µs", 7),
            ("007s", 7_000_000),
        ] {
            assert_eq!(parse(text), Ok(Micros(us)), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a duration"),
            ("30", "write \"30s\" if seconds"),
            ("s", "not a duration"),
            ("-1s", "not a duration"),
            ("+1s", "not a duration"),
            ("1 s", "unknown unit"),
            ("1.s", "not a duration"),
            (".5s", "not a duration"),
            ("1.2.3s", "not a duration"),
            ("1S", "unknown unit"),
            ("1w", "unknown unit"),
            ("1m30s", "unknown unit"),
            ("1e3s", "unknown unit"),
            ("1.0000001s", "finer than a microsecond"),
            ("1234567890s", "not a duration"),
            ("999999999d", "too long"),
            ("٣s", "not a duration"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(us in 0_u64..=86_400_000_000 * 9) {
            for span in [Micros(us), Micros(us / 1_000 * 1_000), Micros(us / 60_000_000 * 60_000_000)] {
                // Beyond nine digits of its unit a span cannot be written; no limit comes near.
                if span.0 % 1_000 == 0 || span.0 < 1_000_000_000 {
                    prop_assert_eq!(parse(&write(span)), Ok(span));
                }
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
