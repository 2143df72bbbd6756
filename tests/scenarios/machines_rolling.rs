//! A rolling restart as everybody writes it: one web server after the other, with nothing in
//! between. `systemctl restart` returns when Apache listens, a moment before its sidekick has
//! registered it; so the second one leaves while no other is registered.

use tests::{Load, network};

use super::machines::Fleet;

/// Each of both, so many times. `RESTARTS=10` for a measurement.
fn rounds() -> usize {
    std::env::var("RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

#[test]
fn one_restart_after_the_other_loses_nothing() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        let posts = Load::on(fleet.balancer.at(80)).clients(2).post(vec![7; 1_000]).start();
        for round in 1..=rounds() {
            fleet.first.systemctl(&["restart", "apache@7777"]).await;
            fleet.second.systemctl(&["restart", "apache@8888"]).await;
            let (gets, posts) = (load.so_far(), posts.so_far());
            eprintln!("round {round}: GET {gets}; POST {posts}");
        }
        fleet.both_answer(&load).await;
        let log = fleet.second.sh("journalctl --unit=apache-discovery@8888 --output=cat").await;
        assert!(!log.contains("drain unconfirmed"), "{log}");
        load.stop().await.assert_none_failed();
        posts.stop().await.assert_none_failed();
    });
}
