//! A body against an endpoint's patterns, while it streams.
//!
//! Every pattern is one or a few *conjuncts*, automata that must all accept. Each walks over the bytes as they
//! come, and drops out when it is certain. A verdict is certain when no bytes that could follow would change
//! it: a required pattern cannot be found any more, a forbidden one was, or everything is settled. Of several
//! reasons the one that was certain first is told, and of those of one byte the first in the lists.
//!
//! In scope: side by side, verdicts. Out of scope: what the caller does about a certain verdict, or when a body
//! is cut off by a limit (then there is none: `$` would lie).
//!
//! Invariants: the verdict, and the byte at which it became certain, do not depend on how the body was cut.
//! Nothing is allocated per byte, nor per body for up to [`INLINE`] conjuncts that are not lazy.

use std::sync::Arc;

use super::Tier;
use super::budget::{CONJUNCTS_MAX, LAZY_BYTES_MAX};
use super::lazy::{Lazy, LazyOutcome, LazyRun};
use super::table::{Absorbed, Table, abreast};

/// Conjuncts whose states stand in the scan itself.
pub const INLINE: usize = 4;

/// Bytes after which it is looked at anew which tables skip and whether the verdict is certain.
const SEGMENT_BYTES: usize = 16 * 1024;
/// How many tables are walked in one loop.
const ABREAST_MAX: usize = 4;
/// Each so many bytes of tables make a byte of the body take as long again: measured with 1 MiB (a tenth of the speed
/// of a small table) to 4 MiB (a two-hundredth), and no pattern needs them all.
const CACHED_BYTES: usize = 32 * 1024;
/// What a state that must be made takes, in steps of a small table.
const LAZY_SLOWNESS: usize = 128;

/// In place of a table's state: the conjunct holds.
const ACCEPTED: u32 = u32::MAX;
/// In place of a table's state: the conjunct does not hold.
const REJECTED: u32 = u32::MAX - 1;
/// In place of a table's state: it will not be known.
const GAVE_UP: u32 = u32::MAX - 2;
/// The least of the three; table states are below it.
const DECIDED_MIN: u32 = GAVE_UP;

/// What the endpoint's patterns are looked for with. Immutable; shared by all probes and shards.
#[derive(Debug)]
pub struct Matcher {
    conjuncts: Vec<Conjunct>,
    /// Required patterns first.
    groups: Vec<Group>,
    slowness: usize,
}

/// One automaton.
#[derive(Clone, Debug)]
pub(super) struct Conjunct {
    pub(super) engine: Engine,
    pub(super) tier: Tier,
}

#[derive(Clone, Debug)]
pub(super) enum Engine {
    Table(Arc<Table>),
    Lazy { lazy: Arc<Lazy>, negated: bool },
}

/// One pattern: it is found if all of its conjuncts hold.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) forbids: bool,
    /// Where in its list.
    pub(super) pattern: u16,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) text: String,
}

/// One body, as far as it has come.
#[derive(Debug)]
pub struct Scan {
    states: States,
    /// Of the lazy conjuncts, in order.
    lazy: Vec<LazyRun>,
    fed_bytes: u64,
    certain: Option<(Verdict, u64)>,
}

#[derive(Debug)]
enum States {
    Inline([u32; INLINE]),
    Heap(Box<[u32]>),
}

/// Whether more of the body is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The verdict still depends on what follows.
    More,
    /// Nothing that could follow changes this.
    Certain(Verdict),
}

/// What a body comes to. A pattern is named by its index in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every required pattern is there, and no forbidden one.
    Matched,
    /// This pattern of `body_match` is not there.
    Missing {
        /// Index in `body_match`.
        pattern: u16,
    },
    /// This pattern of `body_forbid` is there.
    Forbidden {
        /// Index in `body_forbid`.
        pattern: u16,
    },
    /// This pattern is of the lazy tier, and its budget for this body ran out: neither there nor not there.
    Budget {
        /// Index in `body_match`, or, past its end, in `body_forbid`.
        pattern: u16,
    },
}

/// How a pattern is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it stands in `body_forbid`.
    pub forbids: bool,
    /// Its text.
    pub pattern: String,
    /// Of each of its conjuncts the tier, the states and the bytes of its table. A lazy one has no states yet.
    pub conjuncts: Vec<(Tier, usize, usize)>,
}

/// A conjunct that was decided: after how many bytes of the segment, which, and how.
type Event = (usize, usize, u32);

impl Engine {
    /// Bytes of its table, whoever shares it.
    pub(super) fn table_bytes(&self) -> usize {
        match self {
            Self::Table(table) => table.bytes(),
            Self::Lazy { .. } => 0,
        }
    }

    /// Bytes that a lazy engine takes; tables are counted where they are shared.
    pub(super) fn lazy_bytes(&self) -> usize {
        match self {
            Self::Table(_) => 0,
            Self::Lazy { lazy, .. } => lazy.bytes(),
        }
    }
}

impl Matcher {
    pub(super) fn new(conjuncts: Vec<Conjunct>, groups: Vec<Group>) -> Self {
        assert!(conjuncts.len() <= CONJUNCTS_MAX, "the compiler refuses more");
        let bytes: usize = conjuncts.iter().map(|conjunct| conjunct.engine.table_bytes()).sum();
        let lazy = conjuncts.iter().filter(|conjunct| conjunct.tier == Tier::Lazy).count();
        let slowness = 1 + conjuncts.len() / ABREAST_MAX + bytes / CACHED_BYTES + lazy * LAZY_SLOWNESS;
        Self { conjuncts, groups, slowness }
    }

    /// How many patterns must be found.
    #[must_use]
    pub fn body_match_count(&self) -> u16 {
        let count = self.groups.iter().filter(|group| !group.forbids).count();
        u16::try_from(count).unwrap_or(u16::MAX)
    }

    /// A body of which nothing has come yet.
    #[must_use]
    pub fn start(&self) -> Scan {
        let mut lazy = Vec::new();
        let lazy_count = self.lazy_count();
        let mut start = |conjunct: &Conjunct| match &conjunct.engine {
            Engine::Table(table) => decided(table, table.start()).unwrap_or_else(|| table.start()),
            Engine::Lazy { lazy: engine, .. } => {
                lazy.push(engine.start(lazy_count));
                0
            }
        };
        let states = if self.conjuncts.len() <= INLINE {
            let mut states = [0; INLINE];
            for (state, conjunct) in states.iter_mut().zip(&self.conjuncts) {
                *state = start(conjunct);
            }
            States::Inline(states)
        } else {
            States::Heap(self.conjuncts.iter().map(start).collect())
        };
        let mut scan = Scan { states, lazy, fed_bytes: 0, certain: None };
        scan.certain = self.judge(scan.states()).map(|verdict| (verdict, 0));
        scan
    }

    /// Takes the next bytes of the body, in any cut. After `Certain` the rest need not be fed, and may be.
    pub fn feed(&self, scan: &mut Scan, bytes: &[u8]) -> Certainty {
        for segment in bytes.chunks(SEGMENT_BYTES) {
            if scan.certain.is_some() {
                break;
            }
            self.segment(scan, segment);
        }
        scan.certain.map_or(Certainty::More, |(verdict, _)| Certainty::Certain(verdict))
    }

    /// The body is over, and was fed whole.
    pub fn finish(&self, scan: &mut Scan) -> Verdict {
        if let Some((verdict, _)) = scan.certain {
            return verdict;
        }
        let Scan { states, lazy, .. } = scan;
        let mut lazy = lazy.iter_mut();
        for (state, conjunct) in states.slice_mut().iter_mut().zip(&self.conjuncts) {
            let run = if matches!(conjunct.engine, Engine::Lazy { .. }) { lazy.next() } else { None };
            if *state >= DECIDED_MIN {
                continue;
            }
            *state = match (&conjunct.engine, run) {
                (Engine::Table(table), _) => accepted_if(table.accepts(*state)),
                (Engine::Lazy { lazy, negated }, Some(run)) => lazily_decided(lazy.finish(run), *negated),
                (Engine::Lazy { .. }, None) => GAVE_UP,
            };
        }
        let verdict = self.judge(scan.states()).expect("every conjunct was decided above");
        scan.certain = Some((verdict, scan.fed_bytes));
        verdict
    }

    /// The verdict, if nothing that could follow changes it.
    #[must_use]
    pub fn verdict_so_far(&self, scan: &Scan) -> Option<Verdict> {
        scan.certain.map(|(verdict, _)| verdict)
    }

    /// How each pattern is looked for.
    #[must_use]
    pub fn explain(&self) -> Vec<Explanation> {
        let conjunct = |conjunct: &Conjunct| match &conjunct.engine {
            Engine::Table(table) => (conjunct.tier, table.state_count(), table.bytes()),
            Engine::Lazy { lazy, .. } => (conjunct.tier, 0, lazy.bytes()),
        };
        let explanation = |group: &Group| Explanation {
            forbids: group.forbids,
            pattern: group.text.clone(),
            conjuncts: self.conjuncts[group.first..group.end].iter().map(conjunct).collect(),
        };
        self.groups.iter().map(explanation).collect()
    }

    /// The slowest tier among the patterns; nothing if there is no pattern.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        self.conjuncts.iter().map(|conjunct| conjunct.tier).max()
    }

    /// Bytes that a body may take for itself, at most: what is built while it streams.
    #[must_use]
    pub fn bytes_per_body_max(&self) -> usize {
        self.lazy_count() * LAZY_BYTES_MAX
    }

    fn lazy_count(&self) -> usize {
        self.conjuncts.iter().filter(|conjunct| conjunct.tier == Tier::Lazy).count()
    }

    /// How many times longer a byte may take than one that a single small table looks at, roughly: tables that are
    /// walked side by side, tables beyond the caches, and states that must be made first.
    #[must_use]
    pub const fn slowness(&self) -> usize {
        self.slowness
    }

    /// States of all tables together.
    #[must_use]
    pub fn states(&self) -> usize {
        self.explain().iter().flat_map(|pattern| &pattern.conjuncts).map(|(_, states, _)| states).sum()
    }

    /// Bytes of all tables together, whether or not others share them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.explain().iter().flat_map(|pattern| &pattern.conjuncts).map(|(_, _, bytes)| bytes).sum()
    }

    /// Takes at most a segment.
    fn segment(&self, scan: &mut Scan, bytes: &[u8]) {
        let mut events = [(0, 0, 0); CONJUNCTS_MAX];
        let mut event_count = 0;
        let mut decide = |event: Event| {
            events[event_count] = event;
            event_count += 1;
        };
        let mut walking = [(0, 0); CONJUNCTS_MAX];
        let mut walking_count = 0;
        let states = scan.states.slice_mut();
        let mut lazy_runs = scan.lazy.iter_mut();
        for (index, conjunct) in self.conjuncts.iter().enumerate() {
            match &conjunct.engine {
                Engine::Table(table) => {
                    if states[index] >= DECIDED_MIN {
                        continue;
                    }
                    let taken = if table.skips() { table.skipping(&mut states[index], bytes) } else { 0 };
                    if let Some(decided) = decided(table, states[index]) {
                        decide((taken, index, decided));
                    } else if taken < bytes.len() {
                        walking[walking_count] = (taken, index);
                        walking_count += 1;
                    }
                }
                Engine::Lazy { lazy, negated } => {
                    let Some(run) = lazy_runs.next() else { continue };
                    if states[index] >= DECIDED_MIN {
                        continue;
                    }
                    if let (taken, Some(outcome)) = lazy.feed(run, bytes) {
                        decide((taken, index, lazily_decided(outcome, *negated)));
                    }
                }
            }
        }
        for group in walking[..walking_count].chunks_mut(ABREAST_MAX) {
            self.walk(group, states, bytes, &mut decide);
        }
        events[..event_count].sort_unstable();
        for (taken, index, decided) in &events[..event_count] {
            scan.states.slice_mut()[*index] = *decided;
            if let Some(verdict) = self.judge(scan.states()) {
                scan.certain = Some((verdict, scan.fed_bytes + *taken as u64));
                break;
            }
        }
        scan.fed_bytes += bytes.len() as u64;
    }

    /// Walks up to [`ABREAST_MAX`] conjuncts to the end of the bytes, each from where it stands.
    fn walk(
        &self,
        group: &mut [(usize, usize)],
        states: &mut [u32],
        bytes: &[u8],
        decide: &mut impl FnMut(Event),
    ) {
        let mut front = group.iter().map(|(taken, _)| *taken).max().unwrap_or(0);
        let mut left = [0; ABREAST_MAX];
        let mut left_count = 0;
        for (taken, index) in group {
            let Engine::Table(table) = &self.conjuncts[*index].engine else { continue };
            // Those behind catch up.
            let more = table.plain(&mut states[*index], &bytes[*taken..front]);
            if let Some(decided) = decided(table, states[*index]) {
                decide((*taken + more, *index, decided));
            } else {
                left[left_count] = *index;
                left_count += 1;
            }
        }
        while left_count > 0 && front < bytes.len() {
            let mut tables = [None; ABREAST_MAX];
            let mut at = [0; ABREAST_MAX];
            for ((table, at), index) in tables.iter_mut().zip(&mut at).zip(&left[..left_count]) {
                if let Engine::Table(engine) = &self.conjuncts[*index].engine {
                    *table = Some(&**engine);
                    *at = states[*index];
                }
            }
            front += match tables {
                [Some(a), None, ..] => a.plain(&mut at[0], &bytes[front..]),
                [Some(a), Some(b), None, _] => abreast(&[a, b], &mut at[..2], &bytes[front..]),
                [Some(a), Some(b), Some(c), None] => abreast(&[a, b, c], &mut at[..3], &bytes[front..]),
                [Some(a), Some(b), Some(c), Some(d)] => abreast(&[a, b, c, d], &mut at, &bytes[front..]),
                _ => break,
            };
            let mut kept = 0;
            for position in 0..left_count {
                let index = left[position];
                states[index] = at[position];
                match tables[position].and_then(|table| decided(table, at[position])) {
                    Some(decided) => decide((front, index, decided)),
                    None => {
                        left[kept] = index;
                        kept += 1;
                    }
                }
            }
            left_count = kept;
        }
    }

    /// The verdict, if the conjuncts that are decided settle it.
    fn judge(&self, states: &[u32]) -> Option<Verdict> {
        let mut is_open = false;
        let required = self.groups.iter().filter(|group| !group.forbids).count();
        for group in &self.groups {
            let states = &states[group.first..group.end];
            let pattern = group.pattern;
            if states.contains(&REJECTED) {
                if !group.forbids {
                    return Some(Verdict::Missing { pattern });
                }
            } else if states.contains(&GAVE_UP) {
                let offset = if group.forbids { u16::try_from(required).unwrap_or(u16::MAX) } else { 0 };
                return Some(Verdict::Budget { pattern: pattern.saturating_add(offset) });
            } else if states.iter().any(|state| *state < DECIDED_MIN) {
                is_open = true;
            } else if group.forbids {
                return Some(Verdict::Forbidden { pattern });
            }
        }
        if is_open { None } else { Some(Verdict::Matched) }
    }
}

impl Scan {
    /// After how many bytes of the body the verdict was certain; at its end, if only the end made it so.
    #[must_use]
    pub fn certain_after_bytes(&self) -> Option<u64> {
        self.certain.map(|(_, bytes)| bytes)
    }

    fn states(&self) -> &[u32] {
        match &self.states {
            States::Inline(states) => states,
            States::Heap(states) => states,
        }
    }
}

impl States {
    fn slice_mut(&mut self) -> &mut [u32] {
        match self {
            Self::Inline(states) => states,
            Self::Heap(states) => states,
        }
    }
}

fn accepted_if(accepts: bool) -> u32 {
    if accepts { ACCEPTED } else { REJECTED }
}

fn decided(table: &Table, state: u32) -> Option<u32> {
    table.absorbed(state).map(|absorbed| accepted_if(absorbed == Absorbed::Accepted))
}

fn lazily_decided(outcome: LazyOutcome, negated: bool) -> u32 {
    match outcome {
        LazyOutcome::GaveUp => GAVE_UP,
        LazyOutcome::Accepted => accepted_if(!negated),
        LazyOutcome::Rejected => accepted_if(negated),
    }
}
