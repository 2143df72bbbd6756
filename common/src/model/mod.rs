//! Keys, values and snapshots. Pure: no clock, no I/O.

mod backend;
mod count;
mod endpoint;
mod key;
mod snapshot;
mod span;
mod stored_value;
mod ttl;

pub use backend::{Backend, BackendError, MAX_WEIGHT};
pub use count::plural;
pub use endpoint::{Endpoint, EndpointError, Host, HostError, port};
pub use key::{Key, KeyError, Prefix, is_upstream_name};
pub use snapshot::{Change, Entry, ReadPoint, Revision, Snapshot, Tree, changed_keys};
pub use span::{SpanError, format_span, parse_span};
pub use stored_value::StoredValue;
pub use ttl::{Ttl, TtlError};
