//! Keys from a file, in place of etcd.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use common::model::{Entry, Revision, Snapshot};

/// Entries of a JSON object `{"/key": "value"}`, as a store would give them.
///
/// # Errors
/// When the file is not such an object.
pub fn from_file(path: &Path) -> anyhow::Result<Snapshot> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("--data {}", path.display()))?;
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text)
        .with_context(|| format!("--data {}: not an object of key to value", path.display()))?;
    let entry = |(key, value): (String, serde_json::Value)| {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let entry = Entry {
            key: key.into(),
            value: text.as_str().into(),
            created: Revision(1),
            modified: Revision(1),
            lease: 0,
            ttl: None,
        };
        (Arc::clone(&entry.key), entry)
    };
    Ok(Snapshot { entries: values.into_iter().map(entry).collect(), ..Snapshot::default() })
}
