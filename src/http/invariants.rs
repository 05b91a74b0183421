//! What must hold for any bytes whatever: a function for each fuzz target, which the property tests and
//! `tests/fuzz.rs` call too.
//!
//! It lives in the library, and not in a test, because the fuzz crate links to it; the program does not call
//! it, so it is not in there.

use super::body::{Body, Framing};
use super::coding::{Backlog, DECODED_SLICE_BYTES, DecodeMemory, Decoder};
use super::head::LOCATION_BYTES_MAX;
use super::{Progress, Response};
use crate::config::BODY_BYTES_MAX;
use crate::sample::Failure;

/// All that can be observed of a response after its last byte and the origin's close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub end: Result<End, Failure>,
    /// Its status, if a head was understood.
    pub status: Option<u16>,
    /// Whether, after the last byte fed and before the close, the connection could have been used again.
    pub reusable: bool,
    /// What else the head said.
    pub head: Option<Said>,
    /// Every payload byte.
    pub payload: Vec<u8>,
    /// Bytes fed up to the end of the response; all of them if that was the close, or never.
    pub consumed_bytes: usize,
    /// Bytes fed when a failure was certain; `None` if it took the close, or if there was none.
    pub failed_at_byte: Option<usize>,
}

/// What a final head said besides status and framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// 0 or 1.
    pub minor_version: u8,
    /// Of `Content-Type`, by the name that the encoding standard has for it.
    pub charset: Option<&'static str>,
    /// Where a redirect leads.
    pub location: Option<Vec<u8>>,
    /// The codings of the content.
    pub content_encoding: Option<Vec<u8>>,
}

/// How a response ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where its framing said.
    Framed,
    /// With the connection, as its framing allowed.
    Closed,
}

/// Feeds `pieces` in order, then the close, and asserts at every step what must hold for any bytes.
pub fn run<'a>(head_request: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    run_with(head_request, pieces, |response, piece, payload| {
        response.feed(piece, &mut |part: &[u8]| payload(part))
    })
}

/// As [`run`], but each piece is fed to the head first, and what that leaves to the body.
pub fn run_head_apart<'a>(head_request: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    run_with(head_request, pieces, |response, piece, payload| {
        let whole_before = response.status().is_some();
        let head_bytes = response.feed_head(piece)?;
        assert!(!whole_before || head_bytes == 0, "a head that is whole takes nothing");
        assert!(response.status().is_some() || head_bytes == piece.len(), "an unfinished head takes all");
        match response.feed(&piece[head_bytes..], &mut |part: &[u8]| payload(part))? {
            Progress::Complete { consumed } => Ok(Progress::Complete { consumed: head_bytes + consumed }),
            Progress::More => Ok(Progress::More),
        }
    })
}

fn run_with<'a>(
    head_request: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut feed: impl FnMut(&mut Response, &[u8], &mut dyn FnMut(&[u8])) -> Result<Progress, Failure>,
) -> Verdict {
    let mut response = Response::new(head_request);
    let mut payload = Vec::new();
    let mut fed_bytes = 0;
    let mut ended_at = None;
    let mut failed_at_byte = None;
    for piece in pieces {
        let before = payload.len();
        let result = feed(&mut response, piece, &mut |part: &[u8]| {
            assert!(!part.is_empty(), "no empty payload");
            assert!(piece.as_ptr_range().contains(&part.as_ptr()), "payload is a slice of the input");
            payload.extend_from_slice(part);
        });
        fed_bytes += piece.len();
        assert!(payload.len() - before <= piece.len(), "payload is not made up");
        assert_eq!(response.body_bytes(), payload.len() as u64, "payload is counted");
        assert!(response.body_bytes() <= BODY_BYTES_MAX, "payload is bounded");
        match (result, ended_at) {
            (Ok(Progress::Complete { consumed: 0 }), Some(_)) => {}
            (Ok(progress), Some(_)) => panic!("{progress:?} after the end"),
            (Ok(Progress::Complete { consumed }), None) => {
                assert!(consumed <= piece.len(), "no more is consumed than was fed");
                ended_at = Some(fed_bytes - piece.len() + consumed);
            }
            (Ok(Progress::More), None) => assert!(!response.reusable(), "not reusable before the end"),
            (Err(failure), None) => {
                let again =
                    response.feed(b"HTTP/1.1 200 OK\r\n\r\n", &mut |_| panic!("payload after failure"));
                assert_eq!(again, Err(failure), "a failure is final");
                assert_eq!(response.eof(), Err(failure), "a failure is final");
                failed_at_byte = Some(fed_bytes);
                break;
            }
            (Err(failure), Some(_)) => panic!("{failure:?} after the end"),
        }
    }
    let reusable = response.reusable();
    assert!(!reusable || ended_at == Some(fed_bytes), "reusable only if complete, and without surplus");
    let end = match response.eof() {
        Ok(()) if ended_at.is_some() => Ok(End::Framed),
        Ok(()) => Ok(End::Closed),
        Err(failure) => Err(failure),
    };
    assert!(!response.reusable(), "a closed connection is not reusable");
    assert!(end.is_err() || response.status().is_some(), "who ends well has a status");
    let consumed_bytes = ended_at.unwrap_or(fed_bytes);
    let head = response.minor_version().map(|minor_version| Said {
        minor_version,
        charset: response.charset().map(encoding_rs::Encoding::name),
        location: response.location().map(<[u8]>::to_vec),
        content_encoding: response.content_encoding().map(<[u8]>::to_vec),
    });
    assert_eq!(head.is_some(), response.status().is_some(), "a status comes with its version");
    if let Some(Said { minor_version, location, .. }) = &head {
        assert!(*minor_version <= 1, "the version is one that we speak");
        assert!(location.is_none() || matches!(response.status(), Some(300..=399)), "only 3xx lead on");
        assert!(location.as_ref().is_none_or(|it| it.len() <= LOCATION_BYTES_MAX), "location is bounded");
    }
    Verdict { end, status: response.status(), reusable, head, payload, consumed_bytes, failed_at_byte }
}

/// Checks arbitrary bytes: the first says what the request was, the second seeds the cuts, the rest is what
/// the origin sends. Panics where an invariant is broken.
pub fn check(data: &[u8]) {
    let [flags, seed, stream @ ..] = data else { return };
    let head_request = flags & 1 == 1;
    let whole = run(head_request, [stream]);
    assert_same(&whole, &run(head_request, stream.chunks(1)));
    let mut random = u64::from(*seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    assert_same(&whole, &run(head_request, random_cuts(stream, &mut random)));
    assert_same(&whole, &run_head_apart(head_request, random_cuts(stream, &mut random)));
}

/// Checks arbitrary bytes as a chunked body, by themselves and behind a head: the first seeds the cuts, the rest is
/// the body. Panics where an invariant is broken.
pub fn check_chunked(data: &[u8]) {
    let [seed, stream @ ..] = data else { return };
    let mut random = u64::from(*seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let whole = run_chunked([stream]);
    assert_same_chunked(&whole, &run_chunked(stream.chunks(1)));
    assert_same_chunked(&whole, &run_chunked(random_cuts(stream, &mut random)));
    let response = run(false, [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", stream]);
    assert_eq!(response.payload, whole.payload, "a head in front changes nothing");
    assert_eq!(response.end.err(), whole.failure, "a head in front changes nothing");
    assert!(!response.reusable || !whole.anomaly, "after an anomaly nothing is reused");
}

/// What came of a chunked body.
struct Chunked {
    payload: Vec<u8>,
    failure: Option<Failure>,
    /// Meaningful where nothing failed.
    consumed_bytes: usize,
    anomaly: bool,
}

fn run_chunked<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Chunked {
    let mut body = Body::new(Framing::Chunked, BODY_BYTES_MAX).expect("no length is announced");
    let mut payload = Vec::new();
    let mut consumed_bytes = 0;
    let mut failure = None;
    for piece in pieces {
        match body.feed(piece, &mut |part: &[u8]| payload.extend_from_slice(part)) {
            Ok(Progress::More) => consumed_bytes += piece.len(),
            Ok(Progress::Complete { consumed }) => {
                assert!(consumed <= piece.len(), "no more is consumed than was fed");
                consumed_bytes += consumed;
                break;
            }
            Err(class) => {
                failure = Some(class);
                break;
            }
        }
        assert!(payload.len() <= consumed_bytes, "payload is not made up");
    }
    assert_eq!(body.payload_bytes(), payload.len() as u64, "payload is counted");
    let failure = failure.or_else(|| body.eof().err());
    Chunked { payload, failure, consumed_bytes, anomaly: body.anomaly() }
}

fn assert_same_chunked(whole: &Chunked, cut: &Chunked) {
    assert_eq!(whole.payload, cut.payload, "payload depends on the cut");
    assert_eq!(whole.failure, cut.failure, "the failure depends on the cut");
    if whole.failure.is_none() {
        assert_eq!(whole.consumed_bytes, cut.consumed_bytes, "the end depends on the cut");
        assert_eq!(whole.anomaly, cut.anomaly, "the anomaly depends on the cut");
    }
}

/// Checks arbitrary bytes as coded content: the first byte chooses the codings, the second seeds the cuts, the rest
/// is the payload. Panics where an invariant is broken.
pub fn check_coding(data: &[u8]) {
    const CODINGS: [&str; 8] =
        ["gzip", "deflate", "br", "gzip, br", "br, gzip", "deflate, deflate", "gzip, gzip, gzip", "br, br"];
    const LIMIT_BYTES: u64 = 64 * 1024;
    let [choice, seed, stream @ ..] = data else { return };
    let codings = CODINGS[usize::from(*choice) % CODINGS.len()];
    let decode = |pieces: Vec<&[u8]>, go_bytes: usize| {
        let windows = DecodeMemory::default();
        let mut decoder = Decoder::new(codings.as_bytes(), LIMIT_BYTES, &windows).expect("there are codings");
        let mut content = Vec::new();
        let mut result = Ok(Backlog::Empty);
        for piece in pieces {
            decoder.feed(piece);
            loop {
                let before_bytes = content.len();
                result = decoder.go_on(go_bytes, &mut |slice: &[u8]| {
                    assert!(!slice.is_empty() && slice.len() <= DECODED_SLICE_BYTES);
                    content.extend_from_slice(slice);
                });
                let made_bytes = content.len() - before_bytes;
                assert!(made_bytes < go_bytes.saturating_add(DECODED_SLICE_BYTES), "a go is bounded");
                if result != Ok(Backlog::Left) {
                    break;
                }
            }
        }
        let end = decoder.finish();
        assert!(result.is_ok() || end.err() == result.err(), "a failure is final");
        assert_eq!(decoder.content_bytes(), content.len() as u64, "content is counted");
        assert!(decoder.content_bytes() <= LIMIT_BYTES, "content is bounded");
        (end, content)
    };
    let whole = decode(vec![stream], usize::MAX);
    let in_goes = decode(vec![stream], 1 + usize::from(*seed) * 64);
    assert!(whole == in_goes, "content or verdict depends on how much is made at once");
    let mut random = u64::from(*seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for pieces in [stream.chunks(1).collect(), random_cuts(stream, &mut random)] {
        let cut = decode(pieces, usize::MAX);
        assert_eq!(whole.0.is_ok(), cut.0.is_ok(), "the verdict depends on the cut");
        let shared_bytes = whole.1.len().min(cut.1.len());
        assert_eq!(whole.1[..shared_bytes], cut.1[..shared_bytes], "content depends on the cut");
        assert!(whole.0.is_err() || whole.1.len() == cut.1.len(), "content depends on the cut");
    }
}

/// Asserts that two cuts of the same bytes led to the same verdict. How early a failure is certain may
/// depend on the cut; how much was fed by then follows from it.
pub fn assert_same(whole: &Verdict, cut: &Verdict) {
    let comparable = |verdict: &Verdict| Verdict {
        failed_at_byte: None,
        consumed_bytes: if verdict.end.is_ok() { verdict.consumed_bytes } else { 0 },
        ..verdict.clone()
    };
    assert_eq!(comparable(whole), comparable(cut), "the verdict depends on the cut");
}

/// `bytes` in pieces of 0 to 40 bytes, drawn from the xorshift generator `state`, which must not be zero.
pub fn random_cuts<'a>(bytes: &'a [u8], state: &mut u64) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let piece_bytes = usize::try_from(*state % 41).unwrap_or(0).min(rest.len());
        let (piece, after) = rest.split_at(piece_bytes);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
