//! Wanted files are checked, installed, loaded and proven, or the previous ones are put back.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::master_end::MasterEnd;
use super::{LOOK_AGAIN, Pipeline};
use crate::apply::record::{Load, rejection_text};
use crate::apply::step::StepOutcome;
use crate::install::StagedFiles;
use crate::proxy::driver::PublishError;
use crate::proxy::{NotLoaded, NotPassed, ProvenLoad};

impl Pipeline {
    pub(super) async fn install_and_load(&mut self) -> StepOutcome {
        let began = Instant::now();
        self.pacing.apply_begins();
        if self.files.take_try_of_earlier_files() && self.proxy.is_running() {
            return self.load(began).await;
        }
        let Err(outcome) = self.install().await else { return self.load(began).await };
        if let StepOutcome::Rejected(why) = &outcome {
            self.keep_load(began, Some(rejection_text(why)));
        }
        outcome
    }

    /// Puts the wanted files in place, if a check lets them pass.
    async fn install(&mut self) -> Result<(), StepOutcome> {
        // What is in place and was never proven gives way to its predecessor, so that what is kept
        // as previous was proven once.
        self.roll_back().await;
        let Some(wanted) = self.wanted.files.clone() else { return Err(StepOutcome::Idle) };
        let staged = self.files.stage(wanted).await.map_err(|why| self.failed(why))?;
        let digest = staged.digest();
        let proof = match self.proxy.check(&staged).await {
            Ok(proof) => proof,
            Err(NotPassed::Rejected(why)) if self.fall_back(&why) => {
                return Err(StepOutcome::Changed(why));
            }
            Err(NotPassed::Rejected(why)) => {
                self.members.reconsider_driver();
                return Err(self.rejected(digest, why));
            }
            Err(NotPassed::Unknown(why)) => return Err(self.failed(why)),
        };
        self.check_counts(&staged)?;
        if let Err(why) = self.files.install(staged, proof).await {
            self.ledger.note_installed(self.files.in_place());
            return Err(self.failed(why));
        }
        self.ledger.note_installed(Some(digest));
        let revision = self.wanted.revision;
        tracing::info!(
            set = self.name,
            digest = digest.short(),
            revision = revision.0,
            "installed"
        );
        if let Err(why) = self.proxy.check_installed().await {
            self.roll_back().await;
            return Err(self.rejected(digest, why));
        }
        Ok(())
    }

    /// The requests of members must be counted where they are changed without a reload.
    fn check_counts(&mut self, staged: &StagedFiles) -> Result<(), StepOutcome> {
        if !self.members.need_log_phase() {
            return Ok(());
        }
        let found = self.proxy.nginx().and_then(|nginx| nginx.uncountable(staged.paths()));
        let Some(why) = found else { return Ok(()) };
        Err(match self.demote(&why) {
            true => StepOutcome::Changed(why),
            false => self.rejected(staged.digest(), why),
        })
    }

    pub(super) async fn load(&mut self, began: Instant) -> StepOutcome {
        self.files.take_try_of_earlier_files();
        self.pacing.apply_begins();
        if let Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) =
            self.members.prepare_load().await
        {
            return self.failed(why);
        }
        if !self.proxy.is_running() {
            self.members.before_start();
        }
        let loaded = self.proxy.load(self.ledger.installed()).await;
        self.pacing.load_tried(Instant::now());
        let outcome = match loaded {
            Ok(loaded) => self.prove(loaded).await,
            Err(NotLoaded::Deferred(why)) => return self.not_running(why),
            Err(NotLoaded::Unproven(why)) => {
                self.ledger.note_active_unknown();
                self.failed(why)
            }
            Err(NotLoaded::Broken(why)) => self.go_back(why, GoBack::AndLoad).await,
            Err(NotLoaded::Rejected(why)) => self.go_back(why, GoBack::WithoutLoad).await,
        };
        if outcome == StepOutcome::Loaded {
            self.record.observe(began.elapsed());
        }
        self.keep_load(began, outcome.failure().map(str::to_owned));
        outcome
    }

    /// The proxy serves by the files in place. They are active once its members are confirmed.
    async fn prove(&mut self, loaded: ProvenLoad) -> StepOutcome {
        if self.master.as_ref().map(|master| master.id) != loaded.master {
            self.master = loaded.master.map(MasterEnd::of);
        }
        self.old.retire(loaded.old, Instant::now());
        if let Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) =
            self.members.confirm_after_load().await
        {
            self.ledger.note_active_unknown();
            return match self.fall_back(&why) {
                true => StepOutcome::Changed(why),
                false => self.failed(why),
            };
        }
        self.ledger.note_active();
        self.members.settle_driver();
        self.members.log_driver(&self.wanted.rendered);
        self.pacing.reset_backoff();
        self.record.loaded();
        self.note_applied();
        self.record.recovered();
        let revision = self.wanted.revision.0;
        tracing::info!(set = self.name, revision, "new configuration is active");
        self.files.commit().await;
        StepOutcome::Loaded
    }

    /// A proxy reads the files when it is started; until then it is not known what is active.
    fn not_running(&mut self, why: String) -> StepOutcome {
        self.ledger.note_active_unknown();
        self.ledger.pause(Instant::now() + LOOK_AGAIN);
        self.record.not_running(&why);
        StepOutcome::NotRunning(why)
    }

    /// What is installed cannot be used: the previous files come back, and are loaded again where
    /// the proxy may not run by them any more.
    async fn go_back(&mut self, why: String, how: GoBack) -> StepOutcome {
        let digest = self.ledger.installed();
        let is_back = self.roll_back().await;
        let outcome = match digest {
            Some(digest) if is_back => {
                if how == GoBack::AndLoad {
                    self.load_previous(&why).await;
                }
                self.rejected(digest, why.clone())
            }
            _ => {
                self.ledger.note_active_unknown();
                self.failed(why.clone())
            }
        };
        self.fall_back(&why);
        outcome
    }

    async fn load_previous(&mut self, why: &str) {
        self.ledger.note_active_unknown();
        if self.proxy.load(self.ledger.installed()).await.is_ok() {
            self.ledger.note_active();
            tracing::error!(set = self.name, "{why}; the previous files are loaded again");
        } else {
            tracing::error!(
                set = self.name,
                "{why}; the previous files are back, but not proven to be loaded: trying again"
            );
        }
    }

    /// Puts the previous files back, unless those in place are proven.
    async fn roll_back(&mut self) -> bool {
        let is_back = self.files.roll_back().await;
        if is_back {
            self.ledger.note_installed(self.files.in_place());
        }
        is_back
    }

    /// What the proxy rejects may be what the driver added to the files: then every change is a
    /// reload, and the same files are wanted in plain form.
    fn fall_back(&mut self, why: &str) -> bool {
        let has_given_up = self.members.give_up_driver(why);
        if has_given_up {
            self.arrange();
        }
        has_given_up
    }

    pub(super) fn keep_load(&mut self, began: Instant, failed: Option<String>) {
        self.keep(began, failed, true);
    }

    /// A change that needed no reload.
    pub(super) fn keep_change(&mut self, began: Instant) {
        self.keep(began, None, false);
    }

    fn keep(&mut self, began: Instant, failed: Option<String>, is_reload: bool) {
        self.record.keep(Load {
            at: SystemTime::now(),
            took: began.elapsed(),
            revision: self.wanted.revision,
            cause: self.wanted.cause.clone(),
            failed,
            is_reload,
            changes: Arc::default(),
        });
    }
}

/// How the previous files come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoBack {
    /// The proxy still runs by them.
    WithoutLoad,
    /// The proxy may have stopped serving, or may still stop.
    AndLoad,
}
