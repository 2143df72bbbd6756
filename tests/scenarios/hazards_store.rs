//! etcd: events around a watch, history that is gone or went backwards, connections that
//! died silently, tokens that ran out, a start before etcd.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tests::eventually::check;
use tests::{Api, Backend, Etcd, Lab, Nginx, Signal, eventually, within};

use crate::hazards_setup::{Setup, address, rendered};

in_both_apis!(
    h05_no_change_around_a_watch_is_lost,
    h06_a_wiped_store_is_followed_again,
    h06_a_store_with_another_history_of_the_same_length_is_noticed,
    members_that_the_cluster_names_are_used_where_wanted,
);

/// One member is given, and it goes: the cluster has named the others.
async fn members_that_the_cluster_names_are_used_where_wanted(api: Api) {
    let lab = Lab::new();
    let mut members = Etcd::prepare_cluster(&lab, 3);
    join_all(members.iter().map(Etcd::up)).await;
    let setup = Setup::prepare(&lab, members.remove(0));
    setup.resource("app", &setup.reload());
    setup.etcd.ctl(api).put("/services/apache/1", &address(1)).await;
    let confsync = setup.confsync_in(&lab, api).arg("--etcd-auto-sync").start();
    setup.live(&[1]).await;
    confsync.logged("the members of etcd are").await;
    setup.etcd.kill().await;
    let verb = if api == Api::V2 { "set" } else { "put" };
    let other = members[0].ctl(api);
    within(Duration::from_secs(60), "the others have a leader", || async {
        let output = other.run(&[verb, "/services/apache/2", &address(2)]).await;
        check(output.exit.success(), || output.stderr())
    })
    .await;
    let wanted = rendered(&[1, 2]);
    within(Duration::from_secs(60), "the other members are followed", || async {
        let live = setup.text("live");
        check(live == wanted, || format!("{live}\n{}", confsync.log()))
    })
    .await;
}

/// Keys are written one by one before, while and after confsync looks for the first
/// time; none of them may need a later one to be seen.
async fn h05_no_change_around_a_watch_is_lost(api: Api) {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let _confsync = setup.confsync_in(&lab, api).start();
    let ctl = setup.etcd.ctl(api);
    for round in 1..=9 {
        ctl.put(&format!("/services/apache/{round}"), &address(round)).await;
    }
    setup.live(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    for round in 2..=9 {
        ctl.del(&format!("/services/apache/{round}")).await;
        let left: Vec<u8> = [1].into_iter().chain(round + 1..=9).collect();
        setup.live(&left).await;
    }
}

/// The very next write is followed, with its revision far below those of before.
async fn h06_a_wiped_store_is_followed_again(api: Api) {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let ctl = setup.etcd.ctl(api);
    for n in 1..=9 {
        ctl.put(&format!("/services/apache/{n}"), &address(n)).await;
    }
    let confsync = setup.confsync_in(&lab, api).start();
    setup.live(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;

    setup.etcd.wipe().await;
    ctl.put("/services/apache/7", &address(7)).await;
    // The others are asked, and refuse connections.
    setup.live(&[7]).await;
    ctl.put("/services/apache/8", &address(8)).await;
    setup.live(&[7, 8]).await;
    assert!(confsync.log().contains("etcd has regressed"), "{}", confsync.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn h06_a_restored_store_is_followed_again() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let saved = setup.etcd.save().await;
    let _confsync = setup.confsync(&lab).start();
    setup.put(2).await;
    setup.put(3).await;
    setup.live(&[1, 2, 3]).await;
    setup.etcd.restore(&saved).await;
    setup.put(4).await;
    setup.live(&[1, 4]).await;
}

/// While confsync is suspended etcd is restored and written to, until its revision is what
/// confsync has seen: nothing has gone backwards, and two keys are not what they were.
async fn h06_a_store_with_another_history_of_the_same_length_is_noticed(api: Api) {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let ctl = setup.etcd.ctl(api);
    let put = async |n: u8| ctl.put(&format!("/services/apache/{n}"), &address(n)).await;
    put(1).await;
    let saved = setup.etcd.save().await;
    let confsync = setup.confsync_in(&lab, api).flag("--interval", "1h").start();
    setup.live(&[1]).await;
    put(2).await;
    setup.live(&[1, 2]).await;

    confsync.signal(Signal::STOP);
    setup.etcd.restore(&saved).await;
    put(3).await;
    confsync.signal(Signal::CONT);
    setup.live(&[1, 3]).await;
    put(4).await;
    setup.live(&[1, 3, 4]).await;
}

/// No confsync ran when the store was lost: the new one still knows.
#[tokio::test(flavor = "multi_thread")]
async fn h06_a_restart_after_a_wipe_still_verifies_the_losses() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let put = async |backend: &Backend| {
        let key = format!("/services/apache/{}", backend.name());
        setup.ctl().put(&key, &backend.address().to_string()).await;
    };
    put(&one).await;
    put(&two).await;
    let line = |backend: &Backend| format!("server {};", backend.address());
    let confsync = setup.confsync(&lab).start();
    let has = |backend: &Backend, wanted: bool| {
        let (line, setup) = (line(backend), &setup);
        eventually(format!("{line} {wanted}"), move || {
            let live = setup.text("live");
            let right = live.contains(&line) == wanted;
            async move { check(right, || live) }
        })
    };
    has(&one, true).await;
    has(&two, true).await;
    setup.appears(".app.conf.confsync-believed").await;
    let _ = confsync.stop().await;

    setup.etcd.wipe().await;
    put(&one).await;
    let before = setup.loads();
    let confsync = setup.confsync(&lab).start();
    confsync.logged("retaining unregistered backends").await;
    eventually("the first load of the new one", || async {
        check(setup.loads() > before, || "none".to_owned())
    })
    .await;
    has(&one, true).await;
    has(&two, true).await;
    // It is dropped as soon as it does not answer.
    two.die().await;
    has(&two, false).await;
    has(&one, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h07_compaction_past_the_watch_is_got_over() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    // It misses a change, its connection, and the history in between.
    confsync.signal(Signal::STOP);
    setup.put(2).await;
    setup.put(3).await;
    setup.ctl().del("/services/apache/2").await;
    let status = setup.ctl().run(&["get", "/", "-w", "json"]).await.ok();
    let revision = serde_json::from_str::<serde_json::Value>(&status).unwrap();
    let revision = revision["header"]["revision"].to_string();
    let _ = setup.ctl().run(&["compact", &revision]).await.ok();
    setup.etcd.restart().await;
    confsync.signal(Signal::CONT);
    setup.live(&[1, 3]).await;
    setup.put(4).await;
    setup.live(&[1, 3, 4]).await;
}

/// Connections stay open and nothing comes: after a while that is called stale, and it
/// ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn h08_a_silent_etcd_is_noticed_and_followed_again() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let place = lab.free();
    let confsync = setup.confsync(&lab).flag("--status", place.to_string()).start();
    setup.live(&[1]).await;
    confsync.ready().await;
    setup.etcd.freeze();
    within(Duration::from_secs(90), "the silence is noticed", || async {
        let answer = tests::http::get(place, "/readyz").await?;
        check(answer.status == 503, || answer.body)
    })
    .await;
    setup.etcd.thaw();
    setup.put(2).await;
    setup.live(&[1, 2]).await;
    eventually("ready again", || async {
        let answer = tests::http::get(place, "/readyz").await?;
        check(answer.status == 200, || answer.body)
    })
    .await;
}

/// With rights on its own trees alone, a token of two seconds, idle for three of them, and
/// an etcd that forgets all tokens in a restart.
#[tokio::test(flavor = "multi_thread")]
async fn h08_an_expired_token_is_renewed_and_narrow_rights_suffice() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab).arg("--auth-token-ttl").arg("2");
    etcd.up().await;
    let setup = Setup::prepare(&lab, etcd);
    setup.resource("app", &setup.reload());
    let ctl = setup.ctl();
    let put = async |n: u8| {
        let key = format!("/services/apache/{n}");
        let _ = ctl.run(&["--user", "root:secret", "put", &key, &address(n)]).await.ok();
    };
    for words in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "lb"],
        &["role", "grant-permission", "lb", "read", "--prefix=true", "/services/apache"],
        &["role", "grant-permission", "lb", "readwrite", "--prefix=true", "/confsync/"],
        &["user", "add", "lb:word"],
        &["user", "grant-role", "lb", "lb"],
        &["auth", "enable"],
    ] {
        let _ = ctl.run(words).await.ok();
    }
    put(1).await;
    let confsync = setup.confsync(&lab).flag("--etcd-user", "lb").env("ETCD_PASSWORD", "word");
    let confsync = confsync.start();
    setup.live(&[1]).await;

    let start = Instant::now();
    within(Duration::from_secs(20), "three lifetimes of the token", || async {
        check(start.elapsed() > Duration::from_secs(6), || format!("{:?}", start.elapsed()))
    })
    .await;
    put(2).await;
    setup.live(&[1, 2]).await;
    setup.etcd.restart().await;
    put(3).await;
    within(Duration::from_secs(30), "followed after the restart", || async {
        check(setup.text("live") == rendered(&[1, 2, 3]), || setup.text("live"))
    })
    .await;
    assert!(!confsync.log().contains("word"), "the password is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn h09_an_emptied_prefix_leaves_a_file_that_nginx_starts_with() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    etcd.ctl(Api::V3).put("/services/apache/1", &address(1)).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = tests::Confdir::tutorial(&lab, &nginx);
    let confsync = tests::Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    let good = nginx.rendered().unwrap();

    etcd.ctl(Api::V3).del("/services/apache/1").await;
    confsync.logged("no backend is registered").await;
    assert_eq!(nginx.rendered().unwrap(), good);
    let _ = nginx.test().await.ok();
    // The next one is served at once.
    let two = Backend::start(&lab, "two").await;
    etcd.ctl(Api::V3).put("/services/apache/2", &two.address().to_string()).await;
    eventually("an answer of two", || async {
        let answer = nginx.get("/").await?;
        check(answer.body == "two\n", || answer.body.clone())
    })
    .await;
}

/// An interval of an hour delays nothing, and one dead endpoint stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn h24_a_start_before_etcd_ends_when_etcd_is_there() {
    let lab = Lab::new();
    let setup = Setup::prepare(&lab, Etcd::prepare(&lab));
    setup.resource("app", &setup.reload());
    let nobody = format!("http://{}", lab.free());
    let confsync = tests::Daemon::confsync(&lab)
        .flag("--etcd", format!("{nobody},{}", setup.etcd.url()))
        .confdir(&setup.confdir)
        .flag("--interval", "1h")
        .start();
    confsync.logged(&setup.etcd.address().to_string()).await;
    setup.etcd.up().await;
    setup.put(1).await;
    within(Duration::from_secs(30), "live", || async {
        check(setup.text("live") == rendered(&[1]), || setup.text("live"))
    })
    .await;
}
