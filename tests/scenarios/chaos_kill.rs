//! kill -9 of confsync at every step of its pipeline and at random moments, under a stream
//! of changes and of requests. The file is whole at every moment; each next confsync has
//! nginx run what etcd says; no request fails.
//!
//! `CHAOS_KILLS` says how often (12 in each of the two ways to run nginx). Nothing in the
//! binary helps: a wrapper around nginx makes checks and starts slow and leaves a mark, and
//! a stopped master holds a reload open.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tests::daemon::Running;
use tests::eventually::check;
use tests::{Api, Confdir, Daemon, Etcd, Exit, Lab, Load, Nginx, Signal, eventually};

use crate::chaos::{Backends, Churn, Looking, UPSTREAM, marked, pause, server, settled, times};

const SLOW_NGINX: &str = "#!/bin/sh\ncase \" $* \" in\n*' -V '*) ;;\n*' -t '*) echo check >> MARKS; sleep 0.1 ;;\n\
                          *) echo start >> MARKS; sleep 0.2 ;;\nesac\nexec nginx \"$@\"\n";

/// Where the kill comes.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Just after confsync was started.
    Start,
    /// nginx is asked whether the candidate is good.
    Check,
    /// The files are swapped.
    Installed,
    /// nginx has the signal pending and has not reloaded yet.
    Reload,
    /// It is proven, the previous files are about to go.
    Live,
    /// Whenever.
    Random,
}

const STEPS: [Step; 8] = {
    use Step::{Check, Installed, Live, Random, Reload, Start};
    [Check, Installed, Reload, Live, Random, Start, Random, Random]
};

struct Setup<'a> {
    lab: &'a Lab,
    etcd: Etcd,
    nginx: Nginx,
    confdir: Confdir,
    backends: Arc<Backends>,
    wrapper: PathBuf,
    marks: PathBuf,
    supervising: bool,
}

impl<'a> Setup<'a> {
    async fn new(lab: &'a Lab, supervising: bool) -> Self {
        let etcd = Etcd::start(lab).await;
        let backends = Backends::start(lab, &etcd).await;
        let nginx = Nginx::prepare(lab);
        let confdir = Confdir::tutorial(lab, &nginx);
        confdir.template("nginx.tmpl", &marked(&(UPSTREAM.to_owned() + &server(&nginx))));
        let (wrapper, marks) = (lab.folder("slow").join("nginx"), lab.path().join("marks"));
        fs::write(&marks, "").unwrap();
        fs::write(&wrapper, SLOW_NGINX.replace("MARKS", &marks.display().to_string())).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let binary = format!("binary = \"{}\"\n", wrapper.display());
        confdir.edit("conf.d/nginx.toml", |toml| toml + &binary);
        Self { lab, etcd, nginx, confdir, backends, wrapper, marks, supervising }
    }

    fn confsync(&self) -> Running {
        let daemon = Daemon::confsync(self.lab).etcd(&self.etcd, Api::V3).confdir(&self.confdir);
        let daemon = daemon.flag("--min-reload-interval", "100ms").flag("--name", "lb");
        let daemon = daemon.flag("--ttl", "2s");
        if !self.supervising {
            return daemon.start();
        }
        let daemon = daemon.arg("--").arg(self.wrapper.display().to_string());
        self.nginx.command().into_iter().skip(1).fold(daemon, Daemon::arg).start()
    }

    fn marks(&self, of: &str) -> usize {
        fs::read_to_string(&self.marks).unwrap().lines().filter(|line| *line == of).count()
    }

    /// Waits until confsync is at this step, and kills it.
    async fn kill_at(&self, step: Step, confsync: &Running) {
        match step {
            Step::Start => pause(0..150).await,
            Step::Random => {
                confsync.ready().await;
                pause(0..600).await;
            }
            Step::Check => {
                confsync.ready().await;
                let before = self.marks("check");
                eventually("a check", || async {
                    check(self.marks("check") > before, || "none yet".to_owned())
                })
                .await;
            }
            Step::Installed => self.logged_again(confsync, " installed ").await,
            Step::Live => self.logged_again(confsync, " configuration is active ").await,
            Step::Reload => {
                confsync.ready().await;
                self.kill_in_a_reload(confsync).await;
            }
        }
        confsync.kill().await;
    }

    async fn logged_again(&self, confsync: &Running, text: &str) {
        confsync.ready().await;
        let count = || confsync.log().matches(text).count();
        let before = count();
        eventually("a log line", || async { check(count() > before, || confsync.log()) }).await;
    }

    /// A stopped master has its SIGHUP pending until it goes on. One that was stopped in the
    /// middle of a reload gets no second signal: it goes on, and is stopped again.
    async fn kill_in_a_reload(&self, confsync: &Running) {
        let master = self.nginx.master().and_then(Pid::from_raw).unwrap();
        eventually("SIGHUP is pending in nginx", || async {
            kill_process(master, Signal::STOP).unwrap();
            for _ in 0..100 {
                if sighup_is_pending(master)? {
                    return Ok(());
                }
                pause(10..11).await;
            }
            kill_process(master, Signal::CONT).unwrap();
            Err(confsync.log())
        })
        .await;
        confsync.kill().await;
        kill_process(master, Signal::CONT).unwrap();
    }

    async fn kill_again_and_again(&self) {
        let kills = times("CHAOS_KILLS", 12);
        let mut confsync = self.confsync();
        confsync.ready().await;
        let load =
            Load::on(self.nginx.address()).clients(3).think(Duration::from_millis(3)).start();
        let looking = Looking::at(vec![self.nginx.site()], &self.backends);
        for step in STEPS.into_iter().cycle().take(kills) {
            let churn = Churn::start(&self.backends);
            self.kill_at(step, &confsync).await;
            churn.end(&self.backends).await;
            confsync = self.confsync();
            confsync.ready().await;
            settled(&self.backends, &load).await;
            looking.assert_whole();
            assert!(load.so_far().failed() == 0, "after {step:?}: {}", load.so_far());
        }
        let looks = looking.assert_whole();
        let summary = load.stop().await;
        println!("{kills} kills, {looks} looks at the file, {summary}");
        summary.assert_none_failed();
        if self.supervising {
            assert!(confsync.log().contains("took over"), "{}", confsync.log());
            assert_eq!(confsync.stop().await, Exit::Code(0), "{}", confsync.log());
            assert_eq!(self.nginx.master(), None);
        }
        let left = fs::read_dir(self.nginx.site().parent().unwrap()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        // What was live is remembered for the next start, and who runs holds the lock.
        let stays = ["believed", "emptied", "lock", "instance"];
        let stays = stays.map(|what| format!(".app.conf.confsync-{what}"));
        left.retain(|name| !stays.iter().any(|stays| name == stays.as_str()));
        assert_eq!(left, ["app.conf"], "something is left beside the file");
    }
}

/// Whether a SIGHUP is pending.
fn sighup_is_pending(master: Pid) -> Result<bool, String> {
    let status = format!("/proc/{}/status", master.as_raw_nonzero());
    let status = fs::read_to_string(status).map_err(|e| e.to_string())?;
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let mask = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(mask.is_some_and(|mask| mask & 1 == 1))
}

/// nginx is known by its pid file and outlives confsync as if nothing had happened.
#[tokio::test(flavor = "multi_thread")]
async fn kill_beside_nginx() {
    let lab = Lab::new();
    let setup = Setup::new(&lab, false).await;
    fs::write(setup.nginx.site(), "").unwrap();
    let _nginx = setup.nginx.start().await;
    setup.kill_again_and_again().await;
}

/// nginx is confsync's child. It goes on, and the next confsync takes it over.
#[tokio::test(flavor = "multi_thread")]
async fn kill_above_nginx() {
    let lab = Lab::new();
    let setup = Setup::new(&lab, true).await;
    setup.kill_again_and_again().await;
}

/// The kill comes while nginx is starting: the next confsync must neither wait without end
/// nor start a second one that stays.
#[tokio::test(flavor = "multi_thread")]
async fn kill_while_nginx_starts() {
    let lab = Lab::new();
    let setup = Setup::new(&lab, true).await;
    let confsync = setup.confsync();
    eventually("nginx is being started", || async {
        check(setup.marks("start") > 0, || confsync.log())
    })
    .await;
    confsync.kill().await;
    // As a service manager would: one that ended is started again.
    let mut confsync = setup.confsync();
    eventually("a confsync that is ready", || {
        if confsync.process().exit().is_some() {
            confsync = setup.confsync();
        }
        let ready = confsync.notified().iter().any(|line| line == "READY=1");
        let log = confsync.log();
        async move { check(ready, || log) }
    })
    .await;
    let load = Load::on(setup.nginx.address()).clients(2).start();
    settled(&setup.backends, &load).await;
    load.stop().await.assert_none_failed();
    assert_eq!(confsync.stop().await, Exit::Code(0), "{}", confsync.log());
    assert_eq!(setup.nginx.master(), None);
}

/// Two confsyncs over one nginx would fight: the second says so and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_confsync_over_the_same_nginx_ends() {
    let lab = Lab::new();
    let setup = Setup::new(&lab, true).await;
    let first = setup.confsync();
    first.ready().await;
    let second = setup.confsync();
    assert_eq!(second.wait_exit().await, Exit::Code(1), "{}", second.log());
    assert!(second.log().contains("another confsync"), "{}", second.log());
    let load = Load::on(setup.nginx.address()).start();
    settled(&setup.backends, &load).await;
    load.stop().await.assert_none_failed();
}
