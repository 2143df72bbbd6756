//! A proxy and its confsync, in each of the ways in which it can follow its backends: by a
//! reload for each change, or by a driver that changes backends while it runs.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::Client;
use tests::daemon::Running;
use tests::eventually::check;
use tests::nginx::load_lua;
use tests::process::{Process, Spec};
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, bins, eventually};

use crate::cost::tree;

/// How backends change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// nginx, a reload each.
    NginxReload,
    /// nginx with the balancer in Lua.
    NginxLua,
    /// HAProxy, a reload each.
    HaproxyReload,
    /// HAProxy by its runtime API.
    Haproxy,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NginxReload => "nginx, reload",
            Self::NginxLua => "nginx, Lua",
            Self::HaproxyReload => "HAProxy, reload",
            Self::Haproxy => "HAProxy, runtime API",
        })
    }
}

/// The ways that a question is asked about.
#[derive(clap::Args)]
pub(crate) struct Ways {
    /// How backends change
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "nginx-reload,nginx-lua,haproxy-reload,haproxy"
    )]
    ways: Vec<Way>,
}

impl Ways {
    /// Those that can be tried here.
    pub(crate) fn possible(&self) -> impl Iterator<Item = Way> {
        self.ways.iter().copied().filter(|way| way.is_possible())
    }
}

/// Starts backends and registers each without a sidekick: `/services/apache/b0` and so on.
pub(crate) async fn registered_backends(
    lab: &Lab,
    client: &mut Client,
    count: u64,
) -> anyhow::Result<Vec<Backend>> {
    let mut backends = Vec::new();
    for nth in 0..count {
        let backend = Backend::start(lab, &format!("b{nth}")).await;
        client.put(key(nth), backend.address().to_string(), None).await?;
        backends.push(backend);
    }
    Ok(backends)
}

/// The key of such a backend.
pub(crate) fn key(nth: u64) -> String {
    format!("/services/apache/b{nth}")
}

impl Way {
    pub(crate) fn is_possible(self) -> bool {
        match self {
            Self::NginxReload => true,
            Self::NginxLua => load_lua().is_some(),
            Self::HaproxyReload | Self::Haproxy => bins::on_path("haproxy"),
        }
    }

    fn is_live(self) -> bool {
        matches!(self, Self::NginxLua | Self::Haproxy)
    }
}

const NGINX: &str = "{{#upstream \"apache\"}}
    zone apache 8m;
    random two least_conn;
    keepalive 64;
{{/upstream}}
{{#upstream \"sockets\"}}
    zone sockets 8m;
{{/upstream}}
server {
    listen ADDRESS;
    keepalive_requests 1000000;
    proxy_http_version 1.1;
    location / {
        proxy_pass http://apache;
        proxy_set_header Connection \"\";
        proxy_next_upstream error timeout;
        proxy_next_upstream_tries 3;
    }
    location /socket {
        proxy_pass http://sockets;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection Upgrade;
        proxy_read_timeout 1h;
    }
}
";

const HAPROXY: &str = "frontend web
    bind ADDRESS
    use_backend sockets if { path /socket }
    default_backend apache
backend apache
    balance random
    retry-on conn-failure
    option redispatch
    {{servers \"apache\"}}
backend sockets
    balance random
    {{servers \"sockets\"}}
";

const HAPROXY_MAIN: &str = "global
    stats socket HERE/admin.sock level admin
    hard-stop-after 60s
    maxconn 4000
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
";

/// A proxy with its confsync; both end with the lab.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    pub(crate) confsync: Running,
    proxy: Process,
}

impl Balancer {
    /// Follows what is below `/services`.
    pub(crate) async fn start(lab: &Lab, etcd: &Etcd, way: Way) -> Self {
        let confdir = Confdir::empty(lab);
        let (address, proxy) = match way {
            Way::NginxReload | Way::NginxLua => nginx(lab, &confdir, way).await,
            Way::HaproxyReload | Way::Haproxy => haproxy(lab, &confdir, way).await,
        };
        let confsync = Daemon::confsync(lab).etcd(etcd, Api::V3).confdir(&confdir).start();
        confsync.ready().await;
        Self { address, confsync, proxy }
    }

    /// The processes below the proxy's master.
    pub(crate) fn workers(&self) -> BTreeSet<i32> {
        let pid = self.proxy.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap_or_default().split_whitespace().filter_map(|p| p.parse().ok()).collect()
    }

    /// How often the proxy was made to reload, its first files included.
    pub(crate) fn reloads(&self) -> usize {
        let is_load = |line: &&str| line.contains("configuration is active");
        self.confsync.log().lines().filter(is_load).count()
    }

    /// How often backends changed without a reload.
    pub(crate) fn member_changes(&self) -> usize {
        self.confsync.log().matches("members changed without a reload").count()
    }

    /// The processor time of confsync, the proxy, and everything that they ever started.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(tree(self.confsync.process().pid())? + tree(self.proxy.pid())?)
    }
}

async fn nginx(lab: &Lab, confdir: &Confdir, way: Way) -> (SocketAddr, Process) {
    let nginx = Nginx::prepare(lab);
    nginx.write_conf_with(&load_lua().unwrap_or_default(), "");
    let live = if way.is_live() { "lua" } else { "off" };
    confdir.toml(
        "app",
        &format!(
            "[template]\nsrc = \"app.hbs\"\ndest = \"{}\"\nkeys = [\"/services\"]\n\
             on_empty = \"render\"\n[nginx]\nconf = \"{}\"\npid_file = \"{}\"\n\
             live = \"{live}\"\nlive_dir = \"{}\"\n",
            nginx.site().display(),
            nginx.conf().display(),
            nginx.pid_file().display(),
            lab.folder("live").display(),
        ),
    );
    confdir.template("app.hbs", &NGINX.replace("ADDRESS", &nginx.address().to_string()));
    let process = nginx.start().await;
    (nginx.address(), process)
}

async fn haproxy(lab: &Lab, confdir: &Confdir, way: Way) -> (SocketAddr, Process) {
    let (address, folder) = (lab.free(), lab.folder("haproxy"));
    let here = folder.display().to_string();
    let at = |name: &str| folder.join(name);
    // Nothing is lost here by a folder that cannot be written.
    let _ = fs::write(at("00-main.cfg"), HAPROXY_MAIN.replace("HERE", &here));
    let _ = fs::write(at("web.cfg"), format!("listen first\n    bind {}\n", lab.free()));
    let live = if way.is_live() { "auto" } else { "off" };
    confdir.toml(
        "web",
        &format!(
            "[template]\nsrc = \"web.hbs\"\ndest = \"{here}/web.cfg\"\nkeys = [\"/services\"]\n\
             on_empty = \"render\"\n[haproxy]\nconf = \"{here}\"\npid_file = \"{here}/pid\"\n\
             live = \"{live}\"\n"
        ),
    );
    confdir.template("web.hbs", &HAPROXY.replace("ADDRESS", &address.to_string()));
    let line = ["-W", "-db", "-f", &here, "-p", &format!("{here}/pid")].map(str::to_owned);
    let process = lab.spawn(Spec::new("haproxy", "haproxy", lab.path()).args(line));
    let pid = at("pid");
    eventually("HAProxy runs", || async { check(pid.exists(), || "no pid file".into()) }).await;
    (address, process)
}
