//! Answers of the test origin: from a [`Dish`] to the bytes, waits and ending of a response.
//!
//! An [`Answer`] is made once per path and played any number of times through a [`Cursor`], which says what to
//! do next: send these bytes, wait this long, end like this. Long and endless parts repeat a pattern, so that
//! the memory of an answer does not depend on its length.
//!
//! Out of scope: sockets and clocks (`super::server`).
//!
//! Invariant: playing an answer never allocates.

use super::menu::{Body, Dish, Fault};
use crate::clock::Micros;

/// A response, ready to be played.
#[derive(Debug)]
pub(super) struct Answer {
    steps: Vec<Step>,
    end: End,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection waits for the next request.
    KeepAlive,
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Nothing, until the client goes.
    Silence,
}

/// The properties of a request that shape the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The method is HEAD: no body.
    pub(super) head_only: bool,
    /// The connection shall close afterwards.
    pub(super) close: bool,
}

#[derive(Debug)]
enum Step {
    Wait(Micros),
    Send(Piece),
}

/// `total_bytes` of `pattern` over and over, in writes of at most `write_bytes`, each `gap` after the last.
#[derive(Debug)]
struct Piece {
    pattern: Vec<u8>,
    total_bytes: u64,
    write_bytes: u64,
    gap: Micros,
}

/// What to do next with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Send these, then report to [`Cursor::sent`] how many went.
    Send(&'a [u8]),
    /// Come back when this much time has passed.
    Wait(Micros),
    /// It is over.
    End(End),
}

/// How far an answer has been played.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    step: usize,
    sent_bytes: u64,
    /// The wait that is due at this place has been handed out.
    waited: bool,
}

impl Cursor {
    /// What comes next. A wait is handed out once: asking again means that it is over.
    pub(super) fn next<'a>(&mut self, answer: &'a Answer) -> Next<'a> {
        loop {
            match answer.steps.get(self.step) {
                None => return Next::End(answer.end),
                Some(Step::Wait(span)) if !self.waited => {
                    self.waited = true;
                    return Next::Wait(*span);
                }
                Some(Step::Send(piece)) if self.sent_bytes < piece.total_bytes => {
                    let in_write = self.sent_bytes % piece.write_bytes;
                    let between = in_write == 0 && self.sent_bytes > 0;
                    if between && piece.gap > Micros(0) && !self.waited {
                        self.waited = true;
                        return Next::Wait(piece.gap);
                    }
                    return Next::Send(piece.at(self.sent_bytes, piece.write_bytes - in_write));
                }
                Some(_) => *self = Self { step: self.step + 1, ..Self::default() },
            }
        }
    }

    /// `bytes` of what [`Self::next`] offered have been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        self.waited = false;
    }
}

impl Piece {
    /// What follows the first `from_bytes`: no more than `most_bytes`, and no more than lies in one piece.
    fn at(&self, from_bytes: u64, most_bytes: u64) -> &[u8] {
        let left_bytes = most_bytes.min(self.total_bytes - from_bytes);
        let start = usize::try_from(from_bytes % self.pattern.len() as u64).unwrap_or_default();
        let rest = &self.pattern[start..];
        &rest[..usize::try_from(left_bytes).unwrap_or(usize::MAX).min(rest.len())]
    }

    /// Sent at once, and held in memory whole.
    fn is_plain(&self) -> bool {
        self.total_bytes == self.pattern.len() as u64 && self.write_bytes == u64::MAX
    }
}

impl Answer {
    /// Makes the answer that `dish` describes to a request like `asked`.
    pub(super) fn new(dish: &Dish, asked: Asked) -> Self {
        let mut kitchen = Kitchen { steps: Vec::new(), head_only: asked.head_only };
        if dish.delay > Micros(0) {
            kitchen.steps.push(Step::Wait(dish.delay));
        }
        if dish.interim > 0 {
            kitchen.repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n", dish.interim);
        }
        let end = kitchen.response(dish, asked);
        let mut answer = Self { steps: kitchen.steps, end };
        if let Some((write_bytes, gap)) = dish.split {
            answer.split(write_bytes, gap);
        }
        if let Some(bytes) = dish.reset_after {
            answer.cut_off(bytes);
        }
        answer
    }

    /// All of it, if it is nothing but one write, and whether the connection closes then: the fast path.
    pub(super) fn plain(&self) -> Option<(&[u8], bool)> {
        match (&self.steps[..], self.end) {
            ([Step::Send(piece)], End::KeepAlive | End::Close) if piece.is_plain() => {
                Some((&piece.pattern, self.end == End::Close))
            }
            _ => None,
        }
    }

    /// Bytes it holds in memory.
    pub(super) fn held_bytes(&self) -> usize {
        let held = |step: &Step| match step {
            Step::Wait(_) => 0,
            Step::Send(piece) => piece.pattern.len(),
        };
        self.steps.iter().map(held).sum()
    }

    fn split(&mut self, write_bytes: u64, gap: Micros) {
        for step in &mut self.steps {
            if let Step::Send(piece) = step {
                piece.write_bytes = piece.write_bytes.min(write_bytes);
                piece.gap = piece.gap.max(gap);
            }
        }
    }

    fn cut_off(&mut self, bytes: u64) {
        let mut left_bytes = bytes;
        self.steps.retain_mut(|step| match step {
            Step::Wait(_) => left_bytes > 0 || bytes == 0,
            Step::Send(piece) => {
                piece.total_bytes = piece.total_bytes.min(left_bytes);
                left_bytes -= piece.total_bytes;
                piece.total_bytes > 0
            }
        });
        self.end = End::Reset;
    }
}

/// 64 bytes of filler: lines that contain no word a test may look for.
pub(super) const FILLER: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n";

/// Odd chunk sizes, summing to the length of [`FILLER`] so that a period of chunks is a period of filler.
const ODD_CHUNKS: [usize; 8] = [1, 2, 3, 5, 7, 11, 13, 22];

/// A repeated pattern is written out up to this length, so that one write carries a fair share.
const PATTERN_BYTES: usize = 16 * 1024;
/// Up to this length an answer is held whole and sent at once.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;

/// Puts an answer together.
struct Kitchen {
    steps: Vec<Step>,
    head_only: bool,
}

impl Kitchen {
    /// Appends bytes, to the last piece if that is a plain one.
    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.steps.last_mut() {
            Some(Step::Send(piece)) if piece.is_plain() && piece.total_bytes <= PLAIN_BYTES_MAX => {
                piece.pattern.extend_from_slice(bytes);
                piece.total_bytes += bytes.len() as u64;
            }
            _ => self.steps.push(Step::Send(Piece {
                pattern: bytes.to_vec(),
                total_bytes: bytes.len() as u64,
                write_bytes: u64::MAX,
                gap: Micros(0),
            })),
        }
    }

    /// Appends `pattern` so many times; [`u64::MAX`] for no end.
    fn repeat(&mut self, pattern: &[u8], times: u64) {
        self.fill(pattern, (pattern.len() as u64).saturating_mul(times));
    }

    /// Appends so many bytes of `pattern` over and over; [`u64::MAX`] for no end.
    fn fill(&mut self, pattern: &[u8], total_bytes: u64) {
        if total_bytes <= PLAIN_BYTES_MAX {
            let whole: Vec<u8> =
                pattern.iter().copied().cycle().take(usize::try_from(total_bytes).unwrap_or(0)).collect();
            return self.write(&whole);
        }
        let pattern = pattern.repeat(PATTERN_BYTES.div_ceil(pattern.len()));
        self.steps.push(Step::Send(Piece { pattern, total_bytes, write_bytes: u64::MAX, gap: Micros(0) }));
    }

    /// Appends the response proper.
    fn response(&mut self, dish: &Dish, asked: Asked) -> End {
        let Some(fault) = dish.fault else {
            return self.honest(dish, asked);
        };
        match fault {
            Fault::Reset => return End::Reset,
            Fault::Close => return End::Close,
            Fault::Never => return End::Silence,
            Fault::HalfHead => {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Le");
                return End::Silence;
            }
            Fault::Garbage => {
                self.write(b"\x16\x03\x01\x00 this is not HTTP\r\n\r\n");
                return End::Silence;
            }
            Fault::Switching => {
                self.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: nonsense\r\n\r\n",
                );
                return End::Silence;
            }
            Fault::EarlyClose => {
                let half = payload_bytes(&dish.body) / 2;
                self.head(dish, asked, &Framing::Length(half * 2 + 1));
                self.filler(half);
                return End::Close;
            }
            Fault::LongBody | Fault::Poison => {
                let end = self.honest(dish, asked);
                self.write(match fault {
                    Fault::LongBody => b"surplus",
                    _ => b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
                });
                return end;
            }
            Fault::BadLength => {
                self.head(dish, asked, &Framing::Field("Content-Length: -5"));
                self.body(b"hello");
            }
            Fault::TwoLengths => {
                self.head(dish, asked, &Framing::Field("Content-Length: 5\r\nContent-Length: 7"));
                self.body(b"hello..");
            }
            Fault::BadChunk => {
                self.head(dish, asked, &Framing::Chunked);
                self.body(b"5 hello\r\nhello\r\nsize\r\nhello\r\n0\r\n\r\n");
            }
            Fault::HugeChunk => {
                self.head(dish, asked, &Framing::Chunked);
                self.body(b"10000000000000005\r\nhello\r\n0\r\n\r\n");
            }
            Fault::EndlessHeader => {
                self.write(b"HTTP/1.1 200 OK\r\nX-Endless: ");
                self.fill(b"a", u64::MAX);
            }
            Fault::EndlessHeaders => {
                self.write(b"HTTP/1.1 200 OK\r\n");
                self.fill(b"X-Endless: a\r\n", u64::MAX);
            }
            Fault::EndlessBody => {
                self.head(dish, asked, &Framing::None);
                self.filler(u64::MAX);
            }
            Fault::EndlessChunks => {
                self.head(dish, asked, &Framing::Chunked);
                self.endless(b"", &odd_chunks(FILLER.len()));
            }
            Fault::EndlessChunkLine => {
                self.head(dish, asked, &Framing::Chunked);
                self.endless(b"5;extension=", b"a");
            }
            Fault::EndlessTrailers => {
                self.head(dish, asked, &Framing::Chunked);
                self.endless(b"5\r\nhello\r\n0\r\n", b"X-Endless: a\r\n");
            }
        }
        // What these sent ends nowhere, or cannot be told apart from what would follow.
        End::Silence
    }

    /// Appends a response that keeps to the rules.
    fn honest(&mut self, dish: &Dish, asked: Asked) -> End {
        let end = if asked.close || dish.head.http10 { End::Close } else { End::KeepAlive };
        if matches!(dish.status, 204 | 304) {
            self.head(dish, asked, &Framing::None);
            return end;
        }
        if dish.trailers || matches!(dish.body, Body::Chunked(..)) {
            self.head(dish, asked, &Framing::Chunked);
            self.pause(dish);
            self.chunks(&dish.body);
            if dish.trailers {
                self.body(b"0\r\nX-Trailer: one\r\nX-Other: two\r\n\r\n");
            } else {
                self.body(b"0\r\n\r\n");
            }
            return end;
        }
        if let Body::UntilClose(bytes) = dish.body {
            self.head(dish, asked, &Framing::None);
            self.pause(dish);
            self.filler(bytes);
            return End::Close;
        }
        self.head(dish, asked, &Framing::Length(payload_bytes(&dish.body)));
        self.pause(dish);
        match &dish.body {
            Body::Text(text) => self.body(text),
            Body::Drip(total_bytes, gap) if !self.head_only => self.steps.push(Step::Send(Piece {
                pattern: FILLER.to_vec(),
                total_bytes: *total_bytes,
                write_bytes: 1,
                gap: *gap,
            })),
            body => self.filler(payload_bytes(body)),
        }
        end
    }

    fn head(&mut self, dish: &Dish, asked: Asked, framing: &Framing) {
        let style = &dish.head;
        let start = self.steps.len();
        let version = if style.http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let reason = if style.reason { format!(" {}", reason(dish.status)) } else { String::new() };
        let mut fields = format!("{version} {}{reason}\r\nContent-Type: text/plain\r\n", dish.status);
        match framing {
            Framing::None => {}
            Framing::Length(bytes) => fields += &format!("Content-Length: {bytes}\r\n"),
            Framing::Chunked => fields += "Transfer-Encoding: chunked\r\n",
            Framing::Field(field) => fields += &format!("{field}\r\n"),
        }
        if let Some(location) = &style.location {
            fields += &format!("Location: {location}\r\n");
        }
        if asked.close {
            fields += "Connection: close\r\n";
        }
        let line_end = if style.lf_only { "\n" } else { "\r\n" };
        let written = |text: &str| text.replace("\r\n", line_end).into_bytes();
        if style.slow.is_some() {
            // The pieces of a slow head must not join what went before.
            self.steps.push(Step::Wait(Micros(0)));
        }
        self.write(&written(&fields));
        self.repeat(&written("X-Field: one of many\r\n"), style.fields);
        if let Some(bytes) = style.field_bytes {
            self.write(b"X-Long: ");
            self.fill(b"a", bytes);
            self.write(line_end.as_bytes());
        }
        self.write(line_end.as_bytes());
        if let Some(gap) = style.slow {
            for step in &mut self.steps[start..] {
                if let Step::Send(piece) = step {
                    (piece.write_bytes, piece.gap) = (1, gap);
                }
            }
        }
    }

    fn pause(&mut self, dish: &Dish) {
        if dish.pause > Micros(0) && !self.head_only {
            self.steps.push(Step::Wait(dish.pause));
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        if !self.head_only {
            self.write(bytes);
        }
    }

    fn filler(&mut self, bytes: u64) {
        if !self.head_only {
            self.fill(FILLER, bytes);
        }
    }

    fn endless(&mut self, first: &[u8], pattern: &[u8]) {
        if !self.head_only {
            self.write(first);
            self.fill(pattern, u64::MAX);
        }
    }

    /// Appends all chunks but the last, empty one.
    fn chunks(&mut self, body: &Body) {
        if self.head_only {
            return;
        }
        match body {
            Body::Text(text) => self.write(&chunk(text)),
            Body::Chunked(total_bytes, Some(size_bytes)) => {
                let size = usize::try_from(*size_bytes).unwrap_or(usize::MAX);
                // As many chunks as bring the filler back to its start.
                let period = FILLER.len() >> size.trailing_zeros().min(FILLER.len().trailing_zeros());
                let whole = total_bytes / size_bytes;
                let text = |at: usize, length: usize| -> Vec<u8> {
                    FILLER.iter().copied().cycle().skip(at % FILLER.len()).take(length).collect()
                };
                let in_period = usize::try_from(whole).unwrap_or(usize::MAX).min(period);
                let pattern: Vec<u8> =
                    (0..in_period).flat_map(|index| chunk(&text(index * size, size))).collect();
                let chunk_bytes = pattern.len().checked_div(in_period).unwrap_or(0);
                self.fill(&pattern, chunk_bytes as u64 * whole);
                let rest = usize::try_from(total_bytes % size_bytes).unwrap_or(0);
                let at = usize::try_from((total_bytes - total_bytes % size_bytes) % 64).unwrap_or(0);
                self.write(&chunk(&text(at, rest)));
            }
            body => {
                let total_bytes = payload_bytes(body);
                let period = FILLER.len() as u64;
                self.repeat(&odd_chunks(FILLER.len()), total_bytes / period);
                self.write(&odd_chunks(usize::try_from(total_bytes % period).unwrap_or(0)));
            }
        }
    }
}

enum Framing {
    None,
    Length(u64),
    Chunked,
    Field(&'static str),
}

/// One chunk; nothing for an empty one, which would end the body.
fn chunk(text: &[u8]) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// The first bytes of the filler in chunks of odd sizes.
fn odd_chunks(bytes: usize) -> Vec<u8> {
    let mut rest = &FILLER[..bytes];
    let mut chunks = Vec::new();
    for size in ODD_CHUNKS {
        let (text, after) = rest.split_at(size.min(rest.len()));
        chunks.extend(chunk(text));
        rest = after;
    }
    chunks
}

const _: () = assert!(PATTERN_BYTES.is_multiple_of(64) && PLAIN_BYTES_MAX > 0);

/// Bytes of the body without its framing.
fn payload_bytes(body: &Body) -> u64 {
    match body {
        Body::Text(text) => text.len() as u64,
        Body::Bytes(bytes) | Body::Chunked(bytes, _) | Body::UntilClose(bytes) | Body::Drip(bytes, _) => {
            *bytes
        }
    }
}

/// The usual words for a status; people read them, programs do not.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        411 => "Length Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::super::menu::{self, MENU};
    use super::*;

    /// Plays at most `bytes_max`, with `most` bytes going at a time; waits are noted in the second value.
    fn play(answer: &Answer, most: usize, bytes_max: usize) -> (Vec<u8>, Vec<u64>, Option<End>) {
        let (mut cursor, mut sent, mut waits) = (Cursor::default(), Vec::new(), Vec::new());
        while sent.len() < bytes_max {
            match cursor.next(answer) {
                Next::Send(bytes) => {
                    assert!(!bytes.is_empty());
                    let bytes = &bytes[..bytes.len().min(most).min(bytes_max - sent.len())];
                    sent.extend_from_slice(bytes);
                    cursor.sent(bytes.len());
                }
                Next::Wait(span) => waits.push(span.0),
                Next::End(end) => return (sent, waits, Some(end)),
            }
        }
        (sent, waits, None)
    }

    fn answer(path: &str) -> Answer {
        Answer::new(&menu::order(path.as_bytes()), Asked::default())
    }

    /// The whole answer as text.
    fn text(path: &str) -> String {
        String::from_utf8(play(&answer(path), usize::MAX, 1 << 20).0).unwrap()
    }

    fn body(path: &str) -> String {
        text(path).split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    #[test]
    fn answers_are_the_same_at_every_cut() {
        for item in MENU {
            let answer = answer(item.example);
            let (whole, waits, end) = play(&answer, usize::MAX, 200_000);
            for most in [1, 7, 1000] {
                let (sent, other_waits, other_end) = play(&answer, most, 200_000);
                assert!(sent == whole, "{} in writes of {most}", item.example);
                assert_eq!((&other_waits, other_end), (&waits, end), "{}", item.example);
            }
            assert_eq!(end.is_none(), item.example.contains("endless"), "{}", item.example);
        }
    }

    #[test]
    fn memory_does_not_depend_on_length() {
        for path in
            ["/bytes/1000000000000", "/chunked/1000000000000/16383", "/fields/1000000000", "/drip/9999999/0"]
        {
            assert!(answer(path).held_bytes() < 2 << 20, "{path}");
        }
        for item in MENU {
            assert!(answer(item.example).held_bytes() < 200_000, "{}", item.example);
        }
    }

    #[test]
    fn a_plain_answer_is_one_write() {
        let text =
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n012";
        assert_eq!(answer("/status/503/bytes/3").plain(), Some((&text[..], false)));
        assert!(answer("/bytes/65536").plain().is_some());
        assert!(answer("/delay/1ms").plain().is_none());
        assert!(answer("/close/1").plain().is_some_and(|(_, closes)| closes));
    }

    #[test]
    fn chunks_carry_the_same_text_as_bytes_do() {
        for total in [0_usize, 1, 6, 63, 64, 65, 1000, 70_000] {
            for size in ["", "/1", "/3", "/64", "/100", "/4096"] {
                let mut rest = &body(&format!("/chunked/{total}{size}"))[..];
                let mut decoded = String::new();
                loop {
                    let (length, after) = rest.split_once("\r\n").unwrap();
                    let length = usize::from_str_radix(length, 16).unwrap();
                    decoded += &after[..length];
                    assert_eq!(&after[length..length + 2], "\r\n");
                    rest = &after[length + 2..];
                    if length == 0 {
                        break;
                    }
                }
                assert_eq!(rest, "");
                assert!(decoded == body(&format!("/bytes/{total}")), "{total}{size}");
            }
        }
        assert!(
            body("/chunked/12").starts_with("1\r\n0\r\n2\r\n12\r\n3\r\n345\r\n5\r\n6789a\r\n1\r\nb\r\n0\r\n")
        );
    }

    #[test]
    fn waits_stand_where_they_were_ordered() {
        assert_eq!(play(&answer("/delay/5ms/pause/7ms"), 1, 1 << 20).1, [5_000, 7_000]);
        assert_eq!(play(&answer("/drip/3/2ms"), 9, 1 << 20).1, [2_000, 2_000], "between bytes, not around");
        let split = "/fault/split/50/1ms/bytes/1";
        let writes = text(split).len().div_ceil(50);
        assert_eq!(play(&answer(split), usize::MAX, 1 << 20).1, vec![1_000; writes - 1]);
    }

    #[test]
    fn a_reset_cuts_the_answer_off() {
        let whole = text("/bytes/100000");
        for bytes in [0, 1, 80, 90_000] {
            let (sent, _, end) =
                play(&answer(&format!("/bytes/100000/fault/reset-after/{bytes}")), 999, 1 << 20);
            assert!(sent == whole.as_bytes()[..bytes], "{bytes}");
            assert_eq!(end, Some(End::Reset));
        }
    }

    #[test]
    fn head_requests_get_the_head_alone() {
        for path in [
            "/bytes/100000",
            "/chunked/50",
            "/drip/5/1ms",
            "/close/7",
            "/",
            "/pause/1s",
            "/fault/endless-body",
        ] {
            let order = menu::order(path.as_bytes());
            let head = Answer::new(&order, Asked { head_only: true, close: false });
            let (sent, waits, end) = play(&head, usize::MAX, 1 << 20);
            let whole = play(&Answer::new(&order, Asked::default()), usize::MAX, 1 << 18).0;
            let head_bytes = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            assert_eq!(sent, whole[..head_bytes], "{path}");
            assert!(waits.is_empty() && end.is_some(), "{path}");
        }
    }

    #[test]
    fn closing_is_announced() {
        let close = Answer::new(&menu::order(b"/bytes/1"), Asked { head_only: false, close: true });
        let (sent, _, end) = play(&close, usize::MAX, 1 << 20);
        assert!(String::from_utf8(sent).unwrap().contains("\r\nConnection: close\r\n"));
        assert_eq!(end, Some(End::Close));
    }
}
