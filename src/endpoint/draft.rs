//! [`Draft`]: an endpoint as somebody wrote it, and its validation into an [`Endpoint`].
//!
//! The endpoint file, the table and the command line each fill a draft with what they were given, as text,
//! and [`Draft::validate`] decides. So every rule is here once, and a value that came through the table is
//! held to the same rules as one from a file.
//!
//! Defaults: what is a table of its own (headers, tags, tls, …) is added to, entry by entry; every other field
//! replaces. Two fields that cannot both hold, such as `basic_auth` and `bearer`, are an error in one place; from the
//! defaults, the endpoint's own wins.
//!
//! Out of scope: syntax of the file and line numbers (`file.rs`), uniqueness of names (also there, and a
//! constraint of the table), whether addresses may be probed (the address policy), whether patterns compile (the
//! matcher), what is in the files that are named.
//!
//! Messages never repeat a URL, a header's value or what should have been a reference to a secret: each may hold one.
//!
//! Invariant: the draft of an endpoint (`record.rs`, `file.rs`) is valid, and validates to the same endpoint.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use url::{Host, ParseError, Url};

use super::{
    Coding, Connection, Credentials, Endpoint, Expand, Expect, Family, FieldRule, Method, Options, SecretRef,
    Source, StatusSet, Tls, UUID_PLACEHOLDER, UUID_PLACEHOLDER_IN_PATH, duration, is_token, size,
};
use crate::clock::Micros;
use crate::config::{
    BODY_BYTES_MAX, INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN, NAME_BYTES_MAX, REQUEST_BYTES_MAX,
    REQUEST_FIELDS_MAX, REQUEST_OVERHEAD_BYTES, TAG_BYTES_MAX, TAGS_MAX, TIMEOUT_DEFAULT, TIMEOUT_MAX,
    URL_BYTES_MAX,
};

/// Body bytes read of an endpoint that names no limit.
pub const BODY_LIMIT_BYTES_DEFAULT: u64 = BODY_BYTES_MAX;
/// Highest limit of body bytes: nothing is kept, but somebody pays for the traffic.
pub const BODY_LIMIT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Redirects followed of an endpoint that says nothing: as many as blackbox_exporter.
pub const REDIRECTS_DEFAULT: u8 = 10;
/// Most redirects followed: what browsers and the fetch standard stop at.
pub const REDIRECTS_MAX: u8 = 20;
/// Most further attempts.
pub const RETRIES_MAX: u8 = 5;
/// Priority of an endpoint that says nothing.
pub const PRIORITY_DEFAULT: u8 = 5;
/// Highest priority: shed last.
pub const PRIORITY_MAX: u8 = 9;
/// Most patterns in `body_match`, and as many in `body_forbid`.
pub const PATTERNS_MAX: usize = crate::matcher::budget::PATTERNS_MAX;
/// Longest pattern.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// Most header fields that something is expected of.
pub const EXPECT_HEADERS_MAX: usize = 32;
/// Most header fields whose values are secrets.
pub const SECRET_HEADERS_MAX: usize = 16;
/// Longest user name of `basic_auth`.
pub const USERNAME_BYTES_MAX: usize = 255;
/// Longest `User-Agent`.
pub const USER_AGENT_BYTES_MAX: usize = 1024;
/// Longest path of a file: `PATH_MAX` without the NUL.
pub const PATH_BYTES_MAX: usize = 4095;
/// Longest name of a network interface: `IFNAMSIZ` without the NUL.
pub const INTERFACE_BYTES_MAX: usize = 15;
/// Longest time that a certificate can be required to have left.
pub const CERT_EXPIRES_WITHIN_MAX: Micros = Micros::from_millis(3_650 * 86_400_000);

/// The fields of an endpoint as given, each of them optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Required; has no default.
    pub name: Option<String>,
    /// Required.
    pub url: Option<String>,
    /// A duration such as `30s`.
    pub interval: Option<String>,
    /// Whether it is probed.
    pub enabled: Option<bool>,
    /// 0 to 9.
    pub priority: Option<i64>,

    /// A token.
    pub method: Option<String>,
    /// Added to those of the defaults; the same name replaces. A field of several values is here several times.
    pub headers: Vec<(String, String)>,
    /// Names and references to secrets; added to and replaced together with `headers`.
    pub secret_headers: Vec<(String, String)>,
    /// Any bytes.
    pub body: Option<Vec<u8>>,
    /// User name, and a reference to the password.
    pub basic_auth: Option<(String, String)>,
    /// A reference to the token.
    pub bearer: Option<String>,
    /// Visible ASCII and spaces.
    pub user_agent: Option<String>,
    /// `gzip`, `deflate`, `br`.
    pub accept_encoding: Option<Vec<String>>,

    /// `up` or `down`.
    pub expect: Option<String>,
    /// Entries such as `200-299` or `304`.
    pub expect_status: Option<Vec<String>>,
    /// Added to those of the defaults; the same name replaces.
    pub expect_headers: Vec<(String, FieldRule)>,
    /// `1.0` or `1.1`.
    pub expect_version: Option<String>,
    /// A duration.
    pub expect_within: Option<String>,
    /// Patterns.
    pub body_match: Option<Vec<String>>,
    /// Patterns.
    pub body_forbid: Option<Vec<String>>,
    /// A size such as `1MiB`.
    pub body_limit: Option<String>,
    /// Whether reading stops as soon as the patterns are certain.
    pub body_stop: Option<bool>,
    /// `raw` or `auto`.
    pub charset: Option<String>,
    /// A duration such as `14d`.
    pub cert_expires_within: Option<String>,

    /// 0 to 20.
    pub redirects: Option<i64>,
    /// Whether from https to http.
    pub redirect_downgrade: Option<bool>,

    /// A duration.
    pub timeout: Option<String>,
    /// A duration.
    pub resolve_timeout: Option<String>,
    /// A duration.
    pub connect_timeout: Option<String>,
    /// A duration.
    pub tls_timeout: Option<String>,
    /// A duration.
    pub ttfb_timeout: Option<String>,
    /// A duration.
    pub idle_timeout: Option<String>,
    /// 0 to 5.
    pub retries: Option<i64>,

    /// `cached` or `every`.
    pub dns: Option<String>,
    /// `one` or `all`.
    pub expand: Option<String>,
    /// `any`, `prefer4`, `prefer6`, `4` or `6`.
    pub family: Option<String>,
    /// An IP address.
    pub address: Option<String>,
    /// An IP address or the name of an interface.
    pub source: Option<String>,
    /// `fresh` or `reuse`.
    pub connection: Option<String>,
    /// `peer`, `fin` or `rst`.
    pub close: Option<String>,
    /// Added to those of the defaults.
    pub tls: TlsDraft,

    /// Added to those of the defaults; the same key replaces.
    pub tags: Vec<(String, String)>,
}

/// The fields of `tls` as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsDraft {
    /// A path.
    pub ca_file: Option<String>,
    /// A path.
    pub client_cert: Option<String>,
    /// A path, or a reference to a secret.
    pub client_key: Option<String>,
    /// A host name or an IP address.
    pub server_name: Option<String>,
    /// Whether any certificate will do.
    pub insecure: Option<bool>,
    /// `1.2` or `1.3`.
    pub min_version: Option<String>,
    /// `1.2` or `1.3`.
    pub max_version: Option<String>,
    /// Whether sessions are resumed.
    pub resumption: Option<bool>,
}

/// What is wrong with which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, named as in the endpoint file, and where in it, if that is known: `body_match[0], byte 5`.
    pub field: Cow<'static, str>,
    /// A lower-case fragment.
    pub message: String,
}

impl FieldError {
    /// `message` is a lower-case fragment.
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The key that the field has in an endpoint file.
    #[must_use]
    pub fn key(&self) -> &str {
        let is_part = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
        self.field.split(is_part).next().unwrap_or_default()
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

/// Takes the named fields from the defaults where they are open.
macro_rules! inherit {
    ($own:expr, $defaults:expr, $($field:ident)+) => {
        $(if $own.$field.is_none() { $own.$field.clone_from(&$defaults.$field); })+
    };
}

impl Draft {
    /// The draft of a URL that stands by itself, as on a command line: its name is the URL, or as much of it as
    /// a name can hold. So nothing that is wrong with it is wrong with the name.
    #[must_use]
    pub fn of_url(url: &str) -> Self {
        const ELLIPSIS: &str = "…";
        let mut name: String = url.chars().filter(|character| !character.is_control()).collect();
        if name.len() > NAME_BYTES_MAX {
            let room = NAME_BYTES_MAX - ELLIPSIS.len();
            name.truncate((0..=room).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0));
            name.push_str(ELLIPSIS);
        } else if name.is_empty() {
            name.push_str(ELLIPSIS);
        }
        Self { name: Some(name), url: Some(url.to_owned()), ..Self::default() }
    }

    /// The endpoint that this draft describes; a field that it leaves open is taken from `defaults`, and
    /// else from `config`.
    ///
    /// # Errors
    /// The first field that is missing, not what it has to be, out of its bounds, or at odds with another.
    pub fn validate(self, defaults: &Self) -> Result<Endpoint, FieldError> {
        self.check_own()?;
        let mut own = self;
        let own_expand = own.expand.is_some();
        let own_body_stop = own.body_stop.is_some();
        let own_tls = own.tls_fields_given();
        own.inherit(defaults);
        let Self { url, headers, secret_headers, expect_headers, tags, .. } = &mut own;
        let url =
            parse_url(&url.take().ok_or_else(|| error("url", "is missing"))?).map_err(in_field("url"))?;
        let headers = check_headers(std::mem::take(headers)).map_err(in_field("headers"))?;
        let secret_headers = check_secret_headers(std::mem::take(secret_headers), headers.len())
            .map_err(in_field("secret_headers"))?;
        let expect_headers =
            check_expect_headers(std::mem::take(expect_headers)).map_err(in_field("expect_headers"))?;
        let tags = check_tags(std::mem::take(tags)).map_err(in_field("tags"))?;
        let interval =
            parse("interval", own.interval.as_deref(), |text| within(text, INTERVAL_MIN, INTERVAL_MAX))?
                .unwrap_or(INTERVAL_DEFAULT);

        let method = parse("method", own.method.as_deref(), Method::new)?.unwrap_or_default();
        let body_match = check_patterns("body_match", own.body_match.take())?;
        let body_forbid = check_patterns("body_forbid", own.body_forbid.take())?;
        let has_patterns = !body_match.is_empty() || !body_forbid.is_empty();
        if method.is_head() && has_patterns {
            let field = if body_match.is_empty() { "body_forbid" } else { "body_match" };
            return Err(error(field, "cannot be looked for: the response to HEAD has no body"));
        }
        if own_body_stop && own.body_stop == Some(true) && !has_patterns {
            return Err(error("body_stop", "needs body_match or body_forbid: nothing else becomes certain"));
        }

        let redirects = number("redirects", own.redirects, REDIRECTS_DEFAULT, REDIRECTS_MAX)?;
        let mut tls = own.tls.validate()?;
        let mut cert_expires_within =
            parse("cert_expires_within", own.cert_expires_within.as_deref(), parse_cert_expires_within)?;
        if url.scheme() == "http" && redirects == 0 {
            if let Some(field) = own_tls {
                return Err(error(field, "is for https, but the URL is http and redirects are off"));
            }
            (tls, cert_expires_within) = (Tls::default(), None);
        }

        let address = parse("address", own.address.as_deref(), parse_address)?;
        let mut expand: Expand = word("expand", own.expand.as_ref())?.unwrap_or_default();
        if address.is_some() && expand == Expand::All {
            if own_expand {
                return Err(error("expand", "is about the addresses of a name, and `address` is given"));
            }
            expand = Expand::One;
        }
        let family = word("family", own.family.as_ref())?.unwrap_or_default();
        let source = parse("source", own.source.as_deref(), parse_source)?;
        check_family(source.as_ref(), address, family)?;

        let options = Options {
            enabled: own.enabled.unwrap_or(true),
            priority: number("priority", own.priority, PRIORITY_DEFAULT, PRIORITY_MAX)?,
            method,
            headers,
            secret_headers,
            body: own.body.take().unwrap_or_default(),
            credentials: parse_credentials(own.basic_auth.as_ref(), own.bearer.as_ref())?,
            user_agent: parse("user_agent", own.user_agent.as_deref(), parse_user_agent)?,
            accept_encoding: parse("accept_encoding", own.accept_encoding.as_ref(), parse_codings)?
                .unwrap_or_default(),
            expect: word::<Expect>("expect", own.expect.as_ref())?.unwrap_or_default(),
            expect_status: parse("expect_status", own.expect_status.as_ref(), StatusSet::parse)?
                .unwrap_or_default(),
            expect_headers,
            expect_version: word("expect_version", own.expect_version.as_ref())?,
            expect_within: parse("expect_within", own.expect_within.as_deref(), parse_timeout)?,
            body_match,
            body_forbid,
            body_limit_bytes: parse("body_limit", own.body_limit.as_deref(), parse_body_limit)?
                .unwrap_or(BODY_LIMIT_BYTES_DEFAULT),
            body_stop: own.body_stop.unwrap_or(false) && has_patterns,
            charset: word("charset", own.charset.as_ref())?.unwrap_or_default(),
            cert_expires_within,
            redirects,
            redirect_downgrade: own.redirect_downgrade.unwrap_or(false),
            timeout: parse("timeout", own.timeout.as_deref(), parse_timeout)?
                .unwrap_or_else(|| timeout_default(interval)),
            resolve_timeout: parse("resolve_timeout", own.resolve_timeout.as_deref(), parse_timeout)?,
            connect_timeout: parse("connect_timeout", own.connect_timeout.as_deref(), parse_timeout)?,
            tls_timeout: parse("tls_timeout", own.tls_timeout.as_deref(), parse_timeout)?,
            ttfb_timeout: parse("ttfb_timeout", own.ttfb_timeout.as_deref(), parse_timeout)?,
            idle_timeout: parse("idle_timeout", own.idle_timeout.as_deref(), parse_timeout)?,
            retries: number("retries", own.retries, 0, RETRIES_MAX)?,
            dns: word("dns", own.dns.as_ref())?.unwrap_or_default(),
            expand,
            family,
            address,
            source,
            connection: word::<Connection>("connection", own.connection.as_ref())?.unwrap_or_default(),
            close: word("close", own.close.as_ref())?.unwrap_or_default(),
            tls,
        };
        check_set_once(&options)?;
        check_request_size(&url, &options)?;
        let name = own.name.ok_or_else(|| error("name", "is missing"))?;
        Ok(Endpoint { name, url, interval, tags, options: Arc::new(options) })
    }

    /// What must be right before anything is taken from the defaults: the name, which has none, and names that are
    /// given twice in one place.
    fn check_own(&self) -> Result<(), FieldError> {
        let name = self.name.as_ref().ok_or_else(|| error("name", "is missing"))?;
        check_text(name, 1, NAME_BYTES_MAX).map_err(in_field("name"))?;
        if let Some((name, _)) = self.secret_headers.iter().find(|(name, _)| has_field(&self.headers, name)) {
            return Err(error("secret_headers", format!("{} is in headers too", shown(name))));
        }
        if self.basic_auth.is_some() && self.bearer.is_some() {
            return Err(error("bearer", "is one way to log in, and basic_auth another; give one"));
        }
        Ok(())
    }

    /// Which of the fields that only https has is given, if any.
    fn tls_fields_given(&self) -> Option<&'static str> {
        match (self.tls == TlsDraft::default(), &self.cert_expires_within) {
            (false, _) => Some("tls"),
            (true, Some(_)) => Some("cert_expires_within"),
            (true, None) => None,
        }
    }

    /// Fills what is open from the defaults.
    fn inherit(&mut self, defaults: &Self) {
        let sets = |draft: &Self, name: &str| {
            has_field(&draft.headers, name) || has_field(&draft.secret_headers, name)
        };
        // What an own field says, no default says otherwise by another field.
        let [authorization, user_agent, accept_encoding] =
            ["authorization", "user-agent", "accept-encoding"].map(|name| sets(self, name));
        let log_in = self.basic_auth.is_some() || self.bearer.is_some();
        let own_user_agent = self.user_agent.is_some();
        let own_accept_encoding = self.accept_encoding.is_some();
        let is_replaced = |name: &str| {
            sets(self, name)
                || (log_in && name.eq_ignore_ascii_case("authorization"))
                || (own_user_agent && name.eq_ignore_ascii_case("user-agent"))
                || (own_accept_encoding && name.eq_ignore_ascii_case("accept-encoding"))
        };
        let inherited = |fields: &[(String, String)]| -> Vec<(String, String)> {
            fields.iter().filter(|(name, _)| !is_replaced(name)).cloned().collect()
        };
        let (mut headers, mut secret_headers) =
            (inherited(&defaults.headers), inherited(&defaults.secret_headers));
        headers.append(&mut self.headers);
        secret_headers.append(&mut self.secret_headers);
        (self.headers, self.secret_headers) = (headers, secret_headers);
        if !log_in && !authorization {
            inherit!(self, defaults, basic_auth bearer);
        }
        if !user_agent {
            inherit!(self, defaults, user_agent);
        }
        if !accept_encoding {
            inherit!(self, defaults, accept_encoding);
        }

        let own_rules = std::mem::take(&mut self.expect_headers);
        let is_open = |(name, _): &&(String, FieldRule)| !has_field(&own_rules, name);
        self.expect_headers = defaults.expect_headers.iter().filter(is_open).cloned().collect();
        self.expect_headers.extend(own_rules);
        let mut tags = defaults.tags.clone();
        tags.append(&mut self.tags);
        self.tags = tags;
        inherit!(self.tls, defaults.tls, ca_file client_cert client_key server_name insecure min_version max_version
            resumption);
        inherit!(self, defaults, url interval enabled priority method body expect expect_status expect_version
            expect_within body_match body_forbid body_limit body_stop charset cert_expires_within redirects
            redirect_downgrade timeout resolve_timeout connect_timeout tls_timeout ttfb_timeout idle_timeout retries
            dns expand family address source connection close);
    }
}

impl TlsDraft {
    fn validate(&self) -> Result<Tls, FieldError> {
        let tls = in_field("tls");
        let path = |name: &str, path: &Option<String>| match path {
            Some(path) => check_text(path, 1, PATH_BYTES_MAX)
                .map(|()| Some(path.clone()))
                .map_err(|reason| tls(format!("{name} {reason}"))),
            None => Ok(None),
        };
        let version = |name: &str, version: &Option<String>| {
            let version = version.as_ref().map(|text| text.parse());
            version.transpose().map_err(|reason: String| tls(format!("{name}: {reason}")))
        };
        let client_key = self.client_key.as_deref().map(parse_key).transpose();
        let server_name = self.server_name.as_deref().map(parse_server_name).transpose();
        let validated = Tls {
            ca_file: path("ca_file", &self.ca_file)?,
            client_cert: path("client_cert", &self.client_cert)?,
            client_key: client_key.map_err(|reason| tls(format!("client_key {reason}")))?,
            server_name: server_name.map_err(|reason| tls(format!("server_name {reason}")))?,
            insecure: self.insecure.unwrap_or(false),
            min_version: version("min_version", &self.min_version)?,
            max_version: version("max_version", &self.max_version)?,
            resumption: self.resumption.unwrap_or(false),
        };
        match (&validated.client_cert, &validated.client_key) {
            (Some(_), None) => return Err(tls("client_cert needs its client_key".to_owned())),
            (None, Some(_)) => return Err(tls("client_key needs its client_cert".to_owned())),
            _ => {}
        }
        if let (Some(min), Some(max)) = (validated.min_version, validated.max_version)
            && min > max
        {
            return Err(tls(format!("min_version {min} is newer than max_version {max}")));
        }
        Ok(validated)
    }
}

/// The timeout of an endpoint that names none.
#[must_use]
pub fn timeout_default(interval: Micros) -> Micros {
    TIMEOUT_DEFAULT.min(interval)
}

fn error(field: &'static str, message: impl Into<String>) -> FieldError {
    FieldError::new(field, message)
}

fn in_field(field: &'static str) -> impl Fn(String) -> FieldError {
    move |message| FieldError::new(field, message)
}

/// The value of a field, if it is given.
fn parse<'a, Given: ?Sized, Value>(
    field: &'static str,
    given: Option<&'a Given>,
    parse: impl FnOnce(&'a Given) -> Result<Value, String>,
) -> Result<Option<Value>, FieldError> {
    given.map(parse).transpose().map_err(in_field(field))
}

/// One word out of a few.
fn word<Choice: FromStr<Err = String>>(
    field: &'static str,
    given: Option<&String>,
) -> Result<Option<Choice>, FieldError> {
    parse(field, given, |text| text.parse())
}

fn number(field: &'static str, given: Option<i64>, default: u8, max: u8) -> Result<u8, FieldError> {
    let Some(given) = given else { return Ok(default) };
    match u8::try_from(given) {
        Ok(number) if number <= max => Ok(number),
        _ => Err(error(field, format!("{given} is not a number from 0 to {max}"))),
    }
}

/// A name for a message: bounded, and on one line.
fn shown(name: &str) -> String {
    let start: String = name.chars().take(60).collect();
    if is_token(name) && start.len() == name.len() { start } else { format!("{start:?}") }
}

/// Text for people: bounded, and without characters that would garble a terminal or a log line.
fn check_text(text: &str, bytes_min: usize, bytes_max: usize) -> Result<(), String> {
    if text.len() < bytes_min {
        return Err("is empty".to_owned());
    }
    if text.len() > bytes_max {
        return Err(format!("is {} bytes long; at most {bytes_max} are accepted", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} contains a control character"));
    }
    Ok(())
}

fn parse_url(text: &str) -> Result<Url, String> {
    // Before the parser sees it: percent-encoding may triple the length.
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let too_long = |bytes: usize| format!("is {bytes} bytes long; at most {URL_BYTES_MAX} are accepted");
    if text.len() > URL_BYTES_MAX {
        return Err(too_long(text.len()));
    }
    // The WHATWG parser drops these without a word, which hides that two strings were glued together.
    if text.chars().any(char::is_control) {
        return Err("contains a control character or line break".to_owned());
    }
    if text.trim() != text {
        return Err("begins or ends with a space".to_owned());
    }
    let mut url = Url::parse(text).map_err(|reason| match reason {
        ParseError::RelativeUrlWithoutBase => {
            "has no scheme; write it with http:// or https:// in front".to_owned()
        }
        reason => reason.to_string(),
    })?;
    match url.scheme() {
        "http" | "https" => {}
        // `localhost:8080` is, by the book, a URL of the scheme `localhost`.
        _ if !text.split_once(':').is_some_and(|(_, rest)| rest.starts_with('/')) => {
            return Err("has no scheme; write it with http:// or https:// in front".to_owned());
        }
        scheme => return Err(format!("scheme {scheme:?} cannot be probed, only http and https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or password, and a URL is stored and shown as it is; use basic_auth, whose \
                    password is a reference such as \"env:NAME\""
            .to_owned());
    }
    if url.port() == Some(0) {
        return Err("port 0 cannot be connected to".to_owned());
    }
    // RFC 1035, section 2.3.4; without the dot of the root.
    if url.host_str().unwrap_or("").trim_end_matches('.').len() > 253 {
        return Err("host name is longer than 253 bytes".to_owned());
    }
    url.set_fragment(None);
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(too_long(url.as_str().len()));
    }
    Ok(url)
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address such as \"10.1.2.3\" or \"2001:db8::1\""))
}

fn parse_timeout(text: &str) -> Result<Micros, String> {
    within(text, Micros::from_millis(1), TIMEOUT_MAX)
}

fn parse_cert_expires_within(text: &str) -> Result<Micros, String> {
    const SECOND: Micros = Micros::from_millis(1_000);
    let span = within(text, SECOND, CERT_EXPIRES_WITHIN_MAX)?;
    match span.0.is_multiple_of(SECOND.0) {
        true => Ok(span),
        false => Err(format!("{} is not a whole number of seconds", duration::prose(span))),
    }
}

fn parse_body_limit(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    match (1..=BODY_LIMIT_BYTES_MAX).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("{text} is not from 1 to {}", size::write(BODY_LIMIT_BYTES_MAX))),
    }
}

fn parse_user_agent(text: &str) -> Result<String, String> {
    check_text(text, 1, USER_AGENT_BYTES_MAX)?;
    match text.is_ascii() {
        true => Ok(text.to_owned()),
        false => Err("is not ASCII".to_owned()),
    }
}

fn parse_codings(words: &Vec<String>) -> Result<Vec<Coding>, String> {
    let mut codings = Vec::with_capacity(words.len().min(Coding::ALL.len()));
    for word in words {
        let coding = word.parse()?;
        if codings.contains(&coding) {
            return Err(format!("{coding} is given twice"));
        }
        codings.push(coding);
    }
    Ok(codings)
}

fn parse_credentials(
    basic_auth: Option<&(String, String)>,
    bearer: Option<&String>,
) -> Result<Option<Credentials>, FieldError> {
    if let Some((username, password)) = basic_auth {
        let basic = in_field("basic_auth");
        check_text(username, 1, USERNAME_BYTES_MAX).map_err(|reason| basic(format!("username {reason}")))?;
        // RFC 7617, section 2: the origin would take what follows for a part of the password.
        if username.contains(':') {
            return Err(basic("username contains a colon".to_owned()));
        }
        let password = password.parse().map_err(|reason| basic(format!("password {reason}")))?;
        return Ok(Some(Credentials::Basic { username: username.clone(), password }));
    }
    Ok(parse("bearer", bearer, |text| text.parse())?.map(Credentials::Bearer))
}

/// A path is clear enough where nothing but a file can hold the thing.
fn parse_key(text: &str) -> Result<SecretRef, String> {
    let is_reference = ["env:", "file:", "cred:"].iter().any(|kind| text.starts_with(kind));
    if is_reference {
        return text.parse();
    }
    // A key itself, pasted, has line breaks; it is not repeated.
    if text.chars().any(char::is_control) {
        return Err("contains a control character or line break; write the path of a file".to_owned());
    }
    format!("file:{text}").parse()
}

fn parse_server_name(text: &str) -> Result<String, String> {
    check_text(text, 1, 253)?;
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    match Host::parse(text) {
        Ok(Host::Domain(name)) if name == text => Ok(name),
        _ => Err(format!("{text:?} is neither a host name in lower case nor an IP address")),
    }
}

fn parse_source(text: &str) -> Result<Source, String> {
    if let Ok(address) = text.parse() {
        return Ok(Source::Address(address));
    }
    // What the kernel takes for the name of an interface (`dev_valid_name`); without what is a mistyped address.
    let is_name = (1..=INTERFACE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
        && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match is_name {
        true => Ok(Source::Interface(text.to_owned())),
        false => {
            Err(format!("{text:?} is neither an IP address nor the name of an interface such as \"eth0\""))
        }
    }
}

/// An address of one family cannot connect to one of the other.
fn check_family(source: Option<&Source>, address: Option<IpAddr>, family: Family) -> Result<(), FieldError> {
    let Some(Source::Address(source)) = source else { return Ok(()) };
    let version = |is_ipv4| if is_ipv4 { "IPv4" } else { "IPv6" };
    let other = match (address, family) {
        (Some(address), _) => (address.is_ipv4() != source.is_ipv4()).then_some("`address`"),
        (None, Family::Only4) => (!source.is_ipv4()).then_some("`family`"),
        (None, Family::Only6) => source.is_ipv4().then_some("`family`"),
        (None, _) => None,
    };
    match other {
        Some(other) => Err(error("source", format!("is {}, and {other} is not", version(source.is_ipv4())))),
        None => Ok(()),
    }
}

fn within(text: &str, min: Micros, max: Micros) -> Result<Micros, String> {
    let span = duration::parse(text)?;
    let given = duration::prose(span);
    if span < min {
        return Err(format!("{given} is shorter than {}", duration::prose(min)));
    }
    if span > max {
        return Err(format!("{given} is longer than {}", duration::prose(max)));
    }
    if span.0 % 1_000 != 0 {
        return Err(format!("{given} is not a whole number of milliseconds"));
    }
    Ok(span)
}

/// Fields that say where a message ends or what becomes of the connection. Set by a user they would make
/// the origin read something else than was sent (request smuggling), or leave `connection` untrue.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// Checks names and values, and moves the values of one field together, as the first is spelled (RFC 9110,
/// section 5.3: their order counts, that of different fields does not).
fn check_headers(given: Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
    let count = given.len();
    if count > REQUEST_FIELDS_MAX {
        return Err(format!("are {count} fields; at most {REQUEST_FIELDS_MAX} are accepted"));
    }
    let mut headers: Vec<(String, String)> = Vec::with_capacity(count);
    for (name, value) in given {
        check_field_name(&name)?;
        // Tab is allowed by RFC 9110, section 5.5; CR, LF and NUL are what smuggles.
        if value.chars().any(|character| character.is_control() && character != '\t') {
            return Err(format!(
                "the value of {} contains a line break or other control character",
                shown(&name)
            ));
        }
        match headers.iter().rposition(|(other, _)| other.eq_ignore_ascii_case(&name)) {
            Some(_) if name.eq_ignore_ascii_case("host") => {
                // RFC 9112, section 3.2.
                return Err("Host has two values, which every server must refuse".to_owned());
            }
            Some(last) => headers.insert(last + 1, (headers[last].0.clone(), value)),
            None => headers.push((name, value)),
        }
    }
    Ok(headers)
}

fn check_secret_headers(
    given: Vec<(String, String)>,
    others: usize,
) -> Result<Vec<(String, SecretRef)>, String> {
    let count = given.len();
    if count > SECRET_HEADERS_MAX {
        return Err(format!("are {count} fields; at most {SECRET_HEADERS_MAX} are accepted"));
    }
    if count + others > REQUEST_FIELDS_MAX {
        return Err(format!("are too many with headers; at most {REQUEST_FIELDS_MAX} fields are accepted"));
    }
    let mut headers: Vec<(String, SecretRef)> = Vec::with_capacity(count);
    for (name, reference) in given {
        check_field_name(&name)?;
        if has_field(&headers, &name) {
            return Err(format!("{} is given twice", shown(&name)));
        }
        let reference = reference.parse().map_err(|reason| format!("{} {reason}", shown(&name)))?;
        headers.push((name, reference));
    }
    Ok(headers)
}

fn check_field_name(name: &str) -> Result<(), String> {
    if !is_token(name) {
        return Err(format!("{} is not a field name (letters, digits and !#$%&'*+-.^_`|~)", shown(name)));
    }
    if FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
        return Err(match name.eq_ignore_ascii_case("connection") {
            true => "Connection is set by the prober; use connection = \"fresh\" or \"reuse\"".to_owned(),
            false => format!("{name} is set by the prober, from the body: it says where the request ends"),
        });
    }
    Ok(())
}

fn has_field<Value>(headers: &[(String, Value)], name: &str) -> bool {
    headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
}

/// Three fields can be set as header fields and by fields of their own: one of the two must do.
fn check_set_once(options: &Options) -> Result<(), FieldError> {
    let by_field = |name: &str| has_field(&options.headers, name) || has_field(&options.secret_headers, name);
    let log_in = match options.credentials {
        Some(Credentials::Bearer(_)) => "bearer",
        _ => "basic_auth",
    };
    for (field, is_set, name) in [
        (log_in, options.credentials.is_some(), "Authorization"),
        ("user_agent", options.user_agent.is_some(), "User-Agent"),
        ("accept_encoding", !options.accept_encoding.is_empty(), "Accept-Encoding"),
    ] {
        if is_set && by_field(name) {
            return Err(error(field, format!("sets {name}, and a header field does too")));
        }
    }
    Ok(())
}

/// The request as sent, with each UUID at its full length, must not be larger than we keep.
fn check_request_size(url: &Url, options: &Options) -> Result<(), FieldError> {
    const UUID_BYTES: usize = 36;
    // The placeholder in a path is longer as the URL has it, but not in what is sent.
    let grows = |text: &str| text.matches(UUID_PLACEHOLDER).count() * (UUID_BYTES - UUID_PLACEHOLDER.len());
    let in_path = UUID_BYTES - UUID_PLACEHOLDER_IN_PATH.len();
    let url_bytes = url.as_str().len()
        + grows(url.as_str())
        + url.as_str().matches(UUID_PLACEHOLDER_IN_PATH).count() * in_path;
    let field = |(name, value): &(String, String)| name.len() + value.len() + grows(value) + 4;
    let fields: usize = options.headers.iter().map(field).sum();
    let body = options.body.len() + str::from_utf8(&options.body).map_or(0, grows);
    let request = options.method.as_str().len() + url_bytes + fields + body;
    if request <= REQUEST_BYTES_MAX - REQUEST_OVERHEAD_BYTES {
        return Ok(());
    }
    let field = if body > fields { "body" } else { "headers" };
    let message =
        format!("make a request of {request} bytes; at most {REQUEST_BYTES_MAX} can be sent, ours included");
    Err(error(field, message))
}

fn check_expect_headers(given: Vec<(String, FieldRule)>) -> Result<Vec<(String, FieldRule)>, String> {
    if given.len() > EXPECT_HEADERS_MAX {
        return Err(format!("are {} fields; at most {EXPECT_HEADERS_MAX} are accepted", given.len()));
    }
    for (index, (name, rule)) in given.iter().enumerate() {
        if !is_token(name) {
            return Err(format!("{} is not a field name (letters, digits and !#$%&'*+-.^_`|~)", shown(name)));
        }
        if has_field(&given[..index], name) {
            return Err(format!("{} is given twice", shown(name)));
        }
        if let FieldRule::Matches(pattern) = rule {
            check_pattern(pattern).map_err(|reason| format!("the pattern for {} {reason}", shown(name)))?;
        }
    }
    Ok(given)
}

fn check_patterns(field: &'static str, patterns: Option<Vec<String>>) -> Result<Vec<String>, FieldError> {
    let patterns = patterns.unwrap_or_default();
    if patterns.len() > PATTERNS_MAX {
        let reason = format!("are {} patterns; at most {PATTERNS_MAX} are accepted", patterns.len());
        return Err(FieldError::new(field, reason));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        check_pattern(pattern).map_err(|reason| FieldError::new(format!("{field}[{index}]"), reason))?;
    }
    Ok(patterns)
}

/// What it means is the matcher's business; here it must be storable, and shown on one line.
///
/// # Errors
/// What is wrong with it, to go after its name.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("is empty, and would be found everywhere".to_owned());
    }
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("is {} bytes long; at most {PATTERN_BYTES_MAX} are accepted", pattern.len()));
    }
    match pattern.chars().any(|character| character.is_control() && character != '\t') {
        true => Err("contains a line break or other control character; write \\n, \\r or \\x00".to_owned()),
        false => Ok(()),
    }
}

fn check_tags(given: Vec<(String, String)>) -> Result<BTreeMap<String, String>, String> {
    let tags: BTreeMap<String, String> = given.into_iter().collect();
    if tags.len() > TAGS_MAX {
        return Err(format!("are {} in number; at most {TAGS_MAX} are accepted", tags.len()));
    }
    for (key, value) in &tags {
        check_text(key, 1, TAG_BYTES_MAX).map_err(|reason| format!("a key {reason}"))?;
        check_text(value, 0, TAG_BYTES_MAX).map_err(|reason| format!("the value of {key:?} {reason}"))?;
    }
    Ok(tags)
}
