//! An endpoint as a record: the columns of the table `endpoints`, as one JSON object.
//!
//! Both stores take and give this form, and `endpoints list --json` prints it: so a column is named here, in the two
//! migrations, and nowhere else. Times are `_ms` and `_s`, sizes `_bytes`; header fields are pairs of name and value,
//! because their order counts and a name may come twice; what has no value is null.
//!
//! Out of scope: SQL. What a value may be is [`Draft::validate`]'s business, so that a row that somebody edited is
//! held to the same rules as a file.
//!
//! Invariant: `draft(object(endpoint))` validates to `endpoint`, but for a body that is not text; and [`COLUMNS`]
//! are the object's keys in order.

use serde_json::{Map, Value};

use super::draft::TlsDraft;
use super::{Credentials, Draft, Endpoint, FieldError, FieldRule, Options, SecretRef, Tls};
use crate::clock::Micros;

/// Of which type a column is; each store has its own word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// An IP address.
    Address,
    /// 16 bits.
    Small,
    /// 32 bits.
    Integer,
    /// 64 bits.
    Big,
    /// True or false.
    Boolean,
    /// A list of texts.
    Texts,
    /// Structured, as JSON.
    Json,
    /// Bytes; in the object, text if they are any and UTF-8, else null.
    Bytes,
}

/// The columns that an endpoint fills, in order.
pub const COLUMNS: [(&str, Kind); 42] = [
    ("name", Kind::Text),
    ("url", Kind::Text),
    ("interval_ms", Kind::Integer),
    ("enabled", Kind::Boolean),
    ("priority", Kind::Small),
    ("method", Kind::Text),
    ("headers", Kind::Json),
    ("secret_headers", Kind::Json),
    ("body", Kind::Bytes),
    ("basic_auth", Kind::Json),
    ("bearer", Kind::Text),
    ("user_agent", Kind::Text),
    ("accept_encoding", Kind::Texts),
    ("expect", Kind::Text),
    ("expect_status", Kind::Texts),
    ("expect_headers", Kind::Json),
    ("expect_version", Kind::Text),
    ("expect_within_ms", Kind::Integer),
    ("body_match", Kind::Texts),
    ("body_forbid", Kind::Texts),
    ("body_limit_bytes", Kind::Big),
    ("body_stop", Kind::Boolean),
    ("charset", Kind::Text),
    ("cert_expires_within_s", Kind::Integer),
    ("redirects", Kind::Small),
    ("redirect_downgrade", Kind::Boolean),
    ("timeout_ms", Kind::Integer),
    ("resolve_timeout_ms", Kind::Integer),
    ("connect_timeout_ms", Kind::Integer),
    ("tls_timeout_ms", Kind::Integer),
    ("ttfb_timeout_ms", Kind::Integer),
    ("idle_timeout_ms", Kind::Integer),
    ("retries", Kind::Small),
    ("dns", Kind::Text),
    ("expand", Kind::Text),
    ("family", Kind::Text),
    ("address", Kind::Address),
    ("source", Kind::Text),
    ("connection", Kind::Text),
    ("close", Kind::Text),
    ("tls", Kind::Json),
    ("tags", Kind::Json),
];

/// The record of an endpoint. No body, and one that is not text, are null in it.
#[must_use]
pub fn object(endpoint: &Endpoint) -> Value {
    // Destructured, so that a new field cannot be forgotten here.
    let Endpoint { name, url: _, interval, tags, options } = endpoint;
    let Options {
        enabled,
        priority,
        method,
        headers,
        secret_headers,
        body,
        credentials,
        user_agent,
        accept_encoding,
        expect,
        expect_status,
        expect_headers,
        expect_version,
        expect_within,
        body_match,
        body_forbid,
        body_limit_bytes,
        body_stop,
        charset,
        cert_expires_within,
        redirects,
        redirect_downgrade,
        timeout,
        resolve_timeout,
        connect_timeout,
        tls_timeout,
        ttfb_timeout,
        idle_timeout,
        retries,
        dns,
        expand,
        family,
        address,
        source,
        connection,
        close,
        tls,
    } = &**options;
    let millis = |span: Micros| span.0 / 1_000;
    let text = |value: &dyn ToString| Value::from(value.to_string());
    let mut basic_auth = Value::Null;
    let mut bearer = Value::Null;
    match credentials {
        Some(Credentials::Basic { username, password }) => {
            basic_auth = serde_json::json!({ "username": username, "password": password.to_string() });
        }
        Some(Credentials::Bearer(reference)) => bearer = text(reference),
        None => {}
    }
    let tags: Map<_, _> = tags.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let values: [Value; COLUMNS.len()] = [
        name.as_str().into(),
        endpoint.url_text().into(),
        millis(*interval).into(),
        (*enabled).into(),
        (*priority).into(),
        text(method),
        pairs(headers, |value| value.as_str().into()),
        pairs(secret_headers, |reference| text(reference)),
        str::from_utf8(body).ok().filter(|text| !text.is_empty()).into(),
        basic_auth,
        bearer,
        user_agent.as_deref().into(),
        accept_encoding.iter().map(|coding| coding.name()).collect(),
        expect.name().into(),
        expect_status.entries().collect(),
        pairs(expect_headers, |rule| match rule {
            FieldRule::Present => true.into(),
            FieldRule::Absent => false.into(),
            FieldRule::Matches(pattern) => pattern.as_str().into(),
        }),
        expect_version.map(|version| version.name()).into(),
        expect_within.map(millis).into(),
        body_match.as_slice().into(),
        body_forbid.as_slice().into(),
        (*body_limit_bytes).into(),
        (*body_stop).into(),
        charset.name().into(),
        cert_expires_within.map(|span| millis(span) / 1_000).into(),
        (*redirects).into(),
        (*redirect_downgrade).into(),
        millis(*timeout).into(),
        resolve_timeout.map(millis).into(),
        connect_timeout.map(millis).into(),
        tls_timeout.map(millis).into(),
        ttfb_timeout.map(millis).into(),
        idle_timeout.map(millis).into(),
        (*retries).into(),
        dns.name().into(),
        expand.name().into(),
        family.name().into(),
        address.map(|address| address.to_string()).into(),
        source.as_ref().map(ToString::to_string).into(),
        connection.name().into(),
        close.name().into(),
        tls_object(tls),
        tags.into(),
    ];
    COLUMNS.iter().map(|(name, _)| (*name).to_owned()).zip(values).collect::<Map<_, _>>().into()
}

/// The draft of a record. A column that is missing or null is an open field.
///
/// # Errors
/// The first column that is of another type than it has to be.
pub fn draft(record: Value) -> Result<Draft, FieldError> {
    let Value::Object(object) = record else {
        return Err(FieldError::new("endpoint", "is not an object"));
    };
    let mut record = Record { object };
    let Some(basic_auth) = record.of("basic_auth", object_of)? else {
        return Ok(Draft { basic_auth: None, ..rest(&mut record)? });
    };
    let mut basic_auth = Record { object: basic_auth };
    let mut text_of_basic_auth = |key| {
        let missing = || FieldError::new("basic_auth", format!("{key} is missing"));
        let found = basic_auth.object.remove(key).ok_or_else(missing)?;
        text_of(found).map_err(|message| FieldError::new("basic_auth", format!("{key} {message}")))
    };
    let basic_auth = (text_of_basic_auth("username")?, text_of_basic_auth("password")?);
    Ok(Draft { basic_auth: Some(basic_auth), ..rest(&mut record)? })
}

fn rest(record: &mut Record) -> Result<Draft, FieldError> {
    let millis = |value| Ok(format!("{}ms", whole(value)?));
    Ok(Draft {
        name: record.of("name", text_of)?,
        url: record.of("url", text_of)?,
        interval: record.of("interval_ms", millis)?,
        enabled: record.of("enabled", truth)?,
        priority: record.of("priority", whole)?,
        method: record.of("method", text_of)?,
        headers: record.of("headers", |value| pairs_of(value, text_of))?.unwrap_or_default(),
        secret_headers: record.of("secret_headers", |value| pairs_of(value, text_of))?.unwrap_or_default(),
        body: record.of("body", text_of)?.map(String::into_bytes),
        basic_auth: None,
        bearer: record.of("bearer", text_of)?,
        user_agent: record.of("user_agent", text_of)?,
        accept_encoding: record.of("accept_encoding", texts)?,
        expect: record.of("expect", text_of)?,
        expect_status: record.of("expect_status", texts)?,
        expect_headers: record.of("expect_headers", |value| pairs_of(value, rule))?.unwrap_or_default(),
        expect_version: record.of("expect_version", text_of)?,
        expect_within: record.of("expect_within_ms", millis)?,
        body_match: record.of("body_match", texts)?,
        body_forbid: record.of("body_forbid", texts)?,
        body_limit: record.of("body_limit_bytes", |value| Ok(whole(value)?.to_string()))?,
        body_stop: record.of("body_stop", truth)?,
        charset: record.of("charset", text_of)?,
        cert_expires_within: record.of("cert_expires_within_s", |value| Ok(format!("{}s", whole(value)?)))?,
        redirects: record.of("redirects", whole)?,
        redirect_downgrade: record.of("redirect_downgrade", truth)?,
        timeout: record.of("timeout_ms", millis)?,
        resolve_timeout: record.of("resolve_timeout_ms", millis)?,
        connect_timeout: record.of("connect_timeout_ms", millis)?,
        tls_timeout: record.of("tls_timeout_ms", millis)?,
        ttfb_timeout: record.of("ttfb_timeout_ms", millis)?,
        idle_timeout: record.of("idle_timeout_ms", millis)?,
        retries: record.of("retries", whole)?,
        dns: record.of("dns", text_of)?,
        expand: record.of("expand", text_of)?,
        family: record.of("family", text_of)?,
        address: record.of("address", text_of)?,
        source: record.of("source", text_of)?,
        connection: record.of("connection", text_of)?,
        close: record.of("close", text_of)?,
        tls: record.of("tls", tls_of)?.unwrap_or_default(),
        tags: record.of("tags", entries)?.unwrap_or_default(),
    })
}

fn pairs<Item>(fields: &[(String, Item)], value: impl Fn(&Item) -> Value) -> Value {
    fields.iter().map(|(name, item)| Value::from(vec![name.as_str().into(), value(item)])).collect()
}

/// Null if all is as by default; else what is not.
fn tls_object(tls: &Tls) -> Value {
    let Tls { ca_file, client_cert, client_key, server_name, insecure, min_version, max_version, resumption } =
        tls;
    let mut object = Map::new();
    for (key, value) in [
        ("ca_file", ca_file.as_deref().map(Value::from)),
        ("client_cert", client_cert.as_deref().map(Value::from)),
        ("client_key", client_key.as_ref().map(|key: &SecretRef| key.to_string().into())),
        ("server_name", server_name.as_deref().map(Value::from)),
        ("insecure", insecure.then(|| true.into())),
        ("min_version", min_version.map(|version| version.name().into())),
        ("max_version", max_version.map(|version| version.name().into())),
        ("resumption", resumption.then(|| true.into())),
    ] {
        if let Some(value) = value {
            object.insert(key.to_owned(), value);
        }
    }
    if object.is_empty() { Value::Null } else { object.into() }
}

/// Columns that are taken out one by one.
struct Record {
    object: Map<String, Value>,
}

impl Record {
    fn of<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<Option<T>, FieldError> {
        match self.object.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => parse(value).map(Some).map_err(|message| FieldError::new(field, message)),
        }
    }
}

fn text_of(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("is {}, not text", kind(&other))),
    }
}

fn whole(value: Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("is {}, not a whole number", kind(&value)))
}

/// SQLite has no booleans.
fn truth(value: Value) -> Result<bool, String> {
    match (value.as_bool(), value.as_i64()) {
        (Some(truth), _) => Ok(truth),
        (None, Some(0)) => Ok(false),
        (None, Some(1)) => Ok(true),
        _ => Err(format!("is {}, neither true nor false", kind(&value))),
    }
}

fn list(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(format!("is {}, not a list", kind(&other))),
    }
}

fn texts(value: Value) -> Result<Vec<String>, String> {
    list(value)?
        .into_iter()
        .map(text_of)
        .collect::<Result<_, _>>()
        .map_err(|reason| format!("an entry {reason}"))
}

fn object_of(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(format!("is {}, not an object", kind(&other))),
    }
}

fn entries(value: Value) -> Result<Vec<(String, String)>, String> {
    let entry = |(key, value)| match text_of(value) {
        Ok(value) => Ok((key, value)),
        Err(reason) => Err(format!("an entry {reason}")),
    };
    object_of(value)?.into_iter().map(entry).collect()
}

fn pairs_of<T>(value: Value, item: impl Fn(Value) -> Result<T, String>) -> Result<Vec<(String, T)>, String> {
    let pair = |value: Value| match <[Value; 2]>::try_from(list(value)?) {
        Ok([name, value]) => Ok((text_of(name)?, item(value)?)),
        Err(_other) => Err("is no pair".to_owned()),
    };
    let pairs = list(value)?.into_iter().map(pair).collect::<Result<_, String>>();
    pairs.map_err(|reason| format!("an entry {reason}; write [[\"Name\", \"value\"], …]"))
}

fn rule(value: Value) -> Result<FieldRule, String> {
    match value {
        Value::String(pattern) => Ok(FieldRule::Matches(pattern)),
        Value::Bool(true) => Ok(FieldRule::Present),
        Value::Bool(false) => Ok(FieldRule::Absent),
        other => Err(format!("is {}, neither a pattern nor true nor false", kind(&other))),
    }
}

fn tls_of(value: Value) -> Result<TlsDraft, String> {
    let mut tls = TlsDraft::default();
    for (key, value) in object_of(value)? {
        let in_key = |reason: String| format!("{key:?} {reason}");
        let text = |value| text_of(value).map(Some).map_err(in_key);
        let truth = |value| truth(value).map(Some).map_err(in_key);
        match key.as_str() {
            "ca_file" => tls.ca_file = text(value)?,
            "client_cert" => tls.client_cert = text(value)?,
            "client_key" => tls.client_key = text(value)?,
            "server_name" => tls.server_name = text(value)?,
            "insecure" => tls.insecure = truth(value)?,
            "min_version" => tls.min_version = text(value)?,
            "max_version" => tls.max_version = text(value)?,
            "resumption" => tls.resumption = truth(value)?,
            _ => return Err(format!("has no {key:?}")),
        }
    }
    Ok(tls)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::file;

    #[test]
    fn a_record_has_the_columns_in_order_and_is_its_endpoint_again() {
        let full = include_str!("../../tests/data/endpoint_file_full.toml");
        for endpoint in file::parse_in(full, "t.toml", &mut |_path| Ok(b"from a file".to_vec())).unwrap() {
            let record = object(&endpoint);
            let keys: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, COLUMNS.map(|(name, _)| name));
            let draft = Draft { body: Some(endpoint.options.body.clone()), ..draft(record).unwrap() };
            assert_eq!(draft.validate(&Draft::default()), Ok(endpoint));
        }
    }

    #[test]
    fn a_column_of_another_type_is_named() {
        let good = || object(&Draft::of_url("https://a/").validate(&Draft::default()).unwrap());
        let check = |column: &str, value: Value, expected: &str| {
            let mut record = good();
            record[column] = value;
            assert_eq!(draft(record).unwrap_err().to_string(), format!("{column}: {expected}"));
        };
        let json = |text: &str| serde_json::from_str(text).unwrap();
        let hint = "write [[\"Name\", \"value\"], …]";
        check("url", json("1"), "is a number, not text");
        check("interval_ms", json("1.5"), "is a number, not a whole number");
        check("enabled", json("2"), "is a number, neither true nor false");
        check("expect_status", json("[200]"), "an entry is a number, not text");
        check("headers", json("{}"), "is an object, not a list");
        check("headers", json("[[\"A\"]]"), &format!("an entry is no pair; {hint}"));
        check("headers", json("[[\"A\", 1]]"), &format!("an entry is a number, not text; {hint}"));
        let neither = "an entry is null, neither a pattern nor true nor false";
        check("expect_headers", json("[[\"A\", null]]"), &format!("{neither}; {hint}"));
        check("basic_auth", json("{\"username\": \"u\"}"), "password is missing");
        check(
            "basic_auth",
            json("{\"username\": 1, \"password\": \"env:A\"}"),
            "username is a number, not text",
        );
        check("tls", json("{\"insecure\": \"no\"}"), "\"insecure\" is text, neither true nor false");
        check("tls", json("{\"ca\": \"x\"}"), "has no \"ca\"");
        check("tags", json("{\"a\": 1}"), "an entry is a number, not text");
        assert!(draft(json("[]")).is_err());
    }
}
