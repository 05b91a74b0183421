//! The simulation's worlds. `SEED=… scripts/test sim` replays one that failed.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a seed that is not printed cannot be replayed"
)]

use ringprobe::testing::sim::network::Character;
use ringprobe::testing::sim::{Breakage, Options, Origins, Report, Scale, run};

/// Says how to replay a world in which the code under test panicked.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: SEED={} scripts/test sim", self.0);
        }
    }
}

fn world(options: &Options) -> Report {
    let _replay = Replay(options.seed);
    run(options).unwrap_or_else(|violation| panic!("{violation}"))
}

/// The seed to replay; else a fixed list, and one that nobody has seen.
fn seeds(fixed: std::ops::Range<u64>) -> Vec<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        return vec![seed.parse().expect("SEED is a whole number")];
    }
    let fresh = ringprobe::clock::Reading::now().real_ns;
    println!("fresh seed: {fresh}");
    fixed.chain([fresh]).collect()
}

/// The world as it is, and once more with a database that never fails.
fn live(scale: Scale, fixed: std::ops::Range<u64>) {
    let mut sum = Report::default();
    for seed in seeds(fixed) {
        let options = Options::new(seed, scale);
        let report = world(&options);
        let calm = world(&Options { database_fails: false, ..options });
        let _replay = Replay(seed);
        assert_eq!((report.samples, report.slots), (calm.samples, calm.slots), "the database was felt");
        assert_eq!(report.trace, calm.trace, "same seed, same trace");
        assert!(report.due > 0 && report.due == report.sampled + report.missed);
        sum.simulated_s += report.simulated_s;
        sum.due += report.due;
        sum.missed += report.missed;
        sum.up += report.up;
        sum.opened += report.opened;
        sum.stored += report.stored;
        sum.dropped += report.dropped;
    }
    println!("{scale:?}: {} h: {sum:?}", sum.simulated_s / 3_600);
}

#[test]
fn long_worlds() {
    live(Scale::Long, 0..6);
}

/// In two tests, because tests run side by side.
#[test]
fn more_long_worlds() {
    live(Scale::Long, 6..12);
}

#[test]
fn dense_worlds() {
    live(Scale::Dense, 1_000..1_010);
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in seeds(2_000..2_002) {
        let options = Options::new(seed, Scale::Dense);
        assert_eq!(world(&options), world(&options));
        let another = Options::new(seed + 1, Scale::Dense);
        assert_ne!(world(&options).trace, world(&another).trace, "and another seed is another");
    }
}

#[test]
fn slots_do_not_depend_on_origins() {
    for seed in seeds(3_000..3_003) {
        let of = |character| {
            world(&Options { origins: Origins::All(character), ..Options::new(seed, Scale::Dense) })
        };
        let (fast, dead, drip) = (of(Character::Fast), of(Character::Dead), of(Character::Drip));
        assert_eq!((fast.slots, fast.due), (dead.slots, dead.due), "seed {seed}");
        assert_eq!((fast.slots, fast.due), (drip.slots, drip.due), "seed {seed}");
        assert!(fast.up > 0 && dead.up == 0);
    }
}

/// What finds a breakage: a violation, in some of a few worlds.
fn found(breakage: Breakage, expected: &str) {
    let violation = (4_000..4_010).find_map(|seed| {
        run(&Options { breakage: Some(breakage), ..Options::new(seed, Scale::Dense) }).err()
    });
    let message = violation.unwrap_or_else(|| panic!("{breakage:?} was not found")).to_string();
    assert!(message.contains(expected), "{breakage:?} was found as: {message}");
    assert!(message.contains("SEED=40"), "{message}");
}

#[test]
fn what_is_broken_is_found() {
    found(Breakage::ReleasesTwice, "released when Gone");
    found(Breakage::ForgetsReleases, "never released");
    found(Breakage::ShiftedSlots, "not a slot of its endpoint");
    found(Breakage::LosesSamples, "slots");
    found(Breakage::LosesRows, "samples, of which");
    found(Breakage::StoresTwice, "stored twice");
    found(Breakage::Oversleeps, "later than it may");
    found(Breakage::ExpiresUnseen, "cannot end as Some(");
    found(Breakage::LosesCompletions, "cannot end as Some(");
}

#[test]
fn waiting_for_the_database_is_found() {
    let differs = (5_000..5_005).any(|seed| {
        let waits =
            Options { breakage: Some(Breakage::WaitsForDatabase), ..Options::new(seed, Scale::Dense) };
        match (run(&waits), run(&Options { database_fails: false, ..waits })) {
            (Ok(up_and_down), Ok(up)) => up_and_down.samples != up.samples,
            _ => true,
        }
    });
    assert!(differs);
}
