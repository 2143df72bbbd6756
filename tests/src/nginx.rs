//! A real nginx in a folder of its own: `nginx.conf` with the tutorial's log format and
//! `include sites-enabled/*`, everything it writes inside the folder.
//!
//! A test starts it itself, or leaves that to `confsync run … -- nginx …`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, geteuid, kill_process};

use crate::eventually::eventually;
use crate::http::{self, Answer};
use crate::lab::{Lab, Shared};
use crate::process::{Output, Process, Signal, Spec, run};

const TEST: Duration = Duration::from_secs(20);

/// The tutorial's line for nginx.conf.
pub const UPSTREAM_LOG: &str = "log_format upstreamlog '[$time_local] $remote_addr passed to: $upstream_addr: $request Upstream Response Time: $upstream_response_time Request time: $request_time';";

/// A worker process of nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its process id.
    pub pid: i32,
    /// It finishes what it has and accepts nothing new.
    pub shutting_down: bool,
}

/// One nginx.
pub struct Nginx {
    shared: Arc<Shared>,
    folder: PathBuf,
    listen: SocketAddr,
}

impl Nginx {
    /// Writes the folder. Nothing is started.
    #[must_use]
    #[track_caller]
    pub fn prepare(lab: &Lab) -> Self {
        let listen = lab.free();
        let folder = lab.folder(&format!("nginx-{}", listen.port()));
        for sub in ["sites-enabled", "logs", "temp"] {
            fs::create_dir_all(folder.join(sub)).expect("nginx's folders");
        }
        let nginx = Self { shared: lab.shared(), folder, listen };
        nginx.write_conf("");
        nginx
    }

    /// Writes `nginx.conf` with more directives in its `http` block.
    #[track_caller]
    pub fn write_conf(&self, more: &str) {
        self.write_conf_with("", more);
    }

    /// Writes `nginx.conf` with more directives at its start and in its `http` block.
    #[track_caller]
    pub fn write_conf_with(&self, main: &str, more: &str) {
        // As root, nginx gives its workers to `nobody`, who cannot enter the lab's folder.
        let user = if geteuid().is_root() { "user root;\n" } else { "" };
        let root = self.folder.display();
        let conf = format!(
            "{main}{user}worker_processes 2;\npid {root}/nginx.pid;\nerror_log {root}/logs/error.log notice;\n\
             worker_shutdown_timeout 30s;\nevents {{ worker_connections 1024; }}\nhttp {{\n    \
             {UPSTREAM_LOG}\n    access_log off;\n    client_body_temp_path {root}/temp/body;\n    \
             proxy_temp_path {root}/temp/proxy;\n    fastcgi_temp_path {root}/temp/fastcgi;\n    \
             uwsgi_temp_path {root}/temp/uwsgi;\n    scgi_temp_path {root}/temp/scgi;\n    {more}\n    \
             include sites-enabled/*;\n}}\n"
        );
        fs::write(self.conf(), conf).expect("nginx.conf");
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The main configuration file.
    #[must_use]
    pub fn conf(&self) -> PathBuf {
        self.folder.join("nginx.conf")
    }

    /// The file that confsync is to write.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.folder.join("sites-enabled/app.conf")
    }

    /// What is in it now.
    ///
    /// # Errors
    /// When it is not there.
    pub fn rendered(&self) -> Result<String, String> {
        fs::read_to_string(self.site()).map_err(|e| format!("{}: {e}", self.site().display()))
    }

    /// The pid file.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("nginx.pid")
    }

    /// Where the site listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The command that runs it in the foreground: for us, or behind confsync's `--`.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let conf = self.conf().display().to_string();
        ["nginx", "-c", &conf, "-g", "daemon off;"].map(str::to_owned).into()
    }

    fn spec(&self, name: &str) -> Spec {
        let command = self.command();
        let args = command.into_iter().skip(1);
        Spec::new(name, "nginx", self.shared.path.clone()).args(args)
    }

    /// Starts it as a process of the test and waits for its pid file.
    pub async fn start(&self) -> Process {
        let process = self.shared.spawn(self.spec("nginx"));
        eventually("nginx runs", || async {
            match process.exit() {
                Some(exit) => Err(format!("it ended with {exit}:\n{}", process.log())),
                None => self.master().map(|_| ()).ok_or("no pid file yet".to_owned()),
            }
        })
        .await;
        process
    }

    /// `nginx -t` on the files as they are.
    pub async fn test(&self) -> Output {
        run(self.spec("nginx -t").args(["-t"]), TEST).await
    }

    /// The pid of the master.
    #[must_use]
    pub fn master(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        title_of(pid).is_some_and(|title| title.contains("master process")).then_some(pid)
    }

    /// Sends a signal to the master: HUP to reload, QUIT to finish.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = self.master().and_then(Pid::from_raw).expect("nginx runs");
        kill_process(pid, signal).expect("a signal to nginx");
    }

    /// The workers alive now.
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        let Some(master) = self.master() else { return Vec::new() };
        let children = format!("/proc/{master}/task/{master}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter_map(|pid| {
            let title = title_of(pid)?;
            let shutting_down = title.contains("is shutting down");
            title.contains("worker process").then_some(Worker { pid, shutting_down })
        })
        .collect()
    }

    /// Asks for a page through it.
    ///
    /// # Errors
    /// When there is no whole answer within the deadline.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        http::get(self.listen, path).await
    }

    /// The lines of the site's access log.
    #[must_use]
    pub fn access_log(&self) -> Vec<String> {
        lines_of(&self.folder.join("logs/access.log"))
    }

    /// The lines of the error log.
    #[must_use]
    pub fn error_log(&self) -> Vec<String> {
        lines_of(&self.folder.join("logs/error.log"))
    }
}

/// What loads the Lua module at the start of `nginx.conf`; `None` where Debian's
/// `libnginx-mod-http-lua` is not installed.
#[must_use]
pub fn load_lua() -> Option<String> {
    let modules = ["ndk_http_module.so", "ngx_http_lua_module.so"];
    let files = modules.map(|file| Path::new("/usr/lib/nginx/modules").join(file));
    files
        .iter()
        .all(|file| file.exists())
        .then(|| files.iter().map(|file| format!("load_module {};\n", file.display())).collect())
}

fn title_of(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}
