//! Which backends a reload or a change of membership added, removed or changed, with lease and the
//! change by which `register` names a registration: `KEY@REVISION`. Each has one line in the log, and
//! the status page has the last ones, so that it can be reconstructed later who sent requests where,
//! and why. Pure.

use std::sync::Arc;

use common::model::{Entry, Snapshot, changed_keys};

use crate::apply::record::Changes;
use crate::status::change_summary::{Route, Routes};

/// How many backends are named before the rest is only counted.
const NAMED: usize = 20;

/// The difference between the former routes, with the keys of that time, and the present ones.
pub fn changes(before: Option<(&Routes, &Snapshot)>, now: (&Routes, &Snapshot)) -> Changes {
    let none = (Routes::new(), Snapshot::default());
    let (old, old_keys) = before.unwrap_or((&none.0, &none.1));
    let (new, keys) = now;
    let by = |snapshot: &Snapshot, key: &Arc<str>, (addr, weight): &Route| {
        let weight = if *weight == 1 { String::new() } else { format!(" weight {weight}") };
        format!(
            "{addr}{weight} ({key}{})",
            snapshot.entries.get(key).map(origin).unwrap_or_default()
        )
    };
    let (mut added, mut removed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for key in changed_keys(old, new) {
        match (old.get(key), new.get(key)) {
            (None, Some(route)) => added.push(by(keys, key, route)),
            (Some(route), None) => removed.push(by(old_keys, key, route)),
            (_, Some(route)) => changed.push(by(keys, key, route)),
            (None, None) => {}
        }
    }
    Changes { added: list(&added), removed: list(&removed), changed: list(&changed) }
}

/// Leases as etcdctl prints them; v2 has none.
fn origin(entry: &Entry) -> String {
    let lease = if entry.lease == 0 { String::new() } else { format!(", lease {:x}", entry.lease) };
    format!("@{}{lease}", entry.modified)
}

fn list(texts: &[String]) -> Option<String> {
    let named = texts.get(..NAMED).unwrap_or(texts).join(", ");
    match texts.len().saturating_sub(NAMED) {
        _ if texts.is_empty() => None,
        0 => Some(named),
        more => Some(format!("{named} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Revision;

    fn picture(all: &[(&str, &str, i64, u64)]) -> (Routes, Snapshot) {
        let mut snapshot = Snapshot::default();
        let mut routes = Routes::new();
        for (key, addr, lease, revision) in all {
            let entry = Entry { lease: *lease, ..Entry::new(*key, *addr, Revision(*revision)) };
            routes.insert((*key).into(), ((*addr).into(), 1));
            snapshot.entries.insert((*key).into(), entry);
        }
        (routes, snapshot)
    }

    #[test]
    fn each_backend_is_named_with_its_registration_and_lease() {
        let before = picture(&[("/s/a/1", "10.0.0.1:80", 255, 7), ("/s/a/2", "10.0.0.2:80", 0, 8)]);
        let now = picture(&[("/s/a/2", "10.0.0.9:80", 0, 9), ("/s/a/3", "10.0.0.3:80", 16, 10)]);
        let found = changes(Some((&before.0, &before.1)), (&now.0, &now.1));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(found.added, text("10.0.0.3:80 (/s/a/3@10, lease 10)"));
        assert_eq!(found.removed, text("10.0.0.1:80 (/s/a/1@7, lease ff)"));
        assert_eq!(found.changed, text("10.0.0.9:80 (/s/a/2@9)"));
        assert_eq!(changes(Some((&now.0, &now.1)), (&now.0, &now.1)), Changes::default());
        let started = changes(None, (&now.0, &now.1));
        assert!(started.added.is_some_and(|added| added.matches('@').count() == 2));
    }
}
