//! An nginx in a folder of its own.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use confsync::install::{Candidate, InstalledFiles, StagedFiles, Target};
use confsync::proxy::command::{CommandError, Supervised};
use confsync::proxy::nginx::{CheckReport, Nginx, NginxReloadError, NginxSettings, ProcessId};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// nginx takes 2.5 s for its five attempts to bind a port.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    pub(crate) nginx: Nginx,
    child: Option<Supervised>,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Answers with the `$version` that `sites/version.conf` sets.
fn main_conf(port: u16, backend: u16) -> String {
    format!(
        "pid nginx.pid;\nerror_log error.log;\nworker_processes 2;\nevents {{}}\nhttp {{\n\
         access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;\n\
         uwsgi_temp_path t4; scgi_temp_path t5;\ninclude sites/*.conf;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"$version\"; }}\n\
         location /slow {{ proxy_pass http://127.0.0.1:{backend}; }} }}\n}}\n"
    )
}

pub(crate) fn version(n: u32) -> Vec<u8> {
    format!("map $host $version {{ default v{n}; }}\n").into_bytes()
}

impl Bench {
    /// The files, version 1, and no nginx running.
    pub(crate) async fn new() -> Self {
        Self::with_backend(1).await
    }

    pub(crate) async fn with_backend(backend: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        fs::create_dir(dir.path().join("sites")).unwrap();
        fs::write(dir.path().join("nginx.conf"), main_conf(port, backend)).unwrap();
        fs::write(dir.path().join("sites/version.conf"), version(1)).unwrap();
        let settings = NginxSettings {
            conf: Some(dir.path().join("nginx.conf")),
            prefix: Some(dir.path().into()),
            ..NginxSettings::default()
        };
        let nginx = match Nginx::discover(settings).await {
            Err(CommandError::NotFound(name)) => {
                panic!("there is no `{name}`: apt-get install nginx-light")
            }
            other => other.unwrap(),
        };
        Self { dir, port, nginx, child: None }
    }

    /// The files, and nginx serving them.
    pub(crate) async fn serving() -> Self {
        Self::new().await.start().await
    }

    pub(crate) async fn start(mut self) -> Self {
        let mut child = Supervised::start(&self.argv()).unwrap();
        self.nginx.started(&mut child, DEADLINE).await.unwrap();
        self.child = Some(child);
        self
    }

    pub(crate) fn argv(&self) -> Vec<OsString> {
        let conf = self.path("nginx.conf");
        let prefix = self.dir.path().into();
        [
            "nginx".into(),
            "-p".into(),
            prefix,
            "-c".into(),
            conf.into(),
            "-g".into(),
            "daemon off;".into(),
        ]
        .to_vec()
    }

    pub(crate) fn child(&mut self) -> &mut Supervised {
        self.child.as_mut().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn candidate(&self, name: &str, bytes: impl Into<Vec<u8>>) -> Candidate {
        Candidate { target: Target::new(self.path(name)), bytes: bytes.into() }
    }

    pub(crate) fn stage(&self, files: &[(&str, &[u8])]) -> StagedFiles {
        let files: Vec<_> = files.iter().map(|(name, text)| self.candidate(name, *text)).collect();
        StagedFiles::write(&files.into()).unwrap()
    }

    pub(crate) async fn install(&self, files: &[(&str, &[u8])]) -> InstalledFiles {
        let staged = self.stage(files);
        let CheckReport { proof, .. } = self.nginx.check(&staged).await.unwrap();
        staged.accept(proof).unwrap().install().unwrap()
    }

    pub(crate) async fn reload(&self) -> Result<Vec<ProcessId>, NginxReloadError> {
        let master = self.nginx.master().unwrap();
        self.nginx.reload(&master, DEADLINE).await
    }

    /// What a fresh connection is answered.
    pub(crate) async fn ask(&self) -> String {
        get(self.port, "/").await
    }

    /// Names of ours that are left anywhere under the prefix.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        fn below(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type().unwrap().is_dir() {
                    below(&entry.path(), found);
                } else if name.contains("confsync") {
                    found.push(name);
                }
            }
        }
        let mut found = Vec::new();
        below(self.dir.path(), &mut found);
        found
    }
}

pub(crate) async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned())
}
