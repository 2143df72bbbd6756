//! `run -- COMMAND`: an nginx is found whatever starts it, a reload that is due does not keep it
//! from being started, and a program that cannot be notified of a change is not called active.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Load, Nginx, eventually};

use crate::hazards_setup::Setup;

/// A program of the lab's folder, for `/bin/sh`.
fn script(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.path().join(name);
    fs::write(&path, format!("#!/bin/sh\nset -e\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// With `command`, nginx is started by the first good file, takes a change, and ends with us.
async fn follows(etcd: &Etcd, lab: &Lab, nginx: &Nginx, confdir: &Confdir, command: &[String]) {
    let (one, two) = (Backend::start(lab, "one").await, Backend::start(lab, "two").await);
    let ctl = etcd.ctl(Api::V3);
    ctl.put("/services/apache/one", &one.address().to_string()).await;
    let confsync = Daemon::confsync(lab).etcd(etcd, Api::V3).confdir(confdir).arg("--");
    let confsync = command.iter().fold(confsync, |confsync, word| confsync.arg(word)).start();
    confsync.ready().await;
    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
    ctl.put("/services/apache/two", &two.address().to_string()).await;
    load.answered("two").await;
    load.stop().await.assert_none_failed();
    assert_eq!(confsync.stop().await, Exit::Code(0), "{command:?}: {}", confsync.log());
    nginx.get("/").await.unwrap_err();
    ctl.del("/services/apache/two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_is_found_whatever_starts_it() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let nginx = Nginx::prepare(&lab);
    let conf = nginx.conf().display().to_string();
    let own = format!("nginx -c {conf} -g 'daemon off;'");
    let words = |before: &[&str]| -> Vec<String> {
        let before = before.iter().map(|word| (*word).to_owned());
        before.chain(nginx.command()).collect()
    };
    // By its own line alone: neither a table nor a command says that it is an nginx.
    let confdir = Confdir::tutorial(&lab, &nginx);
    confdir.edit("conf.d/nginx.toml", |toml| toml.split("[nginx]").next().unwrap().to_owned());
    for command in [
        words(&[&script(&lab, "entrypoint.sh", "exec \"$@\"")]),
        words(&[&script(&lab, "without-exec.sh", "\"$@\"")]),
        words(&["env", "A=b"]),
        ["sh", "-c", &format!("exec {own}")].map(str::to_owned).to_vec(),
        ["sh", "-c", &format!("{own}; exit $?")].map(str::to_owned).to_vec(),
    ] {
        follows(&etcd, &lab, &nginx, &confdir, &command).await;
    }
    // Nothing in the line says it, a table does.
    let confdir = Confdir::tutorial(&lab, &nginx);
    let command = [script(&lab, "start.sh", &format!("exec {own}"))];
    follows(&etcd, &lab, &nginx, &confdir, &command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_inherits_what_is_ours() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let file = |name: &str| lab.path().join(name);
    let writes = |name: &str| format!("env > {}", file(name).display());
    let confdir = Confdir::empty(&lab);
    let toml = format!("[template]\nsrc = \"t\"\ndest = \"{}\"\n", file("out").display());
    let line = |name: &str| format!("{name}_cmd = \"{}\"\n", writes(name));
    confdir.toml("r", &(toml + &line("check") + &line("reload")));
    confdir.template("t", "text");
    let mut confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir).env("A", "b");
    // The password alone, so that nobody logs in with it; the daemon's own socket is set already.
    for name in ["ETCD_PASSWORD", "ETCDCTL_PASSWORD"] {
        confsync = confsync.env(name, "geheim");
    }
    let child = format!("{}; exec sleep 1000", writes("child"));
    let confsync = confsync.arg("--").arg("sh").arg("-c").arg(child).start();
    confsync.ready().await;
    eventually("all have written", || async {
        ["check", "reload", "child"]
            .iter()
            .all(|name| file(name).exists())
            .then_some(())
            .ok_or("not yet")
    })
    .await;
    for name in ["check", "reload", "child"] {
        let environment = fs::read_to_string(file(name)).unwrap();
        assert!(environment.contains("A=b\n"), "{name}: {environment}");
        for ours in ["geheim", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
            assert!(!environment.contains(ours), "{name} got {ours}: {environment}");
        }
    }
}

/// `nginx -s reload` fails while nginx is not there: the tutorial's commands as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_not_due_to_a_program_that_is_yet_to_be_started() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial_commands(&lab, &nginx);
    follows(&etcd, &lab, &nginx, &confdir, &nginx.command()).await;
}

/// A machine boots before its confdir is there: what an earlier run left is served.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_confdir_nginx_serves_what_is_in_place_until_there_is_one() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let ctl = etcd.ctl(Api::V3);
    ctl.put("/services/apache/one", &one.address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = || Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    assert!(confsync().arg("--once").run().await.exit.success());
    let away = lab.path().join("away");
    fs::rename(confdir.path(), &away).unwrap();

    let confsync = confsync().supervising(&nginx).start();
    confsync.logged("the confdir cannot be used").await;
    eventually("nginx serves", || async { nginx.get("/").await.map(drop) }).await;
    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
    assert!(!confsync.notified().iter().any(|line| line == "READY=1"));
    ctl.put("/services/apache/two", &two.address().to_string()).await;
    fs::rename(&away, confdir.path()).unwrap();
    confsync.ready().await;
    load.answered("two").await;
    load.stop().await.assert_none_failed();
}

/// Another process writes the file: nginx serves what is in place, and the reload group begins
/// when it may. So at the start, and so when the confdir is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_begin_is_tried_again_while_nginx_serves() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let ctl = etcd.ctl(Api::V3);
    ctl.put("/services/apache/one", &one.address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = || Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    assert!(confsync().arg("--once").run().await.exit.success());
    let site = nginx.site();
    let name = format!(".{}.confsync-lock", site.file_name().unwrap().to_string_lossy());
    let writer = fs::File::create(site.with_file_name(name)).unwrap();
    writer.lock().unwrap();

    let confsync = confsync().supervising(&nginx).start();
    confsync.logged("cannot start, retrying").await;
    eventually("nginx serves", || async { nginx.get("/").await.map(drop) }).await;
    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
    assert!(!confsync.notified().iter().any(|line| line == "READY=1"));
    let status = confsync.status().unwrap_or_default();
    assert!(status.contains("cannot start"), "{status}");
    ctl.put("/services/apache/two", &two.address().to_string()).await;
    drop(writer);
    confsync.logged("started after all").await;
    confsync.ready().await;
    load.answered("two").await;

    // Below a file there is no folder.
    confdir.toml(
        "more",
        &format!(
            "[template]\nsrc = \"nginx.tmpl\"\ndest = \"{}/x\"\nreload_cmd = \"true\"\n",
            site.display()
        ),
    );
    confsync.signal(tests::process::Signal::HUP);
    eventually("the new group cannot begin", || async {
        let log = confsync.log();
        let message = log.lines().any(|l| l.contains("cannot ") && l.contains("set=\"more\""));
        tests::eventually::check(message, || log.clone())
    })
    .await;
    ctl.del("/services/apache/one").await;
    load.forget_answers();
    load.answered("two").await;
    load.stop().await.assert_none_failed();
    assert_eq!(confsync.stop().await, Exit::Code(0), "{}", confsync.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_notified_of_a_change_is_not_called_active() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", "");
    setup.put(1).await;
    let started = setup.file("started").display().to_string();
    let text = format!("echo >> {started}\nexec sleep 1000");
    let command = script(&lab, "service.sh", &text);
    let confsync = setup.confsync(&lab).arg("--").arg(command).start();
    confsync.ready().await;
    assert_eq!(setup.text("started").lines().count(), 1);
    setup.put(2).await;
    confsync.logged("no command reloads").await;
    confsync.logged("set a reload_cmd").await;
    // At every change.
    setup.put(3).await;
    eventually("it is logged again", || async {
        let times = confsync.log().matches("no command reloads").count();
        tests::eventually::check(times >= 2, || confsync.log())
    })
    .await;
    let lives =
        confsync.log().lines().filter(|line| line.contains(" configuration is active ")).count();
    assert_eq!(lives, 1, "{}", confsync.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_is_why_a_program_was_not_started() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", "");
    setup.put(1).await;
    let ended = setup.confsync(&lab).arg("--").arg("no-such-program").run().await;
    assert_eq!(ended.exit, Exit::Code(127), "{}", ended.log);
    let last = ended.log.lines().last().unwrap_or_default();
    assert!(last.contains("there is no program `no-such-program`"), "{}", ended.log);
    assert!(!ended.log.contains("ready"), "{}", ended.log);
}
