//! A blocking server that reads requests and answers with prepared bytes, whatever they are.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long a client may keep the server waiting: for as long as a test would.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Script {
    /// One for each request, in order; the last one is good for all that follow.
    replies: Vec<Vec<u8>>,
    /// Whether connections stay open behind their replies.
    keep_open: bool,
    /// What came, head and body.
    requests: Vec<Vec<u8>>,
}

/// Listens on all loopback addresses, so that one server is several origins, for as long as the process lives.
#[derive(Clone)]
pub(crate) struct ReplyServer {
    port: u16,
    script: Arc<Mutex<Script>>,
}

impl ReplyServer {
    /// Starts one without anything to say; `@port` in what it is given later stands for its port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Script { replies: Vec::new(), keep_open: false, requests: Vec::new() };
        let server = Self { port, script: Arc::new(Mutex::new(script)) };
        let shared = Arc::clone(&server.script);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let script = Arc::clone(&shared);
                // A connection that a client keeps must not keep the next one waiting.
                thread::spawn(move || serve(connection, &script));
            }
        });
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Says what the next client will be told, and forgets the last one.
    pub(crate) fn script(&self, replies: Vec<Vec<u8>>, keep_open: bool) {
        *self.script.lock().unwrap() = Script { replies, keep_open, requests: Vec::new() };
    }

    /// The requests since.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.script.lock().unwrap().requests.clone()
    }
}

/// Answers the requests of one connection. Whatever breaks is the client's doing, and its to judge.
fn serve(mut connection: TcpStream, script: &Mutex<Script>) {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut connection) {
        let (reply, keep_open) = {
            let mut script = script.lock().unwrap();
            let at = script.requests.len().min(script.replies.len() - 1);
            script.requests.push(request);
            (script.replies[at].clone(), script.keep_open)
        };
        if connection.write_all(&reply).is_err() {
            return;
        }
        if !keep_open {
            break;
        }
    }
    // The client first: closing with input unread would send RST, which may overtake the reply.
    let _ = connection.shutdown(Shutdown::Write);
    let _ = std::io::copy(&mut connection, &mut std::io::sink());
}

fn read_request(connection: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(request_bytes) = request_bytes(&request)
            && request.len() >= request_bytes
        {
            return Some(request);
        }
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read_bytes) => request.extend_from_slice(&buffer[..read_bytes]),
        }
    }
}

/// How long the request is that begins like this, once its head is whole.
fn request_bytes(request: &[u8]) -> Option<usize> {
    let head_bytes = request.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&request[..head_bytes]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(head_bytes + length.unwrap_or(0))
}
