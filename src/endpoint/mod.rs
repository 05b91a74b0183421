//! What is watched: the [`Endpoint`] and the types of its fields, parsed once so that they cannot be wrong.
//!
//! Every door (endpoint file, table, command line) fills a [`Draft`] and has it validated: there is no other
//! way to an [`Endpoint`] from outside, so the same mistake gets the same words everywhere.
//!
//! Out of scope: what a probe of it looks like on the wire (`crate::http::request`), and when it is due
//! (`crate::schedule`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use url::Url;

use crate::clock::Micros;
use crate::sample::EndpointId;

pub mod draft;
pub mod duration;
pub mod file;
pub mod generate;
mod method;
mod partition;
mod status;
#[cfg(test)]
mod tests;

pub use draft::{Draft, FieldError};
pub use partition::{phase32, shard_of};

/// A URL with interval, timeout and expectations. Its key is its name, never the URL: the same URL may be
/// watched twice with other expectations, or pinned to another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique; how the endpoint file and the table find each other.
    pub name: String,
    /// `http` only, so far; no userinfo.
    pub url: Url,
    /// Connect here instead of resolving the URL's host; `Host` stays the URL's.
    pub address: Option<IpAddr>,
    /// Request method.
    pub method: Method,
    /// Header fields in order: names are tokens and distinct whatever their case, values free of control
    /// characters other than tab; none of those that frame the message, which are ours.
    pub headers: Vec<(String, String)>,
    /// Request body, empty for none; UTF-8, so that the endpoint file can hold it.
    pub body: Vec<u8>,
    /// Statuses that count as up.
    pub expect_status: StatusSet,
    /// From slot to slot; whole milliseconds, as stored.
    pub interval: Micros,
    /// From the start of a probe to its verdict; whole milliseconds, as stored.
    pub timeout: Micros,
    /// Connection mode.
    pub connection: Connection,
    /// For people and queries.
    pub tags: BTreeMap<String, String>,
    /// Whether it is probed at all.
    pub enabled: bool,
}

/// An endpoint with its key in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// The key.
    pub id: EndpointId,
    /// The endpoint.
    pub endpoint: Endpoint,
}

/// Whether each probe opens a connection of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Connection {
    /// A new connection for each probe: what a first-time visitor sees.
    #[default]
    Fresh,
    /// One connection, kept alive between probes; opened again when it was lost.
    Reuse,
}

/// A request method: a token (RFC 9110, section 9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(Arc<str>);

/// The statuses that count as up, as inclusive ranges: sorted, disjoint, not adjacent, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Arc<[(u16, u16)]>);

impl Connection {
    /// As in the endpoint file, in the table and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reuse => "reuse",
        }
    }
}

impl FromStr for Connection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fresh" => Ok(Self::Fresh),
            "reuse" => Ok(Self::Reuse),
            _ => Err(format!("{text:?} is neither \"fresh\" nor \"reuse\"")),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A token (RFC 9110, section 5.6.2): what methods and field names are made of.
fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}
