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
use crate::config::BODY_BYTES_MAX;
use crate::matcher::{Budgets, Certainty, Compiler, Matcher, Patterns, Verdict};

/// Bytes read from the file, and given to the matcher, at a time: as many as a receive brings.
const PIECE_BYTES: usize = 16 * 1024;

/// Arguments of `pattern`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say how a pattern is looked for, and try it on a body.
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
    certain_after_bytes: u64,
    mb_per_s: Option<f64>,
}

/// Runs the command. Exit status 0 if the pattern is found or there is no body, 1 if it is not.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let Command::Test(arguments) = &arguments.command;
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
    let found = tried.is_none_or(|tried| tried.verdict == Verdict::Matched);
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        if body_bytes > BODY_BYTES_MAX {
            return Err(Error::input(format!(
                "{file}: more than {BODY_BYTES_MAX} bytes, which no body may have"
            )));
        }
        let began = Mono::now();
        let certainty = matcher.feed(&mut scan, &piece[..count]);
        match_ns += Mono::now().nanos_since(began);
        if matches!(certainty, Certainty::Certain(_)) {
            // The verdict is final; what is left is only counted.
            body_bytes += io::copy(&mut input.take(BODY_BYTES_MAX), &mut io::sink()).map_err(refuse)?;
            break;
        }
    }
    let verdict = matcher.finish(&mut scan);
    let certain_after_bytes = scan.certain_after_bytes().unwrap_or(body_bytes);
    Ok(Tried { verdict, body_bytes, certain_after_bytes, mb_per_s: mb_per_s(certain_after_bytes, match_ns) })
}

/// Megabytes (10⁶) per second; nothing if too little was measured to say.
#[expect(clippy::cast_precision_loss, reason = "a rate is a measure")]
fn mb_per_s(bytes: u64, ns: u64) -> Option<f64> {
    const NS_MIN: u64 = 10_000;
    (ns >= NS_MIN).then(|| (bytes as f64 * 1e3 / ns as f64).round())
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Matched => "matched",
        Verdict::Missing { .. } => "missing",
        Verdict::Forbidden { .. } => "forbidden",
        Verdict::Budget { .. } => "budget",
    }
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
        let _ = writeln!(text, "verdict   {}", verdict_name(tried.verdict));
        let _ = writeln!(text, "certain   after {} of {} bytes", tried.certain_after_bytes, tried.body_bytes);
        if let Some(speed) = tried.mb_per_s {
            let _ = writeln!(text, "speed     {speed} MB/s");
        }
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
        "verdict": tried.map(|tried| verdict_name(tried.verdict)),
        "body_bytes": tried.map(|tried| tried.body_bytes),
        "certain_after_bytes": tried.map(|tried| tried.certain_after_bytes),
        "mb_per_s": tried.and_then(|tried| tried.mb_per_s),
    })
}
