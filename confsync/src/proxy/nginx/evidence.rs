//! What the workers seen before and after a reload prove. Pure.

use super::master::{Role, Worker};
use crate::proxy::process::ProcessId;

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// No new worker serves, or an old one still takes connections.
    Pending,
    /// A new worker serves, and every old one is gone or titled "shutting down": a connection
    /// accepted from now on never uses the old configuration.
    Applied,
    /// As applied, and no old worker is left: no request uses the old configuration.
    Quiesced,
}

/// Compares the present workers with those that existed when the signal was sent.
pub fn judge(before: &[ProcessId], now: &[Worker]) -> Generation {
    let workers = now.iter().filter(|worker| worker.role != Role::Other);
    let (old, new): (Vec<&Worker>, Vec<&Worker>) =
        workers.partition(|worker| before.contains(&worker.id));
    let new_serves = new.iter().any(|worker| worker.role == Role::Serving);
    let old_accepts = old.iter().any(|worker| worker.role != Role::ShuttingDown);
    match (new_serves && !old_accepts, old.is_empty()) {
        (false, _) => Generation::Pending,
        (true, false) => Generation::Applied,
        (true, true) => Generation::Quiesced,
    }
}

/// Whether the master has forked a worker since.
pub(super) fn has_new(before: &[ProcessId], now: &[Worker]) -> bool {
    now.iter().any(|worker| !before.contains(&worker.id))
}

/// How many old generations still finish their requests. The workers of one are forked together,
/// and two reloads are at least 100 ms apart (nginx waits that long before it signals the old
/// workers), so a gap in the start times separates them.
pub fn old_generations(workers: &[Worker]) -> usize {
    /// In ticks of 10 ms.
    const GAP: u64 = 5;
    let old = workers.iter().filter(|worker| worker.role == Role::ShuttingDown);
    let mut starts: Vec<u64> = old.map(|worker| worker.id.start).collect();
    starts.sort_unstable();
    let gaps = starts.iter().zip(starts.iter().skip(1)).filter(|(a, b)| **b - **a >= GAP);
    if starts.is_empty() { 0 } else { 1 + gaps.count() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(pid: i32) -> ProcessId {
        ProcessId { pid, start: 100 + pid.unsigned_abs() as u64 }
    }

    fn worker(pid: i32, role: Role) -> Worker {
        Worker { id: id(pid), role }
    }

    #[test]
    fn the_course_of_a_reload() {
        use Role::{Other, Serving, ShuttingDown, Starting};
        let before = [id(1), id(2)];
        let course: [(&[(i32, Role)], Generation); 7] = [
            (&[(1, Serving), (2, Serving)], Generation::Pending),
            (&[(1, Serving), (2, Serving), (3, Starting)], Generation::Pending),
            (&[(1, Serving), (2, Serving), (3, Serving)], Generation::Pending),
            (&[(1, ShuttingDown), (2, Serving), (3, Serving)], Generation::Pending),
            (&[(1, ShuttingDown), (2, ShuttingDown), (3, Serving)], Generation::Applied),
            (&[(2, ShuttingDown), (3, Serving), (9, Other)], Generation::Applied),
            (&[(3, Serving), (9, Other)], Generation::Quiesced),
        ];
        for (now, expected) in course {
            let now: Vec<_> = now.iter().map(|(pid, role)| worker(*pid, *role)).collect();
            assert_eq!(judge(&before, &now), expected, "{now:?}");
        }
    }

    #[test]
    fn nothing_that_serves_is_no_success() {
        assert_eq!(judge(&[id(1)], &[]), Generation::Pending);
        assert_eq!(judge(&[id(1)], &[worker(1, Role::ShuttingDown)]), Generation::Pending);
        assert_eq!(judge(&[id(1)], &[worker(2, Role::Starting)]), Generation::Pending);
    }

    #[test]
    fn a_number_given_away_again_is_a_new_worker() {
        let again = Worker { id: ProcessId { pid: 1, start: 999 }, role: Role::Serving };
        assert_eq!(judge(&[id(1)], &[again]), Generation::Quiesced);
    }

    #[test]
    fn generations_by_their_start() {
        let at = |start| Worker { id: ProcessId { pid: 1, start }, role: Role::ShuttingDown };
        assert_eq!(old_generations(&[]), 0);
        assert_eq!(old_generations(&[at(100), at(101), at(103)]), 1);
        assert_eq!(old_generations(&[at(100), at(101), at(120), at(150)]), 3);
        assert_eq!(old_generations(&[worker(1, Role::Serving)]), 0);
    }

    fn some_workers() -> impl Strategy<Value = Vec<Worker>> {
        let role = prop_oneof![
            Just(Role::Serving),
            Just(Role::ShuttingDown),
            Just(Role::Starting),
            Just(Role::Other)
        ];
        proptest::collection::vec((1..8i32, role), 0..8).prop_map(|mut list| {
            list.sort_by_key(|(pid, _)| *pid);
            list.dedup_by_key(|(pid, _)| *pid);
            list.into_iter().map(|(pid, role)| worker(pid, role)).collect()
        })
    }

    proptest! {
        #[test]
        fn applied_means_no_old_worker_accepts(known in 0..8i32, now in some_workers()) {
            let before: Vec<_> = (1..=known).map(id).collect();
            let verdict = judge(&before, &now);
            let old = |role| now.iter().any(|w| w.role == role && before.contains(&w.id));
            if verdict >= Generation::Applied {
                prop_assert!(!old(Role::Serving) && !old(Role::Starting));
                let serves = |w: &Worker| w.role == Role::Serving && !before.contains(&w.id);
                prop_assert!(now.iter().any(serves));
            }
            if verdict == Generation::Quiesced {
                prop_assert!(!old(Role::ShuttingDown));
            }
        }
    }
}
