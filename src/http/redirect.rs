//! Where a redirect leads, and what of the request goes along.
//!
//! [`follow`] is given the request as it was sent, the URL it was sent to, and what the response said; it gives the
//! next URL and the next request, or says why there is none. [`Trail`] remembers where a probe has been.
//!
//! What goes along (RFC 9110, section 15.4, as browsers and curl read it):
//!
//! | status | method | body and the fields that describe it |
//! |---|---|---|
//! | 301, 302 | POST becomes GET, others stay | dropped if the method changed |
//! | 303 | HEAD stays, others become GET | dropped, unless GET or HEAD had one |
//! | 300 (with `Location`), 307, 308 | stays | kept |
//!
//! Credentials (`Authorization`, `Cookie`, `Proxy-Authorization`, and the fields named as secret) go along to the
//! same origin only: same scheme, host and port. Once dropped they stay dropped, also if a later hop comes back:
//! the request that is followed no longer has them. A `Host` of the user's stays where the origin stays.
//!
//! Refused: https to http unless allowed, schemes other than these two, a user name or password in the target
//! (`redirect_blocked`); no target, or none that is a URL (`redirect_invalid`).
//!
//! `Location` is read as browsers read it, by the WHATWG rules: relative to the URL that answered, fragments
//! dropped, blanks and bytes beyond ASCII percent-encoded (as curl does), backslashes taken for slashes (as curl
//! does not).
//!
//! Out of scope: whether the next address may be connected to (the address policy judges every hop's), cookies
//! that responses set (there is no cookie jar), `Refresh` fields and pages that redirect.
//!
//! Invariant: what is sent on has no byte in its head that came from the origin but for those of a parsed URL, in
//! which control characters and blanks cannot be.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use url::Url;

use super::request::{host_field, target};
use crate::config::URL_BYTES_MAX;
use crate::sample::Failure;

/// Most redirects that a probe can be told to follow; browsers stop at 20, curl at 50.
pub const REDIRECTS_MAX: usize = 20;
/// Longest host name (RFC 1035, section 2.3.4), without the dot of the root.
const HOST_BYTES_MAX: usize = 253;

/// What an endpoint allows redirects to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Whether https may lead to http.
    pub downgrade_allowed: bool,
    /// Fields besides the well-known that hold secrets, in any case: never sent to another origin.
    pub secret_fields: &'a [String],
}

/// The next request of a probe.
#[derive(Clone, PartialEq, Eq)]
pub struct Hop {
    /// Where to; http or https, without userinfo and fragment.
    pub url: Url,
    /// What to send there.
    pub request: Vec<u8>,
    /// Whether this answers a HEAD.
    pub head_request: bool,
    /// Whether scheme, host and port are those of the URL before, so that its connection may serve.
    pub same_origin: bool,
}

impl fmt::Debug for Hop {
    /// Without URL and request: either may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop").field("same_origin", &self.same_origin).finish_non_exhaustive()
    }
}

/// Whether a final response of this status asks to go elsewhere. Without a `Location`, 300 is a page of choices,
/// while for the others its lack is a failure. 304 and 305 are no redirects, and 306 is nothing.
#[must_use]
pub const fn is_redirect(status: u16, has_location: bool) -> bool {
    match status {
        300 => has_location,
        301 | 302 | 303 | 307 | 308 => true,
        _ => false,
    }
}

/// The hop that a redirect of `request`, sent to `base`, asks for; `location` is empty if there was none.
///
/// `request` is one that `super::request` made, or an earlier hop's. `RedirectInvalid` if `location` is no usable
/// URL, `RedirectBlocked` if it may not be followed.
pub fn follow(
    request: &[u8],
    base: &Url,
    status: u16,
    location: &[u8],
    rules: Rules<'_>,
) -> Result<Hop, Failure> {
    let url = resolve(base, location)?;
    if base.scheme() == "https" && url.scheme() == "http" && !rules.downgrade_allowed {
        return Err(Failure::RedirectBlocked);
    }
    let same_origin = base.origin() == url.origin();
    let (method, head, body) = take_apart(request).ok_or(Failure::RedirectInvalid)?;
    let next_method = match (status, method) {
        (303, b"HEAD" | b"GET") => method,
        (303, _) | (301 | 302, b"POST") => b"GET",
        _ => method,
    };
    let keeps_body = next_method == method;

    let mut next = Vec::with_capacity(request.len() + url.as_str().len());
    next.extend_from_slice(next_method);
    next.push(b' ');
    target(&mut next, &url);
    next.extend_from_slice(b" HTTP/1.1\r\n");
    if !same_origin {
        host_field(&mut next, &url);
    }
    for line in head {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let stays = match () {
            () if is("host") => same_origin,
            () if CREDENTIALS.iter().copied().any(is) => same_origin,
            () if rules.secret_fields.iter().any(|secret| is(secret)) => same_origin,
            () if DESCRIBES_BODY.iter().copied().any(is) => keeps_body,
            () => true,
        };
        if stays {
            next.extend_from_slice(line);
            next.extend_from_slice(b"\r\n");
        }
    }
    next.extend_from_slice(b"\r\n");
    if keeps_body {
        next.extend_from_slice(body);
    }
    Ok(Hop { url, request: next, head_request: next_method == b"HEAD", same_origin })
}

/// What of a user's is for the origin it was given for.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "cookie2", "proxy-authorization"];

/// What is about a body (RFC 9110, section 15.4), or about sending it.
const DESCRIBES_BODY: [&str; 11] = [
    "content-length",
    "content-type",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "transfer-encoding",
    "digest",
    "last-modified",
    "trailer",
    "expect",
];

/// Reads `location` as a reference relative to `base`.
fn resolve(base: &Url, location: &[u8]) -> Result<Url, Failure> {
    let location = location.trim_ascii();
    if location.is_empty() || location.len() > URL_BYTES_MAX {
        return Err(Failure::RedirectInvalid);
    }
    // Tab passes the head, and the parser would drop it without a word; so would it the line ends of a folded
    // value. Nobody who means a URL sends either.
    if location.iter().any(u8::is_ascii_control) {
        return Err(Failure::RedirectInvalid);
    }
    let url = base.join(&ascii(location)).map_err(|_| Failure::RedirectInvalid)?;
    check_url(url)
}

/// What follows from the parsed URL alone.
fn check_url(mut url: Url) -> Result<Url, Failure> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::RedirectBlocked);
    }
    // Credentials would be the origin's invention; who shows a URL would show them.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::RedirectBlocked);
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || url.port() == Some(0) {
        return Err(Failure::RedirectInvalid);
    }
    url.set_fragment(None);
    // Percent-encoding may have tripled it.
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(Failure::RedirectInvalid);
    }
    Ok(url)
}

/// Bytes beyond ASCII are percent-encoded one by one, whatever their charset was meant to be: for UTF-8 that is
/// what the URL parser would do itself, for others it is what the origin most likely wants back.
fn ascii(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for byte in location {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Takes apart a request of our own making: method, lines of the head without their ends, body.
fn take_apart(request: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>, &[u8])> {
    let head_bytes = request.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, rest) = request.split_at(head_bytes);
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let method = lines.next()?.split(|byte| *byte == b' ').next()?;
    Some((method, lines, &rest[4..]))
}

/// Where a probe has been: bounds the redirects, and sees loops.
///
/// A loop is the same method on the same URL again. (An origin that would have answered otherwise the second time is
/// one that wants a cookie, and there is no cookie jar.)
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Hashes suffice: 20 URLs of 8 KiB would be much to keep, and whoever makes two of his own URLs collide gets
    /// his own probe to fail.
    visited: Vec<u64>,
}

impl Trail {
    /// A probe that starts with this request.
    #[must_use]
    pub fn new(method: &[u8], url: &Url) -> Self {
        Self { visited: vec![Self::key(method, url)] }
    }

    /// Redirects followed so far.
    #[must_use]
    pub fn redirects(&self) -> usize {
        self.visited.len() - usize::from(!self.visited.is_empty())
    }

    /// Enters the next hop. `RedirectLoop` if that was visited; `TooManyRedirects` if it would be one more than
    /// `redirects_max`, of which at most [`REDIRECTS_MAX`] count.
    pub fn enter(&mut self, hop: &Hop, redirects_max: usize) -> Result<(), Failure> {
        let method = hop.request.split(|byte| *byte == b' ').next().unwrap_or_default();
        let key = Self::key(method, &hop.url);
        if self.visited.contains(&key) {
            return Err(Failure::RedirectLoop);
        }
        if self.redirects() >= redirects_max.min(REDIRECTS_MAX) {
            return Err(Failure::TooManyRedirects);
        }
        self.visited.push(key);
        Ok(())
    }

    fn key(method: &[u8], url: &Url) -> u64 {
        let mut hasher = DefaultHasher::new();
        (method, url.as_str()).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        target: Vec<Target>,
        hop: Vec<Vector>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Target {
        base: String,
        location: String,
        #[serde(default)]
        downgrade_allowed: bool,
        url: Option<String>,
        fails: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        name: String,
        base: String,
        status: u16,
        location: String,
        #[serde(default)]
        secret_fields: Vec<String>,
        request: Vec<String>,
        sends: Vec<String>,
        same_origin: Option<bool>,
    }

    fn file() -> File {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http/redirects.toml");
        toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn targets_are_resolved_or_refused() {
        for case in file().target {
            let location: Vec<u8> = case.location.chars().map(|c| u8::try_from(c).unwrap()).collect();
            let rules = Rules { downgrade_allowed: case.downgrade_allowed, ..Rules::default() };
            let hop = follow(GET, &url(&case.base), 302, &location, rules);
            let led =
                hop.as_ref().map(|hop| hop.url.to_string()).map_err(|failure| failure.name().to_owned());
            let expected = match (&case.url, &case.fails) {
                (Some(url), None) => Ok(url.clone()),
                (None, Some(failure)) => Err(failure.clone()),
                _ => panic!("either url or fails: {case:?}"),
            };
            assert_eq!(led, expected, "{case:?}");
        }
    }

    #[test]
    fn requests_are_made_over() {
        for case in file().hop {
            let request = case.request.join("\r\n");
            let rules = Rules { secret_fields: &case.secret_fields, ..Rules::default() };
            let hop =
                follow(request.as_bytes(), &url(&case.base), case.status, case.location.as_bytes(), rules);
            let hop = hop.unwrap_or_else(|failure| panic!("{failure:?}: {}", case.name));
            assert_eq!(String::from_utf8_lossy(&hop.request), case.sends.join("\r\n"), "{}", case.name);
            assert_eq!(hop.head_request, hop.request.starts_with(b"HEAD "), "{}", case.name);
            if let Some(same_origin) = case.same_origin {
                assert_eq!(hop.same_origin, same_origin, "{}", case.name);
            }
        }
    }

    #[test]
    fn which_statuses_lead_on() {
        let with_location: Vec<u16> = (100..1000).filter(|status| is_redirect(*status, true)).collect();
        assert_eq!(with_location, [300, 301, 302, 303, 307, 308]);
        let without: Vec<u16> = (100..1000).filter(|status| is_redirect(*status, false)).collect();
        assert_eq!(without, [301, 302, 303, 307, 308]);
    }

    #[test]
    fn targets_are_bounded_before_and_after_they_are_encoded() {
        let base = url("http://a/");
        let follow = |location: &str| follow(GET, &base, 302, location.as_bytes(), Rules::default());
        assert!(follow(&format!("/{}", "x".repeat(URL_BYTES_MAX - 9))).is_ok());
        for too_long in ["x".repeat(URL_BYTES_MAX), "\u{e9}".repeat(URL_BYTES_MAX / 4), "x".repeat(1 << 20)] {
            assert_eq!(follow(&format!("/{too_long}")).unwrap_err(), Failure::RedirectInvalid);
        }
        let long_host = format!("http://{}.example/", "a.".repeat(130));
        assert_eq!(follow(&long_host).unwrap_err(), Failure::RedirectInvalid);
    }

    /// A loop of two is seen when it closes, at whatever length before it; a chain ends at its limit.
    #[test]
    fn trails_are_bounded_and_see_loops() {
        let hop = |method: &str, to: &str| Hop {
            url: url(to),
            request: format!("{method} / HTTP/1.1\r\n\r\n").into_bytes(),
            head_request: false,
            same_origin: true,
        };
        let mut trail = Trail::new(b"GET", &url("http://a/0"));
        for count in 1..=5 {
            assert_eq!(trail.redirects(), count - 1);
            trail.enter(&hop("GET", &format!("http://a/{count}")), 5).unwrap();
        }
        assert_eq!(trail.enter(&hop("GET", "http://a/6"), 5), Err(Failure::TooManyRedirects));
        assert_eq!(trail.enter(&hop("GET", "http://a/3"), 5), Err(Failure::RedirectLoop));
        assert_eq!(trail.redirects(), 5, "what is refused is not entered");

        let mut trail = Trail::new(b"POST", &url("http://a/form"));
        assert_eq!(trail.enter(&hop("GET", "http://a/form"), 5), Ok(()), "post, redirect, get");
        assert_eq!(trail.enter(&hop("GET", "http://a/form"), 5), Err(Failure::RedirectLoop));
        assert_eq!(trail.enter(&hop("POST", "http://a/form"), 5), Err(Failure::RedirectLoop));

        let mut trail = Trail::new(b"GET", &url("http://a/"));
        let refused_at = (0..100).find(|n| trail.enter(&hop("GET", &format!("http://a/{n}")), 100).is_err());
        assert_eq!(refused_at, Some(REDIRECTS_MAX), "whatever was asked for");
    }

    #[test]
    fn debug_shows_no_secret() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: s3cret\r\n\r\n";
        let hop = follow(request, &url("http://a/"), 302, b"/?key=s3cret", Rules::default()).unwrap();
        assert!(hop.request.windows(6).any(|window| window == b"s3cret"), "it is in there");
        assert!(!format!("{hop:?}").contains("s3cret"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Whatever a `Location` holds: nothing panics, and a hop is a request for a URL that may be followed.
        #[test]
        fn any_location_is_followed_safely_or_refused(
            start in proptest::sample::select(
                &["", "/", "//", "http://", "https://b", "http://b:", "\\", "?", "http://u@", "ftp:"][..]
            ),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
            https in any::<bool>(),
            status in proptest::sample::select(&[301_u16, 302, 303, 307, 308][..]),
        ) {
            let base = url(if https { "https://a.example/x" } else { "http://a.example/x" });
            let location = [start.as_bytes(), &tail].concat();
            let request = b"POST /x HTTP/1.1\r\nHost: a.example\r\nCookie: c\r\nContent-Length: 2\r\n\r\nhi";
            match follow(request, &base, status, &location, Rules::default()) {
                Err(failure) => {
                    prop_assert!(matches!(failure, Failure::RedirectInvalid | Failure::RedirectBlocked));
                }
                Ok(hop) => {
                    prop_assert!(matches!(hop.url.scheme(), "http" | "https"));
                    prop_assert!(!https || hop.url.scheme() == "https");
                    prop_assert!(hop.url.username().is_empty() && hop.url.password().is_none());
                    prop_assert!(hop.url.fragment().is_none() && hop.url.as_str().len() <= URL_BYTES_MAX);
                    let text = String::from_utf8(hop.request.clone()).unwrap();
                    let lines: Vec<&str> = text.split("\r\n").collect();
                    prop_assert_eq!(lines[0].split(' ').count(), 3, "{:?}", lines[0]);
                    prop_assert!(!lines.iter().any(|line| line.chars().any(char::is_control)));
                    let cookies = lines.iter().filter(|line| line.starts_with("Cookie")).count();
                    prop_assert_eq!(cookies, usize::from(hop.url.origin() == base.origin()));
                    let hosts = lines.iter().filter(|line| line.starts_with("Host: ")).count();
                    prop_assert_eq!(hosts, 1);
                    prop_assert_eq!(text.ends_with("\r\n\r\nhi"), status >= 307);
                }
            }
        }
    }
}
