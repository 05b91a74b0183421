//! Content codings, decoded while they stream.
//!
//! [`Decoder`] is told what `Content-Encoding` says and is fed payload in any cut; it hands out the content in
//! slices of at most `DECODED_SLICE_BYTES`. Several codings are a chain, the last one named being the first undone:
//!
//! ```text
//!   Content-Encoding: gzip, br
//!   payload ─► br ─► gzip ─► content         each stage's output is bounded by the limit of the content
//! ```
//!
//! In scope: `gzip` (and `x-gzip`) in any number of members (RFC 1952, section 2.2), `deflate` with its zlib wrapper
//! and without (servers have sent both since 1997, and browsers and curl take both), `br`, `identity` (and curl's
//! `none`). Checksums and lengths are verified; what stands behind the end of a stream is `decode_failed`, but for
//! four bytes behind a raw deflate stream, which curl tolerates too.
//!
//! Who made a request without `Accept-Encoding` should make no decoder: like curl without `--compressed`, it then
//! takes the payload as it is. With one, a coding that is none of these is `decode_failed` at the first byte of
//! payload (curl: exit status 61), as are more than `CODINGS_MAX` of them; without payload (HEAD, 304) nothing is
//! decoded, and nothing fails. Unlike curl, which calls a truncated stream whole, [`Decoder::finish`] does not.
//!
//! Out of scope: zstd and compress; dictionaries; transfer codings.
//!
//! A few bytes may decode to the whole of the limit, and whoever decodes them keeps others waiting. So decoding is done
//! in goes of a bounded output: [`Decoder::feed`] takes the payload, [`Decoder::go_on`] makes so much of it, and says
//! whether there is more to do. What a go of br costs is not bounded by that alone: its decoder hands nothing out
//! before a window is full or a meta-block is over; only then do goes take turns. So a few bytes that say nothing but
//! "again" may cost a window at once: 30 ms for the 16 MiB that a limit of 10 MiB needs, 4 ms for a limit of 1 MiB,
//! 0.5 ms for one of 128 KiB (each with the memory that is touched for the first time).
//!
//! Invariants: each stage hands out at most the limit, then fails with `body_too_large`, so that a bomb costs what a
//! body of that size costs, times the stages; a failure is final; content depends neither on the cut nor on the goes.
//! (Before a failure, br may hand out more or less of it in another cut; so where one stream is both broken and too
//! large, either may be said.) Memory: some 48 KiB per gzip or deflate stage; a window per br stage, which grows with
//! what it has handed out, up to what the limit needs and to 16 MiB; of [`DecodeMemory`] that decoders share, all
//! together have a bound. Between two stages lies a slice at most, and before the first what was fed.

use std::cell::Cell;
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, StandardAlloc,
};
use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::config::DECODE_MEMORY_BYTES_MAX;
use crate::sample::Failure;

/// Most codings around one content, as in curl: each multiplies what a byte on the wire may cost.
pub const CODINGS_MAX: usize = 5;
/// Longest slice of content handed out at once, and what each stage has on the stack.
pub const DECODED_SLICE_BYTES: usize = 8 * 1024;

/// Undoes the codings of one body.
#[derive(Debug)]
pub struct Decoder {
    /// In the order of decoding.
    stages: Vec<Stage>,
    limit_bytes: u64,
    content_bytes: u64,
    failed: Option<Failure>,
}

/// One coding, what it has yet to look at, and what has come out of it.
#[derive(Debug)]
struct Stage {
    coding: Coding,
    began: bool,
    input: Vec<u8>,
    input_at: usize,
    /// Another go may bring something.
    ready: bool,
    /// What is wrong, to be said when everything before it has been decoded to the end.
    failing: Option<Failure>,
    handed_out_bytes: u64,
}

#[derive(Debug)]
enum Coding {
    Gzip(Box<Gzip>),
    Deflate(Box<Deflate>),
    Brotli(Box<Brotli>),
    /// One that we do not know, or one too many.
    Unknown,
}

/// What came of one go at a coding.
struct Go {
    made_bytes: usize,
    /// Another go may bring something, without more input.
    ready: bool,
    failed: bool,
}

impl Go {
    const FAILED: Self = Self { made_bytes: 0, ready: false, failed: true };
    /// There is no more to be made of this input.
    const IDLE: Self = Self { made_bytes: 0, ready: false, failed: false };
}

/// Whether there is more to decode in what was fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// All of it has been.
    Empty,
    /// There is.
    Left,
}

/// The memory that decoding may take in a shard, shared by all of its bodies: brotli's windows, and what waits to be
/// decoded.
///
/// A window grows with the content, so what is refused is a body much larger than others, at a time at which others
/// like it hold what there is.
#[derive(Clone, Debug)]
pub struct DecodeMemory {
    left_bytes: Rc<Cell<usize>>,
}

impl Default for DecodeMemory {
    fn default() -> Self {
        Self::of(DECODE_MEMORY_BYTES_MAX)
    }
}

impl DecodeMemory {
    /// So much for all of them.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self { left_bytes: Rc::new(Cell::new(bytes)) }
    }

    /// What is not taken, bytes.
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        self.left_bytes.get()
    }

    /// Takes so much of it, if there is as much left, until the claim is dropped.
    #[must_use]
    pub fn claim(&self, bytes: usize) -> Option<Claim> {
        self.left_bytes.set(self.left_bytes().checked_sub(bytes)?);
        Some(Claim { memory: self.clone(), bytes })
    }
}

/// A part of [`DecodeMemory`] that is taken.
#[derive(Debug)]
pub struct Claim {
    memory: DecodeMemory,
    bytes: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.memory.left_bytes.set(self.memory.left_bytes() + self.bytes);
    }
}

impl Decoder {
    /// A decoder for a body whose `Content-Encoding` fields, joined by commas, say this, and whose content may have
    /// `limit_bytes`; `None` where there is nothing to undo.
    #[must_use]
    pub fn new(content_encoding: &[u8], limit_bytes: u64, windows: &DecodeMemory) -> Option<Self> {
        let mut stages = Vec::new();
        let names = content_encoding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for name in names.filter(|name| !name.is_empty()) {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let coding = match () {
                () if is("identity") || is("none") => continue,
                () if stages.len() == CODINGS_MAX => Coding::Unknown,
                () if is("gzip") || is("x-gzip") => Coding::Gzip(Box::default()),
                () if is("deflate") => Coding::Deflate(Box::default()),
                () if is("br") => Coding::Brotli(Box::new(Brotli::new(windows, limit_bytes))),
                () => Coding::Unknown,
            };
            let hopeless = matches!(coding, Coding::Unknown);
            if hopeless {
                stages.clear(); // Whatever the others are.
            }
            stages.push(Stage::new(coding));
            if hopeless {
                break;
            }
        }
        stages.reverse();
        (!stages.is_empty()).then_some(Self { stages, limit_bytes, content_bytes: 0, failed: None })
    }

    /// Bytes of content handed out so far.
    #[must_use]
    pub const fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Whether it has failed because there was no memory for a window: no fault of the content's.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        let starved = |stage: &Stage| matches!(&stage.coding, Coding::Brotli(brotli) if brotli.is_starved());
        self.failed.is_some() && self.stages.iter().any(starved)
    }

    /// Takes the next bytes of payload, in any cut.
    pub fn feed(&mut self, input: &[u8]) {
        if let (None, Some(first)) = (self.failed, self.stages.first_mut()) {
            first.feed(input);
        }
    }

    /// Decodes on in what was fed, until there is no more of it or its stages have made `bytes`, and a slice each at
    /// most; calls `content` with the content, in order.
    ///
    /// `DecodeFailed` if the payload is not what the codings say, `BodyTooLarge` once the content, or what a stage
    /// makes of it, is over the limit: then all of it up to the limit has been handed out. A failure is final.
    pub fn go_on(&mut self, bytes: usize, content: &mut impl FnMut(&[u8])) -> Result<Backlog, Failure> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        let result = self.decode(bytes, content);
        self.failed = result.err();
        result
    }

    fn decode(&mut self, bytes: usize, content: &mut impl FnMut(&[u8])) -> Result<Backlog, Failure> {
        let mut buffer = [0; DECODED_SLICE_BYTES];
        let mut made_bytes = 0;
        // The last first: what is wrong further up comes after what was right, and nothing piles up in between.
        while let Some(at) = self.stages.iter().rposition(|stage| stage.ready) {
            if made_bytes >= bytes {
                return Ok(Backlog::Left);
            }
            let slice = self.stages[at].go(self.limit_bytes, &mut buffer)?;
            made_bytes += slice.len();
            match self.stages.get_mut(at + 1) {
                _ if slice.is_empty() => {}
                Some(next) => next.feed(slice),
                None => {
                    self.content_bytes += slice.len() as u64;
                    content(slice);
                }
            }
        }
        Ok(Backlog::Empty)
    }

    /// The body has ended, and nothing that was fed is left. `DecodeFailed` if a coding has not ended, unless nothing
    /// at all was fed.
    pub fn finish(&mut self) -> Result<(), Failure> {
        if self.failed.is_none() && !self.stages.iter().all(Stage::may_end) {
            self.failed = Some(Failure::DecodeFailed);
        }
        self.failed.map_or(Ok(()), Err)
    }
}

impl Stage {
    const fn new(coding: Coding) -> Self {
        Self {
            coding,
            began: false,
            input: Vec::new(),
            input_at: 0,
            ready: false,
            failing: None,
            handed_out_bytes: 0,
        }
    }

    fn feed(&mut self, input: &[u8]) {
        if input.is_empty() {
            return;
        }
        self.input.drain(..self.input_at);
        self.input_at = 0;
        self.input.extend_from_slice(input);
        (self.began, self.ready) = (true, true);
    }

    /// One go: a slice of output, or what is wrong, or neither.
    fn go<'a>(
        &mut self,
        limit_bytes: u64,
        buffer: &'a mut [u8; DECODED_SLICE_BYTES],
    ) -> Result<&'a [u8], Failure> {
        if let Some(failure) = self.failing {
            return Err(failure);
        }
        let room = usize::try_from(limit_bytes - self.handed_out_bytes).unwrap_or(usize::MAX);
        // One byte more than there is room for, so that too many are seen.
        let buffer = &mut buffer[..room.saturating_add(1).min(DECODED_SLICE_BYTES)];
        let mut input = &self.input[self.input_at..];
        let go = match &mut self.coding {
            Coding::Gzip(gzip) => gzip.go(&mut input, buffer),
            Coding::Deflate(deflate) => deflate.go(&mut input, buffer),
            Coding::Brotli(brotli) => brotli.go(&mut input, buffer),
            Coding::Unknown => Go::FAILED,
        };
        self.input_at = self.input.len() - input.len();
        let within = &buffer[..go.made_bytes.min(room)];
        self.handed_out_bytes += within.len() as u64;
        if within.len() < go.made_bytes {
            self.failing = Some(Failure::BodyTooLarge);
        } else if go.failed {
            self.failing = Some(Failure::DecodeFailed);
        }
        self.ready = go.ready || self.failing.is_some();
        Ok(within)
    }

    fn may_end(&self) -> bool {
        !self.began
            || match &self.coding {
                Coding::Gzip(gzip) => gzip.place == GzipPlace::Between,
                Coding::Deflate(deflate) => deflate.ended,
                Coding::Brotli(brotli) => brotli.ended,
                Coding::Unknown => false,
            }
    }
}

/// Inflates from the front of `input` into `buffer`, once; and whether the stream has ended.
fn inflate(inflater: &mut Decompress, input: &mut &[u8], buffer: &mut [u8]) -> (Go, bool) {
    let (in_before, out_before) = (inflater.total_in(), inflater.total_out());
    let result = inflater.decompress(input, buffer, FlushDecompress::None);
    let taken_bytes = usize::try_from(inflater.total_in() - in_before).unwrap_or(usize::MAX);
    let made_bytes = usize::try_from(inflater.total_out() - out_before).unwrap_or(usize::MAX);
    let (Some(rest), true) = (input.get(taken_bytes..), made_bytes <= buffer.len()) else {
        return (Go::FAILED, false);
    };
    let stuck = taken_bytes == 0 && made_bytes == 0 && !input.is_empty();
    *input = rest;
    let ended = matches!(result, Ok(Status::StreamEnd));
    // A buffer that was filled may not have held all.
    let ready = !input.is_empty() || made_bytes == buffer.len() && !ended;
    (Go { made_bytes, ready, failed: result.is_err() || stuck && !ended }, ended)
}

/// RFC 1952. The wrapper is taken apart here, byte by byte, because members repeat; zlib knows one.
struct Gzip {
    inflater: Decompress,
    place: GzipPlace,
    /// Flags of this member's header that are still to be obeyed.
    flags: u8,
    /// Of the header up to its own check, then of the content.
    check: Crc,
    /// What of a number has come: little-endian.
    number: u64,
}

/// Where in a member the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GzipPlace {
    /// Before any member, or behind one: the only place to end.
    Between,
    /// At this byte of the ten that every header has.
    Fixed(u8),
    ExtraLength(u8),
    Extra(u16),
    Name,
    Comment,
    HeaderCheck(u8),
    Content,
    /// At this byte of the eight that end a member.
    Trailer(u8),
}

const FLAG_HEADER_CHECK: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;

impl Default for Gzip {
    fn default() -> Self {
        Self {
            inflater: Decompress::new(false),
            place: GzipPlace::Between,
            flags: 0,
            check: Crc::new(),
            number: 0,
        }
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Gzip {
    fn go(&mut self, input: &mut &[u8], buffer: &mut [u8]) -> Go {
        while self.place != GzipPlace::Content {
            let Some((&byte, after)) = input.split_first() else { return Go::IDLE };
            *input = after;
            match self.wrapper_byte(byte) {
                Ok(place) => self.place = place,
                Err(_) => return Go::FAILED,
            }
        }
        let (go, ended) = inflate(&mut self.inflater, input, buffer);
        self.check.update(&buffer[..go.made_bytes]);
        if ended {
            self.number = 0;
            self.place = GzipPlace::Trailer(0);
        }
        go
    }

    fn wrapper_byte(&mut self, byte: u8) -> Result<GzipPlace, Failure> {
        let failed = Err(Failure::DecodeFailed);
        let in_header = !matches!(self.place, GzipPlace::HeaderCheck(_) | GzipPlace::Trailer(_));
        if self.place == GzipPlace::Between {
            self.check.reset();
        }
        if in_header {
            self.check.update(&[byte]);
        }
        Ok(match (self.place, byte) {
            (GzipPlace::Between, 0x1f) => GzipPlace::Fixed(1),
            (GzipPlace::Between, _) => return failed,
            (GzipPlace::Fixed(1), 0x8b) | (GzipPlace::Fixed(2), 8) => self.next_fixed(),
            (GzipPlace::Fixed(1 | 2), _) => return failed,
            (GzipPlace::Fixed(3), flags) if flags & FLAGS_RESERVED != 0 => return failed,
            (GzipPlace::Fixed(3), flags) => {
                self.flags = flags;
                self.next_fixed()
            }
            // Time, extra flags and system: of no interest.
            (GzipPlace::Fixed(at), _) if at < 9 => self.next_fixed(),
            (GzipPlace::Fixed(_), _) => self.next_part(),

            (GzipPlace::ExtraLength(0), low) => {
                self.number = u64::from(low);
                GzipPlace::ExtraLength(1)
            }
            (GzipPlace::ExtraLength(_), high) => match u16::from(high) << 8 | (self.number & 0xff) as u16 {
                0 => self.next_part(),
                length => GzipPlace::Extra(length),
            },
            (GzipPlace::Extra(1), _) | (GzipPlace::Name | GzipPlace::Comment, 0) => self.next_part(),
            (GzipPlace::Extra(left), _) => GzipPlace::Extra(left - 1),
            (place @ (GzipPlace::Name | GzipPlace::Comment), _) => place,

            (GzipPlace::HeaderCheck(0), low) => {
                self.number = u64::from(low);
                GzipPlace::HeaderCheck(1)
            }
            (GzipPlace::HeaderCheck(_), high) => {
                let expected = u64::from(self.check.sum() & 0xffff);
                if u64::from(high) << 8 | self.number != expected {
                    return failed;
                }
                self.next_part()
            }

            (GzipPlace::Trailer(at), byte) => {
                self.number |= u64::from(byte) << (8 * u32::from(at));
                if at < 7 {
                    return Ok(GzipPlace::Trailer(at + 1));
                }
                let (check, length) = (self.check.sum(), self.check.amount());
                if self.number != u64::from(length) << 32 | u64::from(check) {
                    return failed;
                }
                GzipPlace::Between
            }
            (GzipPlace::Content, _) => unreachable!("content is not the wrapper's"),
        })
    }

    fn next_fixed(&self) -> GzipPlace {
        match self.place {
            GzipPlace::Fixed(at) => GzipPlace::Fixed(at + 1),
            place => place,
        }
    }

    /// The next part of the header that the flags announce, in their order, or the content.
    fn next_part(&mut self) -> GzipPlace {
        let mut announced = |flag: u8| {
            let is_set = self.flags & flag != 0;
            self.flags &= !flag;
            is_set
        };
        if announced(FLAG_EXTRA) {
            GzipPlace::ExtraLength(0)
        } else if announced(FLAG_NAME) {
            GzipPlace::Name
        } else if announced(FLAG_COMMENT) {
            GzipPlace::Comment
        } else if announced(FLAG_HEADER_CHECK) {
            GzipPlace::HeaderCheck(0)
        } else {
            self.inflater.reset(false);
            self.check.reset();
            GzipPlace::Content
        }
    }
}

/// RFC 1951, with or without the wrapper of RFC 1950.
#[derive(Default)]
struct Deflate {
    /// There once two bytes have come, which tell whether they are the wrapper's.
    inflater: Option<Decompress>,
    ended: bool,
    /// Bytes that may still come behind the end.
    trailing_left: usize,
}

impl fmt::Debug for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Deflate {
    /// Some servers of old put a check behind a raw stream; curl looks past four bytes, and so do we.
    const TRAILING_BYTES_MAX: usize = 4;

    fn go(&mut self, input: &mut &[u8], buffer: &mut [u8]) -> Go {
        if self.ended {
            let Some(left) = self.trailing_left.checked_sub(input.len()) else { return Go::FAILED };
            self.trailing_left = left;
            *input = &[];
            return Go::IDLE;
        }
        let inflater = match (&mut self.inflater, *input) {
            (Some(inflater), _) => inflater,
            (none, [first, second, ..]) => {
                let wrapped = is_zlib_header(*first, *second);
                self.trailing_left = if wrapped { 0 } else { Self::TRAILING_BYTES_MAX };
                none.insert(Decompress::new(wrapped))
            }
            _ => return Go::IDLE,
        };
        let (go, ended) = inflate(inflater, input, buffer);
        self.ended = ended;
        go
    }
}

/// RFC 1950, section 2.2: method 8, a window of at most 32 KiB, and a checksum over both bytes. No encoder begins a
/// raw stream like this: it would be a stored block with padding that is not zero.
fn is_zlib_header(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0
}

/// RFC 7932.
struct Brotli {
    state: BrotliState<WindowAlloc, StandardAlloc, StandardAlloc>,
    /// The largest window that content within the limit has a use for, log2 of bytes.
    window_bits_max: u8,
    began: bool,
    ended: bool,
}

/// The windows that the low four bits of a stream's first byte can name, log2 of bytes; other forms are for smaller
/// ones (RFC 7932, section 9.1).
const WINDOW_BITS: RangeInclusive<u8> = 18..=24;

/// Gives the decoder its bytes, of which all but a few are its window, as long as [`DecodeMemory`] has them. It takes
/// an empty cell for a failure.
struct WindowAlloc {
    windows: DecodeMemory,
    refused: bool,
    standard: StandardAlloc,
}

impl Allocator<u8> for WindowAlloc {
    type AllocatedMemory = <StandardAlloc as Allocator<u8>>::AllocatedMemory;

    fn alloc_cell(&mut self, bytes: usize) -> Self::AllocatedMemory {
        let Some(left) = self.windows.left_bytes().checked_sub(bytes) else {
            self.refused = true;
            return Self::AllocatedMemory::default();
        };
        self.windows.left_bytes.set(left);
        <StandardAlloc as Allocator<u8>>::alloc_cell(&mut self.standard, bytes)
    }

    fn free_cell(&mut self, cell: Self::AllocatedMemory) {
        self.windows.left_bytes.set(self.windows.left_bytes() + cell.slice().len());
        <StandardAlloc as Allocator<u8>>::free_cell(&mut self.standard, cell);
    }
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Brotli {
    fn new(windows: &DecodeMemory, limit_bytes: u64) -> Self {
        let alloc = StandardAlloc::default;
        let windows = WindowAlloc { windows: windows.clone(), refused: false, standard: alloc() };
        // Strict: no windows beyond the 16 MiB of the RFC.
        let state = BrotliState::new_strict(windows, alloc(), alloc());
        // 16 bytes of a window cannot be reached.
        let window_bits_max =
            WINDOW_BITS.into_iter().find(|bits| (1 << bits) - 16 > limit_bytes).unwrap_or(*WINDOW_BITS.end());
        Self { state, window_bits_max, began: false, ended: false }
    }

    /// The first byte of a stream, with no larger window than is of use. Content that ends within a window is the same
    /// in a larger one; and the decoder, which hands nothing out before a window is full, has made that much less in
    /// vain when it turns out to be over the limit.
    fn narrowed(&self, first: u8) -> u8 {
        let (mark, above) = (first & 1, first >> 1 & 7);
        let of_use = self.window_bits_max - (*WINDOW_BITS.start() - 1);
        if mark == 0 || above <= of_use { first } else { first & !0b1110 | of_use << 1 }
    }

    const fn is_starved(&self) -> bool {
        self.state.alloc_u8.refused
    }

    fn go(&mut self, input: &mut &[u8], buffer: &mut [u8]) -> Go {
        if !self.began
            && let [first, rest @ ..] = *input
        {
            (self.began, *input) = (true, rest);
            let go = self.decompress(&mut &[self.narrowed(*first)][..], buffer);
            if go.failed || input.is_empty() {
                return go;
            }
        }
        self.decompress(input, buffer)
    }

    fn decompress(&mut self, input: &mut &[u8], buffer: &mut [u8]) -> Go {
        if self.ended {
            return if input.is_empty() { Go::IDLE } else { Go::FAILED };
        }
        let (mut input_left, mut input_at, mut room, mut made_bytes) = (input.len(), 0, buffer.len(), 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut input_at,
            input,
            &mut room,
            &mut made_bytes,
            buffer,
            &mut 0,
            &mut self.state,
        );
        let (Some(rest), true) = (input.get(input_at..), made_bytes <= buffer.len()) else {
            return Go::FAILED;
        };
        *input = rest;
        let (ready, failed) = match result {
            BrotliResult::ResultSuccess => {
                self.ended = true;
                (!input.is_empty(), false)
            }
            BrotliResult::NeedsMoreInput if input.is_empty() => (false, false),
            BrotliResult::NeedsMoreOutput if made_bytes > 0 => (true, false),
            // No progress is no way forward.
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput | BrotliResult::ResultFailure => {
                (false, true)
            }
        };
        Go { made_bytes, ready, failed }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::http::invariants::random_cuts;

    const LIMIT_BYTES: u64 = 1 << 20;

    /// What comes of `input`: the content, and how it ended.
    fn decode<'a>(
        coding: &str,
        limit_bytes: u64,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<u8>, Result<(), Failure>) {
        decode_in_goes(coding, limit_bytes, usize::MAX, pieces)
    }

    /// As [`decode`], with goes of so many bytes.
    fn decode_in_goes<'a>(
        coding: &str,
        limit_bytes: u64,
        go_bytes: usize,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<u8>, Result<(), Failure>) {
        let mut content = Vec::new();
        let Some(mut decoder) = Decoder::new(coding.as_bytes(), limit_bytes, &DecodeMemory::default()) else {
            pieces.into_iter().for_each(|piece| content.extend_from_slice(piece));
            return (content, Ok(()));
        };
        for piece in pieces {
            decoder.feed(piece);
            loop {
                let before_bytes = content.len();
                let result = decoder.go_on(go_bytes, &mut |slice: &[u8]| {
                    assert!(!slice.is_empty(), "no empty slices");
                    content.extend_from_slice(slice);
                });
                let made_bytes = content.len() - before_bytes;
                assert!(made_bytes < go_bytes.saturating_add(DECODED_SLICE_BYTES), "a go is bounded");
                assert_eq!(decoder.content_bytes(), content.len() as u64);
                assert!(content.len() as u64 <= limit_bytes, "the limit holds");
                match result {
                    Ok(Backlog::Left) => {}
                    Ok(Backlog::Empty) => break,
                    Err(failure) => {
                        decoder.feed(b"x");
                        let again = decoder.go_on(go_bytes, &mut |_| panic!("content after a failure"));
                        assert_eq!(again, Err(failure), "a failure is final");
                        assert_eq!(decoder.finish(), Err(failure), "a failure is final");
                        return (content, Err(failure));
                    }
                }
            }
        }
        let end = decoder.finish();
        (content, end)
    }

    /// Decodes in every cut worth trying, and asserts that they agree.
    fn check_within(coding: &str, limit_bytes: u64, input: &[u8], expected: Result<&[u8], Failure>) {
        let mut random = 0x5eed;
        let cuts: [Vec<&[u8]>; 5] = [
            vec![input],
            input.chunks(1).collect(),
            input.chunks(4096).collect(),
            random_cuts(input, &mut random),
            random_cuts(input, &mut random),
        ];
        for pieces in cuts {
            let (content, end) = decode(coding, limit_bytes, pieces);
            match expected {
                Ok(expected) => {
                    assert_eq!(end, Ok(()), "{coding}");
                    assert!(content == expected, "{coding}: {} bytes", content.len());
                }
                Err(failure) => assert_eq!(end, Err(failure), "{coding}"),
            }
        }
    }

    fn check(coding: &str, input: &[u8], expected: Result<&[u8], Failure>) {
        check_within(coding, LIMIT_BYTES, input, expected);
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(content: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Made by another implementation: the streams in `tests/data/http/coding/`.
    fn fixture(name: &str) -> Vec<u8> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http/coding");
        std::fs::read(directory.join(name)).unwrap()
    }

    /// The content of the `page` fixtures.
    fn page() -> Vec<u8> {
        let line = |n| format!("line {n} of a page that is {} times as long as it should be\n", n % 7);
        (0..2000).map(line).collect::<String>().into_bytes()
    }

    /// How streams begin, so that arbitrary bytes get past the first.
    const STARTS: &[&[u8]] = &[b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x78\x9c", b"\x0b", b""];

    const CORRUPT: Result<&[u8], Failure> = Err(Failure::DecodeFailed);

    #[test]
    fn each_coding_gives_its_content_back() {
        let page = page();
        for content in [&b"hello"[..], b"", &page] {
            check("gzip", &gzip(content), Ok(content));
            check("x-gzip", &gzip(content), Ok(content));
            check("deflate", &zlib(content), Ok(content));
            check("deflate", &raw(content), Ok(content));
            check("identity", content, Ok(content));
            check("", content, Ok(content));
        }
        check("br", &fixture("hello.br"), Ok(b"hello"));
        check("br", &fixture("empty.br"), Ok(b""));
        check("br", &fixture("page.br"), Ok(&page));
        check("br", &fixture("page-window-10.br"), Ok(&page));
    }

    #[test]
    fn codings_are_undone_last_first_and_names_are_read_as_lists() {
        let content = b"hello";
        check("deflate, gzip", &gzip(&zlib(content)), Ok(content));
        check("gzip,deflate", &raw(&gzip(content)), Ok(content));
        check("gzip, deflate", &gzip(&zlib(content)), CORRUPT);
        check(" ,GZIP ,, Identity,\t", &gzip(content), Ok(content));
        let nested = (0..CODINGS_MAX).fold(content.to_vec(), |inner, _| gzip(&inner));
        check(&"gzip,".repeat(CODINGS_MAX), &nested, Ok(content));
        check(&"gzip,".repeat(CODINGS_MAX + 1), &gzip(&nested), CORRUPT);
        // However many that do nothing.
        check(&"identity,".repeat(1000), content, Ok(content));
    }

    #[test]
    fn unknown_codings_fail_at_the_first_byte_and_not_before() {
        for coding in ["zstd", "compress", "gzip, zstd", "zstd, gzip", "gzip;q=1", "\"gzip\"", "chunked"] {
            check(coding, b"", Ok(b""));
            check(coding, &gzip(b""), CORRUPT);
        }
    }

    #[test]
    fn nothing_at_all_is_no_failure() {
        for coding in ["gzip", "deflate", "br", "br, gzip", ""] {
            check(coding, b"", Ok(b""));
        }
    }

    #[test]
    fn truncated_streams_fail_wherever_they_are_cut() {
        let streams = [("gzip", gzip(b"hello")), ("deflate", zlib(b"hello")), ("deflate", raw(b"hello"))];
        for (coding, stream) in streams.into_iter().chain([("br", fixture("hello.br"))]) {
            for end in 1..stream.len() {
                check(coding, &stream[..end], CORRUPT);
            }
        }
        let page = gzip(&page());
        check("gzip", &page[..page.len() / 2], CORRUPT);
        check("gzip, gzip", &gzip(&page[..page.len() / 2]), CORRUPT);
    }

    #[test]
    fn checks_and_lengths_are_verified() {
        for (coding, stream) in [("gzip", gzip(b"hello")), ("deflate", zlib(b"hello"))] {
            let trailer_bytes = if coding == "gzip" { 8 } else { 4 };
            for at in stream.len() - trailer_bytes..stream.len() {
                let mut broken = stream.clone();
                broken[at] ^= 1;
                check(coding, &broken, CORRUPT);
            }
        }
    }

    #[test]
    fn what_stands_behind_the_end_fails() {
        for (coding, stream, tolerated_bytes) in [
            ("gzip", gzip(b"hello"), 0),
            ("deflate", zlib(b"hello"), 0),
            ("deflate", raw(b"hello"), 4),
            ("br", fixture("hello.br"), 0),
        ] {
            let with = |behind: usize| [&stream[..], &vec![0; behind]].concat();
            check(coding, &with(tolerated_bytes), Ok(b"hello"));
            check(coding, &with(tolerated_bytes + 1), CORRUPT);
            check(coding, &with(10_000), CORRUPT);
        }
    }

    #[test]
    fn gzip_has_members() {
        let members = [gzip(b"hel"), gzip(b""), gzip(b"lo")].concat();
        check("gzip", &members, Ok(b"hello"));
        check("gzip", &[&members[..], b"\x1f"].concat(), CORRUPT);
        check("gzip", &[&members[..], b"garbage"].concat(), CORRUPT);
        let many = gzip(b"x").repeat(5000);
        check("gzip", &many, Ok(&[b'x'; 5000]));
    }

    #[test]
    fn gzip_headers_may_have_every_part() {
        let body = gzip(b"hello")[10..].to_vec();
        let extra = [&b"\x05\x00"[..], b"extra"].concat();
        for flags in 0_u8..32 {
            let mut stream = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255];
            let parts = [(FLAG_EXTRA, &extra[..]), (FLAG_NAME, b"name\0"), (FLAG_COMMENT, b"a comment\0")];
            for (flag, part) in parts {
                if flags & flag != 0 {
                    stream.extend_from_slice(part);
                }
            }
            if flags & FLAG_HEADER_CHECK != 0 {
                let mut check = Crc::new();
                check.update(&stream);
                let [low, high, ..] = check.sum().to_le_bytes();
                let broken = [&stream[..], &[low, high ^ 1], &body].concat();
                self::check("gzip", &broken, CORRUPT);
                stream.extend([low, high]);
            }
            stream.extend_from_slice(&body);
            check("gzip", &stream, Ok(b"hello"));
        }
        for flags in [0x20, 0x40, 0x80] {
            check("gzip", &[&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255], &body[..]].concat(), CORRUPT);
        }
        check("gzip", &[&[0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 255], &body[..]].concat(), CORRUPT);
        // An extra part of no length.
        check("gzip", &[&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 0, 0], &body[..]].concat(), Ok(b"hello"));
    }

    #[test]
    fn content_may_have_its_limit_and_not_a_byte_more() {
        let page = page();
        let limit_bytes = page.len() as u64;
        let coded = [("gzip", gzip(&page)), ("deflate", raw(&page)), ("br", fixture("page.br"))];
        for (coding, stream) in coded {
            check_within(coding, limit_bytes, &stream, Ok(&page));
            check_within(coding, limit_bytes - 1, &stream, Err(Failure::BodyTooLarge));
            check_within(coding, 0, &stream, Err(Failure::BodyTooLarge));
            let (content, _) = decode(coding, limit_bytes - 1, stream.chunks(1));
            assert!(content == page[..page.len() - 1], "{coding}: all up to the limit was handed out");
        }
        // A stage in between is held to it too.
        let inner = gzip(&vec![0; 4 << 20]);
        let bomb = gzip(&inner.repeat(300));
        check_within("gzip, gzip", 100_000, &bomb, Err(Failure::BodyTooLarge));
    }

    /// 32 MiB of nothing in a few bytes, alone and wrapped again: what is handed out, and thus what it costs, ends
    /// with the limit.
    #[test]
    fn bombs_are_too_large() {
        let bomb = fixture("bomb.br");
        assert!(bomb.len() < 100, "{} bytes", bomb.len());
        check("br", &bomb, Err(Failure::BodyTooLarge));
        check("br, gzip", &gzip(&bomb), Err(Failure::BodyTooLarge));
        let bomb = gzip(&vec![0; 32 << 20]);
        check("gzip", &bomb, Err(Failure::BodyTooLarge));
        check("gzip, gzip", &gzip(&bomb), Err(Failure::BodyTooLarge));
    }

    /// What a stream says of its window makes no difference to what it says in it.
    #[test]
    fn a_window_is_as_large_as_the_limit_has_a_use_for() {
        let (page, mut stream) = (page(), fixture("page.br"));
        for bits in WINDOW_BITS {
            stream[0] = stream[0] & !0b1111 | (bits - 17) << 1 | 1;
            for limit_bytes in [page.len() as u64, LIMIT_BYTES, 64 << 20] {
                check_within("br", limit_bytes, &stream, Ok(&page));
            }
        }
        let bomb = fixture("bomb.br");
        for (limit_bytes, window_bytes) in [(100, 1 << 18), (300_000, 1 << 19), (10 << 20, 1 << 24)] {
            let memory = DecodeMemory::default();
            let mut decoder = Decoder::new(b"br", limit_bytes, &memory).unwrap();
            decoder.feed(&bomb);
            assert_eq!(decoder.go_on(usize::MAX, &mut |_| {}), Err(Failure::BodyTooLarge));
            let taken_bytes = DecodeMemory::default().left_bytes() - memory.left_bytes();
            let beside_bytes = 4 * 1024;
            assert!((window_bytes..window_bytes + beside_bytes).contains(&taken_bytes), "{taken_bytes}");
        }
    }

    /// What is left of the windows comes back with the decoder, and who finds too little is told apart from who is
    /// broken.
    #[test]
    fn windows_are_counted_and_refused() {
        let (page, stream) = (page(), fixture("page.br"));
        let run = |windows: &DecodeMemory| {
            let mut decoder = Decoder::new(b"br", LIMIT_BYTES, windows).unwrap();
            decoder.feed(&stream);
            let mut content = Vec::new();
            let result = decoder.go_on(usize::MAX, &mut |slice| content.extend_from_slice(slice));
            (result, decoder.is_starved(), content.len(), windows.left_bytes())
        };
        let windows = DecodeMemory::of(1 << 20);
        let (result, starved, content_bytes, left_bytes) = run(&windows);
        assert_eq!((result, starved, content_bytes), (Ok(Backlog::Empty), false, page.len()));
        assert!(left_bytes <= (1 << 20) - page.len(), "its window was counted: {left_bytes} are left");
        assert_eq!(windows.left_bytes(), 1 << 20, "and given back");
        let windows = DecodeMemory::of(page.len() / 2);
        let (result, starved, ..) = run(&windows);
        assert_eq!((result, starved), (Err(Failure::DecodeFailed), true));
        assert_eq!(windows.left_bytes(), page.len() / 2);
        let mut broken = Decoder::new(b"br", LIMIT_BYTES, &windows).unwrap();
        broken.feed(b"\xff\xff\xff\xff");
        assert_eq!(broken.go_on(usize::MAX, &mut |_| {}), Err(Failure::DecodeFailed));
        assert!(!broken.is_starved(), "broken is broken");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn any_content_comes_back(
            content in proptest::collection::vec(0_u8..4, 0..3000),
            level in 0_u32..10,
            seed in 1_u64..,
        ) {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&content).unwrap();
            let stream = encoder.finish().unwrap();
            let (decoded, end) = decode("gzip", LIMIT_BYTES, random_cuts(&stream, &mut seed.clone()));
            prop_assert_eq!((decoded, end), (content, Ok(())));
        }

        /// Content, verdict and order do not depend on how much is made at once, of several codings either.
        #[test]
        fn goes_of_any_size_come_to_the_same(
            go_bytes in 1_usize..40_000,
            limit_bytes in 0_u64..300_000,
            coding in proptest::sample::select(&["gzip", "deflate", "br", "gzip, gzip", "br, gzip"][..]),
            broken_at in proptest::option::of(any::<proptest::sample::Index>()),
            seed in 1_u64..,
        ) {
            let mut stream = match coding {
                "gzip" => gzip(&page()),
                "deflate" => raw(&page()),
                "br" => fixture("page.br"),
                "gzip, gzip" => gzip(&gzip(&page().repeat(3))),
                _ => gzip(&fixture("page.br")),
            };
            if let Some(at) = broken_at {
                let at = at.index(stream.len());
                stream[at] ^= 0x10;
            }
            let pieces = random_cuts(&stream, &mut seed.clone());
            let whole = decode(coding, limit_bytes, pieces.iter().copied());
            let in_goes = decode_in_goes(coding, limit_bytes, go_bytes, pieces.iter().copied());
            prop_assert!(whole == in_goes);
        }

        /// Broken at a random place: nothing panics, and the cut does not decide what becomes of it.
        #[test]
        fn broken_streams_are_judged_alike_in_every_cut(
            which in 0_usize..4,
            at in any::<proptest::sample::Index>(),
            bits in 1_u8..,
            limit_bytes in 0_u64..200_000,
            seed in 1_u64..,
        ) {
            let (coding, mut stream) = match which {
                0 => ("gzip", gzip(&page())),
                1 => ("deflate", zlib(&page())),
                2 => ("deflate", raw(&page())),
                _ => ("br", fixture("page.br")),
            };
            let at = at.index(stream.len().min(2000));
            stream[at] ^= bits;
            let (whole, whole_end) = decode(coding, limit_bytes, [&stream[..]]);
            let (cut, cut_end) = decode(coding, limit_bytes, random_cuts(&stream, &mut seed.clone()));
            if which < 3 {
                prop_assert_eq!(whole_end, cut_end);
                prop_assert_eq!(whole.len(), cut.len());
            }
            prop_assert_eq!(whole_end.is_ok(), cut_end.is_ok());
            let shared = whole.len().min(cut.len());
            prop_assert!(whole[..shared] == cut[..shared]);
            prop_assert!(whole_end.is_err() || whole.len() == cut.len());
        }

        #[test]
        fn any_bytes_are_judged_alike_in_every_cut(
            coding in proptest::sample::select(&["gzip", "deflate", "br", "br, deflate", ""][..]),
            start in proptest::sample::select(STARTS),
            tail in proptest::collection::vec(any::<u8>(), 0..300),
            seed in 1_u64..,
        ) {
            let stream = [start, &tail].concat();
            let (whole, whole_end) = decode(coding, 10_000, [&stream[..]]);
            let (cut, cut_end) = decode(coding, 10_000, random_cuts(&stream, &mut seed.clone()));
            prop_assert_eq!(whole_end.is_ok(), cut_end.is_ok());
            prop_assert!(whole_end.is_err() || whole == cut);
        }
    }
}
