//! Publishes the state of one reload group: to the status page, and to etcd for backends that wait
//! to deregister.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use tokio::sync::watch;

use super::backend_list::BackendList;
use super::emptied::EmptiedServices;
use super::report::{GroupProgress, ReportFacts, resource_state};
use crate::acks::members::LoadBalancerKeys;
use crate::backends::known::KnownBackends;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::status::change_summary::Routes;
use crate::status::state::GroupState;

/// Publishes the state of one reload group.
pub(super) struct Publication {
    publish: watch::Sender<GroupState>,
    /// Who acknowledges; `None` without a handshake.
    members: Option<LoadBalancerKeys>,
    /// The last state of a group that the same proxy ran before this one.
    before: Option<GroupState>,
    backends: BackendList,
    emptied: EmptiedServices,
    /// Since when something is pending.
    pending_since: Option<SystemTime>,
    /// What was published last. A state of thousands of backends is not built again at each check
    /// for old generations.
    published: Option<GroupProgress>,
    /// There was a decision or a step since.
    is_outdated: bool,
}

impl Publication {
    pub(super) fn new(
        group: &ReloadGroup,
        publish: watch::Sender<GroupState>,
        members: Option<LoadBalancerKeys>,
        before: Option<GroupState>,
    ) -> Self {
        let mut backends = BackendList::after(group, before.as_ref());
        let emptied = EmptiedServices::load(group);
        // A predecessor in this process knows them itself.
        if before.is_none() {
            for (resource, service, at) in emptied.reported(SystemTime::now()) {
                backends.note_emptied(resource, service, at);
            }
        }
        let (pending_since, published, is_outdated) = (None, None, true);
        Self { publish, members, before, backends, emptied, pending_since, published, is_outdated }
    }

    /// There was a decision or a step: whatever is shown may be different now.
    pub(super) fn outdate(&mut self) {
        self.is_outdated = true;
    }

    /// What a predecessor had active.
    pub(super) fn active_before(&self) -> Option<&str> {
        self.before.as_ref()?.live.as_deref()
    }

    /// Whether anything may be different from what was published.
    pub(super) fn is_due(&mut self, progress: &GroupProgress) -> bool {
        let is_outdated = std::mem::take(&mut self.is_outdated);
        if !is_outdated && self.published.as_ref() == Some(progress) {
            return false;
        }
        self.published = Some(progress.clone());
        true
    }

    /// Acknowledges what each resource has applied; nothing before the first decision.
    pub(super) fn acknowledge(
        &self,
        facts: &ReportFacts<'_>,
        lingering: &BTreeSet<String>,
        is_assumed: bool,
    ) {
        let Some(members) = &self.members else { return };
        if facts.progress.decided.is_none() {
            return;
        }
        for program in &facts.group.programs {
            let acknowledgement = facts.acknowledgement(program, lingering, is_assumed);
            members.acknowledge(&program.resource.name, acknowledgement);
        }
    }

    /// The store has regressed: what was acknowledged before counts for nothing.
    pub(super) fn withdraw_acknowledgements(&self, group: &ReloadGroup) {
        let Some(members) = &self.members else { return };
        for program in &group.programs {
            members.withdraw_acknowledgement(&program.resource.name);
        }
    }

    /// Shows the state. `by_keys`: of a resource, whether its backends count by their keys.
    /// `served`: what is proven to be routed to.
    pub(super) fn show(
        &mut self,
        facts: &ReportFacts<'_>,
        known: &BTreeMap<String, KnownBackends>,
        by_keys: impl Fn(&str) -> bool,
        served: Option<&Routes>,
    ) {
        let now = SystemTime::now();
        let is_pending = !facts.progress.in_sync;
        self.pending_since = is_pending.then(|| self.pending_since.unwrap_or(now));
        let backends = self.backends.update(known, served, now);
        let resource = |program: &CompiledResource| {
            let name = &program.resource.name;
            resource_state(program, self.backends.services_of(name), by_keys(name))
        };
        let resources: Vec<_> = facts.group.programs.iter().map(resource).collect();
        self.emptied.update(&resources);
        let loads_before = self.before.as_ref().map_or(&[][..], |before| &before.loads);
        let state = facts.state(backends, resources, self.pending_since, loads_before);
        self.publish.send_replace(state);
    }

    /// Keeps for the next start which services have lost their last backend.
    pub(super) async fn keep_emptied(&mut self) {
        self.emptied.keep().await;
    }
}
