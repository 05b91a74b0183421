//! Sizes as people write them: a whole number of bytes, or one with a unit: `512`, `64KiB`, `10MiB`, `1MB`.

/// Units and their length in bytes; those that are written come first, longest first.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// How many of [`UNITS`] are written: powers of two, as most limits are.
const WRITTEN: usize = 3;

/// Parses a size in bytes; the error says what is wrong with the text.
pub fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() {
        return Err(format!("{text:?} is not a size such as \"64KiB\" or \"10MiB\""));
    }
    let unit_bytes = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, bytes)) => *bytes,
        None if unit.is_empty() => 1,
        None => {
            return Err(format!("{text:?} has an unknown unit; known are B, kB, KiB, MB, MiB, GB and GiB"));
        }
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
    bytes.ok_or_else(|| format!("{text:?} is too large"))
}

/// Writes a size so that [`parse`] gives it back: in the largest unit that it is a whole number of.
#[must_use]
pub fn write(bytes: u64) -> String {
    let whole = |unit: &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(unit.1);
    match UNITS[..WRITTEN].iter().find(whole) {
        Some((name, unit_bytes)) => format!("{}{name}", bytes / unit_bytes),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_are_understood() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1kB", 1_000),
            ("64KiB", 65_536),
            ("10MiB", 10 << 20),
            ("3MB", 3_000_000),
            ("1GiB", 1 << 30),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a size"),
            ("MiB", "not a size"),
            ("-1", "not a size"),
            ("1 MiB", "unknown unit"),
            ("1.5MiB", "unknown unit"),
            ("1mib", "unknown unit"),
            ("99999999999999999999", "too large"),
            ("99999999999GiB", "too large"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<u64>(), shift in 0_u32..64) {
            for bytes in [bytes, bytes >> shift, (bytes >> shift) << (shift / 2)] {
                prop_assert_eq!(parse(&write(bytes)), Ok(bytes));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
