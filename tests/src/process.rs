//! Processes: the only place that spawns. Every process has its output captured, is
//! signalled through a pidfd (never a reused pid), and is killed at the end of its lab.
//!
//! It works without a runtime, so that a failing test can still ask and clean up
//! while it unwinds: one thread waits for the exit, two read the output.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use crate::process::log::{Log, Stream};

mod command;
mod exit;
mod log;

pub use command::{Output, run, try_run};
pub use exit::Exit;
pub use rustix::process::Signal;

/// What to start, and how.
#[derive(Clone)]
#[must_use]
pub struct Spec {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    cwd: PathBuf,
}

impl Spec {
    /// A program in an environment of `PATH`, `HOME` (= the folder) and `LANG=C` alone.
    pub fn new(name: &str, program: impl Into<PathBuf>, cwd: impl Into<PathBuf>) -> Self {
        let cwd = cwd.into();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut sbin = OsString::from("/usr/local/sbin:/usr/sbin:/sbin:");
        sbin.push(path);
        let env = vec![
            ("PATH".to_owned(), sbin),
            ("HOME".to_owned(), cwd.clone().into_os_string()),
            ("LANG".to_owned(), "C".into()),
        ];
        Self { name: name.to_owned(), program: program.into(), args: Vec::new(), env, cwd }
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The command as one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.program.display().to_string();
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            line.push(' ');
            if arg.is_empty() || arg.contains(char::is_whitespace) {
                line.push_str(&format!("'{arg}'"));
            } else {
                line.push_str(&arg);
            }
        }
        line
    }

    #[expect(clippy::disallowed_methods, reason = "this is the module that owns commands")]
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.cwd).env_clear();
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for us alone: we decide what ends, and how.
        command.process_group(0);
        command
    }
}

struct Inner {
    spec: Spec,
    pid: Pid,
    pidfd: OwnedFd,
    log: Arc<Log>,
    exit: watch::Receiver<Option<Exit>>,
}

/// A process that was started, alive or not. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

impl Process {
    /// Starts it.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    #[must_use]
    pub fn spawn(spec: Spec) -> Self {
        let mut child = match spec.command().spawn() {
            Ok(child) => child,
            Err(e) => panic!("cannot start `{}`: {e}", spec.line()),
        };
        let pid = Pid::from_child(&child);
        // The child is not reaped before the waiter runs, so the pid is still its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd of our child");
        let log = Arc::new(Log::default());
        let (done, finished) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        read_lines(stdout, Stream::Out, Arc::clone(&log), done.clone());
        read_lines(stderr, Stream::Err, Arc::clone(&log), done);
        let (tell, exit) = watch::channel(None);
        thread::spawn(move || wait_for_exit(child, &finished, &tell));
        Self { inner: Arc::new(Inner { spec, pid, pidfd, log, exit }) }
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// The command as one line.
    #[must_use]
    pub fn line(&self) -> String {
        self.inner.spec.line()
    }

    /// Its process id, also after its end.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.inner.pid.as_raw_nonzero().get()
    }

    /// Both outputs, in order of arrival.
    #[must_use]
    pub fn log(&self) -> String {
        self.inner.log.text(None)
    }

    /// Standard output alone.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.inner.log.text(Some(Stream::Out))
    }

    /// The lines of standard output, each with the time at which it was read.
    #[must_use]
    pub fn timed_stdout(&self) -> Vec<(Instant, String)> {
        self.inner.log.timed(Stream::Out)
    }

    /// Standard error alone.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.inner.log.text(Some(Stream::Err))
    }

    /// Sends a signal; to a process that has ended, nothing happens.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.inner.pidfd, signal);
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.inner.exit.borrow()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// A sentence, when it still runs after `bound`.
    pub async fn ended(&self, bound: Duration) -> Result<Exit, String> {
        let mut exit = self.inner.exit.clone();
        let waited = tokio::time::timeout(bound, exit.wait_for(Option::is_some)).await;
        match waited.map(|seen| seen.map(|exit| *exit)) {
            Ok(Ok(Some(exit))) => Ok(exit),
            Ok(_) => Err(format!("cannot follow {}", self.name())),
            Err(_) => Err(format!("{} still runs after {bound:?}", self.name())),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended(Duration::from_secs(10)).await.expect("SIGKILL cannot be refused");
    }

    /// SIGKILL, from where nothing can be awaited.
    pub fn kill_now(&self) {
        self.signal(Signal::KILL);
        self.ended_now(Duration::from_secs(10));
    }

    /// Waits for its end, from where nothing can be awaited. `None` when it still runs.
    pub fn ended_now(&self, bound: Duration) -> Option<Exit> {
        let start = Instant::now();
        while self.exit().is_none() && start.elapsed() < bound {
            thread::park_timeout(Duration::from_millis(5));
        }
        self.exit()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name(), self.pid())
    }
}

fn read_lines(
    pipe: impl Read + Send + 'static,
    stream: Stream,
    log: Arc<Log>,
    done: mpsc::Sender<()>,
) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(pipe.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            log.push(stream, &line);
            line.clear();
        }
        let _ = done.send(());
    });
}

/// The exit is published after the output has been read, unless a grandchild keeps the
/// pipe open.
fn wait_for_exit(
    mut child: Child,
    finished: &mpsc::Receiver<()>,
    tell: &watch::Sender<Option<Exit>>,
) {
    let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0xff00));
    for _ in 0..2 {
        let _ = finished.recv_timeout(Duration::from_millis(300));
    }
    tell.send_replace(Some(Exit::from(status)));
}
