//! Patterns to matchers: which compiler, which tier, what is shared.
//!
//! ```text
//!   text ─ parser ─► tree ─ split ─► parts ─┬─ no lookaround ─► determinize ─┬─► minimise ─► table
//!                                           │          over, or table > soft └─► lazy
//!                                           │                                      └ NFA too large for it ─┐
//!                                           └─ lookarounds ──────────────────────────────► derive ◄────────┘
//!                                                                         minimise ─► table ◄┴► over: error
//! ```
//!
//! Equal patterns share everything; patterns with equal languages share their table, since a minimal automaton
//! is unique. In scope: the choice, the sharing, the budgets. Out of scope: threads. Compiling takes up to 0.25 s
//! for a pattern that nobody should write, so it belongs where no probe waits.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::budget::{Budgets, CONJUNCTS_MAX, ENDPOINT_BYTES_MAX, LAZY_CONJUNCTS_MAX, PATTERNS_MAX};
use super::dfa::Dfa;
use super::error::{Fault, PatternError};
use super::lazy::Lazy;
use super::parser::{self, Parsed};
use super::run::{Conjunct, Engine, Group, Matcher};
use super::split::{Part, split};
use super::syntax::Node;
use super::table::Table;
use super::{Patterns, Tier, derive, determinize};

/// Makes matchers, and remembers what can be shared.
#[derive(Debug)]
pub struct Compiler {
    budgets: Budgets,
    matchers: HashMap<Patterns, Arc<Matcher>>,
    /// Those that were refused too: whoever has a bad one may have it in many endpoints.
    patterns: HashMap<String, Result<Arc<[Conjunct]>, Fault>>,
    /// By a hash of the automaton; those of one hash are compared.
    tables: HashMap<u64, Vec<Arc<Table>>>,
    hasher: RandomState,
    bytes_total: usize,
}

impl Compiler {
    /// A compiler that has made nothing yet.
    #[must_use]
    pub fn new(budgets: Budgets) -> Self {
        Self {
            budgets,
            matchers: HashMap::new(),
            patterns: HashMap::new(),
            tables: HashMap::new(),
            hasher: RandomState::new(),
            bytes_total: 0,
        }
    }

    /// The matcher of an endpoint's patterns.
    ///
    /// # Errors
    /// The first pattern that is wrong, not supported, or over budget.
    pub fn compile(&mut self, patterns: &Patterns) -> Result<Arc<Matcher>, PatternError> {
        if let Some(matcher) = self.matchers.get(patterns) {
            return Ok(Arc::clone(matcher));
        }
        let mut conjuncts = Vec::new();
        let mut groups = Vec::new();
        for (list, forbids, texts) in
            [("body_match", false, &patterns.body_match), ("body_forbid", true, &patterns.body_forbid)]
        {
            for (index, text) in texts.iter().enumerate() {
                let refuse =
                    |fault: Fault| PatternError { list, index, offset: fault.offset, message: fault.message };
                if index >= PATTERNS_MAX {
                    return Err(refuse(Fault::new(
                        0,
                        format!("more than {PATTERNS_MAX} patterns in a list"),
                    )));
                }
                let found = self.pattern(text).map_err(refuse)?;
                if conjuncts.len() + found.len() > CONJUNCTS_MAX {
                    return Err(refuse(Fault::new(
                        0,
                        format!("the endpoint's patterns take more than {CONJUNCTS_MAX} tables; use fewer"),
                    )));
                }
                let first = conjuncts.len();
                conjuncts.extend(found.iter().cloned());
                if lazy_count(&conjuncts) > LAZY_CONJUNCTS_MAX {
                    return Err(refuse(Fault::new(
                        0,
                        format!(
                            "more than {LAZY_CONJUNCTS_MAX} of the endpoint's patterns are of the lazy tier, and take \
                             {} KiB of each body; write smaller counts, or `*`",
                            self.budgets.lazy_bytes_max >> 10
                        ),
                    )));
                }
                let bytes: usize = conjuncts.iter().map(|conjunct| conjunct.engine.table_bytes()).sum();
                if bytes > ENDPOINT_BYTES_MAX {
                    return Err(refuse(Fault::new(
                        0,
                        format!(
                            "with this pattern the endpoint's tables have {} KiB, of at most {} KiB; write smaller \
                             counts, or `*`",
                            bytes >> 10,
                            ENDPOINT_BYTES_MAX >> 10
                        ),
                    )));
                }
                let pattern = u16::try_from(index).unwrap_or(u16::MAX);
                groups.push(Group { forbids, pattern, first, end: conjuncts.len(), text: text.clone() });
            }
        }
        let matcher = Arc::new(Matcher::new(conjuncts, groups));
        self.matchers.insert(patterns.clone(), Arc::clone(&matcher));
        Ok(matcher)
    }

    /// Bytes of all tables that this compiler holds, each counted once.
    #[must_use]
    pub const fn bytes_total(&self) -> usize {
        self.bytes_total
    }

    /// How many patterns have a part of the lazy tier, and the bytes that their bodies share.
    #[must_use]
    pub fn lazy(&self) -> (usize, usize) {
        let lazies = self.patterns.values().flatten().filter(|conjuncts| lazy_count(conjuncts) > 0);
        lazies.fold((0, 0), |(count, bytes), conjuncts| {
            let shared = conjuncts.iter().map(|conjunct| conjunct.engine.lazy_bytes()).sum::<usize>();
            (count + 1, bytes + shared)
        })
    }

    fn pattern(&mut self, text: &str) -> Result<Arc<[Conjunct]>, Fault> {
        if let Some(known) = self.patterns.get(text) {
            return known.clone();
        }
        let conjuncts = self.conjuncts(text);
        self.patterns.insert(text.to_owned(), conjuncts.clone());
        conjuncts
    }

    fn conjuncts(&mut self, text: &str) -> Result<Arc<[Conjunct]>, Fault> {
        let parsed = parser::parse(text, self.budgets.pattern_bytes_max)?;
        let parts = split(&parsed.node);
        // A pattern of many parts takes no longer than one of one.
        let compile_steps_max = self.budgets.compile_steps_max / parts.len() as u64;
        let budgets = Budgets { compile_steps_max, ..self.budgets };
        parts.iter().map(|part| self.part(part, &parsed, budgets)).collect()
    }

    fn part(&mut self, part: &Part, parsed: &Parsed, budgets: Budgets) -> Result<Conjunct, Fault> {
        let nfa = determinize::translate(&part.node, part.anchored);
        let tier = match &nfa {
            None => Tier::Lookaround,
            Some(_) if is_literal(&part.node) => Tier::Literal,
            Some(_) => Tier::Table,
        };
        if let Some(Ok(nfa)) = nfa {
            if let Ok(dfa) = determinize::compile(&nfa, &budgets) {
                let prefix = if part.anchored { Vec::new() } else { part.node.literal_prefix() };
                let table = Table::new(&finished(&dfa, part.negated), Some(&prefix));
                if table.bytes() <= budgets.table_bytes_soft {
                    return self.shared(table, tier, parsed);
                }
            }
            if let Ok(dfa) = determinize::compile_lazy(nfa, &budgets) {
                let lazy = Lazy::new(dfa, budgets.lazy_steps_max);
                self.charge(lazy.bytes(), parsed)?;
                let engine = Engine::Lazy { lazy: Arc::new(lazy), negated: part.negated };
                return Ok(Conjunct { engine, tier: Tier::Lazy });
            }
        }
        let dfa = derive::compile(&part.node, part.anchored, &budgets)
            .map_err(|_over| too_large(parsed, "its automaton", &budgets))?;
        let table = Table::new(&finished(&dfa, part.negated), None);
        if table.bytes() > budgets.table_bytes_max {
            return Err(too_large(parsed, "its table", &budgets));
        }
        self.shared(table, tier, parsed)
    }

    /// The table, or one of the same language that is there already.
    fn shared(&mut self, table: Table, tier: Tier, parsed: &Parsed) -> Result<Conjunct, Fault> {
        let hash = self.hasher.hash_one(table.language());
        let known =
            self.tables.entry(hash).or_default().iter().find(|known| known.language() == table.language());
        let table = if let Some(known) = known {
            Arc::clone(known)
        } else {
            self.charge(table.bytes(), parsed)?;
            let table = Arc::new(table);
            self.tables.entry(hash).or_default().push(Arc::clone(&table));
            table
        };
        Ok(Conjunct { engine: Engine::Table(table), tier })
    }

    fn charge(&mut self, bytes: usize, parsed: &Parsed) -> Result<(), Fault> {
        let total = self.bytes_total + bytes;
        if total > self.budgets.tables_bytes_max {
            let most = self.budgets.tables_bytes_max;
            return Err(Fault::new(
                offset(parsed),
                format!("the tables of all patterns together would take more than {most} bytes"),
            ));
        }
        self.bytes_total = total;
        Ok(())
    }
}

/// How many are built while a body streams.
pub(super) fn lazy_count(conjuncts: &[Conjunct]) -> usize {
    conjuncts.iter().filter(|conjunct| conjunct.tier == Tier::Lazy).count()
}

/// The smallest automaton of a part, to be accepted exactly if the part holds. Either compiler's, for tests that
/// compare the two; nothing if the pattern has lookarounds and regex-automata was asked, or if it is over budget.
#[must_use]
pub fn automaton(pattern: &Node, by_derivatives: bool, budgets: &Budgets) -> Option<Dfa> {
    let dfa = if by_derivatives {
        derive::compile(pattern, false, budgets).ok()?
    } else {
        determinize::compile(&determinize::translate(pattern, false)?.ok()?, budgets).ok()?
    };
    Some(dfa.minimised())
}

fn finished(dfa: &Dfa, negated: bool) -> Dfa {
    let dfa = dfa.minimised();
    if negated { dfa.complement() } else { dfa }
}

/// Whether a pattern is a text, or a choice of texts.
fn is_literal(node: &Node) -> bool {
    match node {
        Node::Alternate(branches) => branches.iter().all(|branch| branch.as_literal().is_some()),
        node => node.as_literal().is_some(),
    }
}

/// What most likely makes a pattern large: its widest repeat.
fn offset(parsed: &Parsed) -> usize {
    parsed.widest_repeat.as_ref().map_or(0, |(offset, _)| *offset)
}

fn too_large(parsed: &Parsed, what: &str, budgets: &Budgets) -> Fault {
    let (states, bytes) = (budgets.raw_states_max, budgets.table_bytes_max);
    let bounds = format!("{states} states or {bytes} bytes, or take too many steps to make");
    let mut message = match &parsed.widest_repeat {
        Some((_, repeat)) => format!(
            "over budget: {what} would have more than {bounds}; the repeat `{repeat}` makes it large: write a \
             smaller count, or `*`"
        ),
        None => format!("over budget: {what} would have more than {bounds}; split it into several patterns"),
    };
    if parsed.unicode {
        message += ", or leave out `(?u)`";
    }
    Fault::new(offset(parsed), message)
}
