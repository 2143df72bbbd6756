//! Files: what readers see is the old one or the new one, with the right owner and mode,
//! on disk; links are followed, mounts are reported, and nothing of ours is left lying about.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tests::eventually::check;
use tests::{Daemon, Exit, Lab, eventually};

use crate::hazards_setup::{Setup, is_root, rendered};

#[track_caller]
fn assert_says(log: &str, all: &[&str]) {
    for text in all {
        assert!(log.contains(text), "no `{text}` in:\n{log}");
    }
}

/// Files of ours beside the dests, but for the memory of what was live.
fn left_over(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stays =
            ["-believed", "-emptied", "-lock", "-instance"].iter().any(|end| name.ends_with(end));
        name.contains(".confsync-") && !stays
    };
    all.filter(ours).collect()
}

/// confd's documentation has `nginx -t` here, which tests the file of before.
#[tokio::test(flavor = "multi_thread")]
async fn h10_a_check_that_does_not_look_at_the_candidate_is_asked_after_the_swap() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let dest = setup.file("app.conf").display().to_string();
    let check_cmd = format!("check_cmd = '! grep -q 127.0.0.66 {dest}'\n");
    setup.resource("app", &(setup.reload() + &check_cmd));
    setup.put(1).await;
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    setup.put(66).await;
    confsync.logged("rejected: check_cmd").await;
    eventually("the file of before is back", || async {
        check(setup.text("app.conf") == rendered(&[1]), || setup.text("app.conf"))
    })
    .await;
    assert_eq!(setup.text("live"), rendered(&[1]), "a file was loaded that its check refuses");
    setup.ctl().del("/services/apache/66").await;
    setup.put(2).await;
    setup.live(&[1, 2]).await;
}

/// Run once in a mount namespace of its own, prepared by this shell line.
fn in_mounts(daemon: Daemon, prepare: &str) -> Daemon {
    let script = format!("{prepare} && exec \"$@\"");
    daemon.under(&["unshare", "-m", "sh", "-c", &script, "sh"])
}

#[tokio::test(flavor = "multi_thread")]
async fn h13_a_file_mounted_by_itself_is_refused_by_name_unless_allowed() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let (source, dest) = (setup.file("source"), setup.file("app.conf"));
    fs::write(&source, "old\n").unwrap();
    fs::write(&dest, "").unwrap();
    let mount = format!("mount --bind {} {}", source.display(), dest.display());

    let ended = in_mounts(setup.confsync(&lab).arg("--once"), &mount).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["mounted as a single file", "allow_in_place"]);
    assert_eq!((setup.text("source"), setup.loads()), ("old\n".to_owned(), 0));

    setup.resource("app", &(setup.reload() + "allow_in_place = true\n"));
    let ended = in_mounts(setup.confsync(&lab).arg("--once"), &mount).run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_says(&ended.log, &["written in place, which is not atomic"]);
    assert_eq!((setup.text("source"), setup.text("live")), (rendered(&[1]), rendered(&[1])));
}

/// As the system calls show: the file, then the rename, then the folder.
#[tokio::test(flavor = "multi_thread")]
async fn h14_a_file_is_on_disk_before_it_takes_its_place_and_its_name_after() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    let trace = setup.file("trace");
    let calls = "trace=fsync,fdatasync,rename,renameat,renameat2";
    let words = ["strace", "-f", "-y", "-e", calls, "-o", &trace.display().to_string()];
    if !["/usr/bin/strace", "/usr/local/bin/strace"].iter().any(|p| Path::new(p).exists()) {
        return;
    }
    let ended = setup.confsync(&lab).arg("--once").under(&words).run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let trace = setup.text("trace");
    let at = |what: &str, found: &dyn Fn(&str) -> bool| {
        let at = trace.lines().position(found);
        at.unwrap_or_else(|| panic!("no {what} in:\n{trace}"))
    };
    let dest = format!("{}\"", setup.file("app.conf").display());
    let folder = format!("{}>", setup.folder.display());
    let file =
        at("fsync of the file", &|l| l.contains("sync(") && l.contains(".app.conf.confsync-"));
    let swap = at("rename", &|l| l.contains("rename") && l.contains(&dest));
    let after = trace.lines().skip(swap).any(|l| l.contains("fsync(") && l.contains(&folder));
    assert!(file < swap && after, "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h15_stage_files_of_a_killed_run_are_removed_and_no_others() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let flag = setup.file("hold").display().to_string();
    let check_cmd = format!("check_cmd = 'test ! -e {flag} || exec sleep 1000 # {{{{.src}}}}'\n");
    setup.resource("app", &(setup.reload() + &check_cmd));
    setup.put(1).await;
    setup.flag("hold");
    setup.flag(".app.conf.mine");
    setup.flag(".app.conf123456");
    let confsync = setup.confsync(&lab).start();
    eventually("a stage file", || async {
        check(left_over(&setup.folder).len() == 1, || format!("{:?}", left_over(&setup.folder)))
    })
    .await;
    // No glob of nginx takes a file that begins with a dot.
    let name = left_over(&setup.folder).first().unwrap().file_name().unwrap().to_owned();
    assert!(name.to_string_lossy().starts_with('.'));
    confsync.kill().await;
    setup.unflag("hold");

    let _confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    eventually("nothing is left over", || async {
        check(left_over(&setup.folder).is_empty(), || format!("{:?}", left_over(&setup.folder)))
    })
    .await;
    assert!(setup.file(".app.conf.mine").exists() && setup.file(".app.conf123456").exists());
}

/// confd's flag for keeping stage files makes its fork write in place.
#[tokio::test(flavor = "multi_thread")]
async fn h16_every_write_is_a_new_file_whatever_confds_flags_say() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let confd = || {
        Daemon::new(&lab, "confsync as confd", tests::bins::confsync())
            .arg("-onetime")
            .flag("-node", setup.etcd.address().to_string())
            .flag("-backend", "etcdv3")
            .flag("-confdir", setup.confdir.path().display().to_string())
            .flag("-log-level", "info")
    };
    let ended = confd().arg("-keep-stage-file").run().await;
    assert_eq!(ended.exit, Exit::Code(64), "{}", ended.log);
    assert_says(&ended.log, &["-keep-stage-file", "never kept"]);
    let mut inodes = Vec::new();
    for n in 1..=2 {
        setup.put(n).await;
        let ended = confd().run().await;
        assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
        // Held open, so that its number is not given to another.
        let file = fs::File::open(setup.file("app.conf")).unwrap();
        inodes.push((file.metadata().unwrap().ino(), file));
    }
    assert_ne!(inodes[0].0, inodes[1].0, "written in place");
    assert_eq!(left_over(&setup.folder), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn h17_a_dest_that_is_a_link_stays_one_and_its_target_changes() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let available = lab.folder("sites-available");
    fs::write(available.join("app"), "old\n").unwrap();
    symlink("../sites-available/app", setup.file("app.conf")).unwrap();
    setup.put(1).await;
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let link = fs::read_link(setup.file("app.conf")).unwrap();
    assert_eq!(link, Path::new("../sites-available/app"));
    assert_eq!(fs::read_to_string(available.join("app")).unwrap(), rendered(&[1]));
    assert_eq!(left_over(&available), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn h26_modes_are_octal_and_dollars_and_flags_are_what_they_say() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let shell = format!(
        "mode = \"644\"\nreload_cmd = 'x=$(echo hi); (exit 3); echo \"$x $?\" > {}'\n",
        setup.file("live").display()
    );
    setup.resource("app", &shell);
    setup.put(1).await;
    // confd lets its file beat the command line.
    let file = setup.file("confd.toml");
    fs::write(&file, "prefix = \"/elsewhere\"\nbackend = \"etcdv3\"\n").unwrap();
    let ended = setup
        .confsync(&lab)
        .arg("--once")
        .flag("--config-file", file.display().to_string())
        .flag("--prefix", "/")
        .run()
        .await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_eq!(setup.text("app.conf"), rendered(&[1]));
    let mode = fs::metadata(setup.file("app.conf")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert_eq!(setup.text("live"), "hi 3\n");

    setup.resource("app", "mode = \"0688\"\n");
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert!(!ended.exit.success());
    assert_says(&ended.log, &["mode = \"0688\" is not an octal mode"]);
}

/// The owner is set before the file takes its place; where that is not allowed nothing
/// changes.
#[tokio::test(flavor = "multi_thread")]
async fn h26_an_owner_that_cannot_be_set_stops_the_swap() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.put(1).await;
    fs::write(setup.file("app.conf"), "old\n").unwrap();
    setup.resource("app", &(setup.reload() + "uid = 12345\n"));
    let without = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown"];
    let ended = setup.confsync(&lab).arg("--once").under(&without).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["owner", "not permitted"]);
    assert_eq!((setup.text("app.conf"), setup.loads()), ("old\n".to_owned(), 0));
    assert_eq!(left_over(&setup.folder), Vec::<PathBuf>::new());

    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_eq!(fs::metadata(setup.file("app.conf")).unwrap().uid(), 12345);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_made_only_when_asked_for() {
    let lab = Lab::new();
    let setup = Setup::prepare(&lab, tests::Etcd::start(&lab).await);
    let dest = setup.file("not/there/app.conf");
    let toml = format!(
        "[template]\nsrc = \"app.tmpl\"\ndest = \"{}\"\nkeys = [\"/services/apache\"]\n",
        dest.display()
    );
    setup.confdir.toml("app", &toml);
    setup.put(1).await;
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert_says(&ended.log, &["does not exist", "make_directories = true"]);
    assert!(!setup.file("not").exists());

    setup.confdir.toml("app", &(toml + "make_directories = true\n"));
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_eq!(fs::read_to_string(dest).unwrap(), rendered(&[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_read_only_disks_are_named_and_the_last_file_stays() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let long = "# a long comment\n".repeat(2000);
    setup.confdir.template("app.tmpl", &(long + crate::hazards_setup::TEMPLATE));
    setup.put(1).await;
    let disk = lab.folder("disk");
    let dest = disk.join("app.conf");
    setup.confdir.edit("conf.d/app.toml", |toml| {
        let own = setup.file("app.conf").display().to_string();
        toml.replace(&own, &dest.display().to_string())
    });
    let mount = |options: &str, then: &str| {
        let (disk, dest, kept) = (disk.display(), dest.display(), setup.file("kept"));
        let kept = kept.display();
        // What is in the file after the run is copied to where the test can see it.
        format!(
            "mount -t tmpfs -o size={options} none {disk} && echo old > {dest} && {then} && \
             {{ \"$@\"; code=$?; cp {dest} {kept}; exit $code; }} && true"
        )
    };
    let full = in_mounts(setup.confsync(&lab).arg("--once"), &mount("16k", "true")).run().await;
    assert_eq!(full.exit, Exit::Code(1), "{}", full.log);
    assert_says(&full.log, &["No space left", "app.conf"]);
    assert!(!full.log.contains(".app.conf.confsync-"), "the name differs each time: {}", full.log);
    assert_eq!(setup.text("kept"), "old\n");

    let remount = format!("mount -o remount,ro {}", disk.display());
    let read_only = in_mounts(setup.confsync(&lab).arg("--once"), &mount("1m", &remount));
    let read_only = read_only.run().await;
    assert_eq!(read_only.exit, Exit::Code(1), "{}", read_only.log);
    assert_says(&read_only.log, &["Read-only file system", "app.conf"]);
    assert_eq!((setup.text("kept"), setup.loads()), ("old\n".to_owned(), 0));
}
