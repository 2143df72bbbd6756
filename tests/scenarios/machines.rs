//! The tutorial on machines of its own, each with a real systemd: the shipped units as
//! they are, with real Apaches, started, restarted, killed and rebooted.

use tests::eventually::check;
use tests::{Api, Etcd, Load, Machine, Network, eventually, http, network};

const UNITS: [(&str, &str); 3] = [
    ("/etc/systemd/system/apache@.service", include_str!("../../fleet-units/apache@.service")),
    (
        "/etc/systemd/system/apache-discovery@.service",
        include_str!("../../fleet-units/apache-discovery@.service"),
    ),
    ("/etc/systemd/system/nginx-lb.service", include_str!("../../fleet-units/nginx-lb.service")),
];
/// What the units need, however they were installed.
pub(super) const FILES: [(&str, &str); 3] = [
    ("/etc/apache2/instance.conf", include_str!("../../fleet-units/apache/instance.conf")),
    (
        "/etc/confsync/conf.d/nginx.toml",
        include_str!("../../fleet-units/confdir/conf.d/nginx.toml.example"),
    ),
    (
        "/etc/confsync/templates/nginx.tmpl",
        include_str!("../../fleet-units/confdir/templates/nginx.tmpl"),
    ),
];
pub(super) const LOG_FORMAT: &str = "log_format upstreamlog '[$time_local] $remote_addr passed to: \
    $upstream_addr: $request Upstream Response Time: $upstream_response_time Request time: \
    $request_time';";

/// etcd beside the machines, two web servers, one load balancer: all booted, nothing started.
pub(super) struct Fleet<'a> {
    pub(super) etcd: Etcd,
    pub(super) first: Machine<'a>,
    pub(super) second: Machine<'a>,
    pub(super) balancer: Machine<'a>,
}

impl<'a> Fleet<'a> {
    pub(super) async fn boot(network: &'a Network) -> Self {
        let etcd = Etcd::prepare_at(network.lab(), (network.ip(), 2379).into());
        let (first, second) = (network.machine("web1", 11), network.machine("web2", 12));
        let balancer = network.machine("lb", 10);
        let ((), a, b, c) = tokio::join!(etcd.up(), first.boot(), second.boot(), balancer.boot());
        eprintln!("booted in {a:?}, {b:?}, {c:?}");
        let fleet = Self { etcd, first, second, balancer };
        for machine in [&fleet.first, &fleet.second, &fleet.balancer] {
            fleet.install(machine).await;
        }
        fleet
    }

    /// As the README of the units has it.
    async fn install(&self, machine: &Machine<'_>) {
        for (path, text) in UNITS.into_iter().chain(FILES) {
            machine.write(path, text);
        }
        let (ip, etcd) = (machine.ip(), self.etcd.url());
        machine.write(
            "/etc/environment",
            &format!("COREOS_PRIVATE_IPV4={ip}\nETCD_ENDPOINTS={etcd}\n"),
        );
        machine.write("/etc/nginx/log.conf", LOG_FORMAT);
        machine
            .sh("hostname > /var/www/html/index.html
                rm -f /etc/nginx/sites-enabled/default
                mv /etc/nginx/log.conf /etc/nginx/conf.d/
                systemctl daemon-reload")
            .await;
    }

    /// `systemctl enable --now` everywhere, until all answer.
    pub(super) async fn start(&self) -> Load {
        self.first.systemctl(&["enable", "--now", "apache@7777"]).await;
        self.second.systemctl(&["enable", "--now", "apache@8888"]).await;
        self.balancer.systemctl(&["enable", "--now", "nginx-lb"]).await;
        self.first.says("apache-discovery@7777", "registered").await;
        self.second.says("apache-discovery@8888", "registered").await;
        self.balancer.says("nginx-lb", "2 backends in rotation").await;
        let load = Load::on(self.balancer.at(80)).clients(4).start();
        load.answered("web1").await;
        load.answered("web2").await;
        load
    }

    /// Both answer from now on, whatever was before.
    pub(super) async fn both_answer(&self, load: &Load) {
        self.balancer.says("nginx-lb", "2 backends in rotation").await;
        load.forget_answers();
        load.answered("web1").await;
        load.answered("web2").await;
    }
}

#[test]
fn the_tutorial_loses_nothing_in_a_restart_and_a_reboot() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        let ctl = fleet.etcd.ctl(Api::V3);
        let keys = ["/services/apache/10.77.0.11", "/services/apache/10.77.0.12"];
        assert_eq!(ctl.ls("/services").await, keys);
        assert_eq!(ctl.get(keys[0]).await.as_deref(), Some("10.77.0.11:7777"));

        fleet.first.systemctl(&["restart", "apache@7777"]).await;
        fleet.both_answer(&load).await;
        // A sidekick alone, as a new version of it is rolled out.
        fleet.second.systemctl(&["restart", "apache-discovery@8888"]).await;
        fleet.both_answer(&load).await;

        let away = fleet.first.reboot().await;
        eprintln!("web1 rebooted in {away:?}");
        fleet.both_answer(&load).await;
        let summary = load.stop().await;
        eprintln!("{summary}");
        summary.assert_none_failed();

        fleet.second.systemctl(&["stop", "apache@8888"]).await;
        assert_eq!(ctl.ls("/services").await, keys[..1]);
        assert_eq!(
            left(&fleet.second, "apache-discovery@8888").await,
            ("success".into(), "0".into())
        );
        fleet.balancer.says("nginx-lb", "1 backend in rotation").await;

        // No load balancer drains the last one, so its drain is unconfirmed. The journal says so, and the
        // unit has not failed, whatever systemd remembers of it.
        fleet.first.says("apache-discovery@7777", "registered").await;
        fleet.first.systemctl(&["stop", "apache@7777"]).await;
        let (result, code) = left(&fleet.first, "apache-discovery@7777").await;
        assert_eq!((result.as_str(), code.as_str()), ("success", "0"));
        let log = fleet.first.sh("journalctl --unit=apache-discovery@7777 --output=cat").await;
        assert!(log.contains("drain unconfirmed (lb-nginx: "), "{log}");
    });
}

#[test]
fn a_killed_process_comes_back() {
    network::scenario(|network| async move {
        let fleet = Fleet::boot(&network).await;
        let load = fleet.start().await;
        let (first, balancer) = (&fleet.first, &fleet.balancer);

        // The key outlives the sidekick, so it is not noticed.
        kill(first, "apache-discovery@7777").await;
        first.says("apache-discovery@7777", "registered").await;
        fleet.both_answer(&load).await;
        let summary = load.stop().await;
        eprintln!("a sidekick killed: {summary}");
        summary.assert_none_failed();

        // The sidekick goes down with its web server and comes back with it.
        let before = first.property("apache-discovery@7777", "InvocationID").await.unwrap();
        kill(first, "apache@7777").await;
        eventually("another sidekick is registered", || async {
            let now = first.property("apache-discovery@7777", "InvocationID").await?;
            check(now != before && !now.is_empty(), || format!("still {now}"))
        })
        .await;
        first.says("apache-discovery@7777", "registered").await;
        let load = Load::on(balancer.at(80)).clients(2).start();
        fleet.both_answer(&load).await;

        kill(balancer, "nginx-lb").await;
        fleet.both_answer(&load).await;
        kill_nginx(balancer).await;
        fleet.both_answer(&load).await;
        drop(load);
        balancer.systemctl(&["stop", "nginx-lb"]).await;
        balancer.sh("! pgrep --exact nginx").await;
        balancer.systemctl(&["start", "nginx-lb"]).await;

        balancer.reboot().await;
        balancer.says("nginx-lb", "2 backends in rotation").await;
        assert_eq!(http::get(balancer.at(80), "/").await.unwrap().status, 200);

        // The Status line also says what is wrong.
        first.sh("systemctl kill --signal=STOP apache@7777").await;
        first.says("apache-discovery@7777", "not registered, unhealthy").await;
        balancer.says("nginx-lb", "1 backend in rotation").await;
        first.sh("systemctl kill --signal=CONT apache@7777").await;
        balancer.says("nginx-lb", "2 backends in rotation").await;
        fleet.etcd.stop().await;
        eventually("both say that etcd is away", || async {
            let sidekick = first.property("apache-discovery@7777", "StatusText").await?;
            let balancer = balancer.property("nginx-lb", "StatusText").await?;
            let told = |text: &str| text.contains("etcd") && text.contains("for ");
            check(told(&sidekick), || sidekick.clone())?;
            check(balancer.contains("2 backends in rotation") && balancer.contains(';'), || {
                balancer.clone()
            })
        })
        .await;
    });
}

/// What systemd made of a unit's end, and the exit code.
async fn left(machine: &Machine<'_>, unit: &str) -> (String, String) {
    assert_eq!(machine.property(unit, "ActiveState").await.unwrap(), "inactive");
    let result = machine.property(unit, "Result").await.unwrap();
    (result, machine.property(unit, "ExecMainStatus").await.unwrap())
}

/// SIGKILL to the main process of a unit.
pub(super) async fn kill(machine: &Machine<'_>, unit: &str) {
    let before = machine.property(unit, "MainPID").await.unwrap();
    machine.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", unit]).await;
    runs_again(machine, unit, &before).await;
}

/// SIGKILL to nginx's master alone. Its workers go on, which must not keep the next one out.
async fn kill_nginx(balancer: &Machine<'_>) {
    let before = balancer.property("nginx-lb", "MainPID").await.unwrap();
    balancer.sh("kill -9 $(cat /run/nginx.pid)").await;
    runs_again(balancer, "nginx-lb", &before).await;
}

async fn runs_again(machine: &Machine<'_>, unit: &str, before: &str) {
    eventually(format!("{unit} runs again"), || async {
        let now = machine.property(unit, "MainPID").await?;
        let state = machine.property(unit, "ActiveState").await?;
        let again = now != before && now != "0" && state == "active";
        check(again, || format!("{state}, pid {now}, was {before}"))
    })
    .await;
}
