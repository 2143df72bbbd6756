//! Leaving when etcd is far away, when it has no space, and when it has no quorum: what can be
//! had is had, and what cannot is reported truly.

use std::time::Duration;

use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Link, Nginx, Signal, eventually};

in_both_apis!(without_a_quorum_a_drain_says_so, each_group_acknowledges_for_itself_after_a_restore);

/// A sidekick behind a line of a second confirms its drain: few steps, and deadlines by what was
/// measured.
#[tokio::test(flavor = "multi_thread")]
async fn far_from_etcd_a_drain_is_confirmed() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let link = Link::long(&lab, etcd.address(), Duration::from_secs(1)).await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let far = Daemon::register(&lab).named("the far sidekick").backend("apache", one.address());
    let far = far.flag("--etcd", link.url()).flag("--etcd-api", "v3").flag("--id", "one").start();
    let near = Daemon::register(&lab).backend("apache", two.address()).flag("--id", "two");
    let near = near.etcd(&etcd, Api::V3).start();
    far.ready().await;
    near.ready().await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    assert_eq!(far.stop().await, Exit::Code(0), "{}", far.log());
    assert!(far.log().contains("drain confirmed by"), "{}", far.log());
}

/// Keys can be removed and nothing can be written: neither a marker nor an acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn without_space_in_etcd_a_drain_says_so() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab).arg("--quota-backend-bytes=2000000");
    etcd.up().await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let sidekick = |of: &Backend| {
        let sidekick = Daemon::register(&lab).backend("apache", of.address()).quick();
        sidekick.etcd(&etcd, Api::V3).flag("--id", "{port}").flag("--drain-applied", "3s").start()
    };
    let (leaves, stays) = (sidekick(&one), sidekick(&two));
    leaves.ready().await;
    stays.ready().await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--name", "lb-1").supervising(&nginx).start();
    confsync.ready().await;
    let (ctl, much) = (etcd.ctl(Api::V3), "x".repeat(100_000));
    for n in 0..40 {
        let full = ctl.run(&["put", &format!("/much/{n}"), &much]).await;
        if full.stderr().contains("space exceeded") {
            break;
        }
        assert!(n < 39, "etcd takes everything");
    }
    assert_eq!(leaves.stop().await, Exit::Code(2), "{}", leaves.log());
    for part in ["lb-1: cannot acknowledge", "space exceeded"] {
        assert!(leaves.log().contains(part), "no `{part}` in {}", leaves.log());
    }
    assert_eq!(ctl.ls("/services").await.len(), 1, "the key is gone all the same");
}

async fn without_a_quorum_a_drain_says_so(api: Api) {
    let (noticed, reported) = match api {
        Api::V3 => {
            ("without a majority of its members", "is routed to until etcd has a quorum again")
        }
        // Silence is all that is heard.
        Api::V2 => ("etcd request failed", "if etcd has lost its quorum, the key stays"),
    };
    let lab = Lab::new();
    let (one, two) = (Etcd::prepare(&lab), Etcd::prepare(&lab));
    let cluster = format!("lab={},two={}", one.peer_url(), two.peer_url());
    let one = one.arg("--initial-cluster").arg(&cluster);
    let two = two.arg("--name").arg("two").arg("--initial-cluster").arg(&cluster);
    tokio::join!(one.up(), two.up());
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).quick();
    let sidekick = sidekick.etcd(&one, api).flag("--drain-applied", "4s").start();
    sidekick.ready().await;
    two.kill().await;
    sidekick.logged(noticed).await;
    assert_eq!(sidekick.stop().await, Exit::Code(2), "{}", sidekick.log());
    let log = sidekick.log();
    assert!(log.contains("drain unconfirmed: etcd is not reachable"), "{log}");
    assert!(log.contains(reported), "no `{reported}` in {log}");
}

/// Each group of a confsync notices for itself that etcd was restored. One that begins later, after
/// a SIGHUP, has never seen it, and leaves the acknowledgements of the others alone.
async fn each_group_acknowledges_for_itself_after_a_restore(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let confdir = Confdir::empty(&lab);
    for name in ["web", "api"] {
        etcd.ctl(api).put(&format!("/{name}/title"), "first").await;
        let dest = lab.path().join(name);
        confdir.toml(
            name,
            &format!(
                "[template]\nsrc = \"{name}.tmpl\"\ndest = \"{}\"\nkeys = [\"/{name}\"]\n",
                dest.display()
            ),
        );
        confdir.template(&format!("{name}.tmpl"), &format!("{{{{getv \"/{name}/title\"}}}}\n"));
    }
    let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir);
    let confsync = confsync.flag("--name", "lb-1").start();
    confsync.ready().await;
    let saved = etcd.save().await;
    for name in ["web", "api"] {
        etcd.ctl(api).put(&format!("/{name}/title"), "lost").await;
    }
    let shows = async |name: &str, text: &str| {
        eventually(&format!("{name} shows {text}"), || async {
            let file = std::fs::read_to_string(lab.path().join(name)).unwrap_or_default();
            check(file.trim() == text, || format!("{file}\n{}", confsync.log()))
        })
        .await;
    };
    let acknowledged = async |name: &str| {
        eventually(&format!("{name} is acknowledged"), || async {
            let acks = etcd.ctl(api).ls("/confsync/acks").await;
            let key = format!("/confsync/acks/{name}/lb-1");
            check(acks.contains(&key), || format!("{acks:?}\n{}", confsync.log()))
        })
        .await;
    };
    shows("web", "lost").await;
    shows("api", "lost").await;
    etcd.restore(&saved).await;
    for name in ["web", "api"] {
        shows(name, "first").await;
        acknowledged(name).await;
    }
    confdir.edit("templates/api.tmpl", |text| format!("{text}\n"));
    confsync.signal(Signal::HUP);
    // Two changes: after the second is acknowledged, what came of the first is in etcd.
    for title in ["second", "third"] {
        etcd.ctl(api).put("/api/title", title).await;
        shows("api", title).await;
        acknowledged("api").await;
    }
    let acks = etcd.ctl(api).ls("/confsync/acks").await;
    // v2 lists folders as well.
    let of_ours = acks.iter().filter(|key| key.ends_with("/lb-1")).count();
    assert_eq!(of_ours, 2, "{acks:?}\n{}", confsync.log());
}
