//! The menu of the test origin: from a request path to a [`Dish`], the description of an answer.
//!
//! A path is a chain of items, each a word and its arguments, read from left to right: `/delay/10ms/status/500
//! /bytes/100` waits 10 ms and answers 500 with 100 bytes. What misbehaves stands behind `fault/`. The query
//! is ignored, so that it can make any number of distinct URLs. [`MENU`] is the one list of all items; `/`
//! serves it as text.
//!
//! Out of scope: the bytes of an answer (`super::answer`).

use std::fmt::Write as _;

use crate::clock::Micros;
use crate::config;

/// One item of the menu, for people.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// The word with its arguments, as it stands in a path.
    pub usage: &'static str,
    /// A path that uses it.
    pub example: &'static str,
    /// What the origin does.
    pub meaning: &'static str,
}

const fn item(usage: &'static str, example: &'static str, meaning: &'static str) -> Item {
    Item { usage, example, meaning }
}

/// Every item. D is a duration (`250us`, `10ms`, `2s`), N a number.
pub const MENU: &[Item] = &[
    item("", "/", "this list"),
    item("delay/D", "/delay/10ms", "hold the answer for D; several add up"),
    item("pause/D", "/pause/10ms/bytes/10", "hold the body for D after the head"),
    item("status/N", "/status/503", "status N, 200-999; 204 and 304 have no body"),
    item("bytes/N", "/bytes/4096", "a body of N bytes with Content-Length"),
    item("text/T", "/text/welcome%20back", "the body T, percent-decoded"),
    item("chunked/N[/SIZE]", "/chunked/1000/100", "N bytes in chunks of SIZE, else of odd sizes 1 to 22"),
    item("close/N", "/close/100", "N bytes without a length, ended by closing"),
    item("drip/N/D", "/drip/5/1ms", "N bytes, one every D"),
    item("redirect/N", "/redirect/3", "302 to redirect/N-1; redirect/0 is 200"),
    item("fields/N", "/fields/200", "N more header fields"),
    item("field/N", "/field/70000", "one more header field with a value of N bytes"),
    item("fault/reset", "/fault/reset", "RST instead of an answer"),
    item("fault/reset-after/N", "/fault/reset-after/30", "RST after N bytes of the answer"),
    item("fault/close", "/fault/close", "FIN instead of an answer"),
    item("fault/never", "/fault/never", "no answer, connection held"),
    item("fault/half-head", "/fault/half-head", "half a head, then silence"),
    item("fault/early-close", "/fault/early-close", "half the announced body, then FIN"),
    item("fault/slow-head/D", "/fault/slow-head/1ms", "the head byte by byte, one every D"),
    item("fault/split/N[/D]", "/fault/split/7", "the answer in writes of N bytes, D apart"),
    item("fault/garbage", "/fault/garbage", "bytes that are not HTTP, then silence"),
    item("fault/http10", "/fault/http10", "an HTTP/1.0 answer, ended by closing"),
    item("fault/no-reason", "/fault/no-reason", "a status line that ends after the code"),
    item("fault/lf-only", "/fault/lf-only", "head lines that end in LF alone"),
    item("fault/interim/N", "/fault/interim/3", "N times 103 before the answer"),
    item("fault/101", "/fault/101", "101 Switching Protocols, then silence"),
    item("fault/bad-length", "/fault/bad-length", "Content-Length: -5"),
    item("fault/two-lengths", "/fault/two-lengths", "two Content-Length fields that differ"),
    item("fault/long-body", "/fault/long-body", "seven bytes more than Content-Length"),
    item("fault/poison", "/fault/poison", "a second response that nobody asked for"),
    item("fault/bad-chunk", "/fault/bad-chunk", "a chunk size that is no number"),
    item("fault/huge-chunk", "/fault/huge-chunk", "a chunk size of 17 digits"),
    item("fault/trailers", "/fault/trailers", "a chunked body with trailer fields"),
    item("fault/endless-header", "/fault/endless-header", "a header field without end"),
    item("fault/endless-headers", "/fault/endless-headers", "header fields without end"),
    item("fault/endless-interim", "/fault/endless-interim", "103 without end"),
    item("fault/endless-body", "/fault/endless-body", "a body without length or end"),
    item("fault/endless-chunks", "/fault/endless-chunks", "chunks without end"),
    item("fault/endless-chunk-line", "/fault/endless-chunk-line", "a chunk extension without end"),
    item("fault/endless-trailers", "/fault/endless-trailers", "trailer fields without end"),
];

/// What a path orders: the description of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dish {
    pub(super) delay: Micros,
    pub(super) pause: Micros,
    pub(super) status: u16,
    pub(super) body: Body,
    pub(super) head: Head,
    /// Number of interim responses; [`u64::MAX`] for no end of them.
    pub(super) interim: u64,
    /// Bytes per write, and the time between writes.
    pub(super) split: Option<(u64, Micros)>,
    pub(super) reset_after: Option<u64>,
    /// A chunked body with trailer fields.
    pub(super) trailers: bool,
    pub(super) fault: Option<Fault>,
}

/// How the head is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) http10: bool,
    pub(super) reason: bool,
    pub(super) lf_only: bool,
    /// Byte by byte, this far apart.
    pub(super) slow: Option<Micros>,
    pub(super) fields: u64,
    pub(super) field_bytes: Option<u64>,
    pub(super) location: Option<String>,
}

/// The body and how it is delimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This text, with its length.
    Text(Vec<u8>),
    /// Filler, with its length.
    Bytes(u64),
    /// Filler in chunks of this size, or of odd sizes.
    Chunked(u64, Option<u64>),
    /// Filler, delimited by closing.
    UntilClose(u64),
    /// Filler with its length, byte by byte, this far apart.
    Drip(u64, Micros),
}

/// A fault that replaces the answer, or that leaves nothing of it but the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Reset,
    Close,
    Never,
    HalfHead,
    EarlyClose,
    Garbage,
    Switching,
    BadLength,
    TwoLengths,
    LongBody,
    Poison,
    BadChunk,
    HugeChunk,
    EndlessHeader,
    EndlessHeaders,
    EndlessBody,
    EndlessChunks,
    EndlessChunkLine,
    EndlessTrailers,
}

/// Body of an answer that names none.
pub(super) const WELCOME: &str = "welcome to the ringprobe test origin\n";

impl Default for Dish {
    fn default() -> Self {
        Self {
            delay: Micros(0),
            pause: Micros(0),
            status: 200,
            body: Body::Text(WELCOME.into()),
            head: Head {
                http10: false,
                reason: true,
                lf_only: false,
                slow: None,
                fields: 0,
                field_bytes: None,
                location: None,
            },
            interim: 0,
            split: None,
            reset_after: None,
            trailers: false,
            fault: None,
        }
    }
}

impl Dish {
    /// A plain answer: this status, this text.
    pub(super) fn text(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self { status, body: Body::Text(text.into()), ..Self::default() }
    }
}

/// Reads the path of a request target (`/…`, any query cut off by the caller).
///
/// A path that orders nothing known is answered as well: 404 for an unknown word, 400 for a bad argument,
/// each with a text that says which.
pub(super) fn order(path: &[u8]) -> Dish {
    let Ok(path) = std::str::from_utf8(path) else {
        return Dish::text(400, "the path is not UTF-8\n");
    };
    if path == "/" {
        return Dish::text(200, listing());
    }
    match chain(path) {
        Ok(dish) => dish,
        Err(Mistake::Unknown(word)) => Dish::text(404, format!("no such item: {word}; the menu is at /\n")),
        Err(Mistake::Argument(word, why)) => Dish::text(400, format!("{word}: {why}\n")),
    }
}

/// The menu as text.
pub(super) fn listing() -> String {
    let mut text = format!("{WELCOME}\nChain items to a path, such as /delay/10ms/status/500/bytes/100.\n\n");
    for item in MENU {
        let _infallible = writeln!(text, "/{:<26}{}", item.usage, item.meaning);
    }
    text
}

/// Reads a duration such as `250us`, `10ms`, `2s` or `0`.
///
/// # Errors
///
/// What is wrong with it, as a fragment.
pub fn duration(text: &str) -> Result<Micros, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "not a duration such as 250us, 10ms or 2s")?;
    let unit_us = match unit {
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "" if number == 0 => 1,
        _ => return Err("not a duration such as 250us, 10ms or 2s"),
    };
    match number.checked_mul(unit_us) {
        Some(us) if us <= config::ORIGIN_WAIT_MAX.0 => Ok(Micros(us)),
        _ => Err("longer than an hour"),
    }
}

enum Mistake<'a> {
    Unknown(&'a str),
    Argument(&'a str, &'static str),
}

fn chain(path: &str) -> Result<Dish, Mistake<'_>> {
    let mut dish = Dish::default();
    let mut words = path.split('/').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        let fault = word == "fault";
        let word = if fault { words.next().unwrap_or(word) } else { word };
        let mut argument = Arguments { word, words: &mut words };
        if fault {
            order_fault(&mut dish, &mut argument)?;
        } else {
            order_plain(&mut dish, &mut argument)?;
        }
    }
    Ok(dish)
}

fn order_plain<'a, I: Iterator<Item = &'a str>>(
    dish: &mut Dish,
    argument: &mut Arguments<'a, '_, I>,
) -> Result<(), Mistake<'a>> {
    match argument.word {
        "delay" => {
            let total = dish.delay.0 + argument.duration()?.0;
            dish.delay = Micros(total.min(config::ORIGIN_WAIT_MAX.0));
        }
        "pause" => dish.pause = argument.duration()?,
        "status" => dish.status = argument.number(200, 999)?.try_into().unwrap_or(999),
        "bytes" => dish.body = Body::Bytes(argument.number(0, BYTES_MAX)?),
        "text" => dish.body = Body::Text(argument.text()?),
        "chunked" => {
            let total_bytes = argument.number(0, BYTES_MAX)?;
            dish.body = Body::Chunked(total_bytes, argument.number_if_any(1, CHUNK_BYTES_MAX)?);
        }
        "close" => dish.body = Body::UntilClose(argument.number(0, BYTES_MAX)?),
        "drip" => dish.body = Body::Drip(argument.number(0, BYTES_MAX)?, argument.duration()?),
        "redirect" => match argument.number(0, BYTES_MAX)? {
            0 => {}
            more => {
                dish.status = 302;
                dish.head.location = Some(format!("/redirect/{}", more - 1));
            }
        },
        "fields" => dish.head.fields = argument.number(0, BYTES_MAX)?,
        "field" => dish.head.field_bytes = Some(argument.number(0, BYTES_MAX)?),
        word => return Err(Mistake::Unknown(word)),
    }
    Ok(())
}

fn order_fault<'a, I: Iterator<Item = &'a str>>(
    dish: &mut Dish,
    argument: &mut Arguments<'a, '_, I>,
) -> Result<(), Mistake<'a>> {
    match argument.word {
        "reset-after" => dish.reset_after = Some(argument.number(0, BYTES_MAX)?),
        "slow-head" => dish.head.slow = Some(argument.duration()?),
        "split" => dish.split = Some((argument.number(1, BYTES_MAX)?, argument.duration_if_any())),
        "http10" => dish.head.http10 = true,
        "no-reason" => dish.head.reason = false,
        "lf-only" => dish.head.lf_only = true,
        "interim" => dish.interim = argument.number(0, BYTES_MAX)?,
        "endless-interim" => dish.interim = u64::MAX,
        "trailers" => dish.trailers = true,
        word => dish.fault = Some(fault(word).ok_or(Mistake::Unknown(word))?),
    }
    Ok(())
}

/// The faults that a word alone orders.
fn fault(word: &str) -> Option<Fault> {
    Some(match word {
        "reset" => Fault::Reset,
        "close" => Fault::Close,
        "never" => Fault::Never,
        "half-head" => Fault::HalfHead,
        "early-close" => Fault::EarlyClose,
        "garbage" => Fault::Garbage,
        "101" => Fault::Switching,
        "bad-length" => Fault::BadLength,
        "two-lengths" => Fault::TwoLengths,
        "long-body" => Fault::LongBody,
        "poison" => Fault::Poison,
        "bad-chunk" => Fault::BadChunk,
        "huge-chunk" => Fault::HugeChunk,
        "endless-header" => Fault::EndlessHeader,
        "endless-headers" => Fault::EndlessHeaders,
        "endless-body" => Fault::EndlessBody,
        "endless-chunks" => Fault::EndlessChunks,
        "endless-chunk-line" => Fault::EndlessChunkLine,
        "endless-trailers" => Fault::EndlessTrailers,
        _ => return None,
    })
}

/// Largest count in an order: no counter of an answer can overflow below it.
const BYTES_MAX: u64 = 1 << 40;
/// Largest chunk: one period of chunks is kept in memory, and can be 64 chunks long.
const CHUNK_BYTES_MAX: u64 = 16 * 1024;

struct Arguments<'a, 'w, I: Iterator<Item = &'a str>> {
    word: &'a str,
    words: &'w mut std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = &'a str>> Arguments<'a, '_, I> {
    fn next(&mut self) -> Result<&'a str, Mistake<'a>> {
        self.words.next().ok_or(Mistake::Argument(self.word, "an argument is missing"))
    }

    fn number(&mut self, min: u64, max: u64) -> Result<u64, Mistake<'a>> {
        let text = self.next()?;
        let number = text.parse().map_err(|_| Mistake::Argument(self.word, "not a number"))?;
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(Mistake::Argument(self.word, "the number is out of range"))
        }
    }

    fn number_if_any(&mut self, min: u64, max: u64) -> Result<Option<u64>, Mistake<'a>> {
        match self.words.peek() {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => self.number(min, max).map(Some),
            _ => Ok(None),
        }
    }

    fn duration(&mut self) -> Result<Micros, Mistake<'a>> {
        let text = self.next()?;
        duration(text).map_err(|why| Mistake::Argument(self.word, why))
    }

    fn duration_if_any(&mut self) -> Micros {
        match self.words.peek().map(|text| duration(text)) {
            Some(Ok(span)) => {
                self.words.next();
                span
            }
            _ => Micros(0),
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, Mistake<'a>> {
        let text = self.next()?.as_bytes();
        let mut decoded = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            if text[at] == b'%' {
                let pair = text.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
                let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
                decoded.push(byte.ok_or(Mistake::Argument(self.word, "a bad percent-encoding"))?);
                at += 3;
            } else {
                decoded.push(text[at]);
                at += 1;
            }
        }
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_on_the_menu() {
        for item in MENU {
            let word = item.usage.split('/').find(|word| *word != "fault").unwrap_or_default();
            assert!(item.example.contains(word), "{} shows {}", item.example, item.usage);
            let dish = order(item.example.as_bytes());
            assert!(
                !matches!(dish.status, 400 | 404),
                "{}: {:?}",
                item.example,
                String::from_utf8(match dish.body {
                    Body::Text(text) => text,
                    _ => Vec::new(),
                })
            );
        }
    }

    #[test]
    fn items_chain_from_left_to_right() {
        let dish = order(b"/delay/10ms/status/500/bytes/100");
        assert_eq!((dish.delay, dish.status, dish.body), (Micros(10_000), 500, Body::Bytes(100)));
        let dish = order(b"/delay/1s/delay/250us/fault/split/3/2ms/chunked/9/fault/reset-after/8/");
        assert_eq!(dish.delay, Micros(1_000_250));
        assert_eq!(dish.split, Some((3, Micros(2_000))));
        assert_eq!(dish.body, Body::Chunked(9, None));
        assert_eq!(dish.reset_after, Some(8));
        assert_eq!(order(b"/chunked/9/4/status/201").body, Body::Chunked(9, Some(4)));
        assert_eq!(order(b"/close/9").body, Body::UntilClose(9), "a fault of the same name is another item");
        assert_eq!(order(b"/fault/close").fault, Some(Fault::Close));
        assert_eq!(order(b"/text/a%2Fb%20c").body, Body::Text(b"a/b c".to_vec()));
    }

    #[test]
    fn mistakes_are_answered_and_named() {
        let mut seen = String::new();
        for path in [
            "/nonsense",
            "/fault",
            "/fault/bytes/3",
            "/reset",
            "/bytes",
            "/bytes/x",
            "/bytes/-1",
            "/bytes/99999999999999999999",
            "/status/199",
            "/delay/10",
            "/delay/2000m",
            "/text/%2",
            "/text/%zz",
        ] {
            let dish = order(path.as_bytes());
            let Body::Text(text) = dish.body else { panic!("{path} is no text") };
            seen += &format!("{path} {} {}", dish.status, String::from_utf8(text).unwrap());
        }
        assert_eq!(
            seen,
            "/nonsense 404 no such item: nonsense; the menu is at /\n\
             /fault 404 no such item: fault; the menu is at /\n\
             /fault/bytes/3 404 no such item: bytes; the menu is at /\n\
             /reset 404 no such item: reset; the menu is at /\n\
             /bytes 400 bytes: an argument is missing\n\
             /bytes/x 400 bytes: not a number\n\
             /bytes/-1 400 bytes: not a number\n\
             /bytes/99999999999999999999 400 bytes: not a number\n\
             /status/199 400 status: the number is out of range\n\
             /delay/10 400 delay: not a duration such as 250us, 10ms or 2s\n\
             /delay/2000m 400 delay: longer than an hour\n\
             /text/%2 400 text: a bad percent-encoding\n\
             /text/%zz 400 text: a bad percent-encoding\n"
        );
        assert_eq!(order(b"/\xff").status, 400);
    }

    #[test]
    fn the_menu_lists_every_item() {
        let listing = listing();
        assert!(listing.starts_with(WELCOME));
        assert_eq!(listing.lines().filter(|line| line.starts_with('/')).count(), MENU.len());
    }
}
