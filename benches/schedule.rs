//! What a slot costs the schedule: `cargo bench --bench schedule`.
//!
//! Each iteration hands out one slot, of endpoints with the 26 intervals of 5 to 30 s in whole seconds. The
//! clock jumps to each slot, so this is the cost of being due and nothing else. The tables of a million
//! endpoints do not fit into a cache, but are read from front to back.

use divan::{Bencher, black_box};
use ringprobe::clock::{Micros, Wall};
use ringprobe::sample::EndpointId;
use ringprobe::schedule::Schedule;

fn main() {
    divan::main();
}

const START: Wall = Wall(1_800_000_000_000_000);
const COUNTS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];

fn schedule(count: u32) -> Schedule {
    let interval = |n: u32| Micros::from_millis(1_000 * (5 + u64::from(n * 7 % 26)));
    Schedule::new((0..count).map(|n| (n, EndpointId(n.cast_signed() + 1), interval(n))), START)
}

/// A slot that is due.
#[divan::bench(args = COUNTS)]
fn pop_due(bencher: Bencher<'_, '_>, count: u32) {
    let mut schedule = schedule(count);
    bencher.bench_local(|| schedule.pop_due(black_box(Wall(i64::MAX))));
}

/// Nothing due: what a turn pays for asking.
#[divan::bench(args = COUNTS)]
fn pop_not_due(bencher: Bencher<'_, '_>, count: u32) {
    let mut schedule = schedule(count);
    bencher.bench_local(|| schedule.pop_due(black_box(Wall(0))));
}

/// All tables of a node, as at start.
#[divan::bench(args = COUNTS, sample_count = 10, sample_size = 1)]
fn build(count: u32) -> Schedule {
    schedule(black_box(count))
}
