//! What the faults befall: a cluster of three etcd members, each behind a line that can be cut;
//! five backends with a sidekick each; two load balancers, each confsync beside an nginx that it
//! did not start, so that confsync can be killed and nginx goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::history::History;
use super::plan::{BACKENDS, BALANCERS, MEMBERS};
use crate::backend::Backend;
use crate::confdir::Confdir;
use crate::daemon::{Daemon, Running};
use crate::etcd::{Api, Etcd};
use crate::eventually::{check, within};
use crate::lab::Lab;
use crate::link::Link;
use crate::nginx::Nginx;
use crate::process::Process;

/// From the last fault until everything is right: what etcd needs to elect, a lease to end, a
/// connection to be given up, on a busy machine.
const CONVERGES: Duration = Duration::from_secs(90);

/// A backend, and its sidekick while there is one.
pub struct Station {
    /// The web server.
    pub backend: Backend,
    /// Its `register`.
    pub sidekick: Mutex<Running>,
}

/// A load balancer.
pub struct Balancer {
    /// Started by the world, never by confsync.
    pub nginx: Nginx,
    /// The files of confsync.
    pub confdir: Confdir,
    /// The daemon.
    pub confsync: Mutex<Running>,
    name: String,
    _master: Process,
}

/// All of it.
pub struct World<'a> {
    lab: &'a Lab,
    /// The members of etcd.
    pub members: Vec<Etcd>,
    /// A line to each member; everybody goes through them.
    pub lines: Vec<Link>,
    /// Backends with their sidekicks.
    pub stations: Vec<Station>,
    /// nginx and confsync.
    pub balancers: Vec<Balancer>,
}

impl<'a> World<'a> {
    /// Starts all of it.
    pub async fn start(lab: &'a Lab) -> Self {
        let members = Etcd::prepare_cluster(lab, MEMBERS);
        join_all(members.iter().map(Etcd::up)).await;
        let lines = join_all(members.iter().map(|member| Link::to(lab, member.address()))).await;
        let etcd = lines.iter().map(Link::url).collect::<Vec<_>>().join(",");
        let mut stations = Vec::new();
        for nth in 0..BACKENDS {
            let at = (lab.another_ip(), 8080).into();
            let backend = Backend::start_at(at, &format!("backend-{nth}")).await;
            let sidekick = Mutex::new(sidekick(lab, &etcd, &backend));
            stations.push(Station { backend, sidekick });
        }
        for station in &stations {
            station.sidekick.lock().await.ready().await;
        }
        let mut balancers = Vec::new();
        for nth in 0..BALANCERS {
            balancers.push(Balancer::start(lab, &etcd, format!("lb-{nth}")).await);
        }
        Self { lab, members, lines, stations, balancers }
    }

    fn etcd(&self) -> String {
        self.lines.iter().map(Link::url).collect::<Vec<_>>().join(",")
    }

    /// A new sidekick for a backend.
    #[must_use]
    pub fn sidekick(&self, backend: &Backend) -> Running {
        sidekick(self.lab, &self.etcd(), backend)
    }

    /// A new confsync for a load balancer.
    #[must_use]
    pub fn confsync(&self, balancer: &Balancer) -> Running {
        confsync(self.lab, &self.etcd(), &balancer.name, &balancer.confdir)
    }

    /// The addresses of all backends.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<String> {
        self.stations.iter().map(|station| station.backend.address().to_string()).collect()
    }

    /// Waits until all daemons are ready, each load balancer routes to every backend, nginx has no worker of before,
    /// and etcd has their keys and no other. All backends are up at the end of a round.
    pub async fn converged(&self, history: &History) {
        let wanted = self.addresses();
        let what = format!("all is right again ({wanted:?})");
        within(CONVERGES, what, || async {
            for balancer in &self.balancers {
                is_ready(&*balancer.confsync.lock().await)?;
                let routed = routed(&balancer.nginx.rendered()?);
                check(routed == wanted, || format!("{} has {routed:?}", balancer.name))?;
                let workers = balancer.nginx.workers();
                let old = workers.iter().filter(|worker| worker.shutting_down).count();
                check(old == 0 && !workers.is_empty(), || {
                    format!("the nginx of {} has {workers:?}", balancer.name)
                })?;
            }
            for station in &self.stations {
                is_ready(&*station.sidekick.lock().await)?;
            }
            let stored = self.stored().await?;
            check(stored == wanted, || format!("etcd has {stored:?}"))
        })
        .await;
        history.note("converged");
    }

    /// The addresses that etcd has.
    async fn stored(&self) -> Result<BTreeSet<String>, String> {
        let member = self.members.first().ok_or("no member")?;
        let args = ["get", "--prefix", "--print-value-only", "/services/apache/"];
        let text = member.ctl(Api::V3).attempt(&args).await?;
        Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}

impl Balancer {
    async fn start(lab: &Lab, etcd: &str, name: String) -> Self {
        let nginx = Nginx::prepare(lab);
        let master = nginx.start().await;
        let confdir = Confdir::tutorial(lab, &nginx);
        let confsync = confsync(lab, etcd, &name, &confdir);
        confsync.ready().await;
        Self { nginx, confdir, confsync: Mutex::new(confsync), name, _master: master }
    }
}

fn confsync(lab: &Lab, etcd: &str, name: &str, confdir: &Confdir) -> Running {
    let daemon = Daemon::confsync(lab).named(name).confdir(confdir).flag("--name", name);
    daemon.flag("--etcd", etcd).flag("--etcd-api", "v3").flag("--ttl", "6s").start()
}

/// Its lease outlives the shorter outages and not the longer ones.
fn sidekick(lab: &Lab, etcd: &str, backend: &Backend) -> Running {
    let daemon = Daemon::register(lab).named(&format!("sidekick of {}", backend.name()));
    let daemon = daemon.backend("apache", backend.address());
    let daemon = daemon.flag("--etcd", etcd).flag("--etcd-api", "v3").flag("--ttl", "6s");
    let daemon = daemon.flag("--interval", "300ms").flag("--fast-interval", "150ms");
    daemon.flag("--rise", "1").flag("--fall", "2").start()
}

fn is_ready(daemon: &Running) -> Result<(), String> {
    let name = daemon.process().name();
    let notified = daemon.notified();
    check(notified.iter().any(|line| line == "READY=1"), || {
        format!("{name} is not ready: {:?}", notified.last())
    })
}

/// The servers that a rendered file names.
#[must_use]
pub fn routed(text: &str) -> BTreeSet<String> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("server "));
    let servers = servers.filter_map(|rest| rest.split([';', ' ']).next());
    servers.filter(|server| server.contains(':')).map(str::to_owned).collect()
}
