//! Members that change in the running proxy: given to its driver, confirmed by the proxy,
//! and only then written into the files, which any later start reads.

use tokio::time::Instant;

use super::Pipeline;
use crate::apply::ledger::PendingStep;
use crate::apply::step::StepOutcome;
use crate::proxy::driver::PublishError;

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
            revision = %self.wanted.revision,
            driver = self.members.driver().0,
            "members changed without a reload"
        );
        self.keep_load(began, None);
        outcome
    }

    fn needs_reload(&mut self, why: &str) -> StepOutcome {
        tracing::warn!(set = self.name, "a reload is needed: {why}");
        self.members.publish_again();
        self.ledger.note_active_unknown();
        StepOutcome::Changed(why.to_owned())
    }

    /// The files follow what is active already.
    pub(super) async fn write_active(&mut self) -> StepOutcome {
        let Some(wanted) = self.wanted.files.clone() else { return StepOutcome::Idle };
        let digest = wanted.digest();
        match self.files.write_active(wanted).await {
            Ok(()) => {
                self.ledger.note_installed(Some(digest));
                StepOutcome::Written
            }
            Err(error) => {
                self.failed(format!("the members are live and cannot be written: {error}"))
            }
        }
    }

    /// Somebody else has reloaded the proxy, perhaps by files that were not written yet: it is
    /// given the members again.
    pub async fn look_for_lost_members(&mut self) {
        if !self.ledger.in_sync() || self.members.is_empty() || !self.members.are_lost().await {
            return;
        }
        self.members.publish_again();
        match self.members.publish_and_confirm().await {
            Ok(()) => tracing::info!(
                set = self.name,
                "somebody reloaded the proxy; it has its members again"
            ),
            Err(PublishError::Retry(why) | PublishError::NeedsReload(why)) => {
                self.needs_reload(&why);
            }
        }
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
