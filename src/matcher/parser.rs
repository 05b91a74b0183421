//! Text of a pattern to its tree, in the syntax of Python's `re`.
//!
//! In scope: what Python 3 takes, on bytes, with ASCII classes and ASCII `(?i)`; `(?u)` for Unicode ones;
//! lookbehinds of any width. Out of scope, each with an error that says what to write instead: what no table
//! can do (backreferences, recursion, conditionals), what only backtracking needs (possessive, atomic), and what other
//! dialects write.
//!
//! Invariants: depth, length and counts are bounded, so that parsing any text ends in a tree or an error. An
//! error's offset is that of the construct's first byte.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::budget::{GROUP_DEPTH_MAX, REPEAT_MAX};
use super::error::Fault;
use super::syntax::{Assertion, ByteSet, Node};

/// A pattern's tree, and what an error about its size should point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The tree.
    pub node: Node,
    /// The widest counted repeat: its offset and its text.
    pub widest_repeat: Option<(usize, String)>,
    /// Whether `(?u)` is used anywhere.
    pub unicode: bool,
}

/// Parses a pattern of at most `bytes_max` bytes.
///
/// # Errors
/// The first construct that is wrong or not supported.
pub fn parse(text: &str, bytes_max: usize) -> Result<Parsed, Fault> {
    if text.len() > bytes_max {
        return Err(Fault::new(bytes_max, format!("the pattern has more than {bytes_max} bytes; split it")));
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        flags: Flags::default(),
        saw_unicode: false,
        widest: None,
        widest_count: 0,
    };
    let node = parser.alternation()?;
    if parser.at < text.len() {
        return Err(Fault::new(parser.at, "this `)` closes no group; write `\\)` for the character"));
    }
    Ok(Parsed { node, widest_repeat: parser.widest, unicode: parser.saw_unicode })
}

#[derive(Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
    verbose: bool,
    unicode: bool,
}

struct Parser<'text> {
    text: &'text str,
    at: usize,
    depth: u32,
    flags: Flags,
    saw_unicode: bool,
    widest: Option<(usize, String)>,
    widest_count: u32,
}

/// What a repeat would apply to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Atom,
    Repeat,
}

/// A member of a class: one value, which may begin a range, or a set such as `\d`.
enum Member {
    Value(u32),
    Set(Vec<(u32, u32)>),
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn alternation(&mut self) -> Result<Node, Fault> {
        let mut branches = vec![self.concat()?];
        while self.eat("|") {
            branches.push(self.concat()?);
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Alternate(branches) })
    }

    fn concat(&mut self) -> Result<Node, Fault> {
        let mut items = Vec::new();
        let mut last = Last::Nothing;
        while let Some(letter) = self.peek() {
            let start = self.at;
            if self.flags.verbose && self.skip_verbose(letter) {
                continue;
            }
            match letter {
                '|' | ')' => break,
                '*' | '+' | '?' | '{' => {
                    if let Some((min, max)) = self.repeat_counts()? {
                        last = self.repeat(start, (min, max), last, &mut items)?;
                        continue;
                    }
                }
                _ => {}
            }
            self.at += letter.len_utf8();
            let (node, is_assertion) = match letter {
                '^' => (self.assertion(Assertion::LineStart, Assertion::TextStart), true),
                '$' => (self.assertion(Assertion::LineEnd, Assertion::FinalEnd), true),
                '.' => (self.dot(), false),
                '(' => match self.group(start, items.is_empty())? {
                    Some(node) => (node, false),
                    None => continue,
                },
                '[' => (self.class(start)?, false),
                '\\' => self.escape(start)?,
                letter => (self.value(letter), false),
            };
            last = if is_assertion { Last::Nothing } else { Last::Atom };
            items.push(node);
        }
        Ok(Node::concat(items))
    }

    fn assertion(&self, with_m: Assertion, without: Assertion) -> Node {
        Node::Assert(if self.flags.multi_line { with_m } else { without })
    }

    /// Skips white space and comments of `(?x)`.
    fn skip_verbose(&mut self, letter: char) -> bool {
        if letter == '#' {
            self.at += self.rest().find('\n').unwrap_or_else(|| self.rest().len());
            return true;
        }
        let is_blank = matches!(letter, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
        if is_blank {
            self.at += 1;
        }
        is_blank
    }

    /// The counts of the repeat that begins here; nothing, and nothing consumed, if it is a plain `{`.
    fn repeat_counts(&mut self) -> Result<Option<(u32, Option<u32>)>, Fault> {
        let start = self.at;
        let counts = match self.next() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            _ => {
                let Some(counts) = self.braces(start)? else {
                    self.at = start;
                    return Ok(None);
                };
                counts
            }
        };
        Ok(Some(counts))
    }

    /// What follows a `{`, if it is a count.
    fn braces(&mut self, start: usize) -> Result<Option<(u32, Option<u32>)>, Fault> {
        if self.peek() == Some('}') {
            return Ok(None);
        }
        let low = self.digits();
        let high = if self.eat(",") { self.digits() } else { low.clone() };
        let is_range = self.text[start..self.at].contains(',');
        if !self.eat("}") || (low.is_empty() && !is_range) {
            return Ok(None);
        }
        let count = |digits: &str| match digits.parse::<u32>() {
            Ok(count) if count <= REPEAT_MAX => Ok(count),
            _ => Err(Fault::new(
                start,
                format!("a repeat of more than {REPEAT_MAX}; write `{{{REPEAT_MAX}}}` or less, or `*`"),
            )),
        };
        let min = if low.is_empty() { 0 } else { count(&low)? };
        let max = if high.is_empty() { None } else { Some(count(&high)?) };
        if max.is_some_and(|max| max < min) {
            return Err(Fault::new(start, "the smaller count of a repeat comes first"));
        }
        let widest = max.unwrap_or(min);
        if widest > self.widest_count {
            self.widest_count = widest;
            self.widest = Some((start, self.text[start..self.at].to_owned()));
        }
        Ok(Some((min, max)))
    }

    fn digits(&mut self) -> String {
        let length = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let digits = self.rest()[..length].to_owned();
        self.at += length;
        digits
    }

    fn repeat(
        &mut self,
        start: usize,
        (min, max): (u32, Option<u32>),
        last: Last,
        items: &mut Vec<Node>,
    ) -> Result<Last, Fault> {
        match last {
            Last::Nothing => return Err(Fault::new(start, "there is nothing to repeat before this")),
            Last::Repeat => {
                return Err(Fault::new(start, "a repeat of a repeat; put the first one in a group `(?:…)`"));
            }
            Last::Atom => {}
        }
        if self.eat("+") {
            return Err(Fault::new(
                start,
                "a possessive repeat; leave out the last `+` (matching never backtracks here), or exclude what \
                 must not follow with `(?!…)`",
            ));
        }
        // Lazy or greedy is about which match, and a verdict is about whether there is one.
        self.eat("?");
        let body = items.pop().unwrap_or(Node::Empty);
        items.push(Node::Repeat { min, max, body: Box::new(body) });
        Ok(Last::Repeat)
    }

    fn dot(&self) -> Node {
        match (self.flags.unicode, self.flags.dot_all) {
            (false, true) => Node::Bytes(ByteSet::FULL),
            (false, false) => Node::Bytes(ByteSet::of(b'\n').complement()),
            (true, true) => Node::Scalars(vec![('\0', char::MAX)]),
            (true, false) => Node::Scalars(vec![('\0', '\t'), ('\x0b', char::MAX)]),
        }
    }

    /// A letter that stands for itself.
    fn value(&self, letter: char) -> Node {
        if self.flags.unicode && self.flags.ignore_case {
            return self.set(&[(u32::from(letter), u32::from(letter))], false);
        }
        let mut buffer = [0; 4];
        match letter.encode_utf8(&mut buffer).as_bytes() {
            [byte] if self.flags.ignore_case => Node::Bytes(ByteSet::of(*byte).folded()),
            bytes => Node::literal(bytes),
        }
    }

    /// What follows a `(`. Nothing, if it was flags for all that follows, or a comment.
    fn group(&mut self, start: usize, is_first: bool) -> Result<Option<Node>, Fault> {
        let outer = self.flags;
        let mut around = None;
        if self.eat("?") {
            if self.eat("#") {
                let Some(end) = self.rest().find(')') else {
                    return Err(Fault::new(start, "a comment without its `)`"));
                };
                self.at += end + 1;
                return Ok(None);
            }
            if self.eat("P<") || (self.rest().starts_with('<') && !self.rest()[1..].starts_with(['=', '!'])) {
                self.group_name(start)?;
            } else if self.eat("<=") {
                around = Some((true, false));
            } else if self.eat("<!") {
                around = Some((true, true));
            } else if self.eat("=") {
                around = Some((false, false));
            } else if self.eat("!") {
                around = Some((false, true));
            } else if !self.eat(":") && !self.flags(start, is_first)? {
                return Ok(None);
            }
        }
        if self.depth == GROUP_DEPTH_MAX {
            return Err(Fault::new(start, format!("groups nested deeper than {GROUP_DEPTH_MAX}")));
        }
        self.depth += 1;
        let body = self.alternation()?;
        self.depth -= 1;
        self.flags = outer;
        if !self.eat(")") {
            return Err(Fault::new(start, "this group is not closed; write `\\(` for the character"));
        }
        Ok(Some(match around {
            Some((behind, negative)) => Node::Around { behind, negative, body: Box::new(body) },
            None => body,
        }))
    }

    /// The name in `(?P<name>`: checked and forgotten.
    fn group_name(&mut self, start: usize) -> Result<(), Fault> {
        if self.eat("<") {
            return Err(Fault::new(start, "a group is named by `(?P<name>…)`"));
        }
        let length = self.rest().find('>').unwrap_or(0);
        let name = &self.rest()[..length];
        let is_name = name.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
            && !name.starts_with(|letter: char| letter.is_numeric())
            && !name.is_empty();
        if !is_name {
            return Err(Fault::new(start, "a group's name is letters, digits and `_`, up to a `>`"));
        }
        self.at += length + 1;
        Ok(())
    }

    /// Flags after `(?`; whether they are those of a group (`:`), and not of all that follows (`)`).
    fn flags(&mut self, start: usize, is_first: bool) -> Result<bool, Fault> {
        if let Some(message) = refused_group(self.rest()) {
            return Err(Fault::new(start, message));
        }
        let mut on = true;
        let mut any = false;
        let mut flags = self.flags;
        loop {
            let letter = self.next();
            match letter {
                Some('i') => flags.ignore_case = on,
                Some('m') => flags.multi_line = on,
                Some('s') => flags.dot_all = on,
                Some('x') => flags.verbose = on,
                Some('u') => flags.unicode = on,
                Some('a') if on => flags.unicode = false,
                Some('-') if on => {
                    on = false;
                    any = false;
                    continue;
                }
                Some(':') if any => {
                    self.flags = flags;
                    self.saw_unicode |= flags.unicode;
                    return Ok(true);
                }
                Some(')') if any && on => {
                    if self.depth > 0 || !is_first || self.text[..start].contains('|') {
                        return Err(Fault::new(
                            start,
                            "flags for the whole pattern stand at its start; for a part of it, write `(?i:…)`",
                        ));
                    }
                    self.flags = flags;
                    self.saw_unicode |= flags.unicode;
                    return Ok(false);
                }
                _ => return Err(Fault::new(start, "after `(?` come flags of `imsxu` with `:` or `)`")),
            }
            any = true;
        }
    }

    /// What follows a `\`, and whether it is an assertion.
    fn escape(&mut self, start: usize) -> Result<(Node, bool), Fault> {
        let Some(letter) = self.next() else {
            return Err(Fault::new(start, "a `\\` at the end; write `\\\\` for the character"));
        };
        let assertion = match letter {
            'A' => Some(Assertion::TextStart),
            'Z' | 'z' => Some(Assertion::TextEnd),
            'b' => Some(Assertion::WordBoundary),
            'B' => Some(Assertion::WordInside),
            _ => None,
        };
        if let Some(assertion) = assertion {
            return Ok((Node::Assert(assertion), true));
        }
        self.at = start + 1;
        if ('1'..='9').contains(&letter) && self.octal().is_none() {
            self.at = start + 1;
            if let Some(digits) =
                self.rest().get(..3).filter(|digits| digits.bytes().all(|d| matches!(d, b'0'..=b'7')))
            {
                let value = u32::from_str_radix(digits, 8).unwrap_or_default();
                return Err(Fault::new(
                    start,
                    format!(
                        "`\\{digits}` is more than a byte, which ends at `\\377`; write `(?u:\\u{value:04x})` for the \
                         character"
                    ),
                ));
            }
            return Err(Fault::new(
                start,
                format!(
                    "a backreference `\\{letter}`; no table can remember a text: write out what it repeats"
                ),
            ));
        }
        self.at = start + 1;
        Ok(match self.escaped(start)? {
            Member::Set(ranges) => (self.set(&ranges, false), false),
            Member::Value(value) => (self.numbered(value), false),
        })
    }

    /// A value given by number: a byte up to 255, or a scalar.
    fn numbered(&self, value: u32) -> Node {
        match (u8::try_from(value), char::from_u32(value)) {
            (Ok(byte), _) if !self.flags.unicode => {
                let set = ByteSet::of(byte);
                Node::Bytes(if self.flags.ignore_case { set.folded() } else { set })
            }
            (_, Some(letter)) => self.value(letter),
            _ => Node::Empty,
        }
    }

    /// Three octal digits, of which the first is 0 to 3.
    fn octal(&mut self) -> Option<u32> {
        let digits = self.rest().get(..3)?;
        let value = u32::from_str_radix(digits, 8).ok().filter(|value| *value < 256)?;
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        self.at += 3;
        Some(value)
    }

    /// What follows a `\` and means the same in a class and outside.
    fn escaped(&mut self, start: usize) -> Result<Member, Fault> {
        if let Some(value) = self.octal() {
            return Ok(Member::Value(value));
        }
        let Some(letter) = self.next() else {
            return Err(Fault::new(start, "a `\\` at the end; write `\\\\` for the character"));
        };
        let value = match letter {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' => return Ok(Member::Set(self.perl_class(letter))),
            'n' => u32::from(b'\n'),
            't' => u32::from(b'\t'),
            'r' => u32::from(b'\r'),
            'f' => 0x0c,
            'v' => 0x0b,
            'a' => 0x07,
            '0' => {
                let length =
                    self.rest().bytes().take(2).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
                let value = u32::from_str_radix(&self.rest()[..length], 8).unwrap_or(0);
                self.at += length;
                value
            }
            'x' => self.hexadecimal(start, 2)?,
            'u' => self.scalar(start, 4)?,
            'U' => self.scalar(start, 8)?,
            'p' | 'P' => {
                return Err(Fault::new(
                    start,
                    format!(
                        "`\\{letter}` is not Python's; write a class such as `(?u:[a-zà-ÿ])` or `(?u:\\w)`"
                    ),
                ));
            }
            'k' | 'g' => {
                return Err(Fault::new(
                    start,
                    "a backreference; no table can remember a text: write out what it repeats",
                ));
            }
            letter if letter.is_ascii_alphanumeric() => {
                let message = match instead_of_escape(letter) {
                    Some(instead) => format!("`\\{letter}` is not Python's; write {instead}"),
                    None => format!("`\\{letter}` means nothing; write `{letter}` for the character"),
                };
                return Err(Fault::new(start, message));
            }
            letter => u32::from(letter),
        };
        Ok(Member::Value(value))
    }

    fn hexadecimal(&mut self, start: usize, digits: usize) -> Result<u32, Fault> {
        let value =
            self.rest().get(..digits).filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let value = value.and_then(|text| u32::from_str_radix(text, 16).ok());
        self.at += digits;
        value.ok_or_else(|| Fault::new(start, format!("this escape has {digits} hexadecimal digits")))
    }

    /// A scalar by its number. Above 127 it is more than a byte, so that a class of bytes cannot hold it.
    fn scalar(&mut self, start: usize, digits: usize) -> Result<u32, Fault> {
        let value = self.hexadecimal(start, digits)?;
        if char::from_u32(value).is_none() || (value > 127 && !self.flags.unicode) {
            return Err(Fault::new(start, "no such character, or one beyond ASCII, which needs `(?u)`"));
        }
        Ok(value)
    }

    /// `\d`, `\w`, `\s` and their complements, as ranges of bytes or of scalars.
    fn perl_class(&self, letter: char) -> Vec<(u32, u32)> {
        if self.flags.unicode {
            return unicode_class(letter);
        }
        let set = match letter.to_ascii_lowercase() {
            'd' => ByteSet::range(b'0', b'9'),
            'w' => ByteSet::word(),
            _ => ByteSet::range(b'\t', b'\r').union(ByteSet::of(b' ')),
        };
        let set = if letter.is_ascii_uppercase() { set.complement() } else { set };
        set.iter().map(|byte| (u32::from(byte), u32::from(byte))).collect()
    }

    /// What follows a `[`.
    fn class(&mut self, start: usize) -> Result<Node, Fault> {
        refuse_named_class(&self.text[start..], start, ["[", "]"])?;
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        let mut is_first = true;
        loop {
            let member_start = self.at;
            let Some(letter) = self.peek() else {
                return Err(Fault::new(start, "this class is not closed; write `\\[` for the character"));
            };
            if letter == ']' && !is_first {
                self.at += 1;
                break;
            }
            is_first = false;
            refuse_named_class(self.rest(), member_start, [""; 2])?;
            let low = match self.member()? {
                Member::Set(set) if self.rest().starts_with('-') && !self.rest().starts_with("-]") => {
                    drop(set);
                    return Err(Fault::new(
                        member_start,
                        "a range begins with a character, not with a class",
                    ));
                }
                Member::Set(set) => {
                    ranges.extend(set);
                    continue;
                }
                Member::Value(value) => value,
            };
            if !self.rest().starts_with('-') || self.rest().starts_with("-]") || self.rest().len() == 1 {
                ranges.push((low, low));
                continue;
            }
            self.at += 1;
            match self.member()? {
                Member::Value(high) if high >= low => ranges.push((low, high)),
                _ => return Err(Fault::new(member_start, "a range goes from a character to a later one")),
            }
        }
        let set = self.set(&ranges, negated);
        if matches!(&set, Node::Bytes(set) if *set == ByteSet::EMPTY)
            || matches!(&set, Node::Scalars(scalars) if scalars.is_empty())
        {
            return Err(Fault::new(
                start,
                "a class of no character at all, which is never found; write `[\\s\\S]` for any character",
            ));
        }
        Ok(set)
    }

    fn member(&mut self) -> Result<Member, Fault> {
        let start = self.at;
        match self.next() {
            Some('\\') if self.eat("b") => Ok(Member::Value(0x08)),
            Some('\\') => self.escaped(start).and_then(|member| self.fitting(start, member)),
            Some(letter) => self.fitting(start, Member::Value(u32::from(letter))),
            None => Ok(Member::Set(Vec::new())),
        }
    }

    /// Refuses what a class of bytes cannot hold: a letter of several bytes. (`\xe9` is one byte.)
    fn fitting(&self, start: usize, member: Member) -> Result<Member, Fault> {
        let is_letter = !self.text[start..self.at].is_ascii();
        match member {
            Member::Value(value) if value > 127 && is_letter && !self.flags.unicode => Err(Fault::new(
                start,
                "a letter beyond ASCII in a class of bytes; write `(?u:[…])`, or an alternation `(?:é|è)`",
            )),
            member => Ok(member),
        }
    }

    /// A set from ranges of bytes, or of scalars under `(?u)`.
    fn set(&self, ranges: &[(u32, u32)], negated: bool) -> Node {
        if self.flags.unicode {
            return self.scalars(ranges, negated);
        }
        let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        let mut set = ByteSet::EMPTY;
        for (low, high) in ranges {
            set = set.union(ByteSet::range(byte(*low), byte(*high)));
        }
        if self.flags.ignore_case {
            set = set.folded();
        }
        Node::Bytes(if negated { set.complement() } else { set })
    }

    fn scalars(&self, ranges: &[(u32, u32)], negated: bool) -> Node {
        // A range may span the surrogates, which are no scalars: its ends move to the next scalar inside.
        let low = |value: u32| char::from_u32(value).unwrap_or('\u{e000}');
        let high = |value: u32| char::from_u32(value).unwrap_or('\u{d7ff}');
        let range = |(first, last): &(u32, u32)| ClassUnicodeRange::new(low(*first), high(*last));
        let mut class = ClassUnicode::new(ranges.iter().map(range));
        if self.flags.ignore_case {
            // It fails only without the case tables, which are compiled in; without them nothing is folded.
            let _ = class.try_case_fold_simple();
        }
        if negated {
            class.negate();
        }
        if class.is_ascii() {
            let mut set = ByteSet::EMPTY;
            for range in class.ranges() {
                let byte = |letter: char| u8::try_from(letter).unwrap_or(0);
                set = set.union(ByteSet::range(byte(range.start()), byte(range.end())));
            }
            return Node::Bytes(set);
        }
        Node::Scalars(class.ranges().iter().map(|range| (range.start(), range.end())).collect())
    }
}

/// What other dialects write as `\` and a letter, in this one; nothing if no dialect does, or it would be no help.
fn instead_of_escape(letter: char) -> Option<&'static str> {
    Some(match letter {
        'h' => "`[ \\t]`",
        'H' => "`[^ \\t]`",
        'R' => "`\\r?\\n`",
        'N' => "`[^\\n]`, or the character itself",
        'V' => "`[^\\n-\\r]`",
        'X' => "`(?u:.)` for a character",
        'K' => "what stands before it as a lookbehind, `(?<=…)`",
        'Q' | 'E' => "a `\\` before each character that means something, such as `\\.`",
        'G' => "`^`: a body is searched once, from its start",
        'e' => "`\\x1b`",
        'c' => "the control character by its number, such as `\\x01`",
        'o' => "the byte by its number, such as `\\x7f`",
        'm' | 'M' | 'y' => "`\\b` for where a word begins or ends",
        _ => return None,
    })
}

/// The classes of POSIX, and what they are here.
const NAMED_CLASSES: [(&str, &str); 13] = [
    ("alnum", "a-zA-Z0-9"),
    ("alpha", "a-zA-Z"),
    ("blank", " \\t"),
    ("cntrl", "\\x00-\\x1f\\x7f"),
    ("digit", "\\d"),
    ("graph", "!-~"),
    ("lower", "a-z"),
    ("print", " -~"),
    ("punct", "!-/:-@\\[-`{-~"),
    ("space", "\\s"),
    ("upper", "A-Z"),
    ("word", "\\w"),
    ("xdigit", "0-9a-fA-F"),
];

/// Refuses `[:digit:]`, which Python takes for the letters of the name, as hardly anybody means it. `around` is what
/// makes a class of what stands in one.
fn refuse_named_class(rest: &str, start: usize, around: [&str; 2]) -> Result<(), Fault> {
    let Some(rest) = rest.strip_prefix("[:") else { return Ok(()) };
    let is_named = |name: &str| rest.strip_prefix(name).is_some_and(|after| after.starts_with(":]"));
    match NAMED_CLASSES.iter().find(|(name, _)| is_named(name)) {
        Some((name, ranges)) => {
            let [before, after] = around;
            let instead = format!("write `{before}{ranges}{after}`, or `\\[` for the character");
            Err(Fault::new(start, format!("`[:{name}:]` is not Python's; {instead}")))
        }
        None => Ok(()),
    }
}

/// What to say about a group that no table can do; `rest` is what follows `(?`.
fn refused_group(rest: &str) -> Option<&'static str> {
    let letter = rest.chars().next()?;
    Some(match letter {
        '>' => {
            "an atomic group; write `(?:…)` (matching never backtracks here), or exclude what must not follow"
        }
        '(' => "a conditional; write an alternation with a lookahead for each case, `(?:(?=A)B|(?!A)C)`",
        'P' if rest.starts_with("P=") => {
            "a backreference; no table can remember a text: write out what it repeats"
        }
        'R' | '&' | '+' | '0'..='9' => "recursion; no table can count nesting: write out the depth you need",
        'P' if rest.starts_with("P>") => {
            "recursion; no table can count nesting: write out the depth you need"
        }
        '-' if rest[1..].starts_with(|digit: char| digit.is_ascii_digit()) => {
            "recursion; no table can count nesting: write out the depth you need"
        }
        '|' => "a branch reset; nothing is captured here, so write `(?:…)`",
        'L' => "the flag `L` asks the machine's locale; write `(?u)` for Unicode, or nothing for ASCII",
        _ => return None,
    })
}

/// A class of Unicode's, as ranges of scalars.
fn unicode_class(letter: char) -> Vec<(u32, u32)> {
    let parsed = regex_syntax::Parser::new().parse(&format!("\\{letter}"));
    let Ok(hir) = parsed else { return Vec::new() };
    match hir.kind() {
        regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
            class.ranges().iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect()
        }
        _ => Vec::new(),
    }
}
