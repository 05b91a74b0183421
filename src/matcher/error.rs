//! Why a pattern was refused: one line that names where, what, and what to write instead.

use std::fmt;

/// A pattern that cannot be compiled. It is the pattern's author's to mend, and known before anything is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The list it stands in: `body_match` or `body_forbid`.
    pub list: &'static str,
    /// Where in its list, from zero.
    pub index: usize,
    /// The byte of the pattern's text at which the construct begins.
    pub offset: usize,
    /// What is wrong and what to write instead; a lower-case fragment.
    pub message: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}], byte {}: {}", self.list, self.index, self.offset, self.message)
    }
}

impl std::error::Error for PatternError {}

/// The same before it is known which pattern it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The byte of the pattern's text at which the construct begins.
    pub offset: usize,
    /// What is wrong and what to write instead; a lower-case fragment.
    pub message: String,
}

impl Fault {
    /// A fault at a byte of the pattern.
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}
