//! Etcd, nginx, backends and load, without the daemons.

use std::fs;
use std::time::Duration;

use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Etcd, Lab, Load, Nginx, Signal, eventually, http};

#[tokio::test(flavor = "multi_thread")]
async fn etcd_forgets_nothing_in_a_restart_and_everything_in_a_wipe() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    for api in [Api::V2, Api::V3] {
        let ctl = etcd.ctl(api);
        ctl.put("/services/apache/a", "10.0.0.1:80").await;
        let saved = etcd.save().await;
        ctl.put("/services/apache/b", "10.0.0.2:80").await;
        etcd.kill().await;
        etcd.up().await;
        assert_eq!(ctl.get("/services/apache/b").await.as_deref(), Some("10.0.0.2:80"));
        etcd.restore(&saved).await;
        assert_eq!(ctl.get("/services/apache/b").await, None);
        assert_eq!(ctl.get("/services/apache/a").await.as_deref(), Some("10.0.0.1:80"));
        etcd.wipe().await;
        assert_eq!(ctl.ls("/services").await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_every_event_after_its_start() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    for api in [Api::V2, Api::V3] {
        let ctl = etcd.ctl(api);
        ctl.put("/services/apache/before", "x").await;
        let watcher = etcd.watch(api, "/services").await;
        ctl.put("/services/apache/a", "10.0.0.1:80").await;
        ctl.del("/services/apache/a").await;
        eventually("two events", || async {
            let events = watcher.events();
            let wanted = ["PUT /services/apache/a", "DELETE /services/apache/a"];
            check(events == wanted, || format!("{events:?}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_passes_requests_on_and_changes_workers_on_hup() {
    let lab = Lab::new();
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let nginx = Nginx::prepare(&lab);
    let site = |to: &Backend| {
        let (listen, to) = (nginx.address(), to.address());
        format!("server {{ listen {listen}; location / {{ proxy_pass http://{to}; }} }}\n")
    };
    fs::write(nginx.site(), site(&one)).unwrap();
    let process = nginx.start().await;
    let load = Load::on(nginx.address()).clients(4).start();
    load.answered("one").await;
    let before = nginx.workers();
    assert_eq!(before.len(), 2, "{before:?}");

    fs::write(nginx.site(), site(&two)).unwrap();
    let _ = nginx.test().await.ok();
    nginx.signal(Signal::HUP);
    load.answered("two").await;
    let summary = load.stop().await;
    summary.assert_none_failed();
    // For 100 ms both generations serve; then the old one goes.
    eventually("the old workers are gone", || async {
        let now = nginx.workers();
        let gone = now.iter().all(|new| before.iter().all(|old| old.pid != new.pid));
        check(gone && now.len() == 2, || format!("{before:?} became {now:?}"))
    })
    .await;
    process.signal(Signal::QUIT);
    assert!(process.ended(Duration::from_secs(10)).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_can_be_sick_die_and_come_back() {
    let lab = Lab::new();
    let backend = Backend::start(&lab, "one").await;
    let at = backend.address();
    assert_eq!(http::get(at, "/").await.unwrap().body, "one\n");
    assert_eq!(http::post(at, "/", vec![7; 100_000]).await.unwrap().body, "one got 100000\n");
    backend.behave(Behaviour::Status(500));
    assert_eq!(http::get(at, "/").await.unwrap().status, 500);
    backend.behave(Behaviour::Healthy);
    assert_eq!(backend.requests(), 3);

    backend.die().await;
    http::get(at, "/").await.unwrap_err();
    backend.come_up().await;
    assert_eq!(http::get(at, "/").await.unwrap().status, 200);
    backend.finish().await;
    http::get(at, "/").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_tells_failures_apart() {
    let lab = Lab::new();
    let backend = Backend::start(&lab, "one").await;
    let load = Load::on(backend.address()).clients(2).keep_alive().post("body").start();
    load.more(20).await;
    backend.behave(Behaviour::Status(503));
    eventually("a 503", || async {
        check(load.so_far().statuses.contains_key(&503), || load.so_far().to_string())
    })
    .await;
    backend.die().await;
    eventually("a refused connection", || async {
        check(load.so_far().connect > 0, || load.so_far().to_string())
    })
    .await;
    let summary = load.stop().await;
    assert_eq!(summary.requests(), summary.ok + summary.failed() + summary.stale_reuse);
    assert_eq!(summary.timed_out, 0, "{summary}");
}
