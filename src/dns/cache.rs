//! What is known about each question, and until when it may be used.
//!
//! A question is a name and a kind of address. Its life:
//!
//! ```text
//!  answered        80 % of its time        its time is over           stale_max later
//!     ├── fresh ───────┼─ fresh, asked again ──┼─ stale, if no server answers ─┤ unknown
//!                      └ refresh_at            └ expires                       └ stale_until
//! ```
//!
//! While it is asked again after its end and nobody has answered for [`STALE_AFTER`], or a try has just failed,
//! the old addresses are used and flagged as stale (RFC 8767). A negative answer is used while it is fresh, never
//! stale. A failure is remembered for [`FAILURE_TTL`], so that a broken name is not asked for by every probe of it
//! (RFC 9520).
//!
//! In scope: times, and the bounded table. Out of scope: who asks ([`super::resolver`]).
//!
//! Invariant: nothing is used after its time without saying so, and nothing at all after `stale_until`.

use std::collections::HashMap;
use std::net::IpAddr;

use super::conf::{Settings, TTL_MIN};
use super::message::{self, Kind};
use super::name::Name;
use crate::clock::{Micros, Mono};
use crate::sample::Failure;

/// How long a query may be under way before a stale answer is used instead. RFC 8767, section 5, lets a person wait
/// for 1.8 s; a probe must not. A name in use is asked again so much earlier that it never waits: at
/// [`REFRESH_PERCENT`] of a second there are 150 ms left at least.
pub const STALE_AFTER: Micros = Micros::from_millis(100);
/// How long a failure is remembered: RFC 9520, section 3.2, asks for a second at least and five minutes at most.
pub const FAILURE_TTL: Micros = Micros::from_millis(5_000);
/// Shortest time "there is none" is believed: a server that says so without an SOA must not be asked again at once.
pub const NEGATIVE_TTL_MIN: Micros = Micros::from_millis(5_000);
/// When an answer is asked for again, in percent of its time: between these two, so that names that were asked
/// together drift apart.
pub const REFRESH_PERCENT: (u64, u64) = (75, 85);

// Who asks again before an answer's time is over has waited long enough when it is, however short that time; and
// when a failure is forgotten, too.
const _: () = assert!(TTL_MIN.0 * (100 - REFRESH_PERCENT.1) / 100 >= STALE_AFTER.0);
const _: () = assert!(FAILURE_TTL.0 * (100 - REFRESH_PERCENT.1) / 100 >= STALE_AFTER.0);

/// Number of a question in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct QuestionIndex(pub(super) u32);

/// Times of [`Settings`], with the bounds that keep them sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    ttl_min: Micros,
    ttl_max: Micros,
    negative_ttl_max: Micros,
    stale_max: Micros,
}

impl Lifetimes {
    pub(super) fn new(settings: &Settings) -> Self {
        // An answer that is over when it comes would be asked for for ever.
        let ttl_min = settings.ttl_min.max(Micros::from_millis(1));
        Self {
            ttl_min,
            ttl_max: settings.ttl_max.max(ttl_min),
            negative_ttl_max: settings.negative_ttl_max.max(NEGATIVE_TTL_MIN),
            stale_max: settings.stale_max,
        }
    }

    fn positive(&self, ttl_s: u32) -> Micros {
        seconds(ttl_s).clamp(self.ttl_min, self.ttl_max)
    }

    fn negative(&self, ttl_s: Option<u32>) -> Micros {
        seconds(ttl_s.unwrap_or(0)).clamp(NEGATIVE_TTL_MIN, self.negative_ttl_max)
    }
}

const fn seconds(ttl_s: u32) -> Micros {
    Micros::from_millis(ttl_s as u64 * 1_000)
}

/// What a server said last.
#[derive(Clone, Debug)]
struct Answer {
    what: What,
    answered_at: Mono,
    expires: Mono,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// These, sorted; at least one.
    Addresses(Box<[IpAddr]>),
    /// The name, but no address of this kind.
    NoData,
    /// Not even the name.
    NoName,
}

/// What may be used of a question now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View<'c> {
    /// An answer, and until when.
    Fresh(&'c What, Mono),
    /// Addresses past their time, for want of newer ones.
    Stale(&'c [IpAddr]),
    /// That there are none, past its time: worth as much as nothing, but beside addresses of the other kind it will do.
    Lapsed,
    /// Nobody answered, or not well, a moment ago.
    Failed(Failure),
    /// Nothing: it must be asked, or is being asked.
    Unknown,
}

/// One question and its state.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: Kind,
    answer: Option<Answer>,
    failed: Option<(Failure, Mono)>,
    /// Entries of the resolver that use this question.
    pub(super) users: Vec<u32>,
    /// Since when an answer is wanted and has not come.
    pub(super) wanted_since: Option<Mono>,
    /// The query under way, by its place in the resolver's table.
    pub(super) flight: Option<u32>,
    /// Whether it stands in the queue of those that somebody waits for, and of those that nobody does.
    pub(super) queued: Queued,
    /// When it should be asked again, if somebody uses it then.
    pub(super) refresh_at: Option<Mono>,
    /// The timers that are set, to be able to unset them.
    pub(super) refresh_timer: Option<Mono>,
    pub(super) stale_timer: Option<Mono>,
}

/// Membership of the resolver's two queues.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queued {
    pub(super) urgent: bool,
    pub(super) idle: bool,
}

impl Question {
    const fn new(name: Name, kind: Kind) -> Self {
        Self {
            name,
            kind,
            answer: None,
            failed: None,
            users: Vec::new(),
            wanted_since: None,
            flight: None,
            queued: Queued { urgent: false, idle: false },
            refresh_at: None,
            refresh_timer: None,
            stale_timer: None,
        }
    }

    /// What a lookup may use. `since`: only what was learnt at or after this instant. `waits_since`: a failure since
    /// then holds for who has waited since then, or the failures of two questions might miss each other for ever.
    pub(super) fn view(
        &self,
        lifetimes: &Lifetimes,
        now: Mono,
        since: Option<Mono>,
        waits_since: Option<Mono>,
    ) -> View<'_> {
        if let Some(since) = since {
            return match (&self.answer, self.failed) {
                (Some(answer), _) if answer.answered_at >= since => View::Fresh(&answer.what, answer.expires),
                (_, Some((failure, at))) if at >= since => View::Failed(failure),
                _ => View::Unknown,
            };
        }
        let failed_meanwhile =
            self.failed.is_some_and(|(_, at)| waits_since.is_some_and(|waits_since| at >= waits_since));
        let failed = failed_meanwhile || self.failure_holds(now);
        if let Some(answer) = &self.answer {
            if now < answer.expires {
                return View::Fresh(&answer.what, answer.expires);
            }
            let usable = now < answer.expires + lifetimes.stale_max;
            let overdue = self.wanted_since.is_some_and(|since| now >= since + STALE_AFTER);
            match &answer.what {
                What::Addresses(addresses) if usable && (overdue || failed) => return View::Stale(addresses),
                // A failure says as much, and ends the waiting of who has nothing else.
                What::NoData if usable && overdue && !failed => return View::Lapsed,
                _ => {}
            }
        }
        match self.failed {
            Some((failure, _)) if failed => View::Failed(failure),
            _ => View::Unknown,
        }
    }

    /// When a stale answer may stand in for the one that is wanted.
    pub(super) fn stale_at(&self, lifetimes: &Lifetimes) -> Option<Mono> {
        let since = self.wanted_since?;
        let answer = self.answer.as_ref().filter(|answer| answer.what != What::NoName)?;
        let at = since + STALE_AFTER;
        (at < answer.expires + lifetimes.stale_max).then_some(at)
    }

    /// Takes an answer that arrived at `arrived`, and plans to ask again after `percent` of its time, which is
    /// drawn from [`REFRESH_PERCENT`].
    ///
    /// Its time runs from `now`: one that was over by the time that we came to look would be of no use to who
    /// waits for it, who would ask again, and again come late.
    pub(super) fn answered(
        &mut self,
        lifetimes: &Lifetimes,
        answer: message::Answer,
        arrived: Mono,
        now: Mono,
        percent: u64,
    ) {
        let (what, ttl) = match answer {
            message::Answer::Addresses { addresses, ttl_s } => {
                (What::Addresses(addresses.into()), lifetimes.positive(ttl_s))
            }
            message::Answer::NoName(ttl_s) => (What::NoName, lifetimes.negative(ttl_s)),
            message::Answer::NoData(ttl_s) => (What::NoData, lifetimes.negative(ttl_s)),
        };
        debug_assert!(ttl.0 > 0 && percent < 100);
        self.answer = Some(Answer { what, answered_at: arrived, expires: now + ttl });
        self.failed = None;
        self.wanted_since = None;
        self.refresh_at = Some(now + Micros(ttl.0 * percent / 100));
    }

    /// Takes the failure of all servers, and plans to ask again: early enough that an old answer can stand in
    /// without a gap.
    pub(super) fn gave_up(&mut self, failure: Failure, now: Mono, percent: u64) {
        self.failed = Some((failure, now));
        self.wanted_since = None;
        self.refresh_at = Some(now + Micros(FAILURE_TTL.0 * percent / 100));
    }

    /// A failure holds for its time; and, if it is asked again within that, until it is known better: who asks for a
    /// name that nobody can tell must not wait for the timeouts of each new try.
    fn failure_holds(&self, now: Mono) -> bool {
        self.failed.is_some_and(|(_, at)| {
            let until = at + FAILURE_TTL;
            now < until || self.wanted_since.is_some_and(|since| since < until)
        })
    }
}

/// The questions that somebody uses.
#[derive(Debug, Default)]
pub(super) struct Cache {
    questions: Vec<Option<Question>>,
    free: Vec<QuestionIndex>,
    by_name: HashMap<(Name, Kind), QuestionIndex>,
}

impl Cache {
    /// The question, which `user` uses from now on.
    pub(super) fn acquire(&mut self, name: &Name, kind: Kind, user: u32) -> QuestionIndex {
        let index = match self.by_name.get(&(name.clone(), kind)) {
            Some(index) => *index,
            None => self.insert(name.clone(), kind),
        };
        self[index].users.push(user);
        index
    }

    /// `user` uses the question no more: with its last user it goes, and is handed back.
    pub(super) fn release(&mut self, index: QuestionIndex, user: u32) -> Option<Question> {
        let question = &mut self[index];
        let place = question.users.iter().position(|other| *other == user);
        question.users.swap_remove(place.expect("it was acquired"));
        if !question.users.is_empty() {
            return None;
        }
        let question = self.questions[index.0 as usize].take().expect("just looked at");
        self.by_name.remove(&(question.name.clone(), question.kind));
        self.free.push(index);
        Some(question)
    }

    /// The question, unless it has gone.
    pub(super) fn get_mut(&mut self, index: QuestionIndex) -> Option<&mut Question> {
        self.questions.get_mut(index.0 as usize)?.as_mut()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    fn insert(&mut self, name: Name, kind: Kind) -> QuestionIndex {
        let index = self.free.pop().unwrap_or_else(|| {
            self.questions.push(None);
            QuestionIndex(u32::try_from(self.questions.len() - 1).expect("names are bounded far below"))
        });
        self.by_name.insert((name.clone(), kind), index);
        self.questions[index.0 as usize] = Some(Question::new(name, kind));
        index
    }
}

impl std::ops::Index<QuestionIndex> for Cache {
    type Output = Question;
    fn index(&self, index: QuestionIndex) -> &Question {
        self.questions[index.0 as usize].as_ref().expect("who holds an index holds the question")
    }
}

impl std::ops::IndexMut<QuestionIndex> for Cache {
    fn index_mut(&mut self, index: QuestionIndex) -> &mut Question {
        self.questions[index.0 as usize].as_mut().expect("who holds an index holds the question")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(1_000_000_000_000);

    fn after_ms(ms: u64) -> Mono {
        START + Micros::from_millis(ms)
    }

    fn question() -> Question {
        Question::new(Name::parse("a.example").unwrap(), Kind::A)
    }

    fn addresses(ttl_s: u32) -> message::Answer {
        message::Answer::Addresses { addresses: vec!["192.0.2.1".parse().unwrap()], ttl_s }
    }

    fn lifetimes() -> Lifetimes {
        let settings = Settings { stale_max: Micros::from_millis(60_000), ..Settings::default() };
        Lifetimes::new(&settings)
    }

    /// For how many ms an answer is fresh, and after how many it is asked again.
    fn check(answer: message::Answer, fresh_ms: u64, refresh_ms: u64) {
        let lifetimes = lifetimes();
        let mut question = question();
        question.answered(&lifetimes, answer.clone(), START, START, 80);
        let fresh = |ms| matches!(question.view(&lifetimes, after_ms(ms), None, None), View::Fresh(..));
        assert!(fresh(0) && fresh(fresh_ms - 1), "{answer:?} is fresh");
        assert!(!fresh(fresh_ms), "{answer:?} is fresh no more");
        assert_eq!(question.refresh_at, Some(after_ms(refresh_ms)), "{answer:?}");
    }

    #[test]
    fn times_to_live_have_a_floor_and_a_ceiling() {
        check(addresses(10), 10_000, 8_000);
        check(addresses(0), 1_000, 800);
        check(addresses(u32::MAX), 3_600_000, 2_880_000);
        check(message::Answer::NoName(Some(60)), 60_000, 48_000);
        check(message::Answer::NoName(None), 5_000, 4_000);
        check(message::Answer::NoData(Some(86_400)), 300_000, 240_000);
        check(message::Answer::NoData(Some(0)), 5_000, 4_000);
    }

    #[test]
    fn an_answer_is_used_past_its_time_only_when_nobody_answers_and_says_so() {
        let lifetimes = lifetimes();
        let mut question = question();
        question.answered(&lifetimes, addresses(10), START, START, 80);
        assert_eq!(
            question.view(&lifetimes, after_ms(10_000), None, None),
            View::Unknown,
            "nobody has tried"
        );
        question.wanted_since = Some(after_ms(10_000));
        assert_eq!(question.view(&lifetimes, after_ms(10_099), None, None), View::Unknown, "be patient");
        assert_eq!(question.stale_at(&lifetimes), Some(after_ms(10_100)));
        assert!(matches!(question.view(&lifetimes, after_ms(10_100), None, None), View::Stale(_)));
        question.gave_up(Failure::DnsTimeout, after_ms(11_000), 80);
        assert_eq!(question.refresh_at, Some(after_ms(15_000)));
        assert!(matches!(question.view(&lifetimes, after_ms(11_000), None, None), View::Stale(_)));
        assert_eq!(question.view(&lifetimes, after_ms(16_000), None, None), View::Unknown, "try again");
        question.wanted_since = Some(after_ms(15_000));
        assert!(
            matches!(question.view(&lifetimes, after_ms(16_000), None, None), View::Stale(_)),
            "without a gap"
        );
        question.gave_up(Failure::DnsTimeout, after_ms(69_999), 80);
        assert!(matches!(question.view(&lifetimes, after_ms(69_999), None, None), View::Stale(_)));
        let failed = View::Failed(Failure::DnsTimeout);
        assert_eq!(question.view(&lifetimes, after_ms(70_000), None, None), failed, "stale_max is over");
    }

    #[test]
    fn who_asks_every_time_sees_nothing_older() {
        let lifetimes = lifetimes();
        let mut question = question();
        question.answered(&lifetimes, addresses(10), START, START, 80);
        assert!(matches!(question.view(&lifetimes, START, Some(START), None), View::Fresh(..)));
        assert_eq!(question.view(&lifetimes, START, Some(after_ms(1)), None), View::Unknown);
        question.gave_up(Failure::DnsFailed, after_ms(5), 80);
        assert_eq!(question.view(&lifetimes, after_ms(6), Some(after_ms(6)), None), View::Unknown);
        assert_eq!(
            question.view(&lifetimes, after_ms(6), Some(after_ms(5)), None),
            View::Failed(Failure::DnsFailed),
            "no stale answer for who wants to know how it is now"
        );
    }

    #[test]
    fn a_negative_answer_is_never_used_past_its_time() {
        let lifetimes = lifetimes();
        let mut question = question();
        question.answered(&lifetimes, message::Answer::NoName(Some(10)), START, START, 80);
        question.wanted_since = Some(after_ms(8_000));
        assert_eq!(question.view(&lifetimes, after_ms(10_000), None, None), View::Unknown);
        assert_eq!(question.stale_at(&lifetimes), None);
    }

    #[test]
    fn a_question_lives_as_long_as_it_is_used() {
        let mut cache = Cache::default();
        let name = Name::parse("a.example").unwrap();
        let first = cache.acquire(&name, Kind::A, 1);
        assert_eq!(cache.acquire(&name, Kind::A, 2), first, "one question, two users");
        assert_ne!(cache.acquire(&name, Kind::Aaaa, 2), first);
        assert_eq!(cache.len(), 2);
        assert!(cache.release(first, 1).is_none());
        assert!(cache.release(first, 2).is_some());
        assert_eq!((cache.len(), cache.get_mut(first).is_none()), (1, true));
        assert_eq!(cache.acquire(&Name::parse("b.example").unwrap(), Kind::A, 3), first, "its place is free");
    }
}
