//! The resolver over real sockets: against a server of the test's own, with faults, and against dnsmasq.
//!
//! The driver here is the shortest there can be, one query after the other, and is not the shard's; it shows that the
//! resolver's contract can be kept with plain sockets.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

mod support {
    pub(crate) mod dns_server;
    pub(crate) mod dnsmasq;
    pub(crate) mod service;
}

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData};
use ringprobe::clock::{Micros, Mono};
use ringprobe::dns::{Action, Entropy, Family, Known, Lookup, Mode, QueryId, Resolver, Settings, Transport};
use ringprobe::sample::Failure;
use support::dns_server::{DnsServer, Fault, Zone};
use support::dnsmasq::Dnsmasq;

/// One query's socket.
enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

struct Driver {
    resolver: Resolver,
    sockets: HashMap<QueryId, Socket>,
}

impl Driver {
    fn new(servers: &[SocketAddr]) -> Self {
        let timeout = Micros::from_millis(300);
        let settings = Settings { servers: servers.to_vec(), timeout, ..Settings::default() };
        Self { resolver: Resolver::new(settings, Entropy::unpredictable()), sockets: HashMap::new() }
    }

    /// Looks a name up, and waits for the answer.
    fn resolve(&mut self, name: &str, family: Family, mode: Mode) -> Result<Known, Failure> {
        let id = self.resolver.intern(name, family);
        match self.resolver.lookup(id, mode, Mono::now()) {
            Lookup::Known(known) => return Ok(known),
            Lookup::Failed(failure) => return Err(failure),
            Lookup::Pending => {}
        }
        let started = Mono::now();
        loop {
            assert!(Mono::now().since(started) < Duration::from_secs(30), "{name} was never woken");
            while let Some(action) = self.resolver.poll(Mono::now()) {
                match action {
                    Action::Ask { query, server, transport, message } => {
                        match open(server, transport, &message) {
                            Ok(socket) => drop(self.sockets.insert(query, socket)),
                            Err(_) => self.resolver.failed(query, Mono::now()),
                        }
                    }
                    Action::Close { query } => drop(self.sockets.remove(&query)),
                    Action::Wake { name, result, .. } if name == id => return result,
                    Action::Wake { .. } => {}
                }
            }
            self.receive();
            self.resolver.expire(Mono::now());
        }
    }

    /// Takes what has come for every open query; waits a moment for each.
    fn receive(&mut self) {
        let mut buffer = [0; 65_536];
        for (query, socket) in &mut self.sockets {
            let received = match socket {
                Socket::Udp(socket) => socket.recv(&mut buffer),
                // The end of a connection is no answer.
                Socket::Tcp(stream) => match stream.read(&mut buffer) {
                    Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                    read => read,
                },
            };
            let now = Mono::now();
            match received {
                Ok(length) => self.resolver.answered(*query, &buffer[..length], now, now),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.resolver.failed(*query, now),
            }
        }
    }
}

fn open(server: SocketAddr, transport: Transport, message: &[u8]) -> std::io::Result<Socket> {
    let wait = Some(Duration::from_millis(5));
    match transport {
        Transport::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(wait)?;
            socket.send(message)?;
            Ok(Socket::Udp(socket))
        }
        Transport::Tcp => {
            let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
            stream.set_read_timeout(wait)?;
            stream.write_all(message)?;
            Ok(Socket::Tcp(stream))
        }
    }
}

fn texts(known: &Known) -> Vec<String> {
    known.addresses.iter().map(ToString::to_string).collect()
}

fn zone() -> Zone {
    let alias = RData::CNAME(CNAME(Name::from_ascii("web.example.").unwrap()));
    Zone::default()
        .with("web.example", 300, RData::A(A::new(192, 0, 2, 2)))
        .with("web.example", 300, RData::A(A::new(192, 0, 2, 1)))
        .with("web.example", 300, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())))
        .with("www.example", 60, alias)
        .with("short.example", 1, RData::A(A::new(192, 0, 2, 3)))
}

#[test]
fn a_server_and_its_faults() {
    let server = DnsServer::start(zone());
    // The second one: nobody is there, and the kernel says so.
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut driver = Driver::new(&[server.address()]);
    let known = driver.resolve("www.example", Family::PreferV4, Mode::Cached).unwrap();
    assert_eq!(texts(&known), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(driver.resolve("no.example", Family::V4, Mode::Cached), Err(Failure::DnsNotFound));
    assert_eq!(driver.resolve("short.example", Family::V6, Mode::Cached), Err(Failure::DnsNotFound));
    assert_eq!(server.queries(), (4, 0));

    let every = |driver: &mut Driver| driver.resolve("web.example", Family::V6, Mode::Every);
    server.set_fault(Fault::Truncates);
    assert_eq!(texts(&every(&mut driver).unwrap()), ["2001:db8::1"]);
    assert_eq!(server.queries(), (6, 1), "again, over TCP");
    for (fault, failure) in [
        (Fault::Silent, Failure::DnsTimeout),
        (Fault::WrongId, Failure::DnsTimeout),
        (Fault::Garbage, Failure::DnsTimeout),
        (Fault::Fails, Failure::DnsFailed),
    ] {
        server.set_fault(fault);
        assert_eq!(every(&mut driver), Err(failure), "{fault:?}");
    }
    server.set_fault(Fault::None);
    server.set_zone(Zone::default().with(
        "web.example",
        1,
        RData::AAAA(AAAA("2001:db8::2".parse().unwrap())),
    ));
    assert_eq!(texts(&every(&mut driver).unwrap()), ["2001:db8::2"], "it has moved");

    let mut driver = Driver::new(&[nobody, server.address()]);
    assert!(every(&mut driver).is_ok(), "the second server takes over");
    assert!(driver.resolver.counts().errors > 0 && driver.resolver.counts().timeouts == 0, "without waiting");
    let mut driver = Driver::new(&[nobody]);
    assert_eq!(every(&mut driver), Err(Failure::DnsFailed));
}

#[test]
fn dnsmasq() {
    let many: Vec<String> =
        (0..200).map(|n| format!("host-record=many.test,10.0.{}.{},60", n / 100, n % 100 + 1)).collect();
    let mut records = vec![
        "host-record=web.test,192.0.2.1,2001:db8::1,300",
        "host-record=web.test,192.0.2.2,300",
        "host-record=v4.test,192.0.2.3,1",
        "cname=alias.test,web.test",
        "cname=twice.test,alias.test",
    ];
    records.extend(many.iter().map(String::as_str));
    let server = Dnsmasq::start(&records);
    let mut driver = Driver::new(&[server.address()]);
    let check = |driver: &mut Driver, name: &str, family, expected: Result<&[&str], Failure>| {
        let found = driver.resolve(name, family, Mode::Cached);
        let expected = expected.map(|texts| texts.iter().map(ToString::to_string).collect());
        assert_eq!(found.as_ref().map(texts).map_err(|failure| *failure), expected, "{name} {family:?}");
    };
    check(&mut driver, "web.test", Family::PreferV6, Ok(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]));
    check(&mut driver, "WEB.test.", Family::V6, Ok(&["2001:db8::1"]));
    check(&mut driver, "twice.test", Family::V4, Ok(&["192.0.2.1", "192.0.2.2"]));
    check(&mut driver, "v4.test", Family::V6, Err(Failure::DnsNotFound));
    check(&mut driver, "nobody.test", Family::PreferV4, Err(Failure::DnsNotFound));
    // Nowhere to forward to: REFUSED.
    check(&mut driver, "www.elsewhere", Family::V4, Err(Failure::DnsFailed));
    // 200 addresses do not fit a datagram of 1,232 bytes.
    let many = driver.resolve("many.test", Family::V4, Mode::Cached).unwrap();
    assert_eq!(many.addresses.len(), 64, "the lowest are kept");
    assert_eq!(many.addresses[0], IpAddr::from([10, 0, 0, 1]));
    assert!(driver.resolver.counts().asked_tcp >= 1, "{:?}", driver.resolver.counts());
}
