//! The routes that are proven to be active, and what each change of them added and removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::model::Snapshot;

use crate::apply::record::Changes;
use crate::status::audit;
use crate::status::change_summary::{self, Routes};
use crate::status::state::{BackendState, GroupState};

/// What requests are routed by.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// What was routed to when everything was active last; `None`: nothing was yet.
    served: Option<ServedRoutes>,
    /// Keys that etcd has no more and that requests may still be routed by, those of old
    /// generations among them.
    lingering: BTreeSet<String>,
}

#[derive(Debug)]
struct ServedRoutes {
    routes: Routes,
    /// The keys that they were made from.
    keys: Arc<Snapshot>,
}

impl Routing {
    /// What a predecessor had active is routed to until the first load.
    pub(super) fn after(before: Option<&GroupState>) -> Self {
        let route = |backend: &Arc<BackendState>| {
            (Arc::clone(&backend.key), (Arc::clone(&backend.addr), backend.weight))
        };
        let served = before.filter(|before| before.live.is_some()).map(|before| {
            let active = before.backends.values().filter(|backend| backend.live);
            ServedRoutes { routes: active.map(route).collect(), keys: Arc::default() }
        });
        Self { served, lingering: BTreeSet::new() }
    }

    pub(super) fn served(&self) -> Option<&Routes> {
        self.served.as_ref().map(|served| &served.routes)
    }

    /// What makes a load of these routes due, for an operator.
    pub(super) fn cause_of(&self, wanted: &Routes) -> String {
        change_summary::summary(self.served(), wanted)
    }

    /// These routes are active. What that changed.
    pub(super) fn serve(&mut self, routes: Routes, keys: Arc<Snapshot>) -> Changes {
        let before = self.served.as_ref().map(|served| (&served.routes, &*served.keys));
        let changes = audit::changes(before, (&routes, &keys));
        self.served = Some(ServedRoutes { routes, keys });
        changes
    }

    /// `retained` are the absent keys that are rendered. Requests may go by those of before
    /// until files without them are active and no old generation is left: their removal is not
    /// acknowledged sooner, whatever the revision.
    pub(super) fn linger<'k>(
        &mut self,
        retained: impl Iterator<Item = &'k String>,
        is_nothing_older_active: bool,
    ) {
        if is_nothing_older_active {
            self.lingering.clear();
        }
        self.lingering.extend(retained.cloned());
    }

    pub(super) fn lingering(&self) -> &BTreeSet<String> {
        &self.lingering
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::change_summary::Route;

    fn routes(addrs: &[&str]) -> Routes {
        let route = |addr: &&str| -> (Arc<str>, Route) {
            (format!("/services/web/{addr}").into(), ((*addr).into(), 1))
        };
        addrs.iter().map(route).collect()
    }

    #[test]
    fn each_change_is_reported_against_what_was_active_before() {
        let mut routing = Routing::default();
        assert_eq!(routing.cause_of(&routes(&["a:1"])), "start");
        assert!(routing.serve(routes(&["a:1"]), Arc::default()).added.is_some());
        assert_eq!(routing.cause_of(&routes(&["a:1", "b:1"])), "b:1 joined");
        assert_eq!(routing.serve(routes(&["a:1"]), Arc::default()), Changes::default());
    }

    #[test]
    fn a_retained_key_lingers_until_nothing_routes_by_it() {
        let mut routing = Routing::default();
        let retained = ["/services/web/1".to_owned()];
        routing.linger(retained.iter(), true);
        routing.linger([].iter(), false);
        assert_eq!(routing.lingering().len(), 1, "an old generation may route to it");
        routing.linger([].iter(), true);
        assert!(routing.lingering().is_empty());
    }
}
