//! A scenario's world: its folder, its addresses, its processes.
//!
//! Whatever the parts start is registered here. When the lab is dropped everything is
//! killed and removed; if the test is failing, the report comes first, while etcd can
//! still be asked, and the folder is kept.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, kill_process};

use crate::address::Loopback;
use crate::process::{Process, Signal, Spec};
use crate::report;
use crate::workdir::Workdir;

/// A part of the report: what etcd has, for example.
pub(crate) type Reporter = Box<dyn Fn() -> String + Send>;

/// What the parts of a lab share with it.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) processes: Mutex<Vec<Process>>,
    pub(crate) reporters: Mutex<Vec<Reporter>>,
}

impl Shared {
    /// Starts a process that ends with the lab at the latest.
    #[track_caller]
    pub(crate) fn spawn(&self, spec: Spec) -> Process {
        let process = Process::spawn(spec);
        self.processes.lock().unwrap().push(process.clone());
        process
    }
}

/// One scenario's world. Make it first, so that it is dropped last.
pub struct Lab {
    workdir: Workdir,
    addresses: Mutex<Vec<Loopback>>,
    shared: Arc<Shared>,
}

impl Lab {
    /// A new folder and a first address.
    #[must_use]
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it takes addresses and makes folders")]
    pub fn new() -> Self {
        let workdir = Workdir::create();
        let shared = Shared {
            path: workdir.path().to_owned(),
            processes: Mutex::default(),
            reporters: Mutex::default(),
        };
        let addresses = Mutex::new(vec![Loopback::take()]);
        Self { workdir, addresses, shared: Arc::new(shared) }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.workdir.path()
    }

    /// A folder inside, made if need be.
    #[track_caller]
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.workdir.folder(name)
    }

    /// The lab's own address: the machine that everything runs on.
    #[must_use]
    #[track_caller]
    pub fn ip(&self) -> Ipv4Addr {
        self.addresses.lock().unwrap().first().expect("taken at the start").ip()
    }

    /// One more address: another machine, with all its ports.
    #[must_use]
    #[track_caller]
    pub fn another_ip(&self) -> Ipv4Addr {
        let address = Loopback::take();
        let ip = address.ip();
        self.addresses.lock().unwrap().push(address);
        ip
    }

    /// A place on the lab's own address where nothing listens.
    #[must_use]
    #[track_caller]
    pub fn free(&self) -> SocketAddr {
        self.addresses.lock().unwrap().first().expect("taken at the start").free()
    }

    /// Starts a process that ends with the lab at the latest.
    #[track_caller]
    pub fn spawn(&self, spec: Spec) -> Process {
        self.shared.spawn(spec)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn report_with(&self, reporter: impl Fn() -> String + Send + 'static) {
        self.shared.reporters.lock().unwrap().push(Box::new(reporter));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", report::render(&self.shared));
            let path = self.workdir.keep();
            eprintln!("the folder is kept: {}", path.display());
        }
        let processes = std::mem::take(&mut *self.shared.processes.lock().unwrap());
        for process in &processes {
            process.kill_now();
        }
        sweep(self.workdir.path());
    }
}

/// Kills what our processes left behind (an nginx whose supervisor was killed). They
/// are known by their working directory, which children inherit. Again, until none is
/// found: one may fork while we look.
fn sweep(path: &Path) {
    for _ in 0..100 {
        let left = processes_in(path);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn processes_in(path: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = entries.filter(|entry| {
        fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(path))
    });
    inside.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}
