//! Candidates in the full tree, before anything live is touched.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use confsync::install::Proof;
use confsync::proxy::Warning;
use confsync::proxy::nginx::NginxCheckError;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::bench::{Bench, version};
use crate::skip::skip;

fn words(error: NginxCheckError) -> String {
    match error {
        NginxCheckError::Rejected(words) => words,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_bad_candidate_is_named_by_its_dest_and_nothing_is_touched() {
    let bench = Bench::serving().await;
    let pid = fs::read(bench.path("nginx.pid")).unwrap();
    let staged = bench.stage(&[("sites/version.conf", b"# fine\nmap $host $version {\n  }\n}\n")]);
    let words = words(bench.nginx.check(&staged).await.unwrap_err());
    let dest = bench.path("sites/version.conf");
    assert_eq!(words, format!("[emerg] unexpected \"}}\" in {}:4", dest.display()));
    drop(staged);
    assert_eq!(fs::read(&dest).unwrap(), version(1));
    assert_eq!(fs::read(bench.path("nginx.pid")).unwrap(), pid);
    assert!(bench.leftovers().is_empty(), "{:?}", bench.leftovers());
    assert_eq!(bench.ask().await, "v1");
}

#[tokio::test]
async fn no_pid_file_is_made_and_a_new_file_is_seen_through_the_glob() {
    let bench = Bench::new().await;
    let staged = bench.stage(&[("sites/another.conf", b"map $uri $version { default x; }")]);
    let report = bench.nginx.check(&staged).await.unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert!(!bench.path("nginx.pid").exists());
    let staged = bench.stage(&[("sites/another.conf", b"nonsense;")]);
    let words = words(bench.nginx.check(&staged).await.unwrap_err());
    assert!(words.contains("unknown directive \"nonsense\""), "{words}");
    assert!(words.contains("sites/another.conf:1") && !words.contains("confsync-"), "{words}");
}

#[tokio::test]
async fn a_file_that_nginx_never_reads_is_reported() {
    let bench = Bench::new().await;
    let staged = bench.stage(&[("sites/up.txt", b"nonsense"), ("sites/version.conf", &version(2))]);
    let report = bench.nginx.check(&staged).await.unwrap();
    let dest = bench.path("sites/up.txt");
    let conf = bench.path("nginx.conf");
    assert_eq!(report.warnings, [Warning::NotIncluded { dest: dest.clone(), conf }]);
    assert!(report.warnings[0].to_string().contains("does not include"));
}

/// `sites-enabled` links to a file that is not there before the first start.
#[tokio::test]
async fn a_link_that_waits_for_the_file_is_followed_to_the_candidate() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("available")).unwrap();
    let links = [
        ("sites/relative.conf", PathBuf::from("../available/relative.conf")),
        ("sites/absolute.conf", bench.path("available/absolute.conf")),
    ];
    for (name, to) in links {
        std::os::unix::fs::symlink(to, bench.path(name)).unwrap();
    }
    // One dest by its own name, one by that of the link.
    let [own, link] = ["available/absolute.conf", "sites/relative.conf"];
    let good = b"map $uri $a { default x; }".as_slice();
    let staged = bench.stage(&[(own, good), (link, b"")]);
    let report = bench.nginx.check(&staged).await.unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    drop(staged);
    for (a, b) in [(b"oops;".as_slice(), good), (good, b"oops;")] {
        let staged = bench.stage(&[(own, a), (link, b)]);
        let message = words(bench.nginx.check(&staged).await.unwrap_err());
        assert!(message.contains("unknown directive \"oops\""), "{message}");
    }
}

#[tokio::test]
async fn relative_and_nested_includes_and_several_dests_at_once() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("parts")).unwrap();
    // Relative to the folder of the main file, not to that of the including one.
    fs::write(bench.path("sites/outer.conf"), "include parts/a.inc; include parts/b.inc;\n")
        .unwrap();
    fs::write(bench.path("parts/b.inc"), "# old\n").unwrap();
    // Each refers to the other: right only if both are the new ones.
    let a = b"upstream one { server 127.0.0.1:9; }\n".as_slice();
    let b =
        b"server { listen 127.0.0.1:1; location / { proxy_pass http://one; } oops; }\n".as_slice();
    let staged = bench.stage(&[("parts/a.inc", a), ("parts/b.inc", b)]);
    let message = words(bench.nginx.check(&staged).await.unwrap_err());
    assert_eq!(
        message,
        format!("[emerg] unknown directive \"oops\" in {}:1", bench.path("parts/b.inc").display())
    );
    // An error in the including file is reported under its own name and line.
    fs::write(bench.path("sites/outer.conf"), "include parts/a.inc;\ninclude parts/b.inc;\nbad;\n")
        .unwrap();
    let staged = bench.stage(&[("parts/a.inc", a), ("parts/b.inc", b"\n")]);
    let message = words(bench.nginx.check(&staged).await.unwrap_err());
    let outer = bench.path("sites/outer.conf");
    assert_eq!(message, format!("[emerg] unknown directive \"bad\" in {}:3", outer.display()));
}

#[tokio::test]
async fn the_main_file_itself_can_be_the_dest() {
    let bench = Bench::new().await;
    let old = fs::read_to_string(bench.path("nginx.conf")).unwrap();
    let good = old.replace("worker_processes 2", "worker_processes 1");
    let staged = bench.stage(&[("nginx.conf", good.as_bytes())]);
    assert!(bench.nginx.check(&staged).await.unwrap().warnings.is_empty());
    assert!(!bench.path("nginx.pid").exists());
    drop(staged);
    let line = 1 + old.lines().count();
    for bad in [format!("{old}oops;\n"), format!("{old}}}\n")] {
        let staged = bench.stage(&[("nginx.conf", bad.as_bytes())]);
        let message = words(bench.nginx.check(&staged).await.unwrap_err());
        let place = format!(" in {}:{line}", bench.path("nginx.conf").display());
        assert!(message.ends_with(&place), "{message}");
    }
    // A new main file together with a file that only it includes.
    let both = old.replace("include sites", "include extra/*.conf; include sites");
    fs::create_dir(bench.path("extra")).unwrap();
    let staged = bench.stage(&[("nginx.conf", both.as_bytes()), ("extra/x.conf", b"oops;")]);
    let message = words(bench.nginx.check(&staged).await.unwrap_err());
    assert!(
        message.ends_with(&format!("in {}:1", bench.path("extra/x.conf").display())),
        "{message}"
    );
    assert!(bench.leftovers().len() == 2, "only the staged files: {:?}", bench.leftovers());
}

#[tokio::test]
async fn a_dest_behind_a_link_is_found() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("available")).unwrap();
    fs::write(bench.path("available/x.conf"), "").unwrap();
    std::os::unix::fs::symlink("../available/x.conf", bench.path("sites/x.conf")).unwrap();
    for dest in ["sites/x.conf", "available/x.conf"] {
        let staged = bench.stage(&[(dest, b"oops;")]);
        let message = words(bench.nginx.check(&staged).await.unwrap_err());
        assert!(message.ends_with(&format!("in {}:1", bench.path(dest).display())), "{message}");
    }
}

#[tokio::test]
async fn a_pid_anywhere_in_the_main_context_is_led_aside() {
    let bench = Bench::new().await;
    let old = fs::read_to_string(bench.path("nginx.conf")).unwrap();
    fs::write(bench.path("top.inc"), "pid elsewhere.pid;\n").unwrap();
    let main = old.replace("pid nginx.pid;", "include top.inc;");
    fs::write(bench.path("nginx.conf"), main).unwrap();
    let staged = bench.stage(&[("sites/version.conf", &version(2))]);
    bench.nginx.check(&staged).await.unwrap();
    assert!(!bench.path("elsewhere.pid").exists());
    fs::write(bench.path("nginx.conf"), old.replace("pid nginx.pid;", "# no pid;")).unwrap();
    bench.nginx.check(&staged).await.unwrap();
}

/// Why values are validated before a check, and not by it.
#[tokio::test]
async fn a_check_makes_the_files_that_a_candidate_names() {
    let bench = Bench::new().await;
    let made = bench.path("made-by-the-check.log");
    let text = format!("access_log {};\nmap $host $version {{ default x; }}", made.display());
    let staged = bench.stage(&[("sites/version.conf", text.as_bytes())]);
    bench.nginx.check(&staged).await.unwrap();
    assert!(made.exists());
}

#[tokio::test]
async fn warnings_of_nginx_are_passed_on() {
    let bench = Bench::new().await;
    let text = "server { listen 127.0.0.1:1; server_name a; } server { listen 127.0.0.1:1; server_name a; }\n";
    let text = [version(2).as_slice(), text.as_bytes()].concat();
    // Port 1 is bound by the test that nginx makes, so only where that is allowed.
    if TcpListener::bind((Ipv4Addr::LOCALHOST, 1)).is_err() {
        return;
    }
    let staged = bench.stage(&[("sites/version.conf", &text)]);
    let warnings = bench.nginx.check(&staged).await.unwrap().warnings;
    assert!(
        matches!(&warnings[..], [Warning::Proxy(w)] if w.contains("conflicting")),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_proof_opens_the_way_for_its_own_bytes_only() {
    let bench = Bench::new().await;
    let good = bench.stage(&[("sites/version.conf", &version(2))]);
    let other = bench.stage(&[("sites/version.conf", b"nonsense;")]);
    let proof = bench.nginx.check(&good).await.unwrap().proof;
    assert!(other.accept(proof).is_err());
    let altered = bench.stage(&[("sites/version.conf", &version(3))]);
    let proof = Proof::nothing_to_ask(&altered);
    fs::write(altered.files()[0].path(), "longer than it was, by somebody").unwrap();
    let error = altered.accept(proof).unwrap_err().to_string();
    assert!(error.contains("was changed by something other"), "{error}");
    assert_eq!(fs::read(bench.path("sites/version.conf")).unwrap(), version(1));
}

/// An agent runs on any thread.
#[tokio::test]
async fn the_calls_can_move_between_threads() {
    fn may_move<T: Send>(_: &T) {}
    let bench = Bench::serving().await;
    let staged = bench.stage(&[("sites/version.conf", &version(2))]);
    let master = bench.nginx.master().unwrap();
    may_move(&staged);
    may_move(&bench.nginx.check(&staged));
    may_move(&bench.nginx.reload(&master, crate::bench::DEADLINE));
}

/// As root a mount makes the folder read-only; without root its mode does.
#[tokio::test]
async fn a_folder_that_cannot_be_written_is_checked_through_links() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("etc")).unwrap();
    fs::create_dir(bench.path("etc/parts")).unwrap();
    let main = fs::read_to_string(bench.path("nginx.conf")).unwrap();
    let main = main.replace("include sites", "include parts/*.conf; include ../sites");
    fs::write(bench.path("etc/nginx.conf"), main).unwrap();
    fs::write(bench.path("etc/parts/y.conf"), "map $uri $y { default 1; }\n").unwrap();
    let settings = confsync::proxy::nginx::NginxSettings {
        conf: Some(bench.path("etc/nginx.conf")),
        prefix: Some(bench.dir.path().into()),
        ..Default::default()
    };
    let nginx = confsync::proxy::nginx::Nginx::discover(settings).await.unwrap();
    let Some(_closed) = ReadOnly::make(&bench.path("etc")) else {
        return skip("neither mounting nor modes can close the folder here");
    };
    let staged = bench.stage(&[("sites/version.conf", b"\noops;")]);
    let message = words(nginx.check(&staged).await.unwrap_err());
    let dest = bench.path("sites/version.conf");
    assert_eq!(message, format!("[emerg] unknown directive \"oops\" in {}:2", dest.display()));
    let staged = bench.stage(&[("sites/version.conf", b"map $y $version { default 1; }")]);
    assert!(nginx.check(&staged).await.unwrap().warnings.is_empty());
}

struct ReadOnly(std::path::PathBuf, bool);

impl ReadOnly {
    fn make(folder: &std::path::Path) -> Option<Self> {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
        let mut closed = Self(folder.into(), false);
        if fs::write(folder.join("probe"), "").is_err() {
            return Some(closed);
        }
        fs::remove_file(folder.join("probe")).unwrap();
        rustix::mount::mount_bind(folder, folder).ok()?;
        closed.1 = true;
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(folder, flags, c"").ok()?;
        Some(closed)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        if self.1 {
            rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
        }
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755));
    }
}
