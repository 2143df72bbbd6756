//! Writes that happen only under a condition. v2 checks one on the value or the index of the key;
//! what a [`Guard`] asks beyond that is looked up before.

use reqwest::Method;
use tokio::time::Instant;

use super::V2;
use super::request::Params;
use super::wire::{KeyReply, NOT_A_DIRECTORY};
use crate::model::{Entry, Key, Revision};
use crate::store::{Guard, Ownership, StoreError};

/// How a guarded write ended.
pub(super) enum GuardedWrite {
    /// Done, at this index.
    Done(Revision),
    /// Its guard asks for something else than what is there.
    Stopped(Obstacle),
}

/// A guard, before the write.
enum Condition {
    /// The server checks it: a parameter and its value.
    Asked(&'static str, String),
    /// It is certain to stop the write.
    Unmet(Obstacle),
}

/// What a guarded write found in place of what its guard asks for.
pub(super) struct Obstacle {
    pub(super) entry: Option<Entry>,
    pub(super) revision: Revision,
}

impl V2 {
    /// What keeps a write from being done.
    async fn obstacle(&self, key: &Key, deadline: Instant) -> Result<Obstacle, StoreError> {
        let (reply, headers) = self.get(key.as_str(), deadline).await?;
        match reply {
            // No entry, and no write ever gets past it.
            KeyReply::Done(event) if event.node.is_directory() => Err(StoreError::Rejected(
                format!("{key} is a directory in etcd, so no key can have this name; remove it"),
            )),
            KeyReply::Done(event) => {
                Ok(Obstacle { entry: event.node.entry(), revision: headers.index })
            }
            KeyReply::Failed(_) => Ok(Obstacle { entry: None, revision: headers.index }),
        }
    }

    async fn condition(
        &self,
        method: &Method,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<Condition, StoreError> {
        let at = |modified: Revision| Condition::Asked("prevIndex", modified.to_string());
        Ok(match guard {
            Guard::Absent if method == Method::PUT => Condition::Asked("prevExist", "false".into()),
            // The server ignores a `prevIndex` of 0 and rejects an empty `prevValue`.
            Guard::Value(value) if !value.is_empty() => {
                Condition::Asked("prevValue", text(value)?.to_owned())
            }
            Guard::Ours(Ownership { modified, .. }) if modified.0 > 0 => at(*modified),
            Guard::Value(_) => {
                let found = self.obstacle(key, deadline).await?;
                match &found.entry {
                    Some(entry) if entry.value.is_empty() => at(entry.modified),
                    _ => Condition::Unmet(found),
                }
            }
            Guard::Absent | Guard::Ours(_) => Condition::Unmet(self.obstacle(key, deadline).await?),
        })
    }

    /// A write that a guard may stop.
    pub(super) async fn guarded(
        &self,
        method: Method,
        key: &Key,
        params: Params<'_>,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<GuardedWrite, StoreError> {
        let (name, value) = match self.condition(&method, key, guard, deadline).await? {
            Condition::Asked(name, value) => (name, value),
            Condition::Unmet(obstacle) => return Ok(GuardedWrite::Stopped(obstacle)),
        };
        let mut params = params;
        params.push((name, &value));
        match self.ask(method, key.as_str(), &params, deadline).await?.0 {
            KeyReply::Done(event) => {
                let sent = params.iter().find(|(name, _)| *name == "value");
                if sent.is_some_and(|(_, value)| *value != event.node.value()) {
                    return Err(StoreError::Unreachable(format!(
                        "{key}: etcd has stored another value than was sent"
                    )));
                }
                Ok(GuardedWrite::Done(Revision(event.node.modified_index)))
            }
            KeyReply::Failed(error) if error.error_code == NOT_A_DIRECTORY => Err(error.into()),
            KeyReply::Failed(_) => self.obstacle(key, deadline).await.map(GuardedWrite::Stopped),
        }
    }
}

/// v2 keeps values in JSON.
pub(super) fn text(value: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(value).map_err(|_| {
        StoreError::Rejected("the v2 API keeps text only, and this value is not UTF-8".to_owned())
    })
}
