//! The bytes of a request, made once per endpoint and sent at each probe.
//!
//! [`Template::new`] writes [`Parts`] down. Most requests are the same at every probe, and then a template is just
//! their bytes, shared and never copied. One with `${uuid}` in its path, query, header values or body is copied per
//! probe, with one fresh version 4 UUID (RFC 9562) in every place: a UUID is as long as any other, so that lengths
//! are known beforehand.
//!
//! The user has the last word: a field of theirs replaces ours of the same name, in any case.
//!
//! Out of scope: meaning. Whether fields fit together is for who validates an endpoint; here only that they cannot
//! be anything but fields.
//!
//! Invariants: no part can end a line or begin another (CR, LF, NUL and other control characters are refused, and
//! the message says where, never what); what holds a secret is not shown by `Debug`, nor by an error.

use std::fmt;
use std::sync::Arc;

use url::Url;

use crate::config::REQUEST_BYTES_MAX;

/// How we introduce ourselves to an origin whose owner may wonder, unless the operator says where to ask.
pub const CONTACT_DEFAULT: &str = "https://github.com/ringprobe/ringprobe";
/// What stands for the UUID of a probe,
const UUID_MARK: &[u8] = b"${uuid}";
/// in a path, where the URL parser has encoded the braces,
const UUID_MARK_ENCODED: &[u8] = b"$%7Buuid%7D";
/// and what keeps its place in a template.
const UUID_PLACE: &[u8; 36] = b"00000000-0000-4000-8000-000000000000";

/// What a request is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// A token, as sent.
    pub method: &'a str,
    /// http or https; userinfo and fragment are not sent.
    pub url: &'a Url,
    /// In order; a name may come several times, but for `Host`.
    pub headers: &'a [(String, String)],
    /// Empty for none.
    pub body: &'a [u8],
    /// Whether to ask the origin to close the connection.
    pub close: bool,
    /// The value of `Authorization`.
    pub authorization: Option<&'a str>,
    /// The value of `Accept-Encoding`. With one, the response needs a [`super::coding::Decoder`].
    pub accept_encoding: Option<&'a str>,
    /// Whom `User-Agent` names as responsible, a URL or an address; [`CONTACT_DEFAULT`] if none.
    pub contact: Option<&'a str>,
}

impl fmt::Debug for Parts<'_> {
    /// Neither values nor URL, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> Parts<'a> {
    /// A request of nothing but a method and a URL.
    #[must_use]
    pub const fn new(method: &'a str, url: &'a Url) -> Self {
        Self {
            method,
            url,
            headers: &[],
            body: b"",
            close: false,
            authorization: None,
            accept_encoding: None,
            contact: None,
        }
    }

    /// Says what cannot be sent: a lower-case fragment that names the field.
    fn check(&self) -> Result<(), String> {
        if !is_token(self.method) {
            return Err("the method is not a token (letters, digits and !#$%&'*+-.^_`|~)".to_owned());
        }
        if !matches!(self.url.scheme(), "http" | "https") || !self.url.has_host() {
            return Err("the URL is not one of http or https".to_owned());
        }
        for (name, value) in self.headers {
            if !is_token(name) {
                return Err(format!("{name:?} is not a field name (letters, digits and !#$%&'*+-.^_`|~)"));
            }
            check_value(name, value)?;
        }
        if self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count() > 1 {
            return Err("Host is given twice".to_owned());
        }
        check_value("Authorization", self.authorization.unwrap_or_default())?;
        check_value("Accept-Encoding", self.accept_encoding.unwrap_or_default())?;
        let contact = self.contact.unwrap_or_default();
        // It stands in a comment (RFC 9110, section 5.6.5).
        if contact.bytes().any(|byte| !byte.is_ascii_graphic() || b"()\\".contains(&byte)) {
            return Err("the contact is not a URL or an address of plain characters".to_owned());
        }
        Ok(())
    }
}

/// A request that is ready to be sent, but perhaps for its UUID.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    bytes: Arc<[u8]>,
    /// Where in `bytes` the UUID goes.
    uuid_at: Box<[usize]>,
}

impl fmt::Debug for Template {
    /// Without the bytes, in which there may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uuids = self.uuid_at.len();
        f.debug_struct("Template").field("bytes", &self.bytes.len()).field("uuids", &uuids).finish()
    }
}

impl Template {
    /// Writes the request down; the error is a lower-case fragment that says which part cannot be sent.
    pub fn new(parts: &Parts<'_>) -> Result<Self, String> {
        parts.check()?;
        let mut writer = Writer { uuid_at: Some(Vec::new()), ..Writer::default() };
        writer.request(parts);
        if writer.bytes.len() > REQUEST_BYTES_MAX {
            let bytes = writer.bytes.len();
            return Err(format!("the request has {bytes} bytes; at most {REQUEST_BYTES_MAX} can be sent"));
        }
        let uuid_at = writer.uuid_at.unwrap_or_default().into_boxed_slice();
        Ok(Self { bytes: writer.bytes.into(), uuid_at })
    }

    /// Whether every probe sends the same bytes, so that [`Self::render`] has no use for anything random.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.uuid_at.is_empty()
    }

    /// The request of one probe. A plain one is shared and not copied; otherwise `random` becomes its UUID.
    #[must_use]
    pub fn render(&self, random: u128) -> Arc<[u8]> {
        if self.is_plain() {
            return Arc::clone(&self.bytes);
        }
        let uuid = uuid::Builder::from_random_bytes(random.to_le_bytes()).into_uuid();
        let mut text = [0; UUID_PLACE.len()];
        uuid.hyphenated().encode_lower(&mut text);
        let mut bytes: Arc<[u8]> = Arc::from(&*self.bytes);
        let own = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        for at in &self.uuid_at {
            own[*at..at + text.len()].copy_from_slice(&text);
        }
        bytes
    }
}

/// Appends the request target (RFC 9112, section 3.2.1): path and query, never the fragment.
pub(super) fn target(request: &mut Vec<u8>, url: &Url) {
    request.extend_from_slice(url.path().as_bytes());
    if let Some(query) = url.query() {
        request.push(b'?');
        request.extend_from_slice(query.as_bytes());
    }
}

/// Appends the `Host` field of a URL.
pub(super) fn host_field(request: &mut Vec<u8>, url: &Url) {
    // `host_str` brackets IPv6 addresses, and `port` is `None` for the scheme's own.
    let host = url.host_str().unwrap_or_default();
    let line = match url.port() {
        None => format!("Host: {host}\r\n"),
        Some(port) => format!("Host: {host}:{port}\r\n"),
    };
    request.extend_from_slice(line.as_bytes());
}

/// Writes a request down, and notes where its UUIDs go, if they are asked for.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    uuid_at: Option<Vec<usize>>,
}

impl Writer {
    fn request(&mut self, parts: &Parts<'_>) {
        self.bytes.reserve(256 + parts.body.len());
        self.raw(parts.method);
        self.raw(" ");
        let mut path_and_query = Vec::new();
        target(&mut path_and_query, parts.url);
        self.with_uuids(&path_and_query);
        self.raw(" HTTP/1.1\r\n");

        // `Host` comes first (RFC 9110, section 7.2), also when it is the user's.
        let user_host = parts.headers.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"));
        match user_host {
            Some(at) => self.user_field(&parts.headers[at]),
            None => host_field(&mut self.bytes, parts.url),
        }
        let contact = parts.contact.unwrap_or(CONTACT_DEFAULT);
        let user_agent = format!("ringprobe/{} (+{contact})", env!("CARGO_PKG_VERSION"));
        self.our_field(parts, "User-Agent", Some(&user_agent));
        self.our_field(parts, "Accept", Some("*/*"));
        self.our_field(parts, "Accept-Encoding", parts.accept_encoding);
        self.our_field(parts, "Authorization", parts.authorization);
        self.our_field(parts, "Connection", parts.close.then_some("close"));

        let mut body = Self { uuid_at: self.uuid_at.as_ref().map(|_| Vec::new()), ..Self::default() };
        body.with_uuids(parts.body);
        // RFC 9110, section 8.6: methods that expect content say so when there is none. A user who codes the
        // body as chunks must not have a length added (RFC 9112, section 6.2).
        let announces_body = !body.bytes.is_empty() || matches!(parts.method, "POST" | "PUT" | "PATCH");
        if announces_body && !parts.sets("transfer-encoding") {
            self.our_field(parts, "Content-Length", Some(&body.bytes.len().to_string()));
        }
        for (at, field) in parts.headers.iter().enumerate() {
            if Some(at) != user_host {
                self.user_field(field);
            }
        }
        self.raw("\r\n");
        let head_bytes = self.bytes.len();
        self.bytes.append(&mut body.bytes);
        if let (Some(uuid_at), Some(of_body)) = (&mut self.uuid_at, body.uuid_at) {
            uuid_at.extend(of_body.into_iter().map(|at| head_bytes + at));
        }
    }

    /// A field of ours, unless it has no value or the user sets it.
    fn our_field(&mut self, parts: &Parts<'_>, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        if !parts.sets(name) {
            for part in [name, ": ", value, "\r\n"] {
                self.raw(part);
            }
        }
    }

    fn user_field(&mut self, (name, value): &(String, String)) {
        self.raw(name);
        self.raw(": ");
        self.with_uuids(value.as_bytes());
        self.raw("\r\n");
    }

    fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn with_uuids(&mut self, text: &[u8]) {
        let Some(uuid_at) = &mut self.uuid_at else {
            self.bytes.extend_from_slice(text);
            return;
        };
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            let marks = [UUID_MARK, UUID_MARK_ENCODED];
            if let Some(mark) = marks.into_iter().find(|mark| rest.starts_with(mark)) {
                uuid_at.push(self.bytes.len());
                self.bytes.extend_from_slice(UUID_PLACE);
                rest = &rest[mark.len()..];
            } else {
                self.bytes.push(byte);
                rest = after;
            }
        }
    }
}

impl Parts<'_> {
    /// Whether the user sets this field, in any case.
    fn sets(&self, name: &str) -> bool {
        self.headers.iter().any(|(theirs, _)| theirs.eq_ignore_ascii_case(name))
    }
}

/// Tab is allowed by RFC 9110, section 5.5; CR, LF and NUL are what smuggles.
fn check_value(name: &str, value: &str) -> Result<(), String> {
    if value.chars().any(|character| character.is_control() && character != '\t') {
        return Err(format!("the value of {name} contains a line break or other control character"));
    }
    Ok(())
}

/// A token (RFC 9110, section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts that own what they refer to.
    struct Asked {
        method: String,
        url: Url,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        close: bool,
    }

    fn asked(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> Asked {
        let (url, body) = (url.parse().unwrap(), body.as_bytes().to_vec());
        Asked { method: method.to_owned(), url, headers: headers(fields), body, close: false }
    }

    fn encode(asked: &Asked) -> Vec<u8> {
        let Asked { method, url, headers, body, close } = asked;
        let parts = Parts { headers, body, close: *close, ..Parts::new(method, url) };
        text(&parts).into_bytes()
    }

    fn check(asked: &Asked, expected: &[&str]) {
        let expected = expected.join("\r\n").replace("@version", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(encode(asked)).unwrap(), expected);
    }

    const AGENT: &str = "User-Agent: ringprobe/@version (+https://github.com/ringprobe/ringprobe)";

    #[test]
    fn get_has_four_fields_and_fresh_asks_for_close() {
        let mut asked = asked("GET", "http://shop.example", &[], "");
        check(&asked, &["GET / HTTP/1.1", "Host: shop.example", AGENT, "Accept: */*", "", ""]);
        asked.close = true;
        let close = "Connection: close";
        check(&asked, &["GET / HTTP/1.1", "Host: shop.example", AGENT, "Accept: */*", close, "", ""]);
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
            let request = encode(&asked("GET", url, &[], ""));
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
            let request = String::from_utf8(encode(&asked("GET", url, &[], ""))).unwrap();
            assert!(request.contains(&format!("\r\nHost: {host}\r\n")), "{url}: {request}");
        }
    }

    #[test]
    fn fields_of_the_user_replace_ours_and_keep_their_order() {
        let headers =
            [("X-B", "2"), ("hOST", "other"), ("user-agent", "me"), ("X-A", "1"), ("ACCEPT", "a/b")];
        let mut asked = asked("GET", "http://a/", &headers, "");
        asked.close = true;
        let ours = "Connection: close";
        check(
            &asked,
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
        asked.headers = vec![("connection".to_owned(), "keep-alive".to_owned())];
        let theirs = "connection: keep-alive";
        check(&asked, &["GET / HTTP/1.1", "Host: a", AGENT, "Accept: */*", theirs, "", ""]);
    }

    #[test]
    fn length_is_announced_with_a_body_or_where_one_is_expected() {
        let fields = |method: &str, headers: &[(&str, &str)], body: &str| {
            let request = String::from_utf8(encode(&asked(method, "http://a/", headers, body))).unwrap();
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

    fn text(parts: &Parts<'_>) -> String {
        let template = Template::new(parts).unwrap();
        assert!(template.is_plain());
        String::from_utf8(template.render(0).to_vec()).unwrap()
    }

    fn headers(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_asked_for_besides_stands_behind_our_own_fields() {
        let post = asked("POST", "http://a:81/x?y", &[("X", "1")], "ping");
        let parts = Parts { headers: &post.headers, body: &post.body, ..Parts::new("POST", &post.url) };
        let asked = Parts {
            authorization: Some("Basic cHJvYmU6czNjcmV0"),
            accept_encoding: Some("gzip, br"),
            contact: Some("mailto:ops@shop.example"),
            close: true,
            ..parts
        };
        let expected = [
            "POST /x?y HTTP/1.1",
            "Host: a:81",
            "User-Agent: ringprobe/@version (+mailto:ops@shop.example)",
            "Accept: */*",
            "Accept-Encoding: gzip, br",
            "Authorization: Basic cHJvYmU6czNjcmV0",
            "Connection: close",
            "Content-Length: 4",
            "X: 1",
            "",
            "ping",
        ];
        assert_eq!(text(&asked), expected.join("\r\n").replace("@version", env!("CARGO_PKG_VERSION")));
        let theirs = headers(&[("AUTHORIZATION", "mine"), ("accept-encoding", "x"), ("user-agent", "me")]);
        let request = text(&Parts { headers: &theirs, ..asked });
        assert!(!request.contains("Basic") && !request.contains("gzip") && !request.contains("ringprobe"));
    }

    #[test]
    fn a_field_may_have_several_values_and_host_may_not() {
        let url = "http://a/".parse().unwrap();
        let twice = headers(&[("X", "1"), ("Y", "2"), ("x", "3")]);
        let request = text(&Parts { headers: &twice, ..Parts::new("GET", &url) });
        assert!(request.ends_with("X: 1\r\nY: 2\r\nx: 3\r\n\r\n"), "{request}");
        let twice = headers(&[("Host", "b"), ("HOST", "c")]);
        let error = Template::new(&Parts { headers: &twice, ..Parts::new("GET", &url) }).unwrap_err();
        assert!(error.contains("Host"), "{error}");
    }

    #[test]
    fn plain_requests_are_shared_and_not_copied() {
        let url = "http://a/".parse().unwrap();
        let template = Template::new(&Parts::new("GET", &url)).unwrap();
        assert!(Arc::ptr_eq(&template.render(1), &template.render(2)));
    }

    #[test]
    fn the_uuid_of_a_probe_is_the_same_in_every_place_and_another_the_next_time() {
        let url = "http://a/x/${uuid}?id=${uuid}&y=$%7Buuid%7D#${uuid}".parse().unwrap();
        let fields = headers(&[("X-Id", "<${uuid}>"), ("X-Not", "$ {uuid} ${UUID} $${uuid")]);
        let parts = Parts { headers: &fields, body: b"${uuid}${uuid}\0${uuid", ..Parts::new("PUT", &url) };
        let template = Template::new(&parts).unwrap();
        assert!(!template.is_plain());
        let render = |random| String::from_utf8(template.render(random).to_vec()).unwrap();
        // Version and variant stand where RFC 9562, section 5.4, has them; the rest is what was random.
        let uuid = "04030201-0000-4000-8000-000000000000";
        let request = render(0x0102_0304);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("PUT /x/{uuid}?id={uuid}&y={uuid} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains(&format!("\r\nX-Id: <{uuid}>\r\n")), "{head}");
        assert!(head.contains("\r\nX-Not: $ {uuid} ${UUID} $${uuid"), "what is not quite the mark stays");
        assert_eq!(body, format!("{uuid}{uuid}\0${{uuid"));
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        assert_ne!(render(7), request);
        assert_eq!(render(0x0102_0304), request);
        assert_eq!(render(7).len(), request.len());
    }

    /// Whatever is given, the head has the lines it should have, or there is an error that does not repeat it.
    #[test]
    fn no_part_can_end_a_line() {
        let url: Url = "http://a/".parse().unwrap();
        let canary = "c4nary";
        for bad in ["\r", "\n", "\r\n", "\0", "\x1b", "\x7f", "\u{85}"] {
            let bad = &format!("x{bad}{canary}: y");
            let get = Parts::new("GET", &url);
            let (name, value) = (headers(&[(bad, "v")]), headers(&[("n", bad)]));
            for (parts, field) in [
                (Parts { method: bad, ..get }, "method"),
                (Parts { headers: &value, ..get }, "value of n"),
                (Parts { authorization: Some(bad), ..get }, "Authorization"),
                (Parts { accept_encoding: Some(bad), ..get }, "Accept-Encoding"),
                (Parts { contact: Some(bad), ..get }, "contact"),
            ] {
                let error = Template::new(&parts).unwrap_err();
                assert!(error.contains(field) && !error.contains(canary), "{error}");
                assert!(!format!("{parts:?}").contains(canary) || field == "method");
            }
            let error = Template::new(&Parts { headers: &name, ..get }).unwrap_err();
            assert!(error.contains("not a field name") && !error.contains('\n'), "{error}");
        }
        for contact in ["a)b", "(", "a\\", "a b", "é"] {
            let parts = Parts { contact: Some(contact), ..Parts::new("GET", &url) };
            assert!(Template::new(&parts).is_err(), "{contact}");
        }
        assert!(Template::new(&Parts::new("", &url)).is_err());
        assert!(Template::new(&Parts::new("GET", &"data:x".parse().unwrap())).is_err());
    }

    #[test]
    fn requests_are_bounded_after_their_uuids_too() {
        let url: Url = "http://a/".parse().unwrap();
        let body = b"${uuid}".repeat(REQUEST_BYTES_MAX / 36);
        assert!(body.len() < REQUEST_BYTES_MAX / 5);
        let error = Template::new(&Parts { body: &body, ..Parts::new("PUT", &url) }).unwrap_err();
        assert!(error.contains("at most 1048576"), "{error}");
        let body = &body[..body.len() - 70];
        assert!(Template::new(&Parts { body, ..Parts::new("PUT", &url) }).is_ok());
    }

    #[test]
    fn credentials_are_never_shown() {
        let url: Url = "http://a/?key=s3cret".parse().unwrap();
        let parts = Parts { authorization: Some("Bearer s3cret"), ..Parts::new("GET", &url) };
        let shown = format!("{parts:?} {:?}", Template::new(&parts).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
