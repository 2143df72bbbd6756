//! An empty snapshot at the start is often a wrong API or a wrong name: then it is logged where the
//! keys are.

use common::model::{Tree, plural};
use common::store::{Connection, Elsewhere, Etcd, look_elsewhere};

/// Says where keys are, for a reload group that found none.
pub(super) async fn log_where_keys_are(
    connection: &Connection,
    etcd: &Etcd,
    trees: &[Tree],
    set: &str,
) {
    let names: Vec<&str> = trees.iter().map(Tree::path).collect();
    let names = names.join(", ");
    for elsewhere in look_elsewhere(connection, etcd, trees).await {
        match elsewhere {
            Elsewhere::OtherApi { api, keys } => tracing::warn!(
                set,
                "nothing is below {names} in etcd's {} API, and {} in its {api} API: read those \
                 with --etcd-api {api}, or write with the other",
                etcd.api(),
                plural(keys, "key"),
            ),
            Elsewhere::WithoutSlash { name, keys } => tracing::warn!(
                set,
                "nothing is below /{name}; etcd has {keys} by the name {name}, without a leading \
                 slash, which neither confd nor confsync reads: write them as /{name}"
            ),
        }
    }
}
