//! What is broken: requests that failed, files that nginx would not take, processes that grow.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::history::History;
use super::world::{World, routed};
use crate::load::Load;
use crate::nginx::Nginx;

/// Descriptors and threads that a process may have more at the end: connections come and go.
const MORE: usize = 12;
/// Memory that it may have more, in KiB: buffers of the longest answers stay.
const MORE_KIB: u64 = 12 * 1024;

/// Looks all the time: requests through each load balancer, and its file.
pub struct Watch {
    loads: Vec<Load>,
    files: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts to look.
    #[must_use]
    pub fn start(world: &World<'_>) -> Self {
        let load = |nginx: &Nginx| {
            Load::on(nginx.address()).clients(2).think(Duration::from_millis(8)).start()
        };
        let loads = world.balancers.iter().map(|balancer| load(&balancer.nginx)).collect();
        let files = Arc::new(Mutex::new(None));
        let paths: Vec<_> = world.balancers.iter().map(|b| b.nginx.site()).collect();
        let (known, broken) = (world.addresses(), Arc::clone(&files));
        let task = tokio::spawn(async move {
            loop {
                let bad = paths.iter().find_map(|path| {
                    let text = fs::read_to_string(path);
                    let text = text.map_err(|e| format!("{}: {e}", path.display()));
                    text.and_then(|text| whole(&text, &known)).err()
                });
                if let Some(bad) = bad {
                    broken.lock().unwrap().get_or_insert(bad);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { loads, files, task }
    }

    /// Requests that were answered well so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.loads.iter().map(|load| load.so_far().ok).sum()
    }

    /// Fails the run when a request failed, or a file was broken at any moment.
    #[track_caller]
    pub fn assert_nothing_lost(&self, history: &History) {
        for load in &self.loads {
            let summary = load.so_far();
            if summary.failed() > 0 {
                history.note(format!("requests failed: {summary}"));
            }
            summary.assert_none_failed();
        }
        let broken = self.files.lock().unwrap().clone();
        assert!(broken.is_none(), "{}", broken.unwrap_or_default());
    }

    /// Stops looking; says how many requests there were.
    pub async fn stop(self) -> u64 {
        self.task.abort();
        let mut requests = 0;
        for load in self.loads {
            requests += load.stop().await.ok;
        }
        requests
    }
}

/// A file is whole if its braces close, and good if it names only backends that there are.
fn whole(text: &str, known: &BTreeSet<String>) -> Result<(), String> {
    let (open, close) = (text.matches('{').count(), text.matches('}').count());
    if open != close || !text.contains("proxy_pass") {
        return Err(format!("a file is torn:\n{text}"));
    }
    let strangers: Vec<_> = routed(text).difference(known).cloned().collect();
    if strangers.is_empty() { Ok(()) } else { Err(format!("{strangers:?} in\n{text}")) }
}

/// What the processes that nobody killed use: the newest confsync of the second load balancer
/// and the first sidekick may be young, so only those alive at both looks are compared.
#[derive(Debug, Clone)]
pub struct Footprint {
    pids: Vec<(i32, Usage)>,
    /// The most memory of a confsync, in KiB.
    pub memory_kib: u64,
}

#[derive(Debug, Clone, Copy)]
struct Usage {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
}

impl Footprint {
    /// As it is now.
    #[must_use]
    pub fn of(world: &World<'_>) -> Self {
        let balancers = world.balancers.iter();
        let balancers: Vec<i32> = balancers
            .filter_map(|b| b.confsync.try_lock().ok().map(|c| c.process().pid()))
            .collect();
        let sidekicks = world.stations.iter();
        let sidekicks = sidekicks
            .filter_map(|station| station.sidekick.try_lock().ok().map(|s| s.process().pid()));
        let all: Vec<i32> = balancers.iter().copied().chain(sidekicks).collect();
        let memory = balancers.iter().filter_map(|pid| usage(*pid)).map(|usage| usage.memory_kib);
        Self {
            memory_kib: memory.max().unwrap_or_default(),
            pids: all.iter().filter_map(|pid| Some((*pid, usage(*pid)?))).collect(),
        }
    }

    /// Fails the run when a process that lives since `before` has grown.
    #[track_caller]
    pub fn assert_like(&self, before: &Self, history: &History) {
        for (pid, now) in &self.pids {
            let Some((_, then)) = before.pids.iter().find(|(known, _)| known == pid) else {
                continue;
            };
            history.note(format!("process {pid}: {then:?}, then {now:?}"));
            assert!(now.descriptors <= then.descriptors + MORE, "{pid}: {then:?}, {now:?}");
            assert!(now.threads <= then.threads + MORE, "{pid}: {then:?}, {now:?}");
            assert!(now.memory_kib <= then.memory_kib + MORE_KIB, "{pid}: {then:?}, {now:?}");
        }
    }
}

fn usage(pid: i32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Usage {
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: usize::try_from(field("Threads:")?).ok()?,
        memory_kib: field("VmRSS:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_file_and_a_stranger_are_seen() {
        let known = BTreeSet::from(["127.0.0.1:80".to_owned()]);
        let good = "upstream a {\n    server 127.0.0.1:80;\n}\nproxy_pass http://a;\n";
        assert!(whole(good, &known).is_ok());
        assert!(whole(good.trim_end_matches("}\nproxy_pass http://a;\n"), &known).is_err());
        assert!(whole(&good.replace(":80", ":81"), &known).is_err());
    }
}
