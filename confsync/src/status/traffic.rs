//! The traffic of backends, read only while a client asks for it. Nothing is read while no client
//! does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, timeout};

use crate::proxy::traffic::{MemberTraffic, TrafficReader};

/// What was read is shown for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Reading costs at most this share of the time: with thousands of backends it is read less often.
const SHARE: u32 = 20;
/// Who wants to see it waits for a proxy no longer.
const DEADLINE: Duration = Duration::from_secs(2);

/// The members' traffic, by reload group.
pub type TrafficByGroup = BTreeMap<String, Vec<MemberTraffic>>;

/// Where traffic is read, and what was read last. Clones are the same.
#[derive(Debug, Clone)]
pub struct TrafficMonitor {
    inner: Arc<MonitorState>,
}

#[derive(Debug)]
struct MonitorState {
    readers: Mutex<Readers>,
    /// When it is read again; one reads for all who wait.
    next: AsyncMutex<Option<Instant>>,
    newest: watch::Sender<Arc<TrafficByGroup>>,
}

#[derive(Debug, Default)]
struct Readers {
    next: u64,
    all: BTreeMap<u64, (String, TrafficReader)>,
}

/// The traffic of a group is read until this is dropped.
#[derive(Debug)]
pub struct Monitored {
    monitor: TrafficMonitor,
    id: u64,
}

impl Default for TrafficMonitor {
    fn default() -> Self {
        let (newest, _) = watch::channel(Arc::default());
        let inner = MonitorState { readers: Mutex::default(), next: AsyncMutex::default(), newest };
        Self { inner: Arc::new(inner) }
    }
}

impl TrafficMonitor {
    /// The traffic of this group is read here, if anywhere.
    pub fn of(&self, group: &str, reader: Option<TrafficReader>) -> Option<Monitored> {
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.next += 1;
        let id = readers.next;
        readers.all.insert(id, (group.to_owned(), reader?));
        Some(Monitored { monitor: self.clone(), id })
    }

    /// What was read last.
    pub(super) fn newest(&self) -> watch::Receiver<Arc<TrafficByGroup>> {
        self.inner.newest.subscribe()
    }

    /// Reads it now, unless that was done a moment ago.
    pub(super) async fn refresh(&self) {
        // A proxy that does not answer leaves what was read before.
        let _ = timeout(DEADLINE, self.read()).await;
    }

    async fn read(&self) {
        let mut next = self.inner.next.lock().await;
        let began = Instant::now();
        if next.is_some_and(|at| began < at) {
            return;
        }
        let readers: Vec<_> = {
            let readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.all.values().cloned().collect()
        };
        let mut found = TrafficByGroup::new();
        for (group, reader) in readers {
            found.insert(group, reader.read().await);
        }
        let ended = Instant::now();
        *next = Some(ended + FRESH.max((ended - began) * SHARE));
        self.inner.newest.send_if_modified(|newest| {
            let changed = **newest != found;
            *newest = Arc::new(found);
            changed
        });
    }
}

impl Drop for Monitored {
    fn drop(&mut self) {
        let readers = self.monitor.inner.readers.lock();
        readers.unwrap_or_else(PoisonError::into_inner).all.remove(&self.id);
    }
}
