//! One TLS connection: bytes from the wire in, payload out, and the other way round.
//!
//! ```text
//!   Config::session ─► handshaking ── received … take_output ──► open ── send, received ──► closed cleanly, or cut off
//!                          │ Err(Failure): take_output has the alert that says so
//! ```
//!
//! In scope: one side of one connection, whatever the pieces in which its bytes come. Out of scope: deadlines, and
//! what it means that the peer closed its side of TCP: ask [`Session::is_handshaking`] and
//! [`Session::peer_closed_cleanly`], and for a body whose length was known a missing `close_notify` is fine.
//!
//! Invariants: payload handed out is never longer than what came in. A failure is final, and what came before it is
//! handed out first. What came counts and not how: whole, byte by byte, or in between.

use std::io::{BufRead, Write};

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};

use super::certificate::Certificate;
use super::{Version, failure, verify};
use crate::sample::Failure;

/// Bytes in a row, as they came, without a byte of payload among them. A handshake with the longest chain that
/// rustls takes (64 KiB) is 1.5 MB if a server cuts it into records of a byte; session tickets have no end of
/// their own, and each costs us a key derivation.
pub const TLS_IDLE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A connection, from the first byte on.
#[derive(Debug)]
pub struct Session {
    connection: ClientConnection,
    facts: Facts,
    /// Bytes received since the last payload.
    idle_bytes: usize,
    peer_closed: bool,
    failed: Option<Failed>,
}

/// Why a session is over.
#[derive(Debug)]
struct Failed {
    class: Failure,
    why: String,
}

/// What a handshake told. Of one that failed, what was known by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The version agreed on.
    pub version: Option<Version>,
    /// The cipher suite agreed on, IANA's number; 0 before there is one.
    pub cipher: u16,
    /// The handshake resumed an earlier session: no certificate was shown, and none was judged.
    pub resumed: bool,
    /// The last second of the leaf's validity, since the Unix epoch, whether or not the leaf was found good.
    /// Of a resumed session, that of the leaf that was shown when it began.
    pub not_after_s: Option<i64>,
}

impl Session {
    pub(super) fn new(mut connection: ClientConnection) -> Self {
        // Whoever sends has bounded the request already; here it would only be cut in the middle.
        connection.set_buffer_limit(None);
        Self { connection, facts: Facts::default(), idle_bytes: 0, peer_closed: false, failed: None }
    }

    /// Appends the bytes that shall go out now: the ClientHello at first, then whatever [`Self::received`],
    /// [`Self::send`] and [`Self::close_notify`] have left. After a failure this is the alert that names it.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to a vector does not fail; if it did, the loop must end.
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }

    /// Whether [`Self::take_output`] has something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Takes bytes off the wire, in any pieces, and appends the payload in them to `plain`, which grows by less
    /// than `tls_bytes` and what earlier calls left incomplete (at most one record, 16 KiB). Bytes after the peer's
    /// `close_notify` are ignored (RFC 8446, section 6.1).
    ///
    /// # Errors
    ///
    /// The class of what is wrong, and from then on always the same. Payload from before it is in `plain`.
    pub fn received(&mut self, tls_bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Failure> {
        if let Some(failed) = &self.failed {
            return Err(failed.class);
        }
        let mut rest = tls_bytes;
        while !rest.is_empty() && !self.peer_closed {
            let (plain_bytes, rest_bytes) = (plain.len(), rest.len());
            // At most some 4 KiB are taken at once, whatever `rest` holds.
            if let Err(error) = self.connection.read_tls(&mut rest) {
                // More than a record, or 64 KiB of one handshake message, that does not end.
                return Err(self.fail(Failure::TlsProtocol, error.to_string()));
            }
            let processed = self.connection.process_new_packets();
            self.note_facts();
            self.take_payload(plain);
            match processed {
                Ok(state) => self.peer_closed |= state.peer_has_closed(),
                Err(error) => return Err(self.fail(failure::class(&error), error.to_string())),
            }
            if plain.len() > plain_bytes {
                self.idle_bytes = 0;
            }
            self.idle_bytes += rest_bytes - rest.len();
            if self.idle_bytes > TLS_IDLE_BYTES_MAX {
                let why = format!("{TLS_IDLE_BYTES_MAX} bytes came without payload");
                return Err(self.fail(Failure::TlsProtocol, why));
            }
        }
        Ok(())
    }

    /// No payload may come yet, and none goes out.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Sends payload. While the handshake goes on it is held back, and leaves together with our last flight. How
    /// much that may be is for the caller to bound: it is held until [`Self::take_output`]. After a failure it is
    /// dropped.
    pub fn send(&mut self, plain: &[u8]) {
        if self.failed.is_none() {
            let written = self.connection.writer().write(plain);
            debug_assert!(written.is_ok_and(|bytes| bytes == plain.len()), "there is no limit");
        }
    }

    /// Says that we will send no more (RFC 8446, section 6.1).
    pub fn close_notify(&mut self) {
        if self.failed.is_none() {
            self.connection.send_close_notify();
        }
    }

    /// The peer has said that it will send no more. Otherwise the end of the stream may have been an attacker's.
    #[must_use]
    pub const fn peer_closed_cleanly(&self) -> bool {
        self.peer_closed
    }

    /// What is known about the session, after a failure too.
    #[must_use]
    pub const fn facts(&self) -> Facts {
        self.facts
    }

    /// What went wrong, for people: rustls' words, which name the versions, dates and names at odds.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.failed.as_ref().map(|failed| failed.why.as_str())
    }

    fn fail(&mut self, class: Failure, why: String) -> Failure {
        self.failed = Some(Failed { class, why });
        class
    }

    fn take_payload(&mut self, plain: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // Nothing more to read is an error here (`WouldBlock`), and the end an empty piece.
        while let Ok(piece) = reader.fill_buf() {
            let piece_bytes = piece.len();
            if piece_bytes == 0 {
                return;
            }
            plain.extend_from_slice(piece);
            reader.consume(piece_bytes);
        }
    }

    /// Keeps the facts current until the handshake is over; then they stand.
    fn note_facts(&mut self) {
        if let Some(not_after_s) = verify::take_leaf_not_after_s() {
            self.facts.not_after_s = Some(not_after_s);
        }
        if self.facts.cipher == 0 {
            let suite = self.connection.negotiated_cipher_suite();
            self.facts.cipher = suite.map_or(0, |suite| u16::from(suite.suite()));
            self.facts.version = match self.connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Some(Version::Tls12),
                Some(ProtocolVersion::TLSv1_3) => Some(Version::Tls13),
                _ => None,
            };
        }
        if !self.facts.resumed && self.connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.facts.resumed = true;
            let leaf = self.connection.peer_certificates().and_then(<[_]>::first);
            self.facts.not_after_s =
                leaf.and_then(|leaf| Certificate::parse(leaf)).map(|leaf| leaf.not_after_s);
        }
    }
}
