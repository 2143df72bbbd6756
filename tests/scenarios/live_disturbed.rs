//! Another process or an operator changes nginx, its configuration, its tables and its workers,
//! while backends change without a reload. What confsync reports stays true, and it repairs what
//! it can.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};

use rustix::process::{Pid, kill_process};
use tests::eventually::check;
use tests::{Behaviour, Daemon, Exit, Signal, bins, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::live::Scene;

/// A `log_by_lua*` of one's own hides ours in its server: nothing could be counted there.
const LOGS: &str = "log_by_lua_block { ngx.log(ngx.NOTICE, \"mine\") }";

async fn hanging(scene: &Scene) -> TcpStream {
    let mut client = TcpStream::connect(scene.nginx.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn where_requests_cannot_be_counted_every_change_is_a_reload_and_a_drain_is_true() {
    let Some(scene) = Scene::new("").await else { return };
    scene.confdir.edit("templates/app.hbs", |text| {
        text.replace("location / {", &format!("{LOGS}\n    location / {{"))
    });
    let check = Daemon::new(&scene.lab, "check", bins::confsync()).arg("check").arg("--host");
    let ended = check.confdir(&scene.confdir).run().await;
    assert!(ended.log.contains("requests cannot be counted: log_by_lua_block in"), "{}", ended.log);
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);

    let (one, sidekick) = scene.join("one").await;
    let (_two, _sidekick_two) = scene.join("two").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    let log = confsync.log();
    assert!(log.contains("every change of backends needs a reload from now on"), "{log}");
    assert!(log.contains("requests cannot be counted: log_by_lua_block in"), "{log}");
    assert!(!scene.nginx.rendered().unwrap().contains("balancer_by_lua"));
    assert_eq!(sidekick.stop().await, Exit::Code(0), "{}", sidekick.log());
    one.die().await;
    scene.answers("two").await;
}

/// The operator's own file, and the operator's own reload: a worker is new, and its
/// configuration is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_phase_that_comes_later_is_noticed_and_a_drain_waits_for_the_old_workers() {
    let Some(scene) = Scene::new("").await else { return };
    let (one, sidekick) = scene.join("one").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    assert!(scene.nginx.rendered().unwrap().contains("balancer_by_lua"));
    one.behave(Behaviour::Hang);
    let old = hanging(&scene).await;
    eventually("a request hangs", || async {
        check(one.in_flight() == 1, || "not yet".to_owned())
    })
    .await;
    let mine = scene.nginx.folder().join("sites-enabled/mine.conf");
    let listen = scene.lab.free();
    let text = format!("server {{ listen {listen}; {LOGS} proxy_pass http://apache; }}");
    fs::write(&mine, text.replace("proxy_pass", "location / { proxy_pass") + "}").unwrap();
    let (_two, _sidekick_two) = scene.join("two").await;
    scene.nginx.signal(Signal::HUP);
    confsync.logged("requests cannot be counted: log_by_lua_block in").await;
    eventually("it is in plain form", || async {
        let text = scene.nginx.rendered()?;
        check(!text.contains("balancer_by_lua"), || text)
    })
    .await;
    // Its request is in a worker of before, which nobody counts: the drain waits for it.
    sidekick.signal(Signal::TERM);
    confsync.logged(" configuration is active ").await;
    scene.answers("two").await;
    assert_eq!(sidekick.process().exit(), None, "{}", sidekick.log());
    drop(old);
    assert_eq!(sidekick.wait_exit().await, Exit::Code(0), "{}", sidekick.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_touched_is_noticed_and_made_right() {
    let Some(scene) = Scene::new("").await else { return };
    let (_one, _sidekick) = scene.join("one").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    let table = scene.lab.path().join("live/apache.members");

    // Its head says: no member.
    let mut file = OpenOptions::new().write(true).open(&table).unwrap();
    file.seek(SeekFrom::Start(64)).unwrap();
    file.write_all(&[0; 84]).unwrap();
    let noticed = "the proxy had other members (another process changed the table of apache)";
    eventually("it is noticed", || async {
        let log = confsync.log();
        let is = log.contains(noticed) || log.contains("uses another table of apache");
        check(is, || log)
    })
    .await;
    scene.answers("one").await;

    // It is gone: a worker that starts now would use the lines of the file.
    fs::remove_file(&table).unwrap();
    eventually("it is there again", || async { check(table.exists(), || confsync.log()) }).await;
    let (_two, _sidekick_two) = scene.join("two").await;
    scene.answers("two").await;
    scene.answers("one").await;
}

/// The request ends with its worker, whose count is void from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_holds_no_drain_up() {
    let Some(scene) = Scene::new("").await else { return };
    let (one, sidekick) = scene.join("one").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    one.behave(Behaviour::Hang);
    let _client = hanging(&scene).await;
    eventually("a request hangs", || async {
        check(one.in_flight() == 1, || "not yet".to_owned())
    })
    .await;
    let (_two, _sidekick_two) = scene.join("two").await;
    scene.answers("two").await;
    sidekick.signal(Signal::TERM);
    confsync.logged("members changed without a reload").await;
    eventually("it is out", || async {
        let text = scene.nginx.rendered()?;
        check(!text.contains(&one.address().to_string()), || text)
    })
    .await;
    assert_eq!(sidekick.process().exit(), None, "{}", sidekick.log());
    for pid in scene.workers() {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    assert_eq!(sidekick.wait_exit().await, Exit::Code(0), "{}", sidekick.log());
    one.die().await;
    scene.answers("two").await;
}
