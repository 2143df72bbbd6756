//! From a snapshot to what templates see: typed backends, rejected values with their reasons, and
//! the raw entries that may pass.
//!
//! Pure and deterministic: the same snapshot gives the same result, sorted by key. An invalid value
//! is skipped and named; it never affects other values, and it never reaches nginx, not even `nginx
//! -t`.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use common::model::{Backend, Endpoint, Entry, Prefix, StoredValue, Tree, changed_keys};
use imbl::OrdMap;

use crate::template::Texts;

/// Which values templates may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// All, as confd has it.
    Any,
    /// Those in the services' folder must be backends. The default with `[nginx]`.
    Typed,
    /// All must be backends.
    Endpoint,
}

/// How the keys of a resource are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySelection {
    /// Put before the resource's keys; `/` for none.
    pub prefix: Prefix,
    /// The services' folder below `prefix`, `/services` by default.
    pub services: Prefix,
    /// The trees of the resource, with the prefix.
    pub trees: Vec<Tree>,
    /// Our own keys, which no template sees, whatever is read.
    pub bookkeeping: Tree,
    /// Which values may pass.
    pub values: Values,
    /// The resource declares that its keys are backends (`[nginx]`, `[guard]`, `values`). Otherwise
    /// only the keys below the services' folder are backends; what a value looks like does not
    /// matter.
    pub declared: bool,
    /// Whether a DNS name may stand for an address.
    pub names: bool,
}

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
    #[must_use]
    pub fn backend_count(&self) -> usize {
        self.backends.len() + self.unrecorded_backends
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

impl KeySelection {
    /// Classifies the entries of a snapshot as backends, other values and rejected values.
    #[must_use]
    pub fn see(&self, entries: impl IntoIterator<Item: Borrow<Entry>>) -> ParsedKeys {
        let mut seen = ParsedKeys::default();
        // Shared with the entry before: entries of one service follow each other.
        let mut service = "".into();
        for entry in entries {
            let entry = entry.borrow();
            seen.put(&entry.key, self.read(entry, &mut service));
        }
        seen
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

    /// Like [`KeySelection::see`], but passes on each backend instead of keeping it: a single run
    /// of a template that uses only keys need not hold thousands of records.
    #[must_use]
    pub fn see_each(
        &self,
        entries: impl IntoIterator<Item: Borrow<Entry>>,
        mut each: impl FnMut(&Arc<str>, Option<RegisteredBackend>),
    ) -> ParsedKeys {
        let mut seen = ParsedKeys::default();
        let mut service = "".into();
        for entry in entries {
            let entry = entry.borrow();
            let mut read = self.read(entry, &mut service);
            let registered = read.registered.take();
            if read.shown.is_some() {
                each(&entry.key, registered);
            }
            seen.put(&entry.key, read);
        }
        seen
    }

    /// Whether having no backends is a loss: a file made of settings has none to lose.
    #[must_use]
    pub fn is_about_backends(&self) -> bool {
        let prefix = self.prefix.as_str().trim_end_matches('/');
        let about = |tree: &Tree| {
            let bare = tree.path().strip_prefix(prefix).unwrap_or(tree.path());
            bare == self.services.as_str() || self.services.strip(bare).is_some()
        };
        self.trees.iter().any(about)
    }

    /// The services that its keys name: `/services/cart` is `cart`. They are known even before a
    /// backend registers.
    pub fn services_named(&self) -> impl Iterator<Item = &str> {
        let prefix = self.prefix.as_str().trim_end_matches('/');
        let paths = self.trees.iter().map(move |tree| tree.path().strip_prefix(prefix));
        let named = |path: &&str| !path.contains('/');
        paths.flatten().filter_map(|path| self.services.strip(path)).filter(named)
    }

    /// The folder whose keys are backends by default, if any of them is read.
    #[must_use]
    pub fn services_read(&self) -> Option<String> {
        let prefix = self.prefix.as_str().trim_end_matches('/');
        let services = format!("{prefix}{}", self.services);
        let read = |tree: &Tree| tree.covers(&services);
        let is_read = self.is_about_backends() || self.trees.iter().any(read);
        is_read.then_some(services)
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

    /// Splits the key of a backend: `<services>/<service>/<id>`, or directly below a tree of the
    /// resource.
    fn place<'k>(&'k self, key: &'k str) -> Option<BackendKey<'k>> {
        let bare =
            if self.prefix.as_str() == "/" { key } else { key.strip_prefix(self.prefix.as_str())? };
        if let Some(rest) = self.services.strip(bare) {
            let (service, id) = rest.split_once('/')?;
            return BackendKey::new(service, id, true);
        }
        let direct = |tree: &'k Tree| {
            let folder: Prefix = tree.path().parse().ok()?;
            let service = tree.path().rsplit('/').next()?;
            BackendKey::new(service, folder.strip(key)?, false)
        };
        self.trees.iter().find_map(direct)
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
    let mut rest = Rest(text);
    write!(rest, "{addr}").is_ok() && rest.0.is_empty()
}

/// The rest of a text after what was compared so far.
struct Rest<'t>(&'t str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// The key of something that may be a backend.
struct BackendKey<'k> {
    service: &'k str,
    in_services: bool,
}

impl<'k> BackendKey<'k> {
    /// The key of a backend ends with its id, and nothing is below it.
    fn new(service: &'k str, id: &str, in_services: bool) -> Option<Self> {
        let whole = !id.is_empty() && !id.contains('/') && !service.is_empty();
        whole.then_some(Self { service, in_services })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Revision;
    use proptest::prelude::*;

    fn entry(key: &str, value: &str) -> Entry {
        Entry {
            key: key.into(),
            value: value.into(),
            created: Revision(1),
            modified: Revision(1),
            lease: 0,
            ttl: None,
        }
    }

    fn reading(trees: &[&str], values: Values) -> KeySelection {
        KeySelection {
            prefix: "/".parse().unwrap(),
            services: "/services".parse().unwrap(),
            trees: trees.iter().map(|t| t.parse().unwrap()).collect(),
            values,
            declared: false,
            bookkeeping: "/confsync".parse().unwrap(),
            names: false,
        }
    }

    const POISON: &str = "10.0.0.9:80; } server { listen 81";

    #[test]
    fn one_poisoned_value_is_withheld_and_named_and_the_others_stay() {
        let entries = [
            entry("/services/apache/a", "10.0.0.1:80"),
            entry("/services/apache/b", POISON),
            entry("/config/title", "Hello"),
            entry("/services2/x", "10.0.0.3:80"),
        ];
        let trees = &["/services/apache", "/config"];
        for values in [Values::Typed, Values::Endpoint] {
            let seen = reading(trees, values).see(&entries);
            assert!(seen.backends.keys().map(|key| &**key).eq(["/services/apache/a"]));
            assert!(!seen.entries.contains_key("/services/apache/b"));
            assert!(seen.rejected.contains_key("/services/apache/b"));
            let title = seen.entries.contains_key("/config/title");
            assert_eq!(title, values == Values::Typed, "{values:?}");
        }
        let raw = reading(trees, Values::Any).see(&entries);
        assert!(raw.entries.contains_key("/services/apache/b"), "as confd does it");
        assert!(!raw.backends.contains_key("/services/apache/b"), "never typed");
        let why: Vec<_> = raw.rejected.values().collect();
        assert!(matches!(why[..], [w] if w.ends_with("as it is: values = \"any\")")), "{why:?}");
    }

    #[test]
    fn of_a_backend_in_json_templates_see_the_address_unless_all_may_pass() {
        let json = r#"{"addr":"10.0.0.1:80","weight":3,"meta":{"x":"; } access_log /trap; {"}}"#;
        let entries = [entry("/services/apache/a", json)];
        for values in [Values::Typed, Values::Endpoint] {
            let seen = reading(&["/services"], values).see(&entries);
            assert_eq!(seen.entries["/services/apache/a"], "10.0.0.1:80".into(), "{values:?}");
            let registered = &seen.backends["/services/apache/a"];
            assert_eq!((registered.backend.weight, registered.raw.clone()), (3, Some(json.into())));
        }
        let raw = reading(&["/services"], Values::Any).see(&entries);
        assert_eq!(raw.entries["/services/apache/a"], json.into());
        assert_eq!(raw.backends["/services/apache/a"].raw, None);
    }

    #[test]
    fn the_service_comes_from_the_key() {
        let entries = [
            entry("/services/apache/a", "10.0.0.1:80"),
            entry("/services/apache/a/deeper", "10.0.0.1:80"),
            entry("/app/upstream/1", "10.0.0.2:80"),
        ];
        let mut reading = reading(&["/services", "/app/upstream"], Values::Typed);
        reading.declared = true;
        let seen = reading.see(&entries);
        let names: Vec<_> = seen.backends.iter().map(|(key, r)| (&**key, &*r.service)).collect();
        assert_eq!(names, [("/app/upstream/1", "upstream"), ("/services/apache/a", "apache")]);
    }

    #[test]
    fn what_looks_like_an_endpoint_is_a_setting_until_something_declares_it() {
        let entries = [
            entry("/redis/master", "10.0.0.1:6379"),
            entry("/services/apache/a", "10.0.0.1:80"),
            entry("/maps/web", r#"{"addr":"10.0.0.2:80"}"#),
            entry("/confsync/acks/web/lb-1", "ours"),
        ];
        for trees in [&["/"][..], &["/redis", "/services", "/maps"]] {
            let mut reading = reading(trees, Values::Any);
            let seen = reading.see(&entries);
            assert!(seen.backends.keys().map(|key| &**key).eq(["/services/apache/a"]), "{trees:?}");
            assert_eq!(seen.entries.len(), 3);
            reading.declared = true;
            let declared = reading.see(&entries).backends.len();
            assert_eq!(declared, if trees.len() == 1 { 1 } else { 3 });
        }
    }

    proptest! {
        #[test]
        fn what_is_seen_of_changes_is_what_is_seen_of_all(
            steps in proptest::collection::vec((0usize..8, 0usize..6), 1..40), values in 0usize..3,
        ) {
            const KEYS: [&str; 8] = ["/services/a/1", "/services/a/2", "/services/b/1", "/config/x",
                "/services/a/1/deep", "/other/1", "/confsync/acks/a", "/services/c/1"];
            const VALUES: [&str; 5] = ["10.0.0.1:80", "10.0.0.2:80", POISON, "text",
                r#"{"addr":"10.0.0.3:80","weight":3}"#];
            let values = [Values::Any, Values::Typed, Values::Endpoint][values];
            let reading = reading(&["/services", "/config"], values);
            let (mut before, mut seen) = (Entries::new(), ParsedKeys::default());
            for (key, value) in steps {
                let mut now = before.clone();
                match VALUES.get(value) {
                    Some(value) => drop(now.insert(KEYS[key].into(), entry(KEYS[key], value))),
                    None => drop(now.remove(KEYS[key])),
                }
                reading.see_changes(&mut seen, &before, &now);
                prop_assert_eq!(&seen, &reading.see(now.values()));
                before = now;
            }
        }
    }

    #[test]
    fn a_prefix_stands_before_the_services() {
        let mut reading = reading(&["/prod/services/apache"], Values::Typed);
        reading.prefix = "/prod".parse().unwrap();
        let seen = reading.see(&[entry("/prod/services/apache/a", "not one")]);
        assert_eq!(seen.rejected.len(), 1);
    }
}
