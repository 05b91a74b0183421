//! The command line: arguments to command, one file per subcommand, and the one place where errors become
//! an exit status.
//!
//! Exit status: 0 done (for `check`: all up), 1 failed (for `check`: any down), 2 bad input, with one line
//! on standard error that names file, line and field where there are any.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::clock::Micros;
use crate::control::summary::Summary;
use crate::endpoint::duration;

mod ab;
mod accuracy;
mod bench;
mod check;
mod doctor;
mod endpoints;
mod limits;
mod migrate;
mod network;
mod pattern;
mod run;
mod session;
mod store;
mod target;
mod terminal;

/// HTTP endpoint prober: io_uring, thread per core, PostgreSQL or SQLite.
#[derive(Debug, Parser)]
#[command(name = "ringprobe", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Probe URLs once, now, and show the phases.
    Check(check::Arguments),
    /// Probe endpoints on schedule and store every sample.
    Run(run::Arguments),
    /// Measure this machine: a closed loop at full speed, or an open loop at a given rate.
    Bench(bench::Arguments),
    /// Import, export, list or generate endpoints.
    Endpoints(endpoints::Arguments),
    /// Serve the test origin: delays, sizes, statuses and every sort of misbehaviour.
    Target(target::Arguments),
    /// Bring the store's tables up to date.
    Migrate(migrate::Arguments),
    /// Try a body pattern: how it is looked for, how fast, and what it makes of a body.
    Pattern(pattern::Arguments),
    /// Say whether this machine can run the prober, and what to do if not.
    Doctor(doctor::Arguments),
}

/// Why a command ended without doing what it was asked to.
#[derive(Debug)]
pub(crate) enum Error {
    /// The user's input is wrong: exit status 2.
    Input(String),
    /// We, or the world, failed: exit status 1.
    Failed(String),
}

impl Error {
    /// Bad input; `message` is a lower-case fragment that names file, line and field.
    pub(crate) fn input(message: impl Display) -> Self {
        Self::Input(message.to_string())
    }

    /// A failure that is not the input's.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string())
    }
}

/// Parses the arguments of this process, runs the command, and reports.
#[must_use]
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    limits::keep_memory_private();
    let result = terminal::start_logging().and_then(|()| match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Endpoints(arguments) => endpoints::run(&arguments),
        Command::Target(arguments) => target::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Pattern(arguments) => pattern::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    });
    match result {
        Ok(code) => code,
        Err(Error::Input(message)) => {
            report(&message);
            ExitCode::from(2)
        }
        Err(Error::Failed(message)) => {
            report(&message);
            ExitCode::FAILURE
        }
    }
}

/// The one place that reports errors. Not `eprintln!`, which panics if standard error is full or gone: the exit
/// status would not be the one promised.
fn report(message: &str) {
    terminal::line(&one_line(&format!("ringprobe: {message}")));
}

/// Messages repeat what was given, such as a path: without what would break the line, or speak to the terminal.
fn one_line(message: &str) -> String {
    let escaped =
        |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    message.chars().map(escaped).collect()
}

/// A duration given on the command line, such as `30s`. None of them may be nothing.
fn duration_argument(flag: &str, text: &str) -> Result<Micros, Error> {
    match duration::parse(text) {
        Ok(Micros(0)) => Err(Error::input(format!("{flag}: {text} is no time at all"))),
        Ok(span) => Ok(span),
        Err(error) => Err(Error::input(format!("{flag}: {error}"))),
    }
}

/// A run's summary on standard output, for people or for machines.
fn print_summary(summary: &Summary, json: bool) -> Result<(), Error> {
    print(summary, json)
}

/// What a command found, on standard output.
fn print<T: Display + Serialize>(found: &T, json: bool) -> Result<(), Error> {
    let text = if json { serde_json::to_string(found).map_err(Error::failed)? } else { found.to_string() };
    writeln!(io::stdout(), "{text}").map_err(Error::failed)
}
