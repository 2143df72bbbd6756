//! The etcd that `ETCD_BIN` names, of any age: what is said of an old one is tried on it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::etcd::answers;
use crate::http;
use crate::lab::{Lab, Shared};
use crate::process::{Process, Spec};

const START: Duration = Duration::from_secs(30);

/// One etcd, without the comforts of [`Etcd`](crate::Etcd).
pub struct GivenEtcd {
    shared: Arc<Shared>,
    program: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    process: Mutex<Option<Process>>,
    /// What it says of itself.
    pub version: String,
}

impl GivenEtcd {
    /// The program, if one is named.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        std::env::var_os("ETCD_BIN").map(PathBuf::from)
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn start(lab: &Lab, program: PathBuf) -> Self {
        let data = lab.path().join("given-etcd");
        let mut etcd = Self {
            shared: lab.shared(),
            program,
            client: lab.free(),
            peer: lab.free(),
            data,
            process: Mutex::default(),
            version: String::new(),
        };
        etcd.version = etcd.own_version().await;
        etcd.up().await;
        etcd
    }

    async fn own_version(&self) -> String {
        let spec = Spec::new("etcd", &self.program, self.shared.path.clone()).args(["--version"]);
        let process = self.shared.spawn(spec);
        process.ended(START).await.expect("`--version` ends");
        process.log()
    }

    /// `http://127.x.y.z:port`, for `--etcd`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    fn spec(&self) -> Spec {
        let (url, peer) = (self.url(), format!("http://{}", self.peer));
        let spec = Spec::new("etcd", &self.program, self.shared.path.clone());
        let spec = spec.args(["-name", "given", "-data-dir"]).args([&self.data]);
        if self.version.contains("0.4.") {
            let (client, peer) = (self.client.to_string(), self.peer.to_string());
            let spec = spec.args(["-addr", &client, "-bind-addr", &client]);
            return spec.args(["-peer-addr", &peer, "-peer-bind-addr", &peer]);
        }
        spec.args(["-listen-client-urls", &url, "-advertise-client-urls", &url])
            .args(["-listen-peer-urls", &peer, "-initial-advertise-peer-urls", &peer])
            .args(["-initial-cluster".to_owned(), format!("given={peer}")])
    }

    /// Starts it (again), with the data that is there.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn up(&self) {
        let process = self.shared.spawn(self.spec());
        *self.process.lock().unwrap() = Some(process.clone());
        answers(&process, || async { http::get(self.client, "/version").await.map(drop) }).await;
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        let process = self.process.lock().unwrap().clone().expect("etcd was started");
        process.kill().await;
    }

    /// Kills it, deletes all data and starts it.
    pub async fn wipe(&self) {
        self.kill().await;
        fs::remove_dir_all(&self.data).expect("etcd's data folder");
        self.up().await;
    }
}
