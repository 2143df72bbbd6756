//! The answers of etcd v2, and what its errors mean.
//!
//! Its error codes are in the body, not in the HTTP status: a history that is no longer kept is
//! "401" inside a 400.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::model::{Change, Entry, Revision, Snapshot, Tree};
use crate::store::StoreError;

/// "Key not found".
pub(super) const NOT_FOUND: u64 = 100;
/// "Compare failed".
pub(super) const COMPARE_FAILED: u64 = 101;
/// "Key already exists".
pub(super) const EXISTS: u64 = 105;
/// "The event in requested index is outdated and cleared".
pub(super) const CLEARED: u64 = 401;

/// "Value provided on refresh": the server knows refreshes (2.3 and newer).
pub(super) const VALUE_ON_REFRESH: u64 = 211;

/// "Not a directory": there is a key where the path needs a directory.
pub(super) const NOT_A_DIRECTORY: u64 = 104;

const NOT_A_FILE: u64 = 102;
const UNAUTHORIZED: u64 = 110;
/// The cluster cannot answer: no leader, a time-out.
const RAFT: std::ops::Range<u64> = 300..400;

/// The answer to a request that was carried out, and an event of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct KeyEvent {
    #[serde(default)]
    pub(super) action: String,
    pub(super) node: KeyNode,
}

/// A key or a directory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyNode {
    /// Absent for the root.
    key: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    dir: bool,
    #[serde(default)]
    nodes: Vec<KeyNode>,
    #[serde(default)]
    pub(super) modified_index: u64,
    #[serde(default)]
    created_index: u64,
    /// Negative in the events of an etcd 0.4 that replays its log after a restart.
    #[serde(default)]
    ttl: Option<i64>,
    /// Also present in the last second, when `ttl` is left out.
    #[serde(default)]
    expiration: Option<String>,
}

/// The answer to a request that was not carried out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorBody {
    pub(super) error_code: u64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    cause: String,
}

/// Status, headers and body of an answer.
#[derive(Debug, Default)]
pub(super) struct HttpReply {
    pub(super) status: u16,
    /// `X-Etcd-Index`, absent or 0 on some errors.
    pub(super) index: Option<Revision>,
    pub(super) cluster: u64,
    pub(super) json: bool,
    pub(super) body: Vec<u8>,
}

/// The answer to a request about a key.
#[derive(Debug)]
pub(super) enum KeyReply {
    Done(KeyEvent),
    /// An error about the state of the key, which callers decide by.
    Failed(ErrorBody),
}

impl HttpReply {
    /// The store's index.
    ///
    /// # Errors
    /// When the header is missing: without it a wiped store is not noticed.
    pub(super) fn index(&self) -> Result<Revision, StoreError> {
        self.index.ok_or_else(|| {
            StoreError::Unreachable(
                "the answer has no X-Etcd-Index; does a proxy in between drop headers?".to_owned(),
            )
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Every error that is not about the state of a key.
    pub(super) fn read(&self) -> Result<KeyReply, StoreError> {
        if (200..300).contains(&self.status) {
            return serde_json::from_slice(&self.body)
                .map(KeyReply::Done)
                .map_err(|e| StoreError::Unreachable(format!("not an etcd response: {e}")));
        }
        let Ok(error) = serde_json::from_slice::<ErrorBody>(&self.body) else {
            return Err(self.without_code());
        };
        match error.error_code {
            NOT_FOUND | COMPARE_FAILED | EXISTS | CLEARED | NOT_A_DIRECTORY | VALUE_ON_REFRESH => {
                Ok(KeyReply::Failed(error))
            }
            _ => Err(error.into()),
        }
    }

    /// An error that does not come from the keys API: that of a proxy, or of a server without
    /// the API.
    fn without_code(&self) -> StoreError {
        let text = String::from_utf8_lossy(&self.body);
        // In one line, and without the HTML of an error page.
        let words: Vec<&str> =
            text.split_whitespace().take_while(|w| !w.starts_with('<')).collect();
        let words: String = words.join(" ").chars().take(200).collect();
        let between = if words.is_empty() { "" } else { ": " };
        let text = format!("HTTP {}{between}{words}", self.status);
        match self.status {
            404 if !self.json => StoreError::Unsupported(
                "this etcd does not offer the v2 API: start etcd (3.0 to 3.5) with `--enable-v2`, \
                 or use the v3 API"
                    .to_owned(),
            ),
            401 | 403 => StoreError::Denied(text),
            400..500 => StoreError::Rejected(text),
            _ => StoreError::Unreachable(text),
        }
    }
}

/// What an answer says of some keys, as a read and as an event; nothing if it is an error. For
/// [`crate::fuzz`]: the client itself wants a server.
pub(crate) fn v2_answer(status: u16, body: &[u8], watched: &Tree) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let reply = HttpReply { status, json: true, body: body.to_vec(), ..HttpReply::default() };
    if let Ok(KeyReply::Done(event)) = reply.read() {
        event.node.collect(&mut snapshot);
        event.change(watched).into_iter().for_each(|change| snapshot.apply(change));
    }
    snapshot
}

impl From<ErrorBody> for StoreError {
    fn from(ErrorBody { error_code, message, cause }: ErrorBody) -> Self {
        let text = format!("{message} ({cause}, code {error_code})");
        match error_code {
            UNAUTHORIZED => Self::Denied(format!("{text}: check the user and the password")),
            NOT_A_FILE => {
                Self::Rejected(format!("{text}: there is a directory in place of the key"))
            }
            NOT_A_DIRECTORY => {
                Self::Rejected(format!("{text}: there is a key in place of a directory"))
            }
            code if RAFT.contains(&code) => Self::Unreachable(text),
            _ => Self::Rejected(text),
        }
    }
}

impl KeyNode {
    fn path(&self) -> &str {
        self.key.as_deref().unwrap_or("/")
    }

    pub(super) fn is_directory(&self) -> bool {
        self.dir
    }

    /// The value; empty for a directory.
    pub(super) fn value(&self) -> &str {
        self.value.as_deref().unwrap_or_default()
    }

    /// The node as an entry; a directory is none.
    pub(super) fn entry(&self) -> Option<Entry> {
        (!self.dir).then(|| Entry {
            key: self.path().into(),
            value: self.value().into(),
            created: Revision(self.created_index),
            modified: Revision(self.modified_index),
            lease: 0,
            ttl: self.time_left(),
        })
    }

    /// What is left of its lifetime; zero in the last second.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let ending = || self.expiration.as_ref().map(|_| Duration::ZERO);
        let left = |ttl: i64| Duration::from_secs(u64::try_from(ttl).unwrap_or_default());
        self.ttl.map(left).or_else(ending)
    }

    /// All entries at and below this node.
    pub(super) fn collect(&self, into: &mut Snapshot) {
        if let Some(entry) = self.entry() {
            into.entries.insert(Arc::clone(&entry.key), entry);
        }
        self.nodes.iter().for_each(|node| node.collect(into));
    }
}

impl KeyEvent {
    /// The event as a change of `watched`. `None` if it is about something else: etcd delivers
    /// directories whose name merely begins with the same letters.
    pub(super) fn change(&self, watched: &Tree) -> Option<Change> {
        let at = Revision(self.node.modified_index);
        let gone = matches!(self.action.as_str(), "delete" | "expire" | "compareAndDelete");
        let key = self.node.path();
        if self.node.dir && gone {
            let tree: Tree = key.parse().ok()?;
            let concerns = watched.covers(tree.path()) || tree.covers(watched.path());
            return concerns.then_some(Change::TreeDeleted { tree, at });
        }
        if !watched.covers(key) {
            return None;
        }
        // A directory made in place of a key ends the key.
        Some(match self.node.entry().filter(|_| !gone) {
            Some(entry) => Change::Put(entry),
            None => Change::Deleted { key: key.into(), at },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, json: bool, body: &str) -> HttpReply {
        HttpReply { status, json, body: body.as_bytes().to_vec(), ..HttpReply::default() }
    }

    #[test]
    fn codes_in_the_body_decide() {
        let cleared = r#"{"errorCode":401,"message":"outdated","cause":"[42/37]","index":1041}"#;
        assert!(
            matches!(reply(400, true, cleared).read(), Ok(KeyReply::Failed(r)) if r.error_code == CLEARED)
        );
        let auth = r#"{"errorCode":110,"message":"The request requires user authentication"}"#;
        assert!(matches!(reply(401, true, auth).read(), Err(StoreError::Denied(_))));
        let raft = r#"{"errorCode":300,"message":"Raft Internal Error","cause":"timed out"}"#;
        assert!(reply(500, true, raft).read().unwrap_err().is_transient());
        let proxy = r#"{"message":"httpproxy: unable to get response from 1 endpoint(s)"}"#;
        assert!(reply(502, true, proxy).read().unwrap_err().is_transient());
        let off = reply(404, false, "404 page not found\n").read().unwrap_err().to_string();
        assert!(off.contains("--enable-v2"), "{off}");
        assert!(reply(200, true, "<html>").read().unwrap_err().is_transient());
    }

    /// As etcd 0.4.9 sends it after a restart.
    #[test]
    fn a_lifetime_that_is_over_makes_no_event_unreadable() {
        let event = r#"{"action":"expire","node":{"key":"/a/b","ttl":-27,"modifiedIndex":9},
            "prevNode":{"key":"/a/b","value":"x","ttl":-27,"modifiedIndex":3}}"#;
        let Ok(KeyReply::Done(event)) = reply(200, true, event).read() else { panic!("not read") };
        assert_eq!(event.node.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn the_end_of_a_directory_concerns_what_is_below_it_and_nothing_beside_it() {
        let event = |key: &str| -> KeyEvent {
            let node = format!(r#"{{"key":"{key}","dir":true,"modifiedIndex":9}}"#);
            serde_json::from_str(&format!(r#"{{"action":"expire","node":{node}}}"#)).unwrap()
        };
        let watched: Tree = "/services/web".parse().unwrap();
        for (key, concerns) in [
            ("/services", true),
            ("/services/web", true),
            ("/services/web/a", true),
            ("/services/we", false),
            ("/services/web2", false),
        ] {
            assert_eq!(event(key).change(&watched).is_some(), concerns, "{key}");
        }
    }
}
