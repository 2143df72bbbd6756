//! Liveness: every working loop announces by when it will report again, and `/healthz` names each
//! loop that did not.
//!
//! The deadline is the loop's own: one that sleeps for a minute announces a minute, one that begins
//! a long step announces how long that may take. A loop that ends in order withdraws its deadline;
//! one that dies leaves it to expire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// All loops of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    loops: Arc<Mutex<BTreeMap<u64, BeatDeadline>>>,
}

#[derive(Debug)]
struct BeatDeadline {
    name: String,
    until: Instant,
}

/// The heartbeat of one loop.
#[derive(Debug)]
pub struct Heartbeat {
    liveness: Liveness,
    id: u64,
}

/// A loop that did not report in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    pub name: String,
    /// How long ago it should have reported.
    pub by: Duration,
}

impl Liveness {
    /// Adds a loop that will report `within` this time.
    #[must_use]
    pub fn heartbeat(&self, name: &str, within: Duration) -> Heartbeat {
        let mut loops = self.lock();
        let id = loops.last_key_value().map_or(0, |(last, _)| last + 1);
        loops.insert(id, BeatDeadline { name: name.to_owned(), until: Instant::now() + within });
        drop(loops);
        Heartbeat { liveness: self.clone(), id }
    }

    /// The loops that should have reported before `now`.
    pub fn late(&self, now: Instant) -> Vec<Overdue> {
        let loops = self.lock();
        let late = loops.values().filter(|beat| beat.until < now);
        late.map(|beat| Overdue { name: beat.name.clone(), by: now - beat.until }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, BeatDeadline>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// The loop works, and will report again within this time.
    pub fn beat(&self, within: Duration) {
        if let Some(beat) = self.liveness.lock().get_mut(&self.id) {
            beat.until = Instant::now() + within;
        }
    }

    /// The loop ends in order.
    pub fn end(self) {
        self.liveness.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(liveness: &Liveness) -> Vec<String> {
        liveness.late(Instant::now()).into_iter().map(|late| late.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_report_in_time_is_late_until_it_does() {
        let liveness = Liveness::default();
        let (quick, slow) =
            (liveness.heartbeat("quick", SECOND), liveness.heartbeat("slow", 10 * SECOND));
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(liveness.late(Instant::now()), [Overdue { name: "quick".into(), by: SECOND }]);
        quick.beat(SECOND);
        assert!(names(&liveness).is_empty());
        tokio::time::advance(20 * SECOND).await;
        slow.end();
        assert_eq!(names(&liveness), ["quick"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_dies_is_late_one_that_ends_is_not() {
        let liveness = Liveness::default();
        drop(liveness.heartbeat("died", SECOND));
        liveness.heartbeat("ended", SECOND).end();
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(names(&liveness), ["died"]);
    }
}
