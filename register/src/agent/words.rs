//! What stands, in an operator's words: for STATUS=, the log and the status page.

use std::collections::BTreeMap;

use common::claim::KeyStatus;
use common::model::{Key, format_span, plural};
use common::registrar::RegistrarReport;

use crate::drain::Verdict;
use crate::health::State;
use crate::prober;

/// One line for `systemctl status`.
pub(super) fn state<'a>(
    services: impl Iterator<Item = (&'a Key, prober::ProbeReport)>,
    standings: &BTreeMap<Key, KeyStatus>,
    registrar: &RegistrarReport,
) -> String {
    let lines: Vec<(bool, String)> = services
        .map(|(key, report)| {
            let standing = standings.get(key);
            let registered = matches!(standing, Some(KeyStatus::Owned { .. }));
            (registered, one(key, &report, standing))
        })
        .collect();
    let text = match lines.as_slice() {
        [(_, line)] => line.clone(),
        lines => {
            let registered = lines.iter().filter(|(registered, _)| *registered).count();
            let open: Vec<&str> =
                lines.iter().filter(|(r, _)| !r).map(|(_, l)| l.as_str()).take(3).collect();
            let mut text = format!("{registered} of {} registered", plural(lines.len(), "service"));
            if !open.is_empty() {
                text.push_str(&format!("; {}", open.join("; ")));
            }
            text
        }
    };
    match &registrar.failure {
        Some(failure) => {
            format!("{text}; {} for {}", failure.error, format_span(failure.since.elapsed()))
        }
        None => text,
    }
}

fn one(key: &Key, report: &prober::ProbeReport, standing: Option<&KeyStatus>) -> String {
    match (report.state, standing) {
        (State::Starting, _) => format!("{key}: waiting for the backend{}", why(report)),
        (State::Down, _) => format!("{key}: not registered, the backend fails{}", why(report)),
        (State::Up, Some(KeyStatus::Owned { .. })) => format!("{key}: registered"),
        (State::Up, Some(KeyStatus::Rival { value })) => {
            format!("{key}: waiting, `{}` holds it", shown(value))
        }
        (State::Up, _) => format!("{key}: healthy, registering"),
    }
}

fn why(report: &prober::ProbeReport) -> String {
    match report.last.as_ref().map(|outcome| &outcome.verdict) {
        Some(crate::probe::Verdict::Fail(why)) => format!(" ({why})"),
        _ => String::new(),
    }
}

/// The log line of a change in etcd; `ours` is the value that we want there.
pub(super) fn say_standing(key: &Key, ours: &[u8], change: (&KeyStatus, &KeyStatus), away: bool) {
    match change {
        (KeyStatus::Owned { .. }, KeyStatus::Owned { .. }) => {}
        (_, KeyStatus::Owned { .. }) => tracing::info!(%key, "registered"),
        (KeyStatus::Rival { value: one }, KeyStatus::Rival { value: other }) if one == other => {}
        (_, KeyStatus::Rival { value }) if value == ours => tracing::info!(
            %key,
            "the key has our value already: an earlier life's, which is taken over, or that of \
             another instance at the same address, which is waited for"
        ),
        (_, KeyStatus::Rival { value }) => {
            let holder = shown(value);
            tracing::warn!(%key, %holder, "another instance holds the key; waiting until it is gone");
        }
        (KeyStatus::Owned { .. }, KeyStatus::Absent { .. }) => tracing::info!(%key, "deregistered"),
        (KeyStatus::Owned { .. }, KeyStatus::Pending) if away => {
            tracing::warn!(%key, "etcd has been away for a whole TTL: the key may have run out");
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

/// The log line of a wait to be served.
pub(super) fn say_served(verdict: &Verdict) {
    if verdict.confirmed {
        tracing::info!("served: {verdict}");
    } else {
        tracing::warn!("ready, though not known to be served: {verdict}");
    }
}

/// The log line of a change.
pub(super) fn say_state(key: &Key, report: &prober::ProbeReport) {
    match report.state {
        State::Up => tracing::info!(%key, "the backend is healthy"),
        State::Down => tracing::warn!(%key, "the backend fails{}", why(report)),
        State::Starting => tracing::info!(%key, "waiting for the backend"),
    }
}
