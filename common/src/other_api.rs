//! A hint for a tree that is empty: where its keys may be instead. etcd 3.0 to 3.5 may serve both
//! APIs, each with keys of its own.

use std::time::Duration;

use tokio::time::timeout;

use crate::model::{Tree, plural};
use crate::settings::etcd::API;
use crate::store::{Connection, Elsewhere, Etcd, look_elsewhere};

/// How long the search may take: it is only for a hint.
const HINT: Duration = Duration::from_secs(2);

/// What to report when nothing is found below a tree: which API was asked, and whether there are
/// keys in the other, or without a leading slash.
pub async fn hint(connection: &Connection, store: &Etcd, tree: &Tree) -> String {
    let found = timeout(HINT, look_elsewhere(connection, store, std::slice::from_ref(tree)));
    let mut text = format!("asked by the {} API of etcd", store.api());
    for elsewhere in found.await.unwrap_or_default() {
        text += &match elsewhere {
            Elsewhere::OtherApi { api, .. } => format!(
                "; its {api} API has keys there: {} {api}, or {}={api}, shows them",
                API.flag(),
                API.env
            ),
            Elsewhere::WithoutSlash { name, keys } => format!(
                "; {} begin with `{name}` instead of `/{name}`, which is not read: write them with the \
                 slash",
                plural(usize::try_from(keys).unwrap_or(usize::MAX), "key")
            ),
        };
    }
    text
}
