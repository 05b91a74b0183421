//! Certificates for every way in which a handshake can go wrong, minted when they are needed.
//!
//! All of them are valid in the middle of 2026 by [`NOW`], unless a test asks for something else; no test looks at
//! the real clock.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ringprobe::clock::Wall;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// 1 July 2026, 00:00 UTC.
pub(crate) const NOW: Wall = Wall(1_782_864_000_000_000);
/// The last second of validity of certificates that ask for nothing else: 1 January 2027, 00:00 UTC.
pub(crate) const NOT_AFTER_S: i64 = 1_798_761_600;

/// Who signs certificates.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    /// What has to be sent along so that others find the way to the root.
    path: Vec<CertificateDer<'static>>,
}

/// A certificate with its chain and its key: what a server has.
pub(crate) struct Leaf {
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) chain_pem: String,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) key_pem: String,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            chain_pem: self.chain_pem.clone(),
            key: self.key.clone_key(),
            key_pem: self.key_pem.clone(),
        }
    }
}

/// What a leaf for `names` looks like; names that are addresses become such.
pub(crate) fn leaf_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a test's leaf");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// What an authority looks like.
pub(crate) fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// So many seconds after [`NOW`].
pub(crate) fn seconds_after_now(params: &mut CertificateParams, seconds: u64) {
    params.not_after = date_time_ymd(2026, 7, 1) + Duration::from_secs(seconds);
}

impl Authority {
    /// A root.
    pub(crate) fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.der().clone(), params, key, path: Vec::new() }
    }

    /// One that this one vouches for.
    pub(crate) fn intermediate(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        let path = [vec![certificate.der().clone()], self.path.clone()].concat();
        Self { pem: certificate.pem(), certificate: certificate.der().clone(), params, key, path }
    }

    /// A leaf, with everything between it and the root.
    pub(crate) fn leaf(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Leaf::new([vec![certificate.der().clone()], self.path.clone()].concat(), &key)
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl Leaf {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        Self {
            chain_pem: chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect(),
            chain,
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            key_pem: key.serialize_pem(),
        }
    }

    /// A leaf that nobody vouches for but itself.
    pub(crate) fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::new(vec![certificate.der().clone()], &key)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
