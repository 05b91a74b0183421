//! What the writer's core spends on each sample: counting it, batching it, encoding it.
//!
//! `cargo bench --bench writer`; the time shown is per 10,000 samples.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringprobe::clock::Wall;
use ringprobe::sample::{Detail, EndpointId, Failure, Flags, Outcome, Phases, Sample};
use ringprobe::writer::{Tally, pgcopy};

const SAMPLES: usize = 10_000;

fn main() {
    divan::main();
}

/// Samples as a mixed target gives them: latencies over three decades, one in fifty down.
fn samples() -> Vec<Sample> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        i32::try_from(random % bound).unwrap_or(0)
    };
    (0..SAMPLES)
        .map(|row| {
            let decade = 10_u64.pow(1 + below(4).cast_unsigned());
            let phases = Phases {
                resolve_us: -1,
                connect_us: below(decade),
                tls_us: -1,
                processing_us: below(10 * decade),
                transfer_us: below(decade),
            };
            let down = below(50) == 0;
            Sample {
                twin: 0,
                ts: Wall(1_795_500_000_000_000 + i64::from(below(1_000_000))),
                endpoint_id: EndpointId(i32::try_from(row).unwrap_or(0)),
                lag_us: below(2_000),
                phases,
                total_us: phases.sum_us(),
                write_us: phases.processing_us.min(9),
                agent_us: below(100),
                bytes_in: below(100_000),
                bytes_out: 120,
                cpu_ns: below(20_000),
                status: if down { 500 } else { 200 },
                outcome: if down { Outcome::Down } else { Outcome::Up },
                reason: if down { Failure::StatusUnexpected.code() } else { 0 },
                flags: Flags::REUSE,
                detail: Detail::NONE,
            }
        })
        .collect()
}

/// One row of COPY data: a template with 26 values patched in.
#[divan::bench]
fn copy_encode(bencher: Bencher<'_, '_>) {
    let samples = samples();
    bencher.counter(ItemsCount::new(SAMPLES)).bench_local(|| {
        for chunk in pgcopy::chunks(black_box(&samples)) {
            black_box(chunk);
        }
    });
}

/// One sample into the counts and the four distributions.
#[divan::bench]
fn tally_record(bencher: Bencher<'_, '_>) {
    let samples = samples();
    let mut tally = Tally::new();
    bencher.counter(ItemsCount::new(SAMPLES)).bench_local(|| {
        for sample in black_box(&samples) {
            tally.record(sample);
        }
    });
    black_box(tally);
}

/// What is published once a second: the whole tally, copied.
#[divan::bench]
fn tally_clone(bencher: Bencher<'_, '_>) {
    let mut tally = Tally::new();
    samples().iter().for_each(|sample| tally.record(sample));
    bencher.bench_local(|| black_box(tally.clone()));
}
