//! The JSON object that `/status` and the page's events have. Its field names are documented in
//! `docs/operations.md` and stay stable.

use std::time::SystemTime;

use serde::Serialize;

use super::Sources;
use crate::proxy::traffic::MemberTraffic;
use crate::status::load_balancers::{self, DrainState, Followed, LoadBalancerStatus};
use crate::status::moments::unix;
use crate::status::state::GroupState;

/// Serialized directly from what the agents published: with 100 000 backends, a tree of values in
/// between would take most of the memory.
#[derive(Serialize)]
struct Document<'a> {
    now: u64,
    name: &'a str,
    version: &'a str,
    started: u64,
    ready: bool,
    words: String,
    stopping: bool,
    joined: bool,
    confdir: String,
    stuck: Vec<String>,
    sets: Vec<GroupDocument<'a>>,
    load_balancers: Option<Vec<LoadBalancerStatus>>,
    draining: Option<Vec<DrainState>>,
}

/// A group, and what its backends have had and have, where its driver knows that.
#[derive(Serialize)]
struct GroupDocument<'a> {
    #[serde(flatten)]
    state: &'a GroupState,
    traffic: &'a [MemberTraffic],
}

/// Everything now; the load balancers only for who follows them.
pub(super) fn of(sources: &Sources, followed: Option<&Followed>) -> String {
    let (ready, words) = sources.ready();
    let (about, states) = (sources.about.borrow(), sources.states.borrow());
    let late = sources.liveness.late(tokio::time::Instant::now());
    let traffic = sources.traffic.newest();
    let traffic = traffic.borrow();
    let document = Document {
        now: unix(SystemTime::now()),
        name: &about.name,
        version: common::VERSION,
        started: unix(about.started),
        ready,
        words,
        stopping: sources.stopping.is_cancelled(),
        joined: about.joined,
        confdir: about.confdir.display().to_string(),
        stuck: late.into_iter().map(|late| late.name).collect(),
        sets: states
            .values()
            .map(|state| GroupDocument { state, traffic: state.traffic(&traffic) })
            .collect(),
        load_balancers: followed.map(|followed| load_balancers::statuses(&followed.fleet)),
        draining: followed.map(|followed| followed.draining.clone()),
    };
    // Texts and numbers always serialize.
    serde_json::to_string(&document).unwrap_or_default()
}
