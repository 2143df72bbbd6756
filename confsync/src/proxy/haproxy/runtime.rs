//! Changes the members of a running HAProxy, through its runtime API.
//!
//! A new server is added (or taken out of maintenance), one that leaves is put into maintenance:
//! from then on it gets no new requests, and those in flight are finished. Afterwards HAProxy is
//! asked for the servers that were changed. Only servers whose name is their address are touched:
//! those that we write.
//!
//! All servers of a backend are listed once for each worker, and whenever it turns out that another
//! process has changed them; a change costs what it changes.
//!
//! The invariant: an answer of one worker is never taken for another's, so the worker's pid is
//! compared before and after.

use std::collections::BTreeMap;

use super::Haproxy;
use super::backend_servers::BackendServers;
use super::command::{RuntimeCommand, ServerName};
use super::departed::DepartedServers;
use super::servers::in_flight;
use super::worker::{RuntimeBackend, RuntimeWorker, word};
use crate::proxy::pools::{DepartedMember, Pools, PublishError};
use crate::proxy::process::{ProcessId, is_alive};

/// The runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    haproxy: Haproxy,
    /// By name.
    backends: BTreeMap<String, BackendServers>,
    departed: DepartedServers,
    /// The worker that confirmed last.
    confirmed: Option<ProcessId>,
}

impl Runtime {
    /// Nothing is published yet.
    pub fn new(haproxy: Haproxy) -> Self {
        let (backends, departed, confirmed) = Default::default();
        Self { haproxy, backends, departed, confirmed }
    }

    /// Whose runtime API it is.
    pub fn haproxy(&self) -> Haproxy {
        self.haproxy.clone()
    }

    /// These are the members of the files that are loaded next.
    pub fn expect(&mut self, pools: &Pools) {
        self.want(pools);
        self.list_again();
    }

    /// Its servers are not known any more: others may have changed them, or it is another worker.
    pub fn list_again(&mut self) {
        self.backends.values_mut().for_each(BackendServers::list_again);
    }

    fn want(&mut self, pools: &Pools) {
        self.backends.retain(|name, _| pools.contains_key(name));
        for (name, members) in pools {
            self.backends.entry(name.clone()).or_default().want(members);
        }
    }

    /// Whether a worker has ever confirmed.
    pub fn is_proven(&self) -> bool {
        self.confirmed.is_some()
    }

    /// Makes these the members of the running worker.
    pub async fn publish(&mut self, pools: &Pools) -> Result<(), PublishError> {
        self.want(pools);
        let worker = self.worker().await?;
        for (name, backend) in &mut self.backends {
            let to = RuntimeBackend { haproxy: &self.haproxy, worker: &worker, name: &word(name)? };
            backend.publish(to, &mut self.departed).await?;
        }
        Ok(())
    }

    /// Asks the worker for its servers, which must be those that were published.
    pub async fn confirm(&mut self) -> Result<(), PublishError> {
        if self.backends.is_empty() {
            return Ok(());
        }
        let worker = self.worker().await?;
        for (name, backend) in &mut self.backends {
            if let Some(why) = backend.confirm(&worker, &word(name)?).await? {
                return Err(PublishError::Retry(format!("backend {name} of HAProxy: {why}")));
            }
        }
        let again = self.worker().await?;
        match again.id == worker.id {
            true => {
                self.confirmed = Some(worker.id);
                Ok(())
            }
            false => Err(PublishError::Retry("HAProxy was reloaded meanwhile".into())),
        }
    }

    /// Whether the running worker has something else than what was published, and what.
    pub async fn read_back(&mut self) -> Option<String> {
        if let Some(why) = self.other_worker().await {
            return Some(why);
        }
        self.confirmed?;
        let worker = self.worker().await.ok()?;
        for (name, backend) in &mut self.backends {
            if let Some(why) = backend.compare(&worker, &word(name).ok()?).await.ok()? {
                return Some(format!("another process changed its backend {name}: {why}"));
            }
        }
        None
    }

    /// Whether another worker runs than the one that has confirmed.
    pub async fn other_worker(&self) -> Option<String> {
        let (confirmed, worker) = (self.confirmed?, self.worker().await.ok()?);
        (worker.id != confirmed).then(|| "another process reloaded it".into())
    }

    /// Servers that left and may still have requests.
    pub fn departed(&self) -> Vec<DepartedMember> {
        self.departed.list()
    }

    /// The requests of a server that left. One without requests is deleted, if HAProxy has no idle
    /// connection to it any more; that attempt also waits until no thread is about to use it.
    ///
    /// `None` where HAProxy does not report that.
    pub async fn in_flight(&mut self, member: &DepartedMember) -> Option<u64> {
        let Some(gone) = self.departed.get(member).cloned() else { return Some(0) };
        let worker = self.worker().await.ok();
        let Some(worker) = worker.filter(|worker| worker.id == gone.worker) else {
            // Its requests are those of a worker that is finishing, or has ended.
            let ended = !is_alive(gone.worker);
            if ended {
                self.departed.remove(member);
            }
            return Some(u64::from(!ended));
        };
        let delete = RuntimeCommand::Delete(gone.server.clone());
        let answer = worker.socket.ask(&delete).await.ok()?;
        let there = match delete.is_gone(&answer) {
            true => {
                self.forget(&gone.server);
                0
            }
            false => {
                let command = RuntimeCommand::Counters(gone.server.backend.clone(), gone.id);
                let answer = worker.socket.ask(&command).await.ok()?;
                in_flight(&answer, gone.server.name.as_str())?
            }
        };
        if there == 0 {
            self.departed.remove(member);
        }
        Some(there)
    }

    /// The worker that accepts connections now.
    async fn worker(&self) -> Result<RuntimeWorker, PublishError> {
        let socket = self.haproxy.runtime_socket().await?;
        let answer = socket.ask(&RuntimeCommand::Info).await?;
        let info = super::answers::Info::read(&answer).filter(|info| !info.stopping);
        let id = info.and_then(|info| ProcessId::of(info.pid));
        match id {
            Some(id) => Ok(RuntimeWorker { socket, id }),
            None => Err(PublishError::Retry("another process is reloading HAProxy".into())),
        }
    }

    fn forget(&mut self, server: &ServerName) {
        if let Some(backend) = self.backends.get_mut(server.backend.as_str()) {
            backend.forget(server.name.as_str());
        }
    }
}
