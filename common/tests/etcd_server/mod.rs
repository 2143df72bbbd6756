//! A real etcd on free loopback ports with a folder of its own, gone when dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long etcd may take to answer after its start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One etcd.
pub(crate) struct EtcdServer {
    child: Option<Child>,
    folder: TempDir,
    /// Its client port.
    pub(crate) port: u16,
    peer: u16,
    scheme: &'static str,
    name: String,
    /// `name=peer` of each member.
    cluster: String,
    flags: Vec<String>,
    pace: [&'static str; 4],
}

/// Short elections make short leases possible.
const ALONE: [&str; 4] = ["--heartbeat-interval", "20", "--election-timeout", "200"];

/// Members that find no time for each other on a busy machine elect without end.
const TOGETHER: [&str; 4] = ["--heartbeat-interval", "100", "--election-timeout", "1000"];

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[expect(clippy::disallowed_methods, reason = "the test owns the process and ends it on drop")]
fn command(program: &str) -> Command {
    Command::new(program)
}

impl EtcdServer {
    /// Starts an etcd with v3 and v2 and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::with(&["--enable-v2"]).await
    }

    /// Starts an etcd with these flags and waits until it answers.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        Self::members(1, flags).await.remove(0)
    }

    /// Starts a cluster of three.
    pub(crate) async fn three() -> Vec<Self> {
        Self::members(3, &["--enable-v2"]).await
    }

    async fn members(count: usize, flags: &[&str]) -> Vec<Self> {
        // Between the choice of a port and its use somebody else may take it.
        for _ in 0..5 {
            let mut servers: Vec<_> = (0..count).map(|n| Self::new(n, flags)).collect();
            let peers: Vec<_> =
                servers.iter().map(|s| format!("{}={}", s.name, s.peer())).collect();
            for server in &mut servers {
                server.cluster = peers.join(",");
                server.pace = if count == 1 { ALONE } else { TOGETHER };
                server.spawn();
            }
            let mut up = true;
            for server in &mut servers {
                up = up && server.answers().await;
            }
            if up {
                return servers;
            }
        }
        panic!("etcd does not come up; try `etcd --enable-v2` by hand");
    }

    fn new(number: usize, flags: &[&str]) -> Self {
        let tls = flags.contains(&"--cert-file");
        Self {
            child: None,
            folder: TempDir::new().unwrap(),
            port: free_port(),
            peer: free_port(),
            scheme: if tls { "https" } else { "http" },
            name: format!("m{number}"),
            cluster: String::new(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            pace: ALONE,
        }
    }

    fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn spawn(&mut self) {
        let peer = self.peer();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        // Looked up by itself: without an environment the system's own path would be taken.
        let etcd = std::env::var("CONTRACT_ETCD").unwrap_or_else(|_| "etcd".to_owned());
        let child = command(&etcd)
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.data())
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster, "--log-level", "error"])
            .args(self.pace)
            .args(&self.flags)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("cannot start etcd ({error}); install it: `apt-get install etcd-server`")
        }));
    }

    /// Whether it comes up. etcd listens long before it answers, and any answer will
    /// do: one with TLS says that it wants TLS.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let ended = self.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            if ended {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                eprintln!("etcd ended: {}", log.unwrap_or_default());
                return false;
            }
            if let Ok(Ok(())) = timeout(PATIENCE, heard(self.port)).await {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// One of its metrics, without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().trim().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().map(Pid::from_child).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops answering without hanging up. Returns when every thread stands still,
    /// which takes a moment longer than the signal.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
        let id = self.child.as_ref().map(Child::id).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !stands_still(id) {
            assert!(Instant::now() < deadline, "etcd does not stop");
            std::thread::yield_now();
        }
    }

    /// Answers again.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Dies without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Comes back with what it had, on the same port.
    pub(crate) async fn revive(&mut self) {
        self.spawn();
        assert!(self.answers().await, "etcd does not come back");
    }

    /// Comes back with nothing.
    pub(crate) async fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        self.revive().await;
    }

    /// Runs `etcdctl` against it.
    pub(crate) fn ctl(&self, api: &str, args: &[&str]) -> String {
        let output = command("etcdctl")
            .args(["--endpoints", &self.url()])
            .args(args)
            .env_clear()
            .env("ETCDCTL_API", api)
            .output()
            .unwrap_or_else(|error| {
                panic!("cannot run etcdctl ({error}); install it: `apt-get install etcd-client`")
            });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let trouble = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?}: {text}{trouble}");
        text
    }
}

/// Asks over HTTP and waits for the first byte, or the end.
async fn heard(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /version HTTP/1.0\r\n\r\n").await?;
    stream.read(&mut [0]).await.map(|_| ())
}

/// Whether all threads of a process are stopped: state `T` behind the name.
fn stands_still(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}
