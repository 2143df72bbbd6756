//! A series of times and what a table shows of it.

use std::time::Duration;

/// Times of one kind, in any order.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The smallest time that `part` (0 to 1) of all times do not exceed, in milliseconds
    /// with one digit; with few rounds the p99 is the worst.
    pub(crate) fn quantile(&self, part: f64) -> String {
        match self.at(part) {
            Some(time) => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
            None => "-".to_owned(),
        }
    }

    /// Half of the times are not longer; zero without any.
    pub(crate) fn median(&self) -> Duration {
        self.at(0.5).unwrap_or_default()
    }

    fn at(&self, part: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among a few thousand rounds"
        )]
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }
}
