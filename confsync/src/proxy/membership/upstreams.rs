//! All upstreams of one nginx that change without a reload: wanted members in, confirmation and
//! requests in flight out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::folder::TableFolder;
use super::live_upstream::{Joins, LiveUpstream, host_and_port, id_of};
use super::roster::TableFull;
use super::table::Traffic;
use super::worker_state::{self, WorkerStateError};
use crate::proxy::pools::DepartedMember;
pub use crate::template::{UpstreamMember, UpstreamMembers};

/// The timeout of a worker's answer. It answers within a turn of its event loop.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);
/// The least time for which an address that left stays out. A worker may still keep connections to
/// the process that listened there before; within this time it notices their end. nginx does not
/// retry a POST that it sent on a dead connection.
const REJOIN_PAUSE: Duration = Duration::from_millis(50);
/// Why nginx may not use the members that were set.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// More backends than fit.
    #[error("{upstream}: {source}")]
    Full {
        upstream: String,
        /// How many fit.
        source: TableFull,
    },
    /// A backend that the balancer cannot use.
    #[error(
        "{upstream}: {endpoint} is not an IP address and port, which nginx needs for members that \
         change without a reload"
    )]
    NoAddress {
        upstream: String,
        /// The value.
        endpoint: String,
    },
    /// The table cannot be written.
    #[error("cannot write the members of {upstream} in {}: {source}", .folder.display())]
    Files {
        upstream: String,
        /// Where its table is.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No worker confirms the members.
    #[error(transparent)]
    NotConfirmed(#[from] WorkerStateError),
    /// The table was created after nginx loaded its files.
    #[error(
        "the table of {upstream} in {} is new: nginx uses it after a reload", .folder.display()
    )]
    NewTable {
        upstream: String,
        /// Where the table is.
        folder: PathBuf,
    },
    /// A worker uses other files.
    #[error(
        "nginx (pid {pid}) uses another table of {upstream} than the one in {}: it must be reloaded",
        .folder.display()
    )]
    OtherTable {
        /// The worker.
        pid: i32,
        upstream: String,
        /// Where the table is.
        folder: PathBuf,
    },
    /// A worker has not seen the change.
    #[error("nginx (pid {pid}) has not taken over the newest members of {upstream}")]
    Behind {
        /// The worker.
        pid: i32,
        upstream: String,
    },
}

/// The upstreams of one nginx.
#[derive(Debug)]
pub struct LiveUpstreams {
    pub(super) folder: TableFolder,
    pub(super) upstreams: BTreeMap<String, LiveUpstream>,
    /// How often the members that nginx has were checked.
    pub(super) looks: u64,
    /// The workers that have answered such a check.
    pub(super) seen_workers: BTreeSet<i32>,
}

impl LiveUpstreams {
    /// For the tables in `folder`.
    pub fn new(folder: TableFolder) -> Self {
        Self { folder, upstreams: BTreeMap::new(), looks: 0, seen_workers: BTreeSet::new() }
    }

    /// Makes `members` those of `upstream`. When it returns, every new pick uses them, in every
    /// worker that has the table. Waits a moment for an address that comes back at once.
    ///
    /// # Errors
    /// [`MembershipError`]; the next call then opens the table again.
    pub async fn set(
        &mut self,
        upstream: &str,
        members: &UpstreamMembers,
    ) -> Result<(), MembershipError> {
        let known = self.upstreams.get(upstream).map(|known| &known.members);
        check_addresses(upstream, known, members)?;
        let outcome = self.try_set(upstream, members).await;
        if outcome.is_err() {
            // The state of the table is unknown: the next call reads it.
            self.upstreams.remove(upstream);
        }
        outcome
    }

    async fn try_set(
        &mut self,
        upstream: &str,
        members: &UpstreamMembers,
    ) -> Result<(), MembershipError> {
        let files = |folder: &TableFolder, source| MembershipError::Files {
            upstream: upstream.to_owned(),
            folder: folder.path().to_owned(),
            source,
        };
        self.open_table(upstream, members.len()).map_err(|e| files(&self.folder, e))?;
        let Some(known) = self.upstreams.get_mut(upstream) else { return Ok(()) };
        if known.is_known && known.members == *members {
            return Ok(());
        }
        known.is_confirmed = false;
        known.release_drained(&self.folder).map_err(|e| files(&self.folder, e))?;
        known.leave(members, &self.folder).map_err(|e| files(&self.folder, e))?;
        let full = |source| MembershipError::Full { upstream: upstream.to_owned(), source };
        let late = known.join(members, Joins::NotBackAgain).map_err(full)?;
        self.folder.commit(&mut known.table).map_err(|e| files(&self.folder, e))?;
        if late {
            sleep_until(Instant::now() + REJOIN_PAUSE).await;
            known.join(members, Joins::All).map_err(full)?;
            self.folder.commit(&mut known.table).map_err(|e| files(&self.folder, e))?;
        }
        // The same in content; it shares what the next set shares with this one, which then costs
        // what differs.
        known.members.clone_from(members);
        known.is_known = true;
        Ok(())
    }

    /// Opens the table of `upstream`, unless it is open, in place, and has room for so many members.
    fn open_table(&mut self, upstream: &str, members: usize) -> io::Result<()> {
        if self.upstreams.get(upstream).is_some_and(|known| !known.table.is_in_place()) {
            tracing::warn!(upstream, folder = %self.folder.path().display(),
                "the table of an upstream was removed by another process and is created again; nginx \
                 uses it after a reload");
            self.upstreams.remove(upstream);
        }
        let capacity = self.folder.capacity_for(members);
        if self.upstreams.get(upstream).is_some_and(|known| known.table.capacity < capacity) {
            tracing::info!(
                upstream,
                capacity,
                "a larger table is made for an upstream; nginx uses it after a reload"
            );
            self.upstreams.remove(upstream);
        }
        if !self.upstreams.contains_key(upstream) {
            let new = LiveUpstream::new(self.folder.table(upstream, members)?);
            self.upstreams.insert(upstream.to_owned(), new);
        }
        Ok(())
    }

    /// Has a worker confirm the members that were set last, for each upstream of which that is not
    /// known.
    ///
    /// # Errors
    /// When none answers, or one uses something else.
    pub async fn confirm(&mut self) -> Result<(), MembershipError> {
        let socket = self.folder.path().join("state.sock");
        for (name, known) in self.upstreams.iter_mut().filter(|(_, known)| !known.is_confirmed) {
            // A worker that opens the table only now uses it, and would answer for others that use
            // the former one.
            if known.table.is_new {
                let (upstream, folder) = (name.clone(), self.folder.path().to_owned());
                return Err(MembershipError::NewTable { upstream, folder });
            }
            let state = worker_state::ask(&socket, name, CONFIRM_DEADLINE).await?;
            let pid = state.pid;
            if state.instance != known.table.instance() {
                let (upstream, folder) = (name.clone(), self.folder.path().to_owned());
                return Err(MembershipError::OtherTable { pid, upstream, folder });
            }
            if state.sequence != known.table.roster.head().sequence {
                return Err(MembershipError::Behind { pid, upstream: name.clone() });
            }
            known.is_confirmed = true;
        }
        Ok(())
    }

    /// Other workers than those that have confirmed may run, or come.
    pub fn confirm_again(&mut self) {
        self.upstreams.values_mut().for_each(|known| known.is_confirmed = false);
    }

    /// nginx has loaded its files: its workers are new, and so they use the tables that are there.
    pub fn note_loaded(&mut self) {
        self.upstreams.values_mut().for_each(|known| known.table.is_new = false);
        self.confirm_again();
    }

    /// Members that left and may still have requests.
    pub fn departed(&self) -> Vec<DepartedMember> {
        let slots = |(name, known): (&String, &LiveUpstream)| {
            let slots: Vec<u32> = known.table.roster.leaving().map(|(_, slot)| slot).collect();
            let name = name.clone();
            slots.into_iter().map(move |slot| DepartedMember { pool: name.clone(), slot })
        };
        self.upstreams.iter().flat_map(slots).collect()
    }

    /// The number of requests in flight to a departed backend; `None` if it is not known exactly.
    pub fn in_flight(&self, departed: &DepartedMember) -> Option<u64> {
        let known = self.upstreams.get(&departed.pool)?;
        if !known.table.roster.leaving().any(|(_, slot)| slot == departed.slot) {
            // Its slot was released, which requires that nothing is in flight.
            return Some(0);
        }
        if !self.folder.workers.is_exact().ok()? {
            return None;
        }
        self.folder.in_flight(&known.table, departed.slot).ok()
    }

    /// The requests of each member so far and now, by upstream and key.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn traffic(&self) -> io::Result<BTreeMap<Arc<str>, Traffic>> {
        let mut all = BTreeMap::new();
        for known in self.upstreams.values() {
            let traffic = self.folder.traffic(&known.table)?;
            for key in known.members.keys() {
                let slot = known.table.roster.slot_of(&id_of(key));
                if let Some(traffic) = slot.and_then(|slot| traffic.get(slot as usize)) {
                    all.insert(Arc::clone(key), *traffic);
                }
            }
        }
        Ok(all)
    }

    pub fn folder(&self) -> &TableFolder {
        &self.folder
    }
}

/// Checks those that are not `known`.
fn check_addresses(
    upstream: &str,
    known: Option<&UpstreamMembers>,
    members: &UpstreamMembers,
) -> Result<(), MembershipError> {
    let none = UpstreamMembers::default();
    let mut new = known.unwrap_or(&none).changed_keys(members).filter_map(|key| members.get(key));
    match new.find(|member| host_and_port(&member.endpoint).is_none()) {
        None => Ok(()),
        Some(member) => Err(MembershipError::NoAddress {
            upstream: upstream.to_owned(),
            endpoint: member.endpoint.to_string(),
        }),
    }
}
