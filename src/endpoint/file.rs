//! The endpoint file: TOML to endpoints and back.
//!
//! ```toml
//! [defaults]                 # any field of an endpoint but its name
//! interval = "30s"
//!
//! [[endpoint]]
//! name = "shop"              # required, unique
//! url = "https://shop.example/health"    # required
//! body_match = ['"status":\s*"ok"']
//! ```
//!
//! In scope: which keys exist, of which type, on which line; uniqueness of names. What each means, and what a value
//! may be, is docs/endpoints.md's and [`Draft::validate`]'s business. Out of scope: opening files, and what only a node
//! can tell of an endpoint (its secrets, its patterns): the caller of [`parse_checked`] does both.
//!
//! Endpoints with equal options share them, within one file.
//!
//! Invariant: `parse(write(endpoints)) == endpoints`.

use std::fmt;
use std::io::{self, Write};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::draft::TlsDraft;
use super::{
    Credentials, Draft, Endpoint, FieldError, FieldRule, Interner, Options, Tls, draft, duration, size,
};
use crate::config::INTERVAL_DEFAULT;

/// The first thing wrong with a file, and how much more there is. One line when displayed:
/// `endpoints.toml:12: endpoint "shop": interval: 0 s is shorter than 100 ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file, as the user named it.
    pub file: String,
    /// Counted from 1, where the mistake has a place.
    pub line: Option<usize>,
    /// `endpoint "shop"`, `endpoint 3` (counted from 1, if it has no name), or `[defaults]`.
    pub place: Option<String>,
    /// The field, if one is to blame.
    pub field: Option<String>,
    /// A lower-case fragment.
    pub message: String,
    /// How many more problems the file has.
    pub more: usize,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        for part in [&self.place, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.message)?;
        match self.more {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more problem)"),
            more => write!(f, " (and {more} more problems)"),
        }
    }
}

impl std::error::Error for FileError {}

/// The endpoints of a file. `file` is its name for messages.
///
/// The whole file is looked at before anything is said, so that the error can tell how many there are.
pub fn parse(text: &str, file: &str) -> Result<Vec<Endpoint>, FileError> {
    parse_in(text, file, &mut |_path| Err("cannot be read here; write the body itself".to_owned()))
}

/// Reads the file that a `body_file` names; the error is a lower-case fragment that follows the path.
pub type ReadBody<'a> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'a;

/// The same for a file that may name others: `read_body` is given the path as it was written.
pub fn parse_in(text: &str, file: &str, read_body: &mut ReadBody<'_>) -> Result<Vec<Endpoint>, FileError> {
    parse_checked(text, file, read_body, &mut |_endpoint| Ok(()))
}

/// Says what else is wrong with an endpoint that is valid. It may be asked about the same one twice.
pub type Check<'a> = dyn FnMut(&Endpoint) -> Result<(), FieldError> + 'a;

/// The same for a file whose endpoints must pass `check`, too: what is wrong with one gets its line.
pub fn parse_checked(
    text: &str,
    file: &str,
    read_body: &mut ReadBody<'_>,
    check: &mut Check<'_>,
) -> Result<Vec<Endpoint>, FileError> {
    parse_by(text, file, PART_BYTES, read_body, check)
}

/// Fields alone, as they stand in a file below `[[endpoint]]`: lines of `key = value`. `source` names them in messages.
///
/// # Errors
/// The first thing wrong with them, taken by themselves.
pub fn fields_of(text: &str, source: &str) -> Result<Draft, FileError> {
    let mut problems = Problems::new(text, source);
    let table = match DeTable::parse(text) {
        Ok(document) => document.into_inner(),
        Err(syntax) => {
            problems.add(syntax.span().map(|span| span.start), None, None, one_line(syntax.message()));
            return Err(problems.finish());
        }
    };
    let mut no_files = |_path: &str| Err("cannot be read here; write the body itself".to_owned());
    let section = read_section(table, "fields", &mut problems, &mut no_files);
    match problems.count {
        0 => Ok(section.draft),
        _ => Err(problems.finish()),
    }
}

/// A file that [`parse`] turns into the same endpoints: fields in a fixed order, defaults left out.
#[must_use]
pub fn write(endpoints: &[Endpoint]) -> String {
    let mut out = String::with_capacity(endpoints.len() * 128);
    for (index, endpoint) in endpoints.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        write_endpoint(&mut out, endpoint);
    }
    out
}

/// The same for any number of endpoints, one at a time; returns how many they were.
pub fn write_to(out: &mut impl Write, endpoints: impl Iterator<Item = Endpoint>) -> io::Result<u64> {
    let mut count = 0;
    let mut text = String::new();
    for endpoint in endpoints {
        text.clear();
        if count > 0 {
            text.push('\n');
        }
        write_endpoint(&mut text, &endpoint);
        out.write_all(text.as_bytes())?;
        count += 1;
    }
    Ok(count)
}

// --- reading --------------------------------------------------------------------------------------------

/// A large file is parsed in parts of about this size: the parser's tree takes 25 times the text.
const PART_BYTES: usize = 64 * 1024;

fn parse_by(
    text: &str,
    file: &str,
    part_bytes: usize,
    read_body: &mut ReadBody<'_>,
    check: &mut Check<'_>,
) -> Result<Vec<Endpoint>, FileError> {
    let cuts = cuts(text, part_bytes);
    if let Some(result) = parse_parts(text, file, &cuts, read_body, check) {
        return result;
    }
    // Only a whole document tells what is wrong with its syntax.
    parse_parts(text, file, &[], read_body, check).expect("a document in one part is never given up")
}

/// Where a document may be cut: before lines that begin with `[[endpoint]]`.
///
/// Such a line is a header wherever it stands, or the document is wrong; only inside of a multi-line string it
/// may be anything. So a document with one of those stays whole.
fn cuts(text: &str, part_bytes: usize) -> Vec<usize> {
    let mut cuts = Vec::new();
    if text.len() <= part_bytes || text.contains("\"\"\"") || text.contains("'''") {
        return cuts;
    }
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // What stands before the first endpoint is a part of its own, whatever its size.
        let full = cuts.last().is_none_or(|cut| at - cut >= part_bytes);
        if full && line.trim_start().starts_with("[[endpoint]]") {
            cuts.push(at);
        }
        at += line.len();
    }
    cuts
}

/// Parses a document cut at `cuts`. `None` if the cut document is no simple one, or is wrong as TOML: then it
/// must be looked at as a whole. All parts but the first consist of endpoints alone.
fn parse_parts(
    text: &str,
    file: &str,
    cuts: &[usize],
    read_body: &mut ReadBody<'_>,
    check: &mut Check<'_>,
) -> Option<Result<Vec<Endpoint>, FileError>> {
    let mut reader = Reader {
        problems: Problems::new(text, file),
        read_body,
        check,
        defaults: Section::default(),
        defaults_blamed: Vec::new(),
        interner: Interner::default(),
        endpoints: Vec::new(),
        name_offsets: Vec::new(),
        seen: 0,
    };
    let (first, whole) = (cuts.first().copied().unwrap_or(text.len()), cuts.is_empty());
    match DeTable::parse(&text[..first]) {
        Ok(document) if !whole && document.get_ref().contains_key("endpoint") => return None,
        Ok(document) => reader.read_document(document.into_inner()),
        Err(_) if !whole => return None,
        Err(syntax) => {
            let at = syntax.span().map(|span| span.start);
            reader.problems.add(at, None, None, one_line(syntax.message()));
            return Some(Err(reader.problems.finish()));
        }
    }
    for (index, start) in cuts.iter().enumerate() {
        let end = cuts.get(index + 1).copied().unwrap_or(text.len());
        let document = DeTable::parse(&text[*start..end]).ok()?.into_inner();
        reader.problems.base = *start;
        for (key, value) in document {
            match (key.get_ref().as_ref(), value.into_inner()) {
                ("endpoint", DeValue::Array(items)) => reader.read_endpoints(items),
                _ => return None,
            }
        }
    }
    reader.problems.base = 0;
    Some(reader.finish())
}

/// What has been read so far.
struct Reader<'text, 'caller> {
    problems: Problems<'text>,
    read_body: &'caller mut ReadBody<'caller>,
    check: &'caller mut Check<'caller>,
    defaults: Section,
    /// Where those of the defaults stand that `check` has found wrong.
    defaults_blamed: Vec<usize>,
    interner: Interner,
    endpoints: Vec<Endpoint>,
    /// Where the name of each stands.
    name_offsets: Vec<usize>,
    /// How many there were, bad ones too.
    seen: usize,
}

impl Reader<'_, '_> {
    fn read_document(&mut self, document: DeTable<'_>) {
        let problems = &mut self.problems;
        let mut items = DeArray::new();
        for (key, value) in document {
            let at = key.span().start;
            match (key.get_ref().as_ref(), value.into_inner()) {
                ("defaults", DeValue::Table(table)) => {
                    self.defaults = read_section(table, "[defaults]", problems, self.read_body);
                    check_defaults(&mut self.defaults, problems);
                }
                ("defaults", other) => {
                    let message = wrong_type("a table", &other, "[defaults]");
                    problems.add(Some(at), None, Some("defaults"), message);
                }
                ("endpoint", DeValue::Array(array)) => items = array,
                ("endpoint", other) => {
                    let message = wrong_type("a list of tables", &other, "[[endpoint]], with two brackets");
                    problems.add(Some(at), None, Some("endpoint"), message);
                }
                (other, _) => {
                    let message = unknown_key(other, &["defaults", "endpoint"], &[]);
                    problems.add(Some(at), None, None, message);
                }
            }
        }
        self.read_endpoints(items);
    }

    fn read_endpoints(&mut self, items: DeArray<'_>) {
        for item in items {
            self.seen += 1;
            let at = item.span().start;
            let table = match item.into_inner() {
                DeValue::Table(table) => table,
                other => {
                    let message = wrong_type("a table", &other, "[[endpoint]], then a line for each field");
                    self.problems.add(Some(at), Some(&format!("endpoint {}", self.seen)), None, message);
                    continue;
                }
            };
            let place = match table.get("name").map(Spanned::get_ref) {
                Some(DeValue::String(name)) if !name.is_empty() => format!("endpoint {name:?}"),
                _ => format!("endpoint {}", self.seen),
            };
            let Section { draft, offsets, broken } =
                read_section(table, &place, &mut self.problems, self.read_body);
            if broken {
                continue;
            }
            match draft.validate(&self.defaults.draft) {
                Ok(mut endpoint) => {
                    self.interner.intern(&mut endpoint);
                    if let Err(error) = (self.check)(&endpoint) {
                        self.add_checked(error, &place, &offsets, at);
                    }
                    self.name_offsets.push(self.problems.base + offset_of(&offsets, "name").unwrap_or(at));
                    self.endpoints.push(endpoint);
                }
                Err(error) => {
                    let at = offset_of(&offsets, error.key()).unwrap_or(at);
                    self.problems.add(Some(at), Some(&place), Some(&error.field), error.message);
                }
            }
        }
    }

    /// Adds what `check` has found, where the field stands: if that is in the defaults, then once.
    fn add_checked(
        &mut self,
        error: FieldError,
        place: &str,
        offsets: &[(&'static str, usize)],
        endpoint_at: usize,
    ) {
        let key = error.key();
        let own = offset_of(offsets, key);
        if let (None, Some(at)) = (own, offset_of(&self.defaults.offsets, key)) {
            if !self.defaults_blamed.contains(&at) {
                self.defaults_blamed.push(at);
                self.problems.add_whole(Some(at), Some("[defaults]"), Some(&error.field), error.message);
            }
            return;
        }
        self.problems.add(Some(own.unwrap_or(endpoint_at)), Some(place), Some(&error.field), error.message);
    }

    fn finish(mut self) -> Result<Vec<Endpoint>, FileError> {
        find_duplicates(&self.endpoints, &self.name_offsets, &mut self.problems);
        match self.problems.count {
            0 => Ok(self.endpoints),
            _ => Err(self.problems.finish()),
        }
    }
}

/// The keys of an endpoint, in the order in which they are written.
const KEYS: [&str; 44] = [
    "name",
    "url",
    "interval",
    "enabled",
    "priority",
    "method",
    "headers",
    "secret_headers",
    "body",
    "body_base64",
    "body_file",
    "basic_auth",
    "bearer",
    "user_agent",
    "accept_encoding",
    "expect",
    "expect_status",
    "expect_headers",
    "expect_version",
    "expect_within",
    "body_match",
    "body_forbid",
    "body_limit",
    "body_stop",
    "charset",
    "cert_expires_within",
    "redirects",
    "redirect_downgrade",
    "timeout",
    "resolve_timeout",
    "connect_timeout",
    "tls_timeout",
    "ttfb_timeout",
    "idle_timeout",
    "retries",
    "dns",
    "expand",
    "family",
    "address",
    "source",
    "connection",
    "close",
    "tls",
    "tags",
];

/// The keys of `tls`.
const TLS_KEYS: [&str; 8] = [
    "ca_file",
    "client_cert",
    "client_key",
    "server_name",
    "insecure",
    "min_version",
    "max_version",
    "resumption",
];

/// Three ways to give a body: only one of them at a time.
const BODY_KEYS: [&str; 3] = ["body", "body_base64", "body_file"];

/// What others call it: their users are told the name that it has here.
const KEYS_ELSEWHERE: [(&str, &str); 16] = [
    ("auth_ref", "basic_auth or bearer"),
    ("basic_auth_password", "basic_auth"),
    ("bearer_token", "bearer"),
    ("body_size_limit", "body_limit"),
    ("fail_if_body_matches_regexp", "body_forbid"),
    ("fail_if_body_not_matches_regexp", "body_match"),
    ("follow_redirects", "redirects"),
    ("insecure_skip_verify", "tls = { insecure = true }"),
    ("max_redirects", "redirects"),
    ("no_follow_redirects", "redirects = 0"),
    ("preferred_ip_protocol", "family"),
    ("processing_timeout", "ttfb_timeout"),
    ("tls_config", "tls"),
    ("transfer_timeout", "idle_timeout"),
    ("valid_http_versions", "expect_version"),
    ("valid_status_codes", "expect_status"),
];

/// A table's fields as given, and where each stands.
#[derive(Debug, Default)]
struct Section {
    draft: Draft,
    offsets: Vec<(&'static str, usize)>,
    /// Something in it was reported, so that what is left is not worth validating.
    broken: bool,
}

fn offset_of(offsets: &[(&'static str, usize)], field: &str) -> Option<usize> {
    offsets.iter().find(|(name, _)| *name == field).map(|(_, at)| *at)
}

fn read_section(
    table: DeTable<'_>,
    place: &str,
    problems: &mut Problems<'_>,
    read_body: &mut ReadBody<'_>,
) -> Section {
    let mut section = Section { offsets: Vec::with_capacity(table.len()), ..Section::default() };
    for (key, value) in table {
        let at = key.span().start;
        let Some(known) = KEYS.iter().find(|known| **known == key.get_ref().as_ref()) else {
            let message = unknown_key(key.get_ref(), &KEYS, &KEYS_ELSEWHERE);
            problems.add(Some(at), Some(place), None, message);
            section.broken = true;
            continue;
        };
        let other = BODY_KEYS.contains(known).then(|| {
            section
                .offsets
                .iter()
                .find(|(earlier, _)| BODY_KEYS.contains(earlier))
                .map(|(earlier, _)| *earlier)
        });
        let read = match other.flatten() {
            Some(other) => Err((None, format!("is a body, and so is {other}; give one"))),
            None => read_field(&mut section.draft, known, value, read_body),
        };
        section.offsets.push((known, at));
        if let Err((inner, message)) = read {
            problems.add(Some(inner.unwrap_or(at)), Some(place), Some(known), message);
            section.broken = true;
        }
    }
    section
}

/// Where inside of a value something is wrong, if not the value itself, and what.
type Mistake = (Option<usize>, String);

/// Puts a value into its field if it has the right type; else says where and why not.
fn read_field(
    draft: &mut Draft,
    key: &'static str,
    value: Spanned<DeValue<'_>>,
    read_body: &mut ReadBody<'_>,
) -> Result<(), Mistake> {
    let value = value.into_inner();
    let text = |value, example| string(value, example).map(Some).map_err(|message| (None, message));
    let duration = |value| duration_text(value).map(Some).map_err(|message| (None, message));
    match key {
        "name" => draft.name = text(value, "\"shop\"")?,
        "url" => draft.url = text(value, "\"https://…\"")?,
        "interval" => draft.interval = duration(value)?,
        "enabled" => draft.enabled = Some(truth(value)?),
        "priority" => draft.priority = Some(whole(value, "5")?),
        "method" => draft.method = text(value, "\"POST\"")?,
        "headers" => draft.headers = fields(value)?,
        "secret_headers" => draft.secret_headers = string_table(value, "{ X-Key = \"env:KEY\" }")?,
        "body" => draft.body = text(value, "a string")?.map(String::into_bytes),
        "body_base64" => {
            let encoded = string(value, "a string").map_err(here)?;
            let decoded =
                STANDARD.decode(encoded).map_err(|error| here(format!("is not base64: {error}")))?;
            draft.body = Some(decoded);
        }
        "body_file" => {
            let path = string(value, "\"ping.json\"").map_err(here)?;
            draft.body = Some(read_body(&path).map_err(|reason| here(format!("{path:?} {reason}")))?);
        }
        "basic_auth" => draft.basic_auth = Some(basic_auth(value)?),
        "bearer" => draft.bearer = text(value, "\"env:TOKEN\"")?,
        "user_agent" => draft.user_agent = text(value, "\"probe (ops@shop.example)\"")?,
        "accept_encoding" => draft.accept_encoding = Some(strings(value, "[\"gzip\", \"br\"]")?),
        "expect" => draft.expect = text(value, "\"up\" or \"down\"")?,
        "expect_status" => draft.expect_status = Some(statuses(value)?),
        "expect_headers" => draft.expect_headers = rules(value)?,
        "expect_version" => draft.expect_version = text(value, "\"1.1\"")?,
        "expect_within" => draft.expect_within = duration(value)?,
        "body_match" => draft.body_match = Some(strings(value, "[\"ok\"]")?),
        "body_forbid" => draft.body_forbid = Some(strings(value, "[\"error\"]")?),
        "body_limit" => draft.body_limit = Some(size_text(value)?),
        "body_stop" => draft.body_stop = Some(truth(value)?),
        "charset" => draft.charset = text(value, "\"raw\" or \"auto\"")?,
        "cert_expires_within" => draft.cert_expires_within = duration(value)?,
        "redirects" => draft.redirects = Some(whole(value, "10, or 0 for none")?),
        "redirect_downgrade" => draft.redirect_downgrade = Some(truth(value)?),
        "timeout" => draft.timeout = duration(value)?,
        "resolve_timeout" => draft.resolve_timeout = duration(value)?,
        "connect_timeout" => draft.connect_timeout = duration(value)?,
        "tls_timeout" => draft.tls_timeout = duration(value)?,
        "ttfb_timeout" => draft.ttfb_timeout = duration(value)?,
        "idle_timeout" => draft.idle_timeout = duration(value)?,
        "retries" => draft.retries = Some(whole(value, "2")?),
        "dns" => draft.dns = text(value, "\"cached\" or \"every\"")?,
        "expand" => draft.expand = text(value, "\"one\" or \"all\"")?,
        "family" => draft.family = text(value, "\"4\", with quotes")?,
        "address" => draft.address = text(value, "\"10.1.2.3\"")?,
        "source" => draft.source = text(value, "\"10.1.2.3\" or \"eth0\"")?,
        "connection" => draft.connection = text(value, "\"fresh\" or \"reuse\"")?,
        "close" => draft.close = text(value, "\"peer\", \"fin\" or \"rst\"")?,
        "tls" => draft.tls = tls(value)?,
        "tags" => draft.tags = string_table(value, "{ team = \"shop\" }")?,
        _ => unreachable!("{key} is one of KEYS"),
    }
    Ok(())
}

/// A mistake in the value as such.
const fn here(message: String) -> Mistake {
    (None, message)
}

fn truth(value: DeValue<'_>) -> Result<bool, Mistake> {
    match value {
        DeValue::Boolean(truth) => Ok(truth),
        other => Err(here(wrong_type("a boolean", &other, "true or false"))),
    }
}

fn whole(value: DeValue<'_>, example: &str) -> Result<i64, Mistake> {
    match &value {
        // What does not fit is out of bounds, and validation says of which.
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().parse().unwrap_or(i64::MAX)),
        other => Err(here(wrong_type("a whole number", other, example))),
    }
}

/// A size: text with a unit, or a number of bytes.
fn size_text(value: DeValue<'_>) -> Result<String, Mistake> {
    match &value {
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        _ => string(value, "\"1MiB\"").map_err(here),
    }
}

fn string(value: DeValue<'_>, example: &str) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.into_owned()),
        other => Err(wrong_type("a string", &other, example)),
    }
}

fn duration_text(value: DeValue<'_>) -> Result<String, String> {
    let number = match &value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        _ => "",
    };
    // The unit is all that is missing if it would be a duration with one.
    if duration::parse(&format!("{number}s")).is_ok() {
        return Err(format!("{number} has no unit; write \"{number}s\" if seconds are meant"));
    }
    string(value, "\"30s\"")
}

fn statuses(value: DeValue<'_>) -> Result<Vec<String>, Mistake> {
    let entry = |value: DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        other => Err(wrong_type("a status", &other, "[\"200-299\", 304]")),
    };
    match value {
        DeValue::Array(array) => array
            .into_iter()
            .map(|item| {
                let at = item.span().start;
                entry(item.into_inner()).map_err(|message| (Some(at), message))
            })
            .collect(),
        // One status without brackets is clear enough.
        other => Ok(vec![entry(other).map_err(|message| (None, message))?]),
    }
}

/// A list of strings; one without brackets is clear enough.
fn strings(value: DeValue<'_>, example: &str) -> Result<Vec<String>, Mistake> {
    let entry = |item: Spanned<DeValue<'_>>| {
        let at = item.span().start;
        string(item.into_inner(), example).map_err(|message| (Some(at), message))
    };
    match value {
        DeValue::Array(array) => array.into_iter().map(entry).collect(),
        other => Ok(vec![string(other, example).map_err(here)?]),
    }
}

/// The entries of a table in the order of the file (the parser sorts by key, the offsets tell), each with its place.
fn entries<'a>(
    value: DeValue<'a>,
    example: &str,
) -> Result<Vec<(usize, String, Spanned<DeValue<'a>>)>, Mistake> {
    let DeValue::Table(table) = value else {
        return Err(here(wrong_type("a table", &value, example)));
    };
    let mut entries: Vec<_> = table
        .into_iter()
        .map(|(key, value)| (key.span().start, key.into_inner().into_owned(), value))
        .collect();
    entries.sort_unstable_by_key(|(at, _, _)| *at);
    Ok(entries)
}

fn string_table(value: DeValue<'_>, example: &str) -> Result<Vec<(String, String)>, Mistake> {
    let entry =
        |(at, key, value): (usize, String, Spanned<DeValue<'_>>)| match string(value.into_inner(), example) {
            Ok(text) => Ok((key, text)),
            Err(message) => Err((Some(at), format!("{key:?} {message}"))),
        };
    entries(value, example)?.into_iter().map(entry).collect()
}

/// Header fields: a name, and one value or several.
fn fields(value: DeValue<'_>) -> Result<Vec<(String, String)>, Mistake> {
    const EXAMPLE: &str = "{ Accept = \"text/html\" }";
    let mut fields: Vec<(String, String)> = Vec::new();
    for (at, name, value) in entries(value, EXAMPLE)? {
        // The name may be of any length, and its values of any number: what is checked is bounded.
        if fields.len() <= crate::config::REQUEST_FIELDS_MAX
            && fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name))
        {
            let message =
                format!("{0} is given twice; write {0} = [\"…\", \"…\"] for two values", bare(&name));
            return Err((Some(at), message));
        }
        let values = strings(value.into_inner(), EXAMPLE);
        let values =
            values.map_err(|(inner, message)| (inner.or(Some(at)), format!("{name:?} {message}")))?;
        if values.is_empty() {
            return Err((Some(at), format!("{name:?} has no value")));
        }
        fields.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    Ok(fields)
}

/// What is expected of header fields.
fn rules(value: DeValue<'_>) -> Result<Vec<(String, FieldRule)>, Mistake> {
    const EXAMPLE: &str = "{ Content-Type = \"^text/html\", X-Debug = false }";
    let rule = |(at, name, value): (usize, String, Spanned<DeValue<'_>>)| match value.into_inner() {
        DeValue::String(pattern) => Ok((name, FieldRule::Matches(pattern.into_owned()))),
        DeValue::Boolean(true) => Ok((name, FieldRule::Present)),
        DeValue::Boolean(false) => Ok((name, FieldRule::Absent)),
        other => {
            let message = wrong_type("a pattern, true or false", &other, EXAMPLE);
            Err((Some(at), format!("{name:?} {message}")))
        }
    };
    entries(value, EXAMPLE)?.into_iter().map(rule).collect()
}

fn basic_auth(value: DeValue<'_>) -> Result<(String, String), Mistake> {
    const EXAMPLE: &str = "{ username = \"probe\", password = \"env:PASSWORD\" }";
    let (mut username, mut password) = (None, None);
    for (at, key, value) in entries(value, EXAMPLE)? {
        let field = match key.as_str() {
            "username" => &mut username,
            "password" => &mut password,
            _ => return Err((Some(at), unknown_key(&key, &["username", "password"], &[]))),
        };
        let text = string(value.into_inner(), EXAMPLE);
        *field = Some(text.map_err(|message| (Some(at), format!("{key} {message}")))?);
    }
    match (username, password) {
        (Some(username), Some(password)) => Ok((username, password)),
        (None, _) => Err(here(format!("username is missing; write {EXAMPLE}"))),
        (_, None) => Err(here(format!("password is missing; write {EXAMPLE}"))),
    }
}

fn tls(value: DeValue<'_>) -> Result<TlsDraft, Mistake> {
    const EXAMPLE: &str = "{ ca_file = \"/etc/ssl/ours.pem\" }";
    let mut tls = TlsDraft::default();
    for (at, key, value) in entries(value, EXAMPLE)? {
        let value = value.into_inner();
        let in_key = |(inner, message): Mistake| (inner.or(Some(at)), format!("{key} {message}"));
        let text = |value, example| string(value, example).map(Some).map_err(|message| in_key(here(message)));
        match key.as_str() {
            "ca_file" => tls.ca_file = text(value, "a path")?,
            "client_cert" => tls.client_cert = text(value, "a path")?,
            "client_key" => tls.client_key = text(value, "a path or \"cred:NAME\"")?,
            "server_name" => tls.server_name = text(value, "\"shop.example\"")?,
            "insecure" => tls.insecure = Some(truth(value).map_err(in_key)?),
            "min_version" => tls.min_version = text(value, "\"1.2\"")?,
            "max_version" => tls.max_version = text(value, "\"1.3\"")?,
            "resumption" => tls.resumption = Some(truth(value).map_err(in_key)?),
            _ => return Err((Some(at), unknown_key(&key, &TLS_KEYS, &[]))),
        }
    }
    Ok(tls)
}

/// Validates what `[defaults]` says by itself, so that a mistake in it is reported once, where it stands.
fn check_defaults(defaults: &mut Section, problems: &mut Problems<'_>) {
    let place = Some("[defaults]");
    if let Some(at) = offset_of(&defaults.offsets, "name") {
        let message = "every endpoint has a name of its own".to_owned();
        problems.add(Some(at), place, Some("name"), message);
        defaults.broken = true;
    }
    // An endpoint that has everything from them: what is at odds only with an endpoint's own fields is no mistake.
    let of_url = |draft: &Draft| match draft.url {
        None => Draft::of_url("https://defaults/"),
        Some(_) => Draft { url: None, ..Draft::of_url("defaults") },
    };
    if let Err(error) = of_url(&defaults.draft).validate(&defaults.draft)
        && !defaults.broken
    {
        problems.add(offset_of(&defaults.offsets, error.key()), place, Some(&error.field), error.message);
        defaults.broken = true;
    }
    // What was refused must not be reported again by each endpoint, nor what it would have given them.
    if defaults.broken {
        defaults.draft = Draft { url: Some("https://defaults/".to_owned()), ..Draft::default() };
    }
}

/// Names that two endpoints share; sorted instead of hashed, because it needs no copy of the names.
fn find_duplicates(endpoints: &[Endpoint], name_offsets: &[usize], problems: &mut Problems<'_>) {
    let mut order: Vec<usize> = (0..endpoints.len()).collect();
    order.sort_unstable_by_key(|index| (endpoints[*index].name.as_str(), name_offsets[*index]));
    let mut first = 0;
    for position in 1..order.len() {
        let name = &endpoints[order[position]].name;
        if *name != endpoints[order[first]].name {
            first = position;
            continue;
        }
        let line = problems.line(name_offsets[order[first]]);
        let message = format!("is already used on line {line}");
        let place = format!("endpoint {name:?}");
        problems.add(Some(name_offsets[order[position]]), Some(&place), Some("name"), message);
    }
}

/// Keeps the problem that stands first in the file, and counts.
#[derive(Debug)]
struct Problems<'text> {
    text: &'text str,
    file: &'text str,
    /// Where the part that is being read begins: added to every offset.
    base: usize,
    first: Option<(usize, FileError)>,
    count: usize,
    /// Where the lines begin; made when the first line number is asked for.
    line_starts: Vec<usize>,
}

impl<'text> Problems<'text> {
    fn new(text: &'text str, file: &'text str) -> Self {
        Self { text, file, base: 0, first: None, count: 0, line_starts: Vec::new() }
    }

    fn add(&mut self, at: Option<usize>, place: Option<&str>, field: Option<&str>, message: String) {
        self.add_whole(at.map(|at| self.base + at), place, field, message);
    }

    /// The same with an offset in the whole file.
    fn add_whole(&mut self, at: Option<usize>, place: Option<&str>, field: Option<&str>, message: String) {
        self.count += 1;
        let position = at.unwrap_or(0);
        if self.first.as_ref().is_some_and(|(earliest, _)| *earliest <= position) {
            return;
        }
        let line = at.map(|at| self.line(at));
        let error = FileError {
            file: self.file.to_owned(),
            line,
            place: place.map(str::to_owned),
            field: field.map(str::to_owned),
            message,
            more: 0,
        };
        self.first = Some((position, error));
    }

    /// The line of a byte offset, counted from 1.
    fn line(&mut self, at: usize) -> usize {
        if self.line_starts.is_empty() {
            let newlines = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            self.line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        }
        self.line_starts.partition_point(|start| *start <= at)
    }

    fn finish(self) -> FileError {
        let (_, mut error) = self.first.expect("finish is called after add");
        error.more = self.count - 1;
        error
    }
}

fn wrong_type(wanted: &str, found: &DeValue<'_>, example: &str) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("is {found}, not {wanted}; write {example}")
}

/// `elsewhere`: what others call a key, and what it is called here.
fn unknown_key(key: &str, known: &[&str], elsewhere: &[(&str, &str)]) -> String {
    // An unknown key may be of any length; what is not nearly as short as a known one resembles none.
    let shown: String = key.chars().take(40).collect();
    let shown = shown.escape_debug();
    if let Some((_, here)) = elsewhere.iter().find(|(other, _)| *other == key) {
        return format!("unknown key `{shown}`; here it is {here}");
    }
    let nearest = known
        .iter()
        .filter(|known| known.len().abs_diff(key.len()) <= 2)
        .map(|known| (edit_distance(known, key), known))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((1..=2, known)) => format!("unknown key `{shown}`; did you mean `{known}`?"),
        _ if known.len() > 12 => format!("unknown key `{shown}`; docs/endpoints.md has those that there are"),
        _ => format!("unknown key `{shown}`; known are {}", known.join(", ")),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one key into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swapped = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                replaced.min(swapped).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[a.len()][b.len()]
}

/// A message of the parser, which may run over several lines.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

// --- writing --------------------------------------------------------------------------------------------

fn write_endpoint(out: &mut String, endpoint: &Endpoint) {
    // Destructured, so that a new field cannot be forgotten here.
    let Endpoint { name, url: _, interval, tags, options } = endpoint;
    let Options {
        enabled,
        priority,
        method,
        headers,
        secret_headers,
        body,
        credentials,
        user_agent,
        accept_encoding,
        expect,
        expect_status,
        expect_headers,
        expect_version,
        expect_within,
        body_match,
        body_forbid,
        body_limit_bytes,
        body_stop,
        charset,
        cert_expires_within,
        redirects,
        redirect_downgrade,
        timeout,
        resolve_timeout,
        connect_timeout,
        tls_timeout,
        ttfb_timeout,
        idle_timeout,
        retries,
        dns,
        expand,
        family,
        address,
        source,
        connection,
        close,
        tls,
    } = &**options;
    let default = Options { timeout: draft::timeout_default(*interval), ..Options::default() };
    let mut fields = Fields { out };
    fields.out.push_str("[[endpoint]]\n");
    fields.text("name", Some(name));
    fields.text("url", Some(&endpoint.url_text()));
    fields.text("interval", (*interval != INTERVAL_DEFAULT).then(|| duration::write(*interval)));
    fields.value("enabled", changed(enabled, &default.enabled));
    fields.value("priority", changed(priority, &default.priority));
    fields.text("method", changed(method, &default.method));
    fields.table(
        "headers",
        headers.chunk_by(|(a, _), (b, _)| a == b).map(|values| (&values[0].0, field(values))),
    );
    fields.table(
        "secret_headers",
        secret_headers.iter().map(|(name, secret)| (name, quoted(&secret.to_string()))),
    );
    match str::from_utf8(body) {
        Ok(text) => fields.text("body", (!text.is_empty()).then_some(text)),
        Err(_binary) => fields.text("body_base64", Some(STANDARD.encode(body))),
    }
    match credentials {
        Some(Credentials::Basic { username, password }) => {
            let entries = [("username", quoted(username)), ("password", quoted(&password.to_string()))];
            fields.table("basic_auth", entries.into_iter());
        }
        Some(Credentials::Bearer(token)) => fields.text("bearer", Some(token)),
        None => {}
    }
    fields.text("user_agent", user_agent.as_ref());
    fields.texts("accept_encoding", accept_encoding);
    fields.text("expect", changed(expect, &default.expect));
    if *expect_status != default.expect_status {
        let entries =
            expect_status.entries().map(|entry| if entry.contains('-') { quoted(&entry) } else { entry });
        fields.value("expect_status", Some(list(entries)));
    }
    fields.table("expect_headers", expect_headers.iter().map(|(name, rule)| (name, rule_text(rule))));
    fields.text("expect_version", expect_version.as_ref());
    fields.text("expect_within", expect_within.map(duration::write));
    fields.texts("body_match", body_match);
    fields.texts("body_forbid", body_forbid);
    fields.text(
        "body_limit",
        changed(body_limit_bytes, &default.body_limit_bytes).map(|bytes| size::write(*bytes)),
    );
    fields.value("body_stop", changed(body_stop, &default.body_stop));
    fields.text("charset", changed(charset, &default.charset));
    fields.text("cert_expires_within", cert_expires_within.map(duration::write));
    fields.value("redirects", changed(redirects, &default.redirects));
    fields.value("redirect_downgrade", changed(redirect_downgrade, &default.redirect_downgrade));
    fields.text("timeout", changed(timeout, &default.timeout).map(|span| duration::write(*span)));
    fields.text("resolve_timeout", resolve_timeout.map(duration::write));
    fields.text("connect_timeout", connect_timeout.map(duration::write));
    fields.text("tls_timeout", tls_timeout.map(duration::write));
    fields.text("ttfb_timeout", ttfb_timeout.map(duration::write));
    fields.text("idle_timeout", idle_timeout.map(duration::write));
    fields.value("retries", changed(retries, &default.retries));
    fields.text("dns", changed(dns, &default.dns));
    fields.text("expand", changed(expand, &default.expand));
    fields.text("family", changed(family, &default.family));
    fields.text("address", address.as_ref());
    fields.text("source", source.as_ref());
    fields.text("connection", changed(connection, &default.connection));
    fields.text("close", changed(close, &default.close));
    fields.table("tls", tls_entries(tls).into_iter());
    fields.table("tags", tags.iter().map(|(key, value)| (key, quoted(value))));
}

/// The value, unless it is the default.
fn changed<'a, T: PartialEq>(value: &'a T, default: &T) -> Option<&'a T> {
    (value != default).then_some(value)
}

/// Fields as lines; what has no value is left out.
struct Fields<'a> {
    out: &'a mut String,
}

impl Fields<'_> {
    fn value(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            for part in [key, " = ", &value.to_string(), "\n"] {
                self.out.push_str(part);
            }
        }
    }

    fn text(&mut self, key: &str, text: Option<impl ToString>) {
        self.value(key, text.map(|text| quoted(&text.to_string())));
    }

    fn texts(&mut self, key: &str, texts: &[impl ToString]) {
        let entries = texts.iter().map(|text| quoted(&text.to_string()));
        self.value(key, (!texts.is_empty()).then(|| list(entries)));
    }

    fn table<Key: AsRef<str>>(&mut self, key: &str, entries: impl Iterator<Item = (Key, String)>) {
        let entries: Vec<String> =
            entries.map(|(key, value)| format!("{} = {value}", bare(key.as_ref()))).collect();
        self.value(key, (!entries.is_empty()).then(|| format!("{{ {} }}", entries.join(", "))));
    }
}

fn list(entries: impl Iterator<Item = String>) -> String {
    format!("[{}]", entries.collect::<Vec<_>>().join(", "))
}

/// One value as a string, several as a list.
fn field(values: &[(String, String)]) -> String {
    match values {
        [(_, value)] => quoted(value),
        _ => list(values.iter().map(|(_, value)| quoted(value))),
    }
}

fn rule_text(rule: &FieldRule) -> String {
    match rule {
        FieldRule::Present => "true".to_owned(),
        FieldRule::Absent => "false".to_owned(),
        FieldRule::Matches(pattern) => quoted(pattern),
    }
}

/// The fields of `tls` that are not as by default.
fn tls_entries(tls: &Tls) -> Vec<(&'static str, String)> {
    let Tls { ca_file, client_cert, client_key, server_name, insecure, min_version, max_version, resumption } =
        tls;
    let entries = [
        ("ca_file", ca_file.as_deref().map(quoted)),
        ("client_cert", client_cert.as_deref().map(quoted)),
        ("client_key", client_key.as_ref().map(|key| quoted(&key.to_string()))),
        ("server_name", server_name.as_deref().map(quoted)),
        ("insecure", insecure.then(|| "true".to_owned())),
        ("min_version", min_version.map(|version| quoted(version.name()))),
        ("max_version", max_version.map(|version| quoted(version.name()))),
        ("resumption", resumption.then(|| "true".to_owned())),
    ];
    entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// A key, in quotes unless it is made of the characters of a bare key.
fn bare(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(plain) { key.to_owned() } else { quoted(key) }
}

/// A basic string: everything that TOML wants escaped, and line breaks, so that one field is one line.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every case of the vectors, and some files made to be cut badly: the parts must not show.
    #[test]
    fn a_file_in_parts_reads_as_a_whole() {
        let vectors = include_str!("../../tests/data/endpoint_file_errors.txt");
        let cases =
            vectors.split("--- ").skip(1).filter_map(|case| Some(case.split_once('\n')?.1.to_owned()));
        let two = |field: &str| {
            let one = |name: &str| format!("[[endpoint]]\nname = '{name}'\nurl = 'http://a'\n{field}\n");
            one("a") + &one("b")
        };
        let odd = [
            two(""),
            two("[endpoint.tags]\nx = 'y'"),
            two("body = \"\"\"\n[[endpoint]]\n\"\"\""),
            two("body = '''\n[[endpoint]]\n'''"),
            two("expect_status = [\n[[endpoint]]\n]"),
            two("interval = '1ms'"),
            two("") + &two(""),
            two("") + "[defaults]\ninterval = '7s'\n",
            "[defaults]\ninterval = '7s'\n".to_owned() + &two("") + "[defaults]\ninterval = '8s'\n",
            "endpoint = []\n".to_owned() + &two(""),
            "[[ endpoint ]]\nname = 'c'\nurl = 'http://c'\n".to_owned() + &two(""),
            "[endpoint]\nname = 'c'\n".to_owned() + &two(""),
            two("").replace('\n', "\r\n"),
        ];
        for text in cases.chain(odd) {
            let parse = |part_bytes| {
                let mut read_body = |_path: &str| Err("cannot be read".to_owned());
                parse_by(&text, "t.toml", part_bytes, &mut read_body, &mut |_| Ok(()))
            };
            let whole = parse(usize::MAX);
            for part_bytes in [0, 1, 40, 100] {
                assert_eq!(parse(part_bytes), whole, "parts of {part_bytes} of\n{text}");
            }
        }
    }
}
