//! The upstreams of one nginx as confsync sets them: confirmed by a worker, counted until
//! those that left are quiet.

use std::sync::Arc;
use std::time::Duration;

use confsync::proxy::membership::folder::TableFolder;
use confsync::proxy::membership::layout::CAPACITY;
use confsync::proxy::membership::upstreams::{
    LiveUpstreams, MembershipError, UpstreamMember, UpstreamMembers,
};
use tests::eventually::check;
use tests::{Backend, Behaviour, Load, eventually};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::balancer_scene::{Conf, Scene};

fn live(scene: &Scene) -> LiveUpstreams {
    LiveUpstreams::new(TableFolder::open(scene.folder.path(), None, CAPACITY, 64).unwrap())
}

/// Until a worker confirms them.
async fn confirmed(what: &str, live: &mut LiveUpstreams) {
    let live = Mutex::new(live);
    let confirm = async || live.lock().await.confirm().await.map_err(|error| error.to_string());
    eventually(what, confirm).await;
}

fn members<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> UpstreamMembers {
    let member = |backend: &Backend| {
        let endpoint = backend.address().to_string().parse().unwrap();
        (
            Arc::from(format!("/services/app/{}", backend.name())),
            UpstreamMember { endpoint, weight: 1 },
        )
    };
    backends.into_iter().map(member).collect()
}

#[tokio::test]
async fn what_is_set_is_confirmed_served_and_quiet_when_it_has_left() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let mut live = live(&scene);
    let [a, b] = [Backend::start(&scene.lab, "a").await, Backend::start(&scene.lab, "b").await];
    a.behave(Behaviour::Hang);
    live.set("app", &members([&a])).await.unwrap();
    live.confirm().await.unwrap();
    let client = {
        use tokio::io::AsyncWriteExt;
        let mut stream = TcpStream::connect(scene.nginx.address()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream
    };
    let traffic = |live: &LiveUpstreams| live.traffic().unwrap()["/services/app/a"].in_flight;
    eventually("a has it", || async { check(traffic(&live) == 1, || "not yet".to_owned()) }).await;
    live.set("app", &members([&b])).await.unwrap();
    live.confirm().await.unwrap();
    assert_eq!(scene.nginx.get("/").await.unwrap().body, "b\n");
    let departed = live.departed();
    assert_eq!(departed.len(), 1);
    assert_eq!(live.in_flight(&departed[0]), Some(1));
    drop(client);
    eventually("a is quiet", || async {
        let now = live.in_flight(&departed[0]);
        check(now == Some(0), || format!("{now:?}"))
    })
    .await;
    // Its slot is given away by the next change, and it stays quiet.
    live.set("app", &members([&a, &b])).await.unwrap();
    assert_eq!(live.in_flight(&departed[0]), Some(0));
}

/// A backend that ends when it is quiet, and is back on its port at once: no kept connection
/// to its predecessor costs a POST.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_restarts_on_its_port_loses_nothing() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let mut live = live(&scene);
    let mut backends = Vec::new();
    for name in ["a", "b", "c"] {
        backends.push(Backend::start(&scene.lab, name).await);
    }
    live.set("app", &members(&backends)).await.unwrap();
    let on = || Load::on(scene.nginx.address()).clients(4).keep_alive();
    let (gets, posts) = (on().start(), on().post("body").start());
    for round in 0..30 {
        let leaver = &backends[round % 3];
        live.set("app", &members(backends.iter().filter(|b| b.name() != leaver.name())))
            .await
            .unwrap();
        let departed = live.departed();
        eventually("it is quiet", || async {
            let now = live.in_flight(&departed[0]);
            check(now == Some(0), || format!("{now:?}"))
        })
        .await;
        leaver.die().await;
        leaver.come_up().await;
        live.set("app", &members(&backends)).await.unwrap();
        posts.more(20).await;
    }
    for summary in [gets.stop().await, posts.stop().await] {
        summary.assert_none_failed();
    }
}

#[tokio::test]
async fn another_table_than_ours_is_no_confirmation() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let mut live = live(&scene);
    let a = Backend::start(&scene.lab, "a").await;
    live.set("app", &members([&a])).await.unwrap();
    live.confirm().await.unwrap();
    for file in ["app.members", "app.counts"] {
        std::fs::remove_file(scene.folder.path().join(file)).unwrap();
    }
    live.set("app", &members([&a])).await.unwrap();
    let error = live.confirm().await.unwrap_err();
    assert!(matches!(error, MembershipError::NewTable { .. }), "{error}");
    scene.nginx.signal(tests::Signal::HUP);
    live.note_loaded();
    confirmed("nginx has the new table", &mut live).await;
    assert_eq!(scene.nginx.get("/").await.unwrap().body, "a\n");
}

/// The workers have the small table mapped: they need a reload for the larger one, and so does
/// whoever takes over what an earlier run has left.
#[tokio::test]
async fn an_upstream_that_outgrows_its_table_gets_a_larger_one() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    for file in ["app.members", "app.counts"] {
        std::fs::remove_file(scene.folder.path().join(file)).unwrap();
    }
    let small = || TableFolder::open(scene.folder.path(), None, 4, 64).unwrap();
    let mut live = LiveUpstreams::new(small());
    let a = Backend::start(&scene.lab, "a").await;
    let with = |count: u16| {
        let mut all = members([&a]);
        for port in 1..count {
            let endpoint = a.address().to_string().parse().unwrap();
            all.insert(
                format!("/services/app/{port}").into(),
                UpstreamMember { endpoint, weight: 1 },
            );
        }
        all
    };
    live.set("app", &with(2)).await.unwrap();
    scene.nginx.signal(tests::Signal::HUP);
    live.note_loaded();
    confirmed("nginx has the small table", &mut live).await;
    live.set("app", &with(5)).await.unwrap();
    let error = live.confirm().await.unwrap_err();
    assert!(matches!(error, MembershipError::NewTable { .. }), "{error}");
    scene.nginx.signal(tests::Signal::HUP);
    live.note_loaded();
    confirmed("nginx has the larger table", &mut live).await;
    // Fewer do not make it smaller, and neither does a new run.
    drop(live);
    let mut live = LiveUpstreams::new(small());
    live.set("app", &with(1)).await.unwrap();
    // A worker of before may still accept its questions for a moment.
    confirmed("nginx still has the larger table", &mut live).await;
    assert_eq!(scene.nginx.get("/").await.unwrap().body, "a\n");
}

#[tokio::test]
async fn what_a_balancer_cannot_use_is_refused_whole() {
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    let mut live = live(&scene);
    let member = UpstreamMember { endpoint: "name.example:80".parse().unwrap(), weight: 1 };
    let members = [(Arc::from("/services/app/a"), member)].into_iter().collect();
    let error = live.set("app", &members).await.unwrap_err();
    assert!(error.to_string().contains("name.example:80 is not an IP address"), "{error}");
    let error = tokio::time::timeout(Duration::from_secs(30), live.confirm()).await.unwrap();
    error.unwrap();
}
