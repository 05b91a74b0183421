//! The bytes of a request, made once per endpoint and sent as they are at each probe.
//!
//! Out of scope: checking. An [`Endpoint`] holds a valid method, URL and fields; this only writes them down.
//!
//! The user has the last word: a field of theirs replaces ours of the same name, in any case, also where
//! that makes the request odd (`Content-Length`, `Connection`), since odd requests are probed with too.

use crate::endpoint::{Connection, Endpoint};

const USER_AGENT: &str = concat!("ringprobe/", env!("CARGO_PKG_VERSION"));

/// The whole request: head and body.
#[must_use]
pub fn encode(endpoint: &Endpoint) -> Vec<u8> {
    let url = &endpoint.url;
    let method = endpoint.options.method.as_str();
    let mut request = Vec::with_capacity(256 + endpoint.options.body.len());

    request.extend_from_slice(method.as_bytes());
    request.push(b' ');
    request.extend_from_slice(url.path().as_bytes());
    if let Some(query) = url.query() {
        request.push(b'?');
        request.extend_from_slice(query.as_bytes());
    }
    request.extend_from_slice(b" HTTP/1.1\r\n");

    // `Host` comes first (RFC 9110, section 7.2), also when it is the user's.
    let user_host = endpoint.options.headers.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"));
    match (user_host, url.port()) {
        (Some(at), _) => {
            field(&mut request, &endpoint.options.headers[at].0, &endpoint.options.headers[at].1)
        }
        // `host_str` brackets IPv6 addresses, and `port` is `None` for the scheme's own.
        (None, None) => field(&mut request, "Host", url.host_str().unwrap_or_default()),
        (None, Some(port)) => {
            field(&mut request, "Host", &format!("{}:{port}", url.host_str().unwrap_or_default()));
        }
    }

    let user_sets =
        |name: &str| endpoint.options.headers.iter().any(|(theirs, _)| theirs.eq_ignore_ascii_case(name));
    if !user_sets("user-agent") {
        field(&mut request, "User-Agent", USER_AGENT);
    }
    if !user_sets("accept") {
        field(&mut request, "Accept", "*/*");
    }
    if endpoint.options.connection == Connection::Fresh && !user_sets("connection") {
        field(&mut request, "Connection", "close");
    }
    // RFC 9110, section 8.6: methods that expect content say so when there is none. A user who codes the
    // body as chunks must not have a length added (RFC 9112, section 6.2).
    let announces_body = !endpoint.options.body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH");
    if announces_body && !user_sets("content-length") && !user_sets("transfer-encoding") {
        field(&mut request, "Content-Length", &endpoint.options.body.len().to_string());
    }
    for (at, (name, value)) in endpoint.options.headers.iter().enumerate() {
        if Some(at) != user_host {
            field(&mut request, name, value);
        }
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(&endpoint.options.body);
    request
}

fn field(request: &mut Vec<u8>, name: &str, value: &str) {
    request.extend_from_slice(name.as_bytes());
    request.extend_from_slice(b": ");
    request.extend_from_slice(value.as_bytes());
    request.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::config::INTERVAL_DEFAULT;
    use crate::endpoint::{Method, Options};

    fn endpoint(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Endpoint {
        Endpoint {
            name: "test".to_owned(),
            url: url.parse().unwrap(),
            interval: INTERVAL_DEFAULT,
            tags: BTreeMap::new(),
            options: Arc::new(Options {
                method: Method::new(method).unwrap(),
                headers: headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                body: body.as_bytes().to_vec(),
                connection: Connection::Reuse,
                ..Options::default()
            }),
        }
    }

    fn check(endpoint: &Endpoint, expected: &[&str]) {
        let expected = expected.join("\r\n").replace("@version", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(encode(endpoint)).unwrap(), expected);
    }

    const AGENT: &str = "User-Agent: ringprobe/@version";

    #[test]
    fn get_has_four_fields_and_fresh_asks_for_close() {
        let mut endpoint = endpoint("GET", "http://shop.example", &[], "");
        check(&endpoint, &["GET / HTTP/1.1", "Host: shop.example", AGENT, "Accept: */*", "", ""]);
        Arc::make_mut(&mut endpoint.options).connection = Connection::Fresh;
        let close = "Connection: close";
        check(&endpoint, &["GET / HTTP/1.1", "Host: shop.example", AGENT, "Accept: */*", close, "", ""]);
    }

    #[test]
    fn target_is_path_and_query_and_never_the_fragment() {
        for (url, target) in [
            ("http://a/x/y?q=1&r=%20#top", "/x/y?q=1&r=%20"),
            ("http://a?q", "/?q"),
            ("http://a/?", "/?"),
            ("http://a/ü b", "/%C3%BC%20b"),
            ("http://a/x/../y#?z", "/y"),
        ] {
            let request = encode(&endpoint("GET", url, &[], ""));
            let line = String::from_utf8(request).unwrap().lines().next().unwrap().to_owned();
            assert_eq!(line, format!("GET {target} HTTP/1.1"), "{url}");
        }
    }

    #[test]
    fn host_has_the_port_only_if_it_is_not_the_default() {
        for (url, host) in [
            ("http://a:80/", "a"),
            ("http://a:8080/", "a:8080"),
            ("http://[::1]/", "[::1]"),
            ("http://[2001:db8:0::1]:81/", "[2001:db8::1]:81"),
            ("http://0x7f.1/", "127.0.0.1"),
            ("http://bücher.example/", "xn--bcher-kva.example"),
        ] {
            let request = String::from_utf8(encode(&endpoint("GET", url, &[], ""))).unwrap();
            assert!(request.contains(&format!("\r\nHost: {host}\r\n")), "{url}: {request}");
        }
    }

    #[test]
    fn fields_of_the_user_replace_ours_and_keep_their_order() {
        let headers =
            [("X-B", "2"), ("hOST", "other"), ("user-agent", "me"), ("X-A", "1"), ("ACCEPT", "a/b")];
        let mut endpoint = endpoint("GET", "http://a/", &headers, "");
        Arc::make_mut(&mut endpoint.options).connection = Connection::Fresh;
        let ours = "Connection: close";
        check(
            &endpoint,
            &[
                "GET / HTTP/1.1",
                "hOST: other",
                ours,
                "X-B: 2",
                "user-agent: me",
                "X-A: 1",
                "ACCEPT: a/b",
                "",
                "",
            ],
        );
        Arc::make_mut(&mut endpoint.options).headers =
            vec![("connection".to_owned(), "keep-alive".to_owned())];
        let theirs = "connection: keep-alive";
        check(&endpoint, &["GET / HTTP/1.1", "Host: a", AGENT, "Accept: */*", theirs, "", ""]);
    }

    #[test]
    fn length_is_announced_with_a_body_or_where_one_is_expected() {
        let fields = |method: &str, headers: &[(&str, &str)], body: &str| {
            let request = String::from_utf8(encode(&endpoint(method, "http://a/", headers, body))).unwrap();
            let (head, sent) = request.split_once("\r\n\r\n").unwrap();
            assert_eq!(sent, body);
            let lengths = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("content-length"));
            lengths.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(fields("POST", &[], "ping"), ["Content-Length: 4"]);
        assert_eq!(fields("GET", &[], "ping"), ["Content-Length: 4"]);
        for method in ["POST", "PUT", "PATCH"] {
            assert_eq!(fields(method, &[], ""), ["Content-Length: 0"]);
        }
        for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
            assert!(fields(method, &[], "").is_empty(), "{method}");
        }
        assert_eq!(fields("POST", &[("content-length", "9")], "ping"), ["content-length: 9"]);
        assert!(fields("POST", &[("Transfer-Encoding", "chunked")], "0\r\n\r\n").is_empty());
    }
}
