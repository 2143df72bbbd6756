//! The part of `confsync check --host` that asks the proxy: it checks its whole configuration with
//! what would be installed in its place, as the daemon has it do before each change. The
//! candidates lie in a folder of their own, and nothing is installed; what `nginx -t` itself
//! creates (the log files and folders that its configuration names) is there afterwards as after
//! any `nginx -t`.

use std::fs;

use common::model::Snapshot;

use crate::config::reload_group::{Loader, ReloadGroup};
use crate::install::{StagedPaths, real_path};
use crate::proxy::{NotPassed, Proxy};

/// What the proxy says of one reload group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProxyAnswer {
    /// It accepts the files, with these warnings. Also where there is no proxy to ask.
    Accepted(Vec<String>),
    /// It would reject them.
    Rejected(String),
    /// It could not be asked, or not as this user, and why.
    NotAsked(String),
}

/// Asks the proxy of a reload group. Without keys, the files are those of an empty etcd.
pub(super) async fn ask(set: &ReloadGroup, keys: Option<&Snapshot>) -> ProxyAnswer {
    if !matches!(set.loader, Loader::Nginx(_) | Loader::Haproxy(_)) {
        return ProxyAnswer::Accepted(Vec::new());
    }
    let answer = match staged(set, keys) {
        Ok((folder, paths)) => {
            let asked = check(set, paths).await;
            drop(folder);
            asked
        }
        Err(why) => return ProxyAnswer::NotAsked(why),
    };
    match answer {
        Ok(warnings) => ProxyAnswer::Accepted(warnings),
        Err(NotPassed::RejectedValue(why) | NotPassed::Unknown(why)) if is_for_root(&why) => {
            ProxyAnswer::NotAsked(format!("{}; run it as root", why.replace('\n', "; ")))
        }
        Err(NotPassed::RejectedValue(why)) => ProxyAnswer::Rejected(why.replace('\n', "; ")),
        Err(NotPassed::Unknown(why)) => ProxyAnswer::Rejected(why.replace('\n', "; ")),
    }
}

/// A proxy reads keys and opens logs as root, which says nothing about the files.
fn is_for_root(why: &str) -> bool {
    !rustix::process::geteuid().is_root() && why.to_ascii_lowercase().contains("permission denied")
}

async fn check(set: &ReloadGroup, paths: Vec<StagedPaths>) -> Result<Vec<String>, NotPassed> {
    let proxy = Proxy::of(set, None, None).await;
    let proxy = proxy.map_err(|error| NotPassed::Unknown(error.to_string()))?;
    proxy.check_candidates(paths).await
}

/// The candidates, in a folder that is gone when it is dropped.
fn staged(
    set: &ReloadGroup,
    keys: Option<&Snapshot>,
) -> Result<(tempfile::TempDir, Vec<StagedPaths>), String> {
    let folder = tempfile::Builder::new().prefix("confsync-check-").tempdir();
    let folder =
        folder.map_err(|error| format!("cannot write in the temporary folder: {error}"))?;
    let empty = Snapshot::default();
    let entries = &keys.unwrap_or(&empty).entries;
    let mut paths = Vec::new();
    for (nth, program) in set.programs.iter().enumerate() {
        let rendered = program.render(&program.resource.reading.see(entries.values()));
        let candidate = rendered.map_err(|why| match keys {
            Some(_) => why,
            None => format!("without keys there is nothing to check ({why}); add --data FILE"),
        })?;
        let staged = folder.path().join(nth.to_string());
        fs::write(&staged, candidate.plain().bytes)
            .map_err(|error| format!("cannot write {}: {error}", staged.display()))?;
        let dest = program.resource.target.dest.clone();
        paths.push(StagedPaths { real: real_path(&dest), dest, staged });
    }
    Ok((folder, paths))
}
