//! The proof that an nginx which confsync started serves.

use std::io;
use std::time::Duration;

use common::model::format_span;
use tokio::time::{Instant, timeout};

use super::Nginx;
use super::master::NginxMaster;
use crate::proxy::command::{ProcessExit, Supervised};
use crate::proxy::process::PollInterval;

/// Why a started nginx does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It exited; with its last messages.
    #[error("nginx ended at once ({left}): {messages}")]
    Left {
        /// Its exit status.
        left: ProcessExit,
        /// The last lines of its standard error, or a hint.
        messages: String,
    },
    /// No worker serves by the deadline.
    #[error("nginx runs, but no worker serves after {}: {messages}", format_span(*.deadline))]
    TimedOut {
        deadline: Duration,
        /// What it printed meanwhile.
        messages: String,
    },
    /// It cannot be watched.
    #[error("cannot watch nginx: {0}")]
    Watch(#[from] io::Error),
}

impl Nginx {
    /// Waits until `child` or a descendant of it is a master with a worker that serves.
    ///
    /// # Errors
    /// When it exits or does not get there by `deadline`. In the latter case it is not stopped.
    pub async fn started(
        &self,
        child: &mut Supervised,
        deadline: Duration,
    ) -> Result<(), StartError> {
        let begun = Instant::now();
        let mut pace = PollInterval::new();
        loop {
            if child.pid().is_some_and(serves) {
                return Ok(());
            }
            if begun.elapsed() >= deadline {
                let messages = child.stderr().lines().join("\n");
                return Err(StartError::TimedOut { deadline, messages });
            }
            if let Ok(left) = timeout(Duration::ZERO, child.wait()).await {
                let left = left?;
                let messages = reason(left, &child.last_words().await);
                return Err(StartError::Left { left, messages });
            }
            pace.wait().await;
        }
    }
}

fn serves(pid: rustix::process::Pid) -> bool {
    NginxMaster::below(pid).is_ok_and(|master| master.serves())
}

fn reason(left: ProcessExit, lines: &[String]) -> String {
    match (left.code(), lines.is_empty()) {
        (0, true) => "it went to the background; start it with -g 'daemon off;'".to_owned(),
        (_, true) => "it printed nothing".to_owned(),
        _ => lines.join("\n"),
    }
}
