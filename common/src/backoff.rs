//! How long to wait before the next attempt: a doubling, capped, jittered schedule.
//!
//! Pure: the random number comes from the caller.

use std::time::Duration;

/// A schedule of waits. Each is between half of and the whole nominal wait, so
/// that a fleet which lost etcd together does not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `min`, doubling, to `max`; a `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), failures: 0 }
    }

    /// The wait after one more failure. `random` is in `0.0..1.0`.
    #[must_use]
    pub fn after_failure(&mut self, random: f64) -> Duration {
        let nominal = self.min.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        nominal.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A success: the next failure starts the schedule anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_doubles_up_to_the_cap_and_starts_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.after_failure(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.after_failure(0.0).as_millis(), 50);
    }

    proptest! {
        #[test]
        fn never_more_than_the_cap_nor_less_than_half_the_minimum(
            min in 1u64..5_000, max in 1u64..60_000, tries in 1usize..80, random in 0.0f64..1.0,
        ) {
            let mut backoff = Backoff::new(Duration::from_millis(min), Duration::from_millis(max));
            for _ in 0..tries {
                let wait = backoff.after_failure(random);
                prop_assert!(wait <= Duration::from_millis(max.max(min)));
                prop_assert!(wait * 2 >= Duration::from_millis(min));
            }
        }
    }
}
