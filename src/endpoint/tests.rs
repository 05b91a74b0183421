//! The doors together: every mistake with its words, and files that come back as they went out.

use proptest::prelude::*;

use super::*;
use crate::config::{INTERVAL_DEFAULT, NAME_BYTES_MAX, REQUEST_BYTES_MAX, TAGS_MAX, TIMEOUT_DEFAULT};

/// Files and the one line that is said about each: `--- line`, then the file.
const ERRORS: &str = include_str!("../../tests/data/endpoint_file_errors.txt");

#[test]
fn every_mistake_has_its_line() {
    let mut cases = 0;
    for case in ERRORS.split("--- ").skip(1) {
        let (expected, text) = case.split_once('\n').unwrap();
        let found = match file::parse(text, "endpoints.toml") {
            Ok(endpoints) => format!("{} endpoints", endpoints.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "for\n{text}");
        assert!(!found.contains("secret"), "a message repeats a secret");
        cases += 1;
    }
    assert!(cases >= 60, "only {cases} cases were read");
}

fn parse_one(text: &str) -> Endpoint {
    let endpoints = file::parse(text, "t.toml").unwrap();
    assert_eq!(endpoints.len(), 1);
    endpoints.into_iter().next().unwrap()
}

#[test]
fn all_fields_are_read() {
    let endpoint = parse_one(include_str!("../../tests/data/endpoint_file_full.toml"));
    assert_eq!(endpoint.name, "shop");
    assert_eq!(endpoint.url.as_str(), "http://shop.example:8080/health?deep=1");
    assert_eq!(endpoint.address, Some("10.1.2.3".parse().unwrap()));
    assert_eq!(endpoint.method.as_str(), "POST");
    let headers: Vec<_> =
        endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("X-Default", "kept"),
        ("X-Zebra", "first in the file"),
        ("Accept", "application/json"),
        ("x-override", "own"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(endpoint.body, b"{\"ping\":1}");
    assert_eq!(endpoint.expect_status.to_string(), "200-299,304");
    assert_eq!(endpoint.interval, Micros(30_000_000));
    assert_eq!(endpoint.timeout, Micros(2_500_000));
    assert_eq!(endpoint.connection, Connection::Reuse);
    let tags: Vec<_> = endpoint.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("region", "eu"), ("team", "shop"), ("tenant", "42")]);
    assert!(!endpoint.enabled);
}

#[test]
fn what_is_left_open_has_a_default() {
    let endpoint = parse_one("[[endpoint]]\nname = 'a'\nurl = 'http://a'");
    assert_eq!(endpoint.url.as_str(), "http://a/");
    assert_eq!(endpoint.method.as_str(), "GET");
    assert_eq!((endpoint.interval, endpoint.timeout), (INTERVAL_DEFAULT, TIMEOUT_DEFAULT));
    assert_eq!(endpoint.expect_status, StatusSet::default());
    assert_eq!(endpoint.connection, Connection::Fresh);
    assert!(endpoint.enabled && endpoint.body.is_empty() && endpoint.headers.is_empty());

    let endpoint = parse_one("[[endpoint]]\nname = 'a'\nurl = 'http://a'\ninterval = '5s'");
    assert_eq!(endpoint.timeout, Micros(5_000_000), "cut to the interval");
    let endpoint = parse_one("[defaults]\nurl = 'http://a'\n[[endpoint]]\nname = 'a'\naddress = '::1'");
    assert_eq!(endpoint.url.as_str(), "http://a/", "one URL, several addresses");
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
    assert_eq!(
        refused(|draft| draft.body = Some(b"ab\xff".to_vec())),
        "body: is not UTF-8 at byte 2; only text can be sent"
    );
    assert_eq!(
        refused(|draft| draft.headers = vec![("A".into(), "1".into()), ("a".into(), "2".into())]),
        "headers: a is given twice; join the values with a comma"
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

fn valid_endpoint() -> impl Strategy<Value = Endpoint> {
    let url =
        prop_oneof!["http://[a-z]{1,10}(:[1-9][0-9]{0,3})?/[ -~]{0,20}", Just("http://[::1]/".to_owned())];
    let address = prop::option::of(any::<IpAddr>());
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PURGE"]);
    let value = "[ -~äß\t]{0,20}";
    let headers = prop::collection::btree_map("x-[a-zA-Z0-9!#$.^_|~-]{1,8}", value, 0..5);
    let body = prop_oneof![Just(String::new()), any::<String>()];
    let status = prop::collection::vec((100_u16..=599, 0_u16..99), 1..4);
    let times = (100_u64..=86_400_000, 1_u64..=300_000, any::<bool>());
    let tags = prop::collection::btree_map(text(), text(), 0..4);
    let rest = (times, any::<bool>(), tags, any::<bool>());
    (text(), url, address, method, headers, body, status, rest).prop_map(
        |(name, url, address, method, headers, body, status, rest)| {
            let ((interval_ms, timeout_ms, cut), reuse, tags, enabled) = rest;
            let mut distinct: Vec<(String, String)> = Vec::new();
            for (name, value) in headers.into_iter().rev() {
                if !distinct.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                    distinct.push((name, value));
                }
            }
            let range = |(first, more): (u16, u16)| format!("{first}-{}", (first + more).min(599));
            let draft = Draft {
                name: Some(name),
                url: Some(url.trim_end().to_owned()),
                address: address.map(|address| address.to_string()),
                method: Some(method.to_owned()),
                headers: distinct,
                body: Some(body.into_bytes()),
                expect_status: Some(status.into_iter().map(range).collect()),
                interval: Some(format!("{interval_ms}ms")),
                timeout: (!cut).then(|| format!("{timeout_ms}ms")),
                connection: Some(if reuse { "reuse" } else { "fresh" }.to_owned()),
                tags: tags.into_iter().collect(),
                enabled: Some(enabled),
            };
            draft.validate(&Draft::default()).unwrap()
        },
    )
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
