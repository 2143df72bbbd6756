//! The supervised child of `run -- COMMAND`: started once, when there is a good
//! configuration; signalled and waited for by one task that owns it.
//!
//! What must hold: its exit is ours. Nobody starts it a second time; restarts are
//! the service manager's. An nginx that outlived a killed run of ours is taken over
//! as it runs; nothing serves between the two otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::install::Digest;
use crate::proxy::command::Supervised;
use crate::proxy::nginx::{Argv, Nginx, NginxMaster, StartError, is_alive};

/// How long a child may take until it serves.
pub const START: Duration = Duration::from_secs(10);
/// The factor for a program that starts nginx in turn: an entry point prepares things first.
const WRAPPED: u32 = 6;

/// The state of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Not started: there is no good configuration yet.
    Waiting,
    /// It runs, with this process number.
    Running(i32),
    /// It exited with this code.
    Left(u8),
}

/// The outcome of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It was started now, and read the files that are in place.
    Now,
    /// It was already running, by files that may be older.
    Before,
}

/// A handle to the child. Clones refer to the same child.
#[derive(Debug, Clone)]
pub struct Child {
    orders: mpsc::Sender<Order>,
    life: watch::Receiver<Life>,
    name: Arc<str>,
    command: Arc<[OsString]>,
    /// Only one start at a time.
    starting: Arc<Mutex<Starting>>,
}

/// The files that the child reads at its start.
#[derive(Debug, Default)]
struct Starting {
    /// The reload groups whose files must be in place first.
    expected: BTreeSet<String>,
    /// Those that are in place, with the digest of their files.
    placed: BTreeMap<String, Option<Digest>>,
}

/// Whether the child has read the files of one reload group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knows {
    /// It was started with exactly these files.
    ReadThem,
    /// It is not started: files of other reload groups are missing.
    NotStarted,
    /// It was started with other files.
    Others,
}

enum Order {
    Start {
        nginx: Option<Box<Nginx>>,
        deadline: Duration,
        answer: oneshot::Sender<Result<Begun, String>>,
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
        let (tell, life) = watch::channel(Life::Waiting);
        let name = argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let command = argv.as_slice().into();
        tokio::spawn(own(argv, inbox, tell));
        Self { orders, life, name: name.into(), command, starting: Arc::default() }
    }

    /// The program's name, as in its command line.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> &[OsString] {
        &self.command
    }

    /// Its present state.
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

    /// Starts it, unless it was started before. With `nginx` it counts as started once its workers
    /// serve, and an nginx that an earlier run left is taken over.
    ///
    /// # Errors
    /// Its last lines of output.
    pub async fn start(&self, nginx: Option<Nginx>, deadline: Duration) -> Result<Begun, String> {
        let _one = self.starting.lock().await;
        self.start_alone(nginx, deadline).await
    }

    /// To be called before the start: the reload groups whose files it must find.
    pub async fn expect(&self, groups: impl IntoIterator<Item = String>) {
        self.starting.lock().await.expected = groups.into_iter().collect();
    }

    /// To be called before the start: these files of a reload group are in place.
    pub async fn note(&self, group: &str, files: Option<Digest>) {
        self.starting.lock().await.placed.insert(group.to_owned(), files);
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
    ) -> Result<Knows, String> {
        let mut starting = self.starting.lock().await;
        if self.life() == Life::Waiting {
            starting.placed.insert(group.to_owned(), files);
            if starting.expected.iter().any(|group| !starting.placed.contains_key(group)) {
                return Ok(Knows::NotStarted);
            }
            if self.start_alone(nginx, START).await? == Begun::Before {
                // It may have read others.
                starting.placed.clear();
            }
        }
        let read = starting.placed.get(group) == Some(&files);
        Ok(if read { Knows::ReadThem } else { Knows::Others })
    }

    async fn start_alone(&self, nginx: Option<Nginx>, deadline: Duration) -> Result<Begun, String> {
        if self.life() != Life::Waiting {
            return Ok(Begun::Before);
        }
        let (answer, outcome) = oneshot::channel();
        let order = Order::Start { nginx: nginx.map(Box::new), deadline, answer };
        if self.orders.send(order).await.is_err() {
            return Err(format!("{} has exited", self.name));
        }
        outcome.await.unwrap_or_else(|_| Err(format!("{} has exited", self.name)))
    }

    /// Whether it is an nginx, or has started one.
    #[must_use]
    pub fn runs_nginx(&self) -> bool {
        self.pid().is_some_and(|pid| NginxMaster::below(pid).is_ok())
    }

    /// Waits until it has exited; returns its exit code.
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
        // There is nothing to signal once it has exited.
        let _ = self.orders.send(Order::Signal(signal)).await;
    }

    /// Stops it with `signal`, and kills it after `patience`. Returns its exit code; `None` if it
    /// was never started.
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
                match start(&argv, nginx, deadline, &life).await {
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
                let _ = answer.send(Ok(Begun::Before));
            }
            // Every handle is dropped: stop the child and end this task.
            None => break child.stop(Signal::TERM, Duration::from_secs(5)).await,
        }
    };
    life.send_replace(Life::Left(code));
}

/// The process that is supervised.
enum Kept {
    Child(Box<Supervised>),
    /// Not our child, so its exit code is unknown.
    Survivor(NginxMaster),
}

impl Kept {
    fn signal(&self, signal: Signal) {
        // There is nothing to signal once it has exited.
        match self {
            Self::Child(child) => match behind(child) {
                Some(master) => drop(master.signal(signal)),
                None => drop(child.signal(signal)),
            },
            Self::Survivor(master) => drop(master.signal(signal)),
        }
    }

    /// Waits until it exits by itself, and returns the code to exit with. Cancel-safe.
    async fn left(&mut self) -> u8 {
        match self {
            Self::Child(child) => child.wait().await.map_or(1, |left| left.code()),
            Self::Survivor(master) => {
                master.gone().await;
                1
            }
        }
    }

    async fn stop(&mut self, signal: Signal, patience: Duration) -> u8 {
        let master = match self {
            Self::Child(child) => {
                // A program that started nginx ends when nginx does, while nginx would be orphaned
                // if only that program ended.
                let signalled = behind(child).is_some_and(|master| master.signal(signal).is_ok());
                if signalled && let Ok(left) = timeout(patience, child.wait()).await {
                    return left.map_or(1, |left| left.code());
                }
                let patience = if signalled { Duration::ZERO } else { patience };
                return child.stop(signal, patience).await.map_or(1, |left| left.code());
            }
            Self::Survivor(master) => master,
        };
        let _ = master.signal(signal);
        if timeout(patience, master.gone()).await.is_ok() {
            return 0;
        }
        let workers = master.workers(&[]).unwrap_or_default();
        let _ = master.signal(Signal::KILL);
        // Workers survive a master that was killed.
        for worker in workers {
            if let Some(pid) = Pid::from_raw(worker.id.pid).filter(|_| is_alive(worker.id)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        128 + 9
    }
}

/// The nginx that the child has started and waits for.
fn behind(child: &Supervised) -> Option<NginxMaster> {
    let pid = child.pid()?;
    let master = NginxMaster::below(pid).ok()?;
    (master.id().pid != pid.as_raw_nonzero().get()).then_some(master)
}

async fn start(
    argv: &[OsString],
    nginx: Option<Box<Nginx>>,
    deadline: Duration,
    life: &watch::Sender<Life>,
) -> Result<(Kept, Begun), (String, u8)> {
    let survivor = || match &nginx {
        Some(nginx) => nginx.survivor(argv).map_err(|why| (why, 1)),
        None => Ok(None),
    };
    if let Some(master) = survivor()? {
        return Ok((take_over(master, life), Begun::Before));
    }
    let wrapped = Argv::read(argv).is_some_and(|argv| argv.wrapped);
    let deadline = if wrapped { deadline * WRAPPED } else { deadline };
    let mut child = Supervised::start(argv).map_err(|e| (e.to_string(), 127))?;
    if let Some(nginx) = &nginx {
        match nginx.started(&mut child, deadline).await {
            Ok(_) => {}
            Err(StartError::Left { left, words }) => {
                // Another nginx that was just starting when we looked may have taken the ports
                // since.
                if let Some(master) = survivor()? {
                    return Ok((take_over(master, life), Begun::Before));
                }
                return Err((format!("it ended at once ({left}): {words}"), left.code().max(1)));
            }
            Err(error) => {
                let _ = child.stop(Signal::TERM, Duration::from_secs(5)).await;
                return Err((error.to_string(), 1));
            }
        }
    }
    let pid = child.pid().map_or(0, |pid| pid.as_raw_nonzero().get());
    life.send_replace(Life::Running(pid));
    Ok((Kept::Child(Box::new(child)), Begun::Now))
}

fn take_over(master: NginxMaster, life: &watch::Sender<Life>) -> Kept {
    let pid = master.id().pid;
    tracing::warn!(pid, "took over the nginx that an earlier run left serving");
    life.send_replace(Life::Running(pid));
    Kept::Survivor(master)
}
