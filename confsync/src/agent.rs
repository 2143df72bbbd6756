//! The loop of one set: a new picture of the keys, a signal or a due time in; one
//! decision, the steps it owes, and what can be said of them out.
//!
//! `select!` only chooses what happened. What follows is awaited outside of it and
//! finished, also when the end was asked for meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::handshake::{Bookkeeping, Refusal};
use common::model::{Revision, Snapshot};
use common::runtime::{Heart, Pulse};
use common::store::Store;
use common::watch::View;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backends::Refused;
use crate::belief::Belief;
use crate::cause::{self, Routes};
use crate::doubt;
use crate::guard::Outcome;
use crate::ledger::Owed;
use crate::members::{Applied, Members};
use crate::memory;
use crate::pipeline::Pipeline;
use crate::set::Set;
use crate::state::{BackendState, LoadState, RefusedState, SetState};

/// How often a doubt is looked into again.
const DOUBT_AGAIN: Duration = Duration::from_secs(2);
/// How often a picture that could not be rendered is tried again: a template may have
/// asked DNS, or looked at a file.
const RENDER_AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether old workers are gone: soon after a load, later.
const RETIRING_SOON: Duration = Duration::from_millis(10);
const RETIRING_LATER: Duration = Duration::from_millis(200);
/// A round of the loop with all its steps: each is bounded by a deadline of seconds,
/// a slow command by what its resource allows.
const STEP: Duration = Duration::from_secs(300);
/// How much later than it meant to a busy machine lets the loop look again.
const LATE: Duration = Duration::from_secs(30);

/// What an agent works with.
pub struct Parts<S> {
    /// Its files.
    pub set: Set,
    /// How they get where they belong.
    pub pipeline: Pipeline,
    /// What the store says of its trees.
    pub view: watch::Receiver<View>,
    /// For evidence.
    pub store: S,
    /// Where the evidence is.
    pub bookkeeping: Bookkeeping,
    /// Who is told what is applied; `None` without a handshake.
    pub members: Option<Members>,
    /// Where what stands is published.
    pub publish: watch::Sender<SetState>,
    /// Where it shows that it goes on.
    pub pulse: Pulse,
    /// Rung when the operator asks for another try.
    pub again: Arc<Notify>,
    /// Beliefs of a set that this one replaces, by resource.
    pub beliefs: BTreeMap<String, Belief>,
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
    withheld: Option<String>,
    refused: Vec<Refused>,
    since: BTreeMap<String, SystemTime>,
    owed_since: Option<SystemTime>,
    doubting: bool,
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
    heart: Heart,
}

impl<S: Store> Agent<S> {
    /// An agent that has not looked at anything yet.
    #[must_use]
    pub fn new(parts: Parts<S>) -> Self {
        Self {
            decided: Revision::default(),
            regressions: 0,
            first_change: None,
            withheld: None,
            refused: Vec::new(),
            since: BTreeMap::new(),
            owed_since: None,
            doubting: false,
            look_again: None,
            seen: None,
            went_back: None,
            remembered: None,
            last_load: None,
            served: None,
            heart: parts.pulse.heart(&format!("the agent of {}", parts.set.name), STEP),
            parts,
        }
    }

    /// Works until `shutdown`, and then once more if a load is owed by an install.
    /// Returns what it believes, for a successor.
    pub async fn run(mut self, shutdown: CancellationToken) -> BTreeMap<String, Belief> {
        let mut now_due = true;
        loop {
            self.heart.beat(STEP);
            now_due |= self.look_again.is_some_and(|at| Instant::now() >= at);
            if now_due || self.is_due() {
                self.decide().await;
            }
            while self.parts.pipeline.step(Instant::now()).await {
                if self.parts.pipeline.applied().is_some() {
                    self.last_load = Some(Instant::now());
                    self.served = Some(self.routes());
                }
                if shutdown.is_cancelled() {
                    break;
                }
                // What came in meanwhile is better than what is owed.
                if self.is_due() {
                    self.decide().await;
                }
            }
            self.tell();
            self.remember().await;
            if shutdown.is_cancelled() {
                return self.end().await;
            }
            let until = self.next_look();
            self.heart.beat(until.saturating_duration_since(Instant::now()) + LATE);
            now_due = tokio::select! {
                () = shutdown.cancelled() => continue,
                () = sleep_until(until) => false,
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

    /// A load that an install owes is carried out; nothing new is installed.
    async fn end(mut self) -> BTreeMap<String, Belief> {
        if self.parts.pipeline.ledger.owed(Instant::now()) == Owed::Reload {
            self.parts.pipeline.step(Instant::now()).await;
            self.tell();
        }
        self.heart.end();
        self.parts.beliefs
    }

    /// Whether there is a picture to decide on, and its debounce is over.
    fn is_due(&mut self) -> bool {
        let view = self.parts.view.borrow();
        let Some(snapshot) = &view.snapshot else {
            return view.stale.as_ref().is_some_and(|_| self.decided == Revision::default());
        };
        let news = snapshot.revision != self.decided || view.regressions != self.regressions;
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
        let mut next = now + Duration::from_secs(60);
        // A pause may have ended since the last step: what is owed is owed now.
        match self.parts.pipeline.ledger.owed(now) {
            Owed::Nothing => {}
            Owed::Later(until) => next = next.min(until),
            Owed::Install | Owed::Reload => next = now,
        }
        if let Some(first) = self.first_change {
            next = next.min(first + self.parts.set.debounce());
        }
        next = self.look_again.map_or(next, |at| next.min(at));
        if self.parts.pipeline.retiring() > 0 {
            let soon = self.last_load.is_none_or(|at| now < at + Duration::from_secs(1));
            next = next.min(now + if soon { RETIRING_SOON } else { RETIRING_LATER });
        }
        next
    }

    /// Makes of the newest picture what is wanted.
    async fn decide(&mut self) {
        (self.first_change, self.look_again) = (None, None);
        let view = self.parts.view.borrow_and_update().clone();
        let Some(snapshot) = view.snapshot.clone() else {
            // etcd is away at the start: what is in place is better than nothing.
            if view.stale.is_some_and(|stale| stale.why != NOT_READ) {
                self.parts.pipeline.want_what_is_there();
            }
            return;
        };
        let same = self.seen.as_ref().is_some_and(|seen| seen.says_the_same(&snapshot));
        if same && self.is_settled() && view.regressions == self.regressions {
            // Others wrote. A template that looks at the clock is not rendered for that.
            self.decided = snapshot.revision;
            self.parts.pipeline.wanted_still(snapshot.revision);
            return;
        }
        self.seen = Some(snapshot.clone());
        if view.regressions != self.regressions {
            self.regressions = view.regressions;
            self.parts.pipeline.forget_revisions();
        }
        if self.decided == Revision::default()
            && memory::recall(&self.parts.set, &mut self.parts.beliefs, &snapshot)
        {
            self.went_back = Some(Instant::now());
        }
        let grace = self.parts.set.grace();
        let went_back = view.regressed_at.max(self.went_back);
        let regressed = went_back.is_some_and(|at| at.elapsed() < grace);
        self.decided = snapshot.revision;
        self.doubting = regressed;
        match self.render(&snapshot, regressed).await {
            Ok((candidates, refused)) => {
                self.withheld = None;
                self.refused = refused;
                self.parts.pipeline.cause = cause::words(self.served.as_ref(), &self.routes());
                self.parts.pipeline.want(candidates, snapshot.revision);
            }
            Err(why) => {
                if self.withheld.as_ref() != Some(&why) {
                    tracing::warn!(set = self.parts.set.name, "{why}; the last files stay");
                }
                self.withheld = Some(why);
                self.parts.pipeline.want_what_is_there();
            }
        }
        let pause = if self.doubting { DOUBT_AGAIN } else { RENDER_AGAIN };
        self.look_again = (!self.is_settled()).then(|| Instant::now() + pause);
    }

    /// Whether the newest picture is believed and rendered.
    fn is_settled(&self) -> bool {
        !self.doubting && self.withheld.is_none()
    }

    /// All files of the set, or why not: one resource speaks for all.
    async fn render(
        &mut self,
        snapshot: &Snapshot,
        regressed: bool,
    ) -> Result<(Vec<crate::install::Candidate>, Vec<Refused>), String> {
        let in_place = self.parts.pipeline.in_place();
        let (mut candidates, mut refused, mut adopted) = (Vec::new(), Vec::new(), Vec::new());
        for program in &self.parts.set.programs {
            let mut seen = program.resource.reading.see(snapshot.entries.values());
            let name = program.resource.name.clone();
            let belief = self.parts.beliefs.entry(name.clone()).or_default();
            let (store, bookkeeping) = (&self.parts.store, &self.parts.bookkeeping);
            let resource = &program.resource;
            let held =
                doubt::hold(store, bookkeeping, resource, belief, &mut seen, regressed).await;
            self.doubting |= !held.is_empty();
            let policy = &resource.policy;
            let had = belief.backends().next().is_some();
            if (had || resource.reading.is_about_backends(&seen))
                && let Outcome::Keep { why } = belief.weigh(policy, &seen, regressed, in_place)
            {
                self.doubting |= regressed;
                self.refused = seen.refused;
                return Err(format!("{name}: {why}"));
            }
            candidates.push(program.render(&seen)?);
            refused.extend(seen.refused.clone());
            adopted.push((name, seen, held));
        }
        say_refused(&self.refused, &refused);
        for (name, seen, held) in adopted {
            self.parts.beliefs.entry(name).or_default().adopt(&seen, held);
        }
        Ok((candidates, refused))
    }

    /// Keeps what is proven for the next start; not while any of it is doubted.
    async fn remember(&mut self) {
        let Some(snapshot) = self.parts.view.borrow().snapshot.clone() else { return };
        let applied = self.applied();
        if self.doubting || applied != Some(snapshot.revision) || applied == self.remembered {
            return;
        }
        self.remembered = applied;
        memory::keep(&self.parts.set, &self.parts.beliefs, &snapshot).await;
    }

    /// Publishes what stands, and acknowledges it.
    fn tell(&mut self) {
        let now = Instant::now();
        let quiesced = self.parts.pipeline.quiesced(now);
        let applied = self.applied();
        let in_sync = self.parts.pipeline.ledger.in_sync() && self.withheld.is_none();
        if in_sync {
            self.owed_since = None;
        } else {
            self.owed_since.get_or_insert_with(SystemTime::now);
        }
        self.acknowledge(applied, quiesced);
        let state = self.state(applied, quiesced, in_sync);
        self.parts.publish.send_replace(state);
    }

    /// The newest revision that is live; nothing while the newest is withheld.
    fn applied(&self) -> Option<Revision> {
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
        let refusal = self.parts.pipeline.ledger.refusal().map(|refusal| refusal.why.clone());
        let why = self.withheld.clone().or(refusal);
        let refused =
            why.map(|why| Refusal { revision: self.decided, why: why.chars().take(500).collect() });
        for program in &self.parts.set.programs {
            let name = &program.resource.name;
            let held = self.parts.beliefs.get(name).map(|b| b.held().iter().cloned().collect());
            let said = Applied {
                applied: applied.unwrap_or_default(),
                quiesced,
                held: held.unwrap_or_default(),
                refused: refused.clone(),
            };
            members.acknowledge(name, said, self.regressions);
        }
    }

    fn state(&mut self, applied: Option<Revision>, quiesced: Revision, in_sync: bool) -> SetState {
        let backends = self.backends();
        let pipeline = &self.parts.pipeline;
        let short = |digest: Option<crate::install::Digest>| digest.map(|d| d.short());
        let view = self.parts.view.borrow();
        let loads = pipeline.history.iter().map(|load| LoadState {
            at: load.at,
            took_ms: load.took.as_millis(),
            revision: load.revision.0,
            cause: load.cause.clone(),
            failed: load.failed.clone(),
        });
        let refused = self.refused.iter();
        SetState {
            name: self.parts.set.name.clone(),
            files: self
                .parts
                .set
                .programs
                .iter()
                .map(|p| p.resource.dest.display().to_string())
                .collect(),
            stale: view.stale.as_ref().map(|stale| stale.why.clone()),
            revision: self.decided.0,
            applied: applied.unwrap_or_default().0,
            quiesced: quiesced.0,
            wanted: short(pipeline.ledger.wanted()),
            installed: short(pipeline.ledger.on_disk()),
            live: short(pipeline.ledger.proven()),
            in_sync,
            owed_since: self.owed_since,
            trouble: self.withheld.clone().or_else(|| pipeline.trouble.clone()),
            backends,
            refused: refused
                .map(|r| RefusedState { key: r.key.clone(), why: r.why.clone() })
                .collect(),
            old_generations: pipeline.retiring(),
            loads: loads.collect(),
            loads_total: pipeline.counts.loads,
            refusals_total: pipeline.counts.refusals,
            failures_total: pipeline.counts.failures,
            load_seconds: pipeline.load_seconds.clone(),
        }
    }

    fn routes(&self) -> Routes {
        let all = self.parts.beliefs.values().flat_map(Belief::backends);
        let route = |b: &common::model::Backend| (b.addr.to_string(), b.weight);
        all.map(|(key, registered)| (key.to_owned(), route(&registered.backend))).collect()
    }

    fn backends(&mut self) -> Vec<BackendState> {
        let now = SystemTime::now();
        let mut found: BTreeMap<String, BackendState> = BTreeMap::new();
        for belief in self.parts.beliefs.values() {
            for (key, registered) in belief.backends() {
                let since = *self.since.entry(key.to_owned()).or_insert(now);
                let state = BackendState {
                    key: key.to_owned(),
                    service: registered.service.to_string(),
                    addr: registered.backend.addr.to_string(),
                    weight: registered.backend.weight,
                    held: belief.held().contains(key),
                    since,
                };
                found.insert(key.to_owned(), state);
            }
        }
        self.since.retain(|key, _| found.contains_key(key));
        found.into_values().collect()
    }
}

/// What a view says before the first answer of etcd.
const NOT_READ: &str = common::watch::NOT_READ_YET;

fn say_refused(before: &[Refused], now: &[Refused]) {
    for refused in now.iter().filter(|r| !before.contains(r)) {
        tracing::warn!(key = refused.key, "value refused: {}", refused.why);
    }
    for mended in before.iter().filter(|r| !now.iter().any(|n| n.key == r.key)) {
        tracing::info!(key = mended.key, "no longer refused");
    }
}
