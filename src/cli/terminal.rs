//! What a person sees while something runs: a status block that redraws itself on a terminal, lines elsewhere,
//! and log lines that do not tear the block apart. All of it on standard error; results go to standard output.

use std::io::{IsTerminal, Write, stderr};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::Error;
use crate::clock::{Micros, Mono};
use crate::config;

/// How many lines of status stand above the cursor.
static BLOCK_LINES: Mutex<usize> = Mutex::new(0);

/// Whether standard error is a terminal that status may be redrawn on.
pub(super) fn is_interactive() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Sends log records to standard error, from `info` up, or from `RINGPROBE_LOG` up (`error` to `trace`).
pub(super) fn start_logging() -> Result<(), Error> {
    let level = match std::env::var("RINGPROBE_LOG") {
        Ok(text) if !text.is_empty() => text.parse().map_err(|_error| {
            Error::input(format!("RINGPROBE_LOG: `{text}` is none of off, error, warn, info, debug, trace"))
        })?,
        _ => LevelFilter::Info,
    };
    // An error means that it was started before, which is as good.
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Draws `block` in place of the block before.
pub(super) fn draw(block: &str) {
    // A line that the terminal breaks would be two to take away.
    let block = clip(block, columns());
    with_block(|lines| {
        let text = erase(*lines) + &block + "\n";
        *lines = block.lines().count();
        text
    });
}

/// Prints one line that stays.
pub(super) fn line(text: &str) {
    with_block(|lines| {
        let text = erase(*lines) + text + "\n";
        *lines = 0;
        text
    });
}

/// Takes the block away.
pub(super) fn clear() {
    with_block(|lines| erase(std::mem::take(lines)));
}

/// How many of something are done, said now and then while there are more: in place on a terminal, as lines elsewhere.
#[derive(Debug)]
pub(super) struct Counter {
    what: String,
    count: usize,
    interactive: bool,
    next: Mono,
}

impl Counter {
    /// Of `what`, none are done.
    pub(super) fn start(what: String) -> Self {
        let interactive = is_interactive();
        Self { what, count: 0, interactive, next: Mono::now() + Self::every(interactive) }
    }

    /// One more is done.
    pub(super) fn add_one(&mut self) {
        self.count += 1;
        if Mono::now() < self.next {
            return;
        }
        self.next = Mono::now() + Self::every(self.interactive);
        let text = format!("ringprobe: {}: {}", self.what, self.count);
        if self.interactive { draw(&text) } else { line(&text) }
    }

    const fn every(interactive: bool) -> Micros {
        if interactive { config::STATUS_EVERY } else { config::READING_LINE_EVERY }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if self.interactive {
            clear();
        }
    }
}

fn with_block(change: impl FnOnce(&mut usize) -> String) {
    let mut lines = BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = change(&mut lines);
    // Nobody is left to tell when standard error is gone.
    let _ = stderr().lock().write_all(text.as_bytes());
}

/// How wide the terminal is; what does not say has room for everything.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| size.ws_col);
    if size == 0 { usize::MAX } else { size.into() }
}

/// Every line cut to `columns` characters.
fn clip(text: &str, columns: usize) -> String {
    let cut = |line: &str| line.chars().take(columns).collect();
    text.lines().map(cut).collect::<Vec<String>>().join("\n")
}

/// To the start of the block, and everything below it away (ECMA-48: CPL, ED).
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}F\x1b[J") }
}

struct Logger;

impl Log for Logger {
    /// Ours, and whatever is wrong elsewhere: glommio tells of every executor it starts.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ringprobe") || metadata.level() <= Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            line(&format!("ringprobe: {level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_terminal() {
        assert_eq!(clip("ab\näöü\n", 2), "ab\näö");
        assert_eq!(clip("a\n\nb", usize::MAX), "a\n\nb");
    }
}
