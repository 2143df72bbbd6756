//! Decides whether a loss of backends may be rendered.
//!
//! A store that was wiped, and a fleet whose leases expired together, look exactly like a fleet
//! that died. So an empty set, or the sudden loss of most of it, needs evidence: a backend with a
//! leave marker left on purpose, one that refuses connections is down, and one that still accepts
//! them is retained.
//!
//! Pure. The backends are probed elsewhere; this decides whether to probe them, and what the
//! results mean.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A resource's policy on losses.
#[derive(Debug, Clone, PartialEq)]
pub struct LossPolicy {
    /// What to do when no backend is registered.
    pub on_empty: OnEmpty,
    /// With fewer backends than this nothing is rendered, and the file in place stays.
    pub min_backends: usize,
    /// The largest share, 0.0 to 1.0, that may vanish at once without being verified.
    pub max_loss: f64,
    /// For how long after the store has regressed every loss is verified.
    pub grace: Duration,
    /// How often backends are probed while etcd is unreachable; zero: never.
    pub probe_when_stale: Duration,
}

/// What to do when no backend is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// Keep the file in place.
    Keep,
    /// Render an empty set, once the grace is over.
    Render,
}

impl Default for LossPolicy {
    fn default() -> Self {
        Self {
            on_empty: OnEmpty::Keep,
            min_backends: 0,
            max_loss: 0.5,
            grace: Duration::from_secs(30),
            probe_when_stale: Duration::ZERO,
        }
    }
}

/// The evidence about a backend that vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossEvidence {
    /// It has a leave marker.
    Leaving,
    /// It accepted a connection.
    Answers,
    /// It refused one, or nothing answered in time.
    Silent,
}

/// What to do with a new set of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LossJudgement {
    /// Render it.
    Accept,
    /// Verify the losses first.
    Verify {
        /// The reason, for an operator.
        why: String,
    },
}

/// Whether the set that is left after the check may be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderDecision {
    /// Yes.
    Render,
    /// No: the file in place stays.
    Keep {
        /// The reason, for an operator.
        why: String,
    },
}

impl LossPolicy {
    /// Judges that of the backends `known` so far this many are `missing`. `is_none_left`: etcd has
    /// no others either; `regressed`: the store has regressed less than the grace ago.
    pub fn judge(
        &self,
        missing: usize,
        known: usize,
        is_none_left: bool,
        regressed: bool,
    ) -> LossJudgement {
        let why = if missing == 0 {
            return LossJudgement::Accept;
        } else if regressed {
            format!("{missing} of {known} vanished just after etcd regressed")
        } else if is_none_left {
            format!("all {known} vanished")
        } else if ratio(missing, known) > self.max_loss {
            format!("{missing} of {known} vanished at once")
        } else {
            return LossJudgement::Accept;
        };
        LossJudgement::Verify { why }
    }

    /// Which of the missing backends are retained. One without evidence (it could not be probed) is
    /// retained too.
    pub fn retained(
        missing: &BTreeSet<String>,
        evidence: &BTreeMap<String, LossEvidence>,
    ) -> BTreeSet<String> {
        let is_retained =
            |key: &&String| matches!(evidence.get(*key), Some(LossEvidence::Answers) | None);
        missing.iter().filter(is_retained).cloned().collect()
    }

    /// Whether a set of `count` backends, the retained ones included, may be rendered.
    pub fn weigh(&self, count: usize, regressed: bool) -> RenderDecision {
        if count == 0 && self.on_empty == OnEmpty::Keep {
            return RenderDecision::Keep {
                why: "no backend is registered, and on_empty = \"keep\"".into(),
            };
        }
        if count == 0 && regressed {
            return RenderDecision::Keep {
                why: "no backend is registered yet since etcd regressed".into(),
            };
        }
        if count < self.min_backends {
            let why = format!("there are fewer than min_backends = {}: {count}", self.min_backends);
            return RenderDecision::Keep { why };
        }
        RenderDecision::Render
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of backends are far below 2^52")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn what_is_accepted_and_what_is_verified() {
        let policy = LossPolicy::default();
        for (missing, known, left, regressed, verified, comment) in [
            (1, 3, 2, false, false, "one of three may go"),
            (1, 2, 1, false, false, "half may go: a deploy of two"),
            (2, 3, 1, false, true, "most may not"),
            (1, 1, 0, false, true, "nor the last"),
            (1, 3, 2, true, true, "nor any after a restore"),
            (0, 0, 1, true, false, "joining is always accepted"),
            (1, 1, 2, false, true, "a full replacement is a loss too"),
        ] {
            let judged = policy.judge(missing, known, left == 0, regressed);
            assert_eq!(matches!(judged, LossJudgement::Verify { .. }), verified, "{comment}");
        }
    }

    #[test]
    fn deregistered_and_silent_backends_go_and_those_that_answer_are_retained() {
        let missing = set(&["leaves", "answers", "silent", "unknown"]);
        let evidence = [
            ("leaves", LossEvidence::Leaving),
            ("answers", LossEvidence::Answers),
            ("silent", LossEvidence::Silent),
        ];
        let evidence = evidence.map(|(k, e)| (k.to_owned(), e)).into();
        assert_eq!(LossPolicy::retained(&missing, &evidence), set(&["answers", "unknown"]));
    }

    #[test]
    fn an_empty_set_is_kept_unless_asked_otherwise_and_never_right_after_a_restore() {
        let keep = LossPolicy::default();
        let render = LossPolicy { on_empty: OnEmpty::Render, ..LossPolicy::default() };
        let two = LossPolicy { min_backends: 2, ..LossPolicy::default() };
        assert!(matches!(keep.weigh(0, false), RenderDecision::Keep { .. }));
        assert_eq!(render.weigh(0, false), RenderDecision::Render);
        assert!(matches!(render.weigh(0, true), RenderDecision::Keep { .. }));
        assert!(matches!(two.weigh(1, false), RenderDecision::Keep { .. }));
        assert_eq!(two.weigh(2, true), RenderDecision::Render);
    }

    proptest! {
        #[test]
        fn a_deregistered_backend_is_never_brought_back(
            ids in proptest::collection::btree_set("[a-z]{1,3}", 0..20), picks: Vec<u8>,
        ) {
            let kinds = [LossEvidence::Leaving, LossEvidence::Answers, LossEvidence::Silent];
            let evidence: BTreeMap<_, _> = ids.iter().cloned()
                .zip(picks.iter().map(|p| kinds[usize::from(*p) % 3])).collect();
            for retained in LossPolicy::retained(&ids, &evidence) {
                prop_assert_ne!(evidence.get(&retained), Some(&LossEvidence::Leaving));
            }
        }
    }
}
