//! From facts about a machine to findings: what is right, what is not, and the command that mends it.
//!
//! Pure: the facts come in as a value, so that machines can be tried here that we do not have. Whether a ring
//! can be had is decided by trying (`Facts::ring`); sysctl and seccomp only explain a refusal.
//!
//! Out of scope: gathering the facts and printing the findings (the parent module).

use serde::Serialize;

use crate::config;

/// What is known about the machine and this process. A `None` is "could not be read".
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// `uname -r`.
    pub(super) kernel_release: String,
    /// What came of setting up a ring with the shard's flags: the error's number and text, if any.
    pub(super) ring: Result<(), (Option<i32>, String)>,
    /// `kernel.io_uring_disabled`; absent before Linux 6.6.
    pub(super) io_uring_disabled: Option<u8>,
    /// `Seccomp:` of `/proc/self/status`: 0 none, 1 strict, 2 filter.
    pub(super) seccomp_mode: Option<u8>,
    /// `RLIMIT_MEMLOCK`, soft and hard.
    pub(super) memlock: (Limit, Limit),
    /// `RLIMIT_NOFILE`, soft, as we were started with.
    pub(super) nofile_before: Limit,
    /// `RLIMIT_NOFILE` after we raised it, soft and hard.
    pub(super) nofile: (Limit, Limit),
    /// CPUs this process may run on.
    pub(super) cpus_allowed: Vec<usize>,
    /// CPUs that are online in this machine.
    pub(super) cpus_online: Option<usize>,
    /// The CPUs that a quota is worth, if there is one.
    pub(super) quota_cpus: Option<f64>,
    /// The kernel's clock source.
    pub(super) clocksource: Option<String>,
    /// Those it could use instead.
    pub(super) clocksources: Vec<String>,
    /// `net.ipv4.ip_local_port_range`.
    pub(super) ports: Option<(u16, u16)>,
    /// The store.
    pub(super) store: StoreFacts,
}

/// What is known about the store.
#[derive(Clone, Debug)]
pub(super) struct StoreFacts {
    /// Its URL, without the password.
    pub(super) name: String,
    /// How it is.
    pub(super) state: StoreState,
}

/// How the store is; texts are its own words.
#[derive(Clone, Debug)]
pub(super) enum StoreState {
    /// Reached, and its tables are ours.
    Ready,
    /// An SQLite file that is not there yet.
    NoFile,
    /// Its tables are older than ours, or missing.
    Older(String),
    /// Its tables are not ones that we know.
    Foreign(String),
    /// It could not be reached.
    Unreached(String),
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(
    /// `None`: unlimited.
    pub(super) Option<u64>,
);

impl Limit {
    fn at_least(self, wanted: u64) -> bool {
        self.0.is_none_or(|limit| wanted <= limit)
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("unlimited"),
            Some(limit) => limit.fmt(f),
        }
    }
}

/// How bad a finding is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It runs, but less well than it could.
    Warn,
    /// It does not run.
    Fail,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) status: Status,
    /// What is the case.
    pub(super) detail: String,
    /// The command that mends it; absent if nothing is to be mended.
    pub(super) remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), remedy: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn fail(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Fail, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Every finding, in the order in which they are worth mending.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    [
        kernel(facts),
        io_uring(facts),
        memlock(facts),
        nofile(facts),
        cpus(facts),
        quota(facts),
        clocksource(facts),
        ports(facts),
        store(facts),
    ]
    .into()
}

/// The worst status among the findings.
pub(super) fn verdict(findings: &[Finding]) -> Status {
    findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
}

fn kernel(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel";
    let (major, minor) = config::KERNEL_MIN;
    let release = &facts.kernel_release;
    match version(release) {
        Some(found) if (major, minor) <= found => Finding::ok(CHECK, release.clone()),
        Some(_) => Finding::fail(
            CHECK,
            format!("{release}, but {major}.{minor} is the oldest with what the ring needs"),
            "apt-get install linux-image-amd64 && reboot   # Debian 12 or newer",
        ),
        None => Finding::warn(CHECK, format!("{release}: not a version"), "uname -r"),
    }
}

/// Major and minor of `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn io_uring(facts: &Facts) -> Finding {
    const CHECK: &str = "io_uring";
    const EPERM: i32 = 1;
    const ENOMEM: i32 = 12;
    const EINVAL: i32 = 22;
    const ENOSYS: i32 = 38;
    let Err((errno, error)) = &facts.ring else {
        return Finding::ok(CHECK, "a ring can be set up");
    };
    let (cause, remedy) = match (*errno, facts.io_uring_disabled, facts.seccomp_mode) {
        (Some(EPERM), Some(level @ 1..), _) => (
            format!("kernel.io_uring_disabled is {level}"),
            // Level 1 also lets in the members of kernel.io_uring_group; one remedy is enough.
            "sysctl -w kernel.io_uring_disabled=0   # to keep it: a file in /etc/sysctl.d",
        ),
        (Some(EPERM), _, Some(2)) => (
            "a seccomp filter, such as a container engine's default, forbids it".to_owned(),
            "docker run --security-opt seccomp=deploy/seccomp.json …   # made by deploy/make-seccomp",
        ),
        (Some(EPERM), ..) => (
            "a security module or an outer sandbox forbids it".to_owned(),
            "journalctl --dmesg --grep=denied   # names what did",
        ),
        (Some(ENOMEM), ..) => {
            ("the limit of locked memory is too low".to_owned(), "ulimit -l unlimited   # as root")
        }
        (Some(ENOSYS), ..) => (
            "this kernel or sandbox has no io_uring".to_owned(),
            "grep CONFIG_IO_URING /boot/config-$(uname -r)   # must be y",
        ),
        (Some(EINVAL), ..) => (
            "this kernel does not know the flags SINGLE_ISSUER and DEFER_TASKRUN".to_owned(),
            "apt-get install linux-image-amd64 && reboot   # Debian 12 or newer",
        ),
        _ => ("no known cause".to_owned(), "strace -e io_uring_setup ringprobe doctor"),
    };
    Finding::fail(CHECK, format!("no ring can be set up: {error}: {cause}"), remedy)
}

fn memlock(facts: &Facts) -> Finding {
    const CHECK: &str = "memlock";
    let (soft, hard) = facts.memlock;
    let wanted = config::MEMLOCK_BYTES_MIN;
    if soft.at_least(wanted) {
        return Finding::ok(CHECK, format!("{soft} bytes may be locked"));
    }
    let remedy = if hard.at_least(wanted) {
        format!("ulimit -l {}", wanted / 1024)
    } else {
        "echo '* - memlock unlimited' > /etc/security/limits.d/ringprobe.conf   # systemd: LimitMEMLOCK=, \
         docker: --ulimit memlock=-1"
            .to_owned()
    };
    Finding::fail(CHECK, format!("{soft} bytes may be locked, the executor wants {wanted}"), remedy)
}

fn nofile(facts: &Facts) -> Finding {
    const CHECK: &str = "nofile";
    const REMEDY: &str = "echo '* - nofile 1048576' > /etc/security/limits.d/ringprobe.conf   # systemd: \
                          LimitNOFILE=, docker: --ulimit nofile=1048576";
    let (soft, hard) = facts.nofile;
    let shards = u64::try_from(facts.cpus_allowed.len().max(1)).unwrap_or(u64::MAX);
    let wanted = shards.saturating_mul(u64::from(config::INFLIGHT_MAX)).saturating_add(config::NOFILE_SPARE);
    if !soft.at_least(config::NOFILE_SPARE) {
        return Finding::fail(CHECK, format!("{soft} files may be open, hard limit {hard}"), REMEDY);
    }
    if soft.at_least(wanted) {
        let raised = match facts.nofile_before {
            before if before == soft => String::new(),
            before => format!(", raised from {before}"),
        };
        return Finding::ok(CHECK, format!("{soft} files may be open{raised}"));
    }
    let detail = format!("{soft} files may be open, hard limit {hard}: fewer probes in flight than {wanted}");
    Finding::warn(CHECK, detail, REMEDY)
}

fn cpus(facts: &Facts) -> Finding {
    const CHECK: &str = "cpus";
    let allowed = facts.cpus_allowed.len();
    let list = facts.cpus_allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let of_online = match facts.cpus_online {
        Some(online) if online != allowed => format!("{allowed} of {online} online ({list})"),
        _ => format!("{allowed} ({list})"),
    };
    match allowed {
        0 => Finding::warn(CHECK, "the CPUs this process may use are unknown", "taskset --cpu-list --pid $$"),
        1 => Finding::warn(
            CHECK,
            format!("{of_online}: prober and writer share it, and lag shows it"),
            "taskset --cpu-list 0,1 ringprobe run …   # docker: --cpuset-cpus=0,1",
        ),
        _ => Finding::ok(CHECK, of_online),
    }
}

fn quota(facts: &Facts) -> Finding {
    const CHECK: &str = "quota";
    let allowed = u32::try_from(facts.cpus_allowed.len()).unwrap_or(u32::MAX);
    match facts.quota_cpus {
        None => Finding::ok(CHECK, "no CPU quota"),
        Some(quota) if quota >= f64::from(allowed) => {
            Finding::ok(CHECK, format!("{quota:.2} CPUs, and no more are used"))
        }
        Some(quota) => {
            // One more is the writer's.
            let cores = (1..allowed).rev().find(|cores| f64::from(cores + 1) <= quota).unwrap_or(1);
            Finding::warn(
                CHECK,
                format!(
                    "{quota:.2} CPUs for {allowed}: when it is used up, everything stands still for a while"
                ),
                format!(
                    "docker update --cpus {allowed} NAME   # systemd: CPUQuota=, Kubernetes: limits.cpu; or else \
                     ringprobe run --cores {cores}"
                ),
            )
        }
    }
}

fn clocksource(facts: &Facts) -> Finding {
    const CHECK: &str = "clocksource";
    /// Those that the vDSO reads without entering the kernel.
    const FAST: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
    match &facts.clocksource {
        None => Finding::warn(
            CHECK,
            "unknown",
            "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
        Some(source) if FAST.contains(&source.as_str()) => Finding::ok(CHECK, source.clone()),
        Some(source) => {
            let better = FAST.iter().find(|fast| facts.clocksources.iter().any(|other| other == *fast));
            let remedy = better.map_or_else(
                || "reboot with the kernel parameter tsc=reliable, if the processor's counter is".to_owned(),
                |better| {
                    format!(
                        "echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource"
                    )
                },
            );
            let detail = format!("{source}: every reading of the clock is a system call, or slower");
            Finding::warn(CHECK, detail, remedy)
        }
    }
}

fn ports(facts: &Facts) -> Finding {
    const CHECK: &str = "ports";
    let Some((first, last)) = facts.ports else {
        return Finding::warn(CHECK, "range unknown", "sysctl net.ipv4.ip_local_port_range");
    };
    let count = u32::from(last).saturating_sub(u32::from(first)) + 1;
    let detail = format!("{first}-{last}: {count} connections at once to one address and port");
    if count < config::LOCAL_PORTS_MIN {
        Finding::warn(CHECK, detail, "sysctl -w net.ipv4.ip_local_port_range='15000 65000'")
    } else {
        Finding::ok(CHECK, detail)
    }
}

fn store(facts: &Facts) -> Finding {
    const CHECK: &str = "store";
    let StoreFacts { name, state } = &facts.store;
    let sqlite = name.strip_prefix("sqlite:");
    match state {
        StoreState::Ready => Finding::ok(CHECK, format!("{name}: reached, tables up to date")),
        StoreState::NoFile => Finding::ok(CHECK, format!("{name}: not there yet; `ringprobe run` makes it")),
        StoreState::Older(said) => {
            let remedy = match sqlite {
                Some(_) => format!("ringprobe migrate --store {name}"),
                // The name lacks the password, so the command that works is not known here.
                None => "ringprobe migrate   # with the same --store or DATABASE_URL".to_owned(),
            };
            Finding::warn(CHECK, format!("{name}: {said}"), remedy)
        }
        StoreState::Foreign(said) => {
            let remedy = "ringprobe --version   # use the one that made the tables, or a newer one";
            Finding::fail(CHECK, format!("{name}: {said}"), remedy)
        }
        StoreState::Unreached(said) => {
            let remedy = match sqlite {
                Some(path) => format!("ls -ld {path} \"$(dirname {path})\"   # both must be ours to write"),
                None => format!("psql '{name}' -c 'select 1'   # asks for the password"),
            };
            Finding::fail(CHECK, said.clone(), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which nothing is wrong.
    fn healthy() -> Facts {
        Facts {
            kernel_release: "6.12.38+deb13-amd64".to_owned(),
            ring: Ok(()),
            io_uring_disabled: Some(0),
            seccomp_mode: Some(0),
            memlock: (Limit(Some(8 << 20)), Limit(Some(8 << 20))),
            nofile_before: Limit(Some(1_024)),
            nofile: (Limit(Some(1 << 20)), Limit(Some(1 << 20))),
            cpus_allowed: vec![0, 1],
            cpus_online: Some(2),
            quota_cpus: None,
            clocksource: Some("tsc".to_owned()),
            clocksources: vec!["tsc".to_owned(), "hpet".to_owned()],
            ports: Some((32_768, 60_999)),
            store: StoreFacts { name: "sqlite:ringprobe.db".to_owned(), state: StoreState::Ready },
        }
    }

    /// The finding of `check` on a machine that is healthy but for `change`.
    fn check(check: &str, change: impl FnOnce(&mut Facts)) -> Finding {
        let mut facts = healthy();
        change(&mut facts);
        let findings = findings(&facts);
        for finding in &findings {
            assert_eq!(finding.status == Status::Ok, finding.remedy.is_none(), "{finding:?}");
            assert!(finding.check == check || finding.status == Status::Ok, "unrelated: {finding:?}");
        }
        findings.into_iter().find(|finding| finding.check == check).expect("every check reports")
    }

    fn remedy(finding: &Finding) -> &str {
        finding.remedy.as_deref().unwrap_or("")
    }

    #[test]
    fn a_healthy_machine_is_all_ok() {
        let findings = findings(&healthy());
        assert_eq!(verdict(&findings), Status::Ok, "{findings:?}");
        assert_eq!(findings.len(), 9);
    }

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        for (release, status) in [
            ("6.1.0-18-amd64", Status::Ok),
            ("6.18.44-fc-v657", Status::Ok),
            ("10.0", Status::Ok),
            ("6.0.19", Status::Fail),
            ("5.15.0-generic", Status::Fail),
            ("mainline", Status::Warn),
            ("", Status::Warn),
        ] {
            let finding = check("kernel", |facts| facts.kernel_release = release.to_owned());
            assert_eq!(finding.status, status, "{release}");
        }
    }

    #[test]
    fn a_refused_ring_names_what_refused_it() {
        for (errno, disabled, seccomp, words) in [
            (Some(1), Some(2), Some(2), "sysctl -w kernel.io_uring_disabled=0"),
            (Some(1), Some(1), Some(0), "sysctl -w kernel.io_uring_disabled=0"),
            (Some(1), Some(0), Some(2), "seccomp=deploy/seccomp.json"),
            (Some(1), None, Some(2), "seccomp=deploy/seccomp.json"),
            (Some(1), Some(0), Some(0), "denied"),
            (Some(1), None, None, "denied"),
            (Some(12), Some(0), Some(0), "ulimit -l"),
            (Some(22), Some(0), Some(0), "linux-image"),
            (Some(38), None, Some(2), "CONFIG_IO_URING"),
            (None, None, None, "strace"),
        ] {
            let finding = check("io_uring", |facts| {
                facts.ring = Err((errno, "Some error".to_owned()));
                facts.io_uring_disabled = disabled;
                facts.seccomp_mode = seccomp;
            });
            assert_eq!(finding.status, Status::Fail);
            assert!(remedy(&finding).contains(words), "{finding:?}");
            assert!(finding.detail.contains("Some error"), "{finding:?}");
        }
    }

    #[test]
    fn a_filter_that_lets_the_ring_through_is_no_fault() {
        assert_eq!(check("io_uring", |facts| facts.seccomp_mode = Some(2)).status, Status::Ok);
        assert_eq!(check("io_uring", |facts| facts.io_uring_disabled = Some(1)).status, Status::Ok);
    }

    #[test]
    fn memlock_remedy_depends_on_the_hard_limit() {
        let low = Limit(Some(64 << 10));
        let finding = check("memlock", |facts| facts.memlock = (low, Limit(None)));
        assert_eq!((finding.status, remedy(&finding)), (Status::Fail, "ulimit -l 512"));
        let finding = check("memlock", |facts| facts.memlock = (low, low));
        assert!(remedy(&finding).contains("limits.d"), "{finding:?}");
        let exact = Limit(Some(config::MEMLOCK_BYTES_MIN));
        assert_eq!(check("memlock", |facts| facts.memlock = (exact, exact)).status, Status::Ok);
        assert_eq!(check("memlock", |facts| facts.memlock = (Limit(None), low)).status, Status::Ok);
    }

    #[test]
    fn nofile_is_measured_against_what_all_shards_may_open() {
        for (soft, status) in [(256, Status::Fail), (20_000, Status::Warn), (1 << 20, Status::Ok)] {
            let finding = check("nofile", |facts| facts.nofile = (Limit(Some(soft)), Limit(Some(soft))));
            assert_eq!(finding.status, status, "{soft}");
        }
        let finding = check("nofile", |facts| facts.nofile = (Limit(None), Limit(None)));
        assert_eq!(finding.detail, "unlimited files may be open, raised from 1024");
    }

    #[test]
    fn a_cpuset_is_shown_and_a_lone_cpu_is_warned_of() {
        let finding = check("cpus", |facts| facts.cpus_online = Some(16));
        assert_eq!((finding.status, finding.detail.as_str()), (Status::Ok, "2 of 16 online (0,1)"));
        assert_eq!(check("cpus", |facts| facts.cpus_allowed = vec![3]).status, Status::Warn);
        assert_eq!(check("cpus", |facts| facts.cpus_allowed = vec![]).status, Status::Warn);
    }

    #[test]
    fn a_quota_below_the_cpus_is_warned_of_with_the_cores_that_it_is_good_for() {
        for (quota, status, words) in [
            (None, Status::Ok, ""),
            (Some(4.0), Status::Ok, ""),
            (Some(3.5), Status::Warn, "--cores 2"),
            (Some(2.0), Status::Warn, "--cores 1"),
            (Some(0.5), Status::Warn, "docker update --cpus 4 NAME"),
        ] {
            let finding = check("quota", |facts| {
                (facts.cpus_allowed, facts.cpus_online, facts.quota_cpus) =
                    (vec![0, 1, 2, 3], Some(4), quota);
            });
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(remedy(&finding).contains(words), "{finding:?}");
        }
    }

    #[test]
    fn a_slow_clock_source_is_warned_of_with_what_is_at_hand() {
        let finding = check("clocksource", |facts| facts.clocksource = Some("hpet".to_owned()));
        assert!(remedy(&finding).starts_with("echo tsc >"), "{finding:?}");
        let finding = check("clocksource", |facts| {
            facts.clocksource = Some("acpi_pm".to_owned());
            facts.clocksources = vec!["acpi_pm".to_owned()];
        });
        assert!(remedy(&finding).contains("tsc=reliable"), "{finding:?}");
        assert_eq!(check("clocksource", |facts| facts.clocksource = None).status, Status::Warn);
        assert_eq!(
            check("clocksource", |facts| facts.clocksource = Some("kvm-clock".into())).status,
            Status::Ok
        );
    }

    #[test]
    fn a_narrow_or_absurd_port_range_is_warned_of() {
        for range in [Some((50_000, 51_000)), Some((60_000, 50_000)), None] {
            assert_eq!(check("ports", |facts| facts.ports = range).status, Status::Warn, "{range:?}");
        }
        assert_eq!(check("ports", |facts| facts.ports = Some((1, u16::MAX))).status, Status::Ok);
    }

    #[test]
    fn the_store_is_judged_by_its_tables() {
        let store = |name: &str, state| StoreFacts { name: name.to_owned(), state };
        let said = || "what it said".to_owned();
        for (name, state, status, words) in [
            ("sqlite:a.db", StoreState::NoFile, Status::Ok, ""),
            ("sqlite:a.db", StoreState::Older(said()), Status::Warn, "ringprobe migrate --store sqlite:a.db"),
            (
                "postgres://u@h/d",
                StoreState::Older(said()),
                Status::Warn,
                "ringprobe migrate   # with the same",
            ),
            ("postgres://u@h/d", StoreState::Foreign(said()), Status::Fail, "--version"),
            ("postgres://u@h/d", StoreState::Unreached(said()), Status::Fail, "psql 'postgres://u@h/d'"),
            ("sqlite:x/a.db", StoreState::Unreached(said()), Status::Fail, "dirname x/a.db"),
        ] {
            let finding = check("store", |facts| facts.store = store(name, state));
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(remedy(&finding).contains(words), "{finding:?}");
            assert!(status == Status::Ok || finding.detail.contains("what it said"), "{finding:?}");
        }
    }
}
