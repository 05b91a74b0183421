//! Endpoints turned into [`Plan`]s: what can be read, resolved, compiled or checked beforehand is, here and once.
//!
//! In scope: secrets and files that an endpoint names, its patterns, its request; sharing what is alike. Out of scope:
//! what an endpoint may say ([`crate::endpoint::Draft`]), when names become addresses (the shard's resolver).
//!
//! Invariant: whatever is wrong with an endpoint's references is said here, before anything is probed, by the
//! endpoint's name and its field, and never with a secret's value.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use crate::clock::Micros;
use crate::config;
use crate::dns;
use crate::endpoint::{
    Charset, Close, Coding, Connection, Dns, Endpoint, Expand, Expect as Expected, Family, FieldRule,
    HttpVersion, Options, Secrets, Source as From, TlsVersion, secret,
};
use crate::http::request::{Parts, Template};
use crate::http::wanted::{Judge, Rule, Wanted};
use crate::matcher::{self, Budgets, Certainty, Compiler, Matcher, Patterns, Verdict};
use crate::probe::{ClosePolicy, Expect, HostPort, Plan, Profile, Source, Timeouts};
use crate::tls;

/// Makes plans, and remembers what they can share.
#[derive(Debug)]
pub struct Planner {
    profiles: HashMap<Arc<Options>, Arc<Profile>>,
    origins: HashSet<Arc<HostPort>>,
    compiler: Compiler,
    roots: tls::Roots,
    contact: Option<String>,
    /// Which family comes first where an endpoint does not say.
    family_default: dns::Family,
    /// Whether one origin's load is capped.
    polite: bool,
}

/// Why an endpoint cannot be probed as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The endpoint's name.
    pub endpoint: String,
    /// The field, and what is wrong with it: a lower-case fragment.
    pub message: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {:?}: {}", self.endpoint, self.message)
    }
}

impl std::error::Error for PlanError {}

impl Planner {
    /// A planner that has made nothing yet. `contact`: whom `User-Agent` names as responsible.
    #[must_use]
    pub fn new(roots: tls::Roots, family_default: dns::Family, contact: Option<String>) -> Self {
        Self {
            profiles: HashMap::new(),
            origins: HashSet::new(),
            compiler: Compiler::new(Budgets::default()),
            roots,
            contact,
            family_default,
            polite: true,
        }
    }

    /// Without politeness: whoever measures what an origin or a prober can take means it.
    #[must_use]
    pub fn for_benchmarks(self) -> Self {
        Self { polite: false, ..self }
    }

    /// The plan of an endpoint.
    ///
    /// # Errors
    /// If a secret or a file cannot be had, a pattern cannot be compiled, or the request cannot be sent.
    pub fn plan(&mut self, endpoint: &Endpoint) -> Result<Plan, PlanError> {
        let fail = |message: String| PlanError { endpoint: endpoint.name.clone(), message };
        let secrets = Secrets::of(endpoint, &secret::from_system).map_err(|error| fail(error.reason()))?;
        let profile = match self.profiles.get(&endpoint.options) {
            Some(profile) => Arc::clone(profile),
            None => {
                let profile = Arc::new(self.profile(endpoint, &secrets).map_err(fail)?);
                self.profiles.insert(Arc::clone(&endpoint.options), Arc::clone(&profile));
                profile
            }
        };
        let origin = HostPort::of_url(&endpoint.url).ok_or_else(|| fail("url: names no host".to_owned()))?;
        let origin = match self.origins.get(&origin) {
            Some(known) => Arc::clone(known),
            None => {
                let origin = Arc::new(origin);
                self.origins.insert(Arc::clone(&origin));
                origin
            }
        };
        let request = self.request(endpoint, &secrets).map_err(fail)?;
        Ok(Plan { origin, pinned: endpoint.options.address, request, profile })
    }

    /// Bytes of pattern tables made so far.
    #[must_use]
    pub const fn pattern_bytes(&self) -> usize {
        self.compiler.bytes_total()
    }

    fn request(&self, endpoint: &Endpoint, secrets: &Secrets) -> Result<Template, String> {
        let options = &*endpoint.options;
        let mut headers = options.headers.clone();
        if let Some(user_agent) = &options.user_agent {
            headers.push(("User-Agent".to_owned(), user_agent.clone()));
        }
        for (name, value) in &secrets.headers {
            let value =
                str::from_utf8(value.expose()).map_err(|_| format!("secret_headers.{name}: is not UTF-8"))?;
            headers.push((name.clone(), value.to_owned()));
        }
        let authorization = secrets.authorization.as_ref().map(|value| str::from_utf8(value.expose()));
        let authorization = authorization.transpose().map_err(|_| "bearer: is not UTF-8".to_owned())?;
        let codings: Vec<&str> = options.accept_encoding.iter().copied().map(Coding::name).collect();
        let codings = codings.join(", ");
        Template::new(&Parts {
            headers: &headers,
            body: &options.body,
            close: options.connection == Connection::Fresh,
            authorization,
            accept_encoding: (!codings.is_empty()).then_some(&codings),
            contact: self.contact.as_deref(),
            ..Parts::new(options.method.as_str(), &endpoint.url)
        })
    }

    fn profile(&mut self, endpoint: &Endpoint, secrets: &Secrets) -> Result<Profile, String> {
        let options = &*endpoint.options;
        let tls = tls_profile(options, secrets)?;
        if endpoint.may_use_tls() {
            // The shards make their own of it; what is wrong with it must be said now.
            tls::Config::new(&tls, &self.roots).map_err(|error| format!("tls.{error}"))?;
        }
        let mut secret_fields: Vec<String> =
            options.secret_headers.iter().map(|(name, _)| name.clone()).collect();
        secret_fields.sort_unstable();
        Ok(Profile {
            head_request: options.method.is_head(),
            timeout: options.timeout,
            timeouts: Timeouts {
                resolve: options.resolve_timeout,
                connect: options.connect_timeout,
                tls: options.tls_timeout,
                ttfb: options.ttfb_timeout,
                idle: options.idle_timeout,
            },
            connection: options.connection,
            close: match options.close {
                Close::Peer => ClosePolicy::Peer,
                Close::Fin => ClosePolicy::Fin,
                Close::Rst => ClosePolicy::Rst,
            },
            redirects: options.redirects,
            redirect_downgrade: options.redirect_downgrade,
            retries: options.retries,
            expect: self.expect(options)?,
            tls,
            dns: match options.dns {
                Dns::Cached => dns::Mode::Cached,
                Dns::Every => dns::Mode::Every,
            },
            family: match options.family {
                Family::Any => self.family_default,
                Family::Prefer4 => dns::Family::PreferV4,
                Family::Prefer6 => dns::Family::PreferV6,
                Family::Only4 => dns::Family::V4,
                Family::Only6 => dns::Family::V6,
            },
            every_address: options.expand == Expand::All,
            source: options.source.as_ref().map(|source| match source {
                From::Address(ip) => Source::Address(*ip),
                From::Interface(name) => Source::Interface(name.clone()),
            }),
            secret_fields,
            priority: options.priority,
            polite: self.polite,
        })
    }

    fn expect(&mut self, options: &Options) -> Result<Expect, String> {
        let body = options.has_patterns().then(|| {
            self.compiler.compile(&Patterns {
                body_match: options.body_match.clone(),
                body_forbid: options.body_forbid.clone(),
            })
        });
        let mut fields = Vec::new();
        for (name, rule) in &options.expect_headers {
            let rule = match rule {
                FieldRule::Present => Rule::Present,
                FieldRule::Absent => Rule::Absent,
                FieldRule::Matches(pattern) => Rule::Matches(Box::new(self.judge(name, pattern)?)),
            };
            fields.push((name.clone(), rule));
        }
        let fields = (!fields.is_empty()).then(|| Wanted::new(fields)).transpose();
        let seconds = |span: Micros| i64::try_from(span.0 / 1_000_000).unwrap_or(i64::MAX);
        Ok(Expect {
            status: options.expect_status.clone(),
            fields: fields.map_err(|error| format!("expect_headers: {error}"))?.map(Arc::new),
            minor_version: options.expect_version.map(|version| match version {
                HttpVersion::Http10 => 0,
                HttpVersion::Http11 => 1,
            }),
            within: options.expect_within,
            body: body.transpose().map_err(|error| error.to_string())?,
            body_bytes_max: options.body_limit_bytes,
            body_stop: options.body_stop,
            charset: match options.charset {
                Charset::Raw => matcher::Charset::Raw,
                Charset::Auto => matcher::Charset::Auto,
            },
            decode: !options.accept_encoding.is_empty(),
            cert_expires_within_s: options.cert_expires_within.map(seconds),
            down: options.expect == Expected::Down,
        })
    }

    fn judge(&mut self, name: &str, pattern: &str) -> Result<FieldPattern, String> {
        let patterns = Patterns { body_match: vec![pattern.to_owned()], body_forbid: Vec::new() };
        let matcher = self.compiler.compile(&patterns);
        matcher
            .map(FieldPattern)
            .map_err(|error| format!("expect_headers.{name}, byte {}: {}", error.offset, error.message))
    }
}

/// A header field's value is matched as a body is.
#[derive(Debug)]
struct FieldPattern(Arc<Matcher>);

impl Judge for FieldPattern {
    fn accepts(&self, value: &[u8]) -> bool {
        let mut scan = self.0.start();
        let verdict = match self.0.feed(&mut scan, value) {
            Certainty::Certain(verdict) => verdict,
            Certainty::More => self.0.finish(&mut scan),
        };
        verdict == Verdict::Matched
    }
}

fn tls_profile(options: &Options, secrets: &Secrets) -> Result<tls::Profile, String> {
    let read =
        |field: &str, path: &str| read_file(path).map_err(|error| format!("tls.{field}: {path}: {error}"));
    let version = |version: Option<TlsVersion>, default| match version {
        None => default,
        Some(TlsVersion::Tls12) => tls::Version::Tls12,
        Some(TlsVersion::Tls13) => tls::Version::Tls13,
    };
    let given = &options.tls;
    let ca = given.ca_file.as_deref().map(|path| read("ca_file", path)).transpose()?;
    let chain = given.client_cert.as_deref().map(|path| read("client_cert", path)).transpose()?;
    let client = match (chain, &secrets.client_key) {
        (Some(chain), Some(key)) => Some(tls::Identity { chain, key: key.expose().to_vec().into() }),
        _ => None,
    };
    Ok(tls::Profile {
        ca,
        client,
        server_name: given.server_name.clone(),
        insecure: given.insecure,
        min_version: version(given.min_version, tls::Version::Tls12),
        max_version: version(given.max_version, tls::Version::Tls13),
        resumption: given.resumption,
        ..tls::Profile::default()
    })
}

fn read_file(path: &str) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    std::fs::File::open(path)?.take(config::PEM_BYTES_MAX + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > config::PEM_BYTES_MAX {
        return Err(std::io::Error::other(format!("is longer than {} bytes", config::PEM_BYTES_MAX)));
    }
    Ok(contents)
}
