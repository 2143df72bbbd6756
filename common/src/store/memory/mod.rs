//! A store in memory, for tests of everything that stands on a store.
//!
//! It keeps the contract of [`super`] as v3 does, and can do on demand what etcd
//! does at the worst moment: cut the line, hang, compact, be wiped or restored, let
//! leases run out. Its leases have no clock: time passes by [`Memory::advance`].

mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

pub use self::world::Saved;
use self::world::World;
use super::{
    Guard, KeyState, Lease, Ownership, Renewed, Store, StoreError, Watch, WatchEvent, WriteOutcome,
};
use crate::model::{Entry, Key, Revision, Snapshot, Tree, Ttl};

/// A call to a store that hangs ends after this, as a real one's would.
const DEADLINE: Duration = Duration::from_secs(5);

/// The line between a client and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Up,
    Cut,
    Hung,
}

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
    /// Rings at each change, and holds the state of the line.
    line: Arc<watch::Sender<Line>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store that answers.
    #[must_use]
    pub fn new() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        Self { world, line: Arc::new(watch::Sender::new(Line::Up)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.line.send_modify(|_| ());
        result
    }

    /// Every call fails and every watch ends, until [`Memory::heal`].
    pub fn cut(&self) {
        self.world().cuts += 1;
        self.line.send_replace(Line::Cut);
    }

    /// No call is answered and every watch is silent, until [`Memory::heal`].
    pub fn hang(&self) {
        self.line.send_replace(Line::Hung);
    }

    /// Answers again. What was cut stays cut; what hung goes on.
    pub fn heal(&self) {
        self.line.send_replace(Line::Up);
    }

    /// Forgets the history up to now; a watch that has not seen it yet ends.
    pub fn compact(&self) {
        self.change(World::compact);
    }

    /// The store as it is, for [`Memory::restore`].
    #[must_use]
    pub fn save(&self) -> Saved {
        self.world().save()
    }

    /// Goes back to an older state, as a restore from a backup does. Running
    /// watches end, as the server is another one.
    pub fn restore(&self, saved: &Saved) {
        self.change(|world| world.restore(saved));
    }

    /// Goes back to nothing, with another cluster's id.
    pub fn wipe(&self) {
        self.change(World::wipe);
    }

    /// Lets time pass: leases run out.
    pub fn advance(&self, time: Duration) {
        self.change(|world| world.advance(time));
    }

    /// Writes a key as somebody else without a lease would.
    pub fn set(&self, key: &Key, value: impl Into<Vec<u8>>) -> Revision {
        self.change(|world| world.write(key.as_str(), value.into(), 0))
    }

    /// Deletes a key as somebody else would.
    pub fn remove(&self, key: &Key) {
        self.change(|world| world.erase(&[key.as_str().into()]));
    }

    /// Every watch says how far it is, as etcd does every few minutes.
    pub fn announce(&self) {
        self.change(|world| world.announcements += 1);
    }

    /// The revision now.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.world().revision
    }

    /// The value of a key, seen past any cut line.
    #[must_use]
    pub fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.world().entries.get(key.as_str()).map(|entry| entry.value.to_vec())
    }

    /// How many changes were ever written, deletions and expiries included. A
    /// refresh is none.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.world().writes
    }

    /// How many changes were delivered to watches.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.world().events
    }

    /// How many calls were made, answered or not.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Waits until the line is up, or says why not.
    async fn reach(&self) -> Result<(), StoreError> {
        self.world().calls += 1;
        let mut line = self.line.subscribe();
        let settled = timeout(DEADLINE, line.wait_for(|line| *line != Line::Hung)).await;
        match settled.map(|line| line.map(|line| *line)) {
            Ok(Ok(Line::Up)) => Ok(()),
            Ok(_) => Err(StoreError::Unreachable("memory: the line is cut".to_owned())),
            Err(_) => Err(StoreError::Unreachable("memory: no answer within 5s".to_owned())),
        }
    }
}

impl Store for Memory {
    type Watch = MemoryWatch;

    async fn read(&self, trees: &[Tree]) -> Result<Snapshot, StoreError> {
        self.reach().await?;
        Ok(self.world().read(trees))
    }

    async fn watch(&self, tree: &Tree, after: Revision) -> Result<MemoryWatch, StoreError> {
        self.reach().await?;
        let world = self.world();
        if world.revision < after {
            return Err(StoreError::Regressed { seen: after, now: world.revision });
        }
        if after < world.compacted {
            return Err(StoreError::Compacted(after));
        }
        Ok(MemoryWatch {
            store: self.clone(),
            tree: tree.clone(),
            seen: after,
            cuts: world.cuts,
            announced: world.announcements,
            line: self.line.subscribe(),
        })
    }

    async fn grant(&self, ttl: Ttl) -> Result<Lease, StoreError> {
        self.reach().await?;
        Ok(Lease { id: self.world().grant(ttl.span()), ttl: ttl.span() })
    }

    async fn renew(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
    ) -> Result<Option<Renewed>, StoreError> {
        self.reach().await?;
        let mut world = self.world();
        let Some(ttl) = world.renew(lease.id) else { return Ok(None) };
        let state = |(key, _): &(Key, Ownership)| match world.entries.get(key.as_str()) {
            None => KeyState::Missing,
            Some(entry) if entry.lease == lease.id => {
                KeyState::Ours(Ownership { lease: lease.id, modified: entry.modified })
            }
            Some(entry) => KeyState::Foreign(entry.clone()),
        };
        let keys = keys.iter().map(state).collect();
        Ok(Some(Renewed { ttl, revision: world.revision, keys }))
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
    ) -> Result<Option<WriteOutcome>, StoreError> {
        self.reach().await?;
        Ok(self.change(|world| {
            if !world.knows(lease.id) {
                return None;
            }
            Some(if world.allows(key, guard) {
                let revision = world.write(key.as_str(), value.to_vec(), lease.id);
                WriteOutcome::Done {
                    revision,
                    mark: Ownership { lease: lease.id, modified: revision },
                }
            } else {
                world.held(key)
            })
        }))
    }

    async fn delete(&self, key: &Key, guard: &Guard) -> Result<WriteOutcome, StoreError> {
        self.reach().await?;
        Ok(self.change(|world| {
            if world.entries.contains_key(key.as_str()) && world.allows(key, guard) {
                let revision = world.erase(&[key.as_str().into()]);
                WriteOutcome::Done { revision, mark: Ownership { lease: 0, modified: revision } }
            } else {
                world.held(key)
            }
        }))
    }

    async fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        self.reach().await?;
        self.change(|world| world.revoke(lease.id));
        Ok(())
    }

    async fn time_left(&self, entry: &Entry) -> Result<Option<Duration>, StoreError> {
        self.reach().await?;
        Ok((entry.lease != 0).then(|| self.world().time_left(entry.lease)))
    }
}

/// A running watch of one tree.
#[derive(Debug)]
pub struct MemoryWatch {
    store: Memory,
    tree: Tree,
    seen: Revision,
    cuts: u64,
    announced: u64,
    line: watch::Receiver<Line>,
}

impl MemoryWatch {
    fn poll(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let mut world = self.store.world();
        if world.cuts != self.cuts {
            return Err(StoreError::Unreachable("memory: the watch was cut".to_owned()));
        }
        let changes = world.since(self.seen, &self.tree)?;
        if !changes.is_empty() {
            world.events += changes.len() as u64;
            self.seen = world.revision;
            return Ok(Some(WatchEvent::Changes(changes)));
        }
        self.seen = world.revision;
        let announced = std::mem::replace(&mut self.announced, world.announcements);
        Ok((announced != self.announced).then_some(WatchEvent::Progress(self.seen)))
    }
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            if *self.line.borrow_and_update() != Line::Hung
                && let Some(event) = self.poll()?
            {
                return Ok(event);
            }
            if self.line.changed().await.is_err() {
                return Err(StoreError::Unreachable("memory: the store is gone".to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
