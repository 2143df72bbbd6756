//! The installed files are loaded and proven, or give way to those of before.

use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::{blocking, on_disk};
use crate::apply::quiescence::Until;
use crate::install::InstalledFiles;
use crate::proxy::driver::PublishError;
use crate::proxy::{NotLoaded, Old};

impl Pipeline {
    pub(super) async fn load(&mut self, began: Instant) {
        self.prove_first = false;
        self.splayed = None;
        if self.driver.expect_from_files(&self.pools) {
            self.is_published = true;
        } else if let Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) =
            self.publish_members().await
        {
            self.failed(why);
            return;
        }
        if !self.proxy.is_running() {
            self.driver.before_start();
        }
        let outcome = self.proxy.load(self.ledger.on_disk()).await;
        let now = Instant::now();
        self.last_load = Some(now);
        let failed = match outcome {
            Ok(live) => {
                self.master = live.master;
                self.retire(live.old, now);
                match self.driver.confirm().await {
                    Ok(()) => {
                        self.proven().await;
                        None
                    }
                    Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) => {
                        self.ledger.live_unknown();
                        if !self.fall_back(&why) {
                            self.failed(why.clone());
                        }
                        Some(why)
                    }
                }
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
                self.fall_back(&why);
                Some(why)
            }
            Err(NotLoaded::RejectedValue(why)) => {
                self.go_back(why.clone(), false).await;
                self.fall_back(&why);
                Some(why)
            }
        };
        if failed.is_none() {
            self.load_seconds.observe(began.elapsed().as_secs_f64());
        }
        self.remember(began, failed);
    }

    fn retire(&mut self, old: Old, now: Instant) {
        self.quiescence.retire(match old {
            Old::Processes(pids) => Until::Gone(pids),
            Old::For(span) => Until::Then(now + span),
            Old::Ask(commands) => Until::Proven(self.quiesce_check.begin(&self.name, commands)),
        });
    }

    async fn proven(&mut self) {
        self.ledger.live();
        self.driver.settle();
        self.tell_driver();
        self.backoff.reset();
        self.counts.loads += 1;
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

    /// Who runs what is live has ended: nothing is live until somebody starts it again
    /// and takes a load.
    pub fn lost(&mut self) {
        self.master = None;
        self.ledger.live_unknown();
        self.driver.before_start();
        let name = &self.name;
        tracing::error!(
            set = name,
            "the proxy has ended; nothing is known to be live until it is started again"
        );
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
            let again = self.proxy.load(self.ledger.on_disk()).await;
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

    pub(super) async fn roll_back(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.put_back(pending).await;
        }
    }

    pub(super) async fn put_back(&mut self, pending: InstalledFiles) {
        match blocking(move || pending.rollback()).await {
            Ok(()) => tracing::warn!(set = self.name, "the previous files are back in place"),
            Err(error) => {
                tracing::error!(set = self.name, %error, "cannot put the previous files back")
            }
        }
        self.ledger.installed(self.as_rendered(on_disk(&self.targets)));
    }
}
