//! `ringprobe migrate`.

use std::process::ExitCode;

use clap::Args;

use super::Error;

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

/// Runs the command.
pub(super) fn run(_arguments: &Arguments) -> Result<ExitCode, Error> {
    Err(Error::failed("not built yet"))
}
