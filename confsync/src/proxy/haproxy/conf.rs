//! HAProxy's configuration, as far as it has to be read: which files it consists of, its pid file
//! and its admin socket.

use std::fs;
use std::path::{Path, PathBuf};

use super::argv::socket;

/// The settings of the global section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Global {
    /// `pidfile`
    pub(super) pid_file: Option<PathBuf>,
    /// The first `stats socket` that is a file, and whether it has level admin.
    pub(super) socket: Option<(PathBuf, bool)>,
}

/// The files that HAProxy reads for these `-f` arguments, in its order: of a folder those that end
/// in `.cfg` and do not begin with a dot. `more` are about to exist.
pub(super) fn files(conf: &[PathBuf], more: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in conf {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let there = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let new = more.iter().filter(|file| file.parent() == Some(path)).cloned();
        let mut found: Vec<PathBuf> = there.chain(new).filter(|file| is_read(file)).collect();
        found.sort();
        found.dedup();
        all.extend(found);
    }
    all
}

fn is_read(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    !hidden && !file.is_dir() && file.extension().is_some_and(|ending| ending == "cfg")
}

/// Reads the global sections of these files; one that cannot be read is skipped.
pub(super) fn global(files: &[PathBuf]) -> Global {
    let mut found = Global::default();
    for file in files {
        let text = fs::read(file).unwrap_or_default();
        for section in global_sections(&text) {
            found.read(&String::from_utf8_lossy(section));
        }
    }
    found
}

/// What follows each `global` at the beginning of a line. It is searched for as bytes: the file may
/// have a line for each of thousands of servers, and is read for each change of them.
fn global_sections(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let begins_line = |at: &usize| {
        let before = text.get(..*at).unwrap_or_default();
        let before = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        before.iter().all(u8::is_ascii_whitespace)
    };
    let found = memchr::memmem::find_iter(text, "global").filter(begins_line);
    found.filter_map(|at| text.get(at..))
}

impl Global {
    /// Reads a section, which begins with its keyword.
    fn read(&mut self, text: &str) {
        let mut lines = lines(text);
        if lines.next().and_then(|line| line.into_iter().next()).as_deref() != Some("global") {
            return;
        }
        for line in lines {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            match line.as_slice() {
                [section, ..] if SECTIONS.contains(section) => return,
                ["pidfile", path, ..] => self.pid_file = Some(path.into()),
                ["stats", "socket", address, options @ ..] => {
                    let admin = options.windows(2).any(|pair| pair == ["level", "admin"]);
                    let path = socket(Path::new(address));
                    let better = self.socket.as_ref().is_none_or(|(_, is)| admin && !is);
                    if let Some(path) = path.filter(|_| better) {
                        self.socket = Some((path, admin));
                    }
                }
                _ => {}
            }
        }
    }
}

/// The keywords that begin a section.
pub(super) const SECTIONS: [&str; 18] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
];

/// The words of each line that may be of interest here: the lines of servers, of which there may be
/// thousands, are left out.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Vec<String>> {
    let is_server = |line: &&str| line.trim_start().starts_with("server ");
    text.lines().filter(move |line| !is_server(line)).map(words)
}

/// The words of a line, without quotes, backslashes and comment.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '#') => break,
            (None, c) if c.is_whitespace() => {
                if open {
                    all.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (None, '"' | '\'') => (quote, open) = (Some(c), true),
            (Some(with), c) if c == with => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => {
                word.extend(chars.next());
                open = true;
            }
            (_, c) => {
                word.push(c);
                open = true;
            }
        }
    }
    if open {
        all.push(word);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_haproxy_splits_them() {
        assert_eq!(words("  server a\t1.2.3.4:80 # x"), ["server", "a", "1.2.3.4:80"]);
        assert_eq!(
            words(r#"a "b c"'d "e' f\ g \#h "" i"#),
            ["a", r#"b cd "e"#, "f g", "#h", "", "i"]
        );
        assert!(words("   # nothing").is_empty());
    }

    #[test]
    fn what_the_global_section_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let text = "# global\ndefaults\n  log global\nglobals\n  pidfile /no\n global # ours\n  \
             pidfile /run/x.pid\n  stats socket ipv4@127.0.0.1:9 level admin\n  \
             stats socket /run/user.sock mode 660\ndefaults\n  pidfile /no\nglobal\n  \
             stats socket unix@/run/a.sock level admin\nlisten x\n  stats socket /no level admin\n";
        std::fs::write(&file, text).unwrap();
        let global = global(&[file, folder.path().join("missing.cfg")]);
        assert_eq!(global.pid_file.as_deref(), Some(Path::new("/run/x.pid")));
        assert_eq!(global.socket, Some(("/run/a.sock".into(), true)));
    }

    #[test]
    fn the_files_of_a_folder_in_haproxys_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["b.cfg", "a.cfg", ".c.cfg", "d.cfg.bak"] {
            std::fs::write(at(name), "").unwrap();
        }
        let conf = [at("x.cfg"), folder.path().into()];
        let more = [at("aa.cfg"), at("b.cfg"), "/elsewhere/z.cfg".into()];
        assert_eq!(files(&conf, &more), ["x.cfg", "a.cfg", "aa.cfg", "b.cfg"].map(at));
    }
}
