//! Three members of etcd, and what they have done.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use common::store::Etcd as Store;
use common::store::{Api, Connection, connect};
use etcd_client::Client;
use futures_util::future::join_all;
use tests::{Etcd, Lab, http};

use crate::cost::Cost;

pub(super) struct Members(Vec<Etcd>);

impl Members {
    pub(super) async fn start(lab: &Lab) -> Self {
        let members = Etcd::prepare_cluster(lab, 3);
        join_all(members.iter().map(Etcd::up)).await;
        Self(members)
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.0.iter().map(Etcd::url).collect()
    }

    /// A connection of its own, by the endpoints in an order of its own.
    pub(super) async fn connect(&self, nth: usize) -> anyhow::Result<Store> {
        let mut endpoints = self.urls();
        let len = endpoints.len();
        endpoints.rotate_left(nth % len);
        let connection = Connection { endpoints, api: Api::V3, ..Connection::default() };
        Ok(connect(&connection).await?)
    }

    /// Ends all of them in order, and starts them again.
    pub(super) async fn restart(&self) {
        join_all(self.0.iter().map(Etcd::stop)).await;
        join_all(self.0.iter().map(Etcd::up)).await;
    }

    /// What they have done so far.
    pub(super) async fn load(&self, client: &mut Client) -> anyhow::Result<Load> {
        let status = client.get("/", None).await?;
        let revision = status.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut load = Load {
            at: Instant::now(),
            revision,
            messages: BTreeMap::new(),
            sent: 0.0,
            costs: Vec::new(),
        };
        for member in &self.0 {
            let answer =
                http::get(member.address(), "/metrics").await.map_err(anyhow::Error::msg)?;
            for (method, count) in by_method(&answer.body) {
                *load.messages.entry(method).or_default() += count;
            }
            load.sent += sum(&answer.body, "etcd_network_client_grpc_sent_bytes_total");
            load.costs.push((member.pid(), Cost::of(member.pid())?));
        }
        Ok(load)
    }
}

/// Messages that a member has got so far, by gRPC method; those of its peers are not gRPC.
fn by_method(metrics: &str) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("grpc_server_msg_received_total")) {
        let method = line.split("grpc_method=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        if let (Some(method), Some(count)) = (method, count) {
            *counts.entry(method.to_owned()).or_default() += count;
        }
    }
    counts
}

/// All series of a metric.
fn sum(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A reading of all members.
pub(super) struct Load {
    at: Instant,
    revision: i64,
    messages: BTreeMap<String, f64>,
    sent: f64,
    costs: Vec<(i32, Cost)>,
}

impl Load {
    /// What was done between two readings. Counters of a member that restarted begin anew.
    pub(super) fn between(before: &Self, after: &Self) -> Work {
        let restarted = before.costs.iter().zip(&after.costs).any(|(b, a)| b.0 != a.0);
        let from = |value: f64| if restarted { 0.0 } else { value };
        let since = |(method, count): (&String, &f64)| {
            (method.clone(), count - from(before.messages.get(method).copied().unwrap_or_default()))
        };
        let costs = before.costs.iter().zip(&after.costs).filter(|(b, a)| b.0 == a.0);
        Work {
            seconds: (after.at - before.at).as_secs_f64(),
            writes: after.revision - before.revision,
            messages: after.messages.iter().map(since).filter(|(_, count)| *count > 0.0).collect(),
            sent: after.sent - from(before.sent),
            processor: costs.map(|(b, a)| a.1.share_since(&b.1)).collect(),
        }
    }
}

/// What the members did in a span of time.
pub(super) struct Work {
    seconds: f64,
    writes: i64,
    messages: Vec<(String, f64)>,
    sent: f64,
    processor: Vec<f64>,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  within                           {:.1} s", self.seconds)?;
        writeln!(f, "  writes                           {}", self.writes)?;
        for (method, count) in &self.messages {
            let rate = count / self.seconds;
            writeln!(f, "  {method:32} {count:.0} ({rate:.1} a second)")?;
        }
        let megabytes = self.sent / 1e6;
        write!(f, "  sent by etcd to clients          {megabytes:.2} MB")?;
        if !self.processor.is_empty() {
            let shares: Vec<_> =
                self.processor.iter().map(|share| format!("{share:.1} %")).collect();
            write!(f, "\n  processor of each member         {} of a core", shares.join(", "))?;
        }
        Ok(())
    }
}
