//! `etcdctl`, as a person types it, in either API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::etcd::Api;
use crate::eventually::{check, patience};
use crate::process::{Output, Process, Spec, run, try_run};

const DEADLINE: Duration = Duration::from_secs(10);

/// `etcdctl` for one server in one API.
#[derive(Clone)]
pub struct Ctl {
    api: Api,
    server: SocketAddr,
    cwd: PathBuf,
}

impl Ctl {
    pub(super) fn new(api: Api, server: SocketAddr, cwd: &Path) -> Self {
        Self { api, server, cwd: cwd.to_owned() }
    }

    pub(super) fn spec(&self, args: &[&str]) -> Spec {
        let version = match self.api {
            Api::V2 => "2",
            Api::V3 => "3",
        };
        Spec::new("etcdctl", "etcdctl", self.cwd.clone())
            .env("ETCDCTL_API", version)
            .args(["--endpoints".to_owned(), format!("http://{}", self.server)])
            .args(args)
    }

    /// Any command.
    pub async fn run(&self, args: &[&str]) -> Output {
        run(self.spec(args), patience(DEADLINE)).await
    }

    /// What a command prints that succeeds, or why it does not: the server may stand still.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub async fn attempt(&self, args: &[&str]) -> Result<String, String> {
        let output = try_run(self.spec(args), patience(DEADLINE)).await?;
        check(output.exit.success(), || output.stderr())?;
        Ok(output.stdout())
    }

    /// The keys below `prefix`, sorted; in v2 folders as well, as `ls --recursive` prints
    /// them. Empty when there are none.
    pub async fn ls(&self, prefix: &str) -> Vec<String> {
        let output = match self.api {
            Api::V2 => self.run(&["ls", "--recursive", "--sort", prefix]).await,
            Api::V3 => self.run(&["get", "--prefix", "--keys-only", prefix]).await,
        };
        lines(&output.stdout())
    }

    /// The value of a key, if it is there.
    pub async fn get(&self, key: &str) -> Option<String> {
        let output = match self.api {
            Api::V2 => self.run(&["get", key]).await,
            Api::V3 => self.run(&["get", "--print-value-only", key]).await,
        };
        lines(&output.stdout()).into_iter().next()
    }

    /// Writes a key, for good.
    pub async fn put(&self, key: &str, value: &str) {
        let verb = if self.api == Api::V2 { "set" } else { "put" };
        let _ = self.run(&[verb, "--", key, value]).await.ok();
    }

    /// Removes a key.
    pub async fn del(&self, key: &str) {
        let verb = if self.api == Api::V2 { "rm" } else { "del" };
        let _ = self.run(&[verb, key]).await.ok();
    }

    /// Everything, for a report; from where nothing can be awaited.
    pub(super) fn dump_now(&self) -> String {
        let (label, args): (_, &[&str]) = match self.api {
            Api::V2 => ("v2", &["ls", "--recursive", "--sort", "/"]),
            Api::V3 => ("v3", &["get", "--prefix", "/", "--command-timeout=2s"]),
        };
        let process = Process::spawn(self.spec(args));
        process.ended_now(Duration::from_secs(3));
        process.kill_now();
        format!("{label}:\n{}", process.log())
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
