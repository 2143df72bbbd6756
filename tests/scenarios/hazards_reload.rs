//! Checks and reloads of a service that is known by its commands: pending until proven,
//! delayed and never dropped, bounded, one for all its files. Each scenario says which of
//! `docs/hazards.md` it is about.

use std::fs;
use std::time::{Duration, Instant};

use tests::eventually::check;
use tests::{Api, Daemon, Etcd, Exit, Lab, Signal, eventually, within};

use crate::hazards_setup::{Setup, rendered};

#[tokio::test(flavor = "multi_thread")]
async fn h01_a_failed_reload_stays_owed_and_is_repeated() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &setup.reload_after("test ! -e broken"));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    setup.flag("broken");
    setup.put(2).await;
    confsync.logged("reload_cmd").await;
    assert_eq!(setup.text("app.conf"), rendered(&[1, 2]));
    assert_eq!(setup.text("live"), rendered(&[1]));
    // It shows from elsewhere too.
    let status = async |wanted: &str| {
        eventually(format!("the status says `{wanted}`"), || async {
            let command = Daemon::new(&lab, "status", tests::bins::confsync()).arg("status");
            let text = command.etcd(&setup.etcd, Api::V3).run().await.log;
            check(text.contains(wanted), || text)
        })
        .await;
    };
    status("not loaded, retrying: reload_cmd: ").await;
    // No key changes from here on.
    setup.unflag("broken");
    setup.live(&[1, 2]).await;
    status(" ok, assumed").await;
}

/// confd's users met a bad value that kept a good one out.
#[tokio::test(flavor = "multi_thread")]
async fn h01_what_cannot_be_loaded_does_not_keep_out_what_can() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &setup.reload_after("! grep -q 127.0.0.66 app.conf"));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    setup.put(66).await;
    confsync.logged("reload_cmd").await;
    setup.ctl().del("/services/apache/66").await;
    setup.put(2).await;
    setup.live(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h01_run_once_repeats_a_failed_reload_and_its_exit_code_tells() {
    // The run that writes the file fails; a later one, with the file in place, says that
    // the reload fails still and ends well: a boot loop starts the service after it.
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &setup.reload_after("test ! -e broken"));
    setup.put(1).await;
    setup.flag("broken");
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert!(ended.log.contains("reload_cmd") && setup.loads() == 0, "{}", ended.log);
    setup.unflag("broken");
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!((ended.exit, setup.loads()), (Exit::Code(0), 1), "{}", ended.log);
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!((ended.exit, setup.loads()), (Exit::Code(0), 1), "nothing to do: {}", ended.log);
}

/// Whatever an earlier run has left, the newest value is rendered, checked, written and loaded.
#[tokio::test(flavor = "multi_thread")]
async fn h01_run_once_goes_on_to_what_is_wanted_now() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let all = |n: u8| (1..=n).collect::<Vec<_>>();
    let verify = format!("verify_cmd = \"test ! -e {}\"\n", setup.file("broken").display());
    let ways = [(setup.reload_after("test ! -e broken"), 1), (setup.reload() + &verify, 3)];
    for (more, first) in ways {
        setup.resource("app", &more);
        setup.flag("broken");
        for n in [first, first + 1] {
            setup.put(n).await;
            let ended = setup.confsync(&lab).arg("--once").run().await;
            assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
            assert_eq!(setup.text("app.conf"), rendered(&all(n)));
        }
        setup.unflag("broken");
        let ended = setup.confsync(&lab).arg("--once").run().await;
        assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
        assert_eq!(setup.text("live"), rendered(&all(first + 1)));
    }
    // What cannot be loaded gives way to what can.
    setup.resource("app", &setup.reload_after("! grep -q 127.0.0.66 app.conf"));
    setup.put(66).await;
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    setup.ctl().del("/services/apache/66").await;
    setup.put(5).await;
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_eq!(setup.text("live"), rendered(&all(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn h02_a_rate_limit_delays_a_reload_and_never_drops_it() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let interval = Duration::from_secs(2);
    setup.resource("app", &(setup.reload() + "min_reload_interval = \"2s\"\nsplay = \"500ms\"\n"));
    setup.put(1).await;
    let _confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    let start = Instant::now();
    for n in 2..10 {
        setup.put(n).await;
    }
    setup.live(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    let most = 2 + start.elapsed().as_secs() / interval.as_secs();
    assert!(setup.loads() as u64 <= most, "{} reloads", setup.loads());
}

/// The reload at hand dies with confsync, between the swap and its effect.
#[tokio::test(flavor = "multi_thread")]
async fn h03_a_kill_between_swap_and_reload_leaves_the_reload_owed() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let first = "{ if test -e hold; then touch reloading; exec sleep 1000; fi; }";
    setup.resource("app", &setup.reload_after(first));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    setup.flag("hold");
    setup.put(2).await;
    setup.appears("reloading").await;
    confsync.kill().await;
    assert_eq!(setup.text("app.conf"), rendered(&[1, 2]));
    assert_eq!(setup.text("live"), rendered(&[1]));
    setup.unflag("hold");
    let _confsync = setup.confsync(&lab).start();
    setup.live(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h03_sigterm_finishes_the_reload_at_hand() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let first = "{ if test -e slow; then touch reloading; sleep 1; fi; }";
    setup.resource("app", &setup.reload_after(first));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    setup.flag("slow");
    setup.put(2).await;
    setup.appears("reloading").await;
    let exit = confsync.stop().await;
    assert_eq!(exit, Exit::Code(0), "{}", confsync.log());
    assert_eq!(setup.text("live"), rendered(&[1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_a_pass_that_failed_is_retried_by_itself() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let allowed = setup.file("allowed").display().to_string();
    let check_cmd = format!("check_cmd = 'test -e {allowed} # {{{{.src}}}}'\n");
    setup.resource("app", &(setup.reload() + &check_cmd));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    confsync.logged("rejected: check_cmd").await;
    assert!(!setup.file("app.conf").exists());
    // No key changes from here on.
    setup.flag("allowed");
    setup.live(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_sighup_retries_at_once_what_was_refused() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let (allowed, asked) = (setup.file("allowed"), setup.file("asked"));
    let check_cmd = format!(
        "check_cmd = 'echo >> {}; test -e {} # {{{{.src}}}}'\n",
        asked.display(),
        allowed.display()
    );
    setup.resource("app", &(setup.reload() + &check_cmd));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    // By now it rests for eight seconds.
    within(Duration::from_secs(30), "three refusals", || async {
        let count = setup.text("asked").lines().count();
        check(count >= 3, || format!("{count}"))
    })
    .await;
    setup.flag("allowed");
    confsync.signal(Signal::HUP);
    within(Duration::from_secs(6), "live before the rest is over", || async {
        check(setup.text("live") == rendered(&[1]), || setup.text("live"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h12_a_hanging_command_is_killed_with_its_group_and_delays_no_other() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let hangs = format!(
        "check_cmd = 'sleep 1000 & echo $! > {}; wait # {{{{.src}}}}'\ncheck_cmd_timeout = \"1s\"\n",
        setup.file("grandchild").display()
    );
    setup.resource("hangs", &hangs);
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    confsync.logged("sleep 1000").await;
    let grandchild = setup.text("grandchild");
    let process = format!("/proc/{}", grandchild.trim());
    assert_ne!(grandchild.trim(), "");
    eventually("the grandchild is gone", || async {
        let state = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
        check(state.is_empty() || state.contains(") Z "), || state.clone())
    })
    .await;
    assert!(!setup.file("hangs.conf").exists(), "an unchecked file was installed");
}

#[tokio::test(flavor = "multi_thread")]
async fn h20_files_of_one_command_are_loaded_once_and_all_or_nothing() {
    let lab = Lab::new();
    let setup = Setup::prepare(&lab, Etcd::start(&lab).await);
    let folder = setup.folder.display();
    let reload =
        format!("reload_cmd = 'cd {folder} && echo >> loads && cat a.conf b.conf > live'\n");
    setup.resource("a", &reload);
    setup.resource("b", &(reload.clone() + "check_cmd = '! grep -q 127.0.0.66 {{.src}}'\n"));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    let both = |backends: &[u8]| rendered(backends) + &rendered(backends);
    let live = |backends: &[u8]| {
        let wanted = both(backends);
        let setup = &setup;
        eventually("both files are live", move || {
            let (live, wanted) = (setup.text("live"), wanted.clone());
            async move { check(live == wanted, || live.clone()) }
        })
    };
    live(&[1]).await;
    assert_eq!(setup.loads(), 1);
    setup.put(2).await;
    live(&[1, 2]).await;
    assert_eq!(setup.loads(), 2, "one reload for both files");

    setup.put(66).await;
    confsync.logged("rejected: check_cmd").await;
    assert_eq!(setup.text("a.conf"), rendered(&[1, 2]), "a without b");
    assert_eq!(setup.text("b.conf"), rendered(&[1, 2]));
    setup.ctl().del("/services/apache/66").await;
    setup.put(3).await;
    live(&[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h21_changes_during_a_reload_coalesce_into_one_more() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let first =
        "{ if test -e hold; then touch reloading; fi; while test -e hold; do sleep 0.05; done; }";
    setup.resource("app", &setup.reload_after(first));
    setup.put(1).await;
    let _confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;

    setup.flag("hold");
    setup.put(2).await;
    setup.appears("reloading").await;
    for n in 3..8 {
        setup.put(n).await;
    }
    setup.unflag("hold");
    setup.live(&[1, 2, 3, 4, 5, 6, 7]).await;
    assert!(setup.loads() <= 3, "{} reloads", setup.loads());
}

/// The first change after quiet waits for nothing; with a debounce it waits for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_debounce_collects_changes_and_is_off_unless_asked_for() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &(setup.reload() + "debounce = \"3s\"\n"));
    let quick = format!("reload_cmd = 'echo >> {}'\n", setup.file("quick-loads").display());
    setup.resource("quick", &quick);
    setup.put(1).await;
    let _confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    let (before, start) = (setup.loads(), Instant::now());
    for n in 2..6 {
        setup.put(n).await;
        eventually("it is in the file without a debounce", || async {
            let text = setup.text("quick.conf");
            check(text.contains(&crate::hazards_setup::address(n)), || text.clone())
        })
        .await;
    }
    setup.live(&[1, 2, 3, 4, 5]).await;
    let most = 1 + start.elapsed().as_secs() / 3;
    assert!((setup.loads() - before) as u64 <= most, "{} reloads", setup.loads() - before);
}
