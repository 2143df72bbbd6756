//! What stands, for whoever looks and for whoever waits to leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use common::handshake::{DriverInUse, Rejection};
use common::model::{Backend, Revision};
use common::store::Store;
use common::watch::StaleReason;
use tokio::time::Instant;

use super::Agent;
use super::decide::Withheld;
use crate::acks::members::Applied;
use crate::apply::record::HISTORY;
use crate::backends::known::KnownBackends;
use crate::install::Digest;
use crate::status::change_summary::Routes;
use crate::status::state::{BackendState, GroupState, LoadState, RefusedState};

/// What is told and may change without a decision or a step. A state of thousands of backends is
/// not made anew at each look whether old workers are gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    applied: Option<Revision>,
    quiesced: Revision,
    in_sync: bool,
    old_generations: usize,
    lingering: usize,
    live_before: bool,
    stale: Option<StaleReason>,
}

impl<S: Store> Agent<S> {
    /// Publishes what stands, and acknowledges it.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        let quiesced = self.parts.pipeline.quiesced(now);
        let applied = self.applied();
        self.look_who_lingers();
        let in_sync = self.parts.pipeline.status().in_sync && self.withheld.is_none();
        if in_sync {
            self.owed_since = None;
        } else {
            self.owed_since.get_or_insert_with(SystemTime::now);
        }
        let standing = Standing {
            applied,
            quiesced,
            in_sync,
            old_generations: self.parts.pipeline.status().old_generations,
            lingering: self.lingering.len(),
            live_before: self.live_before().is_some(),
            stale: self.parts.view.borrow().stale.as_ref().map(|stale| stale.reason.clone()),
        };
        let worked = std::mem::take(&mut self.has_worked);
        if !worked && self.told.as_ref() == Some(&standing) {
            return;
        }
        self.told = Some(standing);
        self.acknowledge(applied, quiesced);
        let state = self.state(applied, quiesced, in_sync);
        self.parts.publish.send_replace(state);
    }

    /// Who was retained is routed to until what has them not is live, and no worker of before
    /// is left: their removal is not acknowledged sooner, whatever revision is.
    fn look_who_lingers(&mut self) {
        let retained = self.parts.known_backends.values().flat_map(KnownBackends::still_routed);
        let pipeline = self.parts.pipeline.status();
        if pipeline.in_sync && pipeline.old_generations == 0 {
            self.lingering = retained.cloned().collect();
        } else {
            self.lingering.extend(retained.cloned());
        }
    }

    /// The newest revision that is live; nothing while the newest is withheld.
    pub(super) fn applied(&self) -> Option<Revision> {
        if self.withheld.is_some() || self.decided == Revision::default() {
            return None;
        }
        self.parts.pipeline.applied()
    }

    fn acknowledge(&self, applied: Option<Revision>, quiesced: Revision) {
        let Some(members) = &self.parts.members else { return };
        if self.decided == Revision::default() {
            return;
        }
        let refusal = self.parts.pipeline.status().rejection.map(str::to_owned);
        let why = self.withheld.clone().or_else(|| refusal.map(Withheld::from));
        let refused = why.map(|withheld| Rejection {
            revision: self.decided,
            reason: withheld.why.chars().take(500).collect(),
            too_few_backends: withheld.too_few_backends,
        });
        // Nothing is quiesced that is not even applied.
        let quiesced = if self.withheld.is_some() { Revision::default() } else { quiesced };
        for program in &self.parts.set.programs {
            let trees = &program.resource.reading.trees;
            let is_read = |key: &&String| trees.iter().any(|tree| tree.covers(key));
            let said = Applied {
                applied: applied.unwrap_or_default(),
                quiesced,
                assumed: self.parts.pipeline.proxy().is_assumed(),
                held: self.lingering.iter().filter(is_read).cloned().collect(),
                refused: refused.clone(),
                driver: applied.map(|_| self.driver_in_use()),
            };
            members.acknowledge(&program.resource.name, said, self.regressions);
        }
    }

    fn state(
        &mut self,
        applied: Option<Revision>,
        quiesced: Revision,
        in_sync: bool,
    ) -> GroupState {
        let backends = self.backends();
        let withheld = self.withheld.as_ref().map(|withheld| withheld.why.clone());
        let trouble = withheld.or_else(|| self.parts.pipeline.status().trouble.map(str::to_owned));
        let pipeline = self.parts.pipeline.status();
        let short = |digest: Option<Digest>| digest.map(|d| d.short());
        let view = self.parts.view.borrow();
        let before = self.parts.before.iter().flat_map(|before| before.loads.iter().cloned());
        let loads = pipeline.loads.iter().map(|load| LoadState {
            at: load.at,
            took_ms: load.took.as_millis(),
            revision: load.revision.0,
            cause: load.cause.clone(),
            failed: load.failed.clone(),
            reload: load.is_reload,
        });
        let mut loads: Vec<LoadState> = before.chain(loads).collect();
        loads.drain(..loads.len().saturating_sub(HISTORY));
        let refused = self.refused.iter();
        GroupState {
            name: self.parts.set.name.clone(),
            files: self
                .parts
                .set
                .programs
                .iter()
                .map(|p| p.resource.dest.display().to_string())
                .collect(),
            stale: view.stale.as_ref().map(|stale| stale.reason.to_string()),
            revision: self.decided.0,
            applied: applied.unwrap_or_default().0,
            quiesced: quiesced.0,
            wanted: short(pipeline.wanted),
            installed: short(pipeline.installed),
            live: short(pipeline.active).or_else(|| self.live_before()),
            in_sync,
            owed_since: self.owed_since,
            trouble_at: trouble.as_ref().and_then(|text| self.trouble_at(text)),
            trouble,
            resources: self.resources(),
            backends,
            refused: refused
                .map(|r| RefusedState { key: r.key.clone(), why: r.why.clone() })
                .collect(),
            driver: pipeline.driver.0,
            driver_reason: pipeline.driver.1.map(str::to_owned),
            member_changes_total: pipeline.counts.member_changes,
            old_generations: pipeline.old_generations,
            loads,
            loads_total: pipeline.counts.loads,
            refusals_total: pipeline.counts.refusals,
            failures_total: pipeline.counts.failures,
            load_seconds: pipeline.load_seconds.clone(),
        }
    }

    fn driver_in_use(&self) -> DriverInUse {
        let pipeline = self.parts.pipeline.status();
        let (name, reason) = pipeline.driver;
        // Who uses no such word needs no reason.
        let reason = reason.filter(|_| pipeline.names_members).map(str::to_owned);
        DriverInUse { name: name.to_owned(), reason }
    }

    /// What nginx runs by, as long as nobody has tried to load anything else.
    fn live_before(&self) -> Option<String> {
        let untouched = self.parts.pipeline.status().is_untouched;
        self.parts.before.as_ref().filter(|_| untouched)?.live.clone()
    }

    pub(super) fn routes(&self) -> Routes {
        let all = self.parts.known_backends.values().flat_map(KnownBackends::backends);
        let route = |b: &Backend| (b.addr.to_string().into(), b.weight);
        let routed = all.filter(|(key, _)| !self.probing.is_out(key));
        routed.map(|(key, registered)| (Arc::clone(key), route(&registered.backend))).collect()
    }

    fn backends(&mut self) -> Vec<Arc<BackendState>> {
        let now = SystemTime::now();
        // What was routed to last is routed to only while that is still proven.
        let proven = self.parts.pipeline.status().active.is_some() || self.live_before().is_some();
        let served = self.served.as_ref().filter(|_| proven);
        let mut found = BTreeMap::new();
        let programs = self.parts.set.programs.iter();
        self.services.reset(&programs.map(|program| program.resource.name.as_str()).collect());
        for (resource, belief) in &self.parts.known_backends {
            for (key, registered) in belief.backends() {
                let backend = &registered.backend;
                let (addr, weight) = (backend.addr.to_string(), backend.weight);
                let route = served.and_then(|served| served.get(key));
                let live = route.filter(|(at, share)| **at == *addr && *share == weight);
                let state = BackendState {
                    key: Arc::clone(key),
                    service: Arc::clone(&registered.service),
                    live: live.is_some(),
                    addr: live.map_or_else(|| addr.into(), |(at, _)| Arc::clone(at)),
                    weight,
                    zone: backend.zone.clone(),
                    held: belief.held().contains(&**key),
                    leaving: false,
                    since: self.shown.get(key).map_or(now, |shown| shown.since),
                };
                self.services.count(resource, &state.service, state.live, state.held);
                // Nearly all are as they were, and then kept once.
                let same = self.shown.get(key).filter(|shown| ***shown == state);
                found.insert(Arc::clone(key), same.map_or_else(|| Arc::new(state), Arc::clone));
            }
        }
        for (key, shown) in std::mem::take(&mut self.shown) {
            if let Some((addr, weight)) = served.and_then(|served| served.get(&key))
                && !found.contains_key(&key)
            {
                let still = BackendState {
                    addr: Arc::clone(addr),
                    weight: *weight,
                    held: false,
                    live: true,
                    leaving: true,
                    ..(*shown).clone()
                };
                found.insert(key, Arc::new(still));
            }
        }
        self.shown.clone_from(&found);
        found.into_values().collect()
    }
}
