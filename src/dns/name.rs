//! Names as DNS has them: labels, each with its length in front, in lower case.
//!
//! In scope: from text, and joined to a search domain. Out of scope: internationalised names (the `url` crate
//! has made those ASCII before they come here), names inside messages ([`super::message`] compares those in
//! place, without building any).
//!
//! Invariant: a [`Name`] can be asked for: labels of 1 to 63 bytes, [`NAME_BYTES_MAX`] bytes in all.

use std::fmt;
use std::sync::Arc;

/// Longest name on the wire, lengths and the final zero included (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest label (RFC 1035, section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// A fully qualified name in wire format, lower case. Copies share their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing, or nothing between two dots.
    EmptyLabel,
    /// A label of more than [`LABEL_BYTES_MAX`] bytes.
    LabelTooLong,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// A byte that is no printable ASCII: blanks, controls, letters that ought to have been encoded.
    Unprintable,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyLabel => "a name has an empty label",
            Self::LabelTooLong => "a label of a name is longer than 63 bytes",
            Self::TooLong => "a name is longer than 255 bytes",
            Self::Unprintable => "a name has a byte that is not printable ASCII",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// Reads a name such as `www.example.com`, with or without the final dot.
    ///
    /// Anything printable is let through, underscores included: which names exist is for their owners to say.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() + 2 > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            if label.is_empty() {
                return Err(NameError::EmptyLabel);
            }
            if !label.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(NameError::Unprintable);
            }
            let length =
                u8::try_from(label.len()).ok().filter(|length| usize::from(*length) <= LABEL_BYTES_MAX);
            wire.push(length.ok_or(NameError::LabelTooLong)?);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        debug_assert!(wire.len() <= NAME_BYTES_MAX);
        Ok(Self(wire.into()))
    }

    /// This name below `domain`, unless that would be too long.
    #[must_use]
    pub fn below(&self, domain: &Self) -> Option<Self> {
        let labels = &self.0[..self.0.len() - 1];
        let fits = labels.len() + domain.0.len() <= NAME_BYTES_MAX;
        fits.then(|| Self([labels, &domain.0[..]].concat().into()))
    }

    /// The bytes as they stand in a message.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, without their lengths.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.labels().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{}", label.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[u8], NameError>) {
        assert_eq!(Name::parse(text).as_ref().map(Name::wire), expected.as_ref().copied(), "{text:?}");
    }

    #[test]
    fn names_are_read() {
        check("a.b", Ok(b"\x01a\x01b\x00"));
        check("WWW.Example.COM.", Ok(b"\x03www\x07example\x03com\x00"));
        check("_http._tcp.x", Ok(b"\x05_http\x04_tcp\x01x\x00"));
        check("", Err(NameError::EmptyLabel));
        check(".", Err(NameError::EmptyLabel));
        check("a..b", Err(NameError::EmptyLabel));
        check("a b", Err(NameError::Unprintable));
        check("é", Err(NameError::Unprintable));
        check("a\0", Err(NameError::Unprintable));
        check(&"a".repeat(64), Err(NameError::LabelTooLong));
        assert!(Name::parse(&"a".repeat(63)).is_ok());
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(Name::parse(&longest).unwrap().wire().len(), NAME_BYTES_MAX);
        check(&format!("{longest}d"), Err(NameError::TooLong));
    }

    #[test]
    fn a_search_domain_is_appended_unless_that_is_too_long() {
        let domain = Name::parse("example.com").unwrap();
        assert_eq!(Name::parse("www").unwrap().below(&domain), Name::parse("www.example.com").ok());
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(50)].join(".");
        assert_eq!(Name::parse(&long).unwrap().below(&domain), None);
        assert_eq!(Name::parse("www.Example.com").unwrap().to_string(), "www.example.com");
    }
}
