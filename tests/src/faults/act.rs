//! Carries faults out and ends them. All faults of a round go on at the same time, each by its
//! own clock.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::history::History;
use super::plan::{Fault, Kind, OfBackend, OfBalancer, OfEtcd};
use super::world::{Station, World};
use crate::etcd::{Api, Etcd};
use crate::link::Link;
use crate::process::Signal;

/// A stop in order may wait for load balancers that cannot answer, each step bounded.
const DRAIN: Duration = Duration::from_secs(90);

/// Values that no nginx may see.
const POISON: [&str; 4] = ["127.0.0.1:99999", "x;} server {", "", "unix:/tmp/x"];

/// Carries out a round, and returns when all of its faults are over.
pub async fn carry_out(world: &World<'_>, faults: &[Fault], history: &History) {
    join_all(faults.iter().map(|fault| async {
        sleep(fault.after).await;
        befall(world, *fault, history).await;
    }))
    .await;
}

async fn befall(world: &World<'_>, fault: Fault, history: &History) {
    match fault.kind {
        Kind::Etcd(what) => etcd(world, what, fault.lasts).await,
        Kind::Balancer(whose, what) => balancer(world, whose, what, fault.lasts).await,
        Kind::Backend(whose, what) => backend(world, whose, what, fault.lasts, history).await,
        Kind::Poisoned => {
            each_poison(world, "put").await;
            sleep(fault.lasts).await;
            each_poison(world, "del").await;
        }
    }
    history.note(format!("over: {:?}", fault.kind));
}

async fn etcd(world: &World<'_>, what: OfEtcd, lasts: Duration) {
    match what {
        OfEtcd::Killed(nth) => {
            world.members[nth].kill().await;
            sleep(lasts).await;
            world.members[nth].up().await;
        }
        OfEtcd::Frozen(nth) => {
            world.members[nth].freeze();
            sleep(lasts).await;
            world.members[nth].thaw();
        }
        OfEtcd::QuorumLost(left) => {
            let others = || world.members.iter().enumerate().filter(move |(nth, _)| *nth != left);
            others().for_each(|(_, member)| member.freeze());
            sleep(lasts).await;
            others().for_each(|(_, member)| member.thaw());
        }
        OfEtcd::LineCut(nth) => {
            world.lines[nth].cut();
            sleep(lasts).await;
            world.lines[nth].restore();
        }
        OfEtcd::AllLinesCut => {
            world.lines.iter().for_each(Link::cut);
            sleep(lasts).await;
            world.lines.iter().for_each(Link::restore);
        }
        OfEtcd::Compacted => compact(&world.members).await,
    }
}

async fn balancer(world: &World<'_>, whose: usize, what: OfBalancer, lasts: Duration) {
    let balancer = &world.balancers[whose];
    let mut confsync = balancer.confsync.lock().await;
    match what {
        OfBalancer::Killed => {
            confsync.kill().await;
            sleep(lasts).await;
            *confsync = world.confsync(balancer);
        }
        OfBalancer::Frozen => {
            confsync.signal(Signal::STOP);
            sleep(lasts).await;
            confsync.signal(Signal::CONT);
        }
        OfBalancer::Reloaded => confsync.signal(Signal::HUP),
        OfBalancer::ForeignReload => balancer.nginx.signal(Signal::HUP),
    }
}

async fn backend(
    world: &World<'_>,
    whose: usize,
    what: OfBackend,
    lasts: Duration,
    history: &History,
) {
    let Station { backend, sidekick } = &world.stations[whose];
    let mut sidekick = sidekick.lock().await;
    match what {
        OfBackend::SidekickKilled => {
            sidekick.kill().await;
            sleep(lasts).await;
            *sidekick = world.sidekick(backend);
        }
        OfBackend::Died => {
            backend.die().await;
            sleep(lasts).await;
            backend.come_up().await;
        }
        OfBackend::Stopped => {
            sidekick.signal(Signal::TERM);
            let ended = sidekick.process().ended(DRAIN).await;
            let exit = ended.unwrap_or_else(|why| panic!("{why}\n{}", sidekick.log()));
            history.note(format!("the stop of backend {whose} ended with {exit}"));
            backend.finish().await;
            sleep(lasts).await;
            backend.come_up().await;
            *sidekick = world.sidekick(backend);
        }
    }
}

/// Forgets all revisions but the newest. While etcd has a fault of its own there is none of
/// this kind, so it answers.
async fn compact(members: &[Etcd]) {
    let Some(member) = members.first() else { return };
    let ctl = member.ctl(Api::V3);
    let status = ctl.attempt(&["get", "/none", "--write-out=json"]).await.unwrap_or_default();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    let revision = &status["header"]["revision"];
    let _ = ctl.attempt(&["compact", &revision.to_string()]).await;
    let _ = ctl.attempt(&["defrag"]).await;
}

/// Through whatever member answers: one of them may stand still.
async fn each_poison(world: &World<'_>, verb: &str) {
    for (nth, value) in POISON.iter().enumerate() {
        let key = format!("/services/apache/poison-{nth}");
        let args: Vec<&str> = match verb {
            "put" => vec!["--command-timeout=1s", "put", "--", &key, value],
            _ => vec!["--command-timeout=1s", "del", &key],
        };
        for member in world.members.iter().cycle().take(60) {
            if member.ctl(Api::V3).attempt(&args).await.is_ok() {
                break;
            }
        }
    }
}
