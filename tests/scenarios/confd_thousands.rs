//! A confdir of thousands of resources: what one costs, all cost in proportion.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use tests::process::{Spec, run};
use tests::skip::skip;
use tests::{Api, Confdir, Etcd, Exit, Lab, bins};

use crate::hazards_setup::is_root;

fn resources(lab: &Lab, confdir: &Confdir, count: usize, template: impl Fn(usize) -> String) {
    let out = lab.folder("out");
    for nth in 0..count {
        let dest = out.join(format!("{nth}")).display().to_string();
        let toml =
            format!("[template]\nsrc = \"{nth}.tmpl\"\ndest = \"{dest}\"\nkeys = [\"/k\"]\n");
        confdir.toml(&nth.to_string(), &toml);
        confdir.template(&format!("{nth}.tmpl"), &template(nth));
    }
}

/// It is the bound that a look at each pair of them, or at each of their folders for each pair,
/// would exceed many times.
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_read_one_by_one_and_not_pair_by_pair() {
    let lab = Lab::new();
    let confdir = Confdir::empty(&lab);
    resources(&lab, &confdir, 5_000, |_| "x".to_owned());
    let spec = Spec::new("confsync", bins::confsync(), lab.path());
    let check = spec.args(["check", "--confdir", &confdir.path().display().to_string()]);
    let ended = run(check, BOUND).await;
    assert!(ended.stdout().contains("5000 resources, no mistakes"), "{}", ended.stderr());
}

/// Each look-up alone has five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_resolver_costs_thousands_what_it_costs_a_few() {
    if !is_root() {
        return skip("another resolv.conf for one process takes root");
    }
    let lab = Lab::new();
    let (etcd, confdir) = (Etcd::start(&lab).await, Confdir::empty(&lab));
    etcd.ctl(Api::V3).put("/k", "v").await;
    resources(&lab, &confdir, 500, |nth| {
        format!("{{{{ range lookupIP \"n{nth}.example.com\" }}}}{{{{ . }}}}{{{{ end }}}}")
    });
    let silent = UdpSocket::bind((lab.ip(), 53)).unwrap();
    let resolver = lab.path().join("resolv.conf");
    fs::write(&resolver, format!("nameserver {}\n", lab.ip())).unwrap();
    let line = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let spec = Spec::new("confsync", "unshare", lab.path())
        .args(["-m", "sh", "-c", line])
        .args([resolver, bins::confsync()])
        .args(["run", "--once", "--etcd", &etcd.url(), "--confdir"])
        .args([confdir.path()]);
    let ended = run(spec, BOUND).await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.stderr());
    let log = ended.stderr();
    assert!(
        log.contains("no answer in time") && log.contains("has not answered the last"),
        "{log}"
    );
    drop(silent);
}
