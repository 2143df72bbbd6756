//! The walk of the tutorial: two Apache instances on two machines, on ports 7777 and
//! 8888, their keys and values as it prints them, and nginx in front of both.

use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Load, Nginx, confdir, eventually};

in_both_apis!(two_instances_register_and_nginx_answers_from_both);

async fn two_instances_register_and_nginx_answers_from_both(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let one = Backend::start_at((lab.another_ip(), 7777).into(), "one").await;
    let two = Backend::start_at((lab.another_ip(), 8888).into(), "two").await;

    let sidekick = |of: &Backend| {
        Daemon::register(&lab).backend("apache", of.address()).etcd(&etcd, api).start()
    };
    let (first, second) = (sidekick(&one), sidekick(&two));
    first.ready().await;
    second.ready().await;

    // etcdctl ls --recursive /; v3 has no folders.
    let mut keys = vec![key_of(&one), key_of(&two)];
    if api == Api::V2 {
        keys.extend(["/services".to_owned(), "/services/apache".to_owned()]);
    }
    keys.sort();
    assert_eq!(etcd.ctl(api).ls("/").await, keys);
    for backend in [&one, &two] {
        let value = etcd.ctl(api).get(&key_of(backend)).await;
        assert_eq!(value, Some(format!("{}:{}", backend.ip(), backend.port())));
    }

    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;

    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
    load.answered("two").await;
    load.stop().await.assert_none_failed();
    // What the tutorial looks for in the log at its end.
    for backend in [&one, &two] {
        let text = format!("passed to: {}: GET / HTTP/1.1", backend.address());
        let log = nginx.access_log();
        assert!(log.iter().any(|line| line.contains(&text)), "no `{text}` in {log:#?}");
    }
}

fn key_of(backend: &Backend) -> String {
    format!("/services/apache/{}", backend.ip())
}

in_both_apis!(its_files_work_with_the_two_commands_in_them);

/// nginx runs by itself, as `service nginx start` leaves it; confsync knows it only by
/// `check_cmd` and `reload_cmd`.
async fn its_files_work_with_the_two_commands_in_them(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let one = Backend::start(&lab, "one").await;
    let two = Backend::start(&lab, "two").await;
    let ctl = etcd.ctl(api);
    ctl.put("/services/apache/one", &one.address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial_commands(&lab, &nginx);
    let _nginx = nginx.start().await;

    let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir).start();
    confsync.ready().await;
    eventually("an answer of one", || async {
        let answer = nginx.get("/").await?;
        check(answer.body == "one\n", || answer.body.clone())
    })
    .await;

    ctl.put("/services/apache/two", &two.address().to_string()).await;
    let load = Load::on(nginx.address()).start();
    load.answered("two").await;
    load.stop().await.assert_none_failed();
}

in_both_apis!(the_starter_in_handlebars_serves_the_same);

async fn the_starter_in_handlebars_serves_the_same(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(api);
    let backends = [Backend::start(&lab, "one").await, Backend::start(&lab, "two").await];
    for backend in &backends {
        let key = format!("/services/apache/{}", backend.name());
        ctl.put(&key, &backend.address().to_string()).await;
    }
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::handlebars(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;

    let load = Load::on(nginx.address()).clients(2).start();
    load.answered("one").await;
    load.answered("two").await;
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_template_renders_as_confd_renders_it() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(Api::V3);
    ctl.put("/services/apache/10.132.249.206", "10.132.249.206:8888").await;
    ctl.put("/services/apache/10.132.249.212", "10.132.249.212:7777").await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial_commands(&lab, &nginx);
    confdir.edit("conf.d/nginx.toml", |toml| {
        let rest = toml.lines().filter(|line| !line.contains("_cmd"));
        rest.collect::<Vec<_>>().join("\n")
    });

    let once = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir).arg("--once");
    let ended = once.run().await;
    assert!(ended.exit.success(), "{ended:?}");

    let (before, after) = split_at_range(&confdir::tutorial_tmpl(&nginx));
    let servers =
        "\n    server 10.132.249.206:8888;\n\n    server 10.132.249.212:7777;\n".to_owned();
    assert_eq!(nginx.rendered().unwrap(), before + &servers + &after);
}

/// The template before `{{ range … }}` and behind `{{ end }}`.
fn split_at_range(template: &str) -> (String, String) {
    let (before, rest) = template.split_once("{{ range").unwrap();
    let (_, after) = rest.split_once("{{ end }}").unwrap();
    (before.to_owned(), after.to_owned())
}
