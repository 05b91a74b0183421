//! The canary: an origin of our own on the loopback, whose answers take a time that is known exactly, so that what a
//! shard reads beside it is the shard's error, and the machine's.
//!
//! ```text
//!   shard:   request leaves ──┐                                   ┌── first byte, by the kernel's stamp
//!   canary:                   └── kernel has it ─► answer leaves ──┘
//!                                 └─── known: put down before the answer is sent ───┘
//! ```
//!
//! Each shard probes it once a second, through all that any probe goes through. It stamps by the same clock, and when
//! the kernel had the request rather than when it was seen: however late this thread wakes, what is known stays true.
//!
//! In scope: the origin's thread, and what it knows. Out of scope: the probing ([`crate::shard`]), what error is too
//! much ([`super::validity`]).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustix::time::Timespec;

use super::plans::Planner;
use super::roster::Watch;
use crate::clock::Reading;
use crate::config;
use crate::endpoint::{Draft, FieldError};
use crate::sample::EndpointId;
use crate::shard::ring;

/// A running canary. Dropping it ends its thread.
#[derive(Debug)]
pub struct Canary {
    address: SocketAddr,
    /// What nobody else on this machine knows, so that nobody else's request is answered.
    token: u64,
    held: Vec<Arc<AtomicU64>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    /// Starts one for so many shards.
    ///
    /// # Errors
    /// If there is no port on the loopback, or no thread.
    pub fn start(shards: usize, token: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let listener = OwnedFd::from(listener);
        // Connections inherit it: what comes before they are accepted is stamped as well.
        ring::ask_for_receive_timestamps(&listener);
        let held: Vec<Arc<AtomicU64>> = (0..shards).map(|_| Arc::default()).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let origin = Origin { listener, token, held: held.clone(), ended: Arc::clone(&ended) };
        let thread = std::thread::Builder::new().name("canary".to_owned()).spawn(move || origin.serve())?;
        Ok(Self { address, token, held, ended, thread: Some(thread) })
    }

    /// How long the last answer to `shard` took, ns.
    #[must_use]
    pub fn held(&self, shard: usize) -> Arc<AtomicU64> {
        Arc::clone(&self.held[shard])
    }

    /// What `shard` is to probe.
    ///
    /// # Errors
    /// None that a program would get to see: its URL is ours.
    pub fn watch(&self, shard: usize, planner: &mut Planner) -> Result<Watch, FieldError> {
        let draft = Draft {
            interval: Some(format!("{}ms", config::CANARY_EVERY.0 / 1_000)),
            timeout: Some(format!("{}ms", config::CANARY_EVERY.0 / 1_000)),
            ..Draft::of_url(&format!("http://{}{}", self.address, path(self.token, shard)))
        };
        let endpoint = draft.validate(&Draft::default())?;
        let plan = planner.plan(&endpoint)?;
        Ok(Watch { id: EndpointId::canary_of(shard), interval: endpoint.interval, plan })
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A canary that panicked has nothing to say any more.
            let _ = thread.join();
        }
    }
}

fn path(token: u64, shard: usize) -> String {
    format!("/{token:016x}/{shard}")
}

/// The canary's side of the loopback.
struct Origin {
    listener: OwnedFd,
    token: u64,
    held: Vec<Arc<AtomicU64>>,
    ended: Arc<AtomicBool>,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// More than our own request has; whoever sends more is somebody else.
const REQUEST_BYTES_MAX: usize = 2_048;

impl Origin {
    /// One connection after the other: there is one a second and shard. One that dawdles is given up.
    fn serve(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            if readable(&self.listener)
                && let Ok(connection) = rustix::net::accept(&self.listener)
            {
                self.answer(&connection);
            }
        }
    }

    fn answer(&self, connection: &OwnedFd) {
        let mut request = Vec::new();
        let mut buffer = [0; REQUEST_BYTES_MAX];
        let arrived_ns = loop {
            if !readable(connection) {
                return;
            }
            match ring::receive_stamped(connection, &mut buffer) {
                Ok((0, _)) | Err(_) => return,
                Ok((bytes, arrived_ns)) => {
                    request.extend_from_slice(&buffer[..bytes]);
                    if request.ends_with(b"\r\n\r\n") {
                        break arrived_ns;
                    }
                    if request.len() > REQUEST_BYTES_MAX {
                        return;
                    }
                }
            }
        };
        let asked =
            |shard: &usize| request.starts_with(format!("GET {} ", path(self.token, *shard)).as_bytes());
        let (Some(shard), Some(arrived_ns)) = ((0..self.held.len()).find(asked), arrived_ns) else { return };
        let now = Reading::now();
        let held_ns = now.mono.nanos_since(now.mono_of_real_ns(arrived_ns));
        self.held[shard].store(held_ns, Ordering::Release);
        let _ = rustix::net::send(connection, ANSWER, SendFlags::NOSIGNAL);
        // The shard closes when it has seen ours, so that TIME_WAIT is on our port and not on one of its.
        let _ = rustix::net::shutdown(connection, Shutdown::Write);
        if readable(connection) {
            let _ = rustix::net::recv(connection, &mut buffer, RecvFlags::DONTWAIT);
        }
    }
}

/// Whether there is something to read, or to accept, within a tenth of a second.
fn readable(socket: &OwnedFd) -> bool {
    let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&patience)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::clock::{Micros, Mono};

    #[test]
    fn it_answers_its_own_shards_and_knows_how_long_that_took() {
        let canary = Canary::start(2, 7).unwrap();
        let ask = |path: &str| {
            let mut stream = TcpStream::connect(canary.address).unwrap();
            let before = Mono::now();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            (answer, Micros::from_nanos(Mono::now().nanos_since(before)))
        };
        // The kernel begins to stamp a little after it is asked to.
        let answered = (0..1_000).map(|_| ask(&path(7, 1))).find(|(answer, _)| !answer.is_empty());
        let (answer, took) = answered.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let held = Micros::from_nanos(canary.held(1).load(Ordering::Acquire));
        assert!(held.0 > 0 && held <= took, "held for {held} of {took}");
        assert_eq!(canary.held(0).load(Ordering::Acquire), 0);
        for stranger in [path(8, 1), path(7, 2), "/".to_owned()] {
            assert_eq!(ask(&stranger).0, "", "{stranger}");
        }
    }
}
