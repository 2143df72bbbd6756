//! Backends that join, change and leave without a reload, from the key in etcd to nginx's
//! workers.

use std::time::Duration;

use tests::daemon::Running;
use tests::eventually::check;
use tests::nginx::load_lua;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Load, Nginx, Signal, eventually};

const TEMPLATE: &str = "{{#upstream \"apache\"}}
    keepalive 16;
{{/upstream}}
server {
    listen ADDRESS;
    location / {
        proxy_pass http://apache;
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        proxy_next_upstream error timeout;
    }
}
";

pub(crate) struct Scene {
    // Fields are dropped in this order.
    pub(crate) nginx: Nginx,
    pub(crate) confdir: Confdir,
    pub(crate) etcd: Etcd,
    pub(crate) lab: Lab,
}

impl Scene {
    /// An nginx with the Lua module; `None`, and says so, where there is none.
    pub(crate) async fn new(more: &str) -> Option<Self> {
        let Some(load) = load_lua() else {
            tests::skip::skip("there is no libnginx-mod-http-lua here");
            return None;
        };
        let scene = Self::plain(more).await;
        scene.nginx.write_conf_with(&load, "");
        Some(scene)
    }

    /// An nginx as it comes, and a resource with `more` in its `[nginx]` table.
    pub(crate) async fn plain(more: &str) -> Self {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let nginx = Nginx::prepare(&lab);
        let confdir = Confdir::empty(&lab);
        confdir.toml(
            "app",
            &format!(
                "[template]\nsrc = \"app.hbs\"\ndest = \"{}\"\nkeys = [\"/services/apache\"]\n\
                 on_empty = \"render\"\n[nginx]\nconf = \"{}\"\npid_file = \"{}\"\n\
                 live_dir = \"{}\"\n{more}",
                nginx.site().display(),
                nginx.conf().display(),
                nginx.pid_file().display(),
                lab.folder("live").display(),
            ),
        );
        let text = TEMPLATE.replace("ADDRESS", &nginx.address().to_string());
        confdir.template("app.hbs", &text);
        Self { nginx, confdir, etcd, lab }
    }

    pub(crate) fn confsync(&self) -> Daemon {
        let confsync = Daemon::confsync(&self.lab).etcd(&self.etcd, Api::V3);
        confsync.confdir(&self.confdir)
    }

    pub(crate) async fn join(&self, name: &str) -> (Backend, Running) {
        let at = (self.lab.another_ip(), 8080).into();
        let backend = Backend::start_at(at, name).await;
        let sidekick = Daemon::register(&self.lab).named(&format!("sidekick of {name}"));
        let sidekick = sidekick.backend("apache", at).etcd(&self.etcd, Api::V3).quick().start();
        sidekick.ready().await;
        (backend, sidekick)
    }

    pub(crate) async fn answers(&self, body: &str) {
        eventually(format!("{body} answers"), || async {
            let answer = self.nginx.get("/").await?;
            check(answer.body.trim() == body, || format!("{} {}", answer.status, answer.body))
        })
        .await;
    }

    pub(crate) fn workers(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.nginx.workers().iter().map(|worker| worker.pid).collect();
        pids.sort_unstable();
        pids
    }

    async fn put(&self, backend: &Backend, weight: u16) {
        let value = format!("{{\"addr\":\"{}\",\"weight\":{weight}}}", backend.address());
        self.etcd.ctl(Api::V3).put(&format!("/services/apache/{}", backend.name()), &value).await;
    }
}

fn reloads(log: &str) -> usize {
    log.lines().filter(|line| line.contains("configuration is active")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_join_change_and_leave_without_a_reload_and_nothing_is_lost() {
    let Some(scene) = Scene::new("").await else { return };
    let (_one, _sidekick_one) = scene.join("one").await;
    let (two, sidekick_two) = scene.join("two").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    let workers = scene.workers();
    let load = Load::on(scene.nginx.address()).clients(4).keep_alive().start();
    load.answered("one").await;
    load.answered("two").await;

    let (three, sidekick_three) = scene.join("three").await;
    load.answered("three").await;
    // A key of one's own may have any weight; the same backend twice is two shares.
    let four = Backend::start_at((scene.lab.another_ip(), 8080).into(), "four").await;
    for weight in [1, 7, 3] {
        scene.put(&four, weight).await;
        eventually("the weight is in the file", || async {
            let text = scene.nginx.rendered()?;
            let weight = if weight == 1 { String::new() } else { format!(" weight={weight}") };
            check(text.contains(&format!("server {}{weight};", four.address())), || text)
        })
        .await;
    }
    load.answered("four").await;

    // Slow answers are in flight while it leaves; the drain waits for them, and is confirmed.
    two.take(Duration::from_millis(300));
    load.more(50).await;
    assert_eq!(sidekick_two.stop().await.to_string(), "exit code 0", "{}", sidekick_two.log());
    two.die().await;
    assert!(sidekick_three.stop().await.success(), "{}", sidekick_three.log());
    three.die().await;
    load.more(200).await;
    load.stop().await.assert_none_failed();

    assert_eq!(scene.workers(), workers, "no worker is new:\n{}", confsync.log());
    let log = confsync.log();
    assert!(log.contains("backends change without a reload"), "{log}");
    assert!(log.matches("members changed without a reload").count() >= 5, "{log}");
    eventually("the file has who is left", || async {
        let text = scene.nginx.rendered()?;
        let gone = [&two, &three].iter().all(|b| !text.contains(&b.address().to_string()));
        check(gone, || text)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_set_answers_503_and_a_change_of_the_template_is_a_reload() {
    let Some(scene) = Scene::new("live = \"lua\"\n").await else { return };
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    let answer = scene.nginx.get("/").await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.header("retry-after"), Some("5"));
    let workers = scene.workers();
    let (one, sidekick) = scene.join("one").await;
    scene.answers("one").await;
    assert_eq!(scene.workers(), workers);

    scene.confdir.edit("templates/app.hbs", |text| text.replace("keepalive 16", "keepalive 17"));
    confsync.signal(Signal::HUP);
    eventually("new workers", || async {
        let now = scene.workers();
        check(!now.is_empty() && now.iter().all(|pid| !workers.contains(pid)), || {
            format!("{now:?}")
        })
    })
    .await;
    scene.answers("one").await;
    assert!(sidekick.stop().await.success(), "{}", sidekick.log());
    one.die().await;
    eventually("nobody is left", || async {
        let answer = scene.nginx.get("/").await?;
        check(answer.status == 503, || answer.status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_module_and_where_it_is_not_wanted_every_change_is_a_reload() {
    let scene = Scene::plain("").await;
    let (_one, _sidekick) = scene.join("one").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    let log = confsync.log();
    assert!(log.contains("every change of backends needs a reload"), "{log}");
    assert!(log.contains("nginx has no Lua module"), "{log}");
    let (_two, _sidekick_two) = scene.join("two").await;
    scene.answers("two").await;
    assert_eq!(confsync.log().matches("members changed").count(), 0);
    assert!(confsync.stop().await.success());

    let Some(scene) = Scene::new("live = \"off\"\n").await else { return };
    let (one, _sidekick) = scene.join("one").await;
    let confsync = scene.confsync().supervising(&scene.nginx).start();
    confsync.ready().await;
    scene.answers("one").await;
    let text = scene.nginx.rendered().unwrap();
    let plain =
        format!("upstream apache {{\n    server {};\n    keepalive 16;\n}}\n", one.address());
    assert!(text.starts_with(&plain), "{text}");
    assert!(reloads(&confsync.log()) >= 1, "{}", confsync.log());
}

/// An nginx that is not our child: confsync is killed, nginx is restarted meanwhile, then killed.
#[tokio::test(flavor = "multi_thread")]
async fn the_members_are_right_after_any_process_is_killed() {
    let Some(scene) = Scene::new("").await else { return };
    let nginx = scene.nginx.start().await;
    let (one, sidekick_one) = scene.join("one").await;
    let confsync = scene.confsync().start();
    confsync.ready().await;
    scene.answers("one").await;
    let (_two, _sidekick_two) = scene.join("two").await;
    assert!(sidekick_one.stop().await.success(), "{}", sidekick_one.log());
    one.die().await;
    scene.answers("two").await;

    confsync.kill().await;
    nginx.signal(Signal::TERM);
    assert!(nginx.ended(Duration::from_secs(10)).await.unwrap().success());
    let nginx = scene.nginx.start().await;
    // Only the table and the file show it.
    scene.answers("two").await;

    let confsync = scene.confsync().start();
    confsync.ready().await;
    let workers = scene.nginx.workers();
    nginx.kill().await;
    for worker in workers {
        let pid = rustix::process::Pid::from_raw(worker.pid).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    // The sockets that it left would keep the next one from starting.
    confsync.logged("removed a socket that a killed nginx left").await;
    let _nginx = scene.nginx.start().await;
    let (_three, _sidekick_three) = scene.join("three").await;
    scene.answers("three").await;
    scene.answers("two").await;
}
