//! Who comes from confd: its command lines with `confsync` in its place, `confd.toml`, its
//! resources and its fork's, and the subcommands as an operator tries them.

use std::fs;

use tests::daemon::Ended;
use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Load, Nginx, bins, eventually};

/// `confsync` with confd's arguments; the command line is all there is.
fn as_confd(lab: &Lab) -> Daemon {
    Daemon::new(lab, "confsync as confd", bins::confsync())
}

async fn subcommand(lab: &Lab, name: &str, confdir: &Confdir, more: &[&str]) -> Ended {
    let daemon = Daemon::new(lab, name, bins::confsync()).arg(name).confdir(confdir);
    more.iter().fold(daemon, |daemon, word| daemon.arg(*word)).run().await
}

#[track_caller]
fn assert_says(log: &str, all: &[&str]) {
    for text in all {
        assert!(log.contains(text), "no `{text}` in:\n{log}");
    }
}

/// A resource `NAME` of one template, written to `NAME.out` in the lab.
fn resource(lab: &Lab, confdir: &Confdir, name: &str, more: &str, template: &str) -> String {
    let dest = lab.path().join(format!("{name}.out")).display().to_string();
    let head = format!("[template]\nsrc = \"{name}.tmpl\"\ndest = \"{dest}\"\n");
    confdir.toml(name, &(head + more));
    confdir.template(&format!("{name}.tmpl"), template);
    dest
}

in_both_apis!(the_tutorials_two_lines_work_with_confsync_in_confds_place);

async fn the_tutorials_two_lines_work_with_confsync_in_confds_place(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab);
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial_commands(&lab, &nginx);
    let file = confdir.path().join("conf.d/nginx.toml").display().to_string();
    let node = etcd.address().to_string();

    // until confd -onetime …; do sleep 5; done: nothing is there yet, then it is.
    let once = || {
        let confd = as_confd(&lab).arg("-onetime").flag("-node", node.clone());
        confd.flag("-config-file", file.clone()).env("ETCD_API", api.flag())
    };
    let ended = once().run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &[&node]);

    etcd.up().await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let ctl = etcd.ctl(api);
    ctl.put("/services/apache/one", &one.address().to_string()).await;
    // nginx is not there to be reloaded: as with confd, the first run says so and the next
    // finds the file in place.
    let first = once().run().await;
    assert_says(&first.log, &["reload_cmd"]);
    let ended = once().run().await;
    assert!(ended.exit.success(), "{} {}", first.log, ended.log);
    assert_says(&nginx.rendered().unwrap(), &[&one.address().to_string()]);

    // confd -interval 10 … &, then nginx.
    let confd = as_confd(&lab).flag("-interval", "10").flag("-node", node.clone());
    let confd = confd.flag("-config-file", file.clone()).env("ETCD_API", api.flag()).start();
    let _nginx = nginx.start().await;
    confd.ready().await;
    ctl.put("/services/apache/two", &two.address().to_string()).await;
    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
    load.answered("two").await;
    load.stop().await.assert_none_failed();
}

/// A deploy replaces a template or adds a resource; confd sees it at its next pass.
#[tokio::test(flavor = "multi_thread")]
async fn an_interval_reads_templates_and_resources_again() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    etcd.ctl(Api::V3).put("/app/v", "1").await;
    let confdir = Confdir::empty(&lab);
    let keys = "keys = [\"/app\"]\n";
    let dest = resource(&lab, &confdir, "app", keys, "old={{getv \"/app/v\"}}");
    let confd = as_confd(&lab).flag("-interval", "1").flag("-node", etcd.address().to_string());
    let confd = confd.flag("-confdir", confdir.path().display().to_string()).start();
    let shows = |dest: &str, wanted: &'static str| {
        let dest = dest.to_owned();
        eventually(wanted, move || {
            let text = fs::read_to_string(&dest).unwrap_or_default();
            async move { check(text == wanted, || text.clone()) }
        })
    };
    shows(&dest, "old=1").await;
    confdir.template("app.tmpl", "new={{getv \"/app/v\"}}");
    shows(&dest, "new=1").await;
    let other = resource(&lab, &confdir, "other", keys, "other={{getv \"/app/v\"}}");
    shows(&other, "other=1").await;
    // A mistake changes nothing, and is reported once.
    confdir.template("app.tmpl", "{{end}}");
    confd.logged("keeping the current configuration").await;
    etcd.ctl(Api::V3).put("/app/v", "2").await;
    shows(&dest, "new=2").await;
}

/// `-backend etcd` is v2 for confd; where both APIs are served, v3 is read unless data_file otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_found_the_log_names_where_the_keys_are() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    etcd.ctl(Api::V2).put("/services/web/1", "10.0.0.1:80").await;
    etcd.ctl(Api::V3).put("stolon/main", "there").await;
    let confdir = Confdir::empty(&lab);
    let text = "{{range getvs \"/services/web/*\"}}{{.}}{{end}}";
    let dest = resource(&lab, &confdir, "web", "keys = [\"/services/web\"]\n", text);
    resource(&lab, &confdir, "bare", "keys = [\"stolon/main\"]\n", "x");
    let confd = || {
        let confd = as_confd(&lab).arg("-onetime").flag("-backend", "etcd");
        let confd = confd.flag("-node", etcd.address().to_string());
        confd.flag("-confdir", confdir.path().display().to_string())
    };
    let ended = confd().run().await;
    assert_says(&ended.log, &["1 key in its v2 API", "--etcd-api v2", "leading slash"]);
    for confd in [confd().flag("--etcd-api", "v2"), confd().env("ETCD_API", "v2")] {
        let _ = fs::remove_file(&dest);
        let ended = confd.run().await;
        assert!(ended.exit.success(), "{}", ended.log);
        assert_eq!(fs::read_to_string(&dest).unwrap(), "10.0.0.1:80");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flag_of_confd_is_taken_or_refused_by_name() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    etcd.ctl(Api::V3).put("/global/app/port", "80").await;
    let confdir = Confdir::empty(&lab);
    let toml = "keys = [\"/app\"]\nprefix = \"/own\"\nreload_cmd = \"false\"\n";
    let dest = resource(&lab, &confdir, "app", toml, "{{ getv \"/app/port\" }}\n");

    let line = |words: &str| {
        let words = words.replace("NODE", &etcd.address().to_string());
        let words = words.replace("CONFDIR", &confdir.path().display().to_string());
        words.split(' ').fold(as_confd(&lab), |confd, word| confd.arg(word))
    };
    let common = "-backend etcdv3 -node NODE -confdir CONFDIR -prefix global -log-level debug";
    let ended = line(&format!("{common} -onetime -noop")).run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    assert!(fs::metadata(&dest).is_err(), "-noop wrote");

    // Its reload_cmd fails, and is not run.
    let ended = line(&format!("{common} -onetime -sync-only -watch")).run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "80\n");

    // Without -onetime it stays, as confd does.
    fs::remove_file(&dest).unwrap();
    let running = line(&format!("{common} -sync-only -interval 60")).start();
    eventually("the file", || async {
        let text = fs::read_to_string(&dest).unwrap_or_default();
        check(text == "80\n", || format!("{text:?} {}", running.log()))
    })
    .await;
    etcd.ctl(Api::V3).put("/global/app/port", "81").await;
    eventually("the next file", || async {
        let text = fs::read_to_string(&dest).unwrap_or_default();
        check(text == "81\n", || format!("{text:?} {}", running.log()))
    })
    .await;

    for (words, part) in [
        ("-backend consul", "consul"),
        ("-keep-stage-file", "-keep-stage-file"),
        ("-password x", "ETCD_PASSWORD"),
        ("-onetme", "-onetme"),
        ("-node", "value"),
    ] {
        let ended = line(&format!("-onetime {words}")).run().await;
        assert_eq!(ended.exit, Exit::Code(64), "{words}: {}", ended.log);
        assert_says(&ended.log, &[part]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confd_toml_is_read_below_the_environment_and_the_flags() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(Api::V3);
    ctl.put("/file/v", "of the file").await;
    ctl.put("/env/v", "of the environment").await;
    ctl.put("/flag/v", "of the flag").await;
    let confdir = Confdir::empty(&lab);
    let dest = resource(&lab, &confdir, "v", "keys = [\"/v\"]\n", "{{ getv \"/v\" }}");
    let file = confdir.path().join("confd.toml");
    let text = format!(
        "backend = \"etcdv3\"\nnodes = [\"{}\"]\nprefix = \"file\"\ninterval = 600\n\
         log-level = \"debug\"\nclient_cert = \"\"\nsrv_domain = \"\"\ntable = \"x\"\n",
        etcd.address()
    );
    fs::write(&file, &text).unwrap();

    let once = || Daemon::confsync(&lab).arg("--once");
    let ended = once().confdir(&confdir).run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    assert_says(&ended.log, &["`table` means nothing here"]);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "of the file");

    let named = || once().flag("--config-file", file.display().to_string());
    let ended = named().env("CONFSYNC_PREFIX", "/env").run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "of the environment");
    let ended = named().env("CONFSYNC_PREFIX", "/env").flag("--prefix", "/flag").run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "of the flag");

    fs::write(&file, text.replace("etcdv3", "zookeeper")).unwrap();
    let ended = named().run().await;
    assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
    assert_says(&ended.log, &["confd.toml", "zookeeper"]);
}

in_both_apis!(keys_are_there_or_missing_or_empty_as_confd_sees_them);

async fn keys_are_there_or_missing_or_empty_as_confd_sees_them(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(api);
    ctl.put("/own/app/empty", "").await;
    ctl.put("/own/app/here", "x").await;
    ctl.put("/elsewhere/y", "not read").await;
    let confdir = Confdir::empty(&lab);
    let template = "a: '[{{ getv \"/app/empty\" }}][{{ getv \"/app/empty\" \"d\" }}][{{ getv \"/app/no\" \"d\" }}]\
                    [{{ exists \"/app/empty\" }}][{{ exists \"/app/no\" }}][{{ exists \"/elsewhere/y\" }}]\
                    [{{ len (gets \"/app/*\") }}]'";
    let fork = "keys = [\"app\"]\nprefix = \"own/\"\nowner = \"\"\nmode = \"0600\"\ndebounce = \"100ms\"\n\
                min_reload_interval = \"1s\"\noutput_format = \"yaml\"\ncheck_cmd_timeout = \"30s\"\n\
                reload_cmd_timeout = 60\n";
    let dest = resource(&lab, &confdir, "app", fork, template);
    let once = || Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir).arg("--once");
    let ended = once().run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "a: '[][][d][true][false][false][2]'");

    confdir.template("app.tmpl", "{{ getv \"/app/here\" }}\n{{ getv \"/app/no\" }}");
    let ended = once().run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["app.tmpl:2:", "/app/no"]);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "a: '[][][d][true][false][false][2]'");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_all_mistakes_at_once() {
    let lab = Lab::new();
    let confdir = Confdir::empty(&lab);
    resource(&lab, &confdir, "a", "", "{{ range gets \"/*\" }}\n\n\n{{ edn }}\n");
    resource(&lab, &confdir, "b", "mode = \"rw\"\n[backend]\nbackend = \"consul\"\n", "");
    resource(&lab, &confdir, "c", "output_format = \"ini\"\n", "");
    resource(&lab, &confdir, "d", "relod_cmd = \"true\"\n", "");
    let ended = subcommand(&lab, "check", &confdir, &[]).await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(
        &ended.log,
        &["a.tmpl:4:4:", "relod_cmd", "\"edn\"", "`end`", "octal", "consul", "\"ini\""],
    );

    let confdir = Confdir::empty(&lab);
    resource(
        &lab,
        &confdir,
        "x",
        "keys = [\"/v\"]\noutput_format = \"xml\"\n",
        "<a>{{ getv \"/v\" }}</a>",
    );
    let data = lab.path().join("data.json");
    let data_file = data.display().to_string();
    fs::write(&data, "{\"/v\": \"1\"}").unwrap();
    let ended = subcommand(&lab, "check", &confdir, &["--data", &data_file]).await;
    assert!(ended.exit.success(), "{}", ended.log);
    let ended = subcommand(&lab, "render", &confdir, &["x", "--data", &data_file]).await;
    assert_says(&ended.log, &["<a>1</a>"]);
    fs::write(&data, "{\"/v\": \"<\"}").unwrap();
    for (name, more) in
        [("check", ["--data", &data_file].as_slice()), ("render", &["x", "--data", &data_file])]
    {
        let ended = subcommand(&lab, name, &confdir, more).await;
        assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
        assert_says(&ended.log, &["x.tmpl", "output_format = \"xml\"", "1:"]);
    }
    let ended = subcommand(&lab, "render", &confdir, &["y", "--data", &data_file]).await;
    assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
    assert_says(&ended.log, &["`y`", "there are: x"]);
    fs::write(&data, "[1]").unwrap();
    let ended = subcommand(&lab, "check", &confdir, &["--data", &data_file]).await;
    assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
    assert_says(&ended.log, &["data.json", "object of key to value"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let lab = Lab::new();
    let folder = lab.path().join("fresh").display().to_string();
    let init =
        || Daemon::new(&lab, "init", bins::confsync()).arg("init").flag("--confdir", &*folder);
    let ended = init().run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    let check =
        || Daemon::new(&lab, "check", bins::confsync()).arg("check").flag("--confdir", &*folder);
    let ended = check().run().await;
    assert!(ended.exit.success(), "{}", ended.log);

    let toml = format!("{folder}/conf.d/nginx.toml");
    let text = fs::read_to_string(&toml).unwrap();
    assert!(text.starts_with("#:schema ../schema.json\n"), "{text}");
    let schema = fs::read_to_string(format!("{folder}/schema.json")).unwrap();
    let printed = Daemon::new(&lab, "schema", bins::confsync()).arg("schema").run().await;
    assert_eq!(printed.log.trim(), schema.trim());
    // What is right in itself, and would fail here.
    let here = text.replace("/etc/nginx/sites-enabled/", &format!("{folder}/none/"));
    let here = here.replace("/etc/nginx/nginx.conf", &format!("{folder}/nginx.conf"));
    fs::write(&toml, here).unwrap();
    let ended = check().arg("--host").run().await;
    assert!(!ended.exit.success(), "{}", ended.log);
    let dest = format!("on this machine: the folder of dest, {folder}/none, does not exist");
    assert_says(&ended.log, &[&dest, "[nginx] conf: cannot read"]);
    fs::write(&toml, "mine").unwrap();
    let ended = init().run().await;
    assert_says(&ended.log, &["left unchanged"]);
    assert_eq!(fs::read_to_string(&toml).unwrap(), "mine");
}
