//! `nginx -t` on the full tree with the staged files in their places.

use std::ffi::OsString;
use std::path::PathBuf;

use super::shadow::Shadow;
use super::{Nginx, conf};
use crate::install::{InstallError, Proof, StagedFiles, StagedPaths};
use crate::proxy::Warning;
use crate::proxy::command::{Command, CommandError, Output};

/// A check that passed.
#[derive(Debug)]
pub struct CheckReport {
    /// Permits installing the set.
    pub proof: Proof,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
}

/// Why a set did not pass.
#[derive(Debug, thiserror::Error)]
pub enum NginxCheckError {
    /// nginx rejects the configuration; its message, with the names of the dests.
    #[error("nginx rejects the configuration: {0}")]
    Rejected(String),
    /// nginx could not be run, or did not finish.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The copy for the check could not be made.
    #[error("cannot prepare the check: {0}")]
    Copy(#[from] InstallError),
}

impl Nginx {
    /// Checks the whole configuration as it will be with this set in place. Nothing that runs is
    /// affected, except for what `nginx -t` itself creates: log files, folders and sockets that the
    /// configuration names. Needs no root.
    ///
    /// # Errors
    /// When nginx rejects the files, cannot be run, or does not finish by the deadline.
    pub async fn check(&self, set: &StagedFiles) -> Result<CheckReport, NginxCheckError> {
        let warnings = self.check_paths(set.paths()).await?;
        Ok(CheckReport { proof: Proof::passed(set), warnings })
    }

    /// [`Self::check`] of candidates that lie anywhere.
    pub(crate) async fn check_paths(
        &self,
        staged: Vec<StagedPaths>,
    ) -> Result<Vec<Warning>, NginxCheckError> {
        let conf = self.conf.clone();
        let shadow = tokio::task::spawn_blocking(move || Shadow::build(&conf, &staged));
        let shadow = shadow.await.map_err(|e| CommandError::Spawn {
            command: "nginx -t".into(),
            source: std::io::Error::other(e),
        })??;
        let command = self.test(&shadow);
        match command.run().await {
            Ok(outcome) => Ok(self.warnings(&shadow, &outcome.output)),
            Err(CommandError::Failed { output, .. }) => {
                Err(NginxCheckError::Rejected(reason(&shadow, &output)))
            }
            Err(CommandError::TimedOut { command, after, output }) => {
                let text = shadow.translate(&output.text);
                let (command, output) = (shadow.translate(&command), Output { text, ..output });
                Err(CommandError::TimedOut { command, after, output }.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Checks the configuration as it is on disk.
    pub async fn check_current(&self) -> Result<Vec<Warning>, NginxCheckError> {
        self.check_paths(Vec::new()).await
    }

    fn test(&self, shadow: &Shadow) -> Command {
        let mut arguments = vec![OsString::from("-t"), "-c".into(), shadow.main.clone().into()];
        if let Some(prefix) = &self.settings.prefix {
            arguments.extend(["-p".into(), prefix.into()]);
        }
        if let Some(globals) = self.settings.globals.as_deref().map(without_pid) {
            arguments.extend(["-g".into(), globals.into()]);
        }
        Command::argv(&self.settings.binary, arguments, self.settings.check_deadline)
    }

    fn warnings(&self, shadow: &Shadow, output: &Output) -> Vec<Warning> {
        let not_included =
            |dest: &PathBuf| Warning::NotIncluded { dest: dest.clone(), conf: self.conf.clone() };
        let warnings =
            lines_of(&shadow.translate(&output.text), "[warn]").into_iter().map(Warning::Proxy);
        shadow.unreached.iter().map(not_included).chain(warnings).collect()
    }
}

/// The copy names the pid file; a second `pid` would be an error.
fn without_pid(globals: &str) -> String {
    let directives = conf::parse(globals.as_bytes()).unwrap_or_default();
    let pids = directives.iter().filter(|d| d.depth == 0 && d.name.as_ref() == b"pid");
    let edits: Vec<_> = pids.map(|d| (d.span.clone(), Vec::new())).collect();
    String::from_utf8_lossy(&conf::replace(globals.as_bytes(), &edits)).into_owned()
}

/// The lines with the reason, without those that only say that the test failed.
fn reason(shadow: &Shadow, output: &Output) -> String {
    let text = shadow.translate(output.text.trim());
    let mut lines = Vec::new();
    for line in ["[emerg]", "[alert]", "[crit]"].iter().flat_map(|level| lines_of(&text, level)) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() { text } else { lines.join("\n") }
}

/// The lines of one level, from the level on. They begin with `nginx:` or, where standard error is
/// also the error log, with the time; `12#12:` may follow.
fn lines_of(text: &str, level: &str) -> Vec<String> {
    let from_level = |line: &str| {
        let (_, rest) = line.split_once(level)?;
        let rest = rest.trim_start();
        let process = |word: &str| word.bytes().all(|b| b.is_ascii_digit() || b == b'#');
        let plain = rest.split_once(": ").filter(|(word, _)| process(word)).map(|(_, t)| t);
        Some(format!("{level} {}", plain.unwrap_or(rest)))
    };
    text.lines().filter_map(from_level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_level_with_and_without_a_time() {
        let text = "nginx: [emerg] oops in /x:1\n2026/01/31 10:00:00 [emerg] 12#12: a: b\n\
                    2026/01/31 10:00:00 [warn] 12#12: c\nnginx: configuration file test failed";
        assert_eq!(lines_of(text, "[emerg]"), ["[emerg] oops in /x:1", "[emerg] a: b"]);
        assert_eq!(lines_of(text, "[warn]"), ["[warn] c"]);
        assert!(lines_of("", "[warn]").is_empty());
    }

    #[test]
    fn the_pid_of_the_command_line_is_taken_out() {
        assert_eq!(without_pid("pid /run/x; daemon off;"), " daemon off;");
        assert_eq!(without_pid("daemon off;"), "daemon off;");
        assert_eq!(without_pid("daemon off"), "daemon off");
    }
}
