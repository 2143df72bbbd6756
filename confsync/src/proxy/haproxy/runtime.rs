//! Changes the members of a running HAProxy, through its runtime API.
//!
//! A new server is added (or taken out of maintenance), one that leaves is put into maintenance:
//! from then on it gets no new requests, and those in flight are finished. Afterwards HAProxy is
//! asked for its servers. Only servers whose name is their address are touched: those that we
//! write.
//!
//! The invariant: an answer of one worker is never taken for another's, so the worker's pid is
//! compared before and after.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Admin, RuntimeCommand, ServerName, Word};
use super::servers::{Members, RunningServer, difference, free_name, in_flight};
use super::worker::{RuntimeError, RuntimeWorker, word};
use super::{Haproxy, conf, options};
use crate::proxy::process::{ProcessId, is_alive};

/// The servers of each backend.
pub type Backends = BTreeMap<String, Members>;

/// A server that left and may still have requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DepartedServer {
    /// Its backend.
    pub backend: String,
    /// A number of our own for each departure: HAProxy reuses its own.
    pub number: u32,
}

/// The runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    haproxy: Haproxy,
    /// The members that were published last.
    wanted: Backends,
    /// Servers that left and may still have requests.
    departed: BTreeMap<DepartedServer, Departed>,
    next: u32,
    /// The worker that confirmed last.
    confirmed: Option<ProcessId>,
}

#[derive(Debug, Clone)]
struct Departed {
    server: ServerName,
    id: u32,
    worker: ProcessId,
}

impl Runtime {
    /// Nothing is published yet.
    #[must_use]
    pub fn new(haproxy: Haproxy) -> Self {
        Self {
            haproxy,
            wanted: Backends::new(),
            departed: BTreeMap::new(),
            next: 0,
            confirmed: None,
        }
    }

    /// Whose runtime API it is.
    #[must_use]
    pub fn haproxy(&self) -> Haproxy {
        self.haproxy.clone()
    }

    /// These are the servers of the files that are loaded next.
    pub fn expect(&mut self, backends: &Backends) {
        self.wanted.clone_from(backends);
    }

    /// Whether a worker has ever confirmed.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.confirmed.is_some()
    }

    /// Makes these the members of the running worker.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn publish(&mut self, backends: &Backends) -> Result<(), RuntimeError> {
        self.wanted.clone_from(backends);
        let worker = self.worker().await?;
        for (backend, members) in backends {
            let backend = word(backend)?;
            let running = worker.servers(&backend).await?;
            self.join(&worker, &backend, members, &running).await?;
            self.leave(&worker, &backend, members, &running).await?;
        }
        Ok(())
    }

    /// Asks the worker for its servers, which must be those that were published.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn confirm(&mut self) -> Result<(), RuntimeError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let worker = self.worker().await?;
        for (backend, members) in &self.wanted {
            let running = worker.servers(&word(backend)?).await?;
            if let Some(why) = difference(members, &running) {
                return Err(RuntimeError::Retry(format!("backend {backend} of HAProxy: {why}")));
            }
        }
        let again = self.worker().await?;
        match again.id == worker.id {
            true => {
                self.confirmed = Some(worker.id);
                Ok(())
            }
            false => Err(RuntimeError::Retry("HAProxy was reloaded meanwhile".into())),
        }
    }

    /// Whether the running worker has something else than what was published, and what.
    pub async fn read_back(&self) -> Option<String> {
        let (confirmed, worker) = (self.confirmed?, self.worker().await.ok()?);
        if worker.id != confirmed {
            return Some("somebody reloaded it".into());
        }
        for (backend, members) in &self.wanted {
            let running = worker.servers(&word(backend).ok()?).await.ok()?;
            if let Some(why) = difference(members, &running) {
                return Some(format!("somebody changed its backend {backend}: {why}"));
            }
        }
        None
    }

    /// Servers that left and may still have requests.
    #[must_use]
    pub fn departed(&self) -> Vec<DepartedServer> {
        self.departed.keys().cloned().collect()
    }

    /// The requests of a server that left. One without requests is deleted, if HAProxy has no idle
    /// connection to it any more; that attempt also waits until no thread is about to use it.
    ///
    /// `None` where HAProxy does not report that.
    pub async fn in_flight(&mut self, member: &DepartedServer) -> Option<u64> {
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
        let there = match delete.is_done(&answer) || answer.contains("No such server") {
            true => 0,
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
    async fn worker(&self) -> Result<RuntimeWorker, RuntimeError> {
        let socket = self.haproxy.runtime_socket().await?;
        let answer = socket.ask(&RuntimeCommand::Info).await;
        let answer = answer.map_err(|error| RuntimeError::Retry(error.to_string()))?;
        let info = super::answers::Info::read(&answer).filter(|info| !info.stopping);
        let id = info.and_then(|info| ProcessId::of(info.pid));
        match id {
            Some(id) => Ok(RuntimeWorker { socket, id }),
            None => Err(RuntimeError::Retry("another process is reloading HAProxy".into())),
        }
    }

    async fn join(
        &self,
        worker: &RuntimeWorker,
        backend: &Word,
        members: &Members,
        running: &[RunningServer],
    ) -> Result<(), RuntimeError> {
        let mut next = running.iter().map(|server| server.id).max().unwrap_or(0);
        let mut options = None;
        // One whose last requests are waited for stays out: they could not be told from new
        // ones. The member comes back as another server.
        let mut usable: BTreeMap<&str, &RunningServer> = BTreeMap::new();
        for there in in_order(running) {
            if !self.is_waited_for(worker, backend, there) {
                usable.entry(there.member_name()).or_insert(there);
            }
        }
        for (name, (address, weight)) in members {
            if let Some(there) = usable.get(name.as_str()) {
                let server = ServerName { backend: backend.clone(), name: word(&there.name)? };
                if there.weight != *weight {
                    worker.send(&RuntimeCommand::Weight(server.clone(), *weight)).await?;
                }
                if !there.is_ready() {
                    worker.send(&RuntimeCommand::Set(server.clone(), Admin::Ready)).await?;
                }
                continue;
            }
            let options = match &options {
                Some(options) => options,
                None => options.insert(self.options(backend)?),
            };
            next += 1;
            let name = word(&free_name(name, running))?;
            let server = ServerName { backend: backend.clone(), name };
            worker.add(server, *address, next, *weight, options).await?;
        }
        Ok(())
    }

    fn is_waited_for(&self, worker: &RuntimeWorker, backend: &Word, there: &RunningServer) -> bool {
        let is = |gone: &Departed| {
            let ServerName { backend: of, name } = &gone.server;
            gone.worker == worker.id && of == backend && name.as_str() == there.name
        };
        self.departed.values().any(is)
    }

    async fn leave(
        &mut self,
        worker: &RuntimeWorker,
        backend: &Word,
        members: &Members,
        running: &[RunningServer],
    ) -> Result<(), RuntimeError> {
        let (mut serving, mut unused) = (BTreeSet::new(), Vec::new());
        // As `join` has chosen: of several for one member the first.
        for there in in_order(running) {
            let name = there.member_name();
            let is_waited_for = self.is_waited_for(worker, backend, there);
            if is_waited_for || members.contains_key(name) && serving.insert(name) {
                continue;
            }
            match there.is_out() {
                true => unused.push(there),
                false => self.take_out(worker, backend, there).await?,
            }
        }
        tidy(worker, backend, &unused).await
    }

    async fn take_out(
        &mut self,
        worker: &RuntimeWorker,
        backend: &Word,
        there: &RunningServer,
    ) -> Result<(), RuntimeError> {
        let server = ServerName { backend: backend.clone(), name: word(&there.name)? };
        worker.send(&RuntimeCommand::Set(server.clone(), Admin::Maintenance)).await?;
        self.next = self.next.wrapping_add(1);
        let member = DepartedServer { backend: backend.as_str().to_owned(), number: self.next };
        let gone = Departed { server, id: there.id, worker: worker.id };
        self.departed.insert(member, gone);
        Ok(())
    }

    fn options(&self, backend: &Word) -> Result<Vec<Word>, RuntimeError> {
        let files = conf::files(&self.haproxy.settings.conf, &[]);
        options::server_options(&files, backend.as_str()).map_err(RuntimeError::NeedsReload)
    }
}

/// Our servers, those first that are not out.
fn in_order(running: &[RunningServer]) -> Vec<&RunningServer> {
    let mut ours: Vec<&RunningServer> = running.iter().filter(|server| server.is_ours()).collect();
    ours.sort_by(|a, b| (a.is_out(), &a.name).cmp(&(b.is_out(), &b.name)));
    ours
}

/// Deletes servers that nobody waits for any more. HAProxy refuses while it keeps an idle
/// connection to one; then the next change does it.
async fn tidy(
    worker: &RuntimeWorker,
    backend: &Word,
    unused: &[&RunningServer],
) -> Result<(), RuntimeError> {
    for there in unused {
        let server = ServerName { backend: backend.clone(), name: word(&there.name)? };
        let deleted = worker.socket.ask(&RuntimeCommand::Delete(server)).await;
        tracing::debug!(?deleted, server = there.name, "an unused server");
    }
    Ok(())
}
