//! A PostgreSQL cluster of a test's own, to be stopped and started at will.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Stopped and removed at the end.
pub(crate) struct Cluster {
    programs: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    dsn: String,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The server's user makes its own directory in it.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let port = free_port();
        let dsn = format!("postgres://ringprobe@127.0.0.1:{port}/postgres");
        let cluster = Self { programs: programs(), directory, port, dsn };
        let data = cluster.data();
        cluster.run("initdb", &["--pgdata", &data, "--username=ringprobe", "--auth=trust", "--no-sync"]);
        cluster.start_again();
        cluster
    }

    pub(crate) fn dsn(&self) -> &str {
        &self.dsn
    }

    /// As after a crash: no client is told, nothing is written that was not yet.
    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["--pgdata", &self.data(), "--mode=immediate", "--wait", "stop"]);
    }

    pub(crate) fn start_again(&self) {
        let data = self.data();
        let log = format!("{data}/server.log");
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='' -c max_connections=20",
            self.port
        );
        self.run("pg_ctl", &["--pgdata", &data, "--log", &log, "--options", &options, "--wait", "start"]);
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        run_as_server_user(self.programs.join(program).into_os_string(), arguments);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if Path::new(&self.data()).join("postmaster.pid").exists() {
            self.stop();
        }
        // Its files are the server's user's: the directory alone could not be emptied by an ordinary one.
        run_as_server_user("rm".into(), &["-rf", &self.data()]);
    }
}

fn run_as_server_user(program: OsString, arguments: &[&str]) {
    let mut command = match std::env::var("RINGPROBE_TEST_PG_USER") {
        Ok(user) => {
            let mut command = Command::new("runuser");
            command.args(["-u", &user, "--"]).arg(&program);
            command
        }
        Err(_) => Command::new(&program),
    };
    // The server keeps what it inherits: with the test's output, that would never end.
    command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    assert!(status.success(), "{program:?} {arguments:?}: {status}");
}

/// Below the range from which the kernel serves clients: it must still be free when the server comes back.
fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    (0..10_000)
        .map(|n| 20_000 + (first + n) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one port of ten thousand is free")
}

fn programs() -> PathBuf {
    if let Some(directory) = std::env::var_os("RINGPROBE_TEST_PG_BIN") {
        return directory.into();
    }
    let output = Command::new("pg_config").arg("--bindir").output();
    let output = output.expect("pg_config, or RINGPROBE_TEST_PG_BIN: run scripts/test");
    String::from_utf8(output.stdout).unwrap().trim().into()
}
