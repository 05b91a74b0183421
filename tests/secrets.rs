//! Where secrets are not: a planted canary is looked for in every table of PostgreSQL, in what the program says at
//! every level, in its messages about a secret that cannot be used, and in what is left of it when it dies.
//!
//! `tests/network.rs` looks into SQLite, and at whom a secret is sent to.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

mod support {
    #[expect(dead_code, reason = "the other half is for those who cut connections")]
    pub(crate) mod proxy;
    #[expect(dead_code, reason = "the other half is for the writer's tests")]
    pub(crate) mod store;
}

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringprobe::testing::origin::{Origin, OriginOptions};
use rustix::process::{Pid, Signal, kill_process};
use support::store::{Postgres, TestStore};

const CANARY: &str = "canary-5e1c-that-must-not-sing";

/// Runs the program in `directory` with the canary wherever a reference leads, and everything logged.
fn ringprobe(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringprobe"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("CANARY_TOKEN", CANARY)
        .env("CREDENTIALS_DIRECTORY", directory.join("credentials"))
        .env("RINGPROBE_LOG", "trace")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether the canary is in it: as it is, as `Authorization` has it, or as PostgreSQL shows bytes.
fn sings(bytes: &[u8]) -> bool {
    let basic = STANDARD.encode(format!("probe:{CANARY}"));
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    has(CANARY) || has(basic.trim_end_matches('=')) || has(&hex)
}

/// Endpoints with a secret in every place that takes one.
fn plant(directory: &Path, url: &str) {
    fs::create_dir(directory.join("credentials")).unwrap();
    fs::write(directory.join("credentials/key"), CANARY).unwrap();
    fs::write(directory.join("password"), format!("{CANARY}\n")).unwrap();
    let defaults = "[defaults]\ninterval = '200ms'\nsecret_headers = { X-Key = 'cred:key' }\n";
    let endpoint = |name: &str, field: &str| {
        format!("[[endpoint]]\nname = '{name}'\nurl = '{url}'\nexpect_status = '100-599'\n{field}\n")
    };
    let bearer = endpoint("bearer", "bearer = 'env:CANARY_TOKEN'");
    let basic = endpoint("basic", "basic_auth = { username = 'probe', password = 'file:password' }");
    fs::write(directory.join("e.toml"), format!("{defaults}{bearer}{basic}")).unwrap();
}

#[test]
fn no_table_of_postgres_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(OriginOptions::default()).unwrap();
    plant(directory.path(), &origin.url("/bytes/100"));
    let store = Postgres::new("no_table_of_postgres_has_one");
    // The server asks for no password, and is told one.
    let url = store.url().to_string().replacen('@', &format!(":{CANARY}@"), 1);
    let mut said = Vec::new();
    for arguments in [
        &["run", "e.toml", "--duration", "1s", "--json"][..],
        &["run", "--duration", "300ms"],
        &["endpoints", "list", "--json"],
        &["endpoints", "export"],
        &["migrate", "--json"],
    ] {
        let output = ringprobe(directory.path(), &[arguments, &["--store", &url]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        said.extend([output.stdout, output.stderr].concat());
    }
    assert!(!sings(&said), "{}", String::from_utf8_lossy(&said));
    let tables = store.query(
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
         WHERE relkind IN ('r', 'v', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema')",
    );
    let mut stored = String::new();
    for table in tables.iter().flatten() {
        stored += &store.query(&format!("SELECT t::text FROM {table} AS t")).concat().concat();
    }
    assert!(tables.len() > 10 && stored.contains("env:CANARY_TOKEN"), "the references are there: {tables:?}");
    assert!(stored.contains("file:password") && stored.contains("cred:key"));
    assert!(!sings(stored.as_bytes()), "{stored}");
}

/// What is wrong with a secret is said, and the secret is not.
#[test]
fn no_message_about_one_repeats_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::create_dir(directory.join("credentials")).unwrap();
    for (name, value) in [
        ("broken", format!("{CANARY}\r\nX-Other: 1")),
        ("long", CANARY.repeat(3_000)),
        ("binary", format!("\u{1}{CANARY}")),
        ("empty", String::new()),
        ("key.pem", format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n")),
    ] {
        fs::write(directory.join(name), &value).unwrap();
        fs::write(directory.join("credentials").join(name), value).unwrap();
    }
    fs::write(directory.join("cert.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let basic = "basic_auth = { username = 'u', password = 'file:long' }";
    for field in [
        "bearer = 'file:broken'",
        "bearer = 'cred:long'",
        "secret_headers = { X = 'file:binary' }",
        "secret_headers = { X = 'cred:empty' }",
        "bearer = 'file:none'",
        "bearer = 'file:credentials'",
        basic,
        "tls = { client_cert = 'cert.pem', client_key = 'file:key.pem' }",
    ] {
        let output = ringprobe(directory, &["check", "https://127.0.0.1:1/", "--set", field, "--json"]);
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(output.status.code(), Some(2), "{field}: {}", String::from_utf8_lossy(&said));
        assert!(!sings(&said), "{field}: {}", String::from_utf8_lossy(&said));
    }
}

/// A core dump would hold them all. (Where the hard limit on dumps is 0, this shows nothing.)
#[test]
fn no_core_is_dumped() {
    let directory = tempfile::tempdir().unwrap();
    let script = "ulimit -c $(ulimit -H -c); exec \"$0\" target --json --listen 127.0.0.1:0";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_ringprobe")])
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "it listens");
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped(), "{status}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of it");
}
