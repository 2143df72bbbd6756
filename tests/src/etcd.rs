//! A real etcd 3.4 with both APIs, on the lab's address, with its data in the lab.
//!
//! It can be stopped, killed, frozen, started again on the same port, emptied, and put
//! back to an older state. [`Ctl`] is `etcdctl`, in either API, for tests to see what a
//! person at the terminal would see.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::eventually::{check, patience, within};
use crate::http;
use crate::lab::{Lab, Shared};
use crate::process::{Process, Signal, Spec};

mod ctl;
mod watcher;

pub use ctl::Ctl;
pub use watcher::Watcher;

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

/// The two faces of one etcd. Their key spaces are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v2/keys`, TTL keys; what the CoreOS tools spoke.
    V2,
    /// gRPC, leases.
    V3,
}

impl Api {
    /// The word for `--etcd-api`.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

/// An older state of both key spaces, to be restored.
pub struct Saved(PathBuf);

/// One etcd.
pub struct Etcd {
    shared: Arc<Shared>,
    client: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    extra: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl Etcd {
    /// Starts one, with v2 and v3, and waits until it answers.
    pub async fn start(lab: &Lab) -> Self {
        let etcd = Self::prepare(lab);
        etcd.up().await;
        etcd
    }

    /// One that does not run yet: its address is taken and nothing listens there.
    #[must_use]
    #[track_caller]
    pub fn prepare(lab: &Lab) -> Self {
        Self::prepare_at(lab, lab.free())
    }

    /// The same, with clients connecting to an address of one's own.
    #[must_use]
    #[track_caller]
    pub fn prepare_at(lab: &Lab, client: SocketAddr) -> Self {
        let v3 = Ctl::new(Api::V3, client, lab.path());
        let v2 = Ctl::new(Api::V2, client, lab.path());
        lab.report_with(move || format!("---- keys\n{}{}", v2.dump_now(), v3.dump_now()));
        Self {
            shared: lab.shared(),
            client,
            peer: lab.free(),
            data: lab.path().join(format!("etcd-{}", client.port())),
            extra: Vec::new(),
            process: Mutex::default(),
        }
    }

    /// Members of one cluster. Start all of them at once: none answers alone.
    #[must_use]
    #[track_caller]
    pub fn prepare_cluster(lab: &Lab, members: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..members).map(|_| Self::prepare(lab)).collect();
        let name = |nth: usize| format!("member-{nth}");
        let peers = all.iter().enumerate();
        let peers = peers.map(|(nth, member)| format!("{}=http://{}", name(nth), member.peer));
        let cluster = peers.collect::<Vec<_>>().join(",");
        for (nth, member) in all.iter_mut().enumerate() {
            member.extra = vec![
                "--name".to_owned(),
                name(nth),
                "--initial-cluster".to_owned(),
                cluster.clone(),
                "--heartbeat-interval".to_owned(),
                "100".to_owned(),
                "--election-timeout".to_owned(),
                "1000".to_owned(),
            ];
        }
        all
    }

    /// With one more argument on its command line.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.extra.push(arg.to_owned());
        self
    }

    /// `http://127.x.y.z:port`, for `--etcd`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Where other members of its cluster connect.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// `etcdctl` in one of the APIs.
    #[must_use]
    pub fn ctl(&self, api: Api) -> Ctl {
        Ctl::new(api, self.client, &self.shared.path)
    }

    /// Counts the events below `prefix` from this moment on, as any watcher would get them.
    pub async fn watch(&self, api: Api, prefix: &str) -> Watcher {
        Watcher::start(&self.shared, self.client, api, prefix).await
    }

    /// Starts it (again), on the same port, with the data that is there.
    ///
    /// # Panics
    /// When it does not answer within 30 s.
    pub async fn up(&self) {
        let process = self.shared.spawn(self.spec());
        *self.process.lock().unwrap() = Some(process.clone());
        answers(&process, || async {
            let answer = http::get(self.client, "/health").await?;
            check(answer.body.contains("\"true\""), || answer.body.clone())
        })
        .await;
    }

    fn spec(&self) -> Spec {
        let client = self.url();
        let peer = format!("http://{}", self.peer);
        let spec = Spec::new("etcd", "etcd", self.shared.path.clone())
            .args(["--name", "lab", "--enable-v2", "--logger", "zap", "--log-level", "warn"])
            .args([Path::new("--data-dir"), &self.data])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster".to_owned(), format!("lab={peer}")])
            // A lone member elects itself after one election time-out, and the shortest
            // lease is one and a half of it, rounded up to a second.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.extra);
        match std::env::consts::ARCH {
            "x86_64" => spec,
            // Elsewhere etcd wants to hear that we know.
            "aarch64" => spec.env("ETCD_UNSUPPORTED_ARCH", "arm64"),
            other => spec.env("ETCD_UNSUPPORTED_ARCH", other),
        }
    }

    fn running(&self) -> Process {
        self.process.lock().unwrap().clone().expect("etcd was started")
    }

    /// The process that runs now.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running().pid()
    }

    /// SIGTERM, and waits for the end. The data stay.
    pub async fn stop(&self) {
        let process = self.running();
        process.signal(Signal::TERM);
        process.ended(patience(STOP)).await.expect("etcd stops on SIGTERM");
    }

    /// SIGKILL. The data stay, as after a power cut.
    pub async fn kill(&self) {
        self.running().kill().await;
    }

    /// Stops it and starts it with the same data.
    pub async fn restart(&self) {
        self.stop().await;
        self.up().await;
    }

    /// Stops it, deletes all data and starts it: a new cluster at the old address.
    pub async fn wipe(&self) {
        self.stop().await;
        fs::remove_dir_all(&self.data).expect("etcd's data folder");
        self.up().await;
    }

    /// Keeps a copy of both key spaces as they are now. Stops etcd for a moment, so that
    /// the copy is whole.
    pub async fn save(&self) -> Saved {
        self.stop().await;
        let copy = self.data.with_extension(format!("saved-{}", fastrand::u32(..)));
        copy_folder(&self.data, &copy);
        self.up().await;
        Saved(copy)
    }

    /// Puts back what was saved: the same cluster, with its revision fallen back.
    pub async fn restore(&self, saved: &Saved) {
        self.stop().await;
        fs::remove_dir_all(&self.data).expect("etcd's data folder");
        copy_folder(&saved.0, &self.data);
        self.up().await;
    }

    /// SIGSTOP: connections stay open and nothing is answered from now on.
    pub fn freeze(&self) {
        let etcd = self.running();
        etcd.signal(Signal::STOP);
        // Its threads stop one by one.
        let late = Instant::now() + STOP;
        while !is_stopped(etcd.pid()) {
            assert!(Instant::now() < late, "etcd does not stop");
            std::thread::yield_now();
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.running().signal(Signal::CONT);
    }
}

/// Whether no thread of a process runs.
fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
}

#[track_caller]
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the copy's folder");
    for entry in fs::read_dir(from).expect("the folder to copy") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its kind").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copied file");
        }
    }
}

/// Waits until an etcd that was started answers as it is `asked` to.
///
/// # Panics
/// When it ends, or does not answer in time.
pub(crate) async fn answers<A>(process: &Process, asked: impl Fn() -> A)
where
    A: Future<Output = Result<(), String>>,
{
    within(START, "etcd answers", || async {
        match process.exit() {
            Some(exit) => Err(format!("etcd ended with {exit}:\n{}", process.log())),
            None => asked().await,
        }
    })
    .await;
}
