//! The backends of one upstream, as a set that shares all but what has changed with the one before:
//! with thousands of members, the next set costs what differs.

use std::fmt;
use std::sync::Arc;

use common::model::{Endpoint, Host, changed_keys};
use imbl::OrdMap;
use sha2::{Digest, Sha256};

/// One backend as a proxy needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamMember {
    /// Its address.
    pub endpoint: Endpoint,
    /// 1 to 256.
    pub weight: u16,
}

impl UpstreamMember {
    /// Whether it is at a name instead of an address.
    pub fn is_named(&self) -> bool {
        matches!(self.endpoint.host(), Host::Name(_))
    }
}

/// The backends of one service, by their keys.
#[derive(Clone, Default)]
pub struct UpstreamMembers {
    by_key: OrdMap<Arc<str>, UpstreamMember>,
    fingerprint: Fingerprint,
    /// How many are at a name instead of an address.
    named: usize,
}

/// Distinguishes sets of members: the sum of the digests of all of them, so that one more or less is
/// one addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint([u64; 4]);

impl Fingerprint {
    /// As bytes, for a digest of more than the members.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    fn of(key: &str, member: &UpstreamMember) -> Self {
        let mut hash = Sha256::new();
        hash.update((key.len() as u64).to_le_bytes());
        hash.update(key);
        hash.update(member.weight.to_le_bytes());
        hash.update(member.endpoint.to_string());
        let digest: [u8; 32] = hash.finalize().into();
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(digest.as_chunks().0) {
            *lane = u64::from_le_bytes(*bytes);
        }
        Self(lanes)
    }

    fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(lane, other)| *lane = lane.wrapping_add(other));
    }

    fn subtract(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(lane, other)| *lane = lane.wrapping_sub(other));
    }
}

impl UpstreamMembers {
    /// Adds a member, or replaces the one of this key.
    pub fn insert(&mut self, key: Arc<str>, member: UpstreamMember) {
        self.fingerprint.add(Fingerprint::of(&key, &member));
        self.named += usize::from(member.is_named());
        if let Some(before) = self.by_key.insert(Arc::clone(&key), member) {
            self.forget(&key, &before);
        }
    }

    /// Removes the member of this key.
    pub fn remove(&mut self, key: &str) {
        if let Some(before) = self.by_key.remove(key) {
            self.forget(key, &before);
        }
    }

    fn forget(&mut self, key: &str, member: &UpstreamMember) {
        self.fingerprint.subtract(Fingerprint::of(key, member));
        self.named -= usize::from(member.is_named());
    }

    /// One that is at a name instead of an address.
    pub fn first_named(&self) -> Option<&UpstreamMember> {
        if self.named == 0 {
            return None;
        }
        self.values().find(|member| member.is_named())
    }

    pub fn get(&self, key: &str) -> Option<&UpstreamMember> {
        self.by_key.get(key)
    }

    /// Whether there is a member of this key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// All, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &UpstreamMember)> {
        self.by_key.iter()
    }

    /// Copies of all, in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = (Arc<str>, UpstreamMember)> {
        self.iter().map(|(key, member)| (Arc::clone(key), member.clone()))
    }

    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_key.keys()
    }

    /// The members without their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &UpstreamMember> {
        self.by_key.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What distinguishes this set from others.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The keys whose members differ in `other`.
    pub fn changed_keys<'o>(&'o self, other: &'o Self) -> impl Iterator<Item = &'o Arc<str>> {
        changed_keys(&self.by_key, &other.by_key)
    }
}

impl PartialEq for UpstreamMembers {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.fingerprint == other.fingerprint
    }
}

impl Eq for UpstreamMembers {}

impl fmt::Debug for UpstreamMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_key.iter()).finish()
    }
}

impl FromIterator<(Arc<str>, UpstreamMember)> for UpstreamMembers {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, UpstreamMember)>>(members: I) -> Self {
        let mut all = Self::default();
        all.extend(members);
        all
    }
}

impl Extend<(Arc<str>, UpstreamMember)> for UpstreamMembers {
    fn extend<I: IntoIterator<Item = (Arc<str>, UpstreamMember)>>(&mut self, members: I) {
        members.into_iter().for_each(|(key, member)| self.insert(key, member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(port: u16) -> UpstreamMember {
        UpstreamMember { endpoint: format!("10.0.0.1:{port}").parse().unwrap(), weight: 1 }
    }

    proptest! {
        #[test]
        fn the_fingerprint_depends_on_the_members_alone(
            steps in proptest::collection::vec((0u8..6, proptest::option::of(1u16..4)), 0..40),
        ) {
            let mut members = UpstreamMembers::default();
            for (key, port) in steps {
                match port {
                    Some(port) => members.insert(key.to_string().into(), member(port)),
                    None => members.remove(&key.to_string()),
                }
            }
            let anew: UpstreamMembers =
                members.iter().map(|(key, member)| (Arc::clone(key), member.clone())).collect();
            prop_assert_eq!(&anew, &members);
            prop_assert_eq!(anew.fingerprint(), members.fingerprint());
            let mut other = members.clone();
            other.insert("9".into(), member(1));
            prop_assert_ne!(other.fingerprint(), members.fingerprint());
        }
    }
}
