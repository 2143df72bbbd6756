//! The tutorial with a real fleet, where one is installed: `FLEETD` and `FLEETCTL` name the
//! programs (fleet 1.0). fleet places the units of `fleet-units/` on four machines, and moves
//! them when one of them loses its power.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use tests::etcd::Ctl;
use tests::eventually::check;
use tests::skip::skip;
use tests::{Api, Etcd, Load, Machine, eventually, network, within};

use crate::machines::{FILES, LOG_FORMAT};

const FLEETCTL: &str = "/opt/bin/fleetctl";
const UNITS: [(&str, &str); 3] = [
    ("/root/templates/apache@.service", include_str!("../../fleet-units/apache@.service")),
    (
        "/root/templates/apache-discovery@.service",
        include_str!("../../fleet-units/apache-discovery@.service"),
    ),
    ("/root/static/nginx-lb.service", include_str!("../../fleet-units/nginx-lb.service")),
];

const FLEET: [(&str, &str); 2] = [
    (
        "/etc/systemd/system/fleet.socket",
        "[Socket]\nListenStream=/run/fleet.sock\nSocketMode=0660\n",
    ),
    (
        "/etc/systemd/system/fleet.service",
        "[Unit]\nRequires=fleet.socket\nAfter=fleet.socket\n\n[Service]\n\
         ExecStart=/opt/bin/fleetd -config /etc/fleet/fleet.conf\nRestart=always\n",
    ),
];
/// A machine that is gone is missed after ten seconds, and fleet takes its time.
const MOVE: Duration = Duration::from_secs(90);

#[test]
fn a_real_fleet_walks_the_tutorial() {
    let programs = ["FLEETD", "FLEETCTL"].map(std::env::var_os);
    let [Some(fleetd), Some(fleetctl)] = programs else {
        return skip("FLEETD and FLEETCTL name no fleet to try");
    };
    network::scenario(|network| async move {
        let etcd = Etcd::prepare_at(network.lab(), (network.ip(), 4001).into());
        etcd.up().await;
        let mut machines = Vec::new();
        for host in 11..15 {
            let machine = network.machine(&name(host), host);
            machine.boot().await;
            for (program, file) in [("fleetd", &fleetd), ("fleetctl", &fleetctl)] {
                fs::create_dir_all(machine.path("/opt/bin")).unwrap();
                fs::copy(file, machine.path(&format!("/opt/bin/{program}"))).unwrap();
            }
            install(&machine, &etcd).await;
            machines.push(machine);
        }
        let ctl = etcd.ctl(Api::V2);
        let first = machines.first().unwrap();
        within(MOVE, "all machines are in the fleet", || async {
            let list = first.ask(&[FLEETCTL, "list-machines", "--no-legend"]).await?;
            check(list.lines().count() == 4, || list.clone())
        })
        .await;

        // As the tutorial has it, from any of them. Without --no-block, fleetctl complains when a
        // unit is not active within two seconds, and fleet starts it all the same.
        first.sh(&format!("cd /root && {FLEETCTL} start --no-block instances/*")).await;
        within(MOVE, "both web servers run", || running(first, &ctl, 4)).await;
        first.sh(&format!("cd /root && {FLEETCTL} start --no-block static/nginx-lb.service")).await;
        within(MOVE, "all units run", || running(first, &ctl, 5)).await;
        let placed = places(first).await.unwrap();
        eprintln!("{placed:?}");
        let (one, two) = (placed["apache@7777"], placed["apache@8888"]);
        let balancer = placed["nginx-lb"];
        assert!(one != two && one != balancer && two != balancer, "Conflicts=: {placed:?}");
        assert_eq!(placed["apache-discovery@7777"], one, "MachineOf=");
        assert_eq!(placed["apache-discovery@8888"], two, "MachineOf=");
        assert_eq!(ctl.get(&key(one)).await.as_deref(), Some(&*format!("10.77.0.{one}:7777")));
        assert_eq!(ctl.get(&key(two)).await.as_deref(), Some(&*format!("10.77.0.{two}:8888")));
        let at = machines.iter().find(|machine| machine.ip().octets()[3] == balancer).unwrap();
        let load = Load::on(at.at(80)).clients(2).start();
        load.answered(&name(one)).await;
        load.answered(&name(two)).await;

        // A deploy, the way of fleet.
        let both = ["apache@8888.service", "apache-discovery@8888.service"];
        first.run(&[&[FLEETCTL, "stop"], &both[..]].concat()).await;
        first.run(&[&[FLEETCTL, "start", "--no-block"], &both[..]].concat()).await;
        within(MOVE, "all units run", || running(first, &ctl, 5)).await;
        load.forget_answers();
        let two = places(first).await.unwrap()["apache@8888"];
        load.answered(&name(two)).await;
        let summary = load.stop().await;
        eprintln!("apache@8888 stopped and started: {summary}");
        summary.assert_none_failed();

        // A machine loses its power. Its units go where none of the others are.
        let lost = machines.iter().position(|machine| machine.ip().octets()[3] == one).unwrap();
        drop(machines.remove(lost));
        let begun = Instant::now();
        let first = machines.first().unwrap();
        let spare = (11..15).find(|host| ![one, two, balancer].contains(host)).unwrap();
        within(MOVE, "the units have moved", || async {
            let placed = places(first).await?;
            let moved = placed.get("apache@7777") == Some(&spare);
            check(moved && placed.get("apache-discovery@7777") == Some(&spare), || {
                format!("{placed:?}")
            })
        })
        .await;
        within(MOVE, "all units run", || running(first, &ctl, 5)).await;
        eprintln!("moved and registered after {:?}", begun.elapsed());
        let keys = ctl.ls("/services/apache").await;
        assert!(keys.contains(&key(spare)) && !keys.contains(&key(one)), "{keys:?}");
        let at = machines.iter().find(|machine| machine.ip().octets()[3] == balancer).unwrap();
        let load = Load::on(at.at(80)).clients(2).start();
        load.answered(&name(spare)).await;
        load.answered(&name(two)).await;

        first.sh(&format!("cd /root/instances && {FLEETCTL} destroy *")).await;
        eventually("nothing is registered", || async {
            let keys = ctl.ls("/services/apache").await;
            check(keys.is_empty(), || format!("{keys:?}"))
        })
        .await;
        // The last ones wait for others in vain, and systemd has forgotten their units meanwhile.
        for machine in &machines {
            within(MOVE, "all of them have ended", || async {
                let list =
                    ["systemctl", "list-units", "--all", "--plain", "--no-legend", "apache*"];
                let list = machine.ask(&list).await?;
                check(list.is_empty(), || list.clone())
            })
            .await;
        }
    });
}

/// The machine, its fleet, and the folders of the tutorial.
async fn install(machine: &Machine<'_>, etcd: &Etcd) {
    for (path, text) in [&FLEET[..], &UNITS, &FILES].concat() {
        machine.write(path, text);
    }
    machine.write("/etc/nginx/conf.d/log.conf", LOG_FORMAT);
    let (ip, url) = (machine.ip(), etcd.url());
    let environment = format!("COREOS_PRIVATE_IPV4={ip}\nETCD_ENDPOINTS={url}\nETCD_API=v2\n");
    machine.write("/etc/environment", &environment);
    machine.write(
        "/etc/fleet/fleet.conf",
        &format!("etcd_servers=[\"{url}\"]\npublic_ip=\"{ip}\"\nagent_ttl=\"10s\"\n"),
    );
    machine
        .sh("hostname > /var/www/html/index.html
            rm -f /etc/nginx/sites-enabled/default
            mkdir /root/instances; cd /root/instances
            for port in 7777 8888; do
                ln -s ../templates/apache@.service apache@$port.service
                ln -s ../templates/apache-discovery@.service apache-discovery@$port.service
            done
            systemctl daemon-reload
            systemctl start fleet")
        .await;
}

/// Whether so many units run, as fleet says, and all that should is registered.
async fn running(machine: &Machine<'_>, ctl: &Ctl, units: usize) -> Result<(), String> {
    let words = [FLEETCTL, "list-units", "--no-legend", "--fields=unit,active,sub"];
    let list = machine.ask(&words).await?;
    let running = list.lines().filter(|line| line.contains("running")).count();
    let keys = ctl.ls("/services/apache").await;
    check(running == units && keys.len() == 2, || format!("{list}{keys:?}"))
}

/// The last number of the address of each unit's machine.
async fn places(machine: &Machine<'_>) -> Result<BTreeMap<String, u8>, String> {
    let words = [FLEETCTL, "list-units", "--no-legend", "--full", "--fields=unit,machine"];
    let list = machine.ask(&words).await?;
    let place = |line: &str| {
        let (unit, machine) = line.split_once(char::is_whitespace)?;
        let host = machine.trim().rsplit('.').next()?.parse().ok()?;
        Some((unit.strip_suffix(".service")?.to_owned(), host))
    };
    Ok(list.lines().filter_map(place).collect())
}

fn name(host: u8) -> String {
    format!("core{host}")
}

fn key(host: u8) -> String {
    format!("/services/apache/10.77.0.{host}")
}
