//! The backend as a child, for `register run … -- COMMAND`.
//!
//! It has a process group of its own, so that a Ctrl-C at the terminal reaches only us and the key
//! is removed before the backend ends. Signals are forwarded to the child alone, as service
//! managers do it (a server that stops gracefully signals its own workers itself); only the final
//! SIGKILL goes to the whole group.
//!
//! This module knows nothing of health or keys: when to stop is decided elsewhere.

use std::time::Duration;

use common::runtime::{ProcessExit, ProcessGroup, group_leader, pid_of};
use rustix::process::{Signal, kill_process};
use tokio::process::Child;

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Nothing after `--`.
    #[error("there is no command after `--`")]
    NoCommand,
    /// Not found, not executable, no memory.
    #[error("cannot start `{command}`: {cause}")]
    Start {
        /// The program.
        command: String,
        /// The system's error.
        cause: std::io::Error,
    },
    /// The child cannot be waited for. Not seen in practice.
    #[error("cannot wait for the command: {0}")]
    Wait(std::io::Error),
}

/// A running backend. Dropping it kills its whole group.
#[derive(Debug)]
pub struct BackendProcess {
    child: Child,
    group: ProcessGroup,
    exit: Option<ProcessExit>,
}

impl BackendProcess {
    /// Starts the command, with our output and our environment, but for what
    /// is [`PRIVATE`](common::runtime::PRIVATE).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(argv: &[String]) -> Result<Self, SuperviseError> {
        let (name, arguments) = argv.split_first().ok_or(SuperviseError::NoCommand)?;
        let mut command = group_leader(name);
        command.args(arguments).kill_on_drop(true);
        let (child, group) = ProcessGroup::start(&mut command)
            .map_err(|cause| SuperviseError::Start { command: name.clone(), cause })?;
        Ok(Self { child, group, exit: None })
    }

    /// Waits for its end, and kills what is left of its group then. May be dropped and called again,
    /// also after the end.
    pub async fn ended(&mut self) -> Result<ProcessExit, SuperviseError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = self.child.wait().await.map_err(SuperviseError::Wait)?.into();
        // What it left behind is killed now: later, the number of the group may belong to
        // another one.
        self.group.signal(Signal::KILL);
        self.group.forget();
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Forwards a signal to the child, as long as it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = pid_of(&self.child) {
            // It may have ended just now, unnoticed; its pid is ours until waited for.
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops it: SIGTERM, then after `bound` SIGKILL to everything in its group.
    pub async fn stop(&mut self, bound: Duration) -> Result<ProcessExit, SuperviseError> {
        self.signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(bound, self.ended()).await {
            return exit;
        }
        self.group.signal(Signal::KILL);
        self.ended().await
    }
}

impl Drop for BackendProcess {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe;

    use super::*;

    fn sh(script: &str) -> BackendProcess {
        BackendProcess::start(&["sh".into(), "-c".into(), script.into()]).unwrap()
    }

    /// A pipe for scripts to write to, so that tests know how far they are.
    fn fifo(folder: &Path) -> (pipe::Receiver, String) {
        let path = folder.join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let receiver = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        (receiver, path.display().to_string())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_exit_is_handed_on() {
        for (script, exit, code) in [
            ("exit 0", "exit code 0", 0),
            ("exit 7", "exit code 7", 7),
            ("kill -TERM $$", "killed by signal 15", 143),
        ] {
            let mut backend = sh(script);
            assert_eq!(backend.ended().await.unwrap().to_string(), exit);
            assert_eq!(backend.ended().await.unwrap().code(), code);
            assert_eq!(pid_of(&backend.child), None);
        }
    }

    #[tokio::test]
    async fn signals_are_forwarded_and_a_stop_is_asked_for_first() {
        let folder = tempfile::tempdir().unwrap();
        let (mut written, path) = fifo(folder.path());
        let mut backend = sh(&format!(
            "exec 3>{path}; trap 'printf h >&3' HUP; trap 'printf t >&3; exit 5' TERM; \
             printf r >&3; while :; do sleep 0.05; done"
        ));
        let mut byte = [0; 1];
        for (signal, answer) in [(None, b'r'), (Some(Signal::HUP), b'h')] {
            if let Some(signal) = signal {
                backend.signal(signal);
            }
            tokio::time::timeout(LONG, written.read_exact(&mut byte)).await.unwrap().unwrap();
            assert_eq!(byte[0], answer);
        }
        assert_eq!(backend.stop(LONG).await.unwrap().code(), 5);
        backend.signal(Signal::TERM);
    }

    #[tokio::test]
    async fn a_backend_that_does_not_stop_is_killed_with_all_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let (mut written, path) = fifo(folder.path());
        let mut backend = sh(&format!(
            "exec 3>{path}; trap '' TERM; (sleep 300; :) & printf r >&3; while :; do sleep 1; done"
        ));
        let mut byte = [0; 1];
        tokio::time::timeout(LONG, written.read_exact(&mut byte)).await.unwrap().unwrap();
        let exit = backend.stop(Duration::from_millis(100)).await.unwrap();
        assert_eq!(exit.to_string(), "killed by signal 9");
        // The pipe ends when its last writer has closed it.
        assert_eq!(tokio::time::timeout(LONG, written.read(&mut byte)).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_backend_leaves_behind_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut written, path) = fifo(folder.path());
        let mut backend = sh(&format!("exec 3>{path}; printf r >&3; sleep 300 & exit 4"));
        assert_eq!(backend.ended().await.unwrap().code(), 4);
        let mut all = Vec::new();
        tokio::time::timeout(LONG, written.read_to_end(&mut all)).await.unwrap().unwrap();
        assert_eq!(all, b"r");
    }

    #[tokio::test]
    async fn a_failed_start_is_reported() {
        let message = BackendProcess::start(&["/nowhere/apache2".into()]).unwrap_err().to_string();
        assert!(message.starts_with("cannot start `/nowhere/apache2`: No such file"), "{message}");
        assert!(matches!(BackendProcess::start(&[]), Err(SuperviseError::NoCommand)));
    }
}
