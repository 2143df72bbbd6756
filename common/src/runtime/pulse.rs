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
pub struct Pulse {
    loops: Arc<Mutex<BTreeMap<u64, Promise>>>,
}

#[derive(Debug)]
struct Promise {
    name: String,
    until: Instant,
}

/// One loop's sign of life.
#[derive(Debug)]
pub struct Heart {
    pulse: Pulse,
    id: u64,
}

/// A loop that is not heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Its name.
    pub name: String,
    /// How long ago it should have been heard of.
    pub by: Duration,
}

impl Pulse {
    /// A new loop, to be heard of `within` this time.
    #[must_use]
    pub fn heart(&self, name: &str, within: Duration) -> Heart {
        let mut loops = self.lock();
        let id = loops.last_key_value().map_or(0, |(last, _)| last + 1);
        loops.insert(id, Promise { name: name.to_owned(), until: Instant::now() + within });
        drop(loops);
        Heart { pulse: self.clone(), id }
    }

    /// The loops that should have been heard of before `now`.
    #[must_use]
    pub fn late(&self, now: Instant) -> Vec<Late> {
        let loops = self.lock();
        let late = loops.values().filter(|promise| promise.until < now);
        late.map(|promise| Late { name: promise.name.clone(), by: now - promise.until }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Promise>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heart {
    /// The loop works, and will be heard of again within this time.
    pub fn beat(&self, within: Duration) {
        if let Some(promise) = self.pulse.lock().get_mut(&self.id) {
            promise.until = Instant::now() + within;
        }
    }

    /// The loop ends, as it should.
    pub fn end(self) {
        self.pulse.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(pulse: &Pulse) -> Vec<String> {
        pulse.late(Instant::now()).into_iter().map(|late| late.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_heard_of_in_time_is_late_until_heard_of_again() {
        let pulse = Pulse::default();
        let (quick, slow) = (pulse.heart("quick", SECOND), pulse.heart("slow", 10 * SECOND));
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(pulse.late(Instant::now()), [Late { name: "quick".into(), by: SECOND }]);
        quick.beat(SECOND);
        assert!(names(&pulse).is_empty());
        tokio::time::advance(20 * SECOND).await;
        slow.end();
        assert_eq!(names(&pulse), ["quick"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_dies_is_late_one_that_ends_is_not() {
        let pulse = Pulse::default();
        drop(pulse.heart("died", SECOND));
        pulse.heart("ended", SECOND).end();
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(names(&pulse), ["died"]);
    }
}
