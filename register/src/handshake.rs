//! Waiting for load balancers: one watch on their members and acknowledgements for
//! as many waits as there are. Never polls; always ends.
//!
//! What a picture means is decided in [`crate::drain`].

use common::handshake::Bookkeeping;
use common::model::Revision;
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
    /// The store went back below this revision: the change may be undone, and is to
    /// be made again.
    Regressed(Revision),
    /// `abort` was cancelled.
    Aborted,
}

/// Waits for all `waits`, which begin with a linearizable read. `tell` hears, every
/// time something is learnt, who is still missing.
pub async fn wait_for_all<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    mut waits: Vec<Wait>,
    mut tell: impl FnMut(&str),
    abort: &CancellationToken,
) -> Ending {
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let trees = vec![bookkeeping.members(), bookkeeping.acks()];
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
        tokio::select! {
            () = abort.cancelled() => return Ending::Aborted,
            () = sleep_until(next) => {}
            changed = view.changed() => {
                if changed.is_err() { sleep_until(next).await }
            }
        }
    }
}

/// Takes in the newest picture. `Some`: it is older than the change waited for.
fn look(
    view: &mut watch::Receiver<View>,
    waits: &mut [Wait],
    bookkeeping: &Bookkeeping,
    newest: Revision,
) -> Option<Revision> {
    let view = view.borrow_and_update();
    let picture = view.snapshot.as_ref()?;
    if picture.revision < newest {
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

fn missing(waits: &[Wait]) -> String {
    let mut texts: Vec<String> =
        waits.iter().map(Wait::missing).filter(|t| !t.is_empty()).collect();
    texts.sort();
    texts.dedup();
    if texts.is_empty() { "the load balancers".into() } else { texts.join(", ") }
}
