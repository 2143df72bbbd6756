//! What a single run renders from, and what it is to remember of it.
//!
//! Thousands of backends are nothing special, and a run is over soon: what it need not keep is
//! dropped at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::model::{Entry, StoredValue};
use common::store::EntrySink;

use crate::backends::{KeyReader, KeySelection, ParsedKeys, RegisteredBackend};
use crate::config::program::CompiledResource;
use crate::template::Texts;

/// The keys of one resource as a single run reads them.
#[derive(Debug)]
pub(super) struct KeysOnce {
    pub(super) seen: ParsedKeys,
    /// The backends' keys and their values as etcd has them, where they were not recorded.
    unrecorded: Option<Texts>,
}

/// Reads the keys of some resources while they come.
#[derive(Debug)]
pub(super) struct KeysRead<'p> {
    resources: Vec<ResourceKeys<'p>>,
    /// Whether there was any key.
    pub(super) any: bool,
}

#[derive(Debug)]
struct ResourceKeys<'p> {
    /// A template that uses only raw keys needs no parsed backends, just their number.
    is_recording: bool,
    reader: KeyReader<'p>,
    count: usize,
    /// Keys of the template that are no backends, or whose value etcd has in another form. Nearly
    /// all are just what templates see, and then kept once.
    otherwise: Vec<(Arc<str>, Option<StoredValue>)>,
}

impl<'p> KeysRead<'p> {
    /// `must_record`: of which resource losses are to be looked into, for which each backend has to
    /// be known.
    pub(super) fn of(
        programs: &'p [CompiledResource],
        must_record: impl Fn(&CompiledResource) -> bool,
    ) -> Self {
        let of = |program: &'p CompiledResource| {
            let is_recording = must_record(program) || program.asks_for_backends();
            ResourceKeys::new(&program.resource.reading, is_recording)
        };
        Self { resources: programs.iter().map(of).collect(), any: false }
    }

    /// What was read, resource by resource.
    pub(super) fn done(self) -> impl Iterator<Item = KeysOnce> {
        self.resources.into_iter().map(ResourceKeys::done)
    }
}

impl EntrySink for KeysRead<'_> {
    fn begin(&mut self) {
        self.any = false;
        for keys in &mut self.resources {
            *keys = ResourceKeys::new(keys.reader.selection(), keys.is_recording);
        }
    }

    fn take(&mut self, entry: Entry) {
        self.any = true;
        self.resources.iter_mut().for_each(|keys| keys.add(&entry));
    }
}

impl<'p> ResourceKeys<'p> {
    fn new(reading: &'p KeySelection, is_recording: bool) -> Self {
        let reader = KeyReader::new(reading);
        Self { is_recording, reader, count: 0, otherwise: Vec::new() }
    }

    fn add(&mut self, entry: &Entry) {
        if self.is_recording {
            return self.reader.add(entry);
        }
        let Some(registered) = self.reader.add_unrecorded(entry) else { return };
        let registered = registered.filter(|r| !r.is_setting);
        self.count += usize::from(registered.is_some());
        match registered.map(|r| r.raw) {
            Some(None) => {}
            Some(raw) => self.otherwise.push((Arc::clone(&entry.key), raw)),
            None => self.otherwise.push((Arc::clone(&entry.key), None)),
        }
    }

    fn done(self) -> KeysOnce {
        let mut seen = self.reader.seen;
        if self.is_recording {
            return KeysOnce { seen, unrecorded: None };
        }
        seen.unrecorded_backends = self.count;
        let mut texts = seen.entries.clone();
        for (key, raw) in self.otherwise {
            match raw {
                Some(raw) => texts.insert(key, raw),
                None => texts.remove(&key),
            };
        }
        KeysOnce { seen, unrecorded: Some(texts) }
    }
}

impl KeysOnce {
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
            let mut keys = ResourceKeys::new(&reading, false);
            pairs.iter().for_each(|(key, value)| keys.add(&Entry::new(*key, *value, Revision(1))));
            keys.done()
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
