//! What became of the steps: counted, told, and kept for the status page.

use std::time::{Duration, SystemTime};

use common::model::{Revision, format_span};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use super::Pipeline;
use crate::install::Digest;

/// Loads kept for the status page.
pub const HISTORY: usize = 50;

impl Pipeline {
    pub(super) fn refused(&mut self, digest: Digest, why: String) -> bool {
        self.counts.refusals += 1;
        self.say_trouble(format!("refused: {why}"));
        self.ledger.refuse(digest, why, Instant::now());
        false
    }

    pub(super) fn failed(&mut self, why: String) -> bool {
        self.counts.failures += 1;
        let pause = self.backoff.after_failure(fastrand::f64());
        let then = format!("; trying again in {}", format_span(pause));
        self.say_trouble(if self.once { why } else { why + &then });
        self.ledger.pause(Instant::now() + pause);
        false
    }

    pub(super) fn say_trouble(&mut self, why: String) {
        if self.said.as_ref() != Some(&why) {
            tracing::error!(set = self.name, "{why}");
            self.said = Some(why.clone());
        }
        self.trouble = Some(why);
    }

    pub(super) fn mended(&mut self) {
        self.said = None;
        if let Some(trouble) = self.trouble.take() {
            tracing::info!(set = self.name, "mended: {trouble}");
        }
    }

    pub(super) fn remember(&mut self, began: Instant, failed: Option<String>) {
        self.keep_in_history(began, failed, true);
    }

    /// A change that was no reload.
    pub(super) fn remember_members(&mut self, began: Instant) {
        self.keep_in_history(began, None, false);
    }

    fn keep_in_history(&mut self, began: Instant, failed: Option<String>, is_reload: bool) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let (took, revision, cause) = (began.elapsed(), self.wanted_at, self.cause.clone());
        let at = SystemTime::now();
        self.history.push_back(Load { at, took, revision, cause, failed, is_reload });
    }
}

/// Counters for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Loads proven.
    pub loads: u64,
    /// Changes of members that the proxy confirmed without a load.
    pub member_changes: u64,
    /// Candidates refused, by a check or by whoever loads.
    pub refusals: u64,
    /// Steps that failed for another reason.
    pub failures: u64,
}

/// An empty histogram of load durations: 10 ms, where nginx is at best, to the 41 s
/// that only a hanging check takes.
#[must_use]
pub fn load_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 13))
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
    /// Whether the proxy was made to reload.
    pub is_reload: bool,
}
