//! The wanted files of a reload group, and what the ledger knows them by.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::{Candidate, Digest};

/// The files, made when they are first needed: where a driver changes the members of a running
/// proxy, thousands of lines are only written to be there for the next start. Copies share them.
#[derive(Clone)]
pub struct Wanted {
    files: Arc<LazyLock<MadeFiles, MakeFiles>>,
    digest: Digest,
    structure: Digest,
}

type MakeFiles = Box<dyn FnOnce() -> MadeFiles + Send + Sync>;

struct MadeFiles {
    files: Box<[Candidate]>,
    digest: Digest,
}

impl Wanted {
    /// Files of which only `structure` needs a reload. `members` distinguishes the rest, and `make`
    /// makes all of it.
    pub fn in_parts(
        structure: &[Candidate],
        members: &[u8],
        make: impl FnOnce() -> Vec<Candidate> + Send + Sync + 'static,
    ) -> Self {
        let structure = Digest::of(structure);
        let digest = Digest::with_members(structure, members);
        let make: MakeFiles = Box::new(|| MadeFiles::from(make()));
        Self { files: Arc::new(LazyLock::new(make)), digest, structure }
    }

    /// The files, in the set's order.
    pub fn files(&self) -> &[Candidate] {
        &self.files.files
    }

    /// What distinguishes them from others that are wanted.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of their bytes, as it is computed of what is on disk.
    pub fn digest_on_disk(&self) -> Digest {
        self.files.digest
    }

    /// The digest of the part that needs a reload to become active: all of it, unless a driver can
    /// change the rest in the running proxy.
    pub fn structure(&self) -> Digest {
        self.structure
    }
}

impl From<Vec<Candidate>> for Wanted {
    fn from(files: Vec<Candidate>) -> Self {
        let made = MadeFiles::from(files);
        let digest = made.digest;
        let make: MakeFiles = Box::new(|| made);
        Self { files: Arc::new(LazyLock::new(make)), digest, structure: digest }
    }
}

impl From<Vec<Candidate>> for MadeFiles {
    fn from(files: Vec<Candidate>) -> Self {
        Self { digest: Digest::of(&files), files: files.into() }
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, structure, .. } = self;
        f.debug_struct("Wanted").field("digest", digest).field("structure", structure).finish()
    }
}
