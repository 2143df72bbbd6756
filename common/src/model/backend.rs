//! The value of a backend's key, as a typed record and back.
//!
//! Two forms are read: `host:port`, as the old shell units write it, and JSON
//! `{"addr":"10.0.0.1:8888","weight":3,"zone":"a","meta":{…}}`. A value that does not parse is
//! rejected whole, with a reason fit for a log line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, EndpointError, Host};

/// The largest weight: haproxy's limit, and far below what upsets nginx
/// (`hash consistent` with weight 65536 takes 326 MB).
pub const MAX_WEIGHT: u16 = 256;

/// The longest value worth parsing, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// A registered backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub addr: Endpoint,
    /// Its share of the requests, 1–256.
    pub weight: u16,
    /// Where it runs, for templates that prefer near ones.
    pub zone: Option<String>,
    /// Anything else that templates are to see.
    pub meta: BTreeMap<String, String>,
}

/// Why a value is not a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Neither form fits.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A DNS name where only addresses are allowed.
    #[error("`{}` is a name; only IP addresses are allowed here (nginx resolves names while it parses)", .0.escape_debug())]
    Name(String),
    /// JSON that is not the record.
    #[error("not the JSON of a backend: {0}")]
    Json(String),
    /// A weight outside 1–256.
    #[error("weight {0} is outside 1 to {MAX_WEIGHT}")]
    Weight(u64),
    /// A zone, or a key of `meta`, that is not a plain word.
    #[error("`{}` is not a plain word of letters, digits, `.`, `_`, `-`", .0.escape_debug())]
    Word(String),
    /// Bytes that are not text.
    #[error("it is not UTF-8 text")]
    Utf8,
    /// More than 16 KiB.
    #[error("{0} bytes are more than a backend's value may have")]
    Long(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonBackend {
    addr: String,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(weight: &u64) -> bool {
    *weight == 1
}

fn word(text: &str) -> Result<(), BackendError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(())
    } else {
        Err(BackendError::Word(text.chars().take(80).collect()))
    }
}

impl Backend {
    /// A backend with no more than an address.
    pub fn at(addr: Endpoint) -> Self {
        Self { addr, weight: 1, zone: None, meta: BTreeMap::new() }
    }

    /// Reads either form. Names are accepted; see [`Backend::without_names`].
    ///
    /// # Errors
    /// When the value is neither form, with the reason.
    pub fn parse(value: &[u8]) -> Result<Self, BackendError> {
        if value.len() > MAX_BYTES {
            return Err(BackendError::Long(value.len()));
        }
        let text = std::str::from_utf8(value).map_err(|_| BackendError::Utf8)?;
        if !text.trim_start().starts_with('{') {
            return Ok(Self::at(text.parse()?));
        }
        let record: JsonBackend =
            serde_json::from_str(text).map_err(|e| BackendError::Json(e.to_string()))?;
        record.try_into()
    }

    /// Rejects a backend whose host is a DNS name.
    pub fn without_names(self) -> Result<Self, BackendError> {
        match self.addr.host() {
            Host::Name(name) => Err(BackendError::Name(name.clone())),
            _ => Ok(self),
        }
    }

    /// The JSON form.
    pub fn to_json(&self) -> String {
        let record = JsonBackend {
            addr: self.addr.to_string(),
            weight: self.weight.into(),
            zone: self.zone.clone(),
            meta: self.meta.clone(),
        };
        // A struct of strings and numbers has no way to fail.
        serde_json::to_string(&record).unwrap_or_default()
    }
}

impl TryFrom<JsonBackend> for Backend {
    type Error = BackendError;
    fn try_from(record: JsonBackend) -> Result<Self, BackendError> {
        let weight = u16::try_from(record.weight)
            .ok()
            .filter(|w| (1..=MAX_WEIGHT).contains(w))
            .ok_or(BackendError::Weight(record.weight))?;
        record.zone.as_deref().map_or(Ok(()), word)?;
        record.meta.keys().try_for_each(|k| word(k))?;
        Ok(Self { addr: record.addr.parse()?, weight, zone: record.zone, meta: record.meta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read() {
        let plain = Backend::parse(b"10.0.0.1:8888").unwrap();
        assert_eq!((plain.addr.to_string().as_str(), plain.weight), ("10.0.0.1:8888", 1));
        let json = br#"{"addr":"10.0.0.1:8888","weight":3,"zone":"a","meta":{"v":"2"}}"#;
        let rich = Backend::parse(json).unwrap();
        assert_eq!((rich.weight, rich.zone.as_deref()), (3, Some("a")));
        assert_eq!(rich.to_json().as_bytes(), json);
        assert_eq!(plain.to_json(), r#"{"addr":"10.0.0.1:8888"}"#);
    }

    #[test]
    fn each_rejection_has_its_reason() {
        for (value, part) in [
            (r#"{"addr":"10.0.0.1:1","weight":0}"#, "weight 0"),
            (r#"{"addr":"10.0.0.1:1","weight":257}"#, "weight 257"),
            (r#"{"addr":"10.0.0.1:1","wieght":2}"#, "wieght"),
            (r#"{"addr":"10.0.0.1:1","zone":"a;b"}"#, "plain word"),
            (r#"{"addr":"10.0.0.1:1; }"}"#, "port"),
            ("{", "JSON"),
            ("", "no port"),
            ("10.0.0.1:1\n", "port"),
        ] {
            let err = Backend::parse(value.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(part), "{value}: {err}");
        }
        assert_eq!(Backend::parse(b"\xff:1"), Err(BackendError::Utf8));
        assert_eq!(Backend::parse(&[b'1'; 20_000]), Err(BackendError::Long(20_000)));
        assert!(Backend::parse(b"web:80").unwrap().without_names().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(backend) = Backend::parse(&bytes) {
                prop_assert_eq!(Backend::parse(backend.to_json().as_bytes()), Ok(backend));
            }
        }
    }
}
