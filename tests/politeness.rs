//! What one address is spared: the program against an origin that is slow, or that many endpoints lead to, judged by
//! the rows that it stores.
//!
//! The origin listens on an address of this machine that is not loopback, which is not counted. The store's rows are
//! all that is looked at: a probe starts at `ts + lag_us`, has its address `resolve_us` later, and is over after
//! `total_us`.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

mod support {
    pub(crate) mod dnsmasq;
    pub(crate) mod service;
}

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use ringprobe::config::ORIGIN_SPAN;
use ringprobe::sample::{MissReason, Outcome};
use ringprobe::testing::origin::{Origin, OriginOptions};
use rusqlite::Connection;
use serde_json::Value;
use support::dnsmasq::Dnsmasq;

/// How far what the program knew may be from what was, on a machine that is busy with other tests: that a probe had
/// ended, and how long a name was asked for that a refused slot does not tell.
const NOTICED_WITHIN_US: i64 = 100_000;

/// An address of this machine that is not loopback: the one from which it would reach others. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Of a documentation network (RFC 5737): nobody's.
    socket.connect("198.51.100.1:9").expect("a route to others, and thus an address besides loopback");
    socket.local_addr().unwrap().ip()
}

/// A slot and what became of it.
#[derive(Clone, Copy, Debug)]
struct Row {
    start_us: i64,
    resolve_us: i64,
    total_us: i64,
    agent_us: i64,
    outcome: i64,
    reason: i64,
}

impl Row {
    /// When it was on its way to the address.
    fn there_us(self) -> i64 {
        self.start_us + self.resolve_us.max(0)
    }

    fn end_us(self) -> i64 {
        self.start_us + self.total_us
    }

    fn is_probed(self) -> bool {
        self.outcome != Outcome::Missed as i64
    }

    fn is_refused(self) -> bool {
        self.reason == i64::from(MissReason::OriginLimit.code())
    }
}

/// `run` of so many endpoints that lead to `url`; the rows, in order of their starts, after a look at the books.
fn run(url: &str, count: usize, fields: &str, flags: &[&str]) -> Vec<Row> {
    let directory = tempfile::tempdir().unwrap();
    let mut file = String::new();
    for number in 0..count {
        writeln!(file, "[[endpoint]]\nname = 'e{number}'\nurl = '{url}'\n{fields}").unwrap();
    }
    std::fs::write(directory.path().join("e.toml"), file).unwrap();
    let arguments = ["run", "e.toml", "--store", "sqlite:r.db", "--duration", "4s", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_ringprobe"))
        .args(arguments)
        .args(flags)
        .current_dir(directory.path())
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let store = Connection::open(directory.path().join("r.db")).unwrap();
    let columns = "ts + lag_us, resolve_us, total_us, agent_us, outcome, failure";
    let mut rows = store.prepare(&format!("SELECT {columns} FROM metrics ORDER BY ts + lag_us")).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            start_us: row.get(0)?,
            resolve_us: row.get(1)?,
            total_us: row.get(2)?,
            agent_us: row.get(3)?,
            outcome: row.get(4)?,
            reason: row.get(5)?,
        })
    };
    let rows: Vec<Row> = rows.query_map([], row).unwrap().map(Result::unwrap).collect();
    let count = |of: fn(Row) -> bool| rows.iter().filter(|row| of(**row)).count() as u64;
    let (probed, refused) = (count(Row::is_probed), count(Row::is_refused));
    assert_eq!(summary["due"], rows.len() as u64, "{summary}");
    assert_eq!(
        (&summary["sampled"], &summary["missed"]),
        (&probed.into(), &(rows.len() as u64 - probed).into())
    );
    assert_eq!(summary["misses"]["origin_limit"].as_u64().unwrap_or(0), refused, "{summary}");
    let ups = rows.iter().filter(|row| row.outcome == Outcome::Up as i64).count() as u64;
    assert_eq!(ups, probed, "nobody is down: {summary}");
    rows
}

/// That no two were there at once; that whoever was refused would have been second; and that both happened.
fn check_one_at_a_time(rows: &[Row]) {
    let mut probed: Vec<Row> = rows.iter().copied().filter(|row| row.is_probed()).collect();
    probed.sort_by_key(|row| row.there_us());
    for pair in probed.windows(2) {
        // From an answer of DNS to the connection passes time that is the prober's.
        assert!(pair[0].end_us() <= pair[1].there_us() + pair[1].agent_us, "two at once: {pair:?}");
    }
    let refused: Vec<Row> = rows.iter().copied().filter(|row| row.is_refused()).collect();
    for slot in &refused {
        let was_there = |probe: &Row| {
            let until_us = probe.end_us() + probe.agent_us + NOTICED_WITHIN_US;
            (probe.there_us() - NOTICED_WITHIN_US..=until_us).contains(&slot.start_us)
        };
        assert!(probed.iter().any(was_there), "refused for nobody's sake: {slot:?} {probed:?}");
    }
    assert!(probed.len() >= 4 && refused.len() >= 4, "{} and {}", probed.len(), refused.len());
}

fn origin() -> (Origin, SocketAddr) {
    let listen = vec![SocketAddr::new(own_address(), 0)];
    let origin = Origin::start(OriginOptions { listen, ..OriginOptions::default() }).unwrap();
    let addr = origin.addrs()[0];
    (origin, addr)
}

const SLOW: &str = "interval = '1s'\ntimeout = '900ms'\n";
const ONE: [&str; 4] = ["--cores", "1", "--origin-inflight", "1"];

#[test]
fn one_in_flight_is_one_in_flight() {
    let (_origin, addr) = origin();
    check_one_at_a_time(&run(&format!("http://{addr}/delay/300ms"), 6, SLOW, &ONE));
}

/// They were counted as long as their connections were new.
#[test]
fn a_connection_kept_from_before_is_no_way_around_it() {
    let (_origin, addr) = origin();
    let fields = format!("{SLOW}connection = 'reuse'\n");
    check_one_at_a_time(&run(&format!("http://{addr}/delay/300ms"), 6, &fields, &ONE));
}

/// Who had waited for an answer of DNS was let through.
#[test]
fn nor_is_a_name_that_has_to_be_asked_for() {
    let (_origin, addr) = origin();
    let dnsmasq = Dnsmasq::start(&[&format!("host-record=slow.test,{}", addr.ip())]);
    let fields = format!("{SLOW}dns = 'every'\n");
    let dns = dnsmasq.address().to_string();
    let url = format!("http://slow.test:{}/delay/300ms", addr.port());
    check_one_at_a_time(&run(&url, 6, &fields, &[&ONE[..], &["--dns", &dns]].concat()));
}

#[test]
fn a_rate_is_that_of_the_node_in_any_span() {
    const RATE: usize = 3;
    let (_origin, addr) = origin();
    let cores = std::thread::available_parallelism().unwrap().get().min(2).to_string();
    let flags = ["--cores", &cores, "--origin-rate", "3"];
    let rows = run(&format!("http://{addr}/"), 12, "interval = '500ms'\n", &flags);
    let starts: Vec<i64> = rows.iter().filter(|row| row.is_probed()).map(|row| row.start_us).collect();
    let span_us = i64::try_from(ORIGIN_SPAN.0).unwrap();
    for many in starts.windows(RATE + 1) {
        // Starts are cut to whole microseconds.
        assert!(many[RATE] - many[0] >= span_us - 1, "more than {RATE} in {span_us} µs: {many:?}");
    }
    assert!(starts.len() >= 2 * RATE, "and it is used: {starts:?}");
    assert!(rows.iter().any(|row| row.is_refused()));
}
