//! A real nginx with the balancer in Lua, whose table the test writes itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use confsync::proxy::membership::folder::TableFolder;
use confsync::proxy::membership::layout::{CAPACITY, MemberId};
use confsync::proxy::membership::nginx_text::{
    BalancerFiles, BalancerSettings, Servers, http_level, upstream,
};
use confsync::proxy::membership::roster::Joining;
use confsync::proxy::membership::table::{MemberTable, Traffic};
use confsync::proxy::membership::worker_state::{WorkerState, ask};
use tests::eventually::check;
use tests::process::Process;
use tests::{Backend, Lab, Nginx, eventually};

/// Where the balancer is in the sources.
fn lua_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../confsync/lua/membership.lua")
}

/// The usual site: one location, kept connections to the backends.
pub(crate) const SITE: &str = "location / { proxy_pass http://app; proxy_http_version 1.1; \
                        proxy_set_header Connection \"\"; }";

pub(crate) struct Scene {
    // Fields are dropped in this order: nginx ends with the lab.
    pub(crate) table: Mutex<MemberTable>,
    pub(crate) folder: TableFolder,
    pub(crate) nginx: Nginx,
    pub(crate) lab: Lab,
}

/// What is in nginx.conf.
pub(crate) struct Conf<'a> {
    /// At the start.
    pub(crate) main: &'a str,
    /// In the http block.
    pub(crate) http: &'a str,
    /// In the upstream, behind the balancer.
    pub(crate) upstream: &'a str,
    /// `server` lines for an nginx without a table.
    pub(crate) servers: &'a str,
    /// In the server.
    pub(crate) site: &'a str,
    pub(crate) settings: BalancerSettings,
}

impl Default for Conf<'_> {
    fn default() -> Self {
        Self {
            main: "",
            http: "",
            upstream: "keepalive 64;",
            servers: "server 127.0.0.1:1 down;",
            site: SITE,
            settings: BalancerSettings::default(),
        }
    }
}

/// The number of a backend in the table.
fn id_of(backend: SocketAddr) -> MemberId {
    let mut id = [7; 16];
    id[..2].copy_from_slice(&backend.port().to_le_bytes());
    id
}

impl Scene {
    /// Writes everything; `None`, and says so, where nginx has no Lua.
    pub(crate) fn prepare(conf: &Conf<'_>) -> Option<Self> {
        let lab = Lab::new();
        let nginx = Nginx::prepare(&lab);
        let path = lab.folder("live");
        let folder = TableFolder::open(&path, None, CAPACITY, 64).unwrap();
        let table = Mutex::new(folder.table("app", 0).unwrap());
        let scene = Self { table, folder, nginx, lab };
        scene.write_conf(conf)?;
        Some(scene)
    }

    /// Writes nginx.conf anew.
    pub(crate) fn write_conf(&self, conf: &Conf<'_>) -> Option<()> {
        let Some(load) = tests::nginx::load_lua() else {
            tests::skip::skip("there is no libnginx-mod-http-lua here");
            return None;
        };
        let lua = lua_file();
        let files = BalancerFiles { lua: &lua, folder: self.folder.path() };
        let members = conf.servers.lines().filter(|line| !line.contains(" down;")).count();
        let servers = Servers { lines: conf.servers.to_owned(), members };
        let upstream = upstream("app", &servers, conf.upstream, files, &conf.settings);
        let once = http_level(files, &conf.settings);
        let http = format!(
            "{}\n{once}\n{upstream}\nserver {{ listen {}; {} }}",
            conf.http,
            self.nginx.address(),
            conf.site
        );
        self.nginx.write_conf_with(&format!("{load}{}", conf.main), &http);
        Some(())
    }

    /// Writes everything and starts nginx.
    pub(crate) async fn start(conf: &Conf<'_>) -> Option<(Self, Process)> {
        let scene = Self::prepare(conf)?;
        let process = scene.nginx.start().await;
        scene.state().await;
        Some((scene, process))
    }

    /// What a worker goes by, as soon as one answers.
    pub(crate) async fn state(&self) -> WorkerState {
        let socket = self.folder.path().join("state.sock");
        eventually("a worker answers", || async {
            ask(&socket, "app", Duration::from_secs(5)).await.map_err(|error| error.to_string())
        })
        .await
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, MemberTable> {
        self.table.lock().unwrap()
    }

    pub(crate) fn join(&self, backend: &Backend) {
        self.join_with(backend, 1, 0.0);
    }

    pub(crate) fn join_with(&self, backend: &Backend, weight: u16, joined: f64) {
        self.join_at(backend.address(), weight, joined);
    }

    pub(crate) fn join_at(&self, at: SocketAddr, weight: u16, joined: f64) {
        let host = at.ip().to_string();
        let (id, port) = (id_of(at), at.port());
        let mut table = self.table();
        table.roster.join(Joining { id, host, port, weight, joined }).unwrap();
        self.folder.commit(&mut table).unwrap();
    }

    /// Takes the backend out; the slot whose requests are to be waited for.
    pub(crate) fn leave(&self, backend: &Backend) -> u32 {
        self.leave_at(backend.address())
    }

    pub(crate) fn leave_at(&self, at: SocketAddr) -> u32 {
        let mut table = self.table();
        let slot = table.roster.slot_of(&id_of(at)).unwrap();
        table.roster.leave(&id_of(at));
        self.folder.commit(&mut table).unwrap();
        slot
    }

    pub(crate) fn slot(&self, backend: &Backend) -> u32 {
        self.slot_at(backend.address())
    }

    pub(crate) fn slot_at(&self, at: SocketAddr) -> u32 {
        self.table().roster.slot_of(&id_of(at)).unwrap()
    }

    pub(crate) fn in_flight(&self, slot: u32) -> u64 {
        self.folder.in_flight(&self.table(), slot).unwrap()
    }

    pub(crate) fn traffic(&self, slot: u32) -> Traffic {
        self.folder.traffic(&self.table()).unwrap()[slot as usize]
    }

    /// Waits until so many requests are in flight to a slot.
    pub(crate) async fn flying(&self, slot: u32, count: u64) {
        eventually(format!("{count} requests in flight"), || async {
            let now = self.in_flight(slot);
            check(now == count, || format!("{now} are"))
        })
        .await;
    }
}
