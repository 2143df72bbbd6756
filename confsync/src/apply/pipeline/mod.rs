//! One reload group's way from what is wanted to what is proven: stage, check, install, load,
//! prove. One step at a time, each carried to its end; the ledger says which.
//!
//! ```text
//!   WantedFiles ─► Ledger ─pending step─► GroupFiles     stage, install, roll back
//!                    ▲    LoadPacing       Proxy         check, load
//!                    │                     ActiveMembers publish, confirm
//!                    └────── facts ──────── StepOutcome ─► StepRecord, OldGenerations
//! ```
//!
//! What must hold:
//! * what was rejected never replaces what works, and is put back if it did;
//! * a load stays pending until it is proven, across failures and restarts;
//! * between an installation and its proof nothing else is installed.
//!
//! This module knows nothing of etcd.

mod load;
mod master_end;
mod publish;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use common::model::{Revision, format_span};
use common::runtime::STEPS;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use master_end::MasterEnd;
pub use status::PipelineStatus;

use crate::apply::group_files::{FilesInPlace, GroupFiles};
use crate::apply::ledger::{Ledger, PendingStep};
use crate::apply::load_pacing::{LoadLimits, LoadPacing};
use crate::apply::members::ActiveMembers;
use crate::apply::named_line::named_resource;
use crate::apply::old_generations::OldGenerations;
use crate::apply::record::{Changes, Counts, StepRecord};
use crate::apply::step::StepOutcome;
use crate::apply::wanted_files::WantedFiles;
use crate::install::{DestLock, Digest, InstallError, Target, Wanted};
use crate::proxy::Proxy;
use crate::proxy::driver::{Driver, RenderedFile};

/// How often it is checked whether old generations have ended, or a proxy runs.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The pipeline of one reload group.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    proxy: Proxy,
    wanted: WantedFiles,
    ledger: Ledger,
    pacing: LoadPacing,
    files: GroupFiles,
    members: ActiveMembers,
    old: OldGenerations,
    /// The end of the process that runs what is active, if it is to be watched for.
    master: Option<MasterEnd>,
    record: StepRecord,
}

impl Pipeline {
    /// A pipeline for `targets`, whose locks are taken; looks at what an earlier run left on disk.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn new(
        name: String,
        proxy: Proxy,
        targets: Vec<Target>,
        locks: Vec<DestLock>,
        limits: LoadLimits,
    ) -> Result<Self, InstallError> {
        proxy.clean_stale();
        let files = GroupFiles::open(name.clone(), targets, locks)?;
        let driver = Driver::reload("no driver was chosen yet");
        Ok(Self {
            proxy,
            wanted: WantedFiles::default(),
            ledger: Ledger::new(files.in_place()),
            pacing: LoadPacing::new(limits),
            files,
            members: ActiveMembers::new(name.clone(), driver),
            old: OldGenerations::new(name.clone()),
            master: None,
            record: StepRecord::new(name.clone()),
            name,
        })
    }

    /// Members are changed by this driver from now on.
    #[must_use]
    pub fn with_driver(mut self, driver: Driver) -> Self {
        self.members.use_driver(driver);
        self
    }

    /// Counts on from what a group of this name had counted before.
    #[must_use]
    pub fn counting_on(mut self, counts: Counts, load_seconds: Histogram) -> Self {
        self.record.count_on(counts, load_seconds);
        self
    }

    /// There is one turn only, in a process that ends after it.
    #[must_use]
    pub fn for_one_turn(mut self) -> Self {
        self.record.expect_no_retry();
        self
    }

    /// These files are wanted, rendered from this revision; `cause` says what changed.
    pub fn want_rendered(&mut self, files: Vec<RenderedFile>, revision: Revision, cause: String) {
        self.wanted.rendered = files;
        self.wanted.cause = cause;
        self.wanted.revision = revision;
        self.arrange();
    }

    /// These files are wanted as they are, whatever the driver.
    pub fn want_files(&mut self, wanted: Wanted, revision: Revision) {
        self.wanted.revision = revision;
        self.want(wanted);
    }

    /// Puts the rendered files into the form of the driver.
    fn arrange(&mut self) {
        let wanted = self.members.arrange(&self.wanted.rendered);
        self.want(wanted);
    }

    fn want(&mut self, wanted: Wanted) {
        let is_new = self.ledger.wanted() != Some(wanted.digest());
        let in_place = self.ledger.installed().filter(|_| is_new);
        if let Some(known) = in_place.and_then(|found| self.files.recognize(&wanted, found)) {
            self.ledger.note_installed(Some(known));
        }
        self.ledger.want_parts(wanted.digest(), wanted.structure());
        if is_new {
            self.record.files_changed();
            if let Some(until) = self.pacing.files_changed(Instant::now(), fastrand::f64()) {
                self.ledger.pause(until);
            }
        }
        self.wanted.files = Some(wanted);
        self.note_applied();
        if self.ledger.in_sync() {
            // What was rejected is not wanted any more.
            self.record.recovered();
        }
    }

    /// The same files are wanted at a later revision.
    pub fn want_same_at(&mut self, revision: Revision) {
        self.wanted.revision = revision;
        self.note_applied();
    }

    /// What is in place is wanted as it is: nothing better can be had.
    pub fn want_what_is_in_place(&mut self) {
        if let Some(digest) = self.ledger.installed()
            && self.ledger.wanted().is_none()
        {
            self.ledger.want(digest);
        }
    }

    /// Checks whether another process has changed or removed the files in place; they are then
    /// written again, because etcd's keys decide what they are.
    pub async fn look_at_files(&mut self) {
        // Before the first render there is nothing to write instead.
        if self.wanted.files.is_none() {
            return;
        }
        let FilesInPlace::Read(in_place) = self.files.look().await else { return };
        if in_place != self.ledger.installed() {
            self.wanted.cause = "changed by another process".to_owned();
            self.ledger.note_installed(in_place);
            let now = Instant::now();
            match self.pacing.changed_by_others(now, fastrand::f64()) {
                None => tracing::warn!(
                    set = self.name,
                    "the files in place were changed by another process and are written again (to \
                     keep a change, make it in the template)"
                ),
                Some(pause) => {
                    self.ledger.pause(now + pause);
                    tracing::warn!(
                        set = self.name,
                        "the files in place were changed again, soon after they were written; does \
                         a command of the resource change them? Written again in {}",
                        format_span(pause)
                    );
                }
            }
        }
    }

    /// What resolves when a proxy known by its pid file ends.
    pub async fn master_ended(&self) {
        match &self.master {
            Some(master) => master.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when the old generations are to be checked again.
    pub async fn old_generation_ended(&self) {
        self.old.news().await;
    }

    /// When the wait for those ends that cannot be observed.
    pub fn old_generation_ends(&self) -> Option<Instant> {
        self.old.first_instant()
    }

    /// Whether requests to members that left are waited for.
    pub fn waits_for_requests(&self) -> bool {
        self.old.waits_for_requests()
    }

    /// The process that runs what is active has ended: nothing is active until it is started again
    /// and a load is proven.
    pub fn note_master_ended(&mut self) {
        self.master = None;
        self.ledger.note_active_unknown();
        self.members.before_start();
        let name = &self.name;
        tracing::error!(
            set = name,
            "the proxy has ended; nothing counts as active until it is started again"
        );
    }

    /// The step that is pending.
    pub fn pending(&self, now: Instant) -> PendingStep {
        self.ledger.pending(now)
    }

    /// Performs the step that is pending, if one is and may be.
    pub async fn step(&mut self, now: Instant) -> StepOutcome {
        self.publish_early(now).await;
        let pending = self.ledger.pending(now);
        tracing::debug!(target: STEPS, set = self.name, why = %pending, "{pending:?}");
        match pending {
            PendingStep::Nothing | PendingStep::NotBefore(_) => StepOutcome::Idle,
            PendingStep::Install | PendingStep::Reload if !self.may_load(now) => StepOutcome::Idle,
            PendingStep::Install => self.install_and_load().await,
            PendingStep::Reload => self.load(now).await,
            PendingStep::Publish => self.change_members(now).await,
            PendingStep::Write => self.write_active(now).await,
        }
    }

    /// The minimum interval and the bound on old generations delay a load; neither
    /// drops it.
    fn may_load(&mut self, now: Instant) -> bool {
        if let Some(end) = self.pacing.interval_ends(now) {
            self.ledger.pause(end);
            return false;
        }
        if let Some(old) = self.proxy.crowded() {
            tracing::warn!(
                set = self.name,
                old,
                "the reload waits: too many old generations still finish requests (nginx's \
                 worker_shutdown_timeout or HAProxy's hard-stop-after limits how long)"
            );
            self.ledger.pause(now + LOOK_AGAIN);
            return false;
        }
        true
    }

    /// The revision that is proven to be active: that of the wanted files, if they are.
    ///
    /// Where a reload makes the proxy forget what its driver published, the files must have it as
    /// well: another process may reload it at any time.
    pub fn applied(&self) -> Option<Revision> {
        let is_lasting = self.members.outlive_reload() || !self.ledger.is_file_behind();
        (self.ledger.in_sync() && is_lasting).then_some(self.wanted.revision)
    }

    fn note_applied(&mut self) {
        if let Some(applied) = self.applied() {
            self.old.note_active(applied);
        }
    }

    /// Up to which revision nothing works by an older one.
    pub fn quiesced(&mut self, now: Instant) -> Revision {
        self.old.quiesced(self.applied(), now)
    }

    /// What the last load changed, for the status page.
    pub fn note_changes(&mut self, changes: Changes) {
        self.record.note_changes(self.wanted.revision, changes);
    }

    /// The operator asked: what was rejected or failed is tried again now.
    pub fn try_again(&mut self) {
        self.ledger.forget_rejection();
        self.pacing.reset_backoff();
    }

    /// etcd regressed: what was acknowledged before means nothing now.
    pub fn forget_revisions(&mut self) {
        self.old.forget_revisions();
    }

    fn rejected(&mut self, digest: Digest, why: String) -> StepOutcome {
        let dests = self.wanted.rendered.iter().map(|file| file.target.dest.display().to_string());
        let resource = named_resource(&why, &self.name, &dests.collect::<Vec<_>>());
        self.record.rejected(&why, resource);
        self.ledger.reject(digest, why.clone(), Instant::now());
        StepOutcome::Rejected(why)
    }

    fn failed(&mut self, why: String) -> StepOutcome {
        let pause = self.pacing.failed(fastrand::f64());
        self.record.failed(&why, pause);
        self.ledger.pause(Instant::now() + pause);
        StepOutcome::Failed(why)
    }
}
