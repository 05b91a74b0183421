//! `ringprobe doctor`: can this machine run the prober, and if not, which command mends it.
//!
//! Gathers facts, and prints what [`mod@findings`] makes of them. Changes nothing but this process's own limit of
//! open files, as `run` does; least of all the store, of which not even an empty file is left behind.
//!
//! Exit status: 0 if all is well or merely could be better, 1 if anything fails.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use self::findings::{Facts, Finding, Limit, Status, StoreFacts, StoreState, findings, verdict};
use super::Error;
use super::limits::{raise_nofile, read_number};
use super::store::StoreArguments;
use crate::control::cgroup::CpuGroup;
use crate::writer::{Store, StoreError, StoreUrl, block_on};

mod findings;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let store_url = arguments.store.url()?;
    let state = block_on(store_state(&store_url)).map_err(Error::failed)?;
    let findings = findings(&gather(StoreFacts { name: store_url.to_string(), state }));
    let report = Report { verdict: verdict(&findings), checks: findings };
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).map_err(Error::failed)? + "\n"
    } else {
        report.for_people()
    };
    io::stdout().lock().write_all(text.as_bytes()).map_err(Error::failed)?;
    Ok(match report.verdict {
        Status::Ok | Status::Warn => ExitCode::SUCCESS,
        Status::Fail => ExitCode::FAILURE,
    })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// The worst status.
    verdict: Status,
    /// Everything that was looked at.
    checks: Vec<Finding>,
}

impl Report {
    /// One line per check, and one below it for what mends it.
    fn for_people(&self) -> String {
        let mut text = String::new();
        for Finding { check, status, detail, remedy } in &self.checks {
            let status = match status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            text += &format!("{status:<5} {check:<12} {detail}\n");
            if let Some(remedy) = remedy {
                text += &format!("{:<5} {:<12} fix: {remedy}\n", "", "");
            }
        }
        text
    }
}

/// Asks the machine.
fn gather(store: StoreFacts) -> Facts {
    let nofile = raise_nofile();
    let memlock = getrlimit(Resource::Memlock);
    Facts {
        kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
        ring: try_ring(),
        io_uring_disabled: read_number("/proc/sys/kernel/io_uring_disabled"),
        seccomp_mode: seccomp_mode(),
        memlock: (Limit(memlock.current), Limit(memlock.maximum)),
        nofile_before: Limit(nofile.soft_before),
        nofile: (Limit(nofile.soft), Limit(nofile.hard)),
        cpus_allowed: core_affinity::get_core_ids()
            .map(|cores| cores.into_iter().map(|core| core.id).collect())
            .unwrap_or_default(),
        cpus_online: fs::read_to_string("/sys/devices/system/cpu/online")
            .ok()
            .and_then(|list| cpu_count(&list)),
        quota_cpus: CpuGroup::of_this_process().and_then(|group| group.quota_cpus()),
        clocksource: clocksource("current_clocksource").into_iter().next(),
        clocksources: clocksource("available_clocksource"),
        ports: port_range(),
        store,
    }
}

async fn store_state(url: &StoreUrl) -> StoreState {
    // Opening would make the file.
    if let StoreUrl::Sqlite(path) = url
        && !path.exists()
        && let Some(directory) = path.parent()
    {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        if directory.is_dir() {
            return match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => StoreState::NoFile,
                Err(errno) => StoreState::Unreached(format!("{}: {errno}", directory.display())),
            };
        }
    }
    let checked = match Store::open(url).await {
        Ok(mut store) => store.check_schema().await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => StoreState::Ready,
        Err(error @ StoreError::SchemaOlder { .. }) => StoreState::Older(error.to_string()),
        Err(error @ (StoreError::SchemaNewer { .. } | StoreError::SchemaChanged { .. })) => {
            StoreState::Foreign(error.to_string())
        }
        Err(error) => StoreState::Unreached(error.to_string()),
    }
}

/// A ring with the flags that a shard's ring has, set up and dropped again.
fn try_ring() -> Result<(), (Option<i32>, String)> {
    io_uring::IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(8)
        .map(|_: io_uring::IoUring| ())
        .map_err(|error| (error.raw_os_error(), error.to_string()))
}

fn seccomp_mode() -> Option<u8> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?.trim().parse().ok()
}

fn clocksource(file: &str) -> Vec<String> {
    fs::read_to_string(format!("/sys/devices/system/clocksource/clocksource0/{file}"))
        .map(|list| list.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

fn port_range() -> Option<(u16, u16)> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    Some((first.parse().ok()?, last.trim().parse().ok()?))
}

/// How many CPUs a list such as `0-3,8,10-11` has.
fn cpu_count(list: &str) -> Option<usize> {
    list.trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        for (list, count) in [
            ("0-3,8,10-11\n", Some(7)),
            ("0", Some(1)),
            ("0-1", Some(2)),
            ("", None),
            ("3-1", None),
            ("a-b", None),
        ] {
            assert_eq!(cpu_count(list), count, "{list:?}");
        }
    }

    #[test]
    fn looking_at_a_store_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let state = |path: &str| {
            let url = StoreUrl::Sqlite(directory.path().join(path));
            block_on(store_state(&url)).unwrap()
        };
        assert!(matches!(state("a.db"), StoreState::NoFile));
        assert!(matches!(state("absent/a.db"), StoreState::Unreached(_)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made");
        fs::write(directory.path().join("text.db"), "This is no database, but it is long enough to be one.")
            .unwrap();
        assert!(matches!(state("text.db"), StoreState::Unreached(_)));
        let url = StoreUrl::Sqlite(directory.path().join("b.db"));
        block_on(async { Store::open(&url).await.unwrap().migrate().await.unwrap() }).unwrap();
        assert!(matches!(state("b.db"), StoreState::Ready));
    }

    #[test]
    fn this_machine_can_be_asked() {
        let facts = gather(StoreFacts { name: "sqlite:a.db".to_owned(), state: StoreState::NoFile });
        assert!(!facts.kernel_release.is_empty());
        assert!(!facts.cpus_allowed.is_empty());
        let report = Report { verdict: Status::Ok, checks: findings(&facts) };
        assert_eq!(report.checks.len(), 9);
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(json["verdict"], "ok");
        assert_eq!(json["checks"][0]["check"], "kernel");
        assert!(report.for_people().contains("io_uring"));
    }
}
