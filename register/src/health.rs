//! Rise and fall: what a row of probe results means, and when to ask again. Pure:
//! time and chance are passed in.
//!
//! What must hold:
//! * nothing is up before `rise` passes in a row, the first ones included, and
//!   nothing that is up goes down before `fall` failures in a row;
//! * while a decision is near (and at the start), probes come at the fast
//!   interval; otherwise at the normal one, ±10 %, so that many sidekicks started
//!   together do not stay in step;
//! * a probe never starts before the one before it has ended.
//!
//! This module knows nothing of probes, services or etcd.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How far a gap may stray from its interval, as a part of it.
const JITTER: f64 = 0.1;

/// The rules for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Passes in a row that bring it up.
    pub rise: NonZeroU32,
    /// Failures in a row that take it down.
    pub fall: NonZeroU32,
    /// From the beginning of one probe to that of the next.
    pub interval: Duration,
    /// The same while a decision is near. Not above `interval`.
    pub fast: Duration,
    /// How long failures at the start mean "still starting", not "down".
    pub grace: Duration,
}

/// What is known of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// Nothing is decided yet. It is not to be registered, but a registration from
    /// before our own restart is not to be taken away either.
    Starting,
    /// Healthy: to be registered.
    Up,
    /// Not healthy: not to be registered.
    Down,
}

/// The state machine of one service.
#[derive(Debug, Clone)]
pub struct Health {
    policy: HealthPolicy,
    started: Instant,
    state: HealthState,
    /// Equal results in a row, ending with the last one.
    row: u32,
    passing: bool,
}

impl Health {
    /// Nothing asked yet.
    pub fn new(policy: HealthPolicy, now: Instant) -> Self {
        Self { policy, started: now, state: HealthState::Starting, row: 0, passing: false }
    }

    /// The last results: how many equal ones in a row, and whether they passed.
    pub fn row(&self) -> (u32, bool) {
        (self.row, self.passing)
    }

    /// Takes in a result. Returns the new state if it is another one.
    pub fn record(&mut self, passed: bool, now: Instant) -> Option<HealthState> {
        self.row = if self.passing == passed { self.row.saturating_add(1) } else { 1 };
        self.passing = passed;
        let next = self.judge(now);
        if next == self.state {
            return None;
        }
        self.state = next;
        Some(next)
    }

    fn judge(&self, now: Instant) -> HealthState {
        let risen = self.passing && self.row >= self.policy.rise.get();
        let fallen = !self.passing && self.row >= self.policy.fall.get();
        let patient = now.saturating_duration_since(self.started) < self.policy.grace;
        match self.state {
            _ if risen => HealthState::Up,
            HealthState::Starting if fallen && !patient => HealthState::Down,
            HealthState::Up if fallen => HealthState::Down,
            state => state,
        }
    }

    /// Whether the next results may change the state, so that they are wanted soon.
    pub fn changing(&self) -> bool {
        match self.state {
            HealthState::Starting => true,
            HealthState::Up => !self.passing,
            HealthState::Down => self.passing,
        }
    }

    /// When to probe next, if the last probe ran from `began` to `ended`. `chance`
    /// is a random number from 0 to 1.
    pub fn next(&self, began: Instant, ended: Instant, chance: f64) -> Instant {
        let gap = if self.changing() { self.policy.fast } else { self.policy.interval };
        (began + jittered(gap, chance)).max(ended)
    }
}

/// `gap` ±10 %, for a `chance` from 0 to 1.
fn jittered(gap: Duration, chance: f64) -> Duration {
    let chance = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 0.5 };
    gap.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(rise: u32, fall: u32, grace: u64) -> HealthPolicy {
        HealthPolicy {
            rise: NonZeroU32::new(rise).unwrap(),
            fall: NonZeroU32::new(fall).unwrap(),
            interval: Duration::from_secs(5),
            fast: Duration::from_secs(1),
            grace: Duration::from_secs(grace),
        }
    }

    /// One result a second; the state after each, as a letter.
    fn run(policy: HealthPolicy, results: &str) -> String {
        let start = Instant::now();
        let mut health = Health::new(policy, start);
        let mut at = start;
        let letters = results.chars().map(|c| {
            at += Duration::from_secs(1);
            health.record(c == 'P', at);
            match health.state {
                HealthState::Starting => 's',
                HealthState::Up => 'U',
                HealthState::Down => 'D',
            }
        });
        letters.collect()
    }

    #[test]
    fn the_rows_that_other_registrars_get_wrong() {
        for (rise, fall, grace, results, states) in [
            // Rise holds at the start too.
            (3, 2, 0, "PFFFPPP", "ssDDDDU"),
            (1, 1, 0, "PFP", "UDU"),
            (2, 3, 0, "PPFFPFFF", "sUUUUUUD"),
            // Flapping never registers.
            (2, 2, 0, "PFPFPFPF", "ssssssss"),
            (2, 2, 0, "FFPFPFPF", "sDDDDDDD"),
            // Within the grace failing is not down; passing is up as ever.
            (2, 2, 5, "FFFFPP", "sssssU"),
            (2, 2, 4, "FFFFFFPP", "sssDDDDU"),
            (2, 2, 60, "PPFF", "sUUD"),
        ] {
            assert_eq!(run(policy(rise, fall, grace), results), states, "{results}");
        }
    }

    #[test]
    fn it_hurries_only_while_something_may_change() {
        let start = Instant::now();
        let mut health = Health::new(policy(2, 2, 0), start);
        for (passed, changing) in [
            (true, true),
            (true, false),
            (true, false),
            (false, true),
            (false, false),
            (true, true),
        ] {
            health.record(passed, start);
            assert_eq!(health.changing(), changing, "{:?}", health.row());
        }
    }

    #[test]
    fn a_slow_probe_is_followed_at_once_but_never_overlapped() {
        let start = Instant::now();
        let health = Health::new(policy(2, 2, 0), start);
        let ended = start + Duration::from_secs(2);
        assert_eq!(health.next(start, ended, 0.5), ended);
        let ended = start + Duration::from_millis(3);
        assert_eq!(health.next(start, ended, 0.0), start + Duration::from_millis(900));
        assert_eq!(health.next(start, ended, 1.0), start + Duration::from_millis(1_100));
    }

    proptest! {
        #[test]
        fn no_flip_without_its_row(
            rise in 1u32..5, fall in 1u32..5, grace in 0u64..10,
            results in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let start = Instant::now();
            let mut health = Health::new(policy(rise, fall, grace), start);
            for (i, passed) in results.iter().enumerate() {
                let now = start + Duration::from_secs(i as u64);
                let Some(state) = health.record(*passed, now) else { continue };
                let row = results[..=i].iter().rev().take_while(|r| *r == passed).count();
                match state {
                    HealthState::Up => prop_assert!(*passed && row >= rise as usize),
                    HealthState::Down => prop_assert!(!*passed && row >= fall as usize),
                    HealthState::Starting => prop_assert!(false, "nothing leads back to the start"),
                }
            }
        }

        #[test]
        fn enough_in_a_row_always_decides(
            rise in 1u32..5, fall in 1u32..5,
            before in proptest::collection::vec(any::<bool>(), 0..40), last: bool,
        ) {
            let start = Instant::now();
            let mut health = Health::new(policy(rise, fall, 0), start);
            for passed in before.into_iter().chain([last; 5]) {
                health.record(passed, start);
            }
            prop_assert_eq!(health.state, if last { HealthState::Up } else { HealthState::Down });
            prop_assert!(!health.changing());
        }

        #[test]
        fn the_next_probe_is_within_its_bounds(
            passed: bool, times in 0u32..6, took_ms in 0u64..20_000, chance: f64,
        ) {
            let start = Instant::now();
            let mut health = Health::new(policy(2, 3, 0), start);
            for _ in 0..times {
                health.record(passed, start);
            }
            let gap = if health.changing() { 1.0 } else { 5.0 };
            let ended = start + Duration::from_millis(took_ms);
            let next = health.next(start, ended, chance);
            prop_assert!(next >= ended);
            let waits = (next - start).as_secs_f64();
            let late = (ended - start).as_secs_f64();
            prop_assert!(waits >= gap * 0.899 && waits <= (gap * 1.101).max(late), "{}", waits);
        }
    }
}
