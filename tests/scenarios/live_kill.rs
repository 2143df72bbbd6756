//! kill -9 of confsync, a worker, or the proxy altogether, at random moments while a backend joins or
//! leaves without a reload. No drain is stuck, the members are right afterwards, and no request
//! is lost but those that the killed process had.
//!
//! `LIVE_KILLS` says how often (6), `LIVE_SEED` repeats a run.

use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, kill_process};
use tests::daemon::Running;
use tests::eventually::check;
use tests::process::Process;
use tests::{Api, Backend, Daemon, Etcd, Exit, Lab, Load, Signal, eventually};

use crate::haproxy_by_name::Site;
use crate::live::Scene;

const CLIENTS: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Victim {
    Confsync,
    Worker,
    /// The master, and its workers with it, as a service manager ends them.
    Nginx,
}

struct World {
    scene: Scene,
    nginx: Option<Process>,
    confsync: Running,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seeded() -> Rng {
    let seed = number("LIVE_SEED", fastrand::u64(..));
    println!("LIVE_SEED={seed}");
    Rng::with_seed(seed)
}

fn kill(pid: i32) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

impl World {
    async fn new(supervising: bool) -> Option<Self> {
        let scene = Scene::new("").await?;
        let nginx = if supervising { None } else { Some(scene.nginx.start().await) };
        let confsync = confsync(&scene, supervising);
        confsync.ready().await;
        Some(Self { scene, nginx, confsync })
    }

    async fn kill(&mut self, victim: Victim) {
        let supervising = self.nginx.is_none();
        match victim {
            Victim::Confsync => {
                self.confsync.kill().await;
                self.confsync = confsync(&self.scene, supervising);
            }
            Victim::Worker => {
                let workers = self.scene.nginx.workers();
                if let Some(worker) = workers.first() {
                    kill(worker.pid);
                }
            }
            Victim::Nginx => {
                let (master, workers) = (self.scene.nginx.master(), self.scene.nginx.workers());
                master.into_iter().for_each(kill);
                workers.iter().for_each(|worker| kill(worker.pid));
                self.start_nginx(supervising, master).await;
            }
        }
    }

    /// As a service manager does.
    async fn start_nginx(&mut self, supervising: bool, killed: Option<i32>) {
        if supervising {
            // One that has just started may not have taken the killed nginx over yet: then it
            // starts another.
            let ended = eventually("confsync has ended, or runs another nginx", || async {
                let ended = self.confsync.process().exit().is_some();
                let runs = self.scene.nginx.master().is_some_and(|pid| Some(pid) != killed);
                check(ended || runs, || self.confsync.log())?;
                Ok::<_, String>(ended)
            })
            .await;
            if ended {
                self.confsync = confsync(&self.scene, supervising);
            }
            return;
        }
        eventually("the sockets of the killed nginx are gone", || async {
            let folder = self.scene.lab.path().join("live");
            let there = std::fs::read_dir(folder).unwrap().flatten();
            let sockets: Vec<_> = there
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "sock"))
                .collect();
            check(sockets.is_empty(), || format!("{sockets:?}\n{}", self.confsync.log()))
        })
        .await;
        self.nginx = Some(self.scene.nginx.start().await);
    }
}

fn confsync(scene: &Scene, supervising: bool) -> Running {
    let confsync = scene.confsync().flag("--name", "lb").flag("--ttl", "2s");
    if supervising { confsync.supervising(&scene.nginx).start() } else { confsync.start() }
}

async fn rounds(supervising: bool) {
    let Some(mut world) = World::new(supervising).await else { return };
    let mut random = seeded();
    let (_stays, _sidekick) = world.scene.join("stays").await;
    world.scene.answers("stays").await;
    let load = Load::on(world.scene.nginx.address()).clients(CLIENTS).keep_alive().start();
    let mut lost = [0; 3];
    for round in 0..number("LIVE_KILLS", 6) {
        let victim = victim(&mut random, round);
        let name = format!("round-{round}");
        let (backend, sidekick) = join(&world.scene.lab, &world.scene.etcd, &name).await;
        if random.bool() {
            load.answered(&name).await;
        }
        backend.take(Duration::from_millis(random.u64(0..30)));
        let before = load.so_far().failed();
        sidekick.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
        world.kill(victim).await;
        let exit = sidekick.wait_exit().await;
        assert_eq!(exit, Exit::Code(0), "{victim:?}, round {round}: {}", sidekick.log());
        backend.die().await;
        load.more(20).await;
        let failed = load.so_far().failed() - before;
        lost[victim as usize] += failed;
        match victim {
            Victim::Confsync => assert_eq!(failed, 0, "round {round}: {}", load.so_far()),
            Victim::Worker => {
                assert!(failed <= CLIENTS as u64, "round {round}: {}", load.so_far());
            }
            // Nobody serves until it is there again.
            Victim::Nginx => {}
        }
        eventually("who has left gets nothing, who has not gets all", || async {
            let text = world.scene.nginx.rendered()?;
            check(!text.contains(&backend.address().to_string()), || text)
        })
        .await;
        world.scene.answers("stays").await;
    }
    let [confsync, worker, nginx] = lost;
    println!("lost: confsync {confsync}, worker {worker}, nginx {nginx}; {}", load.stop().await);
}

/// Each comes about as often as the others.
fn victim(random: &mut Rng, round: u64) -> Victim {
    let all = [Victim::Confsync, Victim::Worker, Victim::Nginx];
    all[(round as usize + random.usize(0..2)) % all.len()]
}

async fn join(lab: &Lab, etcd: &Etcd, name: &str) -> (Backend, Running) {
    let at = (lab.another_ip(), 8080).into();
    let backend = Backend::start_at(at, name).await;
    let sidekick = Daemon::register(lab).named(&format!("sidekick of {name}"));
    let sidekick = sidekick.backend("apache", at).etcd(etcd, Api::V3).quick().start();
    sidekick.ready().await;
    (backend, sidekick)
}

/// HAProxy's master ends when a worker of its is killed; a service manager starts it again.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_haproxy() {
    let site = Site::prepare().await;
    site.name_servers();
    let (mut process, mut confsync) = site.start(&[]).await;
    let mut random = seeded();
    let load = Load::on(site.listen).clients(CLIENTS).keep_alive().start();
    load.answered("one").await;
    for round in 0..number("LIVE_KILLS", 4) {
        let name = format!("round-{round}");
        let (backend, sidekick) = join(&site.lab, &site.etcd, &name).await;
        if random.bool() {
            load.answered(&name).await;
        }
        backend.take(Duration::from_millis(random.u64(0..30)));
        let before = load.so_far().failed();
        sidekick.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
        let is_confsync = random.bool();
        if is_confsync {
            confsync.kill().await;
            confsync = site.confsync();
        } else {
            let pid = process.pid();
            let children = format!("/proc/{pid}/task/{pid}/children");
            let children = std::fs::read_to_string(children).unwrap();
            children.split_whitespace().for_each(|child| kill(child.parse().unwrap()));
            process.ended(Duration::from_secs(20)).await.unwrap();
            process = site.haproxy(&[]).await;
        }
        let exit = sidekick.wait_exit().await;
        assert_eq!(exit, Exit::Code(0), "round {round}: {}", sidekick.log());
        backend.die().await;
        load.more(20).await;
        let failed = load.so_far().failed() - before;
        assert!(!is_confsync || failed == 0, "round {round}: {}", load.so_far());
        eventually("who has left is out of the file", || async {
            let text = std::fs::read_to_string(site.at("web.cfg")).map_err(|e| e.to_string())?;
            check(!text.contains(&backend.address().to_string()), || text)
        })
        .await;
    }
    println!("{}", load.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_nginx_of_somebody_else() {
    rounds(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_supervised_nginx() {
    rounds(true).await;
}
