//! An origin that holds each answer for a known time, and notes for how long it did: the truth that measured latency
//! is compared with.
//!
//! A request arrived when the kernel had it (`SO_TIMESTAMPING`), and its answer departed when we called send. What lies
//! between is the true time to first byte of that very request, however late we were with it: this origin need not be
//! punctual, only honest. Its own queue is in the truth.
//!
//! ```text
//!   epoll ─► recvmsg, stamped ─► FIFO of what is due later ─► clock, send ─► Held { endpoint, arrived, departed }
//! ```
//!
//! All answers are held for the same time, so that who came first leaves first, and there is no timer structure.
//!
//! In scope: requests without a body for `/N`, where N is the number of an endpoint; keep-alive and
//! `Connection: close`. Out of scope: everything else ([`super::Origin`] has it). Who sends more before the answer has
//! come is cut off.
//!
//! Invariant: the holds of an endpoint that has one request in flight at a time are in the order of its requests.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socket_with};

use super::request::{self, Scan};
use super::server::{Key, TOKEN_LISTENER, TOKEN_STOP, listening, until};
use super::{StartError, listen, set_up_thread};
use crate::clock::{Micros, Mono, Reading};
use crate::config;
use crate::shard::ring::{ask_for_receive_timestamps, receive_stamped};

/// How a holding origin is set up.
#[derive(Clone, Debug)]
pub struct HoldingOptions {
    /// Where to listen; port 0 is chosen by the kernel.
    pub listen: Vec<SocketAddr>,
    /// The CPU that the serving thread is pinned to, if any.
    pub cpu: Option<usize>,
    /// How long each answer is held, from the request's arrival.
    pub hold: Micros,
    /// How many holds are noted; further ones are counted.
    pub holds_max: usize,
}

impl Default for HoldingOptions {
    /// One free port on 127.0.0.1, not pinned, nothing held, everything noted.
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            cpu: None,
            hold: Micros(0),
            holds_max: config::HOLDS_MAX,
        }
    }
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The number in the request's path; 0 if there was none.
    pub endpoint: u32,
    /// When the kernel had the last byte of the request.
    pub arrived: Mono,
    /// Right before the answer was handed to the kernel, or let go by it.
    pub departed: Mono,
}

impl Held {
    /// The true time to first byte, ns.
    #[must_use]
    pub const fn true_ns(&self) -> u64 {
        self.departed.nanos_since(self.arrived)
    }
}

/// What a holding origin has done.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    /// The answers, in the order in which they departed.
    pub held: Vec<Held>,
    /// Answers beyond those that were to be noted.
    pub unnoted: u64,
    /// Requests without a stamp of the kernel's: their arrival is when they were read, which is later.
    pub unstamped: u64,
}

/// A serving origin. Dropping it stops it.
#[derive(Debug)]
pub struct HoldingOrigin {
    addrs: Vec<SocketAddr>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<std::io::Result<Holds>>>,
}

impl HoldingOrigin {
    /// Listens, and serves on a new thread. Connections are accepted from the moment this returns.
    ///
    /// # Errors
    ///
    /// If an address cannot be listened on, the CPU is not ours, or the kernel is out of something.
    pub fn start(options: HoldingOptions) -> Result<Self, StartError> {
        let kernel = |error: Errno| StartError::Kernel(error.into());
        let (mut listeners, mut addrs) = (Vec::new(), Vec::new());
        for addr in &options.listen {
            let (listener, bound) = listen(*addr).map_err(|error| StartError::Listen(*addr, error.into()))?;
            // What is accepted inherits it: a request that comes with the connection is stamped, too.
            ask_for_receive_timestamps(&listener);
            listeners.push(listener);
            addrs.push(bound);
        }
        await_stamps().map_err(kernel)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(kernel)?);
        let (report, started) = mpsc::channel();
        let serve = {
            let stop = Arc::clone(&stop);
            move || {
                let server = set_up_thread(options.cpu)
                    .and_then(|()| Server::new(listeners, &stop, &options).map_err(kernel));
                let (server, result) = match server {
                    Ok(server) => (Some(server), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _nobody = report.send(result);
                server.map_or_else(|| Ok(Holds::default()), |server| Ok(server.run()?))
            }
        };
        let thread = thread::Builder::new().name("origin".into()).spawn(serve).map_err(StartError::Kernel)?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { addrs, stop, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(StartError::Kernel(std::io::Error::other("the thread ended"))),
        }
    }

    /// The addresses listened on, in the order given, ports known.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Stops serving: connections are closed as they are, what is still held is never answered.
    ///
    /// # Errors
    ///
    /// What ended the event loop before it was told to.
    pub fn stop(mut self) -> std::io::Result<Holds> {
        self.end()
    }

    fn end(&mut self) -> std::io::Result<Holds> {
        let Some(thread) = self.thread.take() else { return Ok(Holds::default()) };
        // Any eight bytes but zero make it readable.
        rustix::io::write(&*self.stop, &[1; 8])?;
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread panicked")))
    }
}

impl Drop for HoldingOrigin {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _result = self.end();
    }
}

/// The kernel begins to stamp some time after it was first asked to (`net_enable_timestamp` has a worker do it): sends
/// itself datagrams until one comes with a stamp. If none does, requests will tell (`unstamped`).
fn await_stamps() -> rustix::io::Result<()> {
    const TRIES: u32 = 200;
    const PAUSE: Micros = Micros::from_millis(5);
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    ask_for_receive_timestamps(&socket);
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    rustix::net::connect(&socket, &SocketAddr::try_from(rustix::net::getsockname(&socket)?)?)?;
    for _ in 0..TRIES {
        rustix::net::send(&socket, &[1], SendFlags::DONTWAIT)?;
        if let Ok((_, Some(_stamp))) = receive_stamped(&socket, &mut [0]) {
            break;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "there is nothing that tells; once, before anything is served"
        )]
        thread::sleep(PAUSE.as_duration());
    }
    Ok(())
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

struct Server {
    epoll: OwnedFd,
    listeners: Vec<OwnedFd>,
    connections: Vec<Connection>,
    free: Vec<u32>,
    /// What is held, in the order in which it is due.
    due: VecDeque<Due>,
    hold: Micros,
    holds_max: usize,
    holds: Holds,
    buffer: Box<[u8]>,
}

#[derive(Default)]
struct Connection {
    socket: Option<OwnedFd>,
    generation: u32,
    /// The first bytes of a head that is not whole yet.
    pending: Vec<u8>,
    /// Its answer is held.
    waits: bool,
}

struct Due {
    at: Mono,
    key: Key,
    endpoint: u32,
    arrived: Mono,
    closes: bool,
}

impl Server {
    fn new(listeners: Vec<OwnedFd>, stop: &OwnedFd, options: &HoldingOptions) -> rustix::io::Result<Self> {
        let epoll = listening(&listeners, stop)?;
        Ok(Self {
            epoll,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            hold: options.hold,
            holds_max: options.holds_max,
            holds: Holds { held: Vec::with_capacity(options.holds_max), unnoted: 0, unstamped: 0 },
            buffer: vec![0; config::ORIGIN_REQUEST_HEAD_BYTES_MAX].into_boxed_slice(),
        })
    }

    fn run(mut self) -> rustix::io::Result<Holds> {
        let mut events = Vec::with_capacity(config::ORIGIN_EVENTS);
        loop {
            let wait = self.due.front().map(|due| until(due.at));
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    TOKEN_STOP => return Ok(self.holds),
                    token if token & TOKEN_LISTENER != 0 => self.accept(token & !TOKEN_LISTENER),
                    token => self.receive(Key::of_token(token)),
                }
                // After each, so that nobody's answer waits for a batch of requests.
                self.answer_due();
            }
            self.answer_due();
        }
    }

    fn accept(&mut self, listener: u64) {
        let index = usize::try_from(listener).unwrap_or(usize::MAX);
        for _ in 0..config::ORIGIN_ACCEPTS_PER_TURN {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(&self.listeners[index], flags) {
                Ok(socket) => self.open(socket),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn open(&mut self, socket: OwnedFd) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::default());
            u32::try_from(self.connections.len() - 1).unwrap_or(u32::MAX)
        });
        let connection = &mut self.connections[slot as usize];
        let key = Key { slot, generation: connection.generation };
        let added = epoll::add(&self.epoll, &socket, EventData::new_u64(key.token()), EventFlags::IN);
        connection.socket = Some(socket);
        if added.is_err() {
            self.close(key);
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(connection) = live(&mut self.connections, key) {
            // 31 bits: the highest marks listeners.
            let generation = (connection.generation + 1) & (u32::MAX >> 1);
            *connection = Connection { generation, ..Connection::default() };
            self.free.push(key.slot);
        }
    }

    fn receive(&mut self, key: Key) {
        let Some(connection) = live(&mut self.connections, key) else { return };
        let Some(socket) = &connection.socket else { return };
        let (received_bytes, stamp_ns) = match receive_stamped(socket, &mut self.buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((0, _)) | Err(_) => return self.close(key),
            Ok(received) => received,
        };
        let reading = Reading::now();
        let received = &self.buffer[..received_bytes];
        let head = if connection.pending.is_empty() {
            received
        } else {
            connection.pending.extend_from_slice(received);
            &connection.pending
        };
        match request::scan(head) {
            Scan::Request(request) if !connection.waits && request.head_bytes == head.len() => {
                let endpoint = request.path().trim_start_matches('/').parse().unwrap_or(0);
                let arrived = stamp_ns.map_or(reading.mono, |ns| reading.mono_of_real_ns(ns));
                let (at, closes) = (arrived + self.hold, request.close);
                self.holds.unstamped += u64::from(stamp_ns.is_none());
                connection.pending.clear();
                connection.waits = true;
                self.due.push_back(Due { at, key, endpoint, arrived, closes });
            }
            Scan::Partial if !connection.waits => {
                if connection.pending.is_empty() {
                    connection.pending = received.to_vec();
                }
            }
            Scan::Request(_) | Scan::Partial | Scan::Refused(..) => self.close(key),
        }
    }

    fn answer_due(&mut self) {
        while self.due.front().is_some_and(|due| due.at <= Mono::now())
            && let Some(due) = self.due.pop_front()
        {
            self.answer(&due);
        }
    }

    fn answer(&mut self, due: &Due) {
        // It may have gone meanwhile.
        let Some(connection) = live(&mut self.connections, due.key) else { return };
        let Some(socket) = &connection.socket else { return };
        connection.waits = false;
        let (bytes, sent, departed);
        if due.closes {
            // Both leave in one packet when the connection closes. A FIN of its own would be merged into an answer that
            // nobody has read yet, and the kernel would give that the FIN's stamp (`tcp_try_coalesce`).
            bytes = LAST_ANSWER;
            sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::MORE);
            departed = Mono::now();
            self.close(due.key);
        } else {
            bytes = ANSWER;
            departed = Mono::now();
            sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL);
        }
        if sent == Ok(bytes.len()) {
            if self.holds.held.len() < self.holds_max {
                let Due { endpoint, arrived, .. } = *due;
                self.holds.held.push(Held { endpoint, arrived, departed });
            } else {
                self.holds.unnoted += 1;
            }
        }
        if sent != Ok(bytes.len()) {
            self.close(due.key);
        }
    }
}

fn live(connections: &mut [Connection], key: Key) -> Option<&mut Connection> {
    connections
        .get_mut(key.slot as usize)
        .filter(|connection| connection.generation == key.generation && connection.socket.is_some())
}
