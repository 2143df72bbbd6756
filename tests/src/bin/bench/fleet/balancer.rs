//! A load balancer without its proxy: it follows the services, and acknowledges what it has seen
//! when the time is over that a proxy would take.

use std::time::Duration;

use common::claim::KeyStatus;
use common::handshake::{Bookkeeping, Consumes};
use common::model::{Revision, Tree};
use common::registrar::{self, RegistrarReport};
use common::watch::{Options, View, follow};
use confsync::acks::members::{Applied, Introduction, LoadBalancerKeys};
use confsync::acks::pace::paced;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::members::Members;

const RESOURCE: &str = "web";

pub(super) struct Balancer {
    view: watch::Receiver<View>,
    report: watch::Receiver<RegistrarReport>,
    key: common::model::Key,
}

impl Balancer {
    pub(super) async fn start(
        members: &Members,
        nth: usize,
        apply: Duration,
    ) -> anyhow::Result<Self> {
        let store = members.connect(nth).await?;
        let tree: Tree = "/services".parse()?;
        let bookkeeping = Bookkeeping::below(&"/confsync".parse()?)?;
        let name = format!("lb-{nth}");
        let key = bookkeeping.ack(RESOURCE, &name)?;
        let keys = LoadBalancerKeys::new(name, format!("run-{nth}"), [], bookkeeping);
        let view =
            follow(store.clone(), vec![tree.clone()], Options::default(), CancellationToken::new());
        let wants = paced(keys.wants(), store.clone(), keys.bookkeeping().members());
        let (report, _) = registrar::start(store, "15s".parse()?, wants, CancellationToken::new());
        let about = Introduction { host: format!("host-{nth}"), ..Introduction::default() };
        keys.join(
            about,
            vec![Consumes { name: RESOURCE.to_owned(), trees: vec![tree.to_string()] }],
        );
        tokio::spawn(acknowledge(keys, view.clone(), apply));
        Ok(Self { view, report, key })
    }

    /// The newest revision that it has seen, and how many keys there are.
    pub(super) fn view(&self) -> (Revision, usize) {
        let view = self.view.borrow();
        let fresh = view.snapshot.as_ref().filter(|_| view.stale.is_none());
        fresh.map_or_else(Default::default, |seen| (seen.revision, seen.entries.len()))
    }

    /// Waits until it has seen everything up to this revision.
    pub(super) async fn sees(&self, at: Revision) {
        let seen = |view: &View| view.snapshot.as_ref().is_some_and(|seen| seen.revision >= at);
        let _ = self.view.clone().wait_for(seen).await;
    }

    /// Waits until etcd has its acknowledgement of everything up to this revision.
    pub(super) async fn has_acknowledged(&self, at: Revision) {
        let stored = |report: &RegistrarReport| match report.keys.get(&self.key) {
            Some(KeyStatus::Owned { value, .. }) => {
                let ack: Option<common::handshake::Ack> = serde_json::from_slice(value).ok();
                ack.is_some_and(|ack| ack.applied >= at)
            }
            _ => false,
        };
        let _ = self.report.clone().wait_for(stored).await;
    }
}

async fn acknowledge(keys: LoadBalancerKeys, mut view: watch::Receiver<View>, apply: Duration) {
    while view.changed().await.is_ok() {
        let seen = view.borrow_and_update().snapshot.as_ref().map(|seen| seen.revision);
        let Some(revision) = seen else { continue };
        tokio::time::sleep(apply).await;
        let applied = Applied {
            applied: revision,
            quiesced: revision,
            assumed: false,
            retained: vec![],
            rejected: None,
            trouble: None,
            rejected_values: 0,
            driver: None,
        };
        keys.acknowledge(RESOURCE, applied);
    }
}
