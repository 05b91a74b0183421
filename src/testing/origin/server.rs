//! The event loop of the test origin: sockets, readiness, timers. What to answer is decided elsewhere.
//!
//! One thread, one epoll. Connections are registered once, edge-triggered, and never modified but for the
//! rare one whose send buffer is full; a request costs one `recv` and one `send`. A fresh connection is read
//! right after `accept`, and if that settles it, it never meets epoll at all.
//!
//! ```text
//!            accept                    request read               answer sent
//!   (none) ─────────► Reading ──────────────────────► Answering ──────────────► Reading | Lingering | closed
//!                        │  ▲ body read                  │ ▲ timer, writable
//!                        ▼  │                            ▼ │
//!                      Discarding                     (waiting)        faults: Silent, until the client goes
//! ```
//!
//! With TLS, what is received goes through the connection's [`Channel`] first, and what is sent does so last; between
//! the two everything is the same.
//!
//! Invariant: what a connection holds in memory is bounded, whatever the client sends or leaves unread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use rustix::time::Timespec;

use super::Shared;
use super::answer::{Answer, Asked, Cursor, End, Next};
use super::menu::{self, Dish};
use super::request::{self, Request, Scan};
use super::tls::{Channel, OriginTls};
use crate::clock::{Micros, Mono};
use crate::config;

/// Token of the eventfd that ends the loop.
pub(super) const TOKEN_STOP: u64 = u64::MAX;
/// Set in the tokens of listeners; connections have generation and slot, and never this bit.
pub(super) const TOKEN_LISTENER: u64 = 1 << 63;

/// A connection's place and which of the connections that ever had it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Key {
    pub(super) const fn token(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of the token")]
    pub(super) const fn of_token(token: u64) -> Self {
        Self { slot: token as u32, generation: (token >> 32) as u32 }
    }
}

/// An epoll that knows the listeners, by [`TOKEN_LISTENER`] and their places, and `stop`, by [`TOKEN_STOP`].
pub(super) fn listening(listeners: &[OwnedFd], stop: &OwnedFd) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, stop, EventData::new_u64(TOKEN_STOP), EventFlags::IN)?;
    for (index, listener) in listeners.iter().enumerate() {
        epoll::add(&epoll, listener, EventData::new_u64(TOKEN_LISTENER | index as u64), EventFlags::IN)?;
    }
    Ok(epoll)
}

/// The state of the loop.
pub(super) struct Server {
    epoll: OwnedFd,
    listeners: Vec<OwnedFd>,
    shared: Arc<Shared>,
    connections: Vec<Connection>,
    free: Vec<u32>,
    timers: BinaryHeap<Reverse<(Mono, Key)>>,
    /// Connections that have had their turn of reading, and have more to read.
    unread: Vec<Key>,
    answers: Answers,
    tls: Option<OriginTls>,
    /// Received bytes, until they are looked at.
    buffer: Box<[u8]>,
    /// Given up when descriptors run out, so that the connection that is too many can be refused.
    spare: Option<File>,
    /// How long to ask for events without sleeping after the last one.
    spin: Micros,
    /// How long to sleep after events before asking for more.
    rest: Micros,
}

struct Connection {
    socket: Option<OwnedFd>,
    generation: u32,
    phase: Phase,
    tls: Option<Box<Channel>>,
    /// epoll knows it.
    registered: bool,
    /// epoll knows it for writing, too.
    registered_writable: bool,
    /// There may be something to read: the edge was seen, and not all has been read since.
    readable: bool,
    /// It stands in [`Server::unread`].
    unread: bool,
    /// The client will send no more; what it sent may still be unread.
    peer_done: bool,
    /// Read, and not yet understood: part of a head, or what came behind a request being answered.
    pending: Vec<u8>,
}

enum Phase {
    Reading,
    /// A body is read and thrown away; then the answer follows.
    Discarding {
        left_bytes: u64,
        answer: Rc<Answer>,
        arrival: Option<usize>,
    },
    /// `waiting` until its timer fires.
    Answering {
        answer: Rc<Answer>,
        cursor: Cursor,
        arrival: Option<usize>,
        waiting: bool,
    },
    /// Nothing more will be said; the client's leaving is awaited.
    Silent,
    /// Half-closed by us; input is thrown away until the client closes, or a timer fires.
    Lingering,
}

impl Phase {
    const fn takes_input(&self) -> bool {
        matches!(self, Self::Reading | Self::Discarding { .. } | Self::Lingering)
    }
}

impl Server {
    /// Sets the loop up; `stop` ends it when it becomes readable.
    pub(super) fn new(
        listeners: Vec<OwnedFd>,
        stop: &OwnedFd,
        shared: Arc<Shared>,
        (spin, rest): (Micros, Micros),
        tls: Option<OriginTls>,
    ) -> io::Result<Self> {
        let epoll = listening(&listeners, stop)?;
        Ok(Self {
            epoll,
            listeners,
            shared,
            connections: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            unread: Vec::new(),
            answers: Answers::default(),
            tls,
            buffer: vec![0; config::ORIGIN_READ_BYTES].into_boxed_slice(),
            spare: File::open("/dev/null").ok(),
            spin,
            rest,
        })
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(config::ORIGIN_EVENTS);
        let mut spin_until = Mono::default();
        loop {
            let spinning = self.spin > Micros(0) && Mono::now() < spin_until;
            let wait = match self.timers.peek() {
                _ if spinning || !self.unread.is_empty() => Some(Timespec::default()),
                Some(Reverse((at, _))) => Some(until(*at)),
                None => None,
            };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            if self.spin > Micros(0) && !events.is_empty() {
                spin_until = Mono::now() + self.spin;
            }
            let rests = self.rest > Micros(0) && !events.is_empty();
            for event in events.drain(..) {
                let flags = event.flags;
                match event.data.u64() {
                    TOKEN_STOP => return Ok(()),
                    token if token & TOKEN_LISTENER != 0 => self.accept(token & !TOKEN_LISTENER),
                    token => self.ready(Key::of_token(token), flags),
                }
            }
            if wait.is_some() {
                self.fire();
                for key in mem::take(&mut self.unread) {
                    if let Some(connection) = self.connection(key) {
                        connection.unread = false;
                        self.receive(key);
                    }
                }
            }
            if rests {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "resting is what was asked for, and a stop waits for it"
                )]
                std::thread::sleep(self.rest.as_duration());
            }
        }
    }

    fn fire(&mut self) {
        let now = Mono::now();
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(connection) = self.connection(key) else { continue };
            match &mut connection.phase {
                Phase::Answering { waiting, .. } => {
                    *waiting = false;
                    self.proceed(key);
                }
                Phase::Lingering => self.close(key),
                Phase::Reading | Phase::Discarding { .. } | Phase::Silent => {}
            }
        }
    }

    fn arm(&mut self, key: Key, at: Mono) {
        // A connection has one timer that matters; those of connections long gone are swept out here.
        if self.timers.len() > 2 * self.connections.len() + 64 {
            let connections = &self.connections;
            let lives = |key: &Key| connections[key.slot as usize].generation == key.generation;
            self.timers.retain(|Reverse((_, key))| lives(key));
        }
        self.timers.push(Reverse((at, key)));
    }

    // --- connections ------------------------------------------------------------------------------------

    fn accept(&mut self, listener: u64) {
        let index = usize::try_from(listener).unwrap_or(usize::MAX);
        for _ in 0..config::ORIGIN_ACCEPTS_PER_TURN {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(&self.listeners[index], flags) {
                Ok(socket) => self.open(socket),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    // Left in the backlog it would wake us for ever; with a spare descriptor it is refused.
                    self.spare = None;
                    drop(rustix::net::accept_with(&self.listeners[index], flags));
                    self.spare = File::open("/dev/null").ok();
                    self.shared.count(&self.shared.refused, 1);
                }
                Err(_) => return,
            }
        }
    }

    fn open(&mut self, socket: OwnedFd) {
        let tls = match &self.tls {
            None => None,
            // Without random numbers there is nothing to say to anybody.
            Some(tls) => match Channel::new(tls) {
                None => return,
                Some(channel) => Some(Box::new(channel)),
            },
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection {
                socket: None,
                generation: 0,
                phase: Phase::Reading,
                tls: None,
                registered: false,
                registered_writable: false,
                readable: false,
                unread: false,
                peer_done: false,
                pending: Vec::new(),
            });
            u32::try_from(self.connections.len() - 1).unwrap_or(u32::MAX)
        });
        let connection = &mut self.connections[slot as usize];
        connection.socket = Some(socket);
        connection.phase = Phase::Reading;
        connection.tls = tls;
        connection.registered = false;
        connection.registered_writable = false;
        connection.readable = true;
        connection.unread = false;
        connection.peer_done = false;
        connection.pending.clear();
        let key = Key { slot, generation: connection.generation };
        self.shared.count(&self.shared.connections, 1);
        self.shared.count(&self.shared.open, 1);
        // The request has often come in with the connection: try before paying for readiness.
        self.receive(key);
        self.register(key);
    }

    /// Makes sure that epoll reports on the connection, if it lives.
    fn register(&mut self, key: Key) {
        let epoll = &self.epoll;
        let Some(connection) = live(&mut self.connections, key) else { return };
        let Some(socket) = &connection.socket else { return };
        if connection.registered {
            return;
        }
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        connection.registered = true;
        if epoll::add(epoll, socket, EventData::new_u64(key.token()), flags).is_err() {
            self.close(key);
        }
    }

    /// Has epoll report room in the send buffer, too.
    fn register_writable(&mut self, key: Key) {
        self.register(key);
        let epoll = &self.epoll;
        let Some(connection) = live(&mut self.connections, key) else { return };
        let Some(socket) = &connection.socket else { return };
        if connection.registered_writable {
            return;
        }
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        connection.registered_writable = true;
        if epoll::modify(epoll, socket, EventData::new_u64(key.token()), flags).is_err() {
            self.close(key);
        }
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        live(&mut self.connections, key)
    }

    fn close(&mut self, key: Key) {
        if let Some(connection) = live(&mut self.connections, key) {
            connection.socket = None;
            connection.tls = None;
            // 31 bits: the highest marks listeners.
            connection.generation = (connection.generation + 1) & (u32::MAX >> 1);
            connection.phase = Phase::Reading;
            if connection.pending.capacity() > config::ORIGIN_READ_BYTES {
                connection.pending = Vec::new();
            }
            self.free.push(key.slot);
            self.shared.count(&self.shared.open, u64::MAX);
        }
    }

    fn reset(&mut self, key: Key) {
        if let Some(Connection { socket: Some(socket), .. }) = self.connection(key) {
            // A linger time of zero turns close into RST. If it fails, the connection is dead already.
            let _dead = rustix::net::sockopt::set_socket_linger(&*socket, Some(std::time::Duration::ZERO));
        }
        self.close(key);
    }

    /// Closes so that the answer arrives: not by RST, although input is or may be unread. Every caller comes
    /// from or goes on to [`Self::receive`], which then reads and drops that input.
    fn close_gently(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        if !connection.readable && connection.pending.is_empty() {
            return self.close(key);
        }
        connection.pending.clear();
        connection.phase = Phase::Lingering;
        if let Some(socket) = &connection.socket {
            let _gone = rustix::net::shutdown(socket, Shutdown::Write);
        }
        self.register(key);
        self.arm(key, Mono::now() + config::ORIGIN_LINGER);
    }

    fn ready(&mut self, key: Key, flags: EventFlags) {
        let Some(connection) = self.connection(key) else { return };
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.close(key);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            connection.readable = true;
            connection.peer_done |= flags.contains(EventFlags::RDHUP);
        }
        if flags.contains(EventFlags::OUT) && !self.flush(key) {
            return;
        }
        let Some(connection) = self.connection(key) else { return };
        match &connection.phase {
            Phase::Silent if connection.peer_done => self.close(key),
            Phase::Answering { waiting: false, .. } if flags.contains(EventFlags::OUT) => self.proceed(key),
            phase if phase.takes_input() => self.receive(key),
            _ => {}
        }
    }

    // --- in ---------------------------------------------------------------------------------------------

    /// Reads and handles input while there is any and it is wanted.
    fn receive(&mut self, key: Key) {
        let mut buffer = mem::take(&mut self.buffer);
        let mut reads_left = config::ORIGIN_READS_PER_TURN;
        while let Some(connection) = live(&mut self.connections, key) {
            let Some(socket) = &connection.socket else { break };
            if !connection.readable || !connection.phase.takes_input() {
                break;
            }
            if reads_left == 0 {
                if !mem::replace(&mut connection.unread, true) {
                    self.unread.push(key);
                }
                break;
            }
            reads_left -= 1;
            let received_bytes = match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => {
                    self.close(key);
                    break;
                }
                Ok((bytes, _)) => bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    connection.readable = false;
                    break;
                }
                Err(_) => {
                    self.close(key);
                    break;
                }
            };
            // A short read has emptied the socket: more input means a new edge. After the client's last
            // byte there is no other edge, and the end itself must be read.
            connection.readable = connection.peer_done || received_bytes == buffer.len();
            self.shared.count(&self.shared.bytes_in, received_bytes as u64);
            if connection.tls.is_some() {
                self.receive_tls(key, &buffer[..received_bytes]);
            } else if connection.pending.is_empty() {
                let used_bytes = self.consume(key, &buffer[..received_bytes]);
                if let Some(connection) = live(&mut self.connections, key) {
                    connection.pending.extend_from_slice(&buffer[used_bytes..received_bytes]);
                }
            } else {
                connection.pending.extend_from_slice(&buffer[..received_bytes]);
                self.consume_pending(key);
            }
        }
        self.buffer = buffer;
    }

    /// Handles what came over TLS.
    fn receive_tls(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = live(&mut self.connections, key) else { return };
        let Some(channel) = &mut connection.tls else { return };
        if matches!(connection.phase, Phase::Lingering) {
            return;
        }
        let received = channel.received(bytes, &mut connection.pending);
        if !self.flush(key) {
            return;
        }
        if received.is_err() {
            // What follows cannot be understood either; a gentle close lets the alert arrive.
            let Some(connection) = self.connection(key) else { return };
            connection.readable = true;
            return self.close_gently(key);
        }
        self.consume_pending(key);
        let gone = |connection: &Connection| {
            let closed = connection.tls.as_ref().is_some_and(|channel| channel.client_closed());
            closed && matches!(connection.phase, Phase::Reading | Phase::Discarding { .. })
        };
        if self.connection(key).is_some_and(|connection| gone(connection)) {
            self.end(key, End::Close);
        }
    }

    fn consume_pending(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let mut pending = mem::take(&mut connection.pending);
        let used_bytes = self.consume(key, &pending);
        if let Some(connection) = self.connection(key) {
            pending.drain(..used_bytes);
            connection.pending = pending;
        }
    }

    /// Handles input and returns how many bytes of it are done with.
    fn consume(&mut self, key: Key, input: &[u8]) -> usize {
        let mut used_bytes = 0;
        while used_bytes < input.len() {
            let rest = &input[used_bytes..];
            let Some(connection) = live(&mut self.connections, key) else { return input.len() };
            match &mut connection.phase {
                Phase::Lingering => return input.len(),
                Phase::Answering { .. } | Phase::Silent => break,
                Phase::Discarding { left_bytes, .. } => {
                    let body_bytes = usize::try_from(*left_bytes).unwrap_or(usize::MAX).min(rest.len());
                    used_bytes += body_bytes;
                    *left_bytes -= body_bytes as u64;
                    if *left_bytes == 0
                        && let Phase::Discarding { answer, arrival, .. } =
                            mem::replace(&mut connection.phase, Phase::Reading)
                    {
                        self.answer(key, answer, arrival);
                    }
                }
                Phase::Reading => match request::scan(rest) {
                    Scan::Partial => break,
                    Scan::Request(request) => {
                        used_bytes += request.head_bytes;
                        // Who sends more at once may be sending still: read on before any close.
                        connection.readable |= request.body_bytes < (input.len() - used_bytes) as u64;
                        self.request(key, &request);
                    }
                    Scan::Refused(status, why) => {
                        // What follows cannot be understood; a gentle close reads and drops the rest.
                        connection.readable = true;
                        let asked = Asked { head_only: false, close: true };
                        self.answer(key, Rc::new(Answer::new(&Dish::text(status, why), asked)), None);
                        return input.len();
                    }
                },
            }
        }
        used_bytes
    }

    fn request(&mut self, key: Key, request: &Request<'_>) {
        self.shared.count(&self.shared.requests, 1);
        let asked = Asked { head_only: request.head_request, close: request.close };
        let answer = self.answers.find(request.path(), asked, &self.shared);
        let arrival = self.shared.arrived(request.target);
        if request.body_bytes == 0 {
            return self.answer(key, answer, arrival);
        }
        let Some(connection) = live(&mut self.connections, key) else { return };
        connection.phase = Phase::Discarding { left_bytes: request.body_bytes, answer, arrival };
        if request.expects_continue
            && let Some(socket) = &connection.socket
        {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            // A send buffer without room for this belongs to a client that does not read: let it wait.
            let _full = match &mut connection.tls {
                None => rustix::net::send(socket, interim, SendFlags::NOSIGNAL),
                tls => transmit(socket, tls, &self.shared, interim, SendFlags::empty()),
            };
        }
    }

    // --- out --------------------------------------------------------------------------------------------

    /// Sends what TLS has left. Whether the connection lives on.
    fn flush(&mut self, key: Key) -> bool {
        let Some(connection) = live(&mut self.connections, key) else { return false };
        let (Some(socket), Some(channel)) = (&connection.socket, &mut connection.tls) else { return true };
        match flush(socket, channel, &self.shared) {
            Ok(()) => {}
            Err(Errno::AGAIN) => self.register_writable(key),
            Err(_) => self.close(key),
        }
        self.connection(key).is_some()
    }

    /// Starts an answer, and in the usual case ends it.
    fn answer(&mut self, key: Key, answer: Rc<Answer>, arrival: Option<usize>) {
        let Some(connection) = live(&mut self.connections, key) else { return };
        let Some(socket) = &connection.socket else { return };
        let mut cursor = Cursor::default();
        if let Some((bytes, closes)) = answer.plain() {
            self.shared.departs(arrival);
            // The FIN that follows travels with the last bytes, instead of costing both sides a packet more.
            let more = if closes { SendFlags::MORE } else { SendFlags::empty() };
            // An error is met again, and dealt with, on the slow path.
            if let Ok(sent_bytes) = transmit(socket, &mut connection.tls, &self.shared, bytes, more) {
                if sent_bytes == bytes.len() && !has_output(&connection.tls) {
                    if closes {
                        self.end(key, End::Close);
                    }
                    return self.shared.departed(arrival);
                }
                cursor.sent(sent_bytes);
            }
        }
        connection.phase = Phase::Answering { answer, cursor, arrival, waiting: false };
        self.play(key);
    }

    /// Goes on with an answer, and then with the input that came in meanwhile.
    fn proceed(&mut self, key: Key) {
        self.play(key);
        if self.connection(key).is_some_and(|connection| connection.phase.takes_input()) {
            self.consume_pending(key);
            self.receive(key);
        }
    }

    /// Plays the answer as far as it goes now.
    fn play(&mut self, key: Key) {
        let mut writes_left = config::ORIGIN_WRITES_PER_TURN;
        let mut bytes_left = config::ORIGIN_WRITE_BYTES_PER_TURN;
        loop {
            let Some(Connection { socket: Some(socket), phase, tls, .. }) = live(&mut self.connections, key)
            else {
                return;
            };
            let Phase::Answering { answer, cursor, arrival, waiting } = phase else { return };
            let arrival = *arrival;
            match cursor.next(answer) {
                Next::Send(bytes) if writes_left > 0 && bytes_left > 0 => {
                    self.shared.departs(arrival);
                    match transmit(socket, tls, &self.shared, bytes, SendFlags::empty()) {
                        Ok(sent_bytes) => {
                            cursor.sent(sent_bytes);
                            writes_left -= 1;
                            bytes_left = bytes_left.saturating_sub(sent_bytes);
                        }
                        Err(Errno::INTR) => {}
                        Err(Errno::AGAIN) => return self.register_writable(key),
                        Err(_) => return self.close(key),
                    }
                }
                // Others first; a timer that is due at once brings us back.
                Next::Send(_) => {
                    *waiting = true;
                    self.register(key);
                    return self.arm(key, Mono::now());
                }
                Next::Wait(span) => {
                    *waiting = true;
                    self.register(key);
                    return self.arm(key, Mono::now() + span);
                }
                // The last of it is with TLS still; when it has gone we are back.
                Next::End(_) if has_output(tls) => {
                    if !self.flush(key) || self.connection(key).is_some_and(|live| has_output(&live.tls)) {
                        return;
                    }
                }
                Next::End(end) => {
                    *phase = Phase::Reading;
                    self.shared.departed(arrival);
                    return self.end(key, end);
                }
            }
        }
    }

    fn end(&mut self, key: Key, end: End) {
        match end {
            End::KeepAlive => {}
            End::Close => {
                if let Some(channel) = self.connection(key).and_then(|connection| connection.tls.as_mut()) {
                    channel.close();
                }
                // All else has gone: there is room for it, or the client is not there to miss it.
                if self.flush(key) {
                    self.close_gently(key);
                }
            }
            End::Reset => self.reset(key),
            End::Silence => {
                if let Some(connection) = self.connection(key) {
                    connection.phase = Phase::Silent;
                    connection.pending = Vec::new();
                    if connection.peer_done {
                        self.close(key);
                    }
                }
            }
        }
    }
}

fn live(connections: &mut [Connection], key: Key) -> Option<&mut Connection> {
    connections
        .get_mut(key.slot as usize)
        .filter(|connection| connection.generation == key.generation && connection.socket.is_some())
}

/// Sends some of the payload, through TLS if there is any: how much of it is taken care of. Of TLS something may be
/// left then ([`has_output`]), and has to be sent before more is taken.
fn transmit(
    socket: &OwnedFd,
    tls: &mut Option<Box<Channel>>,
    shared: &Shared,
    bytes: &[u8],
    flags: SendFlags,
) -> io::Result<usize> {
    let Some(channel) = tls else {
        let sent_bytes = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | flags)?;
        shared.count(&shared.bytes_out, sent_bytes as u64);
        return Ok(sent_bytes);
    };
    flush(socket, channel, shared)?;
    let taken_bytes = channel.write(bytes);
    if taken_bytes == 0 {
        return Err(Errno::PIPE);
    }
    match flush(socket, channel, shared) {
        Ok(()) | Err(Errno::AGAIN) => Ok(taken_bytes),
        Err(error) => Err(error),
    }
}

/// Sends what TLS has left; `AGAIN` if not all of it could go.
fn flush(socket: &OwnedFd, channel: &mut Channel, shared: &Shared) -> io::Result<()> {
    while !channel.output().is_empty() {
        match rustix::net::send(socket, channel.output(), SendFlags::NOSIGNAL) {
            Ok(sent_bytes) => {
                channel.sent(sent_bytes);
                shared.count(&shared.bytes_out, sent_bytes as u64);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn has_output(tls: &Option<Box<Channel>>) -> bool {
    tls.as_ref().is_some_and(|channel| !channel.output().is_empty())
}

/// The time left, for the kernel.
pub(super) fn until(at: Mono) -> Timespec {
    let left = at.since(Mono::now());
    // Waits are bounded by `ORIGIN_WAIT_MAX`, so that the seconds fit.
    Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
}

/// The answers, made once per path and kind of request.
#[derive(Default)]
struct Answers {
    by_path: HashMap<Box<str>, Entry>,
    held_bytes: usize,
}

struct Entry {
    requests: Arc<AtomicU64>,
    kinds: [Option<Rc<Answer>>; 4],
}

impl Answers {
    fn find(&mut self, path: &str, asked: Asked, shared: &Shared) -> Rc<Answer> {
        let kind = usize::from(asked.head_only) * 2 + usize::from(asked.close);
        if let Some(entry) = self.by_path.get(path) {
            shared.count(&entry.requests, 1);
            if let Some(answer) = &entry.kinds[kind] {
                return Rc::clone(answer);
            }
        }
        let answer = Rc::new(Answer::new(&menu::order(path.as_bytes()), asked));
        let held_bytes = self.held_bytes + answer.held_bytes();
        if held_bytes > config::ORIGIN_ANSWER_BYTES_MAX {
            return answer;
        }
        if !self.by_path.contains_key(path) {
            if self.by_path.len() >= config::ORIGIN_ANSWERS_MAX {
                return answer;
            }
            let entry = Entry { requests: shared.new_path(path), kinds: [const { None }; 4] };
            self.by_path.insert(path.into(), entry);
        }
        if let Some(entry) = self.by_path.get_mut(path) {
            entry.kinds[kind] = Some(Rc::clone(&answer));
            self.held_bytes = held_bytes;
        }
        answer
    }
}
