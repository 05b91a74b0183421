//! What is watched: the [`Endpoint`] and the types of its fields, parsed once so that they cannot be wrong.
//!
//! Every door (endpoint file, table, command line) fills a [`Draft`] and has it validated: there is no other
//! way to an [`Endpoint`] from outside, so the same mistake gets the same words everywhere.
//!
//! Endpoints differ in name, URL, interval and tags; nearly all of the rest is the same for thousands of them. So
//! the rest is one value, [`Options`], which an [`Interner`] makes the endpoints share.
//!
//! Out of scope: what a probe of it looks like on the wire (`crate::http::request`), when it is due
//! (`crate::schedule`), whether its address may be probed (`crate::policy`), what its patterns mean
//! (`crate::matcher`), what the files hold that it names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use url::Url;

use crate::clock::Micros;
use crate::config::{INTERVAL_DEFAULT, TIMEOUT_DEFAULT};
use crate::sample::EndpointId;

mod choice;
pub mod draft;
pub mod duration;
pub mod file;
pub mod generate;
pub mod invariants;
mod method;
mod partition;
pub mod record;
pub mod secret;
pub mod size;
mod status;
#[cfg(test)]
mod tests;

pub use choice::{Charset, Close, Coding, Connection, Dns, Expand, Expect, Family, HttpVersion, TlsVersion};
pub use draft::{Draft, FieldError};
pub use partition::{phase32, shard_of};
pub use secret::{Secret, SecretRef, Secrets};

/// In a URL's path and query, in a header field and in the body: each probe has a UUID of its own here, so that no
/// cache can answer for the origin and the request is found again in the origin's log.
pub const UUID_PLACEHOLDER: &str = "${uuid}";
/// The same in the path of a [`Url`], whose parser encodes braces there.
pub const UUID_PLACEHOLDER_IN_PATH: &str = "$%7Buuid%7D";

/// A URL with interval, timeout and expectations. Its key is its name, never the URL: the same URL may be
/// watched twice with other expectations, or pinned to another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique; how the endpoint file and the table find each other.
    pub name: String,
    /// `http` or `https`; no userinfo, no fragment.
    pub url: Url,
    /// From slot to slot; whole milliseconds, as stored.
    pub interval: Micros,
    /// For people and queries.
    pub tags: BTreeMap<String, String>,
    /// Everything else.
    pub options: Arc<Options>,
}

/// An endpoint with its key in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// The key.
    pub id: EndpointId,
    /// The endpoint.
    pub endpoint: Endpoint,
}

/// How an endpoint is probed, and what is expected of it. All durations are whole milliseconds, as stored.
///
/// The default is what an endpoint with a name, a URL and an interval of a minute has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Whether it is probed at all.
    pub enabled: bool,
    /// 0 to 9: under overload, slots of a lower priority are missed first.
    pub priority: u8,

    /// Request method.
    pub method: Method,
    /// Header fields in order: names are tokens, values free of control characters other than tab; none of those
    /// that frame the message, which are ours. A field of several values is here several times, in the same
    /// spelling and without another field in between.
    pub headers: Vec<(String, String)>,
    /// Further fields, whose values are secrets. No name is also among `headers`, or twice here.
    pub secret_headers: Vec<(String, SecretRef)>,
    /// Request body, empty for none.
    pub body: Vec<u8>,
    /// What `Authorization` is made of; none if a header field sets it.
    pub credentials: Option<Credentials>,
    /// `User-Agent`; ours if none. None if a header field sets it.
    pub user_agent: Option<String>,
    /// Codings that are asked for, each once; none asks for none. Empty if a header field sets `Accept-Encoding`.
    pub accept_encoding: Vec<Coding>,

    /// What is to be found.
    pub expect: Expect,
    /// Statuses that count as up.
    pub expect_status: StatusSet,
    /// What the response's header fields must be like; each name once, whatever its case.
    pub expect_headers: Vec<(String, FieldRule)>,
    /// The only version of HTTP that counts as up.
    pub expect_version: Option<HttpVersion>,
    /// From the start of the probe to the end of the response: what takes longer is `too_slow`.
    pub expect_within: Option<Micros>,
    /// Patterns that the body must contain, all of them.
    pub body_match: Vec<String>,
    /// Patterns that the body must not contain, any of them.
    pub body_forbid: Vec<String>,
    /// Most bytes of a body, decoded.
    pub body_limit_bytes: u64,
    /// Stop reading as soon as the patterns are certain; else the whole transfer is timed. Never without patterns.
    pub body_stop: bool,
    /// In which form the patterns see the body.
    pub charset: Charset,
    /// A certificate that is valid for less than this is `cert_expiring`; whole seconds.
    pub cert_expires_within: Option<Micros>,

    /// Redirects followed, at most; 0 takes the redirect itself for the answer.
    pub redirects: u8,
    /// Whether a redirect may lead from https to http.
    pub redirect_downgrade: bool,

    /// From the start of a probe to its verdict, redirects and retries included.
    pub timeout: Micros,
    /// For the resolve phase of each hop.
    pub resolve_timeout: Option<Micros>,
    /// For the connect phase of each hop.
    pub connect_timeout: Option<Micros>,
    /// For the tls phase of each hop.
    pub tls_timeout: Option<Micros>,
    /// For the processing phase of each hop: from the request sent to the first byte of the response.
    pub ttfb_timeout: Option<Micros>,
    /// Between two arrivals in the transfer phase.
    pub idle_timeout: Option<Micros>,
    /// Further attempts after one that failed, at most.
    pub retries: u8,

    /// Where the time to resolve a name goes.
    pub dns: Dns,
    /// How many of a name's addresses are probed. [`Expand::One`] if an address is pinned.
    pub expand: Expand,
    /// Which addresses of a name may be connected to.
    pub family: Family,
    /// Connect here instead of resolving the URL's host; `Host` and SNI stay the URL's.
    pub address: Option<IpAddr>,
    /// Where connections come from.
    pub source: Option<Source>,
    /// Connection mode.
    pub connection: Connection,
    /// Who closes a fresh connection.
    pub close: Close,
    /// For https. The default if no hop can be https: an http URL without redirects.
    pub tls: Tls,
}

/// What `Authorization` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// RFC 7617.
    Basic {
        /// Without a colon.
        username: String,
        /// Where the password is.
        password: SecretRef,
    },
    /// RFC 6750: where the token is.
    Bearer(SecretRef),
}

/// What a header field of the response must be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldRule {
    /// There, with whatever value.
    Present,
    /// Not there.
    Absent,
    /// There, with a value in which this pattern is found.
    Matches(String),
}

/// Where connections come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address of this machine.
    Address(IpAddr),
    /// A network interface, by name.
    Interface(String),
}

/// How TLS is spoken. Files are read where the probing is done, when the endpoints are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// A file with the certificates, PEM, that are trusted instead of the system's.
    pub ca_file: Option<String>,
    /// A file with the certificate chain, PEM, that we show. Not without `client_key`.
    pub client_cert: Option<String>,
    /// Its private key, PEM. Not without `client_cert`.
    pub client_key: Option<SecretRef>,
    /// The name or address for SNI and for the certificate's check, instead of the URL's host.
    pub server_name: Option<String>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// The oldest version spoken.
    pub min_version: Option<TlsVersion>,
    /// The newest version spoken.
    pub max_version: Option<TlsVersion>,
    /// Whether sessions may be resumed; else every handshake is a full one.
    pub resumption: bool,
}

/// A request method: a token (RFC 9110, section 9.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Method(Arc<str>);

/// The statuses that count as up, as inclusive ranges: sorted, disjoint, not adjacent, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusSet(Arc<[(u16, u16)]>);

impl Endpoint {
    /// The URL as people write it: with [`UUID_PLACEHOLDER`] also in its path. It parses to the same URL.
    #[must_use]
    pub fn url_text(&self) -> Cow<'_, str> {
        let text = self.url.as_str();
        match text.contains(UUID_PLACEHOLDER_IN_PATH) {
            true => Cow::Owned(text.replace(UUID_PLACEHOLDER_IN_PATH, UUID_PLACEHOLDER)),
            false => Cow::Borrowed(text),
        }
    }

    /// Whether a hop of a probe may be https.
    #[must_use]
    pub fn may_use_tls(&self) -> bool {
        self.url.scheme() == "https" || self.options.redirects > 0
    }
}

impl Options {
    /// Whether anything is asked of the body's content.
    #[must_use]
    pub const fn has_patterns(&self) -> bool {
        !self.body_match.is_empty() || !self.body_forbid.is_empty()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            priority: draft::PRIORITY_DEFAULT,
            method: Method::default(),
            headers: Vec::new(),
            secret_headers: Vec::new(),
            body: Vec::new(),
            credentials: None,
            user_agent: None,
            accept_encoding: Vec::new(),
            expect: Expect::default(),
            expect_status: StatusSet::default(),
            expect_headers: Vec::new(),
            expect_version: None,
            expect_within: None,
            body_match: Vec::new(),
            body_forbid: Vec::new(),
            body_limit_bytes: draft::BODY_LIMIT_BYTES_DEFAULT,
            body_stop: false,
            charset: Charset::default(),
            cert_expires_within: None,
            redirects: draft::REDIRECTS_DEFAULT,
            redirect_downgrade: false,
            timeout: TIMEOUT_DEFAULT.min(INTERVAL_DEFAULT),
            resolve_timeout: None,
            connect_timeout: None,
            tls_timeout: None,
            ttfb_timeout: None,
            idle_timeout: None,
            retries: 0,
            dns: Dns::default(),
            expand: Expand::default(),
            family: Family::default(),
            address: None,
            source: None,
            connection: Connection::default(),
            close: Close::default(),
            tls: Tls::default(),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// Makes endpoints with equal [`Options`] share them: a hundred thousand endpoints of one kind cost one.
#[derive(Debug, Default)]
pub struct Interner {
    known: HashSet<Arc<Options>>,
}

impl Interner {
    /// Gives the endpoint the options of an earlier one, if they are equal.
    pub fn intern(&mut self, endpoint: &mut Endpoint) {
        match self.known.get(&endpoint.options) {
            Some(known) => endpoint.options = Arc::clone(known),
            None => {
                self.known.insert(Arc::clone(&endpoint.options));
            }
        }
    }

    /// How many different ones there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// A token (RFC 9110, section 5.6.2): what methods and field names are made of.
fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}
