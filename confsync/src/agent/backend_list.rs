//! The backends as the status shows them: those that are wanted, and those that are routed to
//! still. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use common::model::changed_keys;

use crate::backends::known::KnownBackends;
use crate::backends::{Backends, RegisteredBackend};
use crate::config::reload_group::ReloadGroup;
use crate::status::change_summary::{Route, Routes};
use crate::status::resources::{ServiceCounts, ServiceState};
use crate::status::state::{BackendCounts, BackendState, BackendStates, GroupState};

/// The backends of one reload group as they were shown last, kept up to date by what changes.
#[derive(Debug)]
pub(super) struct BackendList {
    shown: BackendStates,
    /// The services of each resource, in numbers.
    services: ServiceCounts,
    /// How many are wanted, and how many of them are retained.
    counts: BackendCounts,
    /// What all of it was made of; `None` before the first update.
    made_of: Option<Facts>,
}

/// What the list of backends is made of.
#[derive(Debug, Default)]
struct Facts {
    known: BTreeMap<String, KnownFacts>,
    /// What is proven to be routed to.
    served: Routes,
}

#[derive(Debug, Default)]
struct KnownFacts {
    backends: Backends,
    retained: BTreeSet<String>,
}

impl Facts {
    fn of(known: &BTreeMap<String, KnownBackends>, served: Option<&Routes>) -> Self {
        let facts = |known: &KnownBackends| KnownFacts {
            backends: known.backends().clone(),
            retained: known.retained().clone(),
        };
        Self {
            known: known.iter().map(|(name, known)| (name.clone(), facts(known))).collect(),
            served: served.cloned().unwrap_or_default(),
        }
    }

    /// The keys whose state may be another one by `now`.
    fn changed(&self, now: &Self) -> BTreeSet<Arc<str>> {
        let mut changed: BTreeSet<Arc<str>> =
            changed_keys(&self.served, &now.served).cloned().collect();
        let nothing = KnownFacts::default();
        for (resource, now) in &now.known {
            let before = self.known.get(resource).unwrap_or(&nothing);
            changed.extend(changed_keys(&before.backends, &now.backends).cloned());
            let retained = before.retained.symmetric_difference(&now.retained);
            changed.extend(retained.map(|key| Arc::from(key.as_str())));
        }
        changed
    }

    /// The backend of a key in each resource that has it, and whether it is retained there.
    fn find<'f>(
        &'f self,
        key: &'f str,
    ) -> impl Iterator<Item = (&'f String, &'f RegisteredBackend, bool)> {
        self.known.iter().filter_map(move |(resource, known)| {
            let registered = known.backends.get(key)?;
            Some((resource, &**registered, known.retained.contains(key)))
        })
    }

    /// Whether requests go to a backend as it is registered.
    fn is_live(&self, key: &str, registered: &RegisteredBackend) -> bool {
        let backend = &registered.backend;
        self.served.get(key).is_some_and(|(addr, weight)| {
            *weight == backend.weight && **addr == *backend.addr.to_string()
        })
    }
}

impl BackendList {
    /// What is known before anything is read: the services that the keys name, and what a
    /// predecessor has shown.
    pub(super) fn after(group: &ReloadGroup, before: Option<&GroupState>) -> Self {
        let mut services = ServiceCounts::default();
        for program in &group.programs {
            let resource = &program.resource;
            for service in resource.reading.services_named() {
                services.expect(&resource.name, &Arc::from(service));
            }
            let before = before.into_iter().flat_map(|before| &before.resources);
            for state in before.filter(|before| before.name == resource.name) {
                state.services.iter().for_each(|s| services.go_on(&resource.name, s));
            }
        }
        let shown = before.map(|before| before.backends.clone()).unwrap_or_default();
        let counts = BackendCounts::of(&shown);
        Self { shown, services, counts, made_of: None }
    }

    /// An earlier run saw a service lose its last backend.
    pub(super) fn note_emptied(&mut self, resource: &str, service: &str, at: SystemTime) {
        let (service, emptied) = (Arc::from(service), Some(at));
        let before = ServiceState { service, emptied, ..ServiceState::default() };
        self.services.go_on(resource, &before);
    }

    /// All backends of now. `served`: what is proven to be routed to.
    pub(super) fn update(
        &mut self,
        known: &BTreeMap<String, KnownBackends>,
        served: Option<&Routes>,
        now: SystemTime,
    ) -> (BackendStates, BackendCounts) {
        let facts = Facts::of(known, served);
        let is_first = self.made_of.is_none();
        let before = self.made_of.take().unwrap_or_default();
        let mut changed = before.changed(&facts);
        if is_first {
            changed.extend(self.shown.keys().cloned());
        }
        for key in &changed {
            for (resource, registered, is_retained) in before.find(key) {
                let is_live = before.is_live(key, registered);
                let counted = (is_live, is_retained);
                self.services.subtract(resource, &registered.service, counted, now);
            }
            let state = self.state(key, &facts, now);
            self.show(key, state);
        }
        self.made_of = Some(facts);
        (self.shown.clone(), self.counts)
    }

    /// The services of a resource, by name.
    pub(super) fn services_of(&self, resource: &str) -> Vec<ServiceState> {
        self.services.of(resource)
    }

    /// Counts a backend in its services. Its state; none if it is neither wanted nor routed to.
    fn state(
        &mut self,
        key: &Arc<str>,
        facts: &Facts,
        now: SystemTime,
    ) -> Option<Arc<BackendState>> {
        let before = self.shown.get(key).cloned();
        let mut state = None;
        for (resource, registered, is_retained) in facts.find(key) {
            let is_live = facts.is_live(key, registered);
            self.services.add(resource, &registered.service, is_live, is_retained);
            let backend = &registered.backend;
            state = Some(BackendState {
                key: Arc::clone(key),
                service: Arc::clone(&registered.service),
                live: is_live,
                addr: backend.addr.to_string().into(),
                weight: backend.weight,
                zone: backend.zone.clone(),
                retained: is_retained,
                leaving: false,
                since: before.as_ref().map_or(now, |before| before.since),
            });
        }
        let state = state.or_else(|| Some(leaving(before.as_ref()?, facts.served.get(key)?)));
        state.map(Arc::new)
    }

    fn show(&mut self, key: &Arc<str>, state: Option<Arc<BackendState>>) {
        let before = match &state {
            Some(state) => self.shown.insert(Arc::clone(key), Arc::clone(state)),
            None => self.shown.remove(key),
        };
        self.counts.replace(before.as_deref(), state.as_deref());
    }
}

/// One that is not wanted any more, and routed to until the next load is proven.
fn leaving(shown: &BackendState, (addr, weight): &Route) -> BackendState {
    BackendState {
        addr: Arc::clone(addr),
        weight: *weight,
        retained: false,
        live: true,
        leaving: true,
        ..shown.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::ParsedKeys;
    use crate::config::sample::SampleConfdir;
    use common::model::Backend;
    use proptest::prelude::*;

    const KEYS: [&str; 4] = ["/services/a/1", "/services/a/2", "/services/b/1", "/services/b/2"];
    const VALUES: [&str; 3] =
        ["10.0.0.1:80", "10.0.0.2:80", r#"{"addr":"10.0.0.3:80","weight":3}"#];

    fn registered(key: &str, value: &str) -> RegisteredBackend {
        RegisteredBackend {
            service: key.split('/').nth(2).unwrap().into(),
            backend: Backend::parse(value.as_bytes()).unwrap(),
            raw: None,
            is_setting: false,
        }
    }

    fn known(values: &[usize], retained: usize) -> BTreeMap<String, KnownBackends> {
        let mut seen = ParsedKeys::default();
        for (key, value) in KEYS.iter().zip(values) {
            if let Some(value) = VALUES.get(*value) {
                seen.backends.insert((*key).into(), Arc::new(registered(key, value)));
            }
        }
        let retained = KEYS.get(retained).filter(|key| seen.backends.contains_key(**key));
        let mut known = KnownBackends::default();
        known.adopt(&seen, retained.map(|key| (*key).to_owned()).into_iter().collect());
        BTreeMap::from([("app".to_owned(), known)])
    }

    fn routes(values: &[usize]) -> Routes {
        let route = |(key, value): (&&str, &usize)| {
            let backend = registered(key, VALUES.get(*value)?).backend;
            Some((Arc::from(*key), (Arc::from(backend.addr.to_string()), backend.weight)))
        };
        KEYS.iter().zip(values).filter_map(route).collect::<Vec<(Arc<str>, Route)>>().into()
    }

    proptest! {
        #[test]
        fn a_list_that_follows_changes_is_the_list_made_anew(
            steps in proptest::collection::vec(
                (proptest::collection::vec(0usize..4, 4), proptest::collection::vec(0usize..4, 4),
                 0usize..6, any::<bool>()),
                1..12,
            ),
        ) {
            let group = SampleConfdir::new("keys = [\"/services\"]\n", "").group();
            let mut list = BackendList::after(&group, None);
            for (wanted, served, retained, is_served) in steps {
                let (known, routes) = (known(&wanted, retained), routes(&served));
                let served = is_served.then_some(&routes);
                let (before, now) = (list.shown.clone(), SystemTime::UNIX_EPOCH);
                let (shown, counts) = list.update(&known, served, now);
                let mut anew = BackendList { shown: before, ..BackendList::after(&group, None) };
                prop_assert_eq!(&anew.update(&known, served, now).0, &shown);
                prop_assert_eq!(counts, BackendCounts::of(&shown));
                let counted = |list: &BackendList| {
                    let all = list.services_of("app").into_iter();
                    // A new list does not know when a service lost its last.
                    let all = all.map(|service| {
                        assert!(service.emptied.is_none() || service.in_rotation == 0);
                        ServiceState { emptied: None, ..service }
                    });
                    all.filter(|service| service.backends > 0).collect::<Vec<_>>()
                };
                prop_assert_eq!(counted(&list), counted(&anew));
            }
        }
    }
}
