//! A daemon on trial: its command line in a scrubbed environment, what it reports to
//! the service manager, what it logs, how it ends.

use std::net::SocketAddr;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::bins;
use crate::confdir::Confdir;
use crate::etcd::{Api, Etcd};
use crate::eventually::{check, eventually, patience};
use crate::lab::{Lab, Shared};
use crate::nginx::Nginx;
use crate::process::{Exit, Process, Signal, Spec};

mod notify;

use notify::Notify;

/// The TTL of a [`Daemon::quick`] sidekick.
pub const QUICK_TTL: Duration = Duration::from_secs(2);
const END: Duration = Duration::from_secs(20);

/// A command line in the making.
#[must_use]
pub struct Daemon {
    shared: Arc<Shared>,
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Vec<String>,
}

impl Daemon {
    /// `register run`.
    #[track_caller]
    pub fn register(lab: &Lab) -> Self {
        Self::new(lab, "register", bins::register()).arg("run")
    }

    /// `confsync run`.
    #[track_caller]
    pub fn confsync(lab: &Lab) -> Self {
        Self::new(lab, "confsync", bins::confsync()).arg("run")
    }

    /// Any binary without arguments. `TEST_LOG=debug` makes it say more.
    pub fn new(lab: &Lab, name: &str, program: PathBuf) -> Self {
        let mut env = vec![("RUST_BACKTRACE".to_owned(), "1".to_owned())];
        if let Ok(level) = std::env::var("TEST_LOG") {
            env.push(("LOG_LEVEL".to_owned(), level));
        }
        Self {
            shared: lab.shared(),
            name: name.to_owned(),
            program,
            args: Vec::new(),
            env,
            child: Vec::new(),
        }
    }

    /// Its name in reports, when a scenario has several.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// One argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A flag and its value.
    pub fn flag(self, flag: &str, value: impl Into<String>) -> Self {
        self.arg(flag).arg(value)
    }

    /// Started through another program, which ends in running it: `unshare`, `strace`…
    pub fn under(mut self, words: &[&str]) -> Self {
        let Some((program, before)) = words.split_first() else { return self };
        let own = std::mem::replace(&mut self.program, PathBuf::from(program));
        let args = std::mem::take(&mut self.args);
        self.args = before.iter().map(|word| (*word).to_owned()).collect();
        self.args.push(own.display().to_string());
        self.args.extend(args);
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// `--etcd` and `--etcd-api`.
    pub fn etcd(self, etcd: &Etcd, api: Api) -> Self {
        self.flag("--etcd", etcd.url()).flag("--etcd-api", api.flag())
    }

    /// `--service`, `--host` and `--port`.
    pub fn backend(self, service: &str, at: SocketAddr) -> Self {
        self.flag("--service", service)
            .flag("--host", at.ip().to_string())
            .flag("--port", at.port().to_string())
    }

    /// A sidekick in a hurry: [`QUICK_TTL`], probes every 200 ms, one answer decides.
    pub fn quick(self) -> Self {
        self.flag("--ttl", format!("{}s", QUICK_TTL.as_secs()))
            .flag("--interval", "200ms")
            .flag("--fast-interval", "100ms")
            .flag("--rise", "1")
            .flag("--fall", "1")
    }

    /// A sidekick in a hurry to register, whose backend may be slow: failed probes do not count.
    pub fn patient(self) -> Self {
        self.flag("--ttl", format!("{}s", QUICK_TTL.as_secs()))
            .flag("--interval", "200ms")
            .flag("--rise", "1")
            .flag("--fall", "1000")
    }

    /// `--confdir`.
    pub fn confdir(self, confdir: &Confdir) -> Self {
        self.flag("--confdir", confdir.path().display().to_string())
    }

    /// `-- nginx …`: confsync starts and keeps it.
    pub fn supervising(mut self, nginx: &Nginx) -> Self {
        self.child = nginx.command();
        self
    }

    /// The service manager wants a `WATCHDOG=1` this often.
    pub fn watchdog(self, every: Duration) -> Self {
        self.env("WATCHDOG_USEC", every.as_micros().to_string())
    }

    /// Starts it.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Running {
        let notify = Notify::listen(&self.shared.path);
        let mut args = self.args;
        if !self.child.is_empty() {
            args.push("--".to_owned());
            args.extend(self.child);
        }
        let mut spec = Spec::new(&self.name, self.program, self.shared.path.clone())
            .args(args)
            .env("NOTIFY_SOCKET", notify.path());
        for (name, value) in &self.env {
            spec = spec.env(name, value);
        }
        Running { process: self.shared.spawn(spec), notify }
    }

    /// Starts it and waits for its end.
    ///
    /// # Panics
    /// When it has not ended after 20 s (times the patience).
    pub async fn run(self) -> Ended {
        let running = self.start();
        let exit = running.wait_exit().await;
        Ended { exit, log: running.log() }
    }
}

/// A daemon that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// Its whole output.
    pub log: String,
}

/// A daemon that was started.
pub struct Running {
    process: Process,
    notify: Notify,
}

impl Running {
    /// Its output so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What it sent to the service manager, one `NAME=value` each, oldest first.
    #[must_use]
    pub fn notified(&self) -> Vec<String> {
        self.notify.received()
    }

    /// The last `STATUS=`, without the name.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        let all = self.notified();
        all.iter().rev().find_map(|line| line.strip_prefix("STATUS=").map(str::to_owned))
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for `READY=1`.
    ///
    /// # Panics
    /// When it does not come, at once when the daemon has ended.
    #[track_caller]
    pub fn ready(&self) -> impl Future<Output = ()> {
        let place = Location::caller();
        eventually(format!("{} is ready", self.process.name()), move || async move {
            let notified = self.notified();
            if notified.iter().any(|line| line == "READY=1") {
                return Ok(());
            }
            if let Some(exit) = self.process.exit() {
                panic!("{place}: not ready but ended with {exit}:\n{}", self.log());
            }
            Err(format!("notified so far: {notified:?}; log:\n{}", self.log()))
        })
    }

    /// Waits until it has sent this line to the service manager `times` times.
    #[track_caller]
    pub fn notified_times(&self, line: &str, times: usize) -> impl Future<Output = ()> {
        eventually(format!("{line} to the service manager"), move || async move {
            let notified = self.notified();
            let count = notified.iter().filter(|sent| *sent == line).count();
            check(count >= times, || format!("notified so far: {notified:?}"))
        })
    }

    /// Waits until its log contains `text`.
    #[track_caller]
    pub fn logged(&self, text: &str) -> impl Future<Output = ()> {
        eventually("a log line", move || async move {
            let log = self.log();
            check(log.contains(text), || format!("no `{text}` in\n{log}"))
        })
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after 20 s (times the patience).
    pub async fn wait_exit(&self) -> Exit {
        match self.process.ended(patience(END)).await {
            Ok(exit) => exit,
            Err(why) => panic!("{why}\n{}", self.log()),
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> Exit {
        self.signal(Signal::TERM);
        self.wait_exit().await
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&self) {
        self.process.kill().await;
    }
}
