//! Endpoints as rows: the same twelve columns in both stores, and back through [`Draft::validate`], the one
//! door every endpoint comes in by.
//!
//! Out of scope: SQL, but for the query that reads them. Arrays and objects travel as text here (JSON), because
//! that is what both stores can be handed and asked for.

use serde_json::{Map, Value};

use super::StoreError;
use crate::endpoint::{Draft, Endpoint, StoredEndpoint};
use crate::sample::EndpointId;

/// The columns of `endpoints` that an [`Endpoint`] fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointRow {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) address: Option<String>,
    pub(super) method: String,
    /// `[["Name","value"],…]`
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
    /// `["200-299","304"]`
    pub(super) expect_status: String,
    pub(super) interval_ms: i32,
    pub(super) timeout_ms: i32,
    pub(super) connection: String,
    /// `{"team":"shop"}`
    pub(super) tags: String,
    pub(super) enabled: bool,
}

impl EndpointRow {
    /// The row of an endpoint.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let headers = endpoint.headers.iter().map(|(name, value)| Value::from(vec![name.as_str(), value]));
        let tags: Map<_, _> =
            endpoint.tags.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
        let ms = |us: u64| i32::try_from(us / 1_000).unwrap_or(i32::MAX);
        Self {
            name: endpoint.name.clone(),
            url: endpoint.url.as_str().to_owned(),
            address: endpoint.address.map(|address| address.to_string()),
            method: endpoint.method.as_str().to_owned(),
            headers: Value::Array(headers.collect()).to_string(),
            body: endpoint.body.clone(),
            expect_status: Value::from(endpoint.expect_status.entries().collect::<Vec<_>>()).to_string(),
            interval_ms: ms(endpoint.interval.0),
            timeout_ms: ms(endpoint.timeout.0),
            connection: endpoint.connection.name().to_owned(),
            tags: Value::Object(tags).to_string(),
            enabled: endpoint.enabled,
        }
    }

    /// The endpoint of a row that somebody may have edited by hand: the error names it and the column.
    pub(super) fn endpoint(self, id: i32, unsupported: Option<String>) -> Result<StoredEndpoint, StoreError> {
        let name = self.name.clone();
        let fail = |message: String| StoreError::Endpoint { name: name.clone(), message };
        if let Some(column) = unsupported {
            return Err(fail(format!("{column}: not supported by this version")));
        }
        let json = |column: &str, text: &str| {
            serde_json::from_str::<Value>(text).map_err(|error| fail(format!("{column}: {error}")))
        };
        let text = |column: &str, value: &Value| {
            value.as_str().map(str::to_owned).ok_or_else(|| fail(format!("{column}: {value} is not text")))
        };
        let mut headers = Vec::new();
        for pair in json("headers", &self.headers)?.as_array().into_iter().flatten() {
            match pair.as_array().map(Vec::as_slice) {
                Some([name, value]) => headers.push((text("headers", name)?, text("headers", value)?)),
                _ => return Err(fail(format!("headers: {pair} is not a pair of name and value"))),
            }
        }
        let mut tags = Vec::new();
        for (key, value) in json("tags", &self.tags)?.as_object().into_iter().flatten() {
            tags.push((key.clone(), text("tags", value)?));
        }
        let mut expect_status = Vec::new();
        for entry in json("expect_status", &self.expect_status)?.as_array().into_iter().flatten() {
            expect_status.push(text("expect_status", entry)?);
        }
        let draft = Draft {
            name: Some(self.name),
            url: Some(self.url),
            address: self.address,
            method: Some(self.method),
            headers,
            body: Some(self.body),
            expect_status: Some(expect_status),
            interval: Some(format!("{}ms", self.interval_ms)),
            timeout: Some(format!("{}ms", self.timeout_ms)),
            connection: Some(self.connection),
            tags,
            enabled: Some(self.enabled),
        };
        let endpoint = draft.validate(&Draft::default()).map_err(|error| fail(error.to_string()))?;
        Ok(StoredEndpoint { id: EndpointId(id), endpoint })
    }
}

/// The query for all endpoints: `columns`, in the store's own words, and last the column by which a row asks for
/// what this version cannot do, or null. Arrays are empty in either store's way of writing it.
pub(super) fn select_endpoints(columns: &str) -> String {
    format!(
        "SELECT {columns},
            CASE WHEN auth_ref IS NOT NULL THEN 'auth_ref'
                WHEN CAST(body_match AS text) NOT IN ('{{}}', '[]') THEN 'body_match'
                WHEN CAST(body_forbid AS text) NOT IN ('{{}}', '[]') THEN 'body_forbid'
                WHEN resolve_timeout_ms IS NOT NULL THEN 'resolve_timeout_ms'
                WHEN connect_timeout_ms IS NOT NULL THEN 'connect_timeout_ms'
                WHEN tls_timeout_ms IS NOT NULL THEN 'tls_timeout_ms'
                WHEN processing_timeout_ms IS NOT NULL THEN 'processing_timeout_ms'
                WHEN transfer_timeout_ms IS NOT NULL THEN 'transfer_timeout_ms'
                WHEN redirects <> 0 THEN 'redirects'
                WHEN tls IS NOT NULL THEN 'tls'
            END
        FROM endpoints ORDER BY endpoint_id"
    )
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
    use super::*;

    fn endpoint() -> Endpoint {
        let draft = Draft {
            name: Some("a \"b\"".to_owned()),
            url: Some("http://[::1]:81/x?y=1".to_owned()),
            address: Some("10.0.0.1".to_owned()),
            method: Some("POST".to_owned()),
            headers: vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "\"é\"".to_owned())],
            body: Some(b"{}".to_vec()),
            expect_status: Some(vec!["200-299".to_owned(), "304".to_owned()]),
            interval: Some("5s".to_owned()),
            timeout: Some("1500ms".to_owned()),
            connection: Some("reuse".to_owned()),
            tags: vec![("team".to_owned(), "shop".to_owned())],
            enabled: Some(false),
        };
        draft.validate(&Draft::default()).unwrap()
    }

    #[test]
    fn a_row_is_its_endpoint_again() {
        let endpoint = endpoint();
        let stored = EndpointRow::of(&endpoint).endpoint(7, None).unwrap();
        assert_eq!(stored, StoredEndpoint { id: EndpointId(7), endpoint });
    }

    #[test]
    fn an_edited_row_is_refused_by_name_and_column() {
        let check = |edit: fn(&mut EndpointRow), expected: &str| {
            let mut row = EndpointRow::of(&endpoint());
            edit(&mut row);
            let message = row.endpoint(1, None).unwrap_err().to_string();
            assert!(message.contains("a \\\"b\\\"") && message.contains(expected), "{message}");
        };
        check(|row| row.url = "ftp://x/".to_owned(), "url: ");
        check(|row| row.headers = "[[1,2]]".to_owned(), "headers: ");
        check(|row| row.tags = "{\"a\":1}".to_owned(), "tags: ");
        check(|row| row.interval_ms = 1, "interval: ");
        let unsupported = EndpointRow::of(&endpoint()).endpoint(1, Some("body_match".to_owned()));
        assert!(unsupported.unwrap_err().to_string().contains("body_match: not supported"));
    }
}
