//! The program against servers that others wrote, on real sockets: names from dnsmasq, pages and certificates from
//! nginx, and what neither would do from servers of the tests' own. Every failure has its class, and comes in time.
//!
//! Servers are processes without privileges on loopback, each of them one test's. What a response or a handshake is
//! made of byte by byte is tested in the cores; here it is what a user is told.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

mod support {
    #[expect(dead_code, reason = "the other half is for those who stop the clock")]
    pub(crate) mod certificates;
    pub(crate) mod dnsmasq;
    pub(crate) mod nginx;
    pub(crate) mod reply_server;
    pub(crate) mod service;
    pub(crate) mod tls_server;
}

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use ringprobe::clock::{Micros, Wall};
use ringprobe::sample::{Failure, Phases};
use ringprobe::testing::origin::{Origin, OriginOptions};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::certificates::{Authority, Leaf, authority_params, leaf_params};
use support::dnsmasq::Dnsmasq;
use support::nginx::Nginx;
use support::reply_server::ReplyServer;
use support::tls_server::{Fault, RESPONSE, TlsServer};

/// Of a check that says nothing else: nobody waits for it.
const TIMEOUT: Micros = Micros::from_millis(20_000);
/// Of a phase that must time out: the tests wait for it.
const LIMIT_MS: u64 = 250;
const LIMIT_US: i64 = 250_000;
/// How much longer than its timeout a probe may take.
const LATE_MAX: Duration = Duration::from_millis(50);
/// How long the program may take from its last verdict to its end, on a machine that is busy with the other tests.
/// A margin for that alone; what the probe says of its own time is not given any.
const EXIT_MAX: Duration = Duration::from_secs(2);

/// The password of nginx's members, and every other secret here.
const CANARY: &str = "canary-that-must-not-sing-1f9d";
/// Where the program finds it.
const CANARY_VARIABLE: &str = "RINGPROBE_TEST_CANARY";
const LOG_IN: &str = r#"basic_auth = { username = "probe", password = "env:RINGPROBE_TEST_CANARY" }"#;
const KEY_FIELD: &str = r#"secret_headers = { X-Key = "env:RINGPROBE_TEST_CANARY" }"#;

// --- the program ----------------------------------------------------------------------------------------

/// `ringprobe check --json`, and what it says.
#[derive(Clone, Debug)]
struct Check {
    arguments: Vec<String>,
    timeout: Micros,
}

impl Check {
    fn of(url: &str) -> Self {
        Self { arguments: vec![url.to_owned()], timeout: TIMEOUT }
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With a field of the endpoint.
    fn set(self, field: &str) -> Self {
        self.with(&["--set", field])
    }

    fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout = Micros::from_millis(timeout_ms);
        self
    }

    fn output(&self) -> Output {
        let timeout = format!("{}ms", self.timeout.0 / 1_000);
        let mut arguments = vec!["check", "--json", "--timeout", &timeout];
        arguments.extend(self.arguments.iter().map(String::as_str));
        ringprobe(Path::new("."), &[], &arguments)
    }

    /// Its probes, each of them within its time and well accounted for.
    fn probes(&self) -> Vec<Value> {
        let output = self.output();
        let ended = Wall::now();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(&*stderr, "", "{self:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let probes = said["probes"].as_array().unwrap();
        let all_up = probes.iter().all(|probe| probe["outcome"] == "up");
        assert_eq!(output.status.code(), Some(i32::from(!all_up)), "{self:?} {said}");
        for probe in probes.iter().filter(|probe| probe["outcome"] != "missed") {
            let total_us = probe["total_us"].as_i64().unwrap();
            assert!(total_us <= i64::try_from(self.timeout.0).unwrap(), "over its time: {self:?} {probe}");
            let phases_us = Phases::NAMES.iter().filter_map(|name| probe[format!("{name}_us")].as_i64());
            assert_eq!(phases_us.sum::<i64>(), total_us, "{self:?} {probe}");
            let (write_us, processing_us) = (probe["write_us"].as_i64(), probe["processing_us"].as_i64());
            assert_eq!(write_us.is_some(), processing_us.is_some(), "{self:?} {probe}");
            assert!(write_us <= processing_us, "a part is longer than the whole: {self:?} {probe}");
            let took_us = u64::try_from(ended.0 - probe["ts_us"].as_i64().unwrap()).unwrap();
            let may_take = self.timeout.as_duration() + LATE_MAX + EXIT_MAX;
            assert!(Duration::from_micros(took_us) <= may_take, "{took_us} µs: {self:?} {probe}");
        }
        probes.clone()
    }

    fn probe(&self) -> Value {
        let probes = self.probes();
        assert_eq!(probes.len(), 1, "{self:?} {probes:?}");
        probes[0].clone()
    }

    #[track_caller]
    fn up(&self) -> Value {
        let probe = self.probe();
        assert_eq!((&probe["outcome"], &probe["failure"]), (&"up".into(), &Value::Null), "{self:?} {probe}");
        probe
    }

    #[track_caller]
    fn down(&self, failure: Failure) -> Value {
        let probe = self.probe();
        let expected = (&"down".into(), &failure.name().into());
        assert_eq!((&probe["outcome"], &probe["failure"]), expected, "{self:?} {probe}");
        probe
    }
}

/// Runs the program in `directory`, in an environment in which there are the canary and these `variables`.
fn ringprobe(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringprobe"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.env_clear().env(CANARY_VARIABLE, CANARY).envs(variables.iter().copied()).output().unwrap()
}

/// A number of each step, where it has one.
fn steps(probe: &Value, column: &str) -> Vec<Option<i64>> {
    probe["steps"].as_array().unwrap().iter().map(|step| step[column].as_i64()).collect()
}

fn has_flag(probe: &Value, flag: &str) -> bool {
    probe["flags"].as_array().unwrap().iter().any(|name| name == flag)
}

// --- the world ------------------------------------------------------------------------------------------

/// A resolver, an nginx, and who signs its certificates.
struct World {
    nginx: Nginx,
    dnsmasq: Dnsmasq,
    root: Authority,
    /// Both versions of TLS, nothing of TLS, and one version each.
    tls: u16,
    plain: u16,
    only_12: u16,
    only_13: u16,
}

/// What dnsmasq knows. `shop`, `blog` and the like are all this machine.
const RECORDS: [&str; 14] = [
    "host-record=shop.test,127.0.0.1",
    "host-record=blog.test,127.0.0.1",
    "host-record=expired.test,127.0.0.1",
    "host-record=early.test,127.0.0.1",
    "host-record=wrong.test,127.0.0.1",
    "host-record=stranger.test,127.0.0.1",
    "host-record=own.test,127.0.0.1",
    "host-record=expiring.test,127.0.0.1",
    "host-record=members.test,127.0.0.1",
    "host-record=six.test,::1",
    "host-record=both.test,127.0.0.1,::1",
    "host-record=two.test,127.0.0.1",
    "host-record=two.test,127.0.0.2",
    "host-record=metadata.test,169.254.169.254",
];

/// A name's certificate: good from the first of January of the one year to that of the other.
fn params(name: &str, from: i32, to: i32) -> CertificateParams {
    let mut params = leaf_params(&[name]);
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

/// 1 January of these years, 00:00 UTC.
const YEAR_2040_S: i64 = 2_208_988_800;
const YEAR_2041_S: i64 = 2_240_611_200;
/// How long `expiring.test` has left.
const EXPIRING_S: u64 = 5 * 86_400;

impl World {
    fn new() -> Self {
        let root = Authority::root(authority_params("a test's root"));
        let stranger = Authority::root(authority_params("somebody else's root"));
        let mut expiring = params("expiring.test", 2020, 2040);
        let now_s = u64::try_from(Wall::now().0 / 1_000_000).unwrap();
        expiring.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now_s + EXPIRING_S);
        let sites = [
            ("shop.test", root.leaf(&params("shop.test", 2020, 2040))),
            ("blog.test", root.leaf(&params("blog.test", 2020, 2041))),
            ("expired.test", root.leaf(&params("expired.test", 2020, 2021))),
            ("early.test", root.leaf(&params("early.test", 2039, 2040))),
            ("wrong.test", root.leaf(&params("right.test", 2020, 2040))),
            ("stranger.test", stranger.leaf(&params("stranger.test", 2020, 2040))),
            ("own.test", Leaf::self_signed(&params("own.test", 2020, 2040))),
            ("expiring.test", root.leaf(&expiring)),
            ("members.test", root.leaf(&params("members.test", 2020, 2040))),
        ];
        let mut files = vec![
            ("root.pem".to_owned(), root.pem.clone()),
            ("passwords".to_owned(), format!("probe:{{PLAIN}}{CANARY}\n")),
            ("private.txt".to_owned(), "for members\n".to_owned()),
            ("text.txt".to_owned(), "all work and no play\n".repeat(3_000) + "the end\n"),
        ];
        for (name, leaf) in &sites {
            files.push((format!("{name}.pem"), leaf.chain_pem.clone()));
            files.push((format!("{name}.key"), leaf.key_pem.clone()));
        }
        let servers = |[tls, plain, only_12, only_13]: [u16; 4]| {
            let site = |(name, _): &(&str, Leaf)| tls_server(name, tls, plain, "");
            let mut servers: String = sites.iter().map(site).collect();
            servers += &tls_server("shop.test", only_12, plain, "ssl_protocols TLSv1.2;");
            servers += &tls_server("shop.test", only_13, plain, "ssl_protocols TLSv1.3;");
            servers + &plain_server(plain, tls)
        };
        let (nginx, [tls, plain, only_12, only_13]) = Nginx::start(&files, servers);
        Self { nginx, dnsmasq: Dnsmasq::start(&RECORDS), root, tls, plain, only_12, only_13 }
    }

    /// A check by our resolver and root; in `url`, words in braces are ports.
    fn check(&self, url: &str) -> Check {
        let ca_file = self.nginx.path("root.pem");
        self.check_without_root(url).with(&["--ca-file", ca_file.to_str().unwrap()])
    }

    fn check_without_root(&self, url: &str) -> Check {
        let url = url
            .replace("{tls}", &self.tls.to_string())
            .replace("{plain}", &self.plain.to_string())
            .replace("{only_12}", &self.only_12.to_string())
            .replace("{only_13}", &self.only_13.to_string());
        Check::of(&url).with(&["--dns", &self.dnsmasq.address().to_string()])
    }

    /// A certificate and its key as files, as `tls` of an endpoint names them.
    fn client(&self, name: &str, authority: &Authority) -> String {
        let mut params = params("prober.test", 2020, 2040);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = authority.leaf(&params);
        let write = |extension: &str, contents: &str| {
            let path = self.nginx.path(&format!("{name}.{extension}"));
            std::fs::write(&path, contents).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (chain, key) = (write("pem", &leaf.chain_pem), write("key", &leaf.key_pem));
        format!("tls = {{ client_cert = \"{chain}\", client_key = \"{key}\" }}")
    }
}

/// Whether this machine has the other loopback; one without still has the rest of these tests.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn listen_ipv6(port: u16, how: &str) -> String {
    if has_ipv6() { format!("listen [::1]:{port} {how};") } else { String::new() }
}

fn tls_server(name: &str, port: u16, plain: u16, more: &str) -> String {
    let ipv6 = listen_ipv6(port, "ssl");
    let verify = match name {
        "members.test" => "ssl_verify_client on; ssl_client_certificate root.pem;",
        _ => "",
    };
    format!(
        "server {{
            listen 127.0.0.1:{port} ssl; {ipv6} server_name {name};
            ssl_certificate {name}.pem; ssl_certificate_key {name}.key; {verify} {more}
            location / {{ return 200 \"{name}, $ssl_protocol\\n\"; }}
            location = /to-http {{ return 301 http://shop.test:{plain}/landed; }}
        }}\n"
    )
}

fn plain_server(port: u16, tls: u16) -> String {
    let ipv6 = listen_ipv6(port, "");
    format!(
        "server {{
            listen 127.0.0.1:{port}; listen 127.0.0.2:{port}; {ipv6} root .;
            location / {{ add_header X-Version 7; return 200 \"in the clear\\n\"; }}
            location = /text.txt {{ }}
            location = /private.txt {{ auth_basic members; auth_basic_user_file passwords; }}
            location = /to-https {{ return 301 https://shop.test:{tls}/landed; }}
            location = /to-blog {{ return 302 http://blog.test:{port}/landed; }}
            location = /to-metadata {{ return 302 http://169.254.169.254/latest/meta-data/; }}
            location = /to-metadata-by-name {{ return 307 http://metadata.test/latest/meta-data/; }}
        }}\n"
    )
}

fn origin() -> Origin {
    Origin::start(OriginOptions::default()).unwrap()
}

// --- certificates ---------------------------------------------------------------------------------------

#[test]
fn each_name_gets_its_certificate() {
    let world = World::new();
    for (name, not_after_s) in [("shop.test", YEAR_2040_S), ("blog.test", YEAR_2041_S)] {
        let check = world.check(&format!("https://{name}:{{tls}}/"));
        let probe = check.with(&["--match", &format!("^{name}, TLSv1\\.3\\n$")]).up();
        assert_eq!((&probe["status"], &probe["body"]), (&200.into(), &"matched".into()), "{probe}");
        assert_eq!(probe["tls_not_after_s"], not_after_s, "{probe}");
        assert_eq!(probe["address"], "127.0.0.1");
        assert!(has_flag(&probe, "tls") && has_flag(&probe, "dns_asked"), "{probe}");
        for phase in Phases::NAMES {
            assert!(probe[format!("{phase}_us")].is_u64(), "{phase} was reached: {probe}");
        }
    }
    // Asked for by another name than the URL's.
    let check = world.check("https://shop.test:{tls}/").set(r#"tls = { server_name = "blog.test" }"#);
    assert_eq!(check.up()["tls_not_after_s"], YEAR_2041_S);
}

#[test]
fn certificates_that_will_not_do_have_their_classes() {
    let world = World::new();
    for (name, failure) in [
        ("expired", Failure::TlsExpired),
        ("early", Failure::TlsNotYetValid),
        ("wrong", Failure::TlsName),
        ("stranger", Failure::TlsUntrusted),
        ("own", Failure::TlsUntrusted),
    ] {
        let check = world.check(&format!("https://{name}.test:{{tls}}/"));
        let probe = check.down(failure);
        assert!(probe["tls_us"].is_u64() && probe["processing_us"].is_null(), "nothing was asked: {probe}");
        check.with(&["--insecure"]).up();
    }
    // Nobody vouches for our root but ourselves.
    world.check_without_root("https://shop.test:{tls}/").down(Failure::TlsUntrusted);
}

#[test]
fn a_certificate_that_is_about_to_expire() {
    let world = World::new();
    let check = world.check("https://expiring.test:{tls}/");
    let probe = check.clone().set(r#"cert_expires_within = "6d""#).down(Failure::CertExpiring);
    assert_eq!(probe["status"], 200, "all else was well");
    check.set(r#"cert_expires_within = "4d""#).up();
}

#[test]
fn a_server_may_ask_who_we_are() {
    let world = World::new();
    let other = Authority::root(authority_params("somebody else's root"));
    let (member, stranger) = (world.client("member", &world.root), world.client("stranger", &other));
    // nginx ends the handshake whoever comes, and tells in HTTP.
    let check = world.check("https://members.test:{tls}/");
    assert_eq!(check.down(Failure::StatusUnexpected)["status"], 400);
    assert_eq!(check.clone().set(&stranger).down(Failure::StatusUnexpected)["status"], 400);
    check.set(&member).up();
    // Others tell in TLS.
    for versions in [ONLY_12, ONLY_13] {
        let server = TlsServer::start(world.config(versions, true), Fault::None, RESPONSE);
        let check = world.check(&format!("https://shop.test:{}/", server.addr().port()));
        check.down(Failure::TlsAlert);
        check.clone().set(&stranger).down(Failure::TlsAlert);
        check.set(&member).up();
    }
}

#[test]
fn versions_of_tls_are_kept_to() {
    let world = World::new();
    let check = |port: &str, field: &str, version: Option<&str>| {
        let check = world.check(&format!("https://shop.test:{port}/")).set(field);
        match version {
            Some(version) => check.with(&["--match", version]).up(),
            None => check.down(Failure::TlsAlert),
        }
    };
    let (min_13, max_12) = (r#"tls = { min_version = "1.3" }"#, r#"tls = { max_version = "1.2" }"#);
    check("{only_12}", min_13, None);
    check("{only_12}", max_12, Some("TLSv1.2"));
    check("{only_13}", max_12, None);
    check("{only_13}", min_13, Some("TLSv1.3"));
    check("{tls}", max_12, Some("TLSv1.2"));
    check("{tls}", min_13, Some("TLSv1.3"));
}

#[test]
fn the_wrong_protocol_for_the_port() {
    let world = World::new();
    // nginx understands, and says so.
    assert_eq!(world.check("http://shop.test:{tls}/").down(Failure::StatusUnexpected)["status"], 400);
    let probe = world.check("https://shop.test:{plain}/").down(Failure::TlsProtocol);
    assert!(probe["status"].is_null(), "{probe}");
}

// --- TLS servers that misbehave -------------------------------------------------------------------------

const ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// It ends where the connection does.
const RESPONSE_WITHOUT_LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok";

impl World {
    /// A server for `shop.test`, which may ask for certificates of our root's.
    fn config(&self, versions: &[&'static SupportedProtocolVersion], asks: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let leaf = self.root.leaf(&params("shop.test", 2020, 2040));
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_protocol_versions(versions).unwrap();
        let config = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.certificate.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        Arc::new(config.with_single_cert(leaf.chain, leaf.key).unwrap())
    }
}

#[test]
fn servers_that_misbehave_below_http() {
    /// What is wrong with a server, what it has to say, and what becomes of the probe.
    type Case = (Fault, &'static [u8], Option<Failure>);
    /// Long enough for a handshake on a busy machine.
    const TLS_TIMEOUT_US: i64 = 1_500_000;
    let world = World::new();
    // A fatal alert: handshake_failure (RFC 8446, section 6.2).
    let alert = b"\x15\x03\x03\x00\x02\x02\x28".to_vec();
    let cases: [Case; 16] = [
        (Fault::None, RESPONSE, None),
        (Fault::Crumbs, RESPONSE, None),
        (Fault::Silence, RESPONSE, Some(Failure::TlsTimeout)),
        (Fault::StallAfter(100), RESPONSE, Some(Failure::TlsTimeout)),
        (Fault::Close, RESPONSE, Some(Failure::TlsProtocol)),
        (Fault::CloseAfter(100), RESPONSE, Some(Failure::TlsProtocol)),
        (Fault::Reset, RESPONSE, Some(Failure::Reset)),
        (Fault::GarbageAfterServerHello, RESPONSE, Some(Failure::TlsProtocol)),
        (Fault::Bytes(alert), RESPONSE, Some(Failure::TlsAlert)),
        (Fault::Bytes(b"220 mail.test ESMTP\r\n".to_vec()), RESPONSE, Some(Failure::TlsProtocol)),
        // A length makes up for the goodbye that is missing; without either, anybody may have cut it off.
        (Fault::NoGoodbye, RESPONSE, None),
        (Fault::None, RESPONSE_WITHOUT_LENGTH, None),
        (Fault::NoGoodbye, RESPONSE_WITHOUT_LENGTH, Some(Failure::ClosedEarly)),
        (Fault::CutOff, RESPONSE, Some(Failure::ClosedEarly)),
        (Fault::CutOffByReset, RESPONSE, Some(Failure::Reset)),
        (Fault::GarbageAfterHalf, RESPONSE, Some(Failure::TlsProtocol)),
    ];
    for versions in [ONLY_12, ONLY_13] {
        let config = world.config(versions, false);
        let start =
            |(fault, response, _): &Case| TlsServer::start(Arc::clone(&config), fault.clone(), response);
        let servers: Vec<TlsServer> = cases.iter().map(start).collect();
        let url = |server: &TlsServer| format!("https://shop.test:{}/", server.addr().port());
        let check = world.check(&url(&servers[0])).set(r#"tls_timeout = "1500ms""#);
        let others: Vec<String> = servers[1..].iter().map(url).collect();
        let probes = check.with(&others.iter().map(String::as_str).collect::<Vec<_>>()).probes();
        assert_eq!(probes.len(), cases.len());
        for (probe, (fault, _, failure)) in probes.iter().zip(&cases) {
            let expected = failure.map_or(Value::Null, |failure| failure.name().into());
            assert_eq!(probe["failure"], expected, "{fault:?} {versions:?} {probe}");
            let timed_out = *failure == Some(Failure::TlsTimeout);
            assert_eq!(probe["tls_us"] == TLS_TIMEOUT_US, timed_out, "{fault:?} {versions:?} {probe}");
            assert_eq!(has_flag(probe, "censored"), timed_out, "{fault:?} {versions:?} {probe}");
        }
    }
}

// --- names and addresses --------------------------------------------------------------------------------

#[test]
fn names_that_cannot_be_resolved() {
    let world = World::new();
    // The dot: not to be looked for in this machine's search domains.
    let probe = world.check("http://nobody.test.:{plain}/").down(Failure::DnsNotFound);
    assert!(probe["resolve_us"].is_u64() && probe["connect_us"].is_null(), "{probe}");
    // It exists, and has no address of the family.
    world.check("http://six.test.:{plain}/").set(r#"family = "4""#).down(Failure::DnsNotFound);
    // dnsmasq has nobody to ask: REFUSED.
    world.check("http://shop.elsewhere.:{plain}/").down(Failure::DnsFailed);

    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let by_silent = |url: &str| Check::of(url).with(&["--dns", &silent.local_addr().unwrap().to_string()]);
    let check = by_silent("http://shop.test/").set(&format!("resolve_timeout = \"{LIMIT_MS}ms\""));
    let probe = check.down(Failure::DnsTimeout);
    assert_eq!((&probe["resolve_us"], &probe["total_us"]), (&LIMIT_US.into(), &LIMIT_US.into()), "{probe}");
    let probe = by_silent("http://shop.test/").timeout_ms(LIMIT_MS).down(Failure::DnsTimeout);
    assert_eq!(probe["total_us"], LIMIT_US, "{probe}");
    assert!(has_flag(&probe, "censored"), "{probe}");

    // A port that nobody has: the kernel says so, and nobody waits.
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    Check::of("http://shop.test/").with(&["--dns", &free.to_string()]).down(Failure::DnsFailed);
}

#[test]
fn the_address_is_the_one_that_was_asked_for() {
    let world = World::new();
    let check = |url: &str, field: &str, address: &str| {
        let probe = world.check(url).set(field).up();
        assert_eq!(probe["address"], address, "{probe}");
        probe
    };
    check("http://both.test:{plain}/", r#"family = "4""#, "127.0.0.1");
    check("http://both.test:{plain}/", r#"family = "prefer4""#, "127.0.0.1");
    // Nobody has to know a name whose address is given; it is still whom the certificate is for.
    let probe = check("http://nobody.test:{plain}/", r#"address = "127.0.0.2""#, "127.0.0.2");
    assert!(probe["resolve_us"].is_null(), "{probe}");
    if has_ipv6() {
        check("http://both.test:{plain}/", r#"family = "6""#, "::1");
        check("http://both.test:{plain}/", r#"family = "prefer6""#, "::1");
        check("http://six.test:{plain}/", r#"family = "any""#, "::1");
        check("http://[::1]:{plain}/", r#"family = "any""#, "::1");
        let probe = check("https://shop.test:{tls}/", r#"address = "::1""#, "::1");
        assert_eq!(probe["tls_not_after_s"], YEAR_2040_S);
    }
}

#[test]
fn every_address_of_a_name() {
    let world = World::new();
    let check = world.check("http://two.test:{plain}/every").set(r#"expand = "all""#);
    let probes = check.probes();
    let mut addresses: Vec<_> = probes.iter().map(|probe| probe["address"].as_str().unwrap()).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["127.0.0.1", "127.0.0.2"]);
    assert!(probes.iter().all(|probe| probe["outcome"] == "up" && probe["url"] == probes[0]["url"]));
    let mut seen: Vec<_> =
        world.nginx.requests("two.test/every", 2).into_iter().map(|seen| seen.address).collect();
    seen.sort_unstable();
    assert_eq!(seen, addresses, "nginx agrees");
    // Each of them has its own steps.
    let probes = world.check("http://two.test:{plain}/to-https").set(r#"expand = "all""#).probes();
    assert_eq!(probes.len(), 2);
    for probe in probes {
        assert_eq!((&probe["outcome"], &probe["redirects"]), (&"up".into(), &1.into()), "{probe}");
        assert_eq!(steps(&probe, "status"), [Some(301), Some(200)], "{probe}");
    }
}

#[test]
fn the_source_is_the_one_that_was_asked_for() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let peers = std::thread::spawn(move || {
        let answer = |_| {
            let (mut stream, peer) = server.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            // Until the prober is done with it.
            let _ = stream.read_to_end(&mut Vec::new());
            peer.ip()
        };
        [0, 1].map(answer)
    });
    Check::of(&url).set(r#"source = "127.0.0.7""#).up();
    Check::of(&url).set(r#"source = "lo""#).up();
    for ours in [r#"source = "192.0.2.77""#, r#"source = "no-such-link""#] {
        let probe = Check::of(&url).set(ours).probe();
        assert_eq!(
            (&probe["outcome"], &probe["failure"]),
            (&"missed".into(), &"no_source".into()),
            "{probe}"
        );
    }
    assert_eq!(peers.join().unwrap(), [Ipv4Addr::new(127, 0, 0, 7), Ipv4Addr::LOCALHOST]);
}

#[test]
fn what_is_sent_is_what_was_asked_for() {
    let server = ReplyServer::start();
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    server.script(vec![reply.to_vec(); 2], false);
    let check = Check::of(&format!("http://127.0.0.1:{}/a?b=c", server.port()));
    let fields = r#"headers = { Host = "www.shop.example", Accept = ["a/b", "c/d"], X-A = "1" }"#;
    check.clone().with(&["-X", "PATCH", "--body", "{}"]).set(fields).set(r#"user_agent = "me""#).up();
    check.set(r#"method = "PROPFIND""#).set(r#"body_base64 = "AP8=""#).up();
    let requests = server.requests();
    let first = String::from_utf8_lossy(&requests[0]).into_owned();
    for line in [
        "PATCH /a?b=c HTTP/1.1\r\n",
        "Host: www.shop.example\r\n",
        "Accept: a/b\r\nAccept: c/d\r\n",
        "X-A: 1\r\n",
        "User-Agent: me\r\n",
        "Content-Length: 2\r\n",
    ] {
        assert!(first.contains(line), "{line:?} is not in {first}");
    }
    assert!(first.ends_with("\r\n\r\n{}"), "{first}");
    assert!(requests[1].starts_with(b"PROPFIND ") && requests[1].ends_with(b"\r\n\r\n\0\xff"));
}

#[test]
fn reading_stops_when_the_patterns_are_certain() {
    let origin = origin();
    // Ten seconds of body, of which the first bytes decide.
    let check = Check::of(&origin.url("/drip/1000/10ms")).with(&["--match", "^."]).set("body_stop = true");
    let probe = check.up();
    assert!(has_flag(&probe, "stopped"), "{probe}");
    assert!(probe["total_us"].as_i64().unwrap() < 5_000_000, "{probe}");
}

/// Nothing told the steps of the probes of one slot apart: the second hop of both led to the same address.
#[test]
fn each_step_belongs_to_one_probe_of_its_slot() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let file = format!(
        "[[endpoint]]\nname = 'two'\nurl = 'http://two.test:{}/to-https'\nexpand = 'all'\ninterval = '300ms'\n\
         tls = {{ insecure = true }}\n",
        world.plain
    );
    std::fs::write(directory.path().join("e.toml"), file).unwrap();
    let dns = world.dnsmasq.address().to_string();
    let arguments = ["run", "e.toml", "--duration", "1s", "--dns", &dns, "--store", "sqlite:r.db"];
    let output = ringprobe(directory.path(), &[], &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = rusqlite::Connection::open(directory.path().join("r.db")).unwrap();
    let count = |query: &str| store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let samples = count("SELECT count(*) FROM metrics WHERE outcome <> 3");
    assert!(samples >= 4, "{samples}");
    assert_eq!(count("SELECT count(*) FROM (SELECT DISTINCT ts, endpoint_id, twin FROM metrics)"), samples);
    assert_eq!(count("SELECT count(*) FROM steps"), 2 * samples);
    // The steps of each probe, and of no other, sum to it.
    let summed =
        "SELECT count(*) FROM metrics AS m JOIN (SELECT ts, endpoint_id, twin, sum(total_us) AS total_us,
            sum(bytes_in) AS bytes_in, group_concat(step) AS steps FROM steps GROUP BY 1, 2, 3) AS s
        USING (ts, endpoint_id, twin, total_us, bytes_in) WHERE steps IN ('1,2', '2,1')";
    assert_eq!(count(summed), samples);
    assert_eq!(count("SELECT count(*) FROM sample_steps WHERE twin = 1"), samples);
}

#[test]
fn addresses_that_the_policy_forbids() {
    let world = World::new();
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        // The same, as one number.
        "http://2852039166/",
        "http://metadata.test/",
        "https://metadata.test/",
    ] {
        let probe = world.check(url).down(Failure::PolicyBlocked);
        assert!(probe["connect_us"].is_null(), "nothing was tried: {probe}");
    }
    for path in ["to-metadata", "to-metadata-by-name"] {
        let probe = world.check(&format!("http://shop.test:{{plain}}/{path}")).down(Failure::PolicyBlocked);
        assert_eq!((&probe["redirects"], steps(&probe, "connect_us")[1]), (&1.into(), None), "{probe}");
    }
    let check = world.check("http://shop.test:{plain}/");
    check.clone().with(&["--address-rule", "deny 127.0.0.0/8"]).down(Failure::PolicyBlocked);
    check.clone().with(&["--address-policy", "multi-tenant"]).down(Failure::PolicyBlocked);
    let allowed = ["--address-policy", "multi-tenant", "--address-rule", "allow 127.0.0.1/32"];
    check.with(&allowed).up();
}

// --- redirects, retries and expectations ----------------------------------------------------------------

#[test]
fn redirects_between_http_and_https() {
    let world = World::new();
    let check = world.check("http://shop.test:{plain}/to-https");
    let probe = check.up();
    assert_eq!((&probe["status"], &probe["redirects"]), (&200.into(), &1.into()), "{probe}");
    assert_eq!(steps(&probe, "status"), [Some(301), Some(200)]);
    assert!(has_flag(&probe, "tls") && probe["tls_not_after_s"] == YEAR_2040_S, "{probe}");
    let check = world.check_without_root("http://shop.test:{plain}/to-https");
    let probe = check.set("redirects = 0").down(Failure::StatusUnexpected);
    assert_eq!((&probe["status"], &probe["redirects"]), (&301.into(), &0.into()), "{probe}");

    let check = world.check("https://shop.test:{tls}/to-http");
    check.down(Failure::RedirectBlocked);
    let probe = check.set("redirect_downgrade = true").up();
    assert_eq!(steps(&probe, "status"), [Some(301), Some(200)]);
    assert_eq!(world.nginx.requests("shop.test/landed", 2).len(), 2, "the one that was blocked went nowhere");
}

#[test]
fn attempts_are_steps() {
    let origin = origin();
    let check = Check::of(&origin.url("/status/503")).set("retries = 2");
    let probe = check.down(Failure::StatusUnexpected);
    assert_eq!((&probe["status"], &probe["attempt"]), (&503.into(), &3.into()), "{probe}");
    assert_eq!(steps(&probe, "attempt"), [1, 2, 3].map(Some));
    assert_eq!(steps(&probe, "status"), [Some(503); 3]);
    let of_the_last = steps(&probe, "write_us").pop();
    assert_eq!(of_the_last, Some(probe["write_us"].as_i64()), "like the phases: {probe}");
    assert_eq!(origin.paths()["/status/503"], 3);

    let server = ReplyServer::start();
    let reply = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    server.script(vec![reply("503 Busy"), reply("200 OK")], false);
    let check = Check::of(&format!("http://127.0.0.1:{}/", server.port())).set("retries = 5");
    let probe = check.up();
    assert_eq!((steps(&probe, "status"), &probe["attempt"]), (vec![Some(503), Some(200)], &2.into()));
    assert_eq!(server.requests().len(), 2, "no more than it takes");

    // All attempts have one timeout.
    let check = Check::of(&origin.url("/delay/20s")).set("retries = 2");
    let probe = check.set(&format!("ttfb_timeout = \"{LIMIT_MS}ms\"")).timeout_ms(3 * LIMIT_MS / 2);
    assert_eq!(steps(&probe.down(Failure::TotalTimeout), "attempt"), [1, 2].map(Some));
}

#[test]
fn expectations() {
    let (world, origin) = (World::new(), origin());
    let nobody = bound_socket();
    let check = Check::of(&format!("http://{}/", nobody.1));
    check.down(Failure::ConnectRefused);
    check.set(r#"expect = "down""#).up();
    Check::of(&origin.url("/")).set(r#"expect = "down""#).down(Failure::UpUnexpected);

    let check = Check::of(&origin.url("/delay/100ms"));
    let probe = check.clone().set(r#"expect_within = "50ms""#).down(Failure::TooSlow);
    assert!(probe["total_us"].as_i64().unwrap() >= 100_000, "it was waited for: {probe}");
    check.set(r#"expect_within = "10s""#).up();

    let check = world.check("http://shop.test:{plain}/");
    check.clone().set(r#"expect_headers = { X-Version = "^7$", Server = true, X-Debug = false }"#).up();
    for rule in [r#"X-Version = "^8$""#, "X-Debug = true", "Server = false"] {
        check.clone().set(&format!("expect_headers = {{ {rule} }}")).down(Failure::HeaderMismatch);
    }
    check.clone().set("expect_status = [404]").down(Failure::StatusUnexpected);
    check.clone().with(&["--forbid", "in the clear"]).down(Failure::BodyForbidden);
    check.with(&["--match", "encrypted"]).down(Failure::BodyMismatch);

    // 63 KB, "the end" at the end.
    let check = world.check("http://shop.test:{plain}/text.txt");
    check.clone().with(&["--match", "the end"]).up();
    let check = check.set(r#"body_limit = "1KiB""#);
    check.down(Failure::BodyTooLarge);
    check.clone().with(&["--match", "the end"]).down(Failure::BodyNoVerdict);
    check.with(&["--match", "no play"]).up();
}

#[test]
fn a_coding_is_asked_for_and_decoded() {
    let world = World::new();
    let check =
        world.check("http://shop.test:{plain}/text.txt").with(&["--match", "(?s)^all work.*the end\\n$"]);
    let identity = check.up();
    assert!(identity["bytes_in"].as_i64().unwrap() > 63_000, "{identity}");
    let gzip = check.clone().set(r#"accept_encoding = ["gzip"]"#).up();
    assert_eq!(gzip["body"], "matched");
    assert!(gzip["bytes_in"].as_i64().unwrap() < 3_000, "{gzip}");
    // The limit is one of decoded bytes.
    check.set(r#"accept_encoding = ["gzip"]"#).set(r#"body_limit = "10KiB""#).down(Failure::BodyNoVerdict);
}

#[test]
fn every_probe_has_its_own_uuid() {
    let world = World::new();
    let check = world.check("http://shop.test:{plain}/ids/${uuid}").set(r#"headers = { X-Id = "${uuid}" }"#);
    for _ in 0..2 {
        check.up();
    }
    let seen = world.nginx.requests("shop.test/ids/", 2);
    let in_path = |url: &str| url.strip_prefix("shop.test/ids/").unwrap().to_owned();
    for id in seen.iter().flat_map(|seen| [in_path(&seen.url), seen.x_id.clone()]) {
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4, "{id}");
    }
    assert_ne!(seen[0].url, seen[1].url);
    assert_ne!(seen[0].x_id, seen[1].x_id);
}

// --- limits of time -------------------------------------------------------------------------------------

/// A socket that has a port but does not listen: nobody else can get that port and answer.
fn bound_socket() -> (OwnedFd, SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let addr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    (socket, addr)
}

#[test]
fn every_phase_has_its_limit() {
    let origin = origin();
    let full = bound_socket();
    rustix::net::listen(&full.0, 0).unwrap();
    // A backlog of zero holds one connection; whoever fails to get in has found it full.
    let knock = || TcpStream::connect_timeout(&full.1, Duration::from_millis(100));
    let _backlog: Vec<TcpStream> = std::iter::from_fn(|| knock().ok()).take(16).collect();
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = |scheme: &str, addr: SocketAddr| format!("{scheme}://{addr}/");
    for (url, field, failure, phase) in [
        (at("http", full.1), "connect_timeout", Failure::ConnectTimeout, "connect_us"),
        (at("https", deaf.local_addr().unwrap()), "tls_timeout", Failure::TlsTimeout, "tls_us"),
        (origin.url("/delay/20s"), "ttfb_timeout", Failure::TtfbTimeout, "processing_us"),
        (origin.url("/pause/20s/bytes/10"), "idle_timeout", Failure::IdleTimeout, "transfer_us"),
    ] {
        let probe = Check::of(&url).set(&format!("{field} = \"{LIMIT_MS}ms\"")).down(failure);
        assert_eq!(probe[phase], LIMIT_US, "{probe}");
        assert!(has_flag(&probe, "censored"), "{probe}");
        // Whoever has kept the limit of its phase is not to blame for the whole's.
        let check = Check::of(&url).set(&format!("{field} = \"10s\"")).timeout_ms(LIMIT_MS);
        let probe = check.down(Failure::TotalTimeout);
        assert_eq!(probe["total_us"], LIMIT_US, "{probe}");
    }
    // Bytes that keep coming keep it alive.
    Check::of(&origin.url("/drip/30/40ms")).set(r#"idle_timeout = "1s""#).up();
    let probe = Check::of(&origin.url("/drip/30/40ms")).timeout_ms(LIMIT_MS).down(Failure::TransferTimeout);
    assert_eq!((&probe["status"], &probe["total_us"]), (&200.into(), &LIMIT_US.into()), "{probe}");
}

/// What the ring had sent of a large request was not counted unless all of it had left.
#[test]
fn what_had_left_by_a_timeout_is_counted() {
    const READ_BYTES: usize = 700_000;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body"), vec![b'x'; 1_000_000]).unwrap();
    let file =
        format!("[[endpoint]]\nname = 'a'\nurl = 'http://{addr}/'\nmethod = 'POST'\nbody_file = 'body'\n");
    let file = file + "timeout = '1s'\n";
    std::fs::write(directory.path().join("e.toml"), file).unwrap();
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut vec![0; READ_BYTES]).unwrap();
        stream
    });
    let output = ringprobe(directory.path(), &[], &["check", "-f", "e.toml", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let probe = &said["probes"][0];
    assert_eq!(probe["failure"], "ttfb_timeout", "{probe}");
    let bytes_out = usize::try_from(probe["bytes_out"].as_u64().unwrap()).unwrap();
    assert!((READ_BYTES..1_001_000).contains(&bytes_out), "{READ_BYTES} were read: {probe}");
    drop(origin.join().unwrap());
}

/// A server with segments of 1,460 bytes and little room, which reads a part of a request of a megabyte, then pauses.
fn reads_late(pause: Duration) -> SocketAddr {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_tcp_mss(1_460).unwrap();
    listener.set_recv_buffer_size(32 * 1024).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let listener = TcpListener::from(listener);
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![0; 1_000];
        stream.read_exact(&mut received).unwrap();
        std::thread::park_timeout(pause);
        while !received.ends_with(b"the end") {
            let mut more = [0; 64 * 1024];
            match stream.read(&mut more).unwrap() {
                0 => return,
                more_bytes => received.extend_from_slice(&more[..more_bytes]),
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    addr
}

#[test]
fn a_request_that_is_read_late_is_long_in_writing() {
    const PAUSE: Duration = Duration::from_millis(300);
    let pause_us = i64::try_from(PAUSE.as_micros()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body"), [&[b'x'; 1_000_000][..], b"the end"].concat()).unwrap();
    let probe = |pause: Duration, timeout: &str| {
        let addr = reads_late(pause);
        let file = format!(
            "[[endpoint]]\nname = 'a'\nurl = 'http://{addr}/'\nmethod = 'POST'\nbody_file = 'body'\n\
             timeout = '{timeout}'\n"
        );
        std::fs::write(directory.path().join("e.toml"), file).unwrap();
        let output = ringprobe(directory.path(), &[], &["check", "-f", "e.toml", "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let probe = said["probes"][0].clone();
        let spans_us = (probe["write_us"].as_i64().unwrap(), probe["processing_us"].as_i64().unwrap());
        (spans_us.0, spans_us.1, probe)
    };
    let (prompt_us, _, probe_prompt) = probe(Duration::ZERO, "20s");
    let (late_us, processing_us, probe_late) = probe(PAUSE, "20s");
    assert_eq!((&probe_prompt["outcome"], &probe_late["outcome"]), (&"up".into(), &"up".into()));
    assert!((pause_us..=processing_us).contains(&late_us), "{probe_late}");
    assert!(prompt_us < pause_us, "nobody made it wait: {probe_prompt}");
    // Cut off: all of the phase was writing, and no more than that is known.
    let (write_us, processing_us, probe) = probe(PAUSE * 100, "200ms");
    assert_eq!((&probe["failure"], write_us), (&"ttfb_timeout".into(), processing_us), "{probe}");
    assert!(probe["bytes_out"].as_i64() < Some(1_000_000), "{probe}");
}

// --- secrets --------------------------------------------------------------------------------------------

#[test]
fn a_secret_goes_to_its_origin_only() {
    let world = World::new();
    let check = world.check("http://shop.test:{plain}/private.txt");
    assert_eq!(check.down(Failure::StatusUnexpected)["status"], 401);
    let probe = check.set(LOG_IN).set(KEY_FIELD).with(&["--match", "^for members"]).up();
    assert_eq!(probe["status"], 200);
    let seen = &world.nginx.requests("shop.test/private.txt", 2)[1];
    assert_eq!((&*seen.authorization, &*seen.x_key, seen.status), (&*basic(), CANARY, 200));

    let check = world.check("http://shop.test:{plain}/to-blog");
    check.set(LOG_IN).set(KEY_FIELD).up();
    let seen = &world.nginx.requests("shop.test/to-blog", 1)[0];
    assert_eq!((&*seen.authorization, &*seen.x_key), (&*basic(), CANARY));
    let seen = &world.nginx.requests("blog.test/landed", 1)[0];
    assert_eq!((&*seen.authorization, &*seen.x_key), ("-", "-"), "another origin");
}

/// `Authorization` of the canary's.
fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("probe:{CANARY}")))
}

/// Whether the canary is anywhere in it, as it is or as `Authorization` has it.
fn sings(bytes: &[u8]) -> bool {
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    // Of base64, what does not depend on what is around it.
    has(CANARY) || has(basic().trim_start_matches("Basic ").trim_end_matches('='))
}

#[test]
fn a_secret_is_in_no_output() {
    assert!(sings(CANARY.as_bytes()) && sings(basic().as_bytes()) && !sings(b"a canary"));
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let dns = world.dnsmasq.address().to_string();
    let run = |arguments: &[&str]| {
        let output = ringprobe(directory.path(), &[("RINGPROBE_LOG", "trace")], arguments);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!sings(&output.stdout) && !sings(&output.stderr), "{arguments:?}: {stdout}{stderr}");
        (output.status.code(), stdout.into_owned(), stderr.into_owned())
    };
    let url = |path: &str| format!("http://shop.test:{}/{path}", world.plain);
    let (private, to_blog, to_metadata) = (url("private.txt"), url("to-blog"), url("to-metadata"));
    let tls = format!("https://expired.test:{}/", world.tls);
    let nobody = bound_socket();
    let refused = format!("http://{}/", nobody.1);
    for (target, code) in [(&private, 0), (&to_blog, 0), (&to_metadata, 1), (&tls, 1), (&refused, 1)] {
        for form in [&["--json"][..], &[]] {
            let arguments = ["check", "--dns", &dns, target, "--set", LOG_IN, "--set", KEY_FIELD];
            assert_eq!(run(&[&arguments[..], form].concat()).0, Some(code), "{target}");
        }
    }
    // What is refused is not repeated either, be it the secret where a reference belongs.
    for field in [
        format!("bearer = \"{CANARY}\""),
        format!("basic_auth = {{ username = \"probe\", password = \"{CANARY}\" }}"),
        format!("secret_headers = {{ X-Key = \"{CANARY}\" }}"),
    ] {
        assert_eq!(run(&["check", &private, "--set", &field]).0, Some(2), "{field}");
    }

    let file = format!(
        "[defaults]\ninterval = \"200ms\"\n\n[[endpoint]]\nname = \"members\"\nurl = \"{private}\"\n{LOG_IN}\n\n\
         [[endpoint]]\nname = \"bearer\"\nurl = \"{to_blog}\"\nbearer = \"env:{CANARY_VARIABLE}\"\n{KEY_FIELD}\n"
    );
    std::fs::write(directory.path().join("e.toml"), file).unwrap();
    let store = ["--store", "sqlite:r.db"];
    let arguments = ["run", "e.toml", "--duration", "1s", "--json", "--dns", &dns];
    let (code, stdout, stderr) = run(&[&arguments[..], &store].concat());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let (code, exported, stderr) = run(&[&["endpoints", "export"][..], &store].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(exported.contains(&format!("env:{CANARY_VARIABLE}")), "the reference is there: {exported}");
    let files: Vec<Vec<u8>> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!files.iter().any(|file| sings(file)), "in the store");
    let references = |file: &&Vec<u8>| String::from_utf8_lossy(file).contains(CANARY_VARIABLE);
    assert!(files.iter().filter(references).count() >= 2, "the store has the reference, and the file");
    // They were used: three times by `check`, and more by `run`.
    assert!(world.nginx.requests("shop.test/private.txt", 4).iter().all(|seen| seen.status == 200));
    let bearer = format!("Bearer {CANARY}");
    assert!(world.nginx.requests("shop.test/to-blog", 4).iter().any(|seen| seen.authorization == bearer));
}
