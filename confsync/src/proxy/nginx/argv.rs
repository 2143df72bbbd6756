//! What a command line for nginx says about it: `nginx -c FILE -p PREFIX -g TEXT`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The options of a command line that matter for a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Argv {
    /// The program.
    pub binary: PathBuf,
    /// `-c`
    pub conf: Option<PathBuf>,
    /// `-p`
    pub prefix: Option<PathBuf>,
    /// `-g`
    pub globals: Option<String>,
}

impl Argv {
    /// Reads a command line; `None` if its program is not called nginx (or openresty,
    /// angie, tengine, which are nginx under other names).
    #[must_use]
    pub fn read(argv: &[OsString]) -> Option<Self> {
        const NAMES: [&str; 5] = ["nginx", "nginx-debug", "openresty", "angie", "tengine"];
        let (program, rest) = argv.split_first()?;
        let binary = PathBuf::from(program);
        let name = Path::new(program).file_name()?;
        if !NAMES.iter().any(|known| name == *known) {
            return None;
        }
        let mut told = Self { binary, ..Self::default() };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            told.option(word.as_bytes(), &mut rest);
        }
        Some(told)
    }

    /// nginx takes letters together, and a value in the same word or the next.
    fn option<'a>(&mut self, word: &[u8], rest: &mut impl Iterator<Item = &'a OsString>) {
        let Some(letters) = word.strip_prefix(b"-") else { return };
        for (at, letter) in letters.iter().enumerate() {
            if !b"cpges".contains(letter) {
                continue;
            }
            let value = match letters.get(at + 1..) {
                Some(value) if !value.is_empty() => Some(OsString::from_vec(value.to_vec())),
                _ => rest.next().cloned(),
            };
            match letter {
                b'c' => self.conf = value.map(PathBuf::from),
                b'p' => self.prefix = value.map(PathBuf::from),
                b'g' => self.globals = value.map(|v| v.to_string_lossy().into_owned()),
                _ => {}
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Option<Argv> {
        Argv::read(&line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_as_nginx_takes_them() {
        let told = read(&["/usr/sbin/nginx", "-g", "daemon off;", "-c/etc/n.conf", "-qp", "/p"]);
        let told = told.unwrap();
        assert_eq!(told.binary, Path::new("/usr/sbin/nginx"));
        assert_eq!(told.globals.as_deref(), Some("daemon off;"));
        assert_eq!(told.conf.as_deref(), Some(Path::new("/etc/n.conf")));
        assert_eq!(told.prefix.as_deref(), Some(Path::new("/p")));
        assert_eq!(read(&["nginx", "-g"]).unwrap().globals, None);
        assert_eq!(read(&["haproxy", "-c", "x"]), None);
        assert_eq!(read(&[]), None);
    }
}
