//! The doors together: every mistake with its words, and files that come back as they went out.

use proptest::prelude::*;

use super::*;
use crate::config::{INTERVAL_DEFAULT, NAME_BYTES_MAX, REQUEST_BYTES_MAX, TAGS_MAX, TIMEOUT_DEFAULT};

/// Files and the one line that is said about each: `--- line`, then the file.
const ERRORS: &str = include_str!("../../tests/data/endpoint_file_errors.txt");

#[test]
fn every_mistake_has_its_line() {
    let (mut cases, mut wrong) = (0, Vec::new());
    for case in ERRORS.split("--- ").skip(1) {
        let (expected, text) = case.split_once('\n').unwrap();
        let found = match file::parse(text, "endpoints.toml") {
            Ok(endpoints) => format!("{} endpoints", endpoints.len()),
            Err(error) => error.to_string(),
        };
        if found != expected {
            wrong.push(format!("{found}\n  instead of\n{expected}\n  for\n{text}"));
        }
        assert!(!found.contains("hunter2"), "a message repeats a secret");
        cases += 1;
    }
    assert!(cases >= 140, "only {cases} cases were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Vectors and seeds of the fuzzer, each also with a byte changed here and there.
#[test]
fn every_file_keeps_the_invariants() {
    let full = include_str!("../../tests/data/endpoint_file_full.toml");
    let files = ERRORS.split("--- ").filter_map(|case| Some(case.split_once('\n')?.1)).chain([full]);
    for file in files {
        invariants::check(file.as_bytes());
        for at in (0..file.len()).step_by(7) {
            let mut bytes = file.as_bytes().to_vec();
            bytes[at] = b"\"\n=[]{}'0#\\"[at % 11];
            invariants::check(&bytes);
        }
    }
    invariants::check(
        b"[[endpoint]]\nname = 'a'\nurl = 'http://a'\nheaders = { \"a\\nb\" = '1', \"A\\nb\" = '2' }",
    );
}

fn parse_one(text: &str) -> Endpoint {
    let endpoints = file::parse(text, "t.toml").unwrap();
    assert_eq!(endpoints.len(), 1);
    endpoints.into_iter().next().unwrap()
}

fn full() -> Vec<Endpoint> {
    let text = include_str!("../../tests/data/endpoint_file_full.toml");
    let mut read_body = |path: &str| match path {
        "ping.bin" => Ok(b"from a file".to_vec()),
        other => Err(format!("is not {other}")),
    };
    file::parse_in(text, "t.toml", &mut read_body).unwrap()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

#[test]
fn all_fields_are_read() {
    let [endpoint, every, bytes] = <[Endpoint; 3]>::try_from(full()).unwrap();
    assert_eq!(endpoint.name, "shop");
    let url = "https://shop.example:8443/health/$%7Buuid%7D?deep=1&n=${uuid}";
    assert_eq!(endpoint.url.as_str(), url);
    assert_eq!(endpoint.url_text(), url.replace(UUID_PLACEHOLDER_IN_PATH, UUID_PLACEHOLDER));
    assert_eq!(endpoint.interval, Micros(30_000_000));
    let tags: Vec<_> = endpoint.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("region", "eu"), ("team", "shop"), ("tenant", "42")]);

    let seconds = |seconds: u64| Micros(seconds * 1_000_000);
    let fields = |fields: &[(&str, &str)]| -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let rule = |name: &str, rule: FieldRule| (name.to_owned(), rule);
    let secret = |text: &str| text.parse::<SecretRef>().unwrap();
    let expected = Options {
        enabled: false,
        priority: 9,
        method: Method::new("POST").unwrap(),
        headers: fields(&[
            ("X-Default", "kept"),
            ("X-Zebra", "first in the file"),
            ("Accept", "application/json"),
            ("Accept", "text/*;q=0.5"),
            ("x-override", "own"),
        ]),
        secret_headers: vec![
            ("X-Tenant".to_owned(), secret("env:TENANT")),
            ("X-Key".to_owned(), secret("cred:shop-key")),
        ],
        body: b"{\"ping\":\"${uuid}\"}".to_vec(),
        credentials: Some(Credentials::Basic {
            username: "probe".to_owned(),
            password: secret("file:/run/secrets/shop"),
        }),
        user_agent: Some("probe (ops@shop.example)".to_owned()),
        accept_encoding: vec![Coding::Brotli, Coding::Gzip],
        expect: Expect::Up,
        expect_status: StatusSet::parse(["200-299", "304"]).unwrap(),
        expect_headers: vec![
            rule("Server", FieldRule::Present),
            rule("Content-Type", FieldRule::Matches("^application/json".to_owned())),
            rule("X-Debug", FieldRule::Absent),
        ],
        expect_version: Some(HttpVersion::Http11),
        expect_within: Some(Micros(750_000)),
        body_match: texts(&["\"status\":\\s*\"ok\"", "\"db\":\"up\""]),
        body_forbid: texts(&["maintenance"]),
        body_limit_bytes: 1 << 20,
        body_stop: true,
        charset: Charset::Auto,
        cert_expires_within: Some(seconds(14 * 86_400)),
        redirects: 3,
        redirect_downgrade: true,
        timeout: Micros(2_500_000),
        resolve_timeout: Some(Micros(300_000)),
        connect_timeout: Some(seconds(1)),
        tls_timeout: Some(seconds(1)),
        ttfb_timeout: Some(seconds(2)),
        idle_timeout: Some(Micros(500_000)),
        retries: 2,
        dns: Dns::Every,
        expand: Expand::One,
        family: Family::Prefer6,
        address: Some("2001:db8::7".parse().unwrap()),
        source: Some(Source::Address("2001:db8::1".parse().unwrap())),
        connection: Connection::Reuse,
        close: Close::Rst,
        tls: Tls {
            ca_file: Some("/etc/ssl/ours.pem".to_owned()),
            client_cert: Some("/etc/ringprobe/probe.pem".to_owned()),
            client_key: Some(secret("cred:probe-key")),
            server_name: Some("shop.internal".to_owned()),
            insecure: true,
            min_version: Some(TlsVersion::Tls13),
            max_version: Some(TlsVersion::Tls13),
            resumption: true,
        },
    };
    assert_eq!(*endpoint.options, expected);

    assert_eq!(every.options.credentials, Some(Credentials::Bearer(secret("env:SHOP_TOKEN"))));
    assert_eq!(every.options.body, b"from a file");
    assert_eq!((every.options.expect, every.options.expand), (Expect::Down, Expand::All));
    assert_eq!(every.options.connection, Connection::Fresh);
    assert_eq!(bytes.options.body, b"\0\xff\x80");
    assert!(every.options.tls == bytes.options.tls && every.may_use_tls(), "a redirect may lead to https");
}

#[test]
fn what_is_left_open_has_a_default() {
    let endpoint = parse_one("[[endpoint]]\nname = 'a'\nurl = 'http://a'");
    assert_eq!(endpoint.url.as_str(), "http://a/");
    assert_eq!((endpoint.interval, endpoint.options.timeout), (INTERVAL_DEFAULT, TIMEOUT_DEFAULT));
    assert_eq!(*endpoint.options, Options::default());
    assert_eq!((endpoint.options.redirects, endpoint.options.priority), (10, 5));

    let endpoint = parse_one("[[endpoint]]\nname = 'a'\nurl = 'http://a'\ninterval = '5s'");
    assert_eq!(endpoint.options.timeout, Micros(5_000_000), "cut to the interval");
    let endpoint = parse_one("[defaults]\nurl = 'http://a'\n[[endpoint]]\nname = 'a'\naddress = '::1'");
    assert_eq!(endpoint.url.as_str(), "http://a/", "one URL, several addresses");
}

#[test]
fn equal_options_are_held_once() {
    let endpoints: String =
        (0..100).map(|n| format!("[[endpoint]]\nname = 'e{n}'\nurl = 'http://a/{n}'\n")).collect();
    let text = "[defaults]\nbody = 'x'\n".to_owned() + &endpoints + "headers = { A = 'b' }\n";
    let endpoints = file::parse(&text, "t.toml").unwrap();
    let first = &endpoints[0].options;
    assert!(endpoints[..99].iter().all(|endpoint| Arc::ptr_eq(&endpoint.options, first)));
    assert!(!Arc::ptr_eq(&endpoints[99].options, first));
}

/// An endpoint with defaults behind it: the fields of either, one to a line.
fn with_defaults(defaults: &str, own: &str) -> Endpoint {
    parse_one(&format!("[defaults]\n{defaults}\n[[endpoint]]\nname = 'a'\n{own}"))
}

#[test]
fn an_own_field_wins_over_whatever_it_is_at_odds_with() {
    let http = "url = 'http://a/'\nredirects = 0";
    let endpoint = with_defaults("tls = { insecure = true }\ncert_expires_within = '14d'", http);
    assert_eq!((&endpoint.options.tls, endpoint.options.cert_expires_within), (&Tls::default(), None));
    let endpoint =
        with_defaults("tls = { insecure = true }", "url = 'https://a/'\ntls = { min_version = '1.3' }");
    assert!(endpoint.options.tls.insecure && endpoint.options.tls.min_version.is_some(), "added to");
    let endpoint = with_defaults("expand = 'all'", "url = 'http://a/'\naddress = '10.0.0.1'");
    assert_eq!(endpoint.options.expand, Expand::One);
    let endpoint = with_defaults("body_stop = true", "url = 'http://a/'");
    assert!(!endpoint.options.body_stop);
    let endpoint = with_defaults("body_stop = true", "url = 'http://a/'\nbody_match = 'ok'");
    assert!(endpoint.options.body_stop);

    let key = "basic_auth = { username = 'u', password = 'env:P' }";
    let endpoint = with_defaults(key, "url = 'http://a/'\nbearer = 'env:T'");
    assert_eq!(endpoint.options.credentials, Some(Credentials::Bearer("env:T".parse().unwrap())));
    let endpoint = with_defaults("bearer = 'env:T'", &format!("url = 'http://a/'\n{key}"));
    assert!(matches!(endpoint.options.credentials, Some(Credentials::Basic { .. })));
    let endpoint = with_defaults(key, "url = 'http://a/'\nsecret_headers = { authorization = 'env:A' }");
    assert!(endpoint.options.credentials.is_none() && endpoint.options.secret_headers.len() == 1);
    let endpoint =
        with_defaults("secret_headers = { Authorization = 'env:A' }", "url = 'http://a/'\nbearer = 'env:T'");
    assert!(endpoint.options.credentials.is_some() && endpoint.options.secret_headers.is_empty());
    let endpoint =
        with_defaults("headers = { X-Key = 'a' }", "url = 'http://a/'\nsecret_headers = { x-key = 'env:A' }");
    assert!(endpoint.options.headers.is_empty() && endpoint.options.secret_headers.len() == 1);
    let endpoint =
        with_defaults("secret_headers = { X-Key = 'env:A' }", "url = 'http://a/'\nheaders = { x-key = 'a' }");
    assert!(endpoint.options.headers.len() == 1 && endpoint.options.secret_headers.is_empty());
    let endpoint = with_defaults("user_agent = 'a'", "url = 'http://a/'\nheaders = { User-Agent = 'b' }");
    assert_eq!(endpoint.options.user_agent, None);
    let endpoint =
        with_defaults("headers = { Accept-Encoding = 'gzip' }", "url = 'http://a/'\naccept_encoding = []");
    assert!(endpoint.options.headers.is_empty() && endpoint.options.accept_encoding.is_empty());
    let endpoint = with_defaults("body = 'x'", "url = 'http://a/'\nbody_base64 = 'AA=='");
    assert_eq!(endpoint.options.body, b"\0");
}

#[test]
fn values_of_one_field_stand_together_as_the_first_is_spelled() {
    let headers = [("A", "1"), ("B", "2"), ("a", "3"), ("A", "4")];
    let draft = Draft {
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Draft::of_url("http://a/")
    };
    let endpoint = draft.validate(&Draft::default()).unwrap();
    let headers: Vec<String> =
        endpoint.options.headers.iter().map(|(name, value)| format!("{name}{value}")).collect();
    assert_eq!(headers, ["A1", "A3", "A4", "B2"]);
}

#[test]
fn odd_spellings_of_urls_become_plain() {
    for (given, plain) in [
        ("HTTP://Example.COM:80", "http://example.com/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/a b", "http://127.0.0.1/a%20b"),
        ("http://bücher.example/ü#part", "http://xn--bcher-kva.example/%C3%BC"),
        ("http://a/x/../y/./z", "http://a/y/z"),
        ("http://[::1]:8080/?q", "http://[::1]:8080/?q"),
    ] {
        let draft = Draft { name: Some("a".to_owned()), url: Some(given.to_owned()), ..Draft::default() };
        assert_eq!(draft.validate(&Draft::default()).unwrap().url.as_str(), plain, "{given}");
    }
}

fn refused(change: impl FnOnce(&mut Draft)) -> String {
    let mut draft =
        Draft { name: Some("a".to_owned()), url: Some("http://a/".to_owned()), ..Draft::default() };
    change(&mut draft);
    draft.validate(&Draft::default()).unwrap_err().to_string()
}

#[test]
fn a_url_by_itself_is_never_refused_for_its_name() {
    let validated = |url: &str| Draft::of_url(url).validate(&Draft::default());
    assert_eq!(validated("http://a/b?c").unwrap().name, "http://a/b?c");
    // Every length around the bound, so that the cut falls on each byte of a character.
    for padding in 0..600 {
        let url = format!("http://a/{}{}", "x".repeat(padding % 4), "é€𝄞".repeat(padding / 4));
        let endpoint = validated(&url).unwrap();
        let cut = endpoint.name.strip_suffix('…');
        assert_eq!(cut.is_some(), url.len() > NAME_BYTES_MAX, "{url}");
        assert!(url.starts_with(cut.unwrap_or(&url)), "{url}");
        assert!(cut.is_none() || endpoint.name.len() > NAME_BYTES_MAX - 4, "no shorter than it must be");
    }
    for url in ["", "http://a/\n", "\u{7}", "ftp://a/"] {
        assert_eq!(validated(url).unwrap_err().field, "url", "{url:?}");
    }
}

#[test]
fn sizes_are_bounded() {
    let long = |bytes: usize| Some("x".repeat(bytes));
    assert_eq!(refused(|draft| draft.name = long(256)), "name: is 256 bytes long; at most 255 are accepted");
    assert_eq!(
        refused(|draft| draft.url = Some(format!("http://a/{}", "x".repeat(8184)))),
        "url: is 8193 bytes long; at most 8192 are accepted"
    );
    assert_eq!(
        refused(|draft| draft.url = Some(format!("http://a/{}", "ü".repeat(3000)))),
        "url: is 18009 bytes long; at most 8192 are accepted",
        "its length as sent counts"
    );
    assert_eq!(
        refused(|draft| draft.url = Some(format!("http://{}/", "a.".repeat(150)))),
        "url: host name is longer than 253 bytes"
    );
    assert!(
        refused(|draft| draft.body = Some(vec![b'x'; REQUEST_BYTES_MAX]))
            .starts_with("body: make a request of")
    );
    let field = |index: usize| (format!("x-{index}"), "y".repeat(20_000));
    assert!(
        refused(|draft| draft.headers = (0..60).map(field).collect()).starts_with("headers: make a request")
    );
    assert_eq!(
        refused(|draft| draft.headers = (0..101).map(field).collect()),
        "headers: are 101 fields; at most 100 are accepted"
    );
    let tag = |index: usize| (format!("k{index}"), String::new());
    assert_eq!(
        refused(|draft| draft.tags = (0..=TAGS_MAX).map(tag).collect()),
        "tags: are 65 in number; at most 64 are accepted"
    );
    let patterns = |count: usize| Some(vec!["x".to_owned(); count]);
    assert_eq!(
        refused(|draft| draft.body_match = patterns(draft::PATTERNS_MAX + 1)),
        "body_match: are 17 patterns; at most 16 are accepted"
    );
    assert_eq!(
        refused(|draft| draft.body_forbid = Some(vec!["x".repeat(draft::PATTERN_BYTES_MAX + 1)])),
        "body_forbid[0]: is 4097 bytes long; at most 4096 are accepted"
    );
    let secret = |index: usize| (format!("x-{index}"), "env:A".to_owned());
    assert_eq!(
        refused(|draft| draft.secret_headers = (0..17).map(secret).collect()),
        "secret_headers: are 17 fields; at most 16 are accepted"
    );
    let rule = |index: usize| (format!("x-{index}"), FieldRule::Present);
    assert_eq!(
        refused(|draft| draft.expect_headers = (0..33).map(rule).collect()),
        "expect_headers: are 33 fields; at most 32 are accepted"
    );
    // Each is replaced by 36 bytes.
    let placeholders = UUID_PLACEHOLDER.repeat(REQUEST_BYTES_MAX / 20);
    assert!(
        refused(|draft| draft.body = Some(placeholders.into_bytes())).starts_with("body: make a request of")
    );
}

#[test]
fn a_bad_default_is_reported_once() {
    let endpoints: String = (0..100).map(|n| format!("[[endpoint]]\nname = 'e{n}'\n")).collect();
    let text = "[defaults]\ninterval = '0s'\n".to_owned() + &endpoints;
    let error = file::parse(&text, "t.toml").unwrap_err();
    assert_eq!((error.line, error.field.as_deref()), (Some(2), Some("interval")));
    assert_eq!(error.more, 0, "a shared default is one mistake");
}

fn text() -> impl Strategy<Value = String> {
    // What TOML must escape, what terminals show badly, and plain words.
    prop_oneof!["[a-z]{1,12}", r#"[ -~]{1,12}"#, "[äß☃\u{10348}'\"\\\\#=\\]]{1,6}"]
}

/// One of the words, or none of them.
fn choice(words: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(words.to_vec()).prop_map(str::to_owned))
}

fn span_ms() -> impl Strategy<Value = Option<String>> {
    prop::option::of((1_u64..=300_000).prop_map(|ms| format!("{ms}ms")))
}

fn reference() -> impl Strategy<Value = String> {
    prop_oneof!["env:[A-Z_]{1,8}", "file:[ -~ä]{1,12}", "cred:[a-z.-]{3,8}"]
}

fn sent() -> impl Strategy<Value = Draft> {
    let method = prop::sample::select(vec!["GET", "POST", "PURGE"]);
    let value = "[ -~äß\t]{0,20}";
    let headers = prop::collection::vec(("x-[a-cA-C0-9!#$.^_|~-]{1,3}", value), 0..6);
    let secrets = prop::collection::btree_map("s-[a-z]{1,3}", reference(), 0..3);
    let body = prop_oneof![
        Just(Vec::new()),
        any::<String>().prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20)
    ];
    let log_in = prop_oneof![
        Just((None, None)),
        ("[ -9;-~ä]{1,8}", reference()).prop_map(|basic| (Some(basic), None)),
        reference().prop_map(|bearer| (None, Some(bearer))),
    ];
    let codings = prop::sample::subsequence(vec!["gzip", "deflate", "br"], 0..=3);
    let agent = prop::option::of("[!-~]{1,20}");
    (method, headers, secrets, body, log_in, codings, agent).prop_map(
        |(method, headers, secrets, body, (basic_auth, bearer), codings, user_agent)| Draft {
            method: Some(method.to_owned()),
            headers,
            secret_headers: secrets.into_iter().collect(),
            body: Some(body),
            basic_auth,
            bearer,
            user_agent,
            accept_encoding: Some(texts(&codings)),
            ..Draft::default()
        },
    )
}

fn expected() -> impl Strategy<Value = Draft> {
    let status = prop::collection::vec((100_u16..=599, 0_u16..99), 1..4);
    let pattern = "[ -~ä]{1,12}";
    let rule = prop_oneof![
        Just(FieldRule::Present),
        Just(FieldRule::Absent),
        prop_oneof![Just("true".to_owned()), pattern.prop_map(String::from)].prop_map(FieldRule::Matches),
    ];
    let rules = prop::collection::btree_map("x-[a-z]{1,3}", rule, 0..4);
    let patterns = || prop::collection::vec(pattern, 0..3);
    let words = (choice(&["up", "down"]), choice(&["1.0", "1.1"]), choice(&["raw", "auto"]));
    let limits = (1_u64..=draft::BODY_LIMIT_BYTES_MAX, 1_u64..=315_360_000, span_ms());
    (status, rules, patterns(), patterns(), words, limits, any::<bool>(), 0_i64..=20, any::<bool>()).prop_map(
        |(status, rules, body_match, body_forbid, words, limits, stop, redirects, downgrade)| {
            let range = |(first, more): (u16, u16)| format!("{first}-{}", (first + more).min(599));
            let (expect, expect_version, charset) = words;
            let (body_limit, cert_s, expect_within) = limits;
            Draft {
                expect,
                expect_status: Some(status.into_iter().map(range).collect()),
                expect_headers: rules.into_iter().collect(),
                expect_version,
                expect_within,
                body_stop: Some(stop && !(body_match.is_empty() && body_forbid.is_empty())),
                body_match: Some(body_match),
                body_forbid: Some(body_forbid),
                body_limit: Some(body_limit.to_string()),
                charset,
                cert_expires_within: Some(format!("{cert_s}s")),
                redirects: Some(redirects),
                redirect_downgrade: Some(downgrade),
                ..Draft::default()
            }
        },
    )
}

fn network() -> impl Strategy<Value = Draft> {
    let timeouts = (span_ms(), span_ms(), span_ms(), span_ms(), span_ms(), span_ms());
    let words = (choice(&["cached", "every"]), choice(&["any", "prefer4", "prefer6", "4", "6"]));
    let words = (words, choice(&["fresh", "reuse"]), choice(&["peer", "fin", "rst"]), any::<bool>());
    let address = prop::option::of(any::<IpAddr>());
    let path = || prop::option::of("[ -~ä]{1,12}");
    let client =
        prop::option::of(("/[ -~]{1,8}", prop_oneof![reference(), "/[ -~]{1,8}".prop_map(String::from)]));
    let tls =
        (path(), client, choice(&["shop.example", "::1", "10.0.0.1"]), choice(&["1.2"]), any::<[bool; 2]>());
    (timeouts, 0_i64..=5, words, address, choice(&["eth0", "br-1"]), tls).prop_map(
        |((timeout, resolve, connect, tls_timeout, ttfb, idle), retries, words, address, source, tls)| {
            let ((dns, family), connection, close, all) = words;
            let (ca_file, client, server_name, version, [insecure, resumption]) = tls;
            let (client_cert, client_key) = client.unzip();
            Draft {
                timeout,
                resolve_timeout: resolve,
                connect_timeout: connect,
                tls_timeout,
                ttfb_timeout: ttfb,
                idle_timeout: idle,
                retries: Some(retries),
                dns,
                expand: (all && address.is_none()).then(|| "all".to_owned()),
                family,
                address: address.map(|address| address.to_string()),
                source,
                connection,
                close,
                tls: draft::TlsDraft {
                    ca_file,
                    client_cert,
                    client_key,
                    server_name,
                    insecure: Some(insecure),
                    min_version: version.clone(),
                    max_version: version.map(|_| "1.3".to_owned()),
                    resumption: Some(resumption),
                },
                ..Draft::default()
            }
        },
    )
}

fn valid_endpoint() -> impl Strategy<Value = Endpoint> {
    let url = prop_oneof![
        "https?://[a-z]{1,10}(:[1-9][0-9]{0,3})?/[ -~]{0,20}",
        "https://[a-z]{1,10}/\\$\\{uuid\\}/[a-z]{0,9}\\?\\$\\{uuid\\}",
        Just("http://[::1]/".to_owned())
    ];
    let tags = prop::collection::btree_map(text(), text(), 0..4);
    let rest = (100_u64..=86_400_000, tags, any::<bool>(), 0_i64..=9);
    (text(), url, sent(), expected(), network(), rest).prop_map(
        |(name, url, sent, expected, network, (interval_ms, tags, enabled, priority))| {
            let mut own = Draft {
                name: Some(name),
                url: Some(url.trim_end().to_owned()),
                interval: Some(format!("{interval_ms}ms")),
                enabled: Some(enabled),
                priority: Some(priority),
                tags: tags.into_iter().collect(),
                ..sent
            };
            // By way of the defaults, so that what is at odds gives way and every draft is valid.
            let network = Draft { expand: network.expand.clone(), ..network };
            own = own.validate(&expected).map(|endpoint| redraft(&endpoint)).unwrap();
            own.validate(&network).unwrap()
        },
    )
}

/// An endpoint's own fields, but for those that it has from nowhere.
fn redraft(endpoint: &Endpoint) -> Draft {
    let draft = record::draft(record::object(endpoint)).unwrap();
    Draft {
        body: Some(endpoint.options.body.clone()),
        timeout: None,
        dns: None,
        expand: None,
        family: None,
        connection: None,
        close: None,
        retries: None,
        ..draft
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(endpoints in prop::collection::vec(valid_endpoint(), 0..6)) {
        let mut endpoints = endpoints;
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.name = format!("{index} {}", endpoint.name);
        }
        let written = file::write(&endpoints);
        let read = file::parse(&written, "t.toml").map_err(|error| TestCaseError::fail(format!("{error}\n{written}")))?;
        prop_assert_eq!(&read, &endpoints, "{}", written);
        prop_assert_eq!(file::write(&read), written, "one form only");
    }

    #[test]
    fn a_record_is_its_endpoint_again(endpoint in valid_endpoint()) {
        let draft = record::draft(record::object(&endpoint)).unwrap();
        let draft = Draft { body: Some(endpoint.options.body.clone()), ..draft };
        prop_assert_eq!(draft.validate(&Draft::default()), Ok(endpoint));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = file::parse(&String::from_utf8_lossy(&bytes), "t.toml");
    }

    /// Random bytes seldom get past the lexer; random lines of the format do.
    #[test]
    fn no_lines_panic(lines in prop::collection::vec(line(), 0..12)) {
        if let Err(error) = file::parse(&lines.join("\n"), "t.toml") {
            prop_assert_eq!(error.to_string().lines().count(), 1, "{}", error);
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "[[endpoint]]",
        "[endpoint]",
        "[defaults]",
        "[endpoint.headers]",
        "name = 'a'",
        "name = 'b'",
        "url = 'http://a'",
        "interval = '1s'",
        "interval = 1",
        "expect_status = [",
        "304,",
        "]",
        "tags = {}",
        "headers = { A = 1 }",
        "name.x = 1",
        "body_match = []",
        "body_stop = true",
        "headers = { A = ['1', '2'] }",
        "secret_headers = { A = 'env:B' }",
        "basic_auth = { username = 'u', password = 'env:P' }",
        "bearer = 'env:T'",
        "tls = { insecure = true }",
        "[endpoint.tls]",
        "url = 'https://a/${uuid}'",
        "redirects = 0",
        "expand = 'all'",
        "address = '::1'",
        "source = 'eth0'",
        "body_limit = 1",
        "body_base64 = 'AA=='",
        "body_file = 'x'",
        "expect_headers = { A = true }",
        "endpoint = 1",
        "defaults = 1",
        "[[defaults]]",
        "[[endpoint.tags]]",
    ]);
    let keys = prop::sample::select(vec![
        "name", "url", "interval", "timeout", "headers", "tags", "enabled", "body",
    ]);
    prop_oneof![
        3 => fixed.prop_map(str::to_owned),
        1 => (keys, "[ -~]{0,12}").prop_map(|(key, value)| format!("{key} = {value}")),
        1 => ".{0,20}",
    ]
}

#[test]
fn names_may_be_as_long_as_said() {
    let name = "n".repeat(NAME_BYTES_MAX);
    assert_eq!(parse_one(&format!("[[endpoint]]\nname = '{name}'\nurl = 'http://a'")).name, name);
}
