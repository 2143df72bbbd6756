//! What counts as healthy, and what does not: hanging, dripping, flapping, redirecting,
//! dying backends. The dead are not revived.

use std::time::Duration;

use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Daemon, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::register_setup::{Setup, TTL, assert_ended, outlast, saw, says};

in_both_apis!(
    a_silent_and_a_dripping_backend_are_failures_in_time,
    a_hung_probe_does_not_lose_the_lease,
    the_dead_are_not_revived,
    all_may_fail_and_all_come_back,
);

async fn a_silent_and_a_dripping_backend_are_failures_in_time(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick()).await;
    for behaviour in [Behaviour::Hang, Behaviour::Drip] {
        setup.backend.behave(behaviour);
        setup.gone().await;
        // Not by expiry: it was refreshed until the probes had failed.
        says(&sidekick, "not registered, unhealthy (").await;
        setup.backend.behave(Behaviour::Healthy);
        setup.registered().await;
    }
}

/// Each probe hangs until its deadline, for several lifetimes of the key.
async fn a_hung_probe_does_not_lose_the_lease(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = Daemon::register(&setup.lab).backend("apache", setup.backend.address());
    let sidekick = sidekick.etcd(&setup.etcd, api).flag("--ttl", "2s").flag("--interval", "600ms");
    let sidekick = sidekick.flag("--timeout", "590ms").flag("--fall", "1000").flag("--rise", "1");
    let sidekick = setup.started(sidekick).await;
    let created = setup.created().await;
    setup.backend.behave(Behaviour::Hang);
    outlast(TTL * 3).await;
    assert_eq!(setup.created().await, created, "the key was away");
    assert!(sidekick.log().lines().all(|line| !line.contains("lost")), "{}", sidekick.log());
}

async fn the_dead_are_not_revived(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick()).await;
    let watcher = setup.watch().await;
    setup.backend.die().await;
    setup.gone().await;
    // Refreshes and probes go on meanwhile; and etcd comes back empty-handed.
    outlast(TTL * 2).await;
    let key = setup.key();
    saw(&watcher, &[format!("DELETE {key}")]).await;
    setup.etcd.restart().await;
    outlast(TTL * 2).await;
    assert_eq!(setup.now().await, None, "{}", sidekick.log());
    let _ = sidekick.stop().await;
    assert_eq!(setup.now().await, None);
}

/// A sidekick knows one backend; how many may be missing is for load balancers to judge.
async fn all_may_fail_and_all_come_back(api: Api) {
    let setup = Setup::new(api).await;
    let two = Backend::start(&setup.lab, "two").await;
    let file = setup.lab.path().join("services.toml");
    let table = |b: &Backend| {
        format!("[[service]]\nservice = \"apache\"\nport = {}\nhost = \"{}\"\n", b.port(), b.ip())
    };
    let defaults = "[defaults]\nid = \"{port}\"\nttl = \"2s\"\ninterval = \"500ms\"\n\
                    fast_interval = \"100ms\"\nrise = 1\nfall = 2\n";
    std::fs::write(&file, format!("{defaults}{}{}", table(&setup.backend), table(&two))).unwrap();
    let sidekick = Daemon::register(&setup.lab).etcd(&setup.etcd, api);
    let sidekick = sidekick.flag("--config", file.display().to_string()).start();
    sidekick.ready().await;
    let counted = |wanted: usize| {
        let ctl = setup.etcd.ctl(api);
        eventually(format!("{wanted} keys"), move || {
            let ctl = ctl.clone();
            async move {
                let keys = ctl.ls("/services/apache").await;
                check(keys.len() == wanted, || format!("{keys:?}"))
            }
        })
    };
    counted(2).await;
    setup.backend.die().await;
    two.die().await;
    counted(0).await;
    says(&sidekick, "0 of 2 services registered").await;
    setup.backend.come_up().await;
    two.come_up().await;
    counted(2).await;
    says(&sidekick, "2 of 2 services registered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flapping_within_its_bounds_changes_no_key() {
    let setup = Setup::new(Api::V3).await;
    let sidekick = Daemon::register(&setup.lab).backend("apache", setup.backend.address());
    let sidekick = sidekick.etcd(&setup.etcd, Api::V3).flag("--interval", "200ms");
    let sidekick = sidekick.flag("--fast-interval", "100ms").flag("--rise", "3");
    // A fall that a slow machine does not reach between two lines of this test.
    let sidekick = setup.started(sidekick.flag("--fall", "50")).await;
    assert!(setup.backend.requests() >= 3, "rise holds at the start too");
    let watcher = setup.watch().await;
    for _ in 0..5 {
        for behaviour in [Behaviour::Status(500), Behaviour::Healthy] {
            setup.backend.behave(behaviour);
            let before = setup.backend.requests();
            eventually("it is probed", || async {
                // One may have been on its way.
                check(setup.backend.requests() >= before + 2, String::new)
            })
            .await;
        }
    }
    let _ = sidekick.stop().await;
    saw(&watcher, &[format!("DELETE {}", setup.key())]).await;
}

/// Answers every request with a redirect to `to`.
async fn redirector(listener: TcpListener, to: String) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let setup = Setup::new(Api::V3).await;
    let at = setup.lab.free();
    let listener = TcpListener::bind(at).await.unwrap();
    let task = tokio::spawn(redirector(listener, format!("http://{}/", setup.backend.address())));
    let check = || {
        let check = Daemon::new(&setup.lab, "check", tests::bins::register()).arg("check");
        check.backend("apache", at)
    };
    assert_ended(&check().run().await, 0, &["pass"]);
    assert_ended(&check().flag("--expect", "200-299").run().await, 1, &["FAIL", "302"]);
    assert_eq!(setup.backend.requests(), 0, "the redirect was followed");
    task.abort();
}

/// `http_proxy` in the environment of the unit sends no probe to a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_environment_is_not_asked() {
    let setup = Setup::new(Api::V3).await;
    let proxy = format!("http://{}", setup.backend.address());
    let dead = setup.lab.free();
    let check = Daemon::new(&setup.lab, "check", tests::bins::register()).arg("check");
    let check = check.backend("apache", dead).env("http_proxy", &proxy).env("HTTP_PROXY", &proxy);
    assert_ended(&check.run().await, 1, &["FAIL", "refused"]);
    assert_eq!(setup.backend.requests(), 0, "the proxy was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_the_state_in_words() {
    let setup = Setup::new(Api::V3).await;
    setup.backend.behave(Behaviour::Status(503));
    let sidekick = setup.sidekick().flag("--grace", "1s").watchdog(Duration::from_millis(500));
    let sidekick = sidekick.start();
    says(&sidekick, "waiting for the backend (").await;
    says(&sidekick, "not registered, unhealthy (").await;
    assert!(!sidekick.notified().iter().any(|line| line == "READY=1"));
    setup.backend.behave(Behaviour::Healthy);
    sidekick.ready().await;
    says(&sidekick, ": registered").await;
    sidekick.notified_times("WATCHDOG=1", 3).await;
    let _ = sidekick.stop().await;
    let notified = sidekick.notified();
    for (line, times) in [("READY=1", 1), ("STOPPING=1", 1)] {
        assert_eq!(notified.iter().filter(|sent| *sent == line).count(), times, "{notified:?}");
    }
}
