//! Whole trees at one revision: that of the answer with the first page, at which all the
//! rest is then asked for.

use std::sync::Arc;

use etcd_client::{GetOptions, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse};

use super::answer::{entry, revision};
use super::error::Failure;
use super::{Link, MAX_OPS, V3};
use crate::model::{Revision, Snapshot, Tree};
use crate::store::StoreError;

/// Keys in one answer. Many small pages cost more than few large ones, because
/// etcd counts the rest of the range for each.
const PAGE: i64 = 3500;

/// How often a read starts again when compaction overtakes it.
const STARTS: usize = 3;

/// A range of keys still to be read, from the first included to the last excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    from: Vec<u8>,
    /// Empty for the one key `from`.
    to: Vec<u8>,
}

impl Range {
    fn options(&self) -> GetOptions {
        if self.to.is_empty() {
            GetOptions::new()
        } else {
            GetOptions::new().with_range(self.to.clone())
        }
    }
}

/// The key at the top and all below it. Two ranges, because `/web-2` sorts between
/// `/web` and `/web/`.
fn ranges(tree: &Tree) -> Vec<Range> {
    let path = tree.path();
    if path == "/" {
        // `0` is the character after `/`: keys that begin with another are nobody's here.
        return vec![Range { from: b"/".to_vec(), to: b"0".to_vec() }];
    }
    let below = |end: char| format!("{path}{end}").into_bytes();
    vec![
        // `0` is the character after `/`.
        Range { from: below('/'), to: below('0') },
        Range { from: path.as_bytes().to_vec(), to: Vec::new() },
    ]
}

pub(super) async fn read(store: &V3, trees: &[Tree]) -> Result<Snapshot, StoreError> {
    let mut page = PAGE;
    let mut last = Failure::Compacted;
    for _ in 0..STARTS {
        let link = store.link().await?;
        match read_once(store, &link, trees, page).await? {
            Ok(snapshot) => return Ok(snapshot),
            Err(Failure::TooLarge) => (page, last) = (page / 50, Failure::TooLarge),
            Err(failure) => last = failure,
        }
    }
    Err(last.into())
}

type Tried<T> = Result<Result<T, Failure>, StoreError>;

async fn read_once(store: &V3, link: &Link, trees: &[Tree], page: i64) -> Tried<Snapshot> {
    let mut all: Vec<Range> = trees.iter().flat_map(ranges).collect();
    all.dedup();
    let (mut snapshot, mut rest) = match begin(store, link, all, page).await? {
        Ok(begun) => begun,
        Err(failure) => return Ok(Err(failure)),
    };
    let at = i64::try_from(snapshot.revision.0).unwrap_or(i64::MAX);
    let options = |range: &Range| range.options().with_limit(page).with_revision(at);
    let mut kv = link.kv();
    let together = rest.split_off(rest.len().saturating_sub(MAX_OPS));
    if !together.is_empty() {
        let get = |range: &Range| TxnOp::get(range.from.clone(), Some(options(range)));
        let txn = Txn::new().and_then(together.iter().map(get).collect::<Vec<_>>());
        let parts = match ask(store, link, kv.txn(txn)).await? {
            Ok(answer) => answer.op_responses(),
            Err(failure) => return Ok(Err(failure)),
        };
        for (range, part) in together.iter().zip(parts) {
            if let TxnOpResponse::Get(part) = part {
                rest.extend(take(&mut snapshot, part, range));
            }
        }
    }
    while let Some(range) = rest.pop() {
        match ask(store, link, kv.get(range.from.clone(), Some(options(&range)))).await? {
            Ok(part) => rest.extend(take(&mut snapshot, part, &range)),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(Ok(snapshot))
}

/// Reads the first range alone, to its end: of a transaction's answer only copies can be
/// had, and most often nearly all keys are here. Returns the other ranges.
async fn begin(
    store: &V3,
    link: &Link,
    all: Vec<Range>,
    page: i64,
) -> Tried<(Snapshot, Vec<Range>)> {
    let mut snapshot = Snapshot::default();
    let mut kv = link.kv();
    let mut ranges = all.into_iter();
    let Some(first) = ranges.next() else {
        // Without a tree there is still a revision to tell.
        let answer = ask(store, link, kv.txn(Txn::new())).await?;
        return Ok(answer.map(|answer| {
            date(&mut snapshot, answer.header());
            (snapshot, Vec::new())
        }));
    };
    let mut left = Some(first);
    while let Some(range) = left {
        let mut options = range.options().with_limit(page);
        if let Ok(at @ 1..) = i64::try_from(snapshot.revision.0) {
            options = options.with_revision(at);
        }
        let part = match ask(store, link, kv.get(range.from.clone(), Some(options))).await? {
            Ok(part) => part,
            Err(failure) => return Ok(Err(failure)),
        };
        date(&mut snapshot, part.header());
        left = take(&mut snapshot, part, &range);
    }
    Ok(Ok((snapshot, ranges.collect())))
}

/// The first answer dates the picture.
fn date(snapshot: &mut Snapshot, header: Option<&ResponseHeader>) {
    if let (Some(header), Revision(0)) = (header, snapshot.revision) {
        snapshot.revision = revision(header.revision());
        snapshot.cluster = header.cluster_id();
    }
}

/// One request; what a new start of the read can cure comes back inside.
async fn ask<T>(
    store: &V3,
    link: &Link,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Tried<T> {
    let request = async {
        match request.await.map_err(Failure::from) {
            Ok(answer) => Ok(Ok(answer)),
            Err(curable @ (Failure::Compacted | Failure::TooLarge)) => Ok(Err(curable)),
            Err(failure) => Err(failure),
        }
    };
    store.ask(&link.seat, request).await
}

/// Takes the keys of one page; returns what is left of its range.
fn take(snapshot: &mut Snapshot, mut part: GetResponse, range: &Range) -> Option<Range> {
    let found = part.take_kvs();
    let last = found.last().map(KeyValue::key).filter(|_| part.more()).map(<[u8]>::to_vec);
    let entries = found.into_iter().filter_map(|kv| entry(&kv));
    // Made in one go and joined, a map takes half of what it takes entry by entry.
    let mut page = entries.map(|entry| (Arc::clone(&entry.key), entry)).collect();
    snapshot.entries.append(&mut page);
    let mut from = last?;
    from.push(0);
    Some(Range { from, to: range.to.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_its_top_and_what_is_below_it() {
        let web = ranges(&"/web".parse().unwrap());
        let holds = |key: &[u8]| {
            web.iter().any(|r| {
                if r.to.is_empty() { key == r.from } else { key >= &r.from[..] && key < &r.to[..] }
            })
        };
        assert!(holds(b"/web") && holds(b"/web/1") && holds("/web/ü".as_bytes()));
        assert!(!holds(b"/web-2/1") && !holds(b"/web2") && !holds(b"/web0"));
        assert_eq!(
            ranges(&"/".parse().unwrap()),
            [Range { from: b"/".to_vec(), to: b"0".to_vec() }]
        );
    }
}
