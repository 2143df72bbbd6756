//! The keys that a template sees: the resource's keys, without the prefix, in confd's form.
//!
//! Knows nothing of etcd. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::model::StoredValue;
use imbl::OrdMap;

use super::path::{clean, is_clean};

/// One name for two keys: `/up/1` and `/up//1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The name both have in a template.
    pub name: String,
    /// The key whose value is used.
    pub kept: String,
    /// The key that is hidden.
    pub dropped: String,
}

/// Texts by name. There may be thousands: a copy shares them.
pub type Texts = OrdMap<Arc<str>, StoredValue>;

/// The keys of a template, and those that are hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Name to value.
    pub kv: Texts,
    /// Worth a warning each.
    pub collisions: Vec<Collision>,
}

/// Strips the prefix and cleans the rest: `//`, `.` and a `/` at the end vanish.
///
/// The prefix is stripped as text, without a boundary, because confd does so.
/// Of several keys with one name the one that needed no cleaning wins, else the
/// first in byte order. confd lets chance decide, anew each time.
pub fn keys(entries: &Texts, prefix: &str) -> Keys {
    if prefix.is_empty() && entries.keys().all(|key| is_clean(key)) {
        return Keys { kv: entries.clone(), collisions: Vec::new() };
    }
    let mut chosen: BTreeMap<Arc<str>, (&Arc<str>, &StoredValue)> = BTreeMap::new();
    let mut collisions = Vec::new();
    for (key, value) in entries.iter() {
        let rest = key.strip_prefix(prefix).unwrap_or(key);
        let name = clean(&format!("/{rest}"));
        let untouched = name == rest;
        if let Some((other, _)) = chosen.get(name.as_str()) {
            let (kept, dropped) = if untouched { (key, *other) } else { (*other, key) };
            let [kept, dropped] = [kept, dropped].map(ToString::to_string);
            collisions.push(Collision { name: name.clone(), kept, dropped });
            if !untouched {
                continue;
            }
        }
        let name = if *name == **key { Arc::clone(key) } else { name.into() };
        chosen.insert(name, (key, value));
    }
    let kv = chosen.into_iter().map(|(name, (_, value))| (name, value.clone())).collect();
    Keys { kv, collisions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| (Arc::from(*key), StoredValue::from(*value))).collect()
    }

    #[test]
    fn the_prefix_goes_and_the_rest_is_cleaned() {
        let keys = keys(&of(&[("/app/up/1", "a"), ("/app/up/2/", "b"), ("/apple", "c")]), "/app");
        let want = [("/le", "c"), ("/up/1", "a"), ("/up/2", "b")];
        let got: Vec<(&str, &str)> =
            keys.kv.iter().map(|(k, v)| (&**k, v.text().unwrap())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn of_keys_with_one_name_the_clean_one_wins() {
        let seen = keys(&of(&[("/up/1/", "c"), ("/up//1", "b"), ("/up/1", "a")]), "");
        assert_eq!(seen.kv.get("/up/1").and_then(StoredValue::text), Some("a"));
        assert_eq!(seen.collisions.len(), 2);
        let seen = keys(&of(&[("/up/1/", "c"), ("/up//1", "b")]), "");
        assert_eq!(seen.kv.get("/up/1").and_then(StoredValue::text), Some("b"));
    }

    #[test]
    fn where_nothing_is_to_be_done_nothing_is_copied() {
        let (clean, other) = (of(&[("/up/1", "a")]), of(&[("/up/1", "a"), ("/up/2/", "b")]));
        assert!(keys(&clean, "").kv.ptr_eq(&clean));
        assert!(!keys(&other, "").kv.ptr_eq(&other));
    }
}
