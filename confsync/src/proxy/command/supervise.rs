//! A program that runs in the foreground for as long as we do: `run -- nginx …`.
//!
//! Signals are passed on to it, its standard error goes through us to ours (the last lines are
//! kept, to report why it exited), and its exit code becomes ours.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::runtime::{ProcessExit, ProcessGroup, group_leader, pid_of};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{CommandError, not_started};

/// Lines kept of a child's standard error, and the bytes that each is cut to.
const LINES: usize = 50;
const LINE: usize = 1024;
/// A grandchild may keep standard error open indefinitely.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A child in the foreground. Dropping it while it runs sends it SIGTERM.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    group: ProcessGroup,
    stderr: Tail,
    /// Closes when no process has the child's standard error open any more.
    silent: watch::Receiver<()>,
}

impl Supervised {
    /// Starts `argv` in a process group of its own, so that a terminal's Ctrl-C reaches it once,
    /// through us.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(argv: &[OsString]) -> Result<Self, CommandError> {
        let name = argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let start = || -> io::Result<_> {
            let (program, arguments) = argv.split_first().ok_or(ErrorKind::InvalidInput)?;
            let (read, write) = io::pipe()?;
            let mut command = group_leader(program);
            command.args(arguments).stdin(Stdio::null()).stderr(write);
            let (child, group) = ProcessGroup::start(&mut command)?;
            Ok((child, group, read))
        };
        let (child, group, read) = start().map_err(|e| not_started(argv, &name, e))?;
        let stderr = Tail::default();
        let (open, silent) = watch::channel(());
        let tail = stderr.clone();
        // A thread, because it also blocks on our own standard error.
        std::thread::spawn(move || {
            pass_on(read, &tail);
            drop(open);
        });
        Ok(Self { child, group, stderr, silent })
    }

    /// Its process number; `None` once it has exited and been waited for.
    pub fn pid(&self) -> Option<Pid> {
        pid_of(&self.child)
    }

    /// The last lines of its standard error.
    pub fn stderr(&self) -> &Tail {
        &self.stderr
    }

    /// Its last lines, for a child that has exited: waits a moment for output that is still in the
    /// pipe.
    pub async fn last_words(&mut self) -> Vec<String> {
        let _ = timeout(LAST_WORDS, self.silent.changed()).await;
        self.stderr.lines()
    }

    /// Sends it a signal, unless it has exited.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // It was not waited for yet, so its number cannot have been reused.
        self.pid().map_or(Ok(()), |pid| kill_process(pid, signal).map_err(io::Error::from))
    }

    /// Waits until it exits. Cancel-safe, and may be called again.
    ///
    /// If a signal ended it, its children are killed too: workers of an nginx whose master was
    /// killed would keep the ports, and the next nginx could not start.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<ProcessExit> {
        let exit = ProcessExit::from(self.child.wait().await?);
        if exit.is_by_signal() {
            self.group.signal(Signal::KILL);
        }
        self.group.forget();
        Ok(exit)
    }

    /// Stops it with `signal`, and kills its group if it has not exited after `patience`.
    ///
    /// # Errors
    /// When it cannot be signalled or waited for.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> io::Result<ProcessExit> {
        self.signal(signal)?;
        if let Ok(exit) = timeout(patience, self.wait()).await {
            return exit;
        }
        self.group.signal(Signal::KILL);
        self.wait().await
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // It exits by itself or cannot be signalled; nothing can be done about an error here.
        let _ = self.signal(Signal::TERM);
    }
}

/// The last lines of a stream, shared with the task that reads it.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    last: VecDeque<String>,
    partial: Vec<u8>,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last lines that it got.
    pub fn lines(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }

    fn push(&self, bytes: &[u8]) {
        let mut lines = self.lock();
        for &byte in bytes {
            if byte == b'\n' {
                lines.finish();
            } else if lines.partial.len() < LINE {
                lines.partial.push(byte);
            }
        }
    }

    /// The last line need not end with a line end.
    fn close(&self) {
        let mut lines = self.lock();
        if !lines.partial.is_empty() {
            lines.finish();
        }
    }
}

impl Lines {
    fn finish(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        self.last.push_back(line);
        if self.last.len() > LINES {
            self.last.pop_front();
        }
    }
}

fn pass_on(mut pipe: PipeReader, tail: &Tail) {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return tail.close(),
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                tail.push(bytes);
                // Our own standard error may be closed; that must not block the child.
                let _ = io::stderr().write_all(bytes);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return tail.close(),
        }
    }
}
