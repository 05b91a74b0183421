//! A TCP proxy in front of PostgreSQL that breaks connections where it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Where a connection is broken. Each is good for one connection, the first that comes to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// After the server has answered the COMMIT; the answer is kept from the client.
    AnswerToCommit,
    /// When this many more bytes have gone from client to server.
    AfterSent(u64),
    /// When this many more bytes have gone from server to client.
    AfterReceived(u64),
}

#[derive(Debug, Default)]
struct State {
    refuse: bool,
    cut: Option<Cut>,
    /// The COMMIT has gone to the server of a connection.
    committing: bool,
    cuts: u32,
}

/// Listens on a loopback port for as long as the process lives.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    pub(crate) fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // Dropped, and so closed, if connections are refused or the server is away.
                if shared.lock().unwrap().refuse {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for (from, to, sent) in [(&client, &server, true), (&server, &client, false)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = Arc::clone(&shared);
                    thread::spawn(move || pump(from, to, sent, &state));
                }
            }
        });
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Arms one cut.
    pub(crate) fn cut(&self, cut: Cut) {
        self.state.lock().unwrap().cut = Some(cut);
    }

    /// How many cuts have been made.
    pub(crate) fn cuts(&self) -> u32 {
        self.state.lock().unwrap().cuts
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.state.lock().unwrap().refuse = refuse;
    }
}

/// Copies one direction of a connection; ends both when either ends.
fn pump(mut from: TcpStream, mut to: TcpStream, sent: bool, state: &Mutex<State>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..read];
        let (pass, cut) = decide(bytes, sent, &mut state.lock().unwrap());
        if to.write_all(&bytes[..pass]).is_err() || cut {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// How many of these bytes to pass on, and whether the connection ends after them.
fn decide(bytes: &[u8], sent: bool, state: &mut State) -> (usize, bool) {
    let whole = bytes.len();
    match state.cut {
        Some(Cut::AnswerToCommit) if sent => {
            // A simple query: 'Q', its length, and the text.
            state.committing |= bytes.windows(7).any(|window| window == b"COMMIT\0");
            (whole, false)
        }
        Some(Cut::AnswerToCommit) if state.committing => {
            state.committing = false;
            made(state);
            (0, true)
        }
        Some(Cut::AfterSent(left)) if sent => count(bytes, left, state, Cut::AfterSent),
        Some(Cut::AfterReceived(left)) if !sent => count(bytes, left, state, Cut::AfterReceived),
        _ => (whole, false),
    }
}

fn count(bytes: &[u8], left: u64, state: &mut State, cut: fn(u64) -> Cut) -> (usize, bool) {
    if left < bytes.len() as u64 {
        made(state);
        return (usize::try_from(left).unwrap(), true);
    }
    state.cut = Some(cut(left - bytes.len() as u64));
    (bytes.len(), false)
}

fn made(state: &mut State) {
    state.cut = None;
    state.cuts += 1;
}
