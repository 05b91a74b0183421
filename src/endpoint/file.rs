//! The endpoint file: TOML to endpoints and back.
//!
//! ```toml
//! [defaults]                 # any field of an endpoint but its name
//! interval = "30s"
//!
//! [[endpoint]]
//! name = "shop"              # required, unique
//! url = "http://shop.example/health"    # required
//! address = "10.1.2.3"       # connect here; Host stays the URL's
//! method = "POST"
//! headers = { Accept = "application/json" }
//! body = '{"ping":1}'
//! expect_status = ["200-299", 304]
//! interval = "30s"
//! timeout = "10s"
//! connection = "fresh"       # or "reuse"
//! tags = { team = "shop" }
//! enabled = true
//! ```
//!
//! In scope: which keys exist, of which type, on which line; uniqueness of names. What a value may be is
//! [`Draft::validate`]'s business. Out of scope: opening the file.
//!
//! An endpoint's `headers` and `tags` are added to those of `[defaults]`; every other field replaces.
//!
//! Invariant: `parse(write(endpoints)) == endpoints`.

use std::fmt;
use std::io::{self, Write};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Connection, Draft, Endpoint, FieldError, Method, StatusSet, draft, duration};
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
    parse_by(text, file, PART_BYTES)
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

fn parse_by(text: &str, file: &str, part_bytes: usize) -> Result<Vec<Endpoint>, FileError> {
    let cuts = cuts(text, part_bytes);
    if let Some(result) = parse_parts(text, file, &cuts) {
        return result;
    }
    // Only a whole document tells what is wrong with its syntax.
    parse_parts(text, file, &[]).expect("a document in one part is never given up")
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
fn parse_parts(text: &str, file: &str, cuts: &[usize]) -> Option<Result<Vec<Endpoint>, FileError>> {
    let mut reader = Reader {
        problems: Problems::new(text, file),
        defaults: Section::default(),
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
#[derive(Debug)]
struct Reader<'text> {
    problems: Problems<'text>,
    defaults: Section,
    endpoints: Vec<Endpoint>,
    /// Where the name of each stands.
    name_offsets: Vec<usize>,
    /// How many there were, bad ones too.
    seen: usize,
}

impl Reader<'_> {
    fn read_document(&mut self, document: DeTable<'_>) {
        let problems = &mut self.problems;
        let mut items = DeArray::new();
        for (key, value) in document {
            let at = key.span().start;
            match (key.get_ref().as_ref(), value.into_inner()) {
                ("defaults", DeValue::Table(table)) => {
                    self.defaults = read_section(table, "[defaults]", problems);
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
            let Section { draft, offsets, broken } = read_section(table, &place, &mut self.problems);
            if broken {
                continue;
            }
            match draft.validate(&self.defaults.draft) {
                Ok(endpoint) => {
                    self.name_offsets.push(self.problems.base + offset_of(&offsets, "name").unwrap_or(at));
                    self.endpoints.push(endpoint);
                }
                Err(FieldError { field, message }) => {
                    let at = offset_of(&offsets, field).unwrap_or(at);
                    self.problems.add(Some(at), Some(&place), Some(field), message);
                }
            }
        }
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
const KEYS: [&str; 12] = [
    "name",
    "url",
    "address",
    "method",
    "headers",
    "body",
    "expect_status",
    "interval",
    "timeout",
    "connection",
    "tags",
    "enabled",
];

/// Keys that belong to the format, but not to this version: their users are told so, and do not go looking
/// for a typing error.
const KEYS_LATER: [&str; 17] = [
    "auth_ref",
    "basic_auth",
    "body_forbid",
    "body_match",
    "connect_timeout",
    "decode",
    "dns",
    "follow_redirects",
    "proxy",
    "redirects",
    "redirects_max",
    "resolve_timeout",
    "tls",
    "tls_timeout",
    "transfer_timeout",
    "ttfb_timeout",
    "http_version",
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

fn read_section(table: DeTable<'_>, place: &str, problems: &mut Problems<'_>) -> Section {
    let mut section = Section { offsets: Vec::with_capacity(table.len()), ..Section::default() };
    for (key, value) in table {
        let at = key.span().start;
        let Some(known) = KEYS.iter().find(|known| **known == key.get_ref().as_ref()) else {
            let message = unknown_key(key.get_ref(), &KEYS, &KEYS_LATER);
            problems.add(Some(at), Some(place), None, message);
            section.broken = true;
            continue;
        };
        section.offsets.push((known, at));
        if let Err((inner, message)) = read_field(&mut section.draft, known, value) {
            problems.add(Some(inner.unwrap_or(at)), Some(place), Some(known), message);
            section.broken = true;
        }
    }
    section
}

/// Where inside of a value something is wrong, if not the value itself, and what.
type Mistake = (Option<usize>, String);

/// Puts a value into its field if it has the right type; else says where and why not.
fn read_field(draft: &mut Draft, key: &'static str, value: Spanned<DeValue<'_>>) -> Result<(), Mistake> {
    let here = |message: String| (None, message);
    let value = value.into_inner();
    match key {
        "name" => draft.name = Some(string(value, "\"shop\"").map_err(here)?),
        "url" => draft.url = Some(string(value, "\"http://…\"").map_err(here)?),
        "address" => draft.address = Some(string(value, "\"10.1.2.3\"").map_err(here)?),
        "method" => draft.method = Some(string(value, "\"POST\"").map_err(here)?),
        "body" => draft.body = Some(string(value, "a string").map_err(here)?.into_bytes()),
        "connection" => draft.connection = Some(string(value, "\"fresh\" or \"reuse\"").map_err(here)?),
        "interval" => draft.interval = Some(duration_text(value).map_err(here)?),
        "timeout" => draft.timeout = Some(duration_text(value).map_err(here)?),
        "enabled" => match value {
            DeValue::Boolean(enabled) => draft.enabled = Some(enabled),
            other => return Err(here(wrong_type("a boolean", &other, "true or false"))),
        },
        "expect_status" => draft.expect_status = Some(statuses(value)?),
        "headers" => draft.headers = string_table(value, "{ Accept = \"text/html\" }")?,
        "tags" => draft.tags = string_table(value, "{ team = \"shop\" }")?,
        _ => unreachable!("{key} is one of KEYS"),
    }
    Ok(())
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

/// A table of strings in the order of the file (the parser sorts by key, the offsets tell).
fn string_table(value: DeValue<'_>, example: &str) -> Result<Vec<(String, String)>, Mistake> {
    let DeValue::Table(table) = value else {
        return Err((None, wrong_type("a table", &value, example)));
    };
    let mut fields = Vec::with_capacity(table.len());
    for (key, value) in table {
        let at = key.span().start;
        let key = key.into_inner().into_owned();
        let text = string(value.into_inner(), example);
        let text = text.map_err(|message| (Some(at), format!("{key:?} {message}")))?;
        fields.push((at, (key, text)));
    }
    fields.sort_unstable_by_key(|(at, _)| *at);
    Ok(fields.into_iter().map(|(_, field)| field).collect())
}

/// Validates what `[defaults]` says by itself, so that a mistake in it is reported once, where it stands.
fn check_defaults(defaults: &mut Section, problems: &mut Problems<'_>) {
    let place = Some("[defaults]");
    if let Some(at) = offset_of(&defaults.offsets, "name") {
        let message = "every endpoint has a name of its own".to_owned();
        problems.add(Some(at), place, Some("name"), message);
        defaults.broken = true;
    }
    let mut probe = defaults.draft.clone();
    probe.name = Some("defaults".to_owned());
    probe.url.get_or_insert_with(|| "http://defaults/".to_owned());
    if let Err(FieldError { field, message }) = probe.validate(&Draft::default())
        && !defaults.broken
    {
        problems.add(offset_of(&defaults.offsets, field), place, Some(field), message);
        defaults.broken = true;
    }
    // What was refused must not be reported again by each endpoint, nor what it would have given them.
    if defaults.broken {
        defaults.draft = Draft { url: Some("http://defaults/".to_owned()), ..Draft::default() };
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
        self.count += 1;
        let at = at.map(|at| self.base + at);
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

fn unknown_key(key: &str, known: &[&str], later: &[&str]) -> String {
    if later.contains(&key) {
        return format!("{key} is not supported by this version");
    }
    // An unknown key may be of any length; what is not nearly as short as a known one resembles none.
    let shown: String = key.chars().take(40).collect();
    let nearest = known
        .iter()
        .chain(later)
        .filter(|known| known.len().abs_diff(key.len()) <= 2)
        .map(|known| (edit_distance(known, key), known))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((1..=2, known)) => format!("unknown key `{}`; did you mean `{known}`?", shown.escape_debug()),
        _ => format!("unknown key `{}`; known are {}", shown.escape_debug(), known.join(", ")),
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
    let Endpoint {
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
    } = endpoint;
    out.push_str("[[endpoint]]\n");
    write_field(out, "name", &quoted(name));
    write_field(out, "url", &quoted(url.as_str()));
    if let Some(address) = address {
        write_field(out, "address", &quoted(&address.to_string()));
    }
    if *method != Method::default() {
        write_field(out, "method", &quoted(method.as_str()));
    }
    if !headers.is_empty() {
        let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        write_field(out, "headers", &inline_table(fields));
    }
    if !body.is_empty() {
        // Validation let only UTF-8 through.
        write_field(out, "body", &quoted(&String::from_utf8_lossy(body)));
    }
    if *expect_status != StatusSet::default() {
        let entries: Vec<String> = expect_status
            .entries()
            .map(|entry| if entry.contains('-') { quoted(&entry) } else { entry })
            .collect();
        write_field(out, "expect_status", &format!("[{}]", entries.join(", ")));
    }
    if *interval != INTERVAL_DEFAULT {
        write_field(out, "interval", &quoted(&duration::write(*interval)));
    }
    if *timeout != draft::timeout_default(*interval) {
        write_field(out, "timeout", &quoted(&duration::write(*timeout)));
    }
    if *connection != Connection::default() {
        write_field(out, "connection", &quoted(connection.name()));
    }
    if !tags.is_empty() {
        let fields = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        write_field(out, "tags", &inline_table(fields));
    }
    if !enabled {
        write_field(out, "enabled", "false");
    }
}

fn write_field(out: &mut String, key: &str, value: &str) {
    for part in [key, " = ", value, "\n"] {
        out.push_str(part);
    }
}

fn inline_table<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let fields: Vec<String> =
        fields.map(|(key, value)| format!("{} = {}", bare(key), quoted(value))).collect();
    format!("{{ {} }}", fields.join(", "))
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
            let whole = parse_by(&text, "t.toml", usize::MAX);
            for part_bytes in [0, 1, 40, 100] {
                assert_eq!(parse_by(&text, "t.toml", part_bytes), whole, "parts of {part_bytes} of\n{text}");
            }
        }
    }
}
