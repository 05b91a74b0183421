//! The compiler of patterns with lookarounds, and of those too large for the other: derivatives of an alternating
//! automaton.
//!
//! What is still to come after some bytes is a formula over states of the alternating automaton, one more
//! formula per lookbehind (its monitor), and what the last byte was (for `\b` and `^`). The derivative by a
//! byte replaces every state in the formula by what the byte makes of it. Triples that were met before are
//! known by their numbers, so exploring from the start until nothing new comes yields the automaton.
//!
//! A lookbehind at a position holds if its monitor, with [`HERE`] taken as true and whatever would have to
//! consume more on the way to it taken as false, holds from there on. That is a formula about the future again,
//! because the body of a lookbehind may hold lookaheads that have not seen their end yet.
//!
//! In scope: the exploration, assertions. Out of scope: the construction ([`super::alternating`]), minimising.
//!
//! Invariant: bounded by the budgets given; the worst case is doubly exponential in the pattern, which is why.

use super::alternating::{ACCEPT, Alternating, FAIL, HERE, State, StateId};
use super::budget::{Budgets, CELL_STEPS, KEEP_STEPS};
use super::dfa::Dfa;
use super::formula::{DEPTH_MAX, FALSE, Formula, Formulas, Over, QuickMap, TRUE};
use super::syntax::{Assertion, ByteSet, Node};

/// Compiles "the text contains `pattern`", or "the text begins with it". Not minimised.
pub(super) fn compile(pattern: &Node, anchored: bool, budgets: &Budgets) -> Result<Dfa, Over> {
    let automaton = Alternating::new(pattern, anchored, budgets.alternating_states_max)?;
    Explorer::new(&automaton, budgets).explore(budgets.raw_states_max)
}

/// What the byte before a position was, as far as an assertion of the pattern tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Before {
    Nothing,
    Newline,
    Word,
    Other,
}

struct Explorer<'a> {
    automaton: &'a Alternating,
    formulas: Formulas,
    /// Of every state, the formula of states that consume or ask.
    entries: Vec<Option<Formula>>,
    /// Derivatives known for good, of patterns without lookbehinds: by formula, and position (see `position`).
    lasting: QuickMap<(Formula, u32), Formula>,
    /// Derivatives at this position only, and whether with `HERE` taken as true.
    passing: QuickMap<(Formula, bool), Formula>,
    words: ByteSet,
    before: Before,
    /// The next byte, or nothing at the end of the text.
    byte: Option<u8>,
    /// `before` and the class of `byte` in one number.
    position: u32,
    /// What each lookbehind comes to at this position.
    behind: Vec<Formula>,
}

impl<'a> Explorer<'a> {
    fn new(automaton: &'a Alternating, budgets: &Budgets) -> Self {
        Self {
            automaton,
            formulas: Formulas::new(budgets.formula_nodes_max, budgets.compile_steps_max),
            entries: vec![None; automaton.states.len()],
            lasting: QuickMap::default(),
            passing: QuickMap::default(),
            words: ByteSet::word(),
            before: Before::Nothing,
            byte: None,
            position: 0,
            behind: Vec::new(),
        }
    }

    /// States 0 and 1 are the two that absorb.
    fn explore(&mut self, states_max: usize) -> Result<Dfa, Over> {
        const REJECTING: u32 = 0;
        const ACCEPTING: u32 = 1;
        let class_count = self.automaton.representatives.len();
        let mut next = vec![REJECTING; class_count];
        next.resize(2 * class_count, ACCEPTING);
        let mut accepts = vec![false, true];
        let mut numbers = QuickMap::<Box<[u32]>, u32>::default();
        let mut queue: Vec<Box<[u32]>> = Vec::new();
        let mut number = |key: Box<[u32]>, queue: &mut Vec<Box<[u32]>>| -> Result<u32, Over> {
            match key[1] {
                FALSE => return Ok(REJECTING),
                TRUE => return Ok(ACCEPTING),
                _ => {}
            }
            if let Some(known) = numbers.get(&key) {
                return Ok(*known);
            }
            if queue.len() >= states_max {
                return Err(Over);
            }
            let new = u32::try_from(queue.len() + 2).map_err(|_error| Over)?;
            queue.push(key.clone());
            numbers.insert(key, new);
            Ok(new)
        };
        let start = number(self.start()?, &mut queue)?;
        let mut at = 0;
        while let Some(key) = queue.get(at).cloned() {
            at += 1;
            for class in 0..class_count {
                self.formulas.spend(CELL_STEPS)?;
                let after = self.derive(&key, Some(class))?;
                next.push(number(after, &mut queue)?);
            }
            accepts.push(self.derive(&key, None)?[1] == TRUE);
        }
        Ok(Dfa { classes: self.automaton.classes.clone(), class_count, next, accepts, start })
    }

    /// The key of the state before the first byte: what came before, the pattern, the monitors.
    fn start(&mut self) -> Result<Box<[u32]>, Over> {
        let mut key =
            vec![self.reduced(Before::Nothing) as u32, self.entry(self.automaton.start, DEPTH_MAX)?];
        for monitor in &self.automaton.monitors {
            key.push(self.entry(*monitor, DEPTH_MAX)?);
        }
        Ok(key.into())
    }

    /// The key after a byte of a class, or at the end of the text.
    fn derive(&mut self, key: &[u32], class: Option<usize>) -> Result<Box<[u32]>, Over> {
        self.before = match key[0] {
            0 => Before::Nothing,
            1 => Before::Newline,
            2 => Before::Word,
            _ => Before::Other,
        };
        self.byte = class.map(|class| self.automaton.representatives[class]);
        // At most 256 classes and the end, times four.
        self.position =
            u32::try_from(class.map_or(0, |class| class + 1) * 4).map_err(|_error| Over)? + key[0];
        self.passing.clear();
        self.behind.clear();
        for monitor in &key[2..] {
            let holds = self.formula(*monitor, true, DEPTH_MAX)?;
            self.behind.push(holds);
        }
        let after = self.byte.map_or(Before::Other, |byte| self.after(byte));
        let mut derived = vec![after as u32];
        for formula in &key[1..] {
            derived.push(self.formula(*formula, false, DEPTH_MAX)?);
        }
        Ok(derived.into())
    }

    fn after(&self, byte: u8) -> Before {
        self.reduced(match byte {
            b'\n' => Before::Newline,
            byte if self.words.contains(byte) => Before::Word,
            _ => Before::Other,
        })
    }

    /// Without distinctions that no assertion makes: each would double the states.
    fn reduced(&self, before: Before) -> Before {
        let told = match before {
            Before::Nothing => self.automaton.asserts_start,
            Before::Newline => self.automaton.asserts_lines,
            Before::Word => self.automaton.asserts_words,
            Before::Other => true,
        };
        if told { before } else { Before::Other }
    }

    /// The formula of a state: of the states that consume or ask, which its conditions lead to.
    fn entry(&mut self, state: StateId, depth: u32) -> Result<Formula, Over> {
        if let Some(known) = self.entries[state as usize] {
            return Ok(known);
        }
        self.formulas.spend(1)?;
        let depth = depth.checked_sub(1).ok_or(Over)?;
        let automaton = self.automaton;
        let formula = match &automaton.states[state as usize] {
            State::Fail => FALSE,
            State::Accept => TRUE,
            State::Here | State::Byte { .. } | State::Assert { .. } | State::Behind { .. } => {
                self.formulas.variable(state)?
            }
            State::Either(branches) => {
                let mut any = FALSE;
                for branch in branches {
                    let branch = self.entry(*branch, depth)?;
                    any = self.formulas.or(any, branch)?;
                }
                any
            }
            State::Ahead { negative, look, next } => {
                let look = self.entry(*look, depth)?;
                let look = if *negative { self.formulas.not(look)? } else { look };
                let next = self.entry(*next, depth)?;
                self.formulas.and(look, next)?
            }
        };
        self.entries[state as usize] = Some(formula);
        Ok(formula)
    }

    /// The derivative of a formula at this position. With `here`, of "the lookbehind's body ends here".
    fn formula(&mut self, formula: Formula, here: bool, depth: u32) -> Result<Formula, Over> {
        if matches!(formula, FALSE | TRUE) {
            return Ok(formula);
        }
        let lasts = self.automaton.monitors.is_empty();
        let known = if lasts {
            self.lasting.get(&(formula, self.position))
        } else {
            self.passing.get(&(formula, here))
        };
        if let Some(known) = known {
            return Ok(*known);
        }
        self.formulas.spend(if lasts { 1 + KEEP_STEPS } else { 1 })?;
        let depth = depth.checked_sub(1).ok_or(Over)?;
        let decision = self.formulas.decision(formula);
        let condition = self.state(decision.variable, here, depth)?;
        let high = self.formula(decision.high, here, depth)?;
        let low = self.formula(decision.low, here, depth)?;
        let derived = self.formulas.choose(condition, high, low)?;
        if lasts {
            self.lasting.insert((formula, self.position), derived);
        } else {
            self.passing.insert((formula, here), derived);
        }
        Ok(derived)
    }

    /// The derivative of a state that consumes or asks.
    fn state(&mut self, state: StateId, here: bool, depth: u32) -> Result<Formula, Over> {
        let automaton = self.automaton;
        // A lookahead of the body's, already under way, goes on as everywhere else.
        let here = here && automaton.reaches_here[state as usize];
        match &automaton.states[state as usize] {
            State::Byte { set, next } => {
                if !here && self.byte.is_some_and(|byte| set.contains(byte)) {
                    self.entry(*next, depth)
                } else {
                    Ok(FALSE)
                }
            }
            State::Assert { assertion, next } => {
                if self.holds(*assertion) {
                    let next = self.entry(*next, depth)?;
                    self.formula(next, here, depth)
                } else {
                    Ok(FALSE)
                }
            }
            State::Behind { monitor, negative, next } => {
                let behind = self.behind[*monitor];
                let behind = if *negative { self.formulas.not(behind)? } else { behind };
                let next = self.entry(*next, depth)?;
                let next = self.formula(next, here, depth)?;
                self.formulas.and(behind, next)
            }
            State::Here => Ok(if here { TRUE } else { FALSE }),
            State::Fail | State::Accept | State::Either(_) | State::Ahead { .. } => {
                debug_assert!(false, "an entry holds only states that consume or ask: {state}");
                Ok(FALSE)
            }
        }
    }

    fn holds(&self, assertion: Assertion) -> bool {
        let word_before = self.before == Before::Word;
        let word_after = self.byte.is_some_and(|byte| self.words.contains(byte));
        match assertion {
            Assertion::TextStart => self.before == Before::Nothing,
            Assertion::TextEnd => self.byte.is_none(),
            Assertion::LineStart => matches!(self.before, Before::Nothing | Before::Newline),
            Assertion::LineEnd => self.byte.is_none_or(|byte| byte == b'\n'),
            Assertion::WordBoundary => word_before != word_after,
            Assertion::WordInside => word_before == word_after,
            Assertion::FinalEnd => {
                debug_assert!(false, "lowered into a lookahead");
                false
            }
        }
    }
}

const _: () = assert!(FAIL == FALSE && ACCEPT == TRUE && HERE > ACCEPT, "the constants have no decision");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::parse;

    /// Steps alone were no bound on memory: these kept up to 180 MB, and took up to 1.4 s.
    #[test]
    fn what_a_blow_up_remembers_is_bounded() {
        const BYTES_MAX: usize = 40 << 20;
        let budgets = Budgets::default();
        for pattern in [
            r"(?u)(?:(?!\w{3}).){1,60}x",
            r"(?u)(?=.*\w{8}\d)(?=.*\W{8}\d)x",
            r"(?u)[^a]{1,60}\d{20}(?!a{20}é{10})",
            r"(?u)(?![^<]k)[^<]{20}[à-ü]{1,200}\w{3}",
            r"(?!(?:a|b).{30}c)(?:a|b).{30}d",
            r"(?u)(?<=\w{10})x",
        ] {
            let node = parse(pattern, 100).unwrap().node;
            let automaton = Alternating::new(&node, false, budgets.alternating_states_max).unwrap();
            let mut explorer = Explorer::new(&automaton, &budgets);
            assert_eq!(explorer.explore(budgets.raw_states_max).err(), Some(Over), "{pattern}");
            let lasting = explorer.lasting.capacity() * size_of::<((Formula, u32), Formula)>();
            let bytes = lasting + explorer.formulas.bytes();
            assert!(bytes <= BYTES_MAX, "{pattern}: {bytes} bytes");
            let kept = explorer.lasting.len() + explorer.formulas.choice_count();
            assert!(kept as u64 * KEEP_STEPS <= budgets.compile_steps_max, "{pattern}: {kept} entries");
        }
    }
}
