//! The daemon itself: what it says of its health, what SIGHUP does, what injected and
//! wavering values do, being PID 1, and the one-shot commands.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tests::eventually::check;
use tests::{
    Api, Backend, Cluster, Confdir, Daemon, Etcd, Exit, Lab, Nginx, Signal, eventually, http,
    within,
};

use crate::hazards_setup::{Setup, address, is_root, rendered};

/// nginx by name: `bad_config::an_invalid_value_is_rejected_and_the_others_are_served`. Here
/// a Go template of confd's, for any service.
#[tokio::test(flavor = "multi_thread")]
async fn h18_values_that_are_no_endpoints_are_withheld_from_go_templates_too() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &(setup.reload() + "values = \"endpoint\"\n"));
    setup.put(1).await;
    let evil = "10.0.0.9:80; } server { listen 81; } upstream x { server 127.0.0.1:1";
    setup.ctl().put("/services/apache/0", evil).await;
    setup.ctl().put("/services/apache/2", "10.0.0.2:").await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    for key in ["/services/apache/0", "/services/apache/2"] {
        confsync.logged(key).await;
    }
    // A corrected value is taken, whatever was rejected before.
    setup.put(2).await;
    setup.live(&[1, 2]).await;
}

/// Keys that collapse to one name, and the time of day: neither loads anything again.
#[tokio::test(flavor = "multi_thread")]
async fn h19_a_render_that_wavers_loads_nothing_by_itself() {
    let lab = Lab::new();
    let setup = Setup::prepare(&lab, Etcd::start(&lab).await);
    setup.confdir.template(
        "app.tmpl",
        "# {{datetime}}\n{{range gets \"/up/*\"}}server {{.Value}};\n{{end}}",
    );
    setup.resource("app", &(setup.reload() + "keys = [\"/up\"]\n"));
    for (key, n) in [("/up/1", 1), ("/up//1", 2), ("/up/1/", 3)] {
        setup.ctl().put(key, &address(n)).await;
    }
    let confsync =
        setup.confsync(&lab).flag("--interval", "200ms").env("LOG_LEVEL", "info,common=debug");
    let confsync = confsync.start();
    confsync.logged("two keys have the same name").await;
    eventually("ten full reads", || async {
        let log = confsync.log();
        let reads = log.matches("periodic resync").count();
        check(reads >= 10, || format!("{reads}"))
    })
    .await;
    assert_eq!(setup.loads(), 1, "{}", confsync.log());
    assert_eq!(setup.text("live").lines().count(), 2, "one of the three");
}

#[tokio::test(flavor = "multi_thread")]
async fn h22_health_is_what_is_proven() {
    let lab = Lab::new();
    let setup = Setup::prepare(&lab, Etcd::prepare(&lab));
    setup.resource("app", &setup.reload_after("test ! -e broken"));
    setup.flag("broken");
    let place = lab.free();
    let confsync = setup.confsync(&lab).flag("--status", place.to_string()).start();
    let readyz = |status: u16, words: &'static str| {
        within(Duration::from_secs(60), format!("/readyz {status} {words}"), move || async move {
            let answer = http::get(place, "/readyz").await?;
            let right = answer.status == status && answer.body.contains(words);
            check(right, || format!("{} {}", answer.status, answer.body))
        })
    };
    readyz(503, "waiting for etcd").await;
    assert_eq!(http::get(place, "/healthz").await.unwrap().status, 200);
    setup.etcd.up().await;
    setup.put(1).await;
    // The file is written and nothing is proven: not ready, also for the service manager.
    eventually("the file is written", || async {
        check(setup.text("app.conf") == rendered(&[1]), || setup.text("app.conf"))
    })
    .await;
    readyz(503, "reload_cmd").await;
    assert!(!confsync.notified().iter().any(|line| line == "READY=1"));
    setup.unflag("broken");
    setup.live(&[1]).await;
    confsync.ready().await;
    readyz(200, "in rotation").await;

    // What is pending is shown at once, and is unhealthy when it lasts.
    setup.flag("broken");
    setup.put(2).await;
    eventually("the metrics say so", || async {
        let metrics = http::get(place, "/metrics").await?.body;
        check(metrics.contains("confsync_in_sync{set=\"app\"} 0"), || metrics.clone())
    })
    .await;
    readyz(503, "reload_cmd").await;
    setup.unflag("broken");
    setup.live(&[1, 2]).await;
    readyz(200, "in rotation").await;
    // A watch that is cut is not followed, and says so at once.
    setup.etcd.kill().await;
    readyz(503, "etcd").await;
}

/// Without etcd and without files nothing can be live; the machine boots all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_does_not_wait_for_etcd_or_a_first_backend() {
    let lab = Lab::new();
    let setup = Setup::prepare(&lab, Etcd::prepare(&lab));
    setup.resource("app", &setup.reload());
    let place = lab.free();
    let confsync = setup.confsync(&lab).flag("--status", place.to_string());
    let confsync = confsync.flag("--start-within", "1s").start();
    confsync.ready().await;
    confsync.logged("not ready after 1s").await;
    confsync.logged("waiting for etcd").await;
    assert_eq!(http::get(place, "/readyz").await.unwrap().status, 503);
}

/// As under a unit with `ProtectSystem=strict` and no `ReadWritePaths=` for the logs.
#[tokio::test(flavor = "multi_thread")]
async fn h23_logs_that_nginx_cannot_open_are_reported_in_its_words() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    etcd.ctl(Api::V3).put("/services/apache/1", &address(1)).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let logs = nginx.folder().join("logs");
    let logs = logs.display();
    let script =
        format!("mount --bind {logs} {logs} && mount -o remount,ro,bind {logs} && exec \"$@\"");
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir).arg("--once");
    let ended = confsync.under(&["unshare", "-m", "sh", "-c", &script, "sh"]).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert!(ended.log.contains("Read-only file system"), "{}", ended.log);
    assert!(!nginx.site().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn h25_a_bad_confdir_on_sighup_changes_nothing_and_a_good_one_never_stops_nginx() {
    let lab = Lab::new();
    let cluster = Cluster::start(&lab, Api::V3, 1).await;
    let master = cluster.nginx.master();
    let load = cluster.load().start();
    load.answered("apache-1").await;

    let mut good = String::new();
    cluster.confdir.edit("conf.d/nginx.toml", |toml| {
        good.clone_from(&toml);
        toml.replace("mode = \"0644\"", "mode = \"rw-r--r--\"") + "not toml"
    });
    cluster.confsync.signal(Signal::HUP);
    cluster.confsync.logged("keeping the current configuration").await;
    cluster.confsync.logged("nginx.toml").await;
    let late = cluster.join(&lab, "late").await;
    late.sidekick.ready().await;
    load.answered("late").await;

    cluster.confdir.edit("conf.d/nginx.toml", |_| good);
    cluster.confdir.edit("templates/nginx.tmpl", |text| "# a new line\n".to_owned() + &text);
    cluster.confsync.signal(Signal::HUP);
    eventually("the new template is live", || async {
        let text = cluster.nginx.rendered()?;
        check(text.starts_with("# a new line"), || text.clone())
    })
    .await;
    cluster.confsync.logged("confdir read again").await;
    assert_eq!(cluster.nginx.master(), master);
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_commands_exit_code_is_ours() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let marker = setup.file("started").display().to_string();
    let script = format!("cat {} > {marker}; exit 7", setup.file("app.conf").display());
    let child = setup.confsync(&lab).arg("--").arg("sh").arg("-c").arg(script);
    let ended = child.run().await;
    assert_eq!(ended.exit, Exit::Code(7), "{}", ended.log);
    assert_eq!(setup.text("started"), rendered(&[1]), "it started before its file was there");
}

/// In a container: PID 1, orphans are its children.
#[tokio::test(flavor = "multi_thread")]
async fn as_pid_1_it_serves_reaps_orphans_and_ends_with_its_nginx() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    etcd.ctl(Api::V3).put("/services/apache/1", &backend.address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let dest = lab.path().join("other.conf");
    confdir.toml(
        "other",
        &format!(
            "[template]\nsrc = \"nginx.tmpl\"\ndest = \"{}\"\nkeys = [\"/services/apache\"]\n\
             reload_cmd = 'setsid sleep 0.1 & setsid sleep 0.1 &'\n",
            dest.display()
        ),
    );
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx);
    let confsync = confsync.under(&["unshare", "--pid", "--fork", "--mount-proc"]).start();
    confsync.ready().await;
    assert_eq!(nginx.get("/").await.unwrap().body, "one\n");

    let children = |pid: i32| -> Vec<i32> {
        // They are listed by the thread that started or inherited them.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
        lists
            .flat_map(|list| list.split(' ').filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
            .collect()
    };
    let inner = *children(confsync.process().pid()).first().unwrap();
    eventually("nginx is its only child", || async {
        let now = children(inner);
        check(now.len() == 1, || format!("{now:?}"))
    })
    .await;
    kill_process(Pid::from_raw(inner).unwrap(), Signal::TERM).unwrap();
    assert_eq!(confsync.wait_exit().await, Exit::Code(0), "{}", confsync.log());
    nginx.get("/").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    setup.put(2).await;
    let ended = setup.confsync(&lab).arg("--dry-run").arg("--diff").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let line = format!("+server {};", address(2));
    assert!(ended.log.contains(&line), "no {line} in {}", ended.log);
    assert_eq!((setup.text("app.conf"), setup.loads()), (rendered(&[1]), 1));

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!((ended.exit, setup.loads()), (Exit::Code(0), 2), "{}", ended.log);
    let ended = setup.confsync(&lab).arg("--dry-run").arg("--diff").run().await;
    assert!(ended.log.contains("in sync"), "{}", ended.log);
}

/// What a newcomer types first, without any etcd.
#[tokio::test(flavor = "multi_thread")]
async fn init_check_and_render_work_without_etcd() {
    let lab = Lab::new();
    let confdir = lab.path().join("fresh").display().to_string();
    let run = async |words: &[&str]| {
        let words = words
            .iter()
            .fold(Daemon::new(&lab, "confsync", tests::bins::confsync()), |daemon, word| {
                daemon.arg(*word)
            });
        words.flag("--confdir", &confdir).run().await
    };
    let ended = run(&["init"]).await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let ended = run(&["check"]).await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let data = lab.path().join("data.json");
    fs::write(&data, "{\"/services/apache/a\": \"10.1.2.3:7777\"}").unwrap();
    let data = data.display().to_string();
    let ended = run(&["render", "nginx", "--data", &data]).await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert!(ended.log.contains("server 10.1.2.3:7777"), "{}", ended.log);
    // A second time it touches nothing.
    fs::write(format!("{confdir}/conf.d/nginx.toml"), "mine").unwrap();
    let ended = run(&["init"]).await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_eq!(fs::read_to_string(format!("{confdir}/conf.d/nginx.toml")).unwrap(), "mine");
    let ended = run(&["check"]).await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
}
