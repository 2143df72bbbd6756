//! Keys under as many leases as they need, at most [`KEYS`] under each.
//!
//! When a lease ends, etcd removes all of its keys in one transaction, for which everybody
//! waits, and each watcher gets all of them at once. So a process with thousands of services has
//! several leases, each with a [registrar] of its own. With fewer keys there is
//! one, as if this module did not exist.
//!
//! What must hold: a key stays with its registrar for as long as the process lives. Else one
//! could delete the key while another writes it.

use std::collections::BTreeMap;

use futures_util::future::{join_all, select_all};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::claim::{Want, Wants};
use crate::model::{Key, Ttl};
use crate::registrar::{self, RegistrarReport};
use crate::store::Store;

/// How many keys a lease has at most.
pub const KEYS: usize = 500;

/// Starts as many registrars as `wants` needs, now and later; one report covers all.
/// Otherwise as [`registrar::start`].
pub fn start<S: Store>(
    store: S,
    ttl: Ttl,
    wants: watch::Receiver<Wants>,
    shutdown: CancellationToken,
) -> (watch::Receiver<RegistrarReport>, JoinHandle<()>) {
    let (report, receiver) = watch::channel(RegistrarReport::default());
    let (leases, nth_of) = (Vec::new(), BTreeMap::new());
    let leases = Leases { store, ttl, wants, report, leases, nth_of };
    (receiver, tokio::spawn(leases.run(shutdown)))
}

struct Leases<S> {
    store: S,
    ttl: Ttl,
    wants: watch::Receiver<Wants>,
    report: watch::Sender<RegistrarReport>,
    leases: Vec<OneLease>,
    /// Which lease each key has that was ever wanted.
    nth_of: BTreeMap<Key, usize>,
}

/// A lease, and its registrar.
struct OneLease {
    wants: watch::Sender<Wants>,
    report: watch::Receiver<RegistrarReport>,
    task: JoinHandle<()>,
    end: CancellationToken,
}

impl<S: Store> Leases<S> {
    async fn run(mut self, shutdown: CancellationToken) {
        self.distribute();
        while !shutdown.is_cancelled() {
            self.publish();
            let reports = self.leases.iter_mut().map(|lease| Box::pin(lease.report.changed()));
            let is_news = tokio::select! {
                _ = select_all(reports) => false,
                Ok(()) = self.wants.changed() => true,
                () = shutdown.cancelled() => false,
            };
            if is_news {
                self.distribute();
            }
        }
        // The end goes by what was wanted last.
        self.distribute();
        join_all(self.leases.iter_mut().map(|lease| {
            lease.end.cancel();
            &mut lease.task
        }))
        .await;
        self.publish();
    }

    /// Gives each registrar what is wanted of its keys. New keys fill the last lease, and then
    /// one more.
    fn distribute(&mut self) {
        let wants = self.wants.borrow_and_update().clone();
        let known = (0..self.leases.len().max(1)).map(|nth| (nth, BTreeMap::new()));
        let mut parts: BTreeMap<usize, BTreeMap<Key, Want>> = known.collect();
        for (key, want) in wants.iter() {
            let next = self.nth_of.len() / KEYS;
            let nth = *self.nth_of.entry(key.clone()).or_insert(next);
            parts.entry(nth).or_default().insert(key.clone(), want.clone());
        }
        for (nth, keys) in parts {
            let part = wants.part(keys);
            match self.leases.get(nth) {
                Some(lease) => {
                    lease.wants.send_replace(part);
                }
                None => self.leases.push(OneLease::start(self.store.clone(), self.ttl, part)),
            }
        }
    }

    fn publish(&mut self) {
        let reports: Vec<RegistrarReport> =
            self.leases.iter_mut().map(|lease| lease.report.borrow_and_update().clone()).collect();
        let in_use = |lease: &OneLease| self.leases.len() == 1 || !lease.wants.borrow().is_empty();
        // The one that ends first; `None` comes before any.
        let until = self.leases.iter().zip(&reports).filter(|(lease, _)| in_use(lease));
        let lease_until = until.map(|(_, report)| report.lease_until).min().flatten();
        let mut merged = RegistrarReport {
            version: reports.iter().map(|report| report.version).min().unwrap_or_default(),
            lease_until,
            ..RegistrarReport::default()
        };
        for report in reports {
            merged.keys.extend(report.keys);
            let read = [merged.read_with.take(), report.read_with];
            merged.read_with = read.into_iter().flatten().max_by_key(|read| read.revision);
            for (endpoint, counts) in report.requests {
                merged.requests.entry(endpoint).or_default().add(counts);
            }
            merged.failure = match (merged.failure, report.failure) {
                (Some(one), Some(other)) if other.since < one.since => Some(other),
                (one, other) => one.or(other),
            };
        }
        self.report.send_replace(merged);
    }
}

impl OneLease {
    fn start<S: Store>(store: S, ttl: Ttl, wants: Wants) -> Self {
        let (wants, wanted) = watch::channel(wants);
        let end = CancellationToken::new();
        let (report, task) = registrar::start(store, ttl, wanted, end.clone());
        Self { wants, report, task, end }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::claim::{Aim, KeyStatus, Takeover};
    use crate::store::{Memory, default_deadline};

    fn keys(range: std::ops::Range<usize>) -> BTreeMap<Key, Want> {
        let want = |nth: usize| {
            let key = format!("/services/s/{nth:05}").parse().unwrap();
            let value = b"10.0.0.1:80".to_vec();
            (key, Want { value, takeover: Takeover::SameValue, aim: Aim::Present })
        };
        range.map(want).collect()
    }

    async fn owns(report: &mut watch::Receiver<RegistrarReport>, version: u64, count: usize) {
        let all = |report: &RegistrarReport| {
            let owned = |status: &&KeyStatus| matches!(status, KeyStatus::Owned { .. });
            let owned = report.keys.values().filter(owned).count();
            report.version >= version && owned == count
        };
        report.wait_for(all).await.unwrap();
    }

    /// How many keys each lease has, by what is stored.
    async fn stored(store: &Memory) -> Vec<usize> {
        let tree = "/services".parse().unwrap();
        let there = store.read(&[tree], default_deadline()).await.unwrap();
        let leases: BTreeSet<i64> = there.entries.values().map(|entry| entry.lease).collect();
        let of = |id: i64| there.entries.values().filter(|entry| entry.lease == id).count();
        leases.into_iter().map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_have_as_many_leases_as_they_need_and_stay_with_theirs() {
        let store = Memory::new();
        let (sender, wants) = watch::channel(Wants::new(keys(0..KEYS + 1)));
        let end = CancellationToken::new();
        let ttl: Ttl = "10s".parse().unwrap();
        let (mut report, task) = start(store.clone(), ttl, wants, end.clone());
        owns(&mut report, 0, KEYS + 1).await;
        assert_eq!(stored(&store).await, [KEYS, 1]);

        // Some go, others come: those in between have the lease that they had.
        sender.send_modify(|wants| assert!(wants.replace(keys(10..2 * KEYS + 10))));
        owns(&mut report, 1, 2 * KEYS).await;
        assert_eq!(stored(&store).await, [KEYS - 10, KEYS, 10]);

        // All are refreshed.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stored(&store).await.iter().sum::<usize>(), 2 * KEYS);

        sender.send_modify(|wants| assert!(wants.replace(BTreeMap::new())));
        end.cancel();
        task.await.unwrap();
        assert!(stored(&store).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_report_of_a_few_keys_is_that_of_their_registrar() {
        let store = Memory::new();
        let (_sender, wants) = watch::channel(Wants::new(keys(0..3)));
        let ttl: Ttl = "10s".parse().unwrap();
        let (mut report, _task) = start(store, ttl, wants, CancellationToken::new());
        owns(&mut report, 0, 3).await;
        let report = report.borrow().clone();
        assert!(
            report.lease_until.is_some() && report.failure.is_none() && !report.requests.is_empty()
        );
    }
}
