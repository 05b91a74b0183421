//! `--store`, as every command that has one understands it.

use clap::Args;

use super::Error;
use crate::writer::{Store, StoreUrl};

/// Where endpoints and samples are kept.
#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    /// sqlite:PATH or postgres://USER@HOST/DATABASE [default: $DATABASE_URL, else sqlite:ringprobe.db]
    #[arg(long = "store", env = "RINGPROBE_STORE", value_name = "URL", hide_env_values = true)]
    store: Option<String>,
}

/// Where things are kept if nobody says.
const STORE_DEFAULT: &str = "sqlite:ringprobe.db";

impl StoreArguments {
    /// The store that the flag, the environment or the default names, in that order.
    pub(super) fn url(&self) -> Result<StoreUrl, Error> {
        let (field, text) = match &self.store {
            Some(text) => ("--store", text.clone()),
            None => match std::env::var("DATABASE_URL") {
                Ok(text) if !text.is_empty() => ("DATABASE_URL", text),
                _ => ("--store", STORE_DEFAULT.to_owned()),
            },
        };
        text.parse().map_err(|error| Error::input(format!("{field}: {error}")))
    }
}

/// Opens the store with its schema as this program needs it: brought up to date, or checked.
pub(super) async fn open(url: &StoreUrl, migrate: bool) -> Result<Store, Error> {
    let mut store = Store::open(url).await.map_err(Error::input)?;
    if migrate {
        store.migrate().await.map(drop).map_err(Error::input)?;
    } else {
        store.check_schema().await.map_err(Error::input)?;
    }
    Ok(store)
}
