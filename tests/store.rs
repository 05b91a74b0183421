//! The writer and the two stores, against real files and a real PostgreSQL.
//!
//! `scripts/test` starts a throwaway cluster and says where it is; without it these tests fail, they do not
//! skip. Each test makes a database of its own. Those that stop the server run a cluster of their own, from the
//! programs in `RINGPROBE_TEST_PG_BIN`, as the user in `RINGPROBE_TEST_PG_USER` if that is set (PostgreSQL
//! refuses to run as root).
//!
//! Random tests print their seed; `RINGPROBE_SEED=… scripts/test NAME` replays one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, helpers included; a seed that is not printed cannot be replayed"
)]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod docs;
    pub(crate) mod feed;
    pub(crate) mod proxy;
    pub(crate) mod store;
}

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringprobe::clock::{Micros, Wall};
use ringprobe::endpoint::{Draft, Endpoint, file};
use ringprobe::sample::{
    ABSENT, BodyMatch, Detail, EndpointId, Failure, Flags, MissReason, Outcome, Phases, Sample,
};
use ringprobe::writer::{
    Judgement, Snapshot, Store, StoreState, StoreUrl, Upserted, WriterOptions, block_on,
};

use support::cluster::Cluster;
use support::feed::{Random, Writer, probed, wait_until};
use support::proxy::{Cut, Proxy};
use support::store::{Postgres, Sqlite, TestStore};

const HOUR_US: i64 = 3_600_000_000;

/// The number of rows and of distinct rows in `metrics`: equal if nothing was stored twice.
fn stored_rows(store: &impl TestStore) -> (u64, u64) {
    let counts = store.query(
        "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT endpoint_id, ts FROM metrics) AS d) \
         FROM metrics",
    );
    (counts[0][0].parse().unwrap(), counts[0][1].parse().unwrap())
}

fn one<T: std::str::FromStr>(store: &impl TestStore, query: &str) -> T {
    let rows = store.query(query);
    rows[0][0].parse().unwrap_or_else(|_| panic!("{query}: {:?}", rows[0][0]))
}

/// Exactly what was fed is stored, and all counts agree on it.
fn assert_exactly_once(store: &impl TestStore, fed: u64, last: &Snapshot) {
    assert_eq!(stored_rows(store), (fed, fed), "rows, and distinct rows");
    assert_eq!((last.stored, last.dropped, last.queued_rows), (fed, 0, 0));
    assert_eq!(one::<u64>(store, "SELECT sum(rows) FROM ingest_cursor"), fed);
    assert_eq!(last.tally.due(), fed);
    assert_eq!(last.store_state, StoreState::Closed);
}

// --- schema -----------------------------------------------------------------------------------------------

fn migrating_is_safe_to_repeat_and_to_race(store: &impl TestStore) {
    let applied = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let versions = migrate(store.url());
                applied.fetch_add(versions.len(), Ordering::Relaxed);
            });
        }
    });
    let versions: usize = one(store, "SELECT count(*) FROM schema_migrations");
    assert_eq!(applied.load(Ordering::Relaxed), versions, "each version was applied by exactly one");
    assert_eq!(migrate(store.url()), Vec::<u32>::new(), "nothing is left to do");
    block_on(async { Store::open(store.url()).await?.check_schema().await }).unwrap().unwrap();
}

fn migrate(url: &StoreUrl) -> Vec<u32> {
    block_on(async { Store::open(url).await?.migrate().await }).unwrap().unwrap()
}

fn a_schema_that_does_not_fit_is_refused(store: &impl TestStore) {
    let check = || {
        let checked = block_on(async { Store::open(store.url()).await?.check_schema().await });
        checked.unwrap().unwrap_err().to_string()
    };
    assert!(check().contains("run `ringprobe migrate`"), "{}", check());
    migrate(store.url());
    store.execute(
        "INSERT INTO schema_migrations (version, name, checksum, applied_at) \
         SELECT 999, 'later', '', applied_at FROM schema_migrations WHERE version = 1",
    );
    assert!(check().contains("use a newer ringprobe"), "{}", check());
    let migrated = block_on(async { Store::open(store.url()).await?.migrate().await }).unwrap();
    assert!(migrated.unwrap_err().to_string().contains("use a newer ringprobe"));
    store.execute("DELETE FROM schema_migrations WHERE version = 999");
    store.execute("UPDATE schema_migrations SET checksum = 'edited' WHERE version = 1");
    assert!(check().contains("migration 1 is not the one that was applied"), "{}", check());
}

fn lookup_tables_agree_with_the_codes(store: &impl TestStore) {
    let table = |name: &str| -> BTreeMap<i16, String> {
        let rows = store.query(&format!("SELECT code, name FROM {name}"));
        rows.into_iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
    };
    let outcomes = Outcome::ALL.iter().map(|outcome| (*outcome as i16, outcome.name().to_owned()));
    assert_eq!(table("outcomes"), outcomes.collect());
    let failures = Failure::ALL.iter().map(|failure| (failure.code(), failure.name().to_owned()));
    let misses = MissReason::ALL.iter().map(|reason| (reason.code(), reason.name().to_owned()));
    assert_eq!(table("failure_classes"), failures.chain(misses).collect());
    let bodies = BodyMatch::ALL.iter().map(|body| (*body as i16, body.name().to_owned()));
    assert_eq!(table("body_matches"), bodies.collect());
}

// --- endpoints --------------------------------------------------------------------------------------------

fn endpoint(name: &str, edit: impl FnOnce(&mut Draft)) -> Endpoint {
    let mut draft = Draft {
        name: Some(name.to_owned()),
        url: Some(format!("http://127.0.0.1:8080/{name}?a=b'c")),
        ..Draft::default()
    };
    edit(&mut draft);
    draft.validate(&Draft::default()).unwrap()
}

/// The endpoints of the vector that has every field.
fn every_field() -> Vec<Endpoint> {
    let text = include_str!("data/endpoint_file_full.toml");
    file::parse_in(text, "full.toml", &mut |_path| Ok(b"a\0b\xff".to_vec())).unwrap()
}

fn full(name: &str) -> Endpoint {
    endpoint(name, |draft| {
        draft.address = Some("2001:db8::1".to_owned());
        draft.method = Some("POST".to_owned());
        draft.headers = vec![("X-B".to_owned(), "2, \"ü\" \\".to_owned()), ("X-A".to_owned(), String::new())];
        draft.body = Some("{\"ping\": [1,2], \"ü\": null}\r\n".as_bytes().to_vec());
        draft.expect_status = Some(vec!["200-299".to_owned(), "304".to_owned()]);
        draft.interval = Some("100ms".to_owned());
        draft.timeout = Some("99ms".to_owned());
        draft.connection = Some("reuse".to_owned());
        draft.tags = vec![("team".to_owned(), "shop, \"ü\"".to_owned()), ("empty".to_owned(), String::new())];
        draft.enabled = Some(false);
    })
}

fn upsert(url: &StoreUrl, endpoints: &[Endpoint]) -> Upserted {
    block_on(async { Store::open(url).await?.upsert_endpoints(endpoints.to_vec()).await }).unwrap().unwrap()
}

fn read(url: &StoreUrl) -> Vec<(i32, Endpoint)> {
    let stored = block_on(async { Store::open(url).await?.endpoints().await }).unwrap().unwrap();
    stored.into_iter().map(|stored| (stored.id.0, stored.endpoint)).collect()
}

fn endpoints_are_brought_in_line_by_name(store: &impl TestStore) {
    let url = store.url();
    migrate(url);
    let plain = |name: &str| endpoint(name, |_| {});
    let first = [plain("c"), full("b"), plain("a")];
    assert_eq!(upsert(url, &first), Upserted { inserted: 3, updated: 0, unchanged: 0 });
    let stored = read(url);
    assert_eq!(
        stored.iter().map(|(_, endpoint)| endpoint).collect::<Vec<_>>(),
        first.iter().collect::<Vec<_>>()
    );
    let revisions = || store.query("SELECT name, revision FROM endpoints ORDER BY name");
    let before = revisions();

    assert_eq!(upsert(url, &first), Upserted { inserted: 0, updated: 0, unchanged: 3 });
    assert_eq!(upsert(url, &[]), Upserted::default());
    assert_eq!(revisions(), before, "nothing changed, nothing moved");

    let changed = [endpoint("b", |draft| draft.interval = Some("5s".to_owned())), plain("a"), plain("d")];
    assert_eq!(upsert(url, &changed), Upserted { inserted: 1, updated: 1, unchanged: 1 });
    let after = revisions();
    let moved =
        |name: &str| before.iter().find(|row| row[0] == name) != after.iter().find(|row| row[0] == name);
    assert_eq!(["a", "b", "c", "d"].map(moved), [false, true, false, true]);
    let ids = |stored: &[(i32, Endpoint)]| -> BTreeMap<String, i32> {
        stored.iter().map(|(id, endpoint)| (endpoint.name.clone(), *id)).collect()
    };
    let (old, new) = (ids(&stored), ids(&read(url)));
    assert!(old.iter().all(|(name, id)| new[name] == *id), "an endpoint keeps its id: {old:?} {new:?}");
    assert_eq!(new.len(), 4, "an endpoint that is not named stays");
    assert!(new["d"] <= 4, "ids are not used up by what is there already: {}", new["d"]);
    // Only the address differs, and one of the two has none.
    let pinned = endpoint("a", |draft| draft.address = Some("127.0.0.2".to_owned()));
    assert_eq!(upsert(url, std::slice::from_ref(&pinned)).updated, 1);
    assert_eq!(upsert(url, &[pinned]).unchanged, 1);
    assert_eq!(upsert(url, &[plain("a")]).updated, 1);
}

fn every_field_survives(store: &impl TestStore) {
    let url = store.url();
    migrate(url);
    let endpoints = every_field();
    assert_eq!(upsert(url, &endpoints).inserted, 3);
    let stored: Vec<Endpoint> = read(url).into_iter().map(|(_, endpoint)| endpoint).collect();
    assert_eq!(stored, endpoints);
    assert_eq!(upsert(url, &endpoints).unchanged, 3, "what is read is what was written");
    // One column at a time back to its default, and forth: each is looked at, also where one of the two is null.
    let columns = "SELECT * FROM endpoints WHERE name = 'shop'";
    let set = store.query(columns);
    for field in [
        "priority",
        "secret_headers",
        "basic_auth",
        "user_agent",
        "accept_encoding",
        "expect_headers",
        "expect_version",
        "expect_within_ms",
        "body_match",
        "body_limit_bytes",
        "body_stop",
        "charset",
        "cert_expires_within_s",
        "redirects",
        "idle_timeout_ms",
        "retries",
        "dns",
        "family",
        "source",
        "close",
        "tls",
    ] {
        let default = match (field, url) {
            ("priority", _) => "5",
            ("redirects", _) => "10",
            ("retries", _) => "0",
            ("body_limit_bytes", _) => "10485760",
            ("body_stop", _) => "false",
            ("charset", _) => "'raw'",
            ("dns", _) => "'cached'",
            ("family", _) => "'any'",
            ("close", _) => "'peer'",
            ("accept_encoding" | "body_match", StoreUrl::Postgres(_)) => "'{}'",
            ("accept_encoding" | "body_match" | "secret_headers" | "expect_headers", _) => "'[]'",
            _ => "NULL",
        };
        store.execute(&format!("UPDATE endpoints SET {field} = {default} WHERE name = 'shop'"));
        assert_eq!(upsert(url, &endpoints), Upserted { inserted: 0, updated: 1, unchanged: 2 }, "{field}");
        // The last two columns say which change it was, and when.
        let again = store.query(columns);
        assert_eq!(again[0][..set[0].len() - 2], set[0][..set[0].len() - 2], "{field}");
    }
}

/// A reference is all that is ever stored: what stands in a file instead of one is refused before.
fn no_column_takes_a_secret(store: &impl TestStore) {
    migrate(store.url());
    upsert(store.url(), &every_field());
    let columns: Vec<String> = store.query("SELECT * FROM endpoints").concat();
    for reference in
        ["env:TENANT", "cred:shop-key", "file:/run/secrets/shop", "cred:probe-key", "env:SHOP_TOKEN"]
    {
        assert!(columns.iter().any(|value| value.contains(reference)), "{reference} is stored");
    }
}

fn a_name_given_twice_changes_nothing(store: &impl TestStore) {
    migrate(store.url());
    let twice = [endpoint("x", |_| {}), endpoint("y", |_| {}), endpoint("x", |_| {})];
    let refused =
        block_on(async { Store::open(store.url()).await?.upsert_endpoints(twice.to_vec()).await }).unwrap();
    assert!(refused.unwrap_err().to_string().contains("\"x\""));
    assert!(read(store.url()).is_empty());
}

fn a_row_that_cannot_be_probed_as_written_is_an_error(store: &impl TestStore) {
    migrate(store.url());
    upsert(store.url(), &[endpoint("shop", |_| {})]);
    let refused = |edit: &str, undo: &str| {
        store.execute(&format!("UPDATE endpoints SET {edit}"));
        let error =
            block_on(async { Store::open(store.url()).await?.endpoints().await }).unwrap().unwrap_err();
        store.execute(&format!("UPDATE endpoints SET {undo}"));
        error.to_string()
    };
    let url = refused("url = 'ftp://x/'", "url = 'http://x/'");
    assert!(url.contains("endpoint \"shop\": url: "), "{url}");
    let header = refused("headers = '[[\"A\", \"b\\r\\nC: d\"]]'", "headers = '[]'");
    assert!(header.contains("endpoint \"shop\": headers: "), "{header}");
    let source = refused("source = 'a name too long for an interface'", "source = NULL");
    assert!(source.contains("endpoint \"shop\": source: "), "{source}");
    // The spelling of a list differs between the stores.
    let (one, none) = match store.url() {
        StoreUrl::Postgres(_) => ("'{\"\"}'", "'{}'"),
        StoreUrl::Sqlite(_) => ("'[\"\"]'", "'[]'"),
    };
    let pattern = refused(&format!("body_match = {one}"), &format!("body_match = {none}"));
    assert!(pattern.contains("endpoint \"shop\": body_match[0]: is empty"), "{pattern}");
    let secret = refused("secret_headers = '[[\"X-Key\", \"canary\"]]'", "secret_headers = '[]'");
    assert!(
        secret.contains("secret_headers: X-Key is no reference") && !secret.contains("canary"),
        "{secret}"
    );
    // Negative ids are the canaries'.
    if matches!(store.url(), StoreUrl::Sqlite(_)) {
        let id = refused("endpoint_id = -1", "endpoint_id = 1");
        assert!(id.contains("endpoint \"shop\": endpoint_id: -1 is below 0"), "{id}");
    }
    assert_eq!(read(store.url()).len(), 1);
}

fn a_hundred_thousand_endpoints_take_seconds(store: &impl TestStore) {
    migrate(store.url());
    let endpoints: Vec<Endpoint> = (0..100_000).map(|n| endpoint(&format!("e{n}"), |_| {})).collect();
    for expected in [
        Upserted { inserted: 100_000, updated: 0, unchanged: 0 },
        Upserted { inserted: 0, updated: 0, unchanged: 100_000 },
    ] {
        let started = ringprobe::clock::Mono::now();
        assert_eq!(upsert(store.url(), &endpoints), expected);
        let took = ringprobe::clock::Mono::now().since(started);
        println!("upsert of 100,000 endpoints, {expected:?}: {took:?}");
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
    let stored = read(store.url());
    assert_eq!(stored.len(), 100_000);
    assert!(
        stored.iter().zip(1..).all(|((id, endpoint), n)| *id == n && endpoint.name == format!("e{}", n - 1))
    );
}

// --- samples ----------------------------------------------------------------------------------------------

/// A sample whose every field may be anything that its type can hold.
fn extreme(random: &mut Random, unique: i32) -> Sample {
    let int = |random: &mut Random| match random.below(8) {
        0 => i32::MIN,
        1 => i32::MAX,
        2 => -1,
        3 => 0,
        _ => i32::try_from(random.below(1 << 31)).unwrap(),
    };
    let small = |random: &mut Random| match random.below(4) {
        0 => i16::MIN,
        1 => i16::MAX,
        _ => i16::try_from(random.below(1000)).unwrap(),
    };
    // A few distinct days: each is a partition.
    let day = [0, 1_795_500_000_000_000, 253_402_300_799_999_999 - 86_399_999_999][random.index(3)];
    let of_day =
        [0, 1, 86_399_999_999, i64::try_from(random.below(86_400_000_000)).unwrap()][random.index(4)];
    Sample {
        ts: Wall(day / 86_400_000_000 * 86_400_000_000 + of_day),
        endpoint_id: EndpointId(unique),
        lag_us: int(random),
        phases: Phases {
            resolve_us: int(random),
            connect_us: int(random),
            tls_us: int(random),
            processing_us: int(random),
            transfer_us: int(random),
        },
        total_us: int(random),
        write_us: int(random),
        agent_us: int(random),
        bytes_in: int(random),
        bytes_out: int(random),
        cpu_ns: int(random),
        status: small(random),
        outcome: Outcome::ALL[random.index(3)],
        reason: small(random),
        twin: small(random),
        flags: Flags(int(random)),
        detail: Detail {
            address: std::array::from_fn(|_| u8::try_from(random.below(256)).unwrap()),
            tls_not_after_s: u32::MAX >> random.below(32),
            tls_cipher: small(random).cast_unsigned(),
            pattern: small(random),
            redirects: u8::try_from(random.below(256)).unwrap(),
            attempt: u8::try_from(random.below(256)).unwrap(),
            body: BodyMatch::ALL[random.index(5)],
            step: u8::try_from(random.below(2) * random.below(256)).unwrap(),
        },
    }
}

/// The columns of `metrics` and, at the end, that of a step, as `columns` has them.
const COLUMNS: &str = "endpoint_id, lag_us, resolve_us, connect_us, tls_us, processing_us, transfer_us, total_us,
    agent_us, bytes_in, bytes_out, cpu_ns, status, outcome, failure, flags, address_hi, address_lo, tls_cipher,
    pattern, redirects, attempt, body, twin";

fn columns(sample: &Sample) -> Vec<String> {
    let mut values = vec![sample.ts.0, sample.endpoint_id.0.into(), sample.lag_us.into()];
    values.extend(sample.phases.as_array().map(i64::from));
    values.extend(
        [sample.total_us, sample.agent_us, sample.bytes_in, sample.bytes_out, sample.cpu_ns].map(i64::from),
    );
    values.extend([sample.status, sample.outcome as i16, sample.reason].map(i64::from));
    values.push(sample.flags.0.into());
    let detail = &sample.detail;
    let half =
        |bytes: &[u8]| bytes.iter().fold(0_u64, |half, byte| half << 8 | u64::from(*byte)).cast_signed();
    values.extend([half(&detail.address[..8]), half(&detail.address[8..])]);
    values.extend([detail.tls_cipher.cast_signed(), detail.pattern].map(i64::from));
    values.extend([detail.redirects, detail.attempt, detail.body as u8].map(i64::from));
    values.push(sample.twin.into());
    values.extend((detail.step > 0).then_some(i64::from(detail.step)));
    values.iter().map(i64::to_string).collect()
}

fn rows_out_are_rows_in(store: &impl TestStore) {
    migrate(store.url());
    let mut random = Random::seeded();
    let mut samples: Vec<Sample> = (0..20_000).map(|unique| extreme(&mut random, unique)).collect();
    samples.push(Sample { endpoint_id: EndpointId(i32::MAX), ..samples[0] });
    let mut writer = Writer::start(WriterOptions { retention: None, ..store.options() });
    writer.feed(&samples);
    let last = writer.end();
    samples.sort_by_key(|sample| sample.endpoint_id);
    let (steps, slots): (Vec<Sample>, Vec<Sample>) =
        samples.iter().partition(|sample| sample.detail.step > 0);
    assert!(steps.len() > 5_000 && slots.len() > 5_000, "{} steps", steps.len());
    assert_exactly_once(store, slots.len() as u64, &last);
    assert_eq!((last.tally.steps(), last.steps_stored), (steps.len() as u64, steps.len() as u64));
    assert_eq!(one::<usize>(store, "SELECT sum(steps) FROM ingest_cursor"), steps.len());
    let ts = store.ts_us();
    for (table, samples, step) in [("metrics", slots, ""), ("steps", steps, ", step")] {
        let stored = store.query(&format!("SELECT {ts}, {COLUMNS}{step} FROM {table} ORDER BY endpoint_id"));
        assert_eq!(stored.len(), samples.len(), "{table}");
        for (stored, sample) in stored.iter().zip(&samples) {
            assert_eq!(*stored, columns(sample), "{table}");
        }
    }
}

/// The step `step` of the probe of a slot.
fn step_of(sample: Sample, step: u8) -> Sample {
    Sample { detail: Detail { step, ..sample.detail }, ..sample }
}

fn steps_are_no_slots(store: &impl TestStore) {
    migrate(store.url());
    let now = Wall::now().0;
    let mut writer = Writer::start(store.options());
    let slots: Vec<Sample> = (0..1000).map(|id| probed(now + i64::from(id), id, 200)).collect();
    let hops = slots.iter().flat_map(|slot| [step_of(*slot, 1), step_of(*slot, 2), *slot]);
    writer.feed(&hops.collect::<Vec<_>>());
    let last = writer.end();
    assert_exactly_once(store, 1000, &last);
    assert_eq!((last.steps_stored, last.steps_dropped, last.tally.sampled()), (2000, 0, 1000));
    let steps =
        store.query("SELECT step, count(*), count(DISTINCT endpoint_id) FROM steps GROUP BY 1 ORDER BY 1");
    assert_eq!(steps, [["1", "1000", "1000"], ["2", "1000", "1000"]]);
    assert_eq!(one::<u64>(store, "SELECT sum(steps) FROM ingest_cursor"), 2000);
    assert_eq!(one::<u64>(store, "SELECT count(*) FROM endpoint_state"), 1000);

    // They grow as old as samples do.
    let old = now - 30 * 24 * HOUR_US;
    let mut writer = Writer::start(WriterOptions { retention: None, ..store.options() });
    writer.feed(&[step_of(probed(old, 1, 302), 1)]);
    assert_eq!(writer.end().steps_stored, 1, "a delivery of steps alone");
    let writer = Writer::start(store.options());
    wait_until("old steps are gone", || one::<u64>(store, "SELECT count(*) FROM steps") == 2000);
    writer.end();
}

fn judgements_are_stored_with_rows_and_without(store: &impl TestStore) {
    migrate(store.url());
    let now = Wall::now();
    let judgement = |minute: i64, reasons: &[&str]| Judgement {
        ts: Wall(now.0 + minute * 60_000_000),
        span: Micros(60_000_000),
        whole_run: false,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        due: 600,
        sampled: 599,
        missed: 1,
        dropped: 0,
        lag_p99_us: 2_500,
        agent_p99_us: 80,
        canary_p99_us: (minute > 0).then_some(17),
        stolen_percent: 0.25,
        clock_steps: u64::MAX,
    };
    let mut writer = Writer::start(store.options());
    let id = writer.handle().id();
    writer.handle().judged(judgement(0, &[]));
    wait_until("a minute without rows", || one::<u64>(store, "SELECT count(*) FROM verdicts") == 1);
    writer.feed(&[
        probed(now.0, 1, 200),
        Sample { endpoint_id: EndpointId::canary_of(0), ..probed(now.0, 1, 200) },
    ]);
    writer.handle().judged(judgement(1, &["lag: it's \"late\"", "missed: 1"]));
    let last = writer.end();
    assert_exactly_once(store, 1, &last);
    assert_eq!(last.tally.canary_us().len(), 1, "a canary is counted, and is nobody's row");

    let of_the_run = Judgement { whole_run: true, ..judgement(0, &[]) };
    block_on(async { Store::open(store.url()).await?.judged(id, of_the_run).await }).unwrap().unwrap();
    let order = "ORDER BY whole_run, ts";
    let rows = store
        .query(&format!("SELECT due, missed, lag_p99_us, canary_p99_us, clock_steps FROM verdicts {order}"));
    let steps = i64::MAX.to_string();
    assert_eq!(rows[0], ["600", "1", "2500", "", &steps]);
    assert_eq!(rows[1], ["600", "1", "2500", "17", &steps]);
    assert_eq!(rows.len(), 3);
    let reasons = store.query(&format!("SELECT reasons, valid, whole_run FROM verdicts {order}"));
    assert!(reasons[1][0].contains("lag: it's") && reasons[1][0].contains("missed: 1"), "{reasons:?}");
    assert_ne!(reasons[0][1], reasons[1][1], "one is valid, one is not");
    assert_ne!(reasons[1][2], reasons[2][2]);
    assert_eq!(one::<u64>(store, "SELECT count(DISTINCT writer_id) FROM verdicts"), 1);
}

fn two_writers_share_a_store(store: &impl TestStore) {
    migrate(store.url());
    let now = Wall::now();
    let last: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|node| {
                scope.spawn(move || {
                    let mut writer = Writer::start(store.options());
                    for round in 0..20 {
                        // The same endpoints, the same partitions, other slots.
                        let samples: Vec<Sample> =
                            (0..500).map(|id| probed(now.0 + round * 1_000_000 + node, id, 200)).collect();
                        writer.feed(&samples);
                        writer.settle();
                    }
                    writer.end()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(stored_rows(store), (20_000, 20_000));
    assert_eq!(last.iter().map(|last| (last.stored, last.dropped)).collect::<Vec<_>>(), [(10_000, 0); 2]);
    assert_eq!(one::<u64>(store, "SELECT count(*) FROM ingest_cursor"), 2);
    assert_eq!(one::<u64>(store, "SELECT count(*) FROM endpoint_state"), 500);
}

fn people_see_names_and_no_invented_phases(store: &impl TestStore) {
    migrate(store.url());
    upsert(store.url(), &[endpoint("good", |_| {}), endpoint("bad", |_| {}), endpoint("new", |_| {})]);
    let ids: BTreeMap<String, i32> = read(store.url()).into_iter().map(|(id, it)| (it.name, id)).collect();
    let now = Wall::now().0;
    let refused = Sample {
        phases: Phases { connect_us: 1_500, ..Phases::NONE },
        total_us: 1_500,
        write_us: ABSENT,
        status: 0,
        outcome: Outcome::Down,
        reason: Failure::ConnectRefused.code(),
        ..probed(now + 2, ids["bad"], 200)
    };
    let missed = Sample::missed(
        Wall(now + 3),
        EndpointId(ids["bad"]),
        Micros(5),
        MissReason::Overlap,
        Flags::default(),
    );
    let mut writer = Writer::start(store.options());
    writer.feed(&[probed(now, ids["good"], 200), probed(now + 1, ids["bad"], 200), refused, missed]);
    writer.end();
    let latest = store.query(
        "SELECT name, coalesce(outcome, '-'), coalesce(failure, '-'), coalesce(status, -1), round(total_ms, 1),
            resolve_ms IS NULL, processing_ms IS NULL, since = ts, write_ms IS NULL
         FROM latest ORDER BY name",
    );
    let truth = |row: &[String]| -> Vec<String> {
        // The stores print numbers and truth each in their own way.
        row.iter().map(|value| value.replace('t', "1").replace('f', "0")).collect()
    };
    let rows: Vec<Vec<String>> = latest.iter().map(|row| truth(row)).collect();
    assert_eq!(rows[0][..4], truth(&["bad", "down", "connect_refused", "-1"].map(str::to_owned)));
    assert_eq!((rows[0][4].as_str(), rows[0][5].as_str(), rows[0][6].as_str()), ("1.5", "1", "1"));
    assert_eq!((rows[0][8].as_str(), rows[1][8].as_str()), ("1", "0"), "nothing was written to who refuses");
    let written = store.query("SELECT round(write_ms, 2) FROM samples WHERE name = 'good'");
    assert_eq!(written, [["0.02"]]);
    assert_eq!(rows[1][..4], truth(&["good", "up", "-", "200"].map(str::to_owned)));
    assert_eq!(rows[2][..4], truth(&["new", "-", "-", "-1"].map(str::to_owned)));
    let failures = store.query("SELECT name, failure, status, tls_ms, write_ms, connect_ms FROM failures");
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0][..5], ["bad", "connect_refused", "", "", ""]);
    let tls = Sample {
        flags: Flags::TLS,
        detail: Detail {
            address: "2001:db8::ff00:1".parse::<Ipv6Addr>().unwrap().octets(),
            tls_not_after_s: u32::try_from(now / 1_000_000).unwrap() + 12 * 86_400 + 3600,
            tls_cipher: 0xcca9,
            pattern: 1,
            redirects: 2,
            attempt: 1,
            body: BodyMatch::NotMatched,
            step: 0,
        },
        ..probed(now + 4, ids["new"], 500)
    };
    let plain = "10.1.2.3".parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
    let hop = Detail { address: plain, step: 1, ..Detail::NONE };
    let hop = Sample { detail: hop, ..probed(now + 4, ids["new"], 302) };
    let mut writer = Writer::start(store.options());
    writer.feed(&[hop, tls]);
    writer.end();
    let facts = "address, tls_version, tls_cipher, body, pattern, redirects, attempt";
    let mut shown =
        store.query(&format!("SELECT {facts}, tls, reuse FROM samples WHERE name = 'new'")).remove(0);
    // SQLite leaves out no zeros.
    shown[0] = shown[0].parse::<IpAddr>().unwrap().to_string();
    let cipher = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let expected = ["2001:db8::ff00:1", "1.2", cipher, "not_matched", "1", "2", "1"];
    assert_eq!(shown[..7], expected);
    assert_eq!(truth(&shown[7..]), ["1", "0"]);
    let shown = store.query(&format!("SELECT step, outcome, {facts} FROM sample_steps WHERE name = 'new'"));
    assert_eq!(shown, [["1", "up", "10.1.2.3", "", "", "not_asked", "", "0", ""]]);
    let shown = store.query(
        "SELECT address, tls_version, tls_cipher, tls_days_left FROM latest WHERE name IN ('new', 'bad') ORDER BY name",
    );
    assert_eq!(shown[0], [""; 4]);
    assert_eq!(shown[1][..3], ["2001:db8::ff00:1", "1.2", cipher]);
    assert_eq!(shown[1][3].parse(), Ok(12.0));
    let outcomes = store
        .query("SELECT outcome, coalesce(failure, ''), count(*) FROM samples GROUP BY 1, 2 ORDER BY 1, 2");
    assert_eq!(
        outcomes,
        [
            ["down", "connect_refused", "1"],
            ["down", "status_unexpected", "1"],
            ["missed", "overlap", "1"],
            ["up", "", "2"]
        ]
    );
}

fn state_says_since_when(store: &impl TestStore) {
    migrate(store.url());
    let start = Wall::now().0;
    let mut writer = Writer::start(store.options());
    for (second, status) in [(0, 200), (10, 500), (20, 503), (90, 503), (95, 200), (100, 200)] {
        writer.feed(&[probed(start + second * 1_000_000, 1, status)]);
        writer.settle();
        let state = store.state(1);
        let expected = match second {
            0 => (0, 0, 200),
            10 => (10, 10, 500),
            20 => (20, 10, 503),
            90 => (90, 10, 503),
            // Unchanged and not a minute old: not written again.
            _ => (95, 95, 200),
        };
        let seconds = |us: i64| (us - start) / 1_000_000;
        assert_eq!((seconds(state.0), seconds(state.1), state.2), expected, "at {second} s");
    }
    writer.end();
}

/// What is past its retention goes, in slices or partitions, and nothing else.
fn retention_removes_the_old_and_nothing_else(store: &impl TestStore) {
    migrate(store.url());
    let now = Wall::now().0;
    let age = |hours: i64, count: i32| -> Vec<Sample> {
        (0..count).map(|id| probed(now - hours * HOUR_US - i64::from(id), id, 200)).collect()
    };
    let mut writer =
        Writer::start(WriterOptions { retention: Some(Micros(100 * 86_400_000_000)), ..store.options() });
    writer.feed(&age(24 * 10, 25_000));
    writer.feed(&age(24 * 5, 100));
    writer.feed(&age(0, 10));
    writer.end();
    assert_eq!(stored_rows(store).0, 25_110);
    let week = Micros(7 * 86_400_000_000);
    let mut writer = Writer::start(WriterOptions { retention: Some(week), ..store.options() });
    wait_until("the old rows are gone", || {
        // The slices of SQLite come between batches.
        writer.feed(&[]);
        stored_rows(store).0 == 110
    });
    writer.feed(
        &age(0, 1).iter().map(|row| Sample { endpoint_id: EndpointId(99), ..*row }).collect::<Vec<_>>(),
    );
    let last = writer.end();
    assert_eq!((last.stored, stored_rows(store).0), (1, 111));
}

/// Every statement in a document or in `examples/queries.sql`; those that say `(PostgreSQL)` only there.
fn queries_that_the_documents_show_run(store: &impl TestStore) {
    migrate(store.url());
    let mut writer = Writer::start(store.options());
    let now = Wall::now().0;
    writer.feed(&[probed(now - 2_000_000, 1, 200), probed(now - 1_000_000, 1, 500)]);
    writer.end();
    let examples = std::fs::read_to_string(support::docs::root().join("examples/queries.sql")).unwrap();
    let documents = support::docs::blocks("sql").into_iter().map(|block| (block.place, block.text));
    let mut run = Vec::new();
    for (place, text) in documents.chain([("examples/queries.sql".to_owned(), examples)]) {
        for statement in text.split("\n\n").filter(|statement| statement.contains("SELECT")) {
            if matches!(store.url(), StoreUrl::Sqlite(_)) && statement.contains("(PostgreSQL)") {
                continue;
            }
            // Fails with the statement if the store refuses it.
            store.query(statement);
            run.push(place.clone());
        }
    }
    assert!(run.len() >= 5, "statements were found in {run:?} only");
}

/// Refuses the sort of row that nobody would expect: a status of 418.
fn refuse_teapots(store: &impl TestStore) {
    store.execute(match store.url() {
        StoreUrl::Postgres(_) => "ALTER TABLE metrics ADD CONSTRAINT no_teapots CHECK (status <> 418)",
        StoreUrl::Sqlite(_) => {
            "CREATE TRIGGER no_teapots BEFORE INSERT ON metrics WHEN new.status = 418
             BEGIN SELECT raise(ABORT, 'no teapots'); END"
        }
    });
}

/// A refused row once took its whole batch with it.
fn of_a_batch_that_is_refused_only_the_rows_at_fault_are_dropped(store: &impl TestStore) {
    migrate(store.url());
    refuse_teapots(store);
    let mut writer = Writer::start(store.options());
    let now = Wall::now().0;
    let bad = |id: i32| id % 7_001 == 5_000;
    let status = |id: i32| if bad(id) { 418 } else { 200 };
    for first in [0, 20_000] {
        let batch: Vec<Sample> =
            (first..first + 20_000).map(|id| probed(now + i64::from(id), id, status(id))).collect();
        writer.feed(&batch);
        writer.settle();
    }
    let last = writer.end();
    let expected: Vec<i32> = (0..40_000).filter(|id| bad(*id)).collect();
    assert_eq!((last.stored, last.dropped, last.queued_rows), (39_995, 5, 0));
    assert_eq!(stored_rows(store), (39_995, 39_995), "nothing else is missing, and nothing is there twice");
    assert_eq!(expected.len(), 5);
    assert_eq!(one::<u64>(store, "SELECT sum(rows) FROM ingest_cursor"), 39_995);
    assert_eq!(one::<u64>(store, "SELECT count(*) FROM endpoint_state"), 39_995, "states go with their rows");
    let gaps = store.query("SELECT sum(rows), min(reason), max(reason) FROM ingest_gaps");
    assert_eq!(gaps, [["5", "rejected", "rejected"]]);
    let bounds = |column: &str| store.ts_us().replace("ts", column);
    let span = format!("SELECT {}, {} FROM ingest_gaps", bounds("min(from_ts)"), bounds("max(to_ts)"));
    let at = |id: i32| (now + i64::from(id)).to_string();
    assert_eq!(store.query(&span), [[at(expected[0]), at(expected[4])]]);
}

/// The halves of a batch part samples from their steps; neither may be counted as the other.
fn a_refused_step_takes_no_sample_with_it(store: &impl TestStore) {
    migrate(store.url());
    refuse_teapots(store);
    store.execute(match store.url() {
        StoreUrl::Postgres(_) => "ALTER TABLE steps ADD CONSTRAINT no_teapots CHECK (status <> 418)",
        StoreUrl::Sqlite(_) => {
            "CREATE TRIGGER no_teapot_steps BEFORE INSERT ON steps WHEN new.status = 418
             BEGIN SELECT raise(ABORT, 'no teapots'); END"
        }
    });
    let now = Wall::now().0;
    let mut writer = Writer::start(store.options());
    let slots = (0..500).flat_map(|id| {
        let slot = probed(now + i64::from(id), id, if id == 77 { 418 } else { 200 });
        let hop = step_of(probed(now + i64::from(id), id, if id % 250 == 13 { 418 } else { 302 }), 1);
        [hop, slot]
    });
    writer.feed(&slots.collect::<Vec<_>>());
    let last = writer.end();
    assert_eq!((last.stored, last.dropped, last.queued_rows), (499, 1, 0));
    assert_eq!((last.steps_stored, last.steps_dropped), (498, 2));
    assert_eq!(stored_rows(store), (499, 499));
    assert_eq!(one::<u64>(store, "SELECT count(*) FROM steps"), 498);
    assert_eq!(store.query("SELECT sum(rows), sum(steps) FROM ingest_gaps"), [["1", "2"]]);
    assert_eq!(store.query("SELECT sum(rows), sum(steps) FROM ingest_cursor"), [["499", "498"]]);
    assert_eq!(one::<u64>(store, "SELECT count(*) FROM endpoint_state"), 499, "states go with their rows");
}

fn a_store_that_refuses_every_row_is_given_up_and_what_follows_goes_on(store: &impl TestStore) {
    migrate(store.url());
    refuse_teapots(store);
    let mut writer = Writer::start(store.options());
    let now = Wall::now().0;
    writer.feed(&(0..8).map(|id| probed(now, id, 418)).collect::<Vec<_>>());
    writer.settle();
    writer.feed(&[probed(now, 9, 200)]);
    let last = writer.end();
    assert_eq!((last.stored, last.dropped), (1, 8));
    assert_eq!(store.query("SELECT sum(rows), min(reason) FROM ingest_gaps"), [["8", "rejected"]]);
    assert_eq!(stored_rows(store), (1, 1));
}

/// A full disk has no room for rows; the record of what was dropped at the end was not even offered.
fn what_is_given_up_at_the_end_is_dated(store: &impl TestStore) {
    migrate(store.url());
    // Not the rows' fault: such an error is waited for.
    let full: &[&str] = match store.url() {
        StoreUrl::Postgres(_) => &[
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION USING ERRCODE = ''disk_full''; END'",
            "CREATE TRIGGER full_disk BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION full_disk()",
        ],
        StoreUrl::Sqlite(_) => &["CREATE TRIGGER full_disk BEFORE INSERT ON metrics
             BEGIN SELECT abs(-9223372036854775807 - 1); END"],
    };
    full.iter().for_each(|statement| store.execute(statement));
    let mut writer = Writer::start(WriterOptions { drain_max: Micros::from_millis(500), ..store.options() });
    let now = Wall::now().0;
    writer.feed(&(0..500).map(|id| probed(now + i64::from(id), id, 200)).collect::<Vec<_>>());
    wait_until("the first batch is refused", || {
        matches!(writer.snapshot().store_state, StoreState::Reconnecting { .. })
    });
    writer.feed(&(500..1_000).map(|id| probed(now + i64::from(id), id, 200)).collect::<Vec<_>>());
    let last = writer.end();
    assert_eq!((last.stored, last.dropped, last.queued_rows), (0, 1_000, 0));
    assert_eq!(
        store.query("SELECT sum(rows), min(reason), max(reason) FROM ingest_gaps"),
        [["1000", "ended", "ended"]]
    );
    let bounds = |column: &str| store.ts_us().replace("ts", column);
    let span = format!("SELECT {}, {} FROM ingest_gaps", bounds("min(from_ts)"), bounds("max(to_ts)"));
    assert_eq!(store.query(&span), [[now.to_string(), (now + 999).to_string()]]);
}

/// Runs each of these against both stores, as `postgres::name` and `sqlite::name`.
macro_rules! both {
    ($($name:ident)+) => {
        mod postgres {
            $(#[test] fn $name() { super::$name(&super::Postgres::new(stringify!($name))); })+
        }
        mod sqlite {
            $(#[test] fn $name() { super::$name(&super::Sqlite::new()); })+
        }
    };
}

both! {
    migrating_is_safe_to_repeat_and_to_race
    a_schema_that_does_not_fit_is_refused
    endpoints_are_brought_in_line_by_name
    every_field_survives
    no_column_takes_a_secret
    a_name_given_twice_changes_nothing
    a_row_that_cannot_be_probed_as_written_is_an_error
    a_hundred_thousand_endpoints_take_seconds
    rows_out_are_rows_in
    steps_are_no_slots
    judgements_are_stored_with_rows_and_without
    two_writers_share_a_store
    people_see_names_and_no_invented_phases
    state_says_since_when
    retention_removes_the_old_and_nothing_else
    queries_that_the_documents_show_run
    of_a_batch_that_is_refused_only_the_rows_at_fault_are_dropped
    a_refused_step_takes_no_sample_with_it
    a_store_that_refuses_every_row_is_given_up_and_what_follows_goes_on
    what_is_given_up_at_the_end_is_dated
}

#[test]
fn lookup_tables_agree_in_both_stores() {
    let (postgres, sqlite) = (Postgres::new("lookup"), Sqlite::new());
    migrate(postgres.url());
    migrate(sqlite.url());
    lookup_tables_agree_with_the_codes(&postgres);
    lookup_tables_agree_with_the_codes(&sqlite);
}

// --- PostgreSQL: partitions -------------------------------------------------------------------------------

#[test]
fn rows_on_both_sides_of_a_boundary_and_in_the_past_find_their_partition() {
    let store = Postgres::new("boundary");
    migrate(store.url());
    let hour = Wall::now().0 / HOUR_US * HOUR_US;
    let times = [
        hour - 1,
        hour,
        hour + 1,
        hour + HOUR_US - 1,
        hour + HOUR_US,
        hour + 9 * HOUR_US,
        hour - 99 * HOUR_US,
    ];
    let mut writer = Writer::start(store.options());
    writer.feed(&times.map(|ts| probed(ts, 1, 200)));
    assert_exactly_once(&store, 7, &writer.end());
    let partitions = store.query("SELECT DISTINCT tableoid::regclass::text FROM metrics");
    assert_eq!(partitions.len(), 5);
    // The past one, the hour before, now and two ahead, the one nine hours ahead; and none by default.
    assert_eq!(
        one::<u64>(&store, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'metrics'::regclass"),
        6
    );
    assert_eq!(
        one::<u32>(
            &store,
            "SELECT partdefid FROM pg_partitioned_table WHERE partrelid = 'metrics'::regclass"
        ),
        0
    );
    let indexes = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'metrics_ts'::regclass";
    assert_eq!(one::<u64>(&store, indexes), 6, "each partition's BRIN belongs to the parent's");
    let valid = "SELECT bool_and(indisvalid)::int FROM pg_index WHERE indrelid = 'metrics'::regclass";
    assert_eq!(one::<u64>(&store, valid), 1);
}

#[test]
fn a_partition_that_somebody_dropped_is_made_again() {
    let store = Postgres::new("dropped");
    migrate(store.url());
    let now = Wall::now().0;
    let mut writer = Writer::start(store.options());
    writer.feed(&[probed(now, 1, 200)]);
    writer.settle();
    let table: String = one(&store, "SELECT tableoid::regclass::text FROM metrics");
    store.execute(&format!("DROP TABLE {table}"));
    writer.feed(&[probed(now, 2, 200)]);
    let last = writer.end();
    assert_eq!((last.stored, last.dropped), (2, 0));
    assert_eq!(stored_rows(&store), (1, 1));
}

#[test]
fn partitions_of_another_width_and_of_others_are_left_alone() {
    let store = Postgres::new("widths");
    migrate(store.url());
    store.execute(
        "CREATE TABLE metrics_archive PARTITION OF metrics FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00')",
    );
    let day = 24 * HOUR_US;
    let now = Wall::now().0;
    for (retention_days, id) in [(365, 1), (30, 2), (7, 3), (365, 4)] {
        let retention = Some(Micros(u64::try_from(retention_days * day).unwrap()));
        let mut writer = Writer::start(WriterOptions { retention, ..store.options() });
        writer.feed(&[probed(now, id, 200), probed(now + day, id, 200), probed(1_000_000, id, 200)]);
        let last = writer.end();
        assert_eq!((last.stored, last.dropped), (3, 0), "{retention_days} days");
    }
    assert_eq!(stored_rows(&store), (12, 12), "nobody dropped the archive");
    assert_eq!(one::<u64>(&store, "SELECT count(*) FROM metrics_archive"), 4);
}

// --- PostgreSQL: outages ----------------------------------------------------------------------------------

/// Feeds until told to stop: `rate` samples every few milliseconds, each of its own endpoint.
fn feed_while(writer: &mut Writer, first: i32, rate: i32, mut goes_on: impl FnMut(&Snapshot) -> bool) -> i32 {
    let mut next = first;
    while goes_on(&writer.snapshot()) {
        let now = Wall::now().0;
        let samples: Vec<Sample> = (next..next + rate).map(|id| probed(now, id, 200)).collect();
        next += rate;
        writer.feed(&samples);
        thread::park_timeout(Duration::from_millis(5));
    }
    next
}

#[test]
fn a_server_that_is_stopped_and_started_again_loses_and_doubles_nothing() {
    let cluster = Cluster::start();
    let store = Postgres::in_cluster(cluster.dsn(), "outage");
    migrate(store.url());
    let mut writer = Writer::start(store.options());
    let mut fed = 0;
    for _ in 0..3 {
        let goal = writer.snapshot().stored + 5_000;
        fed = feed_while(&mut writer, fed, 100, |now| now.stored < goal);
        cluster.stop();
        fed = feed_while(&mut writer, fed, 100, |now| {
            !matches!(now.store_state, StoreState::Reconnecting { .. })
        });
        let goal = u64::try_from(fed).unwrap() + 20_000;
        fed = feed_while(&mut writer, fed, 100, |now| now.tally.due() < goal);
        assert!(writer.snapshot().queued_rows >= 20_000, "they are held");
        cluster.start_again();
        fed = feed_while(&mut writer, fed, 100, |now| now.store_state != StoreState::Connected);
    }
    assert_exactly_once(&store, fed.try_into().unwrap(), &writer.end());
    assert_eq!(one::<u64>(&store, "SELECT count(*) FROM ingest_gaps"), 0);
}

#[test]
fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten() {
    let store = Postgres::new("commit");
    migrate(store.url());
    let proxy = Proxy::start(store.address());
    let mut writer =
        Writer::start(WriterOptions { store: Some(store.url_through(&proxy)), ..store.options() });
    let mut fed = 0;
    for round in 1..=10 {
        proxy.cut(Cut::AnswerToCommit);
        fed = feed_while(&mut writer, fed, 100, |_| proxy.cuts() < round);
        let goal = writer.snapshot().stored + 100;
        fed = feed_while(&mut writer, fed, 100, |now| now.stored < goal);
    }
    assert_exactly_once(&store, fed.try_into().unwrap(), &writer.end());
}

#[test]
fn a_connection_cut_anywhere_loses_and_doubles_nothing() {
    let store = Postgres::new("cut");
    migrate(store.url());
    let proxy = Proxy::start(store.address());
    let mut random = Random::seeded();
    let mut writer =
        Writer::start(WriterOptions { store: Some(store.url_through(&proxy)), ..store.options() });
    let mut fed = 0;
    for round in 0..30 {
        // Somewhere in a delivery, and then somewhere on the way to the next.
        let (first, second) = (random.below(40_000), random.below(2_000));
        for cut in [
            if round % 2 == 0 { Cut::AfterSent(first) } else { Cut::AfterReceived(first / 40) },
            if round % 3 == 0 { Cut::AfterSent(second) } else { Cut::AfterReceived(second) },
        ] {
            let cuts = proxy.cuts();
            proxy.cut(cut);
            fed = feed_while(&mut writer, fed, 50, |_| proxy.cuts() == cuts);
        }
        let goal = writer.snapshot().stored + 1;
        fed = feed_while(&mut writer, fed, 50, |now| now.stored < goal);
    }
    assert_exactly_once(&store, fed.try_into().unwrap(), &writer.end());
    assert_eq!(one::<u64>(&store, "SELECT count(*) FROM ingest_cursor"), 1, "all by one writer");
}

#[test]
fn what_the_queue_cannot_hold_is_counted_and_dated() {
    let store = Postgres::new("overflow");
    migrate(store.url());
    let proxy = Proxy::start(store.address());
    proxy.refuse(true);
    let start = Wall::now().0;
    let options =
        WriterOptions { store: Some(store.url_through(&proxy)), queue_bytes_max: 4 << 20, ..store.options() };
    let mut writer = Writer::start(options);
    let mut fed = 0;
    let mut feed = |writer: &mut Writer, count: i32| {
        for _ in 0..count / 1000 {
            let samples: Vec<Sample> =
                (fed..fed + 1000).map(|id| probed(start + i64::from(id), id, 200)).collect();
            writer.feed(&samples);
            fed += 1000;
        }
        writer.gathered(u64::try_from(fed).unwrap());
    };
    feed(&mut writer, 100_000);
    let first = writer.snapshot();
    assert!(first.dropped > 0 && first.stored == 0, "4 MiB hold some 65,000 samples: {first:?}");
    assert!(first.queue_bytes <= 4 << 20, "{}", first.queue_bytes);
    assert_eq!(first.dropped + first.queued_rows, 100_000);
    feed(&mut writer, 100_000);
    proxy.refuse(false);
    let last = writer.end();
    let fed = 200_000;
    assert_eq!(last.stored + last.dropped, fed);
    assert_eq!(stored_rows(&store), (last.stored, last.stored));
    assert_eq!(
        one::<u64>(&store, "SELECT sum(rows) FROM ingest_gaps"),
        last.dropped,
        "each drop is recorded once"
    );
    assert_eq!(one::<String>(&store, "SELECT DISTINCT reason FROM ingest_gaps"), "queue_full");
    // The oldest went: the gap is what is missing at the front.
    let us = |column: &str| format!("(extract(epoch FROM {column}) * 1000000)::bigint");
    let bounds =
        store.query(&format!("SELECT {}, {} FROM ingest_gaps", us("min(from_ts)"), us("max(to_ts)")));
    assert_eq!(bounds[0][0], start.to_string());
    assert_eq!(bounds[0][1], (start + i64::try_from(last.dropped).unwrap() - 1).to_string());
}

#[test]
fn a_store_that_never_comes_back_is_given_up_and_counted() {
    let store = Postgres::new("never");
    migrate(store.url());
    let proxy = Proxy::start(store.address());
    proxy.refuse(true);
    let options = WriterOptions {
        store: Some(store.url_through(&proxy)),
        drain_max: Micros::from_millis(500),
        ..store.options()
    };
    let mut writer = Writer::start(options);
    writer.feed(&(0..1000).map(|id| probed(0, id, 200)).collect::<Vec<_>>());
    let last = writer.end();
    assert_eq!((last.stored, last.dropped, last.queued_rows), (0, 1000, 0));
    assert_eq!(last.store_state, StoreState::Closed);
}

#[test]
fn a_database_that_turns_read_only_is_waited_for() {
    let store = Postgres::new("readonly");
    migrate(store.url());
    let mut writer = Writer::start(store.options());
    let mut fed = feed_while(&mut writer, 0, 100, |now| now.stored < 1000);
    // What a provider does when the disk is full.
    store.read_only(true);
    fed =
        feed_while(&mut writer, fed, 100, |now| !matches!(now.store_state, StoreState::Reconnecting { .. }));
    let StoreState::Reconnecting { error } = writer.snapshot().store_state.clone() else {
        panic!("it is away")
    };
    assert!(!error.contains('\n'), "{error}");
    store.read_only(false);
    assert_exactly_once(&store, fed.try_into().unwrap(), &writer.end());
}

#[test]
fn a_database_that_forgets_is_followed() {
    let store = Postgres::new("forgets");
    migrate(store.url());
    let mut writer = Writer::start(store.options());
    for id in 0..5 {
        writer.feed(&[probed(Wall::now().0, id, 200)]);
        writer.settle();
    }
    // As after a failover to an asynchronous standby: rows and cursor are where they were before.
    store.execute(
        "UPDATE ingest_cursor SET seq = seq - 2, rows = rows - 2; DELETE FROM metrics WHERE endpoint_id >= 3",
    );
    store.disconnect_all();
    writer.feed(&[probed(Wall::now().0, 9, 200)]);
    let last = writer.end();
    assert_eq!((last.stored, last.dropped), (6, 0));
    assert_eq!(stored_rows(&store), (4, 4));
}

// --- SQLite -----------------------------------------------------------------------------------------------

#[test]
fn a_locked_file_stops_neither_gathering_nor_the_rows() {
    let store = Sqlite::new();
    migrate(store.url());
    let mut writer = Writer::start(store.options());
    let mut fed = feed_while(&mut writer, 0, 100, |now| now.stored < 1000);
    let lock = store.connection();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stored = one::<u64>(&store, "SELECT count(*) FROM metrics");
    fed =
        feed_while(&mut writer, fed, 100, |now| !matches!(now.store_state, StoreState::Reconnecting { .. }));
    // Many times the ring: it can only have gone through if somebody empties it.
    let goal = u64::try_from(fed).unwrap() + 3 * Writer::RING as u64;
    fed = feed_while(&mut writer, fed, 100, |now| now.tally.due() < goal);
    assert_eq!(one::<u64>(&store, "SELECT count(*) FROM metrics"), stored, "the lock holds");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_exactly_once(&store, fed.try_into().unwrap(), &writer.end());
}

#[test]
fn a_reader_in_the_way_changes_nothing() {
    let store = Sqlite::new();
    migrate(store.url());
    let mut writer = Writer::start(store.options());
    let reader = store.connection();
    reader.execute_batch("BEGIN; SELECT count(*) FROM metrics").unwrap();
    let fed = feed_while(&mut writer, 0, 100, |now| now.stored < 20_000);
    drop(reader);
    assert_exactly_once(&store, fed.try_into().unwrap(), &writer.end());
}

// --- errors -----------------------------------------------------------------------------------------------

#[test]
fn a_store_that_cannot_be_opened_is_named_in_one_line_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("notes.txt");
    std::fs::write(&text, "This is not a database, whatever its name says. ".repeat(100)).unwrap();
    for url in [
        "postgres://u:s3cret@127.0.0.1:1/db".to_owned(),
        format!("sqlite:{}/no/such/directory/r.db", directory.path().display()),
        format!("sqlite:{}", text.display()),
    ] {
        let parsed: StoreUrl = url.parse().unwrap();
        let error = block_on(Store::open(&parsed)).unwrap().unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot open store {parsed}: ")), "{error}");
        assert!(!error.contains("s3cret") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn without_a_store_samples_are_counted() {
    let mut writer = Writer::start(WriterOptions::default());
    writer.feed(&(0..10_000).map(|id| probed(0, id, 200)).collect::<Vec<_>>());
    let last = writer.end();
    assert_eq!((last.tally.due(), last.stored, last.dropped, last.queued_rows), (10_000, 0, 0, 0));
    let distinct: HashSet<u64> = [last.tally.up(), last.tally.total_us().len()].into();
    assert_eq!(distinct, HashSet::from([10_000]));
}
