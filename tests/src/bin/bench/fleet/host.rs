//! A host with many services: the registrar of one `register --config`, without the probes.

use std::collections::BTreeMap;

use common::claim::{Aim, KeyStatus, Takeover, Want, Wants};
use common::leases;
use common::model::Ttl;
use common::registrar::RegistrarReport;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::members::Members;

pub(super) struct Host {
    wants: watch::Sender<Wants>,
    report: watch::Receiver<RegistrarReport>,
    task: JoinHandle<()>,
    end: CancellationToken,
    services: usize,
}

impl Host {
    pub(super) async fn start(
        members: &Members,
        nth: usize,
        services: usize,
    ) -> anyhow::Result<Self> {
        let store = members.connect(nth).await?;
        let mut keys = BTreeMap::new();
        for service in 0..services {
            let value = format!("10.{}.{}.{service}:8080", nth / 256, nth % 256).into_bytes();
            let want = Want { value, takeover: Takeover::SameValue, aim: Aim::Present };
            keys.insert(format!("/services/app-{service}/host-{nth}").parse()?, want);
        }
        let (wants, wanted) = watch::channel(Wants::new(keys));
        let end = CancellationToken::new();
        let ttl: Ttl = "10s".parse()?;
        let (report, task) = leases::start(store, ttl, wanted, end.clone());
        Ok(Self { wants, report, task, end, services })
    }

    /// Waits until etcd has all of them.
    pub(super) async fn registered(&mut self) {
        let wanted = self.services;
        let owned = |report: &RegistrarReport| {
            let owned = |status: &&KeyStatus| matches!(status, KeyStatus::Owned { .. });
            report.keys.values().filter(owned).count() == wanted
        };
        let _ = self.report.wait_for(owned).await;
    }

    /// How many of its keys etcd has no more, as far as it knows.
    pub(super) fn lost(&self) -> usize {
        let report = self.report.borrow();
        let owned = report.keys.values().filter(|status| matches!(status, KeyStatus::Owned { .. }));
        self.services - owned.count()
    }

    /// Removes its keys and ends its lease.
    pub(super) async fn end(self) {
        self.wants.send_modify(|wants| {
            wants.replace(BTreeMap::new());
        });
        self.end.cancel();
        let _ = self.task.await;
    }
}
