//! The images and units of `fleet-units/docker/`, as they are: built by a real Docker, started
//! by a real systemd with a real Docker inside.

use std::time::Duration;

use tests::eventually::check;
use tests::{Api, Etcd, Load, Machine, eventually, images, within};

const UNITS: [(&str, &str); 3] = [
    (
        "/etc/systemd/system/apache@.service",
        include_str!("../../fleet-units/docker/apache@.service"),
    ),
    (
        "/etc/systemd/system/apache-discovery@.service",
        include_str!("../../fleet-units/docker/apache-discovery@.service"),
    ),
    (
        "/etc/systemd/system/nginx_lb.service",
        include_str!("../../fleet-units/docker/nginx_lb.service"),
    ),
];
const FIRST: &str = "10.77.0.11:7777";
const SECOND: &str = "10.77.0.12:8888";

#[test]
fn the_tutorials_units_lose_nothing_in_containers() {
    images::scenario(&["apache", "nginx_lb"], |network, images| async move {
        let etcd = Etcd::prepare_at(network.lab(), (network.ip(), 2379).into());
        let (first, second) = (network.machine("web1", 11), network.machine("web2", 12));
        let balancer = network.machine("lb", 10);
        tokio::join!(etcd.up(), first.boot(), second.boot(), balancer.boot());
        for machine in [&first, &second, &balancer] {
            install(machine, &etcd).await;
        }
        tokio::join!(
            images.load(&first, &["apache"]),
            images.load(&second, &["apache"]),
            images.load(&balancer, &["nginx_lb"]),
        );

        tokio::join!(
            first.systemctl(&["start", "apache@7777"]),
            second.systemctl(&["start", "apache@8888"]),
            balancer.systemctl(&["start", "nginx_lb"]),
        );
        let ctl = etcd.ctl(Api::V3);
        within(Duration::from_secs(40), "both are registered", || async {
            let keys = ctl.ls("/services").await;
            check(keys.len() == 2, || format!("{keys:?}"))
        })
        .await;
        assert_eq!(ctl.get("/services/apache/10.77.0.11").await.as_deref(), Some(FIRST));
        eventually("the load balancer serves both", || applied(&etcd)).await;

        // As the tutorial looks: the page, and the journal for who served it.
        let load = Load::on(balancer.at(80)).clients(2).think(Duration::from_millis(20)).start();
        load.answered("<h1>Running").await;
        both_serve(&balancer).await;
        // One after the other with nothing in between, as everybody does it.
        first.systemctl(&["restart", "apache@7777"]).await;
        second.systemctl(&["restart", "apache@8888"]).await;
        eventually("both are back", || async {
            let keys = ctl.ls("/services").await;
            check(keys.len() == 2, || format!("{keys:?}"))
        })
        .await;
        both_serve(&balancer).await;
        // Files are read again, and nothing is started anew.
        let started = || balancer.property("nginx_lb", "ExecMainStartTimestamp");
        let before = started().await;
        balancer.systemctl(&["reload", "nginx_lb"]).await;
        first.systemctl(&["reload", "apache@7777"]).await;
        both_serve(&balancer).await;
        for (machine, unit, container, file, bad) in [
            (
                &first,
                "apache@7777",
                "apache.7777",
                "/etc/apache2/conf-enabled/bad.conf",
                "Headre x",
            ),
            (&balancer, "nginx_lb", "nginx_lb", "/etc/nginx/sites-enabled/bad.conf", "add_hedaer;"),
            (&balancer, "nginx_lb", "nginx_lb", "/etc/confsync/conf.d/bad.toml", "spoilt"),
        ] {
            let inside = |script: &str| format!("docker exec -u 0 {container} sh -c '{script}'");
            machine.sh(&inside(&format!("echo \"{bad}\" >{file}"))).await;
            let answer = machine.ask(&["systemctl", "reload", unit]).await.unwrap();
            assert!(answer.contains("failed"), "{file}: {answer}");
            machine.sh(&inside(&format!("rm {file}"))).await;
            machine.systemctl(&["reload", unit]).await;
        }
        both_serve(&balancer).await;
        assert_eq!(started().await, before);
        let summary = load.stop().await;
        eprintln!("both restarted and reloaded: {summary}");
        summary.assert_none_failed();
        for (machine, container) in
            [(&first, "apache.7777"), (&second, "apache.8888"), (&balancer, "nginx_lb")]
        {
            let top =
                machine.run(&["/usr/bin/docker", "top", container, "-eo", "pid,user,comm"]).await;
            assert!(top.lines().count() > 2 && !top.contains("root"), "{container}: {top}");
        }

        // Somebody kills it: systemd starts a new container.
        balancer.run(&["/usr/bin/docker", "kill", "nginx_lb"]).await;
        let load = Load::on(balancer.at(80)).think(Duration::from_millis(20)).start();
        both_serve(&balancer).await;
        drop(load);

        balancer.systemctl(&["stop", "nginx_lb"]).await;
        assert_eq!(balancer.property("nginx_lb", "Result").await.unwrap(), "success");
        assert_eq!(balancer.property("nginx_lb", "ExecMainStatus").await.unwrap(), "0");
        // The container that was killed cannot say so: its key ends with its lease.
        within(Duration::from_secs(30), "nobody waits for it", || async {
            for key in ctl.ls("/confsync/members").await {
                let member = ctl.get(&key).await.unwrap_or_default();
                check(member.contains("\"left\":true"), || format!("{key}: {member}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
        the_tutorials_own_files_do(&balancer, &etcd).await;
        first.systemctl(&["stop", "apache@7777"]).await;
        assert_eq!(first.property("apache@7777", "Result").await.unwrap(), "success");
        assert_eq!(first.property("apache-discovery@7777", "Result").await.unwrap(), "success");
        assert_eq!(ctl.ls("/services").await, ["/services/apache/10.77.0.12"]);
    });
}

/// Debian's nginx.conf, the tutorial's resource with its two commands, and a container that is
/// root: what somebody has who followed the tutorial, with confsync for the boot script.
async fn the_tutorials_own_files_do(balancer: &Machine<'_>, etcd: &Etcd) {
    let files = [
        ("conf.d/nginx.toml", include_str!("../../fleet-units/confdir/conf.d/nginx.toml")),
        ("templates/nginx.tmpl", include_str!("../../fleet-units/confdir/templates/nginx.tmpl")),
    ];
    for (path, text) in files {
        balancer.write(&format!("/etc/confd/{path}"), text);
    }
    balancer.write("/etc/nginx/log.conf", super::machines::LOG_FORMAT);
    let host = etcd.address().ip();
    balancer
        .sh(&format!(
            "sed '/^http {{/r /etc/nginx/log.conf' /etc/nginx/nginx.conf > /etc/confd/nginx.conf
            docker run --detach --name tutorial --user root --publish 80:80 \\
                --volume /etc/confd:/etc/confd \\
                --volume /etc/confd/nginx.conf:/etc/nginx/nginx.conf \\
                --env HOST_IP={host} --env ETCD_PORT=2379 --hostname lb user_name/nginx_lb \\
                confsync run --confdir /etc/confd -- nginx -g 'daemon off;'"
        ))
        .await;
    let load = Load::on(balancer.at(80)).think(Duration::from_millis(20)).start();
    load.answered("<h1>Running").await;
    drop(load);
    // One more backend: `service nginx reload` gives way to other workers.
    let workers = || async {
        let top = balancer.run(&["/usr/bin/docker", "top", "tutorial", "-eo", "pid,args"]).await;
        let workers = top.lines().filter(|line| line.contains("worker process"));
        workers.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = workers().await;
    etcd.ctl(Api::V3).put("/services/apache/third", FIRST).await;
    eventually("other workers", || async {
        let now = workers().await;
        check(!now.is_empty() && !now.iter().any(|one| before.contains(one)), || format!("{now:?}"))
    })
    .await;
    etcd.ctl(Api::V3).del("/services/apache/third").await;
    balancer.sh("docker stop tutorial").await;
    let code = balancer.sh("docker inspect --format '{{.State.ExitCode}}' tutorial").await;
    assert_eq!(code.trim(), "0", "{}", balancer.sh("docker logs tutorial 2>&1").await);
}

#[test]
fn compose_walks_the_tutorial_on_one_machine() {
    if !tests::bins::on_path("docker-compose") {
        return tests::skip::skip("docker-compose is not installed");
    }
    const NAMES: &[&str] = &["etcd", "apache", "register", "nginx_lb"];
    images::scenario(NAMES, |network, images| async move {
        let machine = network.machine("walk", 10);
        machine.boot().await;
        images.load(&machine, NAMES).await;
        let file = include_str!("../../fleet-units/docker/compose.yml");
        // From outside of the machine it can be asked as well.
        let file = file.replace("127.0.0.1:8080:80", "8080:80");
        machine.write("/opt/fleet-units/docker/compose.yml", &file);

        compose(&machine, "up --detach --no-build").await;
        let load = Load::on(machine.at(8080)).clients(2).think(Duration::from_millis(20)).start();
        load.answered("<h1>Running").await;
        served_by(&machine, "10.132.249.206:80").await;
        served_by(&machine, "10.132.249.212:80").await;
        load.more(20).await;
        let failed_at_start = load.so_far().failed();

        compose(&machine, "stop discovery-1 apache-1").await;
        load.more(50).await;
        compose(&machine, "up --detach --no-build").await;
        served_by(&machine, "10.132.249.206:80").await;
        let summary = load.stop().await;
        eprintln!("apache-1 stopped and started: {summary}, {failed_at_start} before all was up");
        assert_eq!(summary.failed(), failed_at_start, "{summary}");

        // Nobody is killed for want of an answer, and nobody complains.
        compose(&machine, "stop").await;
        let codes = machine
            .sh("/usr/bin/docker inspect --format '{{.Name}} {{.State.ExitCode}}' \
                 $(/usr/bin/docker ps --all --quiet)")
            .await;
        assert_eq!(codes.lines().count(), 6, "{codes}");
        assert!(codes.lines().all(|line| line.ends_with(" 0")), "{codes}");
    });
}

async fn compose(machine: &Machine<'_>, words: &str) {
    let file = "/opt/fleet-units/docker/compose.yml";
    machine.sh(&format!("docker-compose --file {file} {words}")).await;
}

/// Waits until this one has answered a request that comes from now on.
async fn served_by(machine: &Machine<'_>, address: &str) {
    let asked = format!(
        "/usr/bin/docker logs docker_nginx_lb_1 2>&1 | grep --count 'passed to: {address}:' || :"
    );
    let count = || async { machine.sh(&asked).await.trim().parse::<u64>().unwrap_or_default() };
    let before = count().await;
    eventually(format!("an answer of {address}"), || async {
        let now = count().await;
        check(now > before, || format!("{now} answers"))
    })
    .await;
}

async fn install(machine: &Machine<'_>, etcd: &Etcd) {
    for (path, text) in UNITS {
        machine.write(path, text);
    }
    let (ip, etcd) = (machine.ip(), etcd.url());
    machine.write(
        "/etc/environment",
        &format!("COREOS_PRIVATE_IPV4={ip}\nCOREOS_PUBLIC_IPV4={ip}\nETCD_ENDPOINTS={etcd}\n"),
    );
    machine.systemctl(&["daemon-reload"]).await;
}

/// The load balancer's own word for it.
async fn applied(etcd: &Etcd) -> Result<(), String> {
    let acks = etcd.ctl(Api::V3).ls("/confsync/acks").await;
    check(acks == ["/confsync/acks/nginx/lb-nginx"], || format!("{acks:?}"))
}

/// Waits until the journal of the load balancer names both for requests from now on.
async fn both_serve(balancer: &Machine<'_>) {
    let cursor =
        balancer.sh("journalctl --lines=1 --show-cursor | sed --quiet 's/^-- cursor: //p'").await;
    let since = format!("--after-cursor={}", cursor.trim());
    let asked = ["journalctl", "--unit=nginx_lb", "--output=cat", since.as_str()];
    eventually("both answer", || async {
        let journal = balancer.ask(&asked).await?;
        let served = |by: &str| journal.contains(&format!("passed to: {by}: GET / HTTP/1.1"));
        check(served(FIRST) && served(SECOND), || {
            journal.lines().last().unwrap_or_default().to_owned()
        })
    })
    .await;
}
