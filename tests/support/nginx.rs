//! nginx on loopback, with the servers of a test: what most of the world's responses come from.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use ringprobe::clock::Mono;

use super::service::Service;

/// How long the line about a request may take to be in the log: it is written when the response has left.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is the same for all. One process: there is nobody to leave behind. Of the paths none is Debian's own, which are
/// root's.
const CONF: &str = r#"
daemon off;
master_process off;
pid nginx.pid;
events { worker_connections 512; }
http {
    client_body_temp_path temp-client;
    proxy_temp_path temp-proxy;
    fastcgi_temp_path temp-fastcgi;
    uwsgi_temp_path temp-uwsgi;
    scgi_temp_path temp-scgi;
    default_type text/plain;
    log_format probe '$server_addr|$host$request_uri|$http_authorization|$http_x_key|$http_x_id|$status';
    access_log access.log probe;
    ssl_protocols TLSv1.2 TLSv1.3;
    gzip on;
    gzip_types text/plain;
"#;

/// An nginx of the test's own; it ends with the test.
pub(crate) struct Nginx {
    service: Service,
}

/// A request as nginx has seen it; what was not sent is `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The address that was connected to.
    pub(crate) address: String,
    /// Host and path.
    pub(crate) url: String,
    pub(crate) authorization: String,
    pub(crate) x_key: String,
    pub(crate) x_id: String,
    pub(crate) status: u16,
}

impl Nginx {
    /// One with these files, and the `server` blocks that are made of so many ports; it listens.
    pub(crate) fn start<const PORTS: usize>(
        files: &[(String, String)],
        servers: impl Fn([u16; PORTS]) -> String,
    ) -> (Self, [u16; PORTS]) {
        let (service, ports) = Service::start(
            ("nginx", "nginx-light"),
            |directory, ports| {
                for (name, contents) in files {
                    std::fs::write(directory.join(name), contents).unwrap();
                }
                let conf = format!("{CONF}{}}}\n", servers(ports));
                std::fs::write(directory.join("nginx.conf"), conf).unwrap();
                let directory = directory.to_str().unwrap();
                ["-e", "stderr", "-p", directory, "-c", "nginx.conf"].map(str::to_owned).to_vec()
            },
            |ports| ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()),
        );
        (Self { service }, ports)
    }

    /// One of the files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.service.path(name)
    }

    /// The requests to this host and path, once there are so many, in order.
    pub(crate) fn requests(&self, url: &str, count: usize) -> Vec<Seen> {
        let begun = Mono::now();
        loop {
            let log = std::fs::read_to_string(self.path("access.log")).unwrap();
            // The last line may be half written.
            let lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            let seen: Vec<Seen> = lines.map(Seen::parse).filter(|seen| seen.url.starts_with(url)).collect();
            if seen.len() >= count {
                return seen;
            }
            assert!(Mono::now().since(begun) < PATIENCE, "{count} requests to {url} in\n{log}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Seen {
    fn parse(line: &str) -> Self {
        let words: Vec<String> = line.split('|').map(str::to_owned).collect();
        let [address, url, authorization, x_key, x_id, status] =
            words.try_into().unwrap_or_else(|_| panic!("a line of the log: {line}"));
        Self { address, url, authorization, x_key, x_id, status: status.parse().unwrap() }
    }
}
