//! The tier for patterns whose table would be too large: states are made when a body first comes to them.
//!
//! Every body has a table of its own, because a shared one could be cleared by a neighbour, and a state is a
//! number in it. It is bounded in bytes: a full one is begun again. What a body may cost is bounded too, by
//! counting what making states takes: a pattern and a body that need a new state for nearly every byte are given
//! up instead of being slow, and the verdict says so.
//!
//! Making a state takes time in proportion to the places of the pattern that it stands for, and those are the bytes
//! that it is kept in, beside its row. These are the *steps* that are counted. A transition to a state that was there
//! already cannot be told how much it took, and counts like the largest so far.
//!
//! Invariant: the state after some bytes does not depend on how they were cut, so neither do the steps until then,
//! nor the moment of giving up.

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;

/// What the cache keeps of each state beside its row and its places in the pattern: two pointers to it, and its number.
const STATE_BYTES: usize = 2 * size_of::<&[u8]>() + size_of::<LazyStateID>();

/// The pattern's part, shared.
#[derive(Debug)]
pub(super) struct Lazy {
    dfa: DFA,
    steps_max: usize,
    /// Of the memory of each state, those that making it took nothing worth counting for.
    fixed_bytes: usize,
}

/// One body's part.
#[derive(Debug)]
pub(super) struct LazyRun {
    cache: Cache,
    state: Option<LazyStateID>,
    /// How much may yet be spent on making states.
    steps_left: usize,
    /// What the largest state so far took.
    largest_steps: usize,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LazyOutcome {
    Accepted,
    Rejected,
    /// Making states took too much.
    GaveUp,
}

impl Lazy {
    /// `steps_max`: what the lazy patterns of one body may spend together.
    pub(super) fn new(dfa: DFA, steps_max: usize) -> Self {
        let row_bytes = size_of::<LazyStateID>() << dfa.byte_classes().stride2();
        Self { dfa, steps_max, fixed_bytes: row_bytes + STATE_BYTES }
    }

    /// Bytes of the shared part.
    pub(super) fn bytes(&self) -> usize {
        self.dfa.memory_usage() + self.dfa.get_nfa().memory_usage()
    }

    /// For a body with `lazy_count` lazy patterns, each of which has its share of the steps: what one may spend must
    /// not depend on which of them came to a byte first.
    pub(super) fn start(&self, lazy_count: usize) -> LazyRun {
        let mut cache = self.dfa.create_cache();
        // Without look-behind nothing can fail but the room for one state, of which the builder saw to several.
        let state = self.dfa.start_state(&mut cache, &start::Config::new()).ok();
        LazyRun { cache, state, steps_left: self.steps_max / lazy_count.max(1), largest_steps: 0 }
    }

    /// Takes bytes until the verdict is certain; says how many, and which it is.
    pub(super) fn feed(&self, run: &mut LazyRun, bytes: &[u8]) -> (usize, Option<LazyOutcome>) {
        let Some(mut state) = run.state else { return (0, Some(LazyOutcome::GaveUp)) };
        for (index, byte) in bytes.iter().enumerate() {
            let mut next = self.dfa.next_state_untagged(&run.cache, state, *byte);
            if next.is_unknown() {
                let Some(made) = self.make(run, state, *byte) else {
                    return (index + 1, Some(LazyOutcome::GaveUp));
                };
                next = made;
            }
            state = next;
            if state.is_tagged() {
                if state.is_match() {
                    return (index + 1, Some(LazyOutcome::Accepted));
                }
                if state.is_dead() {
                    return (index + 1, Some(LazyOutcome::Rejected));
                }
            }
        }
        run.state = Some(state);
        (bytes.len(), None)
    }

    /// Where `byte` leads from `state`, for the first time; nothing if there are no steps left.
    fn make(&self, run: &mut LazyRun, state: LazyStateID, byte: u8) -> Option<LazyStateID> {
        if run.steps_left == 0 {
            return None;
        }
        let bytes_before = run.cache.memory_usage();
        let next = self.dfa.next_state(&mut run.cache, state, byte).ok()?;
        // Less than before if the table was full.
        let bytes = run.cache.memory_usage().saturating_sub(bytes_before);
        let steps = bytes.saturating_sub(self.fixed_bytes);
        run.largest_steps = run.largest_steps.max(steps);
        run.steps_left = run.steps_left.saturating_sub(if steps == 0 { run.largest_steps } else { steps });
        Some(next)
    }

    /// The body ends here.
    pub(super) fn finish(&self, run: &mut LazyRun) -> LazyOutcome {
        let Some(state) = run.state else { return LazyOutcome::GaveUp };
        match self.dfa.next_eoi_state(&mut run.cache, state) {
            Ok(state) if state.is_match() => LazyOutcome::Accepted,
            Ok(_) => LazyOutcome::Rejected,
            Err(_) => LazyOutcome::GaveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Budgets, LAZY_STEPS_MAX};
    use super::super::{determinize, parser};
    use super::*;

    fn lazy(pattern: &str) -> Lazy {
        let parsed = parser::parse(pattern, 4_096).unwrap();
        let nfa = determinize::translate(&parsed.node, false).unwrap().unwrap();
        Lazy::new(determinize::compile_lazy(nfa, &Budgets::default()).unwrap(), LAZY_STEPS_MAX)
    }

    /// Letters of `alphabet` in no order (xorshift64).
    fn body(alphabet: &[u8], body_bytes: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let letter = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]
        };
        (0..body_bytes).map(letter).collect()
    }

    /// It was 12 KB and 15 ms for the first of these, and four times as much for the last.
    #[test]
    fn an_unlucky_body_costs_no_more_than_its_steps() {
        for (pattern, alphabet) in [
            ("x.{1,200}q", &b"xyzw"[..]),
            ("x.{1,200}q", b"xy"),
            ("(?s)x.{1,1000}q", b"xxxxxxxy"),
            ("(?:a.{1,300}b.{1,300}c){1,3}Q", b"aebcxy "),
            ("(?:a|e)[^\n]{18}zq", b"abcdefgh \n"),
        ] {
            let lazy = lazy(pattern);
            let body = body(alphabet, 1 << 20);
            for lazy_count in [1, 4] {
                let mut run = lazy.start(lazy_count);
                let (mut made_bytes, mut looked_at) = (0, 0);
                let outcome = body.iter().find_map(|byte| {
                    let before = run.cache.memory_usage();
                    let (_, outcome) = lazy.feed(&mut run, &[*byte]);
                    // What the library itself says that it made, without the rows.
                    let made = run.cache.memory_usage().saturating_sub(before);
                    made_bytes += made.saturating_sub(lazy.fixed_bytes);
                    looked_at += 1;
                    outcome
                });
                assert_eq!(outcome, Some(LazyOutcome::GaveUp), "{pattern}");
                let most = LAZY_STEPS_MAX / lazy_count + run.largest_steps;
                assert!(made_bytes <= most, "{pattern}: {made_bytes} of {most} bytes after {looked_at}");
                assert!(made_bytes > most / 4, "{pattern}: given up early, {made_bytes} of {most}");
            }
        }
    }

    #[test]
    fn states_that_are_there_cost_nothing() {
        let lazy = lazy("x.{1,200}q");
        let mut run = lazy.start(1);
        let line = [&b"x and what follows it "[..], &[b'-'; 300], b"\n"].concat();
        lazy.feed(&mut run, &line.repeat(2));
        let steps_left = run.steps_left;
        assert!(steps_left < LAZY_STEPS_MAX);
        assert_eq!(lazy.feed(&mut run, &line.repeat(10_000)), (line.len() * 10_000, None));
        assert_eq!(run.steps_left, steps_left);
    }
}
