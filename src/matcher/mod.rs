//! Body patterns: compiled once into small tables, walked while the body streams, lookarounds included.
//!
//! ```text
//!   Patterns ─ Compiler ─► Matcher (immutable, shared)         when endpoints are loaded
//!   start ─► Scan ─ feed(bytes) ─► More | Certain(Verdict) …   per body, on the shard
//!                 └ finish() ────► Verdict                     at the body's true end only
//! ```
//!
//! Read in this order: `syntax` and `parser` (a pattern's tree), `split` (into parts that must all hold), the two
//! compilers `determinize` (no lookarounds) and `alternating`, `formula`, `derive` (all patterns), `dfa` (the
//! minimal form they share), `table` and `lazy` (what runs), `run` (side by side, verdicts), `compiler` (which of
//! them, and sharing). What patterns mean is in docs/patterns.md.
//!
//! In scope: bytes to verdicts. Out of scope: content codings; what a verdict does to a probe.
//!
//! Invariants: a verdict is that of the whole body at once, however it was cut, and never changes once it is
//! certain. Work per byte is bounded by the pattern and not by the body, and what the lazy tier does beside that by a
//! budget for each body; memory is bounded by [`Budgets`].

mod alternating;
pub mod budget;
mod charset;
mod compiler;
mod derive;
mod determinize;
mod dfa;
mod error;
mod formula;
pub mod invariants;
mod lazy;
mod parser;
mod run;
mod split;
mod syntax;
mod table;

use std::fmt;

pub use budget::Budgets;
pub use charset::{Charset, Transcoder};
pub use compiler::{Compiler, automaton};
pub use dfa::Dfa;
pub use error::{Fault, PatternError};
pub use parser::{Parsed, parse};
pub use run::{Certainty, Explanation, INLINE, Matcher, Scan, Verdict};
pub use syntax::{Assertion, ByteSet, Node};

/// What an endpoint says about its bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Patterns {
    /// Each must be found.
    pub body_match: Vec<String>,
    /// None may be found.
    pub body_forbid: Vec<String>,
}

/// How a part of a pattern is looked for, from the fastest to the slowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// A text, or a choice of texts: a table, and a search for the text where the table is at its start.
    Literal,
    /// A table of a pattern without lookarounds.
    Table,
    /// A table made by derivatives, because there are lookarounds.
    Lookaround,
    /// States made as a body needs them, in a table of the body's own.
    Lazy,
}

impl Tier {
    /// The tier's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Literal => "literal",
            Self::Table => "table",
            Self::Lookaround => "lookaround",
            Self::Lazy => "lazy",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
