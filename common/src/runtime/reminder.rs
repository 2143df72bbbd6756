//! A long wait in the log: one line a minute that says for what and how long, not
//! a flood.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::format_span;

const EVERY: Duration = Duration::from_secs(60);

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
    #[must_use]
    pub fn at_once() -> Self {
        Self { next: Instant::now(), ..Self::default() }
    }

    /// Logs what is waited for, if it is time to. Whether it did.
    pub fn remind(&mut self, what: &str) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + EVERY;
        let waited = Duration::from_secs((now - self.began).as_secs());
        tracing::warn!(waited = %format_span(waited), "{what}");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute() {
        let mut wait = Reminder::default();
        let mut lines = 0;
        for _ in 0..300 {
            tokio::time::advance(Duration::from_secs(1)).await;
            lines += usize::from(wait.remind("waiting for the backend"));
        }
        assert_eq!(lines, 5);
        assert!(Reminder::at_once().remind("waiting for etcd"));
    }
}
