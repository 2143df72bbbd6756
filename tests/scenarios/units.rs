//! The unit files that people copy: systemd finds nothing wrong with them, and every
//! `ExecStart=` of ours is a command line that the real binaries run with.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::process::{Spec, run};
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, bins, http};

const PORT: &str = "7777";

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fleet-units")
}

/// The unit files of a flavour, with their texts.
fn units(flavour: &str) -> Vec<(String, String)> {
    let mut units = Vec::new();
    for entry in fs::read_dir(shipped().join(flavour)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "service") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            units.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(units.len() >= 2, "unit files in `{flavour}`");
    units.sort();
    units
}

/// The words of a unit's `ExecStart=`, as systemd would split it for instance 7777.
fn exec_start(unit: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let unit = unit.replace("\\\n", " ");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut line = line.replace("%i", PORT).replace("%H", "lb");
    for (name, value) in variables {
        line = line.replace(&format!("${{{name}}}"), value);
    }
    assert!(!line.contains("${") && !line.contains('%'), "an unknown variable in: {line}");
    let mut words = Vec::new();
    for (nth, part) in line.split('\'').enumerate() {
        if nth % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// What follows our binary in a command line, be it in a container or not.
fn arguments_of<'a>(words: &'a [String], binary: &str) -> Option<&'a [String]> {
    let path = format!("/{binary}");
    let at = words.iter().position(|word| word == binary || word.ends_with(&path))?;
    words.get(at + 1..)
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_finds_nothing_to_complain_about() {
    for flavour in ["", "docker", "packages"] {
        let lab = Lab::new();
        let folder = lab.folder("units");
        let mut files = Vec::new();
        for (name, text) in units(flavour) {
            // The programs need not be installed for this.
            let text = text
                .replace("=register ", &format!("={} ", bins::register().display()))
                .replace("=confsync ", &format!("={} ", bins::confsync().display()))
                .replace("/usr/bin/docker", "/bin/true");
            let path = folder.join(name.replace("@.", &format!("@{PORT}.")));
            fs::write(&path, text).unwrap();
            files.push(path.display().to_string());
        }
        for needed in ["docker.service", "etcd.service"] {
            fs::write(folder.join(needed), "[Service]\nExecStart=/bin/true\n").unwrap();
        }
        let spec = Spec::new("systemd-analyze", "systemd-analyze", &folder)
            .args(["verify", "--man=no", "--recursive-errors=yes"])
            .args(files);
        let verdict = run(spec, Duration::from_secs(60)).await;
        // It ends with 0 on a misspelt key, so what it says counts as well.
        assert_eq!(verdict.ok() + &verdict.stderr(), "", "fleet-units/{flavour}");
    }
}

/// Ten times the exposure that `systemd-analyze security` gives at most.
#[tokio::test(flavor = "multi_thread")]
async fn the_units_expose_little() {
    let most = [
        ("apache-discovery@.service", "15"),
        ("packages/register.service", "15"),
        // nginx's master is root.
        ("nginx-lb.service", "30"),
        ("packages/confsync.service", "30"),
        // So is Apache's, and applications write below /var.
        ("apache@.service", "45"),
    ];
    for (unit, most) in most {
        let spec = Spec::new("systemd-analyze", "systemd-analyze", shipped()).args([
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold",
            most,
            unit,
        ]);
        let verdict = run(spec, Duration::from_secs(60)).await;
        assert!(verdict.exit.success(), "{unit}: {}", verdict.stdout());
    }
}

/// What two units that do the same must not differ in: all of it, but where their settings are.
#[test]
fn units_of_one_daemon_are_the_same() {
    let lines = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(shipped().join(file)).unwrap();
        let (_, service) = text.split_once("[Service]").unwrap();
        let service = service.split("\n[").next().unwrap();
        let settings = |line: &&str| {
            !line.is_empty() && !line.contains("Environment") && !line.starts_with('#')
        };
        service.lines().filter(settings).map(str::to_owned).collect()
    };
    assert_eq!(lines("nginx-lb.service"), lines("packages/confsync.service"));
    assert_eq!(lines("apache-discovery@.service"), lines("docker/apache-discovery@.service"));
    let without_command = |file: &str| -> Vec<String> {
        let own = |line: &String| {
            ["Exec", "    --", "RuntimeDirectory="].iter().any(|begin| line.starts_with(begin))
        };
        lines(file).into_iter().filter(|line| !own(line)).collect()
    };
    assert_eq!(
        without_command("apache-discovery@.service"),
        without_command("packages/register.service")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidekicks_command_line_registers_the_instance() {
    for flavour in ["", "docker"] {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let port = PORT.parse::<u16>().unwrap();
        let backend = Backend::start_at((lab.another_ip(), port).into(), "one").await;
        let ip = backend.ip().to_string();
        let (_, unit) = units(flavour).into_iter().find(|(name, _)| name.contains('-')).unwrap();
        let words = exec_start(&unit, &[("COREOS_PRIVATE_IPV4", &ip)]);
        let arguments = arguments_of(&words, "register").unwrap();

        let mut sidekick = Daemon::new(&lab, "sidekick", bins::register());
        for argument in arguments {
            sidekick = sidekick.arg(argument);
        }
        let sidekick = sidekick.env("ETCD_ENDPOINTS", etcd.url()).start();

        sidekick.ready().await;
        let key = format!("/services/apache/{ip}");
        assert_eq!(etcd.ctl(Api::V3).get(&key).await, Some(format!("{ip}:{PORT}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_balancers_command_line_serves() {
    for flavour in ["", "docker"] {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let backend = Backend::start(&lab, "one").await;
        let at = backend.address().to_string();
        etcd.ctl(Api::V3).put(&format!("/services/apache/{}", backend.ip()), &at).await;
        let nginx = Nginx::prepare(&lab);
        let confdir = Confdir::tutorial(&lab, &nginx);
        let (_, unit) = units(flavour).into_iter().find(|(name, _)| name.contains("lb")).unwrap();
        let variables = [("COREOS_PUBLIC_IPV4", "10.0.0.1"), ("COREOS_PRIVATE_IPV4", "10.0.0.1")];
        let words = exec_start(&unit, &variables);

        let mut balancer = Daemon::new(&lab, "balancer", bins::confsync());
        for word in arguments_of(&words, "confsync").unwrap() {
            // The places alone are the lab's.
            let word = match word.as_str() {
                "/etc/confsync" => confdir.path().to_str().unwrap(),
                "http://10.0.0.1:2379" => &etcd.url(),
                other => other,
            };
            balancer = balancer.arg(word);
        }
        let conf = nginx.conf().display().to_string();
        let balancer = balancer.flag("-c", conf).env("ETCD_ENDPOINTS", etcd.url()).start();

        balancer.ready().await;
        assert_eq!(http::get(nginx.address(), "/").await.unwrap().body, "one\n");
    }
}

/// As the unit starts it.
#[tokio::test(flavor = "multi_thread")]
async fn the_plain_apache_answers() {
    let lab = Lab::new();
    let ip = lab.ip();
    let folder = lab.folder("apache");
    let conf = fs::read_to_string(shipped().join("apache/instance.conf")).unwrap();
    let spec = Spec::new("apache2", "apache2", lab.path())
        .args([Path::new("-f"), &folder.join("instance.conf")])
        .args(["-D", "FOREGROUND"])
        .env("COREOS_PRIVATE_IPV4", ip.to_string())
        .env("PORT", PORT)
        .env("RUNTIME_DIRECTORY", &folder)
        .env("LOGS_DIRECTORY", &folder);
    fs::write(folder.join("instance.conf"), conf).unwrap();
    let apache = lab.spawn(spec);
    tests::eventually("apache answers", || async {
        match apache.exit() {
            Some(exit) => Err(format!("{exit}: {}", apache.log())),
            None => http::get((ip, 7777).into(), "/").await.map(|_| ()),
        }
    })
    .await;
}
