//! Rolling restarts behind a real nginx, under load: whatever the backends do when they
//! are stopped, no client sees it.

use std::time::Duration;

use tests::daemon::Running;
use tests::load::Summary;
use tests::process::{Process, Spec};
use tests::{Api, Confdir, Daemon, Etcd, Exit, Lab, Load, Nginx, Signal, bins, eventually, http};

/// One restart of one backend each. `RESTARTS=100` for a measurement.
fn restarts() -> usize {
    std::env::var("RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

const SLOW: &str = "20";

/// A backend as a process, which SIGTERM ends at once, in the middle of its requests.
struct Unit<'a> {
    site: &'a Site,
    name: String,
    at: std::net::SocketAddr,
    backend: Process,
    sidekick: Running,
}

struct Site {
    lab: Lab,
    api: Api,
    etcd: Etcd,
    nginx: Nginx,
}

impl Site {
    async fn new(api: Api) -> Self {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let nginx = Nginx::prepare(&lab);
        Self { lab, api, etcd, nginx }
    }

    async fn unit(&self, name: &str) -> Unit<'_> {
        let at = (self.lab.another_ip(), 8080).into();
        let backend = self.backend(name, at).await;
        let sidekick = self.sidekick(at);
        Unit { site: self, name: name.to_owned(), at, backend, sidekick }
    }

    async fn backend(&self, name: &str, at: std::net::SocketAddr) -> Process {
        let spec = Spec::new(name, bins::testbackend(), self.lab.path());
        let listen = at.to_string();
        let process =
            self.lab.spawn(spec.args(["--listen", &listen, "--name", name, "--delay-ms", SLOW]));
        eventually("the backend listens", || http::get(at, "/")).await;
        process
    }

    fn sidekick(&self, at: std::net::SocketAddr) -> Running {
        let sidekick = Daemon::register(&self.lab).backend("apache", at).etcd(&self.etcd, self.api);
        let sidekick = sidekick.flag("--rise", "1").flag("--fast-interval", "100ms");
        sidekick.arg("--wait-applied").start()
    }

    async fn confsync(&self) -> Running {
        let confdir = Confdir::tutorial(&self.lab, &self.nginx);
        let confsync = Daemon::confsync(&self.lab).etcd(&self.etcd, self.api).confdir(&confdir);
        let confsync = confsync.flag("--name", "lb-1").supervising(&self.nginx).start();
        confsync.ready().await;
        confsync
    }

    fn load(&self) -> tests::load::Profile {
        Load::on(self.nginx.address()).deadline(Duration::from_secs(20))
    }
}

impl Unit<'_> {
    /// As systemd restarts the pair: the sidekick ends first, then the backend is stopped.
    async fn restart(&mut self) {
        let exit = self.sidekick.stop().await;
        assert_eq!(exit, Exit::Code(0), "{}", self.sidekick.log());
        self.bounce().await;
    }

    async fn bounce(&mut self) {
        self.backend.signal(Signal::TERM);
        self.backend.ended(Duration::from_secs(10)).await.unwrap();
        self.backend = self.site.backend(&self.name, self.at).await;
        self.sidekick = self.site.sidekick(self.at);
        self.sidekick.ready().await;
    }

    /// The tutorial's way: the key is removed, and the backend is stopped without a wait.
    async fn restart_as_in_the_tutorial(&mut self) {
        self.sidekick.kill().await;
        let key = format!("/services/apache/{}", self.at.ip());
        self.site.etcd.ctl(self.site.api).del(&key).await;
        self.bounce().await;
    }
}

struct Loads {
    gets: Load,
    posts: Load,
    uploads: Load,
    kept: Load,
}

impl Loads {
    fn start(site: &Site) -> Self {
        let plan = || site.load();
        Self {
            gets: plan().clients(4).start(),
            posts: plan().clients(4).post(vec![7; 20_000]).start(),
            uploads: plan().clients(4).slow_upload(Duration::from_millis(400)).start(),
            kept: plan().clients(4).keep_alive().start(),
        }
    }

    async fn flow(&self) {
        tokio::join!(self.gets.more(20), self.posts.more(20), self.uploads.more(3));
    }

    /// Of the clients without keep-alive, and of those with.
    async fn stop(self) -> (Summary, Summary) {
        let (gets, posts) = (self.gets.stop().await, self.posts.stop().await);
        let uploads = self.uploads.stop().await;
        (gets.and(posts).and(uploads), self.kept.stop().await)
    }
}

in_both_apis!(a_rolling_restart_loses_no_request);

/// nginx before 1.27.4 closes idle connections under its clients when it reloads; these
/// are counted apart, all other failures must be none. `docs/handshake.md` has the
/// numbers of a hundred restarts.
async fn a_rolling_restart_loses_no_request(api: Api) {
    let site = Site::new(api).await;
    let mut units = Vec::new();
    for name in ["one", "two", "three"] {
        units.push(site.unit(name).await);
    }
    let confsync = site.confsync().await;
    for unit in &units {
        unit.sidekick.ready().await;
    }

    let loads = Loads::start(&site);
    loads.flow().await;
    for nth in 0..restarts() {
        let count = units.len();
        units[nth % count].restart().await;
        loads.flow().await;
    }
    let (fresh, kept) = loads.stop().await;
    println!("{} restarts with the handshake ({}):", restarts(), api.flag());
    println!("  without keep-alive: {fresh}\n  with keep-alive: {kept}");
    fresh.assert_none_failed();
    assert_eq!(fresh.stale_reuse, 0, "{fresh}");
    kept.assert_none_failed();

    let loads = Loads::start(&site);
    loads.flow().await;
    for nth in 0..restarts() {
        let count = units.len();
        units[nth % count].restart_as_in_the_tutorial().await;
        loads.flow().await;
    }
    let (fresh, kept) = loads.stop().await;
    println!("{} restarts as in the tutorial ({}):", restarts(), api.flag());
    println!("  without keep-alive: {fresh}\n  with keep-alive: {kept}");
    drop(confsync);
}

in_both_apis!(two_that_leave_in_one_reload_wait_for_every_old_worker);

/// The reload that carries both removals comes late, because one was just before; the
/// old workers hold uploads that began before it.
async fn two_that_leave_in_one_reload_wait_for_every_old_worker(api: Api) {
    let site = Site::new(api).await;
    let mut units = Vec::new();
    for name in ["one", "two", "three", "four"] {
        units.push(site.unit(name).await);
    }
    let _confsync = site.confsync().await;
    for unit in &units {
        unit.sidekick.ready().await;
    }
    let uploads = site.load().clients(16).slow_upload(Duration::from_secs(2)).start();
    uploads.more(4).await;
    site.etcd.ctl(api).put("/services/apache/nobody", "127.0.0.1:1").await;
    for unit in &units[..2] {
        unit.sidekick.signal(Signal::TERM);
    }
    for unit in &units[..2] {
        let exit = unit.sidekick.wait_exit().await;
        assert_eq!(exit, Exit::Code(0), "{}", unit.sidekick.log());
        unit.backend.signal(Signal::TERM);
    }
    uploads.more(16).await;
    uploads.stop().await.assert_none_failed();
}
