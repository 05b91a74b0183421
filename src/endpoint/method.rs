//! [`Method`]: which request methods are accepted, and why one is not.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use super::{Method, is_token};

/// Nearly every endpoint uses one of these; sharing them keeps an endpoint free of an allocation for it.
static COMMON: LazyLock<[Method; 5]> =
    LazyLock::new(|| ["GET", "HEAD", "POST", "PUT", "OPTIONS"].map(|name| Method(Arc::from(name))));

impl Method {
    /// The longest method accepted: the longest one registered with IANA (`UPDATEREDIRECTREF`) has 17.
    const BYTES_MAX: usize = 32;

    /// Parses a method; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if let Some(common) = COMMON.iter().find(|common| common.as_str() == text) {
            return Ok(common.clone());
        }
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > Self::BYTES_MAX {
            return Err(format!("is {} bytes long; at most {} are accepted", text.len(), Self::BYTES_MAX));
        }
        if !is_token(text) {
            return Err(format!("{text:?} is not a token (letters, digits and !#$%&'*+-.^_`|~)"));
        }
        if text.eq_ignore_ascii_case("CONNECT") {
            return Err("CONNECT opens a tunnel instead of asking for a response".to_owned());
        }
        // Methods are case-sensitive; nearly every server answers 400 or 501 to `get`.
        if let Some(common) = COMMON.iter().find(|common| common.as_str().eq_ignore_ascii_case(text)) {
            return Err(format!("{text:?} is not {common}: methods are case-sensitive"));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The method as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the response has no body whatever its head says (RFC 9112, section 6.3).
    #[must_use]
    pub fn is_head(&self) -> bool {
        &*self.0 == "HEAD"
    }
}

impl Default for Method {
    fn default() -> Self {
        COMMON[0].clone()
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_methods_and_nothing_else_is() {
        for good in ["GET", "HEAD", "PURGE", "M-SEARCH", "UPDATEREDIRECTREF", "x!"] {
            assert_eq!(Method::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "GET ", "G\r\nX", "GÉT", "get", "Head", "CONNECT", "connect", &"A".repeat(33)] {
            assert!(Method::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Method::default().as_str(), "GET");
        assert!(Method::new("HEAD").unwrap().is_head() && !Method::default().is_head());
    }

    #[test]
    fn common_methods_share_their_text() {
        assert!(Arc::ptr_eq(&Method::new("GET").unwrap().0, &Method::default().0));
    }
}
