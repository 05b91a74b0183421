//! `ringprobe doctor`.

use std::process::ExitCode;

use clap::Args;

use super::Error;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

/// Runs the command.
pub(super) fn run(_arguments: &Arguments) -> Result<ExitCode, Error> {
    Err(Error::failed("not built yet"))
}
