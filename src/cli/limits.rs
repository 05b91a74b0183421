//! Limits of this process: resources raised as far as the system lets us, once, before anything is opened; and what
//! others may see of its memory.
//!
//! A socket is a file descriptor; the usual soft limit of 1,024 dates from `select(2)`, and the hard limit is
//! what the administrator meant.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use super::Error;
use crate::config::DESCRIPTORS_RESERVED;

/// What `RLIMIT_NOFILE` was and has become. `None` is "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nofile {
    /// The soft limit this process was started with.
    pub(crate) soft_before: Option<u64>,
    /// The soft limit now: what `socket(2)` is held to.
    pub(crate) soft: Option<u64>,
    /// The hard limit now.
    pub(crate) hard: Option<u64>,
}

/// Raises the soft limit of open files to the hard limit, and that one, where we may, to the system's own
/// (`fs.nr_open`). Never lowers either, never fails: what could not be raised shows in the result.
pub(crate) fn raise_nofile() -> Nofile {
    let before = getrlimit(Resource::Nofile);
    let ceiling = read_number("/proc/sys/fs/nr_open");
    for wanted in attempts(&before, ceiling).into_iter().flatten() {
        // Only CAP_SYS_RESOURCE may raise a hard limit: for others the first attempt fails, the second does.
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            break;
        }
    }
    let now = getrlimit(Resource::Nofile);
    Nofile { soft_before: before.current, soft: now.current, hard: now.maximum }
}

/// No core dump of this process, whatever limit there is and wherever dumps are piped to, and no look into its memory
/// or its environment by others of the same user: secrets are in both. Root may still look.
pub(super) fn keep_memory_private() {
    // What the kernel refuses was not ours to have.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// How many files this process may have open, as many as can be had.
///
/// # Errors
/// If they are too few for a single probe.
pub(super) fn descriptors_max() -> Result<u64, Error> {
    let soft = raise_nofile().soft.unwrap_or(u64::MAX);
    if soft <= DESCRIPTORS_RESERVED {
        return Err(Error::failed(format!(
            "this process may open {soft} files, and needs {DESCRIPTORS_RESERVED} besides its probes: \
             raise the limit, as with `ulimit -n 20000`"
        )));
    }
    Ok(soft)
}

/// The limits to try, best first.
fn attempts(before: &Rlimit, ceiling: Option<u64>) -> [Option<Rlimit>; 2] {
    let raised = match (before.maximum, ceiling) {
        (Some(hard), Some(ceiling)) if hard < ceiling => {
            Some(Rlimit { current: Some(ceiling), maximum: Some(ceiling) })
        }
        _ => None,
    };
    [raised, Some(Rlimit { current: before.maximum, maximum: before.maximum })]
}

/// The number that a file under `/proc` or `/sys` holds, if it is there and holds one.
pub(super) fn read_number<T: std::str::FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_limit_is_raised_to_the_ceiling_and_never_lowered() {
        let before = |hard| Rlimit { current: Some(1_024), maximum: hard };
        let limits = |limit: &Option<Rlimit>| limit.as_ref().map(|limit| (limit.current, limit.maximum));
        let [raised, fallback] = attempts(&before(Some(4_096)), Some(1_048_576));
        assert_eq!(limits(&raised), Some((Some(1_048_576), Some(1_048_576))));
        assert_eq!(limits(&fallback), Some((Some(4_096), Some(4_096))));
        for (hard, ceiling) in [(Some(2_000_000), Some(1_048_576)), (None, Some(1_048_576)), (Some(9), None)]
        {
            let [raised, fallback] = attempts(&before(hard), ceiling);
            assert_eq!(limits(&raised), None, "{hard:?} {ceiling:?}");
            assert_eq!(limits(&fallback), Some((hard, hard)));
        }
    }

    #[test]
    fn raising_twice_changes_nothing_more() {
        let first = raise_nofile();
        let second = raise_nofile();
        assert_eq!(first.soft, first.hard);
        assert_eq!((second.soft_before, second.soft, second.hard), (first.soft, first.soft, first.hard));
    }
}
