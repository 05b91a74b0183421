//! dnsmasq on loopback, with the records of a test: a resolver that others use.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::service::Service;

/// A question for the address of `ready.test`: id 1, recursion desired, type A, class IN (RFC 1035, section 4.1).
const QUESTION: &[u8] =
    b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05ready\x04test\x00\x00\x01\x00\x01";

/// Whatever is not told: nobody else is asked, nothing of this machine is told, and all of `test` is its own.
const CONF: [&str; 9] = [
    "no-resolv",
    "no-hosts",
    "bind-interfaces",
    "listen-address=127.0.0.1",
    "no-daemon",
    "cache-size=0",
    "local=/test/",
    "user=",
    "pid-file=",
];

/// A dnsmasq of the test's own; it ends with the test.
pub(crate) struct Dnsmasq {
    address: SocketAddr,
    _service: Service,
}

impl Dnsmasq {
    /// One with these lines of `dnsmasq.conf`, which answers.
    pub(crate) fn start(records: &[&str]) -> Self {
        let (service, [port]) = Service::start(
            ("dnsmasq", "dnsmasq-base"),
            |directory, [port]| {
                let lines = [&CONF[..], records].concat().join("\n");
                let conf = directory.join("dnsmasq.conf");
                std::fs::write(&conf, format!("{lines}\nport={port}\n")).unwrap();
                vec![format!("--conf-file={}", conf.display())]
            },
            |[port]| answers((Ipv4Addr::LOCALHOST, port).into()),
        );
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), _service: service }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Whether anybody does, be it with an error. Until then the kernel refuses.
fn answers(server: SocketAddr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.send(QUESTION).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}
