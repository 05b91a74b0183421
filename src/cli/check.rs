//! `ringprobe check`: probes URLs once, now, by the same engine as `run`, and shows the phases.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{Error, limits, session};
use crate::clock::Micros;
use crate::control::node::collect_once;
use crate::control::roster::Roster;
use crate::control::surroundings::Surroundings;
use crate::endpoint::{Draft, Endpoint, StoredEndpoint};
use crate::sample::{ABSENT, EndpointId, Flags, Outcome, Phases, Sample};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to probe.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Give up after this long.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    timeout: String,
    /// Request method; GET, or POST if there is a body.
    #[arg(long, short = 'X')]
    method: Option<String>,
    /// A header field, as `Name: value`; repeatable.
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<String>,
    /// Request body.
    #[arg(long, short = 'd')]
    body: Option<String>,
    /// Connect here instead of resolving the URL's host.
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// A status that counts as up, or a range of them; repeatable.
    #[arg(long, value_name = "STATUS")]
    expect_status: Vec<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let endpoints =
        arguments.urls.iter().map(|url| endpoint(arguments, url)).collect::<Result<Vec<_>, _>>()?;
    let endpoints: Vec<StoredEndpoint> =
        (0..).zip(endpoints).map(|(id, endpoint)| StoredEndpoint { id: EndpointId(id), endpoint }).collect();
    let descriptors_max = limits::descriptors_max()?;
    let cpu = session::placement(Some(1))?.shards[0];
    let mut samples =
        collect_once(Roster::from(endpoints), cpu, descriptors_max, &Surroundings::of_machine()).map_err(
            |error| Error::failed(format!("cannot probe: {error}; `ringprobe doctor` says what is missing")),
        )?;
    samples.sort_unstable_by_key(|sample| sample.endpoint_id);
    let all_up = samples.iter().all(|sample| sample.outcome == Outcome::Up);
    let text =
        if arguments.json { as_json(&arguments.urls, &samples) } else { as_table(&arguments.urls, &samples) };
    writeln!(io::stdout(), "{text}").map_err(Error::failed)?;
    Ok(if all_up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn endpoint(arguments: &Arguments, url: &str) -> Result<Endpoint, Error> {
    let headers = arguments.headers.iter().map(|field| {
        let (name, value) = field
            .split_once(':')
            .ok_or_else(|| Error::input(format!("--header: `{field}` lacks a colon; write `Name: value`")))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    let draft = Draft {
        method: arguments.method.clone().or_else(|| arguments.body.as_ref().map(|_| "POST".to_owned())),
        headers: headers.collect::<Result<Vec<_>, Error>>()?,
        body: arguments.body.as_ref().map(|body| body.clone().into_bytes()),
        address: arguments.address.clone(),
        timeout: Some(arguments.timeout.clone()),
        expect_status: (!arguments.expect_status.is_empty()).then(|| arguments.expect_status.clone()),
        ..Draft::of_url(url)
    };
    draft.validate(&Draft::default()).map_err(|error| Error::input(format!("{url}: {error}")))
}

/// One row per URL; phases that did not happen are a dash.
fn as_table(urls: &[String], samples: &[Sample]) -> String {
    let url_columns = urls.iter().map(|url| url.chars().count()).max().unwrap_or(0).max("URL".len());
    let mut text = format!("{:<url_columns$} {:<8} {:>6}", "URL", "OUTCOME", "STATUS");
    let heads = Phases::NAMES.into_iter().chain(["total", "agent"]);
    heads.for_each(|name| append(&mut text, &name.to_uppercase(), 11));
    append(&mut text, "BYTES", 10);
    for (url, sample) in urls.iter().zip(samples) {
        let status = if sample.status == 0 { "-".to_owned() } else { sample.status.to_string() };
        let _ = write!(text, "\n{url:<url_columns$} {:<8} {status:>6}", sample.outcome.name());
        let times = sample.phases.as_array().into_iter().chain([sample.total_us, sample.agent_us]);
        times.for_each(|us| append(&mut text, &time(us), 11));
        append(&mut text, &sample.bytes_in.to_string(), 10);
        if sample.outcome != Outcome::Up {
            let _ = write!(text, "  {}", sample.reason_name());
        }
    }
    text
}

fn append(text: &mut String, cell: &str, columns: usize) {
    // Writing to a String cannot fail.
    let _ = write!(text, " {cell:>columns$}");
}

fn time(us: i32) -> String {
    u64::try_from(us).map_or_else(|_absent| "-".to_owned(), |us| Micros(us).to_string())
}

/// `{"probes": [{"url", …the columns of the metrics table…}]}`; what did not happen is null.
fn as_json(urls: &[String], samples: &[Sample]) -> String {
    let or_null = |us: i32| if us == ABSENT { Value::Null } else { us.into() };
    let probe = |(url, sample): (&String, &Sample)| {
        let mut probe = json!({
            "url": url,
            "ts_us": sample.ts.0,
            "outcome": sample.outcome.name(),
            "failure": sample.failure().map(crate::sample::Failure::name),
            "status": if sample.status == 0 { Value::Null } else { sample.status.into() },
        });
        for (name, us) in Phases::NAMES.into_iter().zip(sample.phases.as_array()) {
            probe[format!("{name}_us")] = or_null(us);
        }
        probe["total_us"] = or_null(sample.total_us);
        probe["ttfb_us"] = sample.phases.ttfb_us().map_or(Value::Null, Value::from);
        probe["agent_us"] = sample.agent_us.into();
        probe["bytes_in"] = sample.bytes_in.into();
        probe["bytes_out"] = sample.bytes_out.into();
        probe["cpu_ns"] = sample.cpu_ns.into();
        probe["flags"] = flags(sample.flags).into();
        probe
    };
    json!({ "probes": urls.iter().zip(samples).map(probe).collect::<Vec<_>>() }).to_string()
}

fn flags(flags: Flags) -> Vec<&'static str> {
    let bits = (0..).zip(Flags::NAMES);
    bits.filter(|(bit, _)| flags.0 >> bit & 1 == 1).map(|(_, name)| name).collect()
}
