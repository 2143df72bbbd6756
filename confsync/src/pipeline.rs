//! One set's way from what is wanted to what is proven: render, stage, check, swap,
//! load, prove. One step at a time, each carried to its end; the ledger says which.
//!
//! What must hold:
//! * what was refused never replaces what works, and is put back if it did;
//! * a load stays owed until it is proven, across failures and restarts;
//! * between a swap and its proof nothing else is swapped.
//!
//! This module knows nothing of etcd.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use common::backoff::Backoff;
use common::model::{Revision, format_span};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::install::{
    Candidate, Digest, InstallError, InstalledSet, Recovered, StagedSet, Target, clean_stale,
    current, recover,
};
use crate::ledger::{Ledger, Owed};
use crate::nginx::is_alive;
use crate::proxy::{NotLoaded, NotPassed, Old, Proxy};
use crate::quiescence::{Quiescence, Until};

/// Loads kept for the status page.
pub const HISTORY: usize = 50;
/// How often it is looked whether whoever runs the files still does.
const STILL_THERE: Duration = Duration::from_secs(2);

/// The pipeline of one set.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    proxy: Proxy,
    targets: Vec<Target>,
    /// What is owed.
    pub ledger: Ledger,
    candidates: Vec<Candidate>,
    /// The revision that the candidates were rendered from.
    wanted_at: Revision,
    /// Swapped in, not proven yet: the previous files are still there.
    pending: Option<InstalledSet>,
    /// Those are of an earlier run, and nobody has tried to load them since.
    prove_first: bool,
    quiescence: Quiescence,
    min_interval: Duration,
    last_load: Option<Instant>,
    backoff: Backoff,
    /// Why the last step failed, until one succeeds.
    pub trouble: Option<String>,
    /// The last loads, newest last.
    pub history: VecDeque<Load>,
    /// Loads proven and steps failed since the start.
    pub counts: Counts,
    /// How long proven loads took.
    pub load_seconds: Histogram,
    /// What made the next load due, in the operator's words.
    pub cause: String,
}

/// Counters for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Loads proven.
    pub loads: u64,
    /// Candidates refused, by a check or by whoever loads.
    pub refusals: u64,
    /// Steps that failed for another reason.
    pub failures: u64,
}

/// One load, for the status page.
#[derive(Debug, Clone)]
pub struct Load {
    /// When it ended.
    pub at: SystemTime,
    /// From the beginning of the check to the proof.
    pub took: Duration,
    /// The revision it made live.
    pub revision: Revision,
    /// What made it due.
    pub cause: String,
    /// `None` for success, else why not.
    pub failed: Option<String>,
}

impl Pipeline {
    /// A pipeline for `targets`; looks at what an earlier run left on disk.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn new(
        name: String,
        proxy: Proxy,
        targets: Vec<Target>,
        min_interval: Duration,
    ) -> Result<Self, InstallError> {
        proxy.clean_stale();
        for target in &targets {
            for stale in clean_stale(target)? {
                tracing::info!(file = %stale.display(), "removed a left-over of an earlier run");
            }
        }
        let pending = match recover(&targets)? {
            Recovered::Nothing => None,
            Recovered::PutBack => {
                tracing::warn!(
                    set = name,
                    "an earlier run ended in a swap; the files of before it are back"
                );
                None
            }
            Recovered::Undecided(set) => {
                tracing::warn!(set = name, "an earlier run ended before its files were proven");
                Some(set)
            }
        };
        Ok(Self {
            ledger: Ledger::new(on_disk(&targets)),
            name,
            proxy,
            targets,
            candidates: Vec::new(),
            wanted_at: Revision::default(),
            prove_first: pending.is_some(),
            pending,
            quiescence: Quiescence::default(),
            min_interval,
            last_load: None,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            trouble: None,
            history: VecDeque::new(),
            counts: Counts::default(),
            load_seconds: crate::state::load_seconds(),
            cause: "start".to_owned(),
        })
    }

    /// Whether all files of the set are in place, whatever is in them.
    #[must_use]
    pub fn in_place(&self) -> bool {
        self.ledger.on_disk().is_some()
    }

    /// Whether an earlier run left files in place that nothing has proven.
    #[must_use]
    pub fn unproven(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether whoever runs the files has been left alone so far, and runs.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.last_load.is_none() && self.proxy.is_running()
    }

    /// How its files are loaded.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// These files are wanted, rendered from this revision.
    pub fn want(&mut self, candidates: Vec<Candidate>, revision: Revision) {
        let digest = Digest::of(&candidates);
        if self.ledger.wanted() != Some(digest) {
            self.ledger.want(digest);
            self.backoff.reset();
        }
        (self.candidates, self.wanted_at) = (candidates, revision);
        if self.ledger.in_sync() {
            self.quiescence.live(revision);
            // What was refused is not wanted any more.
            self.mended();
        }
    }

    /// The same files are wanted at a later revision.
    pub fn wanted_still(&mut self, revision: Revision) {
        self.wanted_at = revision;
        if self.ledger.in_sync() {
            self.quiescence.live(revision);
        }
    }

    /// What is in place is wanted as it is: nothing better can be had.
    pub fn want_what_is_there(&mut self) {
        if let Some(digest) = self.ledger.on_disk()
            && self.ledger.wanted().is_none()
        {
            self.ledger.want(digest);
        }
    }

    /// Performs the step owed, if one is. `true`: there may be another.
    pub async fn step(&mut self, now: Instant) -> bool {
        match self.ledger.owed(now) {
            Owed::Nothing | Owed::Later(_) => false,
            Owed::Install => {
                if !self.may_load(now) {
                    return false;
                }
                let began = Instant::now();
                // Files that an earlier run left unproven are tried first, once: those of
                // before may name backends that have left.
                if std::mem::take(&mut self.prove_first) && self.proxy.is_running() {
                    self.load(began).await;
                    return true;
                }
                let refusals = self.counts.refusals;
                if self.install().await {
                    self.load(began).await;
                } else if self.counts.refusals > refusals {
                    self.remember(began, self.trouble.clone());
                }
                true
            }
            Owed::Reload => {
                if !self.may_load(now) {
                    return false;
                }
                self.load(now).await;
                true
            }
        }
    }

    /// The minimum interval and the bound on old generations delay a load; neither
    /// drops it.
    fn may_load(&mut self, now: Instant) -> bool {
        if let Some(free) = self.last_load.map(|last| last + self.min_interval)
            && free > now
        {
            self.ledger.pause(free);
            return false;
        }
        if let Some(old) = self.proxy.crowded() {
            tracing::warn!(
                set = self.name,
                old,
                "waiting with the reload: too many old generations are still at work \
                 (worker_shutdown_timeout bounds them)"
            );
            self.ledger.pause(now + Duration::from_secs(1));
            return false;
        }
        true
    }

    async fn install(&mut self) -> bool {
        // Nobody runs who could prove what is in place: it gives way to its
        // predecessor, so that what is kept as previous was proven once.
        if let Some(pending) = self.pending.take() {
            self.put_back(pending).await;
        }
        let candidates = self.candidates.clone();
        let staged = match blocking(move || StagedSet::write(&candidates)).await {
            Ok(staged) => staged,
            Err(error) => return self.failed(format!("cannot stage: {error}")),
        };
        let digest = staged.digest();
        let proof = match self.proxy.check(&staged).await {
            Ok(proof) => proof,
            Err(NotPassed::Refused(why)) => return self.refused(digest, why),
            Err(NotPassed::Unknown(why)) => return self.failed(why),
        };
        match blocking(move || staged.accept(proof)?.install()).await {
            Ok(installed) => {
                for dest in installed.in_place() {
                    tracing::warn!(
                        dest = %dest.display(),
                        "written in place, which is not atomic; mount its folder instead of the file"
                    );
                }
                self.ledger.installed(Some(digest));
                self.pending = Some(installed);
                tracing::info!(set = self.name, digest = digest.short(), revision = %self.wanted_at, "installed");
            }
            Err(error) => {
                self.ledger.installed(on_disk(&self.targets));
                return self.failed(format!("cannot install: {error}"));
            }
        }
        match self.proxy.check_installed().await {
            Ok(()) => true,
            Err(why) => {
                self.roll_back().await;
                self.refused(digest, why)
            }
        }
    }

    async fn load(&mut self, began: Instant) {
        self.prove_first = false;
        let outcome = self.proxy.load().await;
        let now = Instant::now();
        self.last_load = Some(now);
        let failed = match outcome {
            Ok(old) => {
                self.proven(old, now).await;
                None
            }
            Err(NotLoaded::NobodyThere(why)) => {
                // Whoever starts will read the files; what is live is not known.
                self.ledger.live_unknown();
                self.ledger.pause(now + Duration::from_secs(1));
                self.say_trouble(format!("nobody is there to load it: {why}"));
                return;
            }
            Err(NotLoaded::Unproven(why)) => {
                self.ledger.live_unknown();
                self.failed(why.clone());
                Some(why)
            }
            Err(NotLoaded::Broken(why)) => {
                self.go_back(why.clone(), true).await;
                Some(why)
            }
            Err(NotLoaded::Refused(why)) => {
                self.go_back(why.clone(), false).await;
                Some(why)
            }
        };
        if failed.is_none() {
            self.load_seconds.observe(began.elapsed().as_secs_f64());
        }
        self.remember(began, failed);
    }

    async fn proven(&mut self, old: Old, now: Instant) {
        self.ledger.live();
        self.backoff.reset();
        self.counts.loads += 1;
        let until = match old {
            Old::Processes(pids) => Until::Gone(pids),
            Old::For(span) => Until::Then(now + span),
        };
        self.quiescence.retire(until);
        if let Some(applied) = self.applied() {
            self.quiescence.live(applied);
        }
        self.mended();
        tracing::info!(set = self.name, revision = %self.wanted_at, "live");
        if let Some(pending) = self.pending.take()
            && let Err(error) = blocking(move || pending.commit()).await
        {
            tracing::warn!(%error, "the previous file stays beside the new one");
        }
    }

    /// What is installed will not do: the previous files come back, and are loaded
    /// again where what runs is not certain to be theirs.
    async fn go_back(&mut self, why: String, load_again: bool) {
        let digest = self.ledger.on_disk();
        let Some(pending) = self.pending.take() else {
            // There is nothing to go back to.
            self.ledger.live_unknown();
            self.failed(why);
            return;
        };
        self.put_back(pending).await;
        if load_again {
            self.ledger.live_unknown();
            let again = self.proxy.load().await;
            let back = again.is_ok();
            tracing::error!(set = self.name, back, "{why}; the previous files are loaded again");
            if back {
                self.ledger.live();
            }
        }
        if let Some(digest) = digest {
            self.refused(digest, why);
        }
    }

    async fn roll_back(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.put_back(pending).await;
        }
    }

    async fn put_back(&mut self, pending: InstalledSet) {
        match blocking(move || pending.rollback()).await {
            Ok(()) => tracing::warn!(set = self.name, "the previous files are back in place"),
            Err(error) => {
                tracing::error!(set = self.name, %error, "cannot put the previous files back")
            }
        }
        self.ledger.installed(on_disk(&self.targets));
    }

    fn refused(&mut self, digest: Digest, why: String) -> bool {
        self.counts.refusals += 1;
        self.say_trouble(format!("refused: {why}"));
        self.ledger.refuse(digest, why, Instant::now());
        false
    }

    fn failed(&mut self, why: String) -> bool {
        self.counts.failures += 1;
        let pause = self.backoff.after_failure(fastrand::f64());
        self.say_trouble(format!("{why}; trying again in {}", format_span(pause)));
        self.ledger.pause(Instant::now() + pause);
        false
    }

    fn say_trouble(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::error!(set = self.name, "{why}");
        }
        self.trouble = Some(why);
    }

    fn mended(&mut self) {
        if let Some(trouble) = self.trouble.take() {
            tracing::info!(set = self.name, "mended: {trouble}");
        }
    }

    fn remember(&mut self, began: Instant, failed: Option<String>) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let (took, revision, cause) = (began.elapsed(), self.wanted_at, self.cause.clone());
        self.history.push_back(Load { at: SystemTime::now(), took, revision, cause, failed });
    }

    /// The revision that is proven to be live: that of the candidates, if what they
    /// want is.
    #[must_use]
    pub fn applied(&self) -> Option<Revision> {
        self.ledger.in_sync().then_some(self.wanted_at)
    }

    /// Every change up to here is in what every worker there is works by.
    pub fn quiesced(&mut self, now: Instant) -> Revision {
        self.quiescence.look(self.applied(), now, is_alive)
    }

    /// Returns once whoever was proven to run the files runs no more.
    pub async fn ended(&self) {
        while !self.is_over() {
            tokio::time::sleep(STILL_THERE).await;
        }
    }

    fn is_over(&self) -> bool {
        self.ledger.proven().is_some() && !self.proxy.is_running()
    }

    /// What ran the files may have ended: then what is live is not known.
    pub fn look_again(&mut self) {
        if self.is_over() {
            tracing::warn!(set = self.name, "nginx has ended; nothing is known to be live");
            self.ledger.live_unknown();
        }
    }

    /// The operator asked: what was refused or failed is tried again now.
    pub fn try_again(&mut self) {
        self.ledger.forget_refusal();
        self.backoff.reset();
    }

    /// The store went back: what was acknowledged before means nothing now.
    pub fn forget_revisions(&mut self) {
        self.quiescence.forget();
    }

    /// How many old generations are waited for.
    #[must_use]
    pub fn retiring(&self) -> usize {
        self.quiescence.retiring()
    }
}

fn on_disk(targets: &[Target]) -> Option<Digest> {
    match current(targets) {
        Ok(digest) => digest,
        Err(error) => {
            // What cannot be read is replaced, or the replacing tells why not.
            tracing::warn!(%error, "cannot read what is in place");
            None
        }
    }
}

/// Runs blocking file work to its end, even if the caller goes away.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InstallError> + Send + 'static,
) -> Result<T, InstallError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
