//! A pattern as an alternating automaton: an NFA whose states may also say "and", "not" and "if what came before".
//!
//! Built back to front: every part is lowered in front of what follows it. A lookahead is a second thread that
//! must (or must not) arrive; a lookbehind asks a *monitor*, an automaton for "anything, then its body" that
//! runs along from the start of the text, so that its width does not matter.
//!
//! Each part has two continuations, one for when something of the innermost loop's turn was consumed, and one
//! for when nothing was. A turn that consumed nothing ends in [`FAIL`], since repeating it would add nothing.
//! So no state reaches itself without consuming a byte, and whoever follows conditions comes to an end.
//!
//! In scope: the construction, classes of bytes. Out of scope: running it ([`super::derive`]).

use std::collections::HashMap;

use regex_syntax::utf8::{Utf8Sequence, Utf8Sequences};

use super::formula::Over;
use super::syntax::{Assertion, ByteSet, Node};

/// A state: a number in its automaton.
pub(super) type StateId = u32;

/// Nothing matches.
pub(super) const FAIL: StateId = 0;
/// Everything that may follow matches.
pub(super) const ACCEPT: StateId = 1;
/// The body of a lookbehind ends at this position.
pub(super) const HERE: StateId = 2;

/// What a state does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// See [`FAIL`].
    Fail,
    /// See [`ACCEPT`].
    Accept,
    /// See [`HERE`].
    Here,
    /// Consumes a byte.
    Byte { set: ByteSet, next: StateId },
    /// Goes on in any of these.
    Either(Vec<StateId>),
    /// Goes on if the position is such.
    Assert { assertion: Assertion, next: StateId },
    /// Goes on, and `look` must match from here too (or must not).
    Ahead { negative: bool, look: StateId, next: StateId },
    /// Goes on if this monitor is [`HERE`] (or is not).
    Behind { monitor: usize, negative: bool, next: StateId },
}

/// The automaton.
#[derive(Debug)]
pub(super) struct Alternating {
    pub(super) states: Vec<State>,
    /// Of every state, whether it is on the way to [`HERE`].
    pub(super) reaches_here: Vec<bool>,
    /// Where each monitor begins; a monitor asks only those before it.
    pub(super) monitors: Vec<StateId>,
    /// Where the pattern itself begins.
    pub(super) start: StateId,
    /// The class of every byte.
    pub(super) classes: Vec<u8>,
    /// A byte of every class.
    pub(super) representatives: Vec<u8>,
    /// Which assertions occur.
    pub(super) asserts_words: bool,
    pub(super) asserts_lines: bool,
    pub(super) asserts_start: bool,
}

impl Alternating {
    /// The automaton of "the text contains the pattern", or of "the text begins with it".
    pub(super) fn new(pattern: &Node, anchored: bool, states_max: usize) -> Result<Self, Over> {
        let mut lowering = Lowering {
            states: vec![State::Fail, State::Accept, State::Here],
            reaches_here: vec![false, false, true],
            numbers: HashMap::new(),
            lowered: HashMap::new(),
            loops: HashMap::new(),
            monitors: Vec::new(),
            monitor_of: HashMap::new(),
            monitor_at: HashMap::new(),
            states_max,
            calls_left: states_max * 8,
        };
        let start = lowering.lower(pattern, ACCEPT, ACCEPT)?;
        let start = if anchored { start } else { lowering.anywhere(start)? };
        let states = lowering.states;
        let asserts = |wanted: &[Assertion]| {
            states
                .iter()
                .any(|state| matches!(state, State::Assert { assertion, .. } if wanted.contains(assertion)))
        };
        let asserts_words = asserts(&[Assertion::WordBoundary, Assertion::WordInside]);
        let asserts_lines = asserts(&[Assertion::LineStart, Assertion::LineEnd]);
        let asserts_start = asserts(&[Assertion::LineStart, Assertion::TextStart]);
        let (classes, representatives) = byte_classes(&states, asserts_words, asserts_lines);
        Ok(Self {
            reaches_here: lowering.reaches_here,
            monitors: lowering.monitors,
            start,
            classes,
            representatives,
            asserts_words,
            asserts_lines,
            asserts_start,
            states,
        })
    }
}

struct Lowering<'pattern> {
    states: Vec<State>,
    reaches_here: Vec<bool>,
    numbers: HashMap<State, StateId>,
    /// By the node's address and its two continuations.
    lowered: HashMap<(*const Node, StateId, StateId), StateId>,
    /// The body of a loop, by the node's address and what follows the loop.
    loops: HashMap<(*const Node, StateId), (StateId, StateId)>,
    monitors: Vec<StateId>,
    monitor_of: HashMap<&'pattern Node, usize>,
    /// The same by the node's address: hashing a body takes as long as it is, and in a loop it is asked for often.
    monitor_at: HashMap<*const Node, usize>,
    states_max: usize,
    calls_left: usize,
}

impl<'pattern> Lowering<'pattern> {
    /// The state from which `node` is matched and then what follows: `consumed` if a byte of the innermost
    /// loop's turn was consumed, here or before, else `unconsumed`.
    fn lower(
        &mut self,
        node: &'pattern Node,
        consumed: StateId,
        unconsumed: StateId,
    ) -> Result<StateId, Over> {
        // What always consumes does not ask what follows if nothing was.
        let always_consumes = matches!(node, Node::Bytes(_) | Node::Scalars(_));
        let key = (std::ptr::from_ref(node), consumed, if always_consumes { consumed } else { unconsumed });
        if let Some(known) = self.lowered.get(&key) {
            return Ok(*known);
        }
        // States are shared, so that bounding them does not bound the work.
        self.calls_left = self.calls_left.checked_sub(1).ok_or(Over)?;
        let state = match node {
            Node::Empty => unconsumed,
            Node::Bytes(set) => self.byte(*set, consumed)?,
            Node::Scalars(ranges) => self.scalars(ranges, consumed)?,
            Node::Assert(Assertion::FinalEnd) => {
                let end = self.assert(Assertion::TextEnd, ACCEPT)?;
                let newline = self.byte(ByteSet::of(b'\n'), end)?;
                let look = self.either(vec![end, newline])?;
                self.add_unless_failing(unconsumed, State::Ahead { negative: false, look, next: unconsumed })?
            }
            Node::Assert(assertion) => self.assert(*assertion, unconsumed)?,
            Node::Around { behind: false, negative, body } => {
                let look = self.lower(body, ACCEPT, ACCEPT)?;
                self.add_unless_failing(
                    unconsumed,
                    State::Ahead { negative: *negative, look, next: unconsumed },
                )?
            }
            Node::Around { behind: true, negative, body } => {
                let monitor = self.monitor(body)?;
                let state = State::Behind { monitor, negative: *negative, next: unconsumed };
                self.add_unless_failing(unconsumed, state)?
            }
            Node::Concat(items) => {
                let (mut consumed, mut unconsumed) = (consumed, unconsumed);
                for item in items.iter().rev() {
                    (consumed, unconsumed) = self.before(item, consumed, unconsumed)?;
                }
                unconsumed
            }
            Node::Alternate(branches) => {
                let branches = branches.iter().map(|branch| self.lower(branch, consumed, unconsumed));
                let branches = branches.collect::<Result<Vec<_>, Over>>()?;
                self.either(branches)?
            }
            Node::Repeat { min, max, body } => self.repeat((*min, *max), body, consumed, unconsumed)?,
        };
        self.lowered.insert(key, state);
        Ok(state)
    }

    /// Both continuations of what stands before `item`.
    fn before(
        &mut self,
        item: &'pattern Node,
        consumed: StateId,
        unconsumed: StateId,
    ) -> Result<(StateId, StateId), Over> {
        let after = self.lower(item, consumed, consumed)?;
        let first = if consumed == unconsumed { after } else { self.lower(item, consumed, unconsumed)? };
        Ok((after, first))
    }

    fn repeat(
        &mut self,
        (min, max): (u32, Option<u32>),
        body: &'pattern Node,
        consumed: StateId,
        unconsumed: StateId,
    ) -> Result<StateId, Over> {
        let (mut after, mut first) = match max {
            None => self.any_number(body, consumed, unconsumed)?,
            Some(max) => {
                // Each turn that is not needed consumes something, or would not have been taken.
                let mut turns = FAIL;
                for _ in min..max {
                    let next = self.either(vec![consumed, turns])?;
                    turns = self.lower(body, next, FAIL)?;
                }
                (self.either(vec![consumed, turns])?, self.either(vec![unconsumed, turns])?)
            }
        };
        for _ in 0..min {
            (after, first) = self.before(body, after, first)?;
        }
        Ok(first)
    }

    /// A loop: what to enter it by when something was consumed before, and when nothing was.
    fn any_number(
        &mut self,
        body: &'pattern Node,
        consumed: StateId,
        unconsumed: StateId,
    ) -> Result<(StateId, StateId), Over> {
        if consumed == ACCEPT {
            // One turn is as good as many.
            let turn = self.lower(body, ACCEPT, FAIL)?;
            return Ok((ACCEPT, self.either(vec![unconsumed, turn])?));
        }
        let key = (std::ptr::from_ref(body), consumed);
        let (again, turn) = if let Some(known) = self.loops.get(&key) {
            *known
        } else {
            let again = self.reserve(consumed)?;
            let turn = self.lower(body, again, FAIL)?;
            self.states[again as usize] = State::Either(vec![consumed, turn]);
            self.loops.insert(key, (again, turn));
            (again, turn)
        };
        Ok((again, self.either(vec![unconsumed, turn])?))
    }

    /// Any bytes, and then `state`.
    fn anywhere(&mut self, state: StateId) -> Result<StateId, Over> {
        if matches!(state, FAIL | ACCEPT) {
            return Ok(state);
        }
        let again = self.reserve(state)?;
        let skip = self.byte(ByteSet::FULL, again)?;
        self.states[again as usize] = State::Either(vec![state, skip]);
        Ok(again)
    }

    fn monitor(&mut self, body: &'pattern Node) -> Result<usize, Over> {
        if let Some(known) = self.monitor_at.get(&std::ptr::from_ref(body)) {
            return Ok(*known);
        }
        let monitor = match self.monitor_of.get(body) {
            Some(known) => *known,
            None => {
                // Monitors that the body asks come into the list before it.
                let start = self.lower(body, HERE, HERE)?;
                let start = self.anywhere(start)?;
                self.monitors.push(start);
                self.monitor_of.insert(body, self.monitors.len() - 1);
                self.monitors.len() - 1
            }
        };
        self.monitor_at.insert(body, monitor);
        Ok(monitor)
    }

    fn scalars(&mut self, ranges: &[(char, char)], next: StateId) -> Result<StateId, Over> {
        let sequences: Vec<Utf8Sequence> =
            ranges.iter().flat_map(|(first, last)| Utf8Sequences::new(*first, *last)).collect();
        self.sequences(&sequences, 0, next)
    }

    /// One of these sequences, from their byte `depth` on, at which they do not differ before.
    ///
    /// The ranges of two sequences that differ at a byte have no byte in common there, since a range of several bytes
    /// is followed by all that may follow them. So no byte has two branches, and bytes with equal ones are one set:
    /// `\w` is 310 states, of which a text is in one at a time, where each sequence by itself would make 1,400.
    fn sequences(
        &mut self,
        sequences: &[Utf8Sequence],
        depth: usize,
        next: StateId,
    ) -> Result<StateId, Over> {
        let mut branches: Vec<(StateId, ByteSet)> = Vec::new();
        for group in sequences.chunk_by(|a, b| a.as_slice()[depth] == b.as_slice()[depth]) {
            let range = group[0].as_slice()[depth];
            let set = ByteSet::range(range.start, range.end);
            let is_last = group[0].len() == depth + 1;
            let after = if is_last { next } else { self.sequences(group, depth + 1, next)? };
            match branches.iter_mut().find(|(known, _)| *known == after) {
                Some((_, known)) => *known = known.union(set),
                None => branches.push((after, set)),
            }
        }
        let branches = branches.into_iter().map(|(after, set)| self.byte(set, after));
        let branches = branches.collect::<Result<_, Over>>()?;
        self.either(branches)
    }

    fn byte(&mut self, set: ByteSet, next: StateId) -> Result<StateId, Over> {
        if set == ByteSet::EMPTY {
            return Ok(FAIL);
        }
        self.add_unless_failing(next, State::Byte { set, next })
    }

    fn assert(&mut self, assertion: Assertion, next: StateId) -> Result<StateId, Over> {
        self.add_unless_failing(next, State::Assert { assertion, next })
    }

    fn either(&mut self, mut branches: Vec<StateId>) -> Result<StateId, Over> {
        branches.sort_unstable();
        branches.dedup();
        branches.retain(|branch| *branch != FAIL);
        match branches.as_slice() {
            [] => Ok(FAIL),
            [branch] => Ok(*branch),
            [ACCEPT, ..] => Ok(ACCEPT),
            _ => self.add(State::Either(branches)),
        }
    }

    fn add_unless_failing(&mut self, next: StateId, state: State) -> Result<StateId, Over> {
        if next == FAIL { Ok(FAIL) } else { self.add(state) }
    }

    fn add(&mut self, state: State) -> Result<StateId, Over> {
        if let Some(known) = self.numbers.get(&state) {
            return Ok(*known);
        }
        let reaches_here = match &state {
            State::Byte { next, .. }
            | State::Assert { next, .. }
            | State::Ahead { next, .. }
            | State::Behind { next, .. } => self.reaches_here[*next as usize],
            State::Either(branches) => branches.iter().any(|branch| self.reaches_here[*branch as usize]),
            State::Fail | State::Accept | State::Here => false,
        };
        let number = self.push(state.clone(), reaches_here)?;
        self.numbers.insert(state, number);
        Ok(number)
    }

    /// A state that is yet to be filled in, on the way to where `like` is.
    fn reserve(&mut self, like: StateId) -> Result<StateId, Over> {
        self.push(State::Fail, self.reaches_here[like as usize])
    }

    fn push(&mut self, state: State, reaches_here: bool) -> Result<StateId, Over> {
        if self.states.len() >= self.states_max {
            return Err(Over);
        }
        self.states.push(state);
        self.reaches_here.push(reaches_here);
        StateId::try_from(self.states.len() - 1).map_err(|_error| Over)
    }
}

/// Bytes that no state and no assertion tells apart are one class.
fn byte_classes(states: &[State], words: bool, lines: bool) -> (Vec<u8>, Vec<u8>) {
    let mut sets: Vec<ByteSet> = states
        .iter()
        .filter_map(|state| if let State::Byte { set, .. } = state { Some(*set) } else { None })
        .collect();
    if words {
        sets.push(ByteSet::word());
    }
    if lines {
        sets.push(ByteSet::of(b'\n'));
    }
    sets.sort_unstable();
    sets.dedup();
    let mut classes = vec![0_u8; 256];
    for set in sets {
        let mut numbers = HashMap::new();
        for byte in 0..=u8::MAX {
            let count = u8::try_from(numbers.len()).unwrap_or(u8::MAX);
            let class = &mut classes[usize::from(byte)];
            *class = *numbers.entry((*class, set.contains(byte))).or_insert(count);
        }
    }
    let mut representatives = Vec::new();
    for byte in 0..=u8::MAX {
        if usize::from(classes[usize::from(byte)]) == representatives.len() {
            representatives.push(byte);
        }
    }
    (classes, representatives)
}
