//! What a subcommand has to say goes to standard output. Where that cannot take it, the
//! command has failed; where somebody has read enough, it has not.

use tests::{Api, Confdir, Daemon, Lab, bins};

use crate::register_setup::{Setup, assert_ended};

/// Every command whose result is what it prints.
fn all(setup: &Setup) -> Vec<Daemon> {
    let lab = &setup.lab;
    let confdir = Confdir::empty(lab);
    // Without a line end, which would have flushed it.
    confdir.template("a.tmpl", "{{ range gets \"/services/*/*\" }}{{ .Value }}{{ end }}");
    let dest = lab.folder("made").join("a.conf");
    let toml = format!(
        "[template]\nsrc = \"a.tmpl\"\ndest = \"{}\"\nkeys = [\"/services\"]\n",
        dest.display()
    );
    confdir.toml("a", &toml);
    let register = |name: &str| setup.command(name);
    let confsync = |name: &str| Daemon::new(lab, name, bins::confsync()).arg(name);
    let etcd = |daemon: Daemon| daemon.etcd(&setup.etcd, setup.api);
    vec![
        register("list"),
        register("list").arg("--json"),
        register("check").backend("apache", setup.backend.address()),
        register("--help"),
        confsync("check").confdir(&confdir),
        etcd(confsync("render").confdir(&confdir)).arg("a"),
        etcd(confsync("status")),
        etcd(confsync("status")).arg("--json"),
        etcd(confsync("run").confdir(&confdir)).arg("--dry-run"),
        etcd(confsync("run").confdir(&confdir)).arg("--dry-run").arg("--diff"),
        confsync("init").flag("--confdir", lab.folder("new").display().to_string()),
        confsync("--version"),
        register("remove").backend("apache", setup.backend.address()),
    ]
}

/// Runs them all, each by this line of a shell.
async fn each(line: &str, code: i32, says: &[&str]) {
    let setup = Setup::new(Api::V3).await;
    setup.etcd.ctl(Api::V3).put(&setup.key(), &setup.value()).await;
    for command in all(&setup) {
        assert_ended(&command.under(&["sh", "-c", line]).run().await, code, says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_a_failure() {
    let says = ["error: cannot write the output: No space left on device"];
    each("exec \"$0\" \"$@\" > /dev/full", 1, &says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_dropped_once_its_reader_has_closed() {
    // The only reader goes before the command begins.
    let pipe = "rm -f pipe && mkfifo pipe && exec 3<>pipe 4>pipe 3>&-";
    each(&format!("{pipe} && exec \"$0\" \"$@\" >&4"), 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn complaints_that_cannot_be_written_change_no_outcome() {
    let lab = Lab::new();
    let confdir = Confdir::empty(&lab);
    confdir.toml("a", "[template]\nsrc = \"missing.tmpl\"\n");
    let check = Daemon::new(&lab, "check", bins::confsync()).arg("check").confdir(&confdir);
    let ended = check.under(&["sh", "-c", "exec \"$0\" \"$@\" 2> /dev/full"]).run().await;
    assert_ended(&ended, 1, &[]);
}
