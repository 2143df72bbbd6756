//! The real HAProxy, known by name: checked with all its files, reloaded by its master, and
//! proven by its workers.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use tests::daemon::Running;
use tests::eventually::check;
use tests::process::{Process, Spec};
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Load, Signal, eventually, http};

const MAIN: &str = "global
    hard-stop-after 60s
    stats socket HERE/admin.sock level admin
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
";

const TEMPLATE: &str = r#"frontend web
    bind LISTEN
    {{ range gets "/settings/*" }}{{ .Value }}
    {{ end }}
    default_backend apache
backend apache
    balance roundrobin
{{ range gets "/services/apache/*" }}    server {{ base .Key }} {{ .Value }}
{{ end }}"#;

/// HAProxy with a master, of a file of its own and one that confsync writes.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) etcd: Etcd,
    backends: [Backend; 2],
    sidekicks: [Running; 2],
    pub(crate) listen: SocketAddr,
    confdir: Confdir,
}

impl Site {
    pub(crate) async fn prepare() -> Self {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let backends = [Backend::start(&lab, "one").await, Backend::start(&lab, "two").await];
        let sidekicks = backends.each_ref().map(|of| {
            let register = Daemon::register(&lab).backend("apache", of.address());
            // The backends take their time, also for probes: no failure of one may count here.
            register.etcd(&etcd, Api::V3).flag("--id", of.name()).patient().start()
        });
        for sidekick in &sidekicks {
            sidekick.ready().await;
        }
        let (listen, confdir) = (lab.free(), Confdir::empty(&lab));
        let folder = lab.folder("haproxy");
        let main = MAIN.replace("HERE", &folder.display().to_string());
        fs::write(folder.join("00-main.cfg"), main).unwrap();
        confdir.template("web.tmpl", &TEMPLATE.replace("LISTEN", &listen.to_string()));
        confdir.toml(
            "web",
            &format!(
                "[template]\nsrc = \"web.tmpl\"\ndest = \"{0}/web.cfg\"\n\
                 keys = [\"/services/apache\", \"/settings\"]\n\
                 [haproxy]\nconf = \"{0}\"\npid_file = \"{0}/pid\"\n",
                folder.display()
            ),
        );
        Self { lab, etcd, backends, sidekicks, listen, confdir }
    }

    /// The template has the word whose lines a running HAProxy can be given.
    pub(crate) fn name_servers(&self) {
        self.confdir.edit("templates/web.tmpl", |text| {
            let (head, _) = text.split_once("{{ range gets \"/services").unwrap();
            format!("{head}    {{{{servers \"apache\"}}}}\n")
        });
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.lab.folder("haproxy").join(name)
    }

    /// HAProxy runs, with these options more; then confsync, until it is ready.
    pub(crate) async fn start(&self, more: &[&str]) -> (Process, Running) {
        let first = format!("listen first\n    bind {}\n", self.lab.free());
        fs::write(self.at("web.cfg"), first).unwrap();
        let process = self.haproxy(more).await;
        let confsync = self.confsync();
        confsync.ready().await;
        (process, confsync)
    }

    /// With the files as they are.
    pub(crate) async fn haproxy(&self, more: &[&str]) -> Process {
        let path = |name: &str| self.at(name).display().to_string();
        let line = ["-W", "-db", "-f", &path(""), "-p", &path("pid")].map(str::to_owned);
        let more = more.iter().map(|word| word.replace("HERE", &path("")));
        let spec = Spec::new("haproxy", "haproxy", self.lab.path());
        let process = self.lab.spawn(spec.args(line.into_iter().chain(more)));
        let (pid, own) = (self.at("pid"), process.pid().to_string());
        eventually("HAProxy runs", || async {
            let text = fs::read_to_string(&pid).unwrap_or_default();
            check(text.trim() == own, || format!("pid file: {text}"))
        })
        .await;
        process
    }

    pub(crate) fn confsync(&self) -> Running {
        let confsync = Daemon::confsync(&self.lab).etcd(&self.etcd, Api::V3);
        confsync.flag("--name", "lb-1").flag("--ttl", "2s").confdir(&self.confdir).start()
    }
}

/// Six long requests, and the backend that has half of them leaves.
async fn drain(more: &[&str]) {
    let site = Site::prepare().await;
    let _running = site.start(more).await;
    site.backends.iter().for_each(|backend| backend.take(std::time::Duration::from_secs(3)));
    let requests = (0..6).map(|_| tokio::spawn(http::get(site.listen, "/")));
    let requests: Vec<_> = requests.collect();
    let [leaving, staying] = &site.backends;
    eventually("the requests are under way", || async {
        let (one, two) = (leaving.in_flight(), staying.in_flight());
        check(one + two == 6 && one > 0, || format!("{one} and {two}"))
    })
    .await;
    assert_eq!(site.sidekicks[0].stop().await, Exit::Code(0), "{}", site.sidekicks[0].log());
    assert!(site.sidekicks[0].log().contains("drain confirmed by lb-1"));
    leaving.die().await;
    for answer in join_all(requests).await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_last_request_by_the_masters_word() {
    drain(&["-S", "HEREmaster.sock"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_last_request_by_the_processes_alone() {
    drain(&[]).await;
}

/// Refused by the check, and refused by the running one alone: a port that is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_haproxy_refuses_replaces_nothing() {
    let site = Site::prepare().await;
    let (_process, confsync) = site.start(&["-S", "HEREmaster.sock"]).await;
    let load = Load::on(site.listen).start();
    load.more(20).await;
    let good = fs::read_to_string(site.at("web.cfg")).unwrap();
    let ctl = site.etcd.ctl(Api::V3);
    ctl.put("/settings/1", "bogus 1").await;
    confsync.logged("unknown keyword 'bogus'").await;
    assert!(confsync.log().contains(&format!("[{}:3]", site.at("web.cfg").display())));
    assert_eq!(fs::read_to_string(site.at("web.cfg")).unwrap(), good);
    load.more(20).await;
    load.stop().await.assert_none_failed();

    // HAProxy itself takes no connection while it tries to have the port, for 2 s.
    let taken = std::net::TcpListener::bind((site.lab.another_ip(), 0)).unwrap();
    ctl.put("/settings/1", &format!("bind {}", taken.local_addr().unwrap())).await;
    confsync.logged("keeps its old configuration").await;
    confsync.logged("the previous files are back in place").await;
    assert_eq!(fs::read_to_string(site.at("web.cfg")).unwrap(), good);

    ctl.put("/settings/1", "http-response set-header X-Corrected yes").await;
    eventually("the next good one is taken", || async {
        let answer = http::get(site.listen, "/").await?;
        let corrected =
            answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-corrected"));
        check(corrected, || format!("{:?}", answer.headers))
    })
    .await;
}

/// It is started with the first good files, reloaded, and finishes its requests at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_haproxy_is_started_reloaded_and_ended_gently() {
    let site = Site::prepare().await;
    let folder = site.at("").display().to_string();
    let command = ["--", "haproxy", "-W", "-db", "-f", &folder];
    let start = || {
        let confsync = Daemon::confsync(&site.lab).etcd(&site.etcd, Api::V3);
        let confsync = confsync.confdir(&site.confdir).flag("--name", "lb-1");
        command.iter().fold(confsync, |daemon, word| daemon.arg(*word)).start()
    };
    let confsync = start();
    confsync.ready().await;
    let load = Load::on(site.listen).clients(2).start();
    load.more(20).await;
    // Killed, it leaves its HAProxy behind; the next one lets that finish.
    confsync.kill().await;
    load.more(20).await;
    let confsync = start();
    confsync.ready().await;
    confsync.logged("an earlier run left serving finishes").await;
    load.more(20).await;
    assert_eq!(site.sidekicks[0].stop().await, Exit::Code(0), "{}", site.sidekicks[0].log());
    site.backends[0].die().await;
    load.more(20).await;
    load.stop().await.assert_none_failed();
    site.backends[1].take(std::time::Duration::from_secs(2));
    let last = tokio::spawn(http::get(site.listen, "/"));
    eventually("the last request is under way", || async {
        check(site.backends[1].in_flight() == 1, || "none".to_owned())
    })
    .await;
    assert_eq!(confsync.stop().await, Exit::Code(0), "{}", confsync.log());
    assert_eq!(last.await.unwrap().unwrap().status, 200);
}

/// Backends come and leave under load, one of them with a request under way: no reload.
#[tokio::test(flavor = "multi_thread")]
async fn backends_change_without_a_reload() {
    let site = Site::prepare().await;
    site.name_servers();
    let (process, confsync) = site.start(&[]).await;
    let workers = || {
        let pid = process.pid();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
    };
    // The worker of the first file ends; from then on there is one.
    eventually("one worker", || async {
        check(workers().split_whitespace().count() == 1, workers)
    })
    .await;
    let before = workers();
    let load = Load::on(site.listen).clients(2).keep_alive().start();
    let posts = Load::on(site.listen).post("a body").start();
    load.answered("one").await;

    let [leaving, staying] = &site.backends;
    leaving.take(std::time::Duration::from_secs(2));
    staying.take(std::time::Duration::from_secs(2));
    eventually("requests are under way", || async {
        check(leaving.in_flight() > 0, || "none".to_owned())
    })
    .await;
    assert_eq!(site.sidekicks[0].stop().await, Exit::Code(0), "{}", site.sidekicks[0].log());
    assert!(site.sidekicks[0].log().contains("drain confirmed by lb-1"));
    leaving.die().await;
    staying.take(std::time::Duration::ZERO);

    // Others come and go; each is used, and none after it has left.
    let ctl = site.etcd.ctl(Api::V3);
    for nth in 0..6 {
        let backend = Backend::start(&site.lab, &format!("b{nth}")).await;
        let key = format!("/services/apache/b{nth}");
        ctl.put(&key, &backend.address().to_string()).await;
        load.answered(backend.name()).await;
        let remove = Daemon::new(&site.lab, "register remove", tests::bins::register());
        let remove = remove.arg("remove").backend("apache", backend.address()).arg("--wait");
        let removed = remove.etcd(&site.etcd, Api::V3).flag("--id", backend.name()).run().await;
        assert_eq!(removed.exit, Exit::Code(0), "{}", removed.log);
        backend.die().await;
    }
    assert_eq!(workers(), before, "{}", confsync.log());
    load.stop().await.assert_none_failed();
    posts.stop().await.assert_none_failed();

    // A foreign reload reads the file, which is up to date.
    process.signal(Signal::USR2);
    eventually("the new worker has the one backend", || async {
        let answer = http::get(site.listen, "/").await?;
        check(workers() != before && answer.body.contains("two"), || answer.body)
    })
    .await;
}

/// A keyword that this version does not take for a server at run time.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_is_a_reload_and_shown_with_haproxys_answer() {
    let site = Site::prepare().await;
    site.name_servers();
    site.confdir.edit("templates/web.tmpl", |text| {
        text.replace("balance roundrobin", "balance roundrobin\n    default-server cookie x")
    });
    let (_process, confsync) = site.start(&[]).await;
    let backend = Backend::start(&site.lab, "three").await;
    let ctl = site.etcd.ctl(Api::V3);
    ctl.put("/services/apache/three", &backend.address().to_string()).await;
    let load = Load::on(site.listen).clients(2).start();
    load.answered("three").await;
    load.stop().await.assert_none_failed();
    confsync.logged("a reload is needed: HAProxy answers `add server").await;
    let status = || async {
        let status = Daemon::new(&site.lab, "confsync status", tests::bins::confsync());
        status.arg("status").etcd(&site.etcd, Api::V3).run().await.log
    };
    let refused = "the last change needed a reload: HAProxy answers";
    eventually("the refusal is shown", || async {
        let table = status().await;
        check(table.contains(refused) && table.contains("'cookie' option is not accepted"), || {
            table
        })
    })
    .await;
    // It takes that one leaves.
    ctl.del("/services/apache/three").await;
    eventually("the last change needed none", || async {
        let table = status().await;
        check(!table.contains(refused), || table)
    })
    .await;
}

/// Signals are for a master alone: SIGUSR2 would end another HAProxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_haproxy_without_a_master_is_left_alone() {
    let site = Site::prepare().await;
    fs::write(site.at("web.cfg"), format!("listen x\n    bind {}\n", site.lab.free())).unwrap();
    let path = |name: &str| site.at(name).display().to_string();
    let spec = Spec::new("haproxy", "haproxy", site.lab.path());
    let process = site.lab.spawn(spec.args(["-db", "-f", &path("")].map(str::to_owned)));
    fs::write(site.at("pid"), process.pid().to_string()).unwrap();
    let confsync = Daemon::confsync(&site.lab).etcd(&site.etcd, Api::V3);
    let confsync = confsync.confdir(&site.confdir).start();
    confsync.logged("a HAProxy without a master").await;
    assert_eq!(process.exit(), None);
}
