//! Which directives an nginx knows, found out by trying.

use std::path::Path;
use std::time::Duration;

use crate::proxy::command::{Command, CommandError};

const DEADLINE: Duration = Duration::from_secs(10);

/// Whether this nginx knows a directive of the `http` level. `None` where it cannot be asked.
pub async fn knows(binary: &Path, directive: &str) -> Option<bool> {
    let folder = tempfile::Builder::new().prefix("confsync-try-").tempdir().ok()?;
    let conf = folder.path().join("nginx.conf");
    let pid = folder.path().join("pid");
    let text = format!(
        "error_log stderr; pid {}; events {{}} http {{ access_log off; {directive} }}",
        pid.display()
    );
    std::fs::write(&conf, text).ok()?;
    let words = ["-t".as_ref(), "-c".as_ref(), conf.as_os_str()];
    match Command::argv(binary, words, DEADLINE).run().await {
        Ok(_) => Some(true),
        // What else it may say of this file comes later: of folders, which only root may make.
        Err(CommandError::Failed { output, .. }) => {
            let is_read = output.text.contains("syntax is ok");
            let is_unknown = output.text.contains("unknown directive");
            (is_read || is_unknown).then_some(is_read)
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An nginx that says this, with this exit code.
    async fn answer_of(text: &str, code: u8) -> Option<bool> {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("nginx");
        let script = format!(
            "#!/bin/sh\ngrep -q 'http.*new 2s;' \"$3\" || exit 9\necho '{text}'\nexit {code}\n"
        );
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
        knows(&binary, "new 2s;").await
    }

    #[tokio::test]
    async fn what_nginx_says_of_a_directive() {
        assert_eq!(answer_of("syntax is ok", 0).await, Some(true));
        assert_eq!(
            answer_of("nginx: [emerg] unknown directive \"new\" in x:1", 1).await,
            Some(false)
        );
        let other = "syntax is ok; [emerg] open() /run/nginx.pid failed (13: Permission denied)";
        assert_eq!(answer_of(other, 1).await, Some(true), "only root may do the rest");
        assert_eq!(answer_of("Illegal instruction", 132).await, None);
        assert_eq!(knows(Path::new("/no/nginx"), "new 2s;").await, None);
    }
}
