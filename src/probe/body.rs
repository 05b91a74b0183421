//! The body of a response on its way to a verdict: content decoding, charset, patterns, limits.
//!
//! ```text
//!   payload ─► decoder ─► limit ─► transcoder ─► matcher
//!            (if asked)           (if charset = "auto")
//! ```
//!
//! An endpoint without patterns and codings has a counter here and nothing else. Nothing is kept of the body: every
//! stage is fed slices as they come, and holds a bounded state, and what slow patterns have yet to see of one receive.
//!
//! In scope: whether what came is enough, too much, or wrong. Out of scope: framing ([`crate::http::body`]), the
//! patterns themselves ([`crate::matcher`]).
//!
//! Invariant: a body that was cut off is never called matched or not matched unless nothing that could have followed
//! would have changed that.

use std::sync::Arc;

use super::Expect;
use crate::config;
use crate::http::Response;
use crate::http::coding::{Backlog, DecodeMemory, Decoder};
use crate::matcher::{Certainty, Charset, Matcher, Scan, Transcoder, Verdict};
use crate::sample::{BodyMatch, Failure, NO_PATTERN};

/// What may be looked at in one go by a quick pattern: 30 to 60 µs.
const LOOK_BYTES: usize = config::DECODED_BYTES_PER_GO;
/// The least that is looked at in one go: what it takes to come back for less is more than that.
const LOOK_BYTES_MIN: usize = 256;

/// The body so far.
#[derive(Debug)]
pub struct Body {
    /// Bytes after decoding.
    bytes: u64,
    bytes_max: u64,
    /// The limit is reached: nothing more is looked at.
    full: bool,
    failure: Option<Failure>,
    /// It could not be decoded for want of memory.
    starved: bool,
    verdict: Option<Verdict>,
    stages: Option<Box<Stages>>,
}

/// What is between payload and verdict, where there is anything.
#[derive(Debug)]
struct Stages {
    decode: bool,
    decoder: Option<Decoder>,
    /// Payload that needs no decoder, and was not looked at yet, from a place on.
    unseen: Vec<u8>,
    unseen_at: usize,
    charset: Charset,
    transcoder: Option<Transcoder>,
    scan: Option<(Arc<Matcher>, Scan)>,
}

/// Whether there is a reason to read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyProgress {
    /// Yes.
    More,
    /// No: the verdict is certain, and the endpoint wants no more.
    Enough,
    /// No: it is longer than its limit, and the verdict was certain within that.
    Cut,
    /// No: something is wrong with it.
    Failed(Failure),
    /// No: something is wrong with us.
    Starved,
}

impl Body {
    /// A body of which nothing has come.
    #[must_use]
    pub fn new(expect: &Expect) -> Self {
        let stages = (expect.body.is_some() || expect.decode).then(|| {
            Box::new(Stages {
                decode: expect.decode,
                decoder: None,
                unseen: Vec::new(),
                unseen_at: 0,
                charset: expect.charset,
                transcoder: None,
                scan: expect.body.as_ref().map(|matcher| (Arc::clone(matcher), matcher.start())),
            })
        });
        Self {
            bytes: 0,
            bytes_max: expect.body_bytes_max,
            full: false,
            failure: None,
            starved: false,
            verdict: None,
            stages,
        }
    }

    /// The head is whole: how is what follows to be read? Decoders take theirs from `memory`.
    pub fn begin(&mut self, response: &Response, memory: &DecodeMemory) {
        let Some(stages) = &mut self.stages else { return };
        if let (true, Some(codings)) = (stages.decode, response.content_encoding()) {
            stages.decoder = Decoder::new(codings, self.bytes_max, memory);
        }
        if stages.charset == Charset::Auto && stages.scan.is_some() {
            stages.transcoder = Some(Transcoder::declared(stages.charset, response.charset()));
        }
    }

    /// Takes payload; [`Self::go_on`] decodes it and looks for the patterns.
    pub fn push(&mut self, payload: &[u8]) {
        if self.full || self.failure.is_some() {
            return;
        }
        let Some(mut stages) = self.stages.take() else {
            self.bytes += payload.len() as u64;
            self.full = self.bytes > self.bytes_max;
            return;
        };
        let at_once = stages.unseen.is_empty() && payload.len() <= self.look_bytes(&stages, LOOK_BYTES);
        match &mut stages.decoder {
            Some(decoder) => decoder.feed(payload),
            // What is looked at in no time needs no copy.
            None if at_once => {
                self.look(payload, stages.transcoder.as_mut(), stages.scan.as_mut());
            }
            None => stages.unseen.extend_from_slice(payload),
        }
        self.stages = Some(stages);
    }

    /// Goes on in what was pushed, by what it takes to decode some `bytes` of content, or to look for the patterns in
    /// as much if they are quickly looked for, and in less else: is there more?
    pub fn go_on(&mut self, bytes: usize) -> Backlog {
        if self.full || self.failure.is_some() {
            return Backlog::Empty;
        }
        let Some(mut stages) = self.stages.take() else { return Backlog::Empty };
        let bytes = self.look_bytes(&stages, bytes);
        let Stages { decoder, unseen, unseen_at, transcoder, scan, .. } = &mut *stages;
        let mut look = |decoded: &[u8]| self.look(decoded, transcoder.as_mut(), scan.as_mut());
        let went = match decoder {
            Some(decoder) => decoder.go_on(bytes, &mut look),
            None => {
                let end = unseen.len().min(unseen_at.saturating_add(bytes));
                look(&unseen[*unseen_at..end]);
                *unseen_at = end;
                Ok(if end < unseen.len() { Backlog::Left } else { Backlog::Empty })
            }
        };
        if *unseen_at == unseen.len() {
            unseen.clear();
            *unseen_at = 0;
        }
        self.starved = decoder.as_ref().is_some_and(Decoder::is_starved);
        self.stages = Some(stages);
        match went {
            Ok(backlog) => return backlog,
            // The decoder stops a bomb at the same limit: what came before it counts.
            Err(Failure::BodyTooLarge) => self.full = true,
            Err(failure) => self.failure = Some(failure),
        }
        Backlog::Empty
    }

    /// How much of the body may be looked at in the time that `bytes` of it take a quick pattern.
    fn look_bytes(&self, stages: &Stages, bytes: usize) -> usize {
        match &stages.scan {
            Some((matcher, _)) if self.verdict.is_none() => {
                (bytes / matcher.slowness()).max(LOOK_BYTES_MIN.min(bytes))
            }
            _ => bytes,
        }
    }

    /// Decoded bytes.
    fn look(
        &mut self,
        decoded: &[u8],
        transcoder: Option<&mut Transcoder>,
        scan: Option<&mut (Arc<Matcher>, Scan)>,
    ) {
        let room = usize::try_from(self.bytes_max - self.bytes.min(self.bytes_max)).unwrap_or(usize::MAX);
        let within = &decoded[..decoded.len().min(room)];
        self.bytes += within.len() as u64;
        self.full |= within.len() < decoded.len();
        let Some((matcher, scan)) = scan else { return };
        if self.verdict.is_some() {
            return;
        }
        let mut certain = |text: &[u8]| match matcher.feed(scan, text) {
            Certainty::Certain(verdict) => {
                self.verdict.get_or_insert(verdict);
            }
            Certainty::More => {}
        };
        match transcoder {
            Some(transcoder) => transcoder.feed(within, &mut certain),
            None => certain(within),
        }
    }

    /// Whether to read on.
    #[must_use]
    pub fn progress(&self, expect: &Expect) -> BodyProgress {
        match (self.failure, self.full, self.verdict) {
            (Some(_), ..) if self.starved => BodyProgress::Starved,
            (Some(failure), ..) => BodyProgress::Failed(failure),
            (None, true, Some(_)) => BodyProgress::Cut,
            (None, true, None) if expect.body.is_some() => BodyProgress::Failed(Failure::BodyNoVerdict),
            (None, true, None) => BodyProgress::Failed(Failure::BodyTooLarge),
            (None, false, Some(_)) if expect.body_stop => BodyProgress::Enough,
            (None, false, _) => BodyProgress::More,
        }
    }

    /// The body is whole, and all of it decoded: what is wrong with its coding, if anything is. Only now may a pattern
    /// that looks at the end of the body decide.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let Some(stages) = &mut self.stages else { return Ok(()) };
        if let Some(decoder) = &mut stages.decoder {
            decoder.finish()?;
        }
        if let Some((matcher, scan)) = &mut stages.scan
            && self.verdict.is_none()
        {
            if let Some(transcoder) = &mut stages.transcoder {
                transcoder.finish(&mut |text| {
                    matcher.feed(scan, text);
                });
            }
            self.verdict = Some(matcher.finish(scan));
        }
        Ok(())
    }

    /// Whether nothing that could follow changes what the patterns say.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        self.verdict.is_some()
    }

    /// The failure that the patterns' verdict amounts to.
    #[must_use]
    pub fn failed_expectation(&self) -> Option<Failure> {
        match self.verdict {
            None | Some(Verdict::Matched) => None,
            Some(Verdict::Missing { .. }) => Some(Failure::BodyMismatch),
            Some(Verdict::Forbidden { .. }) => Some(Failure::BodyForbidden),
            Some(Verdict::Budget { .. }) => Some(Failure::BodyNoVerdict),
        }
    }

    /// What became of the patterns; of no use where there are none.
    #[must_use]
    pub fn state(&self) -> BodyMatch {
        match self.verdict {
            Some(Verdict::Matched) => BodyMatch::Matched,
            Some(Verdict::Missing { .. } | Verdict::Forbidden { .. }) => BodyMatch::NotMatched,
            Some(Verdict::Budget { .. }) => BodyMatch::NoVerdict,
            None if self.bytes == 0 && !self.full => BodyMatch::NotEvaluated,
            None => BodyMatch::NoVerdict,
        }
    }

    /// Which pattern is to blame: its place among `body_match`, then `body_forbid`.
    #[must_use]
    pub fn pattern(&self) -> i16 {
        let matches_count = self.stages.as_ref().and_then(|stages| stages.scan.as_ref());
        let matches_count = matches_count.map_or(0, |(matcher, _)| matcher.body_match_count());
        match self.verdict {
            // The budget's pattern counts through both lists.
            Some(Verdict::Missing { pattern } | Verdict::Budget { pattern }) => place(pattern),
            Some(Verdict::Forbidden { pattern }) => place(pattern.saturating_add(matches_count)),
            None | Some(Verdict::Matched) => NO_PATTERN,
        }
    }
}

fn place(pattern: u16) -> i16 {
    i16::try_from(pattern).unwrap_or(i16::MAX)
}
