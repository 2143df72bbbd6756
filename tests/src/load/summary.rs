//! What became of the requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

const MOST_FAILURES: usize = 50;
const MOST_NAMES: usize = 1_000;

/// The end of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer with a 2xx status; the first word of its body (the backend's name).
    Ok(String),
    /// A whole answer with another status.
    Status(u16),
    /// No connection.
    Connect(String),
    /// A reused connection was closed without a byte of answer.
    StaleReuse,
    /// A connection ended in the middle, or a new one without an answer.
    Cut(String),
    /// No whole answer within the client's deadline.
    TimedOut,
}

/// How often and when one backend answered.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    /// For the first time since it was forgotten.
    pub first: Instant,
    /// For the last time.
    pub last: Instant,
    /// How often.
    pub count: u64,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it was sent, after the start of the load.
    pub at: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// Counts, and the first 50 failures.
#[derive(Debug, Clone)]
pub struct Summary {
    start: Instant,
    /// 2xx answers.
    pub ok: u64,
    /// Whole answers by other statuses.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections refused or reset at the start.
    pub connect: u64,
    /// Reused connections closed without a byte of answer.
    pub stale_reuse: u64,
    /// Answers cut off, and new connections closed without one.
    pub cut: u64,
    /// No whole answer in time.
    pub timed_out: u64,
    /// Answers by the name of the backend.
    pub answers: BTreeMap<String, Answers>,
    /// The first failures, with their times.
    pub failures: Vec<Failure>,
}

impl Default for Summary {
    /// Nothing yet, from now on.
    fn default() -> Self {
        Self {
            start: Instant::now(),
            ok: 0,
            statuses: BTreeMap::new(),
            connect: 0,
            stale_reuse: 0,
            cut: 0,
            timed_out: 0,
            answers: BTreeMap::new(),
            failures: Vec::new(),
        }
    }
}

impl Summary {
    pub(super) fn count(&mut self, outcome: Outcome, sent: Instant) {
        match &outcome {
            Outcome::Ok(name) => {
                self.ok += 1;
                return self.count_answer(name);
            }
            Outcome::Status(status) => *self.statuses.entry(*status).or_default() += 1,
            Outcome::Connect(_) => self.connect += 1,
            Outcome::StaleReuse => self.stale_reuse += 1,
            Outcome::Cut(_) => self.cut += 1,
            Outcome::TimedOut => self.timed_out += 1,
        }
        if self.failures.len() < MOST_FAILURES {
            let at = sent.saturating_duration_since(self.start);
            self.failures.push(Failure { at, outcome });
        }
    }

    fn count_answer(&mut self, name: &str) {
        let now = Instant::now();
        if let Some(answers) = self.answers.get_mut(name) {
            answers.last = now;
            answers.count += 1;
        } else if self.answers.len() < MOST_NAMES {
            self.answers.insert(name.to_owned(), Answers { first: now, last: now, count: 1 });
        }
    }

    /// This and another load together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.ok += other.ok;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.connect += other.connect;
        self.stale_reuse += other.stale_reuse;
        self.cut += other.cut;
        self.timed_out += other.timed_out;
        for (name, theirs) in other.answers {
            let ours = self.answers.entry(name).or_insert(Answers { count: 0, ..theirs });
            ours.first = ours.first.min(theirs.first);
            ours.last = ours.last.max(theirs.last);
            ours.count += theirs.count;
        }
        self.failures.extend(other.failures);
        self
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.ok + self.stale_reuse + self.failed()
    }

    /// Requests that failed for good: all but good answers and stale connections.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.connect + self.cut + self.timed_out
    }

    /// Fails the test unless every request was answered well. Stale connections are let
    /// pass.
    ///
    /// # Panics
    /// When a request failed, with the first failures and their times.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        assert!(self.failed() == 0, "{self}\nfirst failures: {:#?}", self.failures);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.requests(), self.failed())?;
        for (status, count) in &self.statuses {
            write!(f, ", {count} × {status}")?;
        }
        let others = [
            (self.connect, "not connected"),
            (self.cut, "cut"),
            (self.timed_out, "without answer"),
            (self.stale_reuse, "on a connection that nginx was closing"),
        ];
        for (count, what) in others.iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}
