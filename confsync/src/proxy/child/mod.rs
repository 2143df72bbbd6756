//! The supervised child of `run -- COMMAND`: started once, when there is a good
//! configuration; signalled and waited for by one task that owns it.
//!
//! What must hold: its exit is ours. Nobody starts it a second time; restarts are
//! the service manager's. An nginx that outlived a killed run of ours is taken over
//! as it runs; nothing serves between the two otherwise.

mod process;
mod start_files;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use start_files::FilesRead;
use start_files::StartFiles;

use crate::install::Digest;
use crate::proxy::nginx::{Master, Nginx};

/// How long a child may take to serve.
pub const START: Duration = Duration::from_secs(10);

/// Where the child is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Not started: no good configuration yet.
    Waiting,
    /// It runs, with this process number.
    Running(i32),
    /// It left, with this exit code.
    Left(u8),
}

/// What a start came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStart {
    /// It read the files as they were at this start.
    Fresh,
    /// It ran already, by files that may be older.
    RanBefore,
}

/// A handle to the child. Clones mean the same child.
#[derive(Debug, Clone)]
pub struct Child {
    orders: mpsc::Sender<Order>,
    life: watch::Receiver<Life>,
    name: Arc<str>,
    command: Arc<[OsString]>,
    /// Only one start at a time.
    starting: Arc<Mutex<StartFiles>>,
}

enum Order {
    Start {
        nginx: Option<Box<Nginx>>,
        deadline: Duration,
        answer: oneshot::Sender<Result<ChildStart, String>>,
    },
    Signal(Signal),
    Stop {
        signal: Signal,
        patience: Duration,
    },
}

impl Child {
    /// A child to be started later.
    #[must_use]
    pub fn new(argv: Vec<OsString>) -> Self {
        let (orders, inbox) = mpsc::channel(16);
        let (publish, life) = watch::channel(Life::Waiting);
        let name = argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let command = argv.as_slice().into();
        tokio::spawn(own(argv, inbox, publish));
        Self { orders, life, name: name.into(), command, starting: Arc::default() }
    }

    /// The program, as it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> &[OsString] {
        &self.command
    }

    /// Where it is in its life.
    #[must_use]
    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Its process number, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self.life() {
            Life::Running(pid) => Pid::from_raw(pid),
            Life::Waiting | Life::Left(_) => None,
        }
    }

    /// Starts it, unless it was started before. With `nginx` it counts as started
    /// when its workers serve, and one left by a former run is taken over.
    ///
    /// # Errors
    /// With its own last words.
    pub async fn start(
        &self,
        nginx: Option<Nginx>,
        deadline: Duration,
    ) -> Result<ChildStart, String> {
        let _one = self.starting.lock().await;
        self.start_alone(nginx, deadline).await
    }

    /// Before the start: these are the reload groups whose files it is to find.
    pub async fn expect(&self, groups: impl IntoIterator<Item = String>) {
        self.starting.lock().await.expect(groups);
    }

    /// Before the start: these files of a reload group are in place.
    pub async fn note(&self, group: &str, files: Option<Digest>) {
        self.starting.lock().await.note(group, files);
    }

    /// The files of a reload group are in place: it is started when those of all are.
    ///
    /// # Errors
    /// With its own last words.
    pub async fn placed(
        &self,
        group: &str,
        files: Option<Digest>,
        nginx: Option<Nginx>,
    ) -> Result<FilesRead, String> {
        let mut starting = self.starting.lock().await;
        if self.life() == Life::Waiting {
            starting.note(group, files);
            if !starting.are_complete() {
                return Ok(FilesRead::NotStarted);
            }
            if self.start_alone(nginx, START).await? == ChildStart::RanBefore {
                starting.forget();
            }
        }
        Ok(starting.read(group, files))
    }

    async fn start_alone(
        &self,
        nginx: Option<Nginx>,
        deadline: Duration,
    ) -> Result<ChildStart, String> {
        if self.life() != Life::Waiting {
            return Ok(ChildStart::RanBefore);
        }
        let (answer, started) = oneshot::channel();
        let order = Order::Start { nginx: nginx.map(Box::new), deadline, answer };
        if self.orders.send(order).await.is_err() {
            return Err(format!("{} is gone", self.name));
        }
        started.await.unwrap_or_else(|_| Err(format!("{} is gone", self.name)))
    }

    /// Whether it is an nginx, or has started one.
    #[must_use]
    pub fn runs_nginx(&self) -> bool {
        self.pid().is_some_and(|pid| Master::below(pid).is_ok())
    }

    /// Waits until it has left; its exit code.
    pub async fn left(&self) -> u8 {
        let mut life = self.life.clone();
        let left = |life: &Life| matches!(life, Life::Left(_));
        match life.wait_for(left).await.map(|life| *life) {
            Ok(Life::Left(code)) => code,
            _ => 1,
        }
    }

    /// Forwards a signal to it, if it runs.
    pub async fn signal(&self, signal: Signal) {
        // A child that is gone needs none.
        let _ = self.orders.send(Order::Signal(signal)).await;
    }

    /// Asks it to leave by `signal` and kills it after `patience`. Its exit code;
    /// `None` if it was never started.
    pub async fn stop(&self, signal: Signal, patience: Duration) -> Option<u8> {
        if self.life() == Life::Waiting {
            return None;
        }
        let _ = self.orders.send(Order::Stop { signal, patience }).await;
        Some(self.left().await)
    }
}

async fn own(argv: Vec<OsString>, mut inbox: mpsc::Receiver<Order>, life: watch::Sender<Life>) {
    let mut child = loop {
        match inbox.recv().await {
            None => return,
            Some(Order::Start { nginx, deadline, answer }) => {
                match process::start(&argv, nginx, deadline, &life).await {
                    Ok((child, begun)) => {
                        let _ = answer.send(Ok(begun));
                        break child;
                    }
                    Err((why, code)) => {
                        let _ = answer.send(Err(why));
                        life.send_replace(Life::Left(code));
                        return;
                    }
                }
            }
            Some(Order::Signal(_) | Order::Stop { .. }) => {}
        }
    };
    let code = loop {
        let order = tokio::select! {
            code = child.left() => break code,
            order = inbox.recv() => order,
        };
        match order {
            Some(Order::Signal(signal)) => child.signal(signal),
            Some(Order::Stop { signal, patience }) => break child.stop(signal, patience).await,
            Some(Order::Start { answer, .. }) => {
                let _ = answer.send(Ok(ChildStart::RanBefore));
            }
            // Every handle is gone: so are we, and the child with us.
            None => break child.stop(Signal::TERM, Duration::from_secs(5)).await,
        }
    };
    life.send_replace(Life::Left(code));
}
