//! What the demo runs, and how it looks at it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::daemon::Running;
use tests::etcd::Watcher;
use tests::eventually::check;
use tests::load::Summary;
use tests::nginx::{Worker, load_lua};
use tests::process::{Process, Spec};
use tests::{Api, Confdir, Daemon, Etcd, Lab, Load, Nginx, bins, eventually, http};

const BACKENDS: usize = 3;
const API: Api = Api::V3;
const LOOK: Duration = Duration::from_millis(5);

/// How often a sidekick probes, and how often in a row a probe must fail to count.
/// The output says so, since that bounds how soon a death is detected.
pub(crate) const PROBES: (&str, &str) = ("500ms", "2");

/// A backend: its web server and the sidekick beside it.
pub(crate) struct Web {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) server: Process,
    pub(crate) sidekick: Running,
}

impl Web {
    pub(crate) fn key(&self) -> String {
        format!("/services/apache/{}", self.address.ip())
    }
}

pub(crate) struct World<'a> {
    lab: &'a Lab,
    start: Instant,
    etcd: Etcd,
    watcher: Watcher,
    pub(crate) nginx: Nginx,
    confsync: Running,
    loads: Vec<Load>,
    /// Backends change without a reload.
    is_live: bool,
    pub(crate) webs: Vec<Web>,
}

/// A place in the history of etcd's events.
#[derive(Clone, Copy)]
pub(crate) struct Mark(usize);

impl<'a> World<'a> {
    /// Starts everything. At its end the first backend is served.
    pub(crate) async fn build(lab: &'a Lab) -> Self {
        println!("Real etcd, nginx, register and confsync, on loopback. Ctrl-C ends it.\n");
        let start = Instant::now();
        let etcd = Etcd::start(lab).await;
        say(start, format!("etcd runs at {}", etcd.url()));
        let watcher = etcd.watch(API, "/services").await;

        let first = new_web(lab, &etcd, 1).await;
        first.sidekick.ready().await;
        say(start, format!("apache-1 runs and is registered: {} = {}", first.key(), first.address));

        let nginx = Nginx::prepare(lab);
        let lua = load_lua();
        let confdir = match &lua {
            Some(modules) => {
                nginx.write_conf_with(modules, "");
                Confdir::handlebars(lab, &nginx)
            }
            None => Confdir::tutorial(lab, &nginx),
        };
        let confsync = Daemon::confsync(lab).etcd(&etcd, API).confdir(&confdir);
        let confsync = confsync.supervising(&nginx).start();
        confsync.ready().await;
        say(start, format!("confsync runs nginx at http://{}/", nginx.address()));
        say(
            start,
            match &lua {
                Some(_) => "nginx has its Lua module: backends change without a reload",
                None => {
                    "each change needs a reload: nginx has no Lua module (libnginx-mod-http-lua)"
                }
            },
        );

        let plan = Load::on(nginx.address()).clients(2).think(Duration::from_millis(5));
        let loads = vec![plan.clone().start(), plan.keep_alive().start()];
        say(start, "four clients send requests from now on, two of them with keep-alive");
        let is_live = lua.is_some();
        Self { lab, start, etcd, watcher, nginx, confsync, loads, is_live, webs: vec![first] }
    }

    pub(crate) fn say(&self, line: impl AsRef<str>) {
        say(self.start, line);
    }

    /// Starts the next backend, if there are not enough yet.
    pub(crate) async fn add_web(&mut self) -> bool {
        let nth = self.webs.len() + 1;
        if nth <= BACKENDS {
            self.webs.push(new_web(self.lab, &self.etcd, nth).await);
        }
        nth <= BACKENDS
    }

    pub(crate) fn web(&self, index: usize) -> &Web {
        #[expect(clippy::indexing_slicing, reason = "the story counts what it added")]
        &self.webs[index]
    }

    /// Starts a backend's web server again, and its sidekick unless that still runs.
    pub(crate) async fn revive(&mut self, index: usize) {
        let Some(web) = self.webs.get_mut(index) else { return };
        web.server = serve(self.lab, &web.name, web.address).await;
        if web.sidekick.process().exit().is_some() {
            web.sidekick = sidekick(self.lab, &self.etcd, &web.name, web.address);
        }
    }

    /// From here on, events and first answers are new ones.
    pub(crate) fn mark(&self) -> Mark {
        for load in &self.loads {
            load.forget_answers();
        }
        Mark(self.watcher.timed().len())
    }

    /// When etcd sent this event to its watchers, behind the mark.
    pub(crate) async fn event(&self, mark: Mark, what: &str, key: &str) -> Instant {
        let wanted = format!("{what} {key}");
        eventually(format!("{wanted} in etcd"), || async {
            let events = self.watcher.timed();
            let new = events.iter().skip(mark.0);
            let found = new.filter(|(_, event)| *event == wanted).map(|(at, _)| *at).next();
            found.ok_or_else(|| format!("{events:?}"))
        })
        .await
    }

    /// When a client first got this backend's answer, behind the mark.
    pub(crate) async fn first_answer(&self, name: &str) -> Instant {
        eventually(format!("an answer of {name}"), || async {
            let answers = self.counted().answers;
            answers.get(name).map(|of| of.first).ok_or_else(|| format!("{answers:?}"))
        })
        .await
    }

    /// Waits until no new request can go to a backend that left: no worker of these accepts
    /// any more, or all of them know that it left.
    pub(crate) async fn retired(&self, before: &[Worker], backend: SocketAddr) {
        if self.is_live {
            return eventually("out of nginx", || async {
                let text = self.nginx.rendered()?;
                check(!text.contains(&backend.to_string()), || text)
            })
            .await;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let now = self.nginx.workers();
            let old = |worker: &&Worker| {
                !worker.shutting_down && before.iter().any(|old| old.pid == worker.pid)
            };
            if !now.is_empty() && now.iter().find(old).is_none() {
                return;
            }
            assert!(Instant::now() < deadline, "nginx still has {before:?}: {now:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What all clients together have seen.
    pub(crate) fn counted(&self) -> Summary {
        let sums = self.loads.iter().map(Load::so_far);
        sums.reduce(Summary::and).unwrap_or_default()
    }

    /// Ends everything in order; the sum of all requests.
    pub(crate) async fn end(mut self) -> Summary {
        let mut sum = Summary::default();
        for load in std::mem::take(&mut self.loads) {
            sum = sum.and(load.stop().await);
        }
        for web in &self.webs {
            web.sidekick.signal(tests::Signal::TERM);
        }
        self.confsync.signal(tests::Signal::TERM);
        sum
    }
}

fn say(start: Instant, line: impl AsRef<str>) {
    println!("{:>8.3} s  {}", start.elapsed().as_secs_f64(), line.as_ref());
}

async fn new_web(lab: &Lab, etcd: &Etcd, nth: usize) -> Web {
    let name = format!("apache-{nth}");
    let address = SocketAddr::from((lab.another_ip(), 7777));
    let server = serve(lab, &name, address).await;
    let sidekick = sidekick(lab, etcd, &name, address);
    Web { name, address, server, sidekick }
}

async fn serve(lab: &Lab, name: &str, address: SocketAddr) -> Process {
    let spec = Spec::new(name, bins::testbackend(), lab.path()).args([
        "--name",
        name,
        "--listen",
        &address.to_string(),
    ]);
    let server = lab.spawn(spec);
    eventually(format!("{name} answers"), || async {
        let answer = http::get(address, "/").await?;
        check(answer.status == 200, || answer.body)
    })
    .await;
    server
}

fn sidekick(lab: &Lab, etcd: &Etcd, name: &str, address: SocketAddr) -> Running {
    let (interval, fall) = PROBES;
    Daemon::register(lab)
        .named(&format!("sidekick of {name}"))
        .backend("apache", address)
        .etcd(etcd, API)
        .flag("--interval", interval)
        .flag("--fast-interval", interval)
        .flag("--rise", "1")
        .flag("--fall", fall)
        .start()
}
