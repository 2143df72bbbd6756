//! A store in memory, for tests of everything that needs a store.
//!
//! It keeps the contract of [`super`] as v3 does, and does on demand what etcd does at the worst
//! moment: cut connections, hang, compact, be wiped or restored, let leases expire. Its leases
//! have no clock: time passes by [`Memory::advance`].

mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use self::world::Saved;
use self::world::World;
use super::{
    DeleteOutcome, Guard, KeyState, Lease, Ownership, PutOutcome, RefreshOutcome, Store,
    StoreError, Watch, WatchEvent,
};
use crate::model::{Entry, Key, Revision, Snapshot, Tree, Ttl};

/// The connection between a client and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connectivity {
    Up,
    Cut,
    Hung,
}

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
    /// Notifies at each change, and has the state of the connection.
    line: Arc<watch::Sender<Connectivity>>,
    /// What clients may do.
    rights: Arc<Mutex<Rights>>,
}

/// What clients may do with keys. Leases need no right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    All,
    /// No write.
    Read,
    /// Nothing.
    None,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store that answers.
    pub fn new() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let line = Arc::new(watch::Sender::new(Connectivity::Up));
        Self { world, line, rights: Arc::new(Mutex::new(Rights::All)) }
    }

    /// Clients have these rights from now on.
    pub fn grant_rights(&self, rights: Rights) {
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner) = rights;
    }

    /// Whether a client may do what needs one of these rights.
    fn permit(&self, needed: &[Rights]) -> Result<(), StoreError> {
        let rights = *self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        match needed.contains(&rights) {
            true => Ok(()),
            false => Err(StoreError::Denied("memory: permission denied".to_owned())),
        }
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
        self.line.send_replace(Connectivity::Cut);
    }

    /// No call is answered and every watch is silent, until [`Memory::heal`].
    pub fn hang(&self) {
        self.line.send_replace(Connectivity::Hung);
    }

    /// Answers again. What was cut stays cut; what hung goes on.
    pub fn heal(&self) {
        self.line.send_replace(Connectivity::Up);
    }

    /// Forgets the history up to now; a watch that has not seen it yet ends.
    pub fn compact(&self) {
        self.change(World::compact);
    }

    /// The store as it is, for [`Memory::restore`].
    pub fn save(&self) -> Saved {
        self.world().save()
    }

    /// Goes back to an older state, as a restore from a backup does. Running watches end, as
    /// the server is another one.
    pub fn restore(&self, saved: &Saved) {
        self.change(|world| world.restore(saved));
    }

    /// Goes back to nothing, with another cluster's id.
    pub fn wipe(&self) {
        self.change(World::wipe);
    }

    /// Lets time pass: leases expire.
    pub fn advance(&self, time: Duration) {
        self.change(|world| world.advance(time));
    }

    /// Writes a key as another client without a lease would.
    pub fn set(&self, key: &Key, value: impl Into<Vec<u8>>) -> Revision {
        self.change(|world| world.write(key.as_str(), value.into(), 0))
    }

    /// Deletes a key as another client would.
    pub fn remove(&self, key: &Key) {
        self.change(|world| world.erase(&[key.as_str().into()]));
    }

    /// Every watch reports its progress, as etcd does every ten minutes.
    pub fn announce(&self) {
        self.change(|world| world.announcements += 1);
    }

    pub fn revision(&self) -> Revision {
        self.world().revision
    }

    /// The value of a key, whatever the state of the connection.
    pub fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.world().entries.get(key.as_str()).map(|entry| entry.value.to_vec())
    }

    /// How many changes were ever written, deletions and expiries included. A
    /// refresh is none.
    pub fn writes(&self) -> u64 {
        self.world().writes
    }

    /// How many changes were delivered to watches.
    pub fn events(&self) -> u64 {
        self.world().events
    }

    /// How many calls were made, answered or not.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Waits until the store answers, until `deadline` at most.
    async fn reach(&self, deadline: Instant) -> Result<(), StoreError> {
        self.world().calls += 1;
        let mut line = self.line.subscribe();
        let settled = timeout_at(deadline, line.wait_for(|line| *line != Connectivity::Hung)).await;
        match settled.map(|line| line.map(|line| *line)) {
            Ok(Ok(Connectivity::Up)) => Ok(()),
            Ok(_) => Err(StoreError::Unreachable("memory: the connection is cut".to_owned())),
            Err(_) => Err(StoreError::Unreachable("memory: no answer in time".to_owned())),
        }
    }
}

impl Store for Memory {
    type Watch = MemoryWatch;

    async fn read(&self, trees: &[Tree], deadline: Instant) -> Result<Snapshot, StoreError> {
        self.reach(deadline).await?;
        self.permit(&[Rights::All, Rights::Read])?;
        Ok(self.world().read(trees))
    }

    async fn watch(
        &self,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> Result<MemoryWatch, StoreError> {
        self.reach(deadline).await?;
        let world = self.world();
        if world.revision < after {
            return Err(StoreError::Regressed { seen: after, now: world.revision });
        }
        if after < world.compacted {
            return Err(StoreError::Compacted(after));
        }
        Ok(MemoryWatch {
            store: self.clone(),
            trees: trees.to_vec(),
            seen: after,
            cuts: world.cuts,
            announced: world.announcements,
            line: self.line.subscribe(),
        })
    }

    async fn grant(&self, ttl: Ttl, deadline: Instant) -> Result<Lease, StoreError> {
        self.reach(deadline).await?;
        Ok(Lease { id: self.world().grant(ttl.span()), ttl: ttl.span() })
    }

    async fn refresh(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
        deadline: Instant,
    ) -> Result<RefreshOutcome, StoreError> {
        self.reach(deadline).await?;
        let mut world = self.world();
        if world.renew(lease.id).is_none() {
            return Ok(RefreshOutcome::LeaseLost);
        }
        let state = |(key, _): &(Key, Ownership)| match world.entries.get(key.as_str()) {
            None => KeyState::Missing,
            Some(entry) if entry.lease == lease.id => {
                KeyState::Ours(Ownership { lease: lease.id, modified: entry.modified })
            }
            Some(entry) => KeyState::Foreign(entry.clone()),
        };
        let keys = keys.iter().map(state).collect();
        Ok(RefreshOutcome::Refreshed { revision: world.revision, keys })
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<PutOutcome, StoreError> {
        self.reach(deadline).await?;
        self.permit(&[Rights::All])?;
        Ok(self.change(|world| {
            if !world.knows(lease.id) {
                return PutOutcome::LeaseLost;
            }
            if world.allows(key, guard) {
                let modified = world.write(key.as_str(), value.to_vec(), lease.id);
                return PutOutcome::Written(Ownership { lease: lease.id, modified });
            }
            let revision = world.revision;
            match world.entries.get(key.as_str()).cloned() {
                Some(by) => PutOutcome::Taken { by, revision },
                None => PutOutcome::Missing { revision },
            }
        }))
    }

    async fn delete(
        &self,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<DeleteOutcome, StoreError> {
        self.reach(deadline).await?;
        self.permit(&[Rights::All])?;
        Ok(self.change(|world| {
            let revision = world.revision;
            match world.entries.get(key.as_str()).cloned() {
                None => DeleteOutcome::Missing(revision),
                Some(by) if !world.allows(key, guard) => DeleteOutcome::Taken { by, revision },
                Some(_) => DeleteOutcome::Deleted(world.erase(&[key.as_str().into()])),
            }
        }))
    }

    async fn revoke(&self, lease: Lease, deadline: Instant) -> Result<(), StoreError> {
        self.reach(deadline).await?;
        self.change(|world| world.revoke(lease.id));
        Ok(())
    }

    async fn time_left(
        &self,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<Option<Duration>, StoreError> {
        self.reach(deadline).await?;
        Ok((entry.lease != 0).then(|| self.world().time_left(entry.lease)))
    }
}

/// A running watch.
#[derive(Debug)]
pub struct MemoryWatch {
    store: Memory,
    trees: Vec<Tree>,
    seen: Revision,
    cuts: u64,
    announced: u64,
    line: watch::Receiver<Connectivity>,
}

impl MemoryWatch {
    fn poll(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let mut world = self.store.world();
        if world.cuts != self.cuts {
            return Err(StoreError::Unreachable("memory: the watch was cut".to_owned()));
        }
        let changes = world.since(self.seen, &self.trees)?;
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
            if *self.line.borrow_and_update() != Connectivity::Hung
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
