//! Children that others left behind become those of process 1, or of a process that asks for
//! them, and stay as zombies unless a process waits for them.
//!
//! Invariant: a child that we started is waited for only by its own starter, or its exit
//! code is lost. So every child is entered in [`OURS`] while
//! it is started, and the sweep, under the same lock, passes over those.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

static LOOK_AGAIN: Notify = Notify::const_new();

static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<u32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The entry of a child that its starter waits for.
#[derive(Debug)]
pub struct Ours(u32);

impl Drop for Ours {
    fn drop(&mut self) {
        ours().remove(&self.0);
    }
}

/// Starts a child and enters it, in one step as the sweep sees it.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(command: &mut Command) -> io::Result<(Child, Ours)> {
    let mut ours = ours();
    let child = command.spawn()?;
    let id = child.id().unwrap_or_default();
    ours.insert(id);
    Ok((child, Ours(id)))
}

/// If this is process 1, reaps what others leave behind, for as long as it is polled;
/// otherwise it waits forever, since reaping is the job of the real process 1.
///
/// # Errors
/// When SIGCHLD cannot be listened to.
pub async fn reap_as_init() -> io::Result<()> {
    if std::process::id() != 1 {
        return std::future::pending().await;
    }
    let mut child = signal(SignalKind::child())?;
    loop {
        sweep();
        if child.recv().await.is_none() {
            return Ok(());
        }
    }
}

/// Reaps orphans below this process, also those that init would get, for as long as it is polled;
/// and kills those for which `is_left_over` returns `true`.
///
/// # Errors
/// When the system does not give us these children, or SIGCHLD cannot be listened to.
pub async fn reap_below(is_left_over: fn(u32) -> bool) -> io::Result<()> {
    let mut child = signal(SignalKind::child())?;
    set_child_subreaper(Some(rustix::process::getpid()))?;
    loop {
        {
            let ours = ours();
            for pid in orphans(&ours)
                .filter(|pid| is_left_over(pid.as_raw_nonzero().get().cast_unsigned()))
            {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        sweep();
        tokio::select! {
            more = child.recv() => if more.is_none() { return Ok(()) },
            () = LOOK_AGAIN.notified() => {}
        }
    }
}

/// Has [`reap_below`] look again at what is left over.
pub fn look_again() {
    LOOK_AGAIN.notify_one();
}

/// Reaps every dead child that no other part of this process waits for; returns how many.
pub fn sweep() -> usize {
    let ours = ours();
    orphans(&ours)
        .filter(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_))))
        .count()
}

fn orphans(ours: &BTreeSet<u32>) -> impl Iterator<Item = Pid> {
    let orphans = children().into_iter().filter(|id| !ours.contains(id));
    orphans.filter_map(|id| Pid::from_raw(id.cast_signed()))
}

/// The kernel lists children by the thread that started or inherited them.
fn children() -> Vec<u32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}
