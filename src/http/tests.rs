//! Tests at the boundary of the HTTP core: the vectors in `tests/data/http/`, properties of arbitrary bytes,
//! and the cost of the worst cuts.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;

use super::head::work;
use super::invariants::{End, Verdict, assert_same, check, check_chunked, check_coding, random_cuts, run};
use super::*;
use crate::config::{
    BODY_BYTES_MAX, CHUNK_EXCESS_BYTES_MAX, CHUNK_LINE_BYTES_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX,
    TRAILER_BYTES_MAX,
};

// --- vectors --------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One vector; `tests/data/http/README.md` describes the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    head_request: bool,
    input: Input,
    end: String,
    status: Option<u16>,
    body: Option<Input>,
    #[serde(default)]
    reusable: bool,
    #[serde(default)]
    surplus: usize,
    certain_at_byte: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeat { repeat: String, times: usize },
}

impl Input {
    fn bytes(&self) -> Vec<u8> {
        let latin1 = |text: &str| text.chars().map(|c| u8::try_from(c).unwrap()).collect::<Vec<u8>>();
        match self {
            Self::Text(text) => latin1(text),
            Self::Parts(parts) => parts
                .iter()
                .flat_map(|part| match part {
                    Part::Text(text) => latin1(text),
                    Part::Repeat { repeat, times } => latin1(repeat).repeat(*times),
                })
                .collect(),
        }
    }
}

fn data_directory(path: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in data_directory("tests/data/http") {
        let is_cases = path.extension().is_some_and(|extension| extension == "toml");
        // Whose tests are in `redirect.rs`.
        if is_cases && !path.ends_with("redirects.toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            cases.extend(file.case);
        }
    }
    cases
}

/// The seed of this run: `SEED` from the environment, or one from the clock, printed with every failure.
fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    seed.unwrap_or_else(|| crate::clock::Mono::now().0 | 1).max(1)
}

fn expect(case: &Case, verdict: &Verdict, cut: &str) {
    let name = &case.name;
    let end = match verdict.end {
        Ok(End::Framed) => "complete",
        Ok(End::Closed) => "closed",
        Err(failure) => failure.name(),
    };
    assert_eq!(end, case.end, "end of {name:?}, {cut}");
    assert_eq!(verdict.status, case.status, "status of {name:?}, {cut}");
    assert_eq!(verdict.reusable, case.reusable, "reusable of {name:?}, {cut}");
    if let Some(body) = &case.body {
        assert!(verdict.payload == body.bytes(), "body of {name:?}, {cut}");
    } else {
        assert!(verdict.payload.is_empty(), "no body of {name:?}, {cut}");
    }
    if verdict.end.is_ok() {
        let fed = case.input.bytes().len();
        assert_eq!(fed - verdict.consumed_bytes, case.surplus, "surplus of {name:?}, {cut}");
    }
}

#[test]
fn vectors_whole_byte_by_byte_and_at_random_cuts() {
    let seed = seed();
    let mut random = seed;
    let cases = cases();
    assert!(cases.len() >= 70, "vectors were found: {}", cases.len());
    for case in &cases {
        let input = case.input.bytes();
        expect(case, &run(case.head_request, [&input[..]]), "whole");
        let dripped = run(case.head_request, input.chunks(1));
        expect(case, &dripped, "byte by byte");
        if let Some(certain_at_byte) = case.certain_at_byte {
            assert_eq!(dripped.failed_at_byte, Some(certain_at_byte), "{:?}", case.name);
        }
        for _ in 0..20 {
            let verdict = run(case.head_request, random_cuts(&input, &mut random));
            expect(case, &verdict, &format!("SEED={seed}"));
        }
    }
}

#[test]
fn names_of_vectors_are_unique() {
    let mut names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

/// Every vector cut off at every byte: never a success that the whole did not earn, never a panic.
#[test]
fn vectors_cut_short_fail_or_are_bodies_that_a_close_may_end() {
    for case in cases() {
        let input = case.input.bytes();
        if input.len() > 2048 {
            continue;
        }
        let whole = run(case.head_request, [&input[..]]);
        for end in 0..input.len() {
            let verdict = run(case.head_request, [&input[..end]]);
            assert!(whole.payload.starts_with(&verdict.payload), "{:?} cut at {end}", case.name);
            match verdict.end {
                Ok(End::Framed) => assert!(whole.end == Ok(End::Framed), "{:?} cut at {end}", case.name),
                Ok(End::Closed) => assert!(whole.end == Ok(End::Closed), "{:?} cut at {end}", case.name),
                Err(_) => {}
            }
        }
    }
}

// --- fuzz corpus ----------------------------------------------------------------------------------------

/// The checked-in seeds are the vectors that fit: `WRITE_CORPUS=1 cargo test --lib http` writes them.
#[test]
fn fuzz_seeds_of_responses_are_the_vectors() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/response");
    for case in cases() {
        let mut seed = vec![u8::from(case.head_request), 7];
        seed.extend(case.input.bytes());
        if seed.len() > 512 {
            continue;
        }
        let file_name: String =
            case.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = directory.join(file_name);
        if std::env::var_os("WRITE_CORPUS").is_some() {
            std::fs::write(&path, &seed).unwrap();
        }
        let written = std::fs::read(&path).unwrap_or_default();
        assert!(written == seed, "{} is out of date; run with WRITE_CORPUS=1", path.display());
    }
}

/// The chunked bodies among the vectors, and coded streams, as seeds of the other two targets.
#[test]
fn fuzz_seeds_of_chunks_and_codings_are_written() {
    let mut seeds = Vec::new();
    for case in cases() {
        let input = case.input.bytes();
        let head_bytes = input.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
        let is_chunked = input[..head_bytes].windows(7).any(|window| window.eq_ignore_ascii_case(b"chunked"));
        if is_chunked && input.len() <= 512 {
            seeds.push(("chunked", case.name.clone(), [&[7], &input[head_bytes..]].concat()));
        }
    }
    for (choice, file) in [(2, "hello.br"), (2, "empty.br"), (2, "page-window-10.br"), (2, "bomb.br")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http/coding").join(file);
        seeds.push(("coding", file.to_owned(), [&[choice, 7], &std::fs::read(path).unwrap()[..]].concat()));
    }
    // "hello", by zlib: as gzip, with a wrapper, and without.
    const GZIP: &[u8] =
        b"\0\x07\x1f\x8b\x08\0\0\0\0\0\0\xff\xcb\x48\xcd\xc9\xc9\x07\0\x86\xa6\x10\x36\x05\0\0\0";
    const ZLIB: &[u8] = b"\x01\x07\x78\x9c\xcb\x48\xcd\xc9\xc9\x07\0\x06\x2c\x02\x15";
    const RAW: &[u8] = b"\x01\x07\xcb\x48\xcd\xc9\xc9\x07\0";
    for (name, seed) in [("gzip", GZIP), ("zlib", ZLIB), ("raw", RAW)] {
        seeds.push(("coding", name.to_owned(), seed.to_vec()));
    }
    for (target, name, seed) in seeds {
        let file_name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let path = directory.join(file_name);
        if std::env::var_os("WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        let written = std::fs::read(&path).unwrap_or_default();
        assert!(written == seed, "{} is out of date; run with WRITE_CORPUS=1", path.display());
    }
}

// --- properties -----------------------------------------------------------------------------------------

/// Pieces of responses, good and bad, which at random make streams that get past the first byte.
const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200\r\n",
    "HTTP/1.1 204 \r\n",
    "HTTP/1.1 304 Not Modified\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "HTTP/1.1 ",
    "Content-Length: 5\r\n",
    "Content-Length: 3, 3\r\n",
    "content-length : 12\r\n",
    "Content-Length: 10485761\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip,\r\n chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "X: y\r\n",
    " folded\r\n",
    "\r\n",
    "\n",
    "\r",
    "\0",
    ":",
    "5\r\nhello\r\n",
    "3;ext=\"x\"\r\nabc\r\n",
    "00\r\n\r\n",
    "0\r\n",
    "a\n",
    "0123456789",
    "FFFFFFFFFFFFFFFFF",
    "A: b\r\n\r\n",
    "hello",
];

fn stream_of_words() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        20 => proptest::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ];
    let start = proptest::sample::select(&WORDS[..7]).prop_map(|word| word.as_bytes().to_vec());
    (start, proptest::collection::vec(word, 0..14)).prop_map(|(start, words)| {
        let mut stream = start;
        stream.extend(words.concat());
        stream
    })
}

/// A payload with a correct framing of it, and how that framing is spelled.
fn chunked(payload: &[u8], cuts: &[usize], ext: &str) -> Vec<u8> {
    let mut stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let mut rest = payload;
    for cut in cuts {
        let (part, after) = rest.split_at((*cut).min(rest.len()));
        rest = after;
        if !part.is_empty() {
            stream.extend(format!("{:X}{ext}\r\n", part.len()).bytes());
            stream.extend(part);
            stream.extend(b"\r\n");
        }
    }
    if !rest.is_empty() {
        stream.extend(format!("{:04x}\r\n", rest.len()).bytes());
        stream.extend(rest);
        stream.extend(b"\r\n");
    }
    stream.extend(b"0\r\nTrailer: x\r\n\r\n");
    stream
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_hold_the_invariants(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&data);
    }

    #[test]
    fn any_bytes_after_a_status_line_hold_the_invariants(
        flags in 0_u8..2,
        seed in any::<u8>(),
        tail in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        check(&[&[flags, seed], &b"HTTP/1.1 200 OK\r\n"[..], &tail].concat());
    }

    #[test]
    fn likely_words_hold_the_invariants(flags in 0_u8..2, seed in any::<u8>(), stream in stream_of_words()) {
        check(&[&[flags, seed], &stream[..]].concat());
    }

    #[test]
    fn likely_chunks_hold_the_invariants(seed in any::<u8>(), stream in stream_of_words()) {
        // Behind the status line that every such stream begins with.
        let behind = stream.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        check_chunked(&[&[seed], &stream[behind..]].concat());
    }

    #[test]
    fn any_bytes_in_any_coding_hold_the_invariants(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_coding(&data);
    }

    #[test]
    fn payload_never_exceeds_the_announced_length(
        announced in 0_usize..400,
        sent in proptest::collection::vec(any::<u8>(), 0..400),
        seed in 1_u64..,
    ) {
        let stream = [format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n").as_bytes(), &sent].concat();
        let verdict = run(false, random_cuts(&stream, &mut seed.clone()));
        prop_assert_eq!(&verdict.payload[..], &sent[..announced.min(sent.len())]);
        prop_assert_eq!(verdict.end.is_ok(), sent.len() >= announced);
        prop_assert_eq!(verdict.reusable, sent.len() == announced);
    }

    #[test]
    fn chunks_of_any_cut_give_the_payload_back(
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec(1_usize..120, 0..12),
        ext in proptest::sample::select(&["", ";a", " ; b=\"c;d\"", ";x=1;y"][..]),
        seed in 1_u64..,
    ) {
        let stream = chunked(&payload, &cuts, ext);
        let verdict = run(false, random_cuts(&stream, &mut seed.clone()));
        prop_assert_eq!(verdict.end, Ok(End::Framed));
        prop_assert_eq!(&verdict.payload, &payload);
        prop_assert!(verdict.reusable);
        for end in [stream.len() - 1, stream.len() / 2] {
            prop_assert_eq!(run(false, [&stream[..end]]).end, Err(Failure::ClosedEarly));
        }
    }
}

// --- exhaustively ---------------------------------------------------------------------------------------

/// The tokeniser judges a status line that comes whole, a pattern one that drips: they must not differ.
#[test]
fn every_byte_at_every_place_of_a_status_line_is_judged_alike_in_every_cut() {
    for line in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 503 \n\n"] {
        for at in 0..line.len() {
            for byte in 0..=u8::MAX {
                let mut stream = line.as_bytes().to_vec();
                stream[at] = byte;
                assert_same(&run(false, [&stream[..]]), &run(false, stream.chunks(1)));
            }
        }
    }
}

/// Where a head ends is decided by the tokeniser if it comes whole, by the scan if it drips.
#[test]
fn every_short_run_of_line_ends_is_judged_alike_in_every_cut() {
    const ALPHABET: &[u8] = b"\r\n :a";
    for start in
        ["HTTP/1.1 200", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"]
    {
        for run_bytes in 0..=6_u32 {
            for number in 0..ALPHABET.len().pow(run_bytes) {
                let mut stream = start.as_bytes().to_vec();
                stream.extend(
                    (0..run_bytes).map(|place| ALPHABET[number / ALPHABET.len().pow(place) % ALPHABET.len()]),
                );
                assert_same(&run(false, [&stream[..]]), &run(false, stream.chunks(1)));
            }
        }
    }
}

// --- limits ---------------------------------------------------------------------------------------------

/// A head of exactly `head_bytes` bytes, of a body of one.
fn head_of(head_bytes: usize) -> Vec<u8> {
    let start = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: ";
    let filler = vec![b'x'; head_bytes - start.len() - 4];
    [&start[..], &filler, b"\r\n\r\n", b"!"].concat()
}

fn ends_in_every_cut(stream: &[u8], expected: Result<End, Failure>) {
    let whole = run(false, [stream]);
    assert_eq!(whole.end, expected);
    for piece_bytes in [1, 7, 1000, 4096, 65_535] {
        assert_same(&whole, &run(false, stream.chunks(piece_bytes)));
    }
}

#[test]
fn head_may_be_as_long_as_its_limit_and_no_longer() {
    ends_in_every_cut(&head_of(HEAD_BYTES_MAX), Ok(End::Framed));
    ends_in_every_cut(&head_of(HEAD_BYTES_MAX + 1), Err(Failure::HeadTooLarge));
    ends_in_every_cut(&head_of(HEAD_BYTES_MAX * 2), Err(Failure::HeadTooLarge));
    let mut garbage_before_the_limit = head_of(HEAD_BYTES_MAX * 2);
    garbage_before_the_limit[HEAD_BYTES_MAX - 1] = 0;
    ends_in_every_cut(&garbage_before_the_limit, Err(Failure::MalformedResponse));
    let mut garbage_behind_it = head_of(HEAD_BYTES_MAX * 2);
    garbage_behind_it[HEAD_BYTES_MAX] = 0;
    ends_in_every_cut(&garbage_behind_it, Err(Failure::HeadTooLarge));
}

#[test]
fn head_may_have_as_many_fields_as_the_limit_and_no_more() {
    let head = |fields: usize| format!("HTTP/1.1 204 x\r\n{}\r\n", "A: b\r\n".repeat(fields)).into_bytes();
    ends_in_every_cut(&head(HEAD_FIELDS_MAX), Ok(End::Framed));
    ends_in_every_cut(&head(HEAD_FIELDS_MAX + 1), Err(Failure::HeadTooLarge));
}

#[test]
fn interim_responses_are_skipped_up_to_their_limit() {
    let stream = |count: u32| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(count as usize);
        format!("{interim}HTTP/1.1 204 No Content\r\n\r\n").into_bytes()
    };
    ends_in_every_cut(&stream(INTERIM_RESPONSES_MAX), Ok(End::Framed));
    assert!(run(false, [&stream(INTERIM_RESPONSES_MAX)[..]]).reusable);
    ends_in_every_cut(&stream(INTERIM_RESPONSES_MAX + 1), Err(Failure::MalformedResponse));
}

#[test]
fn chunk_lines_and_trailers_have_limits() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The line with its CR; the LF is what ends it.
    let line = |bytes: usize| format!("{head}1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(bytes - 3)).into_bytes();
    ends_in_every_cut(&line(CHUNK_LINE_BYTES_MAX), Ok(End::Framed));
    ends_in_every_cut(&line(CHUNK_LINE_BYTES_MAX + 1), Err(Failure::MalformedResponse));
    let zeros = format!("{head}{}", "0".repeat(CHUNK_LINE_BYTES_MAX + 1)).into_bytes();
    ends_in_every_cut(&zeros, Err(Failure::MalformedResponse));
    // The trailer with the CR of the empty line.
    let trailer = |bytes: usize| format!("{head}0\r\n{}\r\n\r\n", "t".repeat(bytes - 3)).into_bytes();
    ends_in_every_cut(&trailer(TRAILER_BYTES_MAX), Ok(End::Framed));
    ends_in_every_cut(&trailer(TRAILER_BYTES_MAX + 1), Err(Failure::BodyTooLarge));
}

/// Chunks of one byte behind extensions of a kilobyte: within every limit of a line and of a body, they would
/// make ten megabytes of payload cost ten gigabytes of reading.
#[test]
fn extensions_may_not_dwarf_the_payload() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // With its CR a line has 118 bytes, of which a chunk of one byte excuses 18: each adds 100.
    let stream = |chunks: usize| {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(115));
        format!("{head}{}0\r\n\r\n", chunk.repeat(chunks)).into_bytes()
    };
    ends_in_every_cut(&stream(CHUNK_EXCESS_BYTES_MAX / 100), Ok(End::Framed));
    ends_in_every_cut(&stream(CHUNK_EXCESS_BYTES_MAX / 100 + 1), Err(Failure::MalformedResponse));
    // Short lines never add up, however many there are, nor do long ones in front of large chunks.
    let short = format!("{head}{}0\r\n\r\n", "1;ext=12345678\r\nx\r\n".repeat(10_000));
    ends_in_every_cut(short.as_bytes(), Ok(End::Framed));
    let signed = format!("400;signature={}\r\n{}\r\n", "s".repeat(900), "x".repeat(1024)).repeat(1000);
    ends_in_every_cut(format!("{head}{signed}0\r\n\r\n").as_bytes(), Ok(End::Framed));
}

#[test]
fn bodies_may_be_as_long_as_the_limit_and_no_longer() {
    let limit = usize::try_from(BODY_BYTES_MAX).unwrap();
    let chunk =
        [format!("{:x}\r\n", limit / 2).into_bytes(), vec![b'x'; limit / 2], b"\r\n".to_vec()].concat();
    for (head, body, expected) in [
        (format!("Content-Length: {limit}\r\n"), vec![b'x'; limit], Ok(End::Framed)),
        (format!("Content-Length: {}\r\n", limit + 1), Vec::new(), Err(Failure::BodyTooLarge)),
        (String::new(), vec![b'x'; limit], Ok(End::Closed)),
        (String::new(), vec![b'x'; limit + 1], Err(Failure::BodyTooLarge)),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            [&chunk[..], &chunk, b"0\r\n\r\n"].concat(),
            Ok(End::Framed),
        ),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            [&chunk[..], &chunk, b"1\r\n"].concat(),
            Err(Failure::BodyTooLarge),
        ),
    ] {
        let stream = [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), b"\r\n", &body].concat();
        let whole = run(false, [&stream[..]]);
        assert_eq!((whole.end, whole.status), (expected, Some(200)), "{head}");
        assert_eq!(
            whole.payload.len(),
            body.iter().filter(|byte| **byte == b'x').count().min(limit),
            "{head}"
        );
        assert_same(&whole, &run(false, stream.chunks(4099)));
    }
}

// --- cost -----------------------------------------------------------------------------------------------

/// How often a head was parsed and how many bytes were scanned for its end, over a run.
fn work_of(stream: &[u8], piece_bytes: usize) -> (usize, usize) {
    work::PARSES.set(0);
    work::SCANNED_BYTES.set(0);
    assert!(run(false, stream.chunks(piece_bytes)).end.is_ok());
    (work::PARSES.get(), work::SCANNED_BYTES.get())
}

#[test]
fn a_dripping_head_is_scanned_once_and_parsed_twice() {
    for head_bytes in [100, 1000, HEAD_BYTES_MAX] {
        let stream = head_of(head_bytes);
        assert_eq!(work_of(&stream, stream.len()), (1, 0), "whole: parsed where it lies");
        // The first parse sees one byte, the second all of them.
        assert_eq!(work_of(&stream, 1), (2, head_bytes));
        let (parses, scanned_bytes) = work_of(&stream, 64);
        assert!(parses == 2 && scanned_bytes <= head_bytes + 64, "{parses} {scanned_bytes}");
    }
}

#[test]
fn a_banner_fails_at_the_first_byte_that_is_not_http() {
    for (banner, certain_at_byte) in [("SSH-2.0-OpenSSH_9.2\r\n", 1), ("HTTP/2.0 200\r\n", 6), ("HTTq", 4)] {
        assert_eq!(run(false, banner.as_bytes().chunks(1)).failed_at_byte, Some(certain_at_byte), "{banner}");
    }
}
