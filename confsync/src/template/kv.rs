//! The keys a template sees: what was fetched, without the prefix, in confd's form.
//!
//! Knows nothing of etcd. Pure.

use std::collections::BTreeMap;

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
    pub kv: BTreeMap<String, String>,
    /// Worth a warning each.
    pub collisions: Vec<Collision>,
}

/// Strips the prefix and cleans the rest: `//`, `.` and a `/` at the end vanish.
///
/// The prefix is stripped as text, without a boundary, because confd does so.
/// Of several keys with one name the one that needed no cleaning wins, else the
/// first in byte order. confd lets chance decide, anew each time.
pub fn keys<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>, prefix: &str) -> Keys {
    let mut sorted: Vec<(&str, &str)> = entries.into_iter().collect();
    sorted.sort_unstable();
    let mut chosen: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    let mut collisions = Vec::new();
    for (key, value) in sorted {
        let rest = key.strip_prefix(prefix).unwrap_or(key);
        let name = clean(&format!("/{rest}"));
        let cleaned = name == rest;
        match chosen.get(&name) {
            Some((other, _)) if cleaned => {
                let dropped = (*other).to_owned();
                collisions.push(Collision { name: name.clone(), kept: key.to_owned(), dropped });
                chosen.insert(name, (key, value));
            }
            Some((other, _)) => {
                let kept = (*other).to_owned();
                collisions.push(Collision { name, kept, dropped: key.to_owned() });
            }
            None => {
                chosen.insert(name, (key, value));
            }
        }
    }
    let kv = chosen.into_iter().map(|(name, (_, value))| (name, value.to_owned())).collect();
    Keys { kv, collisions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_goes_and_the_rest_is_cleaned() {
        let keys = keys([("/app/up/1", "a"), ("/app/up/2/", "b"), ("/apple", "c")], "/app");
        let want = [("/le", "c"), ("/up/1", "a"), ("/up/2", "b")];
        let got: Vec<(&str, &str)> = keys.kv.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_collision_is_decided_the_same_way_each_time() {
        let mut entries = vec![("/up/1/", "c"), ("/up//1", "b"), ("/up/1", "a")];
        for _ in 0..entries.len() {
            entries.rotate_left(1);
            let keys = keys(entries.clone(), "");
            assert_eq!(keys.kv.get("/up/1").map(String::as_str), Some("a"));
            assert_eq!(keys.collisions.len(), 2);
        }
        let keys = keys([("/up/1/", "c"), ("/up//1", "b")], "");
        assert_eq!(keys.kv.get("/up/1").map(String::as_str), Some("b"));
    }
}
