//! The loop of one reload group.
//!
//! ```text
//! a new view, a signal, a due time ─► LastDecision ─Decision─► GroupRenderer ─files─► Pipeline
//!                                                                                        │ steps
//!          the status page, etcd ◄─ Publication ◄─ report ◄─ GroupProgress, Routing ◄────┘
//! ```
//!
//! `select!` only chooses what happened. What follows is awaited outside of it and finished, also
//! when the end was asked for meanwhile.

mod backend_list;
mod decision;
mod emptied;
mod group;
mod probing;
mod publication;
pub(crate) mod rejections;
pub(crate) mod render;
mod report;
mod route_table;
mod routing;
#[cfg(test)]
mod tests;
mod timing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::Bookkeeping;
use common::model::{Revision, Snapshot, changed_keys};
use common::runtime::{Heartbeat, Liveness, STEPS};
use common::store::Store;
use common::watch::View;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::decision::{Decision, LastDecision};
use self::group::{Circumstances, GroupRenderer};
use self::probing::Probing;
use self::publication::Publication;
use self::render::RenderVerdict;
use self::report::{GroupProgress, ReportFacts};
use self::routing::Routing;
use self::timing::{Debounce, Saves, Waits};
use crate::acks::members::LoadBalancerKeys;
use crate::apply::ledger::PendingStep;
use crate::apply::pipeline::Pipeline;
use crate::apply::record::Changes;
use crate::apply::step::StepOutcome;
use crate::backends::known::KnownBackends;
use crate::config::reload_group::ReloadGroup;
use crate::status::change_summary::Routes;
use crate::status::state::GroupState;

/// The longest turn of the loop with all its steps: each is bounded by a deadline of seconds, a
/// slow command by what its resource allows.
const TURN: Duration = Duration::from_secs(300);
/// How late a busy machine may wake the loop.
const LATE: Duration = Duration::from_secs(30);

/// What an agent works with.
pub(crate) struct AgentParts<S> {
    pub(crate) group: ReloadGroup,
    pub(crate) pipeline: Pipeline,
    /// What the store has below the group's trees.
    pub(crate) view: watch::Receiver<View>,
    /// Where leave markers and acceptances are.
    pub(crate) store: S,
    pub(crate) bookkeeping: Bookkeeping,
    /// What acknowledges; `None` without a handshake.
    pub(crate) members: Option<LoadBalancerKeys>,
    /// Where the state goes.
    pub(crate) publish: watch::Sender<GroupState>,
    pub(crate) liveness: Liveness,
    /// Notified when the operator asks for another try.
    pub(crate) again: Arc<Notify>,
    pub(crate) predecessor: Predecessor,
}

/// What a group takes over from one that it replaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Predecessor {
    /// The backends that each resource routed to.
    pub(crate) known_backends: BTreeMap<String, KnownBackends>,
    /// Its last state, if the same proxy runs by it. It is shown until the first load; nothing is
    /// acknowledged by it.
    pub(crate) state: Option<GroupState>,
}

/// The agent of one reload group.
pub(crate) struct Agent<S> {
    view: watch::Receiver<View>,
    again: Arc<Notify>,
    renderer: GroupRenderer<S>,
    pipeline: Pipeline,
    decided: LastDecision,
    debounce: Debounce,
    probing: Probing,
    routing: Routing,
    publication: Publication,
    saves: Saves,
    last_load: Option<Instant>,
    heartbeat: Heartbeat,
}

impl<S: Store> Agent<S> {
    /// An agent that has decided nothing yet.
    pub(crate) fn new(parts: AgentParts<S>) -> Self {
        let AgentParts { group, predecessor, store, bookkeeping, .. } = parts;
        let Predecessor { known_backends, state } = predecessor;
        let heartbeat = parts.liveness.heartbeat(&format!("the agent of {}", group.name), TURN);
        Self {
            view: parts.view,
            again: parts.again,
            pipeline: parts.pipeline,
            decided: LastDecision::default(),
            debounce: Debounce::new(group.debounce()),
            probing: Probing::default(),
            routing: Routing::after(state.as_ref()),
            publication: Publication::new(&group, parts.publish, parts.members, state),
            renderer: GroupRenderer::new(group, store, bookkeeping, known_backends),
            saves: Saves::default(),
            last_load: None,
            heartbeat,
        }
    }

    /// Works until `shutdown`, and then once more if files in place are to be loaded. Returns the
    /// backends that are routed to, for a successor.
    pub(crate) async fn run(
        mut self,
        shutdown: CancellationToken,
    ) -> BTreeMap<String, KnownBackends> {
        let mut must_decide = true;
        loop {
            self.turn(must_decide, &shutdown).await;
            if shutdown.is_cancelled() {
                return self.end().await;
            }
            must_decide = self.wait(&shutdown).await;
        }
    }

    /// One turn: a decision if one is due, the steps that are pending, a report.
    async fn turn(&mut self, must_decide: bool, shutdown: &CancellationToken) {
        self.heartbeat.beat(TURN);
        let again = self.decided.again();
        let is_due = must_decide || again.is_some_and(|at| Instant::now() >= at);
        if self.probe().await || is_due || self.has_news() {
            self.decide().await;
        }
        self.pipeline.look_at_files().await;
        self.pipeline.look_for_lost_members().await;
        self.perform_steps(shutdown).await;
        self.follow_same_files();
        self.pipeline.look_at_departed().await;
        self.report();
        self.publication.keep_emptied().await;
        self.save_backends().await;
    }

    /// Waits for the next event. Returns whether to decide again even if no key has changed.
    async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let until = self.waits().first_end(Instant::now());
        self.heartbeat.beat(until.saturating_duration_since(Instant::now()) + LATE);
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = sleep_until(until) => false,
            () = self.pipeline.master_ended() => {
                self.pipeline.note_master_ended();
                self.publication.outdate();
                false
            }
            () = self.pipeline.old_generation_ended() => false,
            () = self.again.notified() => {
                self.pipeline.try_again();
                !self.decided.is_none()
            }
            changed = self.view.changed() => {
                if changed.is_err() { shutdown.cancelled().await }
                false
            }
        }
    }

    fn waits(&self) -> Waits {
        Waits {
            pending: self.pipeline.pending(Instant::now()),
            debounce_ends: self.debounce.ends(),
            decide_again: self.decided.again(),
            probe_again: self.probing.next(),
            save_again: self.saves.next().filter(|_| self.to_save().is_some()),
            old_generation_ends: self.pipeline.old_generation_ends(),
            waits_for_requests: self.pipeline.waits_for_requests(),
            last_load: self.last_load,
        }
    }

    /// Asks backends whether they answer, if etcd cannot.
    async fn probe(&mut self) -> bool {
        let away_since = self.view.borrow().stale.as_ref().map(|stale| stale.since);
        let away_since = away_since.filter(|_| !self.decided.is_none());
        self.probing.probe(&self.renderer.group, self.renderer.known(), away_since).await
    }

    /// Whether there are keys that were not decided on, and their debounce is over.
    fn has_news(&mut self) -> bool {
        let view = self.view.borrow();
        if !self.decided.is_outdated_by(&view) {
            return false;
        }
        // What is known at the start, without any keys, waits for nothing.
        view.snapshot.is_none() || self.debounce.is_over(Instant::now())
    }

    /// Decides what the newest keys ask for.
    async fn decide(&mut self) {
        self.debounce.reset();
        self.decided.begin();
        self.publication.outdate();
        let view = self.view.borrow_and_update().clone();
        let decision = self.decided.next(&view, self.probing.take_news());
        tracing::debug!(target: STEPS, set = self.renderer.group.name, "{decision}");
        match decision {
            Decision::Wait => {}
            Decision::KeepFilesInPlace => self.pipeline.want_what_is_in_place(),
            Decision::SameFiles(snapshot) => {
                self.pipeline.want_same_at(snapshot.revision);
                self.decided.take(snapshot);
            }
            Decision::Render(snapshot, _) => self.render(snapshot, &view).await,
        }
    }

    async fn render(&mut self, snapshot: Arc<Snapshot>, view: &View) {
        if self.decided.take_regressions(view.regressions) {
            self.pipeline.forget_revisions();
            // Before any step: what was acknowledged is not to be written into the store of now.
            self.publication.withdraw_acknowledgements(&self.renderer.group);
        }
        if self.decided.is_none() && self.renderer.recall(&snapshot) {
            self.decided.note_regressed_before_start(Instant::now());
        }
        let grace = self.renderer.group.grace();
        let circumstances = Circumstances {
            regressed: self.decided.is_within_grace(view, grace, Instant::now()),
            in_place: self.pipeline.has_files_in_place(),
            left_out: self.probing.left_out(),
        };
        let rendered = self.renderer.render(&snapshot, circumstances).await;
        let revision = snapshot.revision;
        self.decided.take(snapshot);
        match rendered.files {
            Some(files) => {
                let routes = self.renderer.routes(self.probing.left_out());
                let cause = self.routing.cause_of(&routes);
                self.pipeline.want_rendered(files, revision, cause);
            }
            None => self.pipeline.want_what_is_in_place(),
        }
        self.log_withheld(&rendered.verdict);
        self.decided.conclude(rendered.verdict, Instant::now());
    }

    fn log_withheld(&self, verdict: &RenderVerdict) {
        let withheld = verdict.withheld();
        if let Some(withheld) = withheld.filter(|_| withheld != self.decided.verdict().withheld()) {
            tracing::warn!(set = self.renderer.group.name, "{}; the last files stay", withheld.why);
        }
    }

    /// Performs the steps that are pending. Keys that arrive meanwhile replace what is wanted
    /// before the next step.
    async fn perform_steps(&mut self, shutdown: &CancellationToken) {
        loop {
            let outcome = self.pipeline.step(Instant::now()).await;
            if outcome == StepOutcome::Idle {
                return;
            }
            self.publication.outdate();
            if outcome.is_active() {
                self.last_load = Some(Instant::now());
                self.note_routes();
            }
            // Members are active before they are written: no drain waits for the disk.
            if outcome == StepOutcome::MembersChanged {
                self.pipeline.look_at_departed().await;
                self.report();
            }
            if shutdown.is_cancelled() {
                return;
            }
            if self.has_news() {
                self.decide().await;
            }
        }
    }

    /// What is wanted is active: logs the backends that this added, removed and changed.
    fn note_routes(&mut self) {
        let routes = self.renderer.routes(self.probing.left_out());
        let cause = self.pipeline.status().cause.to_owned();
        let changes = self.serve(routes, &cause);
        self.pipeline.note_changes(changes);
    }

    fn serve(&mut self, routes: Routes, cause: &str) -> Changes {
        let keys = self.decided.snapshot().cloned().unwrap_or_default();
        let changes = self.routing.serve(routes, keys);
        tracing::info!(
            set = self.renderer.group.name,
            revision = self.decided.revision().0,
            cause,
            added = changes.added,
            removed = changes.removed,
            changed = changes.changed,
            "applied"
        );
        changes
    }

    /// Other keys may make the same files, which are active already: the same addresses under other
    /// names, or backends that no template writes.
    fn follow_same_files(&mut self) {
        if !self.pipeline.status().in_sync {
            return;
        }
        let routes = self.renderer.routes(self.probing.left_out());
        let is_other = |served: &Routes| changed_keys(served, &routes).next().is_some();
        if self.routing.served().is_some_and(is_other) {
            let cause = self.routing.cause_of(&routes);
            self.serve(routes, &cause);
            self.publication.outdate();
        }
    }

    /// The newest revision that is active; nothing while the newest is withheld.
    fn applied(&self) -> Option<Revision> {
        let is_withheld = self.decided.verdict().withheld().is_some();
        let is_applied = !is_withheld && !self.decided.is_none();
        self.pipeline.applied().filter(|_| is_applied)
    }

    /// Publishes how far the group is, and acknowledges it.
    fn report(&mut self) {
        let progress = self.progress();
        if !self.publication.is_due(&progress) {
            return;
        }
        let pipeline = self.pipeline.status();
        let facts = ReportFacts {
            group: &self.renderer.group,
            progress: &progress,
            pipeline,
            withheld: self.decided.verdict().withheld(),
            rejected: self.renderer.rejected(),
        };
        let lingering = self.routing.lingering();
        let is_assumed = self.pipeline.proxy().is_assumed();
        self.publication.acknowledge(&facts, lingering, is_assumed);
        // What was routed to last is routed to only while that is still proven.
        let is_proven = pipeline.active.is_some() || progress.active_before.is_some();
        let served = self.routing.served().filter(|_| is_proven);
        let by_keys = |resource: &str| self.renderer.counts_by_keys(resource);
        self.publication.show(&facts, self.renderer.known(), by_keys, served);
    }

    fn progress(&mut self) -> GroupProgress {
        let quiesced = self.pipeline.quiesced(Instant::now());
        let pipeline = self.pipeline.status();
        let is_old_at_work = pipeline.old_generations > 0 || self.pipeline.waits_for_requests();
        let is_nothing_older_active = pipeline.in_sync && !is_old_at_work;
        let retained = self.renderer.known().values().flat_map(KnownBackends::still_routed);
        self.routing.linger(retained, is_nothing_older_active);
        let is_withheld = self.decided.verdict().withheld().is_some();
        let active_before = self.publication.active_before().filter(|_| pipeline.is_untouched);
        GroupProgress {
            decided: (!self.decided.is_none()).then(|| self.decided.revision()),
            applied: self.applied(),
            quiesced,
            in_sync: pipeline.in_sync && !is_withheld,
            old_generations: pipeline.old_generations,
            lingering: self.routing.lingering().len(),
            active_before: active_before.map(str::to_owned),
            stale: self.view.borrow().stale.as_ref().map(|stale| stale.reason.clone()),
        }
    }

    /// Saves what is proven for the next start, if the last save is a while ago.
    async fn save_backends(&mut self) {
        if self.saves.next().is_some_and(|at| Instant::now() < at) {
            return;
        }
        if let Some(snapshot) = self.to_save() {
            self.renderer.save(&snapshot).await;
            let backends = self.renderer.known().values().map(|known| known.backends().len());
            self.saves.done(snapshot.revision, backends.sum(), Instant::now());
        }
    }

    /// What is proven and not saved; nothing while any loss is uncertain.
    fn to_save(&self) -> Option<Arc<Snapshot>> {
        let snapshot = self.view.borrow().snapshot.clone()?;
        let is_settled = *self.decided.verdict() == RenderVerdict::Settled;
        let is_applied = self.applied() == Some(snapshot.revision);
        let is_new = !self.saves.is_saved(snapshot.revision);
        (is_settled && is_applied && is_new).then_some(snapshot)
    }

    /// Writes what is active to the files, and loads files in place that are not loaded yet;
    /// installs nothing new.
    async fn end(mut self) -> BTreeMap<String, KnownBackends> {
        self.pipeline.write_what_is_active().await;
        self.saves.allow_now();
        self.save_backends().await;
        if self.pipeline.pending(Instant::now()) == PendingStep::Reload {
            self.pipeline.step(Instant::now()).await;
            self.publication.outdate();
            self.report();
        }
        self.heartbeat.end();
        self.renderer.into_known()
    }
}
