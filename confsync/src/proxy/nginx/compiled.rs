//! nginx's build settings, from `nginx -V`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::proxy::command::{Command, CommandError};

const DEADLINE: Duration = Duration::from_secs(10);

/// How a server of nginx is configured for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsServer {
    /// It cannot.
    Unknown,
    /// With HTTP/1 only.
    Http1,
    /// `listen … ssl http2`.
    Http2Listen,
    /// `http2 on`: the other form is a warning at each start.
    Http2Directive,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compiled {
    pub(super) prefix: PathBuf,
    pub(super) conf: PathBuf,
    pub(super) pid_file: PathBuf,
    pub(super) error_log: PathBuf,
    pub(super) user: String,
    pub(super) tls_server: TlsServer,
}

impl Compiled {
    pub(super) async fn ask(binary: &Path) -> Result<Self, CommandError> {
        let outcome = Command::argv(binary, ["-V"], DEADLINE).run().await?;
        Ok(Self::read(&outcome.output.text))
    }

    /// What it does not list has the default of nginx's `configure`.
    fn read(text: &str) -> Self {
        let configured = |name: &str| {
            let words = text.split_ascii_whitespace().map(|word| word.trim_matches('\''));
            let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next().map(PathBuf::from)
        };
        let prefix = configured("--prefix").unwrap_or_else(|| "/usr/local/nginx".into());
        let under = |built_in: Option<PathBuf>, usual: &str| {
            prefix.join(built_in.unwrap_or_else(|| usual.into()))
        };
        Self {
            conf: under(configured("--conf-path"), "conf/nginx.conf"),
            pid_file: under(configured("--pid-path"), "logs/nginx.pid"),
            error_log: under(configured("--error-log-path"), "logs/error.log"),
            user: configured("--user")
                .map_or_else(|| "nobody".to_owned(), |user| user.to_string_lossy().into_owned()),
            tls_server: tls_server(text),
            prefix,
        }
    }
}

/// No file is refused in one form by all and taken in the other, so that the number has to say it.
fn tls_server(text: &str) -> TlsServer {
    if !text.contains("--with-http_ssl_module") {
        return TlsServer::Unknown;
    } else if !text.contains("--with-http_v2_module") {
        return TlsServer::Http1;
    }
    // `nginx version: nginx/1.22.1`, `nginx version: openresty/1.25.3.1`
    let version = text.split("nginx version: ").nth(1).and_then(|rest| rest.split('/').nth(1));
    let numbers = version.unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u32> = numbers.take(3).filter_map(|number| number.parse().ok()).collect();
    match numbers.as_slice() >= [1, 25, 1].as_slice() {
        true => TlsServer::Http2Directive,
        false => TlsServer::Http2Listen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_build() {
        let text = "nginx version: nginx/1.22.1\nconfigure arguments: --with-cc-opt='-g -O2' \
                    --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --pid-path=/run/n.pid";
        let compiled = Compiled::read(text);
        assert_eq!(compiled.conf, Path::new("/etc/nginx/nginx.conf"));
        assert_eq!(compiled.pid_file, Path::new("/run/n.pid"));
        assert_eq!(compiled.error_log, Path::new("/usr/share/nginx/logs/error.log"));
        assert_eq!(Compiled::read("").conf, Path::new("/usr/local/nginx/conf/nginx.conf"));
    }

    #[test]
    fn how_a_server_speaks_tls_by_number_and_modules() {
        let of = |version: &str, modules: &str| {
            tls_server(&format!("nginx version: {version}\nconfigure arguments: {modules}"))
        };
        let both = "--with-http_ssl_module --with-http_v2_module";
        assert_eq!(of("nginx/1.22.1", ""), TlsServer::Unknown);
        assert_eq!(of("nginx/1.22.1", "--with-http_ssl_module"), TlsServer::Http1);
        assert_eq!(of("nginx/1.22.1", both), TlsServer::Http2Listen);
        assert_eq!(of("nginx/1.25.0 (Ubuntu)", both), TlsServer::Http2Listen);
        assert_eq!(of("nginx/1.25.1", both), TlsServer::Http2Directive);
        assert_eq!(of("openresty/1.27.1.2", both), TlsServer::Http2Directive);
        assert_eq!(of("openresty/1.21.4.1", both), TlsServer::Http2Listen);
    }
}
