//! Two files for one nginx: both or neither, whatever is rejected and whichever process is killed.
//!
//! `CHAOS_ROUNDS` says how often (6).

use std::path::PathBuf;

use tests::eventually::check;
use tests::{Api, Confdir, Daemon, Etcd, Lab, Load, Nginx, eventually};

use crate::chaos::{
    Backends, Churn, Looking, Names, UPSTREAM, marked, pause, read_whole, server, settled, times,
};

const RESOURCE: &str = "[template]\nsrc = \"NAME.tmpl\"\ndest = \"DEST\"\nkeys = [\"/services/apache\", \
                        \"/settings\"]\n[nginx]\nconf = \"CONF\"\npid_file = \"PID\"\n";
const SETTINGS: &str = "{{ range gets \"/settings/*\" }}{{ .Value }}\n{{ end }}";

struct Setup<'a> {
    lab: &'a Lab,
    etcd: Etcd,
    nginx: Nginx,
    confdir: Confdir,
}

impl Setup<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.nginx.folder().join(format!("sites-enabled/{name}.conf"))
    }

    fn resource(&self, name: &str, template: &str) {
        let nginx = &self.nginx;
        let toml = RESOURCE
            .replace("NAME", name)
            .replace("DEST", &self.file(name).display().to_string())
            .replace("CONF", &nginx.conf().display().to_string())
            .replace("PID", &nginx.pid_file().display().to_string());
        self.confdir.toml(name, &toml);
        self.confdir.template(&format!("{name}.tmpl"), template);
    }

    fn confsync(&self) -> tests::daemon::Running {
        let daemon = Daemon::confsync(self.lab).etcd(&self.etcd, Api::V3).confdir(&self.confdir);
        let daemon = daemon.flag("--min-reload-interval", "100ms").flag("--ttl", "2s");
        daemon.supervising(&self.nginx).start()
    }

    /// Whom the two files name, if they agree.
    fn both(&self, backends: &Backends) -> Result<Names, String> {
        let (a, b) =
            (read_whole(&self.file("a"), backends)?, read_whole(&self.file("b"), backends)?);
        check(a == b, || format!("the two files differ: {a:?} and {b:?}"))?;
        Ok(a)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_files_or_neither() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backends = Backends::start(&lab, &etcd).await;
    let nginx = Nginx::prepare(&lab);
    let setup = Setup { lab: &lab, etcd, nginx, confdir: Confdir::empty(&lab) };
    setup.resource("a", &marked(UPSTREAM));
    setup.resource("b", &marked(&(server(&setup.nginx) + SETTINGS)));
    let mut confsync = setup.confsync();
    confsync.ready().await;
    let load = Load::on(setup.nginx.address()).clients(2).start();
    let looking = Looking::at(vec![setup.file("a"), setup.file("b")], &backends);

    for round in 0..times("CHAOS_ROUNDS", 6) {
        // Killed while all goes well: what is torn is repaired by the next.
        let churn = Churn::start(&backends);
        pause(50..600).await;
        confsync.kill().await;
        churn.end(&backends).await;
        confsync = setup.confsync();
        confsync.ready().await;
        settled(&backends, &load).await;
        assert_eq!(setup.both(&backends).unwrap(), backends.registered());

        // One of the two is refused: neither changes, also when others come and go.
        let before = backends.registered();
        let refusals = confsync.log().matches("rejected: ").count();
        backends.toggle("b0", &format!("nonsense{round} on;")).await;
        confsync.logged(&format!("nonsense{round}")).await;
        assert!(confsync.log().matches("rejected: ").count() > refusals, "{}", confsync.log());
        backends.toggle("b1", "").await;
        eventually("the refusal of the next change", || async {
            let count = confsync.log().matches(&format!("\"nonsense{round}\"")).count();
            let again = count > 1 || confsync.log().matches("rejected: ").count() > refusals;
            check(again, || confsync.log())
        })
        .await;
        assert_eq!(setup.both(&backends).unwrap(), before);
        if round % 2 == 0 {
            confsync.kill().await;
            confsync = setup.confsync();
            // It can promise nothing yet, and what runs stays.
            confsync.logged(&format!("nonsense{round}")).await;
            assert_eq!(setup.both(&backends).unwrap(), before);
        }
        backends.toggle("b1", "").await;
        backends.toggle("b0", "# all is well again").await;
        settled(&backends, &load).await;
        assert_eq!(setup.both(&backends).unwrap(), backends.registered());
        looking.assert_whole();
    }
    let summary = load.stop().await;
    println!("{} looks, {summary}", looking.assert_whole());
    summary.assert_none_failed();
}
