//! Which run of the process this is, and which ones before it have ended.
//!
//! A member key in etcd names the run that wrote it. That run has ended for certain if it ran on
//! this machine for one of our files, and we have the lock that it kept for its lifetime. Its keys are
//! then taken over at once, also after kill -9. Any other run has ended when its lease has.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use common::handshake::Bookkeeping;

use crate::acks::members::LoadBalancerKeys;
use crate::install::note;

/// The word in the name of the file that is locked.
const WORD: &str = "instance";
/// A name of a run is much shorter.
const LONGEST: u64 = 256;

/// This run, for as long as it lives.
#[derive(Debug)]
pub(super) struct Instance {
    /// Names it.
    pub(super) id: String,
    /// The runs before it that have ended.
    pub(super) ended: Vec<String>,
    /// Locked for the lifetime of the process.
    _locks: Vec<File>,
}

impl Instance {
    /// A run that writes these files. Where no lock can be had, nothing is known of the run
    /// before.
    pub(super) fn begin<'d>(dests: impl IntoIterator<Item = &'d Path>) -> Self {
        let id = new_id();
        let (mut ended, mut locks) = (Vec::new(), Vec::new());
        for dest in dests {
            let path = note(dest, WORD);
            match lock(&path, &id) {
                Ok((file, before)) => {
                    ended.extend(before);
                    locks.push(file);
                }
                Err(error) => {
                    tracing::debug!(file = %path.display(), %error, "not locked");
                }
            }
        }
        Self { id, ended, _locks: locks }
    }

    /// The keys that a load balancer of this name has in this run.
    pub(super) fn load_balancer_keys(
        &self,
        name: &str,
        bookkeeping: &Bookkeeping,
    ) -> LoadBalancerKeys {
        let (id, ended) = (self.id.clone(), self.ended.clone());
        LoadBalancerKeys::new(name.to_owned(), id, ended, bookkeeping.clone())
    }
}

/// Locks the file and puts our name into it; who was named before.
fn lock(path: &Path, id: &str) -> std::io::Result<(File, Option<String>)> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.try_lock()?;
    let mut before = String::new();
    // A file that is no text was not written by us.
    let _ = (&file).take(LONGEST).read_to_string(&mut before);
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(id.as_bytes())?;
    let before = before.trim().to_owned();
    Ok((file, Some(before).filter(|before| !before.is_empty())))
}

/// The end is random: it makes the names of two runs differ that began in one moment.
fn new_id() -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:08x}", now.as_millis(), fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_to_have_ended_by_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (app, web) = (folder.path().join("app.conf"), folder.path().join("web.conf"));
        let first = Instance::begin([&*app, &*web]);
        assert!(first.ended.is_empty());
        let beside = Instance::begin([&*app]);
        assert!(beside.ended.is_empty(), "the first one lives");
        let id = first.id.clone();
        drop(first);
        let second = Instance::begin([&*app, Path::new("/nowhere/at/all")]);
        assert_eq!(second.ended, [id]);
        assert_ne!(second.id, beside.id);
    }
}
