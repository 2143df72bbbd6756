//! Backends as JSON, and the fields that they and keys have.

use serde_json::{Value as Json, json};

use crate::template::NamedBackend;

/// What a backend has.
pub(super) const FIELDS: [&str; 9] =
    ["addr", "host", "port", "weight", "zone", "meta", "key", "service", "id"];

/// What a key has, as `gets` gives it.
pub(super) const PAIR_FIELDS: [&str; 2] = ["key", "value"];

/// The whole of a backend.
pub(super) fn json(named: &NamedBackend) -> Json {
    let backend = &named.backend;
    let addr = backend.addr.to_string();
    // In brackets where it is IPv6.
    let host = addr.rsplit_once(':').map_or(&*addr, |(host, _)| host);
    json!({
        "host": host, "addr": addr, "port": backend.addr.port(), "weight": backend.weight,
        "zone": backend.zone, "meta": backend.meta,
        "key": *named.key, "service": *named.service, "id": named.id(),
    })
}
