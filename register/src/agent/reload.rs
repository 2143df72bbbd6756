//! SIGHUP: the configuration is read again, and only what changed is touched.

use std::time::Duration;

use common::store::Store;

use super::Agent;
use crate::config::{self, Config, Service};

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
        let changed = diff.changed.into_iter().map(|(_, new)| new);
        let (probed, same): (Vec<_>, Vec<_>) =
            diff.added.into_iter().chain(changed).partition(|service| self.is_probed_anew(service));
        let probes = match config::prepare(&probed) {
            Ok(probes) => probes,
            Err(errors) => {
                tracing::error!("the configuration is left as it was:\n{errors}");
                return;
            }
        };
        for name in &diff.restart {
            tracing::warn!(setting = name, "changed; it takes effect with a restart");
        }
        for service in &diff.removed {
            tracing::info!(key = %service.target.key, "no longer wanted");
            self.running.remove(&service.target.key);
        }
        for service in same {
            if let Some(running) = self.running.get_mut(&service.target.key) {
                running.service = service;
            }
        }
        for (service, probes) in probed.into_iter().zip(probes) {
            tracing::info!(key = %service.target.key, "probing");
            self.begin(service, probes, Duration::ZERO);
        }
        let process = self.parts.config.process.clone();
        self.parts.config = Config { process, ..new };
        tracing::info!(services = self.running.len(), "configuration read again");
    }

    /// Whether a service is new, or asked in another way than it is now.
    fn is_probed_anew(&self, service: &Service) -> bool {
        self.running.get(&service.target.key).is_none_or(|running| {
            let Service { checks, policy, timeout, .. } = &running.service;
            (checks, policy, timeout) != (&service.checks, &service.policy, &service.timeout)
        })
    }
}
