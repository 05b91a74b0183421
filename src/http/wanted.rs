//! What an endpoint expects of the fields of a response head.
//!
//! [`Wanted`] is made once per endpoint and asked once per final head, where the head is parsed: no field is
//! kept for it. A response that was given none pays one comparison.
//!
//! In scope: a field present, absent, with a value that matches, without one. Names in any case; a field that
//! comes several times has several values, each judged by itself and never joined.
//! Out of scope: how values are matched ([`Judge`] is the pattern engine's side), trailers, interim responses.
//!
//! Invariant: cost is bounded by `HEAD_FIELDS_MAX · WANTED_FIELDS_MAX` comparisons of lengths, plus one judgement
//! per field of the name.

use std::fmt;

use httparse::Header;

use super::request::is_token;

/// Most expectations of one endpoint: each is looked for in every field of every head.
pub const WANTED_FIELDS_MAX: usize = 32;

// [`Wanted::first_unmet`] gives a place as one byte.
const _: () = assert!(WANTED_FIELDS_MAX <= u8::MAX as usize);

/// Says whether a value is what is looked for.
pub trait Judge: fmt::Debug + Send + Sync {
    /// `value` is without the blanks around it, free of control characters but for tab (and the line ends of a
    /// folded value), not necessarily UTF-8, and at most `HEAD_BYTES_MAX` long. Must take time linear in it.
    fn accepts(&self, value: &[u8]) -> bool;
}

/// What is expected of the fields of one name.
#[derive(Debug)]
pub enum Rule {
    /// There is one, whatever its value.
    Present,
    /// There is none.
    Absent,
    /// There is one whose value is accepted.
    Matches(Box<dyn Judge>),
    /// There is none whose value is accepted; it may be missing altogether.
    MatchesNot(Box<dyn Judge>),
}

/// Everything expected of the fields of a head, in the order in which it was said.
#[derive(Debug, Default)]
pub struct Wanted {
    fields: Vec<(Box<str>, Rule)>,
}

impl Wanted {
    /// From names and rules; the error is a lower-case fragment that names the field. At most
    /// [`WANTED_FIELDS_MAX`] are accepted.
    pub fn new(fields: impl IntoIterator<Item = (String, Rule)>) -> Result<Self, String> {
        let fields: Vec<(Box<str>, Rule)> =
            fields.into_iter().map(|(name, rule)| (name.into_boxed_str(), rule)).collect();
        if fields.len() > WANTED_FIELDS_MAX {
            return Err(format!("are {} in number; at most {WANTED_FIELDS_MAX} are accepted", fields.len()));
        }
        if let Some((name, _)) = fields.iter().find(|(name, _)| !is_token(name)) {
            return Err(format!("{name:?} is not a field name (letters, digits and !#$%&'*+-.^_`|~)"));
        }
        Ok(Self { fields })
    }

    /// The place of the first expectation that `headers` do not meet.
    #[must_use]
    pub fn first_unmet(&self, headers: &[Header<'_>]) -> Option<u8> {
        let unmet = self.fields.iter().position(|(name, rule)| {
            let mut values = headers
                .iter()
                .filter(|header| header.name.len() == name.len() && header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value);
            !match rule {
                Rule::Present => values.next().is_some(),
                Rule::Absent => values.next().is_none(),
                Rule::Matches(judge) => values.any(|value| judge.accepts(value)),
                Rule::MatchesNot(judge) => !values.any(|value| judge.accepts(value)),
            }
        });
        unmet.and_then(|place| u8::try_from(place).ok())
    }

    /// The name of the field at a place that [`Self::first_unmet`] gave.
    #[must_use]
    pub fn name(&self, place: u8) -> Option<&str> {
        self.fields.get(usize::from(place)).map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::Response;

    #[derive(Debug)]
    struct Contains(&'static [u8]);

    impl Judge for Contains {
        fn accepts(&self, value: &[u8]) -> bool {
            value.windows(self.0.len()).any(|window| window == self.0)
        }
    }

    const MATCHES: fn(&'static str) -> Rule = |text| Rule::Matches(Box::new(Contains(text.as_bytes())));
    const NOT: fn(&'static str) -> Rule = |text| Rule::MatchesNot(Box::new(Contains(text.as_bytes())));

    /// Which of `fields` a response with these lines leaves unmet: whole, and byte by byte.
    fn check(lines: &str, fields: Vec<(&str, Rule)>, expected: Option<u8>) {
        let wanted = Wanted::new(fields.into_iter().map(|(name, rule)| (name.to_owned(), rule))).unwrap();
        let wanted = Arc::new(wanted);
        // What an interim response has is not what is wanted of the final one.
        let interim = "HTTP/1.1 103 Early Hints\r\nInterim: a\r\n\r\n";
        let stream = format!("{interim}HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
        for piece_bytes in [stream.len(), 1] {
            let mut response = Response::expecting(false, Some(wanted.clone()));
            for piece in stream.as_bytes().chunks(piece_bytes) {
                assert_eq!(response.unmet(), None, "nothing is unmet before the head ends");
                let _ = response.feed(piece, &mut |_| {}).unwrap();
            }
            assert_eq!(response.unmet(), expected, "{lines:?} {wanted:?}");
        }
    }

    #[test]
    fn presence_in_any_case() {
        check("X-Up: 1\r\n", vec![("x-up", Rule::Present), ("X-UP", Rule::Present)], None);
        check("X-Up:\r\n", vec![("X-Up", Rule::Present)], None);
        check("X-Upp: 1\r\n", vec![("X-Up", Rule::Present)], Some(0));
        check("X-Up: 1\r\n", vec![("Server", Rule::Absent), ("x-up", Rule::Absent)], Some(1));
        check("", vec![("Interim", Rule::Absent)], None);
        check("", vec![("Interim", Rule::Present)], Some(0));
    }

    #[test]
    fn any_value_of_a_field_that_comes_twice_will_do() {
        let twice = "V: one\r\nOther: x\r\nv: two\r\n";
        check(twice, vec![("V", MATCHES("one")), ("V", MATCHES("two"))], None);
        check(twice, vec![("V", MATCHES("onetwo"))], Some(0));
        check(twice, vec![("V", NOT("three"))], None);
        check(twice, vec![("V", NOT("two"))], Some(0));
        check("", vec![("V", NOT("two")), ("V", MATCHES("two"))], Some(1));
        check("V:  \t a b \t\r\n", vec![("V", MATCHES("a b"))], None);
        check("V: caf\u{e9}\r\n", vec![("V", MATCHES("\u{e9}"))], None);
    }

    #[test]
    fn the_first_unmet_is_named() {
        let wanted = Wanted::new([("A".to_owned(), Rule::Present), ("B".to_owned(), Rule::Present)]).unwrap();
        assert_eq!(wanted.first_unmet(&[Header { name: "a", value: b"" }]), Some(1));
        assert_eq!(wanted.name(1), Some("B"));
        assert_eq!(wanted.name(2), None);
    }

    #[test]
    fn what_is_no_name_or_too_much_is_refused_by_name() {
        let error = |name: &str| Wanted::new([(name.to_owned(), Rule::Present)]).unwrap_err();
        assert!(error("a b").contains("\"a b\""));
        assert!(!error("").is_empty() && !error("a\r\n").is_empty());
        let many = |count| Wanted::new((0..count).map(|at| (format!("F{at}"), Rule::Present)));
        assert!(many(WANTED_FIELDS_MAX).is_ok());
        assert!(many(WANTED_FIELDS_MAX + 1).unwrap_err().contains("at most 32"));
    }
}
