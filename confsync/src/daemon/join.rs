//! The member key: there before anything is read, and true to what is read.

use std::time::Duration;

use common::claim::KeyStatus;
use common::handshake::Consumes;
use common::model::Key;
use common::registrar;
use common::rights::{Right, warn_until_granted};
use common::runtime::{Gate, ListenAddress};
use tokio::sync::watch as channel;
use tokio::time::timeout;

use super::Daemon;
use crate::acks::members::{Introduction, LoadBalancerKeys};
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;

/// How long the member key may keep the first read waiting, once etcd answers.
const JOIN: Duration = Duration::from_secs(3);

impl Daemon {
    /// The member key is there before anything is read, so that who leaves either
    /// left before our read or waits for us. The gate is opened then, or when etcd
    /// definitely refuses: that does not stop us from reading.
    pub(super) async fn join(&mut self, resources: Vec<Consumes>) -> Gate {
        let joined = Gate::default();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let advertise = self.config.advertise.clone();
        let listen = self.config.status.as_ref().map(|server| &server.address);
        let status = listen.and_then(|at| status_address(at, advertise.as_deref(), &host));
        self.members.join(Introduction { host, advertise, status }, resources.clone());
        tokio::spawn(warn_until_granted(self.store.clone(), self.rights(&resources)));
        let joining =
            tokio::spawn(see_joined(self.members.clone(), self.report.clone(), joined.clone()));
        // In order, if etcd answers; else the reading waits, and we go on.
        let _ = timeout(JOIN, joining).await;
        joined
    }
}

impl Daemon {
    /// Beside those to read what is rendered, which is read at once.
    fn rights(&self, resources: &[Consumes]) -> Vec<Right> {
        let (bookkeeping, name) = (self.members.bookkeeping(), self.members.name());
        let acks = resources.iter().filter_map(|one| bookkeeping.ack(&one.name, name).ok());
        let own = self.members.key().into_iter().chain(acks).map(Right::Write);
        let read = [bookkeeping.leave_markers(), bookkeeping.acceptances()].map(Right::Read);
        own.chain(read).collect()
    }
}

/// Where others find the status page. One that listens on all addresses is found at the host
/// that clients use, or by the name of the machine.
fn status_address(listen: &ListenAddress, advertise: Option<&str>, host: &str) -> Option<String> {
    let ListenAddress::Tcp(addr) = listen else { return None };
    if !addr.ip().is_unspecified() {
        return Some(addr.to_string());
    }
    let advertised = advertise.map(|at| at.rsplit_once(':').map_or(at, |(host, _)| host));
    Some(format!("{}:{}", advertised.unwrap_or(host), addr.port()))
}

/// Waits for a member key of ours in etcd, be it the alias, or for a definite no; then opens
/// `joined`.
async fn see_joined(
    members: LoadBalancerKeys,
    mut report: channel::Receiver<registrar::RegistrarReport>,
    joined: Gate,
) {
    let held = |report: &registrar::RegistrarReport| {
        members.member_as_wanted().is_some_and(|(key, value)| holds(report, &key, &value))
    };
    let refused = |report: &registrar::RegistrarReport| {
        report.failure.as_ref().is_some_and(|failure| !failure.error.is_transient())
    };
    let ended = report.wait_for(|report| held(report) || refused(report)).await;
    let Ok(held) = ended.map(|report| held(&report)) else { return };
    if !held {
        tracing::warn!(
            name = members.name(),
            "not joined: backends that leave do not wait for this load balancer. Is writing below \
             --bookkeeping not allowed?"
        );
    }
    joined.open();
}

pub(super) fn holds(report: &registrar::RegistrarReport, key: &Key, value: &[u8]) -> bool {
    matches!(report.keys.get(key), Some(KeyStatus::Owned { value: held, .. }) if held == value)
}

pub(super) fn consumed_by(sets: &[ReloadGroup]) -> Vec<Consumes> {
    let of = |program: &CompiledResource| Consumes {
        name: program.resource.name.clone(),
        trees: program.resource.reading.trees.iter().map(ToString::to_string).collect(),
    };
    sets.iter().flat_map(|set| set.programs.iter().map(of)).collect()
}

/// `now`, each with the trees that it had `before` as well.
pub(super) fn with_trees_of(mut now: Vec<Consumes>, before: &[Consumes]) -> Vec<Consumes> {
    for resource in &mut now {
        let old = before.iter().filter(|old| old.name == resource.name);
        for tree in old.flat_map(|old| &old.trees) {
            if !resource.trees.contains(tree) {
                resource.trees.push(tree.clone());
            }
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_is_found_where_it_can_be_reached() {
        let at = |listen: &str, advertise: Option<&str>| {
            status_address(&ListenAddress::Tcp(listen.parse().unwrap()), advertise, "edge-1")
        };
        assert_eq!(at("10.0.0.1:9181", None).as_deref(), Some("10.0.0.1:9181"));
        assert_eq!(at("0.0.0.0:9181", None).as_deref(), Some("edge-1:9181"));
        assert_eq!(
            at("[::]:9181", Some("[2001:db8::1]:80")).as_deref(),
            Some("[2001:db8::1]:9181")
        );
        assert_eq!(at("0.0.0.0:9181", Some("lb.example")).as_deref(), Some("lb.example:9181"));
    }
}
