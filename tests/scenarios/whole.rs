//! Both daemons together, under a load: backends die and come back, etcd goes away and
//! comes back, processes are stopped and killed.

use std::time::{Duration, Instant};

use tests::daemon::QUICK_TTL;
use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Cluster, Confdir, Daemon, Etcd, Exit, Lab, Nginx, within};

in_both_apis!(
    a_backend_dies_and_comes_back,
    a_restart_of_etcd_goes_unnoticed,
    etcd_hangs_and_wakes_up,
    etcd_is_wiped_and_everybody_registers_again,
    sigterm_removes_the_key_at_once,
    sigkill_removes_the_key_within_its_ttl,
    refreshes_wake_no_watcher,
    confsync_ends_and_takes_nginx_with_it,
);

async fn a_backend_dies_and_comes_back(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 3).await;
    let [_, instance, _] = &cluster.instances[..] else { unreachable!() };
    let backend = &instance.backend;
    let load = cluster.load().clients(4).start();
    load.answered(backend.name()).await;

    backend.die().await;
    cluster.unregistered(instance).await;
    cluster.dropped(backend.address()).await;

    load.forget_answers();
    backend.come_up().await;
    cluster.registered(instance).await;
    cluster.serves(backend.address()).await;
    load.answered(backend.name()).await;
    // nginx asks the next backend when one refuses a GET.
    load.stop().await.assert_none_failed();
}

async fn a_restart_of_etcd_goes_unnoticed(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 2).await;
    let load = cluster.load().clients(2).start();

    cluster.etcd.kill().await;
    load.more(100).await;
    cluster.etcd.up().await;
    let late = cluster.join(&lab, "late").await;
    late.sidekick.ready().await;
    load.answered("late").await;
    for instance in &cluster.instances {
        cluster.registered(instance).await;
        cluster.serves(instance.backend.address()).await;
    }
    load.stop().await.assert_none_failed();
}

/// Longer than the sidekicks' TTL, so all keys are overdue when etcd wakes up.
async fn etcd_hangs_and_wakes_up(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 2).await;
    let load = cluster.load().clients(2).start();

    cluster.etcd.freeze();
    let frozen = Instant::now();
    within(QUICK_TTL * 5, "two lifetimes without etcd", || async {
        check(frozen.elapsed() > QUICK_TTL * 2, || format!("{:?} so far", frozen.elapsed()))
    })
    .await;
    cluster.etcd.thaw();
    for instance in &cluster.instances {
        cluster.registered(instance).await;
    }
    let late = cluster.join(&lab, "late").await;
    late.sidekick.ready().await;
    load.answered("late").await;
    load.stop().await.assert_none_failed();
}

async fn etcd_is_wiped_and_everybody_registers_again(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 2).await;
    let load = cluster.load().clients(2).start();

    cluster.etcd.wipe().await;
    for instance in &cluster.instances {
        cluster.registered(instance).await;
        cluster.serves(instance.backend.address()).await;
    }
    let late = cluster.join(&lab, "late").await;
    late.sidekick.ready().await;
    load.answered("late").await;
    load.stop().await.assert_none_failed();
}

async fn sigterm_removes_the_key_at_once(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    // With the TTL of 30 s that it has by default, expiry cannot be what removes the key.
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).etcd(&etcd, api);
    let sidekick = sidekick.flag("--interval", "200ms").start();
    sidekick.ready().await;
    let key = format!("/services/apache/{}", backend.ip());
    assert_eq!(etcd.ctl(api).get(&key).await, Some(backend.address().to_string()));

    let exit = sidekick.stop().await;
    assert_eq!(etcd.ctl(api).get(&key).await, None);
    assert_eq!(exit, Exit::Code(0), "{}", sidekick.log());
    assert!(sidekick.notified().iter().any(|line| line == "STOPPING=1"));
}

async fn sigkill_removes_the_key_within_its_ttl(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).etcd(&etcd, api);
    let sidekick = sidekick.quick().start();
    sidekick.ready().await;

    sidekick.kill().await;
    let key = format!("/services/apache/{}", backend.ip());
    // etcd looks for expired keys twice a second.
    within(QUICK_TTL + Duration::from_secs(2), "the key expires", || async {
        let value = etcd.ctl(api).get(&key).await;
        check(value.is_none(), || format!("it is {value:?}"))
    })
    .await;
}

async fn refreshes_wake_no_watcher(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).etcd(&etcd, api);
    let sidekick = sidekick.quick().start();
    sidekick.ready().await;
    let watcher = etcd.watch(api, "/services").await;

    // The key outlives its TTL several times over: only refreshes can do that.
    let key = format!("/services/apache/{}", backend.ip());
    let start = Instant::now();
    within(QUICK_TTL * 10, "four lifetimes", || async {
        assert!(etcd.ctl(api).get(&key).await.is_some(), "the key lapsed");
        check(start.elapsed() > QUICK_TTL * 4, || format!("{:?} so far", start.elapsed()))
    })
    .await;

    let _ = sidekick.stop().await;
    // The removal comes behind all refreshes, so seeing it means having seen everything.
    within(Duration::from_secs(5), "the removal alone", || async {
        let events = watcher.events();
        check(events == [format!("DELETE {key}")], || format!("{events:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_from_both() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let every = Duration::from_millis(400);
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).quick();
    let sidekick = sidekick.etcd(&etcd, Api::V3).watchdog(every).start();
    sidekick.ready().await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).watchdog(every).start();
    confsync.ready().await;

    for daemon in [sidekick, confsync] {
        daemon.notified_times("WATCHDOG=1", 3).await;
        // The main loops go on without etcd and with a failing backend.
        etcd.freeze();
        backend.behave(Behaviour::Hang);
        let so_far = daemon.notified().iter().filter(|line| *line == "WATCHDOG=1").count();
        daemon.notified_times("WATCHDOG=1", so_far + 3).await;
        etcd.thaw();
        assert!(daemon.status().is_some_and(|status| !status.is_empty()), "no STATUS=");
        let _ = daemon.stop().await;
        assert_eq!(daemon.notified().iter().filter(|line| *line == "STOPPING=1").count(), 1);
    }
}

async fn confsync_ends_and_takes_nginx_with_it(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    assert!(cluster.nginx.master().is_some());

    let exit = cluster.confsync.stop().await;
    assert_eq!(exit, Exit::Code(0), "{}", cluster.confsync.log());
    assert_eq!(cluster.nginx.master(), None);
    cluster.nginx.get("/").await.unwrap_err();
}
