//! Whether the operator's own `log_by_lua*` takes the place of one at http level: nginx runs
//! the innermost one only. Reads the configuration as nginx would, and changes nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::conf::{Directive, parse};
use super::{Nginx, include};
use crate::install::{StagedPaths, real_path};

/// Deeper includes nginx itself would not read: it runs out of open files on a circle.
const MAX_DEPTH: usize = 16;

impl Nginx {
    /// Why requests cannot be counted: the first `log_by_lua*` inside of a server or location, with
    /// its place; with the staged files in the places of their dests.
    pub(crate) fn uncountable(&self, staged: Vec<StagedPaths>) -> Option<String> {
        let walk = LogPhaseSearch {
            base: self.conf.parent().unwrap_or(Path::new("/")),
            reals: staged.iter().map(|paths| paths.real.clone()).collect(),
            staged: &staged,
        };
        let found = walk.look(&self.conf, &[], 0)?;
        Some(format!(
            "requests cannot be counted: {found} takes the place of confsync's own log_by_lua_block"
        ))
    }
}

struct LogPhaseSearch<'a> {
    /// Relative names are resolved against it.
    base: &'a Path,
    staged: &'a [StagedPaths],
    reals: Vec<PathBuf>,
}

impl LogPhaseSearch<'_> {
    /// Looks into a file that is included in these blocks.
    fn look(&self, file: &Path, outer: &[Vec<u8>], depth: usize) -> Option<String> {
        let real = real_path(file);
        let paths = self.staged.iter().find(|paths| paths.real == real);
        let text = fs::read(paths.map_or(file, |paths| &paths.staged)).ok()?;
        // What nginx cannot read is not in use.
        let directives = parse(&text).ok()?;
        let mut blocks = outer.to_vec();
        for directive in directives {
            blocks.truncate(outer.len() + directive.depth);
            if is_log_phase(&directive) && blocks.len() > 1 && blocks.first()? == b"http" {
                let before = text.get(..directive.span.start).unwrap_or_default();
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                let name = String::from_utf8_lossy(&directive.name).into_owned();
                let file = paths.map_or(file, |paths| &paths.dest);
                return Some(format!("{name} in {}:{line}", file.display()));
            }
            if *directive.name == *b"include" && depth < MAX_DEPTH {
                let pattern = directive.args.first().map(|word| OsStr::from_bytes(word))?;
                let files = include::expand(&self.base.join(pattern), &self.reals);
                let found = files.iter().find_map(|file| self.look(file, &blocks, depth + 1));
                if found.is_some() {
                    return found;
                }
            }
            if directive.block {
                blocks.push(directive.name.into_owned());
            }
        }
        None
    }
}

fn is_log_phase(directive: &Directive<'_>) -> bool {
    directive.name.starts_with(b"log_by_lua")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[(&str, &str)]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let walk = LogPhaseSearch { base: folder.path(), staged: &[], reals: Vec::new() };
        let found = walk.look(&folder.path().join("nginx.conf"), &[], 0);
        found.map(|found| found.replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn inside_of_a_server_it_hides_the_one_of_the_http_level() {
        let lua = "\nlog_by_lua_block { if x then f() end }";
        let own = format!("http {{ {lua} server {{ location / {{ }} }} }}");
        assert_eq!(find(&[("nginx.conf", &own)]), None, "beside ours, which nginx itself refuses");
        let server = format!("http {{ server {{ listen 1; {lua} }} }}");
        let found = find(&[("nginx.conf", &server)]);
        assert_eq!(found, Some("log_by_lua_block in nginx.conf:2".into()));
        let (main, site) = ("http {\ninclude s*; }", "server { location / { include in.x; } }");
        let files = [("nginx.conf", main), ("site", site), ("in.x", "log_by_lua_file /a;")];
        assert_eq!(find(&files), Some("log_by_lua_file in in.x:1".into()));
        assert_eq!(find(&files[..2]), None);
        let stream = "stream { server { log_by_lua_block { } } }\nhttp { }";
        assert_eq!(find(&[("nginx.conf", stream)]), None, "no request of http is there");
    }
}
