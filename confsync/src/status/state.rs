//! The state of each reload group, as its agent publishes it: for the status pages, the service
//! manager and `confsync status`. It never claims more than is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::model::plural;
use imbl::OrdMap;
use prometheus_client::metrics::histogram::Histogram;
use serde::{Serialize, Serializer};

use crate::apply::record::{Changes, load_seconds};
use crate::proxy::traffic::MemberTraffic;
use crate::status::moments::{maybe_millis, millis};
use crate::status::resources::{ResourceState, TroublePlace};
use crate::status::traffic::TrafficByGroup;

/// The state of one reload group.
#[derive(Debug, Clone, Serialize)]
pub struct GroupState {
    /// The names of its resources, joined.
    pub name: String,
    /// The files it writes.
    pub files: Vec<String>,
    /// Why the view of etcd is stale, if it is.
    pub stale: Option<String>,
    /// The revision that was last considered.
    pub revision: u64,
    /// The revision that is proven to be active.
    pub applied: u64,
    /// The revision of which no older worker is left.
    pub quiesced: u64,
    /// The digest of what is wanted, shortened; `None` before the first render.
    pub wanted: Option<String>,
    /// That of what is on disk.
    pub installed: Option<String>,
    /// That of what is proven to be active.
    pub live: Option<String>,
    /// Whether what is wanted is active.
    pub in_sync: bool,
    /// Since when it is not.
    #[serde(rename = "owed_since", serialize_with = "maybe_millis")]
    pub pending_since: Option<SystemTime>,
    /// Why the last step failed, or why the newest revision is not rendered.
    pub trouble: Option<String>,
    /// The position of the failure, if its text names a file and a line.
    pub trouble_at: Option<TroublePlace>,
    /// Its resources, in the order of their files.
    pub resources: Vec<ResourceState>,
    /// The backends that are wanted, and those that are still routed to.
    #[serde(serialize_with = "values")]
    pub backends: BackendStates,
    /// How many they are.
    #[serde(skip)]
    pub counts: BackendCounts,
    /// Rejected values, and why.
    #[serde(rename = "refused")]
    pub rejected: Vec<RejectedState>,
    /// The driver that changes members in the running proxy; `reload` if there is none.
    pub driver: &'static str,
    /// Why a better driver is not used, or what this one cannot change.
    pub driver_reason: Option<String>,
    /// Changes of backends without a load since the start.
    pub member_changes_total: u64,
    /// Old generations that still finish requests.
    pub old_generations: usize,
    /// The last changes, those without a reload among them, newest last.
    pub loads: Vec<LoadState>,
    /// Loads proven since the start.
    pub loads_total: u64,
    /// Candidates rejected since the start.
    pub refusals_total: u64,
    /// Steps that failed for another reason since the start.
    pub failures_total: u64,
    /// How long proven loads took; for the metrics.
    #[serde(skip)]
    pub load_seconds: Histogram,
}

/// Backends by their keys. There may be thousands: a copy shares them.
pub type BackendStates = OrdMap<Arc<str>, Arc<BackendState>>;

/// How many backends there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackendCounts {
    pub wanted: usize,
    /// Those that are absent from etcd and still routed to.
    pub retained: usize,
    /// Those of the wanted that are proven to be routed to.
    pub in_rotation: usize,
}

impl BackendCounts {
    /// Of all of these.
    pub fn of(states: &BackendStates) -> Self {
        let mut counts = Self::default();
        states.values().for_each(|state| counts.replace(None, Some(state)));
        counts
    }

    /// One backend has another state.
    pub fn replace(&mut self, before: Option<&BackendState>, now: Option<&BackendState>) {
        for (state, is_gone) in [(before, true), (now, false)] {
            let Some(state) = state else { continue };
            let count = |number: &mut usize, counts: bool| match (counts, is_gone) {
                (false, _) => {}
                (true, true) => *number = number.saturating_sub(1),
                (true, false) => *number += 1,
            };
            count(&mut self.wanted, !state.leaving);
            count(&mut self.retained, state.retained);
            count(&mut self.in_rotation, state.live && !state.leaving);
        }
    }
}

/// One backend. There may be thousands, so copies share their texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendState {
    pub key: Arc<str>,
    pub service: Arc<str>,
    /// Where it listens.
    pub addr: Arc<str>,
    pub weight: u16,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// Retained although etcd does not have it, because its loss is not verified.
    #[serde(rename = "held")]
    pub retained: bool,
    /// Proven to be routed to, with this address and weight.
    pub live: bool,
    /// No longer wanted, and routed to until the next load is proven.
    pub leaving: bool,
    /// Since when it is known, in milliseconds of Unix time.
    #[serde(serialize_with = "millis")]
    pub since: SystemTime,
}

/// A rejected value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedState {
    pub key: String,
    /// The reason, for an operator.
    pub why: String,
    /// The resources that do not use it.
    pub resources: Vec<String>,
}

/// One change of what the proxy runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadState {
    /// When it ended, in milliseconds of Unix time.
    #[serde(serialize_with = "millis")]
    pub at: SystemTime,
    /// How long it took, check included.
    pub took_ms: u128,
    /// The cause, for an operator.
    pub cause: String,
    /// The revision that it made active.
    pub revision: u64,
    /// Why it failed.
    pub failed: Option<String>,
    /// Whether the proxy was reloaded; else its driver changed the backends.
    pub reload: bool,
    /// The backends that it added, removed and changed.
    #[serde(flatten)]
    pub changes: Arc<Changes>,
}

/// All reload groups, by name.
pub type States = BTreeMap<String, GroupState>;

impl GroupState {
    /// The state of a group that has not considered anything yet.
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            files: Vec::new(),
            stale: None,
            revision: 0,
            applied: 0,
            quiesced: 0,
            wanted: None,
            installed: None,
            live: None,
            in_sync: false,
            pending_since: None,
            trouble: None,
            trouble_at: None,
            resources: Vec::new(),
            backends: BackendStates::new(),
            counts: BackendCounts::default(),
            rejected: Vec::new(),
            driver: "reload",
            driver_reason: None,
            member_changes_total: 0,
            old_generations: 0,
            loads: Vec::new(),
            loads_total: 0,
            refusals_total: 0,
            failures_total: 0,
            load_seconds: load_seconds(),
        }
    }

    /// What was read of its backends, while a driver is in use.
    pub fn traffic<'a>(&self, all: &'a TrafficByGroup) -> &'a [MemberTraffic] {
        let own = all.get(&self.name).filter(|_| self.driver != "reload");
        own.map_or(&[], Vec::as_slice)
    }

    /// In one line, for `STATUS=` and `/readyz`.
    pub fn summary(&self) -> String {
        let mut text = match (&self.trouble, self.in_sync, self.wanted.is_some()) {
            (Some(trouble), _, _) => format!("{}: {trouble}", self.name),
            (None, true, _) => {
                let BackendCounts { wanted, in_rotation, .. } = self.counts;
                let what = match wanted {
                    // Without services, nothing can be in rotation.
                    0 if self.resources.iter().all(|r| r.services.is_empty()) => "in sync".into(),
                    _ => format!("{} in rotation", plural(in_rotation, "backend")),
                };
                let unused = match wanted.saturating_sub(in_rotation) {
                    0 => String::new(),
                    unused => format!(" and {unused} not used"),
                };
                // Which of them are in the file is not known.
                let by_keys = match self.resources.iter().any(|r| r.counted_by_keys) {
                    true => " (by their keys)",
                    false => "",
                };
                format!("{}: {what}{unused}{by_keys} at revision {}", self.name, self.applied)
            }
            (None, false, true) => format!("{}: applying revision {}", self.name, self.revision),
            (None, false, false) => format!("{}: waiting for the keys in etcd", self.name),
        };
        if let Some(stale) = &self.stale {
            text.push_str(&format!("; {stale}"));
        }
        if !self.rejected.is_empty() {
            text.push_str(&format!("; {} rejected", plural(self.rejected.len(), "value")));
        }
        if self.counts.retained > 0 {
            let retained = plural(self.counts.retained, "backend");
            text.push_str(&format!("; {retained} retained, absent from etcd"));
        }
        text
    }

    /// Whether the first configuration is applied, the watch is running, and nothing has been
    /// pending for longer than `patience`.
    pub fn ready(&self, patience: Duration) -> bool {
        let pending = self.pending_since.and_then(|since| since.elapsed().ok());
        self.live.is_some()
            && self.stale.is_none()
            && pending.is_none_or(|pending| pending < patience)
    }
}

fn values<S: Serializer>(states: &BackendStates, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(states.values())
}
