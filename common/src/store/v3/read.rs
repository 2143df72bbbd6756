//! Reads whole trees at one revision: that of the first page, at which all other pages are asked
//! for.

use std::sync::Arc;

use etcd_client::{
    GetOptions, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use imbl::OrdMap;
use tokio::time::Instant;

use super::answer::{entry, revision};
use super::error::Failure;
use super::{Link, MAX_OPS, V3};
use crate::model::{Entry, ReadPoint, Revision, Snapshot, Tree};
use crate::store::{EntrySink, StoreError};

/// Keys in one answer. Many small pages cost more than few large ones, because
/// etcd counts the rest of the range for each.
const PAGE: i64 = 3500;

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
    let mut entries = Entries::default();
    let ReadPoint { revision, cluster } = read_into(store, trees, &mut entries, deadline).await?;
    Ok(Snapshot { revision, cluster, entries: entries.0 })
}

#[derive(Default)]
struct Entries(OrdMap<Arc<str>, Entry>);

impl EntrySink for Entries {
    fn begin(&mut self) {
        self.0.clear();
    }

    fn take(&mut self, entry: Entry) {
        self.0.insert(Arc::clone(&entry.key), entry);
    }
}

pub(super) async fn read_into(
    store: &V3,
    trees: &[Tree],
    into: &mut dyn EntrySink,
    deadline: Instant,
) -> Result<ReadPoint, StoreError> {
    let mut page = PAGE;
    let mut last = Failure::Compacted;
    for _ in 0..READ_ATTEMPTS {
        let link = store.link(deadline).await?;
        into.begin();
        let reader = SnapshotRead { store, link: &link, deadline, page };
        match reader.read(trees, into).await {
            Ok(point) => return Ok(point),
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

    async fn read(&self, trees: &[Tree], into: &mut dyn EntrySink) -> Result<ReadPoint, Failure> {
        let mut all: Vec<KeyRange> = trees.iter().flat_map(ranges).collect();
        all.dedup();
        // Each chunk but the first is read as of the first.
        let (some, rest) = all.split_at(all.len().min(MAX_OPS));
        let (at, pages) = self.begin(some).await?;
        for (range, page) in some.iter().zip(pages) {
            self.read_to_end(range, page, at.revision, into).await?;
        }
        for some in rest.chunks(MAX_OPS) {
            let (_, pages) = self.first_pages(some, at.revision).await?;
            for (range, page) in some.iter().zip(pages) {
                self.read_to_end(range, page, at.revision, into).await?;
            }
        }
        Ok(at)
    }

    /// The first page of each range, all at the newest revision. The first range is asked for by
    /// itself: what a transaction answers can only be copied, and most often nearly all keys are
    /// there.
    async fn begin(&self, ranges: &[KeyRange]) -> Result<(ReadPoint, Vec<GetResponse>), Failure> {
        let newest = Revision(0);
        let Some((first, others)) = ranges.split_first() else {
            // Without a range there is still a revision.
            return self.first_pages(ranges, newest).await;
        };
        let first = self.get(first, self.page_of(first, newest));
        if others.is_empty() {
            let (at, page) = first.await?;
            return Ok((at, vec![page]));
        }
        let others_now = self.first_pages(others, newest);
        let ((at, page), (then, mut pages)) = tokio::try_join!(first, others_now)?;
        if then != at {
            // Something was written between the two.
            pages = self.first_pages(others, at.revision).await?.1;
        }
        pages.insert(0, page);
        Ok((at, pages))
    }

    /// The first page of each range, all at one revision: `at`, or the newest if it is 0.
    async fn first_pages(
        &self,
        ranges: &[KeyRange],
        at: Revision,
    ) -> Result<(ReadPoint, Vec<GetResponse>), Failure> {
        let get = |range: &KeyRange| TxnOp::get(range.from.clone(), Some(self.page_of(range, at)));
        let txn = Txn::new().and_then(ranges.iter().map(get).collect::<Vec<_>>());
        let answer = self.store.txn(self.link, txn, self.deadline).await?;
        let page = |part| if let TxnOpResponse::Get(page) = part { Some(page) } else { None };
        let pages = answer.op_responses().into_iter().filter_map(page).collect();
        Ok((point(answer.header()), pages))
    }

    /// Reads a range from its first page on. While etcd is asked for the next page, the keys of the
    /// last one are taken.
    async fn read_to_end(
        &self,
        range: &KeyRange,
        mut page: GetResponse,
        at: Revision,
        into: &mut dyn EntrySink,
    ) -> Result<(), Failure> {
        while let Some(from) = next_after(&page) {
            let next = KeyRange { from, to: range.to.clone() };
            let get = self.get(&next, self.page_of(&next, at));
            let (answer, ()) = tokio::join!(get, take_in_turns(into, page.take_kvs()));
            page = answer?.1;
        }
        take_in_turns(into, page.take_kvs()).await;
        Ok(())
    }

    fn page_of(&self, range: &KeyRange, at: Revision) -> GetOptions {
        let options = range.options().with_limit(self.page);
        match i64::try_from(at.0) {
            Ok(at @ 1..) => options.with_revision(at),
            _ => options,
        }
    }

    async fn get(
        &self,
        range: &KeyRange,
        options: GetOptions,
    ) -> Result<(ReadPoint, GetResponse), Failure> {
        let mut kv = self.link.kv();
        let request = kv.get(range.from.clone(), Some(options));
        let page = self.store.call(&self.link.endpoint, self.deadline, request).await?;
        Ok((point(page.header()), page))
    }
}

fn point(header: Option<&ResponseHeader>) -> ReadPoint {
    let point = |header: &ResponseHeader| ReadPoint {
        revision: revision(header.revision()),
        cluster: header.cluster_id(),
    };
    header.map(point).unwrap_or_default()
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
    let ReadPoint { revision, cluster } = point(answer.header());
    let mut entries = Entries::default();
    for part in parts.into_iter().rev().take(all.len()) {
        let TxnOpResponse::Get(mut page) = part else { return None };
        if page.more() {
            return None;
        }
        page.take_kvs().iter().filter_map(entry).for_each(|entry| entries.take(entry));
    }
    Some(Snapshot { revision, cluster, entries: entries.0 })
}

/// Takes keys, and lets the others of this thread work now and then: the request for the next ones
/// among them.
async fn take_in_turns(into: &mut dyn EntrySink, found: Vec<KeyValue>) {
    for some in found.chunks(TURN) {
        some.iter().filter_map(entry).for_each(|entry| into.take(entry));
        tokio::task::yield_now().await;
    }
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
