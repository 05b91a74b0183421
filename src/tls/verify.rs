//! Judging the certificates an origin shows, at the price of a handshake and not of two.
//!
//! [`Verifier`] asks webpki, and adds what a prober needs on top:
//!
//! - The leaf's last day is noted before it is judged, so that it is known of a certificate that failed, too.
//! - **Verdict memo.** A prober is shown the same chain again and again, and its signatures do not become truer by
//!   being checked every minute. A chain that was found good is remembered by a SHA-256 of all of its bytes and the
//!   name, and is found good again while each certificate of it is within its dates, for at most
//!   [`MEMO_AGE_MAX`]. One other byte is another key, and is checked in full. That the origin *has* the key of the
//!   leaf is proven by its signature in each handshake, and that one is always checked.
//! - A certificate that stands in `ca_file` itself is trusted as it is, whether or not it says that it is an
//!   authority: `openssl req -x509` makes such, and curl takes them.
//! - `insecure` checks the handshake's signature, and neither chain nor name. It takes certificates of version 1, too,
//!   which webpki does not read and old appliances still have.
//!
//! Out of scope: revocation. Neither CRLs nor OCSP are asked, as in curl's default.
//!
//! Invariant: the memo holds only successes, and forgets them all when it is full.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::hash::Hash;
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use super::certificate::{Certificate, PublicKey};
use crate::clock::Micros;

/// How long a good chain is taken for good without checking its signatures again.
pub const MEMO_AGE_MAX: Micros = Micros::from_millis(600_000);
/// Good chains remembered per configuration: 48 bytes each, and the table's slack.
pub const MEMO_CHAINS_MAX: usize = 16 * 1024;

thread_local! {
    /// `not_after` of the leaf this thread looked at last. rustls calls the verifier from inside of
    /// `process_new_packets` and has no way to hand something of one session back to its owner when it fails.
    static LEAF_NOT_AFTER_S: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Takes the last day of the leaf that was looked at since the last call, if any was, in seconds.
pub(super) fn take_leaf_not_after_s() -> Option<i64> {
    LEAF_NOT_AFTER_S.take()
}

/// The judge of one configuration.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    memo: Option<Memo>,
}

/// Whom to believe.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nobody asks.
    Anyone,
    /// These roots.
    Roots(Arc<RootCertStore>),
    /// The certificates of `ca_file`, also as roots.
    File { certificates: Vec<CertificateDer<'static>>, roots: Arc<RootCertStore> },
}

impl Verifier {
    /// A judge that believes `trust`, with or without a memo.
    pub(super) fn new(trust: Trust, provider: Arc<CryptoProvider>, memo: bool) -> Self {
        let sha256 = memo.then(|| sha256(&provider)).flatten();
        Self { trust, provider, memo: sha256.map(Memo::new) }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let (roots, own) = match &self.trust {
            Trust::Anyone => return Ok(()),
            Trust::Roots(roots) => (roots, &[][..]),
            Trust::File { certificates, roots } => (roots, &certificates[..]),
        };
        if own.iter().any(|own| own == leaf) {
            return judge_own(leaf, name, now);
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms) {
            // webpki says that an authority is no leaf before it asks who signed it. What people need to hear of a
            // certificate that its owner signed himself is that nobody trusts it.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if Certificate::parse(leaf).is_some_and(|leaf| leaf.is_self_issued()) =>
            {
                return Err(CertificateError::UnknownIssuer.into());
            }
            verdict => verdict?,
        }
        verify_server_name(&parsed, name)
    }
}

impl Verifier {
    /// Checks a signature of TLS 1.2 by the key of a certificate, whatever else the certificate holds. What TLS 1.2
    /// calls a scheme leaves the curve open (RFC 8422, section 5.1.1): the algorithm whose key it is decides.
    fn verify_by_key(
        &self,
        message: &[u8],
        certificate: &[u8],
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
        let key = PublicKey::parse(certificate.key).ok_or(CertificateError::BadEncoding)?;
        let schemes = self.provider.signature_verification_algorithms.mapping;
        let (_, algorithms) = schemes
            .iter()
            .find(|(scheme, _)| *scheme == dss.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        algorithms
            .iter()
            .find(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm)
            .and_then(|algorithm| algorithm.verify_signature(key.bits, message, dss.signature()).ok())
            .map(|()| HandshakeSignatureValid::assertion())
            .ok_or_else(|| CertificateError::BadSignature.into())
    }
}

/// A certificate of `ca_file` used as a leaf: its dates and its name have to be right.
fn judge_own(leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    let Some(dates) = Certificate::parse(leaf) else { return Err(CertificateError::BadEncoding.into()) };
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now_s < dates.not_before_s {
        return Err(CertificateError::NotValidYet.into());
    }
    if now_s > dates.not_after_s {
        return Err(CertificateError::Expired.into());
    }
    verify_server_name(&parsed, name)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        LEAF_NOT_AFTER_S.set(Certificate::parse(end_entity).map(|leaf| leaf.not_after_s));
        let judge = || self.judge(end_entity, intermediates, server_name, now);
        match (&self.memo, &self.trust) {
            (None, _) | (_, Trust::Anyone) => judge()?,
            (Some(memo), _) => {
                let key = memo.key(end_entity, intermediates, server_name);
                if !memo.knows(&key, now) {
                    judge()?;
                    memo.learn(key, end_entity, intermediates, now);
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.trust {
            Trust::Anyone => self.verify_by_key(message, cert, dss),
            _ => verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match self.trust {
            Trust::Anyone => {
                let key = Certificate::parse(cert).ok_or(CertificateError::BadEncoding)?.key;
                verify_tls13_signature_with_raw_key(
                    message,
                    &SubjectPublicKeyInfoDer::from(key),
                    dss,
                    algorithms,
                )
            }
            _ => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// SHA-256 as the provider has it; every cipher suite of TLS names its hash.
fn sha256(provider: &CryptoProvider) -> Option<&'static dyn Hash> {
    use rustls::crypto::hash::HashAlgorithm;
    let hashes = provider.cipher_suites.iter().filter_map(|suite| suite.tls13());
    hashes.map(|suite| suite.common.hash_provider).find(|hash| hash.algorithm() == HashAlgorithm::SHA256)
}

/// The name and each byte of the chain, hashed.
type Key = [u8; 32];

/// Chains that were found good.
struct Memo {
    sha256: &'static dyn Hash,
    /// A mutex because rustls wants the verifier `Sync`. With a configuration per shard nobody contends for it.
    good: Mutex<HashMap<Key, Window>>,
}

/// From when to when a verdict holds, seconds since the Unix epoch, both included.
#[derive(Clone, Copy, Debug)]
struct Window {
    from_s: i64,
    to_s: i64,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

impl Memo {
    fn new(sha256: &'static dyn Hash) -> Self {
        Self { sha256, good: Mutex::default() }
    }

    /// Lengths are hashed too: no two chains spell the same bytes.
    fn key(&self, leaf: &[u8], intermediates: &[CertificateDer<'_>], name: &ServerName<'_>) -> Key {
        let mut context = self.sha256.start();
        let mut update = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        match name {
            ServerName::IpAddress(rustls::pki_types::IpAddr::V4(address)) => update(address.as_ref()),
            ServerName::IpAddress(rustls::pki_types::IpAddr::V6(address)) => update(address.as_ref()),
            // The case of a name does not matter, and `url` writes it small.
            name => update(name.to_str().as_bytes()),
        }
        update(leaf);
        for certificate in intermediates {
            update(certificate);
        }
        let mut key = Key::default();
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    fn knows(&self, key: &Key, now: UnixTime) -> bool {
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.get(key).is_some_and(|window| window.from_s <= now_s && now_s <= window.to_s)
    }

    /// Remembers a good chain for as long as every certificate that came with it is within its dates, those
    /// that the verdict did not need included: that is never too long.
    fn learn(&self, key: Key, leaf: &[u8], intermediates: &[CertificateDer<'_>], now: UnixTime) {
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let age_max_s = i64::try_from(MEMO_AGE_MAX.as_duration().as_secs()).unwrap_or(i64::MAX);
        // A clock set back must not make a verdict last longer.
        let mut window = Window { from_s: now_s, to_s: now_s.saturating_add(age_max_s) };
        for certificate in std::iter::once(leaf).chain(intermediates.iter().map(AsRef::as_ref)) {
            let Some(dates) = Certificate::parse(certificate) else { return };
            window.from_s = window.from_s.max(dates.not_before_s);
            window.to_s = window.to_s.min(dates.not_after_s);
        }
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= MEMO_CHAINS_MAX {
            good.clear();
        }
        good.insert(key, window);
    }
}
