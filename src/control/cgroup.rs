//! The CPU quota of this process, and for how long it has stopped us.
//!
//! A quota gives a group of processes so much CPU time in each period; when that is used up, all of them stand still
//! until the next. To a prober it is as if it were stopped, and nothing but the group's own statistics says so. (On
//! what groups are: cgroups(7); on the files: the kernel's `cgroup-v2.rst` and `sched-bwc.rst`.)
//!
//! In scope: finding the group, in version 2 and 1, and reading it and those around it, whose quotas bind it, too.
//! Out of scope: what is too much ([`super::validity`]), what to do about it (`doctor`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock::Micros;
use crate::config;

/// The group of this process, as far as the CPU goes.
#[derive(Clone, Debug)]
pub struct CpuGroup {
    version: Version,
    /// Its directory, and those around it.
    directories: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl CpuGroup {
    /// Asks `/proc`; `None` if no group of ours has to do with the CPU.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (version, mount, path) = find(&read("/proc/self/cgroup"), &read("/proc/self/mounts"))?;
        Some(Self { version, directories: directories(&mount, &path, |path| path.is_dir()) })
    }

    /// The CPUs that the tightest quota is worth; `None` without one.
    #[must_use]
    pub fn quota_cpus(&self) -> Option<f64> {
        let quotas = self.directories.iter().filter_map(|directory| match self.version {
            Version::Two => quota(&read(directory, "cpu.max")),
            Version::One => {
                let parts = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| read(directory, file));
                quota(&parts.join(" "))
            }
        });
        quotas.min_by(f64::total_cmp)
    }

    /// For how long quotas have stopped us, the times of all CPUs together. Of several quotas it is the one that did so
    /// for longest: they stop us at the same times, or nearly.
    #[must_use]
    pub fn throttled(&self) -> Micros {
        let times =
            self.directories.iter().map(|directory| throttled(self.version, &read(directory, "cpu.stat")));
        times.max().unwrap_or_default()
    }
}

/// What a file says; nothing if it is not there.
fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// The version that has the CPU, where it is mounted, and our path there. Where both versions are, version 1 has it if
/// it is mounted.
fn find(cgroups: &str, mounts: &str) -> Option<(Version, PathBuf, String)> {
    let mount = |wanted: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(kind, options).then(|| PathBuf::from(at))
        })
    };
    let has = |list: &str| list.split(',').any(|name| name == "cpu");
    let path = |wanted: &dyn Fn(&str) -> bool| {
        cgroups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.to_owned())
        })
    };
    let one = || Some((Version::One, mount(&|kind, options| kind == "cgroup" && has(options))?, path(&has)?));
    let two = || Some((Version::Two, mount(&|kind, _| kind == "cgroup2")?, path(&str::is_empty)?));
    one().or_else(two)
}

/// The directory of `path` and those around it, up to the mount's. In a container the path may be one that the host
/// sees, and the mount's own directory the container's group.
fn directories(mount: &Path, path: &str, exists: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    // Without the root that a path begins with.
    let own: PathBuf = mount.iter().chain(Path::new(path).iter().skip(1)).collect();
    let is_below = !path.split('/').any(|part| part == "..");
    let start = if is_below && exists(&own) { own } else { mount.to_owned() };
    let around = start.ancestors().take_while(|directory| directory.starts_with(mount));
    around.take(config::CGROUP_DEPTH_MAX).map(Path::to_owned).collect()
}

/// Quota and period, as CPUs: `cpu.max`, or both files of version 1. No quota is `max` there and -1 here.
fn quota(text: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace();
    let (quota_us, period_us) = (words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
    (period_us > 0).then(|| f64::from(quota_us) / f64::from(period_us))
}

fn throttled(version: Version, stat: &str) -> Micros {
    let value = |name| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    match version {
        Version::Two => Micros(value("throttled_usec")),
        Version::One => Micros::from_nanos(value("throttled_time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(cgroups: &str, mounts: &str) -> Option<(Version, String)> {
        let (version, mount, path) = find(cgroups, mounts)?;
        Some((version, directories(&mount, &path, |_| true)[0].display().to_string()))
    }

    #[test]
    fn the_group_that_has_the_cpu_is_found() {
        const TWO: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        const ONE: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let is = |version, path: &str| Some((version, path.to_owned()));
        assert_eq!(found("0::/a.slice/b\n", TWO), is(Version::Two, "/sys/fs/cgroup/a.slice/b"));
        assert_eq!(found("0::/\n", TWO), is(Version::Two, "/sys/fs/cgroup"));
        let both = "5:cpuset:/x\n4:cpu,cpuacct:/y\n0::/z\n";
        assert_eq!(found(both, ONE), is(Version::One, "/sys/fs/cgroup/cpu,cpuacct/y"));
        assert_eq!(found("5:cpuset:/x\n0::/z:1\n", ONE), is(Version::Two, "/sys/fs/cgroup/unified/z:1"));
        assert_eq!(found("", TWO), None);
        assert_eq!(found("0::/\n", "proc /proc proc rw 0 0\nhalf\n"), None);
    }

    #[test]
    fn quotas_around_a_group_bind_it_and_a_path_that_is_the_hosts_is_not_followed() {
        let mount = Path::new("/m");
        let all = |path: &str, exists: bool| {
            let found = directories(mount, path, |_| exists);
            found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all("/a/b", true), ["/m/a/b", "/m/a", "/m"]);
        assert_eq!(all("/a/b", false), ["/m"]);
        assert_eq!(all("/../../a", true), ["/m"]);
        assert_eq!(all(&"/a".repeat(1_000), true).len(), config::CGROUP_DEPTH_MAX);
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("-1\n 100000\n"), None);
        assert_eq!(quota("50000\n 100000\n"), Some(0.5));
        for text in ["", "50000", "1 0", "x y"] {
            assert_eq!(quota(text), None, "{text:?}");
        }
        let two = "usage_usec 9\nnr_throttled 3\nthrottled_usec 1200000\n";
        assert_eq!(throttled(Version::Two, two), Micros(1_200_000));
        let one = "nr_periods 7\nnr_throttled 3\nthrottled_time 1200000999\n";
        assert_eq!(throttled(Version::One, one), Micros(1_200_000));
        assert_eq!(throttled(Version::Two, one), Micros(0));
        assert_eq!(throttled(Version::One, ""), Micros(0));
    }
}
