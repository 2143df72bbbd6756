//! One upstream that changes without a reload: which members join its table and which leave it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::model::{Endpoint, Host};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::folder::TableFolder;
use super::layout::MemberId;
use super::roster::{Joining, TableFull};
use super::table::MemberTable;
use crate::template::UpstreamMembers;

/// How long an nginx may keep an idle connection: `keepalive_timeout` of an upstream is 60 s
/// unless it is set.
const KEPT_CONNECTIONS: Duration = Duration::from_secs(75);

#[derive(Debug)]
pub(super) struct LiveUpstream {
    pub(super) table: MemberTable,
    pub(super) members: UpstreamMembers,
    /// Whether [`Self::members`] equals the table: not before the first change of this run, which
    /// compares with what an earlier run left.
    pub(super) is_known: bool,
    /// Whether a worker has confirmed the table as it is.
    pub(super) is_confirmed: bool,
    /// Addresses that have had requests, and when they left.
    left: HashMap<Endpoint, Instant>,
}

/// Which new members join now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Joins {
    NotBackAgain,
    All,
}

impl LiveUpstream {
    /// For this table, with whatever members an earlier run left in it.
    pub(super) fn new(table: MemberTable) -> Self {
        Self {
            table,
            members: UpstreamMembers::default(),
            is_known: false,
            is_confirmed: false,
            left: HashMap::new(),
        }
    }

    /// Frees the slots of departed backends without requests.
    pub(super) fn release_drained(&mut self, folder: &TableFolder) -> io::Result<()> {
        if !folder.workers.is_exact()? {
            return Ok(());
        }
        let leaving: Vec<u32> = self.table.roster.leaving().map(|(_, slot)| slot).collect();
        for slot in leaving {
            if folder.in_flight(&self.table, slot)? == 0 {
                self.table.roster.release(slot);
            }
        }
        Ok(())
    }

    /// Removes members that are not wanted, or not at this address.
    pub(super) fn leave(
        &mut self,
        wanted: &UpstreamMembers,
        folder: &TableFolder,
    ) -> io::Result<()> {
        if !self.is_known {
            // Also those that an earlier run had in the table under other keys.
            let ids: HashSet<_> = wanted.keys().map(|key| id_of(key)).collect();
            let gone: Vec<_> = self.table.roster.members().map(|(id, _)| *id).collect();
            gone.iter().filter(|id| !ids.contains(*id)).for_each(|id| self.table.roster.leave(id));
        }
        let gone = |key: &Arc<str>| {
            let endpoint = self.members.get(key)?.endpoint.clone();
            let is_gone = wanted.get(key).is_none_or(|wanted| wanted.endpoint != endpoint);
            is_gone.then(|| (Arc::clone(key), endpoint))
        };
        let gone: Vec<_> = self.members.changed_keys(wanted).filter_map(gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        self.left.retain(|_, at| now < *at + KEPT_CONNECTIONS);
        for (key, endpoint) in gone {
            let id = id_of(&key);
            // Without requests there are no kept connections either.
            if let Some(slot) = self.table.roster.slot_of(&id)
                && folder.has_had_requests(&self.table, slot)?
            {
                self.left.insert(endpoint, now);
            }
            self.table.roster.leave(&id);
            self.members.remove(&key);
        }
        Ok(())
    }

    /// Adds new members and updates weights. Returns whether some were left out because their
    /// address came back too soon.
    pub(super) fn join(
        &mut self,
        wanted: &UpstreamMembers,
        joins: Joins,
    ) -> Result<bool, TableFull> {
        let now = Instant::now();
        let joined = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        // Members that exist at the start have their full weight.
        let joined = if self.members.is_empty() && !self.is_known { 0.0 } else { joined };
        let mut late = false;
        let changed: Vec<_> = self.members.changed_keys(wanted).cloned().collect();
        for key in &changed {
            let Some(member) = wanted.get(key) else { continue };
            let is_back = self.left.get(&member.endpoint);
            let is_back = is_back.is_some_and(|at| now < *at + KEPT_CONNECTIONS);
            if joins == Joins::NotBackAgain && is_back && !self.members.contains_key(key) {
                late = true;
                continue;
            }
            let Some((host, port)) = host_and_port(&member.endpoint) else { continue };
            let weight = member.weight;
            self.table.roster.join(Joining { id: id_of(key), host, port, weight, joined })?;
            self.members.insert(Arc::clone(key), member.clone());
        }
        Ok(late)
    }
}

/// The id that a table has for the member with this key.
pub(super) fn id_of(key: &str) -> MemberId {
    let hash = Sha256::digest(key.as_bytes());
    let mut id = MemberId::default();
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    id
}

/// The form that nginx takes for a peer; `None` for names and sockets.
pub(super) fn host_and_port(endpoint: &Endpoint) -> Option<(String, u16)> {
    let host = match endpoint.host() {
        Host::V4(address) => address.to_string(),
        Host::V6(address) => format!("[{address}]"),
        Host::Name(_) => return None,
    };
    Some((host, endpoint.port()))
}
