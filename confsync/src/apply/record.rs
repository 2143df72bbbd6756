//! The outcomes of the steps of one reload group: counted for the metrics, logged, and kept for the
//! status page.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::model::{Revision, format_span};
use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;

/// Loads kept for the status page.
pub const HISTORY: usize = 50;

/// Counters for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Loads proven.
    pub loads: u64,
    /// Changes of members that the proxy confirmed without a load.
    pub member_changes: u64,
    /// Candidates rejected, by a check or by the proxy.
    pub refusals: u64,
    /// Steps that failed for another reason.
    pub failures: u64,
}

/// How a load changed the backends, in words; each `None` if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Backends that are routed to from now on.
    pub added: Option<String>,
    /// Backends that are routed to no more.
    pub removed: Option<String>,
    /// Backends with another address or weight.
    pub changed: Option<String>,
}

/// One load, for the status page.
#[derive(Debug, Clone)]
pub struct Load {
    /// When it ended.
    pub at: SystemTime,
    /// From the beginning of the check to the proof.
    pub took: Duration,
    /// The revision that it made active.
    pub revision: Revision,
    /// What made it due.
    pub cause: String,
    /// `None` for success, else why not.
    pub failed: Option<String>,
    /// Whether the proxy was made to reload.
    pub is_reload: bool,
    /// The backends that it added, removed and changed; none if it failed.
    pub changes: Arc<Changes>,
}

/// An empty histogram of load durations: 10 ms, where nginx is at best, to the 41 s
/// that only a hanging check takes.
pub fn load_seconds() -> Histogram {
    // Powers from the system's mathematics would load all of it.
    Histogram::new(iter::successors(Some(0.01), |bound| Some(bound * 2.0)).take(13))
}

/// The record of one reload group.
#[derive(Debug)]
pub struct StepRecord {
    group: String,
    /// Whether failed steps are tried again; a single run leaves that to its caller.
    retries: bool,
    counts: Counts,
    load_seconds: Histogram,
    /// Newest last.
    loads: VecDeque<Load>,
    /// Why the last step failed, until one succeeds.
    trouble: Option<String>,
    /// The same without the time of the next try, so that it changes only with the reason.
    failure: Option<String>,
    /// What of it was logged since other files were wanted: each reason is logged once.
    logged: Option<String>,
}

impl StepRecord {
    /// Nothing has been done yet.
    pub fn new(group: String) -> Self {
        Self {
            group,
            retries: true,
            counts: Counts::default(),
            load_seconds: load_seconds(),
            loads: VecDeque::new(),
            trouble: None,
            failure: None,
            logged: None,
        }
    }

    /// Counts on from what a group of this name had counted before.
    pub fn count_on(&mut self, counts: Counts, load_seconds: Histogram) {
        (self.counts, self.load_seconds) = (counts, load_seconds);
    }

    /// There is one turn only: no line says that a step is tried again.
    pub fn expect_no_retry(&mut self) {
        self.retries = false;
    }

    /// The counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How long proven loads took.
    pub fn load_seconds(&self) -> &Histogram {
        &self.load_seconds
    }

    /// The last loads, newest last.
    pub fn loads(&self) -> &VecDeque<Load> {
        &self.loads
    }

    /// Why the last step failed, until one succeeds.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Why the last step failed, if it is tried again.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Files were rejected, because of this resource, where that is known.
    pub fn rejected(&mut self, why: &str, resource: Option<&str>) {
        self.counts.refusals += 1;
        self.failure = None;
        let text = rejection_text(why);
        let resource = resource.unwrap_or("RESOURCE");
        let line =
            format!("{text}; the last files stay, `confsync render {resource}` prints the new one");
        self.report(&text, &line, text.clone());
    }

    /// A step failed, and is tried again after this pause.
    pub fn failed(&mut self, why: &str, pause: Duration) {
        self.counts.failures += 1;
        self.failure = Some(why.to_owned());
        let text = match self.retries {
            true => format!("{why}; trying again in {}", format_span(pause)),
            false => why.to_owned(),
        };
        // The pauses differ, and are no news.
        self.report(why, &text, text.clone());
    }

    /// Nothing runs that could load the files. For a single run that is no failure: the proxy reads
    /// them when it is started.
    pub fn not_running(&mut self, why: &str) {
        let text = format!("the proxy is not running: {why}");
        self.failure = Some(text.clone());
        if self.retries {
            return self.report_trouble(text);
        }
        tracing::warn!(
            set = self.group,
            "the proxy is not running: {why}; it reads the files in place when it starts"
        );
        self.trouble = Some(text);
    }

    /// Shows why nothing goes on.
    pub fn report_trouble(&mut self, why: String) {
        self.report(&why.clone(), &why.clone(), why);
    }

    /// The log has each reason once.
    fn report(&mut self, reason: &str, line: &str, trouble: String) {
        if self.logged.as_deref() != Some(reason) {
            tracing::error!(set = self.group, "{line}");
            self.logged = Some(reason.to_owned());
        }
        self.trouble = Some(trouble);
    }

    /// Other files are wanted: what is wrong with them is logged, even if the same was wrong with
    /// those before.
    pub fn files_changed(&mut self) {
        self.logged = None;
    }

    /// The members were changed without a load.
    pub fn members_changed(&mut self) {
        self.counts.member_changes += 1;
    }

    /// A load was proven.
    pub fn loaded(&mut self) {
        self.counts.loads += 1;
    }

    /// A step succeeded, or what failed is not wanted any more.
    pub fn recovered(&mut self) {
        self.failure = None;
        let logged = self.logged.take();
        if let Some(trouble) = self.trouble.take() {
            tracing::info!(set = self.group, "recovered from: {}", logged.unwrap_or(trouble));
        }
    }

    /// Keeps a load for the status page.
    pub fn keep(&mut self, load: Load) {
        if self.loads.len() == HISTORY {
            self.loads.pop_front();
        }
        self.loads.push_back(load);
    }

    /// What the last load changed.
    pub fn note_changes(&mut self, revision: Revision, changes: Changes) {
        let last = self.loads.back_mut();
        if let Some(load) = last.filter(|load| load.revision == revision && load.failed.is_none()) {
            load.changes = Arc::new(changes);
        }
    }

    /// How long a proven load took, for the metrics.
    pub fn observe(&self, took: Duration) {
        self.load_seconds.observe(took.as_secs_f64());
    }
}

/// A rejection, as the status page and the log have it.
pub fn rejection_text(why: &str) -> String {
    format!("rejected: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_shown_until_a_step_succeeds() {
        let mut record = StepRecord::new("web".into());
        record.failed("no nginx", Duration::from_secs(2));
        assert_eq!(record.trouble(), Some("no nginx; trying again in 2s"));
        assert_eq!(record.failure(), Some("no nginx"));
        assert_eq!(record.logged.as_deref(), Some("no nginx"), "whatever the pause is");
        record.not_running("no pid file");
        assert_eq!(record.trouble(), Some("the proxy is not running: no pid file"));
        record.rejected("unknown directive", Some("web"));
        assert_eq!(record.trouble(), Some("rejected: unknown directive"));
        assert_eq!(record.failure(), None, "not tried again");
        let wanted = Counts { refusals: 1, failures: 1, ..Counts::default() };
        assert_eq!(record.counts(), wanted);
        record.recovered();
        assert_eq!(record.trouble(), None);
        record.expect_no_retry();
        record.failed("no nginx", Duration::from_secs(2));
        assert_eq!(record.trouble(), Some("no nginx"));
    }

    #[test]
    fn the_last_loads_are_kept() {
        let mut record = StepRecord::new("web".into());
        for n in 0..=HISTORY as u64 {
            let (at, took, cause) = (SystemTime::now(), Duration::ZERO, "start".to_owned());
            record.keep(Load {
                at,
                took,
                revision: Revision(n),
                cause,
                failed: None,
                is_reload: true,
                changes: Arc::default(),
            });
        }
        assert_eq!(record.loads().len(), HISTORY);
        assert_eq!(record.loads().front().map(|load| load.revision), Some(Revision(1)));
    }
}
