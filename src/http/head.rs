//! Response heads: found, bounded, parsed once, and reduced to the few facts that frame the rest.
//!
//! [`HeadReader`] is fed bytes in any cut and gives back a [`Head`] when one is whole. A head that arrives
//! in one piece is parsed where it lies, without copying. One that arrives in several is gathered (up to
//! `HEAD_BYTES_MAX`) while a scan that never looks at a byte twice waits for the empty line; only then is it
//! parsed again, so that a head that drips in byte by byte costs what it costs in one piece, and not its
//! square.
//!
//! What is accepted, next to what RFC 9112 asks for, follows curl, so that both call the same origin up:
//! bare LF as line end, no reason phrase, folded field values, blanks between a field name and its colon.
//! Refused, as by current curl: empty lines or anything else in front of `HTTP/1.0` or `HTTP/1.1`, a status
//! that is not three digits or is under 100, lines without a colon, NUL and bare CR. Stricter than curl, as
//! the tokeniser (httparse) is: other control characters, and names that are no token. Stricter on purpose:
//! lengths that contradict each other or are not plain digits (curl takes one of them, or the digits that
//! lead) and `chunked` said twice; a prober that guesses where a body ends reports the wrong one.
//!
//! Besides what frames the rest, a head is asked for what a probe may want to know of it: the charset, where a
//! redirect leads, how the content is coded, and whether the fields are as an endpoint expects
//! ([`super::wanted`]). What most heads lack is boxed, so that an ordinary one that comes whole allocates nothing.
//!
//! Out of scope: what a status means for the body (`super::Response`); reading the values that are kept
//! (`super::redirect`, `super::coding`).
//!
//! Invariants: the verdict does not depend on the cut, and after the first 13 bytes it is certain that the
//! other side speaks HTTP/1, so that an SSH banner fails at its first byte and not after `HEAD_BYTES_MAX`.

use std::mem::MaybeUninit;

use encoding_rs::Encoding;
use httparse::{Header, ParserConfig, Status};

use super::body::Framing;
use super::wanted::Wanted;
use crate::config::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, URL_BYTES_MAX};
use crate::sample::Failure;

/// Bytes of a `Location` that are kept: one more than are ever followed, so that who reads it can tell.
pub const LOCATION_BYTES_MAX: usize = URL_BYTES_MAX + 1;

/// What of a head matters for what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// 100 to 999.
    pub status: u16,
    /// 0 or 1, of HTTP/1.
    pub minor_version: u8,
    /// How the body is delimited, if the request and the status let there be one.
    pub framing: Framing,
    /// Whether version and `Connection` fields let the connection live on.
    pub keep_alive: bool,
    /// Whether something was accepted that two parsers might read in two ways.
    pub anomaly: bool,
    /// The charset that `Content-Type` names, if it is one that is known (by any of its labels).
    pub charset: Option<&'static Encoding>,
    /// What most heads lack; never of an interim response.
    pub notable: Option<Box<Notable>>,
    /// The first of the wanted fields that is not as it should be; never of an interim response.
    pub unmet: Option<u8>,
}

/// What most heads lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notable {
    /// The first `Location` (as curl), if the status is 3xx; cut to [`LOCATION_BYTES_MAX`].
    pub location: Option<Box<[u8]>>,
    /// The `Content-Encoding` fields, joined by commas (RFC 9110, section 5.2).
    pub content_encoding: Option<Box<[u8]>>,
}

/// Finds the end of a head in bytes that come in any cut.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// The head so far, if it did not come whole; boxed, because nearly every head does.
    gathered: Option<Box<Gathered>>,
}

#[derive(Debug)]
struct Gathered {
    buffer: Vec<u8>,
    place: Place,
}

/// Where the scan for the empty line stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    InLine,
    LineStart,
    LineStartCr,
}

impl HeadReader {
    /// A reader that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { gathered: None }
    }

    /// Takes the next bytes. Gives the head, once it is whole, and how many of *these* bytes belong to it;
    /// the reader is then ready for another head.
    pub fn feed(&mut self, input: &[u8], wanted: Option<&Wanted>) -> Result<Option<(Head, usize)>, Failure> {
        match self.gathered.take() {
            None => self.feed_first(input, wanted),
            Some(gathered) => self.feed_more(gathered, input, wanted),
        }
    }

    /// The origin closed inside the head: why that is a failure, and which.
    #[must_use]
    pub fn eof(&self) -> Failure {
        let bytes = self.gathered.as_ref().map_or(&[][..], |gathered| &gathered.buffer);
        match parse(bytes, None) {
            Err(failure) => failure,
            Ok(_) => Failure::ClosedEarly,
        }
    }

    fn feed_first(
        &mut self,
        input: &[u8],
        wanted: Option<&Wanted>,
    ) -> Result<Option<(Head, usize)>, Failure> {
        let bounded = &input[..input.len().min(HEAD_BYTES_MAX)];
        if let Some(found) = parse(bounded, wanted)? {
            return Ok(Some(found));
        }
        if bounded.len() == HEAD_BYTES_MAX {
            return Err(Failure::HeadTooLarge);
        }
        if !bounded.is_empty() {
            let mut place = Place::default();
            let end = place.scan(bounded);
            debug_assert!(end.is_none(), "what the tokeniser calls partial has no end");
            self.gathered = Some(Box::new(Gathered { buffer: bounded.to_vec(), place }));
        }
        Ok(None)
    }

    fn feed_more(
        &mut self,
        mut gathered: Box<Gathered>,
        input: &[u8],
        wanted: Option<&Wanted>,
    ) -> Result<Option<(Head, usize)>, Failure> {
        let Gathered { buffer, place } = &mut *gathered;
        let before_bytes = buffer.len();
        let bounded = &input[..input.len().min(HEAD_BYTES_MAX - before_bytes)];
        let end = place.scan(bounded);
        let taken = end.unwrap_or(bounded.len());
        buffer.extend_from_slice(&bounded[..taken]);

        if before_bytes < STATUS_LINE_PATTERN.len() && !may_be_status_line(buffer) {
            return Err(Failure::MalformedResponse);
        }
        if end.is_some() {
            let (head, head_bytes) = parse(buffer, wanted)?.ok_or(Failure::MalformedResponse)?;
            debug_assert_eq!(head_bytes, buffer.len(), "scan and tokeniser agree on the end");
            return Ok(Some((head, taken)));
        }
        if buffer.len() == HEAD_BYTES_MAX {
            // As if it had come in one piece: garbage before the limit is garbage.
            return Err(parse(buffer, None).err().unwrap_or(Failure::HeadTooLarge));
        }
        self.gathered = Some(gathered);
        Ok(None)
    }
}

impl Place {
    /// Looks for the empty line from where the last scan ended; gives the offset behind it.
    fn scan(&mut self, input: &[u8]) -> Option<usize> {
        #[cfg(test)]
        work::SCANNED_BYTES.with(|bytes| bytes.set(bytes.get() + input.len()));
        let mut at = 0;
        loop {
            if *self == Self::InLine {
                at += input[at..].iter().position(|byte| *byte == b'\n')? + 1;
                *self = Self::LineStart;
            }
            match (*self, *input.get(at)?) {
                (_, b'\n') => return Some(at + 1),
                (Self::LineStart, b'\r') => {
                    *self = Self::LineStartCr;
                    at += 1;
                }
                _ => *self = Self::InLine,
            }
        }
    }
}

/// The first bytes of every head that is accepted; `d` is a digit, `1` a digit but zero, `v` a minor version
/// and `e` what may follow a status.
const STATUS_LINE_PATTERN: &[u8; 13] = b"HTTP/1.v 1dde";

/// Whether `bytes` begin like a status line, as far as they go.
fn may_be_status_line(bytes: &[u8]) -> bool {
    bytes.iter().zip(STATUS_LINE_PATTERN).enumerate().all(|(at, (byte, pattern))| match pattern {
        b'v' => matches!(byte, b'0' | b'1'),
        b'1' if at == 9 => matches!(byte, b'1'..=b'9'),
        b'd' => byte.is_ascii_digit(),
        b'e' => matches!(byte, b' ' | b'\r' | b'\n'),
        _ => byte == pattern,
    })
}

/// Parses the head at the front of `bytes`, and says how long it is; `None` if it does not end there.
fn parse(bytes: &[u8], wanted: Option<&Wanted>) -> Result<Option<(Head, usize)>, Failure> {
    #[cfg(test)]
    work::PARSES.with(|parses| parses.set(parses.get() + 1));
    // The tokeniser would skip empty lines.
    if bytes.first().is_some_and(|byte| *byte != b'H') {
        return Err(Failure::MalformedResponse);
    }
    let mut config = ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    config.allow_spaces_after_header_name_in_responses(true);
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    match config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields) {
        Ok(Status::Complete(head_bytes)) => {
            let (Some(minor_version), Some(status)) = (response.version, response.code) else {
                return Err(Failure::MalformedResponse);
            };
            let mut head = reduce(bytes, minor_version, status, response.headers)?;
            if let (Some(wanted), 200..) = (wanted, status) {
                head.unmet = wanted.first_unmet(response.headers);
            }
            Ok(Some((head, head_bytes)))
        }
        Ok(Status::Partial) if may_be_status_line(bytes) => Ok(None),
        Err(httparse::Error::TooManyHeaders) if may_be_status_line(bytes) => Err(Failure::HeadTooLarge),
        Ok(Status::Partial) | Err(_) => Err(Failure::MalformedResponse),
    }
}

/// Picks out the fields that matter, by length first: a typical head has ten fields, and two of these.
fn reduce(bytes: &[u8], minor_version: u8, status: u16, fields: &[Header<'_>]) -> Result<Head, Failure> {
    if status < 100 {
        return Err(Failure::MalformedResponse);
    }
    let mut length = None;
    let mut coding = TransferCoding::default();
    let mut connection = Connection::default();
    let mut anomaly = false;
    let mut charset = None;
    let mut notable = None;
    for field in fields {
        match field.name.len() {
            8 if matches!(status, 300..=399) && is_name(field.name, "Location") => {
                let kept = &field.value[..field.value.len().min(LOCATION_BYTES_MAX)];
                notable
                    .get_or_insert_with(Box::<Notable>::default)
                    .location
                    .get_or_insert_with(|| kept.into());
                continue;
            }
            12 if is_name(field.name, "Content-Type") => {
                charset = charset.or_else(|| charset_of(field.value));
                continue;
            }
            16 if status >= 200 && is_name(field.name, "Content-Encoding") => {
                notable.get_or_insert_with(Box::<Notable>::default).add_content_encoding(field.value);
                continue;
            }
            10 if is_name(field.name, "Connection") => connection.add(field.value),
            14 if is_name(field.name, "Content-Length") => {
                length = Some(content_length(field.value, length)?);
            }
            17 if is_name(field.name, "Transfer-Encoding") => coding.add(field.value)?,
            _ => continue,
        }
        anomaly |= !is_plain(bytes, field);
    }

    // RFC 9112, section 6.3. A transfer coding overrides the length; who sends both, or sends a coding in
    // HTTP/1.0, is understood, and not spoken to again on this connection.
    let framing = match (coding.last, length) {
        (Coding::Chunked, _) => Framing::Chunked,
        (Coding::Other, _) | (Coding::Identity, None) => Framing::UntilClose,
        (Coding::Identity, Some(bytes)) => Framing::Length(bytes),
    };
    let plainly_chunked = coding.last == Coding::Chunked && coding.codings_count == 1;
    anomaly |= coding.present && !(plainly_chunked && length.is_none() && minor_version == 1);
    let keep_alive = !connection.close && (minor_version == 1 || connection.keep_alive);
    Ok(Head { status, minor_version, framing, keep_alive, anomaly, charset, notable, unmet: None })
}

impl Notable {
    fn add_content_encoding(&mut self, value: &[u8]) {
        self.content_encoding = Some(match self.content_encoding.take() {
            None => value.into(),
            Some(before) => [&before, &b", "[..], value].concat().into(),
        });
    }
}

/// The charset parameter of a media type (RFC 9110, section 8.3.2), if the label is known.
fn charset_of(media_type: &[u8]) -> Option<&'static Encoding> {
    let mut rest = media_type;
    while let Some(parameter) = next_parameter(&mut rest) {
        let Some(equals) = parameter.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
        if !name.eq_ignore_ascii_case(b"charset") {
            continue;
        }
        let label = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        return if label.eq_ignore_ascii_case(b"utf-8") {
            Some(encoding_rs::UTF_8) // As nearly all but a few say.
        } else {
            Encoding::for_label(label)
        };
    }
    None
}

/// Cuts the next parameter off the front of a media type; a semicolon in quotes ends none.
fn next_parameter<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut quoted = false;
    let mut escaped = false;
    let mut ends = rest.iter().enumerate().filter_map(|(at, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return Some(at),
            _ => {}
        }
        None
    });
    let start = ends.next()? + 1;
    let end = ends.next().unwrap_or(rest.len());
    let parameter = &rest[start..end];
    *rest = &rest[end..];
    Some(parameter)
}

/// Compares names in any case; first in the usual one, which is a comparison of words and not of bytes.
#[inline]
fn is_name(name: &str, usual: &str) -> bool {
    name == usual || name.eq_ignore_ascii_case(usual)
}

/// Whether a field is spelled as everybody spells it: its name directly before the colon, its value in one
/// line. A proxy in front of the origin may have read another spelling in another way.
fn is_plain(bytes: &[u8], field: &Header<'_>) -> bool {
    let start = bytes.as_ptr().addr();
    let from = (field.name.as_ptr().addr() + field.name.len()).wrapping_sub(start);
    let to = (field.value.as_ptr().addr() + field.value.len()).wrapping_sub(start);
    match bytes.get(from..to) {
        Some([b':', between @ ..]) => between.iter().all(|byte| *byte != b'\n'),
        _ => false,
    }
}

/// A length, or several that say the same ("5, 5" comes from a joined pair); digits only.
fn content_length(value: &[u8], mut known: Option<u64>) -> Result<u64, Failure> {
    if let (Some(bytes), None) = (decimal(value), known) {
        return Ok(bytes); // As all but a few say it.
    }
    for element in value.split(|byte| *byte == b',') {
        let bytes = decimal(element.trim_ascii()).ok_or(Failure::MalformedResponse)?;
        if known.is_some_and(|known| known != bytes) {
            return Err(Failure::MalformedResponse);
        }
        known = Some(bytes);
    }
    known.ok_or(Failure::MalformedResponse)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// What the `Transfer-Encoding` fields say, in order and taken together.
#[derive(Debug, Default)]
struct TransferCoding {
    present: bool,
    codings_count: usize,
    chunked_seen: bool,
    last: Coding,
}

/// The last transfer coding, which alone decides about framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// None, or `identity`: abolished by RFC 7230, still sent, and ignored by curl and browsers.
    #[default]
    Identity,
    Chunked,
    Other,
}

impl TransferCoding {
    fn add(&mut self, value: &[u8]) -> Result<(), Failure> {
        self.present = true;
        // Empty list elements are to be ignored (RFC 9110, section 5.6.1.2).
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|c| !c.is_empty()) {
            let name = coding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            self.codings_count += 1;
            self.last = if name.eq_ignore_ascii_case(b"chunked") {
                // Twice is forbidden (RFC 9112, section 6.1), and so are parameters (section 7.1).
                if self.chunked_seen || name.len() != coding.len() {
                    return Err(Failure::MalformedResponse);
                }
                self.chunked_seen = true;
                Coding::Chunked
            } else if name.eq_ignore_ascii_case(b"identity") && self.last == Coding::Identity {
                Coding::Identity
            } else {
                Coding::Other
            };
        }
        Ok(())
    }
}

/// What the `Connection` fields say.
#[derive(Debug, Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    fn add(&mut self, value: &[u8]) {
        match value {
            b"keep-alive" => self.keep_alive = true,
            b"close" => self.close = true,
            _ => self.add_list(value),
        }
    }

    #[cold]
    fn add_list(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// Counts of the work done, so that tests can assert that it is linear.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local! {
        pub(in crate::http) static PARSES: Cell<usize> = const { Cell::new(0) };
        pub(in crate::http) static SCANNED_BYTES: Cell<usize> = const { Cell::new(0) };
    }
}
