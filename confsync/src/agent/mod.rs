//! The loop of one set: a new picture of the keys, a signal or a due time in; one
//! decision, the steps it owes, and what can be said of them out.
//!
//! `select!` only chooses what happened. What follows is awaited outside of it and
//! finished, also when the end was asked for meanwhile.

mod decide;
mod probing;
mod remember;
mod resources;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::handshake::Bookkeeping;
use common::model::{Revision, Snapshot};
use common::runtime::{Heartbeat, Liveness};
use common::store::Store;
use common::watch::View;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::decide::Withheld;
use self::probing::Probing;
use self::tell::Standing;
use crate::acks::members::LoadBalancerKeys;
use crate::apply::ledger::PendingStep;
use crate::apply::pipeline::Pipeline;
use crate::apply::step::StepOutcome;
use crate::backends::RejectedValue;
use crate::backends::known::KnownBackends;
use crate::config::reload_group::ReloadGroup;
use crate::status::audit;
use crate::status::change_summary::Routes;
use crate::status::resources::ServiceCounts;
use crate::status::state::{BackendState, GroupState};

/// How often it is looked whether old workers are gone: soon after a load, later.
const RETIRING_SOON: Duration = Duration::from_millis(10);
const RETIRING_LATER: Duration = Duration::from_millis(200);
/// A round of the loop with all its steps: each is bounded by a deadline of seconds,
/// a slow command by what its resource allows.
const STEP: Duration = Duration::from_secs(300);
/// How often it is looked whether somebody else has touched the files.
const LOOK_AT_DISK: Duration = Duration::from_secs(5);
/// How much later than it meant to a busy machine lets the loop look again.
const LATE: Duration = Duration::from_secs(30);

/// What an agent works with.
pub struct Parts<S> {
    /// Its files.
    pub set: ReloadGroup,
    /// How they get where they belong.
    pub pipeline: Pipeline,
    /// What the store says of its trees.
    pub view: watch::Receiver<View>,
    /// For evidence.
    pub store: S,
    /// Where the evidence is.
    pub bookkeeping: Bookkeeping,
    /// Who is told what is applied; `None` without a handshake.
    pub members: Option<LoadBalancerKeys>,
    /// Where what stands is published.
    pub publish: watch::Sender<GroupState>,
    /// Where it shows that it goes on.
    pub liveness: Liveness,
    /// Rung when the operator asks for another try.
    pub again: Arc<Notify>,
    /// Beliefs of a set that this one replaces, by resource.
    pub known_backends: BTreeMap<String, KnownBackends>,
    /// What was said last of a set that the same nginx ran before this one. It is shown
    /// until the first load; nothing is acknowledged by it.
    pub before: Option<GroupState>,
}

/// The agent of one set.
pub struct Agent<S> {
    parts: Parts<S>,
    /// The newest picture that was decided on.
    decided: Revision,
    regressions: u32,
    /// The oldest change that waits for the debounce.
    first_change: Option<Instant>,
    /// Why the newest picture is not rendered.
    withheld: Option<Withheld>,
    refused: Vec<RejectedValue>,
    /// The backends as they were shown last.
    shown: BTreeMap<Arc<str>, Arc<BackendState>>,
    /// The services of each resource, as they were counted last.
    services: ServiceCounts,
    owed_since: Option<SystemTime>,
    doubting: bool,
    /// Keys that etcd has no more and that requests may still be routed by, those of old
    /// workers among them.
    lingering: BTreeSet<String>,
    /// There was a decision or a step since the state was told last.
    has_worked: bool,
    /// What was told last.
    told: Option<Standing>,
    /// Who refuses connections while etcd is away.
    probing: Probing,
    /// When to decide again although nothing changed.
    look_again: Option<Instant>,
    /// The picture that was last decided on.
    seen: Option<Arc<Snapshot>>,
    /// When it was found that the store went backwards before our start.
    went_back: Option<Instant>,
    /// The revision whose backends are kept for the next start.
    remembered: Option<Revision>,
    last_load: Option<Instant>,
    /// What was routed to when everything was live last.
    served: Option<Routes>,
    /// The keys that it was made from.
    served_by: Option<Arc<Snapshot>>,
    heartbeat: Heartbeat,
}

impl<S: Store> Agent<S> {
    /// An agent that has not looked at anything yet.
    #[must_use]
    pub fn new(parts: Parts<S>) -> Self {
        let live = |b: &&Arc<BackendState>| b.live;
        let served = parts.before.as_ref().filter(|before| before.live.is_some()).map(|before| {
            let routes = before.backends.iter().filter(live);
            routes.map(|b| (Arc::clone(&b.key), (Arc::clone(&b.addr), b.weight))).collect()
        });
        let shown = parts.before.iter().flat_map(|before| &before.backends);
        Self {
            decided: Revision::default(),
            regressions: 0,
            first_change: None,
            withheld: None,
            refused: Vec::new(),
            shown: shown.map(|b| (Arc::clone(&b.key), Arc::clone(b))).collect(),
            services: resources::services_before(&parts),
            owed_since: None,
            doubting: false,
            lingering: BTreeSet::new(),
            has_worked: true,
            told: None,
            probing: Probing::default(),
            look_again: None,
            seen: None,
            went_back: None,
            remembered: None,
            last_load: None,
            served,
            served_by: None,
            heartbeat: parts.liveness.heartbeat(&format!("the agent of {}", parts.set.name), STEP),
            parts,
        }
    }

    /// Works until `shutdown`, and then once more if a load is owed by an install.
    /// Returns what it believes, for a successor.
    pub async fn run(mut self, shutdown: CancellationToken) -> BTreeMap<String, KnownBackends> {
        let mut now_due = true;
        loop {
            self.heartbeat.beat(STEP);
            now_due |= self.look_again.is_some_and(|at| Instant::now() >= at);
            now_due |= self.probe_while_stale().await;
            if now_due || self.is_due() {
                self.decide().await;
            }
            self.parts.pipeline.look_at_files().await;
            self.parts.pipeline.look_for_lost_members().await;
            loop {
                let outcome = self.parts.pipeline.step(Instant::now()).await;
                if outcome == StepOutcome::Idle {
                    break;
                }
                self.has_worked = true;
                if outcome.is_active() {
                    self.last_load = Some(Instant::now());
                    self.note_what_is_served();
                }
                // Members are active before they are written: nobody waits for the disk.
                if outcome == StepOutcome::MembersChanged {
                    self.parts.pipeline.look_at_departed().await;
                    self.tell();
                }
                if shutdown.is_cancelled() {
                    break;
                }
                // What came in meanwhile is better than what is owed.
                if self.is_due() {
                    self.decide().await;
                }
            }
            self.parts.pipeline.look_at_departed().await;
            self.tell();
            self.remember().await;
            if shutdown.is_cancelled() {
                return self.end().await;
            }
            let until = self.next_look();
            self.heartbeat.beat(until.saturating_duration_since(Instant::now()) + LATE);
            now_due = tokio::select! {
                () = shutdown.cancelled() => continue,
                () = sleep_until(until) => false,
                () = self.parts.pipeline.master_gone() => {
                    self.parts.pipeline.note_master_gone();
                    self.has_worked = true;
                    false
                }
                () = self.parts.again.notified() => {
                    self.parts.pipeline.try_again();
                    self.decided != Revision::default()
                }
                changed = self.parts.view.changed() => {
                    if changed.is_err() { shutdown.cancelled().await }
                    false
                }
            };
        }
    }

    /// What is wanted is live: what that changed is logged.
    fn note_what_is_served(&mut self) {
        let routes = self.routes();
        let seen = self.seen.clone().unwrap_or_default();
        let none = Snapshot::default();
        let before = self.served.as_ref();
        let before = before.map(|routes| (routes, self.served_by.as_deref().unwrap_or(&none)));
        let audit::Changes { added, removed, changed } = audit::changes(before, (&routes, &seen));
        tracing::info!(
            set = self.parts.set.name,
            revision = %self.decided,
            cause = self.parts.pipeline.status().cause,
            added,
            removed,
            changed,
            "applied"
        );
        (self.served, self.served_by) = (Some(routes), Some(seen));
    }

    /// A load that an install owes is carried out; nothing new is installed.
    async fn end(mut self) -> BTreeMap<String, KnownBackends> {
        if self.parts.pipeline.pending(Instant::now()) == PendingStep::Reload {
            self.parts.pipeline.step(Instant::now()).await;
            self.tell();
        }
        self.heartbeat.end();
        self.parts.known_backends
    }

    /// Whether there is a picture to decide on, and its debounce is over.
    fn is_due(&mut self) -> bool {
        let view = self.parts.view.borrow();
        let Some(snapshot) = &view.snapshot else {
            return view.stale.as_ref().is_some_and(|_| self.decided == Revision::default());
        };
        // Not by its revision: another history may have one of the same.
        let known = self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, snapshot));
        let news = !known || view.regressions != self.regressions;
        let debounce = self.parts.set.debounce();
        drop(view);
        if !news {
            return false;
        }
        let first = *self.first_change.get_or_insert_with(Instant::now);
        Instant::now() >= first + debounce
    }

    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + LOOK_AT_DISK;
        // A pause may have ended since the last step: what is owed is owed now.
        match self.parts.pipeline.pending(now) {
            PendingStep::Nothing => {}
            PendingStep::NotBefore(until) => next = next.min(until),
            _ => next = now,
        }
        if let Some(first) = self.first_change {
            next = next.min(first + self.parts.set.debounce());
        }
        next = self.look_again.map_or(next, |at| next.min(at));
        next = self.probing.next.map_or(next, |at| next.min(at));
        if self.parts.pipeline.status().old_generations > 0 {
            let soon = self.last_load.is_none_or(|at| now < at + Duration::from_secs(1));
            next = next.min(now + if soon { RETIRING_SOON } else { RETIRING_LATER });
        }
        next
    }
}
