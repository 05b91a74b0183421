//! The compiler of patterns without lookarounds: regex-automata's determinisation, eager or lazy.
//!
//! Greed and order of alternatives do not matter to a verdict, but leftmost-first keeps its automata smaller.
//! It reports a match one byte late; minimising takes that back. In scope: from the tree to its intermediate
//! form, its limits. Out of scope: lookarounds, and `$` anywhere but at the end ([`super::derive`]).

use std::collections::HashMap;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::hybrid::dfa::DFA;
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::start;
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, Look, Repetition,
};

use super::budget::{Budgets, NFA_BYTES_MAX};
use super::dfa::Dfa;
use super::formula::Over;
use super::syntax::{Assertion, ByteSet, Node};

/// The pattern in regex-automata's terms; nothing if it has none.
pub(super) fn translate(pattern: &Node, anchored: bool) -> Option<Result<NFA, Over>> {
    let hir = hir(pattern, true)?;
    Some(nfa(&if anchored { Hir::concat(vec![Hir::look(Look::Start), hir]) } else { hir }))
}

/// `is_last`: nothing of the pattern follows.
fn hir(node: &Node, is_last: bool) -> Option<Hir> {
    Some(match node {
        Node::Empty => Hir::empty(),
        Node::Bytes(set) => Hir::class(Class::Bytes(byte_class(*set))),
        Node::Scalars(ranges) => {
            let ranges = ranges.iter().map(|(first, last)| ClassUnicodeRange::new(*first, *last));
            Hir::class(Class::Unicode(ClassUnicode::new(ranges)))
        }
        // At the end of a pattern nothing can tell whether the newline was consumed.
        Node::Assert(Assertion::FinalEnd) if is_last => Hir::concat(vec![
            Hir::repetition(Repetition {
                min: 0,
                max: Some(1),
                greedy: true,
                sub: Box::new(Hir::class(Class::Bytes(byte_class(ByteSet::of(b'\n'))))),
            }),
            Hir::look(Look::End),
        ]),
        Node::Assert(assertion) => Hir::look(match assertion {
            Assertion::TextStart => Look::Start,
            Assertion::TextEnd => Look::End,
            Assertion::LineStart => Look::StartLF,
            Assertion::LineEnd => Look::EndLF,
            Assertion::WordBoundary => Look::WordAscii,
            Assertion::WordInside => Look::WordAsciiNegate,
            Assertion::FinalEnd => return None,
        }),
        Node::Around { .. } => return None,
        Node::Concat(items) => {
            let last = items.len() - 1;
            let items = items.iter().enumerate().map(|(at, item)| hir(item, is_last && at == last));
            Hir::concat(items.collect::<Option<Vec<_>>>()?)
        }
        Node::Alternate(branches) => {
            Hir::alternation(branches.iter().map(|branch| hir(branch, is_last)).collect::<Option<Vec<_>>>()?)
        }
        Node::Repeat { min, max, body } => {
            let body = hir(body, is_last && *max == Some(1))?;
            Hir::repetition(Repetition { min: *min, max: *max, greedy: true, sub: Box::new(body) })
        }
    })
}

fn byte_class(set: ByteSet) -> ClassBytes {
    ClassBytes::new(set.iter().map(|byte| ClassBytesRange::new(byte, byte)))
}

fn nfa(hir: &Hir) -> Result<NFA, Over> {
    let config = thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(NFA_BYTES_MAX));
    thompson::Compiler::new().configure(config).build_from_hir(hir).map_err(|_error| Over)
}

/// Compiles "the text contains the pattern". Not minimised.
pub(super) fn compile(nfa: &NFA, budgets: &Budgets) -> Result<Dfa, Over> {
    let config = dense::Config::new()
        .start_kind(StartKind::Unanchored)
        .accelerate(false)
        .dfa_size_limit(Some(budgets.determinize_bytes_max))
        .determinize_size_limit(Some(budgets.determinize_bytes_max));
    let dense = dense::Builder::new().configure(config).build_from_nfa(nfa).map_err(|_error| Over)?;
    let byte_classes = dense.byte_classes();
    let classes: Vec<u8> = (0..=u8::MAX).map(|byte| byte_classes.get(byte)).collect();
    let class_count = classes.iter().map(|class| usize::from(*class) + 1).max().unwrap_or(1);
    let mut representatives = vec![0; class_count];
    for byte in 0..=u8::MAX {
        representatives[usize::from(classes[usize::from(byte)])] = byte;
    }

    let start = dense.start_state(&start::Config::new().anchored(Anchored::No)).map_err(|_error| Over)?;
    let mut numbers = HashMap::from([(start, 0_u32)]);
    let mut queue = vec![start];
    let mut next = Vec::new();
    let mut accepts = Vec::new();
    let mut at = 0;
    while let Some(state) = queue.get(at).copied() {
        if dense.is_match_state(state) {
            // Matched, whatever follows.
            next.extend(std::iter::repeat_n(u32::try_from(at).map_err(|_error| Over)?, class_count));
            accepts.push(true);
        } else {
            for byte in &representatives {
                let after = dense.next_state(state, *byte);
                let new = u32::try_from(queue.len()).map_err(|_error| Over)?;
                next.push(*numbers.entry(after).or_insert_with(|| {
                    queue.push(after);
                    new
                }));
            }
            accepts.push(dense.is_match_state(dense.next_eoi_state(state)));
        }
        at += 1;
    }
    Ok(Dfa { classes, class_count, next, accepts, start: 0 })
}

/// Compiles the same to an automaton whose states are made when a body comes to them.
pub(super) fn compile_lazy(nfa: NFA, budgets: &Budgets) -> Result<DFA, Over> {
    let config = DFA::config().cache_capacity(budgets.lazy_bytes_max);
    DFA::builder().configure(config).build_from_nfa(nfa).map_err(|_error| Over)
}
