//! Reads whole trees at one revision: that of the first page, at which all other pages are asked
//! for.

use std::sync::Arc;

use etcd_client::{
    GetOptions, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use tokio::time::Instant;

use super::answer::{entry, revision};
use super::error::Failure;
use super::{Link, MAX_OPS, V3};
use crate::model::{Revision, Snapshot, Tree};
use crate::store::StoreError;

/// Keys in one answer. Many small pages cost more than few large ones, because
/// etcd counts the rest of the range for each.
const PAGE: i64 = 3500;

/// Keys of each range in the first answer, which asks for all ranges at once: what most reads
/// find is read in one round trip, and little is copied in vain.
const GLANCE: i64 = 64;

/// Keys that are taken before others of the thread may work.
const TURN: usize = 256;

/// How often a read starts again when compaction overtakes it.
const READ_ATTEMPTS: usize = 3;

/// A range of keys still to be read, from the first included to the last excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    pub(super) from: Vec<u8>,
    /// Empty for the one key `from`.
    pub(super) to: Vec<u8>,
}

impl KeyRange {
    pub(super) fn options(&self) -> GetOptions {
        if self.to.is_empty() {
            GetOptions::new()
        } else {
            GetOptions::new().with_range(self.to.clone())
        }
    }
}

/// The key at the top and all below it. Two ranges, because `/web-2` sorts between
/// `/web` and `/web/`.
pub(super) fn ranges(tree: &Tree) -> Vec<KeyRange> {
    let path = tree.path();
    if path == "/" {
        // `0` is the character after `/`: keys that begin with another are not ours.
        return vec![KeyRange { from: b"/".to_vec(), to: b"0".to_vec() }];
    }
    let below = |end: char| format!("{path}{end}").into_bytes();
    // `0` is the character after `/`.
    let mut ranges = vec![KeyRange { from: below('/'), to: below('0') }];
    if !tree.is_below_only() {
        ranges.push(KeyRange { from: path.as_bytes().to_vec(), to: Vec::new() });
    }
    ranges
}

/// The same ranges without the leading slash, to be counted; none for the top.
pub(super) fn without_slash(tree: &Tree) -> Vec<(Vec<u8>, GetOptions)> {
    let bare = |bytes: &[u8]| bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec();
    let all = if tree.path() == "/" { Vec::new() } else { ranges(tree) };
    let each =
        all.into_iter().map(|range| KeyRange { from: bare(&range.from), to: bare(&range.to) });
    each.map(|range| (range.from.clone(), range.options().with_count_only())).collect()
}

pub(super) async fn read(
    store: &V3,
    trees: &[Tree],
    deadline: Instant,
) -> Result<Snapshot, StoreError> {
    let mut page = PAGE;
    let mut last = Failure::Compacted;
    for _ in 0..READ_ATTEMPTS {
        let link = store.link(deadline).await?;
        let reader = SnapshotRead { store, link: &link, deadline, page };
        match reader.read(trees).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(Failure::TooLarge) => (page, last) = (page / 50, Failure::TooLarge),
            Err(Failure::Compacted) => last = Failure::Compacted,
            Err(Failure::NoRight(text)) => return Err(reader.denied(trees, text).await),
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(last.into())
}

/// One attempt to read all trees.
struct SnapshotRead<'a> {
    store: &'a V3,
    link: &'a Link,
    deadline: Instant,
    page: i64,
}

impl SnapshotRead<'_> {
    /// Names the first of `trees` that may not be read: etcd does not say which it is.
    async fn denied(&self, trees: &[Tree], why: String) -> StoreError {
        for tree in trees {
            for range in ranges(tree) {
                let mut kv = self.link.kv();
                let count = kv.get(range.from.clone(), Some(range.options().with_count_only()));
                let answer = self.store.call(&self.link.endpoint, self.deadline, count).await;
                if let Err(Failure::NoRight(_)) = answer {
                    let path = tree.path().trim_end_matches('/');
                    let (from, to) = if tree.is_below_only() || path.is_empty() {
                        (format!("{path}/"), format!("{path}0"))
                    } else {
                        (path.to_owned(), format!("{path}0"))
                    };
                    return StoreError::Denied(format!(
                        "{why}: no right to read {tree} and all below it: `etcdctl role \
                         grant-permission ROLE read {from} {to}` grants it"
                    ));
                }
            }
        }
        Failure::NoRight(why).into()
    }

    async fn read(&self, trees: &[Tree]) -> Result<Snapshot, Failure> {
        let mut all: Vec<KeyRange> = trees.iter().flat_map(ranges).collect();
        all.dedup();
        let (mut snapshot, mut rest) = match all.len() {
            2..=MAX_OPS => self.glance(&all).await?,
            _ => self.read_first(all).await?,
        };
        let options = |range: &KeyRange| self.page_of(range, snapshot.revision);
        // One alone is not read in a transaction, whose answer can only be copied.
        let several = if rest.len() > 1 { MAX_OPS } else { 0 };
        let together = rest.split_off(rest.len().saturating_sub(several));
        if !together.is_empty() {
            let get = |range: &KeyRange| TxnOp::get(range.from.clone(), Some(options(range)));
            let txn = Txn::new().and_then(together.iter().map(get).collect::<Vec<_>>());
            let parts = self.store.txn(self.link, txn, self.deadline).await?.op_responses();
            for (range, part) in together.iter().zip(parts) {
                if let TxnOpResponse::Get(part) = part {
                    rest.extend(take(&mut snapshot, part, range));
                }
            }
        }
        while let Some(range) = rest.pop() {
            self.read_to_end(&mut snapshot, range).await?;
        }
        Ok(snapshot)
    }

    /// Reads a range page by page. While etcd is asked for the next page, the keys of the last one
    /// are taken.
    async fn read_to_end(&self, snapshot: &mut Snapshot, range: KeyRange) -> Result<(), Failure> {
        let mut part = self.get(&range, self.page_of(&range, snapshot.revision)).await?;
        set_revision(snapshot, part.header());
        let to = range.to;
        while let Some(from) = next_after(&part) {
            let next = KeyRange { from, to: to.clone() };
            let get = self.get(&next, self.page_of(&next, snapshot.revision));
            let (answer, ()) = tokio::join!(get, take_in_turns(snapshot, part.take_kvs()));
            part = answer?;
        }
        take_in_turns(snapshot, part.take_kvs()).await;
        Ok(())
    }

    fn page_of(&self, range: &KeyRange, at: Revision) -> GetOptions {
        let options = range.options().with_limit(self.page);
        match i64::try_from(at.0) {
            Ok(at @ 1..) => options.with_revision(at),
            _ => options,
        }
    }

    /// Reads the beginning of each range, all at one revision. Returns what is left of them.
    async fn glance(&self, all: &[KeyRange]) -> Result<(Snapshot, Vec<KeyRange>), Failure> {
        let get = |range: &KeyRange| {
            TxnOp::get(range.from.clone(), Some(range.options().with_limit(GLANCE)))
        };
        let txn = Txn::new().and_then(all.iter().map(get).collect::<Vec<_>>());
        let answer = self.store.txn(self.link, txn, self.deadline).await?;
        let mut snapshot = Snapshot::default();
        set_revision(&mut snapshot, answer.header());
        let mut rest = Vec::new();
        for (range, part) in all.iter().zip(answer.op_responses()) {
            if let TxnOpResponse::Get(part) = part {
                rest.extend(take(&mut snapshot, part, range));
            }
        }
        Ok((snapshot, rest))
    }

    /// Reads the first range alone, to its end: a transaction's answer can only be copied, and
    /// most often nearly all keys are in this range. Returns the other ranges.
    async fn read_first(&self, all: Vec<KeyRange>) -> Result<(Snapshot, Vec<KeyRange>), Failure> {
        let mut snapshot = Snapshot::default();
        let mut ranges = all.into_iter();
        let Some(first) = ranges.next() else {
            // Without a tree there is still a revision.
            let answer = self.store.txn(self.link, Txn::new(), self.deadline).await?;
            set_revision(&mut snapshot, answer.header());
            return Ok((snapshot, Vec::new()));
        };
        self.read_to_end(&mut snapshot, first).await?;
        Ok((snapshot, ranges.collect()))
    }

    async fn get(&self, range: &KeyRange, options: GetOptions) -> Result<GetResponse, Failure> {
        let mut kv = self.link.kv();
        let request = kv.get(range.from.clone(), Some(options));
        self.store.call(&self.link.endpoint, self.deadline, request).await
    }
}

/// The first answer decides the revision of the snapshot.
fn set_revision(snapshot: &mut Snapshot, header: Option<&ResponseHeader>) {
    if let (Some(header), Revision(0)) = (header, snapshot.revision) {
        snapshot.revision = revision(header.revision());
        snapshot.cluster = header.cluster_id();
    }
}

/// Operations that read trees to their end, for a transaction that does more.
pub(super) fn whole(trees: &[Tree]) -> impl Iterator<Item = TxnOp> {
    let get = |range: KeyRange| TxnOp::get(range.from.clone(), Some(range.options()));
    trees.iter().flat_map(ranges).map(get)
}

/// What the last operations of a transaction, those of [`whole`], have read.
pub(super) fn of_answer(answer: &TxnResponse, trees: &[Tree]) -> Option<Snapshot> {
    let all: Vec<KeyRange> = trees.iter().flat_map(ranges).collect();
    let parts = answer.op_responses();
    if all.is_empty() || !answer.succeeded() || parts.len() < all.len() {
        return None;
    }
    let mut snapshot = Snapshot::default();
    set_revision(&mut snapshot, answer.header());
    for (range, part) in all.iter().rev().zip(parts.into_iter().rev()) {
        let TxnOpResponse::Get(part) = part else { return None };
        if take(&mut snapshot, part, range).is_some() {
            return None;
        }
    }
    Some(snapshot)
}

/// Takes the keys of one page; returns what is left of its range.
fn take(snapshot: &mut Snapshot, mut part: GetResponse, range: &KeyRange) -> Option<KeyRange> {
    let from = next_after(&part);
    extend(snapshot, part.take_kvs());
    Some(KeyRange { from: from?, to: range.to.clone() })
}

/// Takes keys, and lets the others of this thread work now and then: the request for the next ones
/// among them.
async fn take_in_turns(snapshot: &mut Snapshot, found: Vec<KeyValue>) {
    let mut found = found.into_iter();
    while found.len() > 0 {
        extend(snapshot, found.by_ref().take(TURN));
        tokio::task::yield_now().await;
    }
}

fn extend(snapshot: &mut Snapshot, found: impl IntoIterator<Item = KeyValue>) {
    let entries = found.into_iter().filter_map(|kv| entry(&kv));
    snapshot.entries.extend(entries.map(|entry| (Arc::clone(&entry.key), entry)));
}

/// Where the page after this one begins; `None` after the last.
fn next_after(part: &GetResponse) -> Option<Vec<u8>> {
    let last = part.kvs().last().filter(|_| part.more())?;
    Some([last.key(), b"\0"].concat())
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
        assert_eq!(ranges(&Tree::below("/web".parse().unwrap())), web[..1]);
        assert!(!holds(b"/web-2/1") && !holds(b"/web2") && !holds(b"/web0"));
        assert_eq!(
            ranges(&"/".parse().unwrap()),
            [KeyRange { from: b"/".to_vec(), to: b"0".to_vec() }]
        );
    }
}
