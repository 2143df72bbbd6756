//! etcd refuses us at the start, or a file is not there yet: that is waited for, reported and
//! not ready, while the proxy serves the last good files and a supervised backend runs.

use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tests::daemon::Running;
use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, eventually};

use crate::register_setup::says;

/// What is wrong at the start.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// The password is another one now; the file is put right later.
    Password,
    /// The user is gone, and comes back.
    User,
    /// A server without the v2 API, and later one with it.
    NoV2,
    /// The CA file is written after the start.
    NoCa,
}

/// etcd with something wrong, and how to connect to it.
struct Refusing {
    wrong: Wrong,
    etcd: Etcd,
    flags: Vec<(&'static str, String)>,
    /// What the status says meanwhile.
    says: &'static str,
    file: std::path::PathBuf,
    /// What puts the file right.
    right: String,
}

const ROOT: [&str; 2] = ["--user", "root:secret"];

impl Refusing {
    async fn start(lab: &Lab, wrong: Wrong) -> Self {
        let file = lab.path().join(format!("file-{wrong:?}"));
        let path = file.display().to_string();
        let user =
            || vec![("--etcd-user", "lb".to_owned()), ("--etcd-password-file", path.clone())];
        let (mut right, mut flags) = ("right\n".to_owned(), user());
        let mut says = "authentication failed";
        let etcd = match wrong {
            Wrong::Password | Wrong::User => {
                let etcd = Etcd::start(lab).await;
                let ctl = etcd.ctl(Api::V3);
                let _ = ctl.run(&["user", "add", "root:secret"]).await.ok();
                let _ = ctl.run(&["user", "grant-role", "root", "root"]).await.ok();
                if matches!(wrong, Wrong::Password) {
                    add_user(&etcd).await;
                }
                let _ = ctl.run(&["auth", "enable"]).await.ok();
                let now = if matches!(wrong, Wrong::Password) { "old\n" } else { "right\n" };
                fs::write(&file, now).unwrap();
                etcd
            }
            Wrong::NoV2 => {
                says = "does not offer the v2 API";
                flags = vec![("--etcd-api", "v2".to_owned())];
                let etcd = Etcd::prepare(lab).arg("--enable-v2=false");
                etcd.up().await;
                etcd
            }
            Wrong::NoCa => {
                says = "cannot read";
                flags = vec![("--etcd-ca", path.clone())];
                let (etcd, certificate, secure) = with_tls(lab).await;
                right = certificate;
                flags.push(("--etcd", secure));
                etcd
            }
        };
        if !matches!(wrong, Wrong::NoCa) {
            flags.push(("--etcd", etcd.url()));
        }
        Self { wrong, etcd, flags, says, file, right }
    }

    async fn put_right(&self, lab: &Lab) {
        match self.wrong {
            Wrong::Password | Wrong::NoCa => fs::write(&self.file, &self.right).unwrap(),
            Wrong::User => add_user(&self.etcd).await,
            Wrong::NoV2 => {
                self.etcd.stop().await;
                Etcd::prepare_at(lab, self.etcd.address()).up().await;
            }
        }
    }

    fn connects(&self, daemon: Daemon) -> Daemon {
        self.flags.iter().fold(daemon, |daemon, (flag, value)| daemon.flag(flag, value.as_str()))
    }

    async fn is_waited_for(&self, daemon: &Running) {
        says(daemon, "waiting for etcd at").await;
        says(daemon, self.says).await;
        assert!(daemon.log().contains(self.says), "{:?}: {}", self.wrong, daemon.log());
    }
}

async fn add_user(etcd: &Etcd) {
    let ctl = etcd.ctl(Api::V3);
    for words in [["user", "add", "lb:right"].as_slice(), &["user", "grant-role", "lb", "root"]] {
        let with_root: Vec<&str> = ROOT.iter().chain(words).copied().collect();
        // Before authentication is on, nobody is asked for.
        if ctl.run(&with_root).await.exit.success() {
            continue;
        }
        let _ = ctl.run(words).await.ok();
    }
}

/// With one self-signed certificate for everything, and where it is.
async fn with_tls(lab: &Lab) -> (Etcd, String, String) {
    let mut params = CertificateParams::new(vec![lab.ip().to_string()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let (cert_file, key_file) = (lab.path().join("etcd.pem"), lab.path().join("etcd.key"));
    fs::write(&cert_file, &certificate).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let (plain, secure) = (lab.free(), format!("https://{}", lab.free()));
    let mut etcd = Etcd::prepare_at(lab, plain);
    for arg in [
        "--listen-client-urls",
        &format!("http://{plain},{secure}"),
        "--cert-file",
        &cert_file.display().to_string(),
        "--key-file",
        &key_file.display().to_string(),
    ] {
        etcd = etcd.arg(arg);
    }
    etcd.up().await;
    (etcd, certificate, secure)
}

async fn a_sidekick_waits_and_its_backend_runs(wrong: Wrong) {
    let lab = Lab::new();
    let refusing = Refusing::start(&lab, wrong).await;
    let backend = Backend::start(&lab, "one").await;
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).quick();
    let sidekick = refusing.connects(sidekick).arg("--").arg("sh").arg("-c");
    let sidekick = sidekick.arg("echo the backend runs; exec sleep 600").start();
    refusing.is_waited_for(&sidekick).await;
    sidekick.logged("the backend runs").await;
    assert!(!sidekick.notified().contains(&"READY=1".to_owned()));
    refusing.put_right(&lab).await;
    // It is the same process, with the same backend.
    sidekick.ready().await;
    assert_eq!(sidekick.log().matches("the backend runs").count(), 1, "{}", sidekick.log());
}

async fn a_load_balancer_waits_and_its_nginx_serves(wrong: Wrong) {
    let lab = Lab::new();
    let refusing = Refusing::start(&lab, wrong).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let last = format!("server {{ listen {}; return 200 last; }}\n", nginx.address());
    fs::write(nginx.site(), last).unwrap();
    let confsync = refusing.connects(Daemon::confsync(&lab).confdir(&confdir));
    let confsync = confsync.supervising(&nginx).start();
    refusing.is_waited_for(&confsync).await;
    eventually("the last good file is served", || async {
        let answer = nginx.get("/").await?;
        check(answer.body == "last", || answer.body.clone())
    })
    .await;
    assert!(!confsync.notified().contains(&"READY=1".to_owned()));
    refusing.put_right(&lab).await;
    confsync.logged("following the keys in etcd").await;
    assert!(confsync.process().exit().is_none(), "{}", confsync.log());
}

macro_rules! rows {
    ($($row:ident: $wrong:ident),+ $(,)?) => {
        $(mod $row {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn register() {
                a_sidekick_waits_and_its_backend_runs(Wrong::$wrong).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn confsync() {
                a_load_balancer_waits_and_its_nginx_serves(Wrong::$wrong).await;
            }
        })+
    };
}

rows!(
    a_wrong_password: Password,
    a_user_that_was_deleted: User,
    a_server_without_v2: NoV2,
    a_ca_file_that_is_not_there_yet: NoCa,
);
