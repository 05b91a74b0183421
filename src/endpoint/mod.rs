//! What is watched: the [`Endpoint`] and the types of its fields, parsed once so that they cannot be wrong.
//!
//! Out of scope: what a probe of it looks like on the wire (`crate::probe`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use url::Url;

use crate::clock::Micros;
use crate::sample::EndpointId;

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
    /// Header fields in order, free of CR, LF and NUL.
    pub headers: Vec<(String, String)>,
    /// Request body, empty for none.
    pub body: Vec<u8>,
    /// Statuses that count as up.
    pub expect_status: StatusSet,
    /// From slot to slot.
    pub interval: Micros,
    /// From the start of a probe to its verdict.
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

/// The statuses that count as up, as inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Arc<[(u16, u16)]>);

impl Method {
    /// A method from its name, which must be a token.
    pub fn new(name: &str) -> Result<Self, &'static str> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return Err("is not a token");
        }
        Ok(Self(name.into()))
    }

    /// As it goes on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for StatusSet {
    /// 200 to 299.
    fn default() -> Self {
        Self(Arc::new([(200, 299)]))
    }
}
