//! `haproxy -c` on all files, with the staged ones in place of their dests.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{CHECK_DEADLINE, Haproxy, conf};
use crate::install::{Proof, StagedFiles, StagedPaths};
use crate::proxy::command::{Command, CommandError};
use crate::proxy::{NotPassed, Warning};

impl Haproxy {
    /// Checks the whole configuration as it will be with these files in place. Nothing that runs is
    /// affected: the check neither binds nor writes.
    ///
    /// # Errors
    /// HAProxy's message, when it rejects the files or cannot be run.
    pub async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        for warning in self.check_candidates(&staged.paths()).await? {
            tracing::warn!("{warning}");
        }
        Ok(Proof::passed(staged))
    }

    /// [`Self::check`] of candidates that lie anywhere; the warnings about files that pass.
    pub(crate) async fn check_candidates(
        &self,
        candidates: &[StagedPaths],
    ) -> Result<Vec<Warning>, NotPassed> {
        let dests: Vec<PathBuf> = candidates.iter().map(|paths| paths.dest.clone()).collect();
        let files = conf::files(&self.options.conf, &dests);
        let candidate_of = |file: &PathBuf| {
            let real = real(file);
            candidates.iter().find(|paths| paths.real == real || &paths.dest == file)
        };
        let mut warnings = Vec::new();
        for paths in candidates {
            if !files.iter().filter_map(candidate_of).any(|of| of.dest == paths.dest) {
                warnings.push(Warning::Proxy(format!(
                    "{} is not part of {}: HAProxy would never read it as configuration",
                    paths.dest.display(),
                    shown(&self.options.conf)
                )));
            }
        }
        let read = |file: &PathBuf| candidate_of(file).map_or(file, |paths| &paths.staged).clone();
        match self.ask(files.iter().map(read)).await {
            Ok(text) => {
                let lines = lines_of(&text, &["[WARNING]"]);
                let translated = lines.iter().map(|line| translate(line, candidates));
                warnings.extend(translated.map(Warning::Proxy));
                Ok(warnings)
            }
            Err(CommandError::Failed { output, .. }) => {
                Err(NotPassed::Rejected(translate(&reason(&output.text), candidates)))
            }
            Err(error) => Err(NotPassed::Unknown(translate(&error.to_string(), candidates))),
        }
    }

    /// Why HAProxy rejects the files on disk, if it does.
    pub(super) async fn why_rejected(&self) -> Option<String> {
        match self.ask(conf::files(&self.options.conf, &[])).await {
            Ok(_) => None,
            Err(CommandError::Failed { output, .. }) => Some(reason(&output.text)),
            Err(error) => Some(error.to_string()),
        }
    }

    async fn ask(&self, files: impl IntoIterator<Item = PathBuf>) -> Result<String, CommandError> {
        let mut arguments = vec![OsString::from("-c")];
        if let Some(directory) = &self.directory {
            arguments.extend(["-C".into(), directory.into()]);
        }
        for file in files {
            arguments.extend(["-f".into(), file.into()]);
        }
        let command = Command::argv(&self.options.binary, arguments, CHECK_DEADLINE);
        Ok(command.run().await?.output.text)
    }
}

/// The file behind the links; for one that does not exist yet, resolved by its folder.
fn real(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| match (file.parent(), file.file_name()) {
        (Some(folder), Some(name)) => {
            fs::canonicalize(folder).map_or_else(|_| file.to_owned(), |folder| folder.join(name))
        }
        _ => file.to_owned(),
    })
}

fn shown(conf: &[PathBuf]) -> String {
    conf.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn translate(text: &str, staged_paths: &[StagedPaths]) -> String {
    let name = |path: &Path| path.display().to_string();
    staged_paths
        .iter()
        .fold(text.to_owned(), |text, paths| text.replace(&name(&paths.staged), &name(&paths.dest)))
}

/// The lines with the reason.
fn reason(text: &str) -> String {
    // Lines that only say that there were errors, and in which file.
    let empty = |line: &String| {
        line.ends_with("Fatal errors found in configuration.") || line.contains("Error(s) found in")
    };
    let mut lines = lines_of(text, &["[ALERT]"]);
    if lines.iter().any(|line| !empty(line)) {
        lines.retain(|line| !empty(line));
    }
    if lines.is_empty() { text.trim().to_owned() } else { lines.join("\n") }
}

/// The lines of these levels, without the number of the process: `[ALERT]    (12) : text`.
fn lines_of(text: &str, levels: &[&str]) -> Vec<String> {
    let line = |line: &str| {
        let level = levels.iter().find(|level| line.starts_with(**level))?;
        let rest = line.strip_prefix(level)?.trim_start();
        let plain = rest.split_once(") : ").filter(|(before, _)| before.starts_with('('));
        Some(format!("{level} {}", plain.map_or(rest, |(_, rest)| rest).trim()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "\
[NOTICE]   (1489) : haproxy version is 2.6.12-1+deb12u4
[NOTICE]   (1489) : path to executable is /usr/sbin/haproxy
[WARNING]  (1489) : config : missing timeouts for backend 'b'.
[ALERT]    (1489) : config : parsing [/x/.a.cfg.confsync-1:16] : unknown keyword 'bogus' in 'backend' section
[ALERT]    (1489) : config : Error(s) found in configuration file : /x/.a.cfg.confsync-1
[ALERT]    (1489) : config : Fatal errors found in configuration.";

    #[test]
    fn the_reason_is_what_an_operator_can_use() {
        let paths = StagedPaths {
            dest: "/x/a.cfg".into(),
            real: "/x/a.cfg".into(),
            staged: "/x/.a.cfg.confsync-1".into(),
        };
        assert_eq!(
            translate(&reason(REFUSED), &[paths]),
            "[ALERT] config : parsing [/x/a.cfg:16] : unknown keyword 'bogus' in 'backend' section"
        );
        assert_eq!(reason("out of memory\n"), "out of memory");
        let warnings = lines_of(REFUSED, &["[WARNING]"]);
        assert_eq!(warnings, ["[WARNING] config : missing timeouts for backend 'b'."]);
    }
}
