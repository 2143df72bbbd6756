//! `exec:` probes: a command of the operator's, without a shell. Exit 0 is healthy.
//!
//! The command has a process group of its own, and that whole group is killed when
//! the command ends, when its time is up, or when the probe is dropped. What made itself a
//! session is known by a variable of its environment, and killed when it becomes ours
//! ([`is_left_over`]): nothing outlives its probe. Its output is read to the end and thrown away
//! but for the beginning, so it can neither block nor fill our memory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::runtime::{ProcessExit, ProcessGroup, group_leader, orphans};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;

use super::deadline::{ProbeDeadline, ProbeFailure, one_line};

/// How much of the output is kept, in bytes.
const KEPT: usize = 4 * 1024;

/// How much of it is shown as the reason, in characters.
const SHOWN: usize = 200;

/// How long output is waited for once the command has exited.
const LINGER: Duration = Duration::from_millis(100);

/// Finds the command as `execvp` would, so that a typing error is noticed at the
/// start and not as a backend that never gets healthy.
pub(super) fn find(argv: &[String]) -> Result<PathBuf, String> {
    let name = argv.first().map_or("", String::as_str);
    let runs = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if name.contains('/') {
        let path = PathBuf::from(name);
        return if runs(&path) { Ok(path) } else { Err(format!("`{name}` cannot be executed")) };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin").into());
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| runs(path))
        .ok_or_else(|| format!("there is no command `{name}` in PATH"))
}

/// The variable that names the run of a probe, for all that it starts.
const RUN: &str = "REGISTER_PROBE_RUN";

#[derive(Default)]
struct Runs {
    last: u64,
    now: BTreeSet<u64>,
}

static RUNS: Mutex<Runs> = Mutex::new(Runs { last: 0, now: BTreeSet::new() });

fn runs() -> MutexGuard<'static, Runs> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct CommandRun(u64);

impl CommandRun {
    fn begin() -> Self {
        let mut runs = runs();
        runs.last += 1;
        let number = runs.last;
        runs.now.insert(number);
        Self(number)
    }

    /// The value of [`RUN`]: of this process, and no other's that runs below it.
    fn name(number: u64) -> String {
        format!("{}.{number}", std::process::id())
    }
}

impl Drop for CommandRun {
    fn drop(&mut self) {
        runs().now.remove(&self.0);
        orphans::look_again();
    }
}

/// Whether a process was started by the command of a probe that is over.
pub fn is_left_over(pid: u32) -> bool {
    let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = variables.split(|byte| *byte == 0);
    let value = variables.find_map(|v| v.strip_prefix(RUN.as_bytes())?.strip_prefix(b"="));
    let Some(value) = value else { return false };
    let ours = format!("{}.", std::process::id()).into_bytes();
    value.starts_with(&ours)
        && !runs().now.iter().any(|run| CommandRun::name(*run).as_bytes() == value)
}

/// The command's process group, killed when this goes.
struct KilledGroup(ProcessGroup);

impl Drop for KilledGroup {
    fn drop(&mut self) {
        self.0.signal(Signal::KILL);
    }
}

pub(super) async fn ask(argv: &[String], deadline: &ProbeDeadline) -> Result<(), ProbeFailure> {
    // Dropped last: the group has been killed by then.
    let run = CommandRun::begin();
    let (mut child, group) = start(argv, &run)?;
    let group = KilledGroup(group);
    let out = child.stdout.take();
    let err = child.stderr.take();
    let mut output = Vec::new();
    let doing = format!("running `{}`", argv.first().map_or("", String::as_str));
    let status = {
        let reading = read_all(out, err, &mut output);
        tokio::pin!(reading);
        let mut read = false;
        let status = deadline
            .step(&doing, async {
                loop {
                    tokio::select! {
                        status = child.wait() => return status.map_err(|e| one_line(&e)),
                        () = &mut reading, if !read => read = true,
                    }
                }
            })
            .await?;
        // End every process that still has the pipes open; then reading ends by itself.
        drop(group);
        if !read {
            deadline.briefly(LINGER, reading).await;
        }
        status
    };
    if status.success() { Ok(()) } else { Err(reason(status.into(), &output).into()) }
}

fn start(argv: &[String], run: &CommandRun) -> Result<(Child, ProcessGroup), ProbeFailure> {
    let (name, arguments) =
        argv.split_first().ok_or_else(|| "there is no command to run".to_owned())?;
    let mut command = group_leader(name);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env(RUN, CommandRun::name(run.0))
        .kill_on_drop(true);
    ProcessGroup::start(&mut command).map_err(|error| {
        let doing = format!("cannot run `{name}`");
        // No more processes; of a connection the same error would be the backend's.
        if Errno::from_io_error(&error) == Some(Errno::AGAIN) {
            return ProbeFailure::NotMade(format!("{doing}: {}", one_line(&error)));
        }
        ProbeFailure::of(&doing, &error)
    })
}

async fn read_all(
    out: Option<impl AsyncRead + Unpin>,
    err: Option<impl AsyncRead + Unpin>,
    kept: &mut Vec<u8>,
) {
    let mut other = Vec::new();
    tokio::join!(read(out, kept), read(err, &mut other));
    // Standard error is the likelier place for the reason.
    if !other.is_empty() {
        *kept = other;
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = [0; 1024];
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        let room = KEPT.saturating_sub(kept.len()).min(n);
        kept.extend(piece.iter().take(room));
    }
}

fn reason(exit: ProcessExit, output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => {
            let line: String = line.chars().take(SHOWN).collect();
            format!("{exit}: {}", line.escape_debug())
        }
        None => exit.to_string(),
    }
}
