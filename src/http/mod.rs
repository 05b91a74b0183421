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
//! Out of scope: time (the probe's phases are taken by who knows when bytes came), content codings,
//! redirects, upgrades (a 101 that was not asked for is malformed).
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

#[cfg(test)]
mod tests;

use body::{Body, Framing};
use head::{Head, HeadReader};

use crate::config::INTERIM_RESPONSES_MAX;
use crate::sample::Failure;

/// One response, from its first byte to its last.
#[derive(Debug)]
pub struct Response {
    head: HeadReader,
    body: Body,
    /// Of the final head; 0 before.
    status: u16,
    stage: Stage,
    interim_count: u8,
    head_request: bool,
    keep_alive: bool,
    anomaly: bool,
}

// Held per probe in flight: 16 Ki of them per shard are 1.1 MiB.
const _: () = assert!(size_of::<Response>() <= 72);
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
        Self {
            head: HeadReader::new(),
            body: Body::EMPTY,
            status: 0,
            stage: Stage::Head,
            interim_count: 0,
            head_request,
            keep_alive: true,
            anomaly: false,
        }
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
        match self.stage {
            Stage::Head => {}
            Stage::Body => return self.body.feed(input, payload),
            Stage::Complete => return Ok(Progress::Complete { consumed: 0 }),
            Stage::Failed(failure) => return Err(failure),
        }
        let mut head_bytes = 0;
        while self.stage == Stage::Head {
            let Some((head, consumed)) = self.head.feed(&input[head_bytes..])? else {
                return Ok(Progress::More);
            };
            head_bytes += consumed;
            self.head_ends(&head)?;
        }
        Ok(match self.body.feed(&input[head_bytes..], payload)? {
            Progress::More => Progress::More,
            Progress::Complete { consumed } => Progress::Complete { consumed: head_bytes + consumed },
        })
    }

    fn head_ends(&mut self, head: &Head) -> Result<(), Failure> {
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
        self.stage = Stage::Body;
        let bodiless = self.head_request || matches!(head.status, 204 | 304);
        let framing = if bodiless { Framing::Length(0) } else { head.framing };
        self.keep_alive &= framing != Framing::UntilClose;
        self.body = Body::new(framing)?;
        Ok(())
    }
}
