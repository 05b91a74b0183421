//! The resolver among bad servers for simulated hours: what must hold at every step is checked by the world, what
//! must hold in the end is checked here.

use super::seed;
use super::world::{Habits, Host, MS, SECOND, World};
use crate::clock::Micros;
use crate::dns::conf::Settings;
use crate::dns::resolver::{Family, Lookup, Mode, NameId};
use crate::sample::Failure;

fn settings(server_count: u8) -> Settings {
    let server = |n| format!("192.0.2.{n}:53").parse().unwrap();
    Settings {
        servers: (1..=server_count).map(server).collect(),
        timeout: Micros::from_millis(1_000),
        queries_max: 16,
        ..Settings::default()
    }
}

/// Everything at once: servers that change their habits, names of every sort, lookups of both modes at any time, names
/// that come and go.
#[test]
fn chaos() {
    let seed = seed();
    println!("SEED={seed}");
    for round in 0..20 {
        chaos_round(seed.wrapping_add(round));
    }
}

fn chaos_round(seed: u64) {
    let mut world = World::new(settings(3), seed);
    let families = [Family::PreferV4, Family::PreferV6, Family::V4, Family::V6];
    let mut ids: Vec<NameId> = Vec::new();
    let mut texts = Vec::new();
    for n in 0..30_u8 {
        let text = format!("host{n}.example");
        renew(&mut world, n, &text);
        ids.push(world.intern(&text, families[usize::from(n % 4)], &[&text]));
        // Another name that needs the same questions.
        ids.push(world.intern(&text, families[usize::from(n / 4 % 4)], &[&text]));
        texts.push(text);
    }
    let end = world.now.0 + 300 * SECOND;
    let mut lookups = 0_u64;
    while world.now.0 < end {
        let pause = world.below(100 * MS);
        world.advance_by(pause);
        let id = ids[world.below(ids.len() as u64) as usize];
        let mode = if world.below(4) == 0 { Mode::Every } else { Mode::Cached };
        world.lookup(id, mode);
        lookups += 1;
        match world.below(200) {
            0 => {
                let server = world.below(3) as usize;
                let bad = [0, 0, 10, 50, 100];
                let mut percent = || bad[world.below(5) as usize];
                world.habits[server] = Habits {
                    loses: percent(),
                    fails: percent(),
                    truncates: percent(),
                    wrong_id: percent(),
                    wrong_question: percent(),
                    garbage: percent(),
                    ..Habits::default()
                };
                world.habits[server].dead = world.below(5) == 0;
                world.habits[server].closed = world.below(5) == 0;
                world.habits[server].refuses_edns = world.below(5) == 0;
                world.habits[server].delay_max_ns = [MS, 50 * MS, 1_500 * MS][world.below(3) as usize];
            }
            1..5 => {
                let n = world.below(30) as u8;
                renew(&mut world, n, &texts[usize::from(n)]);
            }
            5 => {
                let place = world.below(ids.len() as u64) as usize;
                let text = texts[place / 2].clone();
                world.resolver.release(ids[place]);
                let family = families[world.below(4) as usize];
                ids[place] = world.intern(&text, family, &[&text]);
            }
            _ => {}
        }
    }
    let counts = world.resolver.counts();
    assert!(lookups > 3_000 && counts.answered > 500, "it was not for nothing: {lookups}, {counts:?}");
    // Nobody asks any more: what is under way ends, and then there is silence.
    ids.iter().for_each(|id| world.resolver.release(*id));
    world.advance_by(120 * SECOND);
    assert!(!world.is_waiting(), "everybody was woken");
    assert_eq!((world.open_queries(), world.resolver.in_flight()), (0, 0));
    world.advance_by(2 * 3_600 * SECOND);
    assert_eq!(world.resolver.next_wake(), None, "no timer is left");
}

/// Gives a name something new: addresses, aliases, a time to live; or takes it away.
fn renew(world: &mut World, n: u8, text: &str) {
    let mut host = Host { ttl_s: [0, 1, 2, 10, 60][world.below(5) as usize], ..Host::default() };
    let sort = world.below(8);
    if sort & 1 == 0 {
        host.v4 = (0..=world.below(5) as u8).map(|k| [10, n, k, world.below(250) as u8].into()).collect();
        host.v4.dedup();
    }
    if sort & 2 == 0 {
        let last = world.below(0xffff) as u16;
        host.v6 = vec![[0x2001, 0xdb8, 0, 0, 0, 0, u16::from(n), last].into()];
    }
    host.aliases = world.below(4) as u32;
    host.is_loop = host.aliases > 1 && world.below(10) == 0;
    if sort == 7 {
        world.zone.remove(text);
    } else {
        world.zone.insert(text.to_owned(), host);
    }
}

/// Names with times to live from 1 s to 1 h, log-uniform, looked up every 5 to 60 s.
struct Fleet {
    world: World,
    /// Name, its next lookup, and how often it is looked up.
    schedule: std::collections::BTreeMap<(u64, usize), (NameId, u64)>,
}

#[derive(Debug, Default, PartialEq)]
struct Tally {
    fresh: u64,
    stale: u64,
    pending: u64,
    failed: u64,
}

impl Fleet {
    fn new(count: usize, seed: u64) -> Self {
        let settings = Settings { queries_max: 256, ..settings(2) };
        let mut world = World::new(settings, seed);
        let mut schedule = std::collections::BTreeMap::new();
        for n in 0..count {
            let text = format!("host{n}.example");
            // 1 s · 3600^(n/count)
            let ttl_s = 3_600_f64.powf(n as f64 / count as f64) as u32;
            world.zone.insert(text.clone(), Host::v4((n % 200) as u8, ttl_s));
            let family = if n % 2 == 0 { Family::V4 } else { Family::PreferV4 };
            let id = world.intern(&text, family, &[&text]);
            let every = (5 + world.below(56)) * SECOND;
            schedule.insert((world.now.0 + world.below(every), n), (id, every));
        }
        Self { world, schedule }
    }

    fn run(&mut self, ns: u64) -> Tally {
        let end = self.world.now.0 + ns;
        let mut tally = Tally::default();
        while let Some(entry) = self.schedule.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, n), (id, every)) = entry.remove_entry();
            self.schedule.insert((at + every, n), (id, every));
            self.world.advance(crate::clock::Mono(at));
            match self.world.lookup(id, Mode::Cached) {
                Lookup::Known(known) if known.stale => tally.stale += 1,
                Lookup::Known(_) => tally.fresh += 1,
                Lookup::Pending => tally.pending += 1,
                Lookup::Failed(_) => tally.failed += 1,
            }
        }
        self.world.advance(crate::clock::Mono(end));
        tally
    }
}

#[test]
fn after_warm_up_no_lookup_waits() {
    let mut fleet = Fleet::new(10_000, seed());
    let warm_up = fleet.run(61 * SECOND);
    assert_eq!(warm_up.pending, 10_000, "each name once: {warm_up:?}");
    let asked = fleet.world.resolver.counts().asked;
    let tally = fleet.run(120 * SECOND);
    assert_eq!((tally.pending, tally.failed, tally.stale), (0, 0, 0), "{tally:?}");
    assert!(tally.fresh > 40_000, "{tally:?}");
    let rate = (fleet.world.resolver.counts().asked - asked) / 120;
    println!("{rate} queries/s keep 10,000 names fresh; {tally:?}");
}

#[test]
fn a_resolver_that_is_gone_for_a_minute_changes_no_outcome() {
    for habits in [Habits { dead: true, ..Habits::default() }, Habits { closed: true, ..Habits::default() }] {
        let mut fleet = Fleet::new(1_000, seed());
        fleet.run(61 * SECOND);
        let well = fleet.world.habits.clone();
        fleet.world.habits.fill(habits);
        let gone = fleet.run(60 * SECOND);
        assert_eq!((gone.pending, gone.failed), (0, 0), "{gone:?}");
        assert!(gone.stale > 100 && gone.fresh > 100, "some times are over, some are not: {gone:?}");
        fleet.world.habits = well;
        // Failures are remembered for 5 s, and a query may be under way that was lost.
        fleet.run(15 * SECOND);
        let back = fleet.run(60 * SECOND);
        assert_eq!((back.pending, back.failed, back.stale), (0, 0, 0), "{back:?}");
    }
}

#[test]
fn who_asks_every_time_asks_every_time() {
    let mut world = World::new(settings(1), seed());
    world.zone.insert("a.example".to_owned(), Host::v4(1, 3_600));
    let id = world.intern("a.example", Family::V4, &["a.example"]);
    for n in 1..=100 {
        assert_eq!(world.resolve(id, Mode::Every, SECOND).unwrap().addresses.len(), 1);
        assert_eq!(world.resolver.counts().asked, n);
        world.advance_by(SECOND);
    }
    world.advance_by(7_200 * SECOND);
    assert_eq!(world.resolver.counts().asked, 100, "nothing is asked in between");
    // It is how it is now that counts: no old answer stands in.
    world.habits[0].dead = true;
    assert_eq!(world.resolve(id, Mode::Every, 5 * SECOND), Err(Failure::DnsTimeout));
}
