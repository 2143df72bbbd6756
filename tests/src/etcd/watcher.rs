//! Counts watch events, to show that something did *not* wake the watchers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::etcd::{Api, Ctl};
use crate::http;
use crate::lab::Shared;
use crate::process::Process;

/// A running `etcdctl watch`. It starts behind a known revision, so it misses nothing.
pub struct Watcher {
    api: Api,
    process: Process,
}

impl Watcher {
    pub(super) async fn start(
        shared: &Arc<Shared>,
        server: SocketAddr,
        api: Api,
        prefix: &str,
    ) -> Self {
        let ctl = Ctl::new(api, server, &shared.path);
        let spec = match api {
            Api::V2 => {
                let answer = http::get(server, "/v2/keys/").await.expect("etcd answers");
                let index = answer.header("x-etcd-index").expect("an index").to_owned();
                let args = ["watch", "--forever", "--recursive", "--after-index", &index, prefix];
                ctl.spec(&args)
            }
            Api::V3 => {
                let status = ctl.run(&["get", "/", "--write-out=json"]).await.ok();
                let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
                let revision = status.pointer("/header/revision").and_then(|r| r.as_u64());
                let from = format!("--rev={}", revision.expect("a revision") + 1);
                ctl.spec(&["watch", "--prefix", &from, prefix])
            }
        };
        Self { api, process: shared.spawn(spec) }
    }

    /// The events so far, oldest first: `PUT /key` or `DELETE /key`, in either API.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        self.timed().into_iter().map(|(_, event)| event).collect()
    }

    /// The same, each with the time at which it came.
    #[must_use]
    pub fn timed(&self) -> Vec<(Instant, String)> {
        let lines = self.process.timed_stdout();
        match self.api {
            Api::V2 => lines.iter().filter_map(|(at, line)| Some((*at, v2_event(line)?))).collect(),
            Api::V3 => lines.windows(2).filter_map(v3_event).collect(),
        }
    }
}

/// `[set] /services/apache/10.0.0.1`, and a line with the value.
fn v2_event(line: &str) -> Option<String> {
    let (action, key) = line.strip_prefix('[')?.split_once("] ")?;
    let word = match action {
        "delete" | "compareAndDelete" | "expire" => "DELETE",
        _ => "PUT",
    };
    Some(format!("{word} {key}"))
}

/// A line with the word, and one with the key.
fn v3_event(pair: &[(Instant, String)]) -> Option<(Instant, String)> {
    let [(at, word), (_, key)] = pair else { return None };
    let is_event = matches!(word.as_str(), "PUT" | "DELETE") && key.starts_with('/');
    is_event.then(|| (*at, format!("{word} {key}")))
}
