//! The servers that left and may still have requests.

use std::collections::BTreeMap;

use super::command::{Admin, RuntimeCommand, ServerName};
use super::servers::RunningServer;
use super::worker::{RuntimeBackend, word};
use crate::proxy::pools::{DepartedMember, PublishError};
use crate::proxy::process::ProcessId;

/// Where one is found.
#[derive(Debug, Clone)]
pub(super) struct Departed {
    pub(super) server: ServerName,
    pub(super) id: u32,
    pub(super) worker: ProcessId,
}

/// All that are waited for.
#[derive(Debug, Default)]
pub(super) struct DepartedServers {
    all: BTreeMap<DepartedMember, Departed>,
    /// A number of our own for each departure: HAProxy reuses its own.
    next: u32,
}

impl DepartedServers {
    /// Which they are.
    pub(super) fn list(&self) -> Vec<DepartedMember> {
        self.all.keys().cloned().collect()
    }

    pub(super) fn get(&self, member: &DepartedMember) -> Option<&Departed> {
        self.all.get(member)
    }

    /// It has no requests any more.
    pub(super) fn remove(&mut self, member: &DepartedMember) {
        self.all.remove(member);
    }

    /// Whether the requests of this server are waited for.
    pub(super) fn is_waited_for(&self, of: RuntimeBackend<'_>, there: &RunningServer) -> bool {
        let is = |gone: &Departed| {
            let ServerName { backend, name } = &gone.server;
            gone.worker == of.worker.id && backend == of.name && name.as_str() == there.name
        };
        self.all.values().any(is)
    }

    /// Takes a server out: it gets no new requests.
    pub(super) async fn take_out(
        &mut self,
        of: RuntimeBackend<'_>,
        there: &RunningServer,
    ) -> Result<(), PublishError> {
        let server = ServerName { backend: of.name.clone(), name: word(&there.name)? };
        of.worker.send(&RuntimeCommand::Set(server.clone(), Admin::Maintenance)).await?;
        self.next = self.next.wrapping_add(1);
        let member = DepartedMember { pool: of.name.as_str().to_owned(), slot: self.next };
        self.all.insert(member, Departed { server, id: there.id, worker: of.worker.id });
        Ok(())
    }
}
