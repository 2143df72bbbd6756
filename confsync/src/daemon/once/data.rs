//! Keys from a file, in place of etcd.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::model::{Entry, Revision, Snapshot};
use common::runtime::Usage;

/// Entries of a JSON object `{"/key": "value"}`, as a store would give them.
///
/// # Errors
/// When the file is not such an object.
pub fn from_file(path: &Path) -> anyhow::Result<Snapshot> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("--data {name}: cannot be read: {error}")))?;
    let values: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| {
            let example = r#"{"/services/web/a": "10.0.0.1:80"}"#;
            Usage(format!("--data {name}: not an object of key to value, {example}: {error}"))
        })?;
    let entry = |(key, value): (String, serde_json::Value)| {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let entry = Entry::new(key, text.as_str(), Revision(1));
        (Arc::clone(&entry.key), entry)
    };
    Ok(Snapshot { entries: values.into_iter().map(entry).collect(), ..Snapshot::default() })
}
