//! Signs of life: every working loop promises when it will be heard of next, and
//! whoever asks learns which promise was broken.
//!
//! The promise is the loop's own: one that sleeps for a minute says so, one that
//! begins a long step says how long that may take. A loop that ends in order takes
//! its promise back; one that dies leaves it to be broken.

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

/// One loop's sign of life.
#[derive(Debug)]
pub struct Heartbeat {
    liveness: Liveness,
    id: u64,
}

/// A loop that is not heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// Its name.
    pub name: String,
    /// How long ago it should have been heard of.
    pub by: Duration,
}

impl Liveness {
    /// A new loop, to be heard of `within` this time.
    #[must_use]
    pub fn heartbeat(&self, name: &str, within: Duration) -> Heartbeat {
        let mut loops = self.lock();
        let id = loops.last_key_value().map_or(0, |(last, _)| last + 1);
        loops.insert(id, BeatDeadline { name: name.to_owned(), until: Instant::now() + within });
        drop(loops);
        Heartbeat { liveness: self.clone(), id }
    }

    /// The loops that should have been heard of before `now`.
    #[must_use]
    pub fn late(&self, now: Instant) -> Vec<Overdue> {
        let loops = self.lock();
        let late = loops.values().filter(|promise| promise.until < now);
        late.map(|promise| Overdue { name: promise.name.clone(), by: now - promise.until })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, BeatDeadline>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// The loop works, and will be heard of again within this time.
    pub fn beat(&self, within: Duration) {
        if let Some(promise) = self.liveness.lock().get_mut(&self.id) {
            promise.until = Instant::now() + within;
        }
    }

    /// The loop ends, as it should.
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
    async fn who_is_not_heard_of_in_time_is_late_until_heard_of_again() {
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
