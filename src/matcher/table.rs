//! The table that a body is walked through, one load per byte.
//!
//! ```text
//!   cells   | ACCEPT row | REJECT row | rows of few exits … | other rows …       a row: one cell per class
//!   state = index of its row's first cell, so that   next = cells[state + class_of[byte]]
//!   state <= absorbed_max: the verdict is certain.   state <= few_exits_max: bytes may be skipped.
//! ```
//!
//! States are ordered by what must be done in them, so that one comparison per byte tells that there is nothing
//! to do. Cells have two bytes where that is enough, four otherwise. Three ways of walking: *skipping* looks for
//! the few bytes that leave a state (memchr), or for the text that a match begins with (memmem); *plain* takes
//! each byte; *abreast* walks several tables over the same bytes, whose loads the CPU overlaps. Skipping pays
//! where exits are rare and costs where they are not, so it is given fuel, and leaves when that is used up.
//!
//! Invariants: walking allocates nothing, and costs at most one load per byte and table plus the fuel. An
//! absorbing state is never left. Where the bytes are cut makes no difference to the states passed through.

use std::hash::Hash;

use memchr::memmem::Finder;
use memchr::{memchr, memchr2, memchr3};

use super::dfa::Dfa;

/// Bytes of walking that a skip may cost before it must have paid.
pub(super) const SKIP_FUEL_BYTES: i64 = 128;
/// What starting a search costs, in bytes walked: about 10 ns.
const SKIP_COST_BYTES: i64 = 12;
/// What skipping may save up.
const SKIP_FUEL_BYTES_MAX: i64 = 1_024;
/// Exits up to which a state is searched for them: what one pass of memchr can look for.
const EXITS_MAX: usize = 3;

/// A minimised automaton, ready to run. Immutable, and shared by all bodies on all shards.
#[derive(Debug)]
pub(super) struct Table {
    class_of: [u8; 256],
    cells: Cells,
    class_count: usize,
    start: u32,
    absorbed_max: u32,
    few_exits_max: u32,
    /// Of the rows of few exits, in order: the bytes that leave them.
    exits: Vec<Exits>,
    /// Whether a body may end in a state, by the number of its row.
    accepts: Vec<bool>,
    /// In the start state: the text with which every match begins.
    prefix: Option<Finder<'static>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Cells {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

#[derive(Clone, Copy, Debug)]
struct Exits {
    bytes: [u8; EXITS_MAX],
    count: usize,
}

/// Whether a state absorbs, and what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absorbed {
    /// Accepted, whatever follows.
    Accepted,
    /// Rejected, whatever follows.
    Rejected,
}

/// The accepting state of every table.
const ACCEPT: u32 = 0;

impl Table {
    /// Packs a minimised automaton. `prefix` is a text with which every match begins; only for automata that
    /// are in their start state exactly when no proper prefix of a match ends where they are.
    pub(super) fn new(dfa: &Dfa, prefix: Option<&[u8]>) -> Self {
        let class_count = dfa.class_count;
        let row = |state: usize| &dfa.next[state * class_count..(state + 1) * class_count];
        let loops = |state: usize| row(state).iter().all(|next| *next as usize == state);
        let mut order = vec![None, None];
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for state in 0..dfa.state_count() {
            if loops(state) {
                order[usize::from(!dfa.accepts[state])] = Some(state);
                continue;
            }
            let leaves =
                |byte: &u8| row(state)[usize::from(dfa.classes[usize::from(*byte)])] as usize != state;
            let found: Vec<u8> = (0..=u8::MAX).filter(leaves).take(EXITS_MAX + 1).collect();
            if found.len() <= EXITS_MAX {
                let byte = |at: usize| found.get(at).copied().unwrap_or(found[0]);
                few.push((state, Exits { bytes: std::array::from_fn(byte), count: found.len() }));
            } else {
                many.push(state);
            }
        }
        let exits = few.iter().map(|(_, exits)| *exits).collect();
        let few_exits_max = (1 + few.len()) * class_count;
        order.extend(few.into_iter().map(|(state, _)| Some(state)).chain(many.into_iter().map(Some)));
        let mut position = vec![0; dfa.state_count()];
        for (at, state) in order.iter().enumerate() {
            if let Some(state) = state {
                position[*state] = at * class_count;
            }
        }
        let rows = order.iter().enumerate().flat_map(|(at, state)| match state {
            Some(state) => row(*state).iter().map(|next| position[*next as usize]).collect::<Vec<_>>(),
            None => vec![at * class_count; class_count],
        });
        let cells: Vec<u32> = rows.map(premultiplied).collect();
        let accepts =
            order.iter().enumerate().map(|(at, state)| state.map_or(at == 0, |state| dfa.accepts[state]));
        let accepts = accepts.collect();
        let narrow: Result<Box<[u16]>, _> = cells.iter().map(|cell| u16::try_from(*cell)).collect();
        let mut class_of = [0; 256];
        class_of.copy_from_slice(&dfa.classes);
        Self {
            class_of,
            cells: narrow.map_or_else(|_error| Cells::Wide(cells.into()), Cells::Narrow),
            class_count,
            start: premultiplied(position[dfa.start as usize]),
            absorbed_max: premultiplied(class_count),
            few_exits_max: premultiplied(few_exits_max),
            exits,
            accepts,
            prefix: prefix.filter(|prefix| prefix.len() > 1).map(|prefix| Finder::new(prefix).into_owned()),
        }
    }

    /// The state before the first byte.
    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// How many states there are, the two that absorb included.
    pub(super) const fn state_count(&self) -> usize {
        self.accepts.len()
    }

    /// How many bytes the table takes.
    pub(super) fn bytes(&self) -> usize {
        let cells = match &self.cells {
            Cells::Narrow(cells) => size_of_val::<[u16]>(cells),
            Cells::Wide(cells) => size_of_val::<[u32]>(cells),
        };
        cells + size_of::<Self>() + size_of_val::<[Exits]>(&self.exits) + self.accepts.len()
    }

    /// All that the language determines, and nothing else: equal exactly if the languages are.
    pub(super) fn language(&self) -> impl Hash + Eq + '_ {
        (&self.class_of, &self.cells, &self.accepts, self.start)
    }

    /// Whether the verdict is certain in a state.
    pub(super) const fn absorbed(&self, state: u32) -> Option<Absorbed> {
        if state > self.absorbed_max {
            None
        } else if state == ACCEPT {
            Some(Absorbed::Accepted)
        } else {
            Some(Absorbed::Rejected)
        }
    }

    /// Whether the body is accepted if it ends in this state.
    pub(super) fn accepts(&self, state: u32) -> bool {
        self.accepts[state as usize / self.class_count]
    }

    /// Whether there is any state in which bytes may be skipped.
    pub(super) const fn skips(&self) -> bool {
        self.few_exits_max > self.absorbed_max || self.prefix.is_some()
    }

    /// Walks over `bytes` until the verdict is certain or they are over; says how many were taken.
    pub(super) fn plain(&self, state: &mut u32, bytes: &[u8]) -> usize {
        match &self.cells {
            Cells::Narrow(cells) => self.walk(cells, state, bytes, self.absorbed_max),
            Cells::Wide(cells) => self.walk(cells, state, bytes, self.absorbed_max),
        }
    }

    /// As [`Table::plain`], but skips, and stops when that does not pay.
    pub(super) fn skipping(&self, state: &mut u32, bytes: &[u8]) -> usize {
        match &self.cells {
            Cells::Narrow(cells) => self.skip_walk(cells, state, bytes),
            Cells::Wide(cells) => self.skip_walk(cells, state, bytes),
        }
    }

    fn walk<C: Copy + Into<u32>>(&self, cells: &[C], state: &mut u32, bytes: &[u8], stop_max: u32) -> usize {
        let mut at = *state;
        for (index, byte) in bytes.iter().enumerate() {
            at = cells[at as usize + usize::from(self.class_of[usize::from(*byte)])].into();
            if at <= stop_max {
                *state = at;
                return index + 1;
            }
        }
        *state = at;
        bytes.len()
    }

    fn skip_walk<C: Copy + Into<u32>>(&self, cells: &[C], state: &mut u32, bytes: &[u8]) -> usize {
        let mut fuel_bytes = SKIP_FUEL_BYTES;
        let mut taken = 0;
        // In the start state there is either a text to look for, or the state may be one of few exits.
        let stop_max = self.few_exits_max.max(if self.prefix.is_some() { self.start } else { 0 });
        while taken < bytes.len() && fuel_bytes > 0 {
            if self.absorbed(*state).is_some() {
                break;
            }
            let rest = &bytes[taken..];
            if let Some(skipped) = self.skip(*state, rest) {
                taken += skipped;
                fuel_bytes = (fuel_bytes + signed(skipped) - SKIP_COST_BYTES).min(SKIP_FUEL_BYTES_MAX);
                if taken == bytes.len() {
                    break;
                }
                // The byte that leaves the state, or one at which nothing was found.
                self.walk(cells, state, &bytes[taken..=taken], self.absorbed_max);
                taken += 1;
                continue;
            }
            let fueled = usize::try_from(fuel_bytes).unwrap_or(0).min(rest.len());
            let walked = self.walk(cells, state, &rest[..fueled], stop_max);
            fuel_bytes -= signed(walked);
            taken += walked;
        }
        taken
    }

    /// How many bytes do not change this state, if it is one in which that can be looked up.
    fn skip(&self, state: u32, bytes: &[u8]) -> Option<usize> {
        if state == self.start
            && let Some(prefix) = &self.prefix
        {
            // Where the text is not found, it may still begin within the last bytes.
            let tail = prefix.needle().len() - 1;
            return Some(prefix.find(bytes).unwrap_or_else(|| bytes.len().saturating_sub(tail)));
        }
        if state > self.few_exits_max {
            return None;
        }
        let exits = self.exits.get((state as usize / self.class_count).checked_sub(2)?)?;
        let [a, b, c] = exits.bytes;
        let found = match exits.count {
            1 => memchr(a, bytes),
            2 => memchr2(a, b, bytes),
            _ => memchr3(a, b, c, bytes),
        };
        Some(found.unwrap_or(bytes.len()))
    }
}

/// Walks several tables over the same bytes until a verdict is certain in one of them, or they are over; says
/// how many bytes were taken.
pub(super) fn abreast(tables: &[&Table], states: &mut [u32], bytes: &[u8]) -> usize {
    let mut narrow: [&[u16]; 4] = [&[]; 4];
    for (table, cells) in tables.iter().zip(&mut narrow) {
        match &table.cells {
            Cells::Narrow(narrow) => *cells = narrow,
            Cells::Wide(_) => return one_by_one(tables, states, bytes),
        }
    }
    match (tables, &mut *states) {
        ([a, b], [s, t]) => abreast_of([a, b], [narrow[0], narrow[1]], [s, t], bytes),
        ([a, b, c], [s, t, u]) => abreast_of([a, b, c], [narrow[0], narrow[1], narrow[2]], [s, t, u], bytes),
        ([a, b, c, d], [s, t, u, v]) => abreast_of([a, b, c, d], narrow, [s, t, u, v], bytes),
        _ => one_by_one(tables, states, bytes),
    }
}

/// Bytes that several tables walk before it is asked whether one of them is certain.
const ABREAST_STRETCH_BYTES: usize = 32;

/// One loop for a number of tables that is known when it is compiled: their loads do not depend on each other.
fn abreast_of<const COUNT: usize>(
    tables: [&Table; COUNT],
    cells: [&[u16]; COUNT],
    states: [&mut u32; COUNT],
    bytes: &[u8],
) -> usize {
    let mut at: [usize; COUNT] = std::array::from_fn(|index| *states[index] as usize);
    let absorbed_max: [usize; COUNT] = tables.map(|table| table.absorbed_max as usize);
    let class_of: [&[u8; 256]; COUNT] = tables.map(|table| &table.class_of);
    let step = |at: &mut [usize; COUNT], byte: u8| {
        for table in 0..COUNT {
            at[table] =
                usize::from(cells[table][at[table] + usize::from(class_of[table][usize::from(byte)])]);
        }
    };
    let certain = |at: &[usize; COUNT]| (0..COUNT).any(|table| at[table] <= absorbed_max[table]);
    // What absorbs stays absorbed, so it suffices to look once in a while; then the stretch in which it happened is
    // walked again, because the byte at which it did counts.
    let mut taken = 0;
    for stretch in bytes.chunks(ABREAST_STRETCH_BYTES) {
        let before = at;
        for byte in stretch {
            step(&mut at, *byte);
        }
        if !certain(&at) {
            taken += stretch.len();
            continue;
        }
        at = before;
        for byte in stretch {
            step(&mut at, *byte);
            taken += 1;
            if certain(&at) {
                break;
            }
        }
        break;
    }
    for (state, at) in states.into_iter().zip(at) {
        *state = premultiplied(at);
    }
    taken
}

/// For tables that are too large to be walked abreast: to the first byte at which one is certain.
fn one_by_one(tables: &[&Table], states: &mut [u32], bytes: &[u8]) -> usize {
    let mut taken = bytes.len();
    for (table, state) in tables.iter().zip(states.iter()) {
        taken = table.plain(&mut state.clone(), &bytes[..taken]);
    }
    for (table, state) in tables.iter().zip(states) {
        table.plain(state, &bytes[..taken]);
    }
    taken
}

fn premultiplied(cell: usize) -> u32 {
    u32::try_from(cell).expect("raw states times classes are bounded far below 2³²")
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
