//! A TLS server that misbehaves as told, below HTTP and above TCP: what the menu of the test origin has not.
//!
//! A thread per connection, blocking, and every one of them ends with its client at the latest. What rustls would never
//! say is put in between: the server's bytes are cut short, crumbled or replaced on their way to the socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustls::{ServerConfig, ServerConnection};

/// What a request usually gets, where it gets one.
pub(crate) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How a server misbehaves.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Not at all.
    None,
    /// Accepts, and says nothing.
    Silence,
    /// Hears the ClientHello, and closes,
    Close,
    /// or resets.
    Reset,
    /// Hears the ClientHello, and sends these bytes and a FIN.
    Bytes(Vec<u8>),
    /// Sends so many bytes of its handshake, and then nothing more.
    StallAfter(usize),
    /// Sends so many bytes of its handshake, and closes.
    CloseAfter(usize),
    /// Sends its ServerHello, and then what is no TLS.
    GarbageAfterServerHello,
    /// Every byte in a packet of its own, as far as TCP lets one.
    Crumbs,
    /// Closes after the response without saying so in TLS.
    NoGoodbye,
    /// Closes in the middle of the response without saying so in TLS.
    CutOff,
    /// Resets in the middle of the response.
    CutOffByReset,
    /// Sends half the response, and then what is no TLS.
    GarbageAfterHalf,
}

/// A server on a port of its own. Dropping it stops it.
pub(crate) struct TlsServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TlsServer {
    /// One that has this `response` for whoever gets as far as asking.
    pub(crate) fn start(config: Arc<ServerConfig>, fault: Fault, response: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let (config, fault) = (Arc::clone(&config), fault.clone());
                    // A client that goes in the middle is none of the server's errors.
                    thread::spawn(move || stream.and_then(|stream| serve(stream, config, &fault, response)));
                }
            }
        });
        Self { addr, stop, thread: Some(thread) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // Release pairs with the acquire of the accepting thread, which this connection wakes.
        self.stop.store(true, Ordering::Release);
        let _woken = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// One connection.
fn serve(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    fault: &Fault,
    response: &[u8],
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if matches!(fault, Fault::Silence) {
        return hold(&mut stream);
    }
    let mut connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let (mut request, mut sent_bytes) = (Vec::new(), 0);
    while !request.ends_with(b"\r\n\r\n") {
        let received = connection.read_tls(&mut stream)?;
        if received == 0 {
            return Ok(());
        }
        let processed = connection.process_new_packets();
        let mut out = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut out)?;
        }
        if sent_bytes == 0 && out.is_empty() && processed.is_ok() {
            continue;
        }
        match fault {
            Fault::Close => return Ok(()),
            Fault::Reset => return reset(&stream),
            Fault::Bytes(bytes) => return stream.write_all(bytes),
            Fault::GarbageAfterServerHello => {
                let hello_bytes = 5 + usize::from(out[3]) * 256 + usize::from(out[4]);
                stream.write_all(&out[..hello_bytes])?;
                stream.write_all(b"garbage is not a record")?;
                return hold(&mut stream);
            }
            Fault::StallAfter(bytes) | Fault::CloseAfter(bytes) => {
                out.truncate(bytes - sent_bytes);
                sent_bytes += out.len();
                stream.write_all(&out)?;
                if sent_bytes == *bytes {
                    return if matches!(fault, Fault::StallAfter(_)) { hold(&mut stream) } else { Ok(()) };
                }
            }
            fault => {
                sent_bytes += out.len();
                send(&mut stream, &out, fault)?;
            }
        }
        processed.map_err(std::io::Error::other)?;
        let mut piece = [0; 4096];
        while let Ok(bytes @ 1..) = connection.reader().read(&mut piece) {
            request.extend_from_slice(&piece[..bytes]);
        }
    }
    answer(stream, connection, fault, response)
}

fn answer(
    mut stream: TcpStream,
    mut connection: ServerConnection,
    fault: &Fault,
    response: &[u8],
) -> std::io::Result<()> {
    let half = matches!(fault, Fault::CutOff | Fault::CutOffByReset | Fault::GarbageAfterHalf);
    connection.writer().write_all(if half { &response[..response.len() / 2] } else { response })?;
    if !half && !matches!(fault, Fault::NoGoodbye) {
        connection.send_close_notify();
    }
    let mut out = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut out)?;
    }
    send(&mut stream, &out, fault)?;
    match fault {
        Fault::CutOffByReset => return reset(&stream),
        Fault::GarbageAfterHalf => stream.write_all(b"garbage is not a record")?,
        _ => {}
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    hold(&mut stream)
}

fn send(stream: &mut TcpStream, bytes: &[u8], fault: &Fault) -> std::io::Result<()> {
    let piece_bytes = if matches!(fault, Fault::Crumbs) { 1 } else { bytes.len().max(1) };
    bytes.chunks(piece_bytes).try_for_each(|piece| stream.write_all(piece))
}

/// Reads, and says nothing, until the client goes.
fn hold(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A linger time of zero turns the close that follows into RST.
fn reset(stream: &TcpStream) -> std::io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO))?)
}
