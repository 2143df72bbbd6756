//! Paths in etcd: the only place that knows what `/` means.
//!
//! A [`Key`] is absolute, has no empty, `.` or `..` segment and no control character, so that
//! the v2 API (which cleans paths and redirects) and the v3 API (which takes any bytes) have
//! the same name for it.

use std::fmt;
use std::str::FromStr;

/// A folder in etcd, such as `/services`. The root is `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(String);

/// One key in etcd, such as `/services/apache/10.0.0.1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An empty text; usually an environment variable that is not set.
    #[error("it is empty; is a variable in the unit file unset?")]
    Empty,
    /// `/` alone, where a key is needed.
    #[error("`/` is a folder, not a key")]
    Root,
    /// An empty segment, `.` or `..`.
    #[error("`{0}` has an empty, `.` or `..` segment")]
    Segment(String),
    /// A control character, which no tool would show.
    #[error("{0:?} contains a control character")]
    Control(String),
    /// A `/` where one segment is meant.
    #[error("`{0}` must be one path segment, without `/`")]
    Slash(String),
}

fn check_segment(segment: &str) -> Result<(), KeyError> {
    if segment.is_empty() {
        return Err(KeyError::Empty);
    }
    if segment == "." || segment == ".." {
        return Err(KeyError::Segment(segment.to_owned()));
    }
    if segment.chars().any(char::is_control) {
        return Err(KeyError::Control(segment.to_owned()));
    }
    Ok(())
}

/// Whether a service's name can be the name of an upstream in nginx and of a backend in HAProxy:
/// letters, digits, `_`, `-` and `.`, a letter or digit first. As a key, more is possible.
pub fn is_upstream_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

/// Slashes at the ends are optional, for people write both forms; between them everything has
/// to be right.
fn clean(text: &str) -> Result<String, KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    let inner = text.trim_matches('/');
    if inner.is_empty() {
        return Ok("/".to_owned());
    }
    for segment in inner.split('/') {
        check_segment(segment).map_err(|e| match e {
            KeyError::Empty => KeyError::Segment(text.to_owned()),
            other => other,
        })?;
    }
    Ok(format!("/{inner}"))
}

impl Prefix {
    /// The folder with a leading and without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder `segment` below this one.
    ///
    /// # Errors
    /// When `segment` is not one clean path segment.
    pub fn folder(&self, segment: &str) -> Result<Prefix, KeyError> {
        self.below(segment).map(Prefix)
    }

    /// The key `segment` below this folder.
    ///
    /// # Errors
    /// When `segment` is not one clean path segment.
    pub fn key(&self, segment: &str) -> Result<Key, KeyError> {
        self.below(segment).map(Key)
    }

    fn below(&self, segment: &str) -> Result<String, KeyError> {
        if segment.contains('/') {
            return Err(KeyError::Slash(segment.to_owned()));
        }
        check_segment(segment)?;
        if self.0 == "/" { Ok(format!("/{segment}")) } else { Ok(format!("{}/{segment}", self.0)) }
    }

    /// The path of `key` relative to this folder, if it is below it: for
    /// `/services` and `/services/apache/10.0.0.1`, `apache/10.0.0.1`.
    pub fn strip<'k>(&self, key: &'k str) -> Option<&'k str> {
        let rest = if self.0 == "/" { key } else { key.strip_prefix(self.0.as_str())? };
        rest.strip_prefix('/').filter(|r| !r.is_empty())
    }
}

impl Key {
    /// The key with a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment: of `/services/apache/10.0.0.1`, `10.0.0.1`.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for Prefix {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        clean(text).map(Prefix)
    }
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        match clean(text)? {
            root if root == "/" => Err(KeyError::Root),
            path => Ok(Key(path)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slashes_at_the_ends_are_optional() {
        for (text, want) in [
            ("/services", Ok("/services")),
            ("services/", Ok("/services")),
            ("/", Ok("/")),
            ("", Err(KeyError::Empty)),
            ("/a//b", Err(KeyError::Segment("/a//b".into()))),
            ("/a/../b", Err(KeyError::Segment("..".into()))),
            ("/a/\n", Err(KeyError::Control("\n".into()))),
        ] {
            assert_eq!(text.parse::<Prefix>().map(|p| p.0), want.map(String::from), "{text:?}");
        }
        assert_eq!("/".parse::<Key>(), Err(KeyError::Root));
    }

    #[test]
    fn a_sibling_is_not_below() {
        let services: Prefix = "/services".parse().unwrap();
        assert_eq!(services.strip("/services/apache/1"), Some("apache/1"));
        assert_eq!(services.strip("/services2/apache"), None);
        assert_eq!(services.strip("/services"), None);
        assert_eq!(services.strip("/services/"), None);
    }

    #[test]
    fn an_upstream_has_a_plain_name() {
        for name in ["web", "a.b-c_d", "1"] {
            assert!(is_upstream_name(name), "{name}");
        }
        for name in ["", "my app", "caf\u{e9}", "a:b", "a{b", "a;b", "a$b", "-x", "_x", "a/b"] {
            assert!(!is_upstream_name(name), "{name}");
        }
    }

    #[test]
    fn an_unset_variable_is_named_as_the_likely_cause() {
        let err = "/services".parse::<Prefix>().unwrap().key("").unwrap_err();
        assert!(err.to_string().contains("unset"), "{err}");
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "\\PC{0,40}") {
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
            }
        }

        #[test]
        fn a_joined_key_is_below_its_folder(segment in "[^/]{0,20}") {
            let folder: Prefix = "/services/apache".parse().unwrap();
            if let Ok(key) = folder.key(&segment) {
                prop_assert_eq!(folder.strip(key.as_str()), Some(segment.as_str()));
                prop_assert_eq!(key.id(), segment);
            }
        }
    }
}
