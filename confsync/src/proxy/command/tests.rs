//! Real programs, with deadlines that either never or always strike.

use std::ffi::OsString;

use common::runtime::{Forwarded, orphans};
use rustix::process::{Pid, getpid, set_child_subreaper};

use super::*;
use crate::skip::skip;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

fn sh(line: &str) -> Command {
    Command::shell(line, LONG)
}

/// Whether a process runs; one that waits to be reaped does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap();
}

#[tokio::test]
async fn output_comes_in_order_and_failures_carry_it() {
    let outcome = sh("echo one; echo two >&2; echo three").run().await.unwrap();
    assert_eq!(outcome.output.text, "one\ntwo\nthree\n");
    let error = sh("echo why >&2; exit 3").run().await.unwrap_err();
    assert_eq!(error.to_string(), "`echo why >&2; exit 3` failed (exit code 3): why");
    let error = sh("kill -9 $$").run().await.unwrap_err().to_string();
    assert!(error.ends_with("(killed by signal 9), without any output"), "{error}");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Command::argv("no-such-program", ["x"], LONG).run().await.unwrap_err();
    assert!(matches!(&error, CommandError::NotFound(name) if name == "no-such-program"));
    assert!(Command::argv("/etc/passwd", [""; 0], LONG).run().await.is_err());
}

#[tokio::test]
async fn output_is_bounded_and_counted() {
    let outcome = sh("head -c 1000000 /dev/zero | tr '\\0' x").run().await.unwrap();
    assert_eq!(
        (outcome.output.text.len(), outcome.output.dropped),
        (KEEP, 1_000_000 - KEEP as u64)
    );
    assert!(outcome.output.to_string().contains("983616 more bytes"));
    let control = sh("printf 'a\\033[31mb\\377\\n'").run().await.unwrap();
    assert_eq!(control.output.text, "a\u{fffd}[31mb\u{fffd}\n");
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_goes() {
    for line in ["sleep 600 & echo $!; wait", "trap '' TERM; sleep 600 & echo $!; wait"] {
        let error = Command::shell(line, SHORT).run().await.unwrap_err();
        let CommandError::TimedOut { output, .. } = &error else { panic!("{error}") };
        let pid = output.text.trim().to_owned();
        assert!(!pid.is_empty());
        until(|| !runs(&pid)).await;
    }
}

#[tokio::test]
async fn a_grandchild_with_the_pipe_does_not_hold_the_call() {
    let outcome = sh("sleep 600 & echo $!").run().await.unwrap();
    let pid = outcome.output.text.trim().to_owned();
    assert!(runs(&pid), "it is not ours to kill");
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_command_that_closes_its_output_is_still_waited_for() {
    let error = sh("exec >&- 2>&-; exit 4").run().await.unwrap_err();
    assert!(matches!(error, CommandError::Failed { exit, .. } if exit.code() == 4));
}

#[tokio::test]
async fn dropping_a_call_kills_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let line = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
    let command = sh(&line);
    tokio::select! {
        _ = command.run() => panic!("it sleeps"),
        () = until(|| file.exists()) => {}
    }
    let pid = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    until(|| !runs(&pid)).await;
}

fn child(line: &str) -> Supervised {
    Supervised::start(&["/bin/sh", "-c", line].map(OsString::from)).unwrap()
}

#[tokio::test]
async fn the_exit_code_of_a_child_is_passed_on() {
    assert_eq!(child("exit 7").wait().await.unwrap().code(), 7);
    let mut killed = child("kill -9 $$");
    let left = killed.wait().await.unwrap();
    assert_eq!((left.code(), left.to_string().as_str()), (137, "killed by signal 9"));
    assert_eq!(killed.wait().await.unwrap(), left);
    killed.signal(Signal::TERM).unwrap();
    assert!(killed.pid().is_none());
    assert!(matches!(Supervised::start(&["no-such".into()]), Err(CommandError::NotFound(_))));
    assert!(Supervised::start(&[]).is_err());
}

#[tokio::test]
async fn a_child_is_asked_and_then_made_to_leave() {
    let left = child("exec sleep 600").stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!(left.code(), 143);
    let mut deaf = child("trap '' TERM; echo ready >&2; while :; do sleep 600; done");
    let tail = deaf.stderr().clone();
    until(|| tail.lines() == ["ready"]).await;
    assert_eq!(deaf.stop(Signal::TERM, SHORT).await.unwrap().code(), 137);
    let dropped = child("exec sleep 600");
    let pid = dropped.pid().unwrap().as_raw_nonzero().to_string();
    drop(dropped);
    until(|| !runs(&pid)).await;
}

#[tokio::test]
async fn the_last_output_of_a_child_is_kept() {
    let mut chatty = child("for i in $(seq 1 60); do echo line $i >&2; done; printf tail >&2");
    chatty.wait().await.unwrap();
    let words = chatty.last_words().await;
    assert_eq!((words.len(), words.last().unwrap().as_str()), (50, "tail"));
}

#[tokio::test]
async fn orphans_are_reaped_and_children_of_ours_are_not() {
    // As process 1 would be, orphans come to us.
    set_child_subreaper(Some(getpid())).unwrap();
    let outcome = sh("sleep 0 >/dev/null 2>&1 & echo $!").run().await.unwrap();
    let orphan = outcome.output.text.trim().to_owned();
    let mut ours = child("exit 7");
    let there = || std::path::Path::new(&format!("/proc/{orphan}")).exists();
    until(|| {
        orphans::sweep();
        !there()
    })
    .await;
    until(|| !runs(&ours.pid().unwrap().as_raw_nonzero().to_string())).await;
    orphans::sweep();
    assert_eq!(ours.wait().await.unwrap().code(), 7);
}

#[tokio::test]
async fn signals_for_the_child_are_heard() {
    let mut forwarded = Forwarded::listen().unwrap();
    for signal in [Signal::USR1, Signal::WINCH] {
        rustix::process::kill_process(getpid(), signal).unwrap();
        assert_eq!(tokio::time::timeout(LONG, forwarded.next()).await.unwrap(), signal);
    }
}

/// Runs the next test as process 1 of a namespace of its own.
#[tokio::test]
async fn process_one_reaps() {
    let own = std::env::current_exe().unwrap();
    let inner = "proxy::command::tests::inside_as_process_one";
    let line = ["--pid", "--fork", "--mount-proc", "--kill-child"].map(OsString::from);
    let line = line.into_iter().chain([own.into()]);
    let line = line.chain(["--exact", inner, "--ignored", "--nocapture"].map(OsString::from));
    match Command::argv("unshare", line, LONG).run().await {
        Ok(outcome) => assert!(outcome.output.text.contains("1 passed"), "{}", outcome.output),
        Err(e) if e.to_string().contains("not permitted") => {
            skip("this user may not make a namespace");
        }
        Err(e) => panic!("{e}"),
    }
}

/// As the workers of an nginx whose master is killed.
#[tokio::test]
async fn what_a_killed_child_had_started_dies_with_it() {
    let mut killed = child("sleep 600 & echo $! >&2; wait");
    until(|| !killed.stderr().lines().is_empty()).await;
    let worker = killed.stderr().lines().concat();
    assert!(runs(&worker));
    killed.signal(Signal::KILL).unwrap();
    assert_eq!(killed.wait().await.unwrap().code(), 128 + 9);
    until(|| !runs(&worker)).await;
}

#[tokio::test]
#[ignore = "run by `process_one_reaps`, as process 1"]
async fn inside_as_process_one() {
    assert_eq!(std::process::id(), 1);
    let reaping = tokio::spawn(orphans::reap_as_init());
    for _ in 0..20 {
        let mut ours = child("sleep 0 >/dev/null 2>&1 & exec sh -c 'exit 7'");
        let outcome = sh("sleep 0 >/dev/null 2>&1 & echo $!").run().await.unwrap();
        assert_eq!(ours.wait().await.unwrap().code(), 7);
        let orphan = format!("/proc/{}", outcome.output.text.trim());
        until(|| !std::path::Path::new(&orphan).exists()).await;
    }
    let left = || std::fs::read_dir("/proc").unwrap().flatten();
    let processes =
        || left().filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    until(|| processes() == 1).await;
    reaping.abort();
}
