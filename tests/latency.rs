//! Whose latency it is: what happens to the agent is in `lag_us` and `agent_us`, and in no phase.
//!
//! The program runs as its users run it, against the test origin in this process, and is stopped in between as a busy
//! machine would stop it. What is compared are its own samples: those that the stops touched with those that they did
//! not.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// `ringprobe run` with so many endpoints, all of the same path and with these `defaults`.
fn run(
    directory: &Path,
    origin: SocketAddr,
    path: &str,
    count: u32,
    defaults: &str,
    duration: &str,
) -> Child {
    let mut file = format!("[defaults]\n{defaults}\n");
    for number in 0..count {
        file += &format!("[[endpoint]]\nname = 'e{number}'\nurl = 'http://{origin}{path}'\n");
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
    let mut program = run(&scratch.0, origin.addrs()[0], "/delay/20ms", 200, "interval = '500ms'", "6s");
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

/// An origin that answers at once, and says more while the prober is stopped: the kernel then merges it with the
/// answer, under the later stamp.
#[test]
fn what_follows_an_answer_fails_nobody_while_the_agent_is_stopped() {
    const ENDPOINTS: usize = 200;
    const STOP: Duration = Duration::from_millis(300);
    const STOPPED_US: i64 = 200_000;
    for follows in [&b"what nobody asked for"[..], b""] {
        let scratch = Scratch::new(if follows.is_empty() { "closed" } else { "followed" });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let is_stopped = Arc::clone(&is_stopped);
                thread::spawn(move || answer(connection, follows, &is_stopped));
            }
        });
        let mut program = run(
            &scratch.0,
            origin,
            "/",
            u32::try_from(ENDPOINTS).unwrap(),
            "interval = '1s'\ntimeout = '200ms'",
            "5s",
        );
        thread::park_timeout(Duration::from_millis(1_500));
        for _ in 0..3 {
            signal(&program, Signal::STOP);
            stopped.store(true, Ordering::SeqCst);
            thread::park_timeout(STOP);
            stopped.store(false, Ordering::SeqCst);
            thread::park_timeout(Duration::from_millis(20));
            signal(&program, Signal::CONT);
            thread::park_timeout(2 * STOP);
        }
        assert!(program.wait().unwrap().success());

        let store = Connection::open(scratch.0.join("samples.db")).unwrap();
        let mut rows =
            store.prepare("SELECT agent_us, lag_us, total_us, flags, outcome FROM metrics").unwrap();
        let rows =
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
        let rows: Vec<(i64, i64, i64, i32, i64)> = rows.unwrap().map(Result::unwrap).collect();
        assert!(rows.len() >= 4 * ENDPOINTS, "{}", rows.len());
        let down: Vec<_> = rows.iter().filter(|(.., outcome)| *outcome == 2).collect();
        assert!(down.is_empty(), "nobody was down: {down:?}");
        let waited = rows.iter().filter(|(agent_us, ..)| *agent_us > STOPPED_US).count();
        assert!(waited > 0, "answers came in a stop");
        // The origin takes 30 ms; what is more is our doing, and is said to be.
        let honest = |(agent_us, _, total_us, flags, _): &(i64, i64, i64, i32, i64)| {
            *total_us < 100_000 || *agent_us > 100_000 && flags & Flags::TAINTED.0 != 0
        };
        let dishonest: Vec<_> = rows.iter().filter(|row| !honest(row)).collect();
        assert!(dishonest.is_empty(), "{dishonest:?}");
    }
}

/// Answers after 30 ms, and says `follows`, or closes, when the prober is about to go on; when it is not stopped, soon.
fn answer(mut connection: TcpStream, follows: &[u8], is_stopped: &AtomicBool) {
    let mut request = [0; 1_024];
    // Who is gone does not need an answer.
    let _ = connection.read(&mut request);
    thread::park_timeout(Duration::from_millis(30));
    let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    loop {
        thread::park_timeout(Duration::from_millis(5));
        if !is_stopped.load(Ordering::SeqCst) {
            break;
        }
    }
    let _ = connection.write_all(follows);
}
