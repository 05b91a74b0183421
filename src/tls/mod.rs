//! TLS without I/O: client configurations, sessions, certificate facts and failure classes.
//!
//! ```text
//!   Profile (an endpoint's options) + Roots ── once per shard and profile ──► Config ── per connection ──► Session
//! ```
//!
//! A [`Config`] is made once and shared by every endpoint of a shard that has the same [`Profile`]; a [`Session`] is
//! one connection, fed with bytes and giving bytes back. Handshakes are full unless the profile asks for resumption:
//! rustls resumes by default, and a prober that shares a configuration would be silently warm after its first probe.
//!
//! In scope: TLS 1.2 and 1.3, with the one provider of this binary (ring) handed over explicitly, so that nothing
//! depends on a process-wide default. Out of scope: sockets and deadlines; revocation; anything older than 1.2, which
//! ends as `tls_protocol` or `tls_alert`; the post-quantum key exchange, which ring has not.
//!
//! Invariant: nothing here reads a socket or a file, but for [`Roots::system`], which is called once, at the start.

mod certificate;
mod failure;
mod session;
mod verify;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use zeroize::Zeroizing;

use crate::clock::Wall;
use crate::sample::Failure;

pub use session::{Facts, Session, TLS_IDLE_BYTES_MAX};
pub use verify::{MEMO_AGE_MAX, MEMO_CHAINS_MAX};

use verify::{Trust, Verifier};

/// Sessions remembered per configuration where resumption is asked for: rustls keeps eight tickets to a name, so that
/// these are an eighth as many names.
pub const RESUMPTION_SESSIONS_MAX: usize = 8 * 1024;

/// An endpoint's TLS options. Equal profiles share a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// PEM of the certificates to trust instead of the [`Roots`] (`ca_file`).
    pub ca: Option<Vec<u8>>,
    /// Who we are, if the origin asks (`client_cert`, `client_key`).
    pub client: Option<Identity>,
    /// The name to send and to check, if it is not the URL's host (`server_name`).
    pub server_name: Option<String>,
    /// Take any certificate, for any name and from anyone (`insecure`). That the origin has its key is checked still.
    pub insecure: bool,
    /// The oldest version to speak,
    pub min_version: Version,
    /// and the newest.
    pub max_version: Version,
    /// Resume earlier sessions (`resumption`); off, every handshake is a full one.
    pub resumption: bool,
    /// Take a chain that was found good for good for up to [`MEMO_AGE_MAX`], unless a byte of it changes. Handshakes
    /// are full ones all the same, for the origin and on the wire; it saves us checking the same signatures again.
    pub verdict_memo: bool,
}

impl Default for Profile {
    /// Trust the roots, speak 1.2 and 1.3, never resume.
    fn default() -> Self {
        Self {
            ca: None,
            client: None,
            server_name: None,
            insecure: false,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            resumption: false,
            verdict_memo: true,
        }
    }
}

/// A client's certificate with its key. The key is shown to nobody and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// PEM of the certificate and of those that vouch for it, in this order.
    pub chain: Vec<u8>,
    /// PEM of the private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain_bytes", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Hash for Identity {
    /// By the chain alone, which names the key: a hash of a secret is one too many.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.chain.hash(state);
    }
}

/// A version of TLS that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// As in endpoint files: `1.2` or `1.3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "1.2" => Some(Self::Tls12),
            "1.3" => Some(Self::Tls13),
            _ => None,
        }
    }

    /// The reverse of [`Self::parse`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// Whom to trust where a profile does not say. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Mozilla's, as compiled in.
    #[must_use]
    pub fn bundled() -> Self {
        Self { store: Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }) }
    }

    /// Those that this machine trusts (OpenSSL's `SSL_CERT_FILE` and `SSL_CERT_DIR` are respected), read now; `None`
    /// if it has none. Those that are no certificates to rustls are left out.
    #[must_use]
    pub fn system() -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        (!store.is_empty()).then(|| Self { store: Arc::new(store) })
    }

    /// [`Self::system`], or else [`Self::bundled`].
    #[must_use]
    pub fn system_or_bundled() -> Self {
        Self::system().unwrap_or_else(Self::bundled)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.store.len()
    }
}

/// A host as TLS knows it: what is sent as SNI (RFC 6066, section 3) and what the certificate has to be for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerHost(ServerName<'static>);

impl ServerHost {
    /// A DNS name (a dot at its end does not count), an IPv4 address, or an IPv6 address, in brackets or not.
    /// Addresses are not sent, but checked. `None` if it is none of these.
    #[must_use]
    pub fn parse(host: &str) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => Some(Self(ServerName::from(address))),
            Err(_) if bare.len() != host.len() => None,
            // A certificate's names are compared without regard to case, and the memo's key is not.
            Err(_) => ServerName::try_from(host.to_ascii_lowercase()).ok().map(Self),
        }
    }
}

/// What a shard keeps per profile.
#[derive(Clone, Debug)]
pub struct Config {
    client: Arc<ClientConfig>,
    server_name: Option<ServerHost>,
}

/// An option that cannot be used; begins with the option's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfigError {
    /// `ca_file`.
    CaFile(String),
    /// `client_cert`.
    ClientCert(String),
    /// `client_key`.
    ClientKey(String),
    /// `server_name`.
    ServerName(String),
    /// `min_version` and `max_version`.
    Versions,
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaFile(why) => write!(f, "ca_file: {why}"),
            Self::ClientCert(why) => write!(f, "client_cert: {why}"),
            Self::ClientKey(why) => write!(f, "client_key: {why}"),
            Self::ServerName(name) => write!(f, "server_name: {name:?} is neither a name nor an address"),
            Self::Versions => write!(f, "min_version: is above max_version"),
        }
    }
}

impl std::error::Error for TlsConfigError {}

impl Config {
    /// Makes a configuration from its options, parsing what is PEM in them; to be kept.
    ///
    /// # Errors
    ///
    /// If a certificate, a key, a name or the versions cannot be used.
    pub fn new(profile: &Profile, roots: &Roots) -> Result<Self, TlsConfigError> {
        Self::with_clock(profile, roots, Wall::now)
    }

    /// The same, with a clock of the caller's: what is looked at to tell whether a certificate is valid, and a ticket
    /// still good.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_clock(
        profile: &Profile,
        roots: &Roots,
        clock: impl Fn() -> Wall + Send + Sync + 'static,
    ) -> Result<Self, TlsConfigError> {
        let provider = Arc::new(ring::default_provider());
        let server_name = match &profile.server_name {
            None => None,
            Some(name) => {
                let host = ServerHost::parse(name);
                Some(host.ok_or_else(|| TlsConfigError::ServerName(name.clone()))?)
            }
        };
        let trust = match &profile.ca {
            _ if profile.insecure => Trust::Anyone,
            None => Trust::Roots(Arc::clone(&roots.store)),
            Some(pem) => trust_file(pem)?,
        };
        let versions = match (profile.min_version, profile.max_version) {
            (Version::Tls12, Version::Tls12) => &[&TLS12][..],
            (Version::Tls12, Version::Tls13) => &[&TLS13, &TLS12],
            (Version::Tls13, Version::Tls13) => &[&TLS13],
            (Version::Tls13, Version::Tls12) => return Err(TlsConfigError::Versions),
        };
        let identity = profile.client.as_ref().map(read_identity).transpose()?;
        let verifier = Verifier::new(trust, Arc::clone(&provider), profile.verdict_memo);
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Clock(clock)))
            .with_protocol_versions(versions)
            .expect("ring has cipher suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsConfigError::ClientKey("is not the key of client_cert".into())
                }
                rustls::Error::InvalidCertificate(_) => TlsConfigError::ClientCert(error.to_string()),
                _ => TlsConfigError::ClientKey("is of a kind that is not supported".into()),
            })?,
        };
        client.resumption = match profile.resumption {
            true => Resumption::in_memory_sessions(RESUMPTION_SESSIONS_MAX),
            false => Resumption::disabled(),
        };
        // The truth, and what keeps servers that prefer HTTP/2 from talking it (RFC 7301).
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { client: Arc::new(client), server_name })
    }

    /// Begins a connection to `host`. Its ClientHello can be taken at once: its key is made here, and can be made
    /// before the slot is due.
    ///
    /// # Errors
    ///
    /// [`Failure::TlsProtocol`] if rustls cannot make a ClientHello, for want of random numbers say.
    pub fn session(&self, host: &ServerHost) -> Result<Session, Failure> {
        let name = self.server_name.as_ref().unwrap_or(host).0.clone();
        let connection = ClientConnection::new(Arc::clone(&self.client), name);
        connection.map(Session::new).map_err(|error| failure::class(&error))
    }
}

fn trust_file(pem: &[u8]) -> Result<Trust, TlsConfigError> {
    let certificates = read_chain(pem).map_err(TlsConfigError::CaFile)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        roots
            .add(certificate.clone())
            .map_err(|_| TlsConfigError::CaFile(format!("certificate {} cannot be read", index + 1)))?;
    }
    Ok(Trust::File { certificates, roots: Arc::new(roots) })
}

fn read_identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsConfigError> {
    let chain = read_chain(&identity.chain).map_err(TlsConfigError::ClientCert)?;
    // What exactly is wrong with a key is not repeated: it would be a part of it.
    let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            TlsConfigError::ClientKey("holds no private key in PEM (an encrypted one is none)".into())
        }
        _ => TlsConfigError::ClientKey("is not PEM".into()),
    })?;
    Ok((chain, key))
}

/// The certificates of a PEM file; at least one.
fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate in PEM".into()),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err("is not PEM".into()),
    }
}

/// A clock of ours, for rustls.
struct Clock<F>(F);

impl<F> fmt::Debug for Clock<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl<F: Fn() -> Wall + Send + Sync> TimeProvider for Clock<F> {
    fn current_time(&self) -> Option<UnixTime> {
        let us = u64::try_from((self.0)().0).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_micros(us)))
    }
}
