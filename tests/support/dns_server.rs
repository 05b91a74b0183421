//! A small DNS server on loopback, UDP and TCP on one port, with a zone and faults that a test scripts while it runs.
//!
//! Messages are read and written with hickory-proto, so that a test sees another implementation than ours.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How often the threads look whether they are to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a name has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    /// Records by name, without the final dot, in lower case. A name that is here without any exists.
    pub(crate) records: HashMap<String, Vec<(u32, RData)>>,
}

impl Zone {
    /// Adds a record.
    pub(crate) fn with(mut self, name: &str, ttl_s: u32, data: RData) -> Self {
        self.records.entry(name.to_owned()).or_default().push((ttl_s, data));
        self
    }
}

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It says nothing.
    Silent,
    /// SERVFAIL.
    Fails,
    /// Over UDP nothing but the truncation bit.
    Truncates,
    /// Another id than was asked with.
    WrongId,
    /// Bytes that are no message.
    Garbage,
}

/// The server; it ends when it is dropped.
pub(crate) struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    zone: Mutex<Zone>,
    fault: Mutex<Fault>,
    queries: AtomicU64,
    queries_tcp: AtomicU64,
    ends: AtomicBool,
}

impl DnsServer {
    /// Starts it on a port of the kernel's choice.
    pub(crate) fn start(zone: Zone) -> Self {
        // A port that is free for one protocol may be taken for the other.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                Some((UdpSocket::bind(tcp.local_addr().unwrap()).ok()?, tcp))
            })
            .expect("a port that is free for UDP and TCP");
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            fault: Mutex::new(Fault::None),
            queries: AtomicU64::new(0),
            queries_tcp: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        });
        let threads = vec![
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || serve_udp(&udp, &shared)
            }),
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || serve_tcp(&tcp, &shared)
            }),
        ];
        Self { address, shared, threads }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queries so far, and how many of them over TCP.
    pub(crate) fn queries(&self) -> (u64, u64) {
        // Relaxed: counters, read after an answer that followed them.
        (self.shared.queries.load(Ordering::Relaxed), self.shared.queries_tcp.load(Ordering::Relaxed))
    }

    pub(crate) fn set_zone(&self, zone: Zone) {
        *self.shared.zone.lock().unwrap() = zone;
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        // Relaxed: nothing else is told by it.
        self.shared.ends.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        for thread in self.threads.drain(..) {
            // A panic of a thread has been printed, and shows as an answer that is missing.
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 4096];
    while !shared.ends.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        shared.queries.fetch_add(1, Ordering::Relaxed);
        if let Some(answer) = shared.answer(&buffer[..length], true) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Shared) {
    while let Ok((mut stream, _)) = listener.accept() {
        if shared.ends.load(Ordering::Relaxed) {
            return;
        }
        // One at a time: a test has no more.
        let _ = serve_stream(&mut stream, shared);
    }
}

fn serve_stream(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(length[0]) << 8 | usize::from(length[1])];
    stream.read_exact(&mut query)?;
    shared.queries.fetch_add(1, Ordering::Relaxed);
    shared.queries_tcp.fetch_add(1, Ordering::Relaxed);
    if let Some(answer) = shared.answer(&query, false) {
        let length = [answer.len() >> 8, answer.len() & 0xff].map(|byte| u8::try_from(byte).unwrap());
        stream.write_all(&length)?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

impl Shared {
    fn answer(&self, query: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let asked = Message::from_vec(query).ok()?;
        let question = asked.queries.first()?.clone();
        let mut reply = Message::response(asked.metadata.id, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.add_query(question.clone());
        match *self.fault.lock().unwrap() {
            Fault::Silent => return None,
            Fault::Garbage => return Some(vec![0xff; 100]),
            Fault::Fails => {
                reply.metadata.response_code = ResponseCode::ServFail;
                return reply.to_vec().ok();
            }
            Fault::WrongId => reply.metadata.id ^= 1,
            Fault::Truncates if is_udp => {
                reply.metadata.truncation = true;
                return reply.to_vec().ok();
            }
            Fault::None | Fault::Truncates => {}
        }
        self.fill(&mut reply, question.name(), question.query_type());
        reply.to_vec().ok()
    }

    fn fill(&self, reply: &mut Message, asked: &Name, kind: RecordType) {
        let zone = self.zone.lock().unwrap();
        let mut owner = asked.clone();
        // As long as a chain of aliases leads on; a loop is cut off.
        for _ in 0..8 {
            let key = owner.to_lowercase().to_ascii().trim_end_matches('.').to_owned();
            let Some(records) = zone.records.get(&key) else {
                reply.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let mut next = None;
            for (ttl_s, data) in records {
                if let RData::CNAME(target) = data {
                    next = Some(target.0.clone());
                }
                if next.is_some() || data.record_type() == kind {
                    reply.add_answer(Record::from_rdata(owner.clone(), *ttl_s, data.clone()));
                }
            }
            match next {
                Some(target) => owner = target,
                None => break,
            }
        }
        if reply.answers.is_empty() {
            let root = Name::root();
            let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 5);
            reply.add_authority(Record::from_rdata(root, 5, RData::SOA(soa)));
        }
    }
}
