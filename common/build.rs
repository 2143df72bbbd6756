//! `VERSION` for `--version`: a release names its commit. Without git, or outside a checkout
//! of our own, the version stands alone; so it does in a debug build, which every commit
//! would make anew.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = release.then(commit).flatten().unwrap_or_default();
    let text = if commit.is_empty() { version } else { format!("{version} ({commit})") };
    println!("cargo:rustc-env=VERSION={text}");
    println!("cargo:rustc-env=COMMIT={commit}");
}

/// The commit that is checked out, if this workspace is the checkout.
fn commit() -> Option<String> {
    // Empty at the top of a checkout; we may lie in somebody else's.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // A line is added to it whenever HEAD moves.
    let log = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])?;
    println!("cargo:rerun-if-changed={log}");
    git(&["rev-parse", "--short=10", "HEAD"]).filter(|commit| !commit.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "a build script has no runtime to bound it with")]
fn git(arguments: &[&str]) -> Option<String> {
    let workspace = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).join("..");
    let output = Command::new("git").current_dir(workspace).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
