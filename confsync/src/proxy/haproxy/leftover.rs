//! A HAProxy that outlived the confsync that had started it.
//!
//! When confsync is killed, its HAProxy keeps serving. A second one can be started beside it, since
//! HAProxy shares its ports; but the first would never be reloaded again and would route by old
//! files forever. So it is asked to finish as soon as the new one serves.

use std::fs;

use rustix::process::{Pid, Signal};

use super::argv::HaproxyArgv;
use super::master::{Master, has_taken_its_signals};
use crate::proxy::process::{ProcessId, ProcessStat, is_confsync, name};

/// The masters that were started by this command line, and that no confsync supervises.
pub(super) fn leftovers(command: &HaproxyArgv) -> Vec<Master> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let here = cwd("self");
    let left = |pid: i32| {
        let same = HaproxyArgv::of_process(pid).is_some_and(|argv| argv.is_same(command));
        if !same || here.is_none() || cwd(&pid.to_string()) != here || is_kept(pid) {
            return None;
        }
        Master::from_pid(Pid::from_raw(pid)?).ok()
    };
    pids.filter_map(left).collect()
}

/// The parent of a worker is its master; that of a supervised HAProxy is a confsync.
fn is_kept(pid: i32) -> bool {
    let Some(parent) = ProcessStat::read(pid).map(|stat| stat.parent) else { return true };
    let of_parent = name(parent);
    is_confsync(parent) || of_parent.is_some() && name(pid) == of_parent
}

fn cwd(of: &str) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{of}/cwd")).ok()
}

/// Lets them finish their requests and end. Returns their processes, to be waited for.
pub(super) fn finish(masters: &[Master]) -> Vec<ProcessId> {
    let mut old = Vec::new();
    for master in masters {
        let pid = master.id().pid;
        tracing::warn!(pid, "the HAProxy that an earlier run left serving finishes its requests");
        old.extend(master.workers(&[]).unwrap_or_default());
        old.push(master.id());
        if let Err(error) = master.signal(Signal::USR1) {
            tracing::warn!(pid, %error, "cannot signal the HAProxy that an earlier run left; end it by hand: it routes by old files");
        }
    }
    old
}

/// Whether all of them have taken the signal.
pub(super) fn are_stopping(old: &[ProcessId]) -> bool {
    old.iter().all(|process| has_taken_its_signals(*process))
}
