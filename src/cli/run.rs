//! `ringprobe run`: probes endpoints on schedule and stores every sample, until told to stop.
//!
//! Everything is read, validated and planned before anything is written or started, so bad input leaves no trace.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Args;

use super::network::NetworkArguments;
use super::store::StoreArguments;
use super::{Error, endpoints, session, terminal};
use crate::clock::Micros;
use crate::config::{RETENTION_DEFAULT, RETENTION_MIN};
use crate::control::node::Workload;
use crate::control::plans::Planner;
use crate::control::roster::{PlanError, Roster};
use crate::control::validity::Budgets;
use crate::endpoint::{Endpoint, StoredEndpoint, duration, size};
use crate::matcher::{Compiler, budget};
use crate::shard::origins::Caps;
use crate::writer::{StoreUrl, WriterOptions, block_on};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Endpoint file: brings the store's endpoints in line with it first. Without it, those of the store are
    /// probed as they are.
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    network: NetworkArguments,
    /// Stop after this long; without it, at SIGINT or SIGTERM.
    #[arg(long, short = 'd', env = "RINGPROBE_DURATION", value_name = "TIME")]
    duration: Option<String>,
    /// Probing cores; by default all CPUs of this process but one, which the writer has.
    #[arg(long, env = "RINGPROBE_CORES", value_name = "N")]
    cores: Option<usize>,
    /// Remove samples from the store when they are this old, such as 30d; `never` keeps them for ever [default: 7d]
    #[arg(long, env = "RINGPROBE_RETENTION", value_name = "TIME")]
    retention: Option<String>,
    /// What a valid run or minute may show at p99: lag=5ms,agent=20ms,canary=2ms,stolen=10%,throttled=2%,backlog=1m, or
    /// some of them [default: lag=2ms,agent=10ms,canary=1ms,stolen=5%,throttled=1%,backlog=30s]
    #[arg(long, env = "RINGPROBE_BUDGET", value_name = "NAME=VALUE,…")]
    budget: Option<String>,
    /// Most probes in flight to one address, loopback excepted; slots beyond are missed (`origin_limit`); `off` or 0
    /// for no such cap. Probing cores share it, and each has one at least: if N is smaller than their number, they are
    /// as many as that [default: 256]
    #[arg(long, env = "RINGPROBE_ORIGIN_INFLIGHT", value_name = "N")]
    origin_inflight: Option<String>,
    /// Most probes started per second to one address, likewise; if N is smaller than the number K of probing cores,
    /// each starts one in K/N seconds [default: 1000]
    #[arg(long, env = "RINGPROBE_ORIGIN_RATE", value_name = "N")]
    origin_rate: Option<String>,
    /// Do not bring the store's tables up to date.
    #[arg(long)]
    no_migrate: bool,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let duration =
        arguments.duration.as_deref().map(|text| super::duration_argument("--duration", text)).transpose()?;
    let retention = arguments.retention.as_deref().map_or(Ok(Some(RETENTION_DEFAULT)), retention)?;
    let budgets = Budgets::default().with(arguments.budget.as_deref().unwrap_or_default());
    let budgets = budgets.map_err(|error| Error::input(format!("--budget: {error}")))?;
    let origin = origin_caps(arguments)?;
    session::placement(arguments.cores)?;
    let store_url = arguments.store.url()?;
    let surroundings = arguments.network.surroundings()?;
    let mut planner = arguments.network.planner(&surroundings);
    let loading = || {
        // Plans are made before anything is stored, and again when the store has said the ids: a million endpoints and
        // their plans are not to be in memory together.
        let mut check = |endpoint: &Endpoint| planner.check(endpoint);
        let wanted = arguments.file.as_deref().map(|path| endpoints::read(path, &mut check)).transpose()?;
        block_on(load(&store_url, wanted, !arguments.no_migrate, planner)).map_err(Error::failed)?
    };
    // On a thread that ends with it: then the allocator lets go of what it kept for that thread.
    let loaded = thread::scope(|scope| scope.spawn(loading).join());
    let roster = loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let summary = session::run(session::Session {
        roster,
        workload: Workload::Scheduled,
        cores: arguments.cores,
        origin,
        writer: WriterOptions { store: Some(store_url), retention, ..WriterOptions::default() },
        duration,
        surroundings,
        budgets,
    })?;
    super::print_summary(&summary, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

/// How long samples are kept; `None` is for ever.
fn retention(text: &str) -> Result<Option<Micros>, Error> {
    if text == "never" {
        return Ok(None);
    }
    let span = super::duration_argument("--retention", text)?;
    if span < RETENTION_MIN {
        let (given, min) = (duration::prose(span), duration::prose(RETENTION_MIN));
        return Err(Error::input(format!("--retention: {given} is shorter than {min}")));
    }
    Ok(Some(span))
}

/// What one origin address is spared.
fn origin_caps(arguments: &Arguments) -> Result<Caps, Error> {
    let cap = |flag, text: &Option<String>, default| {
        text.as_deref().map_or(Ok(default), |text| origin_cap(flag, text))
    };
    let default = Caps::default();
    Ok(Caps {
        inflight_max: cap("--origin-inflight", &arguments.origin_inflight, default.inflight_max)?,
        probes_per_s_max: cap("--origin-rate", &arguments.origin_rate, default.probes_per_s_max)?,
    })
}

/// One cap; `off` and 0 are none.
fn origin_cap(flag: &str, text: &str) -> Result<u32, Error> {
    match (text, text.parse()) {
        ("off", _) | (_, Ok(0)) => Ok(Caps::NONE),
        (_, Ok(cap)) => Ok(cap),
        (_, Err(_)) => Err(Error::input(format!("{flag}: {text:?} is neither a whole number nor `off`"))),
    }
}

/// Endpoints on their way from the store to the shards.
struct Loading {
    roster: Roster,
    planner: Planner,
    /// Endpoints of the store that are not the file's.
    others: usize,
    /// The first endpoint that cannot be probed as it says.
    error: Option<PlanError>,
    planned: terminal::Counter,
}

/// Brings the store in line and reads back what to probe: with a file, its endpoints; else all of the table's.
async fn load(
    url: &StoreUrl,
    wanted: Option<Vec<Endpoint>>,
    migrate: bool,
    planner: Planner,
) -> Result<Roster, Error> {
    let mut store = super::store::open(url, migrate).await?;
    let names: Option<HashSet<String>> =
        wanted.as_ref().map(|endpoints| endpoints.iter().map(|endpoint| endpoint.name.clone()).collect());
    let upserted = match wanted {
        Some(endpoints) => Some(store.upsert_endpoints(endpoints).await.map_err(Error::failed)?),
        None => None,
    };
    let add = move |loading: &mut Loading, mut page: Vec<StoredEndpoint>| {
        if let Some(names) = &names {
            let in_page = page.len();
            page.retain(|stored| names.contains(&stored.endpoint.name));
            loading.others += in_page - page.len();
        }
        page.retain(|stored| stored.endpoint.options.enabled);
        let page = page.into_iter().inspect(|_| loading.planned.add_one());
        let added = loading.roster.extend(page, &mut loading.planner);
        loading.error = loading.error.take().or_else(|| added.err());
    };
    let planned = terminal::Counter::start(format!("{url}: endpoints planned"));
    let loading = Loading { roster: Roster::default(), planner, others: 0, error: None, planned };
    let loaded = store.fold_endpoints(loading, add).await.map_err(Error::input)?;
    let Loading { roster, planner, others, error, planned } = loaded;
    drop(planned);
    if let Some(error) = error {
        return Err(Error::input(error));
    }
    if let Some(upserted) = upserted {
        log::info!(
            "{url}: {} endpoints new, {} changed, {} as they were; {others} others in the store are left alone",
            upserted.inserted,
            upserted.updated,
            upserted.unchanged,
        );
    }
    tell_patterns(planner.compiler(), &roster);
    if roster.is_empty() {
        let hint = "import some with `ringprobe endpoints import FILE`, or name a file";
        return Err(Error::input(format!("{url}: no enabled endpoint in the store; {hint}")));
    }
    Ok(roster)
}

/// Says what the patterns take, and which of them are not tables.
fn tell_patterns(compiler: &Compiler, roster: &Roster) {
    if compiler.bytes_total() > 0 {
        log::info!(
            "body patterns: {} KiB of tables, of at most {} MiB in all and {} KiB each",
            compiler.bytes_total().div_ceil(1024),
            budget::TABLES_BYTES_MAX >> 20,
            budget::TABLE_BYTES_MAX >> 10,
        );
    }
    let (patterns, shared_bytes) = compiler.lazy();
    if patterns > 0 {
        let (body_bytes, endpoints) = roster.body_bytes_max();
        log::info!(
            "lazy patterns, whose tables would be above {} KiB: {patterns}, of {endpoints} endpoints; {} KiB are shared, and \
             each body builds up to {} KiB for each of its own: {} if all of these endpoints are in flight",
            budget::TABLE_BYTES_SOFT >> 10,
            shared_bytes.div_ceil(1024),
            budget::LAZY_BYTES_MAX >> 10,
            size::write(body_bytes as u64),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_a_number_and_without_one_off() {
        let cap = |text: &str| origin_cap("--origin-rate", text).map_err(|error| format!("{error:?}"));
        assert_eq!(["1", "1000", "0", "off"].map(cap), [Ok(1), Ok(1000), Ok(Caps::NONE), Ok(Caps::NONE)]);
        for text in ["", "-1", "1.5", "10/s", "OFF", "4294967296"] {
            assert!(cap(text).unwrap_err().contains("--origin-rate: "), "{text}");
        }
        let help = Caps { inflight_max: 256, probes_per_s_max: 1000 };
        assert_eq!(Caps::default(), help, "as --help says");
    }

    #[test]
    fn retention_is_a_time_of_an_hour_or_more_or_never() {
        let kept = |text: &str| retention(text).map_err(|error| format!("{error:?}"));
        assert_eq!(kept("30d"), Ok(Some(Micros(30 * 86_400_000_000))));
        assert_eq!(kept("1h"), Ok(Some(RETENTION_MIN)));
        assert_eq!(kept("7d"), Ok(Some(RETENTION_DEFAULT)), "as --help says");
        assert_eq!(kept("never"), Ok(None));
        for text in ["", "0s", "59m", "30", "Never", "for ever"] {
            assert!(kept(text).unwrap_err().contains("--retention: "), "{text}");
        }
    }
}
