//! The agent on a store in memory: with paused time where no command has to run.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;

use common::handshake::{Acceptance, Ack, DrainTimes};
use common::model::Key;
use common::store::Memory;
use common::watch::{Options, follow};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::apply::LoadLimits;
use crate::config::sample::SampleConfdir;
use crate::install::DestLock;
use crate::proxy::Proxy;

/// Lists the addresses.
const LIST: &str = "{{range gets \"/services/web/*\"}}{{.Value}} {{end}}";
/// Backends are declared, and only the last file can be wrong.
const BACKENDS: &str = "keys = [\"/services\"]\nvalues = \"endpoint\"\n";

struct AgentRig {
    store: Memory,
    sample: SampleConfdir,
    state: watch::Receiver<GroupState>,
    members: LoadBalancerKeys,
    again: Arc<Notify>,
    stop: CancellationToken,
    agent: JoinHandle<BTreeMap<String, KnownBackends>>,
}

impl AgentRig {
    async fn start(store: &Memory, sample: SampleConfdir) -> Self {
        Self::after(Predecessor::default(), store, sample).await
    }

    async fn after(predecessor: Predecessor, store: &Memory, sample: SampleConfdir) -> Self {
        let group = sample.group();
        let proxy = Proxy::of(&group, None, None).await.unwrap();
        let targets = group.targets();
        let mut locks = Vec::new();
        DestLock::take_all(&targets, &mut locks).unwrap();
        let limits = LoadLimits::default();
        let bookkeeping = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        let members = LoadBalancerKeys::new("lb-1".into(), "i1".into(), None, bookkeeping.clone());
        let (publish, state) = watch::channel(GroupState::empty(&group.name));
        let (again, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let following = CancellationToken::new();
        let parts = AgentParts {
            pipeline: Pipeline::new(group.name.clone(), proxy, targets, locks, limits).unwrap(),
            view: follow(store.clone(), group.trees(), Options::default(), following),
            store: store.clone(),
            bookkeeping,
            members: Some(members.clone()),
            publish,
            liveness: Liveness::default(),
            again: Arc::clone(&again),
            predecessor,
            group,
        };
        let agent = tokio::spawn(Agent::new(parts).run(stop.clone()));
        Self { store: store.clone(), sample, state, members, again, stop, agent }
    }

    fn set(&self, key: &str, value: &str) -> Revision {
        self.store.set(&path(key), value)
    }

    async fn until(&mut self, reached: impl Fn(&GroupState) -> bool) -> GroupState {
        let seen = self.state.clone();
        let wait = self.state.wait_for(|state| reached(state));
        let state = timeout(Duration::from_secs(3_600), wait).await;
        let state = state.unwrap_or_else(|_| panic!("it stays at {:?}", seen.borrow()));
        state.unwrap().clone()
    }

    async fn applied(&mut self, revision: Revision) -> GroupState {
        self.until(|state| state.in_sync && state.applied >= revision.0).await
    }

    /// What is acknowledged.
    fn ack(&self) -> Option<Ack> {
        let key = self.members.bookkeeping().ack("app", "lb-1").unwrap();
        let wants = self.members.wants();
        let want = wants.borrow().get(&key)?.value.clone();
        Some(serde_json::from_slice(&want).unwrap())
    }

    /// It ends; what it has written stays.
    async fn ended(self) -> SampleConfdir {
        self.stop.cancel();
        timeout(Duration::from_secs(3_600), self.agent).await.expect("it ends").unwrap();
        self.sample
    }

    async fn stopped(self) -> BTreeMap<String, KnownBackends> {
        self.stop.cancel();
        timeout(Duration::from_secs(3_600), self.agent).await.expect("it ends").unwrap()
    }
}

fn path(key: &str) -> Key {
    key.parse().unwrap()
}

fn web(id: u8) -> String {
    format!("/services/web/{id}")
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_rendered_applied_and_acknowledged() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(store.revision()).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("10.0.0.1:80 "));
    let joined = rig.set(&web(2), "10.0.0.2:80");
    let state = rig.applied(joined).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("10.0.0.1:80 10.0.0.2:80 "));
    assert!(state.backends.values().all(|backend| backend.live) && state.backends.len() == 2);
    assert_eq!(state.loads.last().unwrap().cause, "10.0.0.2:80 joined");
    assert_eq!(rig.ack().unwrap().applied, joined);
    // A value that is put again unchanged is no load; the next change is one.
    rig.set(&web(1), "10.0.0.1:80");
    let moved = rig.set(&web(2), "10.0.0.3:80");
    assert_eq!(rig.applied(moved).await.loads_total, 3);
    let known = rig.stopped().await;
    assert_eq!(known["app"].backends().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_value_is_named_and_the_others_are_applied() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(store.revision()).await;
    let bad = rig.set(&web(2), "x; }");
    let state = rig.applied(bad).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("10.0.0.1:80 "));
    assert_eq!(state.rejected.iter().map(|r| r.key.as_str()).collect::<Vec<_>>(), [web(2)]);
    assert_eq!(rig.ack().unwrap().rejected_values, 1);
    let good = rig.set(&web(2), "10.0.0.2:80");
    assert!(rig.applied(good).await.rejected.is_empty());
    assert_eq!(rig.ack().unwrap().rejected_values, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_backends_is_known_as_such_after_a_restart() {
    let store = Memory::new();
    let key = path(&web(1));
    store.set(&key, "10.0.0.1:80");
    let toml = format!("{BACKENDS}on_empty = \"render\"\n");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(&toml, LIST)).await;
    rig.applied(store.revision()).await;
    store.remove(&key);
    let emptied = |state: &GroupState| state.resources[0].services.first()?.emptied;
    let before = rig.until(|state| emptied(state).is_some()).await;
    let sample = rig.ended().await;
    let mut rig = AgentRig::start(&store, sample).await;
    let after = rig.applied(store.revision()).await;
    let millis = |state: &GroupState| {
        emptied(state).map(|at| at.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
    };
    assert!(millis(&after).is_some());
    assert_eq!(millis(&after), millis(&before));
    let back = rig.set(&web(1), "10.0.0.1:80");
    assert_eq!(emptied(&rig.applied(back).await), None);
}

#[tokio::test(start_paused = true)]
async fn a_template_that_fails_keeps_the_last_file_until_it_renders() {
    let store = Memory::new();
    let title = store.set(&path("/config/title"), "one");
    let toml = "keys = [\"/config\"]\n";
    let sample = SampleConfdir::new(toml, "{{getv \"/config/title\"}}");
    let mut rig = AgentRig::start(&store, sample).await;
    rig.applied(title).await;
    store.remove(&path("/config/title"));
    let removed = store.revision().0;
    let state = rig.until(|state| state.revision == removed && state.trouble.is_some()).await;
    assert_eq!((rig.sample.dest().as_deref(), state.in_sync), (Some("one"), false));
    assert_eq!(state.applied, 0, "the newest revision is not applied");
    let ack = rig.ack().unwrap();
    assert!(ack.applied == title && !ack.rejected.unwrap().too_few_backends);
    let again = rig.set("/config/title", "two");
    rig.applied(again).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("two"));
}

#[tokio::test(start_paused = true)]
async fn changes_are_collected_for_as_long_as_the_debounce() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let sample = SampleConfdir::new(&format!("{BACKENDS}debounce = \"5s\"\n"), LIST);
    let mut rig = AgentRig::start(&store, sample).await;
    rig.applied(store.revision()).await;
    let began = Instant::now();
    rig.set(&web(2), "10.0.0.2:80");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("10.0.0.1:80 "));
    let last = rig.set(&web(3), "10.0.0.3:80");
    let state = rig.applied(last).await;
    let waited = began.elapsed().as_secs();
    assert_eq!((waited, state.loads_total), (5, 2), "from the first change on, in one load");
}

#[tokio::test(start_paused = true)]
async fn the_last_backend_stays_and_a_drain_learns_that_too_few_are_left() {
    let store = Memory::new();
    let first = store.set(&path(&web(1)), "127.0.0.1:9");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(first).await;
    store.remove(&path(&web(1)));
    let removed = store.revision();
    let state = rig.until(|state| state.revision == removed.0 && state.trouble.is_some()).await;
    assert!(state.trouble.unwrap().contains("no backend is registered"));
    assert_eq!(rig.sample.dest().as_deref(), Some("127.0.0.1:9 "));
    let ack = rig.ack().unwrap();
    assert!(ack.applied == first && ack.rejected.unwrap().too_few_backends);
    let second = rig.set(&web(2), "127.0.0.1:10");
    rig.applied(second).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("127.0.0.1:10 "));
    assert!(rig.ack().unwrap().rejected.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_accepted_loss_is_rendered_and_a_later_one_is_withheld_again() {
    let store = Memory::new();
    store.set(&path(&web(1)), "127.0.0.1:9");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(store.revision()).await;
    store.remove(&path(&web(1)));
    rig.until(|state| state.trouble.is_some()).await;
    let key = rig.members.bookkeeping().acceptance("app").unwrap();
    let accept = |id: &str| Acceptance { id: id.into(), keys: [web(1)].into() };
    store.set(&key, serde_json::to_vec(&accept("first")).unwrap());
    let state = rig.until(|state| state.in_sync && state.trouble.is_none()).await;
    assert_eq!((rig.sample.dest().as_deref(), state.backends.len()), (Some(""), 0));
    let back = rig.set(&web(1), "127.0.0.1:9");
    rig.applied(back).await;
    store.remove(&path(&web(1)));
    let state = rig.until(|state| state.trouble.is_some()).await;
    assert!(state.trouble.unwrap().contains("no backend is registered"), "it covered one loss");
    assert_eq!(rig.sample.dest().as_deref(), Some("127.0.0.1:9 "));
}

/// Both still accept connections; the one with a leave marker goes on purpose.
#[tokio::test(start_paused = true)]
async fn of_backends_that_vanish_at_once_those_with_a_leave_marker_are_not_retained() {
    let store = Memory::new();
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners.each_ref().map(|l| l.local_addr().unwrap().to_string());
    store.set(&path(&web(1)), addresses[0].as_str());
    store.set(&path(&web(2)), addresses[1].as_str());
    store.set(&path(&web(3)), "127.0.0.1:9");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(store.revision()).await;
    let leaving = path(&web(1));
    let bookkeeping = rig.members.bookkeeping().clone();
    let (marker, value) = bookkeeping.leave_marker(&leaving, DrainTimes::default()).unwrap();
    store.set(&marker, value);
    store.cut();
    store.remove(&leaving);
    store.remove(&path(&web(2)));
    store.heal();
    let state = rig.until(|state| state.in_sync && state.revision == store.revision().0).await;
    let kept: Vec<&str> = state.backends.keys().map(|key| &**key).collect();
    assert_eq!(kept, [web(2), web(3)]);
    assert_eq!(rig.ack().unwrap().retained, [web(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_successor_verifies_what_its_predecessor_routed_to() {
    let store = Memory::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    store.set(&path(&web(1)), listener.local_addr().unwrap().to_string());
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(store.revision()).await;
    let state = Some(rig.state.borrow().clone());
    let known_backends = rig.stopped().await;
    store.remove(&path(&web(1)));
    store.set(&path(&web(2)), "127.0.0.1:9");
    let predecessor = Predecessor { known_backends, state };
    let sample = SampleConfdir::new(BACKENDS, LIST);
    let mut rig = AgentRig::after(predecessor, &store, sample).await;
    let state = rig.applied(store.revision()).await;
    let kept: Vec<&str> = state.backends.keys().map(|key| &**key).collect();
    assert_eq!(kept, [web(1), web(2)], "all that was routed to vanished at once");
    assert_eq!(rig.ack().unwrap().retained, [web(1)]);
}

#[tokio::test(start_paused = true)]
async fn while_etcd_is_unreachable_a_backend_that_refuses_is_left_out_if_that_is_wanted() {
    let store = Memory::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    store.set(&path(&web(1)), addr.as_str());
    store.set(&path(&web(2)), "127.0.0.1:9");
    let toml = format!("{BACKENDS}probe_when_stale = \"5s\"\n");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(&toml, LIST)).await;
    rig.applied(store.revision()).await;
    let served = |state: &GroupState| state.backends.values().filter(|b| b.live).count();
    store.cut();
    rig.until(|state| state.stale.is_some() && state.in_sync && served(state) == 1).await;
    assert_eq!(rig.sample.dest(), Some(format!("{addr} ")));
    store.heal();
    rig.until(|state| state.stale.is_none() && state.in_sync && served(state) == 2).await;
    assert_eq!(rig.sample.dest(), Some(format!("{addr} 127.0.0.1:9 ")));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_a_restored_store_does_not_have_is_retained_while_it_answers() {
    let store = Memory::new();
    let older = store.save();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    store.set(&path(&web(1)), addr.as_str());
    store.set(&path(&web(2)), "127.0.0.1:9");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(BACKENDS, LIST)).await;
    rig.applied(store.revision()).await;
    store.restore(&older);
    rig.set(&web(3), "127.0.0.1:10");
    let is_retained = |state: &GroupState| state.backends.values().any(|backend| backend.retained);
    let state = rig.until(|state| state.in_sync && is_retained(state)).await;
    let listed: Vec<&str> = state.backends.values().map(|backend| &*backend.addr).collect();
    assert_eq!(listed, [addr.as_str(), "127.0.0.1:10"], "the one that refuses is left out");
    assert_eq!(rig.ack().unwrap().retained, [web(1)]);
    drop(listener);
    let state = rig.until(|state| state.in_sync && !is_retained(state)).await;
    assert_eq!(state.backends.len(), 1);
    rig.until(|state| state.old_generations == 0).await;
    assert!(rig.ack().unwrap().retained.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_etcd_at_the_start_the_files_in_place_are_loaded() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    store.cut();
    let sample = SampleConfdir::new(BACKENDS, LIST);
    sample.write("app.conf", "of an earlier run");
    let mut rig = AgentRig::start(&store, sample).await;
    let state = rig.until(|state| state.live.is_some()).await;
    assert!(state.stale.is_some() && state.applied == 0 && rig.ack().is_none());
    assert_eq!(rig.sample.dest().as_deref(), Some("of an earlier run"));
    store.heal();
    rig.applied(store.revision()).await;
    assert_eq!(rig.sample.dest().as_deref(), Some("10.0.0.1:80 "));
}

#[tokio::test]
async fn a_load_that_fails_is_retried_until_it_succeeds() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let toml = format!("{BACKENDS}reload_cmd = \"test -e FOLDER/up\"\n");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(&toml, LIST)).await;
    let state = rig.until(|state| state.failures_total > 1).await;
    assert!(state.trouble.unwrap().contains("trying again in"));
    assert_eq!((state.live, state.applied), (None, 0), "not proven");
    rig.sample.write("up", "");
    let state = rig.applied(store.revision()).await;
    assert_eq!((state.trouble, state.loads_total), (None, 1));
}

#[tokio::test]
async fn a_rejected_file_is_tried_again_when_the_operator_asks() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let toml = format!("{BACKENDS}check_cmd = \"test -e FOLDER/up -a -e {{{{.src}}}}\"\n");
    let mut rig = AgentRig::start(&store, SampleConfdir::new(&toml, LIST)).await;
    let state = rig.until(|state| state.refusals_total > 0).await;
    assert_eq!((rig.sample.dest(), state.installed), (None, None));
    rig.sample.write("up", "");
    rig.again.notify_one();
    rig.applied(store.revision()).await;
}

/// A named pipe, at which a reader waits until what [`reader_at_gate`] returns is dropped.
fn gate(sample: &SampleConfdir, name: &str) {
    mkfifoat(CWD, sample.path(name), Mode::RUSR | Mode::WUSR).unwrap();
}

/// Waits until a reader is at the gate; dropping what is returned lets it go on.
async fn reader_at_gate(sample: &SampleConfdir, name: &str) -> std::fs::File {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    loop {
        match options.open(sample.path(name)) {
            Ok(file) => return file,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_load_at_hand_is_finished_when_the_end_is_asked_for() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let toml = format!("{BACKENDS}reload_cmd = \"cat FOLDER/gate\"\n");
    let sample = SampleConfdir::new(&toml, LIST);
    gate(&sample, "gate");
    let rig = AgentRig::start(&store, sample).await;
    let reading = reader_at_gate(&rig.sample, "gate").await;
    rig.stop.cancel();
    drop(reading);
    let state = rig.state.clone();
    let known = rig.stopped().await;
    assert!(state.borrow().in_sync, "{:?}", state.borrow().trouble);
    assert_eq!(known["app"].backends().len(), 1);
}

#[tokio::test]
async fn rendering_never_blocks_the_runtime() {
    let store = Memory::new();
    store.set(&path(&web(1)), "10.0.0.1:80");
    let sample = SampleConfdir::new(BACKENDS, "{{include \"slow\"}}");
    gate(&sample, "templates/slow");
    let mut rig = AgentRig::start(&store, sample).await;
    let rendering = reader_at_gate(&rig.sample, "templates/slow").await;
    // The only thread takes on other work, though the render is not over.
    tokio::spawn(async {}).await.unwrap();
    assert_eq!(rig.sample.dest(), None);
    drop(rendering);
    rig.applied(store.revision()).await;
    assert_eq!(rig.sample.dest().as_deref(), Some(""));
}
