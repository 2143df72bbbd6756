//! The process of the child: one that we started, or an nginx that an earlier run left.

use std::ffi::OsString;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{ChildStart, Life};
use crate::proxy::command::Supervised;
use crate::proxy::nginx::{Argv, Master, Nginx, StartError, is_alive};

/// A program that comes before nginx, an entry point, prepares things: it has this much more time.
const WRAPPED: u32 = 6;

/// What runs for us.
pub(super) enum ChildProcess {
    Own(Box<Supervised>),
    /// Not our child: its exit code is not known to us.
    TakenOver(Master),
}

impl ChildProcess {
    pub(super) fn signal(&self, signal: Signal) {
        // One that is gone needs none.
        match self {
            Self::Own(child) => match behind(child) {
                Some(master) => drop(master.signal(signal)),
                None => drop(child.signal(signal)),
            },
            Self::TakenOver(master) => drop(master.signal(signal)),
        }
    }

    /// Waits until it has left by itself; the code to leave with. Safe to drop.
    pub(super) async fn left(&mut self) -> u8 {
        match self {
            Self::Own(child) => child.wait().await.map_or(1, |left| left.code()),
            Self::TakenOver(master) => {
                master.gone().await;
                1
            }
        }
    }

    pub(super) async fn stop(&mut self, signal: Signal, patience: Duration) -> u8 {
        let master = match self {
            Self::Own(child) => {
                // What comes before nginx ends with it, and would end without it.
                let is_signalled =
                    behind(child).is_some_and(|master| master.signal(signal).is_ok());
                if is_signalled && let Ok(left) = timeout(patience, child.wait()).await {
                    return left.map_or(1, |left| left.code());
                }
                let patience = if is_signalled { Duration::ZERO } else { patience };
                return child.stop(signal, patience).await.map_or(1, |left| left.code());
            }
            Self::TakenOver(master) => master,
        };
        let _ = master.signal(signal);
        if timeout(patience, master.gone()).await.is_ok() {
            return 0;
        }
        let workers = master.workers(&[]).unwrap_or_default();
        let _ = master.signal(Signal::KILL);
        // Workers outlive a master that was killed.
        for worker in workers {
            if let Some(pid) = Pid::from_raw(worker.id.pid).filter(|_| is_alive(worker.id)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        128 + 9
    }
}

/// The nginx that a child has started and waits for.
fn behind(child: &Supervised) -> Option<Master> {
    let pid = child.pid()?;
    let master = Master::below(pid).ok()?;
    (master.id().pid != pid.as_raw_nonzero().get()).then_some(master)
}

/// Starts the program, or takes over the nginx that an earlier run left. The error has the exit
/// code.
pub(super) async fn start(
    argv: &[OsString],
    nginx: Option<Box<Nginx>>,
    deadline: Duration,
    life: &watch::Sender<Life>,
) -> Result<(ChildProcess, ChildStart), (String, u8)> {
    let survivor = || match &nginx {
        Some(nginx) => nginx.survivor(argv).map_err(|why| (why, 1)),
        None => Ok(None),
    };
    if let Some(master) = survivor()? {
        return Ok((take_over(master, life), ChildStart::RanBefore));
    }
    let wrapped = Argv::read(argv).is_some_and(|argv| argv.wrapped);
    let deadline = if wrapped { deadline * WRAPPED } else { deadline };
    let mut child = Supervised::start(argv).map_err(|e| (e.to_string(), 127))?;
    if let Some(nginx) = &nginx {
        match nginx.started(&mut child, deadline).await {
            Ok(_) => {}
            Err(StartError::Left { left, words }) => {
                // One that was just starting when we looked has taken the ports since.
                if let Some(master) = survivor()? {
                    return Ok((take_over(master, life), ChildStart::RanBefore));
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
    Ok((ChildProcess::Own(Box::new(child)), ChildStart::Fresh))
}

fn take_over(master: Master, life: &watch::Sender<Life>) -> ChildProcess {
    let pid = master.id().pid;
    tracing::warn!(pid, "took over the nginx that an earlier run left serving");
    life.send_replace(Life::Running(pid));
    ChildProcess::TakenOver(master)
}
