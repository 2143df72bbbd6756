//! What reload groups that end leave to those that replace them. Pure.

use std::collections::BTreeMap;

use crate::agent::Predecessor;
use crate::backends::known::KnownBackends;
use crate::config::program::CompiledResource;
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::status::state::GroupState;

/// Groups that have ended.
#[derive(Debug, Default)]
pub(in crate::daemon) struct EndedGroups {
    /// By resource.
    known_backends: BTreeMap<String, KnownBackends>,
    states: Vec<(Loader, GroupState)>,
}

impl EndedGroups {
    pub(super) fn add(
        &mut self,
        loader: Loader,
        known_backends: BTreeMap<String, KnownBackends>,
        state: Option<GroupState>,
    ) {
        self.known_backends.extend(known_backends);
        self.states.extend(state.map(|state| (loader, state)));
    }

    /// What `group` takes over: of each of its resources the backends that it still reads, and
    /// the state of a group that the same proxy ran.
    pub(super) fn predecessor_of(&mut self, group: &ReloadGroup) -> Predecessor {
        let known = |program: &CompiledResource| {
            let (name, mut known) = self.known_backends.remove_entry(&program.resource.name)?;
            let trees = &program.resource.reading.trees;
            known.forget_unread(|key| trees.iter().any(|tree| tree.covers(key)));
            Some((name, known))
        };
        let known_backends = group.programs.iter().filter_map(known).collect();
        // A command may be for anything: what another group ran by it says nothing.
        let is_by_name = matches!(group.loader, Loader::Nginx(_) | Loader::Haproxy(_));
        let state = self.states.iter().find(|(loader, _)| is_by_name && *loader == group.loader);
        Predecessor { known_backends, state: state.map(|(_, state)| state.clone()) }
    }
}
