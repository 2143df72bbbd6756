//! The supervised child of `run -- COMMAND`: started once, when there is a good configuration;
//! signalled and waited for by one task that owns it (`owner`).
//!
//! What must hold: its exit code becomes ours. It is started once; restarts are the service
//! manager's. An nginx that outlived a killed run of ours is taken over as it runs (`program`);
//! nothing serves between the two otherwise. Knows nothing of etcd, templates or resources: only
//! the digests of the files that it read at its start (`start_files`).

mod owner;
mod program;
mod start_files;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::install::Digest;
use crate::proxy::nginx::{Nginx, NginxMaster};
use owner::Order;
pub use start_files::FilesRead;
use start_files::StartFiles;

/// How long a child may take until it serves.
pub const START: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// There is no good configuration yet.
    NotStarted,
    /// It runs, with this process number.
    Running(i32),
    /// It exited with this code.
    Exited(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// It was started now, and read the files that are in place.
    Started,
    /// It was already running, by files that may be older.
    AlreadyRunning,
}

/// A handle to the child. Clones refer to the same child.
#[derive(Debug, Clone)]
pub struct Child {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<ChildState>,
    name: Arc<str>,
    command: Arc<[OsString]>,
    /// Locked during a start: only one at a time.
    start_files: Arc<Mutex<StartFiles>>,
}

impl Child {
    /// A child to be started later.
    pub fn new(argv: Vec<OsString>) -> Self {
        let (orders, inbox) = mpsc::channel(16);
        let (states, state) = watch::channel(ChildState::NotStarted);
        let name = argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let command = argv.as_slice().into();
        tokio::spawn(owner::own(argv, inbox, states));
        Self { orders, state, name: name.into(), command, start_files: Arc::default() }
    }

    /// The program's name, as in its command line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its command line.
    pub fn command(&self) -> &[OsString] {
        &self.command
    }

    /// Its present state.
    pub fn state(&self) -> ChildState {
        *self.state.borrow()
    }

    /// Whether it is still to be started.
    pub fn is_to_start(&self) -> bool {
        self.state() == ChildState::NotStarted
    }

    /// Its process number, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        match self.state() {
            ChildState::Running(pid) => Pid::from_raw(pid),
            ChildState::NotStarted | ChildState::Exited(_) => None,
        }
    }

    /// Whether it is an nginx, or has started one.
    pub fn runs_nginx(&self) -> bool {
        self.pid().is_some_and(|pid| NginxMaster::below(pid).is_ok())
    }

    /// To be called before the start: the reload groups whose files it must find.
    pub async fn expect(&self, groups: impl IntoIterator<Item = String>) {
        self.start_files.lock().await.expect(groups);
    }

    /// To be called before the start: these files of a reload group are in place.
    pub async fn note(&self, group: &str, files: Option<Digest>) {
        self.start_files.lock().await.place(group, files);
    }

    /// Starts it, unless it was started before. With `nginx` it counts as started once its workers
    /// serve, and an nginx that an earlier run left is taken over.
    ///
    /// # Errors
    /// Its last lines of output.
    pub async fn start(
        &self,
        nginx: Option<Nginx>,
        deadline: Duration,
    ) -> Result<StartOutcome, String> {
        let _one = self.start_files.lock().await;
        self.start_locked(nginx, deadline).await
    }

    /// The files of a reload group are in place; the child is started once those of all groups are.
    ///
    /// # Errors
    /// Its last lines of output.
    pub async fn placed(
        &self,
        group: &str,
        files: Option<Digest>,
        nginx: Option<Nginx>,
    ) -> Result<FilesRead, String> {
        let mut start_files = self.start_files.lock().await;
        if self.is_to_start() {
            start_files.place(group, files);
            if !start_files.are_complete() {
                return Ok(FilesRead::NotStarted);
            }
            if self.start_locked(nginx, START).await? == StartOutcome::AlreadyRunning {
                start_files.forget();
            }
        }
        Ok(start_files.read(group, files))
    }

    async fn start_locked(
        &self,
        nginx: Option<Nginx>,
        deadline: Duration,
    ) -> Result<StartOutcome, String> {
        if !self.is_to_start() {
            return Ok(StartOutcome::AlreadyRunning);
        }
        let exited = || format!("{} has exited", self.name);
        let (answer, outcome) = oneshot::channel();
        let order = Order::Start { nginx: nginx.map(Box::new), deadline, answer };
        self.orders.send(order).await.map_err(|_| exited())?;
        outcome.await.unwrap_or_else(|_| Err(exited()))
    }

    /// Waits until it has exited; returns its exit code.
    pub async fn exited(&self) -> u8 {
        let mut state = self.state.clone();
        let exited = |state: &ChildState| matches!(state, ChildState::Exited(_));
        match state.wait_for(exited).await.map(|state| *state) {
            Ok(ChildState::Exited(code)) => code,
            _ => 1,
        }
    }

    /// Stops it with `signal`, and kills it after `patience`. Returns its exit code; `None` if it
    /// was never started.
    pub async fn stop(&self, signal: Signal, patience: Duration) -> Option<u8> {
        if self.is_to_start() {
            return None;
        }
        let _ = self.orders.send(Order::Stop { signal, patience }).await;
        Some(self.exited().await)
    }
}
