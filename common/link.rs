//! How both programs are linked in a release: with packed relocations (`DT_RELR`), half a megabyte
//! less of a file that is mostly resident.
//!
//! The C library has to know them, which it does from 2.36 on (Debian 12), and so has the linker:
//! Rust's own, and binutils from 2.38 on. Elsewhere the programs are linked as usual. A release runs
//! where the C library is at least as new as on the machine that built it, with or without them.

use std::env;
use std::process::Command;

/// The first version of the GNU C library that loads packed relocations.
const LOADS_PACKED: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=../common/link.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    let release = is("PROFILE", "release");
    let gnu = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // Another C library may wait on the machine that this is built for.
    let native = env::var("HOST").ok() == env::var("TARGET").ok();
    // Some linkers write them without naming the version, and the C library refuses the program.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let named = flags.contains("-fuse-ld=") || flags.contains("linker=");
    let usual = !named && env::var_os("RUSTC_LINKER").is_none();
    if release && gnu && native && usual && c_library() >= Some(LOADS_PACKED) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library.
#[expect(clippy::disallowed_methods, reason = "a build script has no runtime to bound it with")]
fn c_library() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
