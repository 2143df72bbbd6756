//! Members that change in the running proxy: given to its driver, confirmed by the proxy,
//! and only then written into the files, which any later start reads.

use std::collections::BTreeSet;
use std::time::Duration;

use common::model::Revision;
use tokio::time::Instant;

use super::{Pipeline, blocking};
use crate::apply::ledger::Owed;
use crate::apply::quiescence::Until;
use crate::install::{Proof, StagedFiles};
use crate::proxy::driver::{Arrangement, DepartedMember, PublishError, ReadBack};

/// How often it is looked what the running proxy really has.
const READ_BACK: Duration = Duration::from_secs(5);

impl Pipeline {
    pub(super) fn arrange(&mut self, revision: Revision) {
        let Arrangement { wanted, pools } = self.driver.arrange(&self.rendered);
        if pools != self.pools {
            (self.pools, self.is_published) = (pools, false);
        }
        self.want(wanted, revision);
    }

    /// The driver in use, and why it is no better one.
    #[must_use]
    pub fn driver(&self) -> (&'static str, Option<&str>) {
        if self.driver.name() != "reload" && self.pools.is_empty() {
            let why = "no template has an `upstream` word that it could change";
            return ("reload", Some(why));
        }
        (self.driver.name(), self.driver.why())
    }

    /// Whether a template has a word that a driver could change.
    #[must_use]
    pub fn names_members(&self) -> bool {
        self.rendered.iter().any(|file| file.text.names_members())
    }

    /// Says once what is in use, when it is proven, and why it is nothing better.
    pub(super) fn tell_driver(&mut self) {
        let (driver, why) = self.driver();
        if !self.names_members() || self.told_driver == Some(driver) {
            return;
        }
        match why {
            Some(why) => {
                tracing::info!(set = self.name, "every change of backends is a reload: {why}");
            }
            None => tracing::info!(set = self.name, driver, "backends change without a reload"),
        }
        self.told_driver = Some(driver);
    }

    /// What the proxy does not take may be the driver's part of it: then a reload has to do,
    /// and the same files are wanted in plain form.
    pub(super) fn fall_back(&mut self, why: &str) -> bool {
        if self.pools.is_empty() || !self.driver.give_up(why) {
            return false;
        }
        self.arrange(self.wanted_at);
        true
    }

    /// While a change of the structure waits or is refused, its members need not.
    pub(super) async fn publish_early(&mut self, now: Instant) {
        let waits = matches!(self.ledger.owed(now), Owed::Install | Owed::Later(_));
        if waits
            && self.ledger.proven().is_some()
            && let Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) =
                self.publish_members().await
        {
            self.say_trouble(why);
        }
    }

    /// Gives the driver the members that are wanted, whatever becomes of the structure.
    pub(super) async fn publish_members(&mut self) -> Result<(), PublishError> {
        if self.is_published {
            return Ok(());
        }
        self.driver.publish(&self.pools).await?;
        self.is_published = true;
        Ok(())
    }

    /// Only members differ from what is live: the driver changes them, and the proxy confirms.
    pub(super) async fn publish(&mut self, began: Instant) {
        let outcome = match self.publish_members().await {
            Ok(()) => self.driver.confirm().await,
            failed => failed,
        };
        match outcome {
            Ok(()) => self.published(began).await,
            Err(PublishError::Retry(why)) => {
                self.is_published = false;
                self.failed(why);
            }
            Err(PublishError::NeedsReload(why)) => self.needs_reload(&why),
        }
    }

    async fn published(&mut self, began: Instant) {
        self.ledger.published();
        self.backoff.reset();
        self.counts.member_changes += 1;
        self.mended();
        self.wait_for_departed().await;
        self.note_applied();
        tracing::info!(
            set = self.name,
            revision = %self.wanted_at,
            driver = self.driver.name(),
            "members changed without a reload"
        );
        self.remember_members(began);
    }

    /// Requests to members that left are waited for. Where they cannot be counted, only a new
    /// generation of workers proves that none is left.
    async fn wait_for_departed(&mut self) {
        let departed = self.driver.departed();
        for member in &departed {
            if self.driver.in_flight(member).await.is_none() {
                self.uncounted = true;
                return self.needs_reload("requests to a backend that left cannot be counted");
            }
        }
        if !departed.is_empty() {
            self.quiescence.retire(Until::Drained(departed));
        }
    }

    pub(super) fn needs_reload(&mut self, why: &str) {
        tracing::warn!(set = self.name, "a reload is needed: {why}");
        self.is_published = false;
        self.ledger.live_unknown();
    }

    /// The files follow what is live already; nobody reads them before the next start or reload.
    pub(super) async fn write_behind(&mut self) {
        let Some(wanted) = self.wanted.clone() else { return };
        let digest = wanted.digest();
        let write = move || {
            let staged = StagedFiles::write(&wanted)?;
            let proof = Proof::nothing_to_ask(&staged);
            staged.accept(proof)?.install()?.commit()
        };
        match blocking(write).await {
            Ok(()) => {
                self.ledger.installed(Some(digest));
                self.look_for_reload_before_write().await;
                self.note_applied();
            }
            Err(error) => {
                self.failed(format!("the members are live and cannot be written: {error}"));
            }
        }
    }

    /// Somebody may have reloaded the proxy by the files of before, just before they were written.
    async fn look_for_reload_before_write(&mut self) {
        if !self.driver.outlives_reload()
            && let ReadBack::Other(why) = self.driver.read_back().await
        {
            self.give_members_again(&why).await;
        }
    }

    /// Looks what the running proxy really has. Somebody may have reloaded it, by files that
    /// were not written yet, or changed its members: it is given them again.
    pub async fn look_for_lost_members(&mut self) {
        let began = Instant::now();
        let is_due = self.read_back_at.is_none_or(|at| began >= at);
        if !is_due || !self.ledger.in_sync() || self.pools.is_empty() {
            return;
        }
        let found = self.driver.read_back().await;
        // A look at thousands of members takes its time.
        self.read_back_at = Some(Instant::now() + READ_BACK.max(began.elapsed() * 50));
        match found {
            ReadBack::Same => {}
            ReadBack::NewWorker => self.look_for_log_phase(),
            ReadBack::Other(why) => self.give_members_again(&why).await,
        }
    }

    async fn give_members_again(&mut self, why: &str) {
        self.is_published = false;
        let given = match self.publish_members().await {
            Ok(()) => self.driver.confirm().await,
            failed => failed,
        };
        match given {
            Ok(()) => {
                self.wait_for_departed().await;
                tracing::warn!(
                    set = self.name,
                    "the proxy had other members ({why}); it has the right ones again"
                );
            }
            Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) => {
                self.needs_reload(&why)
            }
        }
    }

    /// A worker is new: by its configuration, requests may not be counted any more.
    fn look_for_log_phase(&mut self) {
        let found = self.proxy.nginx().and_then(|nginx| nginx.hidden_log_phase(None));
        if let Some(found) = found {
            let why = uncountable(&found);
            if !self.demote(&why) {
                self.say_trouble(why);
            }
        }
    }

    /// Requests cannot be counted from now on. Those that are in flight to members that left are
    /// waited for with their workers, which the next load retires.
    pub(super) fn demote(&mut self, why: &str) -> bool {
        if !self.driver.demote(why) {
            return false;
        }
        tracing::warn!(set = self.name, "every change of backends is a reload from now on: {why}");
        self.quiescence.wait_for_next_load();
        self.arrange(self.wanted_at);
        true
    }

    /// Asks the driver about the members that left and are waited for.
    pub async fn look_at_departed(&mut self) {
        if self.uncounted && self.ledger.in_sync() && !self.quiescence.waits_for_workers() {
            // The workers that did not count are gone.
            self.uncounted = false;
            self.driver.count_again();
        }
        let waited: BTreeSet<DepartedMember> = self.quiescence.departed().cloned().collect();
        for member in waited {
            match self.driver.in_flight(&member).await {
                Some(0) => self.quiescence.drained(&member),
                None if !self.uncounted && self.ledger.in_sync() => {
                    self.uncounted = true;
                    return self.needs_reload("requests to a backend that left cannot be counted");
                }
                Some(_) | None => {}
            }
        }
    }
}

/// Why the driver's counts would not be true.
pub(super) fn uncountable(found: &str) -> String {
    format!(
        "requests cannot be counted: {found} takes the place of confsync's own log_by_lua_block"
    )
}
