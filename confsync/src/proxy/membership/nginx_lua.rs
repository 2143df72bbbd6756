//! The driver of an nginx with the Lua module: which upstreams it can change, how they are written,
//! and where their tables are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file_writer::{FileWriter, MemberLines, kept_directives};
use super::folder::{TableFolder, WorkerUser};
use super::layout::{CAPACITY, MAX_CAPACITY};
use super::nginx_text::{BalancerSettings, Balancing};
use super::upstreams::{LiveUpstreams, MembershipError};
use crate::install::Wanted;
use crate::proxy::nginx::TlsServer;
use crate::proxy::pools::{
    Arrangement, DepartedMember, Ejection, Pools, PublishError, ReadBack, RenderedFile,
};
use crate::template::{NamedService, Piece, RenderedText, UpstreamMember};

/// The balancer; the same text is in the package.
const LUA: &str = include_str!("../../../lua/membership.lua");
/// Where the package installs it.
const PACKAGED: &str = "/usr/share/confsync/lua/membership.lua";
/// How many workers can count at a time, those of old generations included.
const COLUMNS: u32 = 256;
/// With more backends than this, changes need a reload, so that slots stay free for those that
/// drain.
const MOST: usize = MAX_CAPACITY as usize / 2;

/// nginx with the Lua module.
#[derive(Debug)]
pub struct NginxLua {
    upstreams: LiveUpstreams,
    /// Locked for our lifetime: the folder has one writer.
    _lock: File,
    lua: PathBuf,
    settings: BalancerSettings,
    /// Upstreams that still need a reload for each change, and why.
    left_out: BTreeMap<String, String>,
    /// Whether nginx has confirmed a table since our start.
    pub is_proven: bool,
}

impl NginxLua {
    /// For one nginx with its tables in `folder`, whose workers run as `user`, or as we do.
    ///
    /// # Errors
    /// When the folder or the balancer's file cannot be made.
    pub fn open(folder: &Path, user: Option<WorkerUser>) -> io::Result<Self> {
        let tables = TableFolder::open(folder, user, CAPACITY, COLUMNS)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|_| {
            io::Error::other("another confsync uses it; give each nginx a `live_dir` of its own")
        })?;
        Ok(Self {
            _lock: lock,
            lua: lua_file(folder)?,
            upstreams: LiveUpstreams::new(tables),
            settings: BalancerSettings::default(),
            left_out: BTreeMap::new(),
            is_proven: false,
        })
    }

    /// Requests are spread in this way.
    #[must_use]
    pub fn with_balancing(mut self, balancing: Balancing) -> Self {
        self.settings.balancing = balancing;
        self
    }

    /// How nginx's servers are configured for TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsServer) -> Self {
        self.settings.tls = tls;
        self
    }

    /// Upstreams that still need a reload for each change, and why.
    pub fn left_out(&self) -> &BTreeMap<String, String> {
        &self.left_out
    }

    /// Brings rendered files into the form that the balancer needs.
    pub fn arrange(&mut self, files: &[RenderedFile]) -> Arrangement {
        let left_out = self.find_left_out(files);
        for (name, why) in left_out.iter().filter(|(name, _)| !self.left_out.contains_key(*name)) {
            tracing::warn!(upstream = name, "changes of this upstream need a reload: {why}");
        }
        self.left_out = left_out;
        let (mut pools, mut members) = (Pools::new(), Vec::new());
        for (service, _) in files.iter().flat_map(|file| upstreams_of(&file.text)) {
            if !self.left_out.contains_key(service.upstream()) {
                pools.insert(service.upstream().to_owned(), service.members.clone());
                members.extend(service.members.fingerprint().bytes());
                members.extend(service.server_options.bytes());
            }
        }
        let writer = FileWriter {
            lua: self.lua.clone(),
            folder: self.folder().to_owned(),
            settings: self.settings,
            live: pools.keys().cloned().collect(),
        };
        let structure = writer.write(files, MemberLines::LeftOut);
        let wanted = match pools.is_empty() {
            true => structure.into(),
            false => {
                let files = files.to_vec();
                Wanted::in_parts(&structure, &members, move || {
                    writer.write(&files, MemberLines::Written)
                })
            }
        };
        Arrangement { wanted, pools }
    }

    fn find_left_out(&self, files: &[RenderedFile]) -> BTreeMap<String, String> {
        let mut left_out = BTreeMap::new();
        let folder = self.upstreams.folder().path().as_os_str().len();
        for (service, more) in files.iter().flat_map(|file| upstreams_of(&file.text)) {
            let name = service.upstream();
            let why = match kept_directives(more) {
                Err(why) => Some(why),
                Ok(_) if service.members.len() > MOST => {
                    Some(format!("it has more than {MOST} backends"))
                }
                // The name of a socket has 107 bytes at most.
                Ok(_) if name == "state" || name == ".empty" => {
                    Some("its name is taken by a socket".to_owned())
                }
                Ok(_) if folder + name.len() > 100 => Some("its name is too long".to_owned()),
                Ok(_) => service.members.first_named().map(named),
            };
            left_out.extend(why.map(|why| (name.to_owned(), why)));
        }
        left_out
    }

    /// Makes these the members of the upstreams.
    ///
    /// # Errors
    /// When a table cannot be written.
    pub async fn publish(&mut self, pools: &Pools) -> Result<(), PublishError> {
        for (name, members) in pools {
            self.upstreams.set(name, members).await?;
        }
        Ok(())
    }

    /// Has a worker confirm the members.
    ///
    /// # Errors
    /// When none answers, or one uses something else.
    pub async fn confirm(&mut self) -> Result<(), PublishError> {
        self.upstreams.confirm().await?;
        self.is_proven = true;
        Ok(())
    }

    /// Other workers than those that have confirmed may run, or come.
    pub fn confirm_again(&mut self) {
        self.upstreams.confirm_again();
    }

    /// nginx has loaded its files.
    pub fn note_loaded(&mut self) {
        self.upstreams.note_loaded();
    }

    /// Whether the tables and a worker that was asked say what was published last.
    pub async fn read_back(&mut self) -> ReadBack {
        self.upstreams.read_back().await
    }

    /// Those that left and were not seen without requests since.
    pub fn departed(&self) -> Vec<DepartedMember> {
        self.upstreams.departed()
    }

    /// The requests in flight to a departed member, if known.
    pub fn in_flight(&self, departed: &DepartedMember) -> Option<u64> {
        self.upstreams.in_flight(departed).filter(|_| self.settings.counted)
    }

    /// The workers that did not count their requests have ended.
    pub fn count_again(&self) {
        if let Err(error) = self.upstreams.folder().workers.set_exact() {
            tracing::warn!(%error, "requests in flight stay uncounted until the next reload");
        }
    }

    /// Where the tables are.
    pub fn folder(&self) -> &Path {
        self.upstreams.folder().path()
    }

    /// When failures leave a backend out.
    pub fn ejection(&self) -> Ejection {
        let Balancing { max_fails, fail_timeout, .. } = self.settings.balancing;
        Ejection { max_fails, fail_timeout }
    }

    /// nginx is not running: removes sockets that a killed one left, which would prevent its start.
    pub fn remove_stale_sockets(&self) {
        let folder = self.upstreams.folder().path();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            if !is_socket || std::os::unix::net::UnixStream::connect(&path).is_ok() {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(
                    socket = %path.display(), "removed a socket that a killed nginx left"
                ),
                Err(error) => tracing::warn!(
                    socket = %path.display(), %error,
                    "cannot remove a socket that a killed nginx left; nginx will not start before that"
                ),
            }
        }
    }
}

impl From<MembershipError> for PublishError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::OtherTable { .. } | MembershipError::NewTable { .. } => {
                Self::NeedsReload(error.to_string())
            }
            _ => Self::Retry(error.to_string()),
        }
    }
}

/// The upstreams of a text, with the operator's directives in them.
fn upstreams_of(text: &RenderedText) -> impl Iterator<Item = (&NamedService, &str)> {
    text.pieces.iter().filter_map(|piece| match piece {
        Piece::Upstream { service, more } => Some((service, more.as_str())),
        Piece::Text(_) | Piece::Servers(_) => None,
    })
}

fn named(member: &UpstreamMember) -> String {
    format!("{} is a name, not an address", member.endpoint)
}

/// The balancer's file: the packaged one if it has this version, else one of our own.
fn lua_file(folder: &Path) -> io::Result<PathBuf> {
    if fs::read(PACKAGED).is_ok_and(|text| text == LUA.as_bytes()) {
        return Ok(PACKAGED.into());
    }
    let (path, staged) = (folder.join("membership.lua"), folder.join(".membership.lua.new"));
    if fs::read(&path).is_ok_and(|text| text == LUA.as_bytes()) {
        return Ok(path);
    }
    fs::write(&staged, LUA)?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o644))?;
    fs::rename(&staged, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::install::Target;
    use crate::proxy::nginx::conf;

    fn file(endpoints: &[&str], more: &str) -> RenderedFile {
        let member = |text: &&str| {
            let member = UpstreamMember { endpoint: text.parse().unwrap(), weight: 1 };
            (Arc::from(*text), member)
        };
        let members = endpoints.iter().map(member).collect();
        let service = NamedService { path: "app".into(), members, server_options: String::new() };
        let pieces = vec![
            Piece::Text(b"# begin\n".to_vec()),
            Piece::Upstream { service, more: more.into() },
            Piece::Text(b"server { listen 1; }\n".to_vec()),
        ];
        let text = RenderedText { pieces };
        RenderedFile { target: Target::new("/x"), text, is_for_haproxy: false }
    }

    fn driver() -> (tempfile::TempDir, NginxLua) {
        let folder = tempfile::tempdir().unwrap();
        let driver = NginxLua::open(&folder.path().join("live"), None).unwrap();
        (folder, driver)
    }

    #[test]
    fn members_alone_are_no_change_of_structure() {
        let (_folder, mut driver) = driver();
        let one = driver.arrange(&[file(&["10.0.0.1:80"], "keepalive 8; random two;")]);
        let two = driver.arrange(&[file(&["10.0.0.1:80", "10.0.0.2:80"], "keepalive 8;")]);
        let other = driver.arrange(&[file(&["10.0.0.1:80"], "keepalive 9;")]);
        assert_eq!(one.wanted.structure(), two.wanted.structure());
        assert_ne!(one.wanted.digest(), two.wanted.digest());
        assert_ne!(one.wanted.structure(), other.wanted.structure());
        assert_eq!(two.pools["app"].len(), 2);
        let text = String::from_utf8(one.wanted.files()[0].bytes.clone()).unwrap();
        assert!(text.contains("balancer_by_lua_block"), "{text}");
        assert!(text.contains("    server 10.0.0.1:80;\n"), "{text}");
        assert!(!text.contains("random two"), "{text}");
        assert!(conf::parse(text.as_bytes()).is_ok(), "{text}");
        assert_eq!(text.matches("log_by_lua_block").count(), 1, "{text}");
    }

    #[test]
    fn what_the_balancer_cannot_do_stays_as_it_is_and_needs_a_reload() {
        let (_folder, mut driver) = driver();
        for (endpoint, more) in [
            ("10.0.0.1:80", "ip_hash;"),
            ("10.0.0.1:80", "hash $uri consistent; keepalive 8;"),
            ("10.0.0.1:80", "server 10.0.0.9:80 backup;"),
            ("a.example:80", "keepalive 8;"),
        ] {
            let arranged = driver.arrange(&[file(&[endpoint], more)]);
            assert!(arranged.pools.is_empty());
            assert_eq!(arranged.wanted.digest(), arranged.wanted.structure());
            let text = String::from_utf8(arranged.wanted.files()[0].bytes.clone()).unwrap();
            assert!(!text.contains("lua") && text.contains(more.split(';').next().unwrap()));
        }
    }

    #[test]
    fn a_socket_without_a_listener_is_removed_and_one_with_a_listener_is_not() {
        let (_folder, driver) = driver();
        let folder = driver.upstreams.folder().path().to_owned();
        let (stale, used) = (folder.join("a.sock"), folder.join("b.sock"));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let _listener = std::os::unix::net::UnixListener::bind(&used).unwrap();
        driver.remove_stale_sockets();
        assert!(!stale.exists() && used.exists());
    }
}
