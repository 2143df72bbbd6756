//! A process that lacks files or memory: no backend and no template is blamed for that, nothing
//! changes, and all is right once there is enough again.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::daemon::Running;
use tests::eventually::check;
use tests::{Api, Backend, Daemon, Etcd, Lab, eventually, http};

use crate::hazards_setup::{Setup, address};
use crate::register_setup::outlast;

/// All of these are in use from the start on, so that there is none for anything new.
const FILES: u64 = 4;

/// Less than the stack that a template renders on.
const LITTLE: u64 = 32 << 20;

fn limit(daemon: &Running, resource: Resource, most: Option<u64>) {
    let limit = Rlimit { current: most, ..getrlimit(resource) };
    prlimit(Pid::from_raw(daemon.process().pid()), resource, limit).unwrap();
}

fn address_space(daemon: &Running) -> u64 {
    let file = format!("/proc/{}/statm", daemon.process().pid());
    let pages: u64 = fs::read_to_string(file).unwrap().split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_not_blamed_for_what_the_process_lacks() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    limit(&confsync, Resource::As, Some(address_space(&confsync) + LITTLE));
    setup.put(2).await;
    confsync.logged("the template is not at fault").await;
    assert!(!setup.text("live").contains(&address(2)), "{}", setup.text("live"));

    limit(&confsync, Resource::As, None);
    setup.live(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_run_is_tried_again() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    limit(&confsync, Resource::Nofile, Some(FILES));
    setup.put(2).await;
    confsync.logged("Too many open files").await;
    assert!(!setup.text("live").contains(&address(2)), "{}", setup.text("live"));

    limit(&confsync, Resource::Nofile, Some(1024));
    setup.live(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_not_blamed_for_a_probe_that_cannot_be_made() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let status = lab.free();
    let sidekick = Daemon::register(&lab).backend("apache", backend.address()).quick();
    let sidekick = sidekick.etcd(&etcd, Api::V3).flag("--listen", status.to_string()).start();
    sidekick.ready().await;

    limit(&sidekick, Resource::Nofile, Some(FILES));
    sidekick.logged("the health stays as it was").await;
    // More probes than it takes to be unhealthy.
    outlast(Duration::from_secs(3)).await;
    assert_eq!(etcd.ctl(Api::V3).ls("/services/apache").await.len(), 1, "{}", sidekick.log());

    limit(&sidekick, Resource::Nofile, Some(1024));
    eventually("it is counted", || async {
        let metrics = http::get(status, "/metrics").await?.body;
        let counted = metrics.lines().any(|line| {
            line.starts_with("register_probes_not_made_total") && !line.ends_with(" 0")
        });
        check(counted, || metrics)
    })
    .await;
    backend.die().await;
    eventually("its death is noticed", || async {
        let keys = etcd.ctl(Api::V3).ls("/services/apache").await;
        check(keys.is_empty(), || format!("{keys:?}"))
    })
    .await;
}
