//! One worker of HAProxy, spoken to: what it has, and what it is to have.

use std::net::SocketAddr;

use super::command::{Admin, Command, Server, Word};
use super::servers::{RunningServer, servers};
use super::socket::Socket;
use crate::proxy::nginx::ProcessId;

/// Why the running HAProxy is not known to have the servers that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeError {
    /// Worth another try.
    Retry(String),
    /// It cannot be changed while it runs.
    NeedsReload(String),
}

/// A worker that answers for itself.
pub(super) struct Worker {
    pub(super) socket: Socket,
    pub(super) id: ProcessId,
}

impl Worker {
    pub(super) async fn servers(&self, backend: &Word) -> Result<Vec<RunningServer>, RuntimeError> {
        let command = Command::Servers(backend.clone());
        let answer = self.socket.ask(&command).await;
        let answer = answer.map_err(|error| RuntimeError::Retry(error.to_string()))?;
        servers(&answer).ok_or_else(|| refused(&command, &answer))
    }

    pub(super) async fn tell(&self, command: &Command) -> Result<(), RuntimeError> {
        let answer = self.socket.ask(command).await;
        let answer = answer.map_err(|error| RuntimeError::Retry(error.to_string()))?;
        if command.is_done(&answer) { Ok(()) } else { Err(refused(command, &answer)) }
    }

    pub(super) async fn add(
        &self,
        server: Server,
        address: SocketAddr,
        id: u32,
        weight: u16,
        options: &[Word],
    ) -> Result<(), RuntimeError> {
        let has = |word: &str| options.iter().any(|option| option.as_str() == word);
        let (check, agent) = (has("check"), has("agent-check"));
        let options = options.to_vec();
        let add = Command::Add { server: server.clone(), address, id, weight, options };
        self.tell(&add).await?;
        if check {
            self.tell(&Command::Check(server.clone())).await?;
        }
        if agent {
            self.tell(&Command::Agent(server.clone())).await?;
        }
        self.tell(&Command::Set(server, Admin::Ready)).await
    }
}

/// A running HAProxy that refuses a change gets it by a reload.
fn refused(command: &Command, answer: &str) -> RuntimeError {
    let words: Vec<&str> = answer.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let answer: String = words.join("; ").chars().take(300).collect();
    RuntimeError::NeedsReload(format!("HAProxy answers to `{command}`: {answer}"))
}

pub(super) fn word(text: &str) -> Result<Word, RuntimeError> {
    let refuse = || RuntimeError::NeedsReload(format!("`{text}` cannot be sent to HAProxy"));
    Word::new(text).ok_or_else(refuse)
}
