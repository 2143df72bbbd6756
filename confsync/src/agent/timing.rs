//! When the loop wakes although nothing happened. Pure.

use std::time::Duration;

use common::model::Revision;
use tokio::time::Instant;

use crate::apply::ledger::PendingStep;
use crate::install::write_pause;

/// How often to check whether the requests to members that left have ended, which no event reports.
/// A drain waits for it, and most end soon: so often at first, and then after another quarter of
/// the time that has passed.
const REQUESTS_SOON: Duration = Duration::from_millis(10);
const REQUESTS_LATER: Duration = Duration::from_millis(200);
/// How often to check whether another process has changed the files.
pub(super) const LOOK_AT_FILES: Duration = Duration::from_secs(5);

/// Changes are collected for a while before the first is applied.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    /// The oldest change that waits.
    first_change: Option<Instant>,
    span: Duration,
}

impl Debounce {
    pub(super) fn new(span: Duration) -> Self {
        Self { first_change: None, span }
    }

    /// There is a change. Whether it is to be applied now.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        now >= *self.first_change.get_or_insert(now) + self.span
    }

    /// All changes are being applied.
    pub(super) fn reset(&mut self) {
        self.first_change = None;
    }

    pub(super) fn ends(&self) -> Option<Instant> {
        self.first_change.map(|first| first + self.span)
    }
}

/// When the backends are saved for the next start: thousands of them not after each change. They
/// count only if the store regresses while it is not watched, so they may stay behind for longer
/// than the files that a proxy reads.
#[derive(Debug, Default)]
pub(super) struct Saves {
    last: Option<Revision>,
    next: Option<Instant>,
}

impl Saves {
    /// The backends of this revision, so many, were saved at `now`.
    pub(super) fn done(&mut self, revision: Revision, backends: usize, now: Instant) {
        self.last = Some(revision);
        self.next = Some(now + 2 * write_pause(backends));
    }

    /// The end is near: nothing is saved later.
    pub(super) fn allow_now(&mut self) {
        self.next = None;
    }

    pub(super) fn is_saved(&self, revision: Revision) -> bool {
        self.last == Some(revision)
    }

    /// No others are saved before this instant.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// What the loop waits for.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) pending: PendingStep,
    pub(super) debounce_ends: Option<Instant>,
    pub(super) decide_again: Option<Instant>,
    pub(super) probe_again: Option<Instant>,
    pub(super) save_again: Option<Instant>,
    pub(super) old_generation_ends: Option<Instant>,
    pub(super) waits_for_requests: bool,
    pub(super) last_load: Option<Instant>,
}

impl Waits {
    /// When the first of them is over.
    pub(super) fn first_end(&self, now: Instant) -> Instant {
        let step = match self.pending {
            PendingStep::Nothing => None,
            PendingStep::NotBefore(until) => Some(until),
            // A pause may have ended since the last step.
            _ => Some(now),
        };
        let ends = [
            step,
            self.debounce_ends,
            self.decide_again,
            self.probe_again,
            self.save_again,
            self.old_generation_ends,
            self.look_at_requests(now),
        ];
        ends.into_iter().flatten().fold(now + LOOK_AT_FILES, Instant::min)
    }

    fn look_at_requests(&self, now: Instant) -> Option<Instant> {
        let passed = self.last_load.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        let pause = (passed / 4).clamp(REQUESTS_SOON, REQUESTS_LATER);
        self.waits_for_requests.then(|| now + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Waits {
        Waits {
            pending: PendingStep::Nothing,
            debounce_ends: None,
            decide_again: None,
            probe_again: None,
            save_again: None,
            old_generation_ends: None,
            waits_for_requests: false,
            last_load: None,
        }
    }

    #[tokio::test]
    async fn a_revision_is_saved_once_and_the_next_after_a_pause_or_at_the_end() {
        let now = Instant::now();
        let mut saves = Saves::default();
        assert!(saves.next().is_none() && !saves.is_saved(Revision(7)));
        saves.done(Revision(7), 1_000, now);
        assert!(saves.is_saved(Revision(7)) && !saves.is_saved(Revision(8)));
        assert_eq!(saves.next(), Some(now + 2 * write_pause(1_000)));
        saves.allow_now();
        assert!(saves.next().is_none() && saves.is_saved(Revision(7)));
    }

    #[tokio::test]
    async fn the_loop_looks_again_when_the_first_wait_is_over() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(nothing().first_end(now), now + LOOK_AT_FILES);
        for waits in [
            Waits { pending: PendingStep::NotBefore(at(2)), ..nothing() },
            Waits { debounce_ends: Some(at(2)), decide_again: Some(at(3)), ..nothing() },
            Waits { decide_again: Some(at(2)), probe_again: Some(at(4)), ..nothing() },
            Waits { probe_again: Some(at(2)), save_again: Some(at(3)), ..nothing() },
            Waits { save_again: Some(at(2)), ..nothing() },
            Waits { old_generation_ends: Some(at(2)), ..nothing() },
        ] {
            assert_eq!(waits.first_end(now), at(2), "{waits:?}");
        }
        let pending = Waits { pending: PendingStep::Reload, ..nothing() };
        assert_eq!(pending.first_end(now), now);
        let far = Waits { decide_again: Some(at(60)), ..nothing() };
        assert_eq!(far.first_end(now), now + LOOK_AT_FILES, "the files are looked at");
    }

    #[tokio::test]
    async fn requests_to_members_that_left_are_looked_at_often_at_first() {
        let now = Instant::now();
        let waits = Waits { waits_for_requests: true, last_load: Some(now), ..nothing() };
        for (passed, pause) in [(0, 10), (20, 10), (400, 100), (2000, 200)] {
            let now = now + Duration::from_millis(passed);
            assert_eq!(waits.first_end(now), now + Duration::from_millis(pause), "{passed}");
        }
    }

    #[tokio::test]
    async fn changes_are_collected_from_the_first_on() {
        let now = Instant::now();
        let mut debounce = Debounce::new(Duration::from_secs(3));
        assert!(!debounce.is_over(now));
        assert!(!debounce.is_over(now + Duration::from_secs(2)));
        assert_eq!(debounce.ends(), Some(now + Duration::from_secs(3)));
        assert!(debounce.is_over(now + Duration::from_secs(3)));
        debounce.reset();
        assert!(!debounce.is_over(now + Duration::from_secs(9)));
        assert!(Debounce::default().is_over(now), "by default at once");
    }
}
