//! The page at `/` of confsync when something is wrong, or a backend has requests: traffic of a
//! driver, whom a drain waits for, a loss that is retained and how it is accepted, a service
//! without backends, a rejected file.
//!
//! `PAGE_SCREENSHOTS=DIR` keeps pictures of it.

use tests::{Api, Backend, Behaviour, Browser, Confdir, Daemon, Etcd, Lab, Load, Nginx, Signal};

use crate::live;
use crate::page_states::{Scene, load_reaches};

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_backend_and_those_that_a_drain_waits_for() {
    let Some(scene) = live::Scene::new("").await else { return };
    let Some(browser) = Browser::start(&scene.lab).await else { return };
    let mut page = Scene::new(browser);
    let status = scene.lab.free();
    let one = Backend::start_at((scene.lab.another_ip(), 8080).into(), "one").await;
    let two = Backend::start_at((scene.lab.another_ip(), 8080).into(), "two").await;
    let sidekick = |of: &Backend| {
        let register = Daemon::register(&scene.lab).backend("apache", of.address());
        register.flag("--check", "none").etcd(&scene.etcd, Api::V3).start()
    };
    let (first, second) = (sidekick(&one), sidekick(&two));
    first.ready().await;
    second.ready().await;
    let confsync = scene.confsync().flag("--name", "edge-1").flag("--listen", status.to_string());
    let confsync = confsync.supervising(&scene.nginx).start();
    confsync.ready().await;
    page.open(status).await;
    page.shows("2 backends in rotation").await;
    page.shows("Backends change without a reload (nginx-lua)").await;
    let backends = [one, two];
    backends.iter().for_each(|backend| backend.behave(Behaviour::Hang));
    let load = Load::on(scene.nginx.address()).clients(8).start();
    load_reaches(&backends).await;
    page.shows(" in flight").await;

    first.signal(Signal::TERM);
    page.shows(&format!("{} of apache", backends[0].address())).await;
    page.browser.shows("/waiting[^]*\\d requests? here/.test(document.body.innerText)").await;
    page.looks_right("traffic").await;
    backends.iter().for_each(|backend| backend.behave(Behaviour::Healthy));
    drop(load);
}

/// What the command that the page shows does.
async fn run(words: &str, lab: &Lab, etcd: &Etcd) -> String {
    let mut words = words.split(' ');
    assert_eq!(words.next(), Some("confsync"));
    let command = Daemon::new(lab, "the command", tests::bins::confsync());
    let command = words.fold(command, Daemon::arg).etcd(etcd, Api::V3);
    command.run().await.log
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_the_command_that_goes_on() {
    let lab = Lab::new();
    let Some(browser) = Browser::start(&lab).await else { return };
    let mut page = Scene::new(browser);
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(Api::V3);
    let mut backends = Vec::new();
    for n in ["1", "2", "3"] {
        let backend = Backend::start(&lab, n).await;
        ctl.put(&format!("/services/apache/{n}"), &backend.address().to_string()).await;
        backends.push(backend);
    }
    ctl.put("/services/cart/1", &backends[0].address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    confdir.edit("conf.d/nginx.toml", |toml| {
        toml.replace("\"/services/apache\"", "\"/services/apache\", \"/services/cart\"")
    });
    confdir.edit("templates/nginx.tmpl", |text| {
        // nginx takes no upstream without servers.
        let text = text
            .replace("upstream apache_pool {", "upstream apache_pool {\nserver 127.0.0.1:1 down;");
        text + "# {{ range getvs \"/services/cart/*\" }}{{ . }} {{ end }}\n"
    });
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--name", "edge-1").flag("--listen", status.to_string());
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    page.open(status).await;
    page.shows("4 backends in rotation").await;

    let _ = ctl.run(&["del", "--prefix", "/services/apache/"]).await.ok();
    page.shows("3 backends retained").await;
    page.shows("3 backends of apache are retained: absent from etcd").await;
    page.looks_right("retained").await;
    let command = page.browser.eval("document.querySelector('.command code').textContent").await;
    assert_eq!(command, "confsync accept nginx");
    let said = run(command.as_str().unwrap(), &lab, &etcd).await;
    page.shows("1 backend in rotation").await;
    assert!(said.contains("accepted"), "{said}");
    page.shows("No backend of apache is in rotation.").await;
    page.looks_right("emptied").await;

    confdir.edit("templates/nginx.tmpl", |text| text.replace("proxy_pass ", "proxy_pas "));
    confsync.signal(Signal::HUP);
    page.shows("The newest change is not applied").await;
    page.shows("Served instead: the previous configuration, of revision ").await;
    page.looks_right("refused").await;
    let command = page.browser.eval("document.querySelector('.command code').textContent").await;
    let said = run(command.as_str().unwrap(), &lab, &etcd).await;
    assert!(said.contains("proxy_pas "), "{command}: {said}");
}
