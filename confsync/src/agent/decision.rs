//! What the newest view of the keys asks for, and why. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::model::{Revision, Snapshot};
use common::watch::{StaleReason, View};
use tokio::time::Instant;

use super::render::RenderVerdict;

/// What is to be done about the newest view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing is known yet.
    Wait,
    /// etcd is unreachable at the start: the files in place are better than nothing.
    KeepFilesInPlace,
    /// The files are right at this revision as well.
    SameFiles(Arc<Snapshot>),
    /// The files are to be rendered.
    Render(Arc<Snapshot>, RenderCause),
}

/// Why files are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenderCause {
    FirstRead,
    Changed,
    Regressed,
    NotSettled,
    Probed,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "nothing was read from etcd yet",
            Self::KeepFilesInPlace => "etcd is unreachable at the start",
            Self::SameFiles(_) => "no value that is read has changed",
            Self::Render(_, RenderCause::FirstRead) => "the keys were read for the first time",
            Self::Render(_, RenderCause::Changed) => "values have changed",
            Self::Render(_, RenderCause::Regressed) => "etcd regressed",
            Self::Render(_, RenderCause::NotSettled) => {
                "the last files were withheld, or a loss is not certain"
            }
            Self::Render(_, RenderCause::Probed) => {
                "other backends refuse connections while etcd is unreachable"
            }
        })
    }
}

/// What was decided last.
#[derive(Debug, Default)]
pub(super) struct LastDecision {
    /// The keys; none before the first decision.
    snapshot: Option<Arc<Snapshot>>,
    regressions: u32,
    /// When it was found that etcd regressed before our start.
    regressed_before_start: Option<Instant>,
    verdict: RenderVerdict,
    /// When to decide again although nothing changed.
    again: Option<Instant>,
}

impl LastDecision {
    /// What `view` asks for. `is_probed`: other backends are left out than were before.
    pub(super) fn next(&self, view: &View, is_probed: bool) -> Decision {
        let Some(snapshot) = view.snapshot.clone() else {
            let stale = view.stale.as_ref();
            return match stale.is_some_and(|stale| stale.reason != StaleReason::NotReadYet) {
                true => Decision::KeepFilesInPlace,
                false => Decision::Wait,
            };
        };
        let cause = match &self.snapshot {
            None => RenderCause::FirstRead,
            Some(_) if view.regressions != self.regressions => RenderCause::Regressed,
            Some(seen) if !seen.same_values(&snapshot) => RenderCause::Changed,
            Some(_) if self.verdict != RenderVerdict::Settled => RenderCause::NotSettled,
            Some(_) if is_probed => RenderCause::Probed,
            // Keys changed that the group does not read. A template that uses the clock is not
            // rendered for that.
            Some(_) => return Decision::SameFiles(snapshot),
        };
        Decision::Render(snapshot, cause)
    }

    /// Whether nothing was decided on yet.
    pub(super) fn is_none(&self) -> bool {
        self.snapshot.is_none()
    }

    /// Whether `view` has something that was not decided on.
    pub(super) fn is_outdated_by(&self, view: &View) -> bool {
        let Some(snapshot) = &view.snapshot else {
            return view.stale.is_some() && self.is_none();
        };
        // Not by its revision: another history may have one of the same.
        let is_known = self.snapshot.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, snapshot));
        !is_known || view.regressions != self.regressions
    }

    /// A decision is made: it is due again when its verdict says so.
    pub(super) fn begin(&mut self) {
        self.again = None;
    }

    /// These keys are decided on.
    pub(super) fn take(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = Some(snapshot);
    }

    /// Takes in how often etcd regressed. Whether it did again.
    pub(super) fn take_regressions(&mut self, regressions: u32) -> bool {
        std::mem::replace(&mut self.regressions, regressions) != regressions
    }

    /// What was saved before the start is ahead of etcd.
    pub(super) fn note_regressed_before_start(&mut self, now: Instant) {
        self.regressed_before_start = Some(now);
    }

    /// Whether etcd regressed less than `grace` ago.
    pub(super) fn is_within_grace(&self, view: &View, grace: Duration, now: Instant) -> bool {
        let regressed_at = view.regressed_at.max(self.regressed_before_start);
        regressed_at.is_some_and(|at| now.saturating_duration_since(at) < grace)
    }

    /// What the render came to.
    pub(super) fn conclude(&mut self, verdict: RenderVerdict, now: Instant) {
        self.again = verdict.pause().map(|pause| now + pause);
        self.verdict = verdict;
    }

    pub(super) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Of the keys that were decided on.
    pub(super) fn revision(&self) -> Revision {
        self.snapshot.as_ref().map(|snapshot| snapshot.revision).unwrap_or_default()
    }

    pub(super) fn verdict(&self) -> &RenderVerdict {
        &self.verdict
    }

    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use common::model::Entry;
    use common::watch::Stale;

    use super::super::render::Withheld;
    use super::*;

    fn view(revision: u64, value: &str) -> View {
        let entry = Entry::new("/services/web/1", value, Revision(1));
        let entries = [(Arc::clone(&entry.key), entry)].into_iter().collect();
        let snapshot = Snapshot { revision: Revision(revision), entries, ..Snapshot::default() };
        View { snapshot: Some(Arc::new(snapshot)), ..View::default() }
    }

    fn decided(view: &View) -> LastDecision {
        let mut last = LastDecision::default();
        last.take(view.snapshot.clone().unwrap());
        last
    }

    fn cause(decision: &Decision) -> Option<RenderCause> {
        match decision {
            Decision::Render(_, cause) => Some(*cause),
            _ => None,
        }
    }

    #[tokio::test]
    async fn before_the_first_read_only_an_etcd_that_is_away_decides_anything() {
        let last = LastDecision::default();
        let stale = |reason| Some(Stale { since: Instant::now(), reason });
        let not_read = View { stale: stale(StaleReason::NotReadYet), ..View::default() };
        assert_eq!(last.next(&not_read, false), Decision::Wait);
        let away = View { stale: stale(StaleReason::NotStarted("not yet")), ..View::default() };
        assert_eq!(last.next(&away, false), Decision::KeepFilesInPlace);
        assert!(last.is_outdated_by(&away));
        assert_eq!(cause(&last.next(&view(5, "a:1"), false)), Some(RenderCause::FirstRead));
    }

    #[tokio::test]
    async fn only_what_can_change_the_files_renders_them() {
        let first = view(5, "a:1");
        let last = decided(&first);
        assert!(!last.is_outdated_by(&first));
        let later = view(6, "a:1");
        assert!(last.is_outdated_by(&later));
        assert!(matches!(last.next(&later, false), Decision::SameFiles(_)));
        assert_eq!(cause(&last.next(&later, true)), Some(RenderCause::Probed));
        assert_eq!(cause(&last.next(&view(6, "b:1"), false)), Some(RenderCause::Changed));
        let regressed = View { regressions: 1, ..view(6, "a:1") };
        assert_eq!(cause(&last.next(&regressed, false)), Some(RenderCause::Regressed));
    }

    #[tokio::test]
    async fn what_is_not_settled_is_decided_again() {
        let now = Instant::now();
        let mut last = decided(&view(5, "a:1"));
        assert_eq!(last.again(), None);
        for (withheld, is_unverified, pause) in [
            (None, true, 2),
            (Some("no such key".to_owned().into()), false, 10),
            (Some(Withheld { why: "too few".into(), too_few_backends: true }), false, 2),
        ] {
            last.conclude(RenderVerdict::new(withheld, is_unverified), now);
            assert_eq!(last.again(), Some(now + Duration::from_secs(pause)));
            let next = last.next(&view(6, "a:1"), false);
            assert_eq!(cause(&next), Some(RenderCause::NotSettled), "{next}");
        }
        last.conclude(RenderVerdict::new(None, false), now);
        assert_eq!(last.again(), None);
    }

    #[tokio::test]
    async fn losses_are_uncertain_for_the_grace_after_a_regression() {
        let (now, grace) = (Instant::now(), Duration::from_secs(30));
        let mut last = LastDecision::default();
        assert!(!last.is_within_grace(&View::default(), grace, now));
        let view = View { regressed_at: Some(now), ..View::default() };
        assert!(last.is_within_grace(&view, grace, now + Duration::from_secs(29)));
        assert!(!last.is_within_grace(&view, grace, now + grace));
        last.note_regressed_before_start(now + grace);
        assert!(last.is_within_grace(&view, grace, now + grace));
        assert!(last.take_regressions(1) && !last.take_regressions(1));
    }
}
