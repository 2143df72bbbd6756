//! Registers this load balancer in etcd: the member key is written before anything is read, names
//! what is read, and at the end says that nothing is routed any more.

use std::time::Duration;

use common::claim::KeyStatus;
use common::handshake::Consumes;
use common::metrics::EtcdUse;
use common::model::{Key, Ttl};
use common::registrar::{self, RegistrarReport};
use common::rights::{Right, warn_until_granted};
use common::runtime::{Gate, ListenAddress, hostname};
use common::store::{Etcd, Store};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::name::{self, NameOwner};
use crate::acks::members::{Introduction, LoadBalancerKeys};
use crate::acks::pace::paced;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::config::run::RunConfig;

/// How long the member key may keep the first read waiting, once etcd answers.
const JOIN: Duration = Duration::from_secs(3);
/// How long etcd may take to confirm that we leave.
const LEAVE: Duration = Duration::from_secs(1);

/// The member key and the acknowledgements, and what etcd has confirmed of them.
pub(super) struct Registration<S = Etcd> {
    store: S,
    api: &'static str,
    members: LoadBalancerKeys,
    introduction: Introduction,
    registrar: JoinHandle<()>,
    end_registrar: CancellationToken,
    report: channel::Receiver<RegistrarReport>,
    name_owner: channel::Receiver<NameOwner>,
    /// What the member key is to name once the files of the new confdir are active.
    consumed_next: Option<Vec<Consumes>>,
}

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegistrationStatus {
    /// etcd has confirmed the member key.
    pub(super) joined: bool,
    /// Another load balancer has our name, for an operator.
    pub(super) rival: Option<String>,
    pub(super) etcd: EtcdUse,
}

impl<S: Store> Registration<S> {
    pub(super) fn start(
        (store, api): (S, &'static str),
        members: LoadBalancerKeys,
        ttl: Ttl,
        introduction: Introduction,
    ) -> Self {
        let tree = members.bookkeeping().members();
        let wants = paced(members.wants(), store.clone(), tree);
        let end_registrar = CancellationToken::new();
        let (report, registrar) =
            registrar::start(store.clone(), ttl, wants, end_registrar.clone());
        let (owner, name_owner) = channel::channel(NameOwner::default());
        tokio::spawn(name::keep(members.clone(), report.clone(), owner));
        Self {
            store,
            api,
            members,
            introduction,
            registrar,
            end_registrar,
            report,
            name_owner,
            consumed_next: None,
        }
    }

    /// Writes the member key before anything is read, so that a backend that deregisters either
    /// left before our read or waits for us. The gate opens then, or when etcd definitely refuses:
    /// that does not stop us from reading.
    pub(super) async fn join(&self, resources: Vec<Consumes>) -> Gate {
        let joined = Gate::default();
        self.members.join(self.introduction.clone(), resources.clone());
        tokio::spawn(warn_until_granted(self.store.clone(), self.api, self.rights(&resources)));
        let joining =
            tokio::spawn(see_joined(self.members.clone(), self.report.clone(), joined.clone()));
        // If etcd does not answer in time, reading still waits for the gate, and the rest of the
        // start goes on.
        let _ = timeout(JOIN, joining).await;
        joined
    }

    /// As [`Self::join`], with another confdir. What was read `before` is routed by until the new
    /// files are active.
    pub(super) async fn join_anew(&mut self, before: &[Consumes], now: Vec<Consumes>) -> Gate {
        let routed = with_trees_of(now.clone(), before);
        self.consumed_next = (routed != now).then_some(now);
        self.join(routed).await
    }

    /// All files are active, and nothing works by those of before.
    pub(super) fn all_quiesced(&mut self) {
        if let Some(consumed) = self.consumed_next.take() {
            self.members.consume(consumed);
        }
    }

    /// The rights that are needed besides those to read the trees: a missing one of those is
    /// noticed at once.
    fn rights(&self, resources: &[Consumes]) -> Vec<Right> {
        let (bookkeeping, name) = (self.members.bookkeeping(), self.members.name());
        let acks = resources.iter().filter_map(|one| bookkeeping.ack(&one.name, name).ok());
        let own = self.members.key().into_iter().chain(acks).map(Right::Write);
        let read = [bookkeeping.leave_markers(), bookkeeping.acceptances()].map(Right::Read);
        own.chain(read).collect()
    }

    /// Whether etcd has confirmed the member key, and who else has our name.
    fn owner(&mut self) -> (bool, Option<String>) {
        let report = self.report.borrow_and_update();
        let status = self.members.key().ok().and_then(|key| report.keys.get(&key));
        let joined = matches!(status, Some(KeyStatus::Owned { .. }));
        let rival = match &*self.name_owner.borrow_and_update() {
            NameOwner::Rival(why) => Some(why.clone()),
            NameOwner::Unknown | NameOwner::Us => None,
        };
        (joined, rival)
    }

    /// Resolves when etcd has confirmed or refused something.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.report.changed() => {}
            Ok(()) = self.name_owner.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// `left` is published only when nothing is routed any more. Draining backends must wait for a
    /// proxy that keeps running without us: the member key then stays as it is until its lease ends
    /// or a successor takes it over. A published `left` stays as long, because a key that is
    /// deleted at once would not be seen.
    pub(super) async fn leave(mut self, routes_nothing: bool) {
        if routes_nothing {
            self.members.left();
            if let Some((key, value)) = self.members.member_as_wanted() {
                let confirmed = self.report.wait_for(|report| holds(report, &key, &value));
                let _ = timeout(LEAVE, confirmed).await;
            }
        } else {
            tracing::info!(
                "the proxy keeps running; draining backends wait for it until the lease ends"
            );
        }
        // Aborted rather than shut down, which would remove the keys.
        self.registrar.abort();
    }

    /// Removes our keys at once: this process has routed nothing, and never will. No draining
    /// backend is to wait for it until its lease ends.
    pub(super) async fn withdraw(&mut self) {
        self.members.withdraw();
        // With v2 no lease takes them along.
        let removed = self.report.wait_for(|report| report.keys.is_empty());
        let _ = timeout(LEAVE, removed).await;
        self.end_registrar.cancel();
        let _ = timeout(LEAVE, &mut self.registrar).await;
    }
}

impl Registration<Etcd> {
    /// What is known now.
    pub(super) fn status(&mut self) -> RegistrationStatus {
        let (joined, rival) = self.owner();
        let report = self.report.borrow();
        let etcd = EtcdUse {
            api: self.api,
            endpoint: self.store.endpoint(),
            requests: report.requests.clone(),
        };
        RegistrationStatus { joined, rival, etcd }
    }
}

pub(super) fn introduction(config: &RunConfig) -> Introduction {
    let host = hostname();
    let advertise = config.advertise.clone();
    let listen = config.status.as_ref().map(|server| &server.address);
    let status = listen.and_then(|at| status_address(at, advertise.as_deref(), &host));
    Introduction { host, advertise, status }
}

/// Where others find the status page. One that listens on all addresses is found at the host
/// that clients use, or by the name of the machine.
fn status_address(listen: &ListenAddress, advertise: Option<&str>, host: &str) -> Option<String> {
    let ListenAddress::Tcp(addr) = listen else { return None };
    if !addr.ip().is_unspecified() {
        return Some(addr.to_string());
    }
    let advertised = advertise.map(|at| at.rsplit_once(':').map_or(at, |(host, _)| host));
    Some(format!("{}:{}", advertised.unwrap_or(host), addr.port()))
}

/// Waits for a member key of ours in etcd, be it the alias, or for a definite no; then opens
/// `joined`.
async fn see_joined(
    members: LoadBalancerKeys,
    mut report: channel::Receiver<RegistrarReport>,
    joined: Gate,
) {
    let confirmed = |report: &RegistrarReport| {
        members.member_as_wanted().is_some_and(|(key, value)| holds(report, &key, &value))
    };
    let refused = |report: &RegistrarReport| {
        report.failure.as_ref().is_some_and(|failure| !failure.error.is_transient())
    };
    let ended = report.wait_for(|report| confirmed(report) || refused(report)).await;
    let Ok(confirmed) = ended.map(|report| confirmed(&report)) else { return };
    if !confirmed {
        tracing::warn!(
            name = members.name(),
            "not registered as a load balancer: draining backends do not wait for it. Is writing \
             below --bookkeeping not allowed?"
        );
    }
    joined.open();
}

fn holds(report: &RegistrarReport, key: &Key, value: &[u8]) -> bool {
    matches!(report.keys.get(key), Some(KeyStatus::Owned { value: confirmed, .. }) if confirmed == value)
}

/// What the resources of a group are rendered from.
pub(super) fn consumed_by(group: &ReloadGroup) -> impl Iterator<Item = Consumes> {
    group.programs.iter().map(|program: &CompiledResource| Consumes {
        name: program.resource.name.clone(),
        trees: program.resource.reading.trees.iter().map(ToString::to_string).collect(),
    })
}

/// `now`, each with the trees that it had `before` as well.
fn with_trees_of(mut now: Vec<Consumes>, before: &[Consumes]) -> Vec<Consumes> {
    for resource in &mut now {
        let old = before.iter().filter(|old| old.name == resource.name);
        for tree in old.flat_map(|old| &old.trees) {
            if !resource.trees.contains(tree) {
                resource.trees.push(tree.clone());
            }
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use common::handshake::{Bookkeeping, Member};
    use common::store::{Memory, Rights};

    use super::*;

    fn consumes(tree: &str) -> Vec<Consumes> {
        vec![Consumes { name: "web".into(), trees: vec![tree.into()] }]
    }

    fn start(store: &Memory) -> Registration<Memory> {
        let bookkeeping = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        let members = LoadBalancerKeys::new("lb-1".into(), "i1".into(), None, bookkeeping);
        let introduction = Introduction { host: "edge-1".into(), advertise: None, status: None };
        Registration::start((store.clone(), "v3"), members, Ttl::DEFAULT, introduction)
    }

    fn key() -> Key {
        "/confsync/members/lb-1".parse().unwrap()
    }

    fn member(store: &Memory) -> Option<Member> {
        serde_json::from_slice(&store.value(&key())?).ok()
    }

    async fn opened(gate: &Gate) {
        timeout(Duration::from_secs(600), gate.opened()).await.expect("the gate opens");
    }

    #[tokio::test(start_paused = true)]
    async fn the_member_key_is_there_before_the_gate_opens_and_says_at_the_end_that_we_left() {
        let store = Memory::new();
        let mut registration = start(&store);
        opened(&registration.join(consumes("/services")).await).await;
        assert_eq!(member(&store).unwrap().resources, consumes("/services"));
        assert_eq!(registration.owner(), (true, None));
        registration.leave(true).await;
        assert!(member(&store).unwrap().left);

        let registration = start(&store);
        opened(&registration.join(consumes("/services")).await).await;
        registration.leave(false).await;
        assert!(!member(&store).unwrap().left, "its proxy routes on");
    }

    #[tokio::test(start_paused = true)]
    async fn withdrawing_removes_the_member_key() {
        let store = Memory::new();
        let mut registration = start(&store);
        opened(&registration.join(consumes("/services")).await).await;
        registration.withdraw().await;
        assert_eq!(member(&store), None);
        let mut registration = start(&store);
        opened(&registration.join(consumes("/services")).await).await;
        store.cut();
        timeout(Duration::from_secs(600), registration.withdraw()).await.expect("it is bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_waits_for_an_etcd_that_does_not_answer_and_not_for_one_that_refuses() {
        let store = Memory::new();
        store.cut();
        let mut registration = start(&store);
        let gate = registration.join(consumes("/services")).await;
        assert!(!gate.is_open());
        store.heal();
        opened(&gate).await;
        assert_eq!(registration.owner(), (true, None));

        let store = Memory::new();
        store.grant_rights(Rights::Read);
        let mut registration = start(&store);
        opened(&registration.join(consumes("/services")).await).await;
        assert_eq!((registration.owner(), member(&store).is_none()), ((false, None), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_another_has_is_taken_as_soon_as_it_is_free() {
        let store = Memory::new();
        store.set(&key(), r#"{"host":"edge-9","version":"1","boot":"other","resources":[]}"#);
        let mut registration = start(&store);
        opened(&registration.join(consumes("/services")).await).await;
        assert!(registration.owner().1.unwrap().contains("edge-9"));
        assert_eq!(member(&store).unwrap().instance_id, "other", "it is left alone");
        store.remove(&key());
        let ours = async {
            while !registration.owner().0 {
                registration.changed().await;
            }
        };
        timeout(Duration::from_secs(600), ours).await.expect("it is taken");
        assert_eq!(member(&store).unwrap().instance_id, "i1");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_routed_by_is_named_until_nothing_works_by_it() {
        let store = Memory::new();
        let mut registration = start(&store);
        opened(&registration.join(consumes("/old")).await).await;
        let gate = registration.join_anew(&consumes("/old"), consumes("/new")).await;
        opened(&gate).await;
        assert_eq!(member(&store).unwrap().resources[0].trees, ["/new", "/old"]);
        registration.all_quiesced();
        let new = |store: &Memory| member(store).is_some_and(|m| m.resources == consumes("/new"));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(new(&store));
    }

    #[test]
    fn the_status_page_is_found_where_it_can_be_reached() {
        let at = |listen: &str, advertise: Option<&str>| {
            status_address(&ListenAddress::Tcp(listen.parse().unwrap()), advertise, "edge-1")
        };
        assert_eq!(at("10.0.0.1:9181", None).as_deref(), Some("10.0.0.1:9181"));
        assert_eq!(at("0.0.0.0:9181", None).as_deref(), Some("edge-1:9181"));
        assert_eq!(
            at("[::]:9181", Some("[2001:db8::1]:80")).as_deref(),
            Some("[2001:db8::1]:9181")
        );
        assert_eq!(at("0.0.0.0:9181", Some("lb.example")).as_deref(), Some("lb.example:9181"));
    }
}
