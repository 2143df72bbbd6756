//! The servers that one backend is to have, by name, brought up to date by what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::servers::ServersByName;
use crate::template::{UpstreamMember, UpstreamMembers};

/// The keys at one address, sorted, and what each of them wants of its server.
type KeysAtAddress = Vec<(Arc<str>, (SocketAddr, u16))>;

/// The servers that a backend is to have. Members with a DNS name are none of them: they stay in
/// the files.
#[derive(Debug, Default)]
pub(super) struct WantedServers {
    members: UpstreamMembers,
    /// Of several keys at the address of a server the first counts, as in the file.
    by_name: BTreeMap<String, KeysAtAddress>,
}

impl WantedServers {
    /// Takes over these members. Returns the names of the servers that may have changed.
    pub(super) fn update(&mut self, members: &UpstreamMembers) -> BTreeSet<String> {
        let before = std::mem::replace(&mut self.members, members.clone());
        let server = |member: &UpstreamMember| super::member(&member.endpoint, member.weight);
        let mut changed = BTreeSet::new();
        for key in before.changed_keys(members) {
            if let Some((name, _)) = before.get(key).and_then(server) {
                self.remove(&name, key);
                changed.insert(name);
            }
            if let Some((name, at)) = members.get(key).and_then(server) {
                self.insert(&name, key, at);
                changed.insert(name);
            }
        }
        changed
    }

    fn insert(&mut self, name: &str, key: &Arc<str>, at: (SocketAddr, u16)) {
        let keys = self.by_name.entry(name.to_owned()).or_default();
        let place = keys.partition_point(|(before, _)| before < key);
        keys.insert(place, (Arc::clone(key), at));
    }

    fn remove(&mut self, name: &str, key: &Arc<str>) {
        if let Some(keys) = self.by_name.get_mut(name) {
            keys.retain(|(there, _)| there != key);
            if keys.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// Address and weight of the server of this name.
    pub(super) fn get(&self, name: &str) -> Option<(SocketAddr, u16)> {
        Some(self.by_name.get(name)?.first()?.1)
    }

    /// The names of all.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// All, with address and weight.
    pub(super) fn all(&self) -> ServersByName {
        self.names().filter_map(|name| Some((name.clone(), self.get(name)?))).collect()
    }

    /// That of this name alone.
    pub(super) fn only(&self, name: &str) -> ServersByName {
        self.get(name).map(|at| (name.to_owned(), at)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_follow_what_has_changed() {
        let members = |all: &[(&str, &str, u16)]| -> UpstreamMembers {
            let one = |(key, endpoint, weight): &(&str, &str, u16)| {
                let endpoint = endpoint.parse().unwrap();
                (Arc::from(*key), UpstreamMember { endpoint, weight: *weight })
            };
            all.iter().map(one).collect()
        };
        let mut wanted = WantedServers::default();
        let mut update = |all: &[(&str, &str, u16)]| {
            let changed: Vec<_> = wanted.update(&members(all)).into_iter().collect();
            let now = wanted.all().into_iter().map(|(name, (_, weight))| (name, weight));
            (changed.join(" "), now.collect::<Vec<_>>())
        };
        let (one, two) = ("10.0.0.1:80", "10.0.0.2:80");
        let is = |name: &str, weight| (name.to_owned(), weight);
        assert_eq!(update(&[("/b", one, 3)]), (one.into(), vec![is(one, 3)]));
        assert_eq!(update(&[("/b", one, 3)]), (String::new(), vec![is(one, 3)]));
        let twice = [("/a", one, 2), ("/b", one, 3), ("/n", "web.example:80", 1)];
        assert_eq!(update(&twice), (one.into(), vec![is(one, 2)]), "the first key counts");
        let moved = (format!("{one} {two}"), vec![is(one, 3), is(two, 2)]);
        assert_eq!(update(&[("/a", two, 2), ("/b", one, 3)]), moved);
        assert_eq!(update(&[]), (format!("{one} {two}"), vec![]));
    }
}
