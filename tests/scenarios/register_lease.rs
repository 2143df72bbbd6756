//! `register` and etcd's troubles: whatever happens to the lease, the key or etcd, the
//! healthy backend is registered again without help, and no health is changed by it.

use std::time::Duration;

use tests::{Api, eventually, eventually::check};
use tests::{Backend, Daemon, Etcd, Lab, Signal};

use crate::register_setup::{Setup, TTL, outlast, saw, says};

in_both_apis!(
    paused_longer_than_its_ttl_it_registers_again,
    a_hung_etcd_stops_no_probing_and_changes_no_health,
    etcd_away_at_the_start_is_waited_for,
    etcd_away_for_less_than_the_ttl_costs_nothing,
    etcd_away_for_longer_than_the_ttl_is_come_back_from,
    wiped_it_is_filled_again,
    restored_to_before_it_was_registered,
    restored_to_an_earlier_life,
    a_deleted_key_comes_back_while_the_lease_lives,
);

async fn paused_longer_than_its_ttl_it_registers_again(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick()).await;
    sidekick.signal(Signal::STOP);
    setup.gone().await;
    sidekick.signal(Signal::CONT);
    setup.registered().await;
    says(&sidekick, "registered").await;
}

async fn a_hung_etcd_stops_no_probing_and_changes_no_health(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick()).await;
    setup.etcd.freeze();
    says(&sidekick, "not reachable").await;
    // Longer than the TTL, and probed all the while.
    let probed = setup.backend.requests();
    outlast(TTL * 2).await;
    eventually("more probes", || async {
        let now = setup.backend.requests();
        check(now >= probed + 3, || format!("{probed} and now {now}"))
    })
    .await;
    setup.etcd.thaw();
    setup.registered().await;
    eventually("no trouble any more", || async {
        let status = sidekick.status().unwrap_or_default();
        check(status.ends_with(": registered"), || status)
    })
    .await;
    assert!(!sidekick.log().contains("is unhealthy"), "{}", sidekick.log());
}

async fn etcd_away_at_the_start_is_waited_for(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab);
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).etcd(&etcd, api);
    let sidekick = sidekick.quick().start();
    says(&sidekick, &format!("waiting for etcd at {}", etcd.url())).await;
    etcd.up().await;
    sidekick.ready().await;
    let setup = Setup { api, backend, etcd, lab };
    setup.registered().await;
}

async fn etcd_away_for_less_than_the_ttl_costs_nothing(api: Api) {
    let setup = Setup::new(api).await;
    let ttl = Duration::from_secs(8);
    let _sidekick = setup.started(setup.with_ttl("8s")).await;
    let created = setup.created().await;
    setup.etcd.kill().await;
    setup.etcd.up().await;
    // v2 counts on while it is away: only a refresh afterwards keeps the key this long.
    outlast(ttl + TTL).await;
    assert_eq!(setup.created().await, created, "the key was away");
}

async fn etcd_away_for_longer_than_the_ttl_is_come_back_from(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick()).await;
    setup.etcd.stop().await;
    says(&sidekick, "not reachable").await;
    outlast(TTL * 2).await;
    setup.etcd.up().await;
    setup.registered().await;
    assert!(!sidekick.log().contains("is unhealthy"), "{}", sidekick.log());
}

async fn wiped_it_is_filled_again(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.with_ttl("6s")).await;
    setup.etcd.wipe().await;
    setup.registered().await;
    let _ = sidekick.stop().await;
    assert_eq!(setup.now().await, None);
}

/// The revision falls, and what we hold was never there.
async fn restored_to_before_it_was_registered(api: Api) {
    let setup = Setup::new(api).await;
    let saved = setup.etcd.save().await;
    let sidekick = setup.started(setup.with_ttl("6s")).await;
    setup.etcd.restore(&saved).await;
    setup.registered().await;
    outlast(Duration::from_secs(8)).await;
    assert_eq!(setup.now().await, Some(setup.value()), "{}", sidekick.log());
}

/// The revision falls, and our key is there, bound to a lease of our predecessor's.
async fn restored_to_an_earlier_life(api: Api) {
    let setup = Setup::new(api).await;
    let first = setup.started(setup.with_ttl("6s")).await;
    let saved = setup.etcd.save().await;
    setup.registered().await;
    let _ = first.stop().await;
    let second = setup.started(setup.with_ttl("6s")).await;
    setup.etcd.restore(&saved).await;
    // Well after the old lease has run out.
    outlast(Duration::from_secs(12)).await;
    setup.registered().await;
    let created = setup.created().await;
    outlast(Duration::from_secs(8)).await;
    assert_eq!(setup.created().await, created, "it lapsed:\n{}", second.log());
}

async fn a_deleted_key_comes_back_while_the_lease_lives(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.started(setup.sidekick()).await;
    let watcher = setup.watch().await;
    setup.etcd.ctl(api).del(&setup.key()).await;
    let key = setup.key();
    saw(&watcher, &[format!("DELETE {key}"), format!("PUT {key}")]).await;
    sidekick.logged("registering again").await;
    setup.registered().await;
}

/// etcd has no space: it grants no lease and takes no write, and a sidekick that was killed and
/// comes back goes on with what it left.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_keeps_the_key_of_a_sidekick_that_comes_back() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab).arg("--quota-backend-bytes").arg("2000000");
    etcd.up().await;
    let backend = Backend::start(&lab, "one").await;
    let setup = Setup { api: Api::V3, backend, etcd, lab };
    let first = setup.started(setup.with_ttl("6s")).await;
    let created = setup.created().await;
    let ctl = setup.etcd.ctl(Api::V3);
    let large = "x".repeat(100_000);
    let mut full = false;
    for n in 0..100 {
        full = !ctl.run(&["put", &format!("/fill/{n}"), &large]).await.exit.success();
        if full {
            break;
        }
    }
    assert!(full, "etcd still has space");
    first.kill().await;
    let second = setup.with_ttl("6s").start();
    second.ready().await;
    outlast(Duration::from_secs(8)).await;
    assert_eq!(setup.created().await, created, "the key was away:\n{}", second.log());
    // Deleting needs no space.
    let _ = second.stop().await;
    assert_eq!(setup.now().await, None, "{}", second.log());
}
