//! `confsync check --host`: what would fail on this machine although the files are valid. Runs
//! nothing, and leaves nothing changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::config::confdir::{Resource, ShellCommand};
use crate::proxy::Warning;
use crate::proxy::nginx::is_included;

/// Keywords of the shell, and commands that run another command.
const SHELL: &[&str] = &[
    ".", ":", "[", "[[", "!", "(", "{", "cd", "echo", "eval", "exec", "exit", "export", "false",
    "for", "if", "kill", "printf", "set", "test", "true", "while",
];

/// What would fail, for an operator, each with what to do.
pub(super) fn problems(resource: &Resource) -> Vec<String> {
    let mut found = dest(resource);
    found.extend(owner(resource));
    if let Some(nginx) = &resource.nginx {
        found.extend(program(nginx.binary.as_os_str(), "[nginx] binary"));
        found.extend(readable(&nginx.conf, "[nginx] conf"));
        found.extend(nginx.pid_file.as_deref().and_then(|file| pid_file(file, "[nginx] pid_file")));
        return found;
    }
    if let Some(haproxy) = &resource.haproxy {
        found.extend(program(haproxy.binary.as_os_str(), "[haproxy] binary"));
        found.extend(haproxy.conf.iter().filter_map(|conf| readable(conf, "[haproxy] conf")));
        found.extend(
            haproxy.pid_file.as_deref().and_then(|file| pid_file(file, "[haproxy] pid_file")),
        );
        return found;
    }
    let commands = [
        ("check_cmd", &resource.check),
        ("reload_cmd", &resource.reload),
        ("verify_cmd", &resource.verify),
        ("quiesce_cmd", &resource.quiesce),
    ];
    for (name, command) in commands {
        found.extend(command.as_ref().and_then(|command| first_word(command, name)));
    }
    found
}

/// What may be meant: nginx reads a map or a certificate elsewhere.
pub(super) fn note(resource: &Resource) -> Option<String> {
    let (conf, dest) = (&resource.nginx.as_ref()?.conf, &resource.target.dest);
    let is_missed = is_included(conf, dest).is_ok_and(|included| !included);
    let text = Warning::NotIncluded { dest: dest.clone(), conf: conf.clone() };
    is_missed.then(|| format!("{text}; if it is one, write it where an include looks"))
}

fn dest(resource: &Resource) -> Vec<String> {
    let dest = &resource.target.dest;
    if dest.is_dir() {
        return vec![format!("dest {} is a folder; name the file in it", dest.display())];
    }
    let mut folder = dest.parent().unwrap_or(Path::new("/"));
    if resource.target.make_directories {
        while !folder.exists() {
            let Some(above) = folder.parent() else { break };
            folder = above;
        }
    }
    let place = folder.display();
    if !folder.is_dir() {
        let text = format!(
            "the folder of dest, {place}, does not exist; create it, or set make_directories = true"
        );
        return vec![text];
    }
    if rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let text = format!(
            "{place} cannot be written by this user, and a new file is made there before dest is replaced"
        );
        return vec![text];
    }
    Vec::new()
}

/// Only root may give a file to another owner.
fn owner(resource: &Resource) -> Option<String> {
    let own = rustix::process::geteuid();
    let other = resource.target.uid.is_some_and(|uid| uid != own.as_raw());
    (other && !own.is_root()).then(|| {
        format!(
            "dest must belong to user {}, and only root can change an owner; run as root, or omit owner",
            resource.target.uid.unwrap_or_default()
        )
    })
}

fn readable(file: &Path, what: &str) -> Option<String> {
    let error = fs::File::open(file).err()?;
    Some(format!("{what}: cannot read {}: {error}", file.display()))
}

fn pid_file(file: &Path, what: &str) -> Option<String> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Some(format!("{what}: the folder {} does not exist", folder.display()));
    }
    let text = fs::read_to_string(file).ok()?;
    let number = text.trim().parse().ok().filter(|number| *number > 0);
    let Some(master) = number.and_then(Pid::from_raw) else {
        let place = file.display();
        return Some(format!("{what}: {place} holds no process number; is the proxy running?"));
    };
    // Asks only whether a signal would be allowed.
    let is_foreign = test_kill_process(master) == Err(Errno::PERM);
    is_foreign.then(|| {
        format!(
            "{what}: this user may not signal process {}, so nothing can be reloaded; run as root, \
             or as the user of that process",
            master.as_raw_nonzero()
        )
    })
}

/// The program of a command, if the command begins with one.
fn first_word(command: &ShellCommand, what: &str) -> Option<String> {
    let mut words = command.text.split_whitespace();
    // Variable assignments may precede the program.
    let word = words.find(|word| !word.contains('=') || word.starts_with('/'))?;
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/+".contains(c));
    if !is_plain || SHELL.contains(&word) {
        return None;
    }
    program(OsStr::new(word), what)
}

fn program(name: &OsStr, what: &str) -> Option<String> {
    let path = Path::new(name);
    if path.components().count() > 1 {
        return (!is_program(path)).then(|| {
            format!("{what}: {} is not a program that this user can run", path.display())
        });
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|folder| is_program(&folder.join(name)));
    (!found).then(|| {
        let name = PathBuf::from(name);
        format!(
            "{what}: there is no program `{}` in PATH; install it, or give its path",
            name.display()
        )
    })
}

fn is_program(path: &Path) -> bool {
    let mode = fs::metadata(path).map(|meta| (meta.is_file(), meta.permissions().mode()));
    mode.is_ok_and(|(file, mode)| file && mode & 0o111 != 0)
        && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn command(text: &str) -> ShellCommand {
        ShellCommand { text: text.to_owned(), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn the_program_of_a_command_is_looked_for_and_the_shell_s_own_words_are_not() {
        for good in ["sh -c x", "A=1 sh", "test -f x && no-such-program", "/bin/sh", "$X y", ""] {
            assert_eq!(first_word(&command(good), "reload_cmd"), None, "{good}");
        }
        let text = first_word(&command("no-such-program -x"), "reload_cmd").unwrap();
        assert!(text.contains("reload_cmd: there is no program `no-such-program`"), "{text}");
        assert!(first_word(&command("/no/such"), "check_cmd").is_some());
    }

    #[test]
    fn a_pid_file_may_be_missing_and_must_hold_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nginx.pid");
        let pid_file = |file: &Path| pid_file(file, "pid_file");
        assert_eq!(pid_file(&file), None);
        let own = format!("{}\n", std::process::id());
        for (text, good) in
            [(own.as_str(), true), ("", false), ("x", false), ("0", false), ("-1", false)]
        {
            fs::write(&file, text).unwrap();
            assert_eq!(pid_file(&file).is_none(), good, "{text:?}");
        }
        assert!(pid_file(&folder.path().join("none/nginx.pid")).is_some());
    }
}
