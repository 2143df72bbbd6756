//! An nginx that outlived the confsync that had started it.
//!
//! When confsync is killed, its nginx keeps serving, with the ports and the pid file. The next
//! confsync takes it over instead of starting a second one, which could not bind. It must be proven
//! to be ours: the master that our pid file names, started with the very arguments that we would
//! use, and not supervised by another confsync that is alive.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::master::NginxMaster;
use super::{Nginx, NginxArgv};
use crate::proxy::process::is_confsync;

impl Nginx {
    /// The master that an earlier run of `command` has left, if there is one.
    ///
    /// # Errors
    /// A sentence, when it exists but another confsync supervises it.
    pub fn survivor(&self, command: &[OsString]) -> Result<Option<NginxMaster>, String> {
        let Ok(master) = self.master() else { return Ok(None) };
        let pid = master.id().pid;
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = NginxArgv::read(command).map_or_else(|| command.to_vec(), |argv| argv.words);
        if !started_by(&title, &words) {
            tracing::warn!(
                pid,
                pid_file = %self.pid_file().display(),
                "another nginx runs already; if ours cannot bind its ports, stop that one \
                 (`systemctl disable --now nginx`?)"
            );
            return Ok(None);
        }
        match master.parent().filter(|parent| is_confsync(*parent)) {
            Some(keeper) => Err(format!(
                "another confsync (process {keeper}) already supervises this nginx (process {pid}); stop \
                 one of the two"
            )),
            None => Ok(Some(master)),
        }
    }
}

/// Whether a master with this title (`nginx: master process nginx -g daemon off;`) was started by
/// `command`. The program's own name may differ, since a wrapper may end with `exec`. The title may
/// be truncated, where nginx had hardly any environment.
fn started_by(title: &[u8], command: &[OsString]) -> bool {
    let text = String::from_utf8_lossy(title);
    let title = text.trim_end_matches(['\0', ' ']);
    let Some((_, line)) = title.split_once("master process ") else { return false };
    let arguments: Vec<_> = command.iter().skip(1).map(|word| word.as_bytes()).collect();
    let arguments = String::from_utf8_lossy(&arguments.join(b" ".as_slice())).into_owned();
    match line.split_once(' ') {
        Some((_, rest)) => !rest.is_empty() && arguments.trim_end().starts_with(rest),
        None => arguments.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(title: &str, command: &[&str]) -> bool {
        let command: Vec<OsString> = command.iter().map(Into::into).collect();
        started_by(title.as_bytes(), &command)
    }

    #[test]
    fn a_master_is_known_by_its_arguments() {
        let command = ["/usr/sbin/nginx", "-c", "/a/nginx.conf", "-g", "daemon off;"];
        for (title, same) in [
            ("nginx: master process nginx -c /a/nginx.conf -g daemon off;\0\0", true),
            ("nginx: master process /opt/nginx -c /a/nginx.conf -g daemon off;", true),
            ("nginx: master process nginx -c /a/nginx.conf -g dae", true),
            ("nginx: master process nginx -c /b/nginx.conf -g daemon off;", false),
            ("nginx: master process nginx -g daemon off; master_process on;", false),
            ("nginx: master process nginx", false),
            ("nginx: worker process", false),
            ("vim nginx.conf", false),
        ] {
            assert_eq!(ours(title, &command), same, "{title}");
        }
        assert!(ours("nginx: master process nginx", &["nginx"]));
        assert!(!ours("nginx: master process nginx -p /x", &["nginx"]));
    }
}
