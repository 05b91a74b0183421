//! What the documents show is so: endpoint files parse, commands and their flags exist, every `--json` object has
//! the fields that are documented, no column or field of an endpoint is missing.
//!
//! The SQL that they show is run by `tests/store.rs`, in both stores.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

mod support {
    pub(crate) mod docs;
}

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ringprobe::endpoint::file;
use ringprobe::sample::Flags;
use ringprobe::testing::origin::{Origin, OriginOptions};
use serde_json::Value;
use tempfile::TempDir;

use support::docs::{blocks, root};

fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Standard output of the program, run in `directory` with an environment that names no store.
fn output(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringprobe"));
    for (name, _) in std::env::vars_os() {
        if name == "DATABASE_URL" || name.to_string_lossy().starts_with("RINGPROBE_") {
            command.env_remove(name);
        }
    }
    let output = command.args(arguments).current_dir(directory).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.stdout.is_empty(), "{arguments:?} printed nothing; {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn endpoint_files_parse() {
    for block in blocks("toml") {
        let endpoints = file::parse(&block.text, &block.place).unwrap_or_else(|error| panic!("{error}"));
        assert!(!endpoints.is_empty(), "{}", block.place);
    }
    let example = "examples/endpoints.toml";
    file::parse(&document(example), example).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_field_of_an_endpoint_is_documented() {
    let text = document("docs/endpoints.md");
    let full = document("tests/data/endpoint_file_full.toml");
    let keys = full.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    // Below [endpoint.tags] stand keys of a user's.
    for key in keys.filter(|key| !["team", "tenant"].contains(key)) {
        assert!(text.contains(&format!("| `{key}` |")), "docs/endpoints.md lacks {key}");
    }
}

#[test]
fn every_field_of_an_endpoint_is_shown_in_an_example() {
    let blocks = blocks("toml");
    let shown: Vec<&str> = blocks
        .iter()
        .filter(|block| block.place.starts_with("docs/endpoints.md"))
        .flat_map(|block| block.text.split([' ', '\n', '{', ',']))
        .collect();
    let full = document("tests/data/endpoint_file_full.toml");
    let keys = full.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    // A body's file would have to be there.
    for key in keys.filter(|key| !["body_file", "team", "tenant"].contains(key)) {
        let is_table = shown.contains(&format!("[endpoint.{key}]").as_str());
        assert!(is_table || shown.contains(&key), "no example in docs/endpoints.md has {key}");
    }
}

#[test]
fn every_column_and_flag_is_documented() {
    let directory = TempDir::new().unwrap();
    output(directory.path(), &["migrate", "--store", "sqlite:r.db"]);
    let connection = rusqlite::Connection::open(directory.path().join("r.db")).unwrap();
    let names = |sql: &str| {
        let mut statement = connection.prepare(sql).unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        names.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let text = document("docs/store.md");
    let words: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let tables = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'";
    let columns = "SELECT name FROM pragma_table_info('metrics')";
    let flags = Flags::NAMES.map(str::to_owned).into();
    for name in [names(tables), names(columns), flags].concat() {
        assert!(words.contains(name.as_str()), "docs/store.md lacks {name}");
    }
}

/// The words of a command line, up to its comment or to where its output goes.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().take_while(|word| !word.starts_with(['#', '>', '|'])).collect()
}

#[test]
fn commands_and_their_flags_exist() {
    const NESTED: [&str; 2] = ["endpoints", "pattern"];
    let directory = TempDir::new().unwrap();
    let mut seen = 0;
    for block in blocks("sh") {
        for line in block.text.lines() {
            let line = words(line);
            let command: Vec<&str> = line.iter().copied().skip_while(|word| word.contains('=')).collect();
            let Some((program, arguments)) = command.split_first() else { continue };
            if program.starts_with("scripts/") || program.starts_with("perf/") {
                assert!(root().join(program).is_file(), "{}: {program}", block.place);
            }
            if *program != "ringprobe" {
                continue;
            }
            let depth = if NESTED.contains(&arguments[0]) { 2 } else { 1 };
            let help = output(directory.path(), &[&arguments[..depth], &["--help"]].concat());
            for flag in arguments.iter().filter(|word| word.len() > 1 && word.starts_with('-')) {
                let is_flag = help.split([' ', ',', '\n']).any(|word| word == *flag);
                assert!(is_flag, "{}: {} has no {flag}", block.place, arguments[..depth].join(" "));
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} commands were found");
}

#[test]
fn every_command_and_variable_is_in_the_readme() {
    let directory = TempDir::new().unwrap();
    let readme = document("README.md");
    let help = output(directory.path(), &["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let is_listed =
            readme.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{command}")));
        assert!(is_listed, "README.md lacks {command}");
        let help = output(directory.path(), &[command, "--help"]);
        let parts = help.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        for variable in parts.filter(|word| word.starts_with("RINGPROBE_")) {
            assert!(readme.contains(&format!("`{variable}`")), "README.md lacks {variable}");
        }
    }
}

/// Fails if the two differ in anything but values: `null` may stand for a value, and an empty list for one that
/// is not.
fn same_shape(place: &str, shown: &Value, found: &Value) {
    match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(shown), keys(found), "{place}: the left is documented, the right printed");
            for (key, value) in shown {
                same_shape(&format!("{place}.{key}"), value, &found[key]);
            }
        }
        (Value::Array(shown), Value::Array(found)) => {
            if let (Some(shown), Some(found)) = (shown.first(), found.first()) {
                same_shape(&format!("{place}[0]"), shown, found);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (shown, found) => {
            let same = std::mem::discriminant(shown) == std::mem::discriminant(found);
            assert!(same, "{place}: documented as {shown}, printed as {found}");
        }
    }
}

#[test]
fn every_json_object_is_as_documented() {
    let mut shown = blocks("json");
    shown.retain(|block| block.place.starts_with("docs/json.md"));
    let check = |name: &str, printed: &str| {
        let at = shown.iter().position(|block| block.info == format!("json {name}"));
        let block = &shown[at.unwrap_or_else(|| panic!("docs/json.md shows no `{name}`"))];
        let parse =
            |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        same_shape(&format!("{}: {name}", block.place), &parse(&block.text), &parse(printed));
    };
    let directory = TempDir::new().unwrap();
    let run = |arguments: &[&str]| output(directory.path(), arguments);
    let origin = Origin::start(OriginOptions::default()).unwrap();
    let url = origin.url("/close/5");
    let endpoint = format!(
        "[[endpoint]]\nname = 'a'\nurl = '{url}'\ninterval = '100ms'\n\
         headers = {{ A = 'b' }}\ntags = {{ team = 'a' }}\n"
    );
    fs::write(directory.path().join("e.toml"), endpoint).unwrap();

    check("check", &run(&["check", &url, "--json"]));
    check("pattern test", &run(&["pattern", "test", "error.{1,200}code 1007", "e.toml", "--json"]));
    check("migrate", &run(&["migrate", "--json"]));
    check("endpoints import", &run(&["endpoints", "import", "e.toml", "--json"]));
    check("endpoints list", &run(&["endpoints", "list", "--json"]));
    check("endpoints export", &run(&["endpoints", "export", "-o", "out.toml", "--json"]));
    check("endpoints export", &run(&["endpoints", "generate", "-n", "2", "-o", "out.toml", "--json"]));
    check("run", &run(&["run", "e.toml", "--duration", "300ms", "--json"]));
    check("run", &run(&["bench", &url, "-c", "2", "--duration", "100ms", "--json"]));
    let accuracy = ["--accuracy", "-c", "4", "--loads", "5", "--duration", "100ms", "--json"];
    check("bench --accuracy", &run(&[&["bench"], &accuracy[..]].concat()));
    let ab = ["--ab", "-c 2", "-c 2 --no-stamps", "--rounds", "2", "--duration", "200ms", "--json"];
    check("bench --ab", &run(&[&["bench", &url], &ab[..]].concat()));
    check("doctor", &run(&["doctor", "--json"]));

    let held = ["target", "--listen", "127.0.0.1:0", "--hold", "1ms", "--duration", "10ms", "--json"];
    check("target --hold", run(&held).trim_end().split_once('\n').unwrap().1);
    let printed = run(&["target", "--listen", "127.0.0.1:0", "--duration", "10ms", "--json"]);
    let (first, last) = printed.trim_end().split_once('\n').unwrap();
    check("target", first);
    shown.retain(|block| !block.text.contains("listening"));
    let last_block =
        shown.iter().find(|block| block.info == "json target").expect("docs/json.md shows the second");
    let parse = |text: &str| serde_json::from_str(text).unwrap();
    same_shape("target", &parse(&last_block.text), &parse(last));
}
