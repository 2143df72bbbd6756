//! The real HAProxy, which confsync knows only by commands: a candidate is checked, the
//! master is signalled to reload, and a request proves that it has.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use tests::eventually::check;
use tests::process::{Process, Spec};
use tests::{Api, Confdir, Daemon, Etcd, Lab, Load, eventually, http};

use crate::chaos::{Backends, settled};

/// Every answer says by which file it was made.
const TEMPLATE: &str = r#"global
    maxconn 200
    hard-stop-after 30s
{{ range gets "/settings/*" }}    {{ .Value }}
{{ end }}
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    option redispatch
frontend web
    bind LISTEN
    http-response set-header X-Made-Of "{{ range getvs "/services/apache/*" }}{{ . }} {{ end }}"
    default_backend apache
backend apache
    balance roundrobin
{{ range gets "/services/apache/*" }}    server {{ base .Key }} {{ .Value }}
{{ end }}"#;

const RESOURCE: &str = r#"[template]
src = "haproxy.cfg.tmpl"
dest = "CFG"
keys = ["/services/apache", "/settings"]
values = "any"
check_cmd = "haproxy -c -f {{.src}}"
reload_cmd = "kill -USR2 $(cat PID)"
verify_cmd = "sh VERIFY"
quiesce_after = "1s"
"#;

/// An answer that was made by the file in place. The old process may still take one.
const VERIFY: &str = r#"wanted="$(sed -n 's/.*X-Made-Of "\(.*\) "$/X-Made-Of: \1/p' CFG)"
for i in 1 2 3 4 5 6 7 8 9 10; do
    curl --silent --include http://LISTEN/ | grep -qiF "$wanted" && exit 0
    sleep 0.2
done
echo "no answer has '$wanted'" >&2
exit 1
"#;

/// Writes the confdir and the script.
fn prepare(lab: &Lab, listen: SocketAddr) -> Confdir {
    let at = |name: &str| lab.path().join(name).display().to_string();
    let fill = |text: &str| {
        let text = text.replace("LISTEN", &listen.to_string()).replace("VERIFY", &at("verify.sh"));
        text.replace("CFG", &at("haproxy.cfg")).replace("PID", &at("haproxy.pid"))
    };
    fs::write(lab.path().join("verify.sh"), fill(VERIFY)).unwrap();
    let confdir = Confdir::empty(lab);
    confdir.toml("haproxy", &fill(RESOURCE));
    confdir.template("haproxy.cfg.tmpl", &fill(TEMPLATE));
    confdir
}

/// Runs HAProxy with the file that is there, else with one that answers 503.
async fn start(lab: &Lab, listen: SocketAddr) -> Process {
    let (cfg, pid) = (lab.path().join("haproxy.cfg"), lab.path().join("haproxy.pid"));
    let first = format!(
        "defaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n\
         frontend web\n    bind {listen}\n    http-request return status 503\n"
    );
    if !cfg.exists() {
        fs::write(&cfg, first).unwrap();
    }
    let spec = Spec::new("haproxy", "haproxy", lab.path()).args(["-W", "-db"]);
    let process = lab.spawn(spec.args(["-p".into(), pid, "-f".into(), cfg]));
    eventually("haproxy answers", || http::get(listen, "/")).await;
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_by_commands_and_refuses_what_is_bad() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backends = Backends::start(&lab, &etcd).await;
    let listen = lab.free();
    let _haproxy = start(&lab, listen).await;
    let cfg = lab.path().join("haproxy.cfg");
    let confdir = prepare(&lab, listen);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir).start();
    confsync.ready().await;
    let load = Load::on(listen).clients(2).think(Duration::from_millis(3)).start();
    settled(&backends, &load).await;

    // One leaves, another comes back, under the load.
    backends.toggle("b3", "").await;
    settled(&backends, &load).await;
    backends.toggle("b3", "").await;
    settled(&backends, &load).await;

    // What HAProxy refuses replaces nothing.
    let good = fs::read_to_string(&cfg).unwrap();
    backends.toggle("b5", "no-such-keyword 1").await;
    confsync.logged("check_cmd").await;
    confsync.logged("no-such-keyword").await;
    assert_eq!(fs::read_to_string(&cfg).unwrap(), good);

    // And when it has recovered, what came meanwhile is followed.
    backends.toggle("b6", "# corrected").await;
    settled(&backends, &load).await;
    let summary = load.stop().await;
    summary.assert_none_failed();
    eventually("the file names who is registered", || async {
        let text = fs::read_to_string(&cfg).unwrap();
        let servers = text.matches("    server ").count();
        check(servers == backends.registered().len(), || text)
    })
    .await;
}

/// A HAProxy that is not there: the file is right, the reload stays pending, visibly.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_no_process_took_stays_pending() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backends = Backends::start(&lab, &etcd).await;
    let listen = lab.free();
    let confdir = prepare(&lab, listen);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir).start();
    confsync.logged("reload_cmd").await;
    assert!(!confsync.notified().iter().any(|line| line == "READY=1"));

    let _haproxy = start(&lab, listen).await;
    confsync.ready().await;
    let load = Load::on(listen).start();
    settled(&backends, &load).await;
    load.stop().await.assert_none_failed();
}
