//! Two load balancers, of which one is frozen, killed, cut off or restarted while a
//! backend leaves: the drain is bounded and says by name who did not confirm, and the
//! clients of the other lose nothing.

use tests::daemon::Running;
use tests::eventually::check;
use tests::process::Process;
use tests::{
    Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Link, Load, Nginx, Signal, eventually,
};

in_both_apis!(
    a_frozen_load_balancer_is_named_and_not_waited_for_without_bound,
    a_killed_load_balancer_is_lost,
    one_cut_off_from_etcd_is_lost_and_comes_back,
    one_restarted_during_a_drain_confirms_it,
    a_load_balancer_that_stopped_with_its_nginx_has_drained,
    one_stopped_while_its_nginx_goes_on_has_not,
    etcd_is_back_before_the_lease_has_ended,
    etcd_is_away_for_good,
    etcd_is_restored_during_a_drain,
);

/// One load balancer: an nginx and a confsync that follows through a link.
struct Lb {
    name: String,
    nginx: Nginx,
    /// Runs by itself, unless it is confsync's child.
    _nginx: Option<Process>,
    confdir: Confdir,
    link: Link,
    confsync: Running,
}

struct Fleet {
    lab: Lab,
    api: Api,
    etcd: Etcd,
    backends: Vec<Backend>,
    sidekicks: Vec<Running>,
    lbs: Vec<Lb>,
}

impl Fleet {
    /// Three backends; the second load balancer is the one in trouble.
    async fn start(api: Api, supervised: bool) -> Self {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let mut fleet = Self { lab, api, etcd, backends: vec![], sidekicks: vec![], lbs: vec![] };
        for name in ["one", "two", "three"] {
            let at = (fleet.lab.another_ip(), 8080).into();
            let backend = Backend::start_at(at, name).await;
            let sidekick = Daemon::register(&fleet.lab).named(&format!("sidekick of {name}"));
            let sidekick = sidekick.backend("apache", at).etcd(&fleet.etcd, api);
            let sidekick = sidekick.flag("--ttl", "3s").flag("--rise", "1");
            let sidekick = sidekick.flag("--interval", "1s").flag("--fast-interval", "1s");
            let bounds = sidekick.flag("--drain-applied", "6s").flag("--drain-quiesced", "6s");
            fleet.sidekicks.push(bounds.start());
            fleet.backends.push(backend);
        }
        for sidekick in &fleet.sidekicks {
            sidekick.ready().await;
        }
        for name in ["lb-1", "lb-2"] {
            let lb = fleet.lb(name, supervised).await;
            fleet.lbs.push(lb);
        }
        for lb in &fleet.lbs {
            lb.confsync.ready().await;
        }
        fleet
    }

    async fn lb(&self, name: &str, supervised: bool) -> Lb {
        let nginx = Nginx::prepare(&self.lab);
        let confdir = Confdir::tutorial(&self.lab, &nginx);
        let link = Link::to(&self.lab, self.etcd.address()).await;
        let process = if supervised { None } else { Some(nginx.start().await) };
        let confsync = self.confsync(name, &link, &confdir, supervised.then_some(&nginx));
        Lb { name: name.to_owned(), nginx, _nginx: process, confdir, link, confsync }
    }

    fn confsync(
        &self,
        name: &str,
        link: &Link,
        confdir: &Confdir,
        nginx: Option<&Nginx>,
    ) -> Running {
        let confsync = Daemon::confsync(&self.lab).named(name).flag("--name", name);
        let confsync = confsync.flag("--etcd", link.url()).flag("--etcd-api", self.api.flag());
        let confsync = confsync.flag("--ttl", "2s").confdir(confdir);
        match nginx {
            Some(nginx) => confsync.supervising(nginx).start(),
            None => confsync.start(),
        }
    }

    fn load(&self) -> Load {
        Load::on(self.lbs[0].nginx.address()).clients(4).post(vec![7; 1_000]).start()
    }

    /// The first backend leaves, and is gone when its sidekick is.
    async fn first_leaves(&self, load: &Load) -> Exit {
        let exit = self.sidekicks[0].wait_exit().await;
        self.backends[0].die().await;
        load.more(50).await;
        exit
    }

    fn begin_to_leave(&self) {
        self.sidekicks[0].signal(Signal::TERM);
    }

    async fn removed(&self) {
        let key = format!("/services/apache/{}", self.backends[0].ip());
        let ctl = self.etcd.ctl(self.api);
        eventually("the key is removed", || async {
            let value = ctl.get(&key).await;
            check(value.is_none(), || format!("it is {value:?}"))
        })
        .await;
    }

    async fn follows_again(&self, lb: &Lb) {
        let gone = self.backends[0].address().to_string();
        eventually(format!("{} lets go", lb.name), || async {
            let text = lb.nginx.rendered()?;
            check(!text.contains(&gone), || text)
        })
        .await;
    }

    fn log(&self) -> String {
        self.sidekicks[0].log()
    }
}

#[track_caller]
fn names(fleet: &Fleet, lb: &str, why: &str) {
    let log = fleet.log();
    assert!(log.contains(&format!("{lb}: {why}")), "no `{lb}: {why}` in\n{log}");
    let status = fleet.sidekicks[0].notified().join("\n");
    assert!(status.contains(&format!("{lb}: {why}")), "no `{lb}: {why}` in\n{status}");
}

async fn a_frozen_load_balancer_is_named_and_not_waited_for_without_bound(api: Api) {
    let fleet = Fleet::start(api, true).await;
    let load = fleet.load();
    load.more(50).await;
    // The nginx of a frozen confsync keeps serving, with the backend that leaves.
    fleet.lbs[1].confsync.signal(Signal::STOP);
    fleet.begin_to_leave();
    let exit = fleet.first_leaves(&load).await;
    assert_eq!(exit, Exit::Code(2), "{}", fleet.log());
    let log = fleet.log();
    assert!(log.contains("waiting for lb-2"), "{log}");
    assert!(log.contains("drain unconfirmed (lb-2: "), "{log}");
    fleet.lbs[1].confsync.signal(Signal::CONT);
    fleet.follows_again(&fleet.lbs[1]).await;
    load.stop().await.assert_none_failed();
}

async fn a_killed_load_balancer_is_lost(api: Api) {
    let fleet = Fleet::start(api, false).await;
    let load = fleet.load();
    load.more(50).await;
    fleet.lbs[1].confsync.kill().await;
    fleet.begin_to_leave();
    let exit = fleet.first_leaves(&load).await;
    assert_eq!(exit, Exit::Code(2), "{}", fleet.log());
    names(&fleet, "lb-2", "lost: its lease ended");
    load.stop().await.assert_none_failed();
}

async fn one_cut_off_from_etcd_is_lost_and_comes_back(api: Api) {
    let fleet = Fleet::start(api, true).await;
    let load = fleet.load();
    load.more(50).await;
    fleet.lbs[1].link.cut();
    fleet.begin_to_leave();
    let exit = fleet.first_leaves(&load).await;
    assert_eq!(exit, Exit::Code(2), "{}", fleet.log());
    names(&fleet, "lb-2", "lost: its lease ended");
    fleet.lbs[1].link.restore();
    fleet.follows_again(&fleet.lbs[1]).await;
    // Its member key comes back by itself, soon after its watch.
    eventually("lb-2 is a member again", || async {
        let members = fleet.etcd.ctl(api).ls("/confsync/members").await;
        check(members.iter().any(|key| key.ends_with("/lb-2")), || format!("{members:?}"))
    })
    .await;
    // And it is waited for again.
    fleet.sidekicks[1].signal(Signal::TERM);
    assert_eq!(fleet.sidekicks[1].wait_exit().await, Exit::Code(0));
    let log = fleet.sidekicks[1].log();
    assert!(log.contains("confirmed by lb-1, lb-2"), "{log}");
    load.stop().await.assert_none_failed();
}

async fn one_restarted_during_a_drain_confirms_it(api: Api) {
    let fleet = Fleet::start(api, false).await;
    let load = fleet.load();
    load.more(50).await;
    let lb = &fleet.lbs[1];
    lb.confsync.signal(Signal::STOP);
    fleet.begin_to_leave();
    fleet.removed().await;
    lb.confsync.kill().await;
    let again = fleet.confsync(&lb.name, &lb.link, &lb.confdir, None);
    again.ready().await;
    let exit = fleet.first_leaves(&load).await;
    assert_eq!(exit, Exit::Code(0), "{}", fleet.log());
    assert!(fleet.log().contains("confirmed by lb-1, lb-2"), "{}", fleet.log());
    load.stop().await.assert_none_failed();
}

async fn a_load_balancer_that_stopped_with_its_nginx_has_drained(api: Api) {
    let fleet = Fleet::start(api, true).await;
    let load = fleet.load();
    load.more(50).await;
    let lb = &fleet.lbs[1];
    lb.confsync.signal(Signal::STOP);
    fleet.begin_to_leave();
    fleet.removed().await;
    lb.confsync.signal(Signal::TERM);
    lb.confsync.signal(Signal::CONT);
    let exit = fleet.first_leaves(&load).await;
    assert_eq!(exit, Exit::Code(0), "{}", fleet.log());
    load.stop().await.assert_none_failed();
}

async fn one_stopped_while_its_nginx_goes_on_has_not(api: Api) {
    let fleet = Fleet::start(api, false).await;
    let load = fleet.load();
    load.more(50).await;
    assert_eq!(fleet.lbs[1].confsync.stop().await, Exit::Code(0));
    fleet.begin_to_leave();
    let exit = fleet.first_leaves(&load).await;
    assert_eq!(exit, Exit::Code(2), "{}", fleet.log());
    names(&fleet, "lb-2", "");
    load.stop().await.assert_none_failed();
}

async fn etcd_is_back_before_the_lease_has_ended(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).etcd(&etcd, api);
    let sidekick = sidekick.flag("--drain-applied", "1s").start();
    sidekick.ready().await;
    etcd.freeze();
    sidekick.signal(Signal::TERM);
    sidekick.logged("waiting").await;
    etcd.thaw();
    assert_eq!(sidekick.wait_exit().await, Exit::Code(0), "{}", sidekick.log());
    let key = format!("/services/apache/{}", backend.ip());
    assert_eq!(etcd.ctl(api).get(&key).await, None);
}

async fn etcd_is_away_for_good(api: Api) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).etcd(&etcd, api);
    let sidekick = sidekick.quick().flag("--drain-applied", "1s").start();
    sidekick.ready().await;
    etcd.freeze();
    let exit = sidekick.stop().await;
    etcd.thaw();
    assert_eq!(exit, Exit::Code(2), "{}", sidekick.log());
    assert!(sidekick.log().contains("drain unconfirmed"), "{}", sidekick.log());
}

/// The backup has the key of the backend that is leaving; it must go again.
async fn etcd_is_restored_during_a_drain(api: Api) {
    let fleet = Fleet::start(api, true).await;
    let load = fleet.load();
    load.more(50).await;
    let saved = fleet.etcd.save().await;
    // Saving stops etcd for a moment. A list that is under way when confsync is suspended would be
    // an answer of the store that was, read beside one that has the same revision.
    let probe = "/services/apache/no-endpoint";
    fleet.etcd.ctl(api).put(probe, "none").await;
    for lb in &fleet.lbs {
        lb.confsync.logged(probe).await;
    }
    fleet.lbs[1].confsync.signal(Signal::STOP);
    fleet.begin_to_leave();
    fleet.removed().await;
    fleet.etcd.restore(&saved).await;
    fleet.lbs[1].confsync.signal(Signal::CONT);
    let exit = fleet.first_leaves(&load).await;
    assert!(matches!(exit, Exit::Code(0 | 2)), "{exit}: {}", fleet.log());
    fleet.removed().await;
    for lb in &fleet.lbs {
        fleet.follows_again(lb).await;
    }
    let summary = load.stop().await;
    if exit == Exit::Code(0) {
        summary.assert_none_failed();
    }
}
