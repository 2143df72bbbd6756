//! One machine: its power switch, its files, its command line.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Network, bound_to_us, remove_cgroup};
use crate::bins;
use crate::eventually::{check, eventually, patience, within};
use crate::process::{Process, Spec, run};

const UP: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(100);
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A machine of a network. Dropping it cuts its power.
pub struct Machine<'a> {
    network: &'a Network,
    name: String,
    ip: Ipv4Addr,
    disk: PathBuf,
    cgroup: PathBuf,
    boots: AtomicU32,
    power: Mutex<Option<Process>>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(network: &'a Network, name: &str, ip: Ipv4Addr) -> Self {
        Self {
            network,
            name: name.to_owned(),
            ip,
            disk: network.disks.join(name),
            cgroup: network.cgroup(name),
            boots: AtomicU32::new(0),
            power: Mutex::default(),
        }
    }

    /// Its address on the bridge.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// A port of it.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Boots it and waits until systemd has started what it is to start; says how long
    /// that took. The binaries on trial are in /usr/local/bin.
    ///
    /// # Panics
    /// When it is not up within 60 s.
    pub async fn boot(&self) -> Duration {
        let begun = Instant::now();
        let process = self.network.lab().spawn(self.spec());
        *self.power.lock().unwrap() = Some(process.clone());
        within(UP, format!("{} is up", self.name), || async {
            if let Some(exit) = process.exit() {
                return Err(format!("ended with {exit}: {}", process.log()));
            }
            let state = self.ask(&["systemctl", "is-system-running"]).await?;
            check(["running", "degraded"].contains(&state.trim()), || state.clone())
        })
        .await;
        begun.elapsed()
    }

    fn spec(&self) -> Spec {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let holder = self.network.holder.pid().to_string();
        let programs = [("register", bins::register()), ("confsync", bins::confsync())];
        let programs = programs.map(|(name, file)| {
            let file = file.canonicalize().expect("a program's path");
            format!("{}=/usr/local/bin/{name}", file.display())
        });
        let _ = fs::remove_file(self.seen_from_network("leader"));
        bound_to_us(&self.name, self.network.lab().path())
            .args(["nsenter", "--target", &holder, "--mount", "--", "sh"])
            .args([&self.network.boot, &self.disk])
            .args([&self.name, &self.ip.to_string(), &format!("{}-{boot}", self.name), &holder])
            .args([&self.cgroup])
            .args(programs)
    }

    /// The disks are mounted in the network's namespace alone.
    fn seen_from_network(&self, file: &str) -> PathBuf {
        let disk = self.disk.strip_prefix("/").unwrap_or(&self.disk);
        Path::new(&format!("/proc/{}/root", self.network.holder.pid())).join(disk).join(file)
    }

    /// The process number of its PID 1, as we see it.
    fn leader(&self) -> Result<String, String> {
        let text = fs::read_to_string(self.seen_from_network("leader"))
            .map_err(|e| format!("{} has not booted: {e}", self.name))?;
        Ok(text.trim().to_owned())
    }

    fn command(&self, words: &[&str]) -> Result<Spec, String> {
        let leader = self.leader()?;
        Ok(Spec::new(&self.name, "nsenter", self.network.lab().path())
            .args(["--target", &leader, "--all", "--", "env", "-i", PATH])
            .args(words))
    }

    /// What a command prints, whether it succeeds or not.
    ///
    /// # Errors
    /// When the machine is not up.
    pub async fn ask(&self, words: &[&str]) -> Result<String, String> {
        let output = run(self.command(words)?, patience(COMMAND)).await;
        Ok(output.stdout() + &output.stderr())
    }

    /// Runs a command that must succeed; its output.
    ///
    /// # Panics
    /// When it fails or takes longer than 100 s.
    pub async fn run(&self, words: &[&str]) -> String {
        let output = run(self.command(words).unwrap(), patience(COMMAND)).await;
        output.ok()
    }

    /// Runs lines of shell, as a person would type them; they must succeed.
    pub async fn sh(&self, lines: &str) -> String {
        self.run(&["sh", "-euc", lines]).await
    }

    /// `systemctl start …`, `stop`, `restart`; waits as systemctl does.
    pub async fn systemctl(&self, words: &[&str]) -> String {
        let mut all = vec!["systemctl"];
        all.extend(words);
        self.run(&all).await
    }

    /// One property of a unit, such as `StatusText`.
    ///
    /// # Errors
    /// When the machine is not up.
    pub async fn property(&self, unit: &str, name: &str) -> Result<String, String> {
        let asked = ["systemctl", "show", "--value", "--property", name, unit];
        Ok(self.ask(&asked).await?.trim().to_owned())
    }

    /// Waits until `systemctl status` says this in a unit's Status line.
    #[track_caller]
    pub fn says(&self, unit: &str, words: &str) -> impl Future<Output = ()> {
        eventually(format!("`{words}` in the status of {unit}"), move || async move {
            let status = self.property(unit, "StatusText").await?;
            let state = self.property(unit, "ActiveState").await?;
            check(status.contains(words), || format!("{state}: {status}"))
        })
    }

    /// A path of the machine, as we reach it; for reading and writing while it is up.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let leader = self.leader().expect("a machine that is up");
        PathBuf::from(format!("/proc/{leader}/root{path}"))
    }

    /// Writes a file of the machine, and its folder.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of the machine");
        fs::write(path, text).expect("a file of the machine");
    }

    /// `systemctl reboot`, and boots again with the same disk; how long it was away.
    pub async fn reboot(&self) -> Duration {
        let begun = Instant::now();
        self.run(&["systemctl", "reboot", "--no-block"]).await;
        self.powered_off().await;
        self.boot().await;
        begun.elapsed()
    }

    async fn powered_off(&self) {
        let process = self.power.lock().unwrap().clone().expect("a machine that was booted");
        process.ended(patience(COMMAND)).await.expect("the machine goes down");
    }

    /// What its journal says, from where nothing can be awaited.
    fn journal(&self) -> String {
        let words = ["journalctl", "--no-pager", "--lines=150", "--output=short-precise"];
        let Ok(spec) = self.command(&words) else { return "never booted\n".to_owned() };
        let process = Process::spawn(spec);
        process.ended_now(Duration::from_secs(5));
        process.kill_now();
        process.log()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let Some(process) = self.power.lock().unwrap().take() else { return };
        if thread::panicking() {
            eprintln!("---- journal of {}\n{}", self.name, self.journal());
        }
        process.kill_now();
        let begun = Instant::now();
        while self.cgroup.exists() && begun.elapsed() < Duration::from_secs(10) {
            remove_cgroup(&self.cgroup);
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}
