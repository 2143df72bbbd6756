//! Whether this load balancer owns its name: of all processes that use one name, one does.
//!
//! While another process owns it, the member key has an alias, so that draining backends wait for
//! us all the same. The name is taken as soon as it is free.

use common::claim::KeyStatus;
use common::handshake::Member;
use common::registrar::RegistrarReport;
use common::runtime::hostname;
use tokio::sync::watch;

use crate::acks::members::LoadBalancerKeys;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;

/// Whose the name is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum NameOwner {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// Ours: etcd has confirmed our member key.
    Us,
    /// Another load balancer's, for an operator.
    Rival(String),
}

/// Follows the report of the registrar for as long as there is one.
pub(super) async fn keep(
    members: LoadBalancerKeys,
    mut report: watch::Receiver<RegistrarReport>,
    owner: watch::Sender<NameOwner>,
) {
    loop {
        let now = owner_now(&members, &report.borrow_and_update());
        let before = owner.borrow().clone();
        if let Some(now) = now.filter(|now| *now != before) {
            announce(&members, &before, &now);
            members.use_alias(matches!(now, NameOwner::Rival(_)));
            owner.send_replace(now);
        }
        if report.changed().await.is_err() {
            return;
        }
    }
}

/// `None`: as before.
fn owner_now(members: &LoadBalancerKeys, report: &RegistrarReport) -> Option<NameOwner> {
    match report.keys.get(&members.key().ok()?)? {
        KeyStatus::Owned { .. } => Some(NameOwner::Us),
        // A key of an earlier instance is met before it is taken over.
        KeyStatus::Rival { value } if !members.is_ours(value) => {
            let host = serde_json::from_slice::<Member>(value).map(|member| member.host);
            let host = host.map_or("unknown".to_owned(), |host| format!("{host:?}"));
            Some(NameOwner::Rival(format!(
                "the name {:?} belongs to another load balancer (host {host}); give each its own \
                 --name",
                members.name()
            )))
        }
        _ => None,
    }
}

fn announce(members: &LoadBalancerKeys, before: &NameOwner, now: &NameOwner) {
    let (name, alias) = (members.name(), members.alias());
    match (before, now) {
        (_, NameOwner::Unknown) => {}
        (_, NameOwner::Us) => tracing::info!(name, "registered as a load balancer"),
        (NameOwner::Us, NameOwner::Rival(why)) => {
            tracing::warn!(alias, "name lost: {why}; draining backends wait for the alias");
        }
        (_, NameOwner::Rival(why)) => tracing::warn!(
            alias,
            "not registered by this name: {why}; draining backends wait for the alias (the key of \
             an instance that was killed elsewhere ends with its lease)"
        ),
    }
}

/// `HOST-RESOURCES`: two load balancers on one machine, for nginx and for HAProxy, have two
/// names.
pub(super) fn default_name(sets: &[ReloadGroup]) -> String {
    let of = |program: &CompiledResource| program.resource.name.replace('/', "_");
    let mut names: Vec<String> = sets.iter().flat_map(|set| set.programs.iter().map(of)).collect();
    names.sort();
    join(&hostname(), &names)
}

/// At most so many resources are named.
const NAMED: usize = 3;

fn join(host: &str, names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut name = host.to_owned();
    for (nth, resource) in names.iter().take(NAMED).enumerate() {
        name.push(if nth == 0 { '-' } else { '+' });
        name.push_str(resource);
    }
    if more > 0 {
        name.push_str(&format!("+{more}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_by_default_is_that_of_host_and_set() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(join("edge-1", &[]), "edge-1");
        assert_eq!(join("edge-1", &names(&["nginx"])), "edge-1-nginx");
        assert_eq!(join("edge-1", &names(&["a", "b", "c"])), "edge-1-a+b+c");
        assert_eq!(join("edge-1", &names(&["a", "b", "c", "d", "e"])), "edge-1-a+b+c+2");
    }
}
