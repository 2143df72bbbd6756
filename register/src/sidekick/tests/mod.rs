//! The loop of the sidekick and its departure, on a store in memory and with paused time.

mod departure;

use common::claim::KeyStatus;
use common::handshake::{Ack, Consumes, Member, Rejection};
use common::model::{Key, Revision};
use common::registrar::RequestCounts;
use common::store::{Memory, Rights};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::cli;
use crate::config::prepare;
use crate::handshake::DrainResult;
use crate::status::{DrainStatus, ServiceStatus};

const APACHE: &str = "--service apache --host 10.0.0.1 --port 80 --check none";

struct SidekickRig {
    store: Memory,
    bookkeeping: Bookkeeping,
    signals: Signals,
    manager: ServiceManager,
    status: watch::Receiver<SidekickStatus>,
    task: JoinHandle<anyhow::Result<Exit>>,
    weights: mpsc::Sender<WeightChange>,
}

impl SidekickRig {
    fn start(store: &Memory, more: &str) -> Self {
        Self::run(store, &format!("{APACHE} {more}"), Signals::none())
    }

    fn run(store: &Memory, flags: &str, signals: Signals) -> Self {
        let line = format!("register run {flags}");
        let matches = cli::command().try_get_matches_from(line.split_whitespace()).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let sources = ConfigSources::new(matches, &|_| None, "box-1".into());
        let config = sources.load().unwrap();
        let (publish, status) = watch::channel(SidekickStatus::default());
        let (weights, weight_changes) = mpsc::channel(1);
        let manager = ServiceManager::default();
        let parts = SidekickParts {
            probes: prepare(&config.services).unwrap(),
            config,
            sources,
            store: store.clone(),
            signals: signals.clone(),
            manager: manager.clone(),
            liveness: Liveness::default(),
            backend: None,
            publish,
            weight_changes,
        };
        let bookkeeping = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        let task = tokio::spawn(run(parts));
        Self { store: store.clone(), bookkeeping, signals, manager, status, task, weights }
    }

    async fn until(&mut self, reached: impl Fn(&SidekickStatus) -> bool) {
        let wait = self.status.wait_for(|status| reached(status));
        timeout(Duration::from_secs(3_600), wait).await.expect("it comes to that").unwrap();
    }

    async fn ready(&mut self) {
        self.until(SidekickStatus::is_ready).await;
    }

    fn registered(&self) -> bool {
        self.store.value(&key()).is_some()
    }

    async fn stopped(self) -> (Exit, DrainResult) {
        self.signals.drain.cancel();
        let exit = timeout(Duration::from_secs(3_600), self.task).await.expect("it ends");
        let Some(DrainStatus::Over(result)) = self.status.borrow().drain.clone() else {
            panic!("{:?}", self.status.borrow().drain)
        };
        (exit.unwrap().unwrap(), result)
    }

    fn join(&self, lb: &str) {
        let member = Member {
            host: lb.into(),
            version: "1".into(),
            instance_id: "i1".into(),
            advertise: None,
            status: None,
            resources: vec![Consumes { name: "web".into(), trees: vec!["/services".into()] }],
            left: false,
        };
        self.set(self.bookkeeping.member(lb).unwrap(), &member);
    }

    /// Acknowledges every change up to now, in this way.
    fn acknowledge(&self, lb: &str, more: impl Fn(&mut Ack)) {
        let now = self.store.revision();
        let mut ack = Ack {
            instance_id: "i1".into(),
            applied: now,
            quiesced: now,
            retained: vec![],
            assumed: false,
            rejected: None,
            trouble: None,
            rejected_values: 0,
            driver: None,
        };
        more(&mut ack);
        self.set(self.bookkeeping.ack("web", lb).unwrap(), &ack);
    }

    fn set(&self, key: Key, value: &impl serde::Serialize) {
        self.store.set(&key, serde_json::to_vec(value).unwrap());
    }
}

fn key() -> Key {
    "/services/apache/10.0.0.1".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn healthy_is_registered_and_then_ready() {
    let mut rig = SidekickRig::start(&Memory::new(), "");
    rig.ready().await;
    assert_eq!(rig.store.value(&key()).as_deref(), Some(&b"10.0.0.1:80"[..]));
    assert_eq!(rig.manager.last_status(), "/services/apache/10.0.0.1: registered");
}

#[tokio::test(start_paused = true)]
async fn another_instance_at_the_key_is_waited_for_and_then_replaced() {
    let store = Memory::new();
    store.set(&key(), "10.0.0.9:80");
    let mut rig = SidekickRig::start(&store, "");
    let is_rival = |s: &ServiceStatus| matches!(s.registration, KeyStatus::Rival { .. });
    rig.until(|status| status.services.values().any(is_rival)).await;
    let line = rig.manager.last_status();
    assert!(line.contains("waiting, `10.0.0.9:80` is registered there"), "{line}");
    sleep(Duration::from_secs(120)).await;
    assert_eq!(store.value(&key()).as_deref(), Some(&b"10.0.0.9:80"[..]), "it is left alone");
    store.remove(&key());
    rig.ready().await;
    assert_eq!(store.value(&key()).as_deref(), Some(&b"10.0.0.1:80"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_process_removes_is_registered_again() {
    let store = Memory::new();
    let mut rig = SidekickRig::start(&store, "--ttl 30s");
    rig.ready().await;
    store.remove(&key());
    sleep(Duration::from_secs(15)).await;
    assert_eq!(store.value(&key()).as_deref(), Some(&b"10.0.0.1:80"[..]), "by the next refresh");
    rig.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_hangup_reads_the_file_again_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.toml");
    let service = |host: &str| {
        format!("[[service]]\nservice = \"web\"\nhost = \"{host}\"\nport = 80\ncheck = \"none\"\n")
    };
    std::fs::write(&file, service("10.0.0.1")).unwrap();
    let (hangup, hangups) = watch::channel(0);
    let store = Memory::new();
    let signals = Signals { hangups, ..Signals::none() };
    let mut rig = SidekickRig::run(&store, &format!("--config {}", file.display()), signals);
    rig.ready().await;
    let registered = |store: &Memory| {
        let of = |id: &str| store.value(&format!("/services/web/{id}").parse().unwrap()).is_some();
        ["10.0.0.1", "10.0.0.2"].map(of)
    };
    assert_eq!(registered(&store), [true, false]);

    std::fs::write(&file, "[[service]]\nservice = 1").unwrap();
    hangup.send_modify(|count| *count += 1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(registered(&store), [true, false], "a bad file");

    std::fs::write(&file, service("10.0.0.1") + &service("10.0.0.2")).unwrap();
    hangup.send_modify(|count| *count += 1);
    rig.until(|status| status.services.len() == 2 && status.is_ready()).await;
    assert_eq!(registered(&store), [true, true]);

    std::fs::write(&file, service("10.0.0.2")).unwrap();
    hangup.send_modify(|count| *count += 1);
    rig.until(|status| status.services.len() == 1).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(registered(&store), [false, true], "what is no longer configured is removed");
}

/// In place: no reader sees the key go.
#[tokio::test(start_paused = true)]
async fn another_weight_changes_the_value_in_place() {
    let mut rig = SidekickRig::start(&Memory::new(), "--value json --weight 2");
    rig.ready().await;
    let created = created(&rig).await;
    rig.weights.send(WeightChange { key: key(), weight: 9 }).await.unwrap();
    rig.until(|status| {
        status.services.values().any(|s| match &s.registration {
            KeyStatus::Owned { value, .. } => {
                String::from_utf8_lossy(value).contains("\"weight\":9")
            }
            _ => false,
        })
    })
    .await;
    let value = String::from_utf8(rig.store.value(&key()).unwrap()).unwrap();
    assert!(value.contains(r#""weight":9"#), "{value}");
    assert_eq!(self::created(&rig).await, created);
}

async fn created(rig: &SidekickRig) -> Revision {
    let trees = [common::model::Tree::from(&key())];
    let found = rig.store.read(&trees, Instant::now() + Duration::from_secs(1)).await.unwrap();
    found.entries.values().next().unwrap().created
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_is_away_changes_no_health_and_is_waited_for() {
    let store = Memory::new();
    store.cut();
    let mut rig = SidekickRig::start(&store, "");
    rig.until(|status| RequestCounts::sum(&status.registrar.requests).failures > 3).await;
    let status = rig.manager.last_status();
    assert!(status.contains("healthy, registering; for ") && status.contains("s: "), "{status}");
    store.heal();
    rig.ready().await;
    // Away for longer than a TTL: the key may have ended, and it is not reported as registered.
    store.cut();
    rig.until(|status| !status.is_ready()).await;
    store.advance(Duration::from_secs(31));
    store.heal();
    rig.ready().await;
    assert!(rig.registered());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_delayed_until_load_balancers_serve_it_and_no_longer_than_that() {
    let mut rig = SidekickRig::start(&Memory::new(), "--wait-applied 20s");
    rig.join("lb-1");
    let began = Instant::now();
    rig.until(|status| {
        status.services.values().any(|s| matches!(s.registration, KeyStatus::Owned { .. }))
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    assert!(!rig.status.borrow().ready);
    assert!(rig.manager.last_status().contains("waiting to be served by lb-1"));
    rig.acknowledge("lb-1", |ack| ack.quiesced = Revision(1));
    rig.ready().await;
    assert!(began.elapsed() < Duration::from_secs(8));

    let mut late = SidekickRig::start(&Memory::new(), "--wait-applied 20s");
    late.join("lb-1");
    let began = Instant::now();
    late.ready().await;
    assert!((20..=23).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
