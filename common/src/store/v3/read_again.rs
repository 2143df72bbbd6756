//! Reads trees that were read before: only the keys that were written since, in one transaction.
//!
//! etcd does not list what was deleted, but counts what is there. If the keys known before and
//! those written since are together as many as it counts, none of them was deleted: a key that
//! exists was either written since, or is unchanged. Otherwise everything is read.

use std::ops::Bound;
use std::sync::Arc;

use etcd_client::{GetResponse, Txn, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::answer::{entry, revision_of};
use super::error::Failure;
use super::read::{KeyRange, ranges, read};
use super::{MAX_OPS, V3};
use crate::model::{Entry, Snapshot, Tree};
use crate::store::StoreError;

/// More changes than this in one range are read with everything else.
const MOST: i64 = 1000;

pub(super) async fn read_again(
    store: &V3,
    trees: &[Tree],
    known: &Snapshot,
    deadline: Instant,
) -> Result<Snapshot, StoreError> {
    match changed(store, trees, known, deadline).await {
        Ok(Some(snapshot)) => Ok(snapshot),
        Ok(None) | Err(Failure::TooLarge | Failure::Compacted) => {
            read(store, trees, deadline).await
        }
        Err(failure) => Err(failure.into()),
    }
}

/// `None` if the changes do not explain what is there.
async fn changed(
    store: &V3,
    trees: &[Tree],
    known: &Snapshot,
    deadline: Instant,
) -> Result<Option<Snapshot>, Failure> {
    let mut all: Vec<KeyRange> = trees.iter().flat_map(ranges).collect();
    all.dedup();
    let Ok(since) = i64::try_from(known.revision.0.saturating_add(1)) else { return Ok(None) };
    if all.len() > MAX_OPS {
        return Ok(None);
    }
    let link = store.link(deadline).await.map_err(Failure::Store)?;
    let get = |range: &KeyRange| {
        let options = range.options().with_min_mod_revision(since).with_limit(MOST);
        TxnOp::get(range.from.clone(), Some(options))
    };
    let txn = Txn::new().and_then(all.iter().map(get).collect::<Vec<_>>());
    let answer = store.txn(&link, txn, deadline).await?;
    let revision = revision_of(&answer);
    let cluster = answer.header().map(etcd_client::ResponseHeader::cluster_id);
    if revision < known.revision || cluster != Some(known.cluster) {
        return Ok(None);
    }
    let mut snapshot = Snapshot { revision, ..known.clone() };
    let parts = answer.op_responses();
    if parts.len() != all.len() {
        return Ok(None);
    }
    for (range, part) in all.iter().zip(parts) {
        let TxnOpResponse::Get(part) = part else { return Ok(None) };
        if part.more() || !take(&mut snapshot, part, range) {
            return Ok(None);
        }
    }
    Ok(Some(snapshot))
}

/// Takes what has changed in one range; whether the snapshot then has as many keys as etcd.
fn take(snapshot: &mut Snapshot, mut part: GetResponse, range: &KeyRange) -> bool {
    let there = part.count();
    for entry in part.take_kvs().iter().filter_map(entry) {
        snapshot.entries.insert(Arc::clone(&entry.key), entry);
    }
    let known = entries_in(snapshot, range).count();
    i64::try_from(known).is_ok_and(|known| known == there)
}

fn entries_in<'s>(
    snapshot: &'s Snapshot,
    range: &KeyRange,
) -> impl Iterator<Item = (&'s Arc<str>, &'s Entry)> {
    // Paths of trees are text.
    let from = std::str::from_utf8(&range.from).unwrap_or_default();
    let to = std::str::from_utf8(&range.to).unwrap_or_default();
    let end = if to.is_empty() { Bound::Included(from) } else { Bound::Excluded(to) };
    snapshot.entries.range::<_, str>((Bound::Included(from), end))
}
