//! Two instances, one key; restarts; stops at any moment. No instance removes a key
//! that is not its own, and none leaves its own behind.

use std::time::Duration;

use tests::eventually::check;
use tests::{Api, Behaviour, Exit, eventually};

use crate::register_setup::{Setup, TTL, outlast, saw, says};

in_both_apis!(
    a_rival_is_named_and_waited_for,
    a_key_that_somebody_overwrote_is_left_to_him,
    a_late_leaver_leaves_its_successors_key_alone,
    a_leaver_that_has_not_seen_its_successor_leaves_the_key_alone_too,
    killed_and_started_again_it_takes_over_without_a_gap,
    no_stop_leaves_a_key_behind,
    a_stop_before_the_first_verdict_removes_what_an_earlier_life_left,
    the_key_of_an_earlier_life_goes_when_the_backend_is_down,
    a_stop_without_etcd_is_bounded_and_unconfirmed,
);

const OTHER: &str = "10.9.9.9:80";

async fn a_rival_is_named_and_waited_for(api: Api) {
    let setup = Setup::new(api).await;
    let ctl = setup.etcd.ctl(api);
    ctl.put(&setup.key(), OTHER).await;
    let sidekick = setup.sidekick().start();
    says(&sidekick, &format!("waiting, `{OTHER}` is registered there")).await;
    sidekick.logged(OTHER).await;
    assert!(!sidekick.notified().iter().any(|line| line == "READY=1"));
    ctl.del(&setup.key()).await;
    sidekick.ready().await;
    setup.registered().await;
}

async fn a_key_that_somebody_overwrote_is_left_to_him(api: Api) {
    let setup = Setup::new(api).await;
    let ctl = setup.etcd.ctl(api);
    let sidekick = setup.started(setup.sidekick()).await;
    ctl.put(&setup.key(), OTHER).await;
    says(&sidekick, OTHER).await;
    assert_eq!(sidekick.stop().await, Exit::Code(0));
    assert_eq!(setup.now().await.as_deref(), Some(OTHER));
}

async fn a_late_leaver_leaves_its_successors_key_alone(api: Api) {
    let setup = Setup::new(api).await;
    let old = setup.started(setup.sidekick()).await;
    let watcher = setup.watch().await;
    let new = setup.started(setup.sidekick().named("successor")).await;
    eventually("the old one sees its successor", || async {
        let status = old.status().unwrap_or_default();
        check(status.contains("is registered there"), || status)
    })
    .await;
    assert_eq!(old.stop().await, Exit::Code(0), "{}", old.log());
    assert_eq!(setup.now().await, Some(setup.value()));
    let _ = new.stop().await;
    let key = setup.key();
    saw(&watcher, &[format!("PUT {key}"), format!("DELETE {key}")]).await;
}

/// Long before its next refresh, by which it would learn of the successor.
async fn a_leaver_that_has_not_seen_its_successor_leaves_the_key_alone_too(api: Api) {
    let setup = Setup::new(api).await;
    let old = setup.started(setup.with_ttl("30s")).await;
    let watcher = setup.watch().await;
    let new = setup.started(setup.with_ttl("30s").named("successor")).await;
    assert_eq!(old.stop().await, Exit::Code(0), "{}", old.log());
    assert_eq!(setup.now().await, Some(setup.value()), "{}", old.log());
    let _ = new.stop().await;
    let key = setup.key();
    saw(&watcher, &[format!("PUT {key}"), format!("DELETE {key}")]).await;
}

/// No watcher sees it go: the load balancers notice nothing.
async fn killed_and_started_again_it_takes_over_without_a_gap(api: Api) {
    let setup = Setup::new(api).await;
    let first = setup.started(setup.with_ttl("30s")).await;
    let watcher = setup.watch().await;
    first.kill().await;
    let second = setup.started(setup.sidekick()).await;
    // Longer than the lifetime that the new one asked for.
    outlast(TTL * 2).await;
    let _ = second.stop().await;
    let key = setup.key();
    saw(&watcher, &[format!("PUT {key}"), format!("DELETE {key}")]).await;
}

/// At any moment of its run: while it starts, probes, writes, refreshes. `TEST_STOPS=100`
/// stops it a hundred times instead of eight.
async fn no_stop_leaves_a_key_behind(api: Api) {
    let setup = Setup::new(api).await;
    let stops = std::env::var("TEST_STOPS").map_or(8, |n| n.parse().unwrap());
    for nth in 0..stops {
        let sidekick = setup.with_ttl("30s").start();
        // Any moment, from before it has read its flags; half of them soon after.
        let moment = if nth % 2 == 0 { fastrand::u64(..80) } else { fastrand::u64(..800) };
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let exit = sidekick.stop().await;
        // Before it listens to signals, it dies of them, with nothing in etcd.
        assert!([Exit::Code(0), Exit::Signal(15)].contains(&exit), "{exit}\n{}", sidekick.log());
        assert_eq!(setup.now().await, None, "stop {nth} after {moment} ms\n{}", sidekick.log());
    }
}

async fn a_stop_before_the_first_verdict_removes_what_an_earlier_life_left(api: Api) {
    let setup = Setup::new(api).await;
    let first = setup.started(setup.with_ttl("30s")).await;
    first.kill().await;
    setup.backend.behave(Behaviour::Status(500));
    let second = setup.with_ttl("30s").flag("--grace", "1h").start();
    says(&second, "waiting for the backend (").await;
    assert_eq!(setup.now().await, Some(setup.value()), "a restart takes nothing away");
    assert_eq!(second.stop().await, Exit::Code(0), "{}", second.log());
    assert_eq!(setup.now().await, None);
}

/// Long before its TTL, and only ours.
async fn the_key_of_an_earlier_life_goes_when_the_backend_is_down(api: Api) {
    let setup = Setup::new(api).await;
    let first = setup.started(setup.with_ttl("10m")).await;
    first.kill().await;
    setup.backend.die().await;
    let second = setup.with_ttl("10m").flag("--grace", "0s").start();
    setup.gone().await;
    let _ = second.stop().await;

    setup.etcd.ctl(api).put(&setup.key(), OTHER).await;
    let third = setup.with_ttl("10m").flag("--grace", "0s").start();
    says(&third, "unhealthy").await;
    let _ = third.stop().await;
    assert_eq!(setup.now().await.as_deref(), Some(OTHER));
}

async fn a_stop_without_etcd_is_bounded_and_unconfirmed(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick().flag("--drain-applied", "1s")).await;
    setup.etcd.freeze();
    assert_eq!(sidekick.stop().await, Exit::Code(2), "{}", sidekick.log());
    setup.etcd.thaw();
    setup.gone().await;
}

/// Two instances of one name and value: the second takes the key for that of an earlier
/// instance, and says so when the first turns out to live.
#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_lives_is_named() {
    let setup = Setup::new(Api::V3).await;
    let _first = setup.started(setup.sidekick()).await;
    let second = setup.started(setup.sidekick().named("twin")).await;
    second.logged("still refreshes its lease").await;
}
