//! The units on machines that are not as they should be, and `systemctl reload`.

use tests::eventually::check;
use tests::{Load, Machine, eventually, http, network};

use super::machines::Fleet;

const UNIT: &str = "nginx-lb";
const SOCKETS: [(&str, &str); 2] = [
    ("/etc/systemd/system/nginx-lb.socket", include_str!("../../fleet-units/nginx-lb.socket")),
    (
        "/etc/systemd/system/nginx-lb.service.d/sockets.conf",
        include_str!("../../fleet-units/nginx-lb.service.d/sockets.conf"),
    ),
];

/// Debian's nginx serves. It goes on serving while there is nothing to replace it by, and gives
/// way to a confdir without mistakes.
#[test]
fn a_running_nginx_is_not_stopped_for_nothing() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let balancer = &fleet.balancer;
        fleet.first.systemctl(&["enable", "--now", "apache@7777"]).await;
        balancer.write(
            "/etc/nginx/conf.d/old.conf",
            "server { listen 80 default_server; return 200 old; }",
        );
        balancer.systemctl(&["start", "nginx"]).await;
        let serves_old = || async {
            assert_eq!(balancer.property("nginx", "ActiveState").await.unwrap(), "active");
            assert_eq!(http::get(balancer.at(80), "/").await.unwrap().body, "old");
        };

        balancer.sh("mv /etc/confsync /etc/elsewhere").await;
        balancer.systemctl(&["start", UNIT]).await;
        assert_eq!(balancer.property(UNIT, "ConditionResult").await.unwrap(), "no");
        serves_old().await;

        let spoilt =
            "mv /etc/elsewhere /etc/confsync; echo spoilt >>/etc/confsync/conf.d/nginx.toml";
        balancer.sh(spoilt).await;
        balancer.systemctl(&["start", "--no-block", UNIT]).await;
        tried_again(balancer, UNIT).await;
        serves_old().await;

        balancer.sh("sed -i /spoilt/d /etc/confsync/conf.d/nginx.toml").await;
        balancer.sh("rm /etc/nginx/conf.d/old.conf").await;
        balancer.says(UNIT, "1 backend in rotation").await;
        assert_eq!(balancer.property("nginx", "ActiveState").await.unwrap(), "inactive");
        assert_eq!(http::get(balancer.at(80), "/").await.unwrap().body, "web1\n");
        for (machine, unit) in [(balancer, UNIT), (&fleet.first, "apache-discovery@7777")] {
            let limits = format!("cat /proc/$(systemctl show -P MainPID {unit})/limits");
            let limits = machine.sh(&limits).await;
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            let words = core.split_whitespace().collect::<Vec<_>>();
            assert_eq!(words, ["Max", "core", "file", "size", "0", "0", "bytes"], "{unit}");
        }

        // And back, as the README of the units has it: nginx serves the last file.
        balancer.systemctl(&["disable", "--now", UNIT]).await;
        balancer.systemctl(&["enable", "--now", "nginx"]).await;
        assert_eq!(balancer.property("nginx", "ActiveState").await.unwrap(), "active");
        assert_eq!(http::get(balancer.at(80), "/").await.unwrap().body, "web1\n");
    });
}

/// Without etcd a boot ends all the same, and the unit says what it waits for; its socket answers.
#[test]
fn a_boot_without_etcd_ends() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let first = &fleet.first;
        first.systemctl(&["enable", "apache@7777"]).await;
        first.sh("echo REGISTER_READY_WITHIN=3s >>/etc/environment").await;
        fleet.etcd.stop().await;
        first.reboot().await;
        let unit = "apache-discovery@7777";
        eventually("the sidekick counts as started", || async {
            let state = first.property(unit, "ActiveState").await?;
            check(state == "active", || state.clone())
        })
        .await;
        first.says(unit, "waiting for etcd").await;
        fleet.etcd.up().await;
        first.says(unit, "registered").await;
        let socket = "/run/apache-discovery-7777/status.sock";
        let asked = format!("curl -fsS --unix-socket {socket} http://localhost/readyz");
        assert!(first.sh(&asked).await.contains("registered"));
        let told = format!("register weight 3 --listen unix:{socket} 2>&1 || true");
        assert!(first.sh(&told).await.contains("--value json"));
    });
}

/// systemd holds the ports, so that connections wait for the next nginx.
#[test]
fn a_restart_of_the_load_balancer_refuses_no_client() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let (balancer, first) = (&fleet.balancer, &fleet.first);
        first.systemctl(&["enable", "--now", "apache@7777"]).await;
        first.says("apache-discovery@7777", "registered").await;
        for (path, text) in SOCKETS {
            balancer.write(path, text);
        }
        balancer.systemctl(&["daemon-reload"]).await;
        balancer.systemctl(&["enable", "--now", "nginx-lb.socket"]).await;
        balancer.systemctl(&["enable", "--now", UNIT]).await;
        balancer.says(UNIT, "1 backend in rotation").await;
        // A blocking one holds a worker up once in many restarts, which no load shows reliably.
        for socket in [3, 4] {
            let flags = format!("grep flags /proc/$(cat /run/nginx.pid)/fdinfo/{socket}");
            let flags = balancer.sh(&flags).await;
            let bits = u32::from_str_radix(flags.trim_start_matches("flags:").trim(), 8).unwrap();
            assert_ne!(bits & 0o4000, 0, "socket {socket} of nginx is blocking: {flags}");
        }
        let gets = Load::on(balancer.at(80)).clients(4).start();
        let posts = Load::on(balancer.at(80)).clients(2).post(vec![7; 1_000]).start();
        for _ in 0..3 {
            gets.more(50).await;
            balancer.systemctl(&["restart", UNIT]).await;
        }
        balancer.systemctl(&["reload", UNIT]).await;
        gets.more(50).await;
        gets.stop().await.assert_none_failed();
        posts.stop().await.assert_none_failed();
    });
}

/// The unit has been started again by itself.
async fn tried_again(machine: &Machine<'_>, unit: &str) {
    eventually(format!("{unit} is tried again"), || async {
        let restarts = machine.property(unit, "NRestarts").await?;
        check(restarts.parse::<u32>().is_ok_and(|times| times > 1), || restarts.clone())
    })
    .await;
}

/// What nginx and Apache read, they read again; what is bad fails the command and changes nothing.
#[test]
fn a_reload_reads_everything_again_and_fails_when_it_is_bad() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        let (balancer, first) = (&fleet.balancer, &fleet.first);
        let header = |value: &str| format!("add_header X-Version {value} always;\n");

        balancer.write("/etc/nginx/conf.d/version.conf", &header("two"));
        balancer.systemctl(&["reload", UNIT]).await;
        eventually("nginx has read its files again", || async {
            let answer = http::get(balancer.at(80), "/").await?;
            check(answer.header("x-version") == Some("two"), || answer.status.to_string())
        })
        .await;
        fleet.both_answer(&load).await;

        for (path, bad) in [
            ("/etc/nginx/conf.d/version.conf", "add_hedaer;\n"),
            ("/etc/confsync/conf.d/bad.toml", "[template]\nsrc = \"none\"\n"),
        ] {
            balancer.write(path, bad);
            let answer = balancer.ask(&["systemctl", "reload", UNIT]).await.unwrap();
            assert!(answer.contains("failed"), "{path}: {answer}");
            balancer.sh(&format!("rm {path}")).await;
        }
        balancer.systemctl(&["reload", UNIT]).await;
        fleet.both_answer(&load).await;

        first.sh("echo 'Header' >/etc/apache2/more.conf; echo 'Include more.conf' >>/etc/apache2/instance.conf").await;
        let answer = first.ask(&["systemctl", "reload", "apache@7777"]).await.unwrap();
        assert!(answer.contains("failed"), "{answer}");
        first.sh("echo 'ErrorDocument 404 gone' >/etc/apache2/more.conf").await;
        first.systemctl(&["reload", "apache@7777"]).await;
        eventually("Apache has read its file again", || async {
            let answer = http::get(first.at(7777), "/nothing").await?;
            check(answer.body == "gone", || answer.body.clone())
        })
        .await;
        fleet.both_answer(&load).await;
        load.stop().await.assert_none_failed();
    });
}

/// A web server whose port is taken is retried without end, and its sidekick waits for it.
#[test]
fn a_web_server_that_cannot_bind_does_not_take_its_sidekick_along() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let first = &fleet.first;
        let taken = format!("python3 -m http.server --bind {} 7777", first.ip());
        first.sh(&format!("systemd-run --unit=taken {taken}")).await;
        eventually("the port is taken", || http::get(first.at(7777), "/")).await;

        let started = first.ask(&["systemctl", "start", "apache@7777"]).await.unwrap();
        assert!(started.contains("failed"), "{started}");
        tried_again(first, "apache@7777").await;
        let log = first.sh("journalctl --unit=apache-discovery@7777 --output=cat").await;
        assert!(!log.contains("starting version"), "the sidekick was started: {log}");

        first.systemctl(&["stop", "taken"]).await;
        first.says("apache-discovery@7777", "registered").await;
    });
}

/// A machine that loses its power answers nothing: nginx asks the next one soon.
#[test]
fn a_machine_without_power_holds_no_request_up_for_long() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        load.stop().await.assert_none_failed();
        let Fleet { first, balancer, .. } = fleet;

        drop(first);
        // Long before the key has ended; nginx by itself waits for a minute.
        let deadline = std::time::Duration::from_secs(15);
        let load = Load::on(balancer.at(80)).clients(4).deadline(deadline).start();
        load.more(20).await;
        load.stop().await.assert_none_failed();
    });
}
