//! What `run`, `check` and `bench` may be told of the way to their endpoints: whom to ask for names, which addresses
//! are allowed, whom to name as responsible.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;

use clap::Args;

use super::Error;
use crate::control::plans::Planner;
use crate::control::surroundings::Surroundings;
use crate::dns;
use crate::policy::{Policy, Profile};

/// Arguments about the network.
#[derive(Debug, Default, Args)]
pub(super) struct NetworkArguments {
    /// DNS servers to ask instead of those of /etc/resolv.conf, such as `9.9.9.9` or `10.0.0.1:5353`
    #[arg(long, env = "RINGPROBE_DNS", value_name = "ADDR[:PORT],…")]
    dns: Option<String>,
    /// Which addresses may be connected to where no rule says: `single-tenant` (all but link-local, cloud metadata,
    /// multicast and the like) or `multi-tenant` (only what is public)
    #[arg(long, env = "RINGPROBE_ADDRESS_POLICY", default_value = "single-tenant", value_name = "PROFILE")]
    address_policy: String,
    /// A rule in front of the profile's, such as `deny 10.0.0.0/8` or `allow 169.254.1.1/32:80`; repeatable, and the
    /// first that fits decides
    #[arg(
        long = "address-rule",
        env = "RINGPROBE_ADDRESS_RULES",
        value_delimiter = ',',
        value_name = "RULE"
    )]
    address_rules: Vec<String>,
    /// Whom `User-Agent` names as responsible: a URL or a mail address
    #[arg(long, env = "RINGPROBE_CONTACT", value_name = "WHO")]
    contact: Option<String>,
}

impl NetworkArguments {
    /// What shards get to know of this machine, and of these arguments.
    pub(super) fn surroundings(&self) -> Result<Surroundings, Error> {
        let mut surroundings = Surroundings::of_machine();
        if let Some(servers) = &self.dns {
            surroundings.dns.override_servers(servers).map_err(|error| Error::input(format!("--{error}")))?;
        }
        let profile = Profile::parse(&self.address_policy).ok_or_else(|| {
            let given = &self.address_policy;
            Error::input(format!("--address-policy: {given:?} is neither single-tenant nor multi-tenant"))
        })?;
        let rules: Vec<&str> = self.address_rules.iter().map(String::as_str).collect();
        let policy = Policy::parse(&rules, profile);
        surroundings.policy =
            Arc::new(policy.map_err(|error| Error::input(format!("--address-rule: {error}")))?);
        Ok(surroundings)
    }

    /// Who makes plans for these surroundings.
    pub(super) fn planner(&self, surroundings: &Surroundings) -> Planner {
        let family = if reaches_ipv6() { dns::Family::PreferV6 } else { dns::Family::PreferV4 };
        Planner::new(surroundings.roots.clone(), family, self.contact.clone())
    }
}

/// Whether this machine has a way to IPv6's public addresses: connecting a datagram socket looks for one, and sends
/// nothing (RFC 6724, section 6, rule 1, as glibc's `getaddrinfo` does it).
fn reaches_ipv6() -> bool {
    // Google's public resolver stands for everybody.
    const PUBLIC: Ipv6Addr = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    socket.and_then(|socket| socket.connect((PUBLIC, 53))).is_ok()
}
