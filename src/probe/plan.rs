//! What a shard needs to know to probe one endpoint, made once when the endpoint is loaded.
//!
//! A [`Plan`] holds the request as bytes and the expectations as compiled; nothing in it is looked up, parsed
//! or allocated again while probing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use url::Host;

use crate::clock::Micros;
use crate::endpoint::{Connection, Endpoint, StatusSet};
use crate::http::request;
use crate::sample::{Failure, Flags};

/// One endpoint, ready to be probed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to connect, or why that is not known: such an endpoint is down without a packet.
    pub address: Result<SocketAddr, Failure>,
    /// The request, head and body. Shared with the ring while it is being sent; counted atomically only because
    /// a plan is made before it reaches its shard, which alone has it from then on.
    pub request: Arc<[u8]>,
    /// The response to HEAD has no body whatever its head says.
    pub head_request: bool,
    /// Statuses that count as up.
    pub expect_status: StatusSet,
    /// From start to verdict.
    pub timeout: Micros,
    /// Connection mode.
    pub connection: Connection,
}

/// Turns a host name into an address, for plans made before the shards start.
///
/// A name is asked for once, at load: the resolver of a later version lives in the shard, and will make
/// this a phase of the probe.
pub trait Resolve {
    /// The first address of `name`, or the failure class.
    fn resolve(&mut self, name: &str) -> Result<IpAddr, Failure>;
}

impl Plan {
    /// The plan of `endpoint`; only a URL with a name and without a pinned address asks `resolver`.
    pub fn new(endpoint: &Endpoint, resolver: &mut impl Resolve) -> Self {
        let port = endpoint.url.port_or_known_default().unwrap_or(80);
        let ip = match (endpoint.options.address, endpoint.url.host()) {
            (Some(pinned), _) => Ok(pinned),
            (None, Some(Host::Ipv4(ip))) => Ok(IpAddr::V4(ip)),
            (None, Some(Host::Ipv6(ip))) => Ok(IpAddr::V6(ip)),
            (None, Some(Host::Domain(name))) => resolver.resolve(name),
            (None, None) => Err(Failure::DnsNotFound),
        };
        Self {
            address: ip.map(|ip| SocketAddr::new(ip, port)),
            request: request::encode(endpoint).into(),
            head_request: endpoint.options.method.is_head(),
            expect_status: endpoint.options.expect_status.clone(),
            timeout: endpoint.options.timeout,
            connection: endpoint.options.connection,
        }
    }

    /// The flags that every sample of this endpoint carries.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        match self.connection {
            Connection::Fresh => Flags(0),
            Connection::Reuse => Flags::REUSE,
        }
    }
}
