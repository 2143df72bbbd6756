//! Both daemons with exactly the rights of docs/how-to/least-rights.md, and with one too few.

use std::time::Duration;

use tests::daemon::Running;
use tests::eventually::check;
use tests::process::Spec;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, Signal, within};

in_both_apis!(
    the_roles_of_the_manual_suffice,
    a_right_that_is_missing_is_named_at_the_start,
    a_resource_that_may_not_be_read_is_named
);

/// The lines of the page for an API that grant something.
fn lines(api: Api) -> Vec<String> {
    let page = include_str!("../../docs/how-to/least-rights.md");
    let (v3, v2) = page.split_once("## etcd v2").unwrap();
    let part = if api == Api::V3 { v3 } else { v2 };
    let lines = part.lines().filter(|line| line.starts_with("etcdctl ")).map(str::to_owned);
    lines.collect()
}

struct Setup {
    lab: Lab,
    api: Api,
    etcd: Etcd,
    backend: Backend,
    nginx: Nginx,
}

impl Setup {
    /// An etcd with the users of the page, but without the right that `lacks` names.
    async fn new(api: Api, lacks: &str) -> Self {
        let lab = Lab::new();
        let etcd = Etcd::prepare(&lab).arg("--bcrypt-cost").arg("4");
        etcd.up().await;
        let mut script = match api {
            Api::V3 => "set -e\netcdctl user add root:root\netcdctl user grant-role root root\n",
            Api::V2 => "set -e\netcdctl user add root:root\n",
        }
        .to_owned();
        for line in lines(api).iter().filter(|line| lacks.is_empty() || !line.contains(lacks)) {
            script.push_str(&line.replace("PASSWORD", "word"));
            script.push('\n');
        }
        if api == Api::V2 {
            script.push_str("etcdctl -u root:root role revoke guest --path '/*' --readwrite\n");
        }
        let spec = Spec::new("the page's roles", "bash", lab.path())
            .args(["-c", &script])
            .env("ETCDCTL_API", if api == Api::V3 { "3" } else { "2" })
            .env("ETCDCTL_ENDPOINTS", etcd.url())
            .env("ETCDCTL_ENDPOINT", etcd.url());
        let _ = tests::process::run(spec, Duration::from_secs(60)).await.ok();
        let backend = Backend::start(&lab, "one").await;
        let nginx = Nginx::prepare(&lab);
        Self { lab, api, etcd, backend, nginx }
    }

    fn daemon(&self, daemon: Daemon, user: &str) -> Daemon {
        daemon.etcd(&self.etcd, self.api).env("ETCD_USER", user).env("ETCD_PASSWORD", "word")
    }

    fn sidekick(&self) -> Daemon {
        let sidekick = Daemon::register(&self.lab).backend("apache", self.backend.address());
        self.daemon(sidekick.flag("--rise", "1"), "apache")
    }

    fn confsync(&self) -> Daemon {
        let confdir = Confdir::tutorial(&self.lab, &self.nginx);
        self.daemon(Daemon::confsync(&self.lab).confdir(&confdir), "lb").supervising(&self.nginx)
    }
}

/// With v2, etcd computes an expensive hash of the password for each request.
const PATIENCE: Duration = Duration::from_secs(60);

async fn says(daemon: &Running, text: &str) {
    within(PATIENCE, format!("`{text}` in the log"), || async {
        check(daemon.log().contains(text), || daemon.log())
    })
    .await;
}

async fn the_roles_of_the_manual_suffice(api: Api) {
    let setup = Setup::new(api, "").await;
    let another = Backend::start(&setup.lab, "two").await;
    let other = Daemon::register(&setup.lab).backend("apache", another.address());
    let other = setup.daemon(other.flag("--id", "two"), "apache").start();
    let sidekick = setup.sidekick().flag("--drain-applied", "30s").start();
    says(&sidekick, "registered key").await;
    says(&other, "registered key").await;
    let confsync = setup.confsync().start();
    says(&confsync, "registered as a load balancer").await;
    within(PATIENCE, "both are served", || async {
        let text = setup.nginx.rendered()?;
        let both = [another.address(), setup.backend.address()];
        check(both.iter().all(|at| text.contains(&at.to_string())), || text.clone())
    })
    .await;
    sidekick.signal(Signal::TERM);
    says(&sidekick, "drain confirmed by").await;
    assert!(!sidekick.log().contains("following the keys"), "it only waits: {}", sidekick.log());
    for log in [sidekick.log(), confsync.log()] {
        assert!(!log.contains("missing in etcd") && !log.contains("refuses"), "{log}");
    }
}

async fn a_right_that_is_missing_is_named_at_the_start(api: Api) {
    let setup = Setup::new(api, "/confsync/acks").await;
    let sidekick = setup.sidekick().start();
    let confsync = setup.confsync().start();
    let missing = "missing in etcd: no right to";
    says(&sidekick, &format!("{missing} read below /confsync/acks: etcdctl role")).await;
    says(&confsync, &format!("{missing} write below /confsync/acks/")).await;
    assert_eq!(sidekick.log().matches(missing).count(), 1, "{}", sidekick.log());
}

async fn a_resource_that_may_not_be_read_is_named(api: Api) {
    let (lacks, grant) = match api {
        Api::V3 => ("confsync read /services", "ROLE read /services/apache /services/apache0`"),
        Api::V2 => ("confsync --path '/services", "ROLE --path '/services/apache*' --read`"),
    };
    let setup = Setup::new(api, lacks).await;
    let confsync = setup.confsync().start();
    says(&confsync, &format!("{grant} grants it")).await;
}
