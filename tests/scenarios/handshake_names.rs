//! One name, one living owner: who is refused or evicted says so, is not ready, and is waited
//! for all the same; an earlier run on the machine is taken over at once.

use tests::daemon::Running;
use tests::etcd::Ctl;
use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Nginx, Signal, eventually};

in_both_apis!(
    two_of_one_name_are_both_waited_for,
    one_that_was_away_is_evicted_and_comes_back,
    one_that_was_killed_is_taken_over_at_once,
    names_are_distinct_by_default,
);

/// A resource that writes a file, loaded by nobody.
fn confdir(lab: &Lab, resource: &str) -> Confdir {
    let confdir = Confdir::empty(lab);
    let dest = confdir.path().join("out").display().to_string();
    confdir.template("app.tmpl", "{{range getvs \"/services/*/*\"}}{{.}} {{end}}");
    let text =
        format!("[template]\nsrc = \"app.tmpl\"\ndest = \"{dest}\"\nkeys = [\"/services\"]\n");
    confdir.toml(resource, &text);
    confdir
}

async fn members(ctl: &Ctl) -> Vec<String> {
    let keys = ctl.ls("/confsync/members").await;
    keys.iter().filter_map(|key| key.rsplit('/').next()).map(str::to_owned).collect()
}

async fn are(ctl: &Ctl, wanted: fn(&[String]) -> bool) {
    eventually("the members are these", || async {
        let members = members(ctl).await;
        check(wanted(&members), || format!("{members:?}"))
    })
    .await;
}

fn is_ready(daemon: &Running) -> bool {
    daemon.notified().iter().any(|line| line == "READY=1")
}

async fn two_of_one_name_are_both_waited_for(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(api);
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let sidekick = |backend: &Backend| {
        let register = Daemon::register(&lab).named(backend.name()).etcd(&etcd, api).quick();
        register.backend("apache", backend.address()).flag("--id", backend.name()).start()
    };
    let (leaving, staying) = (sidekick(&one), sidekick(&two));
    leaving.ready().await;
    staying.ready().await;
    let nginxes = [Nginx::prepare(&lab), Nginx::prepare(&lab)];
    let confdirs = nginxes.each_ref().map(|nginx| Confdir::tutorial(&lab, nginx));
    let start = |nth: usize| {
        let confsync = Daemon::confsync(&lab).named(&format!("lb {nth}")).etcd(&etcd, api);
        let confsync = confsync.confdir(&confdirs[nth]).flag("--name", "same").flag("--ttl", "3s");
        confsync.supervising(&nginxes[nth]).start()
    };
    let first = start(0);
    first.ready().await;
    let second = start(1);
    second
        .logged("not registered by this name: the name \"same\" belongs to another load balancer")
        .await;
    are(&ctl, |members| members.len() == 2 && members[1].starts_with("same~")).await;
    for nginx in &nginxes {
        eventually("nginx serves", || async {
            check(nginx.rendered()?.contains(&one.address().to_string()), || "not yet".into())
        })
        .await;
    }
    assert!(!is_ready(&second), "{}", second.log());
    let status = second.status().unwrap_or_default();
    assert!(status.contains("give each its own --name"), "{status}");

    assert_eq!(leaving.stop().await, Exit::Code(0), "{}", leaving.log());
    let log = leaving.log();
    let last = log.lines().find(|line| line.contains("confirmed by")).unwrap_or_default();
    assert!(last.contains("same") && last.contains("same~"), "{log}");
    for nginx in &nginxes {
        let text = nginx.rendered().unwrap();
        assert!(!text.contains(&one.address().to_string()), "{text}");
    }

    let _ = first.stop().await;
    second.logged("registered as a load balancer").await;
    second.ready().await;
    are(&ctl, |members| members == ["same"]).await;
}

async fn one_that_was_away_is_evicted_and_comes_back(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(api);
    let confdirs = [confdir(&lab, "app"), confdir(&lab, "app")];
    let start = |nth: usize| {
        let confsync = Daemon::confsync(&lab).named(&format!("lb {nth}")).etcd(&etcd, api);
        confsync.confdir(&confdirs[nth]).flag("--name", "same").flag("--ttl", "2s").start()
    };
    ctl.put("/services/apache/1", "127.0.0.1:9").await;
    let first = start(0);
    first.ready().await;
    first.signal(Signal::STOP);
    are(&ctl, <[String]>::is_empty).await;
    let second = start(1);
    second.ready().await;
    first.signal(Signal::CONT);
    first.logged("name lost: the name \"same\" belongs to another load balancer").await;
    are(&ctl, |members| members.len() == 2 && members[1].starts_with("same~")).await;
    eventually("it says that it is not ready", || async {
        let status = first.status().unwrap_or_default();
        check(status.contains("give each its own --name"), || status)
    })
    .await;

    let _ = second.stop().await;
    are(&ctl, |members| members == ["same"]).await;
    let joined = |log: &str| log.matches("registered as a load balancer").count();
    eventually("it joins again", || async { check(joined(&first.log()) == 2, || first.log()) })
        .await;
}

/// Its lease would last for a minute: only the lock can tell that it has ended.
async fn one_that_was_killed_is_taken_over_at_once(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let confdir = confdir(&lab, "app");
    etcd.ctl(api).put("/services/apache/1", "127.0.0.1:9").await;
    let start = || {
        let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir);
        confsync.flag("--name", "lb").flag("--ttl", "60s").start()
    };
    let killed = start();
    killed.ready().await;
    let before = etcd.ctl(api).get("/confsync/members/lb").await.unwrap();
    killed.kill().await;
    let next = start();
    next.ready().await;
    next.logged("registered as a load balancer").await;
    assert!(!next.log().contains("not registered"), "{}", next.log());
    assert_eq!(members(&etcd.ctl(api)).await, ["lb"]);
    assert_ne!(etcd.ctl(api).get("/confsync/members/lb").await.unwrap(), before);
}

async fn names_are_distinct_by_default(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(api);
    ctl.put("/services/apache/1", "127.0.0.1:9").await;
    let confdirs = [confdir(&lab, "haproxy"), confdir(&lab, "nginx")];
    let start = |nth: usize| {
        let confsync = Daemon::confsync(&lab).named(&format!("lb {nth}")).etcd(&etcd, api);
        confsync.confdir(&confdirs[nth]).start()
    };
    let daemons = [start(0), start(1)];
    for daemon in &daemons {
        daemon.ready().await;
    }
    let ends = |members: &[String]| {
        let end = |nth: usize, end: &str| members.get(nth).is_some_and(|name| name.ends_with(end));
        members.len() == 2 && end(0, "-haproxy") && end(1, "-nginx")
    };
    are(&ctl, ends).await;
}
