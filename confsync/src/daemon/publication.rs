//! Publishes the state of the process: to the service manager, and on the status page.

use common::runtime::{Gate, Reminder, ServiceManager};
use tokio::sync::watch;

use super::registration::RegistrationStatus;
use crate::status::About;
use crate::status::state::{GroupState, States};

/// Publishes the state of the process.
pub(super) struct ProcessPublication {
    pub(super) manager: ServiceManager,
    pub(super) states: watch::Sender<States>,
    pub(super) about: watch::Sender<About>,
    /// Opened when READY=1 is sent.
    pub(super) ready: Gate,
    pub(super) reminder: Reminder,
}

impl ProcessPublication {
    /// Publishes these; READY=1 when every group was applied once.
    pub(super) fn publish(&mut self, states: States, registration: RegistrationStatus) {
        self.manager.status(&status_line(&states, registration.rival.as_deref()));
        if !self.ready.is_open() && is_ready(&states, &registration) {
            self.ready.open();
            self.manager.ready();
            tracing::info!("ready");
        }
        if !self.ready.is_open() {
            self.reminder.remind(&self.manager.last_status());
        }
        let RegistrationStatus { joined, rival, etcd } = registration;
        self.about.send_if_modified(|about| {
            // A change of the counters alone wakes no reader.
            let is_changed = about.joined != joined || about.rival != rival;
            (about.joined, about.rival, about.etcd) = (joined, rival, etcd);
            is_changed
        });
        self.states.send_replace(states);
    }
}

/// Whether every group has been active once, under a name of our own.
fn is_ready(states: &States, registration: &RegistrationStatus) -> bool {
    registration.rival.is_none() && states.values().all(|state| state.live.is_some())
}

/// Whether what every group wants is active, and nothing works by older files.
pub(super) fn is_all_quiesced(states: &States) -> bool {
    states.values().all(|state| state.in_sync && state.quiesced == state.applied)
}

fn status_line(states: &States, rival: Option<&str>) -> String {
    let groups = states.values().map(GroupState::summary);
    groups.chain(rival.map(str::to_owned)).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::metrics::EtcdUse;

    fn state(name: &str, active: bool) -> GroupState {
        let live = active.then(|| "0123456789ab".to_owned());
        GroupState { live, in_sync: active, ..GroupState::empty(name) }
    }

    fn states(all: &[GroupState]) -> States {
        all.iter().map(|state| (state.name.clone(), state.clone())).collect()
    }

    #[test]
    fn ready_is_once_every_group_is_active_under_a_name_of_our_own() {
        let etcd = EtcdUse::default();
        let own = RegistrationStatus { joined: true, rival: None, etcd };
        let both = states(&[state("app", true), state("web", true)]);
        assert!(is_ready(&both, &own));
        assert!(!is_ready(&states(&[state("app", true), state("web", false)]), &own));
        let rival = RegistrationStatus { rival: Some("taken".to_owned()), ..own.clone() };
        assert!(!is_ready(&both, &rival));
        assert!(status_line(&both, Some("taken")).ends_with(" | taken"));

        let mut publication = ProcessPublication {
            manager: ServiceManager::default(),
            states: watch::Sender::new(States::new()),
            about: watch::Sender::new(About::new("lb-1".into(), "/etc/confd".into())),
            ready: Gate::default(),
            reminder: Reminder::default(),
        };
        publication.publish(states(&[state("app", false)]), own.clone());
        assert!(!publication.ready.is_open());
        publication.publish(both, own.clone());
        assert!(publication.ready.is_open());
        // Once ready, always ready: what goes wrong later is for /readyz.
        publication.publish(states(&[state("app", false)]), rival);
        assert!(publication.ready.is_open());
    }

    #[test]
    fn a_group_is_quiesced_when_nothing_works_by_an_older_revision() {
        let all = |applied, quiesced| {
            let state = GroupState { applied, quiesced, ..state("app", true) };
            is_all_quiesced(&states(&[state]))
        };
        assert!(all(7, 7) && !all(7, 6));
        assert!(!is_all_quiesced(&states(&[state("app", false)])));
    }
}
