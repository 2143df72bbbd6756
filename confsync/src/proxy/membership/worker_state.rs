//! The state of a worker, asked of it on confsync's own socket.
//!
//! One answer proves more than any file: the module is loaded and has this very table mapped. All
//! workers of one generation have the same configuration, so one answer covers them.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A worker's answer about one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// Its process number, as it sees itself.
    pub pid: i32,
    /// The table that it has mapped.
    pub instance: u64,
    /// The newest sequence number it has seen.
    pub sequence: u32,
    /// How many members it sees.
    pub members: u32,
    /// Whether it counts its requests.
    pub counts: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerStateError {
    /// The socket is not served, or not with HTTP.
    #[error("no answer on {socket}: {why}")]
    NoAnswer {
        socket: String,
        /// What went wrong.
        why: String,
    },
    /// The worker reports that it cannot use the table.
    #[error("nginx cannot use the table of its members: {0}")]
    NoTable(String),
    /// The answer is not from our module.
    #[error("an answer that confsync does not understand: {0}")]
    NotOurs(String),
}

/// The longest answer that is read, in bytes.
const MOST: usize = 16 * 1024;

/// Asks one of the workers that serve.
pub async fn ask(
    socket: &Path,
    upstream: &str,
    deadline: Duration,
) -> Result<WorkerState, WorkerStateError> {
    let no_answer =
        |why: String| WorkerStateError::NoAnswer { socket: socket.display().to_string(), why };
    let (status, text) = match timeout(deadline, get(socket, upstream)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(no_answer(format!("{error:#}"))),
        Err(_) => {
            let span = common::model::format_span(deadline);
            return Err(no_answer(format!("nothing within {span}")));
        }
    };
    match status {
        StatusCode::OK => read(&text).ok_or(WorkerStateError::NotOurs(text)),
        _ => Err(WorkerStateError::NoTable(text.trim().to_owned())),
    }
}

async fn get(socket: &Path, upstream: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(format!("/{upstream}")).header("Host", "confsync");
    let answer = async move {
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => { ended?; answer.await }
    }
}

fn read(text: &str) -> Option<WorkerState> {
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    };
    Some(WorkerState {
        pid: value("pid")?.parse().ok()?,
        instance: u64::from_str_radix(value("instance")?, 16).ok()?,
        sequence: value("sequence")?.parse().ok()?,
        members: value("members")?.parse().ok()?,
        counts: value("column")? != "none",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_and_half_of_one_is_not() {
        let text = "pid 12\ninstance 00000000000000ff\nsequence 3\nmembers 2\ncolumn 0\n";
        let state = WorkerState { pid: 12, instance: 255, sequence: 3, members: 2, counts: true };
        assert_eq!(read(text), Some(state));
        assert_eq!(read("pid 12\n"), None);
        assert_eq!(read(""), None);
    }
}
