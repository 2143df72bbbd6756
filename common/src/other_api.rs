//! A hint for a tree that is empty: what the other API has below it. etcd 3.0 to 3.5 may serve both
//! APIs, each with keys of its own.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::model::Tree;
use crate::store::{Api, Connection, Etcd, Store, connect};

/// How long the other API may take: it is only asked for a hint.
const HINT: Duration = Duration::from_secs(2);

/// What to say when nothing is found below a tree: which API was asked, and how many keys are
/// there in the other.
pub async fn hint(connection: &Connection, store: &Etcd, tree: &Tree) -> String {
    let (asked, other, name) = match store {
        Etcd::V3(_) => ("v3", Api::V2, "v2"),
        Etcd::V2(_) => ("v2", Api::V3, "v3"),
    };
    match timeout(HINT, keys(connection, other, tree)).await.ok().flatten() {
        Some(1..) => format!(
            "asked by the {asked} API of etcd, which keeps keys of its own; there are some in {name}: \
             --etcd-api {name}, or ETCD_API={name}, shows them"
        ),
        _ => format!("asked by the {asked} API of etcd"),
    }
}

async fn keys(connection: &Connection, api: Api, tree: &Tree) -> Option<usize> {
    let connection = Connection { api, ..connection.clone() };
    let store = connect(&connection).await.ok()?;
    let found = store.read(std::slice::from_ref(tree), Instant::now() + HINT).await.ok()?;
    Some(found.entries.len())
}
