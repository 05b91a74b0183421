//! A node: the shards and the writer of one process, from start to drained.
//!
//! In scope: who gets which endpoints and which core, the order of starting and stopping.
//! Out of scope: what to show and when to stop (`cli`), what the numbers mean ([`super::summary`]).
//!
//! Order of stopping: shards decide their last slot, finish or time out what is in flight, and drop their
//! rings; the writer sees that, stores what is left, and ends. Nothing is told to hurry, so nothing is lost.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use uuid::Uuid;

use super::canary::Canary;
use super::machine::{Disturbance, Watch};
use super::plans::Planner;
use super::roster::{Deal, Roster};
use super::surroundings::Surroundings;
use crate::clock::{Micros, Mono, Reading, Wall, process_cpu_us};
use crate::config;
use crate::dns;
use crate::probe::Plan;
use crate::sample::{EndpointId, Flags, MissReason, Sample};
use crate::schedule::Schedule;
use crate::shard::engine::{Limits, Pace};
use crate::shard::origins::{Caps, Share};
use crate::shard::placement::Placement;
use crate::shard::restraint::Budgets;
use crate::shard::{Assignment, Gauges, Shard};
use crate::writer::{Judgement, Snapshot, WriterHandle, WriterOptions};

/// What a node probes, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    /// Each endpoint at its own slots.
    Scheduled,
    /// Each endpoint again as soon as it is done.
    ClosedLoop,
    /// Each endpoint once, at once.
    Once,
    /// Every endpoint in turn, so many probes per second in all, whether or not the last is done.
    Rate {
        /// Probes per second of the node.
        probes_per_s: f64,
    },
}

/// What a node is told.
#[derive(Debug)]
pub struct NodeOptions {
    /// Which cores.
    pub placement: Placement,
    /// When probes start.
    pub workload: Workload,
    /// Sockets that this process may have open.
    pub descriptors_max: u64,
    /// What one origin address is spared.
    pub origin: Caps,
    /// When slots are given up.
    pub budgets: Budgets,
    /// What every shard has beside its endpoints.
    pub surroundings: Surroundings,
    /// Where samples go.
    pub writer: WriterOptions,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    shards: Vec<Shard>,
    writer: WriterHandle,
    /// Ends when the shards have.
    _canary: Option<Canary>,
    machine: Watch,
    anchor: Reading,
    cpu_before_us: u64,
    begun: Mono,
    ended: Option<Mono>,
}

/// The shards' numbers, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Slots that fell due.
    pub due: u64,
    /// Slots probed to the end.
    pub sampled: u64,
    /// Slots missed.
    pub missed: u64,
    /// Samples lost between shard and writer.
    pub dropped: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections for which there was no local port.
    pub portless: u64,
    /// Probes in flight.
    pub inflight: u64,
    /// Slots given up for overload, of a thousand, by the shard that gives up most.
    pub shed_per_mille: u64,
    /// Enters of the rings.
    pub enters: u64,
}

/// Everything that is known of a node at a moment.
#[derive(Clone, Debug)]
pub struct Progress {
    /// From the shards.
    pub totals: Totals,
    /// From the writer.
    pub writer: Arc<Snapshot>,
    /// What the machine did to us since probing began.
    pub machine: Disturbance,
    /// CPU the process has used since probing began, µs, all threads.
    pub cpu_us: u64,
    /// Since probing began, to now or to the end, ns.
    pub elapsed_ns: u64,
}

impl Node {
    /// Starts the writer and the shards, and waits until every shard has its endpoints.
    ///
    /// # Errors
    /// If a thread, an executor or a ring cannot be made.
    pub fn start(roster: Roster, options: NodeOptions) -> io::Result<Self> {
        let NodeOptions { placement, workload, descriptors_max, budgets, origin, surroundings, mut writer } =
            options;
        let placement_count = placement.shards.len();
        let anchor = Reading::now();
        let mut parts = parts(roster, placement.shards.len(), workload);
        let canary = (workload == Workload::Scheduled).then(|| canary(&mut parts, &surroundings)).flatten();
        let (producers, consumers): (Vec<_>, Vec<_>) = parts.iter().map(|_| sample_ring()).unzip();
        writer.cpu = placement.writer;
        let writer = crate::writer::spawn(consumers, writer)?;
        let (ready, all_ready) = mpsc::channel();
        let mut shards = Vec::with_capacity(parts.len());
        for (((shard, cpu), part), samples) in (0..).zip(placement.shards).zip(parts).zip(producers) {
            let ready = ready.clone();
            let load = move || {
                let loaded = part.load(anchor);
                // Nobody listens any more if another shard failed to start.
                let _ = ready.send(());
                loaded
            };
            let surroundings = surroundings.for_shard(anchor, shard);
            let ports = ports(shard, placement_count);
            let limits = limits(placement_count, descriptors_max, origin.share(shard, placement_count));
            let limits = Limits { budgets, ..limits };
            let (canary, stamps) = (canary.as_ref().map(|canary| canary.held(shard)), true);
            let assignment =
                Assignment { shard, cpu, load, limits, surroundings, ports, canary, stamps, samples };
            shards.push(Shard::start(assignment)?);
        }
        drop(ready);
        for _ in &shards {
            if all_ready.recv().is_err() {
                return Err(first_error(shards));
            }
        }
        Ok(Self {
            shards,
            writer,
            _canary: canary,
            machine: Watch::start(),
            anchor,
            cpu_before_us: process_cpu_us(),
            begun: Mono::now(),
            ended: None,
        })
    }

    /// When probing began.
    #[must_use]
    pub const fn begun(&self) -> Mono {
        self.begun
    }

    /// Joins wall and monotonic time, for all shards.
    #[must_use]
    pub const fn anchor(&self) -> Reading {
        self.anchor
    }

    /// What the store knows this node's writer by.
    #[must_use]
    pub const fn writer(&self) -> Uuid {
        self.writer.id()
    }

    /// To be called often: only who looks often sees that a clock was set.
    pub fn look(&mut self) {
        self.machine.look();
    }

    /// Has the writer store what a minute was judged to be.
    pub fn judged(&self, judgement: Judgement) {
        self.writer.judged(judgement);
    }

    /// Slots at or after `at` are not probed.
    pub fn stop(&mut self, at: Mono) {
        let at = self.ended.map_or(at, |before| before.min(at));
        self.ended = Some(at);
        self.shards.iter().for_each(|shard| shard.stop(at));
    }

    /// Whether every shard has decided and probed what it had to; the writer may still be storing.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        self.shards.iter().all(Shard::has_ended)
    }

    /// Whether a shard has ended although nobody stopped it.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.ended.is_none() && self.shards.iter().any(Shard::has_ended)
    }

    /// Whether the writer has stored what it could.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_drained() && self.writer.is_finished()
    }

    /// How things stand.
    #[must_use]
    pub fn progress(&mut self) -> Progress {
        let until = self.ended.map_or_else(Mono::now, |ended| ended.min(Mono::now()));
        Progress {
            totals: Totals::of(self.shards.iter().map(Shard::gauges)),
            writer: self.writer.snapshot(),
            machine: self.machine.sum(),
            cpu_us: process_cpu_us().saturating_sub(self.cpu_before_us),
            elapsed_ns: until.nanos_since(self.begun),
        }
    }

    /// Waits for the shards, then for the writer, and says how it all ended.
    ///
    /// # Errors
    /// If a shard's ring failed.
    pub fn join(mut self) -> io::Result<Progress> {
        let before = self.progress();
        let gauges: Vec<_> = self.shards.iter().map(|shard| Arc::clone(shard.gauges())).collect();
        for shard in self.shards {
            shard.join()?;
        }
        let writer = self.writer.join();
        let cpu_us = process_cpu_us().saturating_sub(self.cpu_before_us);
        let elapsed_ns = self.ended.map_or(before.elapsed_ns, |ended| ended.nanos_since(self.begun));
        Ok(Progress {
            totals: Totals::of(gauges.iter()),
            writer,
            machine: before.machine,
            cpu_us,
            elapsed_ns,
        })
    }
}

impl Totals {
    fn of<'a>(gauges: impl Iterator<Item = &'a Arc<Gauges>>) -> Self {
        gauges.fold(Self::default(), |sum, gauges| {
            let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
            Self {
                due: sum.due + read(&gauges.due),
                sampled: sum.sampled + read(&gauges.sampled),
                missed: sum.missed + read(&gauges.missed),
                dropped: sum.dropped + read(&gauges.dropped),
                opened: sum.opened + read(&gauges.opened),
                portless: sum.portless + read(&gauges.portless),
                inflight: sum.inflight + read(&gauges.inflight),
                shed_per_mille: sum.shed_per_mille.max(read(&gauges.shed_per_mille)),
                enters: sum.enters + read(&gauges.enters),
            }
        })
    }
}

/// Probes every endpoint once, on `cpu`, and waits for the samples: `check`.
///
/// # Errors
/// If the shard cannot be started, or its ring fails.
pub fn collect_once(
    roster: Roster,
    cpu: usize,
    descriptors_max: u64,
    surroundings: &Surroundings,
) -> io::Result<Vec<Sample>> {
    let anchor = Reading::now();
    let (samples, mut collected) = rtrb::RingBuffer::new(roster.len().max(1) * config::SAMPLES_PER_PROBE_MAX);
    let part = Part { roster, workload: Workload::Once, offset: Micros(0) };
    let load = move || part.load(anchor);
    // Each endpoint gets one probe, whatever others there are.
    let limits = limits(1, descriptors_max, Share::NONE);
    let surroundings = surroundings.for_shard(anchor, 0);
    let (ports, canary, stamps) = (None, None, true);
    Shard::start(Assignment { shard: 0, cpu, load, limits, surroundings, ports, canary, stamps, samples })?
        .join()?;
    Ok(std::iter::from_fn(|| collected.pop().ok()).collect())
}

/// One shard's endpoints, on their way to its thread.
struct Part {
    roster: Roster,
    workload: Workload,
    /// What a rate's first slot waits for, so that shards take turns.
    offset: Micros,
}

impl Part {
    /// Makes the pace, on the shard's thread.
    fn load(self, anchor: Reading) -> (impl ExactSizeIterator<Item = (EndpointId, Plan)>, Pace) {
        let start = anchor.wall_of(Mono::now());
        let pace = match self.workload {
            Workload::Scheduled => {
                let slots = (0..).zip(self.roster.iter()).map(|(n, watch)| (n, watch.id, watch.interval));
                Pace::Scheduled(Schedule::new(slots, start))
            }
            Workload::ClosedLoop => Pace::ClosedLoop,
            Workload::Once => Pace::Once,
            Workload::Rate { probes_per_s } => {
                Pace::Scheduled(Schedule::evenly(self.roster.len(), probes_per_s, start + self.offset))
            }
        };
        (self.roster.into_iter().map(|watch| (watch.id, watch.plan)), pace)
    }
}

/// Who probes what: a benchmark's endpoints are dealt out, others stay where their id puts them.
fn parts(roster: Roster, shards: usize, workload: Workload) -> Vec<Part> {
    let total = roster.len();
    let deal = if workload == Workload::Scheduled { Deal::ById } else { Deal::InTurn };
    let part = |(shard, roster): (usize, Roster)| match workload {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is a measure, not a count"
        )]
        Workload::Rate { probes_per_s } => Part {
            workload: Workload::Rate { probes_per_s: probes_per_s * roster.len() as f64 / total as f64 },
            offset: Micros((shard as f64 * 1e6 / probes_per_s) as u64),
            roster,
        },
        workload => Part { roster, workload, offset: Micros(0) },
    };
    roster.deal(shards, deal).into_iter().enumerate().map(part).collect()
}

/// Gives each shard a canary to probe. Without one a run is judged by the rest.
fn canary(parts: &mut [Part], surroundings: &Surroundings) -> Option<Canary> {
    let canary = match Canary::start(parts.len(), surroundings.seed) {
        Ok(canary) => canary,
        Err(error) => {
            log::warn!("no canary: {error}");
            return None;
        }
    };
    let mut planner = Planner::new(surroundings.roots.clone(), dns::Family::PreferV4, None);
    for (shard, part) in parts.iter_mut().enumerate() {
        match canary.watch(shard, &mut planner) {
            Ok(watch) => part.roster.push(watch),
            Err(error) => log::warn!("no canary: {error}"),
        }
    }
    Some(canary)
}

/// A ring to the writer, of which every page has been touched: none is made in the middle of a probe.
fn sample_ring() -> (rtrb::Producer<Sample>, rtrb::Consumer<Sample>) {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(config::SAMPLE_RING_CAPACITY);
    let any = Sample::missed(Wall(0), EndpointId(0), Micros(0), MissReason::Late, Flags::default());
    while producer.push(any).is_ok() {}
    while consumer.pop().is_ok() {}
    (producer, consumer)
}

/// Of a shard that has its share of the sockets this process may have, and `origin` of what may be done to an address.
fn limits(shards: usize, descriptors_max: u64, origin: Share) -> Limits {
    let share = descriptors_max.saturating_sub(config::DESCRIPTORS_RESERVED) / shards.max(1) as u64;
    Limits {
        inflight_max: config::INFLIGHT_MAX,
        connections_max: u32::try_from(share).unwrap_or(u32::MAX).min(1 << 24),
        origin,
        budgets: Budgets::default(),
    }
}

/// The local ports of shard number `shard`: its part of those that the kernel hands out. One shard has them all.
fn ports(shard: usize, shards: usize) -> Option<RangeInclusive<u16>> {
    if shards < 2 {
        return None;
    }
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    let (first, last) = (first.parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
    let count = (usize::from(last) + 1).checked_sub(usize::from(first))? / shards;
    let start = u16::try_from(usize::from(first) + shard * count).ok()?;
    let end = u16::try_from(usize::from(first) + (shard + 1) * count - 1).ok()?;
    (count > 0).then_some(start..=end)
}

/// Why a shard ended before it began.
fn first_error(shards: Vec<Shard>) -> io::Error {
    shards.iter().for_each(|shard| shard.stop(Mono(0)));
    let results = shards.into_iter().map(Shard::join);
    results.filter_map(Result::err).next().unwrap_or_else(|| io::Error::other("a shard ended at once"))
}
