//! Where status is served: an address, or a unix socket with its mode.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

/// The default mode of a unix socket: its owner and its group may connect.
const MODE: u32 = 0o660;

/// Where status is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address of this machine.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix {
        path: PathBuf,
        /// Who may connect: those who may write to it.
        mode: u32,
    },
}

impl FromStr for ListenAddress {
    type Err = String;

    /// `address:port`; `localhost:port`; `:port` for every address of the machine;
    /// `unix:/path`, `unix:/path,mode=660`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        let parsed = text.rsplit_once(':').and_then(|(host, port)| match host {
            "" => format!("0.0.0.0:{port}").parse().ok(),
            "localhost" => format!("127.0.0.1:{port}").parse().ok(),
            _ => text.parse().ok(),
        });
        parsed.map(Self::Tcp).ok_or_else(|| {
            format!(
                "`{}` is not an address; write 127.0.0.1:9180, :9180 for all, or unix:/run/NAME.sock",
                text.escape_debug()
            )
        })
    }
}

fn unix(text: &str) -> Result<ListenAddress, String> {
    let (path, mode) = match text.rsplit_once(",mode=") {
        None => (text, MODE),
        Some((path, mode)) => {
            let octal = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
            let problem = || format!("`{}` is not a mode; write 660", mode.escape_debug());
            (path, octal.ok_or_else(problem)?)
        }
    };
    // 108 bytes of `sun_path`, the last one being zero; our own suffix before the rename.
    if !path.starts_with('/') || path.len() + SUFFIX.len() > 107 || path.contains('\0') {
        return Err(format!(
            "`{}` is not the absolute path of a unix socket (at most {} bytes)",
            path.escape_debug(),
            107 - SUFFIX.len()
        ));
    }
    Ok(ListenAddress::Unix { path: path.into(), mode })
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        #[expect(dead_code, reason = "dropped with the listener, which removes the file")]
        file: SocketFile,
    },
}

/// The file of a unix socket; it goes when the listener does.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be removed already, and there is no one left to report an error to.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    pub(super) async fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(addr) => TcpListener::bind(addr).await.map(Self::Tcp),
            ListenAddress::Unix { path, mode } => bind_unix(path, *mode),
        }
    }

    /// The address taken, where a port was left open.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }
}

const SUFFIX: &str = ".new";

/// The socket appears under its name with its mode, never before it has it; one that an
/// earlier process left is replaced, one that answers is not.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let problem = format!("{} exists and is not a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    let mut new = path.as_os_str().to_owned();
    new.push(SUFFIX);
    let new = PathBuf::from(new);
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    let _unless_renamed = SocketFile(new.clone());
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&new, path)?;
    Ok(Listener::Unix { listener, file: SocketFile(path.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        let at = |text: &str| text.parse::<ListenAddress>().map(|addr| addr.to_string());
        assert_eq!(at("127.0.0.1:8080").as_deref(), Ok("127.0.0.1:8080"));
        assert_eq!(at("[::1]:8080").as_deref(), Ok("[::1]:8080"));
        assert_eq!(at(":8080").as_deref(), Ok("0.0.0.0:8080"));
        assert_eq!(at("localhost:8080").as_deref(), Ok("127.0.0.1:8080"));
        assert_eq!(at("unix:/run/x.sock,mode=600").as_deref(), Ok("unix:/run/x.sock"));
        for wrong in ["", "8080", "lb:8080", ":99999", "127.0.0.1"] {
            assert!(at(wrong).is_err_and(|why| why.contains(":9180")), "{wrong}");
        }
        for (wrong, part) in [
            ("unix:x.sock", "absolute path"),
            ("unix:/x,mode=8", "write 660"),
            ("unix:/x,mode=1777", "write 660"),
        ] {
            assert!(at(wrong).is_err_and(|why| why.contains(part)), "{wrong}");
        }
        assert!(at(&format!("unix:/{}", "x".repeat(110))).is_err());
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_replaces_a_stale_one_and_goes_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let address = ListenAddress::Unix { path: path.clone(), mode: 0o600 };
        // Left by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&address).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Listener::bind(&address).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
