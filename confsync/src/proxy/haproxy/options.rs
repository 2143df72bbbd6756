//! The keywords that the servers of a backend inherit from its `default-server` lines. HAProxy
//! applies them only to servers in its files: one that is added at run time needs them in the
//! command.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::command::Word;
use super::conf::{SECTIONS, lines};

/// The keywords for a server that is added to this backend, according to these files.
///
/// # Errors
/// When a keyword is unknown or cannot be sent.
pub(super) fn server_options(files: &[PathBuf], backend: &str) -> Result<Vec<Word>, String> {
    let mut reader = DefaultServerReader::default();
    for file in files {
        let text = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        reader.read(&String::from_utf8_lossy(&text), backend);
    }
    let found =
        reader.found.ok_or_else(|| format!("there is no backend {backend} in its files"))?;
    let word = |text: &String| {
        let word = Word::option(text);
        word.ok_or_else(|| {
            format!("`{text}` of `default-server` cannot be sent to a running HAProxy")
        })
    };
    found.iter().map(word).collect()
}

#[derive(Default)]
struct DefaultServerReader {
    /// The keywords of each `defaults` with a name, and of the last one.
    named: BTreeMap<String, Vec<String>>,
    last: Vec<String>,
    section: Section,
    found: Option<Vec<String>>,
}

#[derive(Default)]
enum Section {
    #[default]
    Other,
    Defaults(Option<String>),
    Wanted,
}

impl DefaultServerReader {
    fn read(&mut self, text: &str, backend: &str) {
        for line in lines(text) {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            match line.as_slice() {
                ["defaults", rest @ ..] => {
                    let name = rest.first().filter(|word| **word != "from");
                    self.last = self.parent(rest).unwrap_or_default();
                    self.section = Section::Defaults(name.map(|name| (*name).to_owned()));
                    self.keep();
                }
                ["backend" | "listen", name, rest @ ..] if *name == backend => {
                    let parent = self.parent(rest).unwrap_or_else(|| self.last.clone());
                    (self.section, self.found) = (Section::Wanted, Some(parent));
                }
                [section, ..] if SECTIONS.contains(section) => self.section = Section::Other,
                ["default-server", more @ ..] => self.add(more),
                _ => {}
            }
        }
    }

    /// The section that `from NAME` refers to.
    fn parent(&self, rest: &[&str]) -> Option<Vec<String>> {
        let name = rest.iter().skip_while(|word| **word != "from").nth(1)?;
        self.named.get(*name).cloned()
    }

    fn add(&mut self, more: &[&str]) {
        let more = more.iter().map(|word| (*word).to_owned());
        match &self.section {
            Section::Other => {}
            Section::Defaults(_) => {
                self.last.extend(more);
                self.keep();
            }
            Section::Wanted => self.found.get_or_insert_default().extend(more),
        }
    }

    fn keep(&mut self) {
        if let Section::Defaults(Some(name)) = &self.section {
            self.named.insert(name.clone(), self.last.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(files: &[&str], backend: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |(nth, text): (usize, &&str)| {
            let path = folder.path().join(nth.to_string());
            fs::write(&path, text).unwrap();
            path
        };
        let paths: Vec<PathBuf> = files.iter().enumerate().map(write).collect();
        let words = server_options(&paths, backend)?;
        Ok(words.iter().map(Word::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn of_the_defaults_in_force_and_of_the_backend_itself() {
        let first = "defaults base\n default-server inter 1s\ndefaults\n default-server inter 5s\n";
        let second = "frontend f\n default-server no\nbackend a\n default-server check # why\n\
                      \n default-server weight 10 fall 2\n server x 1.2.3.4:1 backup\n\
                      backend b from base\n server y 1.2.3.4:1\nlisten c\n";
        let files = [first, second];
        assert_eq!(options(&files, "a").unwrap(), "inter 5s check weight 10 fall 2");
        assert_eq!(options(&files, "b").unwrap(), "inter 1s");
        assert_eq!(options(&files, "c").unwrap(), "inter 5s");
        assert!(options(&files, "d").unwrap_err().contains("no backend d"));
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        for bad in ["sni 'req.hdr(a b)'", "sni \"$X\"", "cookie a\\;b"] {
            let text = format!("backend a\n default-server {bad}\n");
            assert!(options(&[&text], "a").unwrap_err().contains("cannot be sent"), "{bad}");
        }
        let text = "backend a\n default-server ssl crt @x/y ca-file /etc/ca.pem sni str(a.b)\n";
        assert_eq!(options(&[text], "a").unwrap(), "ssl crt @x/y ca-file /etc/ca.pem sni str(a.b)");
    }
}
