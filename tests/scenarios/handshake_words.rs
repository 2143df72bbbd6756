//! The messages of the handshake, and what it waits for: refusals with their text,
//! no-ops, the bounds and flags of `register`, silence while nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use tests::daemon::{QUICK_TTL, Running};
use tests::eventually::check;
use tests::process::Process;
use tests::{
    Api, Backend, Cluster, Confdir, Daemon, Etcd, Exit, Lab, Nginx, Signal, eventually, http,
    within,
};

in_both_apis!(
    the_last_backend_hears_why_it_is_kept,
    a_file_that_nginx_rejects_is_reported_in_its_words,
    a_key_that_no_template_uses_is_acknowledged,
    readiness_waits_until_a_load_balancer_serves_it,
    readiness_is_not_held_back_for_ever,
    a_backend_that_fails_while_it_waits_is_not_ready,
    a_drain_is_seen_in_the_metrics,
    by_commands_it_is_their_success_and_a_time,
    by_commands_that_do_not_verify_it_is_unconfirmed,
    by_commands_that_prove_the_end_it_is_confirmed,
    too_few_load_balancers_leave_it_unconfirmed,
    a_floor_holds_without_load_balancers,
    a_second_signal_ends_the_waiting,
    remove_waits_as_well,
    nothing_is_written_while_nothing_changes,
    other_trees_after_a_hangup_are_acknowledged,
);

fn sidekick(lab: &Lab, etcd: &Etcd, api: Api, of: &Backend) -> Daemon {
    Daemon::register(lab).backend("apache", of.address()).etcd(etcd, api)
}

async fn stopped_with(sidekick: &Running, code: i32, words: &str) {
    assert_eq!(sidekick.stop().await, Exit::Code(code), "{}", sidekick.log());
    assert!(sidekick.log().contains(words), "no `{words}` in\n{}", sidekick.log());
}

async fn the_last_backend_hears_why_it_is_kept(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    stopped_with(&cluster.instances[0].sidekick, 2, "on_empty = \"keep\"").await;
}

async fn a_file_that_nginx_rejects_is_reported_in_its_words(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backends = [
        Backend::start(&lab, "one").await,
        Backend::start_at((lab.another_ip(), 80).into(), "two").await,
    ];
    let sidekicks = backends.each_ref().map(|of| sidekick(&lab, &etcd, api, of).quick().start());
    for sidekick in &sidekicks {
        sidekick.ready().await;
    }
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    confdir.edit("templates/nginx.tmpl", |text| {
        let few = r#"{{ if lt (len (getvs "/services/apache/*")) 2 }}too_few on;{{ end }}"#;
        format!("{few}\n{text}")
    });
    let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir);
    let confsync = confsync.flag("--name", "lb-1").supervising(&nginx).start();
    confsync.ready().await;
    stopped_with(&sidekicks[0], 2, "unknown directive \"too_few\"").await;
    assert!(sidekicks[0].log().contains("lb-1: rejected"), "{}", sidekicks[0].log());
    assert_eq!(nginx.get("/").await.unwrap().status, 200);
}

/// confsync follows all services; its template uses one.
async fn a_key_that_no_template_uses_is_acknowledged(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    cluster
        .confdir
        .edit("conf.d/nginx.toml", |toml| toml.replace("/services/apache\"", "/services\""));
    cluster.confsync.signal(Signal::HUP);
    cluster.confsync.logged("confdir read again").await;
    let other = Backend::start_at((lab.another_ip(), 8080).into(), "other").await;
    let sidekick = Daemon::register(&lab).backend("tomcat", other.address());
    let sidekick = sidekick.etcd(&cluster.etcd, api).quick().arg("--wait-applied").start();
    sidekick.ready().await;
    stopped_with(&sidekick, 0, "drain confirmed by ").await;
}

async fn readiness_waits_until_a_load_balancer_serves_it(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    cluster.confsync.signal(Signal::STOP);
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let place = lab.free();
    let sidekick = sidekick(&lab, &cluster.etcd, api, &late).flag("--rise", "1");
    let sidekick = sidekick.flag("--status", place.to_string()).arg("--wait-applied").start();
    within(Duration::from_secs(15), "it is reported what it waits for", || async {
        let status = sidekick.status().unwrap_or_default();
        let told = sidekick.notified();
        check(told.iter().any(|line| line.contains("waiting to be served by")), || status)
    })
    .await;
    assert!(!sidekick.notified().iter().any(|line| line == "READY=1"));
    assert_eq!(http::get(place, "/readyz").await.unwrap().status, 503);
    cluster.confsync.signal(Signal::CONT);
    sidekick.ready().await;
    within(Duration::from_secs(5), "/readyz says so too", || async {
        let answer = http::get(place, "/readyz").await?;
        check(answer.status == 200, || answer.body)
    })
    .await;
    let text = cluster.nginx.rendered().unwrap();
    assert!(text.contains(&late.address().to_string()), "{text}");
}

/// It fails open, and says for whom.
async fn readiness_is_not_held_back_for_ever(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    cluster.confsync.signal(Signal::STOP);
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let sidekick = sidekick(&lab, &cluster.etcd, api, &late).flag("--rise", "1");
    let sidekick = sidekick.arg("--wait-applied=1s").start();
    sidekick.ready().await;
    let log = sidekick.log();
    assert!(log.contains("ready, but not proven to be served: unconfirmed ("), "{log}");
    cluster.confsync.signal(Signal::CONT);
}

/// The load balancer that follows at last has applied that the key is gone again.
async fn a_backend_that_fails_while_it_waits_is_not_ready(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    cluster.confsync.signal(Signal::STOP);
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let sidekick = sidekick(&lab, &cluster.etcd, api, &late).quick();
    let sidekick = sidekick.arg("--wait-applied=10m").start();
    sidekick.logged("registered").await;
    late.die().await;
    sidekick.logged("deregistered").await;
    cluster.confsync.signal(Signal::CONT);
    // What is written later is served, so the key's end was looked at before.
    let other = cluster.join(&lab, "other").await;
    cluster.serves(other.backend.address()).await;
    assert!(!sidekick.notified().iter().any(|line| line == "READY=1"), "{}", sidekick.log());
    late.come_up().await;
    sidekick.ready().await;
    cluster.serves(late.address()).await;
}

async fn a_drain_is_seen_in_the_metrics(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let place = lab.free();
    let sidekick = sidekick(&lab, &cluster.etcd, api, &late).flag("--rise", "1");
    let sidekick = sidekick.flag("--status", place.to_string()).start();
    sidekick.ready().await;
    cluster.confsync.signal(Signal::STOP);
    sidekick.signal(Signal::TERM);
    within(Duration::from_secs(10), "one is waited for", || async {
        let text = http::get(place, "/metrics").await?.body;
        check(text.contains("register_drain_waits_for 1\n"), || text)
    })
    .await;
    cluster.confsync.signal(Signal::CONT);
    assert_eq!(sidekick.wait_exit().await, Exit::Code(0), "{}", sidekick.log());
}

/// nginx is known by the tutorial's two commands alone.
async fn by_commands_it_is_their_success_and_a_time(api: Api) {
    let lab = Lab::new();
    let balanced = Balanced::by_commands(&lab, api, "quiesce_after = \"700ms\"\n").await;
    let begun = Instant::now();
    stopped_with(&balanced.sidekicks[0], 3, "drain assumed for lb-1, known by commands").await;
    assert!(begun.elapsed() >= Duration::from_millis(700));
}

async fn by_commands_that_do_not_verify_it_is_unconfirmed(api: Api) {
    let lab = Lab::new();
    let two = "verify_cmd = \"test $(grep -c '^ *server .*:80' SITE) -gt 1\"\n";
    let balanced = Balanced::by_commands(&lab, api, two).await;
    stopped_with(&balanced.sidekicks[0], 2, "drain unconfirmed (lb-1: ").await;
}

/// As long as `quiesce_cmd` fails, old requests may be under way.
async fn by_commands_that_prove_the_end_it_is_confirmed(api: Api) {
    let lab = Lab::new();
    let (ended, asked) = (lab.path().join("ended"), lab.path().join("asked"));
    let line = format!("echo >> {}; test -e {}", asked.display(), ended.display());
    let quiesce = format!("quiesce_cmd = \"{line}\"\n");
    let balanced = Balanced::by_commands(&lab, api, &quiesce).await;
    let [leaving, _] = &balanced.sidekicks;
    fs::remove_file(&asked).unwrap_or_default();
    leaving.signal(Signal::TERM);
    leaving.logged("draining: waiting for lb-1").await;
    eventually("it is asked again", || async {
        let text = fs::read_to_string(&asked).unwrap_or_default();
        check(text.lines().count() > 2, || text)
    })
    .await;
    fs::write(&ended, "").unwrap();
    assert_eq!(leaving.wait_exit().await, Exit::Code(0), "{}", leaving.log());
    assert!(leaving.log().contains("drain confirmed by lb-1"), "{}", leaving.log());
}

/// Two backends, and an nginx that confsync knows by commands.
struct Balanced {
    _etcd: Etcd,
    _backends: [Backend; 2],
    sidekicks: [Running; 2],
    _process: Process,
    _confsync: Running,
}

impl Balanced {
    async fn by_commands(lab: &Lab, api: Api, more: &str) -> Self {
        let etcd = Etcd::start(lab).await;
        let at = |ip| (ip, 8080).into();
        let backends = [
            Backend::start_at(at(lab.another_ip()), "one").await,
            Backend::start_at(at(lab.another_ip()), "two").await,
        ];
        let sidekicks = backends
            .each_ref()
            .map(|of| sidekick(lab, &etcd, api, of).quick().flag("--drain-applied", "3s").start());
        for sidekick in &sidekicks {
            sidekick.ready().await;
        }
        let nginx = Nginx::prepare(lab);
        let process = nginx.start().await;
        let confdir = Confdir::tutorial_commands(lab, &nginx);
        let site = nginx.site().display().to_string();
        confdir.edit("conf.d/nginx.toml", |toml| toml + &more.replace("SITE", &site));
        let confsync = Daemon::confsync(lab).etcd(&etcd, api).confdir(&confdir);
        let confsync = confsync.flag("--name", "lb-1").start();
        confsync.ready().await;
        Self { _etcd: etcd, _backends: backends, sidekicks, _process: process, _confsync: confsync }
    }
}

async fn too_few_load_balancers_leave_it_unconfirmed(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let sidekick = sidekick(&lab, &cluster.etcd, api, &late).quick().flag("--min-lbs", "2");
    let sidekick = sidekick.flag("--drain-applied", "1s").start();
    sidekick.ready().await;
    stopped_with(&sidekick, 2, "--min-lbs: 1 of at least 2 load balancers are registered").await;
}

async fn a_floor_holds_without_load_balancers(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let sidekick = sidekick(&lab, &etcd, api, &backend).quick().flag("--drain-min", "700ms");
    let sidekick = sidekick.start();
    sidekick.ready().await;
    let begun = Instant::now();
    stopped_with(&sidekick, 0, "no load balancer is registered").await;
    assert!(begun.elapsed() >= Duration::from_millis(700));
}

async fn a_second_signal_ends_the_waiting(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let sidekick = sidekick(&lab, &cluster.etcd, api, &late).flag("--rise", "1");
    let sidekick = sidekick.flag("--drain-applied", "10m").start();
    sidekick.ready().await;
    cluster.confsync.signal(Signal::STOP);
    sidekick.signal(Signal::TERM);
    sidekick.logged("draining: waiting for").await;
    stopped_with(&sidekick, 2, "received a second signal").await;
}

/// As an ExecStop= or a deploy script does it, for a key that nobody refreshes.
async fn remove_waits_as_well(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    let late = Backend::start_at((lab.another_ip(), 8080).into(), "late").await;
    let key = format!("/services/apache/{}", late.ip());
    cluster.etcd.ctl(api).put(&key, &late.address().to_string()).await;
    cluster.serves(late.address()).await;
    let remove = |port: u16| {
        let remove = Daemon::new(&lab, "register remove", tests::bins::register()).arg("remove");
        remove.backend("apache", (late.ip(), port).into()).etcd(&cluster.etcd, api).arg("--wait")
    };
    let other = remove(9).run().await;
    assert_eq!(other.exit, Exit::Code(1), "{other:?}");
    assert!(other.log.contains("not removed"), "{}", other.log);

    let ended = remove(late.port()).run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{ended:?}");
    assert!(ended.log.contains("confirmed by"), "{}", ended.log);
    let text = cluster.nginx.rendered().unwrap();
    assert!(!text.contains(&late.address().to_string()), "{text}");
    assert_eq!(cluster.etcd.ctl(api).get(&key).await, None);
}

/// Refreshes, reconciliations and a second load balancer: no watcher hears of any.
async fn nothing_is_written_while_nothing_changes(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 2).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let second = Daemon::confsync(&lab).etcd(&cluster.etcd, api).confdir(&confdir);
    let second = second.flag("--name", "second").flag("--ttl", "2s").flag("--interval", "200ms");
    let second = second.supervising(&nginx).start();
    second.ready().await;
    let ctl = cluster.etcd.ctl(api);
    within(Duration::from_secs(10), "everything is acknowledged", || async {
        let acks = ctl.ls("/confsync/acks").await;
        let mut quiesced = true;
        for key in acks.iter().filter(|key| key.rsplit('/').next() != Some("nginx")) {
            let value = ctl.get(key).await.unwrap_or_default();
            let ack: serde_json::Value = serde_json::from_str(&value).unwrap_or_default();
            quiesced &= ack["applied"] == ack["quiesced"] || ack.is_null();
        }
        check(acks.len() >= 2 && quiesced, || format!("{acks:?}"))
    })
    .await;

    let watcher = cluster.etcd.watch(api, "/").await;
    let start = Instant::now();
    within(QUICK_TTL * 10, "two lifetimes", || async {
        check(start.elapsed() > QUICK_TTL * 2, || format!("{:?} so far", start.elapsed()))
    })
    .await;
    ctl.put("/elsewhere", "x").await;
    within(Duration::from_secs(5), "that alone", || async {
        let events = watcher.events();
        check(events == ["PUT /elsewhere"], || format!("{events:?}"))
    })
    .await;
}

/// The member key names other trees before they are read.
async fn other_trees_after_a_hangup_are_acknowledged(api: Api) {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, api, 1).await;
    let other = Backend::start_at((lab.another_ip(), 8080).into(), "other").await;
    let tomcat = Daemon::register(&lab).backend("tomcat", other.address());
    let tomcat = tomcat.etcd(&cluster.etcd, api).quick().start();
    tomcat.ready().await;
    for file in ["conf.d/nginx.toml", "templates/nginx.tmpl"] {
        cluster.confdir.edit(file, |text| text.replace("/services/apache", "/services/tomcat"));
    }
    cluster.confsync.signal(Signal::HUP);
    cluster.serves(other.address()).await;
    // Who is read no more is not waited for; who is, is.
    stopped_with(&cluster.instances[0].sidekick, 0, "drain ").await;
    stopped_with(&tomcat, 2, "on_empty = \"keep\"").await;
}
