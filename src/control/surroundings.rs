//! What every shard of a process has beside its endpoints, read from the machine once: the resolver's settings, the
//! address policy, the roots of TLS.
//!
//! Out of scope: what is done with them (`crate::shard::engine`).

use std::sync::Arc;

use crate::clock::Reading;
use crate::shard::engine;
use crate::shard::random::Random;
use crate::{dns, policy, tls};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// The same for all shards.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// How names are resolved.
    pub dns: dns::Settings,
    /// Which addresses may be connected to.
    pub policy: Arc<policy::Policy>,
    /// Whom to trust where an endpoint does not say.
    pub roots: tls::Roots,
    /// What nobody else's numbers follow from.
    pub seed: u64,
}

impl Surroundings {
    /// What this machine says: `/etc/resolv.conf` and `/etc/hosts` as far as they can be read, its own roots or else
    /// the bundled ones, and the policy for a node of one owner.
    #[must_use]
    pub fn of_machine() -> Self {
        let text = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut dns = text(RESOLV_CONF)
            .map_or_else(|_| dns::Settings::default(), |text| dns::Settings::from_resolv_conf(&text));
        if let Ok(text) = text(HOSTS) {
            dns.hosts = dns::Hosts::parse(&text);
        }
        Self {
            dns,
            policy: Arc::default(),
            roots: tls::Roots::system_or_bundled(),
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
        }
    }

    /// Those of shard number `shard`.
    #[must_use]
    pub fn for_shard(&self, anchor: Reading, shard: usize) -> engine::Surroundings {
        let seed = self.seed.wrapping_add(shard as u64);
        engine::Surroundings {
            anchor,
            resolver: dns::Resolver::new(self.dns.clone(), dns::Entropy::unpredictable()),
            policy: Arc::clone(&self.policy),
            roots: self.roots.clone(),
            random: Random::new(seed),
        }
    }
}
