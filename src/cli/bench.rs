//! `ringprobe bench`: how fast this machine probes, and at what CPU per probe.
//!
//! A closed loop keeps `--connections` probes in flight at all times and shows the limit; `--rate` is an open
//! loop that starts probes on time whatever the origin does, and shows latency that owes nothing to our waiting
//! (a closed loop slows down with its target and so leaves out the worst: coordinated omission).
//!
//! Every probe is a full one, with its sample, its phases and its way to the writer.
//!
//! `--accuracy` ([`super::accuracy`]) and `--ab` ([`super::ab`]) ask other questions with the same options.

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use url::Host;

use super::ab::AbArguments;
use super::accuracy::AccuracyArguments;
use super::network::NetworkArguments;
use super::{Error, limits, session};
use crate::config::{BENCH_CONNECTIONS_MAX, BENCH_RATE_MAX, DESCRIPTORS_RESERVED};
use crate::control::node::Workload;
use crate::control::roster::Roster;
use crate::control::surroundings::Surroundings;
use crate::control::validity::Budgets;
use crate::endpoint::{Connection, Draft, Endpoint, StoredEndpoint};
use crate::sample::{EndpointId, Failure};
use crate::shard::origins::Caps;
use crate::writer::{StoreUrl, WriterOptions, block_on};

/// Connections of who does not say.
pub(super) const CONNECTIONS: u32 = 64;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to probe; connections are dealt out among several.
    #[arg(required_unless_present = "accuracy", value_name = "URL")]
    pub(super) urls: Vec<String>,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    /// How long; with --accuracy, at each load.
    #[arg(long, short = 'd', default_value = "10s", value_name = "TIME")]
    pub(super) duration: String,
    /// Probing cores.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cores: usize,
    #[command(flatten)]
    pub(super) accuracy: AccuracyArguments,
    #[command(flatten)]
    pub(super) ab: AbArguments,
    /// Also store every sample: sqlite:PATH or postgres://…; a store of its own, because connections count as
    /// the endpoints 1, 2, …
    #[arg(long, value_name = "URL")]
    store: Option<StoreUrl>,
    #[command(flatten)]
    pub(super) network: NetworkArguments,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

/// What may differ from one configuration to another.
#[derive(Clone, Debug, Args)]
pub(super) struct LoadArguments {
    /// Connections, each with at most one probe in flight [default: 64; with --accuracy, as many as the core needs]
    #[arg(long, short = 'c', value_name = "N")]
    pub(super) connections: Option<u32>,
    /// A new connection for each probe, instead of keeping them alive.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Open loop: so many probes per second in all, on time.
    #[arg(long, value_name = "PER_SECOND")]
    pub(super) rate: Option<f64>,
    /// Timeout of a probe.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    timeout: String,
}

impl LoadArguments {
    /// So many connections, unless something else is asked for.
    pub(super) fn connections(&self, otherwise: u32) -> Result<u32, Error> {
        match self.connections.unwrap_or(otherwise) {
            0 => Err(Error::input("--connections: 0 probe nothing")),
            given if given > BENCH_CONNECTIONS_MAX => {
                Err(Error::input(format!("--connections: {given} are more than {BENCH_CONNECTIONS_MAX}")))
            }
            given => Ok(given),
        }
    }

    /// When probes start.
    pub(super) fn workload(&self) -> Result<Workload, Error> {
        match self.rate {
            None => Ok(Workload::ClosedLoop),
            Some(rate) if !(rate > 0.0 && rate.is_finite()) => {
                Err(Error::input(format!("--rate: {rate} is not a rate")))
            }
            Some(rate) if rate > BENCH_RATE_MAX => {
                Err(Error::input(format!("--rate: {rate} per second are more than {BENCH_RATE_MAX}")))
            }
            Some(probes_per_s) => Ok(Workload::Rate { probes_per_s }),
        }
    }

    /// `connections` endpoints, numbered from 1, in turn of these URLs.
    pub(super) fn roster(
        &self,
        urls: &[String],
        connections: u32,
        network: &NetworkArguments,
        surroundings: &Surroundings,
    ) -> Result<Roster, Error> {
        let urls = urls.iter().map(|url| self.endpoint(url)).collect::<Result<Vec<_>, _>>()?;
        let endpoints = (1..).zip(urls.iter().cycle()).take(connections as usize);
        let endpoints =
            endpoints.map(|(id, endpoint)| StoredEndpoint { id: EndpointId(id), endpoint: endpoint.clone() });
        let mut roster = Roster::default();
        let mut planner = network.planner(surroundings).for_benchmarks();
        roster.extend(endpoints, &mut planner).map_err(Error::input)?;
        Ok(roster)
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, Error> {
        let connection = if self.fresh { Connection::Fresh } else { Connection::Reuse };
        let draft = Draft {
            timeout: Some(self.timeout.clone()),
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
            let found =
                found.ok_or_else(|| Error::failed(format!("{url}: {}", Failure::DnsNotFound.name())))?;
            Arc::make_mut(&mut endpoint.options).address = Some(found.ip());
        }
        Ok(endpoint)
    }
}

/// That this process may open so many sockets for its connections; how many it may.
pub(super) fn sockets(wanted: u64) -> Result<u64, Error> {
    let sockets = limits::descriptors_max()? - DESCRIPTORS_RESERVED;
    if wanted > sockets {
        return Err(Error::input(format!(
            "--connections: {wanted} sockets are more than the {sockets} that this process may open; see `ulimit -n`"
        )));
    }
    Ok(sockets)
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    if arguments.accuracy.accuracy {
        return super::accuracy::run(arguments);
    }
    if arguments.ab.is_asked() {
        return super::ab::run(arguments);
    }
    let duration = super::duration_argument("--duration", &arguments.duration)?;
    let connections = arguments.load.connections(CONNECTIONS)?;
    let workload = arguments.load.workload()?;
    let surroundings = arguments.network.surroundings()?;
    let roster = arguments.load.roster(&arguments.urls, connections, &arguments.network, &surroundings)?;
    sockets(connections.into())?;
    if let Some(store) = &arguments.store {
        block_on(super::store::open(store, true)).map_err(Error::failed)??;
    }
    let summary = session::run(session::Session {
        roster,
        workload,
        cores: Some(arguments.cores),
        // Not asked: a benchmark is not polite.
        origin: Caps::default(),
        writer: WriterOptions { store: arguments.store.clone(), ..WriterOptions::default() },
        duration: Some(duration),
        surroundings,
        budgets: Budgets::default(),
    })?;
    super::print_summary(&summary, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}
