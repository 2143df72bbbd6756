//! What the store has confirmed about one key. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::{KeyStatus, Want};
use crate::model::{Entry, Revision};
use crate::store::{Guard, Lease, Ownership};

/// How often to look whether a rival's key is gone.
pub(super) const RIVAL_RETRY: Duration = Duration::from_secs(2);

/// What is known of one key; nothing at first, and after the lease was lost.
#[derive(Debug, Default)]
pub(super) struct KeyRecord {
    holder: Holder,
    /// We owned it, or know who else does: a key with our value is no longer taken for one
    /// that an earlier instance left.
    settled: bool,
    /// A write of this value was sent and not answered: it may have happened.
    unanswered: Option<Vec<u8>>,
    removed: Option<Revision>,
}

/// Whose entry the key was when the store last answered about it.
#[derive(Debug, Default)]
enum Holder {
    #[default]
    Nobody,
    Us(OwnedKey),
    Rival(RivalKey),
}

#[derive(Debug)]
pub(super) struct OwnedKey {
    pub(super) value: Vec<u8>,
    pub(super) ownership: Ownership,
    pub(super) at: Revision,
}

#[derive(Debug)]
pub(super) struct RivalKey {
    pub(super) entry: Entry,
    pub(super) look_again: Instant,
}

impl KeyRecord {
    pub(super) fn owned(&self) -> Option<&OwnedKey> {
        match &self.holder {
            Holder::Us(owned) => Some(owned),
            Holder::Nobody | Holder::Rival(_) => None,
        }
    }

    pub(super) fn rival(&self) -> Option<&RivalKey> {
        match &self.holder {
            Holder::Rival(rival) => Some(rival),
            Holder::Nobody | Holder::Us(_) => None,
        }
    }

    /// Whether anything was learnt of the key since the lease was last lost.
    pub(super) fn is_known(&self) -> bool {
        let met = self.settled || !matches!(self.holder, Holder::Nobody);
        met || self.unanswered.is_some() || self.removed.is_some()
    }

    /// The condition under which the key may be written now; `None`: it has its value, or it
    /// is too early to look again at a rival's.
    pub(super) fn guard_of_put(&self, want: &Want, now: Instant) -> Option<Guard> {
        match &self.holder {
            Holder::Us(owned) if owned.value == want.value => None,
            Holder::Us(owned) => Some(Guard::Ours(owned.ownership)),
            Holder::Nobody => Some(Guard::Absent),
            Holder::Rival(rival) => {
                let ours = want.takeover.allows(&rival.entry.value, &want.value);
                if ours && !self.settled {
                    return Some(Guard::Value(rival.entry.value.to_vec()));
                }
                (now >= rival.look_again).then_some(Guard::Absent)
            }
        }
    }

    /// The condition under which the key is deleted; `None`: nothing of ours can be there. Of a
    /// write that was not answered, our lease identifies what it left; without leases, only the
    /// value does.
    pub(super) fn guard_of_delete(&self, lease: Option<Lease>) -> Option<Guard> {
        let ours = |lease| Guard::Ours(Ownership { lease, modified: Revision::default() });
        match (self.owned(), &self.unanswered, lease) {
            (Some(owned), _, _) => Some(Guard::Ours(owned.ownership)),
            (None, Some(_), Some(Lease { id, .. })) if id != 0 => Some(ours(id)),
            (None, Some(value), _) => Some(Guard::Value(value.clone())),
            (None, None, _) => None,
        }
    }

    /// What is published of the key.
    pub(super) fn status(&self, wanted: bool) -> KeyStatus {
        match &self.holder {
            Holder::Us(owned) => KeyStatus::Owned { at: owned.at, value: owned.value.clone() },
            Holder::Rival(rival) if wanted || self.settled => {
                KeyStatus::Rival { value: rival.entry.value.to_vec() }
            }
            Holder::Nobody | Holder::Rival(_) if wanted || self.unanswered.is_some() => {
                KeyStatus::Pending
            }
            Holder::Nobody | Holder::Rival(_) => KeyStatus::Absent { removed: self.removed },
        }
    }

    pub(super) fn own(&mut self, owned: OwnedKey) {
        *self = Self { holder: Holder::Us(owned), settled: true, ..Self::default() };
    }

    pub(super) fn refresh(&mut self, ownership: Ownership) {
        if let Holder::Us(owned) = &mut self.holder {
            owned.ownership = ownership;
        }
    }

    pub(super) fn clear(&mut self) {
        (self.holder, self.unanswered) = (Holder::Nobody, None);
    }

    pub(super) fn remove(&mut self, revision: Revision) {
        self.clear();
        self.removed = Some(revision);
    }

    pub(super) fn meet_rival(&mut self, entry: Entry, now: Instant) {
        if self.rival().is_some_and(|rival| rival.entry.value == entry.value) {
            self.settled = true;
        }
        self.clear();
        self.holder = Holder::Rival(RivalKey { entry, look_again: now + RIVAL_RETRY });
    }

    pub(super) fn note_unanswered(&mut self, value: Vec<u8>) {
        self.settled = false;
        self.unanswered = Some(value);
    }

    /// A key with our value may be ours after all.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
    }

    pub(super) fn lose_lease(&mut self) {
        *self = Self { removed: self.removed, ..Self::default() };
    }
}
