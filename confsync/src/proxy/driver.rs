//! Drivers: the ways to change the members of a running proxy.
//!
//! A rendered file has two parts. Its *structure* needs check, swap and reload; the *members* of
//! the pools that it names can be changed by a driver in the running proxy. Each driver defines how
//! member lines are written ([`Driver::arrange`]), gives the proxy its members
//! ([`Driver::publish`]), has the proxy confirm them ([`Driver::confirm`]), and counts the requests
//! in flight to those that left ([`Driver::in_flight`]). The pipeline decides when. A new driver is
//! one more variant here, with its parts in a folder of its own.
//!
//! What a proxy supports is found out by trying, never by its version. Where the operator allows
//! it, a driver that has not confirmed anything yet falls back to reloads at the first failure.
//!
//! This module knows nothing of etcd, templates or the ledger.

use crate::config::confdir::LiveMembership;
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::proxy::Proxy;
use crate::proxy::haproxy::{self, Runtime};
use crate::proxy::membership::folder::WorkerUser;
use crate::proxy::membership::nginx_lua::NginxLua;
pub use crate::proxy::pools::{
    Arrangement, DepartedMember, Pools, PublishError, ReadBack, RenderedFile,
};
use crate::proxy::traffic::TrafficReader;
use crate::template::Piece;

/// How members are changed.
#[derive(Debug)]
pub enum Driver {
    /// By a reload only.
    Reload {
        /// Why no better driver is used, for an operator.
        why: String,
        /// The driver that was given up, and is tried again if something else was the cause.
        given_up: Option<Box<NginxLua>>,
    },
    /// HAProxy's runtime API.
    Haproxy(Box<Runtime>),
    /// A balancer in nginx's Lua module.
    NginxLua {
        /// The balancer and its tables.
        lua: Box<NginxLua>,
        /// Whether it may fall back to reloads.
        live: LiveMembership,
    },
}

impl Driver {
    /// Every change needs a reload.
    pub fn reload(why: impl Into<String>) -> Self {
        Self::Reload { why: why.into(), given_up: None }
    }

    /// The best driver to try for a reload group.
    pub fn of(set: &ReloadGroup, proxy: &Proxy) -> Self {
        if let (Loader::Haproxy(options), Proxy::Haproxy(haproxy)) = (&set.loader, proxy) {
            return match options.is_live {
                true => Self::Haproxy(Box::new(Runtime::new((**haproxy).clone()))),
                false => Self::reload("live = \"off\""),
            };
        }
        let (Loader::Nginx(options), Some(nginx)) = (&set.loader, proxy.nginx()) else {
            return Self::reload("the proxy is known by its commands only");
        };
        if options.live == LiveMembership::Off {
            return Self::reload("live = \"off\"");
        }
        let folder = options.live_dir.as_path();
        // If nginx is started by others, only they can make sure that the folder exists before it
        // starts.
        if !folder.is_dir() && !proxy.is_child() {
            return Self::reload(format!(
                "{} is not there; it must exist at each boot before nginx starts \
                 (the package has a file for systemd-tmpfiles)",
                folder.display()
            ));
        }
        let user = nginx.worker_user().map(|(uid, gid)| WorkerUser { uid, gid });
        match NginxLua::open(folder, user) {
            Ok(lua) => {
                let lua = lua.with_balancing(options.balancing).with_tls(nginx.tls_server());
                let lua = Box::new(lua);
                Self::NginxLua { lua, live: options.live }
            }
            Err(error) => Self::reload(format!("{}: {error}", folder.display())),
        }
    }

    /// Its name in logs and status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reload { .. } => "reload",
            Self::NginxLua { .. } => "nginx-lua",
            Self::Haproxy(_) => "haproxy",
        }
    }

    /// Why a better driver is not used.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Reload { why, .. } => Some(why),
            Self::NginxLua { .. } | Self::Haproxy(_) => None,
        }
    }

    /// Whether the files have lines of servers beside what it changes, which only a reload changes.
    #[must_use]
    pub fn has_plain_lines(&self, files: &[RenderedFile]) -> bool {
        let is_plain = |piece: &Piece| matches!(piece, Piece::Servers(_));
        matches!(self, Self::NginxLua { .. })
            && files.iter().flat_map(|file| &file.text.pieces).any(is_plain)
    }

    /// Why it changes nothing, where the files name no pool.
    #[must_use]
    pub fn why_unused(&self) -> &'static str {
        match self {
            Self::NginxLua { .. } => "no template uses `upstream`",
            Self::Haproxy(_) | Self::Reload { .. } => "no template uses `servers` in a backend",
        }
    }

    /// The first pool that it cannot change, of those in the files that it has put into its form,
    /// and why.
    pub fn left_out(&self) -> Option<(&str, &str)> {
        let Self::NginxLua { lua, .. } = self else { return None };
        lua.left_out().first_key_value().map(|(name, why)| (name.as_str(), why.as_str()))
    }

    /// Where what its members have had and have is read, if it knows that.
    pub fn traffic_reader(&self) -> Option<TrafficReader> {
        match self {
            Self::Reload { .. } => None,
            Self::NginxLua { lua, .. } => Some(TrafficReader::NginxLua {
                folder: lua.folder().to_owned(),
                ejection: lua.ejection(),
            }),
            Self::Haproxy(runtime) => Some(TrafficReader::Haproxy(Box::new(runtime.haproxy()))),
        }
    }

    /// Puts rendered files into the form that it needs.
    #[must_use]
    pub fn arrange(&mut self, files: &[RenderedFile]) -> Arrangement {
        match self {
            Self::Reload { .. } => {
                let plain: Vec<_> = files.iter().map(RenderedFile::plain).collect();
                Arrangement { wanted: plain.into(), pools: Pools::new() }
            }
            Self::NginxLua { lua, .. } => lua.arrange(files),
            Self::Haproxy(_) => haproxy::arrange(files),
        }
    }

    /// Falls back to reloads, because the proxy refuses what this driver needs or does not do it;
    /// not if the operator insists on this driver, or the proxy has confirmed it before.
    pub fn give_up(&mut self, reason: &str) -> bool {
        if let Self::Haproxy(runtime) = self {
            if runtime.is_proven() {
                return false;
            }
            *self = Self::reload(reason);
            return true;
        }
        let Self::NginxLua { lua, live: LiveMembership::Auto } = self else { return false };
        if lua.is_proven {
            return false;
        }
        let why = if reason.contains("by_lua") && reason.contains("unknown directive") {
            "nginx has no Lua module (Debian: libnginx-mod-http-lua)".to_owned()
        } else {
            reason.to_owned()
        };
        let given_up = std::mem::replace(self, Self::reload(why));
        if let (Self::NginxLua { lua, .. }, Self::Reload { given_up, .. }) = (given_up, self) {
            *given_up = Some(lua);
        }
        true
    }

    /// Tries the driver again with the next change: its failure had another cause.
    pub fn reconsider(&mut self) {
        if let Self::Reload { given_up, .. } = self
            && let Some(lua) = given_up.take()
        {
            *self = Self::NginxLua { lua, live: LiveMembership::Auto };
        }
    }

    /// Gives the former driver up for good.
    pub fn settle(&mut self) {
        if let Self::Reload { given_up, .. } = self {
            *given_up = None;
        }
    }

    /// The proxy is not running: removes what could prevent its start.
    pub fn before_start(&self) {
        if let Self::NginxLua { lua, .. } = self {
            lua.remove_stale_sockets();
        }
    }

    /// Makes these the members. When it returns, no new request goes to any other;
    /// [`Self::confirm`] proves that the proxy has them.
    pub async fn publish(&mut self, pools: &Pools) -> Result<(), PublishError> {
        match self {
            Self::Reload { .. } => Ok(()),
            Self::NginxLua { lua, .. } => lua.publish(pools).await,
            Self::Haproxy(runtime) => runtime.publish(pools).await,
        }
    }

    /// The proxy is about to load its members from files, so that nothing need be published before.
    /// `false` for a driver that publishes them.
    pub fn expect_from_files(&mut self, pools: &Pools) -> bool {
        let Self::Haproxy(runtime) = self else { return false };
        runtime.expect(pools);
        true
    }

    /// Whether what was published outlives a reload of the proxy: if not, the file has to say it
    /// before it counts as applied.
    pub fn outlives_reload(&self) -> bool {
        matches!(self, Self::NginxLua { .. })
    }

    /// Whether it counts requests at their end, in nginx's log phase.
    pub fn needs_log_phase(&self) -> bool {
        matches!(self, Self::NginxLua { .. })
    }

    /// Requests cannot be counted: a reload does from now on, unless the operator wants no
    /// other.
    pub fn demote(&mut self, why: &str) -> bool {
        if matches!(self, Self::NginxLua { live: LiveMembership::Lua, .. }) {
            return false;
        }
        *self = Self::reload(why);
        true
    }

    /// Compares what the running proxy has with what was published last.
    pub async fn read_back(&mut self) -> ReadBack {
        match self {
            Self::Haproxy(runtime) => {
                runtime.read_back().await.map_or(ReadBack::Same, ReadBack::Other)
            }
            Self::NginxLua { lua, .. } => lua.read_back().await,
            Self::Reload { .. } => ReadBack::Same,
        }
    }

    /// Whether the proxy was reloaded before its files were written, if what it was given ends with
    /// that.
    pub async fn look_for_reload(&self) -> ReadBack {
        match self {
            Self::Haproxy(runtime) => {
                runtime.other_worker().await.map_or(ReadBack::Same, ReadBack::Other)
            }
            Self::NginxLua { .. } | Self::Reload { .. } => ReadBack::Same,
        }
    }

    /// The proxy may be another than the one that has confirmed its members, or becomes one.
    pub fn confirm_again(&mut self) {
        match self {
            Self::NginxLua { lua, .. } => lua.confirm_again(),
            Self::Haproxy(runtime) => runtime.list_again(),
            Self::Reload { .. } => {}
        }
    }

    /// The proxy has loaded its files.
    pub fn note_loaded(&mut self) {
        if let Self::NginxLua { lua, .. } = self {
            lua.note_loaded();
        }
    }

    /// Has the proxy confirm the members that were published last.
    pub async fn confirm(&mut self) -> Result<(), PublishError> {
        match self {
            Self::Reload { .. } => Ok(()),
            Self::NginxLua { lua, .. } => lua.confirm().await,
            Self::Haproxy(runtime) => runtime.confirm().await,
        }
    }

    /// Members that left and may still have requests.
    pub fn departed(&self) -> Vec<DepartedMember> {
        match self {
            Self::Reload { .. } => Vec::new(),
            Self::NginxLua { lua, .. } => lua.departed(),
            Self::Haproxy(runtime) => runtime.departed(),
        }
    }

    /// The requests in flight to a departed member; `None` where that is not known exactly.
    pub async fn in_flight(&mut self, departed: &DepartedMember) -> Option<u64> {
        match self {
            Self::Reload { .. } => None,
            Self::NginxLua { lua, .. } => lua.in_flight(departed),
            Self::Haproxy(runtime) => runtime.in_flight(departed).await,
        }
    }

    /// No worker of an older generation is left, so every request is counted again.
    pub fn count_again(&mut self) {
        if let Self::NginxLua { lua, .. } = self {
            lua.count_again();
        }
    }
}
