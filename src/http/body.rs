//! Framing of HTTP/1.1 response bodies.
//!
//! [`Body`] is told how the body is delimited and is fed bytes as they come; it hands back the payload
//! slices and says when the body is over. It never buffers: a slice out is a slice of what came in.
//!
//! In scope: `content-length`, `chunked` (RFC 9112, section 7.1), close-delimited.
//! Out of scope: content codings, trailers (skipped, up to `TRAILER_BYTES_MAX`).
//!
//! Chunked bodies, byte by byte; where a CR is expected a bare LF does the work of both (see below):
//!
//! ```text
//!            ┌──────────────────────────────────────────────────────────┐
//!            ▼                                                          │LF
//!   SizeFirst ─hex─► Size ─blank─► SizeBlank       DataEnd ─CR─► DataEndLf
//!                     │ │              │              ▲
//!                     │ └── ; ─► Extension ◄─ ;       │
//!                     └─ CR ─► SizeLf ◄─ CR, from any │
//!                                │LF                  │
//!                   size > 0 ────┼──► Data ── all ────┘
//!                   size = 0 ────┴──► TrailerFirst ─CR─► TrailerLf ─LF─► Done
//!                                       ▲   └─ other ─► TrailerField ─CR─► TrailerFieldLf
//!                                       └─────────────────────LF───────────────┘
//! ```
//!
//! Line ends inside the framing must be CR LF. A bare LF is accepted, because curl accepts it and a person
//! who compares would call us wrong, but it is an *anomaly*: the connection is not used again. That removes
//! the reason for which proxies and llhttp refuse it (two parsers disagreeing about where the next response
//! begins). A bare CR is refused everywhere, as are blanks in front of a size, signs and `0x`.
//!
//! Invariants: payload bytes handed out never exceed the announced length, nor the limit that it was made with;
//! framing bytes are bounded too, by the number of chunks, the payload and `CHUNK_EXCESS_BYTES_MAX`.

use super::Progress;
use crate::config::{CHUNK_EXCESS_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};
use crate::sample::Failure;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; zero also stands for "none, whatever the fields say" (HEAD, 204, 304).
    Length(u64),
    /// Chunks, ended by one of size zero and a trailer section.
    Chunked,
    /// Everything until the origin closes.
    UntilClose,
}

/// One body, taken apart as it comes.
#[derive(Debug)]
pub struct Body {
    /// Bytes still to come of the announced length or of this chunk; in a size line, the size so far.
    left: u64,
    /// Most payload that is handed out.
    bytes_max: u64,
    payload_bytes: u64,
    /// Bytes of this size line or of the trailer section so far.
    line_bytes: u16,
    /// Bytes of all size lines so far beyond what their chunks excuse.
    excess_bytes: u16,
    state: State,
    anomaly: bool,
}

// Both limits are counted in `Body::line_bytes`, which may exceed them by one.
const _: () = assert!(CHUNK_LINE_BYTES_MAX < u16::MAX as usize);
const _: () = assert!(TRAILER_BYTES_MAX < u16::MAX as usize);
// `Body::excess_bytes` may exceed its limit by one size line.
const _: () = assert!(CHUNK_EXCESS_BYTES_MAX + CHUNK_LINE_BYTES_MAX <= u16::MAX as usize);
/// Bytes of a size line that each chunk may have without being suspect: a size and a short extension.
const SIZE_LINE_BYTES_FREE: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    UntilClose,
    SizeFirst,
    Size,
    SizeBlank,
    Extension,
    SizeLf,
    Data,
    DataEnd,
    DataEndLf,
    TrailerFirst,
    TrailerField,
    TrailerFieldLf,
    TrailerLf,
    Done,
}

impl Body {
    /// No body.
    pub const EMPTY: Self = Self {
        left: 0,
        bytes_max: 0,
        payload_bytes: 0,
        line_bytes: 0,
        excess_bytes: 0,
        state: State::Done,
        anomaly: false,
    };

    /// A body of which nothing has come yet and at most `bytes_max` may; `BodyTooLarge` if more is announced.
    pub fn new(framing: Framing, bytes_max: u64) -> Result<Self, Failure> {
        let (state, left) = match framing {
            Framing::Length(0) => (State::Done, 0),
            Framing::Length(bytes) if bytes > bytes_max => return Err(Failure::BodyTooLarge),
            Framing::Length(bytes) => (State::Length, bytes),
            Framing::Chunked => (State::SizeFirst, 0),
            Framing::UntilClose => (State::UntilClose, 0),
        };
        Ok(Self { left, bytes_max, state, ..Self::EMPTY })
    }

    /// Takes the next bytes, in any cut, and calls `payload` with each part of the body in them.
    ///
    /// After `Complete` nothing more is consumed. After an error the body must not be fed again.
    pub fn feed(&mut self, input: &[u8], payload: &mut impl FnMut(&[u8])) -> Result<Progress, Failure> {
        let mut rest = input;
        while self.state != State::Done {
            let Some(&byte) = rest.first() else { return Ok(Progress::More) };
            match self.state {
                State::Length | State::Data => {
                    let part = self.take(&mut rest, self.left, payload);
                    self.left -= part;
                    if self.left == 0 {
                        self.state = if self.state == State::Data { State::DataEnd } else { State::Done };
                    }
                }
                State::UntilClose => {
                    let room = self.bytes_max - self.payload_bytes;
                    self.take(&mut rest, room, payload);
                    if !rest.is_empty() {
                        return Err(Failure::BodyTooLarge);
                    }
                }
                _ => {
                    if !self.plain_line(&mut rest)? {
                        rest = &rest[1..];
                        self.framing_byte(byte)?;
                    }
                }
            }
        }
        Ok(Progress::Complete { consumed: input.len() - rest.len() })
    }

    /// The origin closed: the end of a close-delimited body, and `ClosedEarly` for any other unfinished one.
    pub fn eof(&mut self) -> Result<(), Failure> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Failure::ClosedEarly),
        }
    }

    /// Payload bytes handed out so far.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether something was accepted that a strict reader would refuse.
    #[must_use]
    pub const fn anomaly(&self) -> bool {
        self.anomaly
    }

    /// Hands out up to `limit` bytes from the front of `rest`, and says how many.
    fn take(&mut self, rest: &mut &[u8], limit: u64, payload: &mut impl FnMut(&[u8])) -> u64 {
        // A limit beyond the address space is no limit on a slice.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (part, after) = rest.split_at(limit.min(rest.len()));
        *rest = after;
        if !part.is_empty() {
            payload(part);
        }
        let part_bytes = part.len() as u64;
        self.payload_bytes += part_bytes;
        debug_assert!(self.payload_bytes <= self.bytes_max);
        part_bytes
    }

    /// The lines that nearly every origin sends, if one lies whole at the front of `rest`: a size without
    /// anything after it, the end of a chunk, the end without trailers. All else goes byte by byte, to the
    /// same effect; this only makes a chunk cost a quarter.
    fn plain_line(&mut self, rest: &mut &[u8]) -> Result<bool, Failure> {
        const DIGITS_MAX: usize = 8;
        let before_crlf = match self.state {
            State::SizeFirst => {
                let digits = rest.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_hexdigit()).count();
                if digits == 0 {
                    return Ok(false);
                }
                digits
            }
            State::DataEnd => 0,
            State::TrailerFirst if self.line_bytes == 0 => 0,
            _ => return Ok(false),
        };
        let (line, after) = rest.split_at(before_crlf);
        let [b'\r', b'\n', after @ ..] = after else { return Ok(false) };
        *rest = after;
        match self.state {
            State::SizeFirst => {
                self.left = line.iter().fold(0, |size, digit| size << 4 | u64::from(hex_value(*digit)));
                // As counted byte by byte: the digits and CR.
                self.line_bytes = u16::try_from(before_crlf + 1).expect("at most nine");
                self.size_line_ends()?;
            }
            State::DataEnd => self.state = State::SizeFirst,
            _ => self.state = State::Done,
        }
        Ok(true)
    }

    /// One byte of chunk framing: everything that is not payload.
    fn framing_byte(&mut self, byte: u8) -> Result<(), Failure> {
        self.state = match (self.state, byte) {
            (State::SizeFirst | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.left >> 60 != 0 {
                    return Err(Failure::MalformedResponse); // More than 64 bits.
                }
                self.left = self.left << 4 | u64::from(hex_value(byte));
                State::Size
            }
            // Old servers pad the size with blanks to a fixed width.
            (State::Size | State::SizeBlank, b' ' | b'\t') => State::SizeBlank,
            (State::Size | State::SizeBlank, b';') => State::Extension,
            // Extensions may be quoted strings of obscure bytes; only control characters give them away.
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::Size | State::SizeBlank | State::Extension, b'\r') => State::SizeLf,
            (State::SizeLf, b'\n') => return self.size_line_ends(),
            (State::Size | State::SizeBlank | State::Extension, b'\n') => {
                self.anomaly = true;
                return self.size_line_ends();
            }

            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::SizeFirst,
            (State::DataEnd, b'\n') => {
                self.anomaly = true;
                State::SizeFirst
            }

            (State::TrailerFirst, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Done,
            (State::TrailerFirst, b'\n') => {
                self.anomaly = true;
                State::Done
            }
            (State::TrailerFieldLf, b'\n') => State::TrailerFirst,
            (State::TrailerField, b'\n') => {
                self.anomaly = true;
                State::TrailerFirst
            }
            (State::TrailerField, b'\r') => State::TrailerFieldLf,
            // Nobody reads trailers here, so what else is in them is not looked at.
            (State::TrailerFirst | State::TrailerField, _) => State::TrailerField,

            _ => return Err(Failure::MalformedResponse),
        };
        match self.state {
            State::Size | State::SizeBlank | State::Extension | State::SizeLf => {
                self.count_line_byte(CHUNK_LINE_BYTES_MAX, Failure::MalformedResponse)
            }
            State::TrailerFirst | State::TrailerField | State::TrailerFieldLf | State::TrailerLf => {
                self.count_line_byte(TRAILER_BYTES_MAX, Failure::BodyTooLarge)
            }
            _ => Ok(()),
        }
    }

    fn size_line_ends(&mut self) -> Result<(), Failure> {
        if self.left > self.bytes_max - self.payload_bytes {
            return Err(Failure::BodyTooLarge);
        }
        // A chunk excuses a short line, and a long one in proportion to what it carries. What is left over
        // adds up, so that extensions cannot turn a body within its limit into gigabytes (CVE-2023-39326).
        let excused_bytes = SIZE_LINE_BYTES_FREE + 2 * self.left;
        let excess_bytes = u64::from(self.excess_bytes + self.line_bytes).saturating_sub(excused_bytes);
        self.excess_bytes = u16::try_from(excess_bytes).unwrap_or(u16::MAX);
        if usize::from(self.excess_bytes) > CHUNK_EXCESS_BYTES_MAX {
            return Err(Failure::MalformedResponse);
        }
        self.line_bytes = 0;
        self.state = if self.left == 0 { State::TrailerFirst } else { State::Data };
        Ok(())
    }

    fn count_line_byte(&mut self, limit: usize, failure: Failure) -> Result<(), Failure> {
        self.line_bytes += 1;
        if usize::from(self.line_bytes) > limit { Err(failure) } else { Ok(()) }
    }
}

/// The value of a hexadecimal digit; the caller knows that it is one.
const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
