//! Reload groups that could not begin: another process writes their files, a folder is missing,
//! nginx cannot be asked what it is. Each is tried again until it can; meanwhile a supervised
//! program runs by the files in place.

use std::collections::BTreeMap;
use std::time::Duration;

use common::runtime::Gate;
use tokio::time::Instant;

use super::Daemon;
use super::early::nginx_of;
use crate::backends::known::KnownBackends;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::install::{Target, current};
use crate::proxy::child::Life;
use crate::status::state::GroupState;

/// How often a group that could not begin is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A reload group that is to begin.
#[derive(Clone)]
pub(super) struct NewGroup {
    pub(super) set: ReloadGroup,
    /// What was known of its backends before, by resource.
    pub(super) known_backends: BTreeMap<String, KnownBackends>,
    /// The last state of the group that it replaces.
    pub(super) before: Option<GroupState>,
}

/// One that could not begin.
pub(super) struct WaitingGroup {
    pub(super) new: NewGroup,
    joined: Gate,
    why: String,
    again: Instant,
}

impl NewGroup {
    pub(super) fn of(set: ReloadGroup) -> Self {
        Self { set, known_backends: BTreeMap::new(), before: None }
    }
}

impl WaitingGroup {
    /// Nothing of it is live, as far as we know.
    pub(super) fn state(&self) -> GroupState {
        let empty = || GroupState::empty(&self.new.set.name);
        let before = self.new.before.clone().unwrap_or_else(empty);
        let trouble = Some(format!("cannot begin: {}", self.why));
        let name = self.new.set.name.clone();
        GroupState { name, live: None, in_sync: false, trouble, trouble_at: None, ..before }
    }
}

impl Daemon {
    /// Begins `new`, or has it tried again later.
    pub(super) async fn begin_or_wait(&mut self, new: NewGroup, joined: &Gate) {
        if let Err(error) = self.begin(new.clone(), joined, super::HANDED_OVER).await {
            self.wait_to_begin(new, joined.clone(), &error).await;
        }
    }

    async fn wait_to_begin(&mut self, new: NewGroup, joined: Gate, error: &anyhow::Error) {
        let why = format!("{error:#}");
        tracing::error!(set = new.set.name, "cannot begin, and tries again: {why}");
        self.serve_what_is_in_place(&new.set).await;
        self.waiting.push(WaitingGroup { new, joined, why, again: Instant::now() + AGAIN });
    }

    /// When the next group is to be tried again.
    pub(super) fn next_begin(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.again).min()
    }

    /// Tries the groups whose time it is.
    pub(super) async fn begin_again(&mut self) {
        let now = Instant::now();
        let due = |waiting: &mut WaitingGroup| waiting.again <= now;
        let due: Vec<_> = self.waiting.extract_if(.., due).collect();
        for mut waiting in due {
            let name = waiting.new.set.name.clone();
            let begun = self.begin(waiting.new.clone(), &waiting.joined, Duration::ZERO).await;
            let Err(error) = begun else {
                tracing::info!(set = name, "could begin now");
                continue;
            };
            let why = format!("{error:#}");
            if why != waiting.why {
                tracing::error!(set = name, "cannot begin, and tries again: {why}");
            }
            self.serve_what_is_in_place(&waiting.new.set).await;
            (waiting.why, waiting.again) = (why, Instant::now() + AGAIN);
            self.waiting.push(waiting);
        }
    }

    /// A supervised program does not wait for a group that cannot begin, if its files are there.
    async fn serve_what_is_in_place(&self, set: &ReloadGroup) {
        let Some(child) = self.child.as_ref().filter(|child| child.life() == Life::Waiting) else {
            return;
        };
        if !set.programs.iter().all(|program| program.resource.dest.exists()) {
            return;
        }
        // Without an nginx that answers there is nothing to start.
        let Ok(nginx) = nginx_of(std::slice::from_ref(set), self.argv.as_ref()).await else {
            return;
        };
        let targets: Vec<Target> = set.programs.iter().map(CompiledResource::target).collect();
        let files = current(&targets).ok().flatten();
        if let Err(why) = child.placed(&set.name, files, nginx).await {
            tracing::error!("cannot start {}: {why}", child.name());
        }
    }
}
