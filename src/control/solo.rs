//! One shard by itself, for a while, with every sample kept: for measurements of the prober rather than by it.
//!
//! There is no writer: samples stay in the shard's ring, which has room for all of them, until the shard has ended. So
//! nothing but the shard is busy meanwhile. Out of scope: what the samples say (`accuracy`, `comparison`).
//!
//! ```text
//!   start ── warm-up, left out ── from ─────── what is measured ─────── to ── stop, drain ── samples
//! ```

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use super::node::Workload;
use super::roster::Roster;
use super::surroundings::Surroundings;
use crate::clock::{Micros, Mono, Reading, Wall, process_cpu_us};
use crate::config;
use crate::sample::{EndpointId, Flags, MissReason, Sample};
use crate::schedule::Schedule;
use crate::shard::engine::{Limits, Pace};
use crate::shard::origins::Share;
use crate::shard::restraint::Budgets;
use crate::shard::{Assignment, Shard};
use crate::writer::block_on;

/// What a shard by itself is told.
#[derive(Debug)]
pub struct SoloOptions<'a> {
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// When probes start: in a closed loop, or at a rate.
    pub workload: Workload,
    /// What is left out at the beginning: connections are made, caches and ports come to their usual state.
    pub warm_up: Micros,
    /// How long is measured after that.
    pub duration: Micros,
    /// Whether the kernel stamps what arrives.
    pub stamps: bool,
    /// Sockets that it may have open.
    pub connections_max: u32,
    /// What it has beside its endpoints.
    pub surroundings: &'a Surroundings,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Solo {
    /// Every sample, warm-up included, in the order in which probes ended.
    pub samples: Vec<Sample>,
    /// Slots from here on count.
    pub from: Wall,
    /// Slots that fell due, warm-up included.
    pub due: u64,
    /// Samples for which there was no room.
    pub dropped: u64,
    /// Probes that ended while it was measured,
    pub probes: u64,
    /// how long that was, ns,
    pub span_ns: u64,
    /// and the CPU that this process took meanwhile, all threads, µs.
    pub cpu_us: u64,
}

impl Solo {
    /// The samples that count.
    pub fn measured(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| self.from <= sample.ts)
    }

    /// CPU of this process per probe, µs; not a number if there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio is a measure, not a count")]
    pub fn cpu_us_per_probe(&self) -> f64 {
        if self.probes == 0 { f64::NAN } else { self.cpu_us as f64 / self.probes as f64 }
    }

    /// Probes per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is a measure, not a count")]
    pub fn probes_per_s(&self) -> f64 {
        self.probes as f64 * 1e9 / (self.span_ns.max(1) as f64)
    }
}

/// Runs one, and waits for its end.
///
/// # Errors
/// If the shard cannot be started, or its ring fails.
pub fn run(roster: Roster, options: &SoloOptions<'_>) -> io::Result<Solo> {
    let SoloOptions { cpu, workload, warm_up, duration, stamps, connections_max, surroundings } = *options;
    let anchor = Reading::now();
    let (samples, mut collected) = sample_ring(workload, Micros(warm_up.0 + duration.0));
    let (ready, loaded) = mpsc::channel();
    let load = move || {
        let pace = pace(&roster, workload, anchor.wall_of(Mono::now()));
        // Nobody listens any more if the caller is gone.
        let _ = ready.send(());
        (roster.into_iter().map(|watch| (watch.id, watch.plan)), pace)
    };
    let limits = Limits {
        inflight_max: config::INFLIGHT_MAX,
        connections_max,
        origin: Share::NONE,
        budgets: Budgets::default(),
    };
    let surroundings = surroundings.for_shard(anchor, 0);
    let (ports, canary) = (None, None);
    let shard = Shard::start(Assignment {
        shard: 0,
        cpu,
        load,
        limits,
        surroundings,
        ports,
        canary,
        stamps,
        samples,
    })?;
    if loaded.recv().is_err() {
        return Err(shard.join().err().unwrap_or_else(|| io::Error::other("the shard ended at once")));
    }
    let gauges = shard.gauges();
    let reading = || (gauges.sampled.load(Ordering::Relaxed), Mono::now(), process_cpu_us());
    let (before, after) = block_on(async {
        tokio::time::sleep(warm_up.as_duration()).await;
        let before = reading();
        tokio::time::sleep(duration.as_duration()).await;
        (before, reading())
    })?;
    shard.stop(after.1);
    let gauges = std::sync::Arc::clone(gauges);
    shard.join()?;
    Ok(Solo {
        samples: std::iter::from_fn(|| collected.pop().ok()).collect(),
        from: anchor.wall_of(before.1),
        due: gauges.due.load(Ordering::Relaxed),
        dropped: gauges.dropped.load(Ordering::Relaxed),
        probes: after.0.saturating_sub(before.0),
        span_ns: after.1.nanos_since(before.1),
        cpu_us: after.2.saturating_sub(before.2),
    })
}

/// Made on the shard's thread, when it is about to begin.
fn pace(roster: &Roster, workload: Workload, start: Wall) -> Pace {
    match workload {
        Workload::ClosedLoop => Pace::ClosedLoop,
        Workload::Once => Pace::Once,
        Workload::Rate { probes_per_s } => {
            Pace::Scheduled(Schedule::evenly(roster.len(), probes_per_s, start))
        }
        Workload::Scheduled => {
            let slots = (0..).zip(roster.iter()).map(|(number, watch)| (number, watch.id, watch.interval));
            Pace::Scheduled(Schedule::new(slots, start))
        }
    }
}

/// A ring with room for every sample, of which every page has been touched: none is made in the middle of a probe.
fn sample_ring(workload: Workload, span: Micros) -> (rtrb::Producer<Sample>, rtrb::Consumer<Sample>) {
    let per_s = match workload {
        Workload::Rate { probes_per_s } => probes_per_s * 1.1,
        _ => config::SOLO_SAMPLES_PER_S,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturating, and bounded below"
    )]
    let room = (per_s * span.as_duration().as_secs_f64()) as usize + 1_024;
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(room.min(config::SOLO_SAMPLES_MAX));
    let any = Sample::missed(Wall(0), EndpointId(0), Micros(0), MissReason::Late, Flags::default());
    while producer.push(any).is_ok() {}
    while consumer.pop().is_ok() {}
    (producer, consumer)
}
