//! What `/status` and the page's events say, as one JSON object. Its names are
//! documented in `docs/operations.md`; what is there stays.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::Sources;
use crate::status::load_balancers::{self, Fleet};
use crate::status::state::unix;

/// Everything now; the load balancers only for who follows them.
pub(super) fn of(sources: &Sources, fleet: Option<&Fleet>) -> Value {
    let (ready, words) = sources.ready();
    let about = sources.about.borrow().clone();
    let late = sources.liveness.late(tokio::time::Instant::now());
    let sets: Vec<Value> = sources.states.borrow().values().map(|set| json!(set)).collect();
    json!({
        "now": unix(SystemTime::now()),
        "name": about.name,
        "version": common::VERSION,
        "started": unix(about.started),
        "ready": ready,
        "words": words,
        "stopping": sources.stopping.is_cancelled(),
        "joined": about.joined,
        "stuck": late.into_iter().map(|late| late.name).collect::<Vec<_>>(),
        "sets": sets,
        "load_balancers": fleet.map(load_balancers::standings),
    })
}
