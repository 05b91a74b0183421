//! Secrets: where they are ([`SecretRef`]), and for as long as they are needed what they are ([`Secret`]).
//!
//! The endpoint file, the table and every output hold references only. They are resolved where the probing is done,
//! when the endpoints are loaded, and the values go nowhere but into the request or the TLS session.
//!
//! In scope: the three kinds of reference, resolving those of an endpoint ([`Secrets::of`]), what a value may be
//! made of. Out of scope: the bytes on the wire, but for the value of `Authorization` (RFC 7617, RFC 6750).
//!
//! Invariant: no value is in a `Debug`, a `Display` or an error, and what held one is wiped when it is dropped. Text
//! that is no reference is not repeated either: it may be the secret itself.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Credentials, Endpoint, FieldError};

/// Longest secret: chains of private keys are a few KiB.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Longest reference, as text: `PATH_MAX`, and room for the kind.
pub const SECRET_REF_BYTES_MAX: usize = 4096;

/// The directory that systemd puts the credentials of a service in (systemd.exec(5), "CREDENTIALS").
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable.
    Variable(String),
    /// `file:PATH`: a file; a line break at its end does not count.
    File(String),
    /// `cred:NAME`: a credential of the systemd unit, a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// A secret, wiped when it is dropped. `Debug` and `Display` say that there is one.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// What [`SecretRef::resolve`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The value of an environment variable.
    Variable(&'a str),
    /// What a file holds, up to one byte more than [`SECRET_BYTES_MAX`].
    File(&'a Path),
}

impl FromStr for SecretRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > SECRET_REF_BYTES_MAX {
            return Err(format!("is {} bytes long; at most {SECRET_REF_BYTES_MAX} are accepted", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("contains a control character or line break".to_owned());
        }
        match text.split_once(':') {
            Some(("env", name)) => {
                let first =
                    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
                let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                match first && rest {
                    true => Ok(Self::Variable(name.to_owned())),
                    false => Err("names no environment variable (letters, digits and _)".to_owned()),
                }
            }
            Some(("file", "")) => Err("names no file".to_owned()),
            Some(("file", path)) => Ok(Self::File(path.to_owned())),
            Some(("cred", "" | "." | "..")) => Err("names no credential".to_owned()),
            // A name, so that it stays in its directory.
            Some(("cred", name)) if name.contains('/') => {
                Err("is not the name of a credential: it contains a slash".to_owned())
            }
            Some(("cred", name)) => Ok(Self::Credential(name.to_owned())),
            _ => Err("is no reference, and a secret itself is not accepted here; \
                      write \"env:NAME\", \"file:PATH\" or \"cred:NAME\""
                .to_owned()),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Credential(name) => write!(f, "cred:{name}"),
        }
    }
}

impl SecretRef {
    /// Resolves the reference; `read` is asked for what is outside of the process ([`from_system`]).
    ///
    /// # Errors
    /// A lower-case fragment that follows the reference: it is not there, cannot be read, is empty, or is longer
    /// than [`SECRET_BYTES_MAX`].
    pub fn resolve(&self, read: &impl Fn(Place<'_>) -> io::Result<Vec<u8>>) -> Result<Secret, String> {
        let value = match self {
            Self::Variable(name) => read(Place::Variable(name)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => "is not set".to_owned(),
                _ => format!("cannot be read: {error}"),
            })?,
            Self::File(path) => read_file(Path::new(path), read)?,
            Self::Credential(name) => {
                let directory = read(Place::Variable(CREDENTIALS_DIRECTORY)).map_err(|_unset| {
                    format!(
                        "is not there: {CREDENTIALS_DIRECTORY} is not set, so systemd passed no credentials"
                    )
                })?;
                let directory = String::from_utf8(directory)
                    .map_err(|_not_text| format!("cannot be read: {CREDENTIALS_DIRECTORY} is not UTF-8"))?;
                read_file(&PathBuf::from(directory).join(name), read)?
            }
        };
        let value = Secret::new(value);
        match value.0.len() {
            0 => Err("is empty".to_owned()),
            1..=SECRET_BYTES_MAX => Ok(value),
            _ => Err(format!("is longer than {SECRET_BYTES_MAX} bytes")),
        }
    }
}

fn read_file(path: &Path, read: &impl Fn(Place<'_>) -> io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    let mut value = read(Place::File(path)).map_err(|error| format!("cannot be read: {error}"))?;
    // Editors and `echo` end a file with a line break that nobody means.
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    Ok(value)
}

/// Reads from the process's environment and from files: the `read` of [`SecretRef::resolve`] that is no test's.
///
/// # Errors
/// What the system says; `NotFound` for a variable that is not set.
pub fn from_system(place: Place<'_>) -> io::Result<Vec<u8>> {
    match place {
        Place::Variable(name) => match std::env::var_os(name) {
            Some(value) => Ok(value.into_encoded_bytes()),
            None => Err(io::ErrorKind::NotFound.into()),
        },
        Place::File(path) => {
            let file = std::fs::File::open(path)?;
            // All at once: what a growing vector leaves behind would not be wiped.
            let mut value = Vec::with_capacity(SECRET_BYTES_MAX + 1);
            file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
            Ok(value)
        }
    }
}

impl Secret {
    /// Takes a value over.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value, for whom it is meant for.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The secrets of an endpoint, resolved. Equal [`super::Options`] have equal ones.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The whole value of `Authorization`: `Basic …` or `Bearer …`.
    pub authorization: Option<Secret>,
    /// Header fields, in the order of `secret_headers`.
    pub headers: Vec<(String, Secret)>,
    /// PEM.
    pub client_key: Option<Secret>,
}

impl Secrets {
    /// Resolves every reference of an endpoint.
    ///
    /// # Errors
    /// The first reference that is not there or whose value cannot be sent: the field (`basic_auth.password`,
    /// `secret_headers.X-Key`) and the reference, never a value.
    pub fn of(
        endpoint: &Endpoint,
        read: &impl Fn(Place<'_>) -> io::Result<Vec<u8>>,
    ) -> Result<Self, FieldError> {
        let options = &endpoint.options;
        let resolve = |field: &str, reference: &SecretRef, in_head: bool| {
            let checked = |secret: Secret| match in_head && !is_field_content(secret.expose()) {
                true => Err("contains a line break or other control character".to_owned()),
                false => Ok(secret),
            };
            let secret = reference.resolve(read).and_then(checked);
            secret.map_err(|message| FieldError::new(field.to_owned(), format!("{reference} {message}")))
        };
        let authorization = match &options.credentials {
            None => None,
            Some(Credentials::Basic { username, password }) => {
                Some(basic(username, &resolve("basic_auth.password", password, true)?))
            }
            Some(Credentials::Bearer(token)) => Some(bearer(&resolve("bearer", token, true)?)),
        };
        let headers = options.secret_headers.iter().map(|(name, reference)| {
            Ok((name.clone(), resolve(&format!("secret_headers.{name}"), reference, true)?))
        });
        let headers = headers.collect::<Result<_, _>>()?;
        let key = options.tls.client_key.as_ref();
        let client_key = key.map(|reference| resolve("tls.client_key", reference, false)).transpose()?;
        Ok(Self { authorization, headers, client_key })
    }
}

/// What a field's value may be made of (RFC 9110, section 5.5): anything but what ends the line, and NUL.
fn is_field_content(value: &[u8]) -> bool {
    !value.iter().any(|byte| (byte.is_ascii_control() && *byte != b'\t') || *byte == 0x7f)
}

/// RFC 7617: the user name holds no colon.
fn basic(username: &str, password: &Secret) -> Secret {
    let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + password.0.len()));
    pair.extend_from_slice(username.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(&password.0);
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    prefixed(b"Basic ", encoded.as_bytes())
}

/// RFC 6750, section 2.1.
fn bearer(token: &Secret) -> Secret {
    prefixed(b"Bearer ", &token.0)
}

fn prefixed(scheme: &[u8], credentials: &[u8]) -> Secret {
    Secret::new([scheme, credentials].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Draft, file, record};

    /// If this shows up anywhere, so would a password.
    const CANARY: &str = "canary-7d1f";

    fn shown(secret: &Secret) -> String {
        String::from_utf8(secret.expose().to_vec()).unwrap()
    }

    /// A machine on which every secret is the canary, or something near it.
    fn machine(place: Place<'_>) -> io::Result<Vec<u8>> {
        let text = match place {
            Place::Variable("KEY") => CANARY.to_owned(),
            Place::Variable("BREAK") => format!("{CANARY}\r\nX: y"),
            Place::Variable("EMPTY") => String::new(),
            Place::Variable("LONG") => CANARY.repeat(SECRET_BYTES_MAX),
            Place::Variable(CREDENTIALS_DIRECTORY) => "/run/credentials/ringprobe.service".to_owned(),
            Place::Variable(_) => return Err(io::ErrorKind::NotFound.into()),
            Place::File(path) => match path.to_str().unwrap() {
                "/run/key" => format!("{CANARY}\n"),
                "/run/crlf" => format!("{CANARY}\r\n"),
                "/run/two" => format!("{CANARY}\n\n"),
                "/run/credentials/ringprobe.service/key" => format!("{CANARY}!"),
                _ => return Err(io::Error::from_raw_os_error(13)),
            },
        };
        Ok(text.into_bytes())
    }

    #[test]
    fn references_are_read_as_they_are_shown() {
        for text in ["env:A", "env:_a9", "file:/run/x", "file:relative path", "file:a:b", "cred:a-b.c"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
        for (text, reason) in [
            ("", "is no reference"),
            (CANARY, "write \"env:NAME\""),
            ("vault:canary-7d1f", "is no reference"),
            ("ENV:canary-7d1f", "is no reference"),
            ("env:", "no environment variable"),
            ("env:9canary-7d1f", "no environment variable"),
            ("env:canary-7d1f", "no environment variable"),
            ("file:", "no file"),
            ("file:/canary-7d1f\n", "control character"),
            ("cred:", "no credential"),
            ("cred:..", "no credential"),
            ("cred:../canary-7d1f", "slash"),
            (&format!("file:{}", CANARY.repeat(1000)), "bytes long"),
        ] {
            let error = text.parse::<SecretRef>().unwrap_err();
            assert!(error.contains(reason) && !error.contains(CANARY), "{error}");
        }
    }

    #[test]
    fn each_kind_is_resolved() {
        let resolve = |text: &str| text.parse::<SecretRef>().unwrap().resolve(&machine);
        for reference in ["env:KEY", "file:/run/key", "file:/run/crlf"] {
            assert_eq!(shown(&resolve(reference).unwrap()), CANARY, "{reference}");
        }
        assert_eq!(shown(&resolve("file:/run/two").unwrap()), format!("{CANARY}\n"), "one line break only");
        assert_eq!(shown(&resolve("cred:key").unwrap()), format!("{CANARY}!"));
        for (reference, reason) in [
            ("env:NONE", "is not set"),
            ("env:EMPTY", "is empty"),
            ("env:LONG", "is longer than 65536 bytes"),
            ("file:/none", "cannot be read: Permission denied (os error 13)"),
            ("cred:none", "cannot be read: Permission denied (os error 13)"),
        ] {
            assert_eq!(resolve(reference).unwrap_err(), reason, "{reference}");
        }
        let bare = |_: Place<'_>| Err(io::ErrorKind::NotFound.into());
        let error = SecretRef::Credential("key".to_owned()).resolve(&bare).unwrap_err();
        assert!(error.contains("CREDENTIALS_DIRECTORY is not set"), "{error}");
    }

    fn endpoint(fields: &str) -> Endpoint {
        let text = format!("[[endpoint]]\nname = 'shop'\nurl = 'https://a/'\n{fields}");
        file::parse(&text, "t.toml").unwrap().remove(0)
    }

    const FIELDS: &str = "secret_headers = { X-Key = 'env:KEY', X-Other = 'cred:key' }\n\
        basic_auth = { username = 'Aladdin', password = 'file:/run/key' }\n\
        tls = { client_cert = '/run/cert', client_key = 'file:/run/two' }";

    #[test]
    fn an_endpoint_has_them_all() {
        let secrets = Secrets::of(&endpoint(FIELDS), &machine).unwrap();
        let encoded = STANDARD.encode(format!("Aladdin:{CANARY}"));
        assert_eq!(shown(secrets.authorization.as_ref().unwrap()), format!("Basic {encoded}"));
        let headers: Vec<_> =
            secrets.headers.iter().map(|(name, secret)| (name.as_str(), shown(secret))).collect();
        assert_eq!(headers, [("X-Key", CANARY.to_owned()), ("X-Other", format!("{CANARY}!"))]);
        assert_eq!(shown(&secrets.client_key.unwrap()), format!("{CANARY}\n"));

        let secrets = Secrets::of(&endpoint("bearer = 'env:KEY'"), &machine).unwrap();
        assert_eq!(shown(&secrets.authorization.unwrap()), format!("Bearer {CANARY}"));
        let none = Secrets::of(&endpoint(""), &machine).unwrap();
        assert!(none.authorization.is_none() && none.headers.is_empty() && none.client_key.is_none());
    }

    #[test]
    fn basic_credentials_are_those_of_the_rfc() {
        // The example of RFC 7617, section 2.
        let secret = basic("Aladdin", &Secret::new(b"open sesame".to_vec()));
        assert_eq!(shown(&secret), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn an_error_names_field_and_reference() {
        for (fields, expected) in [
            ("bearer = 'env:NONE'", "bearer: env:NONE is not set"),
            (
                "basic_auth = { username = 'u', password = 'env:EMPTY' }",
                "basic_auth.password: env:EMPTY is empty",
            ),
            (
                "secret_headers = { X-Key = 'env:BREAK' }",
                "secret_headers.X-Key: env:BREAK contains a line break or other control character",
            ),
            (
                "tls = { client_cert = '/c', client_key = '/none' }",
                "tls.client_key: file:/none cannot be read: Permission denied (os error 13)",
            ),
        ] {
            let error = Secrets::of(&endpoint(fields), &machine).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(!format!("{error:?}").contains(CANARY));
        }
    }

    /// The planted canary: every way in which an endpoint and its secrets are shown.
    #[test]
    fn a_secret_is_shown_nowhere() {
        let endpoint = endpoint(FIELDS);
        let secrets = Secrets::of(&endpoint, &machine).unwrap();
        let one = secrets.authorization.clone().unwrap();
        let encoded = STANDARD.encode(format!("Aladdin:{CANARY}"));
        assert!(shown(&one).contains(&encoded), "it is planted");
        let refused: Vec<String> = [
            format!("bearer = '{CANARY}'"),
            format!("basic_auth = {{ username = 'u', password = '{CANARY}' }}"),
            format!("basic_auth = {{ username = 'u', password = 'env:{CANARY}' }}"),
            format!("secret_headers = {{ X-Key = '{CANARY}' }}"),
            format!("tls = {{ client_cert = '/c', client_key = \"{CANARY}\\n\" }}"),
            format!("headers = {{ Authorization = \"Bearer {CANARY}\\n\" }}"),
        ]
        .into_iter()
        .map(|field| {
            let text = format!("[[endpoint]]\nname = 'shop'\nurl = 'https://a/'\n{field}");
            file::parse(&text, "t.toml").unwrap_err().to_string()
        })
        .collect();
        let url = Draft::of_url(&format!("https://user:{CANARY}@a/")).validate(&Draft::default());
        for text in [
            format!("{endpoint:?} {secrets:?} {secrets:#?}"),
            format!("{one} {one:?} {one:#?}"),
            file::write(std::slice::from_ref(&endpoint)),
            record::object(&endpoint).to_string(),
            url.unwrap_err().to_string(),
            refused.join("\n"),
        ] {
            assert!(!text.contains(CANARY) && !text.contains(&encoded), "{text}");
        }
        assert!(file::write(&[endpoint]).contains("file:/run/key"), "the reference is shown");
    }
}
