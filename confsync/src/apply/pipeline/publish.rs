//! Members that change in the running proxy: given to its driver, confirmed by the proxy,
//! and only then written into the files, which any later start reads.

use tokio::time::Instant;

use super::Pipeline;
use crate::apply::ledger::PendingStep;
use crate::apply::step::StepOutcome;
use crate::proxy::driver::{PublishError, ReadBack};

/// Why a reload is needed where requests are not counted.
const UNCOUNTED: &str = "requests to a backend that left cannot be counted";

impl Pipeline {
    /// While a change of the structure waits or is rejected, its members need not.
    pub(super) async fn publish_early(&mut self, now: Instant) {
        let waits =
            matches!(self.ledger.pending(now), PendingStep::Install | PendingStep::NotBefore(_));
        if waits
            && self.ledger.active().is_some()
            && let Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) =
                self.members.publish().await
        {
            self.record.report_trouble(why);
        }
    }

    /// Only members differ from what is active: the driver changes them, and the proxy confirms.
    pub(super) async fn change_members(&mut self, began: Instant) -> StepOutcome {
        self.pacing.apply_begins();
        match self.members.publish_and_confirm().await {
            Ok(()) => self.members_changed(began).await,
            Err(PublishError::Retry(why)) => {
                self.members.publish_again();
                self.failed(why)
            }
            Err(PublishError::NeedsReload(why)) => self.needs_reload(&why),
        }
    }

    async fn members_changed(&mut self, began: Instant) -> StepOutcome {
        self.ledger.note_published();
        self.members.note_needed_reload(None);
        self.pacing.reset_backoff();
        self.record.members_changed();
        self.record.recovered();
        // Requests to members that left are waited for. Where they cannot be counted, only a new
        // generation of workers proves that none is left.
        let outcome = match self.members.departed().await {
            Some(departed) => {
                self.old.retire_members(departed);
                StepOutcome::MembersChanged
            }
            None => self.needs_reload(UNCOUNTED),
        };
        self.note_applied();
        tracing::info!(
            set = self.name,
            revision = self.wanted.revision.0,
            driver = self.members.driver().0,
            "members changed without a reload"
        );
        self.keep_change(began);
        outcome
    }

    fn needs_reload(&mut self, why: &str) -> StepOutcome {
        tracing::warn!(set = self.name, "a reload is needed: {why}");
        self.members.note_needed_reload(Some(why));
        self.members.publish_again();
        self.ledger.note_active_unknown();
        StepOutcome::Changed(why.to_owned())
    }

    /// The files follow what is active already.
    pub(super) async fn write_active(&mut self, now: Instant) -> StepOutcome {
        let Some(wanted) = self.wanted.files.clone() else { return StepOutcome::Idle };
        let digest = wanted.digest();
        match self.files.write_active(wanted).await {
            Ok(()) => {
                self.ledger.note_installed(Some(digest));
                // Nothing waits for the files where what was published outlives a reload.
                if self.members.outlive_reload() {
                    self.ledger.pause_writes(now + self.members.write_pause());
                }
                // Another process may have reloaded the proxy, which read the files of before.
                if let ReadBack::Other(why) = self.members.look_for_reload().await {
                    self.give_members_again(&why).await;
                }
                self.note_applied();
                StepOutcome::Written
            }
            Err(error) => self.failed(format!(
                "the members are active, but cannot be written to the files: {error}"
            )),
        }
    }

    /// Brings the files up to what is active, at the end: no later step would do it.
    pub async fn write_what_is_active(&mut self) {
        if self.ledger.is_file_behind() && self.ledger.in_sync() {
            self.write_active(Instant::now()).await;
        }
    }

    /// Looks what the running proxy really has. Another process may have reloaded it before its
    /// files had the newest members, or changed its members: it is given them again.
    pub async fn look_for_lost_members(&mut self) {
        if !self.ledger.in_sync() || self.members.is_empty() {
            return;
        }
        match self.members.read_back().await {
            ReadBack::Same => {}
            ReadBack::NewWorker => self.look_for_log_phase(),
            ReadBack::Other(why) => self.give_members_again(&why).await,
        }
    }

    async fn give_members_again(&mut self, why: &str) {
        self.members.publish_again();
        match self.members.publish_and_confirm().await {
            Ok(()) => {
                tracing::warn!(
                    set = self.name,
                    "the proxy had other members ({why}); they are corrected"
                );
                match self.members.departed().await {
                    Some(departed) => self.old.retire_members(departed),
                    None => drop(self.needs_reload(UNCOUNTED)),
                }
            }
            Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) => {
                self.needs_reload(&why);
            }
        }
    }

    /// A worker is new: by its configuration, requests may not be counted any more.
    fn look_for_log_phase(&mut self) {
        let why = self.proxy.nginx().and_then(|nginx| nginx.uncountable(Vec::new()));
        if let Some(why) = why
            && !self.demote(&why)
        {
            self.record.report_trouble(why);
        }
    }

    /// Requests cannot be counted from now on. Those that are in flight to members that left are
    /// waited for with their workers, which the next load retires.
    pub(super) fn demote(&mut self, why: &str) -> bool {
        if !self.members.demote_driver(why) {
            return false;
        }
        tracing::warn!(
            set = self.name,
            "every change of backends needs a reload from now on: {why}"
        );
        self.old.wait_for_next_load();
        self.arrange();
        true
    }

    /// Asks the driver about the members that left and are waited for.
    pub async fn look_at_departed(&mut self) {
        if self.ledger.in_sync() && !self.old.waits_for_workers() {
            self.members.count_again();
        }
        for member in self.old.departed() {
            match self.members.in_flight(&member).await {
                Some(0) => self.old.drained(&member),
                None if self.ledger.in_sync() && self.members.note_uncounted() => {
                    self.needs_reload(UNCOUNTED);
                    return;
                }
                Some(_) | None => {}
            }
        }
    }
}
