//! What etcd v2 answers, and what its errors ask for.
//!
//! Its error codes are in the body, not in the HTTP status: a history that is gone
//! is "401" inside a 400.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::model::{Change, Entry, Revision, Snapshot, Tree};
use crate::store::StoreError;

/// "Key not found".
pub(super) const MISSING: u64 = 100;
/// "Compare failed".
pub(super) const COMPARE: u64 = 101;
/// "Key already exists".
pub(super) const EXISTS: u64 = 105;
/// "The event in requested index is outdated and cleared".
pub(super) const CLEARED: u64 = 401;

/// "Not a directory": a key stands where the path needs a folder.
pub(super) const NOT_A_FOLDER: u64 = 104;

const NOT_A_FILE: u64 = 102;
const UNAUTHORIZED: u64 = 110;
/// From here on the cluster has trouble: no leader, a time-out.
const RAFT: std::ops::Range<u64> = 300..400;

/// The answer to a request that was carried out.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    pub(super) action: String,
    pub(super) node: Node,
}

/// A key or a folder.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// Absent for the root.
    key: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    dir: bool,
    #[serde(default)]
    nodes: Vec<Node>,
    #[serde(default)]
    pub(super) modified_index: u64,
    #[serde(default)]
    created_index: u64,
    #[serde(default)]
    ttl: Option<u64>,
    /// There while `ttl` is left out, in the last second.
    #[serde(default)]
    expiration: Option<String>,
}

/// The answer to a request that was not carried out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusal {
    pub(super) error_code: u64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    cause: String,
}

/// Status, headers and body of an answer.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// `X-Etcd-Index`, absent or 0 on some errors.
    pub(super) index: Option<Revision>,
    pub(super) cluster: u64,
    pub(super) json: bool,
    pub(super) body: Vec<u8>,
}

/// What a reply says.
#[derive(Debug)]
pub(super) enum Said {
    Done(Answer),
    /// One of the refusals that somebody decides by.
    No(Refusal),
}

impl Reply {
    /// The store's index.
    ///
    /// # Errors
    /// When the header is missing, for without it a wiped store cannot be told.
    pub(super) fn index(&self) -> Result<Revision, StoreError> {
        self.index.ok_or_else(|| {
            StoreError::Unreachable(
                "an answer without X-Etcd-Index: does a proxy in between drop headers?".to_owned(),
            )
        })
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// All refusals that are not about the state of a key.
    pub(super) fn read(&self) -> Result<Said, StoreError> {
        if (200..300).contains(&self.status) {
            return serde_json::from_slice(&self.body)
                .map(Said::Done)
                .map_err(|e| StoreError::Unreachable(format!("not an answer of etcd v2: {e}")));
        }
        let Ok(refusal) = serde_json::from_slice::<Refusal>(&self.body) else {
            return Err(self.without_code());
        };
        match refusal.error_code {
            MISSING | COMPARE | EXISTS | CLEARED | NOT_A_FOLDER => Ok(Said::No(refusal)),
            _ => Err(refusal.into()),
        }
    }

    /// An error that does not come from the keys API: a proxy's, or a server's
    /// without it.
    fn without_code(&self) -> StoreError {
        let text = String::from_utf8_lossy(&self.body);
        // One line; of a page for a browser, nothing.
        let words: Vec<&str> =
            text.split_whitespace().take_while(|w| !w.starts_with('<')).collect();
        let text: String = words.join(" ").chars().take(200).collect();
        match self.status {
            404 if !self.json => StoreError::Unsupported(
                "this etcd does not offer the v2 API: start etcd (3.0 to 3.5) with `--enable-v2`, \
                 or use the v3 API"
                    .to_owned(),
            ),
            401 | 403 => StoreError::Denied(format!("HTTP {}: {text}", self.status)),
            400..500 => StoreError::Refused(format!("HTTP {}: {text}", self.status)),
            status => StoreError::Unreachable(format!("HTTP {status}: {text}")),
        }
    }
}

impl From<Refusal> for StoreError {
    fn from(Refusal { error_code, message, cause }: Refusal) -> Self {
        let text = format!("{message} ({cause}, code {error_code})");
        match error_code {
            UNAUTHORIZED => Self::Denied(format!(
                "{text}: check the user, the password and the role's access to this path"
            )),
            NOT_A_FILE => Self::Refused(format!("{text}: there is a folder where a key is meant")),
            NOT_A_FOLDER => {
                Self::Refused(format!("{text}: there is a key where a folder is meant"))
            }
            code if RAFT.contains(&code) => Self::Unreachable(text),
            _ => Self::Refused(text),
        }
    }
}

impl Node {
    fn path(&self) -> &str {
        self.key.as_deref().unwrap_or("/")
    }

    pub(super) fn is_folder(&self) -> bool {
        self.dir
    }

    /// The node as an entry; a folder is none.
    pub(super) fn entry(&self) -> Option<Entry> {
        (!self.dir).then(|| Entry {
            key: self.path().into(),
            value: self.value.as_deref().unwrap_or_default().into(),
            created: Revision(self.created_index),
            modified: Revision(self.modified_index),
            lease: 0,
            ttl: self.time_left(),
        })
    }

    /// Time left; zero in the last second.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let ending = || self.expiration.as_ref().map(|_| Duration::ZERO);
        self.ttl.map(Duration::from_secs).or_else(ending)
    }

    /// All entries at and below this node.
    pub(super) fn collect(&self, into: &mut Snapshot) {
        if let Some(entry) = self.entry() {
            into.entries.insert(Arc::clone(&entry.key), entry);
        }
        self.nodes.iter().for_each(|node| node.collect(into));
    }
}

impl Answer {
    /// The event as a change of `watched`, unless it is none: a folder may be
    /// named that merely begins with the same letters.
    pub(super) fn change(&self, watched: &Tree) -> Option<Change> {
        let at = Revision(self.node.modified_index);
        let gone = matches!(self.action.as_str(), "delete" | "expire" | "compareAndDelete");
        let key = self.node.path();
        if self.node.dir && gone {
            let tree: Tree = key.parse().ok()?;
            let concerns = watched.covers(tree.path()) || tree.covers(watched.path());
            return concerns.then_some(Change::TreeGone { tree, at });
        }
        if !watched.covers(key) {
            return None;
        }
        // A folder made in the place of a key ends the key.
        Some(match self.node.entry().filter(|_| !gone) {
            Some(entry) => Change::Put(entry),
            None => Change::Gone { key: key.into(), at },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, json: bool, body: &str) -> Reply {
        Reply { status, json, body: body.as_bytes().to_vec(), ..Reply::default() }
    }

    #[test]
    fn codes_in_the_body_decide() {
        let cleared = r#"{"errorCode":401,"message":"outdated","cause":"[42/37]","index":1041}"#;
        assert!(
            matches!(reply(400, true, cleared).read(), Ok(Said::No(r)) if r.error_code == CLEARED)
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

    #[test]
    fn a_folder_that_ends_concerns_what_is_below_it_and_nothing_beside_it() {
        let event = |key: &str| -> Answer {
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
