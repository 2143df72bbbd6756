//! `register run --config services.toml`: many services in one process.

use std::fs;
use std::path::PathBuf;

use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Daemon, Signal, eventually};

use crate::register_setup::{Setup, assert_ended, saw};

in_both_apis!(a_reload_touches_nothing_but_what_changed);

const DEFAULTS: &str = "[defaults]\nid = \"{host}:{port}\"\nttl = \"30s\"\ninterval = \"500ms\"\n\
                        fast_interval = \"100ms\"\nrise = 1\nfall = 2\n";

struct File(PathBuf);

impl File {
    fn new(setup: &Setup) -> Self {
        Self(setup.lab.path().join("services.toml"))
    }

    fn write(&self, services: &[(&str, &Backend, &str)]) {
        let tables = services.iter().map(|(name, backend, more)| {
            let (host, port) = (backend.ip(), backend.port());
            format!("[[service]]\nservice = \"{name}\"\nhost = \"{host}\"\nport = {port}\n{more}")
        });
        fs::write(&self.0, DEFAULTS.to_owned() + &tables.collect::<String>()).unwrap();
    }
}

async fn a_reload_touches_nothing_but_what_changed(api: Api) {
    let setup = Setup::new(api).await;
    let one = &setup.backend;
    let two = Backend::start(&setup.lab, "two").await;
    let three = Backend::start(&setup.lab, "three").await;
    let file = File::new(&setup);
    file.write(&[("apache", one, ""), ("web", &two, "")]);
    let sidekick = Daemon::register(&setup.lab).etcd(&setup.etcd, api);
    let sidekick = sidekick.flag("--config", file.0.display().to_string()).start();
    sidekick.ready().await;
    let watcher = setup.watch().await;
    let key = |service: &str, at: &Backend| format!("/services/{service}/{}", at.address());
    let reloaded = |times: usize| {
        let sidekick = &sidekick;
        eventually("it is read again", move || async move {
            let log = sidekick.log();
            let count = log.matches("configuration read again").count();
            check(count == times, || format!("{count}:\n{log}"))
        })
    };

    // One is probed in another way, two goes, three comes.
    file.write(&[("apache", one, "interval = \"400ms\"\n"), ("web", &three, "")]);
    sidekick.signal(Signal::HUP);
    reloaded(1).await;
    let mut seen =
        vec![format!("DELETE {}", key("web", &two)), format!("PUT {}", key("web", &three))];
    saw(&watcher, &seen).await;

    // A file with mistakes changes nothing and says all of them.
    fs::write(&file.0, "[[service]]\nservice = \"apache\"\nprot = 1\n").unwrap();
    sidekick.signal(Signal::HUP);
    sidekick.logged("did you mean `port`?").await;
    sidekick.logged("`host` is required").await;

    // Nor does one with a check that cannot be asked, not even in its good parts.
    file.write(&[("apache", one, "check = \"exec:/nowhere/check\"\n")]);
    sidekick.signal(Signal::HUP);
    sidekick.logged("`/nowhere/check` cannot be executed").await;
    saw(&watcher, &seen).await;

    // The new probes of one count: it goes when it is unhealthy, and for no other reason.
    file.write(&[("apache", one, "interval = \"400ms\"\n"), ("web", &three, "")]);
    sidekick.signal(Signal::HUP);
    reloaded(2).await;
    one.behave(Behaviour::Status(500));
    seen.push(format!("DELETE {}", key("apache", one)));
    saw(&watcher, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_at_the_start_is_waited_for_and_the_backend_runs() {
    let setup = Setup::new(Api::V3).await;
    let file = File::new(&setup);
    file.write(&[
        ("apache", &setup.backend, ""),
        ("apache", &setup.backend, "interval = \"20s\"\ntimeout = \"1s\"\n"),
        ("web", &setup.backend, "check = \"http://:80/\"\n"),
        ("api", &setup.backend, "check = \"exec:/nowhere/check\"\nprot = 1\n"),
    ]);
    let run = || {
        let run = Daemon::register(&setup.lab).etcd(&setup.etcd, Api::V3);
        run.flag("--config", file.0.display().to_string())
    };
    let started = setup.lab.path().join("started");
    let backend = format!("touch {}; exec sleep 1000", started.display());
    let sidekick = run().arg("--").arg("sh").arg("-c").arg(&backend).start();
    // Everything that is wrong with it is reported at once, each on a line.
    for part in [
        "is given twice; keep one of the two",
        "below three probe intervals of 20s",
        "`http://:80/` has no host",
        "did you mean `port`?",
    ] {
        sidekick.logged(part).await;
    }
    eventually("the backend runs", || async { check(started.exists(), || sidekick.log()) }).await;

    // What is wrong now is reported, and the file counts as soon as it can be used.
    file.write(&[("apache", &setup.backend, "check = \"exec:/nowhere/check\"\n")]);
    sidekick.signal(Signal::HUP);
    sidekick.logged("`/nowhere/check` cannot be executed").await;
    file.write(&[("apache", &setup.backend, "")]);
    sidekick.signal(Signal::HUP);
    sidekick.logged("the configuration file is usable again").await;
    sidekick.ready().await;
    sidekick.stop().await;

    // A path and a flag that are wrong are mistakes of the command line.
    assert_ended(&run().flag("--interval", "never").run().await, 64, &["--interval"]);
    fs::remove_file(&file.0).unwrap();
    assert_ended(&run().run().await, 64, &["--config", "cannot read"]);
}
