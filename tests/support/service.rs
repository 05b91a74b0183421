//! A real server for as long as a test lasts: one process without privileges, in a directory of its own, which ends
//! with its [`Service`].
//!
//! Out of scope: which server, and what it is told (`dnsmasq`, `nginx`).

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringprobe::clock::Mono;
use tempfile::TempDir;

/// How long a server may take to answer; a busy machine takes a while.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(5);
/// `nobody` and `nogroup`, whom every Linux knows by number: the overflow ids of the kernel.
const NOBODY: u32 = 65_534;
/// How often other ports are tried: somebody else may take one between our look and the server's.
const ATTEMPTS_MAX: usize = 5;

/// A running server.
pub(crate) struct Service {
    child: Child,
    directory: TempDir,
}

impl Service {
    /// Starts `program` on ports that were free a moment ago, in a directory that `prepare` fills and in which it finds
    /// its arguments, and waits until it `answers`.
    pub(crate) fn start<const PORTS: usize>(
        (program, package): (&str, &str),
        prepare: impl Fn(&Path, [u16; PORTS]) -> Vec<String>,
        answers: impl Fn([u16; PORTS]) -> bool,
    ) -> (Self, [u16; PORTS]) {
        let program = find(program, package);
        let mut said = String::new();
        for _ in 0..ATTEMPTS_MAX {
            let ports = free_ports();
            // Where everybody may pass, which the directory for temporary files of one user need not be.
            let directory = tempfile::tempdir_in("/tmp").unwrap();
            let arguments = prepare(directory.path(), ports);
            let mut service = Self { child: spawn(&program, &arguments, directory.path()), directory };
            match service.wait(|| answers(ports)) {
                Ok(()) => return (service, ports),
                Err(log) => said = log,
            }
        }
        panic!("{} does not start: {said}", program.display());
    }

    /// What is in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Until it answers, or has ended and left a log.
    fn wait(&mut self, answers: impl Fn() -> bool) -> Result<(), String> {
        let begun = Mono::now();
        while !answers() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
                return Err(format!("{status}\n{log}"));
            }
            assert!(Mono::now().since(begun) < PATIENCE, "the server does not answer");
            std::thread::park_timeout(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Debian, others, and administrators put servers.
fn find(program: &str, package: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let found = places.into_iter().map(|place| Path::new(place).join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is missing: apt-get install {package}"))
}

/// Ports on loopback that nobody has, each of them another.
fn free_ports<const PORTS: usize>() -> [u16; PORTS] {
    let listeners = [(); PORTS].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// As nobody, if we may choose; what it says goes to the file `log`.
fn spawn(program: &Path, arguments: &[String], directory: &Path) -> Child {
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    if rustix::process::geteuid().is_root() {
        give_away(directory);
        command.uid(NOBODY).gid(NOBODY);
    }
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// A directory and everything in it becomes nobody's.
fn give_away(path: &Path) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}
