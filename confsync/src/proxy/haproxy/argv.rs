//! Parses a command line of HAProxy: `haproxy -W -f FILE -p PID -S SOCKET`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The options of a command line that matter for a check and a reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HaproxyArgv {
    /// The program.
    pub binary: PathBuf,
    /// `-f` and what follows `--`: files and folders, in order.
    pub conf: Vec<PathBuf>,
    /// `-C`: the folder that relative names are resolved against.
    pub directory: Option<PathBuf>,
    /// `-S`, without its options: the socket of the master.
    pub master_socket: Option<PathBuf>,
    /// `-W` or `-Ws`: there is a master, which stays in the foreground.
    pub has_master: bool,
}

impl HaproxyArgv {
    /// Reads a command line; `None` if its program is not called haproxy.
    pub fn read(argv: &[OsString]) -> Option<Self> {
        let (program, rest) = argv.split_first()?;
        if Path::new(program).file_name()? != "haproxy" {
            return None;
        }
        let mut parsed = Self { binary: program.into(), ..Self::default() };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                parsed.conf.extend(rest.by_ref().map(PathBuf::from));
            }
            parsed.option(word.as_bytes(), &mut rest);
        }
        Some(parsed)
    }

    /// Whether both mean the same HAProxy: a reload adds options of its own.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let identity = |argv: &Self| (argv.conf.clone(), argv.directory.clone(), argv.has_master);
        identity(self) == identity(other)
    }

    /// The command line of a process, as /proc has it.
    pub fn of_process(pid: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        Self::read(&words.map(|word| OsString::from_vec(word.to_vec())).collect::<Vec<_>>())
    }

    /// HAProxy takes one option per argument, and its value from the next. `-sf` and `-st` take
    /// numbers, which do not begin an option.
    fn option<'a>(&mut self, word: &[u8], rest: &mut impl Iterator<Item = &'a OsString>) {
        let mut path = || rest.next().map(PathBuf::from);
        match word {
            b"-f" => self.conf.extend(path()),
            b"-C" => self.directory = path(),
            b"-S" => self.master_socket = path().and_then(|path| socket(&path)),
            b"-p" | b"-n" | b"-m" | b"-N" | b"-L" | b"-x" => drop(path()),
            b"-W" | b"-Ws" => self.has_master = true,
            _ => {}
        }
    }
}

/// The path in an address such as `unix@/run/x.sock,mode,600`.
pub(super) fn socket(address: &Path) -> Option<PathBuf> {
    let text = address.to_str()?;
    let text = text.split(',').next().unwrap_or(text);
    let path = text.strip_prefix("unix@").unwrap_or(text);
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<HaproxyArgv> {
        HaproxyArgv::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_as_haproxy_takes_them() {
        let line = "/usr/sbin/haproxy -sf 12 13 -x sockpair@3 -Ws -f a.cfg -C /etc/haproxy \
                    -p /run/h.pid -S unix@/run/m.sock,mode,600 -dM -- b.cfg d";
        let argv = read(line).unwrap();
        assert_eq!(argv.binary, Path::new("/usr/sbin/haproxy"));
        assert_eq!(argv.conf, ["a.cfg", "b.cfg", "d"].map(PathBuf::from));
        assert_eq!(argv.directory.as_deref(), Some(Path::new("/etc/haproxy")));
        assert_eq!(argv.master_socket.as_deref(), Some(Path::new("/run/m.sock")));
        assert!(argv.has_master);
        assert!(!read("haproxy -D -f -W").unwrap().has_master);
        assert_eq!(read("haproxy -S 127.0.0.1:99").unwrap().master_socket, None);
        assert_eq!(read("nginx -c x"), None);
        assert_eq!(HaproxyArgv::read(&[]), None);
    }
}
