//! Counts watch events, to show that something did *not* wake the watchers.

use std::net::SocketAddr;
use std::sync::Arc;

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
        let text = self.process.stdout();
        let lines: Vec<&str> = text.lines().collect();
        match self.api {
            Api::V2 => lines.iter().filter_map(|line| v2_event(line)).collect(),
            Api::V3 => lines
                .windows(2)
                .filter_map(|pair| match pair {
                    ["PUT" | "DELETE", key] => Some(format!("{} {key}", pair.first()?)),
                    _ => None,
                })
                .collect(),
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
