//! The task that owns the child: it alone starts, signals and waits for the program, in the order
//! of what it is asked.

use std::ffi::OsString;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};

use super::program::{StartFailure, SupervisedProgram};
use super::{ChildState, StartOutcome};
use crate::proxy::nginx::Nginx;

/// How long a child may take to end once its last handle is dropped.
const ABANDONED: Duration = Duration::from_secs(5);

/// A request of a handle.
pub(super) enum Order {
    Start {
        nginx: Option<Box<Nginx>>,
        deadline: Duration,
        answer: oneshot::Sender<Result<StartOutcome, String>>,
    },
    Stop {
        signal: Signal,
        patience: Duration,
    },
}

/// Runs until the child has exited, or all handles are dropped.
pub(super) async fn own(
    argv: Vec<OsString>,
    mut inbox: mpsc::Receiver<Order>,
    states: watch::Sender<ChildState>,
) {
    let (nginx, deadline, answer) = loop {
        match inbox.recv().await {
            Some(Order::Start { nginx, deadline, answer }) => break (nginx, deadline, answer),
            Some(Order::Stop { .. }) => {}
            None => return,
        }
    };
    let code = match SupervisedProgram::start(&argv, nginx.as_deref(), deadline).await {
        Ok((program, outcome)) => {
            states.send_replace(ChildState::Running(program.pid()));
            let _ = answer.send(Ok(outcome));
            supervise(program, inbox).await
        }
        Err(StartFailure { why, code }) => {
            let _ = answer.send(Err(why));
            code
        }
    };
    states.send_replace(ChildState::Exited(code));
}

/// Passes on signals until the program has exited; returns its exit code.
async fn supervise(mut program: SupervisedProgram, mut inbox: mpsc::Receiver<Order>) -> u8 {
    loop {
        let order = tokio::select! {
            code = program.exited() => return code,
            order = inbox.recv() => order,
        };
        match order {
            Some(Order::Stop { signal, patience }) => return program.stop(signal, patience).await,
            Some(Order::Start { answer, .. }) => {
                let _ = answer.send(Ok(StartOutcome::AlreadyRunning));
            }
            None => return program.stop(Signal::TERM, ABANDONED).await,
        }
    }
}
