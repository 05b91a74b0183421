//! The TLS floor: CPU time of a fresh HTTPS exchange on rustls with nothing around it.
//!
//! `tls-floor 127.0.0.1:8443 --ca FILE [--name localhost] [--path /bytes/100] [--connections 64] [--duration 5s]
//! [--tls12] [--resume] [--cpu N] [--json]`
//!
//! N connections, one thread, one epoll: connect, shake hands, send a fixed request, count bytes until the origin
//! closes, begin again. Nothing is parsed, timed or recorded, and nothing is remembered from one handshake to the next:
//! each is a full one, and each checks the whole chain, as rustls does when it is left alone. What this spends per
//! exchange is the price of TLS and of sockets; what a prober spends above it is the prober's.
//!
//! The request leaves with the last flight of the handshake, as ringprobe's does. `--resume` is the other floor: that
//! of handshakes that resume.
//!
//! Left out: every kind of error handling. Whatever goes wrong ends the program with status 1.

use std::io::{self, BufRead, Write};
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, Timespec, clock_gettime};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

const USAGE: &str = "tls-floor IPV4:PORT --ca FILE [--name NAME] [--path P] [--connections N] [--duration Ns] \
                     [--tls12] [--resume] [--cpu N] [--json]";

struct Options {
    addr: SocketAddrV4,
    ca: String,
    name: ServerName<'static>,
    path: String,
    connections: usize,
    duration: Duration,
    tls12: bool,
    resume: bool,
    cpu: Option<usize>,
    json: bool,
}

/// A connection from its SYN to its end.
struct Connection {
    socket: OwnedFd,
    tls: ClientConnection,
    response_bytes: usize,
}

/// What the loop did.
#[derive(Default)]
struct Count {
    exchanges: u64,
    resumed: u64,
    bytes: u64,
    waits: u64,
    cpu_us: f64,
    seconds: f64,
}

fn main() -> ExitCode {
    match options().and_then(|options| measure(&options).map(|count| report(&options, &count))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> io::Result<Options> {
    let usage = || io::Error::other(format!("usage: {USAGE}"));
    let mut words = std::env::args().skip(1);
    let mut options = Options {
        addr: words.next().and_then(|word| word.parse().ok()).ok_or_else(usage)?,
        ca: String::new(),
        name: ServerName::try_from("localhost").map_err(io::Error::other)?,
        path: "/bytes/100".into(),
        connections: 64,
        duration: Duration::from_secs(5),
        tls12: false,
        resume: false,
        cpu: None,
        json: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(usage);
        match word.as_str() {
            "--ca" => options.ca = value()?,
            "--name" => options.name = ServerName::try_from(value()?).map_err(|_| usage())?,
            "--path" => options.path = value()?,
            "--connections" => options.connections = value()?.parse().map_err(|_| usage())?,
            "--duration" => {
                let seconds = value()?.trim_end_matches('s').parse().map_err(|_| usage())?;
                options.duration = Duration::from_secs(seconds);
            }
            "--tls12" => options.tls12 = true,
            "--resume" => options.resume = true,
            "--cpu" => options.cpu = Some(value()?.parse().map_err(|_| usage())?),
            "--json" => options.json = true,
            _ => return Err(usage()),
        }
    }
    if options.ca.is_empty() || !(1..=4096).contains(&options.connections) {
        return Err(usage());
    }
    Ok(options)
}

fn client_config(options: &Options) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&options.ca).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let versions = if options.tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !options.resume {
        config.resumption = Resumption::disabled();
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn measure(options: &Options) -> io::Result<Count> {
    if let Some(cpu) = options.cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let config = client_config(options)?;
    let request =
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", options.path, options.addr);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut out = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut connections = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        connections.push(begin(options, &config, request.as_bytes(), &epoll, index)?);
    }
    let mut count = Count::default();
    let (start_us, cpu_start_us) = (clock_us(ClockId::Monotonic), clock_us(ClockId::ProcessCPUTime));
    let end_us = start_us + options.duration.as_secs_f64() * 1e6;
    let mut events = Vec::with_capacity(256);
    while clock_us(ClockId::Monotonic) < end_us {
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience))?;
        count.waits += 1;
        if events.is_empty() {
            return Err(io::Error::other("the origin has been silent for a second"));
        }
        for event in events.drain(..) {
            let index = event.data.u64() as usize;
            let connection = &mut connections[index];
            if proceed(connection, &mut out, &mut buffer)? {
                continue;
            }
            if connection.response_bytes == 0 {
                return Err(io::Error::other("the origin closed without a response"));
            }
            count.exchanges += 1;
            count.resumed += u64::from(connection.tls.handshake_kind() == Some(HandshakeKind::Resumed));
            count.bytes += connection.response_bytes as u64;
            connections[index] = begin(options, &config, request.as_bytes(), &epoll, index)?;
        }
    }
    count.cpu_us = clock_us(ClockId::ProcessCPUTime) - cpu_start_us;
    count.seconds = (clock_us(ClockId::Monotonic) - start_us) / 1e6;
    Ok(count)
}

/// Connects, and makes the ClientHello.
fn begin(
    options: &Options,
    config: &Arc<ClientConfig>,
    request: &[u8],
    epoll: &OwnedFd,
    index: usize,
) -> io::Result<Connection> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &options.addr) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(epoll, &socket, EventData::new_u64(index as u64), events)?;
    let mut tls =
        ClientConnection::new(Arc::clone(config), options.name.clone()).map_err(io::Error::other)?;
    tls.writer().write_all(request)?;
    Ok(Connection { socket, tls, response_bytes: 0 })
}

/// Sends and receives what there is. Whether there will be more.
fn proceed(connection: &mut Connection, out: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<bool> {
    loop {
        out.clear();
        while connection.tls.wants_write() {
            connection.tls.write_tls(out)?;
        }
        if !out.is_empty() {
            // A flight fits into any send buffer: all of it goes, or the connection is not there yet.
            match rustix::net::send(&connection.socket, out, SendFlags::NOSIGNAL) {
                Ok(bytes) if bytes == out.len() => {}
                Ok(_) => return Err(io::Error::other("a flight did not fit")),
                Err(error) => return Err(error.into()),
            }
        }
        let received_bytes = match rustix::net::recv(&connection.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(false),
            Ok((bytes, _)) => bytes,
            Err(Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..received_bytes];
        while !rest.is_empty() {
            if connection.tls.read_tls(&mut rest)? == 0 {
                break;
            }
            let state = connection.tls.process_new_packets().map_err(io::Error::other)?;
            let mut reader = connection.tls.reader();
            while let Ok(piece) = reader.fill_buf() {
                let piece_bytes = piece.len();
                if piece_bytes == 0 {
                    break;
                }
                connection.response_bytes += piece_bytes;
                reader.consume(piece_bytes);
            }
            if state.peer_has_closed() {
                return Ok(false);
            }
        }
    }
}

fn clock_us(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn report(options: &Options, count: &Count) {
    let exchanges = count.exchanges.max(1) as f64;
    let cpu_us_per_probe = count.cpu_us / exchanges;
    let per_second = count.exchanges as f64 / count.seconds;
    if options.json {
        println!(
            "{{\"probes\":{},\"cpu_us_per_probe\":{cpu_us_per_probe:.2},\"probes_per_s\":{per_second:.1},\
             \"resumed\":{},\"bytes_per_probe\":{:.0},\"waits_per_probe\":{:.3},\"seconds\":{:.3}}}",
            count.exchanges,
            count.resumed,
            count.bytes as f64 / exchanges,
            count.waits as f64 / exchanges,
            count.seconds,
        );
    } else {
        println!(
            "{} exchanges ({} resumed) in {:.1} s, {per_second:.0}/s, {cpu_us_per_probe:.2} µs of CPU each",
            count.exchanges, count.resumed, count.seconds,
        );
    }
}
