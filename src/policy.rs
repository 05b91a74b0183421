//! Which addresses may be connected to: the defence against server-side request forgery.
//!
//! A prober goes where its users' URLs, their redirects and their DNS send it, from inside of a network that trusts
//! it. So the very address that is handed to `connect` is judged, each time: after resolution, on each hop, and for
//! pinned addresses too. Nothing is resolved between the verdict and the connection, hence there is nothing to rebind.
//!
//! ```text
//!   address ─► IPv4 in IPv6's clothes? ─► our own listener? ─► rules, in order ─► profile ─► allowed
//!                (judged as what it is)        denied           first match wins   denied
//!                       └── and an IPv4 that a translator will take out of it: has to be allowed as well
//! ```
//!
//! A rule is `allow` or `deny` with a network and perhaps ports: `allow 10.0.0.0/8:443`,
//! `deny [fd00::/8]:8000-8999`, `deny 192.0.2.1`. What no rule speaks of is the [`Profile`]'s.
//!
//! In scope: the verdict on one address. Out of scope: names, and what a denial means (`policy_blocked`, the probe's).
//!
//! Invariant: our own listeners are denied whatever the rules say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most rules of a policy: each connection may walk through all of them.
pub const POLICY_RULES_MAX: usize = 1024;

/// What holds where no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One owner, who may look at their own network: all but link-local addresses, the metadata services of clouds,
    /// and what is no host's address.
    #[default]
    SingleTenant,
    /// Users who are not trusted with our network: nothing but global unicast.
    MultiTenant,
}

impl Profile {
    /// As in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SingleTenant => "single-tenant",
            Self::MultiTenant => "multi-tenant",
        }
    }

    /// The reverse of [`Self::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::SingleTenant, Self::MultiTenant].into_iter().find(|profile| profile.name() == text)
    }
}

/// Rules and a profile.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    profile: Profile,
    own: Vec<SocketAddr>,
}

impl Default for Policy {
    /// [`Profile::SingleTenant`], no rules, no listeners.
    fn default() -> Self {
        Self { rules: Vec::new(), profile: Profile::default(), own: Vec::new() }
    }
}

/// A rule that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Which, from 1; 0 if it is about all of them.
    pub rule: usize,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            0 => f.write_str(&self.why),
            rule => write!(f, "rule {rule}: {}", self.why),
        }
    }
}

impl std::error::Error for PolicyError {}

/// `allow 10.0.0.0/8:443`
#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    network: IpNet,
    ports: RangeInclusive<u16>,
}

impl Rule {
    fn matches(&self, address: IpAddr, port: u16) -> bool {
        self.ports.contains(&port) && self.network.contains(&address)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allow " } else { "deny " })?;
        let (first, last) = (*self.ports.start(), *self.ports.end());
        match (&self.network, (first, last)) {
            (network, (0, u16::MAX)) => return write!(f, "{network}"),
            (IpNet::V4(network), _) => write!(f, "{network}:{first}")?,
            (IpNet::V6(network), _) => write!(f, "[{network}]:{first}")?,
        }
        if first == last { Ok(()) } else { write!(f, "-{last}") }
    }
}

/// Who decided about an address, and how.
#[derive(Clone, Copy, Debug)]
enum Decision<'a> {
    /// One of our own listeners.
    Own,
    /// A rule: its number from 1, and itself.
    Rule(usize, &'a Rule),
    /// The profile, and why.
    Profile(&'static str),
    /// Nobody objected.
    Nothing,
}

impl Decision<'_> {
    const fn allows(&self) -> bool {
        match self {
            Self::Own | Self::Profile(_) => false,
            Self::Rule(_, rule) => rule.allow,
            Self::Nothing => true,
        }
    }
}

impl Policy {
    /// Reads rules, first the one that is asked first.
    ///
    /// # Errors
    ///
    /// The first rule that is not understood, or that there are more than [`POLICY_RULES_MAX`].
    pub fn parse(rules: &[&str], profile: Profile) -> Result<Self, PolicyError> {
        if rules.len() > POLICY_RULES_MAX {
            return Err(PolicyError { rule: 0, why: format!("more than {POLICY_RULES_MAX} rules") });
        }
        let read = |(index, text): (usize, &&str)| {
            rule(text).map_err(|why| PolicyError { rule: index + 1, why: format!("{text:?} {why}") })
        };
        let rules = rules.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { rules, profile, own: Vec::new() })
    }

    /// Denies our own listeners, too. Of one on all addresses (`0.0.0.0`, `::`) the loopback addresses are known to be
    /// meant; those of the machine's interfaces are for the caller to add, one by one.
    #[must_use]
    pub fn with_own(mut self, listeners: &[SocketAddr]) -> Self {
        let plain = |listener: &SocketAddr| SocketAddr::new(listener.ip().to_canonical(), listener.port());
        self.own.extend(listeners.iter().map(plain));
        self
    }

    /// Whether this address may be connected to.
    #[must_use]
    pub fn allows(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        self.decide(ip, port).allows()
            && embedded(ip).all(|inner| self.decide(IpAddr::V4(inner), port).allows())
    }

    /// Whether, and why: one line for people.
    #[must_use]
    pub fn explain(&self, address: SocketAddr) -> String {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let outer = self.decide(ip, port);
        if outer.allows() {
            let denied = embedded(ip).find_map(|inner| {
                let decision = self.decide(IpAddr::V4(inner), port);
                (!decision.allows()).then_some((inner, decision))
            });
            if let Some((inner, decision)) = denied {
                return format!("denied: {ip} leads to {inner}, {}", self.reason(decision));
            }
        }
        let verdict = if outer.allows() { "allowed" } else { "denied" };
        format!("{verdict}: {ip}, {}", self.reason(outer))
    }

    fn reason(&self, decision: Decision<'_>) -> String {
        match decision {
            Decision::Own => "where this prober itself listens".into(),
            Decision::Rule(number, rule) => format!("by rule {number}, {rule}"),
            Decision::Profile(what) => format!("{what} (profile {})", self.profile.name()),
            Decision::Nothing => format!("by profile {}", self.profile.name()),
        }
    }

    /// Judges one address as it is, whatever else it may lead to.
    fn decide(&self, ip: IpAddr, port: u16) -> Decision<'_> {
        if self.own.iter().any(|own| is_own(*own, ip, port)) {
            return Decision::Own;
        }
        let rules = self.rules.iter().enumerate();
        if let Some((index, rule)) = rules.into_iter().find(|(_, rule)| rule.matches(ip, port)) {
            return Decision::Rule(index + 1, rule);
        }
        let objection = match (self.profile, ip) {
            (Profile::SingleTenant, IpAddr::V4(ip)) => find_v4(NEVER_V4, ip),
            (Profile::SingleTenant, IpAddr::V6(ip)) => find_v6(NEVER_V6, ip),
            (Profile::MultiTenant, IpAddr::V4(ip)) => {
                find_v4(NEVER_V4, ip).or_else(|| find_v4(NOT_GLOBAL_V4, ip))
            }
            (Profile::MultiTenant, IpAddr::V6(ip)) => {
                find_v6(NEVER_V6, ip).or_else(|| find_v6(NOT_GLOBAL_V6, ip)).or_else(|| {
                    let global = GLOBAL_V6.iter().any(|network| network.contains(&ip));
                    (!global).then_some("not a global address")
                })
            }
        };
        objection.map_or(Decision::Nothing, Decision::Profile)
    }
}

fn is_own(own: SocketAddr, ip: IpAddr, port: u16) -> bool {
    own.port() == port
        && (own.ip() == ip || (own.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified())))
}

// --- networks -------------------------------------------------------------------------------------------

/// A network, and what it is.
type Known<T> = (T, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// The first half of an IPv6 address; the second is zero.
const fn v6(a: u16, b: u16, c: u16, d: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

/// Denied by both profiles. Metadata services hand credentials to whoever asks from the right machine; most live in
/// the link-local network, some do not.
const NEVER_V4: &[Known<Ipv4Net>] = &[
    // Linux connects 0.0.0.0 to the loopback interface.
    (v4(0, 0, 0, 0, 8), "\"this\" network (RFC 791, section 3.2)"),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds keep their metadata"),
    (v4(100, 100, 100, 200, 32), "the metadata service of Alibaba Cloud"),
    (v4(168, 63, 129, 16, 32), "the platform's service of Azure"),
    (v4(192, 0, 0, 192, 32), "the metadata service of Oracle Cloud"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
];

const NEVER_V6: &[Known<Ipv6Net>] = &[
    (v6(0, 0, 0, 0, 128), "the unspecified address"),
    (v6(0xfe80, 0, 0, 0, 10), "link-local"),
    (v6(0xff00, 0, 0, 0, 8), "multicast"),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
        "the metadata service of AWS",
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
        "the metadata service of Google Cloud",
    ),
];

/// The rest of IANA's registry of special-purpose IPv4 addresses (RFC 6890) that is not global.
const NOT_GLOBAL_V4: &[Known<Ipv4Net>] = &[
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared, behind a carrier's NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved for protocols"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relays"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// What is global in IPv6: the part given out so far, and the translator's prefix, whose IPv4 is judged too.
const GLOBAL_V6: &[Ipv6Net] = &[v6(0x2000, 0, 0, 0, 3), v6(0x64, 0xff9b, 0, 0, 96)];

/// What is not global in it.
const NOT_GLOBAL_V6: &[Known<Ipv6Net>] = &[
    (v6(0x2001, 0, 0, 0, 23), "reserved for protocols, Teredo among them"),
    (v6(0x2001, 0xdb8, 0, 0, 32), "documentation"),
    (v6(0x2002, 0, 0, 0, 16), "6to4"),
    (v6(0x3fff, 0, 0, 0, 20), "documentation"),
];

fn find_v4(known: &[Known<Ipv4Net>], ip: Ipv4Addr) -> Option<&'static str> {
    known.iter().find(|(network, _)| network.contains(&ip)).map(|(_, what)| *what)
}

fn find_v6(known: &[Known<Ipv6Net>], ip: Ipv6Addr) -> Option<&'static str> {
    known.iter().find(|(network, _)| network.contains(&ip)).map(|(_, what)| *what)
}

// --- IPv4 within IPv6 -----------------------------------------------------------------------------------

const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 0, 96);
const NAT64_LOCAL: Ipv6Net = v6(0x64, 0xff9b, 1, 0, 48);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 0, 16);
const TEREDO: Ipv6Net = v6(0x2001, 0, 0, 0, 32);
/// IPv4-compatible (RFC 4291, section 2.5.5.1), deprecated, and routed by some all the same.
const COMPATIBLE: Ipv6Net = v6(0, 0, 0, 0, 96);
/// IPv4-translated (RFC 2765), obsolete.
const TRANSLATED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96);

/// The IPv4 addresses that a packet to `ip` may end up at. A mapped one (`::ffff:0:0/96`) is not among them: the
/// kernel takes it for the IPv4 address itself, and so do we, before anything else.
fn embedded(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let mut found = [None; 4];
    if let IpAddr::V6(ip) = ip {
        let o = ip.octets();
        let at = |i: [usize; 4]| Some(Ipv4Addr::new(o[i[0]], o[i[1]], o[i[2]], o[i[3]]));
        let last = at([12, 13, 14, 15]);
        let nobody = ip == Ipv6Addr::UNSPECIFIED || ip == Ipv6Addr::LOCALHOST;
        if [NAT64, TRANSLATED, COMPATIBLE].iter().any(|network| network.contains(&ip)) && !nobody {
            found[0] = last;
        } else if NAT64_LOCAL.contains(&ip) {
            // How long the operator's prefix is cannot be seen, and decides where the address lies (RFC 6052,
            // section 2.2). Each place counts, but for those that read as nonsense in 0/8: that is how the zeros
            // beside the real place read.
            let sensible = |address: &Ipv4Addr| address.octets()[0] != 0;
            found[0] = last;
            found[1] = at([6, 7, 9, 10]).filter(sensible);
            found[2] = at([7, 9, 10, 11]).filter(sensible);
            found[3] = at([9, 10, 11, 12]).filter(sensible);
            if found[1..].iter().any(Option::is_some) {
                found[0] = last.filter(sensible);
            }
        } else if SIX_TO_FOUR.contains(&ip) {
            found[0] = at([2, 3, 4, 5]);
        } else if TEREDO.contains(&ip) {
            // The server, and the client behind it, whose bits are inverted (RFC 4380, section 4).
            found[0] = at([4, 5, 6, 7]);
            found[1] = Some(Ipv4Addr::new(!o[12], !o[13], !o[14], !o[15]));
        }
    }
    found.into_iter().flatten()
}

// --- rules ----------------------------------------------------------------------------------------------

fn rule(text: &str) -> Result<Rule, String> {
    let (verb, rest) =
        text.trim().split_once(char::is_whitespace).ok_or("is not \"allow\" or \"deny\" and a network")?;
    let allow = match verb {
        "allow" => true,
        "deny" => false,
        _ => return Err("begins with neither \"allow\" nor \"deny\"".into()),
    };
    let (network, ports) = split_ports(rest.trim_start())?;
    Ok(Rule { allow, network: read_network(network)?, ports: read_ports(ports)? })
}

/// Splits `10.0.0.0/8:443`, `[fd00::/8]:443` and their like at the colon before the ports.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (network, rest) = rest.split_once(']').ok_or("lacks the ] to its [")?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((network, Some(ports))),
            None if rest.is_empty() => Ok((network, None)),
            None => Err("has something other than :PORT behind the ]".into()),
        };
    }
    // The address ends at the slash. Without one, a lone colon is that of the ports, and several are IPv6's.
    let address_bytes = text.find('/').unwrap_or(0);
    match text[address_bytes..].split_once(':') {
        Some((_, ports)) if address_bytes > 0 || !ports.contains(':') => {
            Ok((&text[..text.len() - ports.len() - 1], Some(ports)))
        }
        _ => Ok((text, None)),
    }
}

fn read_network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(
            text.parse::<IpAddr>()
                .map_err(|_| "is not a network such as 10.0.0.0/8 or fd00::/8, nor an address".to_owned())?,
        ),
    };
    if network.addr() != network.network() {
        return Err(format!("has bits set beyond its prefix; {} was meant?", network.trunc()));
    }
    match network {
        // It would never match: such addresses are judged as IPv4.
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 && mapped.addr().to_ipv4_mapped().is_some() => {
            Err("is IPv4 written as IPv6; write it as IPv4".into())
        }
        network => Ok(network),
    }
}

fn read_ports(text: Option<&str>) -> Result<RangeInclusive<u16>, String> {
    let Some(text) = text else { return Ok(0..=u16::MAX) };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        // `parse` takes a plus sign, too.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
        port.ok_or_else(|| "has a port that is not a number from 1 to 65535".to_owned())
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err("has a range of ports that goes down".into());
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// `tests/data/policy/README.md` describes the fields.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Verdicts {
        policy: Vec<Case>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        profile: String,
        #[serde(default)]
        rules: Vec<String>,
        #[serde(default)]
        own: Vec<SocketAddr>,
        allowed: Vec<SocketAddr>,
        denied: Vec<SocketAddr>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Refusals {
        refused: Vec<Refused>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Refused {
        rule: String,
        why: String,
    }

    fn policy(case: &Case) -> Policy {
        let rules: Vec<&str> = case.rules.iter().map(String::as_str).collect();
        let profile = Profile::parse(&case.profile).unwrap();
        Policy::parse(&rules, profile).unwrap().with_own(&case.own)
    }

    #[test]
    fn addresses_are_judged_as_the_vectors_say() {
        let verdicts: Verdicts = toml::from_str(include_str!("../tests/data/policy/verdicts.toml")).unwrap();
        for case in &verdicts.policy {
            let policy = policy(case);
            assert!(
                !case.allowed.is_empty() && !case.denied.is_empty(),
                "{}: both have to be shown",
                case.name
            );
            for (addresses, expected) in [(&case.allowed, true), (&case.denied, false)] {
                for address in addresses {
                    let why = policy.explain(*address);
                    assert_eq!(policy.allows(*address), expected, "{}: {address}: {why}", case.name);
                    let begins = if expected { "allowed: " } else { "denied: " };
                    assert!(why.starts_with(begins), "{}: {address}: {why}", case.name);
                }
            }
        }
    }

    #[test]
    fn rules_that_are_not_understood_say_why() {
        let refusals: Refusals = toml::from_str(include_str!("../tests/data/policy/refusals.toml")).unwrap();
        for Refused { rule, why } in &refusals.refused {
            let error = Policy::parse(&["deny 10.0.0.0/8", rule], Profile::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("rule 2: {rule:?} {why}"));
        }
        let many = vec!["deny 10.0.0.0/8"; POLICY_RULES_MAX + 1];
        assert_eq!(Policy::parse(&many, Profile::default()).unwrap_err().to_string(), "more than 1024 rules");
        assert!(Policy::parse(&many[1..], Profile::default()).is_ok());
    }

    #[test]
    fn reasons_name_the_rule_or_the_network() {
        let rules = ["deny [fd00::/8]:8000-8999", "allow 10.0.0.0/8:443"];
        let policy =
            Policy::parse(&rules, Profile::MultiTenant).unwrap().with_own(&["[::]:9".parse().unwrap()]);
        let check = |address: &str, expected: &str| {
            assert_eq!(policy.explain(address.parse().unwrap()), expected);
        };
        check("[fd00::1]:8001", "denied: fd00::1, by rule 1, deny [fd00::/8]:8000-8999");
        check("[::ffff:10.1.2.3]:443", "allowed: 10.1.2.3, by rule 2, allow 10.0.0.0/8:443");
        check("10.1.2.3:80", "denied: 10.1.2.3, private (profile multi-tenant)");
        check("127.0.0.1:9", "denied: 127.0.0.1, where this prober itself listens");
        check("8.8.8.8:53", "allowed: 8.8.8.8, by profile multi-tenant");
        check(
            "[64:ff9b::7f00:1]:80",
            "denied: 64:ff9b::7f00:1 leads to 127.0.0.1, loopback (profile multi-tenant)",
        );
    }

    /// Every way to write an IPv4 address into an IPv6 one: none may be allowed where the IPv4 address is not.
    fn disguises(address: Ipv4Addr) -> [Ipv6Addr; 8] {
        let [a, b, c, d] = address.octets();
        let [high, low] = [u16::from(a) << 8 | u16::from(b), u16::from(c) << 8 | u16::from(d)];
        let split = |first: u8, second: u8| u16::from(first) << 8 | u16::from(second);
        [
            address.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, high, split(0, c), split(d, 0), 0, 0),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 0),
            Ipv6Addr::new(0x2001, 0, 0x5db8, 0xd822, 0, 0, !high, !low),
        ]
    }

    proptest! {
        #[test]
        fn a_disguise_opens_no_door(bits: u32, port: u16, multi: bool) {
            let profile = if multi { Profile::MultiTenant } else { Profile::SingleTenant };
            let rules = ["deny 128.0.0.0/2", "allow ::/0"];
            let policy = Policy::parse(&rules, profile).unwrap();
            let address = Ipv4Addr::from_bits(bits);
            let plain = policy.allows(SocketAddr::new(address.into(), port));
            for disguise in disguises(address) {
                let hidden = policy.allows(SocketAddr::new(disguise.into(), port));
                // In the operator's own prefix 0/8 reads as the zeros beside another place: see `embedded`.
                let zeros = address.octets()[0] == 0 && NAT64_LOCAL.contains(&disguise);
                prop_assert!(plain || !hidden || zeros, "{address} as {disguise}");
            }
        }

        #[test]
        fn the_first_rule_that_matches_wins(bits: u32, port in 1..=u16::MAX, length in 0_u8..=32, allow: bool) {
            let address = Ipv4Addr::from_bits(bits);
            let network = Ipv4Net::new(address, length).unwrap().trunc();
            let (verb, other) = if allow { ("allow", "deny") } else { ("deny", "allow") };
            let rules = [format!("{verb} {network}:{port}"), format!("{other} 0.0.0.0/0")];
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            for profile in [Profile::SingleTenant, Profile::MultiTenant] {
                let policy = Policy::parse(&rules, profile).unwrap();
                prop_assert_eq!(policy.allows(SocketAddr::new(address.into(), port)), allow);
                prop_assert_eq!(policy.allows(SocketAddr::new(address.into(), port ^ 1)), !allow);
            }
        }

        #[test]
        fn no_text_is_a_panic(text in ".{0,40}", tail in "[0-9a-f:./\\[\\]-]{0,24}") {
            let _either = Policy::parse(&[&text, &format!("deny {tail}")], Profile::default());
            if let Ok(policy) = Policy::parse(&[&format!("deny {tail}")], Profile::default()) {
                // What is understood is shown in a form that is understood, as the same.
                let shown = policy.rules[0].to_string();
                let again = Policy::parse(&[&shown], Profile::default()).unwrap();
                prop_assert_eq!(again.rules[0].to_string(), shown);
            }
        }
    }
}
