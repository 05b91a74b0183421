//! Timeouts: one FIFO per distinct time span, so that arming, disarming and expiry are all O(1).
//!
//! Everything armed with the same span expires in the order in which it was armed, so a queue per span is
//! sorted for free (libevent's "common timeouts"). Members sit in a doubly linked list through arrays that are
//! indexed by connection: no allocation per probe, no garbage that waits for its time, memory bounded by the
//! number of connections.
//!
//! Out of scope: what a deadline means. Invariant: an index is in at most one queue.

use crate::clock::{Micros, Mono};

/// One of the spans that [`Deadlines::class`] handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassId(u16);

/// The armed deadlines of one shard, by connection index.
#[derive(Debug, Default)]
pub struct Deadlines {
    classes: Vec<Class>,
    members: Vec<Member>,
    /// Not later than the earliest deadline armed.
    next: Option<Mono>,
}

#[derive(Debug)]
struct Class {
    span: Micros,
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    at: Mono,
    before: u32,
    after: u32,
    class: u16,
}

const NONE: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;

impl Deadlines {
    /// The queue of `span`, made if need be. There are as many as distinct timeouts among the endpoints:
    /// call this when an endpoint is loaded, not when it is probed.
    ///
    /// A span for which there is no room (65,535 of them) shares the next longer one's queue.
    pub fn class(&mut self, span: Micros) -> ClassId {
        if let Some(found) = self.classes.iter().position(|class| class.span == span) {
            return class_id(found);
        }
        if self.classes.len() >= usize::from(UNARMED) {
            let longer = self.classes.iter().enumerate().filter(|(_, class)| class.span > span);
            let nearest = longer.min_by_key(|(_, class)| class.span).map_or(0, |(found, _)| found);
            return class_id(nearest);
        }
        self.classes.push(Class { span, head: NONE, tail: NONE });
        class_id(self.classes.len() - 1)
    }

    /// Arms `index` to expire a span after `now`. `now` must not run backwards.
    pub fn arm(&mut self, index: u32, class: ClassId, now: Mono) {
        let slot = index as usize;
        if slot >= self.members.len() {
            let unarmed = Member { at: Mono::NEVER, before: NONE, after: NONE, class: UNARMED };
            self.members.resize(slot + 1, unarmed);
        }
        assert_eq!(self.members[slot].class, UNARMED, "armed twice");
        let queue = &mut self.classes[usize::from(class.0)];
        let at = now + queue.span;
        self.members[slot] = Member { at, before: queue.tail, after: NONE, class: class.0 };
        if queue.tail == NONE {
            queue.head = index;
        } else {
            let tail = &mut self.members[queue.tail as usize];
            debug_assert!(tail.at <= at, "armed in order");
            tail.after = index;
        }
        queue.tail = index;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Disarms `index`; nothing happens if it is not armed.
    pub fn disarm(&mut self, index: u32) {
        let Some(member) = self.members.get_mut(index as usize) else { return };
        if member.class == UNARMED {
            return;
        }
        let Member { before, after, class, .. } = *member;
        member.class = UNARMED;
        let queue = &mut self.classes[usize::from(class)];
        match before {
            NONE => queue.head = after,
            before => self.members[before as usize].after = after,
        }
        match after {
            NONE => queue.tail = before,
            after => self.members[after as usize].before = before,
        }
    }

    /// The index whose deadline is the earliest, if that is not after `now`. It stays armed.
    pub fn due(&mut self, now: Mono) -> Option<u32> {
        if self.next? > now {
            return None;
        }
        let heads = self.classes.iter().map(|class| class.head).filter(|head| *head != NONE);
        let earliest = heads.min_by_key(|head| self.members[*head as usize].at);
        self.next = earliest.map(|head| self.members[head as usize].at);
        earliest.filter(|head| self.members[*head as usize].at <= now)
    }

    /// An index whose deadline is not after `now`, disarmed; `None` when there is no more.
    pub fn expire(&mut self, now: Mono) -> Option<u32> {
        let index = self.due(now)?;
        self.disarm(index);
        Some(index)
    }

    /// Not later than the earliest deadline: when to call [`Self::expire`] again.
    #[must_use]
    pub const fn next(&self) -> Option<Mono> {
        self.next
    }
}

fn class_id(index: usize) -> ClassId {
    ClassId(u16::try_from(index).expect("classes are fewer than UNARMED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(deadlines: &mut Deadlines, now_us: u64) -> Vec<u32> {
        std::iter::from_fn(|| deadlines.expire(Mono(now_us * 1_000))).collect()
    }

    #[test]
    fn expire_in_order_across_classes() {
        let mut deadlines = Deadlines::default();
        let (long, short) = (deadlines.class(Micros(100)), deadlines.class(Micros(10)));
        assert_eq!(deadlines.class(Micros(100)), long);
        deadlines.arm(0, long, Mono(0));
        deadlines.arm(1, short, Mono(1_000));
        deadlines.arm(2, short, Mono(95_000));
        assert_eq!(drain(&mut deadlines, 10), [] as [u32; 0]);
        assert_eq!(drain(&mut deadlines, 11), [1]);
        assert_eq!(drain(&mut deadlines, 1_000), [0, 2]);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn disarming_anywhere_keeps_the_queue_whole() {
        for gone in 0..4 {
            let mut deadlines = Deadlines::default();
            let class = deadlines.class(Micros(10));
            (0..4).for_each(|index| deadlines.arm(index, class, Mono(u64::from(index))));
            deadlines.disarm(gone);
            deadlines.disarm(gone);
            deadlines.arm(9, class, Mono(5));
            let left: Vec<u32> = (0..4).filter(|index| *index != gone).chain([9]).collect();
            assert_eq!(drain(&mut deadlines, 1_000), left);
        }
    }

    #[test]
    fn next_is_never_too_late() {
        let mut deadlines = Deadlines::default();
        let class = deadlines.class(Micros(10));
        deadlines.arm(3, class, Mono(0));
        deadlines.disarm(3);
        deadlines.arm(3, class, Mono(7_000));
        assert!(deadlines.next() <= Some(Mono(17_000)));
        assert_eq!(drain(&mut deadlines, 16), [] as [u32; 0]);
        assert_eq!(deadlines.next(), Some(Mono(17_000)));
    }
}
