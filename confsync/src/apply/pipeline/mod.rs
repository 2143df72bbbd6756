//! One set's way from what is wanted to what is proven: render, stage, check, swap,
//! load, prove. One step at a time, each carried to its end; the ledger says which.
//!
//! What must hold:
//! * what was refused never replaces what works, and is put back if it did;
//! * a load stays owed until it is proven, across failures and restarts;
//! * between a swap and its proof nothing else is swapped.
//!
//! This module knows nothing of etcd.

mod load;
mod members;
mod quiesce_check;
mod record;

use std::collections::VecDeque;
use std::time::Duration;

use common::backoff::Backoff;
use common::model::Revision;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use quiesce_check::QuiesceCheck;
pub use record::{Counts, HISTORY, Load, load_seconds};

use crate::apply::ledger::{Ledger, Owed};
use crate::apply::quiescence::Quiescence;
use crate::install::{
    Candidate, DestLock, Digest, InstallError, InstalledFiles, Recovered, StagedFiles, Stamp,
    Target, Wanted, clean_stale, current, recover,
};
use crate::proxy::driver::{Driver, Pools, RenderedFile};
use crate::proxy::nginx::{ProcessId, gone, is_alive};
use crate::proxy::{NotPassed, Proxy};

/// The pipeline of one set.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    proxy: Proxy,
    /// Who changes members without a reload.
    driver: Driver,
    /// The members that the driver is to give the proxy.
    pools: Pools,
    /// Whether it has.
    is_published: bool,
    /// Requests to members that left were not counted; the reload that cures it is on its way.
    uncounted: bool,
    /// When it is looked again what the running proxy has.
    read_back_at: Option<Instant>,
    /// The driver that the log has named.
    told_driver: Option<&'static str>,
    /// What is wanted, before a driver gave it its form.
    rendered: Vec<RenderedFile>,
    targets: Vec<Target>,
    /// Nobody else writes the targets.
    locks: Vec<DestLock>,
    /// What a check has made of the candidates, and what it stands for.
    edited: Option<(Digest, Digest)>,
    /// What is owed.
    pub ledger: Ledger,
    /// Nothing before the first render.
    wanted: Option<Wanted>,
    /// The revision that it was rendered from.
    wanted_at: Revision,
    /// Swapped in, not proven yet: the previous files are still there.
    pending: Option<InstalledFiles>,
    /// Those are of an earlier run, and nobody has tried to load them since.
    prove_first: bool,
    quiescence: Quiescence,
    quiesce_check: QuiesceCheck,
    /// Who runs what is live, if its end is to be watched for.
    master: Option<ProcessId>,
    /// The files as they were last looked at.
    stamp: Stamp,
    min_interval: Duration,
    /// Changes are delayed by up to this, so that not all load balancers reload at once.
    pub splay: Duration,
    /// How long those at hand are.
    splayed: Option<Instant>,
    last_load: Option<Instant>,
    backoff: Backoff,
    /// Nobody tries again: there is one step only.
    pub once: bool,
    /// Why the last step failed, until one succeeds.
    pub trouble: Option<String>,
    /// What of it was logged since the files that are wanted changed last.
    said: Option<String>,
    /// The last loads, newest last.
    pub history: VecDeque<Load>,
    /// Loads proven and steps failed since the start.
    pub counts: Counts,
    /// How long proven loads took.
    pub load_seconds: Histogram,
    /// What made the next load due, in the operator's words.
    pub cause: String,
}

impl Pipeline {
    /// A pipeline for `targets`, whose locks are held; looks at what an earlier run left on disk.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn new(
        name: String,
        proxy: Proxy,
        targets: Vec<Target>,
        locks: Vec<DestLock>,
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
            driver: Driver::reload("nobody looked for a better one"),
            pools: Pools::new(),
            is_published: true,
            uncounted: false,
            read_back_at: None,
            told_driver: None,
            rendered: Vec::new(),
            targets,
            locks,
            edited: None,
            wanted: None,
            wanted_at: Revision::default(),
            prove_first: pending.is_some(),
            pending,
            quiescence: Quiescence::default(),
            quiesce_check: QuiesceCheck::default(),
            master: None,
            stamp: Stamp::default(),
            min_interval,
            splay: Duration::ZERO,
            splayed: None,
            last_load: None,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            once: false,
            trouble: None,
            said: None,
            history: VecDeque::new(),
            counts: Counts::default(),
            load_seconds: record::load_seconds(),
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

    /// Members are changed by this driver from now on.
    #[must_use]
    pub fn with_driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// These files are wanted, rendered from this revision, in the form of the driver.
    pub fn want_rendered(&mut self, files: Vec<RenderedFile>, revision: Revision) {
        self.rendered = files;
        self.arrange(revision);
    }

    /// These files are wanted, rendered from this revision.
    pub fn want(&mut self, wanted: Wanted, revision: Revision) {
        let digest = wanted.digest();
        if self.ledger.wanted() != Some(digest) {
            self.backoff.reset();
            self.said = None;
            // What waits already waits no longer for a further change; the first file never does.
            if !self.splay.is_zero() && self.last_load.is_some() {
                let at = || Instant::now() + self.splay.mul_f64(fastrand::f64());
                self.ledger.pause(*self.splayed.get_or_insert_with(at));
            }
        }
        self.ledger.want_parts(digest, wanted.structure());
        (self.wanted, self.wanted_at) = (Some(wanted), revision);
        if self.ledger.in_sync() {
            self.note_applied();
            // What was refused is not wanted any more.
            self.mended();
        }
    }

    /// The same files are wanted at a later revision.
    pub fn wanted_still(&mut self, revision: Revision) {
        self.wanted_at = revision;
        self.note_applied();
    }

    /// What is in place is wanted as it is: nothing better can be had.
    pub fn want_what_is_there(&mut self) {
        if let Some(digest) = self.ledger.on_disk()
            && self.ledger.wanted().is_none()
        {
            self.ledger.want(digest);
        }
    }

    /// Looks whether somebody else has changed or removed what is in place: then it is
    /// written again, for what etcd says is what counts.
    pub async fn look_at_disk(&mut self) {
        let stamp = Stamp::of(&self.targets);
        // Before the first render there is nothing to write instead.
        if self.wanted.is_none() || stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        let targets = self.targets.clone();
        let Ok(found) = blocking(move || Ok(on_disk(&targets))).await else { return };
        let found = self.as_rendered(found);
        if found != self.ledger.on_disk() {
            tracing::warn!(
                set = self.name,
                "the files in place were changed by somebody else and are written again (to keep a \
                 change, make it in the template)"
            );
            self.cause = "changed by somebody else".to_owned();
            self.ledger.installed(found);
        }
    }

    /// The files as they are wanted, in the group's order; none before the first render.
    #[must_use]
    pub fn wanted_files(&self) -> &[Candidate] {
        self.wanted.as_ref().map_or(&[], Wanted::files)
    }

    /// What resolves when a proxy known by its pid file ends.
    pub fn master_gone(&self) -> impl Future<Output = ()> + use<> {
        let master = self.master;
        async move {
            match master {
                Some(master) => gone(master).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Performs the step owed, if one is. `true`: there may be another.
    pub async fn step(&mut self, now: Instant) -> bool {
        self.publish_early(now).await;
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
            Owed::Publish => {
                self.publish(now).await;
                true
            }
            Owed::Write => {
                self.write_behind().await;
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

    /// What a check has edited stands for what was rendered.
    fn as_rendered(&self, found: Option<Digest>) -> Option<Digest> {
        let edited = self.edited.filter(|(edited, _)| found == Some(*edited));
        edited.map_or(found, |(_, rendered)| Some(rendered))
    }

    async fn install(&mut self) -> bool {
        // Nobody runs who could prove what is in place: it gives way to its
        // predecessor, so that what is kept as previous was proven once.
        if let Some(pending) = self.pending.take() {
            self.put_back(pending).await;
        }
        let Some(wanted) = self.wanted.clone() else { return false };
        let staged = match blocking(move || StagedFiles::write(&wanted)).await {
            Ok(staged) => staged,
            Err(error) => return self.failed(format!("cannot stage: {error}")),
        };
        // A folder that was made just now.
        if let Err(error) = DestLock::take_all(&self.targets, &mut self.locks) {
            return self.failed(error.to_string());
        }
        let digest = staged.digest();
        let proof = match self.proxy.check(&staged).await {
            Ok(proof) => proof,
            Err(NotPassed::RejectedValue(why)) if self.fall_back(&why) => return false,
            Err(NotPassed::RejectedValue(why)) => {
                self.driver.reconsider();
                return self.refused(digest, why);
            }
            Err(NotPassed::Unknown(why)) => return self.failed(why),
        };
        if self.driver.needs_log_phase()
            && !self.pools.is_empty()
            && let Some(found) = self.proxy.nginx().and_then(|n| n.hidden_log_phase(Some(&staged)))
        {
            let why = members::uncountable(&found);
            return !self.demote(&why) && self.refused(digest, why);
        }
        match blocking(move || staged.accept(proof)?.install()).await {
            Ok(installed) => {
                for dest in installed.in_place() {
                    tracing::warn!(
                        dest = %dest.display(),
                        "written in place, which is not atomic; mount its folder instead of the file"
                    );
                }
                self.edited = match installed.is_edited() {
                    true => on_disk(&self.targets).map(|found| (found, digest)),
                    false => None,
                };
                self.ledger.installed(Some(digest));
                self.pending = Some(installed);
                tracing::info!(set = self.name, digest = digest.short(), revision = %self.wanted_at, "installed");
            }
            Err(error) => {
                self.ledger.installed(self.as_rendered(on_disk(&self.targets)));
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

    /// The revision that is proven to be live: that of the candidates, if what they
    /// want is.
    ///
    /// Where a reload makes the proxy forget what its driver published, the files have to say it
    /// as well: somebody else may reload it at any time.
    #[must_use]
    pub fn applied(&self) -> Option<Revision> {
        let is_lasting = self.driver.outlives_reload() || !self.ledger.is_file_behind();
        (self.ledger.in_sync() && is_lasting).then_some(self.wanted_at)
    }

    /// What is applied now is known to every worker that is retired later.
    fn note_applied(&mut self) {
        if let Some(applied) = self.applied() {
            self.quiescence.live(applied);
        }
    }

    /// Every change up to here is in what every worker there is works by.
    pub fn quiesced(&mut self, now: Instant) -> Revision {
        self.quiescence.proven(self.quiesce_check.proven());
        self.quiescence.look(self.applied(), now, is_alive)
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
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        // A single run: nobody else waits for this thread.
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
