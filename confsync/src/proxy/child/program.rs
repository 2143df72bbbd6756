//! The program that is supervised: our child process, or an nginx that an earlier run left.

use std::ffi::OsString;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::StartOutcome;
use crate::proxy::command::Supervised;
use crate::proxy::nginx::{Nginx, NginxArgv, NginxMaster, StartError, is_alive};

/// The factor for a program that starts nginx in turn: an entry point prepares things first.
const WRAPPED: u32 = 6;

/// How long a program may take to end that did not come to serve.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// A program that runs.
pub(super) enum SupervisedProgram {
    Child(Box<Supervised>),
    /// Not our child, so its exit code is unknown.
    Survivor(NginxMaster),
}

/// Why it was not started.
pub(super) struct StartFailure {
    /// For the operator, with its last lines of output.
    pub(super) why: String,
    /// The code to exit with.
    pub(super) code: u8,
}

impl StartFailure {
    fn new(why: impl ToString, code: u8) -> Self {
        Self { why: why.to_string(), code }
    }
}

impl SupervisedProgram {
    /// Starts it. With `nginx`, one that an earlier run left is taken over, and the start has
    /// succeeded when its workers serve.
    pub(super) async fn start(
        argv: &[OsString],
        nginx: Option<&Nginx>,
        deadline: Duration,
    ) -> Result<(Self, StartOutcome), StartFailure> {
        if let Some(survivor) = Self::survivor(argv, nginx)? {
            return Ok((survivor, StartOutcome::AlreadyRunning));
        }
        let mut child = Supervised::start(argv).map_err(|e| StartFailure::new(e, 127))?;
        if let Some(nginx) = nginx {
            let wrapped = NginxArgv::read(argv).is_some_and(|argv| argv.wrapped);
            let deadline = if wrapped { deadline * WRAPPED } else { deadline };
            match nginx.started(&mut child, deadline).await {
                Ok(_) => {}
                Err(StartError::Left { left, messages }) => {
                    // Another nginx that was just starting when we looked may have taken the ports
                    // since.
                    if let Some(survivor) = Self::survivor(argv, Some(nginx))? {
                        return Ok((survivor, StartOutcome::AlreadyRunning));
                    }
                    let why = format!("it ended at once ({left}): {messages}");
                    return Err(StartFailure::new(why, left.code().max(1)));
                }
                Err(error) => {
                    let _ = child.stop(Signal::TERM, GIVEN_UP).await;
                    return Err(StartFailure::new(error, 1));
                }
            }
        }
        Ok((Self::Child(Box::new(child)), StartOutcome::Started))
    }

    fn survivor(argv: &[OsString], nginx: Option<&Nginx>) -> Result<Option<Self>, StartFailure> {
        let Some(nginx) = nginx else { return Ok(None) };
        let master = nginx.survivor(argv).map_err(|why| StartFailure::new(why, 1))?;
        if let Some(master) = &master {
            let pid = master.id().pid;
            tracing::warn!(pid, "took over the nginx that an earlier run left serving");
        }
        Ok(master.map(Self::Survivor))
    }

    /// Its process number; 0 if it has exited already.
    pub(super) fn pid(&self) -> i32 {
        match self {
            Self::Child(child) => child.pid().map_or(0, |pid| pid.as_raw_nonzero().get()),
            Self::Survivor(master) => master.id().pid,
        }
    }

    /// Waits until it exits by itself, and returns the code to exit with. Cancel-safe.
    pub(super) async fn exited(&mut self) -> u8 {
        match self {
            Self::Child(child) => child.wait().await.map_or(1, |left| left.code()),
            Self::Survivor(master) => {
                master.until_ended().await;
                1
            }
        }
    }

    /// Stops it with `signal`, and kills it after `patience`; returns the code to exit with.
    pub(super) async fn stop(&mut self, signal: Signal, patience: Duration) -> u8 {
        match self {
            Self::Child(child) => stop_child(child, signal, patience).await,
            Self::Survivor(master) => stop_survivor(master, signal, patience).await,
        }
    }
}

async fn stop_child(child: &mut Supervised, signal: Signal, patience: Duration) -> u8 {
    // A program that started nginx ends when nginx does, while nginx would be orphaned if only that
    // program ended.
    let signalled = behind(child).is_some_and(|master| master.signal(signal).is_ok());
    if signalled && let Ok(left) = timeout(patience, child.wait()).await {
        return left.map_or(1, |left| left.code());
    }
    let patience = if signalled { Duration::ZERO } else { patience };
    child.stop(signal, patience).await.map_or(1, |left| left.code())
}

async fn stop_survivor(master: &NginxMaster, signal: Signal, patience: Duration) -> u8 {
    let _ = master.signal(signal);
    if timeout(patience, master.until_ended()).await.is_ok() {
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

/// The nginx that the child has started and waits for.
fn behind(child: &Supervised) -> Option<NginxMaster> {
    let pid = child.pid()?;
    let master = NginxMaster::below(pid).ok()?;
    (master.id().pid != pid.as_raw_nonzero().get()).then_some(master)
}
