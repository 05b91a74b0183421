//! The shard's io_uring: sockets in, [`Event`]s out. The crate's unsafe code lives here, and only here.
//!
//! One ring per shard, set up for one thread that batches: `SINGLE_ISSUER | DEFER_TASKRUN` (completions run
//! only inside our own `io_uring_enter`), a provided buffer ring, and one enter per turn. A connection costs
//!
//! ```text
//! fresh:   CONNECT, then send(2) and RECVMSG(multishot)
//! more:    send(2); the receive is armed already
//! watched: POLL_ADD, once, if the connection lives on after its first bytes
//! close:   (ASYNC_CANCEL if something is in flight) CLOSE
//! ```
//!
//! What is sent leaves by `send(2)` and not through the ring: so its stamp can be taken right before it. An entry
//! leaves when the ring is entered, and a linked one when the kernel comes to run its work, behind that of other
//! connections: at full load that was 2 ms that looked like the target's. What does not fit the socket's buffer goes
//! through the ring: there is no hurry left.
//!
//! The receive is a multishot `RECVMSG` and not a `RECV` because only a message carries control data: with
//! `SO_TIMESTAMPING` the kernel tells when it had the bytes (`Documentation/networking/timestamping.rst`).
//! Each buffer then holds `io_uring_recvmsg_out | control data | payload`.
//!
//! A multishot receive cannot be trusted with a RST. When bytes and RST come so close together that the kernel
//! handles both wake-ups at once, it receives once, finds the queue empty and waits for a third, which never
//! comes (liburing issue 1549; a FIN is safe over TCP, because `tcp_inq_hint` says that there is more). Hence
//! the poll, whose mask is empty and thus tells of errors and hang-ups alone. It is only a hint: the receive is
//! cancelled and armed anew until it has said itself how the connection ended, so that no byte in front of the
//! RST is lost.
//!
//! A question to a DNS server is the same on a datagram socket, which CONNECT gives a port of its own and a
//! kernel that drops what comes from elsewhere.
//!
//! In scope: the life of file descriptors and of everything the kernel has a pointer to.
//! Out of scope: what to connect to and what the bytes mean ([`super::engine`]).
//!
//! Safety, the argument in one place. The kernel holds pointers to:
//! - *socket addresses* and the *timespec* and *message header*: read while the entry is being submitted, and
//!   not after (`io_connect_prep`, `io_timeout_prep`, `io_recvmsg_prep`). They live in boxes that are as old as
//!   the ring and are reused only after a submission.
//! - *bytes to send*: read until the SEND completes. `Socket::sending` keeps them, and is let go only on the
//!   SEND's completion, or with the ring.
//! - *receive buffers*: written at any time while the kernel owns them. We read one only between the
//!   completion that names it and giving it back.
//!
//! When a ring is dropped the kernel ends what is in flight a little later than `close(2)` returns. So nothing
//! it may still touch is ever freed: receive buffers live as long as the process, and the bytes of an
//! unfinished SEND are leaked. A process makes as many rings as it has shards, once.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use glommio::io::BufferedFile;
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socket_with, sockopt};

use super::engine::{Close, ConnId, Event, NoSocket, Route, Wire};
use crate::clock::{Micros, Mono, Reading};
use crate::config;
use crate::dns::Transport;
use crate::probe::{Broken, Departure, Source};
use crate::sample::MissReason;

/// One shard's ring. Belongs to the thread that made it: the kernel refuses any other.
pub struct Ring {
    sockets: Sockets,
    buffers: Buffers,
    /// The completions of the turn, copied out so that handling them may submit.
    batch: Vec<Completion>,
}

/// The sockets of a shard, and the submission side of its ring.
pub struct Sockets {
    uring: IoUring,
    sockets: Vec<Socket>,
    /// Copies of addresses of CONNECT entries not submitted yet.
    addresses: Box<[Address]>,
    addresses_used: usize,
    message: Box<libc::msghdr>,
    timespec: Box<Timespec>,
    /// The instant for which a wake-up is armed.
    wakeup_at: Option<Mono>,
    wakeup: OwnedFd,
    /// Enters so far: a cost that is counted, not guessed.
    enters: u64,
    /// The local ports that connections take, if not any.
    ports: Option<RangeInclusive<u16>>,
    /// Whether to ask the kernel when bytes arrived.
    stamps: bool,
    /// A socket that does nothing but ask for timestamps: see [`keep_timestamps_on`].
    _timestamps: Option<OwnedFd>,
}

/// What an entry was for; the low byte of `user_data`. Bits, so that a set of them fits a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Connect = 1,
    Send = 2,
    Receive = 4,
    Watch = 8,
}

#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// The ring's side of a connection. Same index as the engine's.
#[derive(Default)]
struct Socket {
    fd: Option<OwnedFd>,
    generation: u32,
    /// Bits of [`Op`] whose completion is owed.
    owed: u8,
    closing: bool,
    /// The poll for errors and hang-ups has been asked for,
    watched: bool,
    /// and has told of one: the receive may have missed it.
    hung_up: bool,
    /// The bytes that SEND sends from some place on: the kernel reads them until it completes.
    sending: Option<(Arc<[u8]>, usize)>,
    /// What is to be sent after that.
    unsent: Option<Arc<[u8]>>,
    /// What sending failed with.
    send_error: Option<Errno>,
}

const BUFFER_GROUP: u16 = 0;

impl Ring {
    /// Sets up ring, buffers and wake-up. Connections take their local ports from `ports`, if that is given: shards
    /// that share all ports would look for free ones in each other's way. Without `stamps` the kernel is not asked when
    /// bytes arrived: what that costs is for `bench --ab` to find out.
    ///
    /// Errors: those of `io_uring_setup(2)`; `EPERM` and `ENOSYS` mean that io_uring is forbidden here, which
    /// `ringprobe doctor` explains.
    pub fn new(ports: Option<RangeInclusive<u16>>, stamps: bool) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config::RING_COMPLETIONS)
            .build(config::RING_ENTRIES)?;
        let wakeup = eventfd(0, EventfdFlags::CLOEXEC)?;
        uring.submitter().register_eventfd(wakeup.as_raw_fd())?;
        let buffers = Buffers::register(&uring)?;
        // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control data.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        message.msg_controllen = CONTROL_BYTES as _;
        let mut ring = Self {
            sockets: Sockets {
                uring,
                sockets: Vec::new(),
                addresses: vec![Address::ZERO; config::RING_ENTRIES as usize].into_boxed_slice(),
                addresses_used: 0,
                message,
                timespec: Box::new(Timespec::new()),
                wakeup_at: None,
                wakeup,
                enters: 0,
                ports,
                stamps,
                _timestamps: stamps.then(keep_timestamps_on).flatten(),
            },
            buffers,
            batch: Vec::with_capacity(config::RING_COMPLETIONS as usize),
        };
        ring.sockets.watch_wakeup(false);
        Ok(ring)
    }

    /// Submits what was asked for, waits up to `wait` for something to happen (`None`: does not wait), and
    /// hands out what has. One `io_uring_enter`.
    ///
    /// `on` may ask for more through the [`Sockets`] it is given; that is submitted in the next turn.
    pub fn turn(
        &mut self,
        wait: Option<Duration>,
        mut on: impl FnMut(&mut Sockets, ConnId, Event<'_>, &Reading),
    ) -> io::Result<()> {
        self.sockets.enter(wait)?;
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(self.sockets.uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        let reading = Reading::now();
        for completion in batch.drain(..) {
            self.complete(&completion, &reading, &mut on);
        }
        self.batch = batch;
        self.buffers.publish();
        Ok(())
    }

    /// The sockets, to ask for things between turns.
    pub const fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    fn complete(
        &mut self,
        completion: &Completion,
        reading: &Reading,
        on: &mut impl FnMut(&mut Sockets, ConnId, Event<'_>, &Reading),
    ) {
        let buffer = cqueue::buffer_select(completion.flags);
        let message = buffer.map(|id| Message::parse(self.buffers.bytes(id, completion.result)));
        if completion.user_data == WAKEUP {
            self.sockets.wakeup_at = None;
        } else if let Some((conn, op)) = unpack(completion.user_data)
            && let Some(event) = self.sockets.settle(conn, op, completion, message, reading)
        {
            on(&mut self.sockets, conn, event, reading);
        }
        if let Some(id) = buffer {
            self.buffers.give_back(id);
        }
    }
}

impl Sockets {
    /// How often the kernel was entered.
    #[must_use]
    pub const fn enters(&self) -> u64 {
        self.enters
    }

    /// The file to read eight bytes from in order to sleep until the ring has something.
    ///
    /// # Errors
    /// `dup(2)`'s.
    pub fn wakeup_file(&self) -> io::Result<BufferedFile> {
        let copy = self.wakeup.try_clone()?;
        // SAFETY: the descriptor is an eventfd of its own, whose ownership passes to the file.
        Ok(unsafe { BufferedFile::from_raw_fd(copy.into_raw_fd()) })
    }

    /// Whether completions signal the wake-up file. Off while the shard waits in the ring itself: a signal
    /// per completion is not free.
    pub fn watch_wakeup(&mut self, on: bool) {
        let completions = self.uring.completion();
        if on {
            completions.enable_eventfd();
        } else {
            completions.disable_eventfd();
        }
    }

    /// Makes sure that the ring has something at `at`, for a shard that sleeps elsewhere.
    pub fn wake_at(&mut self, at: Mono) {
        if self.wakeup_at.is_some_and(|armed| armed <= at) {
            return;
        }
        self.wakeup_at = Some(at);
        *self.timespec = Timespec::new().sec(at.0 / 1_000_000_000).nsec(subsec_nanos(at.0));
        let timeout = opcode::Timeout::new(&raw const *self.timespec)
            .flags(TimeoutFlags::ABS)
            .build()
            .user_data(WAKEUP);
        self.push(&[timeout]);
    }

    /// Whether completions are waiting to be looked at.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.enters += 1;
        self.addresses_used = 0;
        let result = match wait {
            None => self.uring.submit_and_wait(0),
            Some(wait) => {
                let timespec = Timespec::from(wait);
                let arguments = SubmitArgs::new().timespec(&timespec);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            // Out of time, interrupted, or completions must be taken before more can be submitted.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Queues entries that belong together. Links do not reach across submissions, hence the room first.
    fn push(&mut self, entries: &[squeue::Entry]) {
        if self.room() < entries.len() {
            self.flush();
        }
        // SAFETY: see the module's argument: every pointer in `entries` is to a box as old as the ring, to a
        // request kept in its `Socket` until the completion, or to nothing.
        unsafe { self.uring.submission().push_multiple(entries) }.expect("room was made");
    }

    fn room(&mut self) -> usize {
        let queue = self.uring.submission();
        queue.capacity() - queue.len()
    }

    /// Submits without waiting, until the queue is empty. The kernel takes entries unless its completion
    /// side is overflowing, so a bounded number of tries is plenty.
    fn flush(&mut self) {
        for _ in 0..1_000 {
            self.enters += 1;
            let _ = self.uring.submit();
            if self.uring.submission().is_empty() {
                break;
            }
        }
        self.addresses_used = 0;
        assert!(self.uring.submission().is_empty(), "the kernel takes submissions");
    }

    fn socket(&mut self, conn: ConnId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(conn.index as usize)?;
        (socket.generation == conn.generation && socket.fd.is_some()).then_some(socket)
    }

    /// The books of one completion, and what the engine should hear of it.
    fn settle<'a>(
        &mut self,
        conn: ConnId,
        op: Op,
        completion: &Completion,
        message: Option<Message<'a>>,
        reading: &Reading,
    ) -> Option<Event<'a>> {
        let socket = self.socket(conn)?;
        let more = cqueue::more(completion.flags);
        if !more {
            socket.owed &= !(op as u8);
        }
        let sending = if op == Op::Send { socket.sending.take() } else { None };
        if socket.closing {
            return (socket.owed == 0).then(|| {
                self.release(conn);
                Event::Released
            });
        }
        match (op, completion.result) {
            (Op::Connect, 0) => {
                let round_trip = socket.fd.as_ref().and_then(handshake_time);
                self.push_receive(conn);
                Some(Event::Connected { round_trip })
            }
            (Op::Send, 0) if let Some(errno) = socket.send_error => Some(Event::Broken(broken(op, errno))),
            (Op::Send, 0) => {
                self.send_failed(conn, Errno::PIPE);
                None
            }
            (Op::Send, sent @ 1..) => {
                let sent = sent.unsigned_abs();
                let rest = sending.map(|(bytes, from)| (bytes, from + sent as usize));
                let rest = rest.filter(|(bytes, from)| *from < bytes.len());
                if let Some((bytes, from)) = rest.or_else(|| Some((socket.unsent.take()?, 0))) {
                    self.push_send(conn, bytes, from);
                }
                Some(Event::Sent { bytes: sent.into(), by: reading.mono })
            }
            (Op::Receive, 0..) => match message {
                Some(Message { payload: bytes @ [_, ..], stamp_ns }) => {
                    if !more {
                        self.push_receive(conn);
                    } else if socket.hung_up {
                        // The cancellation came while the receive was busy, and did not find it.
                        self.push_cancel(conn, Op::Receive);
                    }
                    let arrived = stamp_ns.map(|ns| reading.mono_of_real_ns(ns));
                    Some(Event::Received { bytes, arrived })
                }
                // The end. If it was a RST, sending may have been told, and then nobody else is.
                Some(Message { payload: [], .. }) | None => {
                    let sending = socket.send_error.map(|errno| broken(Op::Send, errno));
                    Some(Event::Broken(sending.unwrap_or(Broken::Closed)))
                }
            },
            (Op::Receive, failed) if failed == -libc::ECANCELED && socket.hung_up => {
                self.push_receive(conn);
                None
            }
            (Op::Watch, 0..) if completion.result & HUNG_UP != 0 => {
                socket.hung_up = true;
                if socket.owed & Op::Receive as u8 != 0 {
                    self.push_cancel(conn, Op::Receive);
                }
                None
            }
            (Op::Watch, _) => None,
            // The rest of a chain whose head has failed, and has been reported.
            (_, failed) if failed == -libc::ECANCELED => None,
            // All buffers were in use; they are given back by the end of the turn.
            (Op::Receive, failed) if failed == -libc::ENOBUFS => {
                self.push_receive(conn);
                None
            }
            (Op::Send, failed) => {
                self.send_failed(conn, Errno::from_raw_os_error(-failed));
                None
            }
            // No local address is what a machine without IPv6 says, too.
            (Op::Connect, failed)
                if failed == -libc::EADDRNOTAVAIL
                    && socket.fd.as_ref().is_some_and(is_ipv6)
                    && !has_ipv6() =>
            {
                Some(Event::Broken(Broken::Unreachable))
            }
            (op, failed) => Some(Event::Broken(broken(op, Errno::from_raw_os_error(-failed)))),
        }
    }

    /// Sends `bytes` from `from` on through the ring.
    fn push_send(&mut self, conn: ConnId, bytes: Arc<[u8]>, from: usize) {
        let entry = send_entry(self.raw_fd(conn), &bytes[from..]);
        self.sockets[conn.index as usize].sending = Some((bytes, from));
        self.push(&[entry.user_data(pack(conn, Op::Send))]);
        self.owe(conn, Op::Send as u8);
    }

    /// Sending has failed. Where the origin is gone, what it sent before is still to be read: the receive, armed anew
    /// because it may have missed a RST, comes to the end by itself. Other failures are told by a completion.
    fn send_failed(&mut self, conn: ConnId, errno: Errno) {
        let socket = &mut self.sockets[conn.index as usize];
        socket.send_error = Some(errno);
        if matches!(errno, Errno::PIPE | Errno::CONNRESET) && socket.owed & Op::Receive as u8 != 0 {
            socket.hung_up = true;
            self.push_cancel(conn, Op::Receive);
        } else {
            self.push(&[opcode::Nop::new().build().user_data(pack(conn, Op::Send))]);
            self.owe(conn, Op::Send as u8);
        }
    }

    fn push_receive(&mut self, conn: ConnId) {
        let entry = self.receive_entry(self.raw_fd(conn)).user_data(pack(conn, Op::Receive));
        self.push(&[entry]);
        self.owe(conn, Op::Receive as u8);
    }

    fn push_cancel(&mut self, conn: ConnId, op: Op) {
        self.push(&[opcode::AsyncCancel::new(pack(conn, op)).build().user_data(IGNORED)]);
    }

    fn receive_entry(&self, fd: Fd) -> squeue::Entry {
        // There is nothing yet, so the kernel need not try before it waits.
        let poll_first = RECVSEND_POLL_FIRST;
        opcode::RecvMsgMulti::new(fd, &raw const *self.message, BUFFER_GROUP).ioprio(poll_first).build()
    }

    fn raw_fd(&self, conn: ConnId) -> Fd {
        Fd(self.sockets[conn.index as usize].fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    fn owe(&mut self, conn: ConnId, ops: u8) {
        let socket = &mut self.sockets[conn.index as usize];
        debug_assert_eq!(socket.owed & ops, 0, "one of each kind at a time");
        socket.owed |= ops;
    }

    /// Closes the descriptor, when no completion is owed any more.
    fn release(&mut self, conn: ConnId) {
        let socket = &mut self.sockets[conn.index as usize];
        debug_assert_eq!(socket.owed, 0, "nothing is in flight");
        (socket.sending, socket.unsent) = (None, None);
        socket.closing = false;
        let fd = socket.fd.take().map(IntoRawFd::into_raw_fd).expect("released once");
        // The number is free again only when the entry is executed; a socket made before that has another.
        let close = opcode::Close::new(Fd(fd)).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(IGNORED);
        self.push(&[close]);
    }

    fn new_socket(&self, route: &Route<'_>) -> Result<OwnedFd, NoSocket> {
        let (address, source) = (route.address, route.source);
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = match route.transport {
            Transport::Tcp => SocketType::STREAM,
            Transport::Udp => SocketType::DGRAM,
        };
        // Not O_NONBLOCK: the ring would take that as "do not wait" and answer EAGAIN.
        let fd = socket_with(family, kind, SocketFlags::CLOEXEC, None)
            .map_err(|_errno| NoSocket(MissReason::InflightLimit))?;
        if self.stamps {
            ask_for_receive_timestamps(&fd);
        }
        let bound = match source {
            None => Ok(()),
            // The port is chosen by CONNECT, which knows the other end: one port serves many of those.
            Some(Source::Address(ip)) => {
                set_option(&fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1_u32.to_le_bytes())
                    .and_then(|()| rustix::net::bind(&fd, &SocketAddr::new(*ip, 0)))
            }
            Some(Source::Interface(name)) => {
                set_option(&fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes())
            }
        };
        bound.map_err(|_errno| NoSocket(MissReason::NoSource))?;
        if let (Some(ports), Transport::Tcp) = (&self.ports, route.transport) {
            let range = u32::from(*ports.end()) << 16 | u32::from(*ports.start());
            // Linux 6.3 and later know it; before, ports are anybody's, and only looked for a little longer.
            let _ = set_option(&fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range.to_le_bytes());
        }
        Ok(fd)
    }
}

impl Wire for Sockets {
    fn open(&mut self, conn: ConnId, route: Route<'_>) -> Result<(), NoSocket> {
        let fd = self.new_socket(&route)?;
        let raw = Fd(fd.as_raw_fd());
        let index = conn.index as usize;
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, Socket::default);
        }
        debug_assert!(self.sockets[index].fd.is_none() && self.sockets[index].owed == 0, "the slot is free");
        self.sockets[index] = Socket {
            fd: Some(fd),
            generation: conn.generation,
            owed: Op::Connect as u8,
            ..Socket::default()
        };
        if self.room() < 1 || self.addresses_used == self.addresses.len() {
            self.flush();
        }
        let slot = &mut self.addresses[self.addresses_used];
        self.addresses_used += 1;
        *slot = Address::from(route.address);
        let (pointer, length) = slot.as_raw(&route.address);
        let connect = opcode::Connect::new(raw, pointer, length).build();
        self.push(&[connect.user_data(pack(conn, Op::Connect))]);
        Ok(())
    }

    fn send(&mut self, conn: ConnId, bytes: &Arc<[u8]>) -> Departure {
        let socket = self.socket(conn).expect("the engine sends on what lives");
        if socket.owed & Op::Send as u8 == 0 {
            let fd = socket.fd.as_ref().expect("what lives has one");
            if bytes.len() > NAGLE_MATTERS_BYTES {
                // An error would cost 40 ms at worst, never correctness; datagrams know no such thing.
                let _ = sockopt::set_tcp_nodelay(fd, true);
            }
            let at = Mono::now();
            let sent = match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(errno) => {
                    self.send_failed(conn, errno);
                    return Departure { at, until: at, bytes: 0 };
                }
            };
            let until = Mono::now();
            if sent < bytes.len() {
                self.push_send(conn, Arc::clone(bytes), sent);
            }
            return Departure { at, until, bytes: sent as u64 };
        }
        // It would overtake what the ring is sending.
        let unsent = socket.unsent.take();
        socket.unsent =
            Some(unsent.map_or_else(|| Arc::clone(bytes), |before| [&*before, bytes].concat().into()));
        let now = Mono::now();
        Departure { at: now, until: now, bytes: 0 }
    }

    /// Asks the socket itself: completions were handed out at the end of the last turn, and what has come since only
    /// becomes one in the next.
    fn has_news(&mut self, conn: ConnId) -> bool {
        let socket = self.socket(conn).expect("the engine asks of what lives");
        let connecting = socket.owed & Op::Connect as u8 != 0;
        let news = if connecting { PollFlags::OUT } else { PollFlags::IN };
        let fd = socket.fd.as_ref().expect("what lives has one");
        let mut polled = [PollFd::new(fd, news)];
        // An error says nothing about the socket.
        poll(&mut polled, Some(&Default::default())).is_ok_and(|ready| ready > 0)
    }

    fn watch(&mut self, conn: ConnId) {
        let socket = self.socket(conn).expect("the engine watches what lives");
        if std::mem::replace(&mut socket.watched, true) {
            return;
        }
        let poll = opcode::PollAdd::new(self.raw_fd(conn), 0).build().user_data(pack(conn, Op::Watch));
        self.push(&[poll]);
        self.owe(conn, Op::Watch as u8);
    }

    fn close(&mut self, conn: ConnId, abruptly: bool) -> Close {
        let socket = self.socket(conn).expect("the engine closes what lives");
        if abruptly && let Some(fd) = &socket.fd {
            // Without it the connection ends in TIME_WAIT, which is no worse than what everybody does.
            let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
        }
        socket.unsent = None;
        if socket.owed == 0 {
            self.release(conn);
            return Close::Done;
        }
        socket.closing = true;
        let owed = socket.owed;
        for op in [Op::Connect, Op::Send, Op::Receive, Op::Watch] {
            if owed & op as u8 != 0 {
                self.push_cancel(conn, op);
            }
        }
        Close::Pending
    }
}

/// Asks the scheduler to run this thread soon rather than long: slices of [`config::SHARD_SLICE`]. A thread that asks
/// for little at a time is put on its CPU as soon as it wakes, before one that may keep it for milliseconds; its
/// share of the CPU stays the same, so nobody starves. Kernels before 6.12 take no notice; a policy other than the
/// ordinary one was somebody's decision, and stays.
pub fn ask_for_short_slices() {
    let own_thread = 0;
    let size = u32::try_from(size_of::<libc::sched_attr>()).expect("it is 48 bytes");
    // SAFETY: all-zero is a valid sched_attr: plain numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is a local of the size that is passed, written before the call returns.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, own_thread, &raw mut attributes, size, 0) };
    if known == 0 && attributes.sched_policy == libc::SCHED_OTHER.cast_unsigned() {
        attributes.size = size;
        attributes.sched_runtime = config::SHARD_SLICE.as_nanos();
        // SAFETY: as above, but only read. Refusal is no error: the thread then runs as any other.
        unsafe { libc::syscall(libc::SYS_sched_setattr, own_thread, &raw const attributes, 0) };
    }
}

/// Above one segment of a common path, Nagle's algorithm may hold the last one back until an
/// acknowledgement that the origin delays by up to 40 ms. Below it, it never applies, and a system call is
/// saved.
const NAGLE_MATTERS_BYTES: usize = 1_200;

/// What a watch is for, among the events it may be told of: FIN, which the receive tells of, is not.
const HUNG_UP: i32 = (libc::POLLERR | libc::POLLHUP) as i32;

/// Cancels and closes: their completions say nothing.
const IGNORED: u64 = 0;
/// A wake-up's completion; a connection's `user_data` always has an operation in the low byte.
const WAKEUP: u64 = 1 << 8;

/// `index << 32 | generation << 8 | op`.
const fn pack(conn: ConnId, op: Op) -> u64 {
    (conn.index as u64) << 32 | (conn.generation as u64) << 8 | op as u64
}

fn unpack(user_data: u64) -> Option<(ConnId, Op)> {
    let [low, ..] = user_data.to_le_bytes();
    let op = match low {
        1 => Op::Connect,
        2 => Op::Send,
        4 => Op::Receive,
        8 => Op::Watch,
        _ => return None,
    };
    let index = u32::try_from(user_data >> 32).expect("32 bits are left");
    let generation = u32::try_from(user_data >> 8 & 0x00ff_ffff).expect("24 bits are left");
    Some((ConnId { index, generation }, op))
}

/// Sends bytes that the caller keeps until it has completed.
fn send_entry(fd: Fd, bytes: &[u8]) -> squeue::Entry {
    let length = u32::try_from(bytes.len()).expect("bounded by REQUEST_BYTES_MAX and TLS framing");
    // MSG_NOSIGNAL: a broken pipe is an outcome, not a signal. Not MSG_WAITALL, with which the kernel goes on after a
    // short write by itself, and nobody knows how much has left when the time is up.
    opcode::Send::new(fd, bytes.as_ptr(), length).flags(libc::MSG_NOSIGNAL).build()
}

fn broken(op: Op, errno: Errno) -> Broken {
    match (op, errno) {
        (_, Errno::CONNREFUSED) => Broken::Refused,
        (_, Errno::TIMEDOUT) => Broken::TimedOut,
        (_, Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN) => Broken::Unreachable,
        (_, Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED) => Broken::Reset,
        (Op::Send, _) => Broken::SendFailed,
        (Op::Connect, Errno::ADDRNOTAVAIL) => Broken::NoPort,
        _ => Broken::Other,
    }
}

fn is_ipv6(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket).is_ok_and(|domain| domain == AddressFamily::INET6)
}

/// Whether this machine has IPv6 at all. To connect a datagram socket is to look for a route and an address of our own,
/// and no more.
fn has_ipv6() -> bool {
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .is_ok_and(|socket| rustix::net::connect(&socket, &loopback).is_ok())
}

/// Asks for the time at which the kernel's stack had each segment (`SOF_TIMESTAMPING_RX_SOFTWARE`). Refusal is
/// no error: the probe's samples are then flagged `user_time`.
pub fn ask_for_receive_timestamps(socket: &OwnedFd) {
    let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &flags.to_le_bytes());
}

/// Receives from a stream without waiting, and when the kernel had the last of it: nanoseconds on `CLOCK_REALTIME`,
/// `None` if [`ask_for_receive_timestamps`] was not asked of the socket. For who is no shard, and stamps what comes all
/// the same: the origin that measures us.
///
/// # Errors
/// `recvmsg(2)`'s; `AGAIN` if there is nothing.
pub fn receive_stamped(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Option<u64>), Errno> {
    let mut control = [0_u8; CONTROL_BYTES];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL_BYTES);
    // SAFETY: every pointer is to a local or to the caller's buffer, with its own length, written before the call
    // returns and not after.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let Ok(bytes) = usize::try_from(received) else {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    };
    Ok((bytes, control.get(..message.msg_controllen).and_then(software_stamp_ns)))
}

/// `setsockopt(2)`, for options that no crate has a function for.
fn set_option(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the value is a slice of the length that is passed, read before the call returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

/// How long a TCP handshake took, by the kernel's first estimate of the round-trip time (`tcp_info`, `tcpi_rtt`);
/// `None` if something had to be sent again, because then it is not that, and on datagram sockets.
fn handshake_time(socket: &OwnedFd) -> Option<Micros> {
    // The head of `struct tcp_info` (linux/tcp.h), whose layout is the kernel's promise.
    const RTT_AT: usize = 68;
    const TOTAL_RETRANS_AT: usize = 100;
    let mut info = [0_u8; TOTAL_RETRANS_AT + 4];
    let mut length = libc::socklen_t::try_from(info.len()).expect("it is 104");
    // SAFETY: the buffer is a local of the length that is passed, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let whole = result == 0 && length as usize == info.len();
    (whole && word(&info, TOTAL_RETRANS_AT) == 0).then(|| Micros(word(&info, RTT_AT).into()))
}

/// `IP_LOCAL_PORT_RANGE` (`ip(7)`, Linux 6.3), which libc does not name yet.
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// The kernel stamps packets only while some socket wants it, and patches its own code, on all CPUs, when the first
/// one comes and when the last one goes (`net_enable_timestamp`). With few probes at a time that would be each
/// of them. This one stays.
fn keep_timestamps_on() -> Option<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    ask_for_receive_timestamps(&socket);
    Some(socket)
}

/// `IORING_RECVSEND_POLL_FIRST`, which the crate does not name.
const RECVSEND_POLL_FIRST: u16 = 1;

/// A socket address as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C)]
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Address {
    const ZERO: Self = Self {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    const fn as_raw(&self, address: &SocketAddr) -> (*const libc::sockaddr, libc::socklen_t) {
        let length = match address {
            SocketAddr::V4(_) => size_of::<libc::sockaddr_in>(),
            SocketAddr::V6(_) => size_of::<libc::sockaddr_in6>(),
        };
        #[expect(clippy::cast_possible_truncation, reason = "16 or 28")]
        ((&raw const *self).cast(), length as libc::socklen_t)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "address families are small")]
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(address) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                },
            },
        }
    }
}

/// What a receive buffer holds after a multishot RECVMSG without a name:
///
/// ```text
/// 0        16                       80
/// | header | control: a timestamp   | payload …
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message<'a> {
    payload: &'a [u8],
    /// Nanoseconds on `CLOCK_REALTIME`.
    stamp_ns: Option<u64>,
}

/// `io_uring_recvmsg_out`: namelen, controllen, payloadlen, flags.
const HEADER_BYTES: usize = 16;
/// A control header of 16 bytes and three timespecs (`scm_timestamping`), of which the first is the software
/// stamp.
const CONTROL_BYTES: usize = 64;

const _: () = assert!(size_of::<libc::cmsghdr>() + 3 * size_of::<libc::timespec>() == CONTROL_BYTES);
const _: () = assert!(cfg!(target_endian = "little"), "kernel structs are read as little-endian");

impl<'a> Message<'a> {
    /// Takes the buffer apart. One that is too short for its own header is an empty message: the end.
    fn parse(buffer: &'a [u8]) -> Self {
        let Some((header, rest)) = buffer.split_at_checked(HEADER_BYTES) else { return Self::EMPTY };
        let Some((control, payload)) = rest.split_at_checked(CONTROL_BYTES) else { return Self::EMPTY };
        let control_bytes = word(header, 4) as usize;
        let stamp_ns = control.get(..control_bytes).and_then(software_stamp_ns);
        Self { payload, stamp_ns }
    }

    const EMPTY: Self = Self { payload: &[], stamp_ns: None };
}

/// The stamp in the control data, if that is what it is.
fn software_stamp_ns(control: &[u8]) -> Option<u64> {
    let level_and_type = (word(control.get(8..16)?, 0), word(control.get(8..16)?, 4));
    let wanted = (libc::SOL_SOCKET.cast_unsigned(), libc::SCM_TIMESTAMPING.cast_unsigned());
    let seconds = long(control.get(16..24)?);
    let nanos = long(control.get(24..32)?);
    (level_and_type == wanted && seconds > 0).then(|| seconds * 1_000_000_000 + nanos)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

fn long(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn subsec_nanos(ns: u64) -> u32 {
    u32::try_from(ns % 1_000_000_000).expect("less than a second")
}

/// The receive buffers, and the ring through which the kernel is given them.
///
/// Never freed: see the module's argument.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    /// Where the next buffer given back goes; the kernel sees it when published.
    tail: u16,
}

/// The buffer ring's memory must start on a page.
#[repr(C, align(4096))]
struct Entries([[u8; ENTRY_BYTES]; config::RECV_BUFFERS as usize]);

const ENTRY_BYTES: usize = 16;
const _: () = assert!(size_of::<BufRingEntry>() == ENTRY_BYTES);
const BUFFER_BYTES: usize = config::RECV_BUFFER_BYTES as usize;

impl Buffers {
    fn register(uring: &IoUring) -> io::Result<Self> {
        let entries: &'static mut Entries =
            Box::leak(Box::new(Entries([[0; ENTRY_BYTES]; config::RECV_BUFFERS as usize])));
        // Not zero: zeroes are pages that are made at their first use, which would be in the middle of a probe.
        let memory: &'static mut [u8] =
            Box::leak(vec![0xff; BUFFER_BYTES * usize::from(config::RECV_BUFFERS)].into_boxed_slice());
        let mut buffers = Self { entries: (&raw mut *entries).cast(), memory: memory.as_mut_ptr(), tail: 0 };
        // SAFETY: the memory starts on a page, holds RECV_BUFFERS entries, and is never freed.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                buffers.entries as u64,
                config::RECV_BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        (0..config::RECV_BUFFERS).for_each(|id| buffers.give_back(id));
        buffers.publish();
        Ok(buffers)
    }

    /// What a completion of `result` bytes left in buffer `id`.
    fn bytes(&self, id: u16, result: i32) -> &[u8] {
        assert!(id < config::RECV_BUFFERS, "the kernel names buffers that it was given");
        let length = usize::try_from(result).unwrap_or(0).min(BUFFER_BYTES);
        // SAFETY: the range lies within buffer `id`, initialised memory that is never freed. The kernel has
        // handed the buffer over with its completion and does not write to it until it is published again,
        // which needs `&mut self`, so not while the slice lives.
        unsafe { std::slice::from_raw_parts(self.start(id), length) }
    }

    /// Queues buffer `id` for the kernel.
    fn give_back(&mut self, id: u16) {
        let slot = self.tail & (config::RECV_BUFFERS - 1);
        let start = self.start(id) as u64;
        // SAFETY: `slot` is below RECV_BUFFERS, and the kernel does not read entries at or after its tail.
        // Field-wise, because the first entry's reserved field is that tail.
        let entry = unsafe { &mut *self.entries.add(usize::from(slot)) };
        entry.set_addr(start);
        entry.set_len(config::RECV_BUFFER_BYTES);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given back.
    fn publish(&mut self) {
        // SAFETY: the tail is an aligned u16 in the first entry, shared with the kernel, which only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        // Release: pairs with the kernel's acquire load, so that it sees the entries before the tail.
        tail.store(self.tail, Ordering::Release);
    }

    fn start(&self, id: u16) -> *mut u8 {
        self.memory.wrapping_add(usize::from(id) * BUFFER_BYTES)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for socket in &mut self.sockets.sockets {
            if socket.owed & Op::Send as u8 != 0 {
                std::mem::forget(socket.sending.take());
            }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").field("slots", &self.sockets.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_round_trips() {
        let conn = ConnId { index: 0xdead_beef, generation: 0x00c0_ffee };
        for op in [Op::Connect, Op::Send, Op::Receive, Op::Watch] {
            assert_eq!(unpack(pack(conn, op)), Some((conn, op)));
        }
        assert_eq!((unpack(IGNORED), unpack(WAKEUP)), (None, None));
    }

    #[test]
    fn short_or_foreign_control_data_is_no_stamp() {
        let mut buffer = vec![0_u8; HEADER_BYTES + CONTROL_BYTES];
        buffer.extend_from_slice(b"HTTP");
        for controllen in [0, 15, 63, 64, u8::MAX] {
            buffer[4] = controllen;
            let message = Message::parse(&buffer);
            assert_eq!((message.payload, message.stamp_ns), (b"HTTP".as_slice(), None));
        }
        for length in 0..buffer.len() - 4 {
            assert_eq!(Message::parse(&buffer[..length]), Message::EMPTY);
        }
    }
}
