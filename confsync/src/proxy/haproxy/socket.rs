//! HAProxy's sockets: the one of its master, and the admin socket of a worker. Each request has its
//! own connection, a deadline, and a bound on the answer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::model::format_span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A worker answers in microseconds; a busy machine may take longer.
const DEADLINE: Duration = Duration::from_secs(3);
/// `show servers state` has some 100 bytes a server.
const LONGEST: u64 = 64 * 1024 * 1024;

/// A socket, and which process behind it is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuntimeSocket {
    path: PathBuf,
    to: To,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    /// Any process that listens there.
    Listener,
    /// The worker with this number, through its master.
    Worker(i32),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// Nothing listens, or we may not connect.
    #[error("cannot connect to HAProxy's socket {}: {source}{}", .path.display(), right(.source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The connection broke.
    #[error("`{command}` to HAProxy's socket {} failed: {source}", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The command that was sent.
        command: String,
        /// The system's error.
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "HAProxy's socket {} did not answer `{command}` within {}", .path.display(),
        format_span(DEADLINE)
    )]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The command that was sent.
        command: String,
    },
}

fn right(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run confsync as root or in the socket's group",
        _ => "",
    }
}

impl RuntimeSocket {
    /// The socket at a path, which a worker or the master listens on.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), to: To::Listener }
    }

    /// One worker, addressed through the socket of its master.
    pub(super) fn of_worker(&self, pid: i32) -> Self {
        Self { path: self.path.clone(), to: To::Worker(pid) }
    }

    /// Sends one command. The answer is without the empty lines at its end.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(super) async fn ask(&self, command: &impl fmt::Display) -> Result<String, SocketError> {
        let command = command.to_string();
        match timeout(DEADLINE, self.exchange(&command)).await {
            Ok(answer) => answer,
            Err(_) => Err(SocketError::TimedOut { path: self.path.clone(), command }),
        }
    }

    async fn exchange(&self, command: &str) -> Result<String, SocketError> {
        let connected = UnixStream::connect(&self.path).await;
        let mut stream =
            connected.map_err(|source| SocketError::Connect { path: self.path.clone(), source })?;
        let line = match self.to {
            To::Listener => format!("{command}\n"),
            To::Worker(pid) => format!("@!{pid} {command}\n"),
        };
        let mut answer = Vec::new();
        let read = async {
            stream.write_all(line.as_bytes()).await?;
            // Otherwise the master keeps the connection open for further commands.
            stream.shutdown().await?;
            let read = stream.take(LONGEST).read_to_end(&mut answer).await?;
            match u64::try_from(read) {
                Ok(read) if read < LONGEST => Ok(()),
                _ => Err(io::Error::other("the answer is too long")),
            }
        };
        read.await.map_err(|source| SocketError::Broken {
            path: self.path.clone(),
            command: command.to_owned(),
            source,
        })?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Takes one connection and answers so; what it was asked.
    async fn answering(listener: UnixListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        stream.read_to_string(&mut asked).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    }

    #[tokio::test]
    async fn one_question_one_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = RuntimeSocket::at(&path).of_worker(7);
        let (answer, asked) =
            tokio::join!(socket.ask(&"show info"), answering(listener, "Pid: 7\n\n"));
        assert_eq!((answer.unwrap().as_str(), asked.as_str()), ("Pid: 7", "@!7 show info\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_does_not_answer_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let asked = RuntimeSocket::at(&path).ask(&"show info").await;
        assert!(matches!(asked, Err(SocketError::Connect { .. })), "{asked:?}");
        let _silent = UnixListener::bind(&path).unwrap();
        let asked = RuntimeSocket::at(&path).ask(&"show info").await;
        assert!(matches!(asked, Err(SocketError::TimedOut { .. })), "{asked:?}");
    }
}
