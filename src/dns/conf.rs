//! What the machine says about names: `/etc/resolv.conf`, `/etc/hosts`, and `--dns` instead of the former.
//!
//! The two files belong to the system and are read as glibc reads them (resolv.conf(5), hosts(5)): what is not
//! understood is passed over, numbers are cut to their bounds. `--dns` is typed by a person and must be right.
//!
//! In scope: from text. Reading the files is the caller's.
//! Out of scope: `nsswitch.conf` (hosts first, then DNS, is what every distribution ships), `sortlist`, the options
//! that concern DNSSEC or sockets, and `$RES_OPTIONS`.
//!
//! Invariant: whatever the text, what comes of it is bounded ([`SERVERS_MAX`], [`SEARCH_DOMAINS_MAX`],
//! [`HOSTS_ADDRESSES_MAX`]).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::ADDRESSES_MAX;
use super::name::Name;
use crate::clock::Micros;

/// Most servers; glibc's `MAXNS`. Further ones are passed over.
pub const SERVERS_MAX: usize = 3;
/// Most search domains: glibc's bound until 2.26, and the length of list that resolv.conf(5) still promises.
pub const SEARCH_DOMAINS_MAX: usize = 6;
/// Dots from which on a name is tried as it is first.
pub const NDOTS_DEFAULT: u8 = 1;
/// Largest `ndots`, as in glibc.
pub const NDOTS_MAX: u8 = 15;
/// How long one server is waited for, as in glibc.
pub const TIMEOUT_DEFAULT: Micros = Micros::from_millis(5_000);
/// Longest `timeout`, as in glibc.
pub const TIMEOUT_MAX: Micros = Micros::from_millis(30_000);
/// How often all servers are tried, as in glibc.
pub const ATTEMPTS_DEFAULT: u8 = 2;
/// Most `attempts`, as in glibc.
pub const ATTEMPTS_MAX: u8 = 5;
/// Most addresses of a hosts file: the large block lists that people install have 200,000 lines.
pub const HOSTS_ADDRESSES_MAX: usize = 1024 * 1024;
/// Shortest time an answer is used: with less, a name would be asked for all the time.
pub const TTL_MIN: Micros = Micros::from_millis(1_000);
/// Longest time an answer is used without asking again, whatever it says itself: a monitor should see a move
/// within the hour.
pub const TTL_MAX: Micros = Micros::from_millis(3_600_000);
/// Longest time "there is none" is believed; RFC 2308, section 5, proposes one to three hours, for caches that do
/// not exist to notice changes.
pub const NEGATIVE_TTL_MAX: Micros = Micros::from_millis(300_000);
/// How long after its end an answer may still be used, flagged, while no server answers: the least that RFC 8767,
/// section 5, proposes.
pub const STALE_MAX: Micros = Micros::from_millis(86_400_000);
/// Most names, per shard, that somebody holds.
pub const NAMES_MAX: usize = 4 * 1024 * 1024;
/// Most queries in flight, per shard: each is a socket, and a burst of answers in one turn is a delay of the slots
/// behind it. Half of them are for lookups that are waited for.
pub const QUERIES_MAX: usize = 64;

/// The port of DNS.
const PORT: u16 = 53;

/// What the resolver needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom to ask, in this order. None: only the hosts file is left, and all else fails.
    pub servers: Vec<SocketAddr>,
    /// Domains to try a short name in.
    pub search: Vec<Name>,
    /// A name with so many dots is tried as it is before the search domains, another after them.
    pub ndots: u8,
    /// How long one server is waited for.
    pub timeout: Micros,
    /// How often all servers are tried.
    pub attempts: u8,
    /// Whether queries begin with each server in turn.
    pub rotate: bool,
    /// Names that need not be asked for.
    pub hosts: Hosts,
    /// Shortest time an answer is used.
    pub ttl_min: Micros,
    /// Longest time an answer is used.
    pub ttl_max: Micros,
    /// Longest time "there is none" is believed.
    pub negative_ttl_max: Micros,
    /// How long after its end an answer may still be used, flagged, while no server answers.
    pub stale_max: Micros,
    /// Most names held at a time.
    pub names_max: usize,
    /// Most queries in flight at a time.
    pub queries_max: usize,
}

impl Default for Settings {
    /// glibc's defaults without a `resolv.conf`: the server of this machine.
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT)],
            search: Vec::new(),
            ndots: NDOTS_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
            rotate: false,
            hosts: Hosts::default(),
            ttl_min: TTL_MIN,
            ttl_max: TTL_MAX,
            negative_ttl_max: NEGATIVE_TTL_MAX,
            stale_max: STALE_MAX,
            names_max: NAMES_MAX,
            queries_max: QUERIES_MAX,
        }
    }
}

impl Settings {
    /// The defaults, and what the text of a `resolv.conf` says instead.
    #[must_use]
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut settings = Self::default();
        let mut servers = Vec::new();
        for line in text.lines() {
            // A comment is a line of its own; glibc knows none behind a value, but for what it passes over.
            let mut words = line.split_ascii_whitespace();
            // The keyword stands at the very beginning.
            let keyword = if line.starts_with([' ', '\t', '#', ';']) { None } else { words.next() };
            match keyword {
                Some("nameserver") => servers.extend(words.next().and_then(server_address)),
                Some("domain") => settings.search = search_list(words.take(1)),
                Some("search") => settings.search = search_list(words),
                Some("options") => words.for_each(|option| settings.option(option)),
                _ => {}
            }
        }
        if !servers.is_empty() {
            servers.truncate(SERVERS_MAX);
            settings.servers = servers.into_iter().map(|address| SocketAddr::new(address, PORT)).collect();
        }
        settings
    }

    /// Asks the servers of `--dns ADDR[:PORT][,…]` instead.
    pub fn override_servers(&mut self, list: &str) -> Result<(), ServerError> {
        self.servers = servers(list)?;
        Ok(())
    }

    fn option(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("ndots", value)) => set(&mut self.ndots, value, 0, NDOTS_MAX),
            Some(("attempts", value)) => set(&mut self.attempts, value, 1, ATTEMPTS_MAX),
            Some(("timeout", value)) => {
                let mut seconds = 0;
                let seconds_max = u8::try_from(TIMEOUT_MAX.0 / 1_000_000).unwrap_or(u8::MAX);
                set(&mut seconds, value, 1, seconds_max);
                if seconds > 0 {
                    self.timeout = Micros::from_millis(u64::from(seconds) * 1_000);
                }
            }
            None if option == "rotate" => self.rotate = true,
            _ => {}
        }
    }
}

/// A number within its bounds; what is none changes nothing.
fn set(field: &mut u8, value: &str, min: u8, max: u8) {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // All digits and yet no number: it has too many of them.
        *field = value.parse().unwrap_or(max).clamp(min, max);
    }
}

/// The address of a `nameserver` line. A scope (`fe80::1%eth0`) is ignored: its interface is the kernel's to find.
fn server_address(text: &str) -> Option<IpAddr> {
    let (address, _scope) = text.split_once('%').unwrap_or((text, ""));
    address.parse().ok()
}

fn search_list<'t>(words: impl Iterator<Item = &'t str>) -> Vec<Name> {
    words.filter_map(|word| Name::parse(word).ok()).take(SEARCH_DOMAINS_MAX).collect()
}

/// Why the value of `--dns` is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// One of the servers is no address.
    NotAnAddress(String),
    /// More than [`SERVERS_MAX`] of them.
    TooMany,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnAddress(text) => {
                write!(f, "dns: {text:?} is not an address such as 9.9.9.9, 10.0.0.1:5353 or [2620:fe::9]:53")
            }
            Self::TooMany => write!(f, "dns: more than {SERVERS_MAX} servers"),
        }
    }
}

impl std::error::Error for ServerError {}

/// The servers of `--dns ADDR[:PORT][,…]`.
pub fn servers(list: &str) -> Result<Vec<SocketAddr>, ServerError> {
    let mut servers = Vec::new();
    for text in list.split(',').map(str::trim) {
        let bare = text.strip_prefix('[').map_or(Some(text), |text| text.strip_suffix(']'));
        let bare = bare.and_then(|text| text.parse().ok()).map(|address| SocketAddr::new(address, PORT));
        let server = text.parse().ok().or(bare);
        // Port 0 can be written, and not be sent to.
        let server = server.filter(|server: &SocketAddr| server.port() != 0);
        servers.push(server.ok_or_else(|| ServerError::NotAnAddress(text.chars().take(64).collect()))?);
        if servers.len() > SERVERS_MAX {
            return Err(ServerError::TooMany);
        }
    }
    Ok(servers)
}

/// A hosts file.
#[derive(Clone, Debug, Default)]
pub struct Hosts(HashMap<Name, Vec<IpAddr>>);

impl Hosts {
    /// Reads the text of a hosts file: an address and its names in each line.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        let mut room = HOSTS_ADDRESSES_MAX;
        for line in text.lines() {
            let (line, _comment) = line.split_once('#').unwrap_or((line, ""));
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(server_address) else { continue };
            for name in words.filter_map(|word| Name::parse(word).ok()) {
                let addresses = hosts.0.entry(name).or_default();
                if room > 0 && addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                    addresses.push(address);
                    room -= 1;
                }
            }
            if room == 0 {
                break;
            }
        }
        hosts
    }

    /// The addresses of `name`, in the file's order. `localhost` and what is below it need no line and are never
    /// asked for (RFC 6761, section 6.3).
    #[must_use]
    pub fn addresses(&self, name: &Name) -> Vec<IpAddr> {
        if let Some(addresses) = self.0.get(name) {
            return addresses.clone();
        }
        if name.labels().last() == Some(b"localhost") {
            return vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::parse(text).unwrap()).collect()
    }

    #[test]
    fn resolv_conf_is_read_as_glibc_does() {
        let text = include_str!("../../tests/data/dns/resolv.conf");
        let settings = Settings::from_resolv_conf(text);
        let expected: Vec<SocketAddr> =
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1]:53"].map(|text| text.parse().unwrap()).into();
        assert_eq!(
            settings.servers, expected,
            "three, the scope ignored, the one that is no address passed over"
        );
        assert_eq!(settings.search, names(&["corp.example", "example"]), "the last search line");
        assert_eq!((settings.ndots, settings.attempts), (15, 3));
        assert_eq!(settings.timeout, Micros::from_millis(30_000));
        assert!(settings.rotate);
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        for text in
            ["", "#nameserver 192.0.2.1\n", " nameserver 192.0.2.1", "options ndots:x timeout: attempts"]
        {
            let settings = Settings::from_resolv_conf(text);
            assert_eq!(settings.servers, ["127.0.0.1:53".parse().unwrap()], "{text:?}");
            assert_eq!((settings.ndots, settings.attempts, settings.rotate), (1, 2, false), "{text:?}");
            assert_eq!(settings.timeout, TIMEOUT_DEFAULT, "{text:?}");
        }
        let many: String = (0..50).map(|n| format!(" d{n}.example")).collect();
        let settings = Settings::from_resolv_conf(&format!("search{many}\noptions attempts:0 timeout:0"));
        assert_eq!(settings.search.len(), SEARCH_DOMAINS_MAX);
        assert_eq!((settings.attempts, settings.timeout), (1, Micros::from_millis(1_000)), "zero is none");
    }

    #[test]
    fn servers_named_by_a_person_must_be_right() {
        let check = |list: &str, expected: &[&str]| {
            let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(servers(list), Ok(expected), "{list}");
        };
        check("9.9.9.9", &["9.9.9.9:53"]);
        check("127.0.0.1:5353, 2620:fe::9", &["127.0.0.1:5353", "[2620:fe::9]:53"]);
        check("[2620:fe::9]:54,[::1]", &["[2620:fe::9]:54", "[::1]:53"]);
        for wrong in
            ["", "dns.example", "1.2.3", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:70000", "1.2.3.4,", "[::1"]
        {
            let error = servers(wrong);
            assert!(matches!(error, Err(ServerError::NotAnAddress(_))), "{wrong:?}: {error:?}");
        }
        assert_eq!(servers("::1,::2,::3,::4"), Err(ServerError::TooMany));
        let message = servers("dns.example").unwrap_err().to_string();
        assert!(message.starts_with("dns: \"dns.example\" is not an address"), "{message}");
    }

    #[test]
    fn hosts_are_read() {
        let hosts = Hosts::parse(include_str!("../../tests/data/dns/hosts"));
        let check = |name: &str, expected: &[&str]| {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(hosts.addresses(&Name::parse(name).unwrap()), expected, "{name}");
        };
        check("shop.example", &["192.0.2.7", "2001:db8::7"]);
        check("SHOP", &["192.0.2.7"]);
        check("router.example", &["fe80::1"]);
        check("commented.example", &[]);
        check("localhost", &["127.0.0.1"]);
        check("a.localhost", &["::1", "127.0.0.1"]);
        check("nobody.example", &[]);
    }
}
