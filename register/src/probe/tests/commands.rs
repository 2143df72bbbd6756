//! `exec:` probes.

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe;

use super::*;

#[tokio::test]
async fn the_exit_code_decides_and_the_output_is_the_reason() {
    assert_eq!(plain("exec:true").await, Verdict::Pass);
    assert_eq!(why(plain("exec:false").await), "exit code 1");
    let message = why(plain("exec:sh -c 'echo out; echo \"no  \u{7}db\" >&2; exit 3'").await);
    assert_eq!(message, "exit code 3: no  \\u{7}db");
    assert_eq!(why(plain("exec:sh -c 'kill -9 $$'").await), "killed by signal 9");
}

#[tokio::test]
async fn no_shell_interprets_the_arguments() {
    assert_eq!(plain("exec:test '$HOME' = '$HOME'").await, Verdict::Pass);
    assert_eq!(plain("exec:test {host}:{port} = 127.0.0.1:1").await, Verdict::Pass);
}

#[tokio::test]
async fn output_without_end_neither_blocks_nor_fills_us() {
    let message =
        why(plain("exec:sh -c 'head -c 10000000 /dev/zero | tr \"\\\\0\" x; exit 1'").await);
    assert_eq!(message, format!("exit code 1: {}", "x".repeat(200)));
}

/// The commands hold a pipe open; it ends when the last of them is gone.
async fn all_gone(script: &str, timeout: Duration) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("held");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut held = pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
    let own: Endpoint = "127.0.0.1:1".parse().unwrap();
    let text = format!("exec:sh -c 'exec 3>{}; {script}'", fifo.display());
    let check = Check::parse(&text, &own, &HttpOptions::default()).unwrap();
    let verdict = Probe::prepare(check, timeout, &mut Trust::default()).unwrap().ask().await;
    let end = tokio::time::timeout(Duration::from_secs(10), held.read(&mut [0; 1])).await;
    assert_eq!(end.expect("a process still holds the pipe").unwrap(), 0);
    verdict
}

#[tokio::test]
async fn the_whole_group_is_killed_at_the_deadline() {
    let message = why(all_gone("sleep 300 & sleep 300", Duration::from_millis(500)).await);
    assert_eq!(message, "no answer within 500ms while running `sh`");
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_killed_when_it_ends() {
    assert_eq!(all_gone("sleep 300 & exit 0", Duration::from_secs(10)).await, Verdict::Pass);
}

/// `setsid` takes it out of the group, and its parent has ended before it is looked for.
#[tokio::test]
async fn what_makes_itself_a_session_is_killed_as_well() {
    let reaping = tokio::spawn(common::runtime::orphans::reap_below(is_left_over));
    let script = "setsid sleep 300 & setsid sh -c \"sleep 300; true\" & exit 0";
    assert_eq!(all_gone(script, Duration::from_secs(10)).await, Verdict::Pass);
    reaping.abort();
}

#[test]
fn a_missing_command_is_reported_before_anything_starts() {
    let own: Endpoint = "10.0.0.1:80".parse().unwrap();
    for (text, part) in [
        ("exec:no-such-command x", "there is no command `no-such-command` in PATH"),
        ("exec:/etc/passwd", "`/etc/passwd` cannot be executed"),
    ] {
        let check = Check::parse(text, &own, &HttpOptions::default()).unwrap();
        let message =
            Probe::prepare(check, Duration::from_secs(1), &mut Trust::default()).unwrap_err();
        assert_eq!(message, part);
    }
}
