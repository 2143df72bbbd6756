//! Container images of `fleet-units/docker/`, built by a real Docker, and machines that
//! run them with a real Docker of their own.
//!
//! An engine of our own builds them, outside of the network, because apt needs the world. What it
//! builds it keeps in the target folder, so the first run alone makes the base image
//! (`debootstrap`) and asks apt. It runs in a PID namespace and ends with the test. Where any of
//! this cannot be done, the scenario is skipped, loudly ([`crate::skip`]).

use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, geteuid, kill_process};

use crate::bins;
use crate::eventually::{check, patience, within};
use crate::lab::Lab;
use crate::network::{self, Machine, Network};
use crate::process::{Output, Process, Signal, Spec, run};
use crate::skip::skip;

const BASE: &str = include_str!("images/base.sh");
const BASE_TAG: &str = "debian:bookworm-slim";
const CLIENT: &str = "/usr/bin/docker";
const START: Duration = Duration::from_secs(30);
const BUILD: Duration = Duration::from_secs(240);
const LOAD: Duration = Duration::from_secs(60);

/// Images as files, ready to be loaded.
pub struct Images {
    folder: PathBuf,
}

/// Runs a scenario inside a new network, with images, or skips it and says why. `names` are
/// folders of `fleet-units/docker/`; the images are called `user_name/NAME`.
pub fn scenario<F>(names: &[&str], run: impl FnOnce(Network, Images) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let lab = Lab::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.expect("a runtime").block_on(Images::build(&lab, names)) {
        Ok(images) => network::scenario(move |network| run(network, images)),
        Err(why) => skip(&why),
    }
}

impl Images {
    /// `Err`: why that cannot be done here. A Dockerfile that does not build is a failure.
    async fn build(lab: &Lab, names: &[&str]) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("Docker needs root".to_owned());
        }
        for program in ["dockerd", "debootstrap"] {
            if !bins::on_path(program) {
                return Err(format!("{program} is not installed"));
            }
        }
        if !Path::new(CLIENT).is_file() {
            return Err(format!("there is no {CLIENT}"));
        }
        let kept = bins::target_folder().join("images");
        fs::create_dir_all(&kept).map_err(|e| format!("{}: {e}", kept.display()))?;
        // One engine at a time; the file is unlocked when it is closed.
        let lock = File::create(kept.join("lock")).map_err(|e| e.to_string())?;
        lock.lock().map_err(|e| format!("cannot lock {}: {e}", kept.display()))?;

        let engine = Engine::start(lab, &kept).await?;
        engine.base(lab).await?;
        let context = context(lab).await;
        let builds = names.iter().map(|name| engine.build(name, &context));
        futures_util::future::join_all(builds).await;
        let folder = lab.folder("images");
        for name in names {
            engine.save(name, &folder.join(name)).await;
        }
        engine.stop().await;
        Ok(Self { folder })
    }

    /// Starts the machine's Docker, and gives it these images.
    pub async fn load(&self, machine: &Machine<'_>, names: &[&str]) {
        // An overlay does not go on the overlay that the machine's disk is.
        machine.write("/etc/docker/daemon.json", r#"{"data-root": "/dev/shm/docker"}"#);
        machine.systemctl(&["start", "docker"]).await;
        let socket = machine.path("/run/docker.sock");
        for name in names {
            let file = self.folder.join(name);
            let load = client(&socket, &self.folder).args(["load", "--quiet", "--input"]);
            let _ = run(load.args([file]), patience(LOAD)).await.ok();
        }
    }
}

/// What the Dockerfiles copy from, as it lies in a checkout after `cargo build --release`.
async fn context(lab: &Lab) -> PathBuf {
    let (context, binaries) = (lab.folder("context"), lab.folder("context/target/release"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in [".dockerignore", "fleet-units"] {
        let copy = Spec::new("cp", "cp", lab.path()).args([Path::new("-a"), &workspace.join(file)]);
        let _ = run(copy.args([&context]), LOAD).await.ok();
    }
    for (name, binary) in [("register", bins::register()), ("confsync", bins::confsync())] {
        let strip = Spec::new("strip", "strip", lab.path()).args([Path::new("-o")]);
        let _ = run(strip.args([binaries.join(name), binary]), LOAD).await.ok();
    }
    context
}

fn client(socket: &Path, cwd: &Path) -> Spec {
    Spec::new("docker", CLIENT, cwd).args(["--host", &format!("unix://{}", socket.display())])
}

/// A Docker for building alone: no bridge, no rules for packets, nothing of this machine's.
struct Engine {
    process: Process,
    socket: PathBuf,
    folder: PathBuf,
}

impl Engine {
    async fn start(lab: &Lab, kept: &Path) -> Result<Self, String> {
        let folder = lab.folder("engine");
        let socket = folder.join("docker.sock");
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let spec = Spec::new("dockerd", "setpriv", &folder)
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--cgroup", "--pid", "--fork"])
            .args(["--kill-child=TERM", "--mount-proc", "dockerd", "--bridge=none"])
            .args(["--iptables=false", "--ip6tables=false"])
            .args([format!("--host=unix://{}", socket.display())])
            .args([option("data-root", &kept.join("engine"))])
            .args([option("exec-root", &folder.join("run"))])
            .args([option("pidfile", &folder.join("pid"))]);
        let process = lab.spawn(spec);
        let engine = Self { process, socket, folder };
        let up = within(START, "Docker answers", || async {
            if let Some(exit) = engine.process.exit() {
                return Ok(Err(format!("dockerd ended with {exit}")));
            }
            let asked = engine.ask(&["version"]).await;
            check(asked.exit.success(), || asked.stderr()).map(Ok)
        });
        up.await.map_err(|why| {
            let log = engine.process.log();
            format!("no Docker here: {why}: {}", log.lines().last().unwrap_or_default())
        })?;
        Ok(engine)
    }

    async fn ask(&self, words: &[&str]) -> Output {
        run(client(&self.socket, &self.folder).args(words), patience(BUILD)).await
    }

    /// Makes the base image, unless it was made before.
    async fn base(&self, lab: &Lab) -> Result<(), String> {
        if self.ask(&["image", "inspect", BASE_TAG]).await.exit.success() {
            return Ok(());
        }
        let script = self.folder.join("base.sh");
        fs::write(&script, BASE).map_err(|e| e.to_string())?;
        let (root, tar) = (lab.folder("debian"), self.folder.join("base.tar"));
        let spec = Spec::new("debootstrap", "unshare", lab.path())
            .args(["--mount", "sh", "-euc", "sh \"$1\" \"$2\" >\"$3\"", "sh"])
            .args([&script, &root, &tar]);
        let made = run(spec, patience(BUILD)).await;
        if !made.exit.success() {
            let message = made.stderr();
            let last = message.lines().last().unwrap_or_default();
            return Err(format!("debootstrap made no base image: {last}"));
        }
        let import = client(&self.socket, &self.folder).args(["import"]);
        let import = import.args([&tar]).args([BASE_TAG]);
        let _ = run(import, patience(BUILD)).await.ok();
        let _ = fs::remove_file(tar);
        Ok(())
    }

    /// As its Dockerfile says on top, but in our own network: this engine has no bridge.
    async fn build(&self, name: &str, context: &Path) {
        let spec = client(&self.socket, context)
            .args(["build", "--network=host", "--quiet", "--tag", &format!("user_name/{name}")])
            .args(["--file", &format!("fleet-units/docker/{name}/Dockerfile"), "."]);
        let _ = run(spec, patience(BUILD)).await.ok();
    }

    async fn save(&self, name: &str, file: &Path) {
        let spec = client(&self.socket, &self.folder).args(["save", "--output"]);
        let spec = spec.args([file]).args([format!("user_name/{name}")]);
        let _ = run(spec, patience(LOAD)).await.ok();
    }

    async fn stop(self) {
        let _ = self.ask(&["image", "prune", "--force"]).await.ok();
        // `unshare` passes no signal on.
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let dockerd = children.ok().and_then(|list| Pid::from_raw(list.trim().parse().ok()?));
        kill_process(dockerd.expect("dockerd runs"), Signal::TERM).expect("dockerd runs");
        let ended = self.process.ended(patience(START)).await;
        ended.expect("Docker ends when it is asked to");
    }
}
