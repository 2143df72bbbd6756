//! One worker of HAProxy: lists and changes its servers.

use std::net::SocketAddr;

use super::Haproxy;
use super::command::{Admin, RuntimeCommand, ServerName, Word};
use super::servers::{RunningServer, servers};
use super::socket::{RuntimeSocket, SocketError};
use super::statistics::shows;
use crate::proxy::pools::PublishError;
use crate::proxy::process::ProcessId;

/// A worker that answers commands.
pub(super) struct RuntimeWorker {
    pub(super) socket: RuntimeSocket,
    pub(super) id: ProcessId,
}

/// A backend of a worker, as commands are sent to it.
#[derive(Clone, Copy)]
pub(super) struct RuntimeBackend<'a> {
    pub(super) haproxy: &'a Haproxy,
    pub(super) worker: &'a RuntimeWorker,
    /// The backend's name.
    pub(super) name: &'a Word,
}

impl RuntimeWorker {
    pub(super) async fn servers(&self, backend: &Word) -> Result<Vec<RunningServer>, PublishError> {
        let command = RuntimeCommand::Servers(backend.clone());
        let answer = self.socket.ask(&command).await?;
        servers(&answer).ok_or_else(|| refused(&command, &answer))
    }

    pub(super) async fn send(&self, command: &RuntimeCommand) -> Result<(), PublishError> {
        let answer = self.socket.ask(command).await?;
        if command.is_done(&answer) { Ok(()) } else { Err(refused(command, &answer)) }
    }

    /// Has a server that is there take requests, with this weight.
    pub(super) async fn make_ready(
        &self,
        backend: &Word,
        there: &RunningServer,
        weight: u16,
    ) -> Result<(), PublishError> {
        let server = ServerName { backend: backend.clone(), name: word(&there.name)? };
        if there.weight != weight {
            self.send(&RuntimeCommand::Weight(server.clone(), weight)).await?;
        }
        if !there.is_ready() {
            self.send(&RuntimeCommand::Set(server, Admin::Ready)).await?;
        }
        Ok(())
    }

    /// Deletes a server that no drain waits for any more. `false`: HAProxy keeps an idle connection
    /// to it; the next change tries again.
    pub(super) async fn delete(
        &self,
        backend: &Word,
        there: &RunningServer,
    ) -> Result<bool, PublishError> {
        let server = ServerName { backend: backend.clone(), name: word(&there.name)? };
        let command = RuntimeCommand::Delete(server);
        let answer = self.socket.ask(&command).await;
        tracing::debug!(?answer, server = there.name, "an unused server");
        Ok(answer.is_ok_and(|answer| command.is_gone(&answer)))
    }

    /// Whether the worker shows this server as it is here.
    pub(super) async fn has(
        &self,
        backend: &Word,
        there: &RunningServer,
    ) -> Result<bool, PublishError> {
        let command = RuntimeCommand::Counters(backend.clone(), there.id);
        let answer = self.socket.ask(&command).await?;
        Ok(shows(&answer, there))
    }

    pub(super) async fn add(
        &self,
        server: ServerName,
        address: SocketAddr,
        id: u32,
        weight: u16,
        options: &[Word],
    ) -> Result<(), PublishError> {
        let has = |word: &str| options.iter().any(|option| option.as_str() == word);
        let (check, agent) = (has("check"), has("agent-check"));
        let options = options.to_vec();
        let add = RuntimeCommand::Add { server: server.clone(), address, id, weight, options };
        self.send(&add).await?;
        if check {
            self.send(&RuntimeCommand::Check(server.clone())).await?;
        }
        if agent {
            self.send(&RuntimeCommand::Agent(server.clone())).await?;
        }
        self.send(&RuntimeCommand::Set(server, Admin::Ready)).await
    }
}

impl From<SocketError> for PublishError {
    fn from(error: SocketError) -> Self {
        Self::Retry(error.to_string())
    }
}

/// A change that the running HAProxy refuses needs a reload.
fn refused(command: &RuntimeCommand, answer: &str) -> PublishError {
    let words: Vec<&str> = answer.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let answer: String = words.join("; ").chars().take(300).collect();
    PublishError::NeedsReload(format!("HAProxy answers `{command}` with: {answer}"))
}

pub(super) fn word(text: &str) -> Result<Word, PublishError> {
    let refuse = || PublishError::NeedsReload(format!("`{text}` cannot be sent to HAProxy"));
    Word::new(text).ok_or_else(refuse)
}
