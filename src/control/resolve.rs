//! Names to addresses, once, before probing starts: by the system's resolver, on threads of this module's own.
//!
//! `getaddrinfo(3)` blocks, so it must never be called on a shard. The resolver that follows TTLs belongs in
//! the shards and does not exist yet; until then an address is as old as the process, and the sample's resolve
//! phase is absent.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use url::Host;

use crate::config;
use crate::endpoint::StoredEndpoint;
use crate::probe::Resolve;
use crate::sample::Failure;

/// The address of every name that needs one.
#[derive(Clone, Debug, Default)]
pub struct Addresses(HashMap<String, Result<IpAddr, Failure>>);

impl Addresses {
    /// Resolves every name among `endpoints`' URLs that no pinned address stands in for, and that is not known
    /// already.
    pub fn learn(&mut self, endpoints: &[StoredEndpoint]) {
        let unknown = |name: &&str| !self.0.contains_key(*name);
        let mut names: Vec<&str> = endpoints.iter().filter_map(name_to_resolve).filter(unknown).collect();
        names.sort_unstable();
        names.dedup();
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::with_capacity(names.len()));
        thread::scope(|scope| {
            for _ in 0..config::RESOLVE_THREADS.min(names.len()) {
                scope.spawn(|| {
                    // Relaxed: a ticket; the results are published by the mutex.
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let address = resolve(name);
                        let mut found = found.lock().expect("no resolver thread panics");
                        found.push(((*name).to_owned(), address));
                    }
                });
            }
        });
        self.0.extend(found.into_inner().expect("no resolver thread panics"));
    }
}

impl Resolve for &Addresses {
    fn resolve(&mut self, name: &str) -> Result<IpAddr, Failure> {
        self.0.get(name).copied().unwrap_or(Err(Failure::DnsNotFound))
    }
}

fn name_to_resolve(endpoint: &StoredEndpoint) -> Option<&str> {
    match (endpoint.endpoint.options.address, endpoint.endpoint.url.host()) {
        (None, Some(Host::Domain(name))) => Some(name),
        _ => None,
    }
}

fn resolve(name: &str) -> Result<IpAddr, Failure> {
    // The library folds the reasons of getaddrinfo into one kind of error: not found is by far the commonest.
    let mut addresses = (name, 0).to_socket_addrs().map_err(|_error| Failure::DnsNotFound)?;
    addresses.next().map(|address| address.ip()).ok_or(Failure::DnsNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_known_and_the_invalid_domain_is_not() {
        assert!(resolve("localhost").is_ok_and(|ip| ip.is_loopback()));
        assert_eq!(resolve("nothing.invalid"), Err(Failure::DnsNotFound));
    }
}
