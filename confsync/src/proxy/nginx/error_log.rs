//! The master's messages about a configuration that it rejected, from its error log.
//!
//! They explain a result and are no part of the proof: the log may be elsewhere, rotated or
//! unreadable.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Nginx;

/// At most this much of a log is read, from its end.
const MOST: u64 = 64 * 1024;
/// At most this many lines are reported: five attempts at twenty ports would give a hundred.
const LINES: usize = 8;

/// The end of each log before the signal.
#[derive(Debug)]
pub(super) struct LogPositions {
    files: Vec<(PathBuf, LogPosition)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LogPosition {
    file: (u64, u64),
    length: u64,
}

impl Nginx {
    /// Notes the end of each log. Only of regular files: a log may be a terminal or a pipe, where a
    /// read would block.
    pub(super) fn mark_logs(&self) -> LogPositions {
        let place = |log: &PathBuf| match fs::metadata(log) {
            Ok(meta) if meta.is_file() => {
                Some(LogPosition { file: (meta.dev(), meta.ino()), length: meta.len() })
            }
            Ok(_) => None,
            Err(_) => Some(LogPosition::default()),
        };
        let logs = self.error_logs().into_iter();
        let files = logs.filter_map(|log| place(&log).map(|place| (log, place))).collect();
        LogPositions { files }
    }
}

impl LogPositions {
    /// The severe messages that this master has logged since.
    pub(super) fn messages(&self, master: i32) -> Vec<String> {
        self.lines(|line| grave(line).filter(|(pid, _)| *pid == master).map(|(_, text)| text))
    }

    /// The severe messages that any process has logged since, workers that failed to start
    /// included.
    pub(super) fn messages_of_all(&self) -> Vec<String> {
        self.lines(|line| grave(line).map(|(_, text)| text))
    }

    fn lines(&self, pick: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let mut messages = Vec::new();
        for (log, place) in &self.files {
            let text = since(log, *place).unwrap_or_default();
            messages.extend(String::from_utf8_lossy(&text).lines().filter_map(&pick));
        }
        // Five attempts to bind give the same message five times.
        let mut seen = std::collections::BTreeSet::new();
        messages.retain(|line| seen.insert(line.clone()));
        messages.truncate(LINES);
        messages
    }
}

fn since(log: &PathBuf, place: LogPosition) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let meta = file.metadata()?;
    let same = (meta.dev(), meta.ino()) == place.file && meta.len() >= place.length;
    let from = if same { place.length } else { 0 };
    file.seek(SeekFrom::Start(from.max(meta.len().saturating_sub(MOST))))?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

/// The pid, and level and text of a line, if it is severe:
/// `2026/01/31 10:00:00 [emerg] 123#123: bind() to …`.
fn grave(line: &str) -> Option<(i32, String)> {
    let (_, rest) = line.split_once(" [")?;
    let (level, rest) = rest.split_once("] ")?;
    let (who, text) = rest.split_once(": ")?;
    let (pid, _) = who.split_once('#')?;
    // The end of a worker is an alert too, but is not about the configuration.
    let of_a_worker = text.contains(" process ") && text.contains(" exited ");
    let is_grave = matches!(level, "emerg" | "alert" | "crit") && !of_a_worker;
    is_grave.then_some((pid.parse().ok()?, format!("[{level}] {text}")))
}

/// Whether a message means that this configuration was given up; a failed bind is retried four
/// times, and only the last message counts.
pub(super) fn is_final(line: &str) -> bool {
    line.starts_with("[emerg]") && !(line.contains("bind() to ") && line.contains(" failed ("))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grave_lines() {
        assert_eq!(
            grave("2026/01/31 10:00:00 [emerg] 12#12: still could not bind()"),
            Some((12, "[emerg] still could not bind()".to_owned()))
        );
        for other in [
            "2026/01/31 10:00:00 [notice] 12#12: reconfiguring",
            "2026/01/31 10:00:00 [alert] 12#12: worker process 14 exited on signal 11",
            "[emerg]",
            "",
        ] {
            assert_eq!(grave(other), None, "{other}");
        }
    }

    #[test]
    fn a_failed_bind_is_not_the_last_word() {
        assert!(!is_final("[emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)"));
        assert!(is_final("[emerg] still could not bind()"));
        assert!(is_final("[emerg] limit_req \"q\" uses the \"$a\" key"));
        assert!(!is_final("[crit] ngx_slab_alloc() failed"));
    }

    #[test]
    fn only_what_came_since_and_after_a_rotation_all() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("error.log");
        fs::write(&log, "old\n").unwrap();
        let meta = fs::metadata(&log).unwrap();
        let place = LogPosition { file: (meta.dev(), meta.ino()), length: meta.len() };
        fs::write(&log, "old\nnew\n").unwrap();
        assert_eq!(since(&log, place).unwrap(), b"new\n");
        fs::rename(&log, folder.path().join("error.log.1")).unwrap();
        fs::write(&log, "rotated\n").unwrap();
        assert_eq!(since(&log, place).unwrap(), b"rotated\n");
        assert_eq!(since(&log, LogPosition::default()).unwrap(), b"rotated\n");
    }
}
