//! What nginx does with a reload is proven by nginx itself, not by exit codes. Each
//! scenario says which of `docs/hazards.md` it is about.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tests::eventually::check;
use tests::process::Spec;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Load, Nginx, Signal, eventually, within};

/// nginx by name, its template with a port from etcd.
async fn with_a_port_from_etcd(lab: &Lab) -> (Etcd, Nginx, Confdir, Backend) {
    let etcd = Etcd::start(lab).await;
    let backend = Backend::start(lab, "one").await;
    etcd.ctl(Api::V3).put("/services/apache/one", &backend.address().to_string()).await;
    let nginx = Nginx::prepare(lab);
    let confdir = Confdir::tutorial(lab, &nginx);
    confdir.edit("conf.d/nginx.toml", |toml| {
        toml.replace("[\"/services/apache\"]", "[\"/services/apache\", \"/ports\"]")
    });
    confdir.edit("templates/nginx.tmpl", |text| {
        "{{ range gets \"/ports/*\" }}server { listen {{ .Value }}; }\n{{ end }}".to_owned() + &text
    });
    (etcd, nginx, confdir, backend)
}

/// `nginx -t` and `nginx -s reload` both end with 0 here, and nginx runs the old one.
#[tokio::test(flavor = "multi_thread")]
async fn h11_a_port_in_use_is_found_rolled_back_and_reported_in_the_masters_words() {
    let lab = Lab::new();
    let (etcd, nginx, confdir, _backend) = with_a_port_from_etcd(&lab).await;
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    let load = Load::on(nginx.address()).start();
    load.answered("one").await;
    let good = nginx.rendered().unwrap();

    let taken = TcpListener::bind(lab.free()).unwrap();
    let port = taken.local_addr().unwrap();
    etcd.ctl(Api::V3).put("/ports/extra", &port.to_string()).await;
    confsync.logged("Address already in use").await;
    eventually("the previous file is back", || async {
        check(nginx.rendered()? == good, || "not yet".to_owned())
    })
    .await;
    drop(taken);
    within(Duration::from_secs(60), "the port keeps servingce it is free", || async {
        tests::http::get(port, "/").await.map(|_| ())
    })
    .await;
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn h11_an_nginx_that_somebody_starts_later_is_found_live() {
    let lab = Lab::new();
    let (etcd, nginx, confdir, backend) = with_a_port_from_etcd(&lab).await;
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir).start();
    confsync.logged("the proxy is not running").await;
    let place = format!("server {};", backend.address());
    assert!(nginx.rendered().unwrap().contains(&place), "an nginx that starts reads the file");
    assert!(!confsync.notified().iter().any(|line| line == "READY=1"), "nothing is proven");

    let _nginx = nginx.start().await;
    confsync.ready().await;
    assert_eq!(nginx.get("/").await.unwrap().body, "one\n");
}

/// Nothing is live in an nginx that has ended, also while etcd says nothing new.
#[tokio::test(flavor = "multi_thread")]
async fn h11_an_nginx_that_ends_is_not_called_live_and_is_loaded_when_it_is_back() {
    let lab = Lab::new();
    let (etcd, nginx, confdir, _backend) = with_a_port_from_etcd(&lab).await;
    let first = nginx.start().await;
    let place = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", place.to_string()).start();
    confsync.ready().await;
    let live = || async move {
        let state = tests::http::get(place, "/status").await?.body;
        let state: serde_json::Value = serde_json::from_str(&state).map_err(|e| e.to_string())?;
        Ok::<_, String>(state["sets"][0]["live"].clone())
    };
    assert!(live().await.unwrap().is_string());

    nginx.signal(Signal::TERM);
    first.ended(Duration::from_secs(20)).await.unwrap();
    eventually("nothing is called live", || async {
        let live = live().await?;
        check(live.is_null(), || live.to_string())
    })
    .await;
    confsync.logged("the proxy is not running").await;

    let _second = nginx.start().await;
    eventually("what nginx runs is proven again", || async {
        let live = live().await?;
        check(live.is_string(), || live.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h20_several_files_of_one_nginx_are_one_check_and_one_reload() {
    let lab = Lab::new();
    let (etcd, nginx, confdir, _backend) = with_a_port_from_etcd(&lab).await;
    // The second file needs the first: neither passes a check alone.
    let second = nginx.folder().join("sites-enabled/second.conf");
    confdir.edit("conf.d/nginx.toml", |toml| {
        let site = nginx.site().display().to_string();
        let other = toml.replace(&site, &second.display().to_string());
        confdir.toml("second", &other.replace("nginx.tmpl", "second.tmpl"));
        toml
    });
    confdir.template(
        "second.tmpl",
        "{{ range gets \"/ports/*\" }}map $host $extra { default {{ .Value }}; }\n{{ end }}",
    );
    confdir.edit("templates/nginx.tmpl", |text| {
        text.replace("server { listen", "server { add_header X-Extra $extra; listen")
    });
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    let reloads = || nginx.error_log().iter().filter(|line| line.contains("SIGHUP")).count();
    let before = reloads();

    let port = lab.free();
    etcd.ctl(Api::V3).put("/ports/extra", &port.to_string()).await;
    eventually("both files are live", || async {
        let answer = tests::http::get(port, "/").await?;
        let extra = answer.header("x-extra").unwrap_or_default().to_owned();
        check(extra == port.to_string(), || extra.clone())
    })
    .await;
    assert_eq!(reloads() - before, 1, "{:#?}", nginx.error_log());

    // Bad in one of them: neither is touched.
    let (good, good_second) = (nginx.rendered().unwrap(), fs::read_to_string(&second).unwrap());
    etcd.ctl(Api::V3).put("/ports/bad", "nonsense here").await;
    confsync.logged("rejected").await;
    assert_eq!(nginx.rendered().unwrap(), good);
    assert_eq!(fs::read_to_string(&second).unwrap(), good_second);
}

/// A package that upgrades nginx on the fly: for a while the workers of two masters accept, and
/// those of the old one do not see a change.
#[tokio::test(flavor = "multi_thread")]
async fn h11_nothing_is_applied_while_an_old_master_accepts_too() {
    let lab = Lab::new();
    let (etcd, nginx, confdir, one) = with_a_port_from_etcd(&lab).await;
    confdir.edit("conf.d/nginx.toml", |toml| toml + "deadline = \"1s\"\n");
    let two = Backend::start(&lab, "two").await;
    let ctl = etcd.ctl(Api::V3);
    ctl.put("/services/apache/two", &two.address().to_string()).await;
    let confsync = || Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    assert!(confsync().arg("--once").run().await.exit.success());
    // nginx ignores USR2 while the process that started it is its parent.
    let conf = nginx.conf().display().to_string();
    let spec = Spec::new("nginx", "/usr/sbin/nginx", nginx.folder()).args(["-c", &conf]);
    assert!(lab.spawn(spec).ended(Duration::from_secs(20)).await.unwrap().success());
    let confsync = confsync().start();
    confsync.ready().await;
    let lives =
        || confsync.log().lines().filter(|line| line.contains(" configuration is active ")).count();
    let before = lives();
    let old = nginx.master().unwrap();
    nginx.signal(Signal::USR2);
    eventually("a second master with its workers", || async {
        let now = nginx.master();
        let both = now.is_some_and(|pid| pid != old) && nginx.workers().len() == 2;
        check(both, || format!("{now:?}"))
    })
    .await;
    ctl.del("/services/apache/one").await;
    confsync.logged(&format!("(process {old}) accept connections too")).await;
    assert_eq!(lives(), before, "{}", confsync.log());
    kill_process(Pid::from_raw(old).unwrap(), Signal::QUIT).unwrap();
    eventually("it is live when the old master has gone", || async {
        check(lives() > before, || confsync.log())
    })
    .await;
    one.die().await;
    for _ in 0..8 {
        assert_eq!(nginx.get("/").await.unwrap().body, "two\n");
    }
}
