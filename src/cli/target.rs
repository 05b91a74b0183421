//! `ringprobe target`: the test origin for the shell.
//!
//! The origin serves on a thread of its own ([`crate::testing::origin`]); this thread waits for a signal or
//! for the end of the duration, and then prints what was served. With `--hold` it is the origin that knows one answer,
//! and for how long exactly it held it.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::{Error, limits};
use crate::clock::{self, Micros, Mono, Reading};
use crate::config;
use crate::control::quantiles::Quantiles;
use crate::testing::origin::{
    Held, HoldingOptions, HoldingOrigin, Origin, OriginOptions, OriginTls, OriginTlsError, StartError,
    duration,
};
use crate::writer::block_on;

/// Arguments of `target`.
#[derive(Debug, Args)]
#[command(after_help = "Ask it for / to see what it can be made to do: curl http://127.0.0.1:8080/")]
pub(super) struct Arguments {
    /// Where to listen; a range of ports is FIRST-LAST, port 0 is any free one. Repeatable.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080", value_parser = addresses)]
    listen: Vec<Listen>,
    /// Speak TLS, with this certificate (PEM, those that vouch for it behind it),
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// and this key of it (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The CPU to serve on [default: the last one this process may use]
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// After each event, look for the next one this long without sleeping; needs a CPU of its own.
    #[arg(long, value_name = "D", default_value = "0", value_parser = duration)]
    spin: Micros,
    /// After each event, sleep this long before looking for the next: answers are late by as much, and several cost
    /// less than one by one.
    #[arg(long, value_name = "D", default_value = "0", value_parser = duration, conflicts_with = "spin")]
    rest: Micros,
    /// Instead of the menu: hold each answer for this long, and tell in the end for how long it really was, by the
    /// kernel's stamps.
    #[arg(long, value_name = "D", value_parser = duration, conflicts_with_all = ["spin", "rest", "tls_cert"])]
    hold: Option<Micros>,
    /// With --hold: each request's number, arrival and departure (µs since the Unix epoch), as CSV.
    #[arg(long, value_name = "FILE", requires = "hold")]
    holds: Option<PathBuf>,
    /// How long to serve, such as 10s [default: until SIGINT or SIGTERM]
    #[arg(long, value_name = "D", value_parser = duration)]
    duration: Option<Micros>,
    /// Print JSON: one object with the addresses, and one with the counts at the end.
    #[arg(long)]
    json: bool,
}

/// One `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen(Vec<SocketAddr>);

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    block_on(serve(arguments)).map_err(Error::failed)?
}

async fn serve(arguments: &Arguments) -> Result<ExitCode, Error> {
    let end = End::new(arguments.duration)?;
    let open_files = limits::raise_nofile().soft;
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let cpu = arguments.cpu.or_else(|| cpus.last().map(|cpu| cpu.id));
    let listen = arguments.listen.iter().flat_map(|listen| listen.0.iter().copied()).collect();
    match arguments.hold {
        Some(hold) => {
            let options = HoldingOptions { listen, cpu, hold, ..HoldingOptions::default() };
            let origin = HoldingOrigin::start(options).map_err(start_error)?;
            let held = format!("; each answer is held for {hold}");
            announce(arguments, origin.addrs(), cpu, open_files, &held);
            hold_until(end, origin, arguments).await?;
        }
        None => {
            let tls = match (&arguments.tls_cert, &arguments.tls_key) {
                (Some(cert), Some(key)) => Some(tls(cert, key)?),
                _ => None,
            };
            let with_tls = if tls.is_some() { " with TLS" } else { "" };
            let (spin, rest) = (arguments.spin, arguments.rest);
            let options = OriginOptions { listen, cpu, spin, rest, record_arrivals: 0, tls };
            let origin = Origin::start(options).map_err(start_error)?;
            announce(arguments, origin.addrs(), cpu, open_files, &format!("{with_tls}; the menu is at /"));
            serve_until(end, origin, arguments).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start_error(error: StartError) -> Error {
    match error {
        StartError::Listen(..) | StartError::Cpu(_) => Error::input(error),
        StartError::Kernel(_) => Error::failed(error),
    }
}

fn announce(
    arguments: &Arguments,
    addrs: &[SocketAddr],
    cpu: Option<usize>,
    open_files: Option<u64>,
    more: &str,
) {
    let addresses: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    let on_cpu = cpu.map_or(String::new(), |cpu| format!(" on cpu {cpu}"));
    if arguments.json {
        say(&format!("{}", json!({ "listening": addresses, "cpu": cpu, "open_files_max": open_files })));
    } else {
        say(&format!("listening on {}{on_cpu}{more}", addresses.join(" ")));
    }
}

/// A line on standard output, at once. The origin goes on serving when nobody listens any more.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What ends it: a signal, or the end of the duration, which does as a signal would.
struct End {
    interrupt: Signal,
    terminate: Signal,
    duration: Option<Micros>,
}

impl End {
    fn new(duration: Option<Micros>) -> Result<Self, Error> {
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(Error::failed)?;
        Ok(Self { interrupt, terminate, duration })
    }

    async fn has_come(mut self) {
        let signalled = async {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        };
        match self.duration {
            None => signalled.await,
            Some(duration) => {
                let _signal_or_timeout = timeout(duration.as_duration(), signalled).await;
            }
        }
    }
}

async fn serve_until(end: End, origin: Origin, arguments: &Arguments) -> Result<(), Error> {
    let (start, cpu_start_us) = (Mono::now(), clock::process_cpu_us());
    end.has_come().await;
    let served = Mono::now().since(start);
    let stats = origin.stop().map_err(Error::failed)?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let cpu_us_per_request = match stats.requests {
        0 => 0.0,
        requests => (clock::process_cpu_us() - cpu_start_us) as f64 / requests as f64,
    };
    if arguments.json {
        let summary = json!({
            "seconds": served.as_secs_f64(),
            "connections": stats.connections,
            "refused": stats.refused,
            "requests": stats.requests,
            "bytes_in": stats.bytes_in,
            "bytes_out": stats.bytes_out,
            "cpu_us_per_request": cpu_us_per_request,
        });
        say(&format!("{summary}"));
    } else {
        say(&format!(
            "{} connections ({} refused), {} requests, {} bytes in, {} bytes out, {cpu_us_per_request:.2} µs of \
             CPU per request, in {:.1} s",
            stats.connections,
            stats.refused,
            stats.requests,
            stats.bytes_in,
            stats.bytes_out,
            served.as_secs_f64()
        ));
    }
    Ok(())
}

async fn hold_until(end: End, origin: HoldingOrigin, arguments: &Arguments) -> Result<(), Error> {
    let start = Mono::now();
    end.has_come().await;
    let served = Mono::now().since(start);
    let holds = origin.stop().map_err(Error::failed)?;
    if let Some(path) = &arguments.holds {
        write_holds(path, &holds.held)
            .map_err(|error| Error::failed(format!("--holds {}: {error}", path.display())))?;
    }
    let true_ns = holds.held.iter().map(|held| i64::try_from(held.true_ns()).unwrap_or(i64::MAX));
    let true_us = Quantiles::of_ns(true_ns.collect());
    let (requests, seconds) = (holds.held.len() as u64 + holds.unnoted, served.as_secs_f64());
    if arguments.json {
        let summary = json!({
            "seconds": seconds,
            "requests": requests,
            "unnoted": holds.unnoted,
            "unstamped": holds.unstamped,
            "true_us": true_us,
        });
        say(&format!("{summary}"));
    } else {
        let held = true_us.map_or(String::new(), |Quantiles { p50, p99, max, .. }| {
            format!(", held for {p50} µs (p50), {p99} µs (p99), {max} µs at most")
        });
        say(&format!("{requests} requests ({} without a stamp){held}, in {seconds:.1} s", holds.unstamped));
    }
    Ok(())
}

/// Monotonic instants become wall time through one reading, now: right to what the clock was slewed since.
fn write_holds(path: &Path, held: &[Held]) -> io::Result<()> {
    let reading = Reading::now();
    let mut file = BufWriter::new(fs::File::create(path)?);
    writeln!(file, "endpoint,arrived_us,departed_us")?;
    for held in held {
        let (arrived, departed) = (reading.wall_of(held.arrived).0, reading.wall_of(held.departed).0);
        writeln!(file, "{},{arrived},{departed}", held.endpoint)?;
    }
    file.flush()
}

/// Reads certificate and key.
fn tls(cert: &Path, key: &Path) -> Result<OriginTls, Error> {
    let read = |flag: &str, path: &Path| {
        fs::read(path).map_err(|error| Error::input(format!("{flag} {}: {error}", path.display())))
    };
    let chain = read("--tls-cert", cert)?;
    OriginTls::from_pem(&chain, &read("--tls-key", key)?).map_err(|error| {
        let (flag, path) = match error {
            OriginTlsError::Certificate => ("--tls-cert", cert),
            OriginTlsError::Key | OriginTlsError::Pair => ("--tls-key", key),
        };
        Error::input(format!("{flag} {}: {error}", path.display()))
    })
}

/// Reads `ADDR:PORT` or `ADDR:FIRST-LAST`.
fn addresses(text: &str) -> Result<Listen, String> {
    const WANTED: &str = "not an address such as 127.0.0.1:8080, [::1]:8080 or 127.0.0.1:8080-8087";
    let (host, ports) = text.rsplit_once(':').ok_or(WANTED)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().map_err(|_| WANTED);
    let (first, last) = (port(first)?, port(last)?);
    let first_addr: SocketAddr = format!("{host}:{first}").parse().map_err(|_| WANTED)?;
    if first > last || usize::from(last - first) >= config::ORIGIN_LISTENERS_MAX {
        return Err(format!(
            "a port range goes up, and holds at most {} ports",
            config::ORIGIN_LISTENERS_MAX
        ));
    }
    Ok(Listen((first..=last).map(|port| SocketAddr::new(first_addr.ip(), port)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_single_or_ranges() {
        let check = |text: &str, expected: &[&str]| {
            let Listen(found) = addresses(text).unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        };
        check("127.0.0.1:0", &["127.0.0.1:0"]);
        check("[::1]:8080", &["[::1]:8080"]);
        check("127.0.0.1:8080-8082", &["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"]);
        check("[::1]:65535-65535", &["[::1]:65535"]);
        for text in [
            "",
            "8080",
            "127.0.0.1",
            "localhost:80",
            "::1:80",
            "127.0.0.1:9-8",
            "127.0.0.1:1-9999",
            "[::1]:-1",
        ] {
            assert!(addresses(text).is_err(), "{text}");
        }
    }
}
