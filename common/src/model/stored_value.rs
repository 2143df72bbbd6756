//! A value as the store has it. Copies share their bytes: there may be thousands, each used by
//! several resources.
//!
//! What must hold: bytes that are text are kept as text, so that two values are equal when
//! their bytes are. It knows nothing of what a value means.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value of one key: bytes, for etcd prescribes no encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredValue(Content);

#[derive(Clone, PartialEq, Eq)]
enum Content {
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
}

impl StoredValue {
    /// The value as text; `None` if it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            Content::Text(text) => Some(text),
            Content::Bytes(_) => None,
        }
    }

    /// The value as text, with what is not UTF-8 replaced.
    pub fn lossy(&self) -> Arc<str> {
        match &self.0 {
            Content::Text(text) => Arc::clone(text),
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        }
    }
}

impl Deref for StoredValue {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Text(text) => text.as_bytes(),
            Content::Bytes(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for StoredValue {
    fn from(bytes: &[u8]) -> Self {
        Self(match std::str::from_utf8(bytes) {
            Ok(text) => Content::Text(text.into()),
            Err(_) => Content::Bytes(bytes.into()),
        })
    }
}

impl From<Vec<u8>> for StoredValue {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&str> for StoredValue {
    fn from(text: &str) -> Self {
        Self(Content::Text(text.into()))
    }
}

impl From<String> for StoredValue {
    fn from(text: String) -> Self {
        Self(Content::Text(text.into()))
    }
}

impl From<Arc<str>> for StoredValue {
    fn from(text: Arc<str>) -> Self {
        Self(Content::Text(text))
    }
}

/// By their bytes, so that a map of values can be asked with bytes.
impl Ord for StoredValue {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for StoredValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<[u8]> for StoredValue {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Default for StoredValue {
    fn default() -> Self {
        "".into()
    }
}

/// As text; bytes that are none are replaced.
impl Serialize for StoredValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.lossy())
    }
}

impl<'de> Deserialize<'de> for StoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_however_it_came() {
        let value = StoredValue::from("ü:80".as_bytes());
        assert_eq!(value, StoredValue::from("ü:80"));
        assert_eq!((value.text(), &*value), (Some("ü:80"), "ü:80".as_bytes()));
        assert!(Arc::ptr_eq(&value.lossy(), &value.lossy()), "shared, not copied");
    }

    #[test]
    fn other_bytes_are_kept_and_replaced_for_display() {
        let value = StoredValue::from(&b"a\xff:80"[..]);
        assert_eq!((value.text(), &*value), (None, &b"a\xff:80"[..]));
        assert_eq!(
            (&*value.lossy(), format!("{value:?}")),
            ("a\u{fffd}:80", r#""a\xff:80""#.into())
        );
    }
}
