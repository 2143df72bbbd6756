//! The part of `confsync check --host` that asks the proxy: it checks its whole configuration with
//! what would be installed in its place, as the daemon has it do before each change. The
//! candidates lie in a folder of their own, and nothing is installed; what `nginx -t` itself
//! creates (the log files and folders that its configuration names) is there afterwards as after
//! any `nginx -t`.

use std::fs;

use common::model::Snapshot;

use crate::config::confdir::LiveMembership;
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::install::{StagedPaths, real_path};
use crate::proxy::{NotPassed, Proxy, Warning};

/// What the proxy says of one reload group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProxyAnswer {
    /// It accepts the files, with these warnings. Also where there is no proxy to ask.
    Accepted(Vec<Warning>),
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
        Ok(candidates) => check(set, &candidates).await,
        Err(why) => return ProxyAnswer::NotAsked(why),
    };
    match answer {
        Ok(warnings) => ProxyAnswer::Accepted(warnings),
        Err(NotPassed::Rejected(why) | NotPassed::Unknown(why)) if is_for_root(&why) => {
            ProxyAnswer::NotAsked(format!("{}; run it as root", why.replace('\n', "; ")))
        }
        Err(NotPassed::Rejected(why) | NotPassed::Unknown(why)) => {
            ProxyAnswer::Rejected(why.replace('\n', "; "))
        }
    }
}

/// A proxy reads keys and opens logs as root, which says nothing about the files.
fn is_for_root(why: &str) -> bool {
    !rustix::process::geteuid().is_root() && why.to_ascii_lowercase().contains("permission denied")
}

async fn check(set: &ReloadGroup, candidates: &Candidates) -> Result<Vec<Warning>, NotPassed> {
    let proxy = Proxy::of(set, None, None).await;
    let proxy = proxy.map_err(|error| NotPassed::Unknown(error.to_string()))?;
    let mut warnings = proxy.check_candidates(candidates.paths.clone()).await?;
    if candidates.name_members && is_live(set) {
        let why = proxy.nginx().and_then(|nginx| nginx.uncountable(candidates.paths.clone()));
        let text = why.map(|why| format!("{why}; every change of backends needs a reload"));
        warnings.extend(text.map(Warning::Proxy));
    }
    Ok(warnings)
}

fn is_live(set: &ReloadGroup) -> bool {
    matches!(&set.loader, Loader::Nginx(nginx) if nginx.live != LiveMembership::Off)
}

/// The files as they would be installed.
struct Candidates {
    paths: Vec<StagedPaths>,
    /// Whether any has members that could be changed without a reload.
    name_members: bool,
    /// Gone when it is dropped.
    _folder: tempfile::TempDir,
}

fn staged(set: &ReloadGroup, keys: Option<&Snapshot>) -> Result<Candidates, String> {
    let folder = tempfile::Builder::new().prefix("confsync-check-").tempdir();
    let folder =
        folder.map_err(|error| format!("cannot write in the temporary folder: {error}"))?;
    let empty = Snapshot::default();
    let entries = &keys.unwrap_or(&empty).entries;
    let (mut paths, mut name_members) = (Vec::new(), false);
    for (nth, program) in set.programs.iter().enumerate() {
        let rendered = program.render(&program.resource.reading.see(entries.values()));
        let candidate = rendered.map_err(|why| match keys {
            Some(_) => why,
            None => format!("without keys there is nothing to check ({why}); add --data FILE"),
        })?;
        name_members |= candidate.text.names_members();
        let staged = folder.path().join(nth.to_string());
        fs::write(&staged, candidate.plain().bytes)
            .map_err(|error| format!("cannot write {}: {error}", staged.display()))?;
        let dest = program.resource.target.dest.clone();
        paths.push(StagedPaths { real: real_path(&dest), dest, staged });
    }
    Ok(Candidates { paths, name_members, _folder: folder })
}
