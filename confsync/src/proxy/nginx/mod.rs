//! The nginx driver: check a candidate, reload, verify the running generation.
//!
//! * [`Nginx::check`] has nginx check the whole configuration with the staged files in place of
//!   their dests, before anything that runs is affected.
//! * [`Nginx::reload`] signals the master and watches its workers until a new generation serves and
//!   no old one accepts connections.
//! * [`Nginx::started`] is the same for a master that we started ourselves.
//!
//! Invariants: an exit code proves nothing, only workers do; no signal goes to a process that is
//! not proven to be the master; nothing waits without a deadline.
//!
//! `nginx -s reload` is not used: it reads the configuration once more, and its exit code only
//! means that a signal was sent.
//!
//! `nginx -t` creates the log files, folders and sockets that a configuration names, so values from
//! outside must be validated before a check, not by it.

mod argv;
mod check;
mod compiled;
pub mod conf;
mod error_log;
mod evidence;
mod include;
mod known;
mod log_phase;
mod lua;
mod master;
mod reload;
mod shadow;
mod start;
mod survivor;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

pub use argv::NginxArgv;
pub use check::{CheckReport, NginxCheckError};
use compiled::Compiled;
pub use compiled::TlsServer;
pub use evidence::{Generation, judge, old_generations};
pub use known::knows;
pub use master::{NginxMaster, NginxMasterError, Role, Worker};
pub use reload::NginxReloadError;
pub use shadow::is_included;
pub use start::StartError;

pub use crate::proxy::process::{PidFileError, ProcessId, is_alive, until_ended};

use crate::install::{InstallError, clean_beside};
use crate::proxy::command::CommandError;

/// What is configured about nginx; everything else is asked of nginx itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NginxSettings {
    /// The program; looked for in `PATH` if it is a bare name.
    pub binary: PathBuf,
    /// The main file (`-c`); `None`: the one that nginx was built with.
    pub conf: Option<PathBuf>,
    /// The prefix (`-p`); `None`: the one that nginx was built with.
    pub prefix: Option<PathBuf>,
    /// Directives from the command line (`-g`).
    pub globals: Option<String>,
    /// The pid file; `None`: the one in `globals`, the main file, or the build settings.
    pub pid_file: Option<PathBuf>,
    /// How long a check may take. A name that does not resolve costs nginx 10 s.
    pub check_deadline: Duration,
}

impl Default for NginxSettings {
    fn default() -> Self {
        Self {
            binary: "nginx".into(),
            conf: None,
            prefix: None,
            globals: None,
            pid_file: None,
            check_deadline: Duration::from_secs(30),
        }
    }
}

impl NginxSettings {
    /// For `run -- nginx …`: the options of its command line take precedence.
    #[must_use]
    pub fn with_argv(mut self, argv: &NginxArgv) -> Self {
        self.binary.clone_from(&argv.binary);
        self.conf = argv.conf.clone().or(self.conf);
        self.prefix = argv.prefix.clone().or(self.prefix);
        self.globals = argv.globals.clone().or(self.globals);
        self
    }
}

/// One nginx: its program, its main file, and the pid file and error log that they name.
#[derive(Debug, Clone)]
pub struct Nginx {
    settings: NginxSettings,
    conf: PathBuf,
    prefix: PathBuf,
    compiled: Compiled,
}

impl Nginx {
    /// Asks the program for its build settings (`nginx -V`).
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn discover(settings: NginxSettings) -> Result<Self, CommandError> {
        let compiled = Compiled::ask(&settings.binary).await?;
        let prefix = settings.prefix.clone().unwrap_or_else(|| compiled.prefix.clone());
        let conf = settings.conf.clone().unwrap_or_else(|| compiled.conf.clone());
        let conf = prefix.join(conf);
        Ok(Self { settings, conf, prefix, compiled })
    }

    /// The main file.
    pub fn conf(&self) -> &Path {
        &self.conf
    }

    /// The master's pid file, by the present main file.
    pub fn pid_file(&self) -> PathBuf {
        if let Some(configured) = &self.settings.pid_file {
            return configured.clone();
        }
        let globals = self.settings.globals.as_deref().unwrap_or_default();
        let from_globals = first_argument(globals.as_bytes(), b"pid").pop();
        let configured = from_globals.or_else(|| first_argument(&self.main_text(), b"pid").pop());
        self.prefix.join(configured.unwrap_or_else(|| self.compiled.pid_file.clone()))
    }

    /// The master that the pid file names, proven to be one.
    ///
    /// # Errors
    /// When there is none, or that cannot be determined.
    pub fn master(&self) -> Result<NginxMaster, NginxMasterError> {
        NginxMaster::from_pid_file(&self.pid_file())
    }

    /// The master that our child is, or has started. After an upgrade of the binary (USR2) it is
    /// the new one that the pid file names.
    ///
    /// # Errors
    /// When there is none (yet).
    pub fn master_of(&self, child: Pid) -> Result<NginxMaster, NginxMasterError> {
        match self.master() {
            Ok(master) if master.is_below(child) => Ok(master),
            _ => NginxMaster::below(child),
        }
    }

    /// Removes copies of the main file that an earlier run of ours left beside it.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not removed.
    pub fn clean_stale(&self) -> Result<Vec<PathBuf>, InstallError> {
        // Without its folder there are none; the check reports that it is missing.
        match self.conf.parent().is_some_and(Path::is_dir) {
            true => clean_beside(&self.conf),
            false => Ok(Vec::new()),
        }
    }

    /// How its servers are configured for TLS.
    pub fn tls_server(&self) -> TlsServer {
        self.compiled.tls_server
    }

    /// The user and group that its workers run as; `None` where they run as we do.
    pub fn worker_user(&self) -> Option<(u32, u32)> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let text = self.main_text();
        let directives = conf::parse(&text).unwrap_or_default();
        let configured =
            directives.iter().find(|d| d.depth == 0 && !d.block && *d.name == *b"user");
        let words: Vec<_> = configured
            .iter()
            .flat_map(|d| &d.args)
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        let name = words.first().map_or(self.compiled.user.as_str(), |name| name);
        let user = nix::unistd::User::from_name(name).ok().flatten()?;
        // Without a group in the directive, nginx uses the group that has the user's name.
        let group = words.get(1).map_or(name, |group| group);
        let group = nix::unistd::Group::from_name(group).ok().flatten();
        Some((user.uid.as_raw(), group.map_or(user.gid, |group| group.gid).as_raw()))
    }

    /// Why nothing can be proven of it: its configuration makes it run as a single process.
    pub fn without_master(&self) -> Option<String> {
        let globals = self.settings.globals.as_deref().unwrap_or_default();
        let place = match has_no_master(globals.as_bytes()) {
            true => "nginx's -g".to_owned(),
            false if has_no_master(&self.main_text()) => self.conf.display().to_string(),
            false => return None,
        };
        Some(format!(
            "`master_process off` in {place}: without a master and its workers it cannot be proven \
             that nginx runs by a file, and a reload of a single process drops requests; remove it"
        ))
    }

    /// The files that the main error log goes to.
    fn error_logs(&self) -> Vec<PathBuf> {
        let mut logs = first_argument(&self.main_text(), b"error_log");
        if logs.is_empty() {
            logs.push(self.compiled.error_log.clone());
        }
        logs.into_iter().map(|log| self.prefix.join(log)).collect()
    }

    fn main_text(&self) -> Vec<u8> {
        fs::read(&self.conf).unwrap_or_default()
    }
}

/// Whether a main file, or a text of its directives, has nginx run without a master.
pub fn has_no_master(text: &[u8]) -> bool {
    first_argument(text, b"master_process").iter().any(|value| value.as_os_str() == "off")
}

/// The first argument of each directive `name` in the main context.
fn first_argument(text: &[u8], name: &[u8]) -> Vec<PathBuf> {
    let directives = conf::parse(text).unwrap_or_default();
    let named = directives.iter().filter(|d| d.depth == 0 && !d.block && d.name == name);
    let first = named.filter_map(|d| d.args.first());
    first.map(|word| std::ffi::OsStr::from_bytes(word).into()).collect()
}
