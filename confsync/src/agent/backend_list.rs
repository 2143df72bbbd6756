//! The backends as the status shows them: those that are wanted, and those that are routed to
//! still. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::backends::RegisteredBackend;
use crate::backends::known::KnownBackends;
use crate::config::reload_group::ReloadGroup;
use crate::status::change_summary::{Route, Routes};
use crate::status::resources::{ServiceCounts, ServiceState};
use crate::status::state::{BackendState, GroupState};

type Backends = BTreeMap<Arc<str>, Arc<BackendState>>;

/// The backends of one reload group as they were shown last.
#[derive(Debug)]
pub(super) struct BackendList {
    shown: Backends,
    /// The services of each resource, as they were counted last.
    services: ServiceCounts,
}

impl BackendList {
    /// What is known before anything is read: the services that the keys name, and what a
    /// predecessor has shown.
    pub(super) fn after(group: &ReloadGroup, before: Option<&GroupState>) -> Self {
        let mut services = ServiceCounts::default();
        for program in &group.programs {
            for service in program.resource.reading.services_named() {
                services.expect(&program.resource.name, &Arc::from(service));
            }
        }
        for resource in before.into_iter().flat_map(|before| &before.resources) {
            for state in &resource.services {
                services.expect(&resource.name, &state.service);
            }
        }
        let shown = before.into_iter().flat_map(|before| &before.backends);
        let shown = shown.map(|backend| (Arc::clone(&backend.key), Arc::clone(backend))).collect();
        Self { shown, services }
    }

    /// All backends of now. `served`: what is proven to be routed to.
    pub(super) fn update(
        &mut self,
        group: &ReloadGroup,
        known: &BTreeMap<String, KnownBackends>,
        served: Option<&Routes>,
        now: SystemTime,
    ) -> Vec<Arc<BackendState>> {
        let names: BTreeSet<&str> =
            group.programs.iter().map(|program| program.resource.name.as_str()).collect();
        self.services.reset(&names);
        let mut found = Backends::new();
        for (resource, known) in known {
            for (key, registered) in known.backends() {
                let route = served.and_then(|served| served.get(key));
                let is_retained = known.held().contains(&**key);
                let state = self.wanted(key, registered, route, is_retained, now);
                self.services.count(resource, &state.service, state.live, state.held);
                found.insert(Arc::clone(key), state);
            }
        }
        for (key, shown) in std::mem::take(&mut self.shown) {
            if let Some(route) = served.and_then(|served| served.get(&key)) {
                found.entry(key).or_insert_with(|| Arc::new(leaving(&shown, route)));
            }
        }
        self.shown.clone_from(&found);
        found.into_values().collect()
    }

    /// The services of a resource, by name.
    pub(super) fn services_of(&self, resource: &str) -> Vec<ServiceState> {
        self.services.of(resource)
    }

    fn wanted(
        &self,
        key: &Arc<str>,
        registered: &RegisteredBackend,
        route: Option<&Route>,
        is_retained: bool,
        now: SystemTime,
    ) -> Arc<BackendState> {
        let backend = &registered.backend;
        let addr = backend.addr.to_string();
        let active = route.filter(|(at, weight)| **at == *addr && *weight == backend.weight);
        let before = self.shown.get(key);
        let state = BackendState {
            key: Arc::clone(key),
            service: Arc::clone(&registered.service),
            live: active.is_some(),
            addr: active.map_or_else(|| addr.into(), |(at, _)| Arc::clone(at)),
            weight: backend.weight,
            zone: backend.zone.clone(),
            held: is_retained,
            leaving: false,
            since: before.map_or(now, |before| before.since),
        };
        // Nearly all are as they were, and then kept once.
        let same = before.filter(|before| ***before == state);
        same.map_or_else(|| Arc::new(state), Arc::clone)
    }
}

/// One that is not wanted any more, and routed to until the next load is proven.
fn leaving(shown: &BackendState, (addr, weight): &Route) -> BackendState {
    BackendState {
        addr: Arc::clone(addr),
        weight: *weight,
        held: false,
        live: true,
        leaving: true,
        ..shown.clone()
    }
}
