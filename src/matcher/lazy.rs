//! The tier for patterns whose table would be too large: states are made when a body first comes to them.
//!
//! Every body has a table of its own, because a shared one could be cleared by a neighbour, and a state is a
//! number in it. It is bounded in bytes, and in how often it is cleared: a pattern and a body that need a new
//! state for nearly every byte are given up instead of being slow, and the verdict says so.
//!
//! Invariant: the state after some bytes does not depend on how they were cut, so neither does the moment of
//! giving up.

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;

/// The pattern's part, shared.
#[derive(Debug)]
pub(super) struct Lazy {
    dfa: DFA,
}

/// One body's part.
#[derive(Debug)]
pub(super) struct LazyRun {
    cache: Cache,
    state: Option<LazyStateID>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LazyOutcome {
    Accepted,
    Rejected,
    /// The table was cleared too often.
    GaveUp,
}

impl Lazy {
    pub(super) const fn new(dfa: DFA) -> Self {
        Self { dfa }
    }

    /// Bytes of the shared part.
    pub(super) fn bytes(&self) -> usize {
        self.dfa.memory_usage() + self.dfa.get_nfa().memory_usage()
    }

    pub(super) fn start(&self) -> LazyRun {
        let mut cache = self.dfa.create_cache();
        // Without look-behind nothing can fail but the room for one state, of which the builder saw to several.
        let state = self.dfa.start_state(&mut cache, &start::Config::new()).ok();
        LazyRun { cache, state }
    }

    /// Takes bytes until the verdict is certain; says how many, and which it is.
    pub(super) fn feed(&self, run: &mut LazyRun, bytes: &[u8]) -> (usize, Option<LazyOutcome>) {
        let Some(mut state) = run.state else { return (0, Some(LazyOutcome::GaveUp)) };
        for (index, byte) in bytes.iter().enumerate() {
            let Ok(next) = self.dfa.next_state(&mut run.cache, state, *byte) else {
                return (index + 1, Some(LazyOutcome::GaveUp));
            };
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
