//! The timeout of one request about our own keys: a share of the TTL, so that several attempts fit
//! into it; longer where answers have been slow, because giving up just before an answer comes
//! wastes the request and its connection.

use std::time::Duration;

use crate::model::Ttl;

/// The share that an answer may be late by, compared with those before.
const LATER: u32 = 4;

/// The time that the next request is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestTime {
    least: Duration,
    most: Duration,
    now: Duration,
}

impl RequestTime {
    pub(crate) fn new(ttl: Ttl) -> Self {
        Self { least: ttl.attempt(), most: ttl.refresh(), now: ttl.attempt() }
    }

    pub(crate) fn now(self) -> Duration {
        self.now
    }

    /// An answer came after this long. What was learnt from slow ones is forgotten slowly.
    pub(crate) fn answered(&mut self, after: Duration) {
        self.now = (after * LATER).max(self.now * 3 / 4).clamp(self.least, self.most);
    }

    /// None came in time.
    pub(crate) fn unanswered(&mut self) {
        self.now = (self.now * 2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_way_is_given_more_time_and_the_next_refresh_is_never_missed() {
        let ttl: Ttl = "15s".parse().unwrap();
        let mut time = RequestTime::new(ttl);
        assert_eq!(time.now(), ttl.attempt());
        time.unanswered();
        assert_eq!(time.now(), ttl.attempt() * 2);
        (0..5).for_each(|_| time.unanswered());
        assert_eq!(time.now(), ttl.refresh());
        time.answered(Duration::from_secs(1));
        assert_eq!(time.now(), Duration::from_secs(4));
        (0..20).for_each(|_| time.answered(Duration::from_millis(1)));
        assert_eq!(time.now(), ttl.attempt());
    }
}
