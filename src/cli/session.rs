//! A node while it runs, as `run` and `bench` share it: signals, the end, and what is shown meanwhile.
//!
//! The first SIGINT or SIGTERM drains: no more probes start, those in flight finish or time out, everything is
//! stored. The second exits at once.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Error, limits, terminal};
use crate::clock::{Micros, Mono};
use crate::config;
use crate::control::minutes::Minutes;
use crate::control::node::{Node, NodeOptions, Progress, Totals, Workload};
use crate::control::roster::Roster;
use crate::control::summary::Summary;
use crate::control::surroundings::Surroundings;
use crate::control::validity::{Budgets, Evidence};
use crate::shard::origins::Caps;
use crate::shard::placement::Placement;
use crate::shard::restraint;
use crate::writer::{Snapshot, Store, StoreError, StoreState, WriterOptions};

/// What `run` and `bench` decide before a node starts.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) roster: Roster,
    pub(super) workload: Workload,
    /// Shards; `None` leaves one CPU for the writer.
    pub(super) cores: Option<usize>,
    pub(super) origin: Caps,
    pub(super) writer: WriterOptions,
    pub(super) duration: Option<Micros>,
    pub(super) surroundings: Surroundings,
    pub(super) budgets: Budgets,
}

/// Runs a node to its end.
pub(super) fn run(session: Session) -> Result<Summary, Error> {
    let Session { budgets, .. } = session;
    let store = session.writer.store.clone();
    let workload = session.workload;
    let descriptors_max = limits::descriptors_max()?;
    let options = NodeOptions {
        placement: placement(session.cores)?,
        workload,
        descriptors_max,
        budgets: restraint::Budgets { lag: budgets.lag, agent: budgets.agent },
        origin: session.origin,
        surroundings: session.surroundings,
        writer: session.writer,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::failed)?;
    let node = Node::start(session.roster, options).map_err(|error| {
        Error::failed(format!("cannot start: {error}; `ringprobe doctor` says what is missing"))
    })?;
    let minutes = (workload == Workload::Scheduled).then_some(budgets);
    let watched = runtime.block_on(watch(node, session.duration, minutes));
    let Watched { node, resident_bytes, minutes } = watched.map_err(Error::failed)?;
    let (writer, anchor, begun) = (node.writer(), node.anchor(), node.begun());
    let progress = node.join().map_err(|error| Error::failed(format!("a shard ended early: {error}")))?;
    let evidence = Evidence::of(&progress, workload);
    let summary = Summary::of(&progress, store.is_some(), resident_bytes, &evidence, &budgets);
    if let Some(store) = store {
        let ended = begun + Micros::from_nanos(progress.elapsed_ns);
        let last_minute = minutes.and_then(|minutes| minutes.end(&progress, ended));
        let judgements = last_minute.into_iter().chain([summary.judgement(anchor.wall_of(begun))]);
        let storing = async {
            let mut store = Store::open(&store).await?;
            for judgement in judgements {
                store.judged(writer, judgement).await?;
            }
            Ok(())
        };
        let deadline = config::STORE_DEADLINE.as_duration();
        let stored = runtime.block_on(async { tokio::time::timeout(deadline, storing).await });
        if let Err(error) = stored.unwrap_or(Err(StoreError::Deadline)) {
            log::warn!("the verdict on this run is not stored: {error}");
        }
    }
    Ok(summary)
}

/// The CPUs for shards and writer.
pub(super) fn placement(cores: Option<usize>) -> Result<Placement, Error> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let cpus: Vec<usize> = cpus.into_iter().map(|core| core.id).collect();
    Placement::new(&cpus, cores).map_err(|error| Error::input(format!("--cores: {error}")))
}

/// A node that has come to its end.
struct Watched {
    node: Node,
    /// The memory that it was last seen to take while probing.
    resident_bytes: u64,
    /// What is left of the last minute is to be judged when all is counted.
    minutes: Option<Minutes>,
}

/// Watches a node to its end. With budgets, every minute is judged by them.
async fn watch(mut node: Node, duration: Option<Micros>, budgets: Option<Budgets>) -> io::Result<Watched> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let interactive = terminal::is_interactive();
    let every = if interactive { config::STATUS_EVERY } else { config::STATUS_LINE_EVERY };
    if let Some(duration) = duration {
        node.stop(node.begun() + duration);
    }
    let mut status = Status::new(every);
    let (anchor, begun, progress) = (node.anchor(), node.begun(), node.progress());
    let mut minutes = budgets.map(|budgets| Minutes::begin(progress, anchor, budgets, begun));
    let mut signals = 0;
    let mut draining = false;
    let (mut resident, mut resident_next) = (resident_bytes(), node.begun() + config::RESIDENT_EVERY);
    while !node.has_ended() && !node.has_failed() {
        tokio::select! {
            _ = interrupt.recv() => signals += 1,
            _ = terminate.recv() => signals += 1,
            () = tokio::time::sleep(TICK) => {}
        }
        node.look();
        if let Some(minutes) = &mut minutes
            && minutes.look(Mono::now())
        {
            let judgement = minutes.turn_over(node.progress(), Mono::now());
            if !judgement.is_valid() {
                log::warn!("the last minute is INVALID: {}", judgement.reasons.join("; "));
            }
            node.judged(judgement);
        }
        if resident_next <= Mono::now() && !node.has_drained() {
            give_memory_back();
            resident = resident_bytes();
            resident_next = Mono::now() + config::RESIDENT_EVERY;
        }
        match signals {
            0 => {}
            1 if !draining => {
                draining = true;
                node.stop(Mono::now());
                let inflight = node.progress().totals.inflight;
                terminal::line(&format!(
                    "ringprobe: draining: {inflight} probes in flight; a second signal ends at once, and loses rows"
                ));
            }
            1 => {}
            _ => {
                terminal::clear();
                terminal::line("ringprobe: second signal: exit at once, what was not stored is lost");
                std::process::exit(EXIT_INTERRUPTED);
            }
        }
        if let Some((progress, rates)) = status.due(&mut node) {
            if interactive {
                terminal::draw(&block(&progress, &rates));
            } else {
                terminal::line(&status_line(&progress, &rates));
            }
        }
    }
    terminal::clear();
    Ok(Watched { node, resident_bytes: resident, minutes })
}

/// How often the end is looked for. A human does not notice, and it costs nothing.
const TICK: Duration = Duration::from_millis(20);
/// 128 + SIGINT, as shells report it.
const EXIT_INTERRUPTED: i32 = 130;

/// When to show the status, and the rates since it was last shown.
struct Status {
    every: Micros,
    next: Mono,
    /// Numbers alone: a whole picture is a megabyte.
    sampled: u64,
    stored: u64,
    elapsed_ns: u64,
}

struct Rates {
    probes_per_s: f64,
    rows_per_s: f64,
}

impl Status {
    fn new(every: Micros) -> Self {
        Self { every, next: Mono::now() + every, sampled: 0, stored: 0, elapsed_ns: 0 }
    }

    fn due(&mut self, node: &mut Node) -> Option<(Progress, Rates)> {
        if Mono::now() < self.next {
            return None;
        }
        self.next = Mono::now() + self.every;
        let progress = node.progress();
        let Progress { totals, writer, elapsed_ns, .. } = &progress;
        let seconds = to_f64(elapsed_ns - self.elapsed_ns) / 1e9;
        let rate = |amount: u64| if seconds > 0.0 { to_f64(amount) / seconds } else { 0.0 };
        let rates = Rates {
            probes_per_s: rate(totals.sampled - self.sampled),
            rows_per_s: rate(writer.stored - self.stored),
        };
        (self.sampled, self.stored, self.elapsed_ns) = (totals.sampled, writer.stored, *elapsed_ns);
        Some((progress, rates))
    }
}

/// The counts are those of the writer's last picture, in which they add up; the shards are up to a second ahead.
fn block(progress: &Progress, rates: &Rates) -> String {
    let Progress { totals, writer, .. } = progress;
    let tally = &writer.tally;
    let points = |distribution: &crate::writer::Distribution| {
        let points = distribution.percentiles();
        format!(
            "p50 {:>10}   p99 {:>10}   since the start",
            Micros(points.p50).to_string(),
            Micros(points.p99).to_string()
        )
    };
    let mut text = String::new();
    let elapsed_s = progress.elapsed_ns / 1_000_000_000;
    let (hours, minutes, seconds) = (elapsed_s / 3_600, elapsed_s / 60 % 60, elapsed_s % 60);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "ringprobe {hours:02}:{minutes:02}:{seconds:02}   {:.0} probes/s   {} in flight\n\
         slots     due {}   sampled {}   missed {}   dropped {}\n\
         outcome   up {}   down {}\n\
         ttfb      {}\n\
         lag       {}\n\
         agent     {}\n\
         store     {:.0} rows/s   {} queued   {}{}",
        rates.probes_per_s,
        totals.inflight,
        tally.due(),
        tally.sampled(),
        tally.missed(),
        totals.dropped + writer.dropped,
        tally.up(),
        tally.down(),
        points(tally.ttfb_us()),
        points(tally.lag_us()),
        points(tally.agent_us()),
        rates.rows_per_s,
        writer.queued_rows,
        store_state(writer),
        shedding("\n", totals),
    );
    text
}

fn status_line(progress: &Progress, rates: &Rates) -> String {
    let Progress { totals, writer, .. } = progress;
    let tally = &writer.tally;
    format!(
        "ringprobe: {} s: {:.0} probes/s, {} in flight, due {} sampled {} missed {} dropped {}, up {} down {}, \
         since the start ttfb p99 {} lag p99 {}, store {:.0} rows/s {} queued {}{}",
        progress.elapsed_ns / 1_000_000_000,
        rates.probes_per_s,
        totals.inflight,
        tally.due(),
        tally.sampled(),
        tally.missed(),
        totals.dropped + writer.dropped,
        tally.up(),
        tally.down(),
        Micros(tally.ttfb_us().percentiles().p99),
        Micros(tally.lag_us().percentiles().p99),
        rates.rows_per_s,
        writer.queued_rows,
        store_state(writer),
        shedding(", ", totals),
    )
}

/// Said only while it happens.
fn shedding(before: &str, totals: &Totals) -> String {
    match totals.shed_per_mille {
        0 => String::new(),
        shed => format!("{before}overload: {} % of the slots are given up", shed.div_ceil(10)),
    }
}

fn store_state(writer: &Arc<Snapshot>) -> String {
    match &writer.store_state {
        StoreState::None => "no store".to_owned(),
        StoreState::Connecting => "connecting".to_owned(),
        StoreState::Connected => "connected".to_owned(),
        StoreState::Reconnecting { error } => format!("away: {error}"),
        StoreState::Closed => "closed".to_owned(),
    }
}

/// Loading leaves behind several times the memory that probing takes. mimalloc returns what is free to the kernel a
/// second later, but only if then somebody frees a whole page of it, and probing never does. A block this large has
/// a page of its own.
fn give_memory_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(config::ALLOCATOR_PAGE_BYTES)));
}

/// Resident memory of this process, bytes; 0 if the kernel does not say (`proc(5)`, `statm`).
pub(super) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[expect(clippy::cast_precision_loss, reason = "rates are printed without digits")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
