//! What a single run renders from, and what it is to remember of it.
//!
//! Thousands of backends are nothing special, and a run is over soon: what it need not keep is
//! dropped at once.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;

use common::model::Entry;

use crate::backends::{KeySelection, ParsedKeys, RegisteredBackend};
use crate::config::program::CompiledResource;
use crate::template::Texts;

/// The keys of one resource as a single run reads them.
#[derive(Debug)]
pub(super) struct KeysOnce {
    pub(super) seen: ParsedKeys,
    /// The backends' keys and their values as etcd has them, where they were not recorded.
    unrecorded: Option<Texts>,
}

impl KeysOnce {
    /// Reads the entries. `must_record`: losses are to be looked into, for which each backend has
    /// to be known.
    pub(super) fn read(
        program: &CompiledResource,
        entries: impl Iterator<Item: Borrow<Entry>>,
        must_record: bool,
    ) -> Self {
        let reading = &program.resource.reading;
        // A template that uses only raw keys needs no parsed backends, just their number.
        if must_record || program.asks_for_backends() {
            return Self { seen: reading.see(entries), unrecorded: None };
        }
        Self::count(reading, entries)
    }

    /// Counts the backends instead of recording them. Their values are nearly always just what
    /// templates see, and then kept once.
    fn count(reading: &KeySelection, entries: impl Iterator<Item: Borrow<Entry>>) -> Self {
        let mut count = 0;
        let mut otherwise = Vec::new();
        let mut seen = reading.see_each(entries, |key, registered| {
            let registered = registered.filter(|r| !r.is_setting);
            count += usize::from(registered.is_some());
            match registered.map(|r| r.raw) {
                Some(None) => {}
                Some(raw) => otherwise.push((Arc::clone(key), raw)),
                None => otherwise.push((Arc::clone(key), None)),
            }
        });
        seen.unrecorded_backends = count;
        let mut texts = seen.entries.clone();
        for (key, raw) in otherwise {
            match raw {
                Some(raw) => texts.insert(key, raw),
                None => texts.remove(&key),
            };
        }
        Self { seen, unrecorded: Some(texts) }
    }

    /// What the next run is to know: the backends with their values as etcd has them. Nothing
    /// while one is `retained`.
    pub(super) fn to_save(&self, retained: &BTreeSet<String>) -> Option<Texts> {
        if !retained.is_empty() {
            return None;
        }
        let value = |(key, r): (&Arc<str>, &Arc<RegisteredBackend>)| {
            let value = r.raw.as_ref().or_else(|| self.seen.entries.get(key))?;
            Some((Arc::clone(key), value.clone()))
        };
        let recorded = || self.seen.backends.iter().filter_map(value).collect();
        Some(self.unrecorded.clone().unwrap_or_else(recorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Revision;

    use crate::backends::Values;

    #[test]
    fn backends_are_counted_and_saved_as_etcd_has_them() {
        let reading = KeySelection {
            prefix: "/".parse().unwrap(),
            services: "/services".parse().unwrap(),
            trees: vec!["/services".parse().unwrap(), "/config".parse().unwrap()],
            values: Values::Typed,
            declared: false,
            bookkeeping: "/confsync".parse().unwrap(),
            names: false,
        };
        let json = r#"{"addr":"10.0.0.2:80","weight":3}"#;
        let read = |pairs: &[(&str, &str)]| {
            let entry = |(key, value): &(&str, &str)| Entry::new(*key, *value, Revision(1));
            KeysOnce::count(&reading, pairs.iter().map(entry))
        };
        let texts = |texts: &Texts| -> Vec<(String, String)> {
            texts.iter().map(|(key, value)| (key.to_string(), value.lossy().to_string())).collect()
        };
        let plain = ("/services/web/a", "10.0.0.1:80");
        let keys = read(&[plain]);
        let saved = keys.to_save(&BTreeSet::new()).unwrap();
        assert!(saved.ptr_eq(&keys.seen.entries), "kept once");

        let poison = ("/services/web/c", "; }");
        let keys = read(&[("/config/title", "Hi"), plain, ("/services/web/b", json), poison]);
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(keys.seen.backend_count(), 2);
        let saved = keys.to_save(&BTreeSet::new()).unwrap();
        assert_eq!(texts(&saved), own(&[plain, ("/services/web/b", json)]));
        assert_eq!(keys.to_save(&BTreeSet::from(["/x".to_owned()])), None);
        let shown = [("/config/title", "Hi"), plain, ("/services/web/b", "10.0.0.2:80")];
        assert_eq!(texts(&keys.seen.entries), own(&shown));
        assert_eq!(keys.seen.rejected.len(), 1);
    }
}
