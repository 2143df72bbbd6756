//! Reload groups that could not begin: another process writes their files, a folder is missing,
//! nginx cannot be asked what it is. Each is tried again until it can; meanwhile a supervised
//! program runs by the files in place.

use std::time::Duration;

use common::runtime::Gate;
use tokio::time::Instant;

use super::super::early::nginx_of;
use super::super::locks::{HANDED_OVER, is_held};
use super::ReloadGroups;
use crate::agent::Predecessor;
use crate::config::reload_group::ReloadGroup;
use crate::install::current;
use crate::status::state::GroupState;

/// How often a group that could not begin is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A reload group that is to begin.
#[derive(Clone)]
pub(in crate::daemon) struct NewGroup {
    pub(in crate::daemon) group: ReloadGroup,
    pub(in crate::daemon) predecessor: Predecessor,
}

/// One that could not begin.
pub(super) struct WaitingGroup {
    pub(super) new: NewGroup,
    joined: Gate,
    why: String,
    again: Instant,
}

impl NewGroup {
    pub(in crate::daemon) fn of(group: ReloadGroup) -> Self {
        Self { group, predecessor: Predecessor::default() }
    }
}

impl WaitingGroup {
    /// Nothing of it is live, as far as we know.
    pub(super) fn state(&self) -> GroupState {
        let empty = || GroupState::empty(&self.new.group.name);
        let before = self.new.predecessor.state.clone().unwrap_or_else(empty);
        let trouble = Some(format!("cannot start: {}", self.why));
        let name = self.new.group.name.clone();
        GroupState { name, live: None, in_sync: false, trouble, trouble_at: None, ..before }
    }
}

impl ReloadGroups {
    /// Begins all groups at the start. Those that cannot are tried again later.
    ///
    /// # Errors
    /// When none can, and no program of ours serves: then the service manager tries again.
    pub(in crate::daemon) async fn begin_all(
        &mut self,
        groups: Vec<ReloadGroup>,
        joined: &Gate,
    ) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for group in groups {
            let new = NewGroup::of(group);
            if let Err(error) = self.begin(new.clone(), joined, HANDED_OVER).await {
                failed.push((new, error));
            }
        }
        let is_useless = self.environment.child.is_none() && self.running() == 0;
        if is_useless && !failed.is_empty() {
            // A file that another process writes is reported only if nothing else is wrong: that may pass.
            let first = failed.iter().position(|(_, error)| !is_held(error)).unwrap_or_default();
            return Err(failed.swap_remove(first).1);
        }
        for (new, error) in failed {
            self.wait_to_begin(new, joined.clone(), &error).await;
        }
        Ok(())
    }

    /// Begins `new`, or has it tried again later.
    pub(in crate::daemon) async fn begin_or_wait(&mut self, new: NewGroup, joined: &Gate) {
        if let Err(error) = self.begin(new.clone(), joined, HANDED_OVER).await {
            self.wait_to_begin(new, joined.clone(), &error).await;
        }
    }

    async fn wait_to_begin(&mut self, new: NewGroup, joined: Gate, error: &anyhow::Error) {
        let why = format!("{error:#}");
        tracing::error!(set = new.group.name, "cannot start, retrying: {why}");
        self.serve_what_is_in_place(&new.group).await;
        self.waiting.push(WaitingGroup { new, joined, why, again: Instant::now() + AGAIN });
    }

    /// When the next group is to be tried again.
    pub(in crate::daemon) fn next_begin(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.again).min()
    }

    /// Tries the groups whose time it is.
    pub(in crate::daemon) async fn begin_again(&mut self) {
        let now = Instant::now();
        let due = |waiting: &mut WaitingGroup| waiting.again <= now;
        let due: Vec<_> = self.waiting.extract_if(.., due).collect();
        for mut waiting in due {
            let name = waiting.new.group.name.clone();
            let begun = self.begin(waiting.new.clone(), &waiting.joined, Duration::ZERO).await;
            let Err(error) = begun else {
                tracing::info!(set = name, "started after all");
                continue;
            };
            let why = format!("{error:#}");
            if why != waiting.why {
                tracing::error!(set = name, "cannot start, retrying: {why}");
            }
            self.serve_what_is_in_place(&waiting.new.group).await;
            (waiting.why, waiting.again) = (why, Instant::now() + AGAIN);
            self.waiting.push(waiting);
        }
    }

    /// A supervised program does not wait for a group that cannot begin, if its files are there.
    async fn serve_what_is_in_place(&self, group: &ReloadGroup) {
        let environment = &self.environment;
        let Some(child) = environment.child.as_ref().filter(|child| child.is_to_start()) else {
            return;
        };
        if !group.programs.iter().all(|program| program.resource.target.dest.exists()) {
            return;
        }
        // Without an nginx that answers there is nothing to start.
        let Ok(nginx) = nginx_of(std::slice::from_ref(group), environment.argv.as_ref()).await
        else {
            return;
        };
        let targets = group.targets();
        let files = current(&targets).ok().flatten();
        if let Err(why) = child.placed(&group.name, files, nginx).await {
            tracing::error!("cannot start {}: {why}", child.name());
        }
    }
}
