//! More than one process writes a file of ours: an operator, a second confsync, a check that edits
//! the candidate.

use std::fs;

use tests::eventually::check;
use tests::{Exit, Lab, eventually};

use crate::hazards_setup::{Setup, address, rendered};

/// confd's users know a file that somebody changed by hand to be written again.
#[tokio::test(flavor = "multi_thread")]
async fn files_changed_or_removed_by_hand_are_written_and_loaded_again() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    let dest = setup.file("app.conf");
    let right = || async {
        let text = setup.text("app.conf");
        check(text == rendered(&[1]), || text)
    };

    fs::write(&dest, "by hand").unwrap();
    eventually("the file is as etcd says", right).await;
    eventually("and loaded", || async { check(setup.loads() >= 2, || setup.loads().to_string()) })
        .await;
    confsync.logged("changed by another process").await;

    fs::remove_file(&dest).unwrap();
    eventually("the file is there again", right).await;
    setup.put(2).await;
    setup.live(&[1, 2]).await;
}

/// One file has one writer; the second one's error names the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_dest_has_one_writer_and_the_second_names_it() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let first = setup.confsync(&lab).flag("--name", "first").start();
    setup.live(&[1]).await;
    let holder = format!("process {}", first.process().pid());
    let second = setup.confsync(&lab).flag("--name", "second").run().await;
    assert_eq!(second.exit, Exit::Code(1), "{}", second.log);
    assert!(second.log.contains(&holder), "{}", second.log);
    // No drain waits for it: its member key does not last until its lease ends.
    let members = setup.ctl().ls("/confsync/members/").await;
    assert_eq!(members, ["/confsync/members/first"]);
    // The daemon applies it: a single run waits for that, and has nothing to do.
    setup.put(2).await;
    let once = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(once.exit, Exit::Code(0), "{}", once.log);
    assert!(once.log.contains(&holder), "{}", once.log);
    setup.live(&[1, 2]).await;
    assert_eq!(setup.loads(), 2);
    // Killed, it holds nothing.
    first.kill().await;
    setup.put(3).await;
    let once = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(once.exit, Exit::Code(0), "{}", once.log);
    setup.live(&[1, 2, 3]).await;
}

/// A file that cannot be written yet keeps no other from being written.
#[tokio::test(flavor = "multi_thread")]
async fn one_group_that_cannot_begin_keeps_no_other_back() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let (other, below) = (setup.file("other"), setup.file("other/app.conf"));
    fs::create_dir(&other).unwrap();
    let writer = fs::File::create(other.join(".app.conf.confsync-lock")).unwrap();
    writer.lock().unwrap();
    let dest = below.display();
    let keys = "keys = [\"/services/apache\"]";
    let text = format!("[template]\nsrc = \"app.tmpl\"\ndest = \"{dest}\"\n{keys}\n");
    setup.confdir.toml("other", &text);
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    confsync.logged("cannot start, retrying").await;
    assert!(!confsync.notified().iter().any(|line| line == "READY=1"));
    drop(writer);
    confsync.ready().await;
    assert_eq!(fs::read_to_string(&below).unwrap(), rendered(&[1]));
}

/// As with confd, what `check_cmd` makes of the candidate is what is installed, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_may_run_lock_and_edit_the_candidate() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let text = "#!/bin/sh\n{{range gets \"/services/apache/*\"}}echo {{.Value}}\n{{end}}";
    setup.confdir.template("app.tmpl", text);
    let check_cmd =
        "{{.src}} | grep -q . && flock -n {{.src}} true && sed -i s/echo/printf/ {{.src}}";
    let more = format!("{}mode = \"0755\"\ncheck_cmd = \"{check_cmd}\"\n", setup.reload());
    setup.resource("app", &more);
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    confsync.ready().await;
    setup.put(2).await;
    let wanted = format!("#!/bin/sh\nprintf {}\nprintf {}\n", address(1), address(2));
    eventually("the edited file is live", || async {
        check(setup.text("live") == wanted, || setup.text("live"))
    })
    .await;
    assert_eq!(setup.loads(), 2, "{}", confsync.log());
    assert!(!confsync.log().contains("another process"), "{}", confsync.log());
}
