//! `confsync check --host` asks the proxy of this machine, as the user who runs it: nginx is in
//! `nginx_asked`, HAProxy and a user without root's rights are here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::{Confdir, Daemon, Exit, Lab, Nginx, bins};

use super::hazards_setup::is_root;

const MAIN: &str = "defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
";

const WEB: &str = "frontend web
    bind 127.0.0.1:1
    default_backend apache
backend apache
{{ range gets \"/services/apache/*\" }}    server {{ base .Key }} {{ .Value }}
{{ end }}";

/// A folder with HAProxy's files, of which confsync writes one.
fn haproxy(lab: &Lab) -> Confdir {
    let folder = lab.folder("haproxy");
    fs::write(folder.join("00-main.cfg"), MAIN).unwrap();
    let confdir = Confdir::empty(lab);
    confdir.template("web.tmpl", WEB);
    let toml = format!(
        "[template]\nsrc = \"web.tmpl\"\ndest = \"{0}/web.cfg\"\nkeys = [\"/services/apache\"]\n\
         [haproxy]\nconf = \"{0}\"\npid_file = \"{0}/pid\"\n",
        folder.display()
    );
    confdir.toml("web", &toml);
    confdir
}

fn check(lab: &Lab, confdir: &Confdir) -> Daemon {
    let data = lab.path().join("data.json");
    fs::write(&data, "{\"/services/apache/one\": \"10.0.0.1:80\"}").unwrap();
    let check = Daemon::new(lab, "check", bins::confsync()).arg("check").arg("--host");
    check.confdir(confdir).flag("--data", data.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_checks_what_would_be_installed_and_nothing_is_changed() {
    let lab = Lab::new();
    let confdir = haproxy(&lab);
    let ended = check(&lab, &confdir).run().await;
    assert!(ended.exit.success(), "{}", ended.log);
    confdir.edit("templates/web.tmpl", |text| text.replace("default_backend", "default_backand"));
    let ended = check(&lab, &confdir).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    let written = lab.path().join("haproxy/web.cfg");
    let wanted = format!("{}:3", written.display());
    assert!(ended.log.contains("web: on this machine: "), "{}", ended.log);
    assert!(ended.log.contains("default_backand") && ended.log.contains(&wanted), "{}", ended.log);
    assert!(!written.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_that_is_not_there_is_named() {
    let lab = Lab::new();
    let confdir = haproxy(&lab);
    confdir.edit("conf.d/web.toml", |text| text + "binary = \"no-haproxy\"\n");
    let ended = check(&lab, &confdir).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    assert!(ended.log.contains("there is no program `no-haproxy`"), "{}", ended.log);
}

/// Readable for everybody, as files of an installation are.
fn open_up(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| open_up(&entry.unwrap().path()));
    }
}

/// The same check by a user who is not root.
fn as_nobody(lab: &Lab, confdir: &Confdir) -> Daemon {
    let program = lab.path().join("confsync");
    fs::copy(bins::confsync(), &program).unwrap();
    open_up(lab.path());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let check = Daemon::new(lab, "check", program).arg("check").arg("--host").confdir(confdir);
    check.under(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_learns_what_they_lack() {
    if !is_root() {
        return tests::skip::skip("only root can become another user");
    }
    let lab = Lab::new();
    let confdir = haproxy(&lab);
    let ended = as_nobody(&lab, &confdir).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    let folder = lab.path().join("haproxy");
    let wanted = format!("on this machine: {} cannot be written by this user", folder.display());
    assert!(ended.log.contains(&wanted), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_this_user_may_not_signal_is_named() {
    if !is_root() {
        return tests::skip::skip("only root can become another user");
    }
    let lab = Lab::new();
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    // A process of root's.
    let pid_file = lab.path().join("pid");
    fs::write(&pid_file, std::process::id().to_string()).unwrap();
    let ours = format!("pid_file = \"{}\"", pid_file.display());
    confdir.edit("conf.d/nginx.toml", |text| {
        let lines = text.lines().map(|line| match line.starts_with("pid_file") {
            true => ours.as_str(),
            false => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let ended = as_nobody(&lab, &confdir).run().await;
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);
    let wanted = format!("this user may not signal process {}", std::process::id());
    assert!(ended.log.contains(&wanted), "{}", ended.log);
}
