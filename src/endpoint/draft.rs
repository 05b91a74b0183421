//! [`Draft`]: an endpoint as somebody wrote it, and its validation into an [`Endpoint`].
//!
//! The endpoint file, the table and the command line each fill a draft with what they were given, as text,
//! and [`Draft::validate`] decides. So every rule is here once, and a value that came through the table is
//! held to the same rules as one from a file.
//!
//! Out of scope: syntax of the file and line numbers (`file.rs`), uniqueness of names (also there, and a
//! constraint of the table), whether addresses may be probed (the address policy).
//!
//! Messages never repeat a URL or a header's value: either may hold a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use url::{ParseError, Url};

use super::{Connection, Endpoint, Method, StatusSet, duration, is_token};
use crate::clock::Micros;
use crate::config::{
    INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN, NAME_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_FIELDS_MAX,
    REQUEST_OVERHEAD_BYTES, TAG_BYTES_MAX, TAGS_MAX, TIMEOUT_DEFAULT, TIMEOUT_MAX, URL_BYTES_MAX,
};

/// The fields of an endpoint as given, each of them optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Required; has no default.
    pub name: Option<String>,
    /// Required.
    pub url: Option<String>,
    /// An IP address.
    pub address: Option<String>,
    /// A token.
    pub method: Option<String>,
    /// Added to those of the defaults; the same name replaces.
    pub headers: Vec<(String, String)>,
    /// UTF-8.
    pub body: Option<Vec<u8>>,
    /// Entries such as `200-299` or `304`.
    pub expect_status: Option<Vec<String>>,
    /// A duration such as `30s`.
    pub interval: Option<String>,
    /// A duration.
    pub timeout: Option<String>,
    /// `fresh` or `reuse`.
    pub connection: Option<String>,
    /// Added to those of the defaults; the same key replaces.
    pub tags: Vec<(String, String)>,
    /// Whether it is probed.
    pub enabled: Option<bool>,
}

/// What is wrong with which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, named as in the endpoint file.
    pub field: &'static str,
    /// A lower-case fragment.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

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
    pub fn validate(self, defaults: &Self) -> Result<Endpoint, FieldError> {
        let name = self.name.ok_or_else(|| error("name", "is missing"))?;
        check_text(&name, 1, NAME_BYTES_MAX).map_err(in_field("name"))?;

        let url = self.url.as_deref().or(defaults.url.as_deref());
        let url = url.ok_or_else(|| error("url", "is missing"))?;
        let url = parse_url(url).map_err(in_field("url"))?;

        let address = self.address.as_deref().or(defaults.address.as_deref());
        let address = address.map(parse_address).transpose().map_err(in_field("address"))?;

        let method = self.method.as_deref().or(defaults.method.as_deref());
        let method = method.map(Method::new).transpose().map_err(in_field("method"))?.unwrap_or_default();

        let expect_status = self.expect_status.as_ref().or(defaults.expect_status.as_ref());
        let expect_status = expect_status.map(StatusSet::parse).transpose();
        let expect_status = expect_status.map_err(in_field("expect_status"))?.unwrap_or_default();

        let interval = self.interval.as_deref().or(defaults.interval.as_deref());
        let interval = interval.map(parse_interval).transpose();
        let interval = interval.map_err(in_field("interval"))?.unwrap_or(INTERVAL_DEFAULT);

        let timeout = self.timeout.as_deref().or(defaults.timeout.as_deref());
        let timeout = timeout.map(parse_timeout).transpose().map_err(in_field("timeout"))?;
        let timeout = timeout.unwrap_or_else(|| timeout_default(interval));

        let connection = self.connection.as_deref().or(defaults.connection.as_deref());
        let connection = connection.map(str::parse::<Connection>).transpose();
        let connection = connection.map_err(in_field("connection"))?.unwrap_or_default();

        let tags = merge_tags(self.tags, &defaults.tags).map_err(in_field("tags"))?;
        let headers = merge_headers(self.headers, &defaults.headers).map_err(in_field("headers"))?;

        let body = self.body.or_else(|| defaults.body.clone()).unwrap_or_default();
        if let Err(not_text) = str::from_utf8(&body) {
            let message = format!("is not UTF-8 at byte {}; only text can be sent", not_text.valid_up_to());
            return Err(error("body", message));
        }
        let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let request = method.as_str().len() + url.as_str().len() + fields + body.len();
        if request > REQUEST_BYTES_MAX - REQUEST_OVERHEAD_BYTES {
            let field = if body.len() > fields { "body" } else { "headers" };
            let message = format!(
                "make a request of {request} bytes; at most {REQUEST_BYTES_MAX} can be sent, ours included"
            );
            return Err(error(field, message));
        }

        let enabled = self.enabled.or(defaults.enabled).unwrap_or(true);
        Ok(Endpoint {
            name,
            url,
            address,
            method,
            headers,
            body,
            expect_status,
            interval,
            timeout,
            connection,
            tags,
            enabled,
        })
    }
}

/// The timeout of an endpoint that names none.
#[must_use]
pub fn timeout_default(interval: Micros) -> Micros {
    TIMEOUT_DEFAULT.min(interval)
}

fn error(field: &'static str, message: impl Into<String>) -> FieldError {
    FieldError { field, message: message.into() }
}

fn in_field(field: &'static str) -> impl Fn(String) -> FieldError {
    move |message| FieldError { field, message }
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
        ParseError::RelativeUrlWithoutBase => "has no scheme; write it with http:// in front".to_owned(),
        reason => reason.to_string(),
    })?;
    match url.scheme() {
        "http" => {}
        "https" => return Err("TLS is not supported by this version; only http:// can be probed".to_owned()),
        // `localhost:8080` is, by the book, a URL of the scheme `localhost`.
        _ if !text.contains("://") => return Err("has no scheme; write it with http:// in front".to_owned()),
        scheme => return Err(format!("scheme {scheme:?} is not supported; only http:// can be probed")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or password, and a URL is stored and shown as it is; remove them \
                    (basic_auth is not supported by this version)"
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

fn parse_interval(text: &str) -> Result<Micros, String> {
    within(text, INTERVAL_MIN, INTERVAL_MAX)
}

fn parse_timeout(text: &str) -> Result<Micros, String> {
    within(text, Micros::from_millis(1), TIMEOUT_MAX)
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

fn merge_headers(
    own: Vec<(String, String)>,
    defaults: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let count = own.len() + defaults.len();
    if count > REQUEST_FIELDS_MAX {
        return Err(format!("are {count} fields; at most {REQUEST_FIELDS_MAX} are accepted"));
    }
    for (index, (name, _)) in own.iter().enumerate() {
        if has_field(&own[..index], name) {
            return Err(format!("{name} is given twice; join the values with a comma"));
        }
    }
    let mut headers: Vec<(String, String)> =
        defaults.iter().filter(|(name, _)| !has_field(&own, name)).cloned().collect();
    headers.extend(own);
    for (name, value) in &headers {
        if !is_token(name) {
            return Err(format!("{name:?} is not a field name (letters, digits and !#$%&'*+-.^_`|~)"));
        }
        if FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
            return Err(match name.eq_ignore_ascii_case("connection") {
                true => "Connection is set by the prober; use connection = \"fresh\" or \"reuse\"".to_owned(),
                false => {
                    format!("{name} is set by the prober, from the body: it says where the request ends")
                }
            });
        }
        // Tab is allowed by RFC 9110, section 5.5; CR, LF and NUL are what smuggles.
        if value.chars().any(|character| character.is_control() && character != '\t') {
            return Err(format!("the value of {name} contains a line break or other control character"));
        }
    }
    Ok(headers)
}

fn has_field(headers: &[(String, String)], name: &str) -> bool {
    headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
}

fn merge_tags(
    own: Vec<(String, String)>,
    defaults: &[(String, String)],
) -> Result<BTreeMap<String, String>, String> {
    let mut tags: BTreeMap<String, String> = defaults.iter().cloned().collect();
    tags.extend(own);
    if tags.len() > TAGS_MAX {
        return Err(format!("are {} in number; at most {TAGS_MAX} are accepted", tags.len()));
    }
    for (key, value) in &tags {
        check_text(key, 1, TAG_BYTES_MAX).map_err(|reason| format!("a key {reason}"))?;
        check_text(value, 0, TAG_BYTES_MAX).map_err(|reason| format!("the value of {key:?} {reason}"))?;
    }
    Ok(tags)
}
