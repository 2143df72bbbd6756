//! What people and other programs get wrong. The message says what to do, the exit code
//! is the promised one, and the last good file stays as it was.

use std::fs;

use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Load, Nginx, bins, eventually};

const GOOD: &str = "# the last good file\n";

/// etcd with one backend in it, and an nginx whose file is a good one.
struct Setup {
    etcd: Etcd,
    nginx: Nginx,
    confdir: Confdir,
    _backend: Backend,
}

async fn setup(lab: &Lab) -> Setup {
    let etcd = Etcd::start(lab).await;
    let backend = Backend::start(lab, "one").await;
    let value = backend.address().to_string();
    etcd.ctl(Api::V3).put("/services/apache/one", &value).await;
    let nginx = Nginx::prepare(lab);
    let confdir = Confdir::tutorial(lab, &nginx);
    fs::write(nginx.site(), GOOD).unwrap();
    Setup { etcd, nginx, confdir, _backend: backend }
}

impl Setup {
    fn confsync(&self, lab: &Lab) -> Daemon {
        Daemon::confsync(lab).etcd(&self.etcd, Api::V3).confdir(&self.confdir)
    }
}

#[track_caller]
fn assert_says(log: &str, all: &[&str]) {
    for text in all {
        assert!(log.contains(text), "no `{text}` in:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_with_a_syntax_error_is_named_with_its_line() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    setup.confdir.edit("templates/nginx.tmpl", |text| text.replace("{{ end }}", "{{ edn }}"));

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["templates/nginx.tmpl", "4:4", "\"edn\"", "`end`"]);
    assert_eq!(setup.nginx.rendered().unwrap(), GOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_template_is_named() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    fs::remove_file(setup.confdir.path().join("templates/nginx.tmpl")).unwrap();

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["templates/nginx.tmpl"]);
    assert_eq!(setup.nginx.rendered().unwrap(), GOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_nginx_refuses_is_not_installed() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    setup.confdir.edit("templates/nginx.tmpl", |text| text + "serber { listen 80; }\n");

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["unknown directive", "serber"]);
    assert_eq!(ended.log.matches("unknown directive").count(), 1, "{}", ended.log);
    assert_eq!(setup.nginx.rendered().unwrap(), GOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_nginx_refuses_leaves_it_serving_and_is_got_over() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    let ctl = setup.etcd.ctl(Api::V3);
    // A template that trusts a key which is no backend: what it holds becomes a directive.
    setup.confdir.edit("conf.d/nginx.toml", |toml| {
        toml.replace("[\"/services/apache\"]", "[\"/services/apache\", \"/settings\"]")
    });
    setup.confdir.edit("templates/nginx.tmpl", |text| {
        "{{ range gets \"/settings/*\" }}{{ .Value }}\n{{ end }}".to_owned() + &text
    });
    let confsync = setup.confsync(&lab).supervising(&setup.nginx).start();
    confsync.ready().await;
    let good = setup.nginx.rendered().unwrap();
    let load = Load::on(setup.nginx.address()).start();
    load.answered("one").await;

    ctl.put("/settings/extra", "nonsense on;").await;
    confsync.logged("unknown directive").await;
    assert_eq!(setup.nginx.rendered().unwrap(), good);

    let two = Backend::start(&lab, "two").await;
    ctl.put("/services/apache/two", &two.address().to_string()).await;
    ctl.del("/settings/extra").await;
    load.answered("two").await;
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_value_is_rejected_and_the_others_are_served() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    let ctl = setup.etcd.ctl(Api::V3);
    let trap = lab.path().join("made-by-nginx");
    let poison =
        format!("127.0.0.1:80; }} access_log {}; upstream x {{ server 1.2.3.4:5", trap.display());
    ctl.put("/services/apache/evil", &poison).await;

    let confsync = setup.confsync(&lab).supervising(&setup.nginx).start();
    confsync.ready().await;
    confsync.logged("/services/apache/evil").await;
    eventually("an answer of one", || async {
        let answer = setup.nginx.get("/").await?;
        check(answer.body == "one\n", || answer.body.clone())
    })
    .await;
    assert!(!setup.nginx.rendered().unwrap().contains("1.2.3.4"), "poison in nginx's file");
    assert!(!trap.exists(), "nginx saw the poison");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_key_is_named_and_check_makes_it_an_error() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    setup.confdir.edit("conf.d/nginx.toml", |toml| toml.replace("mode =", "mdoe ="));

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_says(&ended.log, &["nginx.toml", "mdoe", "mode"]);

    let check = Daemon::new(&lab, "confsync check", bins::confsync()).arg("check");
    let ended = check.confdir(&setup.confdir).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["nginx.toml", "mdoe", "mode"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_are_usage_errors() {
    let lab = Lab::new();
    for program in [bins::register(), bins::confsync()] {
        let daemon = Daemon::new(&lab, "usage", program).arg("run").arg("--no-such-flag");
        let ended = daemon.run().await;
        assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
        assert_says(&ended.log, &["--no-such-flag"]);
    }

    let ended = Daemon::register(&lab).flag("--service", "apache").run().await;
    assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
    assert_says(&ended.log, &["--host", "--port"]);

    // A variable that is not set in the unit file.
    let unset = Daemon::register(&lab).flag("--service", "apache").flag("--host", "");
    let ended = unset.flag("--port", "7777").run().await;
    assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
    assert_says(&ended.log, &["--host", "empty"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_not_there_is_named_and_waited_for() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab);
    let backend = Backend::start(&lab, "one").await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);

    let place = etcd.address().to_string();
    let register = Daemon::register(&lab).backend("apache", backend.address());
    let register = register.etcd(&etcd, Api::V3).quick().start();
    let confsync = Daemon::confsync(&lab).confdir(&confdir).etcd(&etcd, Api::V3);
    let confsync = confsync.supervising(&nginx).start();
    register.logged(&place).await;
    confsync.logged(&place).await;

    etcd.up().await;
    register.ready().await;
    confsync.ready().await;
    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_without_etcd_fails_and_leaves_the_file() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    setup.etcd.stop().await;

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &[&setup.etcd.address().to_string()]);
    assert_eq!(setup.nginx.rendered().unwrap(), GOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_says_in_sync_only_of_a_proxy_that_has_a_configuration() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    let setup = Setup { confdir: Confdir::handlebars(&lab, &setup.nginx), ..setup };
    let once = || setup.confsync(&lab).arg("--once");
    let conf = setup.nginx.conf();
    let away = conf.with_extension("away");
    let refuses = async || {
        fs::rename(&conf, &away).unwrap();
        let ended = once().run().await;
        assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
        assert_says(&ended.log, &["[nginx] conf", &conf.display().to_string(), "No such file"]);
        assert!(!ended.log.contains("in sync"), "{}", ended.log);
        fs::rename(&away, &conf).unwrap();
    };
    // Nothing is in place yet, and its folder is not there either.
    let toml = |toml: String, from: &str, to: &str| toml.replace(from, to);
    let (here, nowhere) = (conf.display().to_string(), "/nowhere/nginx.conf");
    setup.confdir.edit("conf.d/nginx.toml", |text| toml(text, &here, nowhere));
    let ended = once().run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["its main file /nowhere/nginx.conf cannot be read: No such file"]);
    assert_eq!(ended.log.lines().count(), 1, "one line for one event: {}", ended.log);
    setup.confdir.edit("conf.d/nginx.toml", |text| toml(text, nowhere, &here));
    // Nothing but the files is there, and their load is pending.
    let ended = once().run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    refuses().await;
    // Nothing is pending, and it does not run.
    fs::write(setup.nginx.site(), GOOD).unwrap();
    let ended = once().arg("--sync-only").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let ended = once().run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_says(&ended.log, &["in place; the proxy is not running"]);
    refuses().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_files_of_one_nginx_the_one_at_fault_is_named() {
    let lab = Lab::new();
    let setup = setup(&lab).await;
    let other = setup.nginx.site().with_file_name("other.conf");
    let dest = format!("dest = \"{}\"", setup.nginx.site().display());
    let toml = fs::read_to_string(setup.confdir.path().join("conf.d/nginx.toml")).unwrap();
    let toml = toml.replace(&dest, &format!("dest = \"{}\"", other.display()));
    setup.confdir.toml("other", &toml.replace("nginx.tmpl", "other.tmpl"));
    setup.confdir.template("other.tmpl", "proxy_cache_path_x y;\n");

    let confsync = setup.confsync(&lab).flag("--name", "lb-1").supervising(&setup.nginx).start();
    confsync.logged("`confsync render other` prints the new one").await;
    let status = || {
        let status = Daemon::new(&lab, "status", bins::confsync()).arg("status");
        status.etcd(&setup.etcd, Api::V3).run()
    };
    eventually("the status names it for both", || async {
        let printed = status().await.log;
        let line =
            |name: &str| printed.lines().find(|line| line.contains(name)).unwrap_or_default();
        let (own, with_it) = (line("  other "), line("  nginx "));
        // As nginx quotes it.
        let reason = "[emerg] unknown directive \"proxy_cache_path_x\"";
        let named = own.contains(&format!(": {reason}"))
            && with_it.contains(&format!("because of other: {reason}"));
        check(named, || printed.clone())
    })
    .await;
    confsync.kill().await;
}
