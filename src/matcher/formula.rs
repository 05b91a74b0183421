//! Boolean formulas in canonical form: reduced ordered decision diagrams, shared in one store.
//!
//! What is still to come of a pattern with lookarounds is a formula over states of its alternating automaton:
//! "this one, or both of those and not that one". Derivatives end only if equal formulas are recognised, and
//! with decision diagrams equality is equality of two numbers. Most formulas here are long and thin (an `or` of
//! positions is a chain), for which they are no larger than a set would be.
//!
//! In scope: the store, `and or not`, substitution by way of [`Formulas::choose`]. Out of scope: what variables
//! mean ([`super::derive`]).
//!
//! Invariants: two formulas are equivalent exactly if their numbers are equal. The store, the steps taken and
//! the depth of recursion are bounded; beyond them every operation is [`Over`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::budget::KEEP_STEPS;

/// A formula: a number in its store.
pub(super) type Formula = u32;

/// The formula that never holds.
pub(super) const FALSE: Formula = 0;
/// The formula that always holds.
pub(super) const TRUE: Formula = 1;

/// Deepest recursion: a frame is below 300 bytes, so that this fits the smallest stack in use several times.
pub(super) const DEPTH_MAX: u32 = 1_500;

/// A pattern needs more states, formulas or steps than its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

/// The store.
#[derive(Debug)]
pub(super) struct Formulas {
    decisions: Vec<Decision>,
    numbers: QuickMap<(u32, Formula, Formula), Formula>,
    choices: QuickMap<(Formula, Formula, Formula), Formula>,
    nodes_max: usize,
    steps_left: u64,
}

/// "If the variable then `high` else `low`."
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    pub(super) variable: u32,
    pub(super) high: Formula,
    pub(super) low: Formula,
}

impl Formulas {
    /// A store of at most so many decisions, and at most so many steps to be taken in it.
    pub(super) fn new(nodes_max: usize, steps_max: u64) -> Self {
        // The two constants decide nothing; their variable is below every other in the order.
        let constant = Decision { variable: u32::MAX, high: FALSE, low: FALSE };
        Self {
            decisions: vec![constant; 2],
            numbers: QuickMap::default(),
            choices: QuickMap::default(),
            nodes_max,
            steps_left: steps_max,
        }
    }

    /// What a formula that is no constant decides first.
    pub(super) fn decision(&self, formula: Formula) -> Decision {
        self.decisions[formula as usize]
    }

    /// The formula that a variable is.
    pub(super) fn variable(&mut self, variable: u32) -> Result<Formula, Over> {
        self.decide(variable, TRUE, FALSE)
    }

    pub(super) fn or(&mut self, a: Formula, b: Formula) -> Result<Formula, Over> {
        self.choose(a, TRUE, b)
    }

    pub(super) fn and(&mut self, a: Formula, b: Formula) -> Result<Formula, Over> {
        self.choose(a, b, FALSE)
    }

    pub(super) fn not(&mut self, a: Formula) -> Result<Formula, Over> {
        self.choose(a, FALSE, TRUE)
    }

    /// If `condition` then `high` else `low`.
    pub(super) fn choose(
        &mut self,
        condition: Formula,
        high: Formula,
        low: Formula,
    ) -> Result<Formula, Over> {
        self.choose_within(condition, high, low, DEPTH_MAX)
    }

    /// Counts steps, a caller's too.
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Over> {
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(Over)?;
        Ok(())
    }

    /// Bytes of the store.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.decisions.capacity() * size_of::<Decision>()
            + self.numbers.capacity() * size_of::<((u32, Formula, Formula), Formula)>()
            + self.choices.capacity() * size_of::<((Formula, Formula, Formula), Formula)>()
    }

    /// How many choices are remembered.
    #[cfg(test)]
    pub(super) fn choice_count(&self) -> usize {
        self.choices.len()
    }

    fn choose_within(
        &mut self,
        condition: Formula,
        high: Formula,
        low: Formula,
        depth: u32,
    ) -> Result<Formula, Over> {
        match (condition, high, low) {
            (TRUE, _, _) => return Ok(high),
            (FALSE, _, _) => return Ok(low),
            (_, TRUE, FALSE) => return Ok(condition),
            _ if high == low => return Ok(high),
            _ => {}
        }
        // `a or b` is `b or a`, and `a and b` is `b and a`: one entry for both.
        let key = match (high, low) {
            (TRUE, low) if low < condition => (low, TRUE, condition),
            (high, FALSE) if high < condition => (high, condition, FALSE),
            _ => (condition, high, low),
        };
        if let Some(known) = self.choices.get(&key) {
            return Ok(*known);
        }
        self.spend(1 + KEEP_STEPS)?;
        let depth = depth.checked_sub(1).ok_or(Over)?;
        let (condition, high, low) = key;
        let [c, h, l] = [condition, high, low].map(|formula| self.decision(formula));
        let variable = c.variable.min(h.variable).min(l.variable);
        let split = |formula: Formula, decision: Decision| {
            if decision.variable == variable { (decision.high, decision.low) } else { (formula, formula) }
        };
        let ((c1, c0), (h1, h0), (l1, l0)) = (split(condition, c), split(high, h), split(low, l));
        let if_true = self.choose_within(c1, h1, l1, depth)?;
        let if_false = self.choose_within(c0, h0, l0, depth)?;
        let result = self.decide(variable, if_true, if_false)?;
        self.choices.insert(key, result);
        Ok(result)
    }

    fn decide(&mut self, variable: u32, high: Formula, low: Formula) -> Result<Formula, Over> {
        if high == low {
            return Ok(high);
        }
        if let Some(known) = self.numbers.get(&(variable, high, low)) {
            return Ok(*known);
        }
        if self.decisions.len() >= self.nodes_max {
            return Err(Over);
        }
        let number = u32::try_from(self.decisions.len()).map_err(|_error| Over)?;
        self.decisions.push(Decision { variable, high, low });
        self.numbers.insert((variable, high, low), number);
        Ok(number)
    }
}

/// A map whose keys are small numbers of our own making, so that a quick hash will do.
pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// A multiplicative hash (Fibonacci hashing, Knuth 6.4).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quick(u64);

impl Quick {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        // The table takes its bits from both ends.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.add(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_formulas_are_one() {
        let mut store = Formulas::new(1_000, 10_000);
        let [a, b, c] = [7, 3, 9].map(|variable| store.variable(variable).unwrap());
        // a and (b or c) = (a and b) or (a and c).
        let b_or_c = store.or(b, c).unwrap();
        let left = store.and(a, b_or_c).unwrap();
        let (ab, ac) = (store.and(a, b).unwrap(), store.and(a, c).unwrap());
        assert_eq!(left, store.or(ab, ac).unwrap());
        // not (a or b) = not a and not b, and a or not a holds.
        let a_or_b = store.or(a, b).unwrap();
        let (not_a, not_b) = (store.not(a).unwrap(), store.not(b).unwrap());
        assert_eq!(store.not(a_or_b).unwrap(), store.and(not_a, not_b).unwrap());
        assert_eq!(store.or(a, not_a), Ok(TRUE));
        assert_eq!(store.and(a, not_a), Ok(FALSE));
        assert_ne!(ab, ac);
    }

    #[test]
    fn budgets_hold() {
        let mut store = Formulas::new(4, 10_000);
        let (a, b) = (store.variable(1).unwrap(), store.variable(2).unwrap());
        assert_eq!(store.and(a, b), Err(Over), "four entries are two constants and two variables");
        let mut store = Formulas::new(100_000, u64::MAX);
        let mut chain = TRUE;
        for variable in (0..2 * DEPTH_MAX).rev() {
            chain = store.decide(variable, chain, FALSE).unwrap();
        }
        assert_eq!(store.not(chain), Err(Over), "deeper than the stack may be");
    }
}
