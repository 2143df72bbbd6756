//! Machines with a systemd of their own: throw-away containers on a bridge.
//!
//! A network is a process that holds a network namespace with the bridge and a mount namespace
//! with the machines' disks; each [`Machine`] is a PID namespace. They end with their
//! processes, and these with the thread of the scenario, so nothing of them outlives a
//! test, however it ends. Only the control groups are folders that somebody must remove:
//! the network does, also those of a test that was killed.
//!
//! [`scenario`] runs on a thread inside the network's network: what is started there (etcd, a
//! load) is a host on the bridge. Where the kernel or our rights do not allow all this,
//! the scenario is skipped, loudly ([`crate::skip`]).

use std::fs;
use std::future::Future;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, geteuid, test_kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::eventually::patience;
use crate::lab::Lab;
use crate::process::{Process, Spec};
use crate::skip::skip;

mod machine;

pub use machine::Machine;

const BOOT: &str = include_str!("network/boot.sh");
const HOLD: &str = "set -e; disks=$1
mount --make-rprivate /
mount -t tmpfs -o size=4g,mode=700 tmpfs \"$disks\"
mkdir \"$disks/u\" \"$disks/w\" \"$disks/try\"
mount -t overlay -o \"lowerdir=/,upperdir=$disks/u,workdir=$disks/w\" overlay \"$disks/try\"
umount \"$disks/try\"
unshare --fork --pid --uts --ipc --cgroup true
ip link set lo up
ip link add br0 address 02:00:0a:4d:00:fe type bridge
ip address add 10.77.0.1/24 dev br0
ip link set br0 up
echo held
exec sleep infinity";
const CGROUP: &str = "lab-machine";

/// Runs a scenario inside a new network, or skips it and says why.
pub fn scenario<F>(run: impl FnOnce(Network) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    // Entering a network is for the rest of a thread's life.
    let name = thread::current().name().unwrap_or_default().to_owned();
    let thread =
        thread::Builder::new().name(name).spawn(move || match Network::start(Lab::new()) {
            Ok(network) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(run(network));
            }
            Err(why) => skip(&why),
        });
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

/// A network and the disks of its machines.
pub struct Network {
    holder: Process,
    cgroups: PathBuf,
    disks: PathBuf,
    boot: PathBuf,
    lab: Lab,
}

impl Network {
    /// Holds the namespaces and enters the network. `Err`: why that cannot be done here.
    fn start(lab: Lab) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("containers need root".to_owned());
        }
        let needed =
            ["/lib/systemd/systemd", "/lib/systemd/system/dbus.service", "/usr/sbin/apache2"];
        if let Some(missing) = needed.iter().find(|file| !Path::new(file).exists()) {
            return Err(format!("machines need {missing}"));
        }
        let cgroups = cgroups()?;
        sweep(&cgroups);
        let boot = lab.path().join("boot.sh");
        fs::write(&boot, BOOT).map_err(|e| e.to_string())?;
        let disks = lab.folder("disks");
        let spec = bound_to_us("network", lab.path())
            .args(["unshare", "--net", "--mount", "sh", "-c", HOLD, "sh"])
            .args([&disks]);
        let holder = lab.spawn(spec);
        let begun = Instant::now();
        while !holder.stdout().contains("held") {
            if holder.exit().is_some() || begun.elapsed() > patience(Duration::from_secs(20)) {
                return Err(format!("no namespaces here: {}", holder.log().trim()));
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        let net = format!("/proc/{}/ns/net", holder.pid());
        let net = fs::File::open(&net).map_err(|e| format!("{net}: {e}"))?;
        move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| format!("cannot enter a network namespace: {e}"))?;
        Ok(Self { holder, cgroups, disks, boot, lab })
    }

    /// The scenario's folder and processes.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Our own address on the bridge.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 1)
    }

    /// A machine of this name at 10.77.0.`host`, not booted yet.
    #[must_use]
    pub fn machine(&self, name: &str, host: u8) -> Machine<'_> {
        Machine::new(self, name, Ipv4Addr::new(10, 77, 0, host))
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        self.cgroups.join(format!("{CGROUP}-{}-{name}", std::process::id()))
    }
}

/// A program that is killed when the thread that starts it ends.
fn bound_to_us(name: &str, cwd: &Path) -> Spec {
    Spec::new(name, "setpriv", cwd).args(["--pdeathsig", "KILL"])
}

/// Where control groups of version 2 are made.
fn cgroups() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|e| e.to_string())?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    let mount = mount.ok_or("no control groups of version 2 are mounted")?;
    let probe = mount.join(format!("{CGROUP}-{}-probe", std::process::id()));
    fs::create_dir(&probe).map_err(|e| format!("cannot make {}: {e}", probe.display()))?;
    let _ = fs::remove_dir(&probe);
    Ok(mount)
}

/// Removes what tests left behind that were killed.
fn sweep(cgroups: &Path) {
    for entry in fs::read_dir(cgroups).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(CGROUP)?.split('-').nth(1));
        let owner = owner.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        if owner.is_some_and(|pid| test_kill_process(pid).is_err()) {
            remove_cgroup(&entry.path());
        }
    }
}

/// `rmdir` from the leaves up; one with processes in it stays.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
