//! Where keys are that a read did not find: in the other API of the same servers, or in v3 by
//! names that do not begin with a slash.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Api, Connection, Etcd, Store, connect};
use crate::model::Tree;

/// How long all questions together may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the keys are that were probably meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// In the other API, below the same trees.
    OtherApi {
        /// `v2` or `v3`.
        api: &'static str,
        /// How many.
        keys: usize,
    },
    /// In v3, by the name of a tree without its leading slash.
    WithoutSlash {
        name: String,
        /// How many.
        keys: i64,
    },
}

/// Looks for keys where a read of `trees` found none. What cannot be asked is left out: this is
/// for a hint.
pub async fn look_elsewhere(
    connection: &Connection,
    etcd: &Etcd,
    trees: &[Tree],
) -> Vec<Elsewhere> {
    let mut found = Vec::new();
    let look = async {
        let deadline = Instant::now() + PATIENCE;
        if let Etcd::V3(store) = etcd {
            for tree in trees {
                let keys = store.count_without_slash(tree, deadline).await.unwrap_or_default();
                if keys > 0 {
                    let name = tree.path().trim_start_matches('/').to_owned();
                    found.push(Elsewhere::WithoutSlash { name, keys });
                }
            }
        }
        let api = match etcd {
            Etcd::V3(_) => Api::V2,
            Etcd::V2(_) => Api::V3,
        };
        let Ok(other) = connect(&Connection { api, ..connection.clone() }).await else { return };
        let Ok(snapshot) = other.read(trees, deadline).await else { return };
        let keys = snapshot.entries.len();
        if keys > 0 {
            found.push(Elsewhere::OtherApi { api: other.api(), keys });
        }
    };
    let _ = timeout(PATIENCE, look).await;
    found
}
