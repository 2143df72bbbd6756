//! The system that this process runs on, as templates may query it. Look-ups have a deadline.

mod unanswered;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use common::dns::{Resolver, ServiceRecord};

use self::unanswered::{NO_ANSWER, UnansweredLookups};
use crate::template::{IncludeError, IncludedFile, System};

/// How long one look-up of a name may take.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// The largest file worth including, in bytes.
const MAX_INCLUDED: u64 = 4 << 20;

/// Reads a file of a confdir. A pipe or a device in its place would be read without an end, or never
/// answer.
///
/// # Errors
/// When it cannot be read, or is no file.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is a pipe, socket or device"));
    }
    std::fs::read(path)
}

/// [`read_file`] of a text.
///
/// # Errors
/// As there, and when it is not UTF-8.
pub(crate) fn read_text_file(path: &Path) -> io::Result<String> {
    String::from_utf8(read_file(path)?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// All templates share the system's resolver.
static UNANSWERED: LazyLock<Mutex<UnansweredLookups>> = LazyLock::new(Mutex::default);

/// A failure that took this long is silence: a server that is there says at once that it cannot.
const SILENCE: Duration = Duration::from_secs(1);

/// Looks up a name, unless the resolver has just been silent.
fn look_up<T>(name: &str, ask: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let lookups = || UNANSWERED.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    if let Some(why) = lookups().refusal(name, begun) {
        return Err(why);
    }
    let found = ask();
    match &found {
        Err(_) if begun.elapsed() >= SILENCE => lookups().note_silence(name, Instant::now()),
        _ => lookups().note_answer(name),
    }
    found
}

fn addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    let (answer, asked) = mpsc::sync_channel(1);
    let host = name.to_owned();
    let worker = move || {
        let found = (host.as_str(), 0).to_socket_addrs();
        // The receiver was dropped if the deadline has passed.
        let _ = answer.send(found.map(|all| all.map(|address| address.ip()).collect()));
    };
    std::thread::Builder::new().spawn(worker).map_err(|error| error.to_string())?;
    let answer: std::io::Result<Vec<IpAddr>> =
        asked.recv_timeout(LOOKUP_DEADLINE).map_err(|_| NO_ANSWER.to_owned())?;
    match answer {
        Err(error) if error.to_string().contains("Temporary failure") => Err(error.to_string()),
        found => Ok(found.unwrap_or_default()),
    }
}

fn services(name: &str) -> Result<Vec<ServiceRecord>, String> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let resolver = Resolver::of_this_machine();
        runtime
            .block_on(resolver.services(name, LOOKUP_DEADLINE))
            .map_err(|error| error.to_string())
    };
    // The caller's thread may belong to a runtime, inside of which no other can run.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(|error| error.to_string())?;
        thread.join().unwrap_or_else(|_| Err("the resolver panicked".to_owned()))
    })
}

/// The system that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalSystem;

impl System for LocalSystem {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        // The standard library may panic for these names.
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var_os(name).map(OsStringExt::into_vec)
    }

    fn hostname(&self) -> String {
        common::runtime::hostname()
    }

    fn file_exists(&self, path: &Path) -> bool {
        !std::fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        look_up(name, || addresses(name))
    }

    fn services(&self, name: &str) -> Result<Vec<ServiceRecord>, String> {
        look_up(name, || services(name))
    }

    fn interface(&self, name: &str) -> Vec<IpAddr> {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        all.into_iter().filter(|one| one.name == name).map(|one| one.ip()).collect()
    }

    fn include(&self, folder: &Path, path: &Path) -> Result<IncludedFile, IncludeError> {
        let root = folder.canonicalize()?;
        let path = root.join(path).canonicalize()?;
        if !path.starts_with(&root) || path == root {
            return Err(IncludeError::Outside);
        }
        let size = std::fs::metadata(&path)?.len();
        if size > MAX_INCLUDED {
            return Err(IncludeError::TooLarge(size));
        }
        let text = std::fs::read(&path)?;
        Ok(IncludedFile { path, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_inside_a_runtime_may_ask() {
        assert_eq!(services("a..b"), Err("not a DNS name".to_owned()));
    }
}
