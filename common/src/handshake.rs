//! The wire format of the handshake between load balancers and leaving backends,
//! and where its keys are. `docs/handshake.md` tells the protocol.
//!
//! Pure: both daemons import it, neither speaks to etcd here. The keys live
//! outside the watched prefix, so that writing one wakes no load balancer.

use serde::{Deserialize, Serialize};

use crate::model::{Key, KeyError, Prefix, Revision, Tree};

/// Where the bookkeeping keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookkeeping {
    members: Prefix,
    acks: Prefix,
    leaving: Prefix,
}

/// A load balancer is here: the value of `members/<lb>`, bound to its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The machine it runs on.
    pub host: String,
    /// The version of `confsync`.
    pub version: String,
    /// Names this life of the process: acknowledgements of an earlier one count
    /// for nothing.
    pub boot: String,
    /// Where clients reach this load balancer, if it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// What it renders.
    pub resources: Vec<Consumes>,
    /// Set just before a clean leave, when its nginx routes nothing any more (or
    /// was handed over). A member that vanishes without it is lost, not gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// One resource of a member and the keys it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumes {
    /// The resource's name, as in `acks/<resource>/<lb>`.
    pub name: String,
    /// The trees it renders from.
    pub trees: Vec<String>,
}

/// What a load balancer has applied: the value of `acks/<resource>/<lb>`, bound to
/// the same lease as its member key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which life of the process says so.
    pub boot: String,
    /// Every change up to this revision is in what nginx routes new requests by.
    pub applied: Revision,
    /// No worker is left that began before that.
    pub quiesced: Revision,
    /// Keys that the store has no more and that are routed to all the same, because
    /// their loss is doubted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<String>,
    /// `applied` and `quiesced` rest on the success of commands or on a span of time,
    /// not on evidence. A drain that counts on this one is assumed, not confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
    /// The newest revision looked at, and why it is not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Rejection>,
}

/// A definite no: waiting longer will not help unless something changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Everything up to this revision was looked at.
    pub revision: Revision,
    /// In the operator's words.
    pub why: String,
    /// All that is missing is another backend: without the removed one there would be
    /// none, or fewer than the resource asks for. A drain waits for one, within its bound.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_few_backends: bool,
}

/// Keys that a backend leaves on purpose: the value of `leaving/<service>/<id>`.
/// A load balancer that doubts a sudden loss does not hold these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The key that was or will be removed.
    pub key: String,
}

impl Bookkeeping {
    /// Below `root`, `/confsync` unless told otherwise.
    ///
    /// # Errors
    /// Never for a valid prefix; the signature spares a panic.
    pub fn below(root: &Prefix) -> Result<Self, KeyError> {
        Ok(Self {
            members: root.folder("members")?,
            acks: root.folder("acks")?,
            leaving: root.folder("leaving")?,
        })
    }

    /// All member keys.
    #[must_use]
    pub fn members(&self) -> Tree {
        self.members.clone().into()
    }

    /// All acknowledgements.
    #[must_use]
    pub fn acks(&self) -> Tree {
        self.acks.clone().into()
    }

    /// All leaving marks.
    #[must_use]
    pub fn all_leaving(&self) -> Tree {
        self.leaving.clone().into()
    }

    /// The member key of `lb`.
    ///
    /// # Errors
    /// When `lb` is not one clean path segment.
    pub fn member(&self, lb: &str) -> Result<Key, KeyError> {
        self.members.key(lb)
    }

    /// The key under which `lb` acknowledges `resource`.
    ///
    /// # Errors
    /// When either is not one clean path segment.
    pub fn ack(&self, resource: &str, lb: &str) -> Result<Key, KeyError> {
        self.acks.folder(resource)?.key(lb)
    }

    /// The mark that `id` of `service` leaves on purpose.
    ///
    /// # Errors
    /// When either is not one clean path segment.
    pub fn leaving(&self, service: &str, id: &str) -> Result<Key, KeyError> {
        self.leaving.folder(service)?.key(id)
    }

    /// The mark for a backend's key, and its value. `None` for a key without a folder.
    #[must_use]
    pub fn mark_of(&self, key: &Key) -> Option<(Key, Vec<u8>)> {
        let (folder, id) = key.as_str().rsplit_once('/')?;
        let service = folder.rsplit('/').next()?;
        let value = serde_json::to_vec(&Leaving { key: key.to_string() }).ok()?;
        Some((self.leaving(service, id).ok()?, value))
    }

    /// The name of the load balancer in a member key.
    #[must_use]
    pub fn lb_of_member<'k>(&self, key: &'k str) -> Option<&'k str> {
        self.members.strip(key).filter(|rest| !rest.contains('/'))
    }

    /// Resource and load balancer in an acknowledgement's key.
    #[must_use]
    pub fn parts_of_ack<'k>(&self, key: &'k str) -> Option<(&'k str, &'k str)> {
        self.acks.strip(key)?.split_once('/').filter(|(_, lb)| !lb.contains('/'))
    }
}

impl Member {
    /// The resources of this member that render from `key`.
    pub fn consumers_of<'m>(&'m self, key: &'m Key) -> impl Iterator<Item = &'m str> {
        let covers = |tree: &String| tree.parse::<Tree>().is_ok_and(|t| t.covers(key.as_str()));
        self.resources.iter().filter(move |r| r.trees.iter().any(covers)).map(|r| r.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_parts() {
        let book = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        let ack = book.ack("nginx", "lb-1").unwrap();
        assert_eq!(ack.as_str(), "/confsync/acks/nginx/lb-1");
        assert_eq!(book.parts_of_ack(ack.as_str()), Some(("nginx", "lb-1")));
        let member = book.member("lb-1").unwrap();
        assert_eq!(book.lb_of_member(member.as_str()), Some("lb-1"));
        assert_eq!(book.lb_of_member("/confsync/acks/nginx/lb-1"), None);
    }

    #[test]
    fn a_member_consumes_what_its_trees_cover() {
        let member = Member {
            host: "h".into(),
            version: "1".into(),
            boot: "b".into(),
            advertise: None,
            resources: vec![
                Consumes { name: "web".into(), trees: vec!["/services/apache".into()] },
                Consumes { name: "all".into(), trees: vec!["/x".into(), "/services".into()] },
                Consumes { name: "other".into(), trees: vec!["/services/apache2".into()] },
            ],
            left: false,
        };
        let key: Key = "/services/apache/10.0.0.1".parse().unwrap();
        assert_eq!(member.consumers_of(&key).collect::<Vec<_>>(), ["web", "all"]);
        let text = serde_json::to_string(&member).unwrap();
        assert!(!text.contains("left"), "{text}");
        assert_eq!(serde_json::from_str::<Member>(&text).unwrap(), member);
    }
}
