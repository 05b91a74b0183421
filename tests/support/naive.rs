//! What a pattern means, by definition and without any automaton: sets of positions.
//!
//! A part of a pattern takes a set of positions at which it may begin to the set of those at which it may end. A
//! lookahead keeps the positions from which its body gets anywhere, a lookbehind those that its body gets to
//! from anywhere before. Slow, and plain enough to be believed.

use ringprobe::matcher::{Assertion, Node};

/// Positions in a text of at most [`TEXT_BYTES_MAX`] bytes, one bit each.
type Positions = u128;

/// Longest text: there is one more position than bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 127;

/// Whether the text contains the pattern.
pub(crate) fn contains(pattern: &Node, text: &[u8]) -> bool {
    assert!(text.len() <= TEXT_BYTES_MAX);
    ends(pattern, text, up_to(text.len())) != 0
}

fn up_to(position: usize) -> Positions {
    Positions::MAX >> (127 - position)
}

fn keep(from: Positions, condition: impl Fn(usize) -> bool) -> Positions {
    (0..128)
        .filter(|position| from >> position & 1 == 1 && condition(*position))
        .fold(0, |kept, at| kept | 1 << at)
}

fn ends(node: &Node, text: &[u8], from: Positions) -> Positions {
    if from == 0 {
        return 0;
    }
    match node {
        Node::Empty => from,
        Node::Bytes(set) => keep(from, |at| text.get(at).is_some_and(|byte| set.contains(*byte))) << 1,
        Node::Scalars(ranges) => {
            let length_at = |at: usize| {
                let scalar = (1..=4).find_map(|length| {
                    let bytes = text.get(at..at + length)?;
                    Some((std::str::from_utf8(bytes).ok()?.chars().next()?, length))
                });
                scalar.filter(|(scalar, _)| ranges.iter().any(|(low, high)| low <= scalar && scalar <= high))
            };
            (1..=4).fold(0, |all, length| {
                all | keep(from, |at| length_at(at).is_some_and(|(_, found)| found == length)) << length
            })
        }
        Node::Assert(assertion) => keep(from, |at| holds(*assertion, text, at)),
        Node::Around { behind: false, negative, body } => {
            keep(from, |at| (ends(body, text, 1 << at) == 0) == *negative)
        }
        Node::Around { behind: true, negative, body } => {
            keep(from, |at| (ends(body, text, up_to(at)) >> at & 1 == 0) == *negative)
        }
        Node::Concat(items) => items.iter().fold(from, |from, item| ends(item, text, from)),
        Node::Alternate(branches) => branches.iter().fold(0, |all, branch| all | ends(branch, text, from)),
        Node::Repeat { min, max, body } => {
            let after_min = (0..*min).fold(from, |from, _| ends(body, text, from));
            let (mut all, mut last) = (after_min, after_min);
            let mut turns_left = max.map(|max| max - min);
            // What is reached again adds nothing, so that this ends.
            while last != 0 && turns_left != Some(0) {
                last = ends(body, text, last) & !all;
                all |= last;
                turns_left = turns_left.map(|left| left - 1);
            }
            all
        }
    }
}

fn holds(assertion: Assertion, text: &[u8], at: usize) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    let after = text.get(at);
    match assertion {
        Assertion::TextStart => before.is_none(),
        Assertion::TextEnd => after.is_none(),
        Assertion::FinalEnd => matches!(text[at..], [] | [b'\n']),
        Assertion::LineStart => before.is_none_or(|byte| *byte == b'\n'),
        Assertion::LineEnd => after.is_none_or(|byte| *byte == b'\n'),
        Assertion::WordBoundary => is_word(before) != is_word(after),
        Assertion::WordInside => is_word(before) == is_word(after),
    }
}
