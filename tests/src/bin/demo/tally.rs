//! The times that the last line sums up.

use std::fmt;
use std::time::Duration;

/// Times of one kind.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        // A demo that runs for a week keeps the newest.
        if self.0.len() == 10_000 {
            self.0.remove(0);
        }
        self.0.push(time);
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let middle = sorted.len() / 2;
        match (sorted.get(middle), sorted.last()) {
            (Some(only), _) if sorted.len() == 1 => f.write_str(&text(*only)),
            (Some(median), Some(worst)) => {
                // Of an even number the two in the middle count.
                let below = sorted.get((sorted.len() - 1) / 2).unwrap_or(median);
                let median = (*median + *below) / 2;
                write!(f, "{} (worst of {}: {})", text(median), sorted.len(), text(*worst))
            }
            _ => f.write_str("not measured"),
        }
    }
}

/// `43 ms`, `2.31 s`.
pub(crate) fn text(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
