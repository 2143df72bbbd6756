//! The load balancer's unit when confsync dies by violence: nginx outlives it, and never
//! outlives the unit.

use std::time::Duration;

use tests::eventually::check;
use tests::{Load, Machine, eventually, network};

use super::machines::{Fleet, kill};

const UNIT: &str = "nginx-lb";

#[test]
fn nginx_outlives_confsync_and_not_its_unit() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        let balancer = &fleet.balancer;

        let first = master(balancer).await;
        for _ in 0..5 {
            kill(balancer, UNIT).await;
            fleet.both_answer(&load).await;
        }
        // It hangs, so the watchdog's signal comes, here at once.
        balancer.systemctl(&["kill", "--kill-whom=main", "--signal=ABRT", UNIT]).await;
        fleet.both_answer(&load).await;
        assert_eq!(master(balancer).await, first, "the same nginx all the time");
        // It obeys the newest confsync.
        fleet.second.systemctl(&["stop", "apache@8888"]).await;
        balancer.says(UNIT, "1 backend in rotation").await;
        fleet.second.systemctl(&["start", "apache@8888"]).await;
        fleet.both_answer(&load).await;
        let summary = load.stop().await;
        eprintln!("confsync killed: {summary}");
        summary.assert_none_failed();

        balancer.systemctl(&["stop", UNIT]).await;
        nothing_is_left(balancer).await;
        assert_eq!(balancer.property(UNIT, "Result").await.unwrap(), "success");

        balancer.systemctl(&["start", UNIT]).await;
        let before = master(balancer).await;
        kill(balancer, UNIT).await;
        balancer.systemctl(&["restart", UNIT]).await;
        assert_ne!(master(balancer).await, before, "another nginx");

        // A stop waits for a request in flight, and an operator in a hurry kills confsync.
        let load = Load::on(balancer.at(80)).slow_upload(Duration::from_secs(20)).start();
        eventually("a request is in flight", || async {
            let inside = ["ss", "-Htn", "state", "established", "sport", "=", ":80"];
            let connections = balancer.ask(&inside).await?;
            check(!connections.trim().is_empty(), || connections.clone())
        })
        .await;
        balancer.systemctl(&["stop", "--no-block", UNIT]).await;
        balancer.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]).await;
        balancer.systemctl(&["stop", UNIT]).await;
        nothing_is_left(balancer).await;
        drop(load);
    });
}

#[test]
fn nginx_serves_while_confsync_cannot_start() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        let balancer = &fleet.balancer;

        instead(balancer, "/bin/false").await;
        balancer.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]).await;
        eventually("several starts failed", || async {
            let starts = balancer.property(UNIT, "NRestarts").await?;
            check(starts.parse::<u32>().is_ok_and(|starts| starts > 3), || starts.clone())
        })
        .await;
        load.more(100).await;
        let summary = load.stop().await;
        eprintln!("confsync does not start: {summary}");
        summary.assert_none_failed();
        balancer.systemctl(&["stop", UNIT]).await;
        nothing_is_left(balancer).await;

        // An exit that ends the restarts ends nginx as well: nobody would stop it later.
        balancer.sh("rm -r /run/systemd/system/nginx-lb.service.d; systemctl daemon-reload").await;
        balancer.systemctl(&["start", UNIT]).await;
        instead(balancer, "/bin/sh -c 'exit 64'").await;
        balancer.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]).await;
        eventually("it is not started again", || async {
            let state = balancer.property(UNIT, "ActiveState").await?;
            check(state == "failed", || state.clone())
        })
        .await;
        nothing_is_left(balancer).await;
        let load = Load::on(balancer.at(80)).start();
        eventually("refused connections", || async {
            check(load.so_far().connect > 0, || load.so_far().to_string())
        })
        .await;
    });
}

/// What the unit starts from its next start on.
async fn instead(balancer: &Machine<'_>, program: &str) {
    balancer.write(
        "/run/systemd/system/nginx-lb.service.d/broken.conf",
        &format!("[Service]\nExecStart=\nExecStart={program}\n"),
    );
    balancer.systemctl(&["daemon-reload"]).await;
}

/// The process number of nginx's master.
async fn master(balancer: &Machine<'_>) -> String {
    balancer.sh("pgrep --exact --pidfile /run/nginx.pid nginx").await
}

/// At once, most often; a stop that crosses a start of confsync takes a second.
async fn nothing_is_left(balancer: &Machine<'_>) {
    eventually("no nginx is left", || async {
        let left = balancer.ask(&["pgrep", "--exact", "nginx"]).await?;
        check(left.is_empty(), || left.clone())
    })
    .await;
}
