//! Where the binaries on trial come from.
//!
//! Cargo builds no other package's binaries for a test and does not say where they
//! are, so they are built here, once per test process, in the profile that the test
//! itself was built in; when all is fresh that takes a fraction of a second.
//! `REGISTER_BIN`, `CONFSYNC_BIN` and `TESTBACKEND_BIN` name others: those of a package
//! on trial, or those that `make test` has built already.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Process, Spec};

const LONGEST_BUILD: Duration = Duration::from_secs(1200);

/// `register`.
#[must_use]
pub fn register() -> PathBuf {
    find("register")
}

/// `confsync`.
#[must_use]
pub fn confsync() -> PathBuf {
    find("confsync")
}

/// The backend as a process of its own, which dies at once on SIGTERM.
#[must_use]
pub fn testbackend() -> PathBuf {
    find("testbackend")
}

/// Whether a program can be found.
#[must_use]
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn find(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_uppercase());
    let path = match std::env::var_os(&variable) {
        Some(given) => PathBuf::from(given),
        None => built_folder().join(name),
    };
    assert!(path.is_file(), "no binary at {} (see {variable})", path.display());
    path
}

/// `target/<profile>`: what was built, and what tests keep from one run to the next.
#[must_use]
pub fn target_folder() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    // target/<profile>/deps/scenarios-… or target/<profile>/demo
    let mut folders = own.ancestors().skip(1);
    let folder = folders.find(|folder| folder.file_name().is_some_and(|name| name != "deps"));
    folder.expect("a target folder").to_owned()
}

/// The same, with the daemons freshly built in it.
fn built_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = target_folder();
        build(&folder);
        folder
    })
}

fn build(folder: &Path) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Outside cargo (a demo that was copied elsewhere) what lies beside us must do.
    if !workspace.join("Cargo.toml").is_file() {
        return;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut spec = Spec::new("cargo build", cargo, workspace).args(["build", "--bins", "--quiet"]);
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        // The variables that describe the test's own package would make it build everything anew.
        let about_us = name.starts_with("CARGO_PKG") || name.starts_with("CARGO_MANIFEST");
        if !about_us {
            spec = spec.env(&name, value);
        }
    }
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => spec = spec.args(["--profile", profile]),
    }
    let process = Process::spawn(spec);
    let exit = process.ended_now(LONGEST_BUILD);
    assert!(exit.is_some_and(|exit| exit.success()), "cargo build failed:\n{}", process.log());
}
