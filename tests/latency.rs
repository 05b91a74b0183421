//! Whose latency it is: what happens to the agent is in `lag_us` and `agent_us`, and in no phase.
//!
//! The program runs as its users run it, against the test origin in this process, and is stopped in between as a busy
//! machine would stop it. What is compared are its own samples: those that the stops touched with those that they did
//! not.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ringprobe::sample::Flags;
use ringprobe::testing::origin::{Origin, OriginOptions};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

/// A directory of one test's own, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringprobe-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is the system's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `ringprobe run` with so many endpoints at `interval`, all of the same path.
fn run(
    directory: &Path,
    origin: SocketAddr,
    path: &str,
    count: u32,
    interval: &str,
    duration: &str,
) -> Child {
    let mut file = format!("[defaults]\ninterval = '{interval}'\n");
    for number in 0..count {
        writeln!(file, "[[endpoint]]\nname = 'e{number}'\nurl = 'http://{origin}{path}'").unwrap();
    }
    std::fs::write(directory.join("endpoints.toml"), file).unwrap();
    Command::new(env!("CARGO_BIN_EXE_ringprobe"))
        .current_dir(directory)
        .args([
            "run",
            "endpoints.toml",
            "--store",
            "sqlite:samples.db",
            "--cores",
            "1",
            "--duration",
            duration,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(program: &Child, signal: Signal) {
    kill_process(Pid::from_child(program), signal).unwrap();
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn an_agent_that_is_stopped_says_so_and_blames_nobody() {
    const STOP: Duration = Duration::from_millis(50);
    const STOPPED_US: i64 = 25_000;
    const DELAY_US: i64 = 20_000;
    let scratch = Scratch::new("stopped");
    let origin = Origin::start(OriginOptions::default()).unwrap();
    let mut program = run(&scratch.0, origin.addrs()[0], "/delay/20ms", 200, "500ms", "6s");
    thread::park_timeout(Duration::from_secs(2));
    for _ in 0..8 {
        signal(&program, Signal::STOP);
        thread::park_timeout(STOP);
        signal(&program, Signal::CONT);
        thread::park_timeout(5 * STOP);
    }
    assert!(program.wait().unwrap().success());

    let store = Connection::open(scratch.0.join("samples.db")).unwrap();
    let count = |query| store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(
        count("SELECT sum(due) FROM verdicts WHERE NOT whole_run"),
        count("SELECT count(*) FROM metrics"),
        "a run that is shorter than a minute is judged as one, too"
    );
    let mut rows = store.prepare("SELECT lag_us, agent_us, total_us, flags, outcome FROM metrics").unwrap();
    let rows = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .unwrap();
    let rows: Vec<(i64, i64, i64, i32, i64)> = rows.map(Result::unwrap).collect();
    assert!(rows.iter().all(|(.., outcome)| *outcome != 2), "nobody was down");
    let probed = || rows.iter().filter(|(.., outcome)| *outcome == 1);
    let touched: Vec<_> =
        probed().filter(|(lag_us, agent_us, ..)| *lag_us > STOPPED_US || *agent_us > STOPPED_US).collect();
    let started_late = touched.iter().filter(|(lag_us, ..)| *lag_us > STOPPED_US).count();
    let answered_late = touched.iter().filter(|(_, agent_us, ..)| *agent_us > STOPPED_US).count();
    assert!(started_late >= 16, "slots fell due in every stop: {started_late}");
    assert!(answered_late >= 8, "and answers came: {answered_late}");
    let tainted = |flags: i32| flags & Flags::TAINTED.0 != 0;
    assert!(touched.iter().all(|(.., flags, _)| tainted(*flags)), "each of them says so");
    let of_touched = median(touched.iter().map(|(_, _, total_us, ..)| *total_us).collect());
    let of_others = median(probed().map(|(_, _, total_us, ..)| *total_us).collect());
    assert!(of_others >= DELAY_US, "{of_others}");
    assert!(of_touched < of_others + STOPPED_US / 2, "{of_touched} µs when stopped, {of_others} µs in all");
}
