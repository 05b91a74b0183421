//! `ringprobe bench --ab A B`: two configurations of the prober against the same URLs, in turn, and their difference
//! with its confidence interval: was it the prober that changed, or the target?
//!
//! Rounds are short and come in pairs; which of a pair goes first is drawn, from `--seed`. Each round is a shard of its
//! own ([`solo`]) in this process. What the differences mean, `control::comparison` says.

use std::fmt;
use std::process::ExitCode;

use clap::{Args, Parser};
use serde::Serialize;

use super::bench::{self, CONNECTIONS, LoadArguments, sockets};
use super::{Error, print, session, terminal};
use crate::clock::Micros;
use crate::config;
use crate::control::comparison::{self, Difference, Figures};
use crate::control::roster::Roster;
use crate::control::solo::{self, SoloOptions};
use crate::control::surroundings::Surroundings;
use crate::shard::random::Random;

/// Arguments of `bench --ab`.
#[derive(Debug, Args)]
pub(super) struct AbArguments {
    /// Two configurations in turn, and their difference with its confidence interval: options such as
    /// '--connections 64 --fresh' (also -c, --rate, --timeout, and --no-stamps: without the kernel's time stamps)
    #[arg(
        long,
        num_args = 2,
        value_names = ["A", "B"],
        allow_hyphen_values = true,
        conflicts_with_all = ["accuracy", "connections", "fresh", "rate", "timeout", "cores", "store"]
    )]
    ab: Option<Vec<String>>,
    /// Rounds of each; --duration is that of all of them together.
    #[arg(long, default_value_t = config::AB_ROUNDS, value_name = "N", requires = "ab")]
    rounds: u32,
    /// What the order of the rounds follows from.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "ab")]
    seed: u64,
}

impl AbArguments {
    pub(super) const fn is_asked(&self) -> bool {
        self.ab.is_some()
    }
}

/// One configuration.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Side {
    #[command(flatten)]
    load: LoadArguments,
    /// Do not ask the kernel when bytes arrived: what does that cost?
    #[arg(long)]
    no_stamps: bool,
}

/// What it comes to.
#[derive(Debug, Serialize)]
struct Report {
    a: String,
    b: String,
    rounds: u32,
    round_s: f64,
    seed: u64,
    differences: Vec<Difference>,
}

/// Runs the command.
pub(super) fn run(arguments: &bench::Arguments) -> Result<ExitCode, Error> {
    let AbArguments { ab, rounds, seed } = &arguments.ab;
    let Some([a, b]) = ab.as_deref() else { unreachable!("it takes two") };
    if !(2..=config::AB_ROUNDS_MAX).contains(rounds) {
        let most = config::AB_ROUNDS_MAX;
        return Err(Error::input(format!("--rounds: {rounds} is not from 2 to {most}")));
    }
    let duration = super::duration_argument("--duration", &arguments.duration)?;
    let round = Micros(duration.0 / (2 * u64::from(*rounds)));
    if round < config::AB_ROUND_MIN {
        let least = config::AB_ROUND_MIN;
        return Err(Error::input(format!("--duration: {round} are left for a round, and it takes {least}")));
    }
    let surroundings = arguments.network.surroundings()?;
    let placement = session::placement(Some(1))?;
    let [cpu] = placement.shards[..] else { unreachable!("one shard was asked for") };
    let bench = Bench { arguments, round, cpu, surroundings };
    let sides = [bench.side(a)?, bench.side(b)?];
    let mut order = Random::new(*seed);
    let mut pairs = Vec::with_capacity(*rounds as usize);
    for number in 1..=*rounds {
        let a_first = order.half() & 1 == 0;
        let early = bench.round(&sides[usize::from(!a_first)])?;
        let late = bench.round(&sides[usize::from(a_first)])?;
        pairs.push(if a_first { (early, late) } else { (late, early) });
        terminal::line(&format!("ringprobe: round {number} of {rounds}"));
    }
    let report = Report {
        a: a.clone(),
        b: b.clone(),
        rounds: *rounds,
        round_s: round.as_duration().as_secs_f64(),
        seed: *seed,
        differences: comparison::compare(&pairs),
    };
    print(&report, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    arguments: &'a bench::Arguments,
    round: Micros,
    cpu: usize,
    surroundings: Surroundings,
}

impl Bench<'_> {
    /// Reads one configuration, and makes sure that it can be run.
    fn side(&self, text: &str) -> Result<Side, Error> {
        let side = Side::try_parse_from(text.split_whitespace()).map_err(|error| {
            let message = error.to_string();
            let line = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Error::input(format!("--ab {text:?}: {line}"))
        })?;
        side.load.workload()?;
        sockets(side.load.connections(CONNECTIONS)?.into())?;
        self.roster(&side)?;
        Ok(side)
    }

    fn roster(&self, side: &Side) -> Result<Roster, Error> {
        let bench::Arguments { urls, network, .. } = self.arguments;
        side.load.roster(urls, side.load.connections(CONNECTIONS)?, network, &self.surroundings)
    }

    fn round(&self, side: &Side) -> Result<Figures, Error> {
        let connections = side.load.connections(CONNECTIONS)?;
        let options = SoloOptions {
            cpu: self.cpu,
            workload: side.load.workload()?,
            warm_up: config::SOLO_WARM_UP,
            duration: self.round,
            stamps: !side.no_stamps,
            connections_max: u32::try_from(sockets(connections.into())?).unwrap_or(u32::MAX),
            surroundings: &self.surroundings,
        };
        let solo = solo::run(self.roster(side)?, &options).map_err(Error::failed)?;
        Ok(comparison::figures(solo.measured(), solo.cpu_us_per_probe(), solo.probes_per_s()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b, rounds, round_s, seed, differences } = self;
        writeln!(f, "A: {a}\nB: {b}\n{rounds} rounds of {round_s} s each, in an order drawn from {seed}\n")?;
        write!(
            f,
            "{:>18} {:>11} {:>11} {:>11} {:>24} {:>10}",
            "", "A", "B", "A − B", "95 % confidence", "of B"
        )?;
        for difference in differences {
            write!(f, "\n{difference}")?;
        }
        write!(
            f,
            "\n\nEach figure is tested by itself: of twenty that do not differ, one is said to, by chance."
        )
    }
}
