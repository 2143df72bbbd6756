//! Waiting for load balancers: one watch on their members and acknowledgements for
//! as many waits as there are. Never polls; always ends.
//!
//! What a picture means is decided in [`crate::drain`].

use std::collections::BTreeSet;
use std::time::Duration;

use common::handshake::Bookkeeping;
use common::model::{Revision, Tree};
use common::store::Store;
use common::watch::{Options, View, follow};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::drain::{Progress, Verdict, Wait};

/// How all waits ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Each has its verdict, in the order given.
    Verdicts(Vec<Verdict>),
    /// The store went back and is at this revision: the change may be undone, and is
    /// to be made again.
    Regressed(Revision),
    /// `abort` was cancelled.
    Aborted,
}

/// `tell` hears at least this often.
const TELL: Duration = Duration::from_secs(5);

/// Waits for all `waits`, which begin with a linearizable read. `tell` hears, every
/// time something is learnt and every few seconds, who is still missing.
pub async fn wait_for_all<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    mut waits: Vec<Wait>,
    mut tell: impl FnMut(&[String]),
    abort: &CancellationToken,
) -> Ending {
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let mut trees = vec![bookkeeping.members(), bookkeeping.acks()];
    // The keys themselves: a restored store may have them again at any revision.
    trees.extend(waits.iter().map(|wait| Tree::from(wait.key())));
    let mut view = follow(store.clone(), trees, Options::default(), end);
    let newest = waits.iter().map(Wait::change).max().unwrap_or_default();
    loop {
        if let Some(back) = look(&mut view, &mut waits, bookkeeping, newest) {
            return Ending::Regressed(back);
        }
        let progress: Vec<Progress> = waits.iter().map(|w| w.progress(Instant::now())).collect();
        let next = progress.iter().filter_map(|p| match p {
            Progress::Waiting { until } => Some(*until),
            Progress::Over(_) => None,
        });
        let Some(next) = next.min() else { return Ending::Verdicts(verdicts(progress)) };
        tell(&missing(&waits));
        let next = next.min(Instant::now() + TELL);
        tokio::select! {
            () = abort.cancelled() => return Ending::Aborted,
            () = sleep_until(next) => {}
            changed = view.changed() => {
                if changed.is_err() { sleep_until(next).await }
            }
        }
    }
}

/// Takes in the newest picture. `Some`: the store went back, the change may be undone.
fn look(
    view: &mut watch::Receiver<View>,
    waits: &mut [Wait],
    bookkeeping: &Bookkeeping,
    newest: Revision,
) -> Option<Revision> {
    let view = view.borrow_and_update();
    let picture = view.snapshot.as_ref()?;
    let undone = waits.iter().any(|wait| wait.is_undone(picture));
    if picture.revision < newest || view.regressions > 0 || undone {
        return Some(picture.revision);
    }
    let now = Instant::now();
    waits.iter_mut().for_each(|wait| wait.observe(picture, bookkeeping, now));
    None
}

fn verdicts(progress: Vec<Progress>) -> Vec<Verdict> {
    let verdict = |p| match p {
        Progress::Over(verdict) => Some(verdict),
        Progress::Waiting { .. } => None,
    };
    progress.into_iter().filter_map(verdict).collect()
}

/// Who is missing for any of the waits, and why; each once.
fn missing(waits: &[Wait]) -> Vec<String> {
    let missing: BTreeSet<String> = waits.iter().flat_map(Wait::missing).collect();
    missing.into_iter().collect()
}

/// Those in words; nobody is known before the first answer, or only a floor is left.
#[must_use]
pub fn who(missing: &[String]) -> String {
    if missing.is_empty() { "the load balancers".to_owned() } else { missing.join(", ") }
}
