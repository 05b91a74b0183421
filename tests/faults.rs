//! Every fault of the test origin, and of the network in front of one, through the whole prober: real sockets,
//! the real engine, and the program. `tests/data/faults.txt` says what must come of each.
//!
//! The faults meet the engine all at once, so that each is also the neighbour of all others, and meet the
//! program alone, for its exit status. What one response is made of byte by byte is tested in `http`; here it
//! is what becomes of the probe, of its phases, and of the connection.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringprobe::clock::{Micros, Mono, Reading};
use ringprobe::control::plans::Planner;
use ringprobe::control::roster::Roster;
use ringprobe::control::surroundings::Surroundings;
use ringprobe::dns::Family;
use ringprobe::endpoint::{Connection, Draft, StoredEndpoint};
use ringprobe::sample::{ABSENT, EndpointId, Failure, Flags, MissReason, Outcome, Phases, Sample};
use ringprobe::schedule::Schedule;
use ringprobe::shard::engine::{Limits, Pace};
use ringprobe::shard::origins::Share;
use ringprobe::shard::restraint::Budgets;
use ringprobe::shard::{Assignment, Shard};
use ringprobe::testing::origin::{MENU, Origin, OriginOptions};
use ringprobe::tls::Roots;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

/// Of a line that must time out: the tests wait for it.
const TIMEOUT_SHORT: Micros = Micros::from_millis(700);
/// Of all others: nobody waits for it.
const TIMEOUT_LONG: Micros = Micros::from_millis(30_000);
/// Between two probes of an endpoint; long enough for one that times out.
const INTERVAL: Micros = Micros::from_millis(1_000);
/// How much longer than its longest timeout a command may take, start and end included. Generous: the machine
/// may be busy with the other tests.
const SLACK: Duration = Duration::from_secs(10);

/// A line of the table.
#[derive(Debug)]
struct Vector {
    url: &'static str,
    failure: Option<Failure>,
    status: Option<i64>,
    /// The last phase reached, as an index into [`Phases::NAMES`], if any was.
    phase: Option<usize>,
    /// Whether the connection may serve another probe.
    kept: bool,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("data/faults.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| Vector::parse(line).unwrap_or_else(|| panic!("not a vector: {line}"))).collect()
}

impl Vector {
    fn parse(line: &'static str) -> Option<Self> {
        let [url, failure, status, phase, then] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let named = |name: &str| Failure::ALL.iter().copied().find(|failure| failure.name() == name);
        Some(Self {
            url,
            failure: if failure == "up" { None } else { Some(named(failure)?) },
            status: if status == "-" { None } else { Some(status.parse().ok()?) },
            phase: match phase {
                "none" => None,
                phase => Some(Phases::NAMES.iter().position(|name| *name == phase)?),
            },
            kept: ["closed", "kept"].iter().position(|word| *word == then)? == 1,
        })
    }

    fn times_out(&self) -> bool {
        self.failure.is_some_and(|failure| failure.name().ends_with("_timeout"))
    }

    fn timeout(&self) -> Micros {
        if self.times_out() { TIMEOUT_SHORT } else { TIMEOUT_LONG }
    }

    const fn outcome(&self) -> Outcome {
        if self.failure.is_some() { Outcome::Down } else { Outcome::Up }
    }

    /// Whether a phase must have happened.
    fn reaches(&self, phase: &str, reused: bool) -> bool {
        let at = |name| Phases::NAMES.iter().position(|other| *other == name).unwrap();
        let Some(last) = self.phase else { return false };
        match phase {
            // Whose URL has an address has nothing to look for.
            "resolve" => last == at("resolve"),
            "connect" => last >= at("connect") && !reused,
            // There is none without TLS.
            "tls" => false,
            later => last >= at(later),
        }
    }
}

/// What stands behind the words in braces, as long as this lives.
struct World {
    origin: Origin,
    refused: (OwnedFd, SocketAddr),
    deaf: TcpListener,
    full: (OwnedFd, SocketAddr),
    _backlog: Vec<TcpStream>,
}

impl World {
    fn new() -> Self {
        let full = bound_socket();
        rustix::net::listen(&full.0, 0).unwrap();
        // A backlog of zero holds one connection; whoever fails to get in has found it full.
        let knock = || TcpStream::connect_timeout(&full.1, Duration::from_millis(100));
        let backlog = std::iter::from_fn(|| knock().ok()).take(16).collect();
        Self {
            origin: Origin::start(OriginOptions::default()).unwrap(),
            refused: bound_socket(),
            deaf: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            full,
            _backlog: backlog,
        }
    }

    fn url(&self, vector: &Vector) -> String {
        let at = |addr: SocketAddr| format!("http://{addr}");
        vector
            .url
            .replace("{origin}", &at(self.origin.addr()))
            .replace("{refused}", &at(self.refused.1))
            .replace("{deaf}", &at(self.deaf.local_addr().unwrap()))
            .replace("{full}", &at(self.full.1))
    }
}

/// A socket that has a port but does not listen: nobody else can get that port and answer.
fn bound_socket() -> (OwnedFd, SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let addr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    (socket, addr)
}

/// A probe as its sample or as `check --json` tells of it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    outcome: String,
    failure: Option<String>,
    status: Option<i64>,
    phases_us: [Option<i64>; 5],
    ttfb_us: Option<i64>,
    total_us: i64,
    bytes_in: i64,
    flags: Vec<String>,
}

impl Seen {
    fn of_json(probe: &Value) -> Self {
        let text = |name: &str| probe[name].as_str().map(str::to_owned);
        Self {
            outcome: text("outcome").unwrap(),
            failure: text("failure"),
            status: probe["status"].as_i64(),
            phases_us: Phases::NAMES.map(|name| probe[format!("{name}_us")].as_i64()),
            ttfb_us: probe["ttfb_us"].as_i64(),
            total_us: probe["total_us"].as_i64().unwrap(),
            bytes_in: probe["bytes_in"].as_i64().unwrap(),
            flags: serde_json::from_value(probe["flags"].clone()).unwrap(),
        }
    }

    fn of_sample(sample: &Sample) -> Self {
        let present = |us: i32| (us != ABSENT).then_some(i64::from(us));
        let has = |bit: usize| sample.flags.has(Flags(1 << bit));
        Self {
            outcome: sample.outcome.name().to_owned(),
            failure: sample.failure().map(|failure| failure.name().to_owned()),
            status: Some(sample.status.into()).filter(|status| *status != 0),
            phases_us: sample.phases.as_array().map(present),
            ttfb_us: sample.phases.ttfb_us().map(i64::from),
            total_us: sample.total_us.into(),
            bytes_in: sample.bytes_in.into(),
            flags: (0..)
                .zip(Flags::NAMES)
                .filter(|(bit, _)| has(*bit))
                .map(|(_, name)| name.into())
                .collect(),
        }
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|name| name == flag)
    }

    /// What is not as the table has it, `reused` being whether the probe ran on a connection used before.
    fn differences(&self, vector: &Vector, reused: bool) -> Option<String> {
        let timeout_us = i64::try_from(vector.timeout().0).unwrap();
        let mut differences = Vec::new();
        let mut expect = |holds: bool, what| {
            if !holds {
                differences.push(what);
            }
        };
        expect(self.outcome == vector.outcome().name(), "outcome");
        expect(self.failure.as_deref() == vector.failure.map(Failure::name), "failure");
        expect(self.status == vector.status, "status");
        expect(self.is("reused") == reused, "whether the connection was used before");
        for (name, us) in Phases::NAMES.into_iter().zip(self.phases_us) {
            expect(us.is_some() == vector.reaches(name, reused), name);
            expect(us.is_none_or(|us| us >= 0), "a negative phase");
        }
        let phases_us = self.phases_us.into_iter().flatten();
        expect(phases_us.sum::<i64>() == self.total_us, "the phases sum to the total");
        let transfer_us = self.phases_us[4];
        expect(self.ttfb_us == transfer_us.map(|us| self.total_us - us), "the time to first byte");
        expect((self.bytes_in > 0) == transfer_us.is_some(), "bytes come from the first byte on");
        expect(self.total_us <= timeout_us, "no longer than the timeout");
        expect(!vector.times_out() || self.total_us == timeout_us, "a timeout is used up");
        expect(self.is("censored") == vector.times_out(), "a phase cut off is a lower bound");
        let text = || format!("{}\n    in {}\n    {self:?}", vector.url, differences.join(", "));
        (!differences.is_empty()).then(text)
    }
}

fn none(differences: &[String]) {
    assert!(differences.is_empty(), "{} differ:\n  {}", differences.len(), differences.join("\n  "));
}

/// `ringprobe check` with the timeout of these vectors.
fn check(arguments: &[&str], timeout: Micros) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringprobe"));
    let timeout = format!("{}ms", timeout.0 / 1_000);
    command.args(["check", "--set", "redirects = 0", "--timeout", &timeout]).args(arguments);
    command.env_remove("RINGPROBE_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn every_item_of_the_menu_has_a_vector() {
    // `fault/close` is another item than `close`.
    let joined = |path: &str| path.replace("fault/", "fault-");
    let urls = vectors().into_iter().map(|vector| vector.url);
    let paths: Vec<_> = urls.filter_map(|url| Some(joined(url.strip_prefix("{origin}")?) + "/")).collect();
    for item in MENU {
        // Arguments are in capitals, and a vector's may differ from those of the example.
        let words = item.usage.split('/').take_while(|word| !word.starts_with(char::is_uppercase));
        let item = format!("/{}/", joined(&words.collect::<Vec<_>>().join("/")));
        assert!(
            paths.iter().any(|path| path.contains(&item)),
            "tests/data/faults.txt has no line with {item}"
        );
    }
}

#[test]
fn one_check_of_all_faults_tells_them_apart() {
    let world = World::new();
    let (short, long): (Vec<_>, Vec<_>) = vectors().into_iter().partition(Vector::times_out);
    let begun = Mono::now();
    let children = [(short, TIMEOUT_SHORT), (long, TIMEOUT_LONG)].map(|(vectors, timeout)| {
        let urls: Vec<String> = vectors.iter().map(|vector| world.url(vector)).collect();
        let mut arguments = vec!["--json"];
        arguments.extend(urls.iter().map(String::as_str));
        (check(&arguments, timeout).spawn().unwrap(), vectors, urls)
    });
    let mut differences = Vec::new();
    for (child, vectors, urls) in children {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(1), ""), "down is data, not an error");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let probes = report["probes"].as_array().unwrap();
        assert_eq!(probes.len(), vectors.len());
        for ((probe, vector), url) in probes.iter().zip(&vectors).zip(&urls) {
            assert_eq!(probe["url"], url.as_str());
            differences.extend(Seen::of_json(probe).differences(vector, false));
        }
    }
    none(&differences);
    assert!(Mono::now().since(begun) < TIMEOUT_SHORT.as_duration() + SLACK, "nothing waits for nothing");
    requests_were_sent_once(&world.origin, |_path| 1);
}

/// No request was sent twice, and none was left out. The paths of the table are distinct.
fn requests_were_sent_once(origin: &Origin, probes: impl Fn(&str) -> u64) {
    let expected: BTreeMap<String, u64> = vectors()
        .iter()
        .filter_map(|vector| vector.url.strip_prefix("{origin}"))
        .map(|path| (path.to_owned(), probes(path)))
        .collect();
    assert_eq!(origin.paths(), expected);
}

#[test]
fn one_check_alone_ends_with_its_status() {
    const WORKERS: usize = 4;
    let (world, vectors, next) = (World::new(), vectors(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(vector) = vectors.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check_alone(&world.url(vector), vector);
                }
            });
        }
    });
}

fn check_alone(url: &str, vector: &Vector) {
    let begun = Mono::now();
    let output = check(&[url], vector.timeout()).output().unwrap();
    let took = Mono::now().since(begun);
    let text = str::from_utf8(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(vector.failure.is_some())), "{url}: {text}");
    assert!(output.stderr.is_empty(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    let (_head, row) = text.trim_end().split_once('\n').unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    let status = vector.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    assert_eq!(words[..3], [url, vector.outcome().name(), &status], "{text}");
    let reason = vector.failure.map_or(String::new(), |failure| format!("  {}", failure.name()));
    assert!(row.contains(&reason), "{text}");
    // Only who must time out takes a timeout's time.
    assert!(took < TIMEOUT_SHORT.as_duration() + SLACK, "{url}: {took:?}");
}

#[test]
fn a_redirect_is_followed_and_each_hop_leaves_its_step() {
    let world = World::new();
    let url = format!("http://{}/redirect/3", world.origin.addr());
    let output =
        Command::new(env!("CARGO_BIN_EXE_ringprobe")).args(["check", "--json", &url]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let probe = &said["probes"][0];
    assert_eq!(
        (&probe["outcome"], &probe["status"], &probe["redirects"]),
        (&"up".into(), &200.into(), &3.into())
    );
    let steps = probe["steps"].as_array().unwrap();
    let statuses: Vec<i64> = steps.iter().map(|step| step["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [302, 302, 302, 200]);
    // What was read from the wire, and how long it took, is the sum of the hops.
    for column in
        ["bytes_in", "bytes_out", "connect_us", "processing_us", "transfer_us", "total_us", "write_us"]
    {
        let sum: i64 = steps.iter().filter_map(|step| step[column].as_i64()).sum();
        assert_eq!(probe[column].as_i64(), Some(sum), "{column}: {said}");
    }
}

/// One shard probes every line, fresh and reusing, until each endpoint has been probed twice.
#[test]
fn a_connection_is_used_again_only_if_nothing_was_odd() {
    const TWICE: u64 = 2;
    const PATIENCE: Duration = Duration::from_secs(60);
    let (fresh, reuse, vectors) = (World::new(), World::new(), vectors());
    let endpoint = |world: &World, connection: Connection, vector: &Vector| {
        let draft = Draft {
            name: Some(vector.url.to_owned()),
            url: Some(world.url(vector)),
            timeout: Some(format!("{}ms", vector.timeout().0 / 1_000)),
            interval: Some(format!("{}ms", INTERVAL.0 / 1_000)),
            redirects: Some(0),
            connection: Some(connection.name().to_owned()),
            ..Draft::default()
        };
        draft.validate(&Draft::default()).unwrap()
    };
    let all = vectors.iter().map(|vector| endpoint(&fresh, Connection::Fresh, vector));
    let all = all.chain(vectors.iter().map(|vector| endpoint(&reuse, Connection::Reuse, vector)));
    let all = (0..).zip(all).map(|(id, endpoint)| StoredEndpoint { id: EndpointId(id), endpoint });
    let samples = probe_until(
        all.collect(),
        |by_endpoint| {
            let probed = |sample: &&Sample| sample.outcome != Outcome::Missed;
            by_endpoint.iter().all(|samples| samples.iter().filter(probed).count() as u64 >= TWICE)
        },
        PATIENCE,
    );

    let mut differences = Vec::new();
    let (of_fresh, of_reuse) = samples.split_at(vectors.len());
    let mut connections = 0;
    for (vector, samples) in vectors.iter().zip(of_fresh).chain(vectors.iter().zip(of_reuse)) {
        let is_reuse = samples.iter().all(|sample| sample.flags.has(Flags::REUSE));
        let mut reused = false;
        for sample in samples.iter().filter(|sample| !is_overlap(sample)) {
            differences.extend(Seen::of_sample(sample).differences(vector, reused));
            connections += u64::from(is_reuse && !reused && vector.url.starts_with("{origin}"));
            reused = is_reuse && vector.kept;
        }
    }
    none(&differences);

    // The origins' own books: they do not take the flags' word for it.
    let probes_of = |samples: &[Vec<Sample>], path: &str| {
        let index = vectors.iter().position(|vector| vector.url.strip_prefix("{origin}") == Some(path));
        samples[index.unwrap()].iter().filter(|sample| !is_overlap(sample)).count() as u64
    };
    requests_were_sent_once(&fresh.origin, |path| probes_of(of_fresh, path));
    requests_were_sent_once(&reuse.origin, |path| probes_of(of_reuse, path));
    let (fresh, reuse) = (fresh.origin.stats(), reuse.origin.stats());
    assert_eq!(fresh.connections, fresh.requests, "one connection for each");
    assert_eq!(reuse.connections, connections, "one connection, or one more after each anomaly");
}

/// A slot that came while the endpoint's last probe was in flight: a busy machine has those, and they are
/// neither here nor there.
fn is_overlap(sample: &Sample) -> bool {
    sample.miss_reason().is_some_and(|reason| matches!(reason, MissReason::Overlap | MissReason::Late))
}

/// Has one shard probe the endpoints, which are numbered from zero, until `enough`; their samples in order.
fn probe_until(
    endpoints: Vec<StoredEndpoint>,
    enough: impl Fn(&[Vec<Sample>]) -> bool,
    patience: Duration,
) -> Vec<Vec<Sample>> {
    let mut by_endpoint: Vec<Vec<Sample>> = vec![Vec::new(); endpoints.len()];
    let (samples, mut collected) = rtrb::RingBuffer::new(64 * 1024);
    let anchor = Reading::now();
    let load = move || {
        let mut roster = Roster::default();
        let mut planner = Planner::new(Roots::bundled(), Family::PreferV4, None);
        roster.extend(endpoints, &mut planner).unwrap();
        let slots = (0..).zip(roster.iter()).map(|(index, watch)| (index, watch.id, watch.interval));
        let schedule = Schedule::new(slots, anchor.wall_of(Mono::now()));
        (roster.into_iter().map(|watch| (watch.id, watch.plan)), Pace::Scheduled(schedule))
    };
    let limits = Limits {
        inflight_max: 1_000,
        connections_max: 1_000,
        origin: Share::NONE,
        budgets: Budgets::default(),
    };
    let surroundings = Surroundings::of_machine().for_shard(anchor, 0);
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    let (ports, canary, stamps) = (None, None, true);
    let assignment = Assignment { shard: 0, cpu, load, limits, surroundings, ports, canary, stamps, samples };
    let shard = Shard::start(assignment).unwrap();
    let mut collect = |by_endpoint: &mut Vec<Vec<Sample>>| {
        while let Ok(sample) = collected.pop() {
            // Steps are no slot's samples.
            if sample.detail.step > 0 {
                continue;
            }
            by_endpoint[usize::try_from(sample.endpoint_id.0).unwrap()].push(sample);
        }
    };
    while !enough(&by_endpoint) {
        assert!(Mono::now().since(anchor.mono) < patience, "not probed in time: {by_endpoint:#?}");
        thread::park_timeout(Duration::from_millis(5));
        collect(&mut by_endpoint);
    }
    shard.stop(Mono::now());
    let gauges = std::sync::Arc::clone(shard.gauges());
    shard.join().unwrap();
    collect(&mut by_endpoint);
    let read = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
    let slots = by_endpoint.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!((read(&gauges.due), read(&gauges.dropped)), (slots, 0), "every slot has its sample");
    by_endpoint
}
