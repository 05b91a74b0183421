//! Every seed of the fuzzer, and every input that once broke something, through the checks of `fuzz/`: what it has
//! found stays found where nobody fuzzes.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::fs;
use std::path::{Path, PathBuf};

/// A fuzz target: its name, and what it calls.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("response", ringprobe::http::invariants::check),
    ("chunked", ringprobe::http::invariants::check_chunked),
    ("coding", ringprobe::http::invariants::check_coding),
    ("dns", ringprobe::dns::invariants::check),
    ("endpoint_file", ringprobe::endpoint::invariants::check),
    ("pattern", ringprobe::matcher::invariants::check),
];

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
    fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Names the input where a check panics.
struct Name<'a>(&'a str, &'a Path);

impl Drop for Name<'_> {
    #[expect(clippy::print_stderr, reason = "what is not named cannot be mended")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.0, self.1.display());
        }
    }
}

#[test]
fn every_target_is_here() {
    let mut sources: Vec<_> = files("fuzz_targets");
    sources.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let stems: Vec<_> = sources.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(stems, names);
}

#[test]
fn seeds_and_regressions_hold() {
    // Whichever target an input broke, it must break none.
    let regressions = files("regressions");
    for (name, check) in TARGETS {
        let seeds = files(&format!("corpus/{name}"));
        assert!(!seeds.is_empty(), "{name} has seeds");
        for path in seeds.iter().chain(&regressions) {
            let _name = Name(name, path);
            check(&fs::read(path).unwrap());
        }
    }
}
