//! The reload groups of the process: those that run, each by its agent, and those that could not
//! begin yet.

mod succession;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::{is_bookkeeping, may_be_bookkeeping};
use common::model::Prefix;
use common::runtime::{Gate, Liveness};
use common::store::{Connection, Etcd};
use common::watch::{self, Ignored, Options, Start};
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::succession::EndedGroups;
pub(super) use self::waiting::NewGroup;
use self::waiting::WaitingGroup;
use super::locks::lock_dests;
use super::nothing_found::log_where_keys_are;
use crate::acks::members::LoadBalancerKeys;
use crate::agent::{Agent, AgentParts};
use crate::apply::LoadLimits;
use crate::apply::pipeline::Pipeline;
use crate::backends::known::KnownBackends;
use crate::config::reload_group::ReloadGroup;
use crate::proxy::Proxy;
use crate::proxy::child::Child;
use crate::proxy::driver::Driver;
use crate::proxy::nginx::NginxArgv;
use crate::status::About;
use crate::status::state::{GroupState, States};
use crate::status::totals::Totals;
use crate::status::traffic::{Monitored, TrafficMonitor};

/// What all groups work with.
pub(super) struct GroupEnvironment {
    pub(super) child: Option<Child>,
    /// The nginx of the child's command line.
    pub(super) argv: Option<NginxArgv>,
    pub(super) store: Etcd,
    pub(super) connection: Connection,
    pub(super) members: LoadBalancerKeys,
    /// No template sees these keys.
    pub(super) bookkeeping: Prefix,
    /// The interval of the periodic resync.
    pub(super) resync: Duration,
    pub(super) liveness: Liveness,
    /// Where the counters of groups that have ended are kept.
    pub(super) about: channel::Sender<About>,
    /// Reads what the proxies count, while a client follows the status page.
    pub(super) traffic: TrafficMonitor,
}

pub(super) struct ReloadGroups {
    pub(super) environment: GroupEnvironment,
    running: Vec<RunningGroup>,
    waiting: Vec<WaitingGroup>,
}

struct RunningGroup {
    group: ReloadGroup,
    agent: JoinHandle<BTreeMap<String, KnownBackends>>,
    stop: CancellationToken,
    again: Arc<Notify>,
    state: channel::Receiver<GroupState>,
    /// Its traffic is read for as long as this exists.
    _monitored: Option<Monitored>,
}

impl ReloadGroups {
    pub(super) fn new(environment: GroupEnvironment) -> Self {
        Self { environment, running: Vec::new(), waiting: Vec::new() }
    }

    /// All of them, also those that could not begin yet.
    pub(super) fn all(&self) -> impl Iterator<Item = &ReloadGroup> {
        let waiting = self.waiting.iter().map(|waiting| &waiting.new.group);
        self.running.iter().map(|running| &running.group).chain(waiting)
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// A child that is not started yet is to find the files of all of them.
    pub(super) async fn expect(&self, groups: &[ReloadGroup]) {
        if let Some(child) = &self.environment.child {
            child.expect(groups.iter().map(|group| group.name.clone())).await;
        }
    }

    /// Begins a group, whose files another process may write until `patience` is over.
    pub(super) async fn begin(
        &mut self,
        new: NewGroup,
        joined: &Gate,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let NewGroup { group, predecessor } = new;
        let (pipeline, monitored) = self.environment.pipeline(&group, patience).await?;
        let stop = CancellationToken::new();
        let view = self.environment.follow(&group, joined, &stop);
        self.environment.look_elsewhere(&group, view.clone());
        let (publish, state) = channel::channel(GroupState::empty(&group.name));
        let again = Arc::new(Notify::new());
        let parts = AgentParts {
            group: group.clone(),
            pipeline,
            view,
            store: self.environment.store.clone(),
            bookkeeping: self.environment.members.bookkeeping().clone(),
            members: Some(self.environment.members.clone()),
            publish,
            liveness: self.environment.liveness.clone(),
            again: Arc::clone(&again),
            predecessor,
        };
        let agent = tokio::spawn(Agent::new(parts).run(stop.clone()));
        self.running.push(RunningGroup { group, agent, stop, again, state, _monitored: monitored });
        Ok(())
    }

    /// Ends every group that is not among those `wanted`. What was rejected by those that stay is
    /// tried again: the operator who asks for a reload may have repaired it.
    pub(super) async fn end_others(&mut self, wanted: &[ReloadGroup]) -> EndedGroups {
        let stays =
            |running: &mut RunningGroup| wanted.iter().any(|group| group.same_as(&running.group));
        let others: Vec<_> = self.running.extract_if(.., |running| !stays(running)).collect();
        self.running.iter().for_each(|running| running.again.notify_one());
        let mut ended = EndedGroups::default();
        for running in others {
            tracing::info!(
                set = running.group.name,
                "reload group changed or removed; stopping its agent"
            );
            running.stop.cancel();
            let known_backends = running.agent.await.unwrap_or_default();
            let state = running.state.borrow().clone();
            let totals = Totals::of(&state);
            self.environment.about.send_modify(|about| {
                about.ended.insert(state.name.clone(), totals);
            });
            ended.add(running.group.loader, known_backends, Some(state));
        }
        for waiting in self.waiting.drain(..) {
            let NewGroup { group, predecessor } = waiting.new;
            ended.add(group.loader, predecessor.known_backends, predecessor.state);
        }
        ended
    }

    /// Begins those that do not run.
    pub(super) async fn begin_missing(
        &mut self,
        wanted: Vec<ReloadGroup>,
        mut ended: EndedGroups,
        joined: &Gate,
    ) {
        for group in wanted {
            if !self.running.iter().any(|running| running.group.same_as(&group)) {
                let predecessor = ended.predecessor_of(&group);
                self.begin_or_wait(NewGroup { group, predecessor }, joined).await;
            }
        }
    }

    /// The newest states.
    pub(super) fn states(&mut self) -> States {
        let running = self
            .running
            .iter_mut()
            .map(|running| (running.group.name.clone(), running.state.borrow_and_update().clone()));
        let waiting =
            self.waiting.iter().map(|waiting| (waiting.new.group.name.clone(), waiting.state()));
        running.chain(waiting).collect()
    }

    /// Resolves when a group has another state.
    pub(super) async fn changed(&mut self) {
        let waits = self.running.iter_mut().map(|running| Box::pin(running.state.changed()));
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        let (changed, _, _) = futures_util::future::select_all(waits).await;
        if changed.is_err() {
            // An agent has ended; its end is dealt with where it was asked for.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Steps at hand are finished, unless `abort` comes first. Returns the last state of each.
    pub(super) async fn end(&mut self, abort: &CancellationToken) -> States {
        self.running.iter().for_each(|running| running.stop.cancel());
        let mut last = self.states();
        for running in self.running.drain(..) {
            let _ = abort.run_until_cancelled(running.agent).await;
            last.insert(running.group.name.clone(), running.state.borrow().clone());
        }
        last
    }
}

impl GroupEnvironment {
    /// The pipeline of a group, and what keeps its proxy's traffic being read.
    async fn pipeline(
        &self,
        group: &ReloadGroup,
        patience: Duration,
    ) -> anyhow::Result<(Pipeline, Option<Monitored>)> {
        let proxy = Proxy::of(group, self.child.as_ref(), self.argv.as_ref()).await?;
        let targets = group.targets();
        let locks = lock_dests(&targets, patience).await?;
        let limits = LoadLimits { min_interval: group.min_reload_interval(), splay: group.splay() };
        let driver = Driver::of(group, &proxy);
        let monitored = self.traffic.of(&group.name, driver.traffic_reader());
        let pipeline = Pipeline::new(group.name.clone(), proxy, targets, locks, limits)?;
        let pipeline = pipeline.with_driver(driver);
        // A group that was here before goes on counting.
        let pipeline = match self.about.borrow().ended.get(&group.name).cloned() {
            Some(ended) => pipeline.counting_on(ended.counts, ended.load_seconds),
            None => pipeline,
        };
        Ok((pipeline, monitored))
    }

    fn follow(
        &self,
        group: &ReloadGroup,
        joined: &Gate,
        stop: &CancellationToken,
    ) -> channel::Receiver<watch::View> {
        let reason = "nothing is read before this load balancer is registered";
        let start = Some(Start { gate: joined.clone(), reason });
        let ignored = Some(Ignored {
            tree: self.bookkeeping.clone().into(),
            entry: is_bookkeeping,
            may_be: may_be_bookkeeping,
        });
        let options = Options { resync: self.resync, start, ignored, ..Options::default() };
        watch::follow(self.store.clone(), group.trees(), options, stop.clone())
    }

    /// Where nothing is found at the start, it is looked where else the keys may be.
    fn look_elsewhere(&self, group: &ReloadGroup, mut view: channel::Receiver<watch::View>) {
        let (name, trees) = (group.name.clone(), group.trees());
        let (connection, store) = (self.connection.clone(), self.store.clone());
        tokio::spawn(async move {
            let first = view.wait_for(|view| view.snapshot.is_some()).await;
            let is_empty = first.is_ok_and(|view| {
                view.snapshot.as_ref().is_some_and(|snapshot| snapshot.entries.is_empty())
            });
            if is_empty {
                log_where_keys_are(&connection, &store, &trees, &name).await;
            }
        });
    }
}
