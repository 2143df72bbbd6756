//! Opens a stream with a watcher for each tree, and reads its messages.

use std::collections::VecDeque;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::time::Instant;

use super::super::V3;
use super::super::answer::{entry, revision};
use super::super::link::{Link, MAX_ANSWER};
use super::Watcher;
use crate::model::{Change, Revision, Tree};
use crate::store::StoreError;

/// A stream whose watchers have begun.
pub(super) struct OpenedStream {
    pub(super) stream: WatchStream,
    /// The revision of the server when the first of them began.
    pub(super) at: Revision,
    /// What was delivered until the last of them had begun.
    pub(super) early: VecDeque<WatchResponse>,
}

/// Opens a stream for `watchers`, each from where it has got to, and gives them their ids.
pub(super) async fn begin(
    store: &V3,
    link: &Link,
    watchers: &mut [Watcher],
    deadline: Instant,
) -> Result<OpenedStream, StoreError> {
    let failed = |error| store.shared.endpoints.failed(&link.endpoint, error);
    let opened = store.call(&link.endpoint, deadline, open(link, watchers));
    let mut stream = opened.await?;
    let (mut early, mut at) = (VecDeque::new(), Revision(u64::MAX));
    let mut begun = 0;
    // The server answers in the order of the requests.
    while begun < watchers.len() {
        let message = store.call(&link.endpoint, deadline, stream.message()).await?;
        let Some(message) = message else {
            let ended = "the server ended the watch at once".to_owned();
            return Err(failed(StoreError::Unreachable(ended)));
        };
        if message.canceled() {
            // One that is refused has no id of its own: the message may bear another's.
            let begun_before = || watchers.iter().take(begun).find(|w| w.id == message.watch_id());
            let earlier = if message.created() { None } else { begun_before() };
            let Some(watcher) = earlier.or(watchers.get(begun)) else { break };
            return Err(failed(cancelled(&message, watcher)));
        }
        if !message.created() {
            early.push_back(message);
            continue;
        }
        at = at.min(header_revision(&message));
        if let Some(watcher) = watchers.get_mut(begun) {
            watcher.id = message.watch_id();
        }
        begun += 1;
    }
    Ok(OpenedStream { stream, at, early })
}

/// Sends all requests before the first answer is waited for.
async fn open(link: &Link, watchers: &[Watcher]) -> Result<WatchStream, etcd_client::Error> {
    let mut requests = watchers.iter().map(range);
    let mut client = link.client.watch_client().max_decoding_message_size(MAX_ANSWER);
    let (key, options) = requests.next().unwrap_or_default();
    let mut stream = client.watch(key, Some(options)).await?;
    for (key, options) in requests {
        stream.watch(key, Some(options)).await?;
    }
    Ok(stream)
}

/// The revision of the server that a message was sent at.
pub(super) fn header_revision(message: &WatchResponse) -> Revision {
    message.header().map_or_else(Revision::default, |header| revision(header.revision()))
}

fn range(Watcher { tree, seen, .. }: &Watcher) -> (Vec<u8>, WatchOptions) {
    let from = i64::try_from(seen.0.saturating_add(1)).unwrap_or(i64::MAX);
    let options = WatchOptions::new().with_start_revision(from).with_progress_notify();
    // One range from the top to the end of what is below it keeps the order; what
    // lies between (`/web-2`) is filtered out later.
    if tree.path() == "/" {
        (b"/".to_vec(), options.with_range("0"))
    } else {
        (first_key(tree).into_bytes(), options.with_range(format!("{}0", tree.path())))
    }
}

/// The first key that can be in a tree.
pub(in super::super) fn first_key(tree: &Tree) -> String {
    let below = if tree.is_below_only() && tree.path() != "/" { "/" } else { "" };
    format!("{}{below}", tree.path())
}

/// Why the server has ended a watcher.
pub(super) fn cancelled(
    message: &WatchResponse,
    Watcher { tree, seen, .. }: &Watcher,
) -> StoreError {
    let reason = message.cancel_reason();
    if message.compact_revision() > 0 || reason.contains("compacted") {
        return StoreError::Compacted(*seen);
    }
    if reason.contains("permission denied") {
        let range = match tree.path() {
            "/" => "[/, 0)".to_owned(),
            path => format!("[{}, {path}0)", first_key(tree)),
        };
        return StoreError::Denied(format!(
            "{reason}: the user's role needs read on the range {range}"
        ));
    }
    if reason.contains("auth token") || reason.contains("user name is empty") {
        return StoreError::Denied(reason.to_owned());
    }
    StoreError::Unreachable(format!("the server cancelled the watch: {reason}"))
}

/// The change of an event; `None` for a key that is not UTF-8.
pub(super) fn change(event: &Event) -> Option<Change> {
    let entry = entry(event.kv()?)?;
    Some(match event.event_type() {
        EventType::Put => Change::Put(entry),
        EventType::Delete => Change::Deleted { key: entry.key, at: entry.modified },
    })
}
