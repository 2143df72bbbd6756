//! A whole fleet against three members of etcd: sidekicks and load balancers by their own parts
//! (claim, registrar, follower, acknowledgements), many in this process, with real leases. Only
//! the proxy is left out: a load balancer here takes `--apply` for what it has seen.
//!
//! What it is for: what a fleet asks of etcd, and how long it takes until every load balancer has
//! seen a change. `docs/scale.md` has the figures and what follows from them.

mod balancer;
mod host;
mod members;

use std::time::{Duration, Instant};

use common::model::Revision;
use etcd_client::Client;
use futures_util::future::join_all;
use tests::eventually::check;
use tests::{Lab, within};

use self::balancer::Balancer;
use self::host::Host;
use self::members::{Load, Members};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Hosts, each one `register --config` with a lease
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Services on each host
    #[arg(long, default_value_t = 100)]
    services: usize,
    /// Load balancers, each of which follows all of them
    #[arg(long, default_value_t = 50)]
    balancers: usize,
    /// How long a load balancer takes until its proxy runs what it has seen
    #[arg(long, default_value = "50ms")]
    apply: humantime::Duration,
    /// How long the idle fleet is measured, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many single changes
    #[arg(long, default_value_t = 20)]
    changes: u32,
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

struct Fleet {
    members: Members,
    hosts: Vec<Host>,
    balancers: Vec<Balancer>,
    client: Client,
    services: usize,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::new();
    let members = Members::start(&lab).await;
    let client = Client::connect(members.urls(), None).await?;
    println!(
        "{} hosts of {} services, {} load balancers, three members of etcd, all on this machine\n",
        args.hosts, args.services, args.balancers
    );
    let mut fleet =
        Fleet { members, hosts: vec![], balancers: vec![], client, services: args.services };
    fleet.start(args).await?;
    fleet.idle(args.seconds).await?;
    fleet.single_changes(args.changes).await?;
    fleet.some_restart(args).await?;
    fleet.etcd_restarts().await?;
    Ok(())
}

impl Fleet {
    async fn start(&mut self, args: &Args) -> anyhow::Result<()> {
        let begun = Instant::now();
        let hosts = (0..args.hosts).map(|nth| Host::start(&self.members, nth, args.services));
        for host in join_all(hosts).await {
            self.hosts.push(host?);
        }
        join_all(self.hosts.iter_mut().map(Host::registered)).await;
        println!("all registered                    after {}", seconds(begun.elapsed()));
        let begun = Instant::now();
        let balancers =
            (0..args.balancers).map(|nth| Balancer::start(&self.members, nth, args.apply.into()));
        for balancer in join_all(balancers).await {
            self.balancers.push(balancer?);
        }
        self.all_see(Revision::default()).await;
        println!("all load balancers have the list  after {}", seconds(begun.elapsed()));
        Ok(())
    }

    async fn idle(&mut self, span: u64) -> anyhow::Result<()> {
        // The last acknowledgements of the start are written.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = self.members.load(&mut self.client).await?;
        tokio::time::sleep(Duration::from_secs(span)).await;
        let after = self.members.load(&mut self.client).await?;
        println!("\nidle, {span} s\n{}", Load::between(&before, &after));
        Ok(())
    }

    async fn single_changes(&mut self, changes: u32) -> anyhow::Result<()> {
        let (mut seen, mut acknowledged) =
            (crate::times::Times::default(), crate::times::Times::default());
        let before = self.members.load(&mut self.client).await?;
        for change in 0..changes {
            let begun = Instant::now();
            let put = self.client.put(
                "/services/changed/one",
                format!("10.0.0.1:{}", 1000 + change),
                None,
            );
            let at = put.await?.header().map_or(0, etcd_client::ResponseHeader::revision);
            let at = Revision(u64::try_from(at)?);
            join_all(self.balancers.iter().map(|balancer| balancer.sees(at))).await;
            seen.add(begun.elapsed());
            join_all(self.balancers.iter().map(|balancer| balancer.has_acknowledged(at))).await;
            acknowledged.add(begun.elapsed());
        }
        let after = self.members.load(&mut self.client).await?;
        println!("\none change, {changes} times");
        println!(
            "  every load balancer has seen it  median {}, p99 {}",
            seen.quantile(0.5),
            seen.quantile(0.99)
        );
        println!(
            "  every acknowledgement is stored  median {}, p99 {}",
            acknowledged.quantile(0.5),
            acknowledged.quantile(0.99)
        );
        println!("{}", Load::between(&before, &after));
        Ok(())
    }

    /// A tenth of the hosts ends in order and starts again, all at once.
    async fn some_restart(&mut self, args: &Args) -> anyhow::Result<()> {
        let before = self.members.load(&mut self.client).await?;
        let begun = Instant::now();
        let tenth = self.hosts.len().div_ceil(10);
        let restarted = self.hosts.drain(..tenth).enumerate().map(|(nth, host)| {
            let members = &self.members;
            async move {
                host.end().await;
                Host::start(members, nth, args.services).await
            }
        });
        let restarted: Vec<_> = join_all(restarted).await;
        for host in restarted {
            let mut host = host?;
            host.registered().await;
            self.hosts.push(host);
        }
        println!("\na tenth restarts at once");
        println!("  registered again                 after {}", seconds(begun.elapsed()));
        self.all_see(Revision::default()).await;
        println!("  every load balancer has all      after {}", seconds(begun.elapsed()));
        self.all_acknowledged().await;
        println!("  every acknowledgement is stored  after {}", seconds(begun.elapsed()));
        let after = self.members.load(&mut self.client).await?;
        println!("{}", Load::between(&before, &after));
        Ok(())
    }

    async fn etcd_restarts(&mut self) -> anyhow::Result<()> {
        let before = self.members.load(&mut self.client).await?;
        self.members.restart().await;
        let begun = Instant::now();
        let put = self.client.put("/services/changed/one", "10.0.0.1:80", None).await?;
        let at = put.header().map_or(0, etcd_client::ResponseHeader::revision);
        let at = Revision(u64::try_from(at)?);
        join_all(self.balancers.iter().map(|balancer| balancer.sees(at))).await;
        println!("\nall members of etcd restart at once");
        println!("  every load balancer sees a put   after {}", seconds(begun.elapsed()));
        self.all_see(at).await;
        let lost: usize = self.hosts.iter().map(Host::lost).sum();
        println!("  keys that were lost meanwhile    {lost}");
        let after = self.members.load(&mut self.client).await?;
        println!("{}", Load::between(&before, &after));
        Ok(())
    }

    /// Waits until every load balancer has every key of the hosts, at this revision or later.
    async fn all_see(&self, at: Revision) {
        let wanted = self.hosts.len() * self.services;
        within(PATIENCE, "every load balancer has all keys", || async {
            for balancer in &self.balancers {
                let (revision, keys) = balancer.view();
                check(revision >= at && keys >= wanted, || {
                    format!("one has {keys} of {wanted} keys at revision {revision}")
                })?;
            }
            Ok::<(), String>(())
        })
        .await;
    }

    async fn all_acknowledged(&self) {
        let newest = self.balancers.iter().map(|balancer| balancer.view().0).max();
        let newest = newest.unwrap_or_default();
        join_all(self.balancers.iter().map(|balancer| balancer.has_acknowledged(newest))).await;
    }
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}
