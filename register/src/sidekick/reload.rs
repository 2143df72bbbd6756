//! SIGHUP: the configuration is read again, and a bad one changes nothing.

use common::model::Key;
use common::settings::Mistakes;

use crate::config::{ConfigSources, Diff, RegisterConfig, Service, prepare};
use crate::probe::Probe;

/// What has to be done to get from one configuration to another.
pub(super) struct ReloadPlan {
    /// Services that are no longer there.
    pub(super) removed: Vec<Key>,
    /// Services that are new, or are asked in another way than before.
    pub(super) probed_anew: Vec<(Service, Vec<Probe>)>,
    /// Services of which only the value changed.
    pub(super) probed_as_before: Vec<Service>,
}

/// A new configuration, and how to get there.
pub(super) struct Reload {
    pub(super) config: RegisterConfig,
    pub(super) plan: ReloadPlan,
}

/// Reads the configuration again. `None`: there is none to read, or it is bad.
pub(super) fn read(sources: &ConfigSources, current: &RegisterConfig) -> Option<Reload> {
    if sources.file().is_none() {
        tracing::info!("SIGHUP: without --config there is nothing to read again");
        return None;
    }
    let planned = sources.load().and_then(|new| {
        let diff = current.diff(&new);
        let restart = diff.restart.clone();
        plan(diff).map(|plan| (new, plan, restart))
    });
    let (new, plan, restart) = planned
        .inspect_err(|mistakes| tracing::error!("keeping the current configuration:\n{mistakes}"))
        .ok()?;
    for name in restart {
        tracing::warn!(setting = name, "changed; it takes effect with a restart");
    }
    // What holds for the process stays until it is started again.
    let config = RegisterConfig { process: current.process.clone(), ..new };
    Some(Reload { config, plan })
}

fn plan(diff: Diff) -> Result<ReloadPlan, Mistakes> {
    let (mut anew, mut probed_as_before) = (diff.added, Vec::new());
    for (before, after) in diff.changed {
        let asked = |s: &Service| (s.checks.clone(), s.policy.clone(), s.timeout);
        if asked(&before) == asked(&after) { &mut probed_as_before } else { &mut anew }.push(after);
    }
    let probes = prepare(&anew)?;
    let removed = diff.removed.into_iter().map(|service| service.target.key).collect();
    Ok(ReloadPlan {
        removed,
        probed_anew: anew.into_iter().zip(probes).collect(),
        probed_as_before,
    })
}
