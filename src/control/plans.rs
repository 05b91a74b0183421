//! Endpoints turned into [`Plan`]s: what can be read, resolved, compiled or checked beforehand is, here and once.
//!
//! In scope: secrets and files that an endpoint names, its patterns, its request; sharing what is alike. Out of scope:
//! what an endpoint may say ([`crate::endpoint::Draft`]), when names become addresses (the shard's resolver).
//!
//! Invariant: whatever is wrong with an endpoint's references is said here, before anything is probed, by its field,
//! and never with a secret's value.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use crate::clock::Micros;
use crate::config;
use crate::dns;
use crate::endpoint::{
    Charset, Close, Coding, Connection, Dns, Endpoint, Expand, Expect as Expected, Family, FieldError,
    FieldRule, HttpVersion, Options, Secrets, Source as From, TlsVersion, secret,
};
use crate::http::request::{Parts, Template};
use crate::http::wanted::{Judge, Rule, Wanted};
use crate::matcher::{self, Budgets, Certainty, Compiler, Matcher, PatternError, Patterns, Verdict};
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
    pub fn plan(&mut self, endpoint: &Endpoint) -> Result<Plan, FieldError> {
        let secrets = Secrets::of(endpoint, &secret::from_system)?;
        let profile = match self.profiles.get(&endpoint.options) {
            Some(profile) => Arc::clone(profile),
            None => {
                let profile = Arc::new(self.profile(endpoint, &secrets)?);
                self.profiles.insert(Arc::clone(&endpoint.options), Arc::clone(&profile));
                profile
            }
        };
        let origin =
            HostPort::of_url(&endpoint.url).ok_or_else(|| FieldError::new("url", "names no host"))?;
        let origin = match self.origins.get(&origin) {
            Some(known) => Arc::clone(known),
            None => {
                let origin = Arc::new(origin);
                self.origins.insert(Arc::clone(&origin));
                origin
            }
        };
        let request = self.request(endpoint, &secrets)?;
        Ok(Plan { origin, request, profile })
    }

    /// Whether a plan can be made of an endpoint once it is stored. One that is not enabled needs no secrets here, only
    /// patterns that compile.
    ///
    /// # Errors
    /// As those of [`Planner::plan`].
    pub fn check(&mut self, endpoint: &Endpoint) -> Result<(), FieldError> {
        match endpoint.options.enabled {
            true => self.plan(endpoint).map(drop),
            false => check_patterns(&mut self.compiler, endpoint),
        }
    }

    /// Who compiled the patterns so far, and knows what they take.
    #[must_use]
    pub const fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    fn request(&self, endpoint: &Endpoint, secrets: &Secrets) -> Result<Template, FieldError> {
        let options = &*endpoint.options;
        let mut headers = options.headers.clone();
        if let Some(user_agent) = &options.user_agent {
            headers.push(("User-Agent".to_owned(), user_agent.clone()));
        }
        for (name, value) in &secrets.headers {
            let value = str::from_utf8(value.expose())
                .map_err(|_| FieldError::new(format!("secret_headers.{name}"), "is not UTF-8"))?;
            headers.push((name.clone(), value.to_owned()));
        }
        let authorization = secrets.authorization.as_ref().map(|value| str::from_utf8(value.expose()));
        let authorization =
            authorization.transpose().map_err(|_| FieldError::new("bearer", "is not UTF-8"))?;
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
        .map_err(|reason| FieldError::new("request", reason))
    }

    fn profile(&mut self, endpoint: &Endpoint, secrets: &Secrets) -> Result<Profile, FieldError> {
        let options = &*endpoint.options;
        let tls = tls_profile(options, secrets)?;
        if endpoint.may_use_tls() {
            // The shards make their own of it; what is wrong with it must be said now.
            tls::Config::new(&tls, &self.roots).map_err(|error| FieldError::new("tls", error.to_string()))?;
        }
        let mut secret_fields: Vec<String> =
            options.secret_headers.iter().map(|(name, _)| name.clone()).collect();
        secret_fields.sort_unstable();
        Ok(Profile {
            pinned: options.address,
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
            expect: expect(&mut self.compiler, options)?,
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
}

/// Whether an endpoint's patterns compile: all that can be checked of them where it is not probed.
///
/// # Errors
/// The first pattern that does not.
pub fn check_patterns(compiler: &mut Compiler, endpoint: &Endpoint) -> Result<(), FieldError> {
    body_matcher(compiler, &endpoint.options)?;
    field_rules(compiler, &endpoint.options).map(drop)
}

fn expect(compiler: &mut Compiler, options: &Options) -> Result<Expect, FieldError> {
    let fields = field_rules(compiler, options)?;
    let fields = (!fields.is_empty()).then(|| Wanted::new(fields)).transpose();
    let seconds = |span: Micros| i64::try_from(span.0 / 1_000_000).unwrap_or(i64::MAX);
    Ok(Expect {
        status: options.expect_status.clone(),
        fields: fields.map_err(|reason| FieldError::new("expect_headers", reason))?.map(Arc::new),
        minor_version: options.expect_version.map(|version| match version {
            HttpVersion::Http10 => 0,
            HttpVersion::Http11 => 1,
        }),
        within: options.expect_within,
        body: body_matcher(compiler, options)?,
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

fn body_matcher(compiler: &mut Compiler, options: &Options) -> Result<Option<Arc<Matcher>>, FieldError> {
    if !options.has_patterns() {
        return Ok(None);
    }
    let patterns =
        Patterns { body_match: options.body_match.clone(), body_forbid: options.body_forbid.clone() };
    compiler.compile(&patterns).map(Some).map_err(|PatternError { list, index, offset, message }| {
        FieldError::new(format!("{list}[{index}], byte {offset}"), message)
    })
}

fn field_rules(compiler: &mut Compiler, options: &Options) -> Result<Vec<(String, Rule)>, FieldError> {
    let mut rule = |(name, rule): &(String, FieldRule)| {
        let rule = match rule {
            FieldRule::Present => Rule::Present,
            FieldRule::Absent => Rule::Absent,
            FieldRule::Matches(pattern) => {
                let patterns = Patterns { body_match: vec![pattern.clone()], body_forbid: Vec::new() };
                let matcher =
                    compiler.compile(&patterns).map_err(|PatternError { offset, message, .. }| {
                        FieldError::new(format!("expect_headers.{name}, byte {offset}"), message)
                    })?;
                Rule::Matches(Box::new(FieldPattern(matcher)))
            }
        };
        Ok((name.clone(), rule))
    };
    options.expect_headers.iter().map(&mut rule).collect()
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

fn tls_profile(options: &Options, secrets: &Secrets) -> Result<tls::Profile, FieldError> {
    let read = |field: &str, path: &str| {
        read_file(path).map_err(|error| FieldError::new("tls", format!("{field}: {path}: {error}")))
    };
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
