//! Which keys go when the process leaves, and what is wanted of etcd for that. Pure.

use std::collections::BTreeMap;
use std::fmt;

use common::claim::{Aim, KeyStatus, Marker, Takeover, Want};
use common::handshake::{Bookkeeping, DrainTimes};
use common::model::{Key, plural};

use crate::handshake::trees_of;
use crate::health::HealthState;
use crate::sidekick::registration::KeyStatuses;
use crate::sidekick::services::StoppedService;

/// What is to be removed, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeparturePlan {
    /// No key of ours can be there.
    NothingRegistered,
    /// These keys are there, or may be, or were a moment ago.
    Remove { keys: BTreeMap<Key, Vec<u8>> },
}

impl DeparturePlan {
    pub(super) fn of(statuses: &KeyStatuses, instances: &BTreeMap<Key, StoppedService>) -> Self {
        let mut keys = BTreeMap::new();
        for (key, instance) in instances {
            let concerned = match statuses.get(key) {
                // A write may be under way, or was not answered; a backend that became unhealthy a
                // moment ago may still be routed to.
                Some(
                    KeyStatus::Owned { .. }
                    | KeyStatus::Pending
                    | KeyStatus::Absent { removed: Some(_) },
                ) => true,
                Some(KeyStatus::Absent { removed: None }) => instance.health == HealthState::Up,
                Some(KeyStatus::Rival { .. }) | None => false,
            };
            if concerned {
                keys.insert(key.clone(), instance.value.clone());
            }
        }
        if keys.is_empty() { Self::NothingRegistered } else { Self::Remove { keys } }
    }
}

/// What is to be wanted so that these keys, each with its value, go. With `times`, each has a leave
/// marker; a process that has registered nothing has no load balancer to inform.
pub(super) fn removal(
    keys: &BTreeMap<Key, Vec<u8>>,
    bookkeeping: &Bookkeeping,
    times: Option<DrainTimes>,
) -> BTreeMap<Key, Want> {
    let mut wants = BTreeMap::new();
    for (key, value) in keys {
        let marker = times.and_then(|times| bookkeeping.leave_marker(key, times));
        // For a single key, members and acknowledgements are read in the transaction that removes
        // it.
        let reads = match keys.len() {
            1 => trees_of(bookkeeping, keys.keys()),
            _ => Vec::new(),
        };
        let marker = marker.map(|(key, value)| Marker { key, value, reads });
        // The markers stay as long as we do.
        wants.extend(marker.clone().map(|Marker { key, value, .. }| {
            (key, Want { value, takeover: Takeover::Any, aim: Aim::Present })
        }));
        let aim = marker.map_or(Aim::Absent, Aim::Left);
        let want = Want { value: value.clone(), takeover: Takeover::SameValue, aim };
        wants.insert(key.clone(), want);
    }
    wants
}

impl fmt::Display for DeparturePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingRegistered => f.write_str("nothing is registered"),
            Self::Remove { keys } => match keys.keys().next() {
                Some(key) if keys.len() == 1 => write!(f, "removing {key}"),
                _ => write!(f, "removing {}", plural(keys.len(), "key")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use common::model::Revision;

    use super::*;

    fn key(id: &str) -> Key {
        format!("/services/apache/{id}").parse().unwrap()
    }

    fn planned(status: KeyStatus, health: HealthState) -> DeparturePlan {
        let addr = "10.0.0.1:80".parse().unwrap();
        let instance =
            StoppedService { health, value: b"10.0.0.1:80".to_vec(), addr, was_registered: false };
        let statuses = BTreeMap::from([(key("a"), status)]);
        DeparturePlan::of(&statuses, &BTreeMap::from([(key("a"), instance)]))
    }

    #[test]
    fn what_is_there_or_may_be_is_removed_and_what_is_anothers_is_not() {
        use HealthState::{Down, Starting, Up};
        let owned = || KeyStatus::Owned { at: Revision(7), value: b"10.0.0.1:80".to_vec() };
        let rival = || KeyStatus::Rival { value: b"10.0.0.2:80".to_vec() };
        let absent = |removed| KeyStatus::Absent { removed };
        for (status, health, removes) in [
            (owned(), Up, true),
            (owned(), Down, true),
            (KeyStatus::Pending, Up, true),
            (absent(Some(Revision(7))), Down, true),
            (absent(None), Up, true),
            (absent(None), Down, false),
            (absent(None), Starting, false),
            (rival(), Up, false),
        ] {
            let text = format!("{status:?} {health}");
            match planned(status, health) {
                DeparturePlan::NothingRegistered => assert!(!removes, "{text}"),
                DeparturePlan::Remove { .. } => assert!(removes, "{text}"),
            }
        }
    }

    #[test]
    fn a_plan_says_what_it_does() {
        assert_eq!(
            planned(KeyStatus::Pending, HealthState::Up).to_string(),
            "removing /services/apache/a"
        );
        let two = [key("a"), key("b")].map(|key| (key, Vec::new()));
        let plan = DeparturePlan::Remove { keys: two.into() };
        assert_eq!(plan.to_string(), "removing 2 keys");
    }
}
