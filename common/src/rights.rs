//! The rights in etcd that a process will need: asked for at its start. A right that only a
//! departure needs would otherwise be missed by the first departure.
//!
//! Nothing is written to find out: a write is sent under a guard that never holds, and etcd looks
//! at the rights first.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use crate::model::{Key, Tree};
use crate::store::{Guard, Lease, Store, StoreError, default_deadline};

/// How often to look again while a right is missing, or etcd does not answer.
const AGAIN: Duration = Duration::from_secs(30);

/// A right that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// To read a tree.
    Read(Tree),
    /// To read and write a key, and all others of its folder.
    Write(Key),
}

/// A right that etcd denies, and how it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRight {
    right: Right,
    api: &'static str,
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, folder, grant) = match &self.right {
            Right::Read(tree) => ("read", tree.path(), "read"),
            Right::Write(key) => {
                let folder = key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
                ("write", folder, "readwrite")
            }
        };
        write!(f, "no right to {what} below {folder}: ")?;
        match (self.api, &self.right) {
            ("v2", Right::Read(_)) => {
                write!(f, "etcdctl role grant ROLE --path '{folder}*' --{grant}")
            }
            ("v2", _) => write!(f, "etcdctl role grant ROLE --path '{folder}/*' --{grant}"),
            _ => write!(f, "etcdctl role grant-permission ROLE {grant} --prefix=true {folder}/"),
        }
    }
}

/// Which of these rights etcd denies; `api` is `v3` or `v2`, whose grants differ.
///
/// # Errors
/// When it does not answer all that is asked.
async fn missing_of<S: Store>(
    store: &S,
    api: &'static str,
    rights: &[Right],
) -> Result<Vec<MissingRight>, StoreError> {
    let mut missing = Vec::new();
    for right in rights {
        match ask(store, right).await {
            Ok(()) => {}
            Err(StoreError::Denied(_)) => {
                missing.push(MissingRight { right: right.clone(), api });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

async fn ask<S: Store>(store: &S, right: &Right) -> Result<(), StoreError> {
    match right {
        Right::Read(tree) => {
            store.read(std::slice::from_ref(tree), default_deadline()).await.map(drop)
        }
        Right::Write(key) => {
            let never =
                Guard::Value(format!("no key has this value: {:032x}", fastrand::u128(..)).into());
            let lease = Lease { id: 0, ttl: Duration::from_secs(1) };
            store.put(key, b"", lease, &never, default_deadline()).await.map(drop)
        }
    }
}

/// Warns of every right that is missing, again when others are, until none is. It does not
/// stop anything: rights are granted by others, and what they are for may never be needed.
pub async fn warn_until_granted<S: Store>(store: S, api: &'static str, rights: Vec<Right>) {
    let mut warned = Vec::new();
    loop {
        match missing_of(&store, api, &rights).await {
            Ok(missing) => {
                for one in missing.iter().filter(|one| !warned.contains(*one)) {
                    tracing::warn!("missing in etcd: {one}");
                }
                if missing.is_empty() {
                    if !warned.is_empty() {
                        tracing::info!("all needed rights in etcd are granted");
                    }
                    return;
                }
                warned = missing;
            }
            // That etcd does not answer is logged elsewhere.
            Err(error) => tracing::debug!(%error, "cannot check the rights in etcd"),
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[test]
    fn what_is_missing_is_named_with_the_line_that_grants_it() {
        let says = |right, api| MissingRight { right, api }.to_string();
        let members = || Right::Read(Tree::below("/confsync/members".parse().unwrap()));
        assert_eq!(
            says(members(), "v3"),
            "no right to read below /confsync/members: etcdctl role grant-permission ROLE read \
             --prefix=true /confsync/members/"
        );
        assert_eq!(
            says(members(), "v2"),
            "no right to read below /confsync/members: etcdctl role grant ROLE --path \
             '/confsync/members*' --read"
        );
        assert_eq!(
            says(Right::Write("/services/apache/10.0.0.1".parse().unwrap()), "v3"),
            "no right to write below /services/apache: etcdctl role grant-permission ROLE \
             readwrite --prefix=true /services/apache/"
        );
    }

    #[tokio::test]
    async fn to_ask_for_the_right_to_write_writes_nothing() {
        let store = Memory::new();
        let key: Key = "/services/apache/1".parse().unwrap();
        let before = store.revision();
        ask(&store, &Right::Write(key.clone())).await.unwrap();
        store.set(&key, "x");
        ask(&store, &Right::Write(key.clone())).await.unwrap();
        assert_eq!(store.value(&key).as_deref(), Some(&b"x"[..]));
        assert_eq!(store.revision().0, before.0 + 1);
    }
}
