//! HTTP/1.1, the client's side, without I/O: the bytes of a request, and a machine that takes a response
//! apart as it comes.
//!
//! [`Response`] is fed what arrives, in any cut, and says when the response is over, what its status is and
//! whether the connection may serve another. Payload goes to a closure as slices of the input.
//!
//! ```text
//!              1xx (at most INTERIM_RESPONSES_MAX)
//!                ┌──┐
//!   bytes ─► Head ──┴─► Body ─► Complete        surplus bytes: an anomaly
//!              │          │
//!              └── eof ───┴──► Failed(class)    stays so
//! ```
//!
//! In scope: HTTP/1.0 and 1.1, interim responses, HEAD, 204 and 304, every framing of RFC 9112 section 6.3.
//! The head says more than where the body ends: where a redirect leads ([`redirect`] follows it), how the content
//! is coded ([`coding`] decodes it), and whether its fields are as expected ([`wanted`]). Who must know that
//! before the first byte of payload comes uses [`Response::feed_head`].
//!
//! Out of scope: time (the probe's phases are taken by who knows when bytes came), upgrades (a 101 that was not
//! asked for is malformed).
//!
//! Invariants, which the tests and the fuzz target check on arbitrary bytes ([`invariants`]): nothing
//! panics; what comes out does not depend on the cuts; payload never exceeds what was announced; work is
//! linear in the bytes; after an anomaly of any sort the connection is not reusable.

pub mod body;
pub mod coding;
pub mod head;
pub mod invariants;
pub mod redirect;
pub mod request;
pub mod wanted;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use body::{Body, Framing};
use encoding_rs::Encoding;
use head::{Head, HeadReader, Notable};
use wanted::Wanted;

use crate::config::{BODY_BYTES_MAX, INTERIM_RESPONSES_MAX};
use crate::sample::Failure;

/// One response, from its first byte to its last.
#[derive(Debug)]
pub struct Response {
    head: HeadReader,
    wanted: Option<Arc<Wanted>>,
    body: Body,
    body_bytes_max: u64,
    charset: Option<&'static Encoding>,
    notable: Option<Box<Notable>>,
    /// Of the final head; 0 before.
    status: u16,
    minor_version: u8,
    unmet: Option<u8>,
    stage: Stage,
    interim_count: u8,
    head_request: bool,
    keep_alive: bool,
    anomaly: bool,
}

// Held per probe in flight: 16 Ki of them per shard are 1.4 MiB.
const _: () = assert!(size_of::<Response>() <= 88);
const _: () = assert!(INTERIM_RESPONSES_MAX < u8::MAX as u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    Complete,
    Failed(Failure),
}

/// Whether the response is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// There is more to come.
    More,
    /// It ended with the byte before `consumed` of what was fed; bytes behind it are an anomaly.
    Complete {
        /// How many of the bytes fed belong to the response.
        consumed: usize,
    },
}

impl Response {
    /// A response of which nothing has come; `head_request` says that it answers a HEAD, and has no body.
    #[must_use]
    pub const fn new(head_request: bool) -> Self {
        Self::expecting(head_request, None)
    }

    /// As [`Self::new`], with fields that the head is asked for: [`Self::unmet`] says what came of it.
    #[must_use]
    pub const fn expecting(head_request: bool, wanted: Option<Arc<Wanted>>) -> Self {
        Self {
            head: HeadReader::new(),
            wanted,
            body: Body::EMPTY,
            body_bytes_max: BODY_BYTES_MAX,
            charset: None,
            notable: None,
            status: 0,
            minor_version: 0,
            unmet: None,
            stage: Stage::Head,
            interim_count: 0,
            head_request,
            keep_alive: true,
            anomaly: false,
        }
    }

    /// The same with another limit for the body than [`BODY_BYTES_MAX`].
    #[must_use]
    pub const fn with_body_limit(mut self, body_bytes_max: u64) -> Self {
        self.body_bytes_max = body_bytes_max;
        self
    }

    /// Takes the next bytes, in any cut, and calls `payload` with each part of the body in them, in order.
    ///
    /// A failure is final: feeding on gives it again. Bytes after the end are not consumed, and spoil
    /// [`Self::reusable`].
    pub fn feed(&mut self, input: &[u8], payload: &mut impl FnMut(&[u8])) -> Result<Progress, Failure> {
        let result = self.advance(input, payload);
        match result {
            Ok(Progress::More) => {}
            Ok(Progress::Complete { consumed }) => {
                self.stage = Stage::Complete;
                self.anomaly |= consumed < input.len();
            }
            Err(failure) => self.stage = Stage::Failed(failure),
        }
        result
    }

    /// Takes bytes up to the end of the final head, and none behind it; says how many that were. They are all,
    /// and [`Self::status`] is still `None`, if there is more of the head to come.
    ///
    /// For who must look at the head before the body comes. What is left of `input`, be it nothing, is for
    /// [`Self::feed`], which alone says that the response is complete. Takes nothing once the head is whole.
    pub fn feed_head(&mut self, input: &[u8]) -> Result<usize, Failure> {
        let result = self.advance_head(input);
        if let Err(failure) = result {
            self.stage = Stage::Failed(failure);
        }
        result
    }

    /// The origin closed. `Ok` if that is how the body ends, or if the response was complete already;
    /// otherwise `ClosedEarly`, or what was wrong with an unfinished head.
    pub fn eof(&mut self) -> Result<(), Failure> {
        self.keep_alive = false;
        let result = match self.stage {
            Stage::Head => Err(self.head.eof()),
            Stage::Body => self.body.eof(),
            Stage::Complete => Ok(()),
            Stage::Failed(failure) => Err(failure),
        };
        self.stage = match result {
            Ok(()) => Stage::Complete,
            Err(failure) => Stage::Failed(failure),
        };
        result
    }

    /// The status of the final response, once its head is whole and makes sense; kept if the body fails.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self.status {
            0 => None,
            status => Some(status),
        }
    }

    /// 0 or 1 of HTTP/1.0 or HTTP/1.1, as the final response says; known when the status is.
    #[must_use]
    pub const fn minor_version(&self) -> Option<u8> {
        match self.status {
            0 => None,
            _ => Some(self.minor_version),
        }
    }

    /// The charset that the final response's `Content-Type` names, if it names one that is known.
    #[must_use]
    pub const fn charset(&self) -> Option<&'static Encoding> {
        self.charset
    }

    /// The first `Location` of a final response whose status is 3xx, as it came; cut to
    /// [`head::LOCATION_BYTES_MAX`], which is more than [`redirect::follow`] accepts.
    #[must_use]
    pub fn location(&self) -> Option<&[u8]> {
        self.notable.as_ref()?.location.as_deref()
    }

    /// The `Content-Encoding` fields of the final response, joined by commas.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&[u8]> {
        self.notable.as_ref()?.content_encoding.as_deref()
    }

    /// Which of the wanted fields is the first that is not as it should be, once the head is whole.
    #[must_use]
    pub const fn unmet(&self) -> Option<u8> {
        self.unmet
    }

    /// Whether the connection may carry another request: the response is complete, its end was announced,
    /// both sides keep the connection, and nothing odd was seen.
    #[must_use]
    pub fn reusable(&self) -> bool {
        self.stage == Stage::Complete && self.keep_alive && !self.anomaly && !self.body.anomaly()
    }

    /// Payload bytes handed out so far.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        self.body.payload_bytes()
    }

    fn advance(&mut self, input: &[u8], payload: &mut impl FnMut(&[u8])) -> Result<Progress, Failure> {
        if self.stage == Stage::Complete {
            return Ok(Progress::Complete { consumed: 0 });
        }
        let head_bytes = self.advance_head(input)?;
        if self.stage == Stage::Head {
            return Ok(Progress::More);
        }
        Ok(match self.body.feed(&input[head_bytes..], payload)? {
            Progress::More => Progress::More,
            Progress::Complete { consumed } => Progress::Complete { consumed: head_bytes + consumed },
        })
    }

    fn advance_head(&mut self, input: &[u8]) -> Result<usize, Failure> {
        if let Stage::Failed(failure) = self.stage {
            return Err(failure);
        }
        let mut head_bytes = 0;
        while self.stage == Stage::Head {
            let Some((head, consumed)) = self.head.feed(&input[head_bytes..], self.wanted.as_deref())? else {
                return Ok(input.len());
            };
            head_bytes += consumed;
            self.head_ends(head)?;
        }
        Ok(head_bytes)
    }

    fn head_ends(&mut self, head: Head) -> Result<(), Failure> {
        self.keep_alive &= head.keep_alive;
        self.anomaly |= head.anomaly;
        let interim = head.status < 200;
        // These two must not announce a body (RFC 9110, section 8.6); an honest zero is common, and harmless.
        if interim || head.status == 204 {
            self.anomaly |= matches!(head.framing, Framing::Chunked | Framing::Length(1..));
        }
        if interim {
            self.interim_count += 1;
            if head.status == 101 || u32::from(self.interim_count) > INTERIM_RESPONSES_MAX {
                return Err(Failure::MalformedResponse);
            }
            return Ok(());
        }
        self.status = head.status;
        self.minor_version = head.minor_version;
        self.charset = head.charset;
        self.notable = head.notable;
        self.unmet = head.unmet;
        self.stage = Stage::Body;
        let bodiless = self.head_request || matches!(head.status, 204 | 304);
        let framing = if bodiless { Framing::Length(0) } else { head.framing };
        self.keep_alive &= framing != Framing::UntilClose;
        self.body = Body::new(framing, self.body_bytes_max)?;
        Ok(())
    }
}
