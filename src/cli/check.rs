//! `ringprobe check`: probes URLs once, now, by the same engine as `run`, and shows the phases.
//!
//! An endpoint can be described as fully as in a file: by `--file`, or field by field with `--set`. Redirects and
//! further attempts are shown as rows of their own below the probe that they belong to.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::network::NetworkArguments;
use super::{Error, endpoints, limits, session};
use crate::clock::Micros;
use crate::control::node::collect_once;
use crate::control::roster::Roster;
use crate::endpoint::{Draft, Endpoint, Options, StoredEndpoint, file};
use crate::sample::{ABSENT, BodyMatch, EndpointId, Flags, NO_PATTERN, Outcome, Phases, Sample};

/// So much of a pattern tells it from its neighbours, and leaves a row one line.
const PATTERN_CHARS_SHOWN: usize = 40;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to probe.
    #[arg(required_unless_present = "file", value_name = "URL")]
    urls: Vec<String>,
    /// Probe the endpoints of this file, too.
    #[arg(long, short = 'f', value_name = "FILE.toml")]
    file: Option<PathBuf>,
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
    /// A pattern that the body must contain; repeatable.
    #[arg(long = "match", value_name = "PATTERN")]
    body_match: Vec<String>,
    /// A pattern that the body must not contain; repeatable.
    #[arg(long = "forbid", value_name = "PATTERN")]
    body_forbid: Vec<String>,
    /// Take any certificate.
    #[arg(long, short = 'k')]
    insecure: bool,
    /// Trust the certificates in this file instead of the system's.
    #[arg(long, value_name = "FILE.pem")]
    ca_file: Option<String>,
    /// Any field of an endpoint, as in an endpoint file: `--set redirects=0`, `--set 'expect="down"'`; repeatable
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    #[command(flatten)]
    network: NetworkArguments,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let mut endpoints =
        arguments.urls.iter().map(|url| endpoint(arguments, url)).collect::<Result<Vec<_>, _>>()?;
    let surroundings = arguments.network.surroundings()?;
    let mut planner = arguments.network.planner(&surroundings);
    if let Some(path) = &arguments.file {
        endpoints.extend(endpoints::read(path, &mut |endpoint| planner.plan(endpoint).map(drop))?);
    }
    let asked =
        |endpoint: &Endpoint| Asked { name: endpoint.name.clone(), options: Arc::clone(&endpoint.options) };
    let asked: Vec<Asked> = endpoints.iter().map(asked).collect();
    let endpoints: Vec<StoredEndpoint> =
        (0..).zip(endpoints).map(|(id, endpoint)| StoredEndpoint { id: EndpointId(id), endpoint }).collect();
    let mut roster = Roster::default();
    roster.extend(endpoints, &mut planner).map_err(Error::input)?;
    let descriptors_max = limits::descriptors_max()?;
    let cpu = session::placement(Some(1))?.shards[0];
    let samples = collect_once(roster, cpu, descriptors_max, &surroundings).map_err(|error| {
        Error::failed(format!("cannot probe: {error}; `ringprobe doctor` says what is missing"))
    })?;
    let probes = probes(samples);
    let all_up = probes.iter().all(|probe| probe.sample.outcome == Outcome::Up);
    let text = if arguments.json { as_json(&asked, &probes) } else { as_table(&asked, &probes) };
    writeln!(io::stdout(), "{text}").map_err(Error::failed)?;
    Ok(if all_up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is shown of an endpoint beside its samples.
struct Asked {
    name: String,
    options: Arc<Options>,
}

/// A slot's sample, and the steps that led to it.
struct Probed {
    sample: Sample,
    steps: Vec<Sample>,
}

/// Puts together what a shard has told, in the order in which the endpoints were given. A probe tells its steps and
/// then its sample, without another's in between; the number of its endpoint would not do, which several addresses of
/// one name share.
fn probes(samples: Vec<Sample>) -> Vec<Probed> {
    let (mut probes, mut steps) = (Vec::new(), Vec::new());
    for sample in samples {
        if sample.detail.step > 0 {
            steps.push(sample);
        } else {
            probes.push(Probed { sample, steps: std::mem::take(&mut steps) });
        }
    }
    probes.sort_by_key(|probe| probe.sample.endpoint_id);
    probes
}

fn endpoint(arguments: &Arguments, url: &str) -> Result<Endpoint, Error> {
    let headers = arguments.headers.iter().map(|field| {
        let (name, value) = field
            .split_once(':')
            .ok_or_else(|| Error::input(format!("--header: `{field}` lacks a colon; write `Name: value`")))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
    let mut draft = Draft {
        method: arguments.method.clone().or_else(|| arguments.body.as_ref().map(|_| "POST".to_owned())),
        headers: headers.collect::<Result<Vec<_>, Error>>()?,
        body: arguments.body.as_ref().map(|body| body.clone().into_bytes()),
        address: arguments.address.clone(),
        timeout: Some(arguments.timeout.clone()),
        expect_status: list(&arguments.expect_status),
        body_match: list(&arguments.body_match),
        body_forbid: list(&arguments.body_forbid),
        ..Draft::of_url(url)
    };
    if arguments.insecure {
        draft.tls.insecure = Some(true);
    }
    draft.tls.ca_file.clone_from(&arguments.ca_file);
    draft.validate(&set_fields(arguments)?).map_err(|error| Error::input(format!("{url}: {error}")))
}

/// The fields of `--set`. Shells take quotes away, and TOML wants them around text.
fn set_fields(arguments: &Arguments) -> Result<Draft, Error> {
    // Only what is no TOML has no place in it.
    let is_toml =
        |field: &str| file::fields_of(field, "").map_or_else(|error| error.place.is_some(), |_| true);
    let unquoted = |field: &String| {
        let (name, value) = field.split_once('=')?;
        let quoted = format!("{name}=\"{value}\"");
        (!is_toml(field) && file::fields_of(&quoted, "").is_ok()).then_some(quoted)
    };
    file::fields_of(&arguments.fields.join("\n"), "--set").map_err(|error| {
        match arguments.fields.iter().find_map(unquoted) {
            Some(quoted) => {
                Error::input(format!("--set: text has quotes, which the shell takes away; write '{quoted}'"))
            }
            None => Error::input(error),
        }
    })
}

/// One row per probe, and one for each of its steps; phases that did not happen are a dash.
fn as_table(asked: &[Asked], probes: &[Probed]) -> String {
    let name_columns =
        asked.iter().map(|asked| asked.name.chars().count()).max().unwrap_or(0).max("URL".len());
    let mut text = format!("{:<name_columns$} {:<8} {:>6}", "URL", "OUTCOME", "STATUS");
    let heads = Phases::NAMES.into_iter().chain(["total", "agent", "write"]);
    heads.for_each(|name| append(&mut text, &name.to_uppercase(), 11));
    append(&mut text, "BYTES", 10);
    for sample in probes.iter().flat_map(|probe| std::iter::once(&probe.sample).chain(&probe.steps)) {
        let asked = &asked[index(sample)];
        let name = match sample.detail.step {
            0 => asked.name.clone(),
            step => format!("  step {step}"),
        };
        let status = if sample.status == 0 { "-".to_owned() } else { sample.status.to_string() };
        let _ = write!(text, "\n{name:<name_columns$} {:<8} {status:>6}", sample.outcome.name());
        let beside = [sample.total_us, sample.agent_us, sample.write_us];
        let times = sample.phases.as_array().into_iter().chain(beside);
        times.for_each(|us| append(&mut text, &time(us), 11));
        append(&mut text, &sample.bytes_in.to_string(), 10);
        for remark in remarks(sample, &asked.options) {
            let _ = write!(text, "  {remark}");
        }
    }
    text
}

/// What a row has no column for.
fn remarks(sample: &Sample, options: &Options) -> Vec<String> {
    let mut remarks = Vec::new();
    if sample.outcome != Outcome::Up {
        remarks.push(sample.reason_name().to_owned());
    }
    if let Some(address) = address(sample) {
        remarks.push(address);
    }
    let detail = &sample.detail;
    remarks.extend(blamed(detail.pattern, options));
    if detail.redirects > 0 {
        remarks.push(format!("{} redirects", detail.redirects));
    }
    if detail.tls_not_after_s > 0 {
        let days = (i64::from(detail.tls_not_after_s) - sample.ts.0 / 1_000_000) / 86_400;
        remarks.push(format!("certificate {days} d"));
    }
    if sample.flags.has(Flags::TAINTED) {
        remarks.push("tainted".to_owned());
    }
    remarks
}

/// The pattern to blame, if one is: its place, named as in errors, and how it begins.
fn blamed(place: i16, options: &Options) -> Option<String> {
    let place = usize::try_from(place).ok()?;
    let (field, index, list) = match place.checked_sub(options.body_match.len()) {
        None => ("body_match", place, &options.body_match),
        Some(index) => ("body_forbid", index, &options.body_forbid),
    };
    let pattern = list.get(index)?;
    let end = pattern.char_indices().nth(PATTERN_CHARS_SHOWN).map(|(end, _)| end);
    let shown = end.map_or_else(|| pattern.clone(), |end| format!("{}…", &pattern[..end]));
    Some(format!("{field}[{index}] `{shown}`"))
}

fn index(sample: &Sample) -> usize {
    usize::try_from(sample.endpoint_id.0).expect("they were numbered from 0")
}

fn address(sample: &Sample) -> Option<String> {
    let address = Ipv6Addr::from(sample.detail.address);
    (!address.is_unspecified()).then(|| address.to_canonical().to_string())
}

fn append(text: &mut String, cell: &str, columns: usize) {
    // Writing to a String cannot fail.
    let _ = write!(text, " {cell:>columns$}");
}

fn time(us: i32) -> String {
    u64::try_from(us).map_or_else(|_absent| "-".to_owned(), |us| Micros(us).to_string())
}

/// `{"probes": [{"url", …the columns of the metrics table…, "steps": […]}]}`; what did not happen is null.
fn as_json(asked: &[Asked], probes: &[Probed]) -> String {
    let shown = |probe: &Probed| {
        let mut shown = columns(&probe.sample);
        let url = asked[index(&probe.sample)].name.as_str();
        let object = shown.as_object_mut().expect("it is one");
        object.shift_insert(0, "url".to_owned(), url.into());
        let steps: Vec<Value> = probe.steps.iter().map(columns).collect();
        object.insert("steps".to_owned(), steps.into());
        shown
    };
    json!({ "probes": probes.iter().map(shown).collect::<Vec<_>>() }).to_string()
}

fn columns(sample: &Sample) -> Value {
    let or_null = |us: i32| if us == ABSENT { Value::Null } else { us.into() };
    let mut probe = json!({
        "ts_us": sample.ts.0,
        "outcome": sample.outcome.name(),
        "failure": Some(sample.reason_name()).filter(|name| !name.is_empty()),
        "status": if sample.status == 0 { Value::Null } else { sample.status.into() },
    });
    for (name, us) in Phases::NAMES.into_iter().zip(sample.phases.as_array()) {
        probe[format!("{name}_us")] = or_null(us);
    }
    probe["total_us"] = or_null(sample.total_us);
    probe["ttfb_us"] = sample.phases.ttfb_us().map_or(Value::Null, Value::from);
    probe["write_us"] = or_null(sample.write_us);
    probe["agent_us"] = sample.agent_us.into();
    probe["bytes_in"] = sample.bytes_in.into();
    probe["bytes_out"] = sample.bytes_out.into();
    probe["cpu_ns"] = sample.cpu_ns.into();
    probe["flags"] = flags(sample.flags).into();
    let detail = &sample.detail;
    probe["address"] = address(sample).into();
    probe["redirects"] = detail.redirects.into();
    probe["twin"] = sample.twin.into();
    probe["attempt"] = if detail.attempt == 0 { Value::Null } else { detail.attempt.into() };
    probe["body"] = if detail.body == BodyMatch::NotAsked { Value::Null } else { detail.body.name().into() };
    probe["pattern"] = if detail.pattern == NO_PATTERN { Value::Null } else { detail.pattern.into() };
    probe["tls_cipher"] = if detail.tls_cipher == 0 { Value::Null } else { detail.tls_cipher.into() };
    probe["tls_not_after_s"] =
        if detail.tls_not_after_s == 0 { Value::Null } else { detail.tls_not_after_s.into() };
    probe
}

fn flags(flags: Flags) -> Vec<&'static str> {
    let bits = (0..).zip(Flags::NAMES);
    bits.filter(|(bit, _)| flags.0 >> bit & 1 == 1).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_to_blame_is_named_by_its_list() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let long = "é".repeat(41);
        let options = Options {
            body_match: list(&["ok", &long]),
            body_forbid: list(&["no", "(?i)error"]),
            ..Options::default()
        };
        let blamed = |place: i16| blamed(place, &options);
        assert_eq!(blamed(0).as_deref(), Some("body_match[0] `ok`"));
        assert_eq!(blamed(1), Some(format!("body_match[1] `{}…`", "é".repeat(40))));
        assert_eq!(blamed(2).as_deref(), Some("body_forbid[0] `no`"));
        assert_eq!(blamed(3).as_deref(), Some("body_forbid[1] `(?i)error`"));
        assert_eq!([blamed(NO_PATTERN), blamed(4)], [None, None]);
    }
}
