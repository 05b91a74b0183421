//! `ringprobe pattern test`: what a pattern is compiled to, how fast it is, and what it makes of a body.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Error;
use crate::clock::Mono;
use crate::endpoint::draft::{BODY_LIMIT_BYTES_MAX, check_pattern};
use crate::endpoint::size;
use crate::matcher::{Budgets, Compiler, Matcher, Patterns, Verdict};
use crate::sample::BodyMatch;

/// Bytes read from the file, and given to the matcher, at a time: four receives, and as many as stay in the caches.
const PIECE_BYTES: usize = 16 * 1024;
/// Fewer bytes looked at say nothing about speed: the first ones wait for the table to come into the caches.
const SPEED_BYTES_MIN: u64 = 64 * 1024;
/// Exit status of a body of which it is not known whether the pattern is in it.
const EXIT_NO_VERDICT: u8 = 3;

/// Arguments of `pattern`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say how a pattern is looked for, and try it on a body.
    ///
    /// Exit status: 0 the pattern is found, or there is no body; 1 it is not; 3 its budget for this body ran out, so
    /// that it is not known; 2 the pattern is refused, or the body cannot be read.
    Test(TestArguments),
}

#[derive(Debug, Args)]
struct TestArguments {
    /// The pattern, as in `body_match`.
    #[arg(allow_hyphen_values = true)]
    pattern: String,
    /// A body; `-` for standard input.
    file: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the body came to.
struct Tried {
    verdict: Verdict,
    body_bytes: u64,
    /// So many were looked at, until the verdict was certain or given up,
    looked_at_bytes: u64,
    /// in so much time.
    match_ns: u64,
}

impl Tried {
    fn name(&self) -> &'static str {
        let body = match self.verdict {
            Verdict::Matched => BodyMatch::Matched,
            Verdict::Missing { .. } | Verdict::Forbidden { .. } => BodyMatch::NotMatched,
            Verdict::Budget { .. } => BodyMatch::NoVerdict,
        };
        body.name()
    }

    /// Nothing if there is no verdict.
    fn certain_after_bytes(&self) -> Option<u64> {
        (!matches!(self.verdict, Verdict::Budget { .. })).then_some(self.looked_at_bytes)
    }

    /// Megabytes (10⁶) per second; nothing if too little was looked at to say.
    #[expect(clippy::cast_precision_loss, reason = "a rate is a measure")]
    fn mb_per_s(&self) -> Option<f64> {
        let says = self.looked_at_bytes >= SPEED_BYTES_MIN && self.match_ns > 0;
        says.then(|| (self.looked_at_bytes as f64 * 1e3 / self.match_ns as f64).round())
    }
}

/// Runs the command. Exit status 0 if the pattern is found or there is no body, 1 if it is not, 3 if it is not known.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let Command::Test(arguments) = &arguments.command;
    check_pattern(&arguments.pattern).map_err(|reason| Error::input(format!("pattern: {reason}")))?;
    let patterns = Patterns { body_match: vec![arguments.pattern.clone()], body_forbid: Vec::new() };
    let began = Mono::now();
    let matcher = Compiler::new(Budgets::default())
        .compile(&patterns)
        .map_err(|error| Error::input(format!("pattern, byte {}: {}", error.offset, error.message)))?;
    let compile_us = Mono::now().nanos_since(began) / 1_000;
    let tried = arguments.file.as_deref().map(|file| try_on(file, &matcher)).transpose()?;
    let text = if arguments.json {
        as_json(arguments, &matcher, compile_us, tried.as_ref()).to_string()
    } else {
        as_text(&matcher, compile_us, tried.as_ref())
    };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::failed)?;
    Ok(match tried.map(|tried| tried.verdict) {
        None | Some(Verdict::Matched) => ExitCode::SUCCESS,
        Some(Verdict::Missing { .. } | Verdict::Forbidden { .. }) => ExitCode::FAILURE,
        Some(Verdict::Budget { .. }) => ExitCode::from(EXIT_NO_VERDICT),
    })
}

/// Feeds the whole file, piece by piece; the clock runs while the matcher does, up to the certain verdict.
fn try_on(file: &str, matcher: &Arc<Matcher>) -> Result<Tried, Error> {
    let refuse = |error: io::Error| Error::input(format!("{file}: {error}"));
    let mut input: Box<dyn Read> =
        if file == "-" { Box::new(io::stdin()) } else { Box::new(File::open(file).map_err(refuse)?) };
    let mut scan = matcher.start();
    let mut piece = vec![0; PIECE_BYTES];
    let (mut body_bytes, mut match_ns) = (0_u64, 0);
    loop {
        let count = input.read(&mut piece).map_err(refuse)?;
        if count == 0 {
            break;
        }
        body_bytes += count as u64;
        if body_bytes > BODY_LIMIT_BYTES_MAX {
            let most = size::write(BODY_LIMIT_BYTES_MAX);
            return Err(Error::input(format!("{file}: is longer than {most}, the largest body_limit")));
        }
        // A verdict that is certain is final; what is left is only counted.
        if matcher.verdict_so_far(&scan).is_none() {
            let began = Mono::now();
            matcher.feed(&mut scan, &piece[..count]);
            match_ns += Mono::now().nanos_since(began);
        }
    }
    let verdict = matcher.finish(&mut scan);
    let looked_at_bytes = scan.certain_after_bytes().unwrap_or(body_bytes);
    Ok(Tried { verdict, body_bytes, looked_at_bytes, match_ns })
}

fn as_text(matcher: &Matcher, compile_us: u64, tried: Option<&Tried>) -> String {
    let mut text = String::new();
    let tier = matcher.tier().map_or("none", |tier| tier.name());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "tier      {tier}");
    for explanation in matcher.explain() {
        for (tier, states, bytes) in explanation.conjuncts {
            let _ = match states {
                0 => writeln!(text, "table     {tier}: states made per body; {bytes} bytes shared"),
                states => writeln!(text, "table     {tier}: {states} states, {bytes} bytes"),
            };
        }
    }
    let _ = writeln!(text, "bytes     {}", matcher.bytes());
    let _ = writeln!(text, "compiled  in {compile_us} µs");
    if let Some(tried) = tried {
        let Tried { body_bytes, looked_at_bytes, match_ns, .. } = tried;
        let until = if tried.certain_after_bytes().is_some() { "certain  " } else { "given up " };
        let _ = writeln!(text, "verdict   {}", tried.name());
        let _ = writeln!(text, "{until} after {looked_at_bytes} of {body_bytes} bytes");
        let match_us = match_ns / 1_000;
        let _ = match tried.mb_per_s() {
            Some(speed) => writeln!(text, "speed     {speed} MB/s: {looked_at_bytes} bytes in {match_us} µs"),
            None => writeln!(text, "speed     {looked_at_bytes} bytes in {match_us} µs: too few for a rate"),
        };
    }
    text
}

fn as_json(arguments: &TestArguments, matcher: &Matcher, compile_us: u64, tried: Option<&Tried>) -> Value {
    let tables: Vec<Value> = matcher
        .explain()
        .iter()
        .flat_map(|explanation| &explanation.conjuncts)
        .map(|(tier, states, bytes)| {
            // A lazy table has no states until a body comes.
            json!({ "tier": tier.name(), "states": (*states > 0).then_some(states), "bytes": bytes })
        })
        .collect();
    json!({
        "pattern": arguments.pattern,
        "tier": matcher.tier().map(|tier| tier.name()),
        "tables": tables,
        "bytes": matcher.bytes(),
        "compile_us": compile_us,
        "verdict": tried.map(Tried::name),
        "body_bytes": tried.map(|tried| tried.body_bytes),
        "certain_after_bytes": tried.and_then(Tried::certain_after_bytes),
        "looked_at_bytes": tried.map(|tried| tried.looked_at_bytes),
        "match_us": tried.map(|tried| tried.match_ns / 1_000),
        "mb_per_s": tried.and_then(Tried::mb_per_s),
    })
}
