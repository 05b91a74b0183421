//! House rules, as tests: what no compiler or linter checks, and what reviewers tire of saying.
//!
//! A rule that turns out wrong is changed here, with its reason, rather than worked around. Rules on the code
//! itself (no clocks in cores, no unwrap, no printing) are lints: see `Cargo.toml` and `clippy.toml`.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest line, in characters. rustfmt wraps code at 110; this is for what it leaves alone.
const LINE_CHARS_MAX: usize = 120;

/// A text file of the repository: its path from the root, and what it says.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_in(&self, directories: &[&str]) -> bool {
        directories.iter().any(|directory| self.path.starts_with(directory))
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its lines of code, numbered, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file, but for what is generated, recorded or test data.
fn files() -> Vec<File> {
    const SKIPPED: [&str; 7] =
        ["target", ".git", "perf/runs", "perf/floor/target", "tests/data", "fuzz/corpus", "fuzz/regressions"];
    let mut files = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in entries(&directory) {
            let path = entry.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            if SKIPPED.contains(&path.as_str()) || path.ends_with(".lock") {
                continue;
            }
            if entry.is_dir() {
                directories.push(entry);
            } else if let Ok(text) = fs::read_to_string(&entry) {
                files.push(File { path, text });
            }
        }
    }
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the walk found nothing");
    files
}

/// What a directory holds, sorted; nothing if it is not there.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.expect("a readable directory").path()).collect())
        .unwrap_or_default();
    entries.sort();
    entries
}

/// The names in a directory, without a suffix that all that are wanted have.
fn stems(directory: &str, suffix: &str) -> Vec<String> {
    entries(&root().join(directory))
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_suffix(suffix).map(str::to_owned))
        .collect()
}

/// A line up to its `//`. Good enough: a URL in a string is cut as well, and no rule looks there.
fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// Whether `word` stands in `line` by itself, and not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Fails with every breach of a rule at once.
fn none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

/// Lines of code in `src/`, outside `allowed`, that use the crate or keyword `word`.
fn uses(word: &str, allowed: &[&str]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| file.is_rust() && file.is_in(&["src/"]) && !file.is_in(allowed))
    {
        for (number, line) in file.code().filter(|(_, line)| has_word(line, word)) {
            breaches.push(format!("{}:{number}: {}", file.path, line.trim()));
        }
    }
    breaches
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent = files()
        .into_iter()
        .filter(|file| {
            file.is_rust() && file.is_in(&["src/", "tests/", "benches/", "perf/", "fuzz/", "examples/"])
        })
        .filter(|file| !file.text.starts_with("//! ") || file.text.lines().next() == Some("//! "))
        .map(|file| file.path)
        .collect();
    none("a file opens with //! and what it is for", silent);
}

#[test]
fn the_executor_stays_in_the_shard() {
    none("glommio belongs to shard/ and testing/", uses("glommio", &["src/shard/", "src/testing/"]));
}

#[test]
fn the_other_runtime_stays_off_the_probing_cores() {
    let allowed = ["src/writer/", "src/control/", "src/cli/"];
    none("tokio belongs to writer/, control/ and cli/", uses("tokio", &allowed));
}

#[test]
fn unsafe_code_stays_in_one_file() {
    none("unsafe code belongs to shard/ring.rs", uses("unsafe", &["src/shard/ring.rs"]));
}

#[test]
fn lines_fit_on_a_screen() {
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| !file.path.starts_with("LICENSE")) {
        for (index, line) in file.text.lines().enumerate() {
            let trimmed = line.trim_start();
            // Tables and lone words cannot be wrapped, links and string literals should not be.
            let unbreakable = trimmed.trim_start_matches("+ ").starts_with(['|', '"'])
                || trimmed.contains("://")
                || !trimmed.contains(' ');
            if LINE_CHARS_MAX < line.chars().count() && !unbreakable {
                breaches.push(format!("{}:{}", file.path, index + 1));
            }
        }
    }
    none("a line has at most 120 characters", breaches);
}

#[test]
fn nothing_is_left_for_later() {
    let mut breaches = Vec::new();
    for file in files() {
        for (index, line) in file.text.lines().enumerate() {
            if [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")]
                .iter()
                .any(|word| has_word(line, word))
            {
                breaches.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    none("do it, or write an issue", breaches);
}

#[test]
fn no_file_knows_one_machine() {
    let mut breaches = Vec::new();
    for file in files() {
        for (index, line) in file.text.lines().enumerate() {
            let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
            if homes.iter().any(|home| line.contains(home)) {
                breaches.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    none("no paths below somebody's home", breaches);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut breaches = Vec::new();
    // A reason holds for the dependencies that follow it without a blank line.
    let (mut listed, mut has_reason) = (false, false);
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            listed = section.trim_end_matches(']').ends_with("dependencies");
        }
        if line.is_empty() || line.starts_with('[') || line.starts_with("# ---") {
            has_reason = false;
        } else if line.starts_with('#') {
            has_reason = true;
        } else if listed && line.contains(" = ") && !has_reason {
            breaches.push(line.to_owned());
        }
    }
    none("a dependency stands below the reason for it", breaches);
}

#[test]
fn the_code_map_is_complete() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut names = Vec::new();
    names.extend(stems("tests", ".rs").into_iter().map(|name| format!("tests/{name}.rs")));
    names.extend(stems("benches", ".rs").into_iter().map(|name| format!("benches/{name}.rs")));
    for path in entries(&root().join("src")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        names.push(if path.is_dir() { format!("`{name}/`") } else { format!("`{name}`") });
    }
    names.retain(|name| name != "`lib.rs`" && !map.contains(name.as_str()));
    for file in files().iter().filter(|file| file.is_rust() && file.is_in(&["src/"])) {
        let name = file.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        if !["mod", "tests", "lib"].contains(&name) && !has_word(&map, name) {
            names.push(file.path.clone());
        }
    }
    none("ARCHITECTURE.md names every module, test and bench", names);
}

#[test]
fn every_bench_is_declared() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let undeclared = stems("benches", ".rs")
        .into_iter()
        .filter(|name| !manifest.contains(&format!("[[bench]]\nname = \"{name}\"\n")))
        .collect();
    none("a bench has its [[bench]] in Cargo.toml (autobenches is off)", undeclared);
}

#[test]
fn migrations_only_go_forward_and_both_stores_keep_step() {
    let versions = |store: &str| {
        let mut numbers = Vec::new();
        for name in stems(&format!("migrations/{store}"), ".sql") {
            let (number, words) = name.split_once('_').expect("NNNN_what_it_does.sql");
            assert!(number.len() == 4 && !words.is_empty(), "{store}/{name}: NNNN_what_it_does.sql");
            assert!(!words.ends_with("down") && !words.ends_with("rollback"), "{store}/{name}: forward only");
            numbers.push(number.parse::<usize>().expect("four digits"));
        }
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{store}: no gap, no number twice");
        numbers
    };
    assert_eq!(versions("postgres"), versions("sqlite"));
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| file.is_in(&["scripts/", ".ci/", "perf/", "deploy/"])) {
        let mode = fs::metadata(root().join(&file.path)).unwrap().permissions().mode();
        if file.text.starts_with("#!/") != (mode & 0o111 != 0) {
            breaches.push(file.path.clone());
        }
    }
    none("what starts with #! is executable, and nothing else is", breaches);
}

#[test]
fn the_helpers_of_this_file_see_words() {
    assert!(has_word("use tokio::net;", "tokio") && has_word("tokio", "tokio"));
    assert!(!has_word("tokio_postgres::Client", "tokio") && !has_word("nottokio", "tokio"));
    assert_eq!(without_comment("let a = 1; // tokio"), "let a = 1; ");
    assert_eq!(without_comment("/// tokio"), "");
}
