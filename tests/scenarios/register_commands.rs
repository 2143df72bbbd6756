//! The forms of keys and values, the variables of the tutorial, what is a mistake; and
//! `check`, `remove`, `list`.

use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Daemon, Lab, bins, eventually};

use crate::register_setup::{Setup, assert_ended};

in_both_apis!(
    a_json_value_says_all_of_it,
    names_of_keys_are_made_of_host_port_and_hostname,
    the_variables_of_the_tutorial_are_enough,
    only_what_is_ours_is_removed,
    a_list_shows_everybody_with_the_time_left,
);

async fn a_json_value_says_all_of_it(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.sidekick().flag("--value", "json").flag("--weight", "3");
    let sidekick = sidekick.flag("--zone", "a").flag("--meta", "v=2").start();
    sidekick.ready().await;
    let value: serde_json::Value = serde_json::from_str(&setup.now().await.unwrap()).unwrap();
    let wanted = serde_json::json!({
        "addr": setup.value(), "weight": 3, "zone": "a", "meta": {"v": "2"}
    });
    assert_eq!(value, wanted);
}

async fn names_of_keys_are_made_of_host_port_and_hostname(api: Api) {
    let setup = Setup::new(api).await;
    let sidekick = setup.sidekick().flag("--prefix", "/web/live");
    let sidekick = sidekick.flag("--id", "{hostname}-{host}:{port}").start();
    sidekick.ready().await;
    let keys = setup.etcd.ctl(api).ls("/web/live").await;
    let end = format!("-{}", setup.value());
    let found = keys.iter().any(|k| k.starts_with("/web/live/apache/") && k.ends_with(&end));
    assert!(found, "{keys:?}");

    let wrong = setup.sidekick().flag("--id", "{prot}").run().await;
    assert_ended(&wrong, 64, &["--id", "only {host}, {port} and {hostname} are known"]);
}

/// `HOST_IP` and `ETCD_PORT` say where etcd is, `COREOS_PRIVATE_IPV4` where we are.
async fn the_variables_of_the_tutorial_are_enough(api: Api) {
    let setup = Setup::new(api).await;
    let etcd = setup.etcd.address();
    let sidekick = Daemon::register(&setup.lab)
        .flag("--service", "apache")
        .flag("--port", setup.backend.port().to_string())
        .flag("--etcd-api", api.flag())
        .env("COREOS_PRIVATE_IPV4", setup.backend.ip().to_string())
        .env("HOST_IP", etcd.ip().to_string())
        .env("ETCD_PORT", etcd.port().to_string())
        .start();
    sidekick.ready().await;
    assert_eq!(setup.now().await, Some(setup.value()));
}

async fn only_what_is_ours_is_removed(api: Api) {
    let setup = Setup::new(api).await;
    let ctl = setup.etcd.ctl(api);
    let remove = || setup.command("remove").backend("apache", setup.backend.address());
    assert_ended(&remove().run().await, 0, &["is not registered"]);

    ctl.put(&setup.key(), "10.9.9.9:80").await;
    assert_ended(&remove().run().await, 1, &["10.9.9.9:80", "not removed"]);
    assert_eq!(setup.now().await.as_deref(), Some("10.9.9.9:80"));

    ctl.put(&setup.key(), &format!("{{\"addr\":\"{}\",\"weight\":2}}", setup.value())).await;
    assert_ended(&remove().run().await, 0, &["removed"]);
    assert_eq!(setup.now().await, None);

    ctl.put(&setup.key(), "10.9.9.9:80").await;
    let named = || setup.command("remove").arg(setup.key());
    assert_ended(&named().run().await, 64, &["--force"]);
    assert_ended(&named().arg("--force").run().await, 0, &["removed"]);
    assert_eq!(setup.now().await, None);
}

async fn a_list_shows_everybody_with_the_time_left(api: Api) {
    let setup = Setup::new(api).await;
    let list = || setup.command("list");
    let asked = format!("asked by the {} API", api.flag());
    assert_ended(&list().run().await, 0, &["no backends are registered under /services", &asked]);
    let nosuch = list().flag("--service", "nosuch").run().await;
    assert_ended(&nosuch, 0, &["no backends are registered under /services/nosuch"]);
    // etcd keeps the keys of its two APIs apart.
    let other = if api == Api::V3 { Api::V2 } else { Api::V3 };
    setup.etcd.ctl(other).put("/services/apache/10.0.0.1", "10.0.0.1:80").await;
    let there = format!("its {0} API has keys there: --etcd-api {0}", other.flag());
    assert_ended(&list().run().await, 0, &[&there]);
    let _sidekick = setup.started(setup.with_ttl("10m")).await;
    setup.etcd.ctl(api).put("/services/web/broken", "no address").await;

    let table = list().run().await;
    let parts = ["SERVICE", "TTL LEFT", &setup.value(), "unlimited", "rejected: "];
    assert_ended(&table, 0, &parts);

    let json = list().flag("--service", "apache").arg("--json").run().await;
    let rows: serde_json::Value = serde_json::from_str(&json.log).unwrap();
    assert_eq!(rows.pointer("/0/key").unwrap(), &setup.key());
    let left = rows.pointer("/0/ttl_seconds").and_then(serde_json::Value::as_u64);
    assert!(left.is_some_and(|left| (1..=600).contains(&left)), "{rows}");
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
}

/// The weight is set over the sidekick's own socket, and the key never disappears.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_sidekick_takes_another_weight() {
    let setup = Setup::new(Api::V3).await;
    let socket = format!("unix:{}", setup.lab.path().join("s.sock").display());
    let sidekick = setup.sidekick().flag("--value", "json").flag("--listen", &socket).start();
    sidekick.ready().await;
    let watcher = setup.etcd.watch(Api::V3, "/services").await;
    let weight = |more: &[&str]| {
        let mut command = Daemon::new(&setup.lab, "register", bins::register()).arg("weight");
        for word in more {
            command = command.arg(*word);
        }
        command
    };
    let set = weight(&["7", "--listen", &socket]).run().await;
    assert_ended(&set, 0, &["has weight 7 from now on"]);
    eventually("the key has the weight", || async {
        let value = setup.now().await.unwrap_or_default();
        check(value.contains("\"weight\":7"), || value)
    })
    .await;
    let deleted = watcher.events().iter().filter(|event| event.contains("DELETE")).count();
    assert_eq!(deleted, 0);
    for (words, code, says) in [
        (&["700", "--listen", &*socket][..], 64, "from 1 to 256"),
        (&["7"], 64, "--listen is required"),
        (&["7", "--listen", "127.0.0.1:1"], 64, "over a unix socket"),
        (&["7", "--listen", &socket, "--instance", "nosuch"], 1, "no such key here"),
        (&["7", "--listen", "unix:/run/no.sock"], 1, "does it run?"),
    ] {
        assert_ended(&weight(words).run().await, code, &[says]);
    }
    let _ = sidekick.stop().await;
    assert!(!setup.lab.path().join("s.sock").exists(), "the socket stays behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_check_now_by_exit_code_and_in_words() {
    let setup = Setup::new(Api::V3).await;
    let check = || setup.command("check").backend("apache", setup.backend.address());
    assert_ended(&check().run().await, 0, &["pass"]);
    setup.backend.behave(Behaviour::Status(500));
    assert_ended(&check().run().await, 1, &["FAIL", "500"]);
    assert_ended(&check().flag("--check", "tcp").run().await, 0, &["pass", "tcp"]);
    let exec = check().flag("--check", "exec:sh -c 'echo disk full >&2; exit 3'");
    assert_ended(&exec.run().await, 1, &["exit code 3: disk full"]);
}

/// Two backends on one host, told apart by the port in the name.
#[tokio::test(flavor = "multi_thread")]
async fn two_on_one_host_do_not_meet() {
    let setup = Setup::new(Api::V3).await;
    let two = Backend::start(&setup.lab, "two").await;
    let mut sidekicks = Vec::new();
    for backend in [&setup.backend, &two] {
        let sidekick = Daemon::register(&setup.lab).backend("apache", backend.address());
        let sidekick = sidekick.etcd(&setup.etcd, Api::V3).quick();
        sidekicks.push(sidekick.flag("--id", "{host}:{port}").start());
    }
    for sidekick in &sidekicks {
        sidekick.ready().await;
    }
    let _ = sidekicks.remove(0).stop().await;
    let keys = setup.etcd.ctl(Api::V3).ls("/services").await;
    assert_eq!(keys, [format!("/services/apache/{}", two.address())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_before_anything_starts() {
    let lab = Lab::new();
    let good = ["--service", "apache", "--host", "10.0.0.1", "--port", "80"];
    let empty_host = ["--service", "apache", "--host", "", "--port", "80"];
    let empty_port = ["--service", "apache", "--host", "10.0.0.1", "--port", ""];
    let cases: [(&[&str], &[&str], &str); 11] = [
        (&empty_host, &[], "--host is empty; is a variable in the unit file unset?"),
        (&empty_port, &[], "--port is empty; is a variable in the unit file unset?"),
        (&good, &["--check", "http:///health"], "has no host"),
        (&good, &["--ttl", "5s"], "--ttl: 5s is below three probe intervals of 2s"),
        (&good, &["--check", "exec:/nowhere/check"], "`/nowhere/check` cannot be executed"),
        (&good, &["--etcd", ""], "--etcd is empty"),
        (&good, &["--id", "a/b"], "--id"),
        // By the name that was written: etcdctl's, or a former one.
        (&good, &["--etcd", "a:1", "--cert", "/x"], "error: --cert needs --etcd-key as well"),
        (&good, &["--endpoints", ""], "error: --endpoints is empty"),
        (&good, &["--prefix", "/a//b"], "error: --prefix: `/a//b` has an empty"),
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
    assert_ended(&unset.run().await, 64, &["COREOS_PRIVATE_IPV4 (for --host) is empty"]);
    let unset = Daemon::register(&lab).flag("--service", "apache").flag("--host", "10.0.0.1");
    let unset = unset.env("REGISTER_PORT", "");
    assert_ended(&unset.run().await, 64, &["REGISTER_PORT (for --port) is empty"]);
}
