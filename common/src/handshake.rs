//! The wire format of the handshake between load balancers and backends that deregister, and
//! where its keys are. `docs/handshake.md` describes the protocol.
//!
//! Pure but for the clock of [`DrainTimes`]: no I/O. The keys are outside the watched prefix, so
//! that writing one wakes no load balancer.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::{Key, KeyError, Prefix, Revision, Tree};

/// The folders of the bookkeeping keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookkeeping {
    members: Prefix,
    acks: Prefix,
    leaving: Prefix,
    accepted: Prefix,
}

/// The value of `members/<lb>`, bound to the lease of that load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The machine it runs on.
    pub host: String,
    /// The version of `confsync`.
    pub version: String,
    /// Names this run of the process: acknowledgements of an earlier one do not count.
    #[serde(rename = "boot")]
    pub instance_id: String,
    /// Where clients reach this load balancer, if that is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where its status page is, `HOST:PORT`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The resources it renders.
    pub resources: Vec<Consumes>,
    /// Set just before a clean shutdown, when its proxy routes nothing any more (or was handed
    /// over). A member whose key expires without it is lost: its proxy may still route.
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

/// The value of `acks/<resource>/<lb>`, bound to the same lease as the member key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The run of the process that wrote it; see [`Member::instance_id`].
    #[serde(rename = "boot")]
    pub instance_id: String,
    /// New requests are routed by every change up to this revision.
    pub applied: Revision,
    /// No request runs any more by keys older than this revision.
    pub quiesced: Revision,
    /// Keys that are absent from etcd and still routed to.
    #[serde(default, rename = "held", skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<String>,
    /// `applied` and `quiesced` rest on the success of commands or on a span of time, not on
    /// evidence. A drain that relies on this one is assumed, not confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
    /// The newest revision that was considered, and why it is not applied.
    #[serde(default, rename = "refused", skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
    /// Why the newest files are not active yet; loading them is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How many keys it leaves out because of their values; the others are applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rejected_values: usize,
    /// Who changes backends in the proxy; not in those of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverInUse>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Who changes backends in the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInUse {
    /// Its name; `reload` if every change is a reload.
    pub name: String,
    /// Why it is not a better one, for an operator whose templates could use one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a revision is not applied, for good: waiting longer does not help unless something
/// changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Every change up to this revision was considered.
    pub revision: Revision,
    /// The reason, for an operator.
    #[serde(rename = "why")]
    pub reason: String,
    /// All that is missing is another backend: without the removed one there would be none, or
    /// fewer than the resource asks for. A drain waits for one, within its bound.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_few_backends: bool,
}

/// The value of `leaving/<service>/<id>`: this key is removed on purpose, so no load balancer
/// retains its backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveMarker {
    /// The key that was or will be removed.
    pub key: String,
    /// When; for people.
    #[serde(flatten)]
    pub times: DrainTimes,
}

/// When a drain began and when it ends at the latest, in milliseconds of Unix time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainTimes {
    /// Its begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Its end at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl DrainTimes {
    /// Of a drain that begins now and takes `most` at most.
    pub fn from_now(most: Duration) -> Self {
        let at = |after: Duration| {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
            u64::try_from(unix.saturating_add(after).as_millis()).ok()
        };
        Self { since: at(Duration::ZERO), until: at(most) }
    }
}

/// The value of `accepted/<resource>`: an operator confirms that these keys are gone for good. It
/// is bound to a short lease and covers this one loss only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Identifies this acceptance: each load balancer acts on it once.
    pub id: String,
    /// The keys that are absent.
    pub keys: BTreeSet<String>,
}

/// Whether a key and its value are the bookkeeping of a load balancer, wherever it keeps that: a
/// member key, or an acknowledgement. Two that read the whole store, each with a `--bookkeeping`
/// of its own, would otherwise acknowledge each other's acknowledgements forever.
pub fn is_bookkeeping(key: &str, value: &[u8]) -> bool {
    match folder_of(key) {
        Some("members") => serde_json::from_slice::<Member>(value).is_ok(),
        Some("acks") => serde_json::from_slice::<Ack>(value).is_ok(),
        _ => false,
    }
}

/// Whether a key is where bookkeeping may be: of its value nothing is known.
pub fn may_be_bookkeeping(key: &str) -> bool {
    folder_of(key).is_some()
}

/// The folder of bookkeeping that a key has the form of: `…/members/<lb>`,
/// `…/acks/<resource>/<lb>`.
fn folder_of(key: &str) -> Option<&'static str> {
    let mut parts = key.rsplit('/').skip(1);
    match (parts.next()?, parts.next()?) {
        ("members", _) => Some("members"),
        (_, "acks") => Some("acks"),
        _ => None,
    }
}

impl Bookkeeping {
    /// The folders below `root`, which is `/confsync` by default.
    ///
    /// # Errors
    /// When one of the names is not one clean path segment. They are constants, so this is for
    /// the compiler only.
    pub fn below(root: &Prefix) -> Result<Self, KeyError> {
        Ok(Self {
            members: root.folder("members")?,
            acks: root.folder("acks")?,
            leaving: root.folder("leaving")?,
            accepted: root.folder("accepted")?,
        })
    }

    /// All member keys.
    pub fn members(&self) -> Tree {
        Tree::below(self.members.clone())
    }

    /// All acknowledgements.
    pub fn acks(&self) -> Tree {
        Tree::below(self.acks.clone())
    }

    pub fn leave_markers(&self) -> Tree {
        Tree::below(self.leaving.clone())
    }

    /// All losses that an operator accepts.
    pub fn acceptances(&self) -> Tree {
        Tree::below(self.accepted.clone())
    }

    /// The key of the loss of `resource` that an operator accepts.
    ///
    /// # Errors
    /// When it is not one clean path segment.
    pub fn acceptance(&self, resource: &str) -> Result<Key, KeyError> {
        self.accepted.key(resource)
    }

    /// The resource in the key of an acceptance.
    pub fn accepted_resource<'k>(&self, key: &'k str) -> Option<&'k str> {
        self.accepted.strip(key).filter(|rest| !rest.contains('/'))
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

    /// The key of the leave marker for `id` of `service`.
    ///
    /// # Errors
    /// When either is not one clean path segment.
    pub fn leaving(&self, service: &str, id: &str) -> Result<Key, KeyError> {
        self.leaving.folder(service)?.key(id)
    }

    /// The leave marker for a backend's key: its key and its value. `None` for a key without a
    /// folder.
    pub fn leave_marker(&self, key: &Key, times: DrainTimes) -> Option<(Key, Vec<u8>)> {
        let (folder, id) = key.as_str().rsplit_once('/')?;
        let service = folder.rsplit('/').next()?;
        let value = serde_json::to_vec(&LeaveMarker { key: key.to_string(), times }).ok()?;
        Some((self.leaving(service, id).ok()?, value))
    }

    /// The name of the load balancer in a member key.
    pub fn member_name<'k>(&self, key: &'k str) -> Option<&'k str> {
        self.members.strip(key).filter(|rest| !rest.contains('/'))
    }

    /// Resource and load balancer in an acknowledgement's key.
    pub fn ack_parts<'k>(&self, key: &'k str) -> Option<(&'k str, &'k str)> {
        self.acks.strip(key)?.split_once('/').filter(|(_, lb)| !lb.contains('/'))
    }
}

impl Member {
    /// The resources of this member that render from `key`; also those whose trees cannot be
    /// read, because nothing shows that they do not.
    pub fn consumers_of<'m>(&'m self, key: &'m Key) -> impl Iterator<Item = &'m str> {
        let covers = |tree: &String| tree.parse::<Tree>().map_or(true, |t| t.covers(key.as_str()));
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
        assert_eq!(book.ack_parts(ack.as_str()), Some(("nginx", "lb-1")));
        let member = book.member("lb-1").unwrap();
        assert_eq!(book.member_name(member.as_str()), Some("lb-1"));
        assert_eq!(book.member_name("/confsync/acks/nginx/lb-1"), None);
    }

    #[test]
    fn the_bookkeeping_of_others_is_known_by_its_form() {
        let ack = br#"{"boot":"b","applied":7,"quiesced":7}"#;
        for (key, value, is) in [
            ("/lb-2/acks/web/lb", &ack[..], true),
            ("/confsync/acks/web/lb", ack, true),
            ("/lb-2/acks/web/lb", b"10.0.0.1:80", false),
            ("/services/acks/1", ack, false),
            ("/lb-2/members/lb", ack, false),
            ("/services/members/lb", b"10.0.0.1:80", false),
        ] {
            assert_eq!(is_bookkeeping(key, value), is, "{key}");
        }
        let member = br#"{"host":"h","version":"1","boot":"b","resources":[]}"#;
        assert!(is_bookkeeping("/lb-2/members/lb", member));
        assert!(may_be_bookkeeping("/x/members/a") && !may_be_bookkeeping("/members"));
    }

    #[test]
    fn a_member_consumes_what_its_trees_cover() {
        let member = Member {
            host: "h".into(),
            version: "1".into(),
            instance_id: "b".into(),
            advertise: None,
            status: None,
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
        assert!(text.contains(r#""boot":"b""#) && !text.contains("left"), "{text}");
        assert_eq!(serde_json::from_str::<Member>(&text).unwrap(), member);
    }
}
