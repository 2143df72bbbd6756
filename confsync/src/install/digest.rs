//! One digest for a set of files with their modes and owners.
//!
//! It covers only what is configured. Where a resource names no mode, a changed mode makes no
//! difference.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use sha2::{Digest as _, Sha256};

use super::{Candidate, Target};

/// SHA-256 over the dests, bytes, modes and owners of a set, in the set's order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of the candidates; touches no file.
    pub fn of(set: &[Candidate]) -> Self {
        let mut hash = Sha256::new();
        for Candidate { target, bytes } in set {
            add_bytes(&mut hash, target, bytes);
            add_access(&mut hash, [target.mode, target.uid, target.gid]);
        }
        Self(hash.finalize().into())
    }

    /// The digest of a structure together with what distinguishes the members in it.
    pub(super) fn with_members(structure: Self, members: &[u8]) -> Self {
        Self(Sha256::new().chain_update(structure.0).chain_update(members).finalize().into())
    }

    /// The first twelve hexadecimal digits: enough for a person to distinguish two.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

/// The digest of what is on disk now; `None` if one of the files is not there.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn current(targets: &[Target]) -> io::Result<Option<Digest>> {
    let mut hash = Sha256::new();
    for target in targets {
        let read = || -> io::Result<_> {
            let mut file = File::open(&target.dest)?;
            let meta = file.metadata()?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok((bytes, meta))
        };
        let (bytes, meta) = match read() {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                let text = format!("cannot read {}: {e}", target.dest.display());
                return Err(io::Error::new(e.kind(), text));
            }
        };
        add_bytes(&mut hash, target, &bytes);
        let access = [
            target.mode.map(|_| meta.mode() & 0o7777),
            target.uid.map(|_| meta.uid()),
            target.gid.map(|_| meta.gid()),
        ];
        add_access(&mut hash, access);
    }
    Ok(Some(Digest(hash.finalize().into())))
}

// Lengths go before contents, so that no two sets have the same digest by a shifted boundary.
fn add_bytes(hash: &mut Sha256, target: &Target, bytes: &[u8]) {
    for part in [target.dest.as_os_str().as_bytes(), bytes] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
}

fn add_access(hash: &mut Sha256, access: [Option<u32>; 3]) {
    for value in access {
        hash.update(value.map_or(u64::MAX, u64::from).to_le_bytes());
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}
