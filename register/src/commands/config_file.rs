//! `services.toml` at the start, while it cannot be used: it is read again until it can, because
//! people correct files. A supervised backend runs meanwhile.

use std::time::Duration;

use common::runtime::{ServiceManager, Signals};
use common::settings::Mistakes;

use crate::config::{ConfigSources, RegisterConfig, Unusable};
use crate::probe::Probe;

/// How often the file is read again; SIGHUP reads it at once.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// What a sidekick starts with, as soon as the file can be used. `None`: SIGTERM came first.
pub(super) async fn usable(
    sources: &ConfigSources,
    manager: &ServiceManager,
    signals: &Signals,
    mut wrong: Mistakes,
) -> Option<(RegisterConfig, Vec<Vec<Probe>>)> {
    let mut hangups = signals.hangups.clone();
    let mut logged = String::new();
    loop {
        let now = wrong.to_string();
        if now != logged {
            report(manager, &now);
            logged = now;
        }
        tokio::select! {
            () = signals.drain.cancelled() => return None,
            Ok(()) = hangups.changed() => {}
            () = tokio::time::sleep(READ_AGAIN) => {}
        }
        match sources.prepared() {
            Ok(usable) => {
                tracing::info!("the configuration file is usable again");
                return Some(usable);
            }
            // A file that was there is being replaced.
            Err(Unusable::File(again) | Unusable::CommandLine(again)) => wrong = again,
        }
    }
}

fn report(manager: &ServiceManager, wrong: &str) {
    for mistake in wrong.lines() {
        tracing::error!(
            "the configuration file cannot be used; reading it again until it can: {mistake}"
        );
    }
    let first = wrong.lines().next().unwrap_or_default();
    manager.status(&format!("waiting for a usable configuration file: {first}"));
}
