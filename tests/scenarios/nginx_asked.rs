//! What nginx itself would not mind, or only says when it is asked: `check --host` asks it, and an
//! nginx without a master is named.

use std::fs;

use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Nginx, bins, eventually, http};

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_without_a_master_is_named_and_not_waited_for() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let address = backend.address().to_string();
    etcd.ctl(Api::V3).put("/services/apache/one", &address).await;
    let nginx = Nginx::prepare(&lab);
    nginx.write_conf_with("master_process off;\n", "");
    let confdir = Confdir::tutorial(&lab, &nginx);
    let why = "`master_process off`";

    let host = Daemon::new(&lab, "check", bins::confsync()).arg("check").arg("--host");
    let ended = host.confdir(&confdir).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert!(ended.log.contains(why), "{}", ended.log);

    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", status.to_string()).supervising(&nginx).start();
    let says = async |text: &str| {
        eventually(format!("/readyz says `{text}`"), || async {
            let body = http::get(status, "/readyz").await?.body;
            check(body.contains(text), || body.clone())
        })
        .await;
    };
    says(why).await;
    // As soon as it has one, all goes on by itself.
    nginx.write_conf("");
    says("1 backend in rotation").await;
    confsync.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_host_has_nginx_check_what_would_be_installed_and_changes_nothing() {
    let lab = Lab::new();
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let host = || {
        Daemon::new(&lab, "check", bins::confsync()).arg("check").arg("--host").confdir(&confdir)
    };
    let names = || {
        let site = nginx.site();
        let folders = [nginx.folder(), site.parent().unwrap()];
        let entries = folders.into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let data = lab.path().join("data.json");
    fs::write(&data, "{\"/services/apache/one\": \"10.0.0.1:80\"}").unwrap();
    let data = data.display().to_string();
    let with_keys = || host().flag("--data", data.clone());
    let ended = with_keys().run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    // Its log files are nginx's own.
    let before = names();

    confdir.edit("templates/nginx.tmpl", |text| text.replace("proxy_pass ", "proxy_pas "));
    let ended = with_keys().run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    let wanted = format!(
        "nginx: on this machine: [emerg] unknown directive \"proxy_pas\" in {}",
        nginx.site().display()
    );
    assert!(ended.log.contains(&wanted), "{wanted}: {}", ended.log);
    assert_eq!(names(), before);
    assert!(!nginx.site().exists());
}
