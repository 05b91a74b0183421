//! What must hold of any bytes taken for an endpoint file: for the tests, and for the fuzzer.

use super::{Draft, Endpoint, file, record};

/// Reads `bytes` as an endpoint file. A refusal is one line; what is accepted is written and read back as it is, by
/// way of the file and of the record.
///
/// # Panics
/// If it is not.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Every other file that is named is there.
    let mut read_body = |path: &str| match path.len().is_multiple_of(2) {
        true => Ok(path.as_bytes().to_vec()),
        false => Err("cannot be read".to_owned()),
    };
    let endpoints = match file::parse_in(&text, "fuzz.toml", &mut read_body) {
        Ok(endpoints) => endpoints,
        Err(error) => {
            let error = error.to_string();
            assert!(!error.contains(['\n', '\r']), "a refusal is one line: {error:?}");
            return;
        }
    };
    let written = file::write(&endpoints);
    assert_eq!(file::parse(&written, "fuzz.toml").as_ref(), Ok(&endpoints), "{written}");
    for endpoint in &endpoints {
        assert_eq!(by_record(endpoint).as_ref(), Ok(endpoint));
    }
}

fn by_record(endpoint: &Endpoint) -> Result<Endpoint, super::FieldError> {
    let draft = record::draft(record::object(endpoint))?;
    // A record has no bytes that are not text; the stores carry the body by themselves.
    Draft { body: Some(endpoint.options.body.clone()), ..draft }.validate(&Draft::default())
}
