//! The packages: installed, configured, upgraded, removed, on a machine of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::process::{Spec, run};
use tests::skip::skip;
use tests::{Api, Etcd, Lab, Machine, bins, network};

const BUILD: Duration = Duration::from_secs(120);

/// Both packages of this version, from the binaries on trial; the files.
async fn packages(lab: &Lab, version: &str) -> Vec<PathBuf> {
    let (target, folder) = (lab.folder("target"), lab.folder(version));
    let mut files = Vec::new();
    for (name, binary) in [("register", bins::register()), ("confsync", bins::confsync())] {
        let strip = Spec::new("strip", "strip", lab.path()).args([
            Path::new("-o"),
            &lab.folder("target/release").join(name),
            &binary,
        ]);
        let _ = run(strip, BUILD).await.ok();
        let file = folder.join(format!("{name}.deb"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // Compressing well takes longer than all the rest.
        let mut spec = Spec::new("cargo deb", cargo, workspace)
            .args(["deb", "--no-build", "--no-strip", "--fast", "--compress-type", "gz"])
            .args(["--compress-system", "--package", name, "--deb-version", version])
            .args([Path::new("--output"), &file])
            .env("CARGO_TARGET_DIR", &target);
        for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            if let Some(value) = std::env::var_os(name) {
                spec = spec.env(name, value);
            }
        }
        let _ = run(spec, BUILD).await.ok();
        files.push(file);
    }
    files
}

/// Puts the files into the machine's /opt and installs them.
async fn install(machine: &Machine<'_>, files: &[PathBuf]) -> String {
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        std::fs::copy(file, machine.path(&format!("/opt/{name}"))).unwrap();
    }
    machine
        .sh("DEBIAN_FRONTEND=noninteractive dpkg --install /opt/register.deb /opt/confsync.deb")
        .await
}

#[test]
fn packages_are_installed_upgraded_and_removed() {
    if !bins::on_path("cargo-deb") {
        return skip("cargo-deb is not installed (`make packages` installs it)");
    }
    network::scenario(|network| async move {
        let pages = Spec::new("pages", env!("CARGO_BIN_EXE_pages"), network.lab().path())
            .args([network.lab().path().join("target/release/generated")]);
        let _ = run(pages, BUILD).await.ok();
        let pages = network.lab().path().join("target/release/generated");
        let gzip = Spec::new("gzip", "sh", pages).args(["-c", "gzip -9n *.8"]);
        let _ = run(gzip, BUILD).await.ok();
        let (first, second) =
            (packages(network.lab(), "0.1.0-1").await, packages(network.lab(), "0.1.0-2").await);
        let etcd = Etcd::prepare_at(network.lab(), (network.ip(), 2379).into());
        let machine = network.machine("fresh", 20);
        tokio::join!(etcd.up(), machine.boot());

        install(&machine, &first).await;
        for name in ["register", "confsync"] {
            let version = machine.run(&[&format!("/usr/bin/{name}"), "--version"]).await;
            assert!(
                version.starts_with(&format!("{name} {}", env!("CARGO_PKG_VERSION"))),
                "{version}"
            );
            machine
                .sh(&format!(
                    "man_page=$(dpkg -L {name} | grep 'man8/{name}-run.8') && test -s $man_page && gzip --test $man_page
                 test -s /usr/share/bash-completion/completions/{name}
                 test -s /usr/share/zsh/vendor-completions/_{name}
                 test -s /usr/share/fish/vendor_completions.d/{name}.fish
                 bash -c '. /usr/share/bash-completion/completions/{name} && complete -p {name}'"
                ))
                .await;
            assert_eq!(machine.property(name, "ActiveState").await.unwrap(), "inactive");
            assert_eq!(machine.property(name, "UnitFileState").await.unwrap(), "disabled");
        }

        // As an operator: the two files of configuration, then `enable --now`.
        machine.sh("echo hello > /var/www/html/index.html; mkdir /run/apache-8080").await;
        machine.write(
            "/etc/default/register",
            &format!("ETCD_ENDPOINTS={}\nCOREOS_PRIVATE_IPV4={}\n", etcd.url(), machine.ip()),
        );
        let services =
            "[[service]]\nservice = \"apache\"\nport = 8080\nfast_interval = \"200ms\"\n";
        machine.write("/etc/register/services.toml", services);
        machine.write(
            "/etc/apache2/instance.conf",
            include_str!("../../fleet-units/apache/instance.conf"),
        );
        machine.write(
            "/etc/systemd/system/apache@.service",
            include_str!("../../fleet-units/apache@.service"),
        );
        machine.write("/etc/environment", &format!("COREOS_PRIVATE_IPV4={}\n", machine.ip()));
        machine.systemctl(&["daemon-reload"]).await;
        machine.systemctl(&["enable", "--now", "apache@8080", "register"]).await;
        machine.says("register", "registered").await;
        let ctl = etcd.ctl(Api::V3);
        assert_eq!(ctl.ls("/services").await, ["/services/apache/10.77.0.20"]);

        let before = machine.property("register", "InvocationID").await.unwrap();
        install(&machine, &second).await;
        assert_eq!(
            std::fs::read_to_string(machine.path("/etc/register/services.toml")).unwrap(),
            services
        );
        machine.says("register", "registered").await;
        assert_ne!(
            machine.property("register", "InvocationID").await.unwrap(),
            before,
            "the new one runs"
        );
        assert!(machine.sh("dpkg-query --show register").await.contains("0.1.0-2"));

        machine.sh("dpkg --remove register confsync").await;
        assert_eq!(ctl.ls("/services").await, [""; 0], "drained when it was removed");
        machine.sh("test ! -e /usr/bin/register; test -e /etc/register/services.toml").await;
        machine.sh("dpkg --purge register confsync; test ! -e /etc/register/services.toml").await;
    });
}
