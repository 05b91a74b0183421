//! Measured latency against the truth, and two configurations against each other: the program over real sockets.
//!
//! What is asserted is what must hold on the busiest machine: no figure is judged by the clock. How small errors are,
//! `perf/accuracy` measures.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::process::{Command, Stdio};

use ringprobe::testing::origin::{Origin, OriginOptions};
use serde_json::Value;

/// Runs `ringprobe bench`: its exit status, its JSON object if it printed one, and what it said.
fn bench(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringprobe"));
    let output = command.arg("bench").args(arguments).arg("--json").stdin(Stdio::null()).output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), found, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn number(object: &Value, pointer: &str) -> f64 {
    object.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {object}"))
}

#[test]
fn every_probe_is_compared_and_no_error_is_negative() {
    for more in [&["--hold", "5ms"][..], &["--fresh"], &["--fresh", "--hold", "1ms"]] {
        let common = ["--accuracy", "-c", "8", "--loads", "20,40", "--duration", "300ms"];
        let (status, report, said) = bench(&[&common, more].concat());
        assert_eq!(status, Some(0), "{said}");
        let loads = report["loads"].as_array().unwrap();
        assert_eq!(loads.len(), 2);
        for load in loads {
            assert!(number(load, "/compared") > 0.0 && number(load, "/unmatched") == 0.0, "{load}");
            assert!(number(load, "/true_us/p50") >= number(&report, "/hold_us"), "{load}");
            // A request arrives after it was sent, and its answer after it departed; two clocks are read for that, and
            // phases are whole microseconds.
            assert!(number(load, "/error_us/p50") > -2.0, "{more:?}: {load}");
            assert!(number(load, "/user_error_us/p50") > number(load, "/error_us/p50") - 2.0, "{load}");
            let connects = !load["connect_us"].is_null();
            assert_eq!(connects, more.contains(&"--fresh"), "{load}");
        }
    }
}

/// One interval in twenty leaves out the truth, so one figure may well be said to differ: not all of them, three times.
#[test]
fn a_configuration_does_not_differ_from_itself() {
    let origin = Origin::start(OriginOptions::default()).unwrap();
    let url = origin.url("/bytes/16");
    let differs = |_| {
        let ab = ["--ab", "--connections 4", "-c 4", "--rounds", "4", "--duration", "800ms"];
        let (status, report, said) = bench(&[&[url.as_str()], &ab[..]].concat());
        assert_eq!(status, Some(0), "{said}");
        let differences = report["differences"].as_array().unwrap();
        assert_eq!(differences.len(), 5, "{report}");
        for found in differences {
            let (low, high) = (number(found, "/low"), number(found, "/high"));
            let difference = number(found, "/difference");
            assert!(low <= difference && difference <= high, "{found}");
            assert_eq!(found["differs"].as_bool().unwrap(), low > 0.0 || high < 0.0, "{found}");
        }
        differences.iter().all(|found| found["differs"].as_bool().unwrap())
    };
    assert!(!(0..3).all(differs), "A differs from A in everything");
}

#[test]
fn bad_input_is_named() {
    for (arguments, word) in [
        (&["--accuracy", "--hold", "1s"][..], "--hold"),
        (&["--accuracy", "--loads", "0"], "--loads"),
        (&["--accuracy", "http://127.0.0.1/"], "--accuracy"),
        (&["--accuracy", "-c", "0"], "--connections"),
        (&["--hold", "1ms", "http://127.0.0.1/"], "--hold"),
        (&["--hold", "1ms"], "URL"),
        (&["http://127.0.0.1/", "--ab", "-c 2", "--wrong"], "--wrong"),
        (&["http://127.0.0.1/", "--ab", "-c 2", "-c 0"], "--connections"),
        (&["http://127.0.0.1/", "--ab", "-c 2", "-c 2", "--rounds", "1"], "--rounds"),
        (&["http://127.0.0.1/", "--ab", "-c 2", "-c 2", "--duration", "1ms"], "--duration"),
        (&["http://127.0.0.1/", "--ab", "-c 2", "-c 2", "--fresh"], "--fresh"),
        (&["--ab", "-c 2", "-c 2"], "URL"),
    ] {
        let (status, _, said) = bench(arguments);
        assert!(status == Some(2) && said.contains(word), "{arguments:?}: {status:?}: {said}");
    }
}
