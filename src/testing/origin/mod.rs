//! The test origin: an HTTP/1.1 server that answers as the path says, well or badly, and fast.
//!
//! [`Origin::start`] serves from a thread of its own; `ringprobe target` is the same for the shell. What can
//! be ordered is listed in [`MENU`], and by the origin itself at `/`. It is the reference the prober is
//! measured against, so it must cost less than the prober: one pinned thread, one `recv` and one `send` per
//! request, answers made once per path.
//!
//! Out of scope: everything that makes a server safe to expose. No idle timeouts, no request validation
//! beyond framing; listen on loopback.
//!
//! ```text
//!   request bytes ─► request (P) ─► path ─► menu (P) ─► Dish ─► answer (P) ─► bytes, waits, ending
//!                                     server (D): epoll, timers, connections; tls (P), if asked for
//! ```
//!
//! Beside it stands [`HoldingOrigin`], which knows one answer, and exactly when it gave it.

mod answer;
mod holding;
mod menu;
mod request;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::clock::{Micros, Mono};
use crate::config;

pub use holding::{Held, HoldingOptions, HoldingOrigin, Holds};
pub use menu::{Item, MENU, duration};
pub use tls::{OriginTls, OriginTlsError};

/// How an origin is set up.
#[derive(Clone, Debug)]
pub struct OriginOptions {
    /// Where to listen; port 0 is chosen by the kernel.
    pub listen: Vec<SocketAddr>,
    /// The CPU that the serving thread is pinned to, if any.
    pub cpu: Option<usize>,
    /// Ask for events without sleeping for so long after the last one. It takes the wake-up out of the latency,
    /// and the cost of waking us out of the client's CPU time; it needs a CPU of its own.
    pub spin: Micros,
    /// Sleep for so long after events before looking for the next, so that they come several at a time: answers are
    /// late by as much, and cost half.
    pub rest: Micros,
    /// Note when each of the first so many requests came and was answered ([`Origin::arrivals`]).
    pub record_arrivals: usize,
    /// Speak TLS at every address.
    pub tls: Option<OriginTls>,
}

impl Default for OriginOptions {
    /// One free port on 127.0.0.1, not pinned, nothing recorded, no TLS.
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            cpu: None,
            spin: Micros(0),
            rest: Micros(0),
            record_arrivals: 0,
            tls: None,
        }
    }
}

/// A serving origin. Dropping it stops it.
#[derive(Debug)]
pub struct Origin {
    addrs: Vec<SocketAddr>,
    scheme: &'static str,
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What an origin has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections dropped because descriptors had run out.
    pub refused: u64,
    /// Requests whose head was read whole.
    pub requests: u64,
    /// Bytes received, above TCP.
    pub bytes_in: u64,
    /// Bytes sent, above TCP; the rare `100 Continue` not among them.
    pub bytes_out: u64,
}

/// When a request came and was answered, as the origin saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The request target as sent, query included.
    pub target: Box<str>,
    /// The whole head had been read.
    pub arrived: Mono,
    /// Just before the first byte of the answer was handed to the kernel; [`Mono::NEVER`] if none was.
    pub departs: Mono,
    /// Just after the last byte was; [`Mono::NEVER`] if it was not.
    pub departed: Mono,
}

/// Why an origin could not be started.
#[derive(Debug)]
pub enum StartError {
    /// This address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// This CPU is not one that we may run on.
    Cpu(usize),
    /// The kernel refused a thread, an epoll or an eventfd.
    Kernel(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            Self::Cpu(cpu) => write!(f, "cpu {cpu} is not among those this process may use"),
            Self::Kernel(error) => write!(f, "cannot start the origin: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Origin {
    /// Listens, and serves on a new thread. Connections are accepted from the moment this returns.
    ///
    /// # Errors
    ///
    /// If an address cannot be listened on, the CPU is not ours, or the kernel is out of something.
    pub fn start(options: OriginOptions) -> Result<Self, StartError> {
        let kernel = |error: rustix::io::Errno| StartError::Kernel(error.into());
        let mut listeners = Vec::with_capacity(options.listen.len());
        let mut addrs = Vec::with_capacity(options.listen.len());
        for addr in options.listen {
            let (listener, bound) = listen(addr).map_err(|error| StartError::Listen(addr, error.into()))?;
            listeners.push(listener);
            addrs.push(bound);
        }
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(kernel)?);
        let shared = Arc::new(Shared::new(options.record_arrivals));
        let (report, started) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("origin".into())
            .spawn({
                let (stop, shared) = (Arc::clone(&stop), Arc::clone(&shared));
                move || {
                    let server = set_up_thread(options.cpu).and_then(|()| {
                        server::Server::new(
                            listeners,
                            &stop,
                            shared,
                            (options.spin, options.rest),
                            options.tls,
                        )
                        .map_err(kernel)
                    });
                    match server {
                        Ok(server) => {
                            let _nobody = report.send(Ok(()));
                            Ok(server.run()?)
                        }
                        Err(error) => {
                            let _nobody = report.send(Err(error));
                            Ok(())
                        }
                    }
                }
            })
            .map_err(StartError::Kernel)?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { addrs, scheme, shared, stop, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(StartError::Kernel(io::Error::other("the thread ended"))),
        }
    }

    /// The addresses listened on, in the order given, ports known.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The first address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// The URL of `path` (`/…`) at the first address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.addr())
    }

    /// What it has done so far. Counted before the answer leaves, so that whoever has an answer finds its
    /// request counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Stats {
            connections: read(&self.shared.connections),
            open: read(&self.shared.open),
            refused: read(&self.shared.refused),
            requests: read(&self.shared.requests),
            bytes_in: read(&self.shared.bytes_in),
            bytes_out: read(&self.shared.bytes_out),
        }
    }

    /// Requests per path, the query not counting; the first `ORIGIN_ANSWERS_MAX` distinct paths are counted.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, u64> {
        let paths = locked(&self.shared.paths);
        paths.iter().map(|(path, requests)| (path.clone(), requests.load(Ordering::Acquire))).collect()
    }

    /// The requests recorded so far, oldest first.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        locked(&self.shared.arrivals).clone()
    }

    /// Stops serving: connections are closed as they are.
    ///
    /// # Errors
    ///
    /// What ended the event loop before it was told to.
    pub fn stop(mut self) -> io::Result<Stats> {
        self.end()?;
        Ok(self.stats())
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Any eight bytes but zero make it readable.
        rustix::io::write(&*self.stop, &[1; 8])?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _result = self.end();
    }
}

fn listen(addr: SocketAddr) -> rustix::io::Result<(OwnedFd, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets inherit it, which saves a call for each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, config::ORIGIN_BACKLOG)?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound))
}

/// Pins the calling thread, and has its timers fire on time rather than when it suits (50 µs by default).
fn set_up_thread(cpu: Option<usize>) -> Result<(), StartError> {
    if let Some(cpu) = cpu {
        let id = CoreId { id: cpu };
        let ours = core_affinity::get_core_ids().is_some_and(|ids| ids.contains(&id));
        if !ours || !core_affinity::set_for_current(id) {
            return Err(StartError::Cpu(cpu));
        }
    }
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))
        .map_err(|error| StartError::Kernel(error.into()))
}

/// What the serving thread shows to others. It alone writes; [`Shared::count`] relies on that.
#[derive(Debug)]
struct Shared {
    connections: AtomicU64,
    open: AtomicU64,
    refused: AtomicU64,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    paths: Mutex<Vec<(String, Arc<AtomicU64>)>>,
    arrivals_max: usize,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Shared {
    fn new(arrivals_max: usize) -> Self {
        Self {
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            paths: Mutex::new(Vec::new()),
            arrivals_max,
            arrivals: Mutex::new(Vec::with_capacity(arrivals_max)),
        }
    }

    /// Adds (wrapping, so that `u64::MAX` takes one away). With one writer a load and a store do, and spare
    /// the hot path the locked instruction. Release pairs with the acquire of the readers.
    fn count(&self, counter: &AtomicU64, more: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
    }

    fn new_path(&self, path: &str) -> Arc<AtomicU64> {
        let requests = Arc::new(AtomicU64::new(1));
        locked(&self.paths).push((path.to_owned(), Arc::clone(&requests)));
        requests
    }

    /// Records a request, if there is room; the place is what the other two take.
    fn arrived(&self, target: &str) -> Option<usize> {
        if self.arrivals_max == 0 {
            return None;
        }
        let mut arrivals = locked(&self.arrivals);
        if arrivals.len() == self.arrivals_max {
            return None;
        }
        let (target, arrived) = (target.into(), Mono::now());
        arrivals.push(Arrival { target, arrived, departs: Mono::NEVER, departed: Mono::NEVER });
        Some(arrivals.len() - 1)
    }

    /// Records the time of the first write of an answer; of further ones it takes no notice.
    fn departs(&self, arrival: Option<usize>) {
        if let Some(index) = arrival {
            let departs = &mut locked(&self.arrivals)[index].departs;
            if *departs == Mono::NEVER {
                *departs = Mono::now();
            }
        }
    }

    fn departed(&self, arrival: Option<usize>) {
        if let Some(index) = arrival {
            locked(&self.arrivals)[index].departed = Mono::now();
        }
    }
}

/// A lock whose holder panicked guards nothing but counters: go on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
