//! DNS without I/O: messages, cache, hosts and resolv.conf, and the resolver that joins them.
//!
//! ```text
//!  conf ── Settings ──► Resolver ── poll ──► Action: Ask, Close, Wake ──► the shard's sockets
//!                        │   ▲ ▲
//!       lookup ──────────┘   │ └── answered, failed, expire ◄── bytes, errors, time
//!                          cache
//! ```
//!
//! Each shard has one [`Resolver`] and its own sockets: nothing here blocks, waits, or is shared. `getaddrinfo(3)`
//! is not used, because it blocks, hides the time to live, and cannot be told when to ask again.
//!
//! In scope: from a name in a URL to its addresses. Out of scope: addresses written in the URL, or pinned: they
//! never come here; which address is allowed ([`crate::policy`]); which of several is probed.
//!
//! Invariant: no byte from the network makes any of this panic, loop or grow.

mod cache;
pub mod conf;
mod entropy;
pub mod invariants;
pub mod message;
mod name;
mod resolver;
#[cfg(test)]
mod tests;

pub use cache::{FAILURE_TTL, NEGATIVE_TTL_MIN, REFRESH_PERCENT, STALE_AFTER};
pub use conf::{Hosts, Settings};
pub use entropy::Entropy;
pub use name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, Name, NameError};
pub use resolver::{
    Action, Counts, Family, Known, Lookup, Mode, NameId, QueryId, RELEASED_NAMES_MAX, Resolver, STRAYS_MAX,
    Transport,
};
