//! Members that change in the running proxy: given to its driver, confirmed by the proxy,
//! and only then written into the files, which any later start reads.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Pipeline, blocking};
use crate::apply::quiescence::Until;
use crate::install::{Proof, StagedFiles};
use crate::proxy::driver::{DepartedMember, PublishError};

impl Pipeline {
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
        if let Some(applied) = self.applied() {
            self.quiescence.live(applied);
        }
        tracing::info!(
            set = self.name,
            revision = %self.wanted_at,
            driver = self.driver.name(),
            "members changed without a reload"
        );
        self.remember(began, None);
    }

    /// Requests to members that left are waited for. Where they cannot be counted, only a new
    /// generation of workers proves that none is left.
    async fn wait_for_departed(&mut self) {
        let departed = self.driver.departed();
        for member in &departed {
            if self.driver.in_flight(member).await.is_none() {
                return self.needs_reload("requests to a backend that left cannot be counted");
            }
        }
        if !departed.is_empty() {
            self.quiescence.retire(Until::Drained(departed));
        }
    }

    fn needs_reload(&mut self, why: &str) {
        tracing::warn!(set = self.name, "a reload is needed: {why}");
        self.is_published = false;
        self.ledger.live_unknown();
    }

    /// The files follow what is live already; nobody reads them before the next start.
    pub(super) async fn write_behind(&mut self) {
        let Some(wanted) = self.wanted.clone() else { return };
        let digest = wanted.digest();
        let write = move || {
            let staged = StagedFiles::write(&wanted)?;
            let proof = Proof::nothing_to_ask(&staged);
            staged.accept(proof)?.install()?.commit()
        };
        match blocking(write).await {
            Ok(()) => self.ledger.installed(Some(digest)),
            Err(error) => {
                self.failed(format!("the members are live and cannot be written: {error}"));
            }
        }
    }

    /// Asks the driver about the members that left and are waited for.
    pub async fn look_at_departed(&mut self) {
        let waited: BTreeSet<DepartedMember> = self.quiescence.departed().cloned().collect();
        for member in waited {
            if self.driver.in_flight(&member).await == Some(0) {
                self.quiescence.drained(&member);
            }
        }
    }
}
