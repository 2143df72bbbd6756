//! Logs a long wait once a minute: what is waited for, and for how long already.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::format_span;

const INTERVAL: Duration = Duration::from_secs(60);

/// How many different errors of one outage are logged when they come.
const DISTINCT_ERRORS: usize = 8;

/// One wait, from its making on.
#[derive(Debug)]
pub struct Reminder {
    began: Instant,
    next: Instant,
}

impl Default for Reminder {
    /// The first line comes after ten seconds: a usual start is not worth one.
    fn default() -> Self {
        let now = Instant::now();
        Self { began: now, next: now + Duration::from_secs(10) }
    }
}

impl Reminder {
    /// With the first line at once.
    pub fn at_once() -> Self {
        Self { next: Instant::now(), ..Self::default() }
    }

    /// Logs what is waited for, if a line is due; whether it was.
    pub fn remind(&mut self, what: &str) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + INTERVAL;
        let waited = Duration::from_secs((now - self.began).as_secs());
        tracing::warn!(waited = %format_span(waited), "{what}");
        true
    }
}

/// An outage in the log: each new error at once, and the present one again once a minute.
/// With several members of etcd, every attempt may fail in another way; only the first few
/// different errors are worth a line of their own.
#[derive(Debug)]
pub struct OutageLog {
    logged: Vec<String>,
    reminder: Reminder,
}

impl Default for OutageLog {
    fn default() -> Self {
        Self { logged: Vec::new(), reminder: Reminder::at_once() }
    }
}

impl OutageLog {
    /// Logs this failure if it is new, or if a line is due; whether it was.
    pub fn remind(&mut self, what: &str) -> bool {
        if self.logged.is_empty() {
            // The outage begins with its first failure, and not when the last one ended.
            self.reminder = Reminder::at_once();
        }
        // How long an answer was waited for differs, and is no news.
        let kind = what.split(" within ").next().unwrap_or(what);
        if self.logged.len() < DISTINCT_ERRORS && !self.logged.iter().any(|text| text == kind) {
            self.logged.push(kind.to_owned());
            self.reminder.next = Instant::now();
        }
        self.reminder.remind(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute() {
        let mut wait = Reminder::default();
        let mut lines = 0;
        for _ in 0..300 {
            tokio::time::advance(SECOND).await;
            lines += usize::from(wait.remind("waiting for the backend"));
        }
        assert_eq!(lines, 5);
        assert!(Reminder::at_once().remind("waiting for etcd"));
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_an_answer_was_waited_for_is_no_news() {
        let (short, long) = ("no answer within 1.67s", "no answer within 3.33s");
        let mut log = OutageLog::default();
        assert!(log.remind(short));
        assert!(!log.remind(long));
    }

    #[tokio::test(start_paused = true)]
    async fn another_error_is_logged_at_once_and_a_known_one_is_not() {
        let (refused, denied) = ("connection refused", "wrong password");
        let mut log = OutageLog::default();
        assert!(log.remind(refused));
        assert!(!log.remind(refused));
        assert!(log.remind(denied));
        assert!(!log.remind(refused));
        let lines = (0..100).filter(|n| log.remind(&n.to_string())).count();
        assert_eq!(lines, DISTINCT_ERRORS - 2);
        tokio::time::advance(INTERVAL).await;
        assert!(log.remind(refused));
    }
}
