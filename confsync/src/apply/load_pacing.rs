//! When the next load may begin: the minimum interval between loads, the random delay of a change
//! (`splay`), the backoff after failures, and that of files which others change again and again.
//! Each delays a load; none drops one.
//!
//! Pure: the clock and the random numbers come from the caller.

use std::time::Duration;

use common::backoff::Backoff;
use tokio::time::Instant;

/// The pauses between two tries of a step that failed: at first, and at the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Files that no other process changed for so long are written again at once when one does.
const UNDISPUTED: Duration = Duration::from_secs(120);

/// What an operator asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadLimits {
    /// The least time between two loads.
    pub min_interval: Duration,
    /// Changes are delayed by up to this, so that not all load balancers reload at once.
    pub splay: Duration,
}

/// When loads may begin.
#[derive(Debug)]
pub(super) struct LoadPacing {
    limits: LoadLimits,
    /// When the random delay of the changes at hand ends.
    splay_ends: Option<Instant>,
    last_load: Option<Instant>,
    backoff: Backoff,
    /// When others changed the files last, and how long they are left so the next time.
    last_dispute: Option<Instant>,
    dispute: Backoff,
}

impl LoadPacing {
    /// Nothing has been loaded yet.
    pub(super) fn new(limits: LoadLimits) -> Self {
        let backoff = || Backoff::new(RETRY.0, RETRY.1);
        Self {
            limits,
            splay_ends: None,
            last_load: None,
            backoff: backoff(),
            last_dispute: None,
            dispute: backoff(),
        }
    }

    /// Whether a load was tried since the start.
    pub(super) fn has_loaded(&self) -> bool {
        self.last_load.is_some()
    }

    /// Other files are wanted: failures of those before say nothing about them. Until when they
    /// are delayed; the first files never are, and a further change is not delayed anew, or a
    /// steady stream of changes would never be applied. `random` is in `0.0..1.0`.
    pub(super) fn files_changed(&mut self, now: Instant, random: f64) -> Option<Instant> {
        self.backoff.reset();
        if self.limits.splay.is_zero() || !self.has_loaded() {
            return None;
        }
        Some(*self.splay_ends.get_or_insert(now + self.limits.splay.mul_f64(random)))
    }

    /// When the minimum interval since the last load ends, if it has not ended yet.
    pub(super) fn interval_ends(&self, now: Instant) -> Option<Instant> {
        self.last_load.map(|last| last + self.limits.min_interval).filter(|end| *end > now)
    }

    /// A load was tried, whatever came of it.
    pub(super) fn load_tried(&mut self, now: Instant) {
        self.last_load = Some(now);
    }

    /// The changes at hand are being applied: the next change is delayed anew.
    pub(super) fn apply_begins(&mut self) {
        self.splay_ends = None;
    }

    /// A step failed: how long to wait before it is tried again.
    pub(super) fn failed(&mut self, random: f64) -> Duration {
        self.backoff.after_failure(random)
    }

    /// Another process changed the files: how long to leave them so. If it is a command of our own
    /// that changes them, writing them at once would never end.
    pub(super) fn changed_by_others(&mut self, now: Instant, random: f64) -> Option<Duration> {
        let before = self.last_dispute.replace(now);
        let is_soon = |last: Instant| now.saturating_duration_since(last) < UNDISPUTED;
        if before.is_some_and(is_soon) {
            return Some(self.dispute.after_failure(random));
        }
        self.dispute.reset();
        None
    }

    /// A step succeeded, or the operator asks for another try: the next pause is short again.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pacing(min_interval: Duration, splay: Duration) -> LoadPacing {
        LoadPacing::new(LoadLimits { min_interval, splay })
    }

    #[tokio::test]
    async fn the_interval_counts_from_the_last_load() {
        let now = Instant::now();
        let mut pacing = pacing(10 * SECOND, Duration::ZERO);
        assert_eq!(pacing.interval_ends(now), None, "the first load waits for nothing");
        pacing.load_tried(now);
        assert_eq!(pacing.interval_ends(now + SECOND), Some(now + 10 * SECOND));
        assert_eq!(pacing.interval_ends(now + 10 * SECOND), None);
    }

    #[tokio::test]
    async fn changes_share_one_random_delay_until_they_are_applied() {
        let now = Instant::now();
        let mut pacing = pacing(Duration::ZERO, 10 * SECOND);
        assert_eq!(pacing.files_changed(now, 0.5), None, "the first files are not delayed");
        pacing.load_tried(now);
        assert_eq!(pacing.files_changed(now, 0.5), Some(now + 5 * SECOND));
        let later = now + SECOND;
        assert_eq!(pacing.files_changed(later, 0.9), Some(now + 5 * SECOND), "not delayed anew");
        pacing.apply_begins();
        assert_eq!(pacing.files_changed(later, 0.1), Some(later + SECOND));
    }

    #[tokio::test]
    async fn files_that_others_change_again_and_again_are_written_ever_later() {
        let (mut now, mut pacing) = (Instant::now(), pacing(Duration::ZERO, Duration::ZERO));
        assert_eq!(pacing.changed_by_others(now, 1.0), None, "the first time at once");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            now += SECOND;
            pauses.push(pacing.changed_by_others(now, 1.0).unwrap().as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        now += UNDISPUTED;
        assert_eq!(pacing.changed_by_others(now, 1.0), None);
        assert_eq!(pacing.changed_by_others(now, 1.0), Some(SECOND / 2));
    }

    #[tokio::test]
    async fn failures_wait_longer_each_time_until_something_else_is_wanted() {
        let mut pacing = pacing(Duration::ZERO, Duration::ZERO);
        let waits: Vec<_> = (0..8).map(|_| pacing.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(pacing.files_changed(Instant::now(), 0.0), None);
        assert_eq!(pacing.failed(1.0).as_millis(), 500);
        pacing.reset_backoff();
        assert_eq!(pacing.failed(0.0).as_millis(), 250);
    }
}
