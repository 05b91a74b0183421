//! Limits that the shell set for us and that we may raise ourselves.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of open files as far as it goes, and returns it: to the hard limit, and with the right
/// to (`CAP_SYS_RESOURCE`) that one, too, to what the kernel allows (`fs.nr_open`).
pub(super) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let kernel = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    for most in [kernel, limit.maximum].into_iter().flatten() {
        let raised = Rlimit { current: Some(most), maximum: Some(most.max(hard)) };
        if most >= hard && setrlimit(Resource::Nofile, raised).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_never_goes_down() {
        let before = getrlimit(Resource::Nofile);
        let raised = raise_open_files();
        assert!(raised >= before.current.unwrap_or(u64::MAX));
        assert!(raised >= before.maximum.unwrap_or(u64::MAX));
        assert_eq!(raise_open_files(), raised, "raising twice changes nothing");
    }
}
