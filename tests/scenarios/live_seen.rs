//! What status, metrics and commands say of backends that change without a reload.

use std::net::SocketAddr;

use serde_json::Value;
use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Daemon, Exit, bins, eventually, http};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::live::Scene;

/// The one group of `/status`.
async fn group(status: SocketAddr) -> Result<Value, String> {
    let answer = http::get(status, "/status").await?;
    let document: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
    Ok(document["sets"][0].clone())
}

/// The traffic of one backend, members and those that leave alike.
fn traffic_of(group: &Value, backend: &Backend) -> Option<Value> {
    let addr = backend.address().to_string();
    group["traffic"].as_array()?.iter().find(|member| member["addr"] == *addr).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn driver_and_traffic_are_shown_and_a_drain_says_how_many_requests_it_waits_for() {
    let Some(scene) = Scene::new("").await else { return };
    let status = scene.lab.free();
    let (one, sidekick) = scene.join("one").await;
    let confsync = scene.confsync().flag("--listen", status.to_string());
    let confsync = confsync.supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    let (two, _sidekick_two) = scene.join("two").await;
    scene.answers("two").await;
    for _ in 0..20 {
        assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
    }

    let shown = eventually("every request is shown", || async {
        let group = group(status).await?;
        let requests: u64 =
            [&one, &two].iter().filter_map(|b| traffic_of(&group, b)?["requests"].as_u64()).sum();
        check(requests >= 22, || group["traffic"].to_string())?;
        Ok::<_, String>(group)
    })
    .await;
    assert_eq!(shown["driver"], "nginx-lua", "{shown}");
    let changes = shown["loads"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["reload"] == true), "{changes:?}");
    assert!(changes.iter().any(|change| change["reload"] == false), "{changes:?}");
    let table = Daemon::new(&scene.lab, "confsync status", bins::confsync()).arg("status");
    let table = table.etcd(&scene.etcd, Api::V3).run().await;
    assert!(table.log.contains("DRIVER") && table.log.contains("nginx-lua"), "{}", table.log);

    // One request hangs at a backend that leaves.
    one.behave(Behaviour::Hang);
    two.behave(Behaviour::Hang);
    let mut clients = Vec::new();
    while one.in_flight() == 0 {
        let mut client = TcpStream::connect(scene.nginx.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        clients.push(client);
        let all = clients.len();
        eventually("it has arrived", || async {
            check(one.in_flight() + two.in_flight() >= all, || "not yet".to_owned())
        })
        .await;
    }
    sidekick.signal(tests::Signal::TERM);
    eventually("the drain waits for one request", || async {
        let group = group(status).await?;
        let of = traffic_of(&group, &one).unwrap_or_default();
        let waits = of["leaving"] == true && of["in_flight"] == one.in_flight();
        check(waits, || group["traffic"].to_string())
    })
    .await;
    let metrics = http::get(status, "/metrics").await.unwrap().body;
    let wanted = format!(
        "confsync_backend_in_flight{{set=\"app\",pool=\"apache\",addr=\"{}\"}} {}",
        one.address(),
        one.in_flight()
    );
    assert!(metrics.contains(&wanted), "{metrics}");
    assert!(metrics.contains("confsync_driver{set=\"app\",driver=\"nginx-lua\"} 1"), "{metrics}");
    drop(clients);
    assert_eq!(sidekick.wait_exit().await, Exit::Code(0), "{}", sidekick.log());
    eventually("nothing of it is left", || async {
        let group = group(status).await?;
        check(traffic_of(&group, &one).is_none(), || group["traffic"].to_string())
    })
    .await;
}

/// A choice that nginx alone can make stays nginx's: the page shows what needs a reload, and why.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_cannot_change_is_shown_with_the_reason() {
    let Some(scene) = Scene::new("").await else { return };
    let status = scene.lab.free();
    let (_one, _sidekick) = scene.join("one").await;
    scene.confdir.edit("templates/app.hbs", |text| text.replace("keepalive 16", "ip_hash"));
    let confsync = scene.confsync().flag("--listen", status.to_string());
    let confsync = confsync.supervising(&scene.nginx).start();
    confsync.ready().await;
    let why = "`ip_hash` cannot be combined with changes without a reload";
    let shown = group(status).await.unwrap();
    assert_eq!(
        (shown["driver"].as_str(), shown["driver_reason"].as_str()),
        (Some("reload"), Some(why))
    );
    let every = format!("every change of backends needs a reload: {why}");
    confsync.logged(&every).await;
    let table = Daemon::new(&scene.lab, "confsync status", bins::confsync()).arg("status");
    let table = table.etcd(&scene.etcd, Api::V3).run().await;
    assert!(table.log.contains(&every), "{}", table.log);

    // Lines that the operator puts into an upstream are nginx's own.
    scene.confdir.edit("templates/app.hbs", |text| {
        let (_, rest) = text.split_once("{{/upstream}}").unwrap();
        format!("upstream apache {{ {{{{servers \"apache\"}}}} }}{rest}")
    });
    confsync.signal(tests::Signal::HUP);
    eventually("the word that would be needed is named", || async {
        let group = group(status).await?;
        let is = group["driver_reason"] == "no template uses `upstream`";
        check(is && group["in_sync"] == true, || group["driver_reason"].to_string())
    })
    .await;

    // Both, side by side.
    scene.confdir.edit("templates/app.hbs", |text| {
        let both = "{{#upstream \"apache\"}}{{/upstream}}\nupstream mine {";
        text.replace("upstream apache {", both)
    });
    confsync.signal(tests::Signal::HUP);
    eventually("what is written as it is needs a reload", || async {
        let group = group(status).await?;
        let is = group["driver"] == "nginx-lua"
            && group["driver_reason"] == "a change of what `servers` writes needs a reload";
        check(is, || group["driver_reason"].to_string())
    })
    .await;

    // Beside one that it can change.
    scene.confdir.edit("templates/app.hbs", |text| {
        let (_, rest) = text.split_once(" }\n").unwrap();
        format!("{{{{#upstream \"apache\"}}}} ip_hash; {{{{/upstream}}}}\n{rest}")
    });
    scene.confdir.edit("conf.d/app.toml", |text| {
        text.replace("\"/services/apache\"", "\"/services/apache\", \"/services/other\"")
    });
    scene.confdir.edit("templates/app.hbs", |text| {
        format!("{{{{#upstream \"other\"}}}}{{{{/upstream}}}}\n{text}")
    });
    confsync.signal(tests::Signal::HUP);
    eventually("one of two is changed without a reload", || async {
        let group = group(status).await?;
        let is = group["driver"] == "nginx-lua"
            && group["driver_reason"] == format!("a change of apache needs a reload: {why}");
        check(is, || format!("{} {}", group["driver"], group["driver_reason"]))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_is_shown_as_ejected() {
    let Some(scene) = Scene::new("max_fails = 2\nfail_timeout = \"1h\"\n").await else { return };
    let status = scene.lab.free();
    let (_one, _sidekick) = scene.join("one").await;
    let dead = Backend::start_at((scene.lab.another_ip(), 8080).into(), "dead").await;
    dead.die().await;
    let key = "/services/apache/dead";
    scene.etcd.ctl(Api::V3).put(key, &dead.address().to_string()).await;
    let confsync = scene.confsync().flag("--listen", status.to_string());
    let confsync = confsync.supervising(&scene.nginx).start();
    confsync.ready().await;
    eventually("it is ejected", || async {
        assert_eq!(scene.nginx.get("/").await?.status, 200);
        let group = group(status).await?;
        let of = traffic_of(&group, &dead).unwrap_or_default();
        let counted = of["ejected"] == true && of["failures"] == 2 && of["requests"] == 2;
        check(counted, || group["traffic"].to_string())
    })
    .await;
    let text = scene.nginx.rendered().unwrap();
    assert!(text.contains("max_fails=2 fail_timeout=3600s;"), "{text}");
}
