//! The floor: CPU time of an HTTP exchange over io_uring with nothing around it.
//!
//! `floor 127.0.0.1:8080 [--path /bytes/100] [--connections 64] [--duration 5s] [--fresh] [--cpu N] [--json]`
//!
//! N connections, one thread, one ring: send a fixed request, count bytes, begin again. Nothing is parsed,
//! timed or recorded: a response is over when as many bytes have come as the first one had, which a blocking
//! exchange finds out beforehand. What this spends per exchange is the kernel's price; what a prober spends
//! above it is the prober's.
//!
//! Keep-alive: a multishot RECV into provided buffers is armed once per connection; one SEND per exchange.
//! Fresh: CLOSE → SOCKET → CONNECT → SEND → RECV as one linked chain per exchange, one completion each.
//!
//! Left out: every kind of error handling. Whatever goes wrong ends the program with status 1.

use std::alloc::{Layout, alloc_zeroed};
use std::io::{self, Read, Write};
use std::mem;
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, DestinationSlot, Fixed, Timespec};
use io_uring::{IoUring, cqueue, opcode};

const BUFFER_BYTES: u32 = 4096;
const BUFFERS: u16 = 1024;
const GROUP: u16 = 0;
/// `user_data` of the timeout that ends the measurement; connections have their index.
const END: u64 = u64::MAX;
/// `user_data` of steps that complete unseen unless they fail.
const STEP: u64 = u64::MAX - 1;

const USAGE: &str =
    "floor IPV4:PORT [--path P] [--connections N] [--duration Ns] [--fresh] [--cpu N] [--json]";

struct Options {
    addr: SocketAddrV4,
    path: String,
    connections: u32,
    duration: Duration,
    fresh: bool,
    cpu: Option<usize>,
    json: bool,
}

/// What the loop did.
#[derive(Default)]
struct Count {
    exchanges: u64,
    enters: u64,
    /// CPU time of the process in the loop, user and system together.
    cpu_us: f64,
}

fn main() -> ExitCode {
    match options().and_then(|options| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> io::Result<Options> {
    let usage = || io::Error::other(format!("usage: {USAGE}"));
    let mut words = std::env::args().skip(1);
    let mut options = Options {
        addr: words.next().and_then(|word| word.parse().ok()).ok_or_else(usage)?,
        path: "/bytes/100".into(),
        connections: 64,
        duration: Duration::from_secs(5),
        fresh: false,
        cpu: None,
        json: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(usage);
        match word.as_str() {
            "--path" => options.path = value()?,
            "--connections" => options.connections = value()?.parse().map_err(|_| usage())?,
            "--duration" => {
                let seconds = value()?.trim_end_matches('s').parse().map_err(|_| usage())?;
                options.duration = Duration::from_secs(seconds);
            }
            "--fresh" => options.fresh = true,
            "--cpu" => options.cpu = Some(value()?.parse().map_err(|_| usage())?),
            "--json" => options.json = true,
            _ => return Err(usage()),
        }
    }
    if !(1..=4096).contains(&options.connections) || options.cpu.is_some_and(|cpu| cpu >= 1024) {
        return Err(usage());
    }
    Ok(options)
}

fn measure(options: &Options) -> io::Result<()> {
    if let Some(cpu) = options.cpu {
        pin(cpu)?;
    }
    let close = if options.fresh { "Connection: close\r\n" } else { "" };
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", options.path, options.addr);
    let request: &'static [u8] = request.leak().as_bytes();
    let response_bytes = first_exchange(options.addr, request)?;

    let entries = (options.connections * 5 + 1).next_power_of_two();
    let mut ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)?;
    let exchange = if options.fresh { fresh } else { keep_alive };
    let count = exchange(&mut ring, options, request, response_bytes)?;
    report(options, &count, response_bytes);
    Ok(())
}

/// One blocking exchange: how long is the response? Over when the origin closes or says nothing for 100 ms.
fn first_exchange(addr: SocketAddrV4, request: &[u8]) -> io::Result<usize> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.write_all(request)?;
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ if response.starts_with(b"HTTP/1.1 200 ") => Ok(response.len()),
        _ => Err(io::Error::other("the first response is not a 200")),
    }
}

fn keep_alive(
    ring: &mut IoUring,
    options: &Options,
    request: &[u8],
    whole_bytes: usize,
) -> io::Result<Count> {
    let streams: Vec<TcpStream> =
        (0..options.connections).map(|_| TcpStream::connect(options.addr)).collect::<io::Result<_>>()?;
    let fds: Vec<RawFd> = streams.iter().map(AsRawFd::as_raw_fd).collect();
    ring.submitter().register_files(&fds)?;
    let mut buffers = Buffers::register(ring)?;
    let mut received_bytes = vec![0; streams.len()];

    let send = |index| {
        let send = opcode::Send::new(Fixed(index), request.as_ptr(), request.len() as u32);
        send.build().flags(Flags::SKIP_SUCCESS).user_data(STEP)
    };
    let receive = |index| opcode::RecvMulti::new(Fixed(index), GROUP).build().user_data(u64::from(index));
    let start: Vec<Entry> =
        (0..options.connections).flat_map(|index| [receive(index), send(index)]).collect();

    turn(ring, options, &start, |completion, again| {
        let bytes = completion.result().max(0) as usize;
        let index = completion.user_data() as u32;
        let received = &mut received_bytes[index as usize];
        *received += bytes;
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            buffers.give(buffer);
        }
        if bytes == 0 && completion.result() != -libc::ENOBUFS {
            return Err(failed("recv", completion.result()));
        }
        // A multishot receive ends when every buffer is on its way to us. Arm it again.
        if !cqueue::more(completion.flags()) {
            again.push(receive(index));
        }
        if *received < whole_bytes {
            return Ok(0);
        }
        *received = 0;
        again.push(send(index));
        Ok(1)
    })
}

fn fresh(ring: &mut IoUring, options: &Options, request: &[u8], whole_bytes: usize) -> io::Result<Count> {
    ring.submitter().register_files_sparse(options.connections)?;
    let address = socket_address(options.addr);
    // Leaked, for the kernel may write to it until the ring is gone.
    let memory = vec![0_u8; whole_bytes * options.connections as usize].leak().as_mut_ptr();

    let chain = |index: u32| {
        let slot = DestinationSlot::try_from_slot_target(index).ok();
        let address_bytes = size_of_val(&address) as u32;
        // SAFETY: `index` is below `connections`, so that the offset stays inside `memory`.
        let place = unsafe { memory.add(whole_bytes * index as usize) };
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).file_index(slot);
        let connect = opcode::Connect::new(Fixed(index), (&raw const address).cast(), address_bytes);
        let send = opcode::Send::new(Fixed(index), request.as_ptr(), request.len() as u32);
        let receive = opcode::Recv::new(Fixed(index), place, whole_bytes as u32).flags(libc::MSG_WAITALL);
        let linked = |entry: Entry| entry.flags(Flags::SKIP_SUCCESS | Flags::IO_LINK).user_data(STEP);
        let steps = [socket.build(), connect.build(), send.build()].map(linked);
        steps.into_iter().chain([receive.build().user_data(u64::from(index))])
    };
    let start: Vec<Entry> = (0..options.connections).flat_map(chain).collect();

    turn(ring, options, &start, |completion, again| {
        if completion.result() as usize != whole_bytes {
            return Err(failed("recv", completion.result()));
        }
        let index = completion.user_data() as u32;
        let close = opcode::Close::new(Fixed(index)).build().user_data(STEP);
        again.push(close.flags(Flags::SKIP_SUCCESS | Flags::IO_LINK));
        again.extend(chain(index));
        Ok(1)
    })
}

/// Submits, waits and reaps until the time is over. `complete` handles one completion: it says what to submit
/// next and how many exchanges were completed. CPU time is counted from the first submission on.
fn turn(
    ring: &mut IoUring,
    options: &Options,
    start: &[Entry],
    mut complete: impl FnMut(&cqueue::Entry, &mut Vec<Entry>) -> io::Result<u64>,
) -> io::Result<Count> {
    let (mut submitter, mut submission, mut completion) = ring.split();
    submitter.register_ring_fd()?;
    let end = Timespec::new().sec(options.duration.as_secs()).nsec(options.duration.subsec_nanos());
    let mut again = start.to_vec();
    again.push(opcode::Timeout::new(&raw const end).build().user_data(END));
    let mut count = Count::default();
    let before_us = cpu_us();
    loop {
        // SAFETY: request and buffers are never freed; the address, which outlives this call, and the
        // timeout are copied by the kernel on submission.
        unsafe { submission.push_multiple(&again) }.map_err(io::Error::other)?;
        again.clear();
        submission.sync();
        submitter.submit_and_wait(1)?;
        count.enters += 1;
        completion.sync();
        for entry in &mut completion {
            match entry.user_data() {
                END => {
                    count.cpu_us = cpu_us() - before_us;
                    return Ok(count);
                }
                STEP => return Err(failed("socket, connect, send or close", entry.result())),
                _ => count.exchanges += complete(&entry, &mut again)?,
            }
        }
    }
}

fn report(options: &Options, count: &Count, response_bytes: usize) {
    let Options { connections, duration, .. } = options;
    let (exchanges, mode) = (count.exchanges, if options.fresh { "fresh" } else { "reuse" });
    let per_s = exchanges as f64 / duration.as_secs_f64();
    let cpu_us = count.cpu_us / exchanges as f64;
    let per_enter = exchanges as f64 / count.enters as f64;
    if options.json {
        println!(
            "{{\"tool\":\"floor\",\"connection\":\"{mode}\",\"connections\":{connections},\"exchanges\":{exchanges},\
             \"exchanges_per_s\":{per_s:.1},\"cpu_us_per_exchange\":{cpu_us:.3},\
             \"exchanges_per_enter\":{per_enter:.2},\"response_bytes\":{response_bytes}}}"
        );
    } else {
        println!(
            "{mode}, {connections} connections: {per_s:.0} exchanges/s, {cpu_us:.2} µs of CPU each, \
             {per_enter:.1} per io_uring_enter, {response_bytes} bytes each"
        );
    }
}

/// The provided buffer ring of the keep-alive loop; it lives as long as the process.
struct Buffers {
    ring: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Self> {
        let allocate = |bytes: usize| {
            let layout = Layout::from_size_align(bytes, 4096).map_err(io::Error::other)?;
            // SAFETY: no size here is zero.
            let memory = unsafe { alloc_zeroed(layout) };
            if memory.is_null() { Err(io::Error::other("out of memory")) } else { Ok(memory) }
        };
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory = allocate(usize::from(BUFFERS) * BUFFER_BYTES as usize)?;
        let mut buffers = Self { ring: entries.cast(), memory, tail: 0 };
        // SAFETY: the ring is page-aligned, holds `BUFFERS` entries, and is never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)? };
        (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
        Ok(buffers)
    }

    /// Hands a buffer to the kernel.
    fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `place` is below `BUFFERS`. The kernel does not read an entry before the tail has passed
        // it, and `buffer` is ours: it comes from `register` or from a completion.
        let entry = unsafe { &mut *self.ring.add(place) };
        // SAFETY: buffer numbers are below `BUFFERS`, and so the offset is inside `memory`.
        entry.set_addr(unsafe { self.memory.add(usize::from(buffer) * BUFFER_BYTES as usize) } as u64);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry of the ring, is 2-aligned, and is shared with the kernel
        // only, which reads it with acquire: the release publishes the entry.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) }
            .store(self.tail, Ordering::Release);
    }
}

fn failed(what: &str, result: i32) -> io::Error {
    match result {
        0.. => io::Error::other(format!("{what}: {result} bytes, the origin closed")),
        _ => io::Error::other(format!("{what}: {}", io::Error::from_raw_os_error(-result))),
    }
}

fn socket_address(addr: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all zeros are a valid sockaddr_in.
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_port = addr.port().to_be();
    address.sin_addr.s_addr = u32::from(*addr.ip()).to_be();
    address
}

fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: all zeros are the empty set; `cpu` is below CPU_SETSIZE; the pointer is to a live set.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time of this process so far, user and system, µs.
fn cpu_us() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
