//! Owner, mode, links, folders, disks that are full or cannot be written.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::skip::skip;

fn candidate(target: Target, bytes: &str) -> Candidate {
    Candidate { target, bytes: bytes.into() }
}

fn install(target: Target, bytes: &str) -> Result<InstalledFiles, InstallError> {
    let staged = StagedFiles::write(&vec![candidate(target, bytes)].into())?;
    let proof = Proof::nothing_to_ask(&staged);
    staged.accept(proof)?.install()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn mode_and_owner_are_asked_for_or_kept() {
    let dir = tempdir().unwrap();
    let dest = dir.path().join("x");
    install(Target::new(&dest), "1").unwrap().commit().unwrap();
    assert_eq!(mode(&dest), 0o644);
    fs::set_permissions(&dest, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    install(Target::new(&dest), "2").unwrap().commit().unwrap();
    assert_eq!(mode(&dest), 0o640);
    let private = Target { mode: Some(0o4600), ..Target::new(&dest) };
    install(private, "3").unwrap().commit().unwrap();
    assert_eq!(mode(&dest), 0o4600);
    let given = Target { uid: Some(12), gid: Some(34), ..Target::new(&dest) };
    if rustix::process::geteuid().is_root() {
        install(given, "4").unwrap().commit().unwrap();
        install(Target::new(&dest), "5").unwrap().commit().unwrap();
        let meta = fs::metadata(&dest).unwrap();
        assert_eq!((meta.uid(), meta.gid(), mode(&dest)), (12, 34, 0o4600));
    } else {
        let error = install(given, "4").unwrap_err().to_string();
        assert!(error.starts_with("cannot set the owner of"), "{error}");
        assert_eq!(fs::read_to_string(&dest).unwrap(), "3");
    }
    assert_eq!(names(dir.path()), ["x"]);
}

#[test]
fn the_digest_on_disk_is_the_digest_wanted() {
    let dir = tempdir().unwrap();
    let dest = dir.path().join("x");
    let target = Target { mode: Some(0o600), ..Target::new(&dest) };
    let wanted = Digest::of(&[candidate(target.clone(), "1")]);
    let now = || current(std::slice::from_ref(&target)).unwrap();
    assert_eq!(now(), None);
    install(target.clone(), "1").unwrap().commit().unwrap();
    assert_eq!(now(), Some(wanted));
    fs::set_permissions(&dest, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_ne!(now(), Some(wanted));
    // Without a mode asked for, another mode is no difference.
    let any = Target::new(&dest);
    let wanted = Digest::of(&[candidate(any.clone(), "1")]);
    assert_eq!(current(&[any]).unwrap(), Some(wanted));
    assert_ne!(Digest::of(&[candidate(target.clone(), "2")]), wanted);
    assert_eq!(wanted.to_string().len(), 64);
    assert!(current(&[Target::new(dir.path())]).is_err());
}

#[test]
fn links_are_followed_and_stay() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("available")).unwrap();
    fs::write(at("available/x"), "old").unwrap();
    symlink("available/x", at("x")).unwrap();
    symlink(at("x"), at("y")).unwrap();
    install(Target::new(at("y")), "new").unwrap().commit().unwrap();
    assert_eq!(fs::read_to_string(at("available/x")).unwrap(), "new");
    assert!(fs::symlink_metadata(at("y")).unwrap().is_symlink());
    // A link to a file that is not there yet leads to it.
    symlink("available/z", at("z")).unwrap();
    install(Target::new(at("z")), "z").unwrap().rollback().unwrap();
    assert!(!at("available/z").exists());
    assert_eq!(names(&at("available")), ["x"]);
    // Two names of one file are one file.
    let both = vec![candidate(Target::new(at("x")), "1"), candidate(Target::new(at("y")), "2")];
    assert!(matches!(StagedFiles::write(&both.into()), Err(InstallError::Twice(_))));
    assert_eq!(names(&at("available")), ["x"]);
}

#[test]
fn what_is_no_place_for_a_file_is_named() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let error = |dest: PathBuf| install(Target::new(dest), "x").unwrap_err().to_string();
    symlink("nowhere/x", at("dangling")).unwrap();
    assert!(error(at("dangling")).contains("whose folder does not exist"));
    symlink("loop-b", at("loop-a")).unwrap();
    symlink("loop-a", at("loop-b")).unwrap();
    assert!(error(at("loop-a")).contains("leads back to itself"));
    assert!(error(at("loop-a/x")).contains("leads back to itself"));
    assert!(error(dir.path().into()).contains("is a folder, not a file"));
    assert!(error("/dev/null".into()).contains("is a device, not a file"));
    assert!(error("relative/x".into()).contains("not an absolute path"));
    assert!(error("/".into()).contains("not an absolute path"));
    let long = error(at(&"n".repeat(250)));
    assert!(long.contains("leaves no room"), "{long}");
    assert_eq!(names(dir.path()), ["dangling", "loop-a", "loop-b"]);
}

#[test]
fn folders_are_made_only_when_asked_for() {
    let dir = tempdir().unwrap();
    let dest = dir.path().join("a/b/x");
    let error = install(Target::new(&dest), "1").unwrap_err().to_string();
    assert!(error.contains("make_directories = true"), "{error}");
    assert!(names(dir.path()).is_empty());
    assert!(matches!(recover(&[Target::new(&dest)]).unwrap(), Recovered::Nothing));
    assert!(clean_stale(&Target::new(&dest)).unwrap().is_empty());
    let target = Target { make_directories: true, ..Target::new(&dest) };
    install(target, "1").unwrap().commit().unwrap();
    assert_eq!(fs::read_to_string(&dest).unwrap(), "1");
}

#[test]
fn only_stale_stage_files_of_ours_go() {
    let dir = tempdir().unwrap();
    let target = Target::new(dir.path().join("x"));
    for name in ["x", ".x.swp", ".x.confsync-AbCd12", ".y.confsync-AbCd12", ".x.confsync-previous"]
    {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let gone = clean_stale(&target).unwrap();
    assert_eq!(gone, [dir.path().canonicalize().unwrap().join(".x.confsync-AbCd12")]);
    assert_eq!(names(dir.path()), [".x.confsync-previous", ".x.swp", ".y.confsync-AbCd12", "x"]);
}

/// As confd has it: what a check makes of the candidate is what is installed.
#[test]
fn a_candidate_is_closed_and_what_its_check_makes_of_it_is_installed() {
    let dir = tempdir().unwrap();
    let dest = dir.path().join("x");
    let target = Target { mode: Some(0o750), ..Target::new(&dest) };
    let wanted = Wanted::from(vec![candidate(target, "#!/bin/sh\n")]);
    let staged = StagedFiles::write(&wanted).unwrap();
    let path = staged.files()[0].path().to_owned();
    File::open(&path).unwrap().try_lock().unwrap();
    // As `sed -i` does it: another file takes its name.
    let edited = dir.path().join("edited");
    fs::write(&edited, "#!/bin/sh\nexit 0\n").unwrap();
    fs::rename(&edited, &path).unwrap();
    let proof = Proof::passed_by_commands(&staged).unwrap();
    let installed = staged.accept(proof).unwrap().install().unwrap();
    assert!(installed.is_edited());
    installed.commit().unwrap();
    assert_eq!(fs::read_to_string(&dest).unwrap(), "#!/bin/sh\nexit 0\n");
    assert_eq!(fs::metadata(&dest).unwrap().mode() & 0o777, 0o750);
    // Without a check that may edit it, it is as it was written or not installed.
    let staged = StagedFiles::write(&wanted).unwrap();
    fs::write(staged.files()[0].path(), "by somebody else").unwrap();
    let proof = Proof::nothing_to_ask(&staged);
    assert!(matches!(staged.accept(proof), Err(InstallError::Altered(_))));
}

/// A mount for one test; `None` where the system does not let us.
struct Mounted(TempDir);

impl Mounted {
    fn tmpfs(size: &std::ffi::CStr) -> Option<Self> {
        let dir = tempdir().unwrap();
        let made = mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(size));
        if made.is_err() {
            skip("this user may not mount");
        }
        made.ok().map(|()| Self(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let Some(disk) = Mounted::tmpfs(c"size=64k") else { return };
    let dest = disk.0.path().join("x");
    fs::write(&dest, "old").unwrap();
    let error = install(Target::new(&dest), &"n".repeat(100_000)).unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(fs::read_to_string(&dest).unwrap(), "old");
    assert_eq!(names(disk.0.path()), ["x"]);
}

#[test]
fn a_read_only_disk_is_named() {
    let Some(disk) = Mounted::tmpfs(c"size=64k") else { return };
    let dest = disk.0.path().join("x");
    fs::write(&dest, "old").unwrap();
    mount_remount(disk.0.path(), MountFlags::RDONLY, c"").unwrap();
    let error = install(Target::new(&dest), "new").unwrap_err().to_string();
    assert!(error.contains("ReadWritePaths="), "{error}");
}

#[test]
fn a_file_that_is_a_mount_is_written_in_place_only_when_allowed() {
    let Some(disk) = Mounted::tmpfs(c"size=1m") else { return };
    let (real, dest) = (disk.0.path().join("real"), disk.0.path().join("x"));
    fs::write(&real, "old").unwrap();
    fs::write(&dest, "").unwrap();
    mount_bind(&real, &dest).unwrap();
    let error = install(Target::new(&dest), "new").unwrap_err();
    assert!(matches!(error, InstallError::Mounted(_)), "{error}");
    assert!(error.to_string().contains("mount its folder instead"));
    assert_eq!(fs::read_to_string(&dest).unwrap(), "old");
    assert_eq!(names(disk.0.path()), ["real", "x"]);

    let target = Target { allow_in_place: true, ..Target::new(&dest) };
    let set = install(target.clone(), "new").unwrap();
    assert_eq!(set.in_place(), [dest.as_path()]);
    assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    drop(set);
    // As after a crash.
    let found = recover(&[target]).unwrap();
    let Recovered::Undecided(set) = found else { panic!("{found:?}") };
    set.rollback().unwrap();
    assert_eq!(fs::read_to_string(&real).unwrap(), "old");
    assert_eq!(names(disk.0.path()), ["real", "x"]);
    unmount(&dest, UnmountFlags::DETACH).unwrap();
}
