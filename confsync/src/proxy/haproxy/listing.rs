//! The servers of one backend as its worker has listed them, and as our commands have left them
//! since: a change of one member of thousands needs no list of all.
//!
//! Pure. What others do to the servers is seen by the next list only, which is made when a command
//! is refused, when the worker is another, and every few seconds.

use std::collections::{BTreeMap, BTreeSet};

use super::servers::{RunningServer, member_of};
use crate::proxy::process::ProcessId;

/// The servers of one backend of one worker.
#[derive(Debug)]
pub(super) struct Listing {
    worker: ProcessId,
    /// By the member that each is for; those first that are not out.
    by_member: BTreeMap<String, Vec<RunningServer>>,
    /// The members of which a server is out.
    out: BTreeSet<String>,
    last_id: u32,
}

impl Listing {
    pub(super) fn new(worker: ProcessId, servers: Vec<RunningServer>) -> Self {
        let last_id = servers.iter().map(|server| server.id).max().unwrap_or(0);
        let mut new = Self { worker, by_member: BTreeMap::new(), out: BTreeSet::new(), last_id };
        servers.into_iter().for_each(|server| new.put(server));
        new
    }

    /// Whether it is of this worker.
    pub(super) fn is_of(&self, worker: ProcessId) -> bool {
        self.worker == worker
    }

    /// The members that any server is for.
    pub(super) fn members(&self) -> impl Iterator<Item = &String> {
        self.by_member.keys()
    }

    /// The members of which a server is out: it may be waited for, or can be deleted.
    pub(super) fn out(&self) -> &BTreeSet<String> {
        &self.out
    }

    /// The servers for a member, those first that are not out.
    pub(super) fn of(&self, member: &str) -> &[RunningServer] {
        self.by_member.get(member).map_or(&[], Vec::as_slice)
    }

    /// A number that no server has had.
    pub(super) fn new_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// Adds a server, or replaces the one of its name.
    pub(super) fn put(&mut self, server: RunningServer) {
        let member = server.member_name().to_owned();
        let servers = self.by_member.entry(member.clone()).or_default();
        servers.retain(|there| there.name != server.name);
        servers.push(server);
        servers.sort_by(|a, b| (a.is_out(), &a.name).cmp(&(b.is_out(), &b.name)));
        self.note_out(&member);
    }

    /// The server of this name is deleted.
    pub(super) fn remove(&mut self, name: &str) {
        let member = member_of(name);
        if let Some(servers) = self.by_member.get_mut(member) {
            servers.retain(|there| there.name != name);
            if servers.is_empty() {
                self.by_member.remove(member);
            }
        }
        self.note_out(member);
    }

    fn note_out(&mut self, member: &str) {
        match self.of(member).iter().any(|server| server.is_ours() && server.is_out()) {
            true => self.out.insert(member.to_owned()),
            false => self.out.remove(member),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_our_commands_leave_it() {
        let worker = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let server = |name: &str, id, admin| {
            let address = name.split('_').next().unwrap().parse().ok();
            RunningServer { id, name: name.to_owned(), address, admin, weight: 1 }
        };
        let (one, again) = ("10.0.0.1:80", "10.0.0.1:80_1");
        let mut listing = Listing::new(worker, vec![server(one, 3, 1), server("sorry", 7, 0)]);
        assert!(listing.is_of(worker));
        assert_eq!(listing.new_id(), 8);
        assert_eq!(listing.out().iter().collect::<Vec<_>>(), [one]);
        listing.put(server(again, 8, 0));
        let names = |listing: &Listing| {
            let names = listing.of(one).iter().map(|server| server.name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&listing), [again, one], "those that are out come last");
        listing.put(server(one, 3, 0));
        assert_eq!((names(&listing), listing.out().len()), (vec![one.into(), again.into()], 0));
        listing.remove(again);
        listing.remove(one);
        assert_eq!(listing.members().collect::<Vec<_>>(), ["sorry"]);
        assert!(listing.of(one).is_empty());
    }
}
