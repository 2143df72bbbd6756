//! The answers of etcd v3 as values of the model.

use std::time::Duration;

use etcd_client::{KeyValue, TxnOpResponse, TxnResponse};

use crate::model::{Entry, Revision};
use crate::store::{DeleteOutcome, KeyState, Ownership, PutOutcome};

pub(super) fn written(answer: &TxnResponse, lease: i64) -> PutOutcome {
    let revision = revision_of(answer);
    if answer.succeeded() {
        return PutOutcome::Written(Ownership { lease, modified: revision });
    }
    match answer.op_responses().into_iter().find_map(first_entry) {
        Some(by) => PutOutcome::Taken { by, revision },
        None => PutOutcome::Missing { revision },
    }
}

pub(super) fn deleted(answer: &TxnResponse) -> DeleteOutcome {
    let revision = revision_of(answer);
    if answer.succeeded() {
        return DeleteOutcome::Deleted(revision);
    }
    match answer.op_responses().into_iter().find_map(first_entry) {
        Some(by) => DeleteOutcome::Taken { by, revision },
        None => DeleteOutcome::Missing(revision),
    }
}

pub(super) fn key_state(entry: Option<Entry>, lease: i64) -> KeyState {
    match entry {
        None => KeyState::Missing,
        Some(entry) if entry.lease == lease => {
            KeyState::Ours(Ownership { lease, modified: entry.modified })
        }
        Some(entry) => KeyState::Foreign(entry),
    }
}

pub(super) fn first_entry(answer: TxnOpResponse) -> Option<Entry> {
    match answer {
        TxnOpResponse::Get(got) => got.kvs().first().and_then(entry),
        _ => None,
    }
}

/// `None` for a key that is not UTF-8, which no configuration here can name.
pub(super) fn entry(kv: &KeyValue) -> Option<Entry> {
    let Ok(key) = kv.key_str() else {
        let key = kv.key().escape_ascii();
        tracing::debug!(%key, "skipping a key that is not UTF-8");
        return None;
    };
    Some(Entry {
        key: key.into(),
        value: kv.value().into(),
        created: revision(kv.create_revision()),
        modified: revision(kv.mod_revision()),
        lease: kv.lease(),
        ttl: None,
    })
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
