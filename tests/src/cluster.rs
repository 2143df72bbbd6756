//! The whole thing at once, for scenarios that are about something else: etcd, backends
//! with a sidekick each, and confsync with nginx as its child.

use std::net::SocketAddr;

use crate::backend::Backend;
use crate::confdir::Confdir;
use crate::daemon::{Daemon, QUICK_TTL, Running};
use crate::etcd::{Api, Etcd};
use crate::eventually::{check, eventually};
use crate::lab::Lab;
use crate::load::{Load, Profile};
use crate::nginx::Nginx;

/// A backend and the sidekick that registers it.
pub struct Instance {
    /// The web server.
    pub backend: Backend,
    /// Its `register`.
    pub sidekick: Running,
}

impl Instance {
    /// Its key in etcd.
    #[must_use]
    pub fn key(&self) -> String {
        format!("/services/apache/{}", self.backend.ip())
    }
}

/// Everything that runs.
pub struct Cluster {
    /// Which face of etcd the daemons speak to.
    pub api: Api,
    /// The etcd.
    pub etcd: Etcd,
    /// The nginx below confsync.
    pub nginx: Nginx,
    /// The confdir of confsync.
    pub confdir: Confdir,
    /// confsync.
    pub confsync: Running,
    /// The backends with their sidekicks.
    pub instances: Vec<Instance>,
}

impl Cluster {
    /// Starts all of it, with backends `apache-1` to `apache-N`, each on a machine
    /// (address) of its own, and waits until nginx runs with all of
    /// them.
    pub async fn start(lab: &Lab, api: Api, backends: usize) -> Self {
        let etcd = Etcd::start(lab).await;
        let mut instances = Vec::new();
        for nth in 1..=backends {
            instances.push(join(lab, &etcd, api, &format!("apache-{nth}")).await);
        }
        // All are there before confsync looks, so its first file has all of them.
        for instance in &instances {
            instance.sidekick.ready().await;
        }
        let nginx = Nginx::prepare(lab);
        let confdir = Confdir::tutorial(lab, &nginx);
        let confsync = Daemon::confsync(lab).etcd(&etcd, api).confdir(&confdir);
        let confsync = confsync.supervising(&nginx).start();
        let cluster = Self { api, etcd, nginx, confdir, confsync, instances };
        cluster.confsync.ready().await;
        for instance in &cluster.instances {
            cluster.serves(instance.backend.address()).await;
        }
        cluster
    }

    /// Starts one more backend with its sidekick. It need not be served yet.
    pub async fn join(&self, lab: &Lab, name: &str) -> Instance {
        join(lab, &self.etcd, self.api, name).await
    }

    /// A load on nginx.
    pub fn load(&self) -> Profile {
        Load::on(self.nginx.address())
    }

    /// Waits until the file that nginx got names this backend.
    #[track_caller]
    pub fn serves(&self, backend: SocketAddr) -> impl Future<Output = ()> {
        eventually(format!("{backend} is in nginx's file"), move || async move {
            let text = self.nginx.rendered()?;
            check(text.contains(&format!("server {backend};")), || text)
        })
    }

    /// Waits until the file that nginx got does not name this backend.
    #[track_caller]
    pub fn dropped(&self, backend: SocketAddr) -> impl Future<Output = ()> {
        eventually(format!("{backend} is not in nginx's file"), move || async move {
            let text = self.nginx.rendered()?;
            check(!text.contains(&backend.to_string()), || text)
        })
    }

    /// Waits until etcd has the instance's key.
    #[track_caller]
    pub fn registered(&self, instance: &Instance) -> impl Future<Output = ()> {
        let (ctl, key) = (self.etcd.ctl(self.api), instance.key());
        let value = instance.backend.address().to_string();
        eventually(format!("{key} = {value}"), move || {
            let (ctl, key, value) = (ctl.clone(), key.clone(), value.clone());
            async move {
                let now = ctl.get(&key).await;
                check(now.as_deref() == Some(&*value), || format!("it is {now:?}"))
            }
        })
    }

    /// Waits until etcd has the instance's key no more.
    #[track_caller]
    pub fn unregistered(&self, instance: &Instance) -> impl Future<Output = ()> {
        let (ctl, key) = (self.etcd.ctl(self.api), instance.key());
        eventually(format!("no {key}"), move || {
            let (ctl, key) = (ctl.clone(), key.clone());
            async move {
                let now = ctl.get(&key).await;
                check(now.is_none(), || format!("it is {now:?}"))
            }
        })
    }
}

async fn join(lab: &Lab, etcd: &Etcd, api: Api, name: &str) -> Instance {
    let backend = Backend::start_at((lab.another_ip(), 8080).into(), name).await;
    let sidekick = Daemon::register(lab).named(&format!("sidekick of {name}"));
    let sidekick = sidekick.backend("apache", backend.address()).etcd(etcd, api);
    // As quick as the lifetime allows: a probe has three quarters of its interval, and an answer
    // that a busy machine delays is no sick backend.
    let sidekick = sidekick.flag("--ttl", format!("{}s", QUICK_TTL.as_secs()));
    let sidekick = sidekick.flag("--interval", "600ms").flag("--fast-interval", "200ms");
    let sidekick = sidekick.flag("--rise", "1").flag("--fall", "1").start();
    Instance { backend, sidekick }
}
