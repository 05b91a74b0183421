//! The least that must be read of a request to answer it: method, path, where it ends, whether to close.
//!
//! [`scan`] looks at the bytes received so far and either finds a whole head or asks for more; it neither
//! copies nor allocates.
//!
//! Out of scope: everything that a real server must validate. Lines may end in LF alone; fields that do not
//! concern framing are not looked at.

use crate::config;

/// What the bytes received so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan<'a> {
    /// The head is not over yet.
    Partial,
    /// A whole head.
    Request(Request<'a>),
    /// This cannot become a request that we answer: the status to refuse it with, and why.
    Refused(u16, &'static str),
}

/// What matters of a request head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) head_request: bool,
    /// As sent, query included.
    pub(super) target: &'a str,
    /// Bytes of the head, the empty line included.
    pub(super) head_bytes: usize,
    /// Bytes of body that follow.
    pub(super) body_bytes: u64,
    /// The client wants the connection closed after the answer.
    pub(super) close: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

impl<'a> Request<'a> {
    /// The target without its query.
    pub(super) fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }
}

/// Looks for a request head at the start of `input`.
pub(super) fn scan(input: &[u8]) -> Scan<'_> {
    let Some((line, mut at)) = line(input, 0) else {
        return unfinished(input);
    };
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Scan::Refused(400, "the request line has not three parts\n");
    };
    let Ok(target) = std::str::from_utf8(target) else {
        return Scan::Refused(400, "the request target is not UTF-8\n");
    };
    if !version.starts_with(b"HTTP/1.") {
        return Scan::Refused(505, "the version is not HTTP/1.x\n");
    }
    let mut request = Request {
        head_request: method == b"HEAD",
        target,
        head_bytes: 0,
        body_bytes: 0,
        close: version == b"HTTP/1.0",
        expects_continue: false,
    };
    loop {
        let Some((line, next)) = self::line(input, at) else {
            return unfinished(input);
        };
        at = next;
        let [first, ..] = line else {
            request.head_bytes = at;
            return Scan::Request(request);
        };
        // Most fields are dismissed by their first letter.
        match first.to_ascii_lowercase() {
            b'c' => {
                if let Some(value) = value(line, b"content-length") {
                    match std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()) {
                        Some(bytes) => request.body_bytes = bytes,
                        None => return Scan::Refused(400, "a bad Content-Length\n"),
                    }
                } else if let Some(value) = value(line, b"connection") {
                    request.close |= value.eq_ignore_ascii_case(b"close");
                }
            }
            b'e' => {
                request.expects_continue |= value(line, b"expect").is_some();
            }
            b't' if value(line, b"transfer-encoding").is_some() => {
                return Scan::Refused(411, "the origin reads bodies with Content-Length only\n");
            }
            _ => {}
        }
    }
}

fn unfinished(input: &[u8]) -> Scan<'_> {
    if input.len() >= config::ORIGIN_REQUEST_HEAD_BYTES_MAX {
        Scan::Refused(431, "the request head is too large\n")
    } else {
        Scan::Partial
    }
}

/// The line that starts at `start`, without its end, and where the next one starts.
fn line(input: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let rest = &input[start..];
    let length = rest.iter().position(|byte| *byte == b'\n')?;
    let line = &rest[..length];
    Some((line.strip_suffix(b"\r").unwrap_or(line), start + length + 1))
}

/// The value of the field in `line` if that is its name (given in lower case).
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every prefix of the head must ask for more, and the whole must read as `expected`.
    fn check(head: &str, after: &str, expected: Request<'_>) {
        let input = &format!("{head}{after}");
        let expected = Request { head_bytes: head.len(), ..expected };
        for cut in 0..expected.head_bytes {
            assert_eq!(scan(&input.as_bytes()[..cut]), Scan::Partial, "{input:?} cut at {cut}");
        }
        assert_eq!(scan(input.as_bytes()), Scan::Request(expected), "{input:?}");
    }

    const PLAIN: Request<'_> = Request {
        head_request: false,
        target: "/",
        head_bytes: 0,
        body_bytes: 0,
        close: false,
        expects_continue: false,
    };

    #[test]
    fn heads_are_read_at_every_cut() {
        check("GET / HTTP/1.1\r\n\r\n", "", PLAIN);
        check("GET / HTTP/1.1\r\n\r\n", "GET /next", PLAIN);
        check("GET / HTTP/1.1\n\n", "", PLAIN);
        check("HEAD / HTTP/1.0\r\n\r\n", "", Request { head_request: true, close: true, ..PLAIN });
        check(
            "GET /a?b HTTP/1.1\r\nHost: h\r\nconnection:  Close \r\n\r\n",
            "",
            Request { target: "/a?b", close: true, ..PLAIN },
        );
        check(
            "PUT / HTTP/1.1\r\nCONTENT-LENGTH: 12\r\nExpect: 100-continue\r\n\r\n",
            "",
            Request { body_bytes: 12, expects_continue: true, ..PLAIN },
        );
        check("GET / HTTP/1.1\r\nContent-Lengthy: 12\r\nConnectio: close\r\nExp\r\n\r\n", "", PLAIN);
    }

    #[test]
    fn the_query_is_no_part_of_the_path() {
        assert_eq!(Request { target: "/a/b?c=/d?e", ..PLAIN }.path(), "/a/b");
    }

    #[test]
    fn nonsense_is_refused() {
        for (input, status) in [
            ("GET /\r\n", 400),
            ("GET / HTTP/1.1 x\r\n", 400),
            ("GET / HTTP/2.0\r\n", 505),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n", 400),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 411),
        ] {
            assert!(matches!(scan(input.as_bytes()), Scan::Refused(code, _) if code == status), "{input:?}");
        }
        let endless = vec![b'a'; config::ORIGIN_REQUEST_HEAD_BYTES_MAX];
        assert!(matches!(scan(&endless), Scan::Refused(431, _)));
    }
}
