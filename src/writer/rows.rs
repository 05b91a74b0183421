//! Endpoints as rows: one JSON object each ([`record`]), which both stores are given and asked for, and back through
//! [`Draft::validate`], the one door every endpoint comes in by.
//!
//! The body travels in hexadecimal digits, because JSON holds no bytes.
//!
//! Out of scope: SQL (`postgres.rs`, `sqlite.rs`), which is made from [`record::COLUMNS`].

use serde_json::{Map, Value};

use super::StoreError;
use crate::config::UPSERT_ROWS_MAX;
use crate::endpoint::{Draft, Endpoint, Interner, StoredEndpoint, record};
use crate::sample::EndpointId;

/// Rows of one statement, as text: what exceeds it (bodies) is stored in several.
const UPSERT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The values of an endpoint, in the order of the columns; that of the body may be null where it is not empty.
pub(super) fn values(endpoint: &Endpoint) -> impl Iterator<Item = Value> {
    let record = match record::object(endpoint) {
        Value::Object(record) => record,
        _ => Map::new(),
    };
    record.into_values()
}

/// The row of an endpoint.
pub(super) fn row(endpoint: &Endpoint) -> String {
    let mut record = record::object(endpoint);
    record["body"] = hex(&endpoint.options.body).into();
    record.to_string()
}

/// The rows of endpoints, as JSON arrays of bounded size.
pub(super) fn batches(endpoints: &[Endpoint]) -> impl Iterator<Item = String> + '_ {
    let mut rest = endpoints.iter().peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let (mut batch, mut rows) = ("[".to_owned(), 0);
        while rows < UPSERT_ROWS_MAX
            && batch.len() < UPSERT_BYTES_MAX
            && let Some(endpoint) = rest.next()
        {
            if rows > 0 {
                batch.push(',');
            }
            batch.push_str(&row(endpoint));
            rows += 1;
        }
        batch.push(']');
        Some(batch)
    })
}

/// The endpoint of a row that somebody may have edited by hand: the error names it and the column. Endpoints read
/// with the same `interner` share what they have in common.
pub(super) fn endpoint(id: i32, row: &str, interner: &mut Interner) -> Result<StoredEndpoint, StoreError> {
    let mut record: Value = serde_json::from_str(row).map_err(|error| StoreError::Endpoint {
        name: format!("endpoint_id {id}"),
        message: format!("is not a record: {error}"),
    })?;
    let name = record["name"].as_str().unwrap_or_default().to_owned();
    let fail = |message: String| StoreError::Endpoint { name: name.clone(), message };
    if EndpointId(id).is_canary() {
        return Err(fail(format!("endpoint_id: {id} is below 0")));
    }
    let body = record["body"].take();
    let body = unhex(body.as_str().unwrap_or_default())
        .ok_or_else(|| fail("body: is not hexadecimal".to_owned()))?;
    let draft = record::draft(record).map_err(|error| fail(error.to_string()))?;
    let draft = Draft { body: Some(body), ..draft };
    let mut endpoint = draft.validate(&Draft::default()).map_err(|error| fail(error.to_string()))?;
    interner.intern(&mut endpoint);
    Ok(StoredEndpoint { id: EndpointId(id), endpoint })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    let byte = |pair: &[u32; 2]| u8::try_from(pair[0] * 16 + pair[1]).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// The first name that is given twice, if any: an upsert could only guess which is meant.
pub(super) fn check_names(endpoints: &[Endpoint]) -> Result<(), StoreError> {
    let mut names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(StoreError::Duplicate { name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn draft(name: &str) -> Draft {
        Draft {
            name: Some(name.to_owned()),
            url: Some("https://[::1]:81/x?y=1".to_owned()),
            headers: vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "\"é\"".to_owned())],
            body: Some(b"{}\0\xff".to_vec()),
            ..Draft::default()
        }
    }

    fn made(name: &str) -> Endpoint {
        draft(name).validate(&Draft::default()).unwrap()
    }

    #[test]
    fn a_row_is_its_endpoint_again() {
        let made = made("a \"b\"");
        let stored = endpoint(7, &row(&made), &mut Interner::default()).unwrap();
        assert_eq!(stored, StoredEndpoint { id: EndpointId(7), endpoint: made });
    }

    #[test]
    fn an_edited_row_is_refused_by_name_and_column() {
        let check = |column: &str, value: Value, expected: &str| {
            let mut record: Value = serde_json::from_str(&row(&made("a \"b\""))).unwrap();
            record[column] = value;
            let refused = endpoint(1, &record.to_string(), &mut Interner::default());
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("a \\\"b\\\"") && message.contains(expected), "{message}");
        };
        check("url", "ftp://x/".into(), "url: ");
        check("headers", vec![1].into(), "headers: ");
        check("interval_ms", 1.into(), "interval: ");
        check("body", "abc".into(), "body: ");
        check("body", "\u{20ac}0".into(), "body: ");
        check("redirects", 21.into(), "redirects: ");
        assert!(endpoint(1, "{", &mut Interner::default()).is_err());
    }

    #[test]
    fn what_rows_have_in_common_is_held_once() {
        let mut interner = Interner::default();
        let rows = ["a", "b", "c"].map(|name| row(&made(name)));
        let read = rows.map(|row| endpoint(1, &row, &mut interner).unwrap().endpoint);
        assert!(read.windows(2).all(|pair| Arc::ptr_eq(&pair[0].options, &pair[1].options)));
        assert_eq!(interner.len(), 1);
    }

    #[test]
    fn batches_are_bounded_and_hold_every_row_once() {
        let endpoints: Vec<Endpoint> = (0..2 * UPSERT_ROWS_MAX + 1).map(|n| made(&n.to_string())).collect();
        let rows = |batch: &String| serde_json::from_str::<Vec<Value>>(batch).unwrap();
        let names = |batches: &[String]| -> Vec<String> {
            let names = batches.iter().flat_map(&rows).map(|row| row["name"].as_str().unwrap().to_owned());
            names.collect()
        };
        let found: Vec<String> = batches(&endpoints).collect();
        assert_eq!(found.iter().map(|batch| rows(batch).len()).max(), Some(UPSERT_ROWS_MAX));
        assert_eq!(names(&found), endpoints.iter().map(|endpoint| endpoint.name.clone()).collect::<Vec<_>>());
        let large = |name: &str| Draft { body: Some(vec![b'x'; 1_000_000]), ..draft(name) };
        let large: Vec<Endpoint> =
            ('a'..='z').map(|name| large(&name.to_string()).validate(&Draft::default()).unwrap()).collect();
        let found: Vec<String> = batches(&large).collect();
        assert!(found.iter().all(|batch| batch.len() < UPSERT_BYTES_MAX + 2_100_000));
        assert_eq!(names(&found).len(), 26);
        assert_eq!(batches(&[]).count(), 0);
    }
}
