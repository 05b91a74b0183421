//! The TLS core against a real TLS server, in memory: every failure that badssl.com has a host for, hostile bytes,
//! and the same result however the bytes are cut.
//!
//! What badssl.com has and is not here, and why:
//!
//! - `revoked`, `pinning-test`, `no-sct`, `invalid-expected-sct`: revocation, pins and transparency are a browser's
//!   business; ringprobe takes such certificates, as curl does.
//! - `sha1-*`, `rsa2048`, `rsa4096`, `rsa8192`: rcgen on ring can neither sign with SHA-1 nor make RSA keys. Nothing
//!   tests the class of a signature algorithm that is not supported.
//! - `superfish`, `edellroot`, `dsdtestprovider`, `preact-cli`, `webpack-dev-server`, `mitm-software`,
//!   `captive-portal`: untrusted roots, like `untrusted-root`.
//! - `cbc`, `rc4`, `rc4-md5`, `3des`, `null`, `static-rsa`, `dh*`: rustls has none of these, on either side. A server
//!   that offers nothing else answers with an alert, one that insists picks what was not offered: both are here, as
//!   raw bytes. The strength of a Diffie-Hellman group is never looked at, as there is no such handshake.
//! - `mixed-script`, `http-*`, `hsts`, `upgrade`, `long-*`: HTML and browser state.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls_server.rs"]
mod tls_server;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use certificates::{Authority, Leaf, NOT_AFTER_S, NOW, authority_params, leaf_params, seconds_after_now};
use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    NameConstraints, date_time_ymd,
};
use ringprobe::clock::Wall;
use ringprobe::sample::Failure;
use ringprobe::testing::origin::{MENU, Origin, OriginOptions, OriginTls, OriginTlsError};
use ringprobe::tls::{
    Config, Facts, Identity, Profile, Roots, ServerHost, Session, TLS_IDLE_BYTES_MAX, Version,
};
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use tls_server::{Fault, RESPONSE, TlsServer};

const HOST: &str = "shop.example";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

// --- both ends ------------------------------------------------------------------------------------------

/// The usual authorities, and a leaf below them.
struct World {
    root: Authority,
    intermediate: Authority,
}

impl World {
    fn new() -> Self {
        Self::called("a test's")
    }

    fn called(whose: &str) -> Self {
        let root = Authority::root(authority_params(&format!("{whose} root")));
        let intermediate = root.intermediate(authority_params(&format!("{whose} intermediate")));
        Self { root, intermediate }
    }

    /// Trusts the root, and nobody else.
    fn profile(&self) -> Profile {
        Profile { ca: Some(self.root.pem.clone().into_bytes()), ..Profile::default() }
    }

    fn leaf(&self) -> Leaf {
        self.intermediate.leaf(&leaf_params(&[HOST]))
    }
}

fn config(profile: &Profile) -> Config {
    Config::with_clock(profile, &Roots::bundled(), || NOW).unwrap()
}

fn host() -> ServerHost {
    ServerHost::parse(HOST).unwrap()
}

/// Shows one certificate to everybody, whether or not the key is its own.
#[derive(Debug)]
struct Show(Arc<CertifiedKey>);

impl ResolvesServerCert for Show {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn server_config(leaf: &Leaf, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let key = provider.key_provider.load_private_key(leaf.key.clone_key()).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Show(Arc::new(CertifiedKey::new(leaf.chain.clone(), key)))))
}

const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;
const ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// In which pieces the client gets the server's bytes.
#[derive(Clone, Debug)]
enum Cut {
    Whole,
    Bytes,
    Pieces(Vec<usize>),
}

impl Cut {
    fn feed(&self, session: &mut Session, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Failure> {
        let sizes = match self {
            Self::Whole => vec![bytes.len().max(1)],
            Self::Bytes => vec![1],
            Self::Pieces(sizes) => sizes.clone(),
        };
        let (mut rest, mut sizes) = (bytes, sizes.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            let plain_bytes = plain.len();
            let result = session.received(piece, plain);
            // What can come out is what went in, and one record that was not whole before.
            assert!(plain.len() - plain_bytes <= piece.len() + 16 * 1024 + 256);
            result?;
            rest = later;
        }
        Ok(())
    }
}

/// How a connection went.
#[derive(Debug, PartialEq, Eq)]
struct Went {
    result: Result<(), Failure>,
    facts: Facts,
    handshaking: bool,
    plain: Vec<u8>,
    clean: bool,
    /// What the server heard: a request, or the description of an alert.
    heard: Result<Vec<u8>, String>,
}

impl Went {
    fn up(&self) -> bool {
        self.result.is_ok() && self.plain == RESPONSE && self.heard.as_deref() == Ok(REQUEST)
    }
}

/// One request and its response, as a probe does it.
fn connect(session: &mut Session, server: &Arc<ServerConfig>, cut: &Cut) -> Went {
    connect_through(session, server, cut, |bytes| bytes)
}

/// The same, with something between server and client that changes the bytes.
fn connect_through(
    session: &mut Session,
    server: &Arc<ServerConfig>,
    cut: &Cut,
    mut between: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> Went {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    server.set_buffer_limit(None);
    let (mut plain, mut heard, mut result) = (Vec::new(), Ok(Vec::new()), Ok(()));
    session.send(REQUEST);
    let mut answered = false;
    loop {
        let mut out = Vec::new();
        session.take_output(&mut out);
        let mut to_server = &out[..];
        while !to_server.is_empty() && heard.is_ok() {
            server.read_tls(&mut to_server).unwrap();
            if let Err(error) = server.process_new_packets() {
                heard = Err(error.to_string());
            }
            if let Ok(request) = &mut heard {
                let mut piece = [0; 4096];
                while let Ok(bytes @ 1..) = server.reader().read(&mut piece) {
                    request.extend_from_slice(&piece[..bytes]);
                }
            }
        }
        if !answered && heard.as_deref() == Ok(REQUEST) {
            server.writer().write_all(RESPONSE).unwrap();
            server.send_close_notify();
            answered = true;
        }
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let to_client = between(to_client);
        if result.is_ok() {
            result = cut.feed(session, &to_client, &mut plain);
        }
        if to_client.is_empty() && !session.has_output() {
            let (facts, clean) = (session.facts(), session.peer_closed_cleanly());
            return Went { result, facts, handshaking: session.is_handshaking(), plain, clean, heard };
        }
    }
}

fn probe(profile: &Profile, leaf: &Leaf, versions: &[&'static SupportedProtocolVersion]) -> Went {
    let mut session = config(profile).session(&host()).unwrap();
    connect(&mut session, &Arc::new(server_config(leaf, versions)), &Cut::Whole)
}

/// Expects a class, with both versions, whole and byte by byte, with the verdict memo and without it.
#[track_caller]
fn check(profile: &Profile, leaf: &Leaf, expected: Result<(), Failure>) {
    for versions in [ONLY_12, ONLY_13] {
        let server = Arc::new(server_config(leaf, versions));
        for (cut, verdict_memo) in [(Cut::Whole, true), (Cut::Bytes, false)] {
            let config = config(&Profile { verdict_memo, ..profile.clone() });
            // The second one finds what the first has left in the memo.
            for _ in 0..2 {
                let went = connect(&mut config.session(&host()).unwrap(), &server, &cut);
                assert_eq!(went.result, expected, "{versions:?} {cut:?} {went:?}");
                assert_eq!(went.up(), expected.is_ok(), "{versions:?} {cut:?} {went:?}");
                assert!(expected.is_ok() || went.handshaking, "{went:?}");
                let told = went.heard.as_ref().is_err_and(|heard| heard.contains("received fatal alert"));
                assert!(expected.is_ok() || told, "the server is told: {went:?}");
            }
        }
    }
}

// --- certificates ---------------------------------------------------------------------------------------

#[test]
fn a_good_chain_is_up_and_its_facts_are_known() {
    let world = World::new();
    check(&world.profile(), &world.leaf(), Ok(()));
    for (versions, version, cipher) in
        [(ONLY_12, Version::Tls12, 0xc02c), (ONLY_13, Version::Tls13, 0x1302), (BOTH, Version::Tls13, 0x1302)]
    {
        let went = probe(&world.profile(), &world.leaf(), versions);
        let expected =
            Facts { version: Some(version), cipher, resumed: false, not_after_s: Some(NOT_AFTER_S) };
        assert_eq!(went.facts, expected);
        assert!(went.up() && went.clean && !went.handshaking);
    }
}

#[test]
fn dates() {
    let world = World::new();
    let mut params = leaf_params(&[HOST]);
    params.not_after = date_time_ymd(2026, 6, 30);
    check(&world.profile(), &world.intermediate.leaf(&params), Err(Failure::TlsExpired));

    let mut params = leaf_params(&[HOST]);
    params.not_before = date_time_ymd(2026, 7, 2);
    check(&world.profile(), &world.intermediate.leaf(&params), Err(Failure::TlsNotYetValid));

    // An intermediate that has expired is as bad, and root certificates do not expire.
    let mut params = authority_params("an intermediate of old");
    params.not_after = date_time_ymd(2025, 1, 1);
    let old = world.root.intermediate(params);
    check(&world.profile(), &old.leaf(&leaf_params(&[HOST])), Err(Failure::TlsExpired));
    let mut params = authority_params("a root of old");
    params.not_after = date_time_ymd(2025, 1, 1);
    let old = Authority::root(params);
    let profile = Profile { ca: Some(old.pem.clone().into_bytes()), ..Profile::default() };
    check(&profile, &old.leaf(&leaf_params(&[HOST])), Ok(()));
}

#[test]
fn names() {
    let world = World::new();
    let leaf = |names: &[&str]| world.intermediate.leaf(&leaf_params(names));
    for names in [&["wrong.example"][..], &[], &["192.0.2.1"], &["*.shop.example"], &["*.example.org"]] {
        check(&world.profile(), &leaf(names), Err(Failure::TlsName));
    }
    // A common name has not counted since 2011 (RFC 6125, section 6.4.4).
    let mut params = leaf_params(&[]);
    params.distinguished_name.push(DnType::CommonName, HOST);
    check(&world.profile(), &world.intermediate.leaf(&params), Err(Failure::TlsName));
    // And none is needed.
    let mut params = leaf_params(&[HOST]);
    params.distinguished_name.remove(DnType::CommonName);
    check(&world.profile(), &world.intermediate.leaf(&params), Ok(()));

    let many: Vec<String> = (0..1000).map(|index| format!("name-{index}.example")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    check(&world.profile(), &leaf(&many), Err(Failure::TlsName));
    many.push(HOST);
    check(&world.profile(), &leaf(&many), Ok(()));

    for (url_host, name) in [
        ("SHOP.example", "shop.example"),
        ("shop.example.", "shop.example"),
        ("a.shop.example", "*.shop.example"),
        ("a_b.shop.example", "*.shop.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        let mut session = config(&world.profile()).session(&ServerHost::parse(url_host).unwrap()).unwrap();
        let went = connect(&mut session, &Arc::new(server_config(&leaf(&[name]), BOTH)), &Cut::Whole);
        assert!(went.up(), "{url_host}: {went:?} {:?}", session.why());
    }
    for nonsense in ["", "[shop.example]", "a b", "-", "[::1", "a..b", "[192.0.2.1"] {
        assert_eq!(ServerHost::parse(nonsense), None, "{nonsense}");
    }

    let profile = Profile { server_name: Some("inner.example".into()), ..world.profile() };
    check(&profile, &leaf(&["inner.example"]), Ok(()));
    check(&profile, &leaf(&[HOST]), Err(Failure::TlsName));
}

#[test]
fn trust() {
    let world = World::new();
    let profile = world.profile();
    let params = leaf_params(&[HOST]);

    check(&profile, &Leaf::self_signed(&params), Err(Failure::TlsUntrusted));
    let mut authority = leaf_params(&[HOST]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // What `openssl req -x509` makes: not an authority's, but it says so.
    check(&profile, &Leaf::self_signed(&authority), Err(Failure::TlsUntrusted));

    let other = World::called("somebody else's");
    check(&profile, &other.leaf(), Err(Failure::TlsUntrusted));
    // The same name with another key: it is the signature that is found wrong.
    check(&profile, &World::new().leaf(), Err(Failure::TlsChain));
    check(&Profile::default(), &world.leaf(), Err(Failure::TlsUntrusted));
    let mut incomplete = world.leaf();
    incomplete.chain.truncate(1);
    check(&profile, &incomplete, Err(Failure::TlsUntrusted));

    // Superfluous, and in any order: fine (RFC 8446, section 4.4.2).
    let mut disorderly = world.intermediate.intermediate(authority_params("one more")).leaf(&params);
    disorderly.chain[1..].reverse();
    disorderly.chain.push(other.root.certificate.clone());
    disorderly.chain.push(world.root.certificate.clone());
    check(&profile, &disorderly, Ok(()));
}

#[test]
fn a_certificate_of_ca_file_may_be_the_servers_own() {
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let own = |params: &CertificateParams| {
            let leaf = Leaf::self_signed(params);
            (Profile { ca: Some(leaf.chain_pem.clone().into_bytes()), ..Profile::default() }, leaf)
        };
        let mut params = leaf_params(&[HOST]);
        params.is_ca = is_ca;
        let (profile, leaf) = own(&params);
        check(&profile, &leaf, Ok(()));
        check(
            &profile,
            &Leaf::self_signed(&params),
            Err(match params.is_ca {
                // Same name, another key: the signature is not that of the one that is trusted.
                IsCa::NoCa | IsCa::ExplicitNoCa => Failure::TlsChain,
                IsCa::Ca(_) => Failure::TlsUntrusted,
            }),
        );
        params.not_after = date_time_ymd(2026, 6, 30);
        let (profile, leaf) = own(&params);
        check(&profile, &leaf, Err(Failure::TlsExpired));
        params.not_after = date_time_ymd(2027, 1, 1);
        params.not_before = date_time_ymd(2026, 7, 2);
        let (profile, leaf) = own(&params);
        check(&profile, &leaf, Err(Failure::TlsNotYetValid));
        let mut params = leaf_params(&["wrong.example"]);
        params.is_ca = is_ca;
        let (profile, leaf) = own(&params);
        check(&profile, &leaf, Err(Failure::TlsName));
    }
}

#[test]
fn broken_chains() {
    let world = World::new();
    let profile = world.profile();
    let chain = Err(Failure::TlsChain);

    let mut params = leaf_params(&[HOST]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    check(&profile, &world.intermediate.leaf(&params), chain);

    let mut params = leaf_params(&[HOST]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    check(&profile, &world.intermediate.leaf(&params), chain);

    // A leaf that signs another, as in the bug of Internet Explorer of 2002.
    let mut params = leaf_params(&["other.example"]);
    params.distinguished_name.push(DnType::CommonName, "a usurper");
    params.is_ca = IsCa::ExplicitNoCa;
    let usurper = world.intermediate.intermediate(params);
    check(&profile, &usurper.leaf(&leaf_params(&[HOST])), chain);

    let mut params = authority_params("may sign leaves only");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = world.root.intermediate(params).intermediate(authority_params("one too many"));
    check(&profile, &short.leaf(&leaf_params(&[HOST])), chain);

    let mut params = authority_params("may sign for another domain only");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".into())],
        excluded_subtrees: Vec::new(),
    });
    check(&profile, &world.root.intermediate(params).leaf(&leaf_params(&[HOST])), chain);

    // A bit of the leaf's signature.
    let mut leaf = world.leaf();
    let mut der = leaf.chain[0].to_vec();
    *der.last_mut().unwrap() ^= 1;
    leaf.chain[0] = der.into();
    check(&profile, &leaf, chain);

    let mut leaf = world.leaf();
    leaf.chain[0] = b"no certificate".to_vec().into();
    check(&profile, &leaf, chain);

    // The right certificate, and somebody else's key.
    let mut leaf = world.leaf();
    leaf.key = world.leaf().key;
    check(&profile, &leaf, chain);
}

#[test]
fn insecure_takes_any_certificate_but_not_any_key() {
    let insecure = Profile { insecure: true, ..Profile::default() };
    let mut params = leaf_params(&["wrong.example"]);
    params.not_after = date_time_ymd(2026, 6, 30);
    let leaf = Leaf::self_signed(&params);
    check(&insecure, &leaf, Ok(()));
    let went = probe(&insecure, &leaf, BOTH);
    assert_eq!(went.facts.not_after_s, Some(NOW.0 / 1_000_000 - 86_400));
    let mut stolen = leaf;
    stolen.key = Leaf::self_signed(&params).key;
    check(&insecure, &stolen, Err(Failure::TlsChain));
}

#[test]
fn certificates_of_version_1_are_for_the_insecure() {
    let read = |text: &str| {
        use rustls::pki_types::pem::PemObject;
        let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes()).unwrap()];
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap();
        Leaf { chain, chain_pem: text.into(), key, key_pem: text.into() }
    };
    let leaf = read(include_str!("data/tls/version-1.pem"));
    let other = World::new().leaf();
    let insecure = Profile { insecure: true, ..Profile::default() };
    check(&insecure, &leaf, Ok(()));
    // Far beyond 2106, where 32 bits of seconds end.
    assert_eq!(probe(&insecure, &leaf, BOTH).facts.not_after_s, Some(4_949_144_322));
    check(&insecure, &Leaf { key: other.key, ..leaf.clone() }, Err(Failure::TlsChain));
    let trusting = Profile { ca: Some(leaf.chain_pem.clone().into_bytes()), ..Profile::default() };
    check(&trusting, &leaf, Err(Failure::TlsChain));
    check(&Profile::default(), &leaf, Err(Failure::TlsChain));
}

#[test]
fn the_leafs_last_day_is_known_whatever_was_wrong() {
    let world = World::new();
    let other = World::called("somebody else's");
    let mut expired = leaf_params(&[HOST]);
    expired.not_after = date_time_ymd(2026, 6, 30);
    for (leaf, failure, not_after_s) in [
        (world.intermediate.leaf(&expired), Failure::TlsExpired, NOW.0 / 1_000_000 - 86_400),
        (other.leaf(), Failure::TlsUntrusted, NOT_AFTER_S),
        (world.intermediate.leaf(&leaf_params(&["wrong.example"])), Failure::TlsName, NOT_AFTER_S),
    ] {
        for versions in [ONLY_12, ONLY_13] {
            let went = probe(&world.profile(), &leaf, versions);
            assert_eq!(went.result, Err(failure));
            assert_eq!(went.facts.not_after_s, Some(not_after_s));
            assert_ne!(went.facts.cipher, 0);
        }
    }
    // And only of the session that saw it.
    let session = config(&world.profile()).session(&host()).unwrap();
    assert_eq!(session.facts(), Facts::default());
}

// --- the memo -------------------------------------------------------------------------------------------

#[test]
fn a_remembered_chain_expires_on_its_day() {
    static CLOCK: AtomicI64 = AtomicI64::new(NOW.0);
    let world = World::new();
    let mut params = leaf_params(&[HOST]);
    seconds_after_now(&mut params, 100);
    let server = Arc::new(server_config(&world.intermediate.leaf(&params), BOTH));
    let clock = || Wall(CLOCK.load(Ordering::Relaxed));
    let config = Config::with_clock(&world.profile(), &Roots::bundled(), clock).unwrap();
    for (seconds, expected) in
        [(0, Ok(())), (99, Ok(())), (100, Ok(())), (101, Err(Failure::TlsExpired)), (50, Ok(()))]
    {
        CLOCK.store(NOW.0 + seconds * 1_000_000, Ordering::Relaxed);
        let went = connect(&mut config.session(&host()).unwrap(), &server, &Cut::Whole);
        assert_eq!(went.result, expected, "after {seconds} s");
    }
    // Set back before the day it was issued.
    CLOCK.store(NOW.0 - 365 * 86_400 * 1_000_000, Ordering::Relaxed);
    let went = connect(&mut config.session(&host()).unwrap(), &server, &Cut::Whole);
    assert_eq!(went.result, Err(Failure::TlsNotYetValid));
}

#[test]
fn a_memo_vouches_for_nobody_else() {
    let world = World::new();
    let config = config(&world.profile());
    let good = world.leaf();
    let probe = |leaf: &Leaf, name: &str| {
        let host = ServerHost::parse(name).unwrap();
        let server = Arc::new(server_config(leaf, BOTH));
        connect(&mut config.session(&host).unwrap(), &server, &Cut::Whole).result
    };
    assert_eq!(probe(&good, HOST), Ok(()));
    assert_eq!(probe(&good, "other.example"), Err(Failure::TlsName));
    assert_eq!(probe(&World::called("somebody else's").leaf(), HOST), Err(Failure::TlsUntrusted));
    let mut stolen = good.clone();
    stolen.key = world.leaf().key;
    assert_eq!(probe(&stolen, HOST), Err(Failure::TlsChain));
    let mut cut_short = good.clone();
    cut_short.chain.truncate(1);
    assert_eq!(probe(&cut_short, HOST), Err(Failure::TlsUntrusted));
    assert_eq!(probe(&good, HOST), Ok(()));
}

// --- clients' certificates ------------------------------------------------------------------------------

fn server_that_asks(world: &World, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(world.root.certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let leaf = world.leaf();
    let config = ServerConfig::builder_with_details(provider, Arc::new(Stopped))
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(leaf.chain.clone(), leaf.key);
    Arc::new(config.unwrap())
}

/// A clock that stands at [`NOW`].
#[derive(Debug)]
struct Stopped;

impl rustls::time_provider::TimeProvider for Stopped {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let seconds = u64::try_from(NOW.0 / 1_000_000).unwrap();
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn client_of(authority: &Authority) -> Identity {
    let mut params = leaf_params(&["prober.example"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = authority.leaf(&params);
    Identity { chain: leaf.chain_pem.into_bytes(), key: leaf.key_pem.into_bytes().into() }
}

#[test]
fn a_server_may_ask_who_we_are() {
    let world = World::new();
    for versions in [ONLY_12, ONLY_13] {
        let server = server_that_asks(&world, versions);
        let probe = |client: Option<Identity>| {
            let profile = Profile { client, ..world.profile() };
            connect(&mut config(&profile).session(&host()).unwrap(), &server, &Cut::Whole)
        };
        let went = probe(Some(client_of(&world.intermediate)));
        assert!(went.up(), "{went:?}");
        for stranger in [None, Some(client_of(&World::new().root))] {
            let went = probe(stranger);
            assert_eq!(went.result, Err(Failure::TlsAlert));
            // In TLS 1.3 the client is done before the server has looked (RFC 8446, section 4.4.2.4).
            assert_eq!(went.handshaking, versions == ONLY_12);
            assert_eq!(went.plain, b"");
        }
    }
}

// --- versions and ciphers -------------------------------------------------------------------------------

#[test]
fn versions_are_kept_to() {
    let world = World::new();
    let leaf = world.leaf();
    let only = |version| Profile { min_version: version, max_version: version, ..world.profile() };
    for (profile, versions, expected) in [
        (only(Version::Tls12), ONLY_12, Ok(Version::Tls12)),
        (only(Version::Tls12), BOTH, Ok(Version::Tls12)),
        (only(Version::Tls12), ONLY_13, Err(Failure::TlsAlert)),
        (only(Version::Tls13), BOTH, Ok(Version::Tls13)),
        (only(Version::Tls13), ONLY_12, Err(Failure::TlsAlert)),
    ] {
        let went = probe(&profile, &leaf, versions);
        assert_eq!(went.result.map(|()| went.facts.version.unwrap()), expected, "{went:?}");
    }
}

/// A record of TLS.
fn record(content: u8, version: u16, payload: &[u8]) -> Vec<u8> {
    let [major, minor] = [(version >> 8) as u8, (version & 0xff) as u8];
    let bytes = u16::try_from(payload.len()).unwrap();
    [&[content, major, minor, (bytes >> 8) as u8, (bytes & 0xff) as u8][..], payload].concat()
}

/// The ServerHello of a server that speaks `version` and wants `cipher`.
fn server_hello(version: u16, cipher: u16) -> Vec<u8> {
    let pair = |value: u16| [(value >> 8) as u8, (value & 0xff) as u8];
    let body = [&pair(version)[..], &[7; 32], &[0], &pair(cipher), &[0]].concat();
    let message = [&[2, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
    record(22, version, &message)
}

/// Feeds a fresh session with bytes that were never meant for it.
fn raw(cut: &Cut, bytes: &[u8]) -> (Result<(), Failure>, Session) {
    let mut session = config(&Profile::default()).session(&host()).unwrap();
    let (mut hello, mut plain) = (Vec::new(), Vec::new());
    session.take_output(&mut hello);
    assert_eq!(hello[0], 22, "a ClientHello comes first");
    let result = cut.feed(&mut session, bytes, &mut plain);
    assert_eq!(plain, b"");
    (result, session)
}

#[test]
fn what_is_not_tls_as_we_know_it() {
    let alert = |description: u8| record(21, 0x0303, &[2, description]);
    for (name, bytes, expected) in [
        ("SSLv3", server_hello(0x0300, 0x0035), Failure::TlsProtocol),
        ("TLS 1.0", server_hello(0x0301, 0xc014), Failure::TlsProtocol),
        ("TLS 1.1", server_hello(0x0302, 0xc014), Failure::TlsProtocol),
        ("RC4 with MD5", server_hello(0x0303, 0x0004), Failure::TlsProtocol),
        ("triple DES", server_hello(0x0303, 0x000a), Failure::TlsProtocol),
        ("null", server_hello(0x0303, 0x0001), Failure::TlsProtocol),
        ("static RSA", server_hello(0x0303, 0x009c), Failure::TlsProtocol),
        ("CBC", server_hello(0x0303, 0xc013), Failure::TlsProtocol),
        ("Diffie-Hellman over a field", server_hello(0x0303, 0x009e), Failure::TlsProtocol),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Failure::TlsProtocol),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), Failure::TlsProtocol),
        ("SMTP", b"220 mail.example ESMTP\r\n".to_vec(), Failure::TlsProtocol),
        ("zeros", vec![0; 64], Failure::TlsProtocol),
        ("a record over the limit", record(22, 0x0303, &[0; 20_000]), Failure::TlsProtocol),
        ("a ClientHello", record(22, 0x0301, &[1, 0, 0, 2, 3, 3]), Failure::TlsProtocol),
        ("payload before the handshake", record(23, 0x0303, b"payload"), Failure::TlsProtocol),
        ("a message of 16 MB", record(22, 0x0303, &[11, 0xff, 0xff, 0xff, 0, 0]), Failure::TlsProtocol),
        ("an alert that is none", record(21, 0x0303, &[2]), Failure::TlsProtocol),
        ("no cipher in common", alert(40), Failure::TlsAlert),
        ("no version in common", alert(70), Failure::TlsAlert),
        ("a name it does not know", alert(112), Failure::TlsAlert),
        ("no HTTP/1.1", alert(120), Failure::TlsAlert),
        ("an alert nobody has heard of", alert(200), Failure::TlsAlert),
    ] {
        for cut in [Cut::Whole, Cut::Bytes, Cut::Pieces(vec![5, 2])] {
            let (result, mut session) = raw(&cut, &bytes);
            assert_eq!(result, Err(expected), "{name}, {cut:?}: {:?}", session.why());
            assert!(session.why().is_some_and(|why| !why.is_empty()));
            // Final, and quiet from then on.
            assert_eq!(session.received(&server_hello(0x0303, 0xc02f), &mut Vec::new()), Err(expected));
            session.send(REQUEST);
            session.close_notify();
            let mut out = Vec::new();
            session.take_output(&mut out);
            assert!(out.is_empty() || (out[0] == 21 && out.len() == 7), "{name}: an alert at most: {out:?}");
        }
    }
}

#[test]
fn records_that_say_nothing_have_an_end() {
    let (result, _) = raw(&Cut::Whole, &record(22, 0x0303, b"").repeat(1000));
    assert_eq!(result, Err(Failure::TlsProtocol));
    let warning = record(21, 0x0303, &[1, 90]);
    let (result, _) = raw(&Cut::Whole, &warning.repeat(1000));
    assert!(result.is_err(), "{result:?}");
}

#[test]
fn a_goodbye_instead_of_a_handshake_is_no_error_of_tls() {
    // Nobody has proven to be the peer yet: it is not believed either. The end of the stream is what counts.
    let (result, session) = raw(&Cut::Whole, &record(21, 0x0303, &[1, 0]));
    assert_eq!(result, Ok(()));
    assert!(session.is_handshaking() && !session.peer_closed_cleanly());
}

// --- bytes ----------------------------------------------------------------------------------------------

/// Cuts every handshake record in the clear into records of a byte.
fn crumble(bytes: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::new());
    let mut clear = true;
    while let [content, major, minor, high, low, ..] = *rest {
        let (payload, later) = rest[5..].split_at(usize::from(high) * 256 + usize::from(low));
        clear &= content == 22;
        if clear {
            let version = u16::from(major) << 8 | u16::from(minor);
            out.extend(payload.iter().flat_map(|byte| record(22, version, &[*byte])));
        } else {
            out.extend_from_slice(&rest[..5 + payload.len()]);
        }
        rest = later;
    }
    out
}

#[test]
fn records_may_be_as_small_as_a_byte() {
    let world = World::new();
    for versions in [ONLY_12, ONLY_13] {
        let mut server = server_config(&world.leaf(), versions);
        server.max_fragment_size = Some(32);
        let server = Arc::new(server);
        for cut in [Cut::Whole, Cut::Bytes] {
            let mut session = config(&world.profile()).session(&host()).unwrap();
            let mut first = true;
            let went = connect_through(&mut session, &server, &cut, |bytes| {
                if std::mem::take(&mut first) { crumble(&bytes) } else { bytes }
            });
            assert!(went.up() && went.clean, "{versions:?} {cut:?} {went:?} {:?}", session.why());
        }
    }
}

#[test]
fn a_server_that_stops_in_the_middle_is_still_shaking_hands() {
    let world = World::new();
    for versions in [ONLY_12, ONLY_13] {
        let server = Arc::new(server_config(&world.leaf(), versions));
        let mut stopped = 0;
        for bytes_max in [0, 1, 5, 6, 50, 100, 127, 128, 400, 700] {
            let mut session = config(&world.profile()).session(&host()).unwrap();
            let mut left = bytes_max;
            let went = connect_through(&mut session, &server, &Cut::Whole, |mut bytes| {
                bytes.truncate(left);
                left -= bytes.len();
                bytes
            });
            assert_eq!((went.result, went.clean, &went.plain[..]), (Ok(()), false, &b""[..]));
            stopped += usize::from(went.handshaking);
        }
        assert_eq!(stopped, 10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cuts_change_nothing(pieces in vec(1..700_usize, 1..24), tls13: bool, trusted: bool) {
        let (world, other) = (World::new(), World::called("somebody else's"));
        let leaf = if trusted { world.leaf() } else { other.leaf() };
        let server = Arc::new(server_config(&leaf, if tls13 { ONLY_13 } else { ONLY_12 }));
        let config = config(&world.profile());
        let run = |cut: &Cut| connect(&mut config.session(&host()).unwrap(), &server, cut);
        let whole = run(&Cut::Whole);
        prop_assert_eq!(whole.up(), trusted);
        prop_assert_eq!(&run(&Cut::Bytes), &whole);
        prop_assert_eq!(&run(&Cut::Pieces(pieces)), &whole);
    }

    /// One byte of what the server sends is another, or everything after it is.
    #[test]
    fn a_changed_byte_is_found_out(
        at in 0..2500_usize,
        change in 1..=255_u8,
        all: bool,
        tls13: bool,
        pieces in vec(1..300_usize, 1..8),
    ) {
        let world = World::new();
        let server = Arc::new(server_config(&world.leaf(), if tls13 { ONLY_13 } else { ONLY_12 }));
        let mut session = config(&world.profile()).session(&host()).unwrap();
        let (mut seen, mut changed) = (0, false);
        let went = connect_through(&mut session, &server, &Cut::Pieces(pieces), |mut bytes| {
            let (genuine, mut record_at) = (bytes.clone(), 0);
            for index in 0..bytes.len() {
                if index == record_at + 5 {
                    record_at = index + usize::from(genuine[index - 2]) * 256 + usize::from(genuine[index - 1]);
                }
                // The version of a record in the clear is to be ignored (RFC 8446, section 5.1).
                let ignored = index == record_at + 1 || index == record_at + 2;
                if !ignored && (seen == at || (all && seen > at)) {
                    bytes[index] ^= change;
                    changed = true;
                }
                seen += 1;
            }
            bytes
        });
        // A change is an error, or leaves us waiting for a record that does not end. What came through is genuine.
        if changed {
            prop_assert!(went.result.is_err() || went.handshaking || !went.clean, "{:?}", went);
        } else {
            prop_assert!(went.up());
        }
        prop_assert!(RESPONSE.starts_with(&went.plain));
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..300), content in 20..25_u8, wrap: bool) {
        let bytes = if wrap { record(content, 0x0303, &bytes) } else { bytes };
        let (whole, _) = raw(&Cut::Whole, &bytes);
        let (single, _) = raw(&Cut::Bytes, &bytes);
        prop_assert_eq!(whole, single);
    }
}

// --- after the handshake --------------------------------------------------------------------------------

/// Shakes hands, and returns both ends with nothing on the way.
fn open(config: &Config, server: &Arc<ServerConfig>) -> (Session, ServerConnection) {
    let mut session = config.session(&host()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut plain = Vec::new();
    loop {
        let mut out = Vec::new();
        session.take_output(&mut out);
        let mut to_server = &out[..];
        while !to_server.is_empty() {
            server.read_tls(&mut to_server).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        if to_client.is_empty() && !session.has_output() {
            assert!(!session.is_handshaking());
            return (session, server);
        }
        session.received(&to_client, &mut plain).unwrap();
    }
}

fn written(server: &mut ServerConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn goodbyes_are_told_from_silence() {
    let world = World::new();
    for versions in [ONLY_12, ONLY_13] {
        let (mut session, mut server) =
            open(&config(&world.profile()), &Arc::new(server_config(&world.leaf(), versions)));
        let mut plain = Vec::new();
        server.writer().write_all(RESPONSE).unwrap();
        session.received(&written(&mut server), &mut plain).unwrap();
        assert_eq!((&plain[..], session.peer_closed_cleanly()), (RESPONSE, false));
        server.send_close_notify();
        // What follows a goodbye is none of our business.
        let goodbye = [&written(&mut server)[..], b"anything"].concat();
        session.received(&goodbye, &mut plain).unwrap();
        assert_eq!((&plain[..], session.peer_closed_cleanly()), (RESPONSE, true));
        session.received(b"anything", &mut plain).unwrap();
        session.close_notify();
        let mut out = Vec::new();
        session.take_output(&mut out);
        assert!(!out.is_empty());
        let mut to_server = &out[..];
        server.read_tls(&mut to_server).unwrap();
        assert!(server.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn what_came_before_garbage_is_handed_out() {
    let world = World::new();
    for versions in [ONLY_12, ONLY_13] {
        let server = Arc::new(server_config(&world.leaf(), versions));
        for garbage in [&b"garbage is not a record"[..], &record(23, 0x0303, &[9; 64])] {
            for cut in [Cut::Whole, Cut::Bytes, Cut::Pieces(vec![13, 1, 40])] {
                let (mut session, mut server) = open(&config(&world.profile()), &server);
                server.writer().write_all(RESPONSE).unwrap();
                let bytes = [&written(&mut server)[..], garbage].concat();
                let mut plain = Vec::new();
                let result = cut.feed(&mut session, &bytes, &mut plain);
                assert_eq!((result, &plain[..]), (Err(Failure::TlsProtocol), RESPONSE));
            }
        }
    }
}

#[test]
fn garbage_after_the_server_hello() {
    let world = World::new();
    for (versions, garbage) in [
        (ONLY_12, b"garbage is not a record".to_vec()),
        (ONLY_13, b"garbage is not a record".to_vec()),
        (ONLY_12, record(23, 0x0303, &[9; 64])),
        (ONLY_13, record(23, 0x0303, &[9; 64])),
        (ONLY_12, record(22, 0x0303, &[9; 64])),
        (ONLY_13, record(22, 0x0303, &[9; 64])),
    ] {
        let server = Arc::new(server_config(&world.leaf(), versions));
        let mut session = config(&world.profile()).session(&host()).unwrap();
        let mut first = true;
        let went = connect_through(&mut session, &server, &Cut::Bytes, |bytes| {
            if !std::mem::take(&mut first) {
                return Vec::new();
            }
            let hello_bytes = 5 + usize::from(bytes[3]) * 256 + usize::from(bytes[4]);
            [&bytes[..hello_bytes], &garbage].concat()
        });
        assert_eq!(went.result, Err(Failure::TlsProtocol), "{versions:?} {:?}", session.why());
    }
}

#[test]
fn bodies_larger_than_any_buffer_come_through_whole() {
    let world = World::new();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    for versions in [ONLY_12, ONLY_13] {
        let (mut session, mut server) =
            open(&config(&world.profile()), &Arc::new(server_config(&world.leaf(), versions)));
        server.set_buffer_limit(None);
        session.send(&body);
        let mut out = Vec::new();
        session.take_output(&mut out);
        assert!(!session.has_output());
        let (mut to_server, mut heard) = (&out[..], Vec::new());
        while !to_server.is_empty() {
            server.read_tls(&mut to_server).unwrap();
            server.process_new_packets().unwrap();
            let _until_empty = server.reader().read_to_end(&mut heard);
        }
        assert!(heard == body);
        server.writer().write_all(&body).unwrap();
        let (bytes, mut plain) = (written(&mut server), Vec::new());
        Cut::Pieces(vec![4096]).feed(&mut session, &bytes, &mut plain).unwrap();
        assert!(plain == body);
    }
}

#[test]
fn a_flood_of_tickets_is_borne_up_to_a_bound() {
    let world = World::new();
    let leaf = world.leaf();
    let server = |tickets: usize, fragment_bytes: Option<usize>| {
        let mut server = server_config(&leaf, ONLY_13);
        server.send_tls13_tickets = tickets;
        server.max_fragment_size = fragment_bytes;
        Arc::new(server)
    };
    for resumption in [false, true] {
        let config = config(&Profile { resumption, ..world.profile() });
        let probe = |server: &Arc<ServerConfig>| {
            let mut session = config.session(&host()).unwrap();
            let mut bytes_in = 0;
            let went = connect_through(&mut session, server, &Cut::Pieces(vec![4096]), |bytes| {
                bytes_in += bytes.len();
                bytes
            });
            (went, bytes_in)
        };
        let (went, _) = probe(&server(300, None));
        assert!(went.up(), "{went:?}");
        // Of messages that lie across records rustls bears 64 KiB.
        let (went, _) = probe(&server(1000, None));
        assert_eq!(went.result, Err(Failure::TlsProtocol));
        // Of such as do not it bears any number, and we do not: one ticket to a record.
        let ticket_bytes = probe(&server(2, None)).1 - probe(&server(1, None)).1;
        let aligned = Some(ticket_bytes + 5);
        let (went, _) = probe(&server(5000, aligned));
        assert!(went.up(), "{went:?}");
        let (went, bytes_in) = probe(&server(TLS_IDLE_BYTES_MAX / ticket_bytes, aligned));
        assert!(bytes_in > TLS_IDLE_BYTES_MAX);
        assert_eq!((went.result, &went.plain[..]), (Err(Failure::TlsProtocol), &b""[..]));
    }
}

// --- resumption -----------------------------------------------------------------------------------------

#[test]
fn sessions_are_resumed_only_where_that_is_asked_for() {
    let world = World::new();
    for versions in [ONLY_12, ONLY_13] {
        let server = Arc::new(server_config(&world.leaf(), versions));
        for resumption in [false, true] {
            let config = config(&Profile { resumption, ..world.profile() });
            for attempt in 0..4 {
                let went = connect(&mut config.session(&host()).unwrap(), &server, &Cut::Whole);
                assert!(went.up(), "{went:?}");
                assert_eq!(went.facts.resumed, resumption && attempt > 0, "{versions:?} {attempt}");
                assert_eq!(went.facts.not_after_s, Some(NOT_AFTER_S));
            }
            // Another name knows nothing of it.
            let stranger = ServerHost::parse("other.example").unwrap();
            let went = connect(&mut config.session(&stranger).unwrap(), &server, &Cut::Whole);
            assert_eq!(went.result, Err(Failure::TlsName));
        }
    }
}

// --- over sockets ---------------------------------------------------------------------------------------

/// How a connection over a socket ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// `close_notify`,
    Clean,
    /// FIN without it,
    Cut,
    /// RST,
    Reset,
    /// or an error of TLS.
    Failed(Failure),
    /// Not at all: as much as was asked for has come, and then nothing for a while, or without end.
    Open,
}

/// Enough where nothing depends on it.
const SHORT: Duration = Duration::from_millis(60);
/// The server has to end it.
const TO_THE_END: (usize, usize) = (usize::MAX, usize::MAX);

struct Fetched {
    session: Session,
    plain: Vec<u8>,
    ended: Ended,
}

/// Sends a request over a socket and reads until the end, or until so many bytes have come, of TLS before the
/// handshake is over and of payload then, and nothing for as long as `silence`. A server that goes on for ever is cut
/// off.
fn fetch(
    addr: SocketAddr,
    config: &Config,
    request: &[u8],
    (tls_bytes_max, bytes_max): (usize, usize),
    silence: Duration,
) -> Fetched {
    let mut stream = TcpStream::connect(addr).unwrap();
    // Nothing here takes as long: a test that hangs fails instead.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut session = config.session(&host()).unwrap();
    session.send(request);
    let (mut plain, mut received_bytes, mut buffer) = (Vec::new(), 0, vec![0; 16 * 1024]);
    let ended = loop {
        let mut out = Vec::new();
        session.take_output(&mut out);
        // Whoever has reset cannot be written to; reading tells.
        let _reset = stream.write_all(&out);
        let enough =
            if session.is_handshaking() { received_bytes >= tls_bytes_max } else { plain.len() >= bytes_max };
        if enough {
            stream.set_read_timeout(Some(silence)).unwrap();
        }
        match stream.read(&mut buffer) {
            Ok(0) => break if session.peer_closed_cleanly() { Ended::Clean } else { Ended::Cut },
            Ok(_) if plain.len() > bytes_max.saturating_add(100_000) => break Ended::Open,
            Ok(bytes) => {
                received_bytes += bytes;
                if let Err(failure) = session.received(&buffer[..bytes], &mut plain) {
                    break Ended::Failed(failure);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(enough, "silent after {received_bytes} bytes: {:?}", String::from_utf8_lossy(&plain));
                break Ended::Open;
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ended::Reset,
            Err(error) => panic!("{error}"),
        }
    };
    Fetched { session, plain, ended }
}

#[test]
fn servers_that_misbehave_over_sockets() {
    let world = World::new();
    let config = config(&world.profile());
    let half = &RESPONSE[..RESPONSE.len() / 2];
    for versions in [ONLY_12, ONLY_13] {
        for (fault, ended, plain) in [
            (Fault::None, Ended::Clean, RESPONSE),
            (Fault::Crumbs, Ended::Clean, RESPONSE),
            (Fault::NoGoodbye, Ended::Cut, RESPONSE),
            (Fault::CutOff, Ended::Cut, half),
            (Fault::GarbageAfterHalf, Ended::Failed(Failure::TlsProtocol), half),
            (Fault::Close, Ended::Cut, b""),
            (Fault::Reset, Ended::Reset, b""),
            (Fault::CloseAfter(100), Ended::Cut, b""),
            (Fault::Silence, Ended::Open, b""),
            (Fault::StallAfter(100), Ended::Open, b""),
            (Fault::GarbageAfterServerHello, Ended::Failed(Failure::TlsProtocol), b""),
            (Fault::Bytes(record(21, 0x0303, &[2, 40])), Ended::Failed(Failure::TlsAlert), b""),
            (Fault::Bytes(server_hello(0x0301, 0xc014)), Ended::Failed(Failure::TlsProtocol), b""),
            (
                Fault::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
                Ended::Failed(Failure::TlsProtocol),
                b"",
            ),
        ] {
            let tls_bytes = match fault {
                Fault::Silence => 0,
                Fault::StallAfter(bytes) => bytes,
                _ => usize::MAX,
            };
            let server =
                TlsServer::start(Arc::new(server_config(&world.leaf(), versions)), fault.clone(), RESPONSE);
            let fetched = fetch(server.addr(), &config, REQUEST, (tls_bytes, usize::MAX), SHORT);
            assert_eq!((fetched.ended, &fetched.plain[..]), (ended, plain), "{fault:?} {versions:?}");
            assert_eq!(fetched.session.is_handshaking(), plain.is_empty(), "{fault:?} {versions:?}");
        }
        // A reset may overtake what was sent before it.
        let server = TlsServer::start(
            Arc::new(server_config(&world.leaf(), versions)),
            Fault::CutOffByReset,
            RESPONSE,
        );
        let fetched = fetch(server.addr(), &config, REQUEST, TO_THE_END, SHORT);
        assert_eq!(fetched.ended, Ended::Reset);
        assert!(half.starts_with(&fetched.plain));
    }
}

/// What an origin answers without TLS, for comparison: as much as `bytes_max`, or until the end, or until nothing has
/// come for a while.
fn fetch_plain(addr: SocketAddr, request: &[u8], bytes_max: usize, silence: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(silence)).unwrap();
    stream.write_all(request).unwrap();
    let (mut plain, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while plain.len() < bytes_max {
        match stream.read(&mut buffer) {
            Ok(bytes @ 1..) => plain.extend_from_slice(&buffer[..bytes]),
            _ => break,
        }
    }
    plain
}

#[test]
fn the_origin_serves_its_whole_menu_over_tls() {
    let world = World::new();
    let leaf = world.leaf();
    let tls = OriginTls::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap();
    let plain_origin = Origin::start(OriginOptions::default()).unwrap();
    let origin = Origin::start(OriginOptions { tls: Some(tls), ..OriginOptions::default() }).unwrap();
    assert!(origin.url("/").starts_with("https://127.0.0.1:"));
    let config = config(&world.profile());
    // An answer without end is compared as far as this.
    let bytes_max = 300_000;
    let compare = |example: &str, silence: Duration| {
        let request = format!("GET {example} HTTP/1.1\r\nHost: h\r\n\r\n");
        let expected = fetch_plain(plain_origin.addr(), request.as_bytes(), bytes_max, silence);
        let enough = expected.len().min(bytes_max);
        let fetched = fetch(origin.addr(), &config, request.as_bytes(), (usize::MAX, enough), silence);
        let shared_bytes = expected.len().min(fetched.plain.len());
        if shared_bytes < enough || expected[..shared_bytes] != fetched.plain[..shared_bytes] {
            return Err(format!("{shared_bytes} bytes of {enough}"));
        }
        if expected.len() >= bytes_max {
            return Ok(());
        }
        // An answer that ends in a close says goodbye, and a fault that closes does too: rustls would otherwise be
        // what is tested.
        let closes = ["/close/", "fault/close", "fault/early-close", "fault/http10"];
        let ended = match example {
            example if example.contains("fault/reset") => Ended::Reset,
            example if closes.iter().any(|closes| example.contains(closes)) => Ended::Clean,
            _ => Ended::Open,
        };
        let found = (fetched.plain.len(), fetched.ended);
        if found == (expected.len(), ended) {
            Ok(())
        } else {
            Err(format!("{found:?} for {}", expected.len()))
        }
    };
    for item in MENU {
        // A busy machine can pass for a silent origin: then wait longer.
        let patience = [60, 600, 6_000].map(Duration::from_millis);
        let mut result = Ok(());
        for silence in patience {
            result = compare(item.example, silence);
            if result.is_ok() {
                break;
            }
        }
        assert_eq!(result, Ok(()), "{}", item.example);
    }
    let stats = origin.stop().unwrap();
    assert!(stats.requests >= MENU.len() as u64);
}

#[test]
fn the_origin_keeps_tls_connections_and_closes_them_when_told() {
    let world = World::new();
    let leaf = world.leaf();
    let tls = OriginTls::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap();
    let origin = Origin::start(OriginOptions { tls: Some(tls), ..OriginOptions::default() }).unwrap();
    let config = config(&Profile { resumption: true, ..world.profile() });
    let mut requests = b"GET /bytes/200000 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5);
    requests.extend_from_slice(
        b"POST /bytes/3 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    );
    for resumed in [false, true] {
        let fetched = fetch(origin.addr(), &config, &requests, TO_THE_END, SHORT);
        assert_eq!(fetched.ended, Ended::Clean);
        assert!(fetched.plain.len() > 1_000_000 && fetched.plain.ends_with(b"\r\n\r\n012"));
        assert_eq!(fetched.session.facts().resumed, resumed);
    }
    // Who does not speak TLS is told so, and hung up on.
    let answer = fetch_plain(origin.addr(), REQUEST, usize::MAX, Duration::from_secs(20));
    assert_eq!((answer.len(), answer[0]), (7, 21), "an alert");
    let stats = origin.stop().unwrap();
    assert_eq!((stats.connections, stats.requests), (3, 12));
    assert!(stats.bytes_out > 2_000_000);
}

#[test]
fn the_origins_certificate_and_key_belong_together() {
    let (world, other) = (World::new(), World::new());
    let (leaf, stranger) = (world.leaf(), other.leaf());
    let make = |chain: &str, key: &str| OriginTls::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ());
    assert_eq!(make(&leaf.chain_pem, &leaf.key_pem), Ok(()));
    assert_eq!(make("", &leaf.key_pem), Err(OriginTlsError::Certificate));
    assert_eq!(make(&leaf.key_pem, &leaf.key_pem), Err(OriginTlsError::Certificate));
    assert_eq!(make(&leaf.chain_pem, &leaf.chain_pem), Err(OriginTlsError::Key));
    assert_eq!(make(&leaf.chain_pem, &stranger.key_pem), Err(OriginTlsError::Pair));
}

// --- options --------------------------------------------------------------------------------------------

#[test]
fn options_that_cannot_be_used_are_named() {
    let world = World::new();
    let identity = client_of(&world.root);
    let pem = |label: &str, text: &str| {
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
    };
    let client =
        |chain: &[u8], key: &[u8]| Some(Identity { chain: chain.to_vec(), key: key.to_vec().into() });
    for (profile, expected) in [
        (Profile { ca: Some(Vec::new()), ..Profile::default() }, "ca_file: holds no certificate in PEM"),
        (
            Profile { ca: Some(identity.key.to_vec()), ..Profile::default() },
            "ca_file: holds no certificate in PEM",
        ),
        (Profile { ca: Some(pem("CERTIFICATE", "!")), ..Profile::default() }, "ca_file: is not PEM"),
        (
            Profile { ca: Some(pem("CERTIFICATE", "AAAA")), ..Profile::default() },
            "ca_file: certificate 1 cannot be read",
        ),
        (
            Profile { client: client(b"", &identity.key), ..Profile::default() },
            "client_cert: holds no certificate in PEM",
        ),
        (
            Profile { client: client(&identity.chain, &identity.chain), ..Profile::default() },
            "client_key: holds no private key in PEM (an encrypted one is none)",
        ),
        (
            Profile { client: client(&identity.chain, &pem("PRIVATE KEY", "!")), ..Profile::default() },
            "client_key: is not PEM",
        ),
        (
            Profile { client: client(&identity.chain, &pem("PRIVATE KEY", "AAAA")), ..Profile::default() },
            "client_key: is of a kind that is not supported",
        ),
        (
            Profile { client: client(&identity.chain, &client_of(&world.root).key), ..Profile::default() },
            "client_key: is not the key of client_cert",
        ),
        (
            Profile { server_name: Some("a b".into()), ..Profile::default() },
            "server_name: \"a b\" is neither a name nor an address",
        ),
        (
            Profile { min_version: Version::Tls13, max_version: Version::Tls12, ..Profile::default() },
            "min_version: is above max_version",
        ),
    ] {
        let error = Config::new(&profile, &Roots::bundled()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(Roots::bundled().count() > 100);
}

#[test]
fn a_key_is_shown_to_nobody() {
    let world = World::new();
    let identity = client_of(&world.root);
    let key = String::from_utf8(identity.key.to_vec()).unwrap();
    let secret = key.lines().nth(1).unwrap().to_owned();
    let profile = Profile { client: Some(identity), ..world.profile() };
    let session = config(&profile).session(&host()).unwrap();
    for shown in [format!("{profile:?}"), format!("{:?}", config(&profile)), format!("{session:?}")] {
        let as_numbers = format!("{:?}", &secret.as_bytes()[..8]);
        assert!(!shown.contains(&secret) && !shown.contains(as_numbers.trim_matches(['[', ']'])));
    }
}

#[test]
fn the_command_names_what_it_cannot_use() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let leaf = world.leaf();
    let (cert, key) = (write("leaf.pem", &leaf.chain_pem), write("leaf.key", &leaf.key_pem));
    let stranger = write("stranger.key", &world.leaf().key_pem);
    let empty = write("empty.pem", "");
    let missing = directory.path().join("missing").to_str().unwrap().to_owned();
    for (cert, key, expected) in [
        (&missing, &key, format!("--tls-cert {missing}: No such file")),
        (&cert, &missing, format!("--tls-key {missing}: No such file")),
        (&empty, &key, format!("--tls-cert {empty}: the certificate file holds no certificate in PEM")),
        (&cert, &cert, format!("--tls-key {cert}: the key file holds no private key in PEM")),
        (&cert, &stranger, format!("--tls-key {stranger}: the key is not that of the certificate")),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringprobe"))
            .args(["target", "--listen", "127.0.0.1:0", "--duration", "10ms"])
            .args(["--tls-cert", cert, "--tls-key", key])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&expected) && said.lines().count() == 1, "{said:?} lacks {expected:?}");
    }
    for flags in [["--tls-cert", &cert], ["--tls-key", &key]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringprobe")).arg("target").args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "one without the other");
    }
}
