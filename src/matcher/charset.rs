//! Bodies in other charsets, turned into UTF-8 as they come, because patterns are matched on bytes.
//!
//! In scope: the charset that `Content-Type` declares (by its WHATWG label), and byte order marks, which win
//! over it as they do in browsers. Out of scope: `<meta charset>`, guessing.
//!
//! Invariants: output is at most three bytes per byte of input and is handed out in pieces of at most
//! [`PIECE_BYTES_MAX`], never collected; a character may be cut anywhere. UTF-8 is passed on as it came, valid
//! or not, without its byte order mark; in other charsets what is malformed becomes U+FFFD.

use encoding_rs::{Decoder, Encoding, UTF_8};

/// Bytes of output at a time: on the stack of whoever feeds.
pub(super) const PIECE_BYTES_MAX: usize = 4 * 1024;
/// Longest byte order mark: that of UTF-8.
const MARK_BYTES_MAX: usize = 3;

/// What an endpoint says about its charset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Charset {
    /// Patterns are matched on the bytes as they are.
    #[default]
    Raw,
    /// Bodies in a declared charset are turned into UTF-8 first.
    Auto,
}

/// One body's way to UTF-8.
pub struct Transcoder {
    state: State,
}

enum State {
    /// Bytes are passed on.
    Pass,
    /// Too few bytes came to tell whether there is a byte order mark.
    Marks {
        declared: &'static Encoding,
        held: [u8; MARK_BYTES_MAX],
        held_count: usize,
    },
    Decode(Box<Decoder>),
}

impl Transcoder {
    /// For a body whose head had this `Content-Type`, if any.
    #[must_use]
    pub fn new(charset: Charset, content_type: Option<&[u8]>) -> Self {
        Self::declared(charset, content_type.and_then(declared))
    }

    /// The same for who knows which charset was declared.
    #[must_use]
    pub const fn declared(charset: Charset, encoding: Option<&'static Encoding>) -> Self {
        let state = match charset {
            Charset::Raw => State::Pass,
            Charset::Auto => State::Marks {
                declared: match encoding {
                    Some(encoding) => encoding,
                    None => UTF_8,
                },
                held: [0; MARK_BYTES_MAX],
                held_count: 0,
            },
        };
        Self { state }
    }

    /// Takes the next bytes, in any cut, and calls `text` with each piece of UTF-8 that they complete.
    pub fn feed(&mut self, bytes: &[u8], text: &mut impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let State::Marks { declared, held, held_count } = &mut self.state {
            let Some((byte, after)) = rest.split_first() else { return };
            rest = after;
            held[*held_count] = *byte;
            *held_count += 1;
            let (declared, held, count) = (*declared, *held, *held_count);
            if !may_be_mark(&held[..count]) || count == MARK_BYTES_MAX {
                self.begin(declared, &held[..count], text);
            }
        }
        self.pass(rest, false, text);
    }

    /// The body is over.
    pub fn finish(&mut self, text: &mut impl FnMut(&[u8])) {
        if let State::Marks { declared, held, held_count } = &self.state {
            let (declared, held, count) = (*declared, *held, *held_count);
            self.begin(declared, &held[..count], text);
        }
        self.pass(&[], true, text);
    }

    /// It is known whether there is a byte order mark: `first` is what was held to find out.
    fn begin(&mut self, declared: &'static Encoding, first: &[u8], text: &mut impl FnMut(&[u8])) {
        let (encoding, mark_bytes) = Encoding::for_bom(first).unwrap_or((declared, 0));
        self.state = if encoding == UTF_8 {
            State::Pass
        } else {
            State::Decode(Box::new(encoding.new_decoder_without_bom_handling()))
        };
        self.pass(&first[mark_bytes..], false, text);
    }

    fn pass(&mut self, bytes: &[u8], is_last: bool, text: &mut impl FnMut(&[u8])) {
        let State::Decode(decoder) = &mut self.state else {
            if !bytes.is_empty() {
                text(bytes);
            }
            return;
        };
        let mut rest = bytes;
        let mut piece = [0; PIECE_BYTES_MAX];
        loop {
            let (result, read, written, _) = decoder.decode_to_utf8(rest, &mut piece, is_last);
            if written > 0 {
                text(&piece[..written]);
            }
            rest = &rest[read..];
            if result == encoding_rs::CoderResult::InputEmpty {
                break;
            }
        }
        if is_last {
            // A decoder must not be used after its end.
            self.state = State::Pass;
        }
    }
}

impl std::fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, held_count) = match &self.state {
            State::Pass => ("as it is", 0),
            State::Marks { declared, held_count, .. } => (declared.name(), *held_count),
            State::Decode(decoder) => (decoder.encoding().name(), 0),
        };
        f.debug_struct("Transcoder").field("from", &name).field("held_count", &held_count).finish()
    }
}

/// Whether these first bytes are a byte order mark, or may become one.
fn may_be_mark(first: &[u8]) -> bool {
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    // A whole mark is no longer a question, unless it is one of three bytes.
    marks.iter().any(|mark| mark.starts_with(first) && first.len() < mark.len())
}

/// The charset parameter of a `Content-Type` (RFC 9110, section 8.3.1), if its label is known.
fn declared(content_type: &[u8]) -> Option<&'static Encoding> {
    let parameters = content_type.split(|byte| *byte == b';').skip(1);
    for parameter in parameters {
        let Some(equals) = parameter.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"charset") {
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            return Encoding::for_label(value.strip_suffix(b"\"").unwrap_or(value));
        }
    }
    None
}
