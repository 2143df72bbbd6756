//! The etcd of the tutorial's time: refreshes that it does not know, reads without the store's
//! index, a proxy that keeps the headers of a watch.

use std::time::Duration;

use common::model::{Key, Ttl};
use common::store::{Connection, Guard, Store, connect, default_deadline};
use tests::daemon::Running;
use tests::eventually::check;
use tests::old_etcd::{Age, OldEtcd};
use tests::{Api, Backend, Daemon, Etcd, Exit, Lab, eventually};

use crate::hazards_setup::Setup;
use crate::register_setup::outlast;

struct Old {
    lab: Lab,
    setup: Setup,
    old: OldEtcd,
}

impl Old {
    async fn start(age: Age) -> Self {
        let lab = Lab::new();
        let setup = Setup::prepare(&lab, Etcd::start(&lab).await);
        setup.resource("app", &setup.reload());
        let old = OldEtcd::before(&lab, &setup.etcd, age).await;
        Self { lab, setup, old }
    }

    fn confsync(&self) -> Daemon {
        let confsync = Daemon::confsync(&self.lab).confdir(&self.setup.confdir);
        confsync.flag("--etcd", self.old.url()).flag("--ttl", "2s")
    }

    async fn serves(&self, backend: &Backend) {
        let line = format!("server {};", backend.address());
        eventually("the backend is served", || async {
            let live = self.setup.text("live");
            check(live.contains(&line), || live)
        })
        .await;
    }

    fn followed(&self, confsync: &Running) {
        let log = confsync.log();
        for trouble in ["watch failed", "reading the keys again", "emptied"] {
            assert!(!log.contains(trouble), "{trouble} in\n{log}");
        }
    }
}

/// Refreshes go on for several lifetimes: both keys keep their values, and a drain finds the load
/// balancer.
async fn a_refresh_keeps_the_value(age: Age) {
    let world = Old::start(age).await;
    let backend = Backend::start(&world.lab, "one").await;
    let ctl = world.setup.etcd.ctl(Api::V2);
    // So that the one that is drained is not the last.
    ctl.put("/services/apache/other", "127.0.0.9:9").await;
    let confsync = world.confsync().start();
    let sidekick = Daemon::register(&world.lab).backend("apache", backend.address()).quick();
    let sidekick = sidekick.flag("--etcd", world.old.url()).start();
    sidekick.ready().await;
    world.serves(&backend).await;
    let loads = world.setup.loads();
    let before = world.old.refreshes();
    eventually("refreshes over some lifetimes", || async {
        let now = world.old.refreshes();
        check(now >= before + 20, || format!("{before}, and now {now}"))
    })
    .await;
    let key = format!("/services/apache/{}", backend.ip());
    assert_eq!(ctl.get(&key).await, Some(backend.address().to_string()), "{}", sidekick.log());
    for member in ctl.ls("/confsync/members").await {
        let value = ctl.get(&member).await.unwrap_or_default();
        assert!(value.contains("boot"), "{member}: {value:?}");
    }
    assert_eq!(world.setup.loads(), loads, "a refresh is no change");
    // It is known by its commands.
    assert_eq!(sidekick.stop().await, Exit::Code(3), "{}", sidekick.log());
    world.followed(&confsync);
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_0_4_keeps_the_values_of_refreshed_keys() {
    a_refresh_keeps_the_value(Age::V0_4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_2_2_keeps_the_values_of_refreshed_keys() {
    a_refresh_keeps_the_value(Age::V2_2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_being_upgraded_keeps_the_values_of_refreshed_keys() {
    a_refresh_keeps_the_value(Age::Mixed).await;
}

/// The keys of the service are older than all the history that etcd keeps.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_0_4_is_followed_when_its_keys_are_older_than_its_history() {
    let world = Old::start(Age::V0_4).await;
    world.setup.etcd.ctl(Api::V2).put("/services/apache/1", "127.0.0.1:9").await;
    let connection =
        Connection { endpoints: vec![world.setup.etcd.url()], ..Connection::default() };
    let connection = Connection { api: common::store::Api::V2, ..connection };
    let store = connect(&connection).await.unwrap();
    let lease = store.grant(Ttl::DEFAULT, default_deadline()).await.unwrap();
    for n in 0..1010 {
        let key: Key = format!("/elsewhere/{n}").parse().unwrap();
        store.put(&key, b"x", lease, &Guard::Absent, default_deadline()).await.unwrap();
    }
    let confsync = world.confsync().start();
    world.setup.live(&[1]).await;
    world.setup.etcd.ctl(Api::V2).put("/services/apache/2", "127.0.0.2:9").await;
    world.setup.live(&[1, 2]).await;
    world.followed(&confsync);
}

/// Longer than a request may take, nothing happens.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_watch_behind_a_proxy_is_followed() {
    let world = Old::start(Age::Proxy).await;
    let ctl = world.setup.etcd.ctl(Api::V2);
    ctl.put("/services/apache/1", "127.0.0.1:9").await;
    let confsync = world.confsync().start();
    world.setup.live(&[1]).await;
    outlast(Duration::from_secs(12)).await;
    ctl.put("/services/apache/2", "127.0.0.2:9").await;
    world.setup.live(&[1, 2]).await;
    world.followed(&confsync);
}

/// It is read again and again, with pauses that grow.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_history_is_not_flooded() {
    let world = Old::start(Age::NoHistory).await;
    let ctl = world.setup.etcd.ctl(Api::V2);
    ctl.put("/services/apache/1", "127.0.0.1:9").await;
    let confsync = world.confsync().start();
    world.setup.live(&[1]).await;
    outlast(Duration::from_secs(5)).await;
    ctl.put("/services/apache/2", "127.0.0.2:9").await;
    world.setup.live(&[1, 2]).await;
    let reads = world.old.reads();
    assert!(reads < 40, "{reads} reads");
    assert!(confsync.log().contains("reading the keys again"), "{}", confsync.log());
}

/// What the bytes of such a server look like to gRPC is no help.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_v3_is_referred_to_v2_where_there_is_no_v3() {
    for age in [Age::V0_4, Age::V2_2] {
        let world = Old::start(age).await;
        let list = Daemon::new(&world.lab, "list", tests::bins::register()).arg("list");
        let list = list.flag("--etcd", world.old.url()).flag("--etcd-api", "v3").run().await;
        assert_eq!(list.exit, Exit::Code(1), "{}", list.log);
        assert!(list.log.contains("has only the v2 API; choose it, or leave"), "{}", list.log);
    }
}
