//! `ringprobe bench --accuracy`: how wrong measured latency is, against an origin that knows the truth.
//!
//! The origin runs in this process, on another CPU and a thread of its own; it holds every answer for `--hold` and
//! notes when each request came and when its answer left. First a closed loop finds what the core can do with these
//! connections, then one run per load, each with an origin of its own. What the error is, `control::accuracy` says.

use std::process::ExitCode;

use clap::Args;

use super::bench::{self, sockets};
use super::{Error, print, session, terminal};
use crate::clock::Micros;
use crate::config;
use crate::control::accuracy::{Asked, Load, Report};
use crate::control::node::Workload;
use crate::control::solo::{self, Solo, SoloOptions};
use crate::control::surroundings::Surroundings;
use crate::testing::origin::{HoldingOptions, HoldingOrigin, Holds, duration};

/// Arguments of `bench --accuracy`.
#[derive(Debug, Args)]
pub(super) struct AccuracyArguments {
    /// Instead of URLs: how wrong is measured latency, against an origin in this process that knows the truth?
    #[arg(long, conflicts_with_all = ["urls", "rate", "cores", "store"])]
    pub(super) accuracy: bool,
    /// For how long that origin holds each answer, up to 100ms.
    #[arg(
        long,
        default_value = "0",
        value_name = "TIME",
        requires = "accuracy",
        conflicts_with = "urls",
        value_parser = duration
    )]
    hold: Micros,
    /// The loads, in percent of the core's capacity.
    #[arg(
        long,
        default_value = "10,50,70,90,120",
        value_name = "PERCENT,…",
        value_delimiter = ',',
        requires = "accuracy",
        conflicts_with = "urls"
    )]
    loads: Vec<u32>,
}

/// What all runs of one report have in common.
struct Bench<'a> {
    arguments: &'a bench::Arguments,
    connections: u32,
    duration: Micros,
    hold: Micros,
    /// The prober's CPU,
    cpu: usize,
    /// and the origin's.
    origin_cpu: usize,
    sockets: u64,
    surroundings: Surroundings,
}

/// Runs the command.
pub(super) fn run(arguments: &bench::Arguments) -> Result<ExitCode, Error> {
    let AccuracyArguments { hold, loads, .. } = &arguments.accuracy;
    if *hold > config::ACCURACY_HOLD_MAX {
        return Err(Error::input(format!("--hold: {hold} is more than {}", config::ACCURACY_HOLD_MAX)));
    }
    let load_max = config::ACCURACY_LOAD_PERCENT_MAX;
    if let Some(load) = loads.iter().find(|load| !(1..=load_max).contains(*load)) {
        return Err(Error::input(format!("--loads: {load} is not a percentage from 1 to {load_max}")));
    }
    let bench = Bench::new(arguments, *hold)?;
    let (closed, _) = bench.run(Workload::ClosedLoop, config::ACCURACY_CAPACITY_FOR)?;
    let capacity_per_s = closed.probes_per_s();
    if closed.probes == 0 {
        return Err(Error::failed("the closed loop made no probe: there is no capacity to take a part of"));
    }
    terminal::line(&format!("ringprobe: capacity {capacity_per_s:.0} probes/s"));
    let loads = loads.iter().map(|load| bench.load(*load, capacity_per_s)).collect::<Result<_, _>>()?;
    let report = Report {
        hold_us: hold.0,
        fresh: arguments.load.fresh,
        connections: bench.connections,
        capacity_per_s,
        loads,
    };
    print(&report, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a bench::Arguments, hold: Micros) -> Result<Self, Error> {
        let placement = session::placement(Some(1))?;
        let [cpu] = placement.shards[..] else { unreachable!("one shard was asked for") };
        let origin_cpu = placement.writer.ok_or_else(|| {
            Error::failed("--accuracy needs two CPUs, one for the prober and one for the origin")
        })?;
        // The origin's ends are in this process, too.
        let most = u32::try_from(sockets(2)? / 2).unwrap_or(u32::MAX);
        let connections = arguments.load.connections(connections(hold, arguments.load.fresh).min(most))?;
        Ok(Self {
            arguments,
            connections,
            duration: super::duration_argument("--duration", &arguments.duration)?,
            hold,
            cpu,
            origin_cpu,
            sockets: sockets(2 * u64::from(connections))?,
            surroundings: arguments.network.surroundings()?,
        })
    }

    fn load(&self, load_percent: u32, capacity_per_s: f64) -> Result<Load, Error> {
        let rate_per_s = capacity_per_s * f64::from(load_percent) / 100.0;
        let (solo, holds) = self.run(Workload::Rate { probes_per_s: rate_per_s }, self.duration)?;
        let (connections, fresh) = (self.connections, self.arguments.load.fresh);
        let asked = Asked { load_percent, rate_per_s, connections, fresh, from: solo.from };
        let load = Load::of(&asked, &solo.samples, &holds, solo.probes_per_s(), solo.dropped);
        terminal::line(&format!("ringprobe: {load_percent} % of it: {} probes compared", load.compared));
        Ok(load)
    }

    /// One run, with an origin of its own.
    fn run(&self, workload: Workload, duration: Micros) -> Result<(Solo, Holds), Error> {
        let options =
            HoldingOptions { cpu: Some(self.origin_cpu), hold: self.hold, ..HoldingOptions::default() };
        let origin = HoldingOrigin::start(options).map_err(Error::failed)?;
        let address = origin.addrs()[0];
        let urls: Vec<String> = (1..=self.connections).map(|n| format!("http://{address}/{n}")).collect();
        let (load, network) = (&self.arguments.load, &self.arguments.network);
        let roster = load.roster(&urls, self.connections, network, &self.surroundings)?;
        let options = SoloOptions {
            cpu: self.cpu,
            workload,
            warm_up: self.warm_up(workload),
            duration,
            stamps: true,
            connections_max: u32::try_from(self.sockets / 2).unwrap_or(u32::MAX),
            surroundings: &self.surroundings,
        };
        let solo = solo::run(roster, &options).map_err(Error::failed)?;
        Ok((solo, origin.stop().map_err(Error::failed)?))
    }

    /// Until every connection that is to be kept alive stands: probes that open one are not compared.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturating, and then bounded"
    )]
    fn warm_up(&self, workload: Workload) -> Micros {
        let per_s = match workload {
            Workload::Rate { probes_per_s } => probes_per_s,
            _ => config::ACCURACY_OPENINGS_PER_S,
        };
        let round_us = match self.arguments.load.fresh {
            true => 0,
            false => (f64::from(self.connections) * 1e6 / per_s) as u64,
        };
        Micros(config::SOLO_WARM_UP.0.saturating_add(round_us).min(config::SOLO_WARM_UP_MAX.0))
    }
}

/// As many connections as keep a core busy while their answers are held.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the hold is bounded")]
fn connections(hold: Micros, fresh: bool) -> u32 {
    let per_s =
        if fresh { config::ACCURACY_FRESH_CONNECTIONS_PER_S } else { config::ACCURACY_CONNECTIONS_PER_S };
    config::ACCURACY_CONNECTIONS + (per_s * hold.as_duration().as_secs_f64()) as u32
}
