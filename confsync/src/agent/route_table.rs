//! Where requests are to go: address and weight of each backend, of all resources of a group. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::model::changed_keys;

use crate::backends::Backends;
use crate::backends::known::KnownBackends;
use crate::status::change_summary::{Route, Routes};

/// The backends that each resource's file does not name; for a resource that is not listed, they are
/// unknown.
pub(super) type Unwritten = BTreeMap<String, BTreeSet<Arc<str>>>;

/// The routes, kept up to date by what changes.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    routes: Routes,
    /// What they were made of.
    known: BTreeMap<String, Backends>,
    left_out: BTreeSet<Arc<str>>,
    unwritten: Unwritten,
}

impl RouteTable {
    /// The routes to what is `known` to the resources, but for those `left_out`, and those that a
    /// resource knows and does not write.
    pub(super) fn update(
        &mut self,
        known: &BTreeMap<String, KnownBackends>,
        unwritten: &Unwritten,
        left_out: &BTreeSet<Arc<str>>,
    ) -> Routes {
        let mut touched: BTreeSet<Arc<str>> =
            self.left_out.symmetric_difference(left_out).cloned().collect();
        let none = Backends::new();
        for (resource, known) in known {
            let before = self.known.get(resource).unwrap_or(&none);
            touched.extend(changed_keys(before, known.backends()).cloned());
        }
        let nothing = BTreeSet::new();
        for resource in self.unwritten.keys().chain(unwritten.keys()) {
            let of = |all: &Unwritten| all.get(resource).unwrap_or(&nothing).clone();
            touched.extend(of(&self.unwritten).symmetric_difference(&of(unwritten)).cloned());
        }
        let is_written = |resource: &String, key: &Arc<str>| {
            unwritten.get(resource).is_none_or(|keys| !keys.contains(key))
        };
        for key in touched {
            let mut having = known.iter().filter(|(resource, _)| is_written(resource, &key));
            let registered = having.find_map(|(_, known)| known.backends().get(&key));
            match registered.filter(|_| !left_out.contains(&key)) {
                Some(registered) => {
                    let backend = &registered.backend;
                    let route: Route = (backend.addr.to_string().into(), backend.weight);
                    self.routes.insert(key, route);
                }
                None => drop(self.routes.remove(&key)),
            }
        }
        let backends = |known: &KnownBackends| known.backends().clone();
        self.known = known.iter().map(|(name, known)| (name.clone(), backends(known))).collect();
        self.left_out.clone_from(left_out);
        self.unwritten.clone_from(unwritten);
        self.routes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::ParsedKeys;
    use crate::backends::RegisteredBackend;
    use common::model::Backend;

    fn known(backends: &[(&str, &str)]) -> KnownBackends {
        let mut seen = ParsedKeys::default();
        for (key, value) in backends {
            let backend = Backend::parse(value.as_bytes()).unwrap();
            let service = "web".into();
            let registered = RegisteredBackend { service, backend, raw: None, is_setting: false };
            seen.backends.insert((*key).into(), Arc::new(registered));
        }
        let mut known = KnownBackends::default();
        known.adopt(&seen, BTreeSet::new());
        known
    }

    fn list(routes: &Routes) -> Vec<(&str, &str)> {
        routes.iter().map(|(key, (addr, _))| (&**key, &**addr)).collect()
    }

    #[test]
    fn a_backend_of_two_resources_is_routed_to_until_neither_has_it() {
        let (mut table, none) = (RouteTable::default(), BTreeSet::new());
        let all = Unwritten::new();
        let both = |a: &[(&str, &str)], b: &[(&str, &str)]| {
            BTreeMap::from([("a".to_owned(), known(a)), ("b".to_owned(), known(b))])
        };
        let (one, two) = (("/s/web/1", "10.0.0.1:80"), ("/s/web/2", "10.0.0.2:80"));
        assert_eq!(list(&table.update(&both(&[one], &[one, two]), &all, &none)), [one, two]);
        assert_eq!(list(&table.update(&both(&[one], &[]), &all, &none)), [one]);
        let out = BTreeSet::from(["/s/web/1".into()]);
        assert!(table.update(&both(&[one], &[]), &all, &out).is_empty());
        assert_eq!(list(&table.update(&both(&[one], &[]), &all, &none)), [one]);
        let moved = ("/s/web/1", "10.0.0.9:80");
        assert_eq!(list(&table.update(&both(&[moved], &[]), &all, &none)), [moved]);
        assert!(table.update(&both(&[], &[]), &all, &none).is_empty());
    }
    #[test]
    fn a_backend_that_no_resource_writes_has_no_route() {
        let (mut table, none) = (RouteTable::default(), BTreeSet::new());
        let (one, two) = (("/s/web/1", "10.0.0.1:80"), ("/s/web/2", "10.0.0.2:80"));
        let both =
            BTreeMap::from([("a".to_owned(), known(&[one, two])), ("b".to_owned(), known(&[two]))]);
        let unwritten = |resources: &[&str]| -> Unwritten {
            let keys = BTreeSet::from([Arc::from("/s/web/2")]);
            resources.iter().map(|resource| ((*resource).to_owned(), keys.clone())).collect()
        };
        assert_eq!(list(&table.update(&both, &unwritten(&["a"]), &none)), [one, two]);
        assert_eq!(list(&table.update(&both, &unwritten(&["a", "b"]), &none)), [one]);
        assert_eq!(list(&table.update(&both, &unwritten(&[]), &none)), [one, two]);
    }
}
