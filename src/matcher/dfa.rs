//! A deterministic automaton as compilers make it: complete, over classes of bytes, with a flag per state that
//! says whether the text may end there. [`Dfa::minimised`] brings it into the one form that its language has.
//!
//! A body *matches* as soon as every continuation would. So there is no "match state": a state from which
//! every text is accepted is one state after minimising, and so is one from which none is. They absorb, and
//! reaching either is the earliest moment at which the verdict can be certain.
//!
//! Invariant: two minimised automata are equal, field by field, exactly if their languages are.

use std::collections::VecDeque;

/// A complete deterministic automaton.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dfa {
    /// The class of every byte.
    pub(super) classes: Vec<u8>,
    /// How many classes there are; at least one.
    pub(super) class_count: usize,
    /// The successor of a state under a class, at `state * class_count + class`.
    pub(super) next: Vec<u32>,
    /// Whether a text that ends in this state is accepted.
    pub(super) accepts: Vec<bool>,
    /// The state before the first byte.
    pub(super) start: u32,
}

impl Dfa {
    /// How many states there are.
    #[must_use]
    pub const fn state_count(&self) -> usize {
        self.accepts.len()
    }

    /// The automaton of all other texts.
    #[must_use]
    pub fn complement(mut self) -> Self {
        self.accepts.iter_mut().for_each(|accepts| *accepts = !*accepts);
        self
    }

    /// Whether the whole text is accepted: slow and plain, for tests.
    #[must_use]
    pub fn accepts(&self, text: &[u8]) -> bool {
        let end = text.iter().fold(self.start, |state, byte| self.step(state, *byte));
        self.accepts[end as usize]
    }

    /// A shortest text that one accepts and the other does not, if there is any.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<Vec<u8>> {
        let mut seen = std::collections::HashMap::new();
        let mut queue = VecDeque::from([(self.start, other.start)]);
        seen.insert((self.start, other.start), None);
        while let Some(pair) = queue.pop_front() {
            if self.accepts[pair.0 as usize] != other.accepts[pair.1 as usize] {
                let mut text = Vec::new();
                let mut at = pair;
                while let Some(Some((before, byte))) = seen.get(&at) {
                    text.push(*byte);
                    at = *before;
                }
                text.reverse();
                return Some(text);
            }
            for byte in 0..=u8::MAX {
                let after = (self.step(pair.0, byte), other.step(pair.1, byte));
                seen.entry(after).or_insert_with(|| {
                    queue.push_back(after);
                    Some((pair, byte))
                });
            }
        }
        None
    }

    fn step(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize * self.class_count + usize::from(self.classes[usize::from(byte)])]
    }

    /// The smallest automaton of the same language, its states in breadth-first order, its classes in the order
    /// of their first bytes.
    #[must_use]
    pub fn minimised(&self) -> Self {
        let (block_of, block_count) = self.partition();
        // One member stands for its block.
        let mut member = vec![0; block_count];
        for (state, block) in block_of.iter().enumerate() {
            member[*block as usize] = state;
        }
        let mut order = Vec::new();
        let mut number = vec![u32::MAX; block_count];
        let start = block_of[self.start as usize];
        let mut queue = VecDeque::from([start]);
        number[start as usize] = 0;
        while let Some(block) = queue.pop_front() {
            order.push(block);
            // By byte and not by class, whose numbers are the compiler's affair.
            let mut last_class = usize::MAX;
            for class in self.classes.iter().map(|class| usize::from(*class)) {
                if class == last_class {
                    continue;
                }
                last_class = class;
                let after = block_of[self.next[member[block as usize] * self.class_count + class] as usize];
                if number[after as usize] == u32::MAX {
                    number[after as usize] = u32::try_from(order.len() + queue.len()).unwrap_or(u32::MAX);
                    queue.push_back(after);
                }
            }
        }
        let successor = |block: u32, class: usize| {
            number[block_of[self.next[member[block as usize] * self.class_count + class] as usize] as usize]
        };
        let (classes, representatives) = self.merged_classes(&order, &successor);
        let mut next = Vec::with_capacity(order.len() * representatives.len());
        for block in &order {
            next.extend(representatives.iter().map(|class| successor(*block, *class)));
        }
        let accepts = order.iter().map(|block| self.accepts[member[*block as usize]]).collect();
        Self { classes, class_count: representatives.len(), next, accepts, start: 0 }
    }

    /// The classes that still differ, in the order of their first bytes: of every byte its new class, and for
    /// every new class an old one.
    fn merged_classes(&self, order: &[u32], successor: &impl Fn(u32, usize) -> u32) -> (Vec<u8>, Vec<usize>) {
        let mut representatives: Vec<usize> = Vec::new();
        let mut columns = std::collections::HashMap::new();
        let mut merged = vec![None; self.class_count];
        let mut classes = Vec::with_capacity(256);
        for class in self.classes.iter().map(|class| usize::from(*class)) {
            let new = *merged[class].get_or_insert_with(|| {
                let column: Vec<u32> = order.iter().map(|block| successor(*block, class)).collect();
                *columns.entry(column).or_insert_with(|| {
                    representatives.push(class);
                    // There are 256 bytes, so at most 256 classes.
                    u8::try_from(representatives.len() - 1).unwrap_or(u8::MAX)
                })
            });
            classes.push(new);
        }
        (classes, representatives)
    }

    /// Hopcroft's partition refinement: of every state its block, and how many blocks there are.
    fn partition(&self) -> (Vec<u32>, usize) {
        let states = self.state_count();
        let inverse = Inverse::new(self);
        let mut partition = Partition::new(states);
        let accepting: Vec<u32> =
            (0..).zip(&self.accepts).filter(|(_, accepts)| **accepts).map(|(state, _)| state).collect();
        let mut work: Vec<(u32, usize)> = (0..self.class_count).map(|class| (0, class)).collect();
        let mut queued = vec![true; self.class_count];
        let mut split = Vec::new();
        partition.split(&accepting, &mut split);
        let mut scratch = Vec::new();
        loop {
            for (old, new) in split.drain(..) {
                queued.resize((new as usize + 1) * self.class_count, false);
                for class in 0..self.class_count {
                    // The smaller half is enough, unless the whole is still to be done: then both are.
                    let smaller = if partition.len(new) <= partition.len(old) { new } else { old };
                    let block = if queued[old as usize * self.class_count + class] { new } else { smaller };
                    let flag = &mut queued[block as usize * self.class_count + class];
                    if !*flag {
                        *flag = true;
                        work.push((block, class));
                    }
                }
            }
            let Some((block, class)) = work.pop() else { break };
            queued[block as usize * self.class_count + class] = false;
            scratch.clear();
            for state in partition.members(block) {
                scratch.extend_from_slice(inverse.before(*state, class));
            }
            partition.split(&scratch, &mut split);
        }
        (partition.block_of, partition.ends.len())
    }
}

/// The predecessors of every state under every class.
struct Inverse {
    class_count: usize,
    starts: Vec<u32>,
    states: Vec<u32>,
}

impl Inverse {
    fn new(dfa: &Dfa) -> Self {
        let class_count = dfa.class_count;
        let slot = |cell: usize, after: u32| after as usize * class_count + cell % class_count;
        let mut starts = vec![0_u32; dfa.next.len() + 1];
        for (cell, after) in dfa.next.iter().enumerate() {
            starts[slot(cell, *after) + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut filled = starts.clone();
        let mut states = vec![0; dfa.next.len()];
        for (cell, after) in dfa.next.iter().enumerate() {
            let at = &mut filled[slot(cell, *after)];
            states[*at as usize] = u32::try_from(cell / class_count).unwrap_or(u32::MAX);
            *at += 1;
        }
        Self { class_count, starts, states }
    }

    fn before(&self, state: u32, class: usize) -> &[u32] {
        let slot = state as usize * self.class_count + class;
        &self.states[self.starts[slot] as usize..self.starts[slot + 1] as usize]
    }
}

/// States in blocks; those of one block lie next to each other.
struct Partition {
    states: Vec<u32>,
    position: Vec<u32>,
    block_of: Vec<u32>,
    starts: Vec<u32>,
    ends: Vec<u32>,
    /// How many members of a block are marked; they stand at its front.
    marked: Vec<u32>,
}

impl Partition {
    /// All states in one block.
    fn new(count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            states: (0..count).collect(),
            position: (0..count).collect(),
            block_of: vec![0; count as usize],
            starts: vec![0],
            ends: vec![count],
            marked: vec![0],
        }
    }

    fn len(&self, block: u32) -> u32 {
        self.ends[block as usize] - self.starts[block as usize]
    }

    fn members(&self, block: u32) -> &[u32] {
        &self.states[self.starts[block as usize] as usize..self.ends[block as usize] as usize]
    }

    /// Splits every block into those that are in `chosen` and those that are not; says which became which.
    fn split(&mut self, chosen: &[u32], split: &mut Vec<(u32, u32)>) {
        let mut touched = Vec::new();
        for state in chosen {
            let block = self.block_of[*state as usize];
            let front = self.starts[block as usize] + self.marked[block as usize];
            let at = self.position[*state as usize];
            if at < front {
                continue;
            }
            let other = self.states[front as usize];
            self.states.swap(front as usize, at as usize);
            self.position[other as usize] = at;
            self.position[*state as usize] = front;
            if self.marked[block as usize] == 0 {
                touched.push(block);
            }
            self.marked[block as usize] += 1;
        }
        for block in touched {
            let marked = std::mem::take(&mut self.marked[block as usize]);
            if marked == self.len(block) {
                continue;
            }
            let new = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
            let start = self.starts[block as usize];
            self.starts.push(start);
            self.ends.push(start + marked);
            self.marked.push(0);
            self.starts[block as usize] = start + marked;
            for state in &self.states[start as usize..(start + marked) as usize] {
                self.block_of[*state as usize] = new;
            }
            split.push((block, new));
        }
    }
}
