//! The origin's side of TLS: bytes from the wire in, requests out, answers in, bytes for the wire out.
//!
//! rustls does it. What the menu orders is played above it: a `/drip` is one record per write, a `/reset` is RST in
//! the middle of a record or between two, and only an answer that ends in a close says goodbye (`close_notify`).
//! Faults of TLS itself are not on the menu; the tests have a server for them.
//!
//! Invariant: what a channel holds in memory is bounded by one handshake flight, or one write of [`WRITE_BYTES`].

use std::fmt;
use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// Payload taken at once: one record, the largest there is (RFC 8446, section 5.1).
const WRITE_BYTES: usize = 16 * 1024;

/// What an origin that speaks TLS shows to its clients.
#[derive(Clone)]
pub struct OriginTls(Arc<ServerConfig>);

impl fmt::Debug for OriginTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OriginTls")
    }
}

impl From<ServerConfig> for OriginTls {
    /// Whatever rustls can be made to do; `http/1.1` is all that is spoken above it.
    fn from(config: ServerConfig) -> Self {
        Self(Arc::new(config))
    }
}

/// Why a certificate or its key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginTlsError {
    /// There is no certificate in PEM in the one,
    Certificate,
    /// or no private key in PEM in the other,
    Key,
    /// or they are not of the same pair, or of a kind that is not supported.
    Pair,
}

impl fmt::Display for OriginTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "the certificate file holds no certificate in PEM",
            Self::Key => "the key file holds no private key in PEM",
            Self::Pair => "the key is not that of the certificate, or of a kind that is not supported",
        })
    }
}

impl std::error::Error for OriginTlsError {}

impl OriginTls {
    /// From PEM: a certificate, with those that vouch for it behind it, and its key.
    ///
    /// # Errors
    ///
    /// If there is none in the one or the other, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, OriginTlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(OriginTlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| OriginTlsError::Key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("ring has cipher suites for all versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|_| OriginTlsError::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config.into())
    }
}

/// One connection's TLS.
pub(super) struct Channel {
    connection: ServerConnection,
    /// For the wire,
    output: Vec<u8>,
    /// of which so many bytes have gone.
    sent_bytes: usize,
    client_closed: bool,
}

/// The client is not one we can talk to; an alert that says so is in the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

impl Channel {
    /// A connection that has just been accepted; `None` if rustls does not want to begin.
    pub(super) fn new(tls: &OriginTls) -> Option<Self> {
        let connection = ServerConnection::new(Arc::clone(&tls.0)).ok()?;
        Some(Self { connection, output: Vec::new(), sent_bytes: 0, client_closed: false })
    }

    /// Takes bytes off the wire, and appends the payload in them to `plain`.
    pub(super) fn received(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Refused> {
        while !bytes.is_empty() && !self.client_closed {
            self.connection.read_tls(&mut bytes).map_err(|_| Refused)?;
            let processed = self.connection.process_new_packets();
            let mut reader = self.connection.reader();
            while let Ok(piece) = reader.fill_buf() {
                let piece_bytes = piece.len();
                if piece_bytes == 0 {
                    break;
                }
                plain.extend_from_slice(piece);
                reader.consume(piece_bytes);
            }
            self.collect();
            self.client_closed |= processed.map_err(|_| Refused)?.peer_has_closed();
        }
        Ok(())
    }

    /// The client has said that it will send no more.
    pub(super) const fn client_closed(&self) -> bool {
        self.client_closed
    }

    /// Takes some of the payload, to be sent before anything else is taken.
    pub(super) fn write(&mut self, plain: &[u8]) -> usize {
        let taken = self.connection.writer().write(&plain[..plain.len().min(WRITE_BYTES)]).unwrap_or(0);
        self.collect();
        taken
    }

    /// Says that we will send no more.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
        self.collect();
    }

    /// For the wire, and still here.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.sent_bytes..]
    }

    /// So many bytes of [`Self::output`] have gone.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
        if self.sent_bytes == self.output.len() {
            self.output.clear();
            self.sent_bytes = 0;
        }
    }

    fn collect(&mut self) {
        while self.connection.wants_write() {
            // Writing to a vector does not fail; if it did, the loop must end.
            if self.connection.write_tls(&mut self.output).is_err() {
                return;
            }
        }
    }
}
