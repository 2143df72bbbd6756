//! Waiting for load balancers: one watch on their members and acknowledgements for as many
//! waits as there are. Never polls; always ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::Bookkeeping;
use common::model::{Key, Revision, Snapshot, Tree};
use common::store::Store;
use common::watch::{Options, View, WatchLog, follow};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::result::HandshakeResult;
use super::wait::{LoadBalancerWait, MissingLoadBalancer, WaitProgress};

/// How all waits ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsEnd {
    /// Each has its result, in the order given.
    Results(Vec<HandshakeResult>),
    /// The store went back and is at this revision: the change may be undone, and is to be
    /// made again.
    Regressed(Revision),
    /// `abort` was cancelled.
    Aborted,
}

/// `report` is called at least this often.
const REPORT: Duration = Duration::from_secs(5);

/// Waits for all `waits`, which begin with a linearizable read, or with what is `known` of it by
/// the transaction that made the change. `report` gets, whenever something is learnt and every few
/// seconds, the load balancers that are still missing.
pub async fn wait_for_all<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    mut waits: Vec<LoadBalancerWait>,
    known: Option<Arc<Snapshot>>,
    mut report: impl FnMut(&[MissingLoadBalancer]),
    abort: &CancellationToken,
) -> WaitsEnd {
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let trees = trees_of(bookkeeping, waits.iter().map(LoadBalancerWait::key));
    let options = Options { known, log: WatchLog::Trouble, ..Options::default() };
    let mut view = follow(store.clone(), trees, options, end);
    let newest = waits.iter().map(LoadBalancerWait::change).max().unwrap_or_default();
    loop {
        if let Some(back) = look(&mut view, &mut waits, bookkeeping, newest) {
            return WaitsEnd::Regressed(back);
        }
        let progress: Vec<WaitProgress> =
            waits.iter().map(|w| w.progress(Instant::now())).collect();
        let next = progress.iter().filter_map(|p| match p {
            WaitProgress::Waiting { until } => Some(*until),
            WaitProgress::Over(_) => None,
        });
        let Some(next) = next.min() else { return WaitsEnd::Results(results(progress)) };
        report(&missing(&waits));
        let next = next.min(Instant::now() + REPORT);
        tokio::select! {
            () = abort.cancelled() => return WaitsEnd::Aborted,
            () = sleep_until(next) => {}
            changed = view.changed() => {
                if changed.is_err() { sleep_until(next).await }
            }
        }
    }
}

/// What a wait about these keys reads.
pub fn trees_of<'k>(bookkeeping: &Bookkeeping, keys: impl Iterator<Item = &'k Key>) -> Vec<Tree> {
    let ours = [bookkeeping.members(), bookkeeping.acks()];
    // The keys themselves: a restored store may have them again at any revision.
    ours.into_iter().chain(keys.map(Tree::from)).collect()
}

/// Takes in the newest snapshot. `Some`: the store went back, the change may be undone.
fn look(
    view: &mut watch::Receiver<View>,
    waits: &mut [LoadBalancerWait],
    bookkeeping: &Bookkeeping,
    newest: Revision,
) -> Option<Revision> {
    let view = view.borrow_and_update();
    let Some(snapshot) = view.snapshot.as_ref() else {
        if let Some(stale) = &view.stale {
            let reason = stale.reason.to_string();
            waits.iter_mut().for_each(|wait| wait.cannot_read(&reason));
        }
        return None;
    };
    let undone = waits.iter().any(|wait| wait.is_undone(snapshot));
    if snapshot.revision < newest || view.regressions > 0 || undone {
        return Some(snapshot.revision);
    }
    let now = Instant::now();
    waits.iter_mut().for_each(|wait| wait.observe(snapshot, bookkeeping, now));
    None
}

fn results(progress: Vec<WaitProgress>) -> Vec<HandshakeResult> {
    let result = |progress| match progress {
        WaitProgress::Over(result) => Some(result),
        WaitProgress::Waiting { .. } => None,
    };
    progress.into_iter().filter_map(result).collect()
}

/// The load balancers that any of the waits is for; each once.
fn missing(waits: &[LoadBalancerWait]) -> Vec<MissingLoadBalancer> {
    let missing: BTreeSet<_> = waits.iter().flat_map(LoadBalancerWait::missing).collect();
    missing.into_iter().collect()
}

/// Their names, for an operator; none is known before the first answer, or only a minimum is left.
pub fn names_or_all(missing: &[MissingLoadBalancer]) -> String {
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    if names.is_empty() { "the load balancers".to_owned() } else { names.join(", ") }
}
