//! The state of the services, worded for an operator: for STATUS= and for the log.

use std::time::Duration;

use common::claim::KeyStatus;
use common::model::{Key, format_span, plural};
use common::registrar::RegistrarReport;

use super::registration::KeyStatuses;
use crate::health::HealthState;
use crate::probe::Verdict;
use crate::prober::ProbeReport;

/// How many services that are not registered are named.
const NAMED: usize = 3;

/// One line for `systemctl status`.
pub(super) fn of<'a>(
    services: impl Iterator<Item = (&'a Key, ProbeReport)>,
    statuses: &KeyStatuses,
    registrar: &RegistrarReport,
) -> String {
    let lines: Vec<(bool, String)> = services
        .map(|(key, report)| {
            let status = statuses.get(key);
            let registered = matches!(status, Some(KeyStatus::Owned { .. }));
            (registered, of_one(key, &report, status))
        })
        .collect();
    let text = match lines.as_slice() {
        [(_, line)] => line.clone(),
        lines => {
            let registered = lines.iter().filter(|(registered, _)| *registered).count();
            let others = lines.iter().filter(|(registered, _)| !registered).take(NAMED);
            let others: Vec<&str> = others.map(|(_, line)| line.as_str()).collect();
            let mut text = format!("{registered} of {} registered", plural(lines.len(), "service"));
            if !others.is_empty() {
                text.push_str(&format!("; {}", others.join("; ")));
            }
            text
        }
    };
    match &registrar.failure {
        Some(failure) => {
            let span = Duration::from_secs(failure.since.elapsed().as_secs());
            format!("{text}; for {}: {}", format_span(span), failure.error)
        }
        None => text,
    }
}

fn of_one(key: &Key, report: &ProbeReport, status: Option<&KeyStatus>) -> String {
    match (report.state, status) {
        (HealthState::Starting, _) => format!("{key}: waiting for the backend{}", why(report)),
        (HealthState::Down, _) => format!("{key}: not registered, unhealthy{}", why(report)),
        (HealthState::Up, Some(KeyStatus::Owned { .. })) => format!("{key}: registered"),
        (HealthState::Up, Some(KeyStatus::Rival { value })) => {
            format!("{key}: waiting, `{}` is registered there", shown(value))
        }
        (HealthState::Up, _) => format!("{key}: healthy, registering"),
    }
}

fn why(report: &ProbeReport) -> String {
    match report.last.as_ref().map(|outcome| &outcome.verdict) {
        Some(Verdict::Fail(why)) => format!(" ({why})"),
        Some(Verdict::NotMade(why)) => format!(" (cannot probe: {why})"),
        Some(Verdict::Pass) | None => String::new(),
    }
}

/// The log line of a change in etcd; `ours` is the value that is wanted there, `away`: etcd
/// does not answer.
pub(super) fn log_status(key: &Key, ours: &[u8], change: (&KeyStatus, &KeyStatus), away: bool) {
    match change {
        (KeyStatus::Owned { .. }, KeyStatus::Owned { .. }) => {}
        (_, KeyStatus::Owned { at, .. }) => {
            tracing::info!(%key, revision = at.0, change = %format_args!("{key}@{at}"), "registered");
        }
        (KeyStatus::Rival { value: one }, KeyStatus::Rival { value: other }) if one == other => {}
        (_, KeyStatus::Rival { value }) if value == ours => tracing::info!(
            %key,
            "the key has our value already: it is taken over from an earlier instance; if \
             another instance at the same address refreshes it, we wait for that one"
        ),
        (_, KeyStatus::Rival { value }) => {
            let value = shown(value);
            tracing::warn!(
                %key, %value,
                "another instance has registered this key; waiting until it is gone"
            );
        }
        (KeyStatus::Owned { .. }, KeyStatus::Absent { removed }) => {
            let at = removed.unwrap_or_default();
            tracing::info!(%key, revision = at.0, change = %format_args!("{key}@{at}"), "deregistered");
        }
        (KeyStatus::Owned { .. }, KeyStatus::Pending) if away => {
            tracing::warn!(%key, "etcd has not answered for a whole TTL: the key may have ended");
        }
        (KeyStatus::Owned { .. }, KeyStatus::Pending) => {
            tracing::warn!(%key, "etcd lost the key; registering again");
        }
        _ => {}
    }
}

/// Another's value: bounded, and harmless at a terminal.
fn shown(value: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(value).chars().take(80).collect();
    text.escape_debug().to_string()
}

/// The log line of a change of health.
pub(super) fn log_health(key: &Key, report: &ProbeReport) {
    match report.state {
        HealthState::Up => tracing::info!(%key, "the backend is healthy"),
        HealthState::Down => tracing::warn!(%key, "the backend is unhealthy{}", why(report)),
        HealthState::Starting => tracing::info!(%key, "waiting for the backend"),
    }
}
