//! A probing core: one pinned thread, one glommio executor, one task, one ring.
//!
//! ```text
//! turn:  take completions ─► expire deadlines ─► start what is due ─► enter the ring, once
//!        each is settled                                              │ nothing in flight or due soon
//!                                                                     ▼
//!                                                            sleep in glommio on the ring's eventfd
//! ```
//!
//! This file is the driver: it reads the clock, turns the ring, and carries samples to the writer. What is
//! decided, [`engine`] decides. Shards share nothing: what crosses a thread is a sample ring, plain counters
//! ([`Gauges`]) and one command.

pub mod deadlines;
pub mod engine;
pub mod origins;
pub mod placement;
pub mod random;
pub mod restraint;
#[expect(unsafe_code, reason = "the kernel's ring is shared memory; the argument is in its first comment")]
pub mod ring;
pub mod sight;
pub mod slab;

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder};

use self::engine::{ConnId, Engine, Event, Finished, Limits, Pace, Surroundings};
use self::ring::Ring;
use crate::clock::{Micros, Mono};
use crate::config;
use crate::probe::Plan;
use crate::sample::{EndpointId, Outcome, Sample, clamp_us};

/// What a shard is made of. Sent to its thread, where `load` is called.
#[derive(Debug)]
pub struct Assignment<L> {
    /// Its number, for names and messages.
    pub shard: usize,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Makes endpoints and pace, on the shard's own thread.
    pub load: L,
    /// Its bounds.
    pub limits: Limits,
    /// What it has beside its endpoints.
    pub surroundings: Surroundings,
    /// The local ports that its connections take, if not any.
    pub ports: Option<RangeInclusive<u16>>,
    /// How long its canary held the last answer, ns.
    pub canary: Option<Arc<AtomicU64>>,
    /// Whether the kernel stamps what arrives; only a measurement of what that costs goes without.
    pub stamps: bool,
    /// Where its samples go.
    pub samples: rtrb::Producer<Sample>,
}

/// What a shard tells the world while it runs: plain numbers, each written by the shard alone and read by
/// anyone, hence `Relaxed` throughout. They are published once per turn.
#[derive(Debug, Default)]
pub struct Gauges {
    /// See [`engine::Counters::due`].
    pub due: AtomicU64,
    /// See [`engine::Counters::sampled`].
    pub sampled: AtomicU64,
    /// See [`engine::Counters::missed`].
    pub missed: AtomicU64,
    /// See [`engine::Counters::opened`].
    pub opened: AtomicU64,
    /// See [`engine::Counters::portless`].
    pub portless: AtomicU64,
    /// See [`engine::Counters::questions`].
    pub questions: AtomicU64,
    /// Samples lost because the ring to the writer was full.
    pub dropped: AtomicU64,
    /// Probes in flight.
    pub inflight: AtomicU64,
    /// Slots given up for overload, of a thousand.
    pub shed_per_mille: AtomicU64,
    /// Enters of the ring.
    pub enters: AtomicU64,
    /// Sleeps in glommio.
    pub parks: AtomicU64,
    ended: AtomicBool,
}

/// A running shard.
#[derive(Debug)]
pub struct Shard {
    handle: ExecutorJoinHandle<io::Result<()>>,
    gauges: Arc<Gauges>,
    /// The one command: when to stop, in nanoseconds of [`Mono`]; `u64::MAX` is never.
    stop_at_ns: Arc<AtomicU64>,
}

impl Shard {
    /// Starts a shard on its CPU.
    ///
    /// # Errors
    /// If the executor cannot be made: no io_uring, too little locked memory, no such CPU.
    pub fn start<L, E>(assignment: Assignment<L>) -> io::Result<Self>
    where
        L: FnOnce() -> (E, Pace) + Send + 'static,
        E: ExactSizeIterator<Item = (EndpointId, Plan)>,
    {
        let gauges = Arc::new(Gauges::default());
        let stop_at_ns = Arc::new(AtomicU64::new(u64::MAX));
        let (shard_gauges, shard_stop) = (Arc::clone(&gauges), Arc::clone(&stop_at_ns));
        let handle = LocalExecutorBuilder::new(glommio::Placement::Fixed(assignment.cpu))
            .name(&format!("shard-{}", assignment.shard))
            // glommio registers this for file I/O, of which there is none here.
            .io_memory(64 << 10)
            .spawn(move || async move {
                let result = drive(assignment, &shard_gauges, &shard_stop).await;
                shard_gauges.ended.store(true, Ordering::Relaxed);
                result
            })
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { handle, gauges, stop_at_ns })
    }

    /// Its numbers.
    #[must_use]
    pub const fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
    }

    /// Slots at or after `at` are not probed; the shard ends by itself when those before have been.
    pub fn stop(&self, at: Mono) {
        self.stop_at_ns.fetch_min(at.0, Ordering::Relaxed);
    }

    /// Whether it has ended, well or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.gauges.ended.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If the ring failed, or the executor did.
    pub fn join(self) -> io::Result<()> {
        self.handle.join().map_err(|error| io::Error::other(error.to_string()))?
    }
}

/// Where samples leave the shard, and are counted if they cannot.
struct Outlet {
    samples: rtrb::Producer<Sample>,
    canary: Option<Arc<AtomicU64>>,
    dropped: u64,
}

impl Outlet {
    fn put(&mut self, mut sample: Sample) {
        if sample.endpoint_id.is_canary() {
            let held_ns = self.canary.as_ref().map_or(0, |held| held.load(Ordering::Acquire));
            match canary_error_us(&sample, held_ns) {
                Some(error_us) => sample.agent_us = error_us,
                None => return,
            }
        }
        debug_assert!(sample.phases_sum_to_total(), "phases sum to the total: {sample:?}");
        debug_assert!(sample.write_is_within_processing(), "a part is longer than the whole: {sample:?}");
        if self.samples.push(sample).is_err() {
            self.dropped += 1;
        }
    }
}

/// What a canary's sample says beside what the canary knows; one that failed is wrong by all it took, and a missed one
/// says nothing.
fn canary_error_us(sample: &Sample, held_ns: u64) -> Option<i32> {
    match sample.outcome {
        Outcome::Up => Some(sample.phases.processing_us.saturating_sub(clamp_us(held_ns / 1_000)).abs()),
        Outcome::Down => Some(sample.total_us),
        Outcome::Missed => None,
    }
}

async fn drive<L, E>(assignment: Assignment<L>, gauges: &Gauges, stop_at_ns: &AtomicU64) -> io::Result<()>
where
    L: FnOnce() -> (E, Pace),
    E: ExactSizeIterator<Item = (EndpointId, Plan)>,
{
    let Assignment { load, limits, surroundings, ports, canary, stamps, samples, .. } = assignment;
    let mut outlet = Outlet { samples, canary, dropped: 0 };
    ring::ask_for_short_slices();
    let mut ring = Ring::new(ports, stamps)?;
    // glommio's first sleep may take tens of milliseconds (it registers its membarrier then): not on our time.
    glommio::timer::sleep(Duration::from_micros(1)).await;
    let wakeup = ring.sockets().wakeup_file()?;
    let (endpoints, pace) = load();
    let mut engine = Engine::new(endpoints, pace, limits, surroundings);
    engine.begin(Mono::now());
    let mut parks = 0;
    loop {
        let stop_at = stop_at_ns.load(Ordering::Relaxed);
        if stop_at != u64::MAX {
            engine.stop(Mono(stop_at));
        }
        let now = Mono::now();
        let more_due = work(&mut engine, &mut ring, &mut outlet, now);
        publish(gauges, &engine, ring.sockets().enters(), outlet.dropped, parks);
        if engine.is_drained(now) {
            return Ok(());
        }
        let wait = if more_due { None } else { Some(idle_time(&engine, Mono::now())) };
        match wait {
            Some(wait) if engine.inflight() == 0 && wait > config::PARK_AFTER.as_duration() => {
                parks += 1;
                let until = Mono::now() + Micros::from_nanos(nanos(wait.min(PARK_MAX)));
                ring.sockets().watch_wakeup(true);
                ring.sockets().wake_at(until);
                turn(&mut engine, &mut ring, &mut outlet, None)?;
                if !ring.sockets().has_completions() {
                    let woken = wakeup.read_at(0, EVENTFD_BYTES).await;
                    woken.map_err(|error| io::Error::other(error.to_string()))?;
                }
                ring.sockets().watch_wakeup(false);
                engine.rest();
                turn(&mut engine, &mut ring, &mut outlet, None)?;
            }
            wait => {
                let wait = wait.map(|wait| wait.min(config::WAIT_MAX.as_duration()));
                turn(&mut engine, &mut ring, &mut outlet, wait)?;
            }
        }
    }
}

const PARK_MAX: Duration = config::PARK_MAX.as_duration();
const EVENTFD_BYTES: usize = 8;

/// Expires and starts what is due; whether more is due already.
///
/// All starts of a turn share an enter: submitting them one by one costs a fresh probe a fifth (1.31 instead of 1.11 of
/// the floor). No phase suffers: the kernel says how long connecting took, and requests are stamped as they leave.
fn work(engine: &mut Engine, ring: &mut Ring, outlet: &mut Outlet, now: Mono) -> bool {
    let mut record = |sample| outlet.put(sample);
    engine.expire(now, ring.sockets(), &mut record);
    let mut more_due = true;
    for _ in 0..config::DRAIN_PER_TURN_MAX {
        more_due = engine.start_due(Mono::now(), ring.sockets(), &mut record);
        if !more_due {
            break;
        }
    }
    for _ in 0..config::DECODE_GOES_PER_TURN {
        let seen = Mono::now();
        let Some((conn, finished)) = engine.catch_up(seen, ring.sockets()) else { break };
        account(engine, conn, finished, seen, outlet);
        engine.settle(Mono::now(), ring.sockets(), &mut |sample| outlet.put(sample));
    }
    more_due
}

/// Writes down what handling something cost, which was seen at `seen`, and what it ended; when that was done.
fn account(
    engine: &mut Engine,
    conn: ConnId,
    finished: Option<Finished>,
    seen: Mono,
    outlet: &mut Outlet,
) -> Mono {
    let now = Mono::now();
    let cost_ns = now.nanos_since(seen);
    match finished {
        Some(finished) => engine.report(finished, cost_ns, &mut |sample| outlet.put(sample)),
        None => engine.charge(conn, cost_ns),
    }
    now
}

/// One turn of the ring. The clock is read once per event that carries bytes: the end of handling one is the
/// time at which the next is seen, so that waiting behind others in a batch counts as the agent's delay.
fn turn(engine: &mut Engine, ring: &mut Ring, outlet: &mut Outlet, wait: Option<Duration>) -> io::Result<()> {
    let mut seen = Mono(0);
    let wait_max = wait.unwrap_or_default();
    ring.turn(wait, |sockets, conn, event, reading| {
        if seen == Mono(0) {
            engine.look(reading.mono, wait_max);
        }
        seen = seen.max(reading.mono);
        let costs = matches!(event, Event::Received { .. });
        let finished = engine.handle(conn, event, seen, sockets);
        if costs || finished.is_some() || engine.has_loose_ends() {
            seen = account(engine, conn, finished, seen, outlet);
        }
        if engine.has_loose_ends() {
            engine.settle(seen, sockets, &mut |sample| outlet.put(sample));
        }
    })?;
    if seen == Mono(0) {
        engine.look(Mono::now(), wait_max);
    }
    Ok(())
}

/// How long nothing needs to be done, by the engine's own schedule.
fn idle_time(engine: &Engine, now: Mono) -> Duration {
    engine.next_wake(now).map_or(PARK_MAX, |at| at.since(now))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn publish(gauges: &Gauges, engine: &Engine, enters: u64, dropped: u64, parks: u64) {
    let counters = engine.counters();
    gauges.due.store(counters.due, Ordering::Relaxed);
    gauges.sampled.store(counters.sampled, Ordering::Relaxed);
    gauges.missed.store(counters.missed, Ordering::Relaxed);
    gauges.opened.store(counters.opened, Ordering::Relaxed);
    gauges.portless.store(counters.portless, Ordering::Relaxed);
    gauges.questions.store(counters.questions, Ordering::Relaxed);
    gauges.inflight.store(u64::from(engine.inflight()), Ordering::Relaxed);
    gauges.shed_per_mille.store(engine.shed_per_mille(), Ordering::Relaxed);
    gauges.enters.store(enters, Ordering::Relaxed);
    gauges.dropped.store(dropped, Ordering::Relaxed);
    gauges.parks.store(parks, Ordering::Relaxed);
}
