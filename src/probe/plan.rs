//! What a shard needs to know to probe one endpoint, made once when the endpoint is loaded.
//!
//! A [`Plan`] holds the request as bytes, and shares with all endpoints that are alike what is alike: the origin's
//! name ([`HostPort`]) and everything that is asked of the probe ([`Profile`]). Nothing in it is looked up, parsed or
//! allocated again while probing.

use std::net::IpAddr;
use std::sync::Arc;

use url::{Host, Url};

use crate::clock::Micros;
use crate::config;
use crate::dns;
use crate::endpoint::{Connection, StatusSet};
use crate::http::request::Template;
use crate::http::wanted::Wanted;
use crate::matcher::{Charset, Matcher};
use crate::sample::Flags;
use crate::tls;

/// One endpoint, ready to be probed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom its URL names.
    pub origin: Arc<HostPort>,
    /// The request, head and body.
    pub request: Template,
    /// Everything else.
    pub profile: Arc<Profile>,
}

/// Scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `https`.
    pub tls: bool,
    /// Name or address.
    pub host: Host<String>,
    /// The URL's, or the scheme's own.
    pub port: u16,
}

/// What endpoints that are alike have in common.
#[derive(Debug)]
pub struct Profile {
    /// Connect here instead of resolving the origin's name.
    pub pinned: Option<IpAddr>,
    /// The response to HEAD has no body whatever its head says.
    pub head_request: bool,
    /// From start to verdict.
    pub timeout: Micros,
    /// Limits of single phases.
    pub timeouts: Timeouts,
    /// Connection mode.
    pub connection: Connection,
    /// Who says goodbye first.
    pub close: ClosePolicy,
    /// Redirects followed at most.
    pub redirects: u8,
    /// Whether a redirect may lead from https to http.
    pub redirect_downgrade: bool,
    /// Further attempts after one that failed.
    pub retries: u8,
    /// What must be so for the endpoint to be up.
    pub expect: Expect,
    /// How TLS is spoken, where it is.
    pub tls: tls::Profile,
    /// Whether DNS is asked for each probe.
    pub dns: dns::Mode,
    /// Which addresses of a name are wanted, and first.
    pub family: dns::Family,
    /// Whether every address of the name is probed.
    pub every_address: bool,
    /// Whence to connect.
    pub source: Option<Source>,
    /// Names of request fields that another origin must not see.
    pub secret_fields: Vec<String>,
    /// Who is given up first under overload: 0 before 9.
    pub priority: u8,
    /// Whether the cap per origin address applies.
    pub polite: bool,
}

/// Limits of single phases; one that has none has the probe's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Waiting for DNS.
    pub resolve: Option<Micros>,
    /// The TCP handshake.
    pub connect: Option<Micros>,
    /// The TLS handshake.
    pub tls: Option<Micros>,
    /// From the request to the first byte of the response.
    pub ttfb: Option<Micros>,
    /// From bytes to more bytes, in a response.
    pub idle: Option<Micros>,
}

/// What must be so for an endpoint to be up.
#[derive(Debug)]
pub struct Expect {
    /// Statuses that count as up.
    pub status: StatusSet,
    /// Fields of the response's head.
    pub fields: Option<Arc<Wanted>>,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: Option<u8>,
    /// Longest total.
    pub within: Option<Micros>,
    /// What the body must and must not contain.
    pub body: Option<Arc<Matcher>>,
    /// Longest body, decoded, bytes.
    pub body_bytes_max: u64,
    /// Whether to stop reading when the patterns are certain.
    pub body_stop: bool,
    /// Whether bodies in other charsets are turned into UTF-8 first.
    pub charset: Charset,
    /// Whether content codings are decoded: we asked for them.
    pub decode: bool,
    /// The certificate must be valid for longer than this, seconds.
    pub cert_expires_within_s: Option<i64>,
    /// It must be down, for whatever reason.
    pub down: bool,
}

/// Who ends a connection that has done its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClosePolicy {
    /// The origin, for a while; then we. TIME_WAIT should be the server's, who has one port and not 28,000 to lose.
    #[default]
    Peer,
    /// We, with a FIN.
    Fin,
    /// We, with a RST: no TIME_WAIT anywhere, and no manners.
    Rst,
}

/// Where connections come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address of this machine.
    Address(IpAddr),
    /// An interface, by name (`SO_BINDTODEVICE`).
    Interface(String),
}

impl Plan {
    /// The flags that every sample of this endpoint carries.
    #[must_use]
    pub fn flags(&self) -> Flags {
        match self.profile.connection {
            Connection::Fresh => Flags(0),
            Connection::Reuse => Flags::REUSE,
        }
    }

    /// The address, if no name stands in the way.
    #[must_use]
    pub fn known_address(&self) -> Option<IpAddr> {
        self.profile.pinned.or_else(|| self.origin.address())
    }
}

impl HostPort {
    /// Whom a URL names; `None` if it names nobody.
    #[must_use]
    pub fn of_url(url: &Url) -> Option<Self> {
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self { tls, host: url.host()?.to_owned(), port: url.port_or_known_default()? })
    }

    /// The URL that `request`, made by us, asks this origin for.
    #[must_use]
    pub fn url_of(&self, request: &[u8]) -> Option<Url> {
        let line = request.split(|byte| *byte == b'\r').next()?;
        let target = str::from_utf8(line.split(|byte| *byte == b' ').nth(1)?).ok()?;
        let scheme = if self.tls { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}:{}{target}", self.host, self.port)).ok()
    }

    /// The name or address for TLS; `None` if it can be neither, which no URL's host is.
    #[must_use]
    pub fn server(&self) -> Option<tls::ServerHost> {
        tls::ServerHost::parse(&self.host.to_string())
    }

    /// The address, if the URL names one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Ipv4(ip) => Some(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(*ip)),
            Host::Domain(_) => None,
        }
    }
}

/// What is asked of a plain GET: any 2xx in time, redirects not followed.
impl Default for Profile {
    fn default() -> Self {
        Self {
            pinned: None,
            head_request: false,
            timeout: config::TIMEOUT_DEFAULT,
            timeouts: Timeouts::default(),
            connection: Connection::default(),
            close: ClosePolicy::default(),
            redirects: 0,
            redirect_downgrade: false,
            retries: 0,
            expect: Expect::default(),
            tls: tls::Profile::default(),
            dns: dns::Mode::Cached,
            family: dns::Family::PreferV4,
            every_address: false,
            source: None,
            secret_fields: Vec::new(),
            priority: config::PRIORITY_DEFAULT,
            polite: true,
        }
    }
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            status: StatusSet::default(),
            fields: None,
            minor_version: None,
            within: None,
            body: None,
            body_bytes_max: config::BODY_BYTES_MAX,
            body_stop: false,
            charset: Charset::Raw,
            decode: false,
            cert_expires_within_s: None,
            down: false,
        }
    }
}
