//! One contract, three stores: memory, a real etcd by v3, and by v2.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access;
mod contract;
mod etcd_server;
mod failover;
mod folders;
mod following;

use std::time::Duration;

use common::model::Tree;
use common::store::{
    Api, Connection, Etcd, Memory, Store, Timeouts, connect, default_deadline as soon,
};
use contract::Bench;
use etcd_server::EtcdServer;

struct InMemory(Memory);

impl Bench for InMemory {
    type Store = Memory;
    fn store(&self) -> &Memory {
        &self.0
    }
    fn has_leases(&self) -> bool {
        true
    }
    async fn forget(&mut self) {
        self.0.compact();
    }
    async fn wipe(&mut self) {
        self.0.wipe();
    }
    async fn restart(&mut self) {
        self.0.cut();
        self.0.heal();
    }
    async fn pass(&mut self, time: Duration) {
        self.0.advance(time);
    }
    fn hang(&mut self, hung: bool) {
        if hung { self.0.hang() } else { self.0.heal() }
    }
}

struct Real {
    server: EtcdServer,
    store: Etcd,
}

/// Short enough for the tests of silence, long enough for a busy disk.
fn to(url: String, api: Api) -> Connection {
    let timeouts = Timeouts { request: Duration::from_secs(4), connect: Duration::from_secs(2) };
    Connection { endpoints: vec![url], api, timeouts, ..Connection::default() }
}

impl Real {
    async fn new(api: Api) -> Self {
        let server = EtcdServer::start().await;
        let store = connect(&to(server.url(), api)).await.unwrap();
        Self { server, store }
    }
}

impl Bench for Real {
    type Store = Etcd;
    fn store(&self) -> &Etcd {
        &self.store
    }
    fn has_leases(&self) -> bool {
        matches!(self.store, Etcd::V3(_))
    }
    async fn forget(&mut self) {
        let tree: Tree = "/".parse().unwrap();
        let now = self.store.read(&[tree], soon()).await.unwrap().revision;
        if self.has_leases() {
            self.server.ctl("3", &["compact", &now.to_string()]);
            return;
        }
        // v2 keeps the last 1000 events.
        let lease = common::store::Lease { id: 0, ttl: Duration::from_secs(60) };
        for n in 0..1001 {
            let key = format!("/elsewhere/{n}").parse().unwrap();
            self.store.put(&key, b"", lease, &common::store::Guard::Absent, soon()).await.unwrap();
        }
    }
    async fn wipe(&mut self) {
        self.server.wipe().await;
    }
    async fn restart(&mut self) {
        self.server.kill();
        self.server.revive().await;
    }
    async fn pass(&mut self, _: Duration) {
        // Real time passes by itself; the watch waits for it.
    }
    fn hang(&mut self, hung: bool) {
        if hung { self.server.hang() } else { self.server.resume() }
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                crate::contract::$name(&mut crate::InMemory(common::store::Memory::new())).await;
            })*
        }
        mod v3 {
            $(#[tokio::test]
            async fn $name() {
                crate::contract::$name(&mut crate::Real::new(common::store::Api::V3).await).await;
            })*
        }
        mod v2 {
            $(#[tokio::test]
            async fn $name() {
                crate::contract::$name(&mut crate::Real::new(common::store::Api::V2).await).await;
            })*
        }
    };
}

contract! {
    guards_decide_and_outcomes_say_what_was_found
    a_late_leaver_does_not_delete_a_successors_key
    a_key_goes_with_its_marker_or_stays
    a_refresh_keeps_keys_and_wakes_no_watcher
    list_and_watch_lose_nothing
    trees_are_followed_together
    a_forgotten_history_asks_for_a_new_read
    a_wiped_store_is_noticed
    a_tree_ends_at_a_slash
    the_end_of_a_lease_is_seen
    ten_thousand_keys_are_read_whole
    several_trees_are_read_at_one_revision
    large_values_arrive
    odd_keys_and_values_survive
    a_hung_server_ends_no_call_by_silence
    a_restart_loses_nothing
    a_watch_may_be_left_and_taken_up_again
}
