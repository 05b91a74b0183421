//! [`StoreUrl`]: which store a person means by `--store`, parsed once.
//!
//! `sqlite:PATH` (also `sqlite://PATH`) or a PostgreSQL connection string with the scheme `postgres` or
//! `postgresql`. There is no TLS to the database in this version. What would need it is refused here, with a
//! line that says so: the alternative is a password and a table of URLs crossing a network in the clear
//! because a default said "prefer".
//!
//! Invariant: a `StoreUrl` never shows its password, neither by `Display` nor by `Debug`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::config::{Host, SslMode};

use crate::config::{STORE_CONNECT_MAX, STORE_DEADLINE};

/// Where samples are stored and endpoints are read.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// An SQLite file; made if it is missing.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PostgresUrl>),
}

/// A parsed connection string.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    config: tokio_postgres::Config,
    /// `host:port/database`, for people.
    shown: String,
}

/// Why a string is not a [`StoreUrl`]: one line, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrlError(String);

impl PostgresUrl {
    /// The driver's view of it.
    #[must_use]
    pub const fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// The same server and credentials with another database; for tests, which make one each.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut config = self.config.clone();
        config.dbname(name);
        let shown = shown(&config);
        Self { config, shown }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let refuse = |message: String| Err(StoreUrlError(message));
        let Some((scheme, rest)) = text.split_once(':') else {
            // Not repeated: `host=… password=…`, as libpq also takes it, has none.
            return refuse("store: no scheme; use sqlite:PATH or postgres://…".to_owned());
        };
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                match path {
                    "" => refuse("store \"sqlite:\": the path of the file is missing".to_owned()),
                    ":memory:" => refuse(
                        "store \"sqlite::memory:\": a file is needed, because several connections share it"
                            .to_owned(),
                    ),
                    path => Ok(Self::Sqlite(PathBuf::from(path))),
                }
            }
            "postgres" | "postgresql" => Ok(Self::Postgres(Box::new(postgres(text).map_err(StoreUrlError)?))),
            // A misspelt scheme may stand before a password, so only what looks like one is repeated.
            _ if !is_scheme(scheme) => refuse("store: no scheme; use sqlite:PATH or postgres://…".to_owned()),
            _ => refuse(format!("store: unknown scheme {scheme:?}; use sqlite:PATH or postgres://…")),
        }
    }
}

fn postgres(text: &str) -> Result<PostgresUrl, String> {
    let mode = sslmode(text);
    if let Some(mode @ ("require" | "verify-ca" | "verify-full")) = mode {
        return Err(format!(
            "store: sslmode={mode}: TLS to the database is not supported yet; use a loopback address, a Unix socket, or sslmode=disable over a network that you trust"
        ));
    }
    let mut config = tokio_postgres::Config::from_str(text)
        .map_err(|error| format!("store: bad PostgreSQL URL: {}", chain(&error)))?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err("store: sslmode=require: TLS to the database is not supported yet".to_owned());
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("store: bad PostgreSQL URL: the host is missing".to_owned());
    }
    let mut names = config.get_hosts().iter().filter_map(|host| match host {
        Host::Tcp(name) => Some(name),
        Host::Unix(_) => None,
    });
    // The driver ends the password at the first `@`, and takes the rest of it for the host's name.
    if names.any(|name| name.contains('@')) {
        return Err("store: bad PostgreSQL URL: write an @ in the password as %40".to_owned());
    }
    // A host's name says where to go only if no address says otherwise.
    let remote_address = config.get_hostaddrs().iter().find(|address| !address.is_loopback());
    let remote_address = remote_address.map(ToString::to_string);
    let remote_name = || config.get_hosts().iter().find_map(remote).map(str::to_owned);
    if let Some(host) = remote_address.or_else(remote_name)
        && mode != Some("disable")
    {
        return Err(format!(
            "store: host {host:?} is not this machine, and TLS to the database is not supported yet; add sslmode=disable to send passwords and rows in the clear"
        ));
    }
    config.ssl_mode(SslMode::Disable);
    if config.get_application_name().is_none() {
        config.application_name("ringprobe");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(STORE_CONNECT_MAX.as_duration());
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(STORE_DEADLINE.as_duration());
    }
    let shown = shown(&config);
    Ok(PostgresUrl { config, shown })
}

/// Whether this is spelled like the scheme of a URL (RFC 3986, section 3.1).
fn is_scheme(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.'))
}

/// The value of `sslmode` in the query, which tokio-postgres reports as `prefer` when it is absent, and as a
/// bad value when it is `verify-full`.
fn sslmode(text: &str) -> Option<&str> {
    let (_, query) = text.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("sslmode="))
}

/// The host's name, if it is another machine's.
fn remote(host: &Host) -> Option<&str> {
    match host {
        Host::Unix(_) => None,
        Host::Tcp(name) if name == "localhost" => None,
        Host::Tcp(name) => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let loopback = bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            (!loopback).then_some(name)
        }
    }
}

fn shown(config: &tokio_postgres::Config) -> String {
    let host = config.get_hosts().first().map_or_else(
        || config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
        |host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(directory) => directory.display().to_string(),
        },
    );
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let database = config.get_dbname().or_else(|| config.get_user()).unwrap_or("");
    format!("postgres://{user}{host}:{port}/{database}")
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

impl fmt::Display for StoreUrl {
    /// Without the password, and without the options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", Path::display(path)),
            Self::Postgres(url) => f.write_str(&url.shown),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for StoreUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreUrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<StoreUrl>().unwrap().to_string()
    }

    fn refused(text: &str) -> String {
        text.parse::<StoreUrl>().unwrap_err().to_string()
    }

    #[test]
    fn sqlite_paths() {
        for (text, path) in [
            ("sqlite:ringprobe.db", "ringprobe.db"),
            ("sqlite:/var/lib/r.db", "/var/lib/r.db"),
            ("sqlite:///var/lib/r.db", "/var/lib/r.db"),
            ("sqlite://r.db", "r.db"),
        ] {
            assert_eq!(text.parse(), Ok(StoreUrl::Sqlite(path.into())));
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let text = "postgres://ringprobe:s3cret@127.0.0.1:5433/metrics?connect_timeout=3";
        assert_eq!(shown(text), "postgres://ringprobe@127.0.0.1:5433/metrics");
        let url: StoreUrl = text.parse().unwrap();
        assert!(!format!("{url:?}").contains("s3cret"));
        for wrong in
            ["postgres://u:s3cret@h:notaport/d", "postgrse://u:s3cret@h/d", "postgres://u:s3cret@h/d?x=1"]
        {
            assert!(!refused(wrong).contains("s3cret"), "{}", refused(wrong));
        }
    }

    /// What libpq takes as a connection string, and a password that was not escaped, came back in the message.
    #[test]
    fn what_may_hold_a_password_is_not_repeated() {
        for wrong in [
            "host=localhost user=u password=s3cret dbname=d",
            "host=localhost password=s3cret:more",
            "u s3cret@h:5432",
            "postgres://u:p@s3cret@localhost/d",
            "s3cret",
        ] {
            assert!(!refused(wrong).contains("s3cret"), "{}", refused(wrong));
        }
    }

    /// An address hid behind a harmless name: the password went to another machine in the clear.
    #[test]
    fn an_address_beside_the_host_is_looked_at_too() {
        for text in ["postgres:///d?hostaddr=192.0.2.1", "postgres://localhost/d?hostaddr=192.0.2.1"] {
            assert!(refused(text).contains("\"192.0.2.1\" is not this machine"), "{}", refused(text));
        }
        assert!("postgres://db.example/d?hostaddr=192.0.2.1&sslmode=disable".parse::<StoreUrl>().is_ok());
        assert!("postgres:///d?hostaddr=127.0.0.1".parse::<StoreUrl>().is_ok());
    }

    #[test]
    fn what_is_refused_is_refused_in_one_clear_line() {
        for (text, part) in [
            ("ringprobe.db", "no scheme"),
            ("", "no scheme"),
            ("mysql://h/d", "unknown scheme \"mysql\""),
            ("sqlite:", "path of the file is missing"),
            ("sqlite::memory:", "a file is needed"),
            ("postgres://", "the host is missing"),
            ("postgres://localhost:x/d", "bad PostgreSQL URL"),
            ("postgres://localhost/d?sslmode=require", "not supported yet"),
            ("postgres://localhost/d?sslmode=verify-full", "not supported yet"),
            ("postgres://localhost/d?sslmode=maybe", "bad PostgreSQL URL"),
            ("postgres://db.example/d", "is not this machine"),
            ("postgres://db.example/d?sslmode=prefer", "is not this machine"),
        ] {
            let message = refused(text);
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn plaintext_needs_this_machine_or_a_decision() {
        for text in [
            "postgres://localhost/d",
            "postgresql://127.0.0.2/d?sslmode=prefer",
            "postgres://u@[::1]:5432/d",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/d",
            "postgres:///d?host=/var/run/postgresql",
            "postgres://db.example/d?sslmode=disable",
        ] {
            assert!(text.parse::<StoreUrl>().is_ok(), "{text}: {}", refused(text));
        }
    }
}
