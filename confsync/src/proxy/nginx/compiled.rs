//! nginx's build settings, from `nginx -V`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::proxy::command::{Command, CommandError};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compiled {
    pub(super) prefix: PathBuf,
    pub(super) conf: PathBuf,
    pub(super) pid_file: PathBuf,
    pub(super) error_log: PathBuf,
    pub(super) user: String,
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
            prefix,
        }
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
}
