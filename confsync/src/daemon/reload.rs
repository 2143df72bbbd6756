//! The confdir is read again, and only what changed is begun anew.

use super::Daemon;
use super::registration::consumed_by;
use crate::config::load::{Loaded, load};
use crate::config::reload_group::ReloadGroup;

impl Daemon {
    /// Reads the confdir again. What did not change is not touched, and a bad one
    /// changes nothing.
    pub(super) async fn reload(&mut self) {
        match load(&self.config.confdir, &self.config.globals) {
            Ok(loaded) => {
                self.confdir_error = None;
                self.take(loaded).await;
            }
            Err(error) => tracing::error!("keeping the current configuration:\n{error:#}"),
        }
    }

    /// The same at each pass, as confd does it: nothing is logged or tried again where nothing
    /// changed.
    pub(super) async fn reread(&mut self) {
        match load(&self.config.confdir, &self.config.globals) {
            Ok(loaded) => {
                self.confdir_error = None;
                let known: Vec<_> = self.groups.all().collect();
                let is_known = |set: &ReloadGroup| known.iter().any(|known| known.same_as(set));
                if loaded.sets.len() != known.len() || !loaded.sets.iter().all(is_known) {
                    self.take(loaded).await;
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.confdir_error.as_ref() != Some(&text) {
                    tracing::error!("keeping the current configuration:\n{text}");
                }
                self.confdir_error = Some(text);
            }
        }
    }

    async fn take(&mut self, loaded: Loaded) {
        loaded.log_notes();
        let before: Vec<_> = self.groups.all().flat_map(consumed_by).collect();
        let now: Vec<_> = loaded.sets.iter().flat_map(consumed_by).collect();
        let ended = self.groups.end_others(&loaded.sets).await;
        let joined = self.registration.join_anew(&before, now).await;
        self.groups.expect(&loaded.sets).await;
        self.groups.begin_missing(loaded.sets, ended, &joined).await;
        tracing::info!(sets = self.groups.running(), "confdir read again");
    }
}
