//! [`StatusSet`]: parsing of `expect_status`, and the question a probe asks it.
//!
//! Invariant: ranges are sorted, disjoint and not adjacent, so that equal sets are equal values.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::StatusSet;

/// The statuses that HTTP can express (RFC 9110, section 15).
const STATUS_MIN: u16 = 100;
const STATUS_MAX: u16 = 599;

/// 200 to 299; nearly every endpoint has it, so it is shared.
static SUCCESS: LazyLock<StatusSet> = LazyLock::new(|| StatusSet(Arc::from([(200, 299)])));

impl StatusSet {
    /// Parses entries such as `200-299` and `304`; the error says which one is wrong, and how.
    pub fn parse<Entries>(entries: Entries) -> Result<Self, String>
    where
        Entries: IntoIterator,
        Entries::Item: AsRef<str>,
    {
        let mut ranges = Vec::new();
        for entry in entries {
            ranges.push(range(entry.as_ref())?);
        }
        if ranges.is_empty() {
            return Err("is empty: no status would count as up".to_owned());
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        if merged == *SUCCESS.0 {
            return Ok(SUCCESS.clone());
        }
        Ok(Self(merged.into()))
    }

    /// Whether `status` counts as up.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// The inclusive ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// The entries as [`Self::parse`] takes them.
    pub fn entries(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        SUCCESS.clone()
    }
}

impl fmt::Display for StatusSet {
    /// The entries, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{entry}")?;
        }
        Ok(())
    }
}

fn range(entry: &str) -> Result<(u16, u16), String> {
    let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
    let (first, last) = (status(first, entry)?, status(last, entry)?);
    if first > last {
        return Err(format!("{entry:?} runs backwards; write \"{last}-{first}\""));
    }
    Ok((first, last))
}

fn status(digits: &str, entry: &str) -> Result<u16, String> {
    let status = match digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().unwrap_or(0),
        false => 0,
    };
    match (STATUS_MIN..=STATUS_MAX).contains(&status) {
        true => Ok(status),
        false => Err(format!(
            "{entry:?} is neither a status from {STATUS_MIN} to {STATUS_MAX} nor a range such as \"200-299\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(entries: &[&str], expected: &str) {
        let set = StatusSet::parse(entries);
        assert_eq!(set.map_or_else(|error| format!("! {error}"), |set| set.to_string()), expected);
    }

    #[test]
    fn entries_are_merged_into_one_form() {
        check(&["200-299"], "200-299");
        check(&["304", "200-299"], "200-299,304");
        check(&["300", "200-299"], "200-300");
        check(&["200-210", "205-207", "404"], "200-210,404");
        check(&["100-599"], "100-599");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        check(&[], "! is empty: no status would count as up");
        check(&["299-200"], r#"! "299-200" runs backwards; write "200-299""#);
        for bad in ["", "-", "2xx", "99", "600", "200-", "-200", "+20", "200-299-304", " 200", "0200"] {
            check(
                &[bad],
                &format!("! {bad:?} is neither a status from 100 to 599 nor a range such as \"200-299\""),
            );
        }
    }

    proptest! {
        #[test]
        fn contains_agrees_with_the_entries(
            entries in prop::collection::vec((100_u16..=599, 0_u16..50), 1..20),
            status in 0_u16..=700,
        ) {
            let ranges: Vec<(u16, u16)> =
                entries.iter().map(|(first, more)| (*first, (first + more).min(599))).collect();
            let set = StatusSet::parse(ranges.iter().map(|(a, b)| format!("{a}-{b}"))).unwrap();
            prop_assert_eq!(set.contains(status), ranges.iter().any(|(a, b)| (*a..=*b).contains(&status)));
            prop_assert_eq!(StatusSet::parse(set.entries()).unwrap(), set.clone());
            prop_assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
