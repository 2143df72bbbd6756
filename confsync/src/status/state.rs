//! What stands, set by set, as the agents publish it: for the status surface, the
//! service manager and `confsync status`. Says no more than is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::model::plural;
use prometheus_client::metrics::histogram::Histogram;
use serde::{Serialize, Serializer};

use crate::apply::record::load_seconds;
use crate::proxy::traffic::MemberTraffic;
use crate::status::resources::{ResourceState, TroublePlace};
use crate::status::traffic::TrafficByGroup;

/// What one set's agent knows.
#[derive(Debug, Clone, Serialize)]
pub struct GroupState {
    /// The names of its resources, joined.
    pub name: String,
    /// The files it writes.
    pub files: Vec<String>,
    /// Whether etcd is followed; else why not.
    pub stale: Option<String>,
    /// The revision last looked at.
    pub revision: u64,
    /// The revision proven to be live.
    pub applied: u64,
    /// The revision that no older worker is left of.
    pub quiesced: u64,
    /// What is wanted, in short; `None` before the first render.
    pub wanted: Option<String>,
    /// What is on disk.
    pub installed: Option<String>,
    /// What is proven to be live.
    pub live: Option<String>,
    /// Whether what is wanted is live.
    pub in_sync: bool,
    /// Since when it is not, in milliseconds of Unix time.
    #[serde(serialize_with = "maybe_millis")]
    pub owed_since: Option<SystemTime>,
    /// Why the last step failed, or why the newest revision is not rendered.
    pub trouble: Option<String>,
    /// Where that is, if its text names a file and a line.
    pub trouble_at: Option<TroublePlace>,
    /// Its resources, in the order of their files.
    pub resources: Vec<ResourceState>,
    /// The backends that are wanted, and those that are still routed to.
    pub backends: Vec<Arc<BackendState>>,
    /// Values that were withheld, and why.
    pub refused: Vec<RefusedState>,
    /// Who changes backends in the running proxy: `reload` if nobody does.
    pub driver: &'static str,
    /// Why it is not a better one.
    pub driver_reason: Option<String>,
    /// Changes of backends without a load since the start.
    pub member_changes_total: u64,
    /// Old generations that still finish requests.
    pub old_generations: usize,
    /// The last changes, those without a reload among them, newest last.
    pub loads: Vec<LoadState>,
    /// Loads proven since the start.
    pub loads_total: u64,
    /// Candidates refused since the start.
    pub refusals_total: u64,
    /// Steps failed for another reason since the start.
    pub failures_total: u64,
    /// How long proven loads took; for the metrics.
    #[serde(skip)]
    pub load_seconds: Histogram,
}

/// One backend. What looks at thousands of them shares them and their texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendState {
    /// Its key.
    pub key: Arc<str>,
    /// Its service.
    pub service: Arc<str>,
    /// Where it listens.
    pub addr: Arc<str>,
    /// Its weight.
    pub weight: u16,
    /// Where it runs, if it says so.
    pub zone: Option<String>,
    /// Kept although etcd does not have it, because its loss is doubted.
    pub held: bool,
    /// Proven to be routed to, by this address and weight.
    pub live: bool,
    /// No longer wanted, and routed to until the next load is proven.
    pub leaving: bool,
    /// Since when it is known, in milliseconds of Unix time.
    #[serde(serialize_with = "millis")]
    pub since: SystemTime,
}

/// One withheld value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedState {
    /// Its key.
    pub key: String,
    /// Why, in the operator's words.
    pub why: String,
}

/// One change of what the proxy runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadState {
    /// When it ended, in milliseconds of Unix time.
    #[serde(serialize_with = "millis")]
    pub at: SystemTime,
    /// How long it took, check included.
    pub took_ms: u128,
    /// What made it due, in the operator's words.
    pub cause: String,
    /// The revision it made live.
    pub revision: u64,
    /// Why it failed.
    pub failed: Option<String>,
    /// Whether the proxy was reloaded; else its driver changed the backends.
    pub reload: bool,
}

/// Everything, by set.
pub type States = BTreeMap<String, GroupState>;

impl GroupState {
    /// Of a set that has not looked at anything yet.
    #[must_use]
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
            owed_since: None,
            trouble: None,
            trouble_at: None,
            resources: Vec::new(),
            backends: Vec::new(),
            refused: Vec::new(),
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
    #[must_use]
    pub fn traffic<'a>(&self, all: &'a TrafficByGroup) -> &'a [MemberTraffic] {
        let own = all.get(&self.name).filter(|_| self.driver != "reload");
        own.map_or(&[], Vec::as_slice)
    }

    /// In words, for `STATUS=` and `/readyz`.
    #[must_use]
    pub fn words(&self) -> String {
        let mut text = match (&self.trouble, self.in_sync, self.wanted.is_some()) {
            (Some(trouble), _, _) => format!("{}: {trouble}", self.name),
            (None, true, _) => {
                let what = match self.wanted_backends() {
                    // Of a file made of settings nothing is in rotation.
                    0 if self.resources.iter().all(|r| r.services.is_empty()) => "in sync".into(),
                    count => format!("{} in rotation", plural(count, "backend")),
                };
                format!("{}: {what} at revision {}", self.name, self.applied)
            }
            (None, false, true) => format!("{}: applying revision {}", self.name, self.revision),
            (None, false, false) => format!("{}: waiting for the keys in etcd", self.name),
        };
        if let Some(stale) = &self.stale {
            text.push_str(&format!("; {stale}"));
        }
        if !self.refused.is_empty() {
            text.push_str(&format!("; {} refused", plural(self.refused.len(), "value")));
        }
        let held = self.backends.iter().filter(|backend| backend.held).count();
        if held > 0 {
            text.push_str(&format!("; {held} held against etcd"));
        }
        text
    }

    /// How many backends are wanted.
    #[must_use]
    pub fn wanted_backends(&self) -> usize {
        self.backends.iter().filter(|backend| !backend.leaving).count()
    }

    /// First configuration applied, watch fresh, nothing owed for longer than
    /// `patience`.
    #[must_use]
    pub fn ready(&self, patience: Duration) -> bool {
        let owed = self.owed_since.and_then(|since| since.elapsed().ok());
        self.live.is_some() && self.stale.is_none() && owed.is_none_or(|owed| owed < patience)
    }
}

/// Milliseconds of Unix time.
pub(crate) fn unix(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn millis<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(unix(*at))
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn maybe_millis<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(unix).serialize(serializer)
}
