//! What etcd v3 answers, in the model's terms.

use std::time::Duration;

use etcd_client::{KeyValue, TxnOpResponse, TxnResponse};

use crate::model::{Entry, Revision};
use crate::store::{KeyState, Mark, Written};

pub(super) fn written(answer: &TxnResponse, lease: i64) -> Written {
    let revision = revision_of(answer);
    if answer.succeeded() {
        return Written::Done { revision, mark: Mark { lease, modified: revision } };
    }
    Written::Held { by: answer.op_responses().into_iter().find_map(first_entry), revision }
}

pub(super) fn state(entry: Option<Entry>, lease: i64) -> KeyState {
    match entry {
        None => KeyState::Missing,
        Some(entry) if entry.lease == lease => {
            KeyState::Ours(Mark { lease, modified: entry.modified })
        }
        Some(entry) => KeyState::Foreign(entry),
    }
}

pub(super) fn first_entry(answer: TxnOpResponse) -> Option<Entry> {
    match answer {
        TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next().and_then(entry),
        _ => None,
    }
}

/// `None` for a key that is not UTF-8: nobody here can have a name for it.
pub(super) fn entry(kv: KeyValue) -> Option<Entry> {
    let (created, modified) = (revision(kv.create_revision()), revision(kv.mod_revision()));
    let lease = kv.lease();
    let (key, value) = kv.into_key_value();
    match String::from_utf8(key) {
        Ok(key) => Some(Entry { key, value, created, modified, lease, ttl: None }),
        Err(error) => {
            let key = error.as_bytes().escape_ascii();
            tracing::debug!(%key, "skipping a key that is not UTF-8");
            None
        }
    }
}

pub(super) fn revision_of(answer: &TxnResponse) -> Revision {
    answer.header().map_or_else(Revision::default, |header| revision(header.revision()))
}

pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

pub(super) fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or_default())
}
