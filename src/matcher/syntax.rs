//! What a pattern says, once its flags are applied: the tree that every compiler starts from.
//!
//! The tree knows bytes, not letters with options: `(?i)a` has become `[aA]`, `.` a set, `$` one of three
//! assertions. Greed is gone too, since a verdict is only whether there is a match. Groups leave no trace.
//!
//! In scope: the tree, and questions about it that need no compiler. Out of scope: text ([`super::parser`]).

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSet([u64; 4]);

/// A condition on a position, decided by the bytes right before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assertion {
    /// `\A`, and `^` without `(?m)`: nothing comes before.
    TextStart,
    /// `\Z`: nothing comes after.
    TextEnd,
    /// `$` without `(?m)`: nothing comes after, or one newline that is the last byte (Python's rule).
    FinalEnd,
    /// `^` with `(?m)`.
    LineStart,
    /// `$` with `(?m)`.
    LineEnd,
    /// `\b`: exactly one of the two neighbours is an ASCII word byte.
    WordBoundary,
    /// `\B`: not `\b`.
    WordInside,
}

/// A pattern or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Matches the empty text.
    Empty,
    /// One byte of a set.
    Bytes(ByteSet),
    /// One scalar value in UTF-8, of sorted ranges that do not touch; only under `(?u)`.
    Scalars(Vec<(char, char)>),
    /// A condition on the position.
    Assert(Assertion),
    /// A lookahead or lookbehind.
    Around {
        /// Whether it looks at what came before.
        behind: bool,
        /// Whether it holds where its body does not match.
        negative: bool,
        /// What is looked for.
        body: Box<Self>,
    },
    /// One after the other.
    Concat(Vec<Self>),
    /// One of them.
    Alternate(Vec<Self>),
    /// As often as `min` to `max` times.
    Repeat {
        /// At least this often.
        min: u32,
        /// At most this often; without it, any number.
        max: Option<u32>,
        /// What is repeated.
        body: Box<Self>,
    },
}

impl ByteSet {
    /// No byte.
    pub const EMPTY: Self = Self([0; 4]);
    /// Every byte.
    pub const FULL: Self = Self([u64::MAX; 4]);

    /// The bytes from `first` to `last`, both included.
    #[must_use]
    pub fn range(first: u8, last: u8) -> Self {
        let mut set = Self::EMPTY;
        (first..=last).for_each(|byte| set.insert(byte));
        set
    }

    /// One byte.
    #[must_use]
    pub fn of(byte: u8) -> Self {
        Self::range(byte, byte)
    }

    /// The bytes of `[0-9A-Za-z_]`, which `\w` and `\b` mean.
    #[must_use]
    pub fn word() -> Self {
        Self::range(b'0', b'9')
            .union(Self::range(b'A', b'Z'))
            .union(Self::range(b'a', b'z'))
            .union(Self::of(b'_'))
    }

    /// Adds a byte.
    pub fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// Whether the byte is in the set.
    #[must_use]
    pub const fn contains(&self, byte: u8) -> bool {
        self.0[(byte >> 6) as usize] >> (byte & 63) & 1 == 1
    }

    /// The bytes of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// The other bytes.
    #[must_use]
    pub fn complement(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// With the other case of every ASCII letter.
    #[must_use]
    pub fn folded(self) -> Self {
        let mut folded = self;
        for byte in self.iter() {
            folded.insert(byte.to_ascii_lowercase());
            folded.insert(byte.to_ascii_uppercase());
        }
        folded
    }

    /// The bytes in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |byte| self.contains(*byte))
    }

    /// The only byte, if there is one only.
    #[must_use]
    pub fn single(self) -> Option<u8> {
        let mut bytes = self.iter();
        bytes.next().filter(|_| bytes.next().is_none())
    }
}

impl Node {
    /// One after the other, with nested sequences taken apart.
    #[must_use]
    pub fn concat(items: Vec<Self>) -> Self {
        let mut flat = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Self::Empty => {}
                Self::Concat(inner) => flat.extend(inner),
                item => flat.push(item),
            }
        }
        match flat.len() {
            0 => Self::Empty,
            1 => flat.remove(0),
            _ => Self::Concat(flat),
        }
    }

    /// The bytes of a text, one after the other.
    #[must_use]
    pub fn literal(bytes: &[u8]) -> Self {
        Self::concat(bytes.iter().map(|byte| Self::Bytes(ByteSet::of(*byte))).collect())
    }

    /// The items of a sequence; a node that is none is a sequence of one.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Concat(items) => items,
            Self::Empty => &[],
            item => std::slice::from_ref(item),
        }
    }

    /// The pattern as a plain text, if it is nothing else.
    #[must_use]
    pub fn as_literal(&self) -> Option<Vec<u8>> {
        let prefix = self.literal_prefix();
        (!prefix.is_empty() && prefix.len() == self.items().len()).then_some(prefix)
    }

    /// The plain text that every match begins with; may be empty.
    #[must_use]
    pub fn literal_prefix(&self) -> Vec<u8> {
        let byte = |item: &Self| if let Self::Bytes(set) = item { set.single() } else { None };
        self.items().iter().map_while(byte).collect()
    }

    /// Whether every match begins at the start of the text.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        for item in self.items() {
            match item {
                Self::Assert(Assertion::TextStart) => return true,
                // A lookahead at the same position that holds nowhere else.
                Self::Around { behind: false, negative: false, body } if body.is_anchored() => return true,
                Self::Alternate(branches) => return branches.iter().all(Self::is_anchored),
                // Conditions do not move on: what comes after them is still at the same position.
                Self::Assert(_) | Self::Around { .. } => {}
                _ => return false,
            }
        }
        false
    }
}
