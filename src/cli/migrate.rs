//! `ringprobe migrate`: brings the store's tables up to date, and says what it did.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Error;
use super::store::StoreArguments;
use crate::writer::{Store, StoreError, StoreUrl, block_on};

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let url = arguments.store.url()?;
    let applied = block_on(migrate(&url)).map_err(Error::failed)?.map_err(Error::input)?;
    let text = match (arguments.json, applied.as_slice()) {
        (true, applied) => json!({ "store": url.to_string(), "applied": applied }).to_string(),
        (false, []) => format!("{url}: up to date"),
        (false, applied) => {
            let versions: Vec<String> = applied.iter().map(u32::to_string).collect();
            format!("{url}: applied {}", versions.join(", "))
        }
    };
    writeln!(io::stdout(), "{text}").map_err(Error::failed)?;
    Ok(ExitCode::SUCCESS)
}

async fn migrate(url: &StoreUrl) -> Result<Vec<u32>, StoreError> {
    Store::open(url).await?.migrate().await
}
