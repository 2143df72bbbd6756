//! The forms of keys and values, the variables of the tutorial, what is a mistake; and
//! `check`, `remove`, `list`.

use tests::{Api, Backend, Behaviour, Daemon, Lab};

use crate::register_scene::{Scene, assert_ended};

in_both_apis!(
    a_json_value_says_all_of_it,
    names_of_keys_are_made_of_host_port_and_hostname,
    the_variables_of_the_tutorial_are_enough,
    only_what_is_ours_is_removed,
    a_list_shows_everybody_with_the_time_left,
);

async fn a_json_value_says_all_of_it(api: Api) {
    let scene = Scene::new(api).await;
    let sidekick = scene.sidekick().flag("--value", "json").flag("--weight", "3");
    let sidekick = sidekick.flag("--zone", "a").flag("--meta", "v=2").start();
    sidekick.ready().await;
    let value: serde_json::Value = serde_json::from_str(&scene.now().await.unwrap()).unwrap();
    let wanted = serde_json::json!({
        "addr": scene.value(), "weight": 3, "zone": "a", "meta": {"v": "2"}
    });
    assert_eq!(value, wanted);
}

async fn names_of_keys_are_made_of_host_port_and_hostname(api: Api) {
    let scene = Scene::new(api).await;
    let sidekick = scene.sidekick().flag("--prefix", "/web/live");
    let sidekick = sidekick.flag("--id", "{hostname}-{host}:{port}").start();
    sidekick.ready().await;
    let keys = scene.etcd.ctl(api).ls("/web/live").await;
    let end = format!("-{}", scene.value());
    let found = keys.iter().any(|k| k.starts_with("/web/live/apache/") && k.ends_with(&end));
    assert!(found, "{keys:?}");

    let wrong = scene.sidekick().flag("--id", "{prot}").run().await;
    assert_ended(&wrong, 64, &["--id", "only {host}, {port} and {hostname} are known"]);
}

/// `HOST_IP` and `ETCD_PORT` say where etcd is, `COREOS_PRIVATE_IPV4` where we are.
async fn the_variables_of_the_tutorial_are_enough(api: Api) {
    let scene = Scene::new(api).await;
    let etcd = scene.etcd.address();
    let sidekick = Daemon::register(&scene.lab)
        .flag("--service", "apache")
        .flag("--port", scene.backend.port().to_string())
        .flag("--etcd-api", api.flag())
        .env("COREOS_PRIVATE_IPV4", scene.backend.ip().to_string())
        .env("HOST_IP", etcd.ip().to_string())
        .env("ETCD_PORT", etcd.port().to_string())
        .start();
    sidekick.ready().await;
    assert_eq!(scene.now().await, Some(scene.value()));
}

async fn only_what_is_ours_is_removed(api: Api) {
    let scene = Scene::new(api).await;
    let ctl = scene.etcd.ctl(api);
    let remove = || scene.command("remove").backend("apache", scene.backend.address());
    assert_ended(&remove().run().await, 0, &["is not registered"]);

    ctl.put(&scene.key(), "10.9.9.9:80").await;
    assert_ended(&remove().run().await, 1, &["10.9.9.9:80", "left alone"]);
    assert_eq!(scene.now().await.as_deref(), Some("10.9.9.9:80"));

    ctl.put(&scene.key(), &format!("{{\"addr\":\"{}\",\"weight\":2}}", scene.value())).await;
    assert_ended(&remove().run().await, 0, &["removed"]);
    assert_eq!(scene.now().await, None);
}

async fn a_list_shows_everybody_with_the_time_left(api: Api) {
    let scene = Scene::new(api).await;
    let list = || scene.command("list");
    assert_ended(&list().run().await, 0, &["nobody is registered under /services"]);
    let _sidekick = scene.started(scene.with_ttl("10m")).await;
    scene.etcd.ctl(api).put("/services/web/broken", "no address").await;

    let table = list().run().await;
    let parts = ["SERVICE", "TTL LEFT", &scene.value(), "for ever", "refused: "];
    assert_ended(&table, 0, &parts);

    let json = list().flag("--service", "apache").arg("--json").run().await;
    let rows: serde_json::Value = serde_json::from_str(&json.log).unwrap();
    assert_eq!(rows.pointer("/0/key").unwrap(), &scene.key());
    let left = rows.pointer("/0/ttl_seconds").and_then(serde_json::Value::as_u64);
    assert!(left.is_some_and(|left| (1..=600).contains(&left)), "{rows}");
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_check_now_by_exit_code_and_in_words() {
    let scene = Scene::new(Api::V3).await;
    let check = || scene.command("check").backend("apache", scene.backend.address());
    assert_ended(&check().run().await, 0, &["pass"]);
    scene.backend.behave(Behaviour::Status(500));
    assert_ended(&check().run().await, 1, &["FAIL", "500"]);
    assert_ended(&check().flag("--check", "tcp").run().await, 0, &["pass", "tcp"]);
    let exec = check().flag("--check", "exec:sh -c 'echo disk full >&2; exit 3'");
    assert_ended(&exec.run().await, 1, &["exit code 3: disk full"]);
}

/// Two backends on one host, told apart by the port in the name.
#[tokio::test(flavor = "multi_thread")]
async fn two_on_one_host_do_not_meet() {
    let scene = Scene::new(Api::V3).await;
    let two = Backend::start(&scene.lab, "two").await;
    let mut sidekicks = Vec::new();
    for backend in [&scene.backend, &two] {
        let sidekick = Daemon::register(&scene.lab).backend("apache", backend.address());
        let sidekick = sidekick.etcd(&scene.etcd, Api::V3).quick();
        sidekicks.push(sidekick.flag("--id", "{host}:{port}").start());
    }
    for sidekick in &sidekicks {
        sidekick.ready().await;
    }
    let _ = sidekicks.remove(0).stop().await;
    let keys = scene.etcd.ctl(Api::V3).ls("/services").await;
    assert_eq!(keys, [format!("/services/apache/{}", two.address())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_before_anything_starts() {
    let lab = Lab::new();
    let good = ["--service", "apache", "--host", "10.0.0.1", "--port", "80"];
    let empty_host = ["--service", "apache", "--host", "", "--port", "80"];
    let empty_port = ["--service", "apache", "--host", "10.0.0.1", "--port", ""];
    let cases: [(&[&str], &[&str], &str); 8] = [
        (
            &empty_host,
            &[],
            "--host: is empty; is a variable in the unit file, such as $COREOS_PRIVATE_IPV4,",
        ),
        (&empty_port, &[], "--port: is empty; is a variable in the unit file unset?"),
        (&good, &["--check", "http:///health"], "has no host"),
        (&good, &["--ttl", "5s"], "--ttl: 5s is below three probe intervals of 2s"),
        (&good, &["--check", "exec:/nowhere/check"], "`/nowhere/check` cannot be executed"),
        (&good, &["--etcd", ""], "--etcd (or $ETCD_ENDPOINTS) is empty"),
        (&good, &["--id", "a/b"], "--id"),
        (&good, &["--host", "0.0.0.0"], "cannot be used multiple times"),
    ];
    for (flags, more, says) in cases {
        let mut run = Daemon::register(&lab);
        for flag in flags.iter().chain(more) {
            run = run.arg(*flag);
        }
        assert_ended(&run.run().await, 64, &[says]);
    }

    let unset = Daemon::register(&lab).flag("--service", "apache").flag("--port", "80");
    let unset = unset.env("COREOS_PRIVATE_IPV4", "");
    assert_ended(&unset.run().await, 64, &["COREOS_PRIVATE_IPV4 (for --host): is empty"]);
    let unset = Daemon::register(&lab).flag("--service", "apache").flag("--host", "10.0.0.1");
    let unset = unset.env("REGISTER_PORT", "");
    assert_ended(&unset.run().await, 64, &["REGISTER_PORT (for --port): is empty"]);
}
