//! The keys a template sees: what was fetched, without the prefix, in confd's form.
//!
//! Knows nothing of etcd. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::path::clean;

/// One name for two keys: `/up/1` and `/up//1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The name both have in a template.
    pub name: String,
    /// The key whose value is used.
    pub kept: String,
    /// The key that is not seen.
    pub dropped: String,
}

/// The store of a template, and the keys that had to give way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Name to value.
    pub kv: BTreeMap<Arc<str>, Arc<str>>,
    /// Worth a warning each.
    pub collisions: Vec<Collision>,
}

/// Strips the prefix and cleans the rest: `//`, `.` and a `/` at the end vanish.
///
/// The prefix is stripped as text, without a boundary, because confd does so.
/// Of several keys with one name the one that needed no cleaning wins, else the
/// first in byte order. confd lets chance decide, anew each time.
pub fn keys(entries: impl IntoIterator<Item = (Arc<str>, Arc<str>)>, prefix: &str) -> Keys {
    let mut sorted: Vec<(Arc<str>, Arc<str>)> = entries.into_iter().collect();
    sorted.sort_unstable();
    let mut chosen: BTreeMap<Arc<str>, (Arc<str>, Arc<str>)> = BTreeMap::new();
    let mut collisions = Vec::new();
    for (key, value) in sorted {
        let rest = key.strip_prefix(prefix).unwrap_or(&key);
        let name = clean(&format!("/{rest}"));
        let untouched = name == rest;
        if let Some((other, _)) = chosen.get(name.as_str()) {
            let (kept, dropped) = if untouched { (&key, other) } else { (other, &key) };
            let [kept, dropped] = [kept, dropped].map(ToString::to_string);
            collisions.push(Collision { name: name.clone(), kept, dropped });
            if !untouched {
                continue;
            }
        }
        let name = if *name == *key { Arc::clone(&key) } else { name.into() };
        chosen.insert(name, (key, value));
    }
    Keys { kv: chosen.into_iter().map(|(name, (_, value))| (name, value)).collect(), collisions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn the_prefix_goes_and_the_rest_is_cleaned() {
        let keys = keys(of(&[("/app/up/1", "a"), ("/app/up/2/", "b"), ("/apple", "c")]), "/app");
        let want = [("/le", "c"), ("/up/1", "a"), ("/up/2", "b")];
        let got: Vec<(&str, &str)> = keys.kv.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_collision_is_decided_the_same_way_each_time() {
        let mut entries = vec![("/up/1/", "c"), ("/up//1", "b"), ("/up/1", "a")];
        for _ in 0..entries.len() {
            entries.rotate_left(1);
            let keys = keys(of(&entries), "");
            assert_eq!(keys.kv.get("/up/1").map(|value| &**value), Some("a"));
            assert_eq!(keys.collisions.len(), 2);
        }
        let keys = keys(of(&[("/up/1/", "c"), ("/up//1", "b")]), "");
        assert_eq!(keys.kv.get("/up/1").map(|value| &**value), Some("b"));
    }
}
