//! The servers of one backend of a running HAProxy: those it is to have, those it is known to have,
//! and the commands between the two.

use std::collections::BTreeSet;

use super::command::{ServerName, Word};
use super::departed::DepartedServers;
use super::listing::Listing;
use super::servers::{RunningServer, difference, free_name};
use super::wanted::WantedServers;
use super::worker::{RuntimeBackend, RuntimeWorker, word};
use super::{conf, options};
use crate::proxy::pools::PublishError;
use crate::template::UpstreamMembers;

/// With more changed members than this, all servers are listed instead of asking for each.
const ASKED_ONE_BY_ONE: usize = 32;

/// The servers of one backend.
#[derive(Debug, Default)]
pub(super) struct BackendServers {
    wanted: WantedServers,
    /// `None`: it is to be listed.
    listing: Option<Listing>,
    /// The members that are to be published.
    unpublished: BTreeSet<String>,
    /// The members that are to be confirmed, if the listing is known.
    unconfirmed: BTreeSet<String>,
}

impl BackendServers {
    /// These are the members that it is to have.
    pub(super) fn want(&mut self, members: &UpstreamMembers) {
        self.unpublished.append(&mut self.wanted.update(members));
    }

    /// Its servers are not known any more.
    pub(super) fn list_again(&mut self) {
        self.listing = None;
    }

    /// The server of this name is deleted.
    pub(super) fn forget(&mut self, server: &str) {
        if let Some(listing) = &mut self.listing {
            listing.remove(server);
        }
    }

    /// Gives the worker the members that are wanted.
    pub(super) async fn publish(
        &mut self,
        to: RuntimeBackend<'_>,
        departed: &mut DepartedServers,
    ) -> Result<(), PublishError> {
        let listed = self.listing.as_ref().is_some_and(|listing| listing.is_of(to.worker.id));
        match self.change_servers(to, departed).await {
            // Another process may have changed them since they were listed.
            Err(PublishError::NeedsReload(_)) if listed => self.change_servers(to, departed).await,
            done => done,
        }
    }

    /// After an error, the servers are listed again.
    async fn change_servers(
        &mut self,
        to: RuntimeBackend<'_>,
        departed: &mut DepartedServers,
    ) -> Result<(), PublishError> {
        let listed = self.listing.take().filter(|listing| listing.is_of(to.worker.id));
        let mut listing = match listed {
            Some(listing) => listing,
            None => {
                let listing = Listing::new(to.worker.id, to.worker.servers(to.name).await?);
                let all = listing.members().chain(self.wanted.names());
                self.unpublished.extend(all.cloned());
                listing
            }
        };
        let mut changed = self.unpublished.clone();
        changed.extend(listing.out().iter().cloned());
        self.join(to, &changed, departed, &mut listing).await?;
        self.leave(to, &changed, departed, &mut listing).await?;
        self.unconfirmed.append(&mut self.unpublished);
        self.listing = Some(listing);
        Ok(())
    }

    async fn join(
        &self,
        to: RuntimeBackend<'_>,
        changed: &BTreeSet<String>,
        departed: &DepartedServers,
        listing: &mut Listing,
    ) -> Result<(), PublishError> {
        let mut options = None;
        for name in changed {
            let Some((address, weight)) = self.wanted.get(name) else { continue };
            // One whose last requests are waited for stays out: they could not be distinguished
            // from new ones. The member comes back as another server.
            let mut ours = listing.of(name).iter().filter(|there| there.is_ours());
            let usable = ours.find(|there| !departed.is_waited_for(to, there));
            if let Some(there) = usable.cloned() {
                to.worker.make_ready(to.name, &there, weight).await?;
                listing.put(there.serving(weight));
                continue;
            }
            let options = match &options {
                Some(options) => options,
                None => options.insert(server_options(to)?),
            };
            let name = free_name(name, listing.of(name));
            let server = ServerName { backend: to.name.clone(), name: word(&name)? };
            let id = listing.new_id();
            to.worker.add(server, address, id, weight, options).await?;
            listing.put(RunningServer { id, name, address: Some(address), admin: 0, weight });
        }
        Ok(())
    }

    async fn leave(
        &self,
        to: RuntimeBackend<'_>,
        changed: &BTreeSet<String>,
        departed: &mut DepartedServers,
        listing: &mut Listing,
    ) -> Result<(), PublishError> {
        for name in changed {
            let is_unused =
                |there: &&RunningServer| there.is_ours() && !departed.is_waited_for(to, there);
            let ours: Vec<_> = listing.of(name).iter().filter(is_unused).cloned().collect();
            // As `join` has chosen: of several for one member the first.
            let serving = usize::from(self.wanted.get(name).is_some());
            for there in ours.iter().skip(serving) {
                if !there.is_out() {
                    departed.take_out(to, there).await?;
                    listing.put(there.in_maintenance());
                } else if to.worker.delete(to.name, there).await? {
                    listing.remove(&there.name);
                }
            }
        }
        Ok(())
    }

    /// Asks the worker for the servers, which must be those that were published. Returns what
    /// differs.
    pub(super) async fn confirm(
        &mut self,
        worker: &RuntimeWorker,
        name: &Word,
    ) -> Result<Option<String>, PublishError> {
        if self.is_as_listed(worker, name).await? {
            self.unconfirmed.clear();
            return Ok(None);
        }
        self.compare(worker, name).await
    }

    /// Asks for the servers that were changed. `false`: they are not known to be as they are to be.
    async fn is_as_listed(
        &self,
        worker: &RuntimeWorker,
        name: &Word,
    ) -> Result<bool, PublishError> {
        let listing = self.listing.as_ref().filter(|listing| listing.is_of(worker.id));
        let Some(listing) = listing.filter(|_| self.unconfirmed.len() <= ASKED_ONE_BY_ONE) else {
            return Ok(false);
        };
        for member in &self.unconfirmed {
            let servers = listing.of(member);
            if difference(&self.wanted.only(member), servers).is_some() {
                return Ok(false);
            }
            for there in servers.iter().filter(|there| there.is_ours()) {
                if !worker.has(name, there).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Lists all servers. Returns what differs from what is wanted.
    pub(super) async fn compare(
        &mut self,
        worker: &RuntimeWorker,
        name: &Word,
    ) -> Result<Option<String>, PublishError> {
        self.listing = None;
        let running = worker.servers(name).await?;
        let differs = difference(&self.wanted.all(), &running);
        if differs.is_none() {
            self.unconfirmed.clear();
            self.listing = Some(Listing::new(worker.id, running));
        }
        Ok(differs)
    }
}

/// The keywords of a new server.
fn server_options(of: RuntimeBackend<'_>) -> Result<Vec<Word>, PublishError> {
    let files = conf::files(&of.haproxy.options.conf, &[]);
    options::server_options(&files, of.name.as_str()).map_err(PublishError::NeedsReload)
}
