//! The keys that this load balancer writes to etcd: the member key, and one acknowledgement per
//! resource, all under one lease.
//!
//! The caller decides what is acknowledged. This module guarantees two things: an acknowledgement
//! never goes backwards within one run of the process, and nothing is written while nothing changes
//! (the registrar compares). The protocol is in `docs/handshake.md`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::claim::{Aim, Takeover, Want, Wants, instance_of};
use common::handshake::{Ack, Bookkeeping, Consumes, DriverInUse, Member, Rejection};
use common::model::{Key, KeyError, Revision};
use tokio::sync::watch;

/// What this load balancer publishes about itself.
#[derive(Debug, Clone)]
pub struct LoadBalancerKeys {
    name: String,
    instance_id: String,
    /// The instance ids whose keys may be taken over: this run's, and those of runs that have
    /// ended.
    ours: Arc<[String]>,
    bookkeeping: Bookkeeping,
    wants: watch::Sender<Wants>,
    state: Arc<Mutex<MemberState>>,
}

#[derive(Debug, Default)]
struct MemberState {
    member: Option<Member>,
    acks: BTreeMap<String, Ack>,
    /// Another load balancer has the name: until it is free, the member key is written under the
    /// alias.
    is_alias: bool,
}

/// The part of the member key that describes the load balancer itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Its host name.
    pub host: String,
    /// Where clients reach it, if that is configured.
    pub advertise: Option<String>,
    /// The address of its status page.
    pub status: Option<String>,
}

/// How far one resource has applied etcd's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// New requests are routed by every change up to this revision.
    pub applied: Revision,
    /// No worker is left that started before this revision was applied.
    pub quiesced: Revision,
    /// Both rest on the success of commands or on a span of time, not on evidence.
    pub assumed: bool,
    /// Keys that are absent from etcd and still routed to.
    pub retained: Vec<String>,
    /// Why the newest revision is not applied.
    pub rejected: Option<Rejection>,
    /// Why the newest files are not active yet, while loading them is tried again.
    pub trouble: Option<String>,
    /// How many keys are left out because of their values.
    pub rejected_values: usize,
    /// Who changes backends in the proxy, once that is proven.
    pub driver: Option<DriverInUse>,
}

impl LoadBalancerKeys {
    /// `name` is this load balancer's, `instance_id` names this run of the process, and
    /// `earlier` the runs whose keys may be taken over, because they have ended.
    pub fn new(
        name: String,
        instance_id: String,
        earlier: impl IntoIterator<Item = String>,
        bookkeeping: Bookkeeping,
    ) -> Self {
        let (wants, _) = watch::channel(Wants::default());
        let ours = [instance_id.clone()].into_iter().chain(earlier).collect();
        Self { name, instance_id, ours, bookkeeping, wants, state: Arc::default() }
    }

    /// The name under which the member key is written while another load balancer has ours. It is
    /// unique to this run.
    pub fn alias(&self) -> String {
        let id = self.instance_id.rsplit('-').next().unwrap_or_default();
        format!("{}~{id}", self.name)
    }

    /// Whether a key with this value may be taken over.
    pub fn is_ours(&self, value: &[u8]) -> bool {
        instance_of(value).is_some_and(|id| self.ours.contains(&id))
    }

    /// Publishes under the alias as well, or under the name alone.
    pub fn use_alias(&self, is_alias: bool) {
        self.change(|state| state.is_alias = is_alias);
    }

    /// The keys that the registrar is to keep in etcd.
    pub fn wants(&self) -> watch::Receiver<Wants> {
        self.wants.subscribe()
    }

    /// The name of this load balancer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The member key.
    ///
    /// # Errors
    /// When the name is not a path segment.
    pub fn key(&self) -> Result<Key, KeyError> {
        self.bookkeeping.member(&self.name)
    }

    /// The member key, under the name in use, and its value; `None` before joining.
    pub fn member_as_wanted(&self) -> Option<(Key, Vec<u8>)> {
        let is_alias = self.state.lock().is_ok_and(|state| state.is_alias);
        let name = if is_alias { self.alias() } else { self.name.clone() };
        let key = self.bookkeeping.member(&name).ok()?;
        let value = self.wants.borrow().get(&key)?.value.clone();
        Some((key, value))
    }

    /// The prefix of member keys and acknowledgements.
    pub fn bookkeeping(&self) -> &Bookkeeping {
        &self.bookkeeping
    }

    /// Writes the member key, or updates it when the rendered resources have changed.
    pub fn join(&self, about: Introduction, resources: Vec<Consumes>) {
        let Introduction { host, advertise, status } = about;
        self.change(|state| {
            state.acks.retain(|name, _| resources.iter().any(|r| &r.name == name));
            state.member = Some(Member {
                host,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                instance_id: self.instance_id.clone(),
                advertise,
                status,
                resources,
                left: false,
            });
        });
    }

    /// Updates the resources in the member key.
    pub fn consume(&self, resources: Vec<Consumes>) {
        self.change(|state| {
            if let Some(member) = &mut state.member {
                member.resources = resources;
            }
        });
    }

    /// Acknowledges what a resource has applied. The revisions never decrease, until what was
    /// acknowledged is withdrawn.
    pub fn acknowledge(&self, resource: &str, now: Applied) {
        self.change(|state| {
            let before = state.acks.get(resource);
            let floor =
                |new: Revision, old: fn(&Ack) -> Revision| before.map_or(new, |b| old(b).max(new));
            let ack = Ack {
                instance_id: self.instance_id.clone(),
                applied: floor(now.applied, |ack| ack.applied),
                quiesced: floor(now.quiesced, |ack| ack.quiesced),
                retained: now.retained,
                assumed: now.assumed,
                rejected: now.rejected,
                trouble: now.trouble,
                rejected_values: now.rejected_values,
                driver: now.driver,
            };
            state.acks.insert(resource.to_owned(), ack);
        });
    }

    /// The resource acknowledges nothing: its group has noticed that the store has regressed. Each
    /// group follows the store for itself, so those of others stay.
    pub fn withdraw_acknowledgement(&self, resource: &str) {
        self.change(|state| drop(state.acks.remove(resource)));
    }

    /// Marks a clean shutdown: this load balancer routes nothing any more.
    pub fn left(&self) {
        self.change(|state| {
            if let Some(member) = &mut state.member {
                member.left = true;
            }
        });
    }

    /// None of our keys is wanted any more.
    pub fn withdraw(&self) {
        self.change(|state| {
            state.member = None;
            state.acks.clear();
        });
    }

    fn change(&self, change: impl FnOnce(&mut MemberState)) {
        let Ok(mut state) = self.state.lock() else { return };
        change(&mut state);
        let wants = self.as_wants(&state);
        self.wants.send_if_modified(|before| before.replace(wants));
    }

    /// The plain name is always wanted too: it becomes ours as soon as it is free.
    fn as_wants(&self, state: &MemberState) -> BTreeMap<Key, Want> {
        let name = if state.is_alias { self.alias() } else { self.name.clone() };
        let names = [&self.name, &name].into_iter().take(1 + usize::from(state.is_alias));
        let members = state.member.iter().flat_map(|member| {
            let key = |name: &String| Some((self.bookkeeping.member(name).ok()?, json(member)));
            names.clone().filter_map(key)
        });
        let acks = state.acks.iter().filter_map(|(resource, ack)| {
            Some((self.bookkeeping.ack(resource, &name).ok()?, json(ack)))
        });
        let want = |(key, value)| {
            let takeover = Takeover::Instances(Arc::clone(&self.ours));
            (key, Want { value, takeover, aim: Aim::Present })
        };
        members.chain(acks).map(want).collect()
    }
}

/// These structs have no field that JSON could not express.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> LoadBalancerKeys {
        let bookkeeping = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        LoadBalancerKeys::new("lb-1".into(), "now-boot".into(), [], bookkeeping)
    }

    fn applied(applied: u64, quiesced: u64) -> Applied {
        Applied {
            applied: Revision(applied),
            quiesced: Revision(quiesced),
            assumed: false,
            retained: vec![],
            rejected: None,
            trouble: None,
            rejected_values: 0,
            driver: None,
        }
    }

    fn ack(members: &LoadBalancerKeys) -> Ack {
        let wants = members.wants().borrow().clone();
        let key: Key = "/confsync/acks/web/lb-1".parse().unwrap();
        serde_json::from_slice(&wants[&key].value).unwrap()
    }

    #[test]
    fn an_acknowledgement_never_goes_backwards_unless_the_store_did() {
        let members = members();
        members.acknowledge("web", applied(7, 5));
        members.acknowledge("web", applied(6, 6));
        assert_eq!((ack(&members).applied, ack(&members).quiesced), (Revision(7), Revision(6)));
        members.acknowledge("api", applied(7, 5));
        members.withdraw_acknowledgement("web");
        let keys: Vec<_> = members.wants().borrow().keys().map(Key::to_string).collect();
        assert_eq!(keys, ["/confsync/acks/api/lb-1"], "that of another group stays");
        members.acknowledge("web", applied(2, 2));
        assert_eq!(ack(&members).applied, Revision(2));
    }

    #[test]
    fn publishing_the_same_again_wakes_no_reader() {
        let members = members();
        let mut wants = members.wants();
        members.acknowledge("web", applied(1, 1));
        assert!(wants.has_changed().unwrap());
        wants.mark_unchanged();
        members.acknowledge("web", applied(1, 1));
        assert!(!wants.has_changed().unwrap());
    }

    #[test]
    fn leaving_is_recorded_in_the_member_key() {
        let members = members();
        members.join(Introduction::default(), vec![]);
        members.left();
        let wants = members.wants().borrow().clone();
        let member: Member = serde_json::from_slice(&wants.values().next().unwrap().value).unwrap();
        assert!(member.left);
    }

    #[test]
    fn under_an_alias_the_acknowledgements_move_and_the_name_is_still_wanted() {
        let members = members();
        members.join(Introduction::default(), vec![]);
        members.acknowledge("web", applied(1, 1));
        members.use_alias(true);
        let wants = members.wants().borrow().clone();
        let keys: Vec<_> = wants.keys().map(Key::as_str).collect();
        let alias = "/confsync/members/lb-1~boot";
        assert_eq!(keys, ["/confsync/acks/web/lb-1~boot", "/confsync/members/lb-1", alias]);
        assert_eq!(members.member_as_wanted().unwrap().0.as_str(), alias);
        members.use_alias(false);
        assert_eq!(members.wants().borrow().len(), 2);
    }
}
