//! The report of a failing scenario: every process with its command, its end and its
//! output, what the parts add (keys in etcd), the folder, and the files in it that
//! people write or read.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::Shared;

const MOST_FILES: usize = 200;
const MOST_TEXT: usize = 6_000;
const SHOWN: [&str; 6] = ["conf", "toml", "tmpl", "hbs", "log", "cfg"];

/// Everything, as text.
pub(crate) fn render(shared: &Shared) -> String {
    let mut text = String::from("\n======== report ========\n");
    let processes = shared.processes.lock().map(|all| all.clone()).unwrap_or_default();
    for process in &processes {
        let end = process.exit().map_or_else(|| "running".to_owned(), |exit| exit.to_string());
        let _ = writeln!(text, "---- {} (pid {}): {end}", process.name(), process.pid());
        let _ = writeln!(text, "$ {}", process.line());
        text.push_str(tail(&process.log()));
    }
    for reporter in shared.reporters.lock().iter().flat_map(|all| all.iter()) {
        text.push_str(tail(&reporter()));
    }
    let files = files_below(&shared.path);
    let _ = writeln!(text, "---- files below {}", shared.path.display());
    for file in &files {
        let size = fs::metadata(file).map_or(0, |meta| meta.len());
        let _ = writeln!(text, "{size:>9}  {}", name_of(file, &shared.path));
    }
    for file in files.iter().filter(|file| is_shown(file)) {
        let _ = writeln!(text, "---- {}", name_of(file, &shared.path));
        text.push_str(tail(&fs::read_to_string(file).unwrap_or_else(|e| format!("({e})\n"))));
    }
    text.push_str("======== end of report ========\n");
    text
}

fn name_of(file: &Path, root: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

fn is_shown(file: &Path) -> bool {
    file.extension().is_some_and(|ending| SHOWN.iter().any(|shown| ending == *shown))
}

/// The end of a long text: what happened last matters most.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MOST_TEXT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or(text)
}

/// Files below `root`, sorted, without etcd's own.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && entry.file_name() != "member" {
                folders.push(path);
            } else if !is_dir && found.len() < MOST_FILES {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
