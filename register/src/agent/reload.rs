//! SIGHUP: the configuration is read again, and only what changed is touched.

use std::time::Duration;

use common::store::Store;

use super::Agent;
use crate::config::{self, Config};

impl<S: Store> Agent<S> {
    /// Reads the configuration again; what did not change is not touched, and a bad
    /// one changes nothing.
    pub(super) fn reload(&mut self) {
        if self.parts.sources.file().is_none() {
            tracing::info!("SIGHUP: without --config there is nothing to read again");
            return;
        }
        let new = match self.parts.sources.load() {
            Ok(new) => new,
            Err(errors) => {
                tracing::error!("the configuration is left as it was:\n{errors}");
                return;
            }
        };
        let diff = self.parts.config.diff(&new);
        for name in &diff.restart {
            tracing::warn!(setting = name, "changed; it takes effect with a restart");
        }
        for service in &diff.removed {
            tracing::info!(key = %service.target.key, "no longer wanted");
            self.running.remove(&service.target.key);
        }
        let changed = diff.changed.into_iter().map(|(_, new)| new);
        for service in diff.added.into_iter().chain(changed) {
            let key = service.target.key.clone();
            if let Some(running) = self.running.get_mut(&key)
                && running.service.checks == service.checks
                && running.service.policy == service.policy
                && running.service.timeout == service.timeout
            {
                running.service = service;
                continue;
            }
            match config::prepare(std::slice::from_ref(&service)) {
                Ok(probes) => {
                    self.begin(service, probes.into_iter().flatten().collect(), Duration::ZERO);
                    tracing::info!(%key, "probing");
                }
                Err(errors) => tracing::error!(%key, "not started: {errors}"),
            }
        }
        let process = self.parts.config.process.clone();
        self.parts.config = Config { process, ..new };
        tracing::info!(services = self.running.len(), "configuration read again");
    }
}
