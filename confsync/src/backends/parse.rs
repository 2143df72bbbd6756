//! From a snapshot to what templates see: typed backends, rejected values with their reasons, and
//! the raw entries that may pass.
//!
//! Pure and deterministic: the same snapshot gives the same result, sorted by key. An invalid value
//! is skipped and named; it never affects other values, and it never reaches nginx, not even `nginx
//! -t`.

use std::borrow::Borrow;
use std::sync::Arc;

use common::model::{Backend, Endpoint, Entry, StoredValue, changed_keys};
use imbl::OrdMap;

use super::selection::{BackendKey, KeySelection, Values};
use crate::template::Texts;

#[cfg(test)]
mod tests;

/// A backend and where it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredBackend {
    /// The folder it is in: of `/services/apache/10.0.0.1`, `apache`.
    pub service: Arc<str>,
    /// Its parsed value.
    pub backend: Backend,
    /// The value as stored, if templates see another.
    pub raw: Option<StoredValue>,
    /// The key is a setting whose value merely looks like a backend's.
    pub is_setting: bool,
}

/// The entries of a snapshot, by key.
pub type Entries = OrdMap<Arc<str>, Entry>;

/// Backends by raw key.
pub type Backends = OrdMap<Arc<str>, Arc<RegisteredBackend>>;

/// Values that are not used: the key, and the reason without the raw value.
pub type RejectedValues = OrdMap<Arc<str>, Arc<str>>;

/// The keys of a resource, parsed. There may be thousands of backends: a copy shares all of them,
/// and costs only what is changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedKeys {
    /// Typed backends.
    pub backends: Backends,
    /// Settings whose values read like a backend's: templates may see them typed, and nothing
    /// else takes them for backends.
    pub settings: Backends,
    /// Values that may pass, backends among them.
    pub entries: Texts,
    /// Values that are not used.
    pub rejected: RejectedValues,
    /// Backends beside those above, of which no record was kept.
    pub unrecorded_backends: usize,
}

impl ParsedKeys {
    /// How many backends there are.
    pub fn backend_count(&self) -> usize {
        self.backends.len() + self.unrecorded_backends
    }

    /// How many values are in the place of a backend's, in a form that only the template knows: no
    /// backend can be read from them, and the template sees them as they are.
    pub fn foreign_count(&self) -> usize {
        self.rejected.keys().filter(|key| self.entries.contains_key(*key)).count()
    }

    fn put(&mut self, key: &Arc<str>, read: ReadEntry) {
        if let Some(why) = read.rejected {
            self.rejected.insert(Arc::clone(key), why.into());
        }
        if let Some(text) = read.shown {
            self.entries.insert(Arc::clone(key), text);
        }
        if let Some(registered) = read.registered {
            let all = if registered.is_setting { &mut self.settings } else { &mut self.backends };
            all.insert(Arc::clone(key), Arc::new(registered));
        }
    }

    fn remove(&mut self, key: &str) {
        self.rejected.remove(key);
        self.entries.remove(key);
        self.settings.remove(key);
        self.backends.remove(key);
    }
}

/// What becomes of one entry.
#[derive(Default)]
struct ReadEntry {
    /// The value that templates see, if it may pass.
    shown: Option<StoredValue>,
    registered: Option<RegisteredBackend>,
    /// Why it is not used, or not as a backend.
    rejected: Option<String>,
}

/// One entry, classified.
#[derive(Default)]
struct Sorted<'k> {
    /// The value that templates see, if it may pass.
    shown: Option<StoredValue>,
    /// The backend it describes, and its key.
    backend: Option<(BackendKey<'k>, Backend)>,
    /// Why it is not a backend, where it should be one.
    rejected: Option<String>,
}

/// Classifies entries one after the other, as they are read.
#[derive(Debug)]
pub struct KeyReader<'s> {
    selection: &'s KeySelection,
    /// That of the entry before: entries of one service follow each other, and share it.
    service: Arc<str>,
    /// What has been made of them so far.
    pub seen: ParsedKeys,
}

impl<'s> KeyReader<'s> {
    /// Nothing is read yet.
    pub fn new(selection: &'s KeySelection) -> Self {
        Self { selection, service: "".into(), seen: ParsedKeys::default() }
    }

    /// Which entries are read, and as what.
    pub fn selection(&self) -> &'s KeySelection {
        self.selection
    }

    /// Reads one entry.
    pub fn add(&mut self, entry: &Entry) {
        self.seen.put(&entry.key, self.selection.read(entry, &mut self.service));
    }

    /// Like [`KeyReader::add`], but hands over the backend instead of keeping it: a single run of a
    /// template that uses only keys need not hold thousands of records. `None` if templates do not
    /// see the entry.
    pub fn add_unrecorded(&mut self, entry: &Entry) -> Option<Option<RegisteredBackend>> {
        let mut read = self.selection.read(entry, &mut self.service);
        let registered = read.registered.take();
        let is_shown = read.shown.is_some();
        self.seen.put(&entry.key, read);
        is_shown.then_some(registered)
    }
}

impl KeySelection {
    /// Classifies the entries of a snapshot as backends, other values and rejected values.
    pub fn see(&self, entries: impl IntoIterator<Item: Borrow<Entry>>) -> ParsedKeys {
        let mut reader = KeyReader::new(self);
        for entry in entries {
            reader.add(entry.borrow());
        }
        reader.seen
    }

    /// Brings what was `seen` of the entries `before` up to `now`: what is the same in both is not
    /// looked at.
    pub fn see_changes(&self, seen: &mut ParsedKeys, before: &Entries, now: &Entries) {
        let mut service = "".into();
        for key in changed_keys(before, now) {
            seen.remove(key);
            if let Some(entry) = now.get(key) {
                seen.put(key, self.read(entry, &mut service));
            }
        }
    }

    /// `service` is that of the entry before, which is shared where it is the same.
    fn read(&self, entry: &Entry, service: &mut Arc<str>) -> ReadEntry {
        let is_read = self.trees.iter().any(|tree| tree.covers(&entry.key));
        if !is_read || self.bookkeeping.covers(&entry.key) {
            return ReadEntry::default();
        }
        let Sorted { shown, backend, rejected } = self.sort(entry);
        let registered = shown.as_ref().zip(backend).map(|(text, (place, backend))| {
            if **service != *place.service {
                *service = place.service.into();
            }
            let raw = (*text != entry.value).then(|| entry.value.clone());
            let is_setting = !place.in_services && !self.declared;
            RegisteredBackend { service: Arc::clone(service), backend, raw, is_setting }
        });
        ReadEntry { shown, registered, rejected }
    }

    fn sort<'k>(&'k self, entry: &'k Entry) -> Sorted<'k> {
        let raw = || Some(entry.value.clone());
        let place = self.place(&entry.key);
        if place.is_none() && self.values != Values::Endpoint {
            return Sorted { shown: raw(), ..Sorted::default() };
        }
        let in_services = place.as_ref().is_some_and(|place| place.in_services);
        // The trees in which only backends may pass.
        let strict = match self.values {
            Values::Any => false,
            Values::Endpoint => true,
            Values::Typed => in_services,
        };
        match self.parse(&entry.value) {
            Ok(backend) => {
                let shown = if strict { Some(plain(&backend, entry)) } else { raw() };
                let backend = place.map(|place| (place, backend));
                Sorted { shown, backend, rejected: None }
            }
            Err(why) if strict => Sorted { rejected: Some(why), ..Sorted::default() },
            // No backend to us, and text to the template, as confd has it. A value outside
            // the services' folder need not be a backend.
            Err(why) => Sorted {
                shown: raw(),
                backend: None,
                rejected: in_services
                    .then(|| format!("{why} (the template sees it as it is: values = \"any\")")),
            },
        }
    }

    fn parse(&self, value: &[u8]) -> Result<Backend, String> {
        let backend = Backend::parse(value).map_err(|e| e.to_string())?;
        if self.names { Ok(backend) } else { backend.without_names().map_err(|e| e.to_string()) }
    }
}

/// The value that a template may print as it is: for the JSON form, its address alone. The other
/// fields could hold anything, and the braces alone open a block in nginx.
fn plain(backend: &Backend, entry: &Entry) -> StoredValue {
    // Nearly all values are written in our own form, and are shared.
    if entry.text().is_some_and(|text| is_written(&backend.addr, text)) {
        return entry.value.clone();
    }
    backend.addr.to_string().into()
}

/// Whether `text` is what `addr` prints.
fn is_written(addr: &Endpoint, text: &str) -> bool {
    let mut own = String::with_capacity(text.len());
    addr.push_to(&mut own);
    own == text
}
