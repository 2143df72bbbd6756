//! A check of a service: what is asked, and what a good answer is. Pure: no I/O.

use std::fmt;
use std::path::PathBuf;

use common::model::EndpointError;

use super::statuses::Statuses;

/// One check of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Always healthy.
    None,
    /// A connection is accepted.
    Tcp(ProbeAddress),
    /// An HTTP answer is as expected.
    Http(Box<HttpCheck>),
    /// A command ends with 0.
    Exec(Vec<String>),
}

/// Why a text is not a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Nothing known begins like this.
    #[error(
        "`{0}` is not a check; write http://…, https://…, h2c://…, tcp, unix:/path, exec:CMD, \
         none, or a /path"
    )]
    Unknown(String),
    /// Usually an unset variable in a unit file.
    #[error("`{0}` has no host; is a variable in the unit file unset?")]
    NoHost(String),
    /// `tcp://host` does not say which port.
    #[error("`{0}` has no port from 1 to 65535")]
    NoPort(String),
    /// Everybody on the machine can read a command line.
    #[error("a user or password in a check's URL would be visible in the process list")]
    Secret,
    /// The URL is broken in another way.
    #[error("`{url}` is not a URL: {why}")]
    Url {
        /// What was written.
        url: String,
        /// The parser's message.
        why: url::ParseError,
    },
    /// The host or port after `tcp://` is not one.
    #[error("`{text}`: {why}")]
    Endpoint {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: EndpointError,
    },
    /// The socket's path is relative, or too long for the kernel.
    #[error("`{0}` is not the absolute path of a unix socket (at most 107 bytes)")]
    Socket(String),
    /// `exec:` with nothing after it.
    #[error("`exec:` names no command")]
    NoCommand,
    /// A quote is not closed.
    #[error("`{0}` has a quote without its partner")]
    Quote(String),
    /// What only a shell understands.
    #[error(
        "`exec:` runs the command without a shell, which `{operator}` needs; write exec:sh -c {quoted}"
    )]
    Shell {
        /// The first of it.
        operator: String,
        /// The whole command, as an argument of a shell.
        quoted: String,
    },
}

/// Where a check connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAddress {
    /// An address or a name (IPv6 without brackets), and a port.
    Port {
        /// IP address or DNS name.
        host: String,
        /// 1–65535.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// The version of HTTP, and whether in TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 in TLS.
    Https,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

/// An HTTP check, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The version of HTTP, and whether it runs over TLS.
    pub scheme: Scheme,
    pub address: ProbeAddress,
    /// The `Host` header.
    pub authority: String,
    /// The name that the certificate must have, also sent as SNI.
    pub server_name: String,
    /// Path and query.
    pub path: String,
    /// Which statuses are healthy.
    pub expect: Statuses,
    /// What the first 64 KiB of the body must contain.
    pub body: Option<String>,
    /// The only CA certificates trusted, in PEM form.
    pub ca: Option<PathBuf>,
    /// Whether any certificate is taken.
    pub insecure: bool,
}

/// What applies to all HTTP checks of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// Which statuses are healthy.
    pub expect: Statuses,
    /// What the body must contain.
    pub body: Option<String>,
    /// Another `Host` header (and certificate name) than the URL's.
    pub host: Option<String>,
    /// The only CA certificates trusted.
    pub ca: Option<PathBuf>,
    /// Whether any certificate is taken.
    pub insecure: bool,
}

impl Check {
    /// What is probed, for a page that strangers may see: a query of a URL and the arguments of a
    /// command may hold secrets, and are left out.
    pub fn shown(&self) -> String {
        match self {
            Self::None => "none: always healthy".to_owned(),
            Self::Exec(argv) => {
                let program = argv.first().map_or("", String::as_str);
                let more = if argv.len() > 1 { " …" } else { "" };
                format!("exec:{program}{more}")
            }
            Self::Tcp(_) => self.to_string(),
            Self::Http(_) => {
                let text = self.to_string();
                let bare = text.split_once('?').map(|(bare, _)| format!("{bare}?…"));
                bare.unwrap_or(text)
            }
        }
    }

    /// Whether it needs TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Http(http) if http.scheme == Scheme::Https)
    }
}

impl fmt::Display for ProbeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Port { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        })
    }
}

impl fmt::Display for Check {
    /// As it can be written after `--check`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp(address @ ProbeAddress::Port { .. }) => write!(f, "tcp://{address}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Http(http) => match &http.address {
                ProbeAddress::Unix(_) => {
                    write!(f, "{}://{}:{}", http.scheme, http.address, http.path)
                }
                ProbeAddress::Port { .. } => {
                    write!(f, "{}://{}{}", http.scheme, http.address, http.path)
                }
            },
            Self::Exec(argv) => {
                let words = shlex::try_join(argv.iter().map(String::as_str));
                write!(f, "exec:{}", words.unwrap_or_default())
            }
        }
    }
}
