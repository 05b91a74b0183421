//! The program as a person runs it: bad input gets one line and status 2 and leaves nothing behind, and what
//! goes into a store comes out of it again.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Runs the program in `directory`, with an environment that names no store.
fn ringprobe(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringprobe"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("DATABASE_URL")
        .env_remove("RINGPROBE_STORE")
        .env_remove("RINGPROBE_LOG")
        .env_remove("RINGPROBE_RETENTION")
        .env_remove("RINGPROBE_ORIGIN_INFLIGHT")
        .env_remove("RINGPROBE_ORIGIN_RATE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Standard output of a run that must succeed.
fn done(directory: &Path, arguments: &[&str]) -> String {
    let output = ringprobe(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// The one line that refuses the input.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = ringprobe(directory, arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
    let line = stderr.trim_end().strip_prefix("ringprobe: ");
    line.unwrap_or_else(|| panic!("{arguments:?}: {stderr}")).to_owned()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// `run FILE` and `endpoints import FILE` refuse a file with the same line, and make no store.
fn check_file(contents: &[u8], expected: &str) {
    for command in [&["run"][..], &["endpoints", "import"]] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("e.toml"), contents).unwrap();
        let arguments = [command, &["e.toml", "--store", "sqlite:r.db"]].concat();
        assert_eq!(refused(directory.path(), &arguments), expected);
        assert_eq!(names_in(directory.path()), ["e.toml"], "{arguments:?} left something behind");
    }
}

fn endpoint(field: &str) -> String {
    format!("[[endpoint]]\nname = \"shop\"\nurl = \"http://a/\"\n{field}\n")
}

fn endpoint_at(url: &str) -> String {
    format!("[[endpoint]]\nname = \"shop\"\nurl = \"{url}\"\n")
}

#[test]
fn a_bad_file_is_refused_with_one_line_and_no_store() {
    let check = |contents: &str, expected: &str| check_file(contents.as_bytes(), expected);
    check(
        &endpoint("intervall = \"5s\""),
        "e.toml:4: endpoint \"shop\": unknown key `intervall`; did you mean `interval`?",
    );
    check(
        &endpoint("interval = \"0s\""),
        "e.toml:4: endpoint \"shop\": interval: 0 s is shorter than 100 ms",
    );
    check(
        &endpoint("interval = 5"),
        "e.toml:4: endpoint \"shop\": interval: 5 has no unit; write \"5s\" if seconds are meant",
    );
    check(
        &endpoint_at("shop.example"),
        "e.toml:3: endpoint \"shop\": url: has no scheme; write it with http:// or https:// in front",
    );
    check(&endpoint_at("http://a:99999/"), "e.toml:3: endpoint \"shop\": url: invalid port number");
    check(
        &endpoint_at("http://root:hunter2@a/"),
        "e.toml:3: endpoint \"shop\": url: contains a user name or password, and a URL is stored and shown as it \
         is; use basic_auth, whose password is a reference such as \"env:NAME\"",
    );
    check(
        &endpoint("bearer = \"hunter2\""),
        "e.toml:4: endpoint \"shop\": bearer: is no reference, and a secret itself is not accepted here; write \
         \"env:NAME\", \"file:PATH\" or \"cred:NAME\"",
    );
    check(
        &endpoint("body_file = \"none.json\""),
        "e.toml:4: endpoint \"shop\": body_file: \"none.json\" cannot be read: No such file or directory (os error 2)",
    );
    check(
        &endpoint("body_file = \"/dev/zero\""),
        "e.toml:4: endpoint \"shop\": body_file: \"/dev/zero\" is not a file",
    );
    check(
        &(endpoint("") + "\n" + &endpoint("")),
        "e.toml:7: endpoint \"shop\": name: is already used on line 2",
    );
    check("[[endpoint]\n", "e.toml:1: unclosed array table, expected `]`");
    check("", "e.toml: no [[endpoint]] in it");
    check_file(b"[[endpoint]]\nname = \"\xff\"\n", "e.toml:2: is not UTF-8");
}

/// A pattern that cannot be compiled was stored before it was looked at, and refused every later run.
#[test]
fn a_bad_pattern_is_refused_with_its_line_and_no_store() {
    let check = |contents: &str, expected: &str| check_file(contents.as_bytes(), expected);
    let reason =
        "an atomic group; write `(?:…)` (matching never backtracks here), or exclude what must not follow";
    check(
        &(endpoint("body_match = [\"in stock\", \"in (?>stock)\"]") + "interval = \"7s\""),
        &format!("e.toml:4: endpoint \"shop\": body_match[1], byte 3: {reason}"),
    );
    check(
        &endpoint("expect_headers = { Server = \"(?>n)\" }"),
        &format!("e.toml:4: endpoint \"shop\": expect_headers.Server, byte 0: {reason}"),
    );
    // Of the defaults once, where they stand; the other problem is the interval.
    let two = endpoint("") + &endpoint("interval = \"0s\"").replace("shop", "cart");
    check(
        &("[defaults]\nbody_forbid = [\"(?>n)\"]\n".to_owned()
            + &two
            + &endpoint("").replace("shop", "card")),
        &format!("e.toml:2: [defaults]: body_forbid[0], byte 0: {reason} (and 1 more problem)"),
    );
    check(
        &endpoint("enabled = false\nbody_match = [\"(?>n)\"]"),
        &format!("e.toml:5: endpoint \"shop\": body_match[0], byte 0: {reason}"),
    );
}

/// An endpoint without its secret was stored, and every later run refused.
#[test]
fn what_this_machine_lacks_is_refused_by_run_and_not_by_import() {
    let run = ["run", "e.toml", "--store", "sqlite:r.db", "--duration", "100ms"];
    for (field, reason) in [
        ("bearer = \"env:RINGPROBE_NONE\"", "bearer: env:RINGPROBE_NONE is not set"),
        (
            "secret_headers = { X-Key = \"file:none\" }",
            "secret_headers.X-Key: file:none cannot be read: No such file or directory (os error 2)",
        ),
        (
            "tls = { ca_file = \"none.pem\" }",
            "tls: ca_file: none.pem: No such file or directory (os error 2)",
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let directory = directory.path();
        fs::write(directory.join("e.toml"), endpoint("").replace("shop", "cart") + &endpoint(field)).unwrap();
        assert_eq!(refused(directory, &run), format!("e.toml:8: endpoint \"shop\": {reason}"));
        assert_eq!(names_in(directory), ["e.toml"], "{field} left something behind");
        assert_eq!(refused(directory, &["check", "-f", "e.toml"]), refused(directory, &run));
        done(directory, &["endpoints", "import", "e.toml", "--store", "sqlite:r.db"]);
    }
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    // Nobody needs the secret of what is not probed.
    let disabled = endpoint("enabled = false\nbearer = \"env:RINGPROBE_NONE\"");
    fs::write(
        directory.join("e.toml"),
        endpoint_at("http://127.0.0.1:1/").replace("shop", "cart") + &disabled,
    )
    .unwrap();
    done(directory, &run);
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    for command in [&["run"][..], &["endpoints", "import"]] {
        let directory = TempDir::new().unwrap();
        let line =
            |file: &str| refused(directory.path(), &[command, &[file, "--store", "sqlite:r.db"]].concat());
        assert_eq!(line("none.toml"), "none.toml: No such file or directory (os error 2)");
        assert_eq!(line("."), ".: Is a directory (os error 21)");
        assert!(names_in(directory.path()).is_empty());
    }
}

#[test]
fn a_wrong_store_is_refused_before_anything_else() {
    for command in [&["run", "e.toml"][..], &["endpoints", "import", "e.toml"], &["endpoints", "list"]] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("e.toml"), endpoint("")).unwrap();
        let line = |store: &str| refused(directory.path(), &[command, &["--store", store]].concat());
        for (store, field) in [
            ("r.db", "no scheme"),
            ("sqlite:", "path of the file is missing"),
            ("mysql://root:hunter2@h/d", "unknown scheme"),
            ("postgres://root:hunter2@127.0.0.1:x/d", "bad PostgreSQL URL"),
            ("postgres://127.0.0.1/d?sslmode=require", "not supported yet"),
        ] {
            let line = line(store);
            assert!(line.starts_with("--store: store") && line.contains(field), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
        // Nobody listens on port 1, and this directory is not there.
        for store in ["postgres://u:hunter2@127.0.0.1:1/d", "sqlite:none/r.db"] {
            let line = line(store);
            assert!(!line.contains("hunter2"), "{line}");
        }
        assert_eq!(names_in(directory.path()), ["e.toml"]);
    }
}

#[test]
fn a_wrong_retention_is_refused_and_removes_nothing() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("e.toml"), endpoint("")).unwrap();
    for (retention, reason) in [
        ("7", "\"7\" has no unit; write \"7s\" if seconds are meant"),
        ("59m", "59 m is shorter than 1 h"),
        ("forever", "\"forever\" is not a duration such as \"500ms\", \"30s\" or \"5m\""),
    ] {
        let run = ["run", "e.toml", "--store", "sqlite:r.db", "--retention", retention];
        assert_eq!(refused(directory.path(), &run), format!("--retention: {reason}"));
    }
    assert_eq!(names_in(directory.path()), ["e.toml"]);
}

#[test]
fn samples_are_removed_when_they_are_older_than_the_retention() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    fs::write(directory.join("e.toml"), endpoint_at("http://127.0.0.1:1/")).unwrap();
    done(directory, &["endpoints", "import", "e.toml", "--store", "sqlite:r.db"]);
    let store = rusqlite::Connection::open(directory.join("r.db")).unwrap();
    let old = || store.query_row("SELECT count(*) FROM metrics WHERE lag_us = 77", [], |row| row.get(0));
    let now_us = ringprobe::clock::Wall::now().0;
    for days in [1, 3, 9] {
        let insert = "INSERT INTO metrics \
                      SELECT ?, 0, 0, 1, 77, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 3, 202, 0, -1, 0, 0, 0, 0, -1";
        store.execute(insert, [now_us - days * 86_400_000_000]).unwrap();
    }
    let run = ["run", "--store", "sqlite:r.db", "--duration", "300ms"];
    for (retention, left) in [(&["--retention", "never"][..], 3), (&[], 2), (&["--retention", "2d"], 1)] {
        done(directory, &[&run[..], retention].concat());
        assert_eq!(old(), Ok(left), "{retention:?}");
    }
}

#[test]
fn a_wrong_recipe_is_refused_and_writes_nothing() {
    let directory = TempDir::new().unwrap();
    let generate = ["endpoints", "generate", "--count", "3", "-o", "out.toml"];
    let line = |more: &[&str]| refused(directory.path(), &[&generate[..], more].concat());
    assert_eq!(line(&["--interval", "0s"]), "--interval: 0 s is shorter than 100 ms");
    assert_eq!(line(&["--base", "ftp://a"]), "--base: scheme \"ftp\" cannot be probed, only http and https");
    assert_eq!(line(&["--path", "delay:1"]), "--path: does not begin with a slash");
    assert_eq!(line(&["--connection", "new"]), "--connection: \"new\" is neither \"fresh\" nor \"reuse\"");
    assert_eq!(
        line(&["--timeout", "10"]),
        "--timeout: \"10\" has no unit; write \"10s\" if seconds are meant"
    );
    assert_eq!(
        refused(directory.path(), &["endpoints", "generate", "--count", "3", "--json"]),
        "--json: standard output has the endpoints already; add -o FILE"
    );
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn what_is_generated_is_the_same_every_time() {
    let directory = TempDir::new().unwrap();
    let generate = ["endpoints", "generate", "--count", "50", "--preset", "ancestor"];
    let first = done(directory.path(), &generate);
    assert_eq!(first.matches("[[endpoint]]").count(), 50);
    assert_eq!(first, done(directory.path(), &generate));
    assert_ne!(first, done(directory.path(), &[&generate[..], &["--seed", "1"]].concat()));
    let line = done(directory.path(), &[&generate[..], &["-o", "out.toml", "--json"]].concat());
    assert_eq!(line, "{\"endpoints\":50,\"file\":\"out.toml\"}\n");
    assert_eq!(fs::read_to_string(directory.path().join("out.toml")).unwrap(), first);
    assert_eq!(names_in(directory.path()), ["out.toml"]);
}

#[test]
fn what_is_imported_is_listed_and_exported() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let base = "http://127.0.0.[1-4]:[8080-8087]";
    let generate = ["endpoints", "generate", "--count", "1000", "--preset", "ancestor", "--base", base];
    done(directory, &[&generate[..], &["-o", "in.toml"]].concat());

    let import = ["endpoints", "import", "in.toml", "--store", "sqlite:r.db"];
    assert_eq!(done(directory, &import), "1000 new, 0 changed, 0 as they were\n");
    assert_eq!(done(directory, &import), "0 new, 0 changed, 1000 as they were\n");
    done(directory, &[&generate[..], &["--timeout", "2s", "-o", "changed.toml"]].concat());
    let change = ["endpoints", "import", "changed.toml", "--store", "sqlite:r.db", "--json"];
    assert_eq!(done(directory, &change), "{\"inserted\":0,\"updated\":1000,\"unchanged\":0}\n");
    assert_eq!(done(directory, &import), "0 new, 1000 changed, 0 as they were\n");

    let table = done(directory, &["endpoints", "list", "--store", "sqlite:r.db"]);
    assert_eq!(table.lines().count(), 1_001, "a head, and a line for each");
    assert!(table.lines().nth(1).unwrap().contains("gen-000001"), "in order of id");
    let json = done(directory, &["endpoints", "list", "--store", "sqlite:r.db", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["endpoints"].as_array().unwrap().len(), 1_000);

    done(directory, &["endpoints", "export", "--store", "sqlite:r.db", "-o", "out.toml"]);
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    assert!(read("in.toml") == read("out.toml"), "byte for byte");
    assert!(done(directory, &["endpoints", "export", "--store", "sqlite:r.db"]) == read("in.toml"));
}

#[test]
fn all_fields_survive_the_store() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let full = include_str!("data/endpoint_file_full.toml");
    fs::create_dir(directory.join("in")).unwrap();
    fs::write(directory.join("in/full.toml"), full).unwrap();
    // Relative to the file, not to where the program runs.
    fs::write(directory.join("in/ping.bin"), "from\0a file").unwrap();
    let export = |store: &str| done(directory, &["endpoints", "export", "--store", store]);
    done(directory, &["endpoints", "import", "in/full.toml", "--store", "sqlite:one.db"]);
    let first = export("sqlite:one.db");
    let keys = full.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    // A file's contents come out in their place, "up" is the default, and what stands in a table does not begin a line.
    let tables = [
        "client_cert",
        "client_key",
        "server_name",
        "insecure",
        "max_version",
        "resumption",
        "team",
        "tenant",
    ];
    for key in keys.filter(|key| !["body_file", "expect"].contains(key) && !tables.contains(key)) {
        assert!(first.contains(&format!("\n{key} = ")), "{key} is missing from\n{first}");
    }
    assert!(first.contains("body = \"from\\u0000a file\""), "{first}");
    fs::write(directory.join("again.toml"), &first).unwrap();
    done(directory, &["endpoints", "import", "again.toml", "--store", "sqlite:two.db"]);
    assert_eq!(export("sqlite:two.db"), first);
}

/// The environment holds the secret that a reference names, and so does a file: no output of the program has it.
#[test]
fn what_a_reference_names_is_shown_nowhere() {
    const CANARY: &str = "canary-2c9e";
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    fs::write(directory.join("key"), CANARY).unwrap();
    let fields = "bearer = \"env:PROBE_TOKEN\"\nsecret_headers = { X-Key = \"file:key\" }";
    fs::write(directory.join("e.toml"), endpoint(fields)).unwrap();
    let mut shown = Vec::new();
    for command in [
        &["endpoints", "import", "e.toml", "--json"][..],
        &["endpoints", "list"],
        &["endpoints", "list", "--json"],
        &["endpoints", "export"],
    ] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ringprobe"));
        program
            .args(command)
            .current_dir(directory)
            .env("PROBE_TOKEN", CANARY)
            .env("RINGPROBE_STORE", "sqlite:r.db");
        let output = program.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        shown.extend([output.stdout, output.stderr]);
    }
    shown.push(fs::read(directory.join("r.db")).unwrap());
    let all = String::from_utf8_lossy(&shown.concat()).into_owned();
    assert!(all.contains("env:PROBE_TOKEN") && all.contains("file:key") && !all.contains(CANARY));
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking() {
    let directory = TempDir::new().unwrap();
    for command in [["endpoints", "list"], ["endpoints", "export"]] {
        let line = refused(directory.path(), &[&command[..], &["--store", "sqlite:r.db"]].concat());
        assert_eq!(line, "sqlite:r.db: there is no such file");
    }
    assert!(names_in(directory.path()).is_empty());
}

/// `check` and paths repeated what they were given as it was: two lines, or whatever the terminal makes of it.
#[test]
fn a_line_break_in_what_is_refused_does_not_break_the_line() {
    let directory = TempDir::new().unwrap();
    assert!(refused(directory.path(), &["check", "http://a/\n"]).starts_with("http://a/\\n: url: "));
    assert!(
        refused(directory.path(), &["run", "a\nb\u{1b}[31m.toml"]).starts_with("a\\nb\\u{1b}[31m.toml: ")
    );
}

/// `eprintln!` panicked, and status 101 told nobody that the input was bad.
#[test]
fn exit_status_stands_when_standard_error_is_full() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringprobe"));
    let status = command.args(["run", "/nonexistent.toml"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_run_of_no_time_is_refused() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("e.toml"), endpoint("")).unwrap();
    for command in [&["run", "e.toml", "--store", "sqlite:r.db"][..], &["bench", "http://127.0.0.1:1/"]] {
        let line = refused(directory.path(), &[command, &["--duration", "0s"]].concat());
        assert_eq!(line, "--duration: 0s is no time at all");
    }
    assert_eq!(names_in(directory.path()), ["e.toml"]);
}

#[test]
fn a_field_that_lost_its_quotes_to_the_shell_is_shown_with_them() {
    let directory = TempDir::new().unwrap();
    let line = |set: &str| {
        refused(directory.path(), &["check", "http://127.0.0.1:1/", "--set", "retries=1", "--set", set])
    };
    let hint = |quoted: &str| format!("--set: text has quotes, which the shell takes away; write '{quoted}'");
    assert_eq!(line("interval=5s"), hint("interval=\"5s\""));
    assert_eq!(line("expect=down"), hint("expect=\"down\""));
    assert_eq!(line("tls.ca_file=/a/b.pem"), hint("tls.ca_file=\"/a/b.pem\""));
    assert_eq!(
        line("interval=5"),
        "--set:2: fields: interval: 5 has no unit; write \"5s\" if seconds are meant"
    );
    assert!(line("redirects=none").starts_with("--set:2: "), "no quotes make a number of it");
}

/// The first went on long past its duration; the second was aborted by the allocator.
#[test]
fn a_benchmark_beyond_all_bounds_is_refused() {
    let directory = TempDir::new().unwrap();
    let bench =
        |flag: &str| refused(directory.path(), &["bench", "-d", "100ms", flag, "http://127.0.0.1:1/"]);
    assert_eq!(bench("--rate=1e300").split(':').next(), Some("--rate"));
    assert_eq!(bench("--connections=4294967295"), "--connections: 4294967295 are more than 1048576");
}

/// An address that is nobody's (RFC 5737), so that it does not matter whether there is a network.
const NOBODYS: &str = "192.0.2.1";

#[test]
fn what_one_address_may_not_bear_is_missed() {
    let directory = TempDir::new().unwrap();
    let endpoints: String = (0..5)
        .map(|n| {
            format!("[[endpoint]]\nname = '{n}'\nurl = 'http://{NOBODYS}:800{n}/'\ninterval = '400ms'\ntimeout = '50ms'\n")
        })
        .collect();
    fs::write(directory.path().join("e.toml"), endpoints).unwrap();
    let missed = |flags: &[&str]| {
        let run =
            ["run", "e.toml", "--store", "sqlite:r.db", "--duration", "800ms", "--cores", "1", "--json"];
        let summary: serde_json::Value =
            serde_json::from_str(&done(directory.path(), &[&run[..], flags].concat())).unwrap();
        let due = summary["due"].as_u64().unwrap();
        assert!((9..=11).contains(&due), "{summary}");
        // A busy machine may miss one for another reason.
        (summary["misses"]["origin_limit"].as_u64().unwrap_or(0), due, summary["reasons"].to_string())
    };
    let (missed_of_one, due, reasons) = missed(&["--origin-rate", "1"]);
    assert_eq!(missed_of_one, due - 1, "one is started in a second: {reasons}");
    assert!(reasons.contains("origin_limit"), "{reasons}");
    for lifted in ["off", "0", "1000"] {
        assert_eq!(missed(&["--origin-rate", lifted]).0, 0, "{lifted}");
    }
    let refusal = refused(directory.path(), &["run", "e.toml", "--origin-inflight", "many"]);
    assert_eq!(refusal, "--origin-inflight: \"many\" is neither a whole number nor `off`");
}

/// `budget` was status 1, as if the pattern were not there; a body of 11 MiB was refused; 3 bytes had a speed.
#[test]
fn a_pattern_is_tried_on_a_body_of_any_length() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("body");
    let test = |pattern: &str| {
        let output = ringprobe(directory.path(), &["pattern", "test", pattern, "body", "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), said)
    };
    fs::write(&file, "abc").unwrap();
    let (status, said) = test("b");
    assert_eq!(
        (status, &said["verdict"], &said["mb_per_s"]),
        (Some(0), &"matched".into(), &None::<u8>.into())
    );
    assert_eq!(test("d").0, Some(1));
    assert_eq!(ringprobe(directory.path(), &["pattern", "test", "(?>b)", "body"]).status.code(), Some(2));
    // What nearly begins everywhere needs a new state for every byte.
    let mut random = 1_u64;
    let unlucky = (0..1_000_000).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"aexz"[(random >> 60) as usize & 3]
    });
    fs::write(&file, unlucky.collect::<Vec<_>>()).unwrap();
    let (status, said) = test("(?:a|e)[^\\n]{40}zq");
    assert_eq!((status, &said["verdict"]), (Some(3), &"budget".into()));
    // Sparse, and longer than any default.
    fs::File::create(&file).unwrap().set_len(11 << 20).unwrap();
    let (status, said) = test("d");
    assert_eq!((status, &said["body_bytes"]), (Some(1), &(11 << 20).into()));
    assert!(said["mb_per_s"].as_f64() > Some(1.0), "{said}");
    fs::File::create(&file).unwrap().set_len((1 << 30) + 1).unwrap();
    let line = refused(directory.path(), &["pattern", "test", "^d", "body"]);
    assert_eq!(line, "body: is longer than 1GiB, the largest body_limit");
}
