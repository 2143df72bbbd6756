//! Readers that use our own client as the daemons do, behind lines that are cut, and write down
//! what they see; and the truth, from the members themselves.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::model::{Change, Snapshot, Tree};
use common::store::{self, Connection, Etcd, Store, StoreError, Watch, WatchEvent};
use common::watch::{Options, follow};
use etcd_client::{Client, EventType, GetOptions, WatchOptions};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::check::{Observation, Seen};
use super::truth::{Keys, Truth, Write};

/// What the readers saw since it was looked at last.
pub(super) type Seens = Arc<Mutex<Vec<Observation>>>;

/// How long a member may be silent before another one is asked for the truth.
const SILENT: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes down what one reader sees.
#[derive(Clone)]
pub(super) struct Notebook {
    reader: String,
    trees: Vec<String>,
    seens: Seens,
}

impl Notebook {
    pub(super) fn new(reader: &str, trees: &[&str], seens: &Seens) -> Self {
        let trees = trees.iter().map(|tree| (*tree).to_owned()).collect();
        Self { reader: reader.to_owned(), trees, seens: Arc::clone(seens) }
    }

    fn note(&self, seen: Seen) {
        let (reader, trees) = (self.reader.clone(), self.trees.clone());
        self.seens.lock().unwrap().push(Observation { reader, trees, seen });
    }

    fn picture(&self, snapshot: &Snapshot) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let entry = |entry: &common::model::Entry| (entry.key.to_string(), text(&entry.value));
        let keys = snapshot.entries.values().map(entry).collect();
        self.note(Seen::Picture { revision: snapshot.revision.0, keys });
    }

    fn trees(&self) -> Vec<Tree> {
        self.trees.iter().map(|tree| tree.parse().expect("a tree")).collect()
    }
}

/// The store as a daemon has it.
pub(super) async fn connect(endpoints: Vec<String>) -> Etcd {
    let connection = Connection { endpoints, api: store::Api::V3, ..Connection::default() };
    store::connect(&connection).await.expect("etcd answers before the first fault")
}

/// Follows its trees and writes down every picture that is published.
pub(super) async fn pictures(store: Etcd, notebook: Notebook) {
    let mut view = follow(store, notebook.trees(), Options::default(), CancellationToken::new());
    let mut last: Option<Arc<Snapshot>> = None;
    while view.changed().await.is_ok() {
        let snapshot = view.borrow_and_update().snapshot.clone();
        if let Some(new) =
            snapshot.filter(|new| !last.as_ref().is_some_and(|l| Arc::ptr_eq(l, new)))
        {
            notebook.picture(&new);
            last = Some(new);
        }
    }
}

/// Reads its tree, watches it from there, and begins again when the watch ends.
pub(super) async fn events(store: Etcd, notebook: Notebook) {
    loop {
        let Err(why) = watch(&store, &notebook).await;
        notebook.note(Seen::Ended(why.to_string()));
        sleep(PAUSE).await;
    }
}

async fn watch(store: &Etcd, notebook: &Notebook) -> Result<Infallible, StoreError> {
    let trees = notebook.trees();
    let snapshot = store.read(&trees, store::default_deadline()).await?;
    notebook.picture(&snapshot);
    let mut watch = store.watch(&trees, snapshot.revision, store::default_deadline()).await?;
    notebook.note(Seen::Watching { after: snapshot.revision.0 });
    loop {
        match watch.next().await? {
            WatchEvent::Changes(changes) => {
                changes
                    .into_iter()
                    .map(written)
                    .for_each(|write| notebook.note(Seen::Event(write)));
            }
            WatchEvent::Partial(_) => panic!("a reader of events has one tree"),
            WatchEvent::Progress(revision) => {
                notebook.note(Seen::Progress { revision: revision.0 })
            }
        }
    }
}

fn written(change: Change) -> Write {
    let (revision, key) = (change.revision().0, change.key().to_owned());
    let value = match change {
        Change::Put(entry) => Some(String::from_utf8_lossy(&entry.value).into_owned()),
        Change::Deleted { .. } | Change::TreeDeleted { .. } => None,
    };
    Write { revision, key, value }
}

/// Everything below a prefix, from a member.
pub(super) async fn first_truth(member: &str, below: &str) -> Truth {
    let mut client = Client::connect([member], None).await.expect("a member answers");
    let all = Some(GetOptions::new().with_prefix());
    let answer = client.get(below, all).await.expect("a member answers");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let keys: Keys = answer.kvs().iter().map(|kv| (text(kv.key()), text(kv.value()))).collect();
    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    Truth::new(keys, u64::try_from(revision).unwrap_or_default())
}

/// Goes on with the truth from one member, which may be away for a while.
pub(super) async fn follow_truth(member: String, below: String, truth: Arc<Mutex<Truth>>) {
    let mut from = truth.lock().unwrap().newest();
    loop {
        // A member that stands still keeps its connections open.
        if let Ok(after) = from_member(&member, &below, from, &truth).await {
            from = after;
        }
        from = from.max(truth.lock().unwrap().newest());
        sleep(PAUSE).await;
    }
}

/// Until the member is silent. `Ok`: it has forgotten what was before this revision.
async fn from_member(
    member: &str,
    below: &str,
    from: u64,
    truth: &Mutex<Truth>,
) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let mut client = timeout(SILENT, Client::connect([member], None)).await??;
    // Once more from the last known revision, of which some writes may be missing.
    let start = i64::try_from(from.max(1))?;
    let options = WatchOptions::new().with_prefix().with_start_revision(start);
    let mut stream = timeout(SILENT, client.watch(below, Some(options))).await??;
    while let Some(answer) = timeout(SILENT, stream.message()).await?? {
        if answer.canceled() {
            return Ok(u64::try_from(answer.compact_revision())?);
        }
        let mut truth = truth.lock().unwrap();
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let value = (event.event_type() == EventType::Put).then(|| text(kv.value()));
            let revision = u64::try_from(kv.mod_revision())?;
            truth.add(Write { revision, key: text(kv.key()), value });
        }
    }
    Ok(from)
}
