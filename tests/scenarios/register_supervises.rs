//! `register run … -- COMMAND`: the backend as a child.

use std::fs;

use tests::daemon::Running;
use tests::{Api, Daemon, Etcd, Exit, Lab, Signal};

use crate::register_setup::{Setup, assert_ended, says};

in_both_apis!(
    it_deregisters_first_and_then_stops_the_command,
    the_death_of_the_command_deregisters_at_once,
);

fn supervising(setup: &Setup, script: &str) -> Daemon {
    let sidekick = setup.with_ttl("10m").arg("--").arg("sh");
    sidekick.arg("-c").arg(script)
}

async fn it_deregisters_first_and_then_stops_the_command(api: Api) {
    let setup = Setup::new(api).await;
    let (version, only) = match api {
        Api::V2 => ("2", ""),
        Api::V3 => ("3", "--print-value-only"),
    };
    let look = format!(
        "ETCDCTL_API={version} etcdctl --endpoints {} get {only} {} 2>/dev/null",
        setup.etcd.url(),
        setup.key()
    );
    let script = format!(
        "trap 'echo \"at the end: <$({look})>\"; exit 7' TERM; while :; do sleep 0.05; done"
    );
    let sidekick = setup.started(supervising(&setup, &script)).await;
    assert_eq!(sidekick.stop().await, Exit::Code(7), "{}", sidekick.log());
    let log = sidekick.log();
    assert!(log.contains("at the end: <>"), "{log}");
    assert_eq!(setup.now().await, None);
}

/// The backend answers still, but the command that was to be kept has ended.
async fn the_death_of_the_command_deregisters_at_once(api: Api) {
    let setup = Setup::new(api).await;
    let file = setup.lab.path().join("running");
    fs::write(&file, "").unwrap();
    let script = format!("while [ -e {} ]; do sleep 0.05; done; exit 5", file.display());
    let sidekick = setup.started(supervising(&setup, &script)).await;
    fs::remove_file(&file).unwrap();
    assert_eq!(sidekick.wait_exit().await, Exit::Code(5), "{}", sidekick.log());
    assert_eq!(setup.now().await, None);
}

/// A script that says which signals it got.
const TALKER: &str = "for s in HUP USR1 USR2 WINCH QUIT; do trap \"echo got-$s\" $s; done; \
                      trap 'exit 0' TERM; echo armed; while :; do sleep 0.05; done";

async fn passes_on(sidekick: &Running, signals: &[(Signal, &str)]) {
    sidekick.logged("armed").await;
    for (signal, name) in signals {
        sidekick.signal(*signal);
        sidekick.logged(&format!("got-{name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_command() {
    let setup = Setup::new(Api::V3).await;
    let sidekick = setup.started(supervising(&setup, TALKER)).await;
    let all = [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::QUIT, "QUIT"),
    ];
    passes_on(&sidekick, &all).await;
    assert_eq!(setup.now().await, Some(setup.value()));
    assert_eq!(sidekick.stop().await, Exit::Code(0), "{}", sidekick.log());
}

/// With a file to read again, SIGHUP is ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_file_again_where_there_is_one() {
    let setup = Setup::new(Api::V3).await;
    let file = setup.lab.path().join("services.toml");
    let port = setup.backend.port();
    fs::write(&file, format!("[[service]]\nservice = \"apache\"\nport = {port}\n")).unwrap();
    let sidekick = Daemon::register(&setup.lab).etcd(&setup.etcd, Api::V3);
    let sidekick = sidekick.flag("--host", setup.backend.ip().to_string());
    let sidekick = sidekick.flag("--config", file.display().to_string());
    let sidekick = sidekick.arg("--").arg("sh").arg("-c").arg(TALKER).start();
    sidekick.ready().await;
    sidekick.signal(Signal::HUP);
    sidekick.logged("configuration read again").await;
    passes_on(&sidekick, &[(Signal::USR1, "USR1")]).await;
    assert!(!sidekick.log().contains("got-HUP"), "{}", sidekick.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_command_nor_probe_inherits_what_is_ours() {
    let setup = Setup::new(Api::V3).await;
    let probe = "exec:sh -c 'test -z \"$ETCD_PASSWORD$NOTIFY_SOCKET\"'";
    let script = "echo \"told <$ETCD_PASSWORD$NOTIFY_SOCKET$WATCHDOG_USEC>\"; \
                  while :; do sleep 0.05; done";
    let sidekick = setup.with_ttl("30s").flag("--check", probe).env("ETCD_PASSWORD", "geheim");
    let sidekick = sidekick.env("WATCHDOG_USEC", "60000000");
    let sidekick = sidekick.arg("--").arg("sh").arg("-c").arg(script);
    let sidekick = setup.started(sidekick).await;
    sidekick.logged("told <>").await;
    assert!(!sidekick.log().contains("geheim"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_a_usage_error() {
    let setup = Setup::new(Api::V3).await;
    let sidekick = setup.sidekick().arg("--").arg("/nowhere/apache2");
    assert_ended(&sidekick.run().await, 64, &["cannot start `/nowhere/apache2`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_command_is_noticed_without_etcd() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab);
    let file = lab.path().join("running");
    fs::write(&file, "").unwrap();
    let script = format!("while [ -e {} ]; do sleep 0.05; done; exit 5", file.display());
    let sidekick = Daemon::register(&lab).backend("apache", lab.free()).etcd(&etcd, Api::V3);
    let sidekick = sidekick.arg("--").arg("sh").arg("-c").arg(script).start();
    says(&sidekick, "waiting for etcd").await;
    fs::remove_file(&file).unwrap();
    assert_eq!(sidekick.wait_exit().await, Exit::Code(5), "{}", sidekick.log());
}
