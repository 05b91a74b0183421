//! `ringprobe bench`: how fast this machine probes, and at what CPU per probe.
//!
//! A closed loop keeps `--connections` probes in flight at all times and shows the limit; `--rate` is an open
//! loop that starts probes on time whatever the origin does, and shows latency that owes nothing to our waiting
//! (a closed loop slows down with its target and so leaves out the worst: coordinated omission).
//!
//! Every probe is a full one, with its sample, its phases and its way to the writer.

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use url::Host;

use super::network::NetworkArguments;
use super::{Error, limits, session};
use crate::config::{BENCH_CONNECTIONS_MAX, BENCH_RATE_MAX, DESCRIPTORS_RESERVED};
use crate::control::node::Workload;
use crate::control::roster::Roster;
use crate::endpoint::{Connection, Draft, Endpoint, StoredEndpoint};
use crate::sample::{EndpointId, Failure};
use crate::shard::origins::Caps;
use crate::writer::{StoreUrl, WriterOptions, block_on};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to probe; connections are dealt out among several.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Connections, each with at most one probe in flight.
    #[arg(long, short = 'c', default_value_t = 64, value_name = "N")]
    connections: u32,
    /// A new connection for each probe, instead of keeping them alive.
    #[arg(long)]
    fresh: bool,
    /// Open loop: so many probes per second in all, on time.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// How long.
    #[arg(long, short = 'd', default_value = "10s", value_name = "TIME")]
    duration: String,
    /// Probing cores.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cores: usize,
    /// Timeout of a probe.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    timeout: String,
    /// Also store every sample: sqlite:PATH or postgres://…; a store of its own, because connections count as
    /// the endpoints 1, 2, …
    #[arg(long, value_name = "URL")]
    store: Option<StoreUrl>,
    #[command(flatten)]
    network: NetworkArguments,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let duration = super::duration_argument("--duration", &arguments.duration)?;
    if arguments.connections == 0 {
        return Err(Error::input("--connections: 0 probe nothing"));
    }
    if arguments.connections > BENCH_CONNECTIONS_MAX {
        let given = arguments.connections;
        return Err(Error::input(format!("--connections: {given} are more than {BENCH_CONNECTIONS_MAX}")));
    }
    if let Some(rate) = arguments.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
        return Err(Error::input(format!("--rate: {rate} is not a rate")));
    }
    if let Some(rate) = arguments.rate.filter(|rate| *rate > BENCH_RATE_MAX) {
        return Err(Error::input(format!("--rate: {rate} per second are more than {BENCH_RATE_MAX}")));
    }
    let urls = arguments.urls.iter().map(|url| endpoint(arguments, url)).collect::<Result<Vec<_>, _>>()?;
    let endpoints = (1..).zip(urls.iter().cycle()).take(arguments.connections as usize);
    let endpoints =
        endpoints.map(|(id, endpoint)| StoredEndpoint { id: EndpointId(id), endpoint: endpoint.clone() });
    let surroundings = arguments.network.surroundings()?;
    let mut roster = Roster::default();
    let mut planner = arguments.network.planner(&surroundings).for_benchmarks();
    roster.extend(endpoints.collect(), &mut planner).map_err(Error::input)?;
    let sockets = limits::descriptors_max()? - DESCRIPTORS_RESERVED;
    if u64::from(arguments.connections) > sockets {
        let given = arguments.connections;
        return Err(Error::input(format!(
            "--connections: {given} are more than the {sockets} that this process may open; see `ulimit -n`"
        )));
    }
    if let Some(store) = &arguments.store {
        block_on(super::store::open(store, true)).map_err(Error::failed)??;
    }
    let summary = session::run(session::Session {
        roster,
        workload: match arguments.rate {
            None => Workload::ClosedLoop,
            Some(probes_per_s) => Workload::Rate { probes_per_s },
        },
        cores: Some(arguments.cores),
        // Not asked: a benchmark is not polite.
        origin: Caps::default(),
        writer: WriterOptions { store: arguments.store.clone(), ..WriterOptions::default() },
        duration: Some(duration),
        surroundings,
    })?;
    super::print_summary(&summary, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

fn endpoint(arguments: &Arguments, url: &str) -> Result<Endpoint, Error> {
    let connection = if arguments.fresh { Connection::Fresh } else { Connection::Reuse };
    let draft = Draft {
        timeout: Some(arguments.timeout.clone()),
        connection: Some(connection.name().to_owned()),
        // A saturated origin may answer anything: what is measured is the exchange.
        expect_status: Some(vec!["100-599".to_owned()]),
        ..Draft::of_url(url)
    };
    let mut endpoint =
        draft.validate(&Draft::default()).map_err(|error| Error::input(format!("{url}: {error}")))?;
    // A name is resolved once, before anything is measured: a benchmark of a name that does not resolve has nothing
    // to say, and one that asks DNS in between says something else.
    if let Some(Host::Domain(name)) = endpoint.url.host() {
        let found = (name, 0).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let found = found.ok_or_else(|| Error::failed(format!("{url}: {}", Failure::DnsNotFound.name())))?;
        Arc::make_mut(&mut endpoint.options).address = Some(found.ip());
    }
    Ok(endpoint)
}
