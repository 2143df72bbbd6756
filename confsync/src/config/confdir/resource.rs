//! One resource, validated: its file, interpreted.

mod fields;
mod loading;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::raw::{self, ResourceFile};
use super::{Globals, Note, users};
use crate::backends::KeySelection;
use crate::backends::loss_policy::{LossPolicy, OnEmpty};
use crate::local::read_text_file;
use crate::template::{Engine, Escape};

/// One template: what is rendered, from which keys, to which file, and how that is checked and
/// loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The stem of its file's name, with its folders where stems collide; its acknowledgements have
    /// this name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The template.
    pub src: PathBuf,
    /// The template language, by the ending of `src`.
    pub engine: Engine,
    /// The file to write.
    pub dest: PathBuf,
    /// Permission bits; `None`: those of the file that is there, else 0644.
    pub mode: Option<u32>,
    /// Owner; `None`: that of the file that is there, else ours.
    pub uid: Option<u32>,
    /// Group; likewise.
    pub gid: Option<u32>,
    /// Whether missing folders above `dest` are created.
    pub make_directories: bool,
    /// Whether a `dest` that cannot be renamed over (a bind-mounted file) may be
    /// overwritten in place, which is not atomic.
    pub allow_in_place: bool,
    /// Which keys are read, and which values may pass.
    pub reading: KeySelection,
    /// The nginx that reads the file; confsync checks, reloads and observes it.
    pub nginx: Option<NginxOptions>,
    /// HAProxy reads the file, even where confsync only writes it.
    pub is_for_haproxy: bool,
    /// The HAProxy that reads the file; likewise.
    pub haproxy: Option<HaproxyOptions>,
    /// Run before the swap; `{{.src}}` is the candidate.
    pub check: Option<ShellCommand>,
    /// Run after the swap.
    pub reload: Option<ShellCommand>,
    /// Run after the reload; its success is the evidence.
    pub verify: Option<ShellCommand>,
    /// Run after that until it succeeds: then no request is served by the files of before.
    pub quiesce: Option<ShellCommand>,
    /// Without `quiesce`: how long after applied it counts as quiesced.
    pub quiesce_after: Duration,
    /// The least time between two reloads.
    pub min_reload_interval: Duration,
    /// The longest random delay of a change.
    pub splay: Duration,
    /// How long changes are collected before the first is applied; 0 for at once.
    pub debounce: Duration,
    /// What happens when backends are lost.
    pub policy: LossPolicy,
    /// The fork's `output_format`: the render must parse as this.
    pub output_format: Option<String>,
    /// The syntax that a handlebars template escapes values for.
    pub escape: Escape,
}

impl Resource {
    /// The same resource, of which only the file is written: nothing is checked or loaded.
    fn only_written(self) -> Self {
        let (nginx, haproxy, check, reload, verify) = Default::default();
        Self { nginx, haproxy, check, reload, verify, ..self }
    }

    /// The services whose loss is guarded, in words; `None`: all keys are settings, whose removal
    /// is rendered at once, as confd does it.
    #[must_use]
    pub fn guarded(&self) -> Option<String> {
        let keys = if self.reading.declared {
            "endpoints in its keys".to_owned()
        } else {
            format!("keys below {}", self.reading.services_read()?)
        };
        let LossPolicy { max_loss, on_empty, .. } = self.policy;
        let on_empty = if on_empty == OnEmpty::Keep { "keep" } else { "render" };
        Some(format!(
            "{keys} are backends: if more than max_loss = {max_loss:?} of them vanish at once, those \
             that still accept connections are retained; if all do, on_empty = \"{on_empty}\" decides"
        ))
    }
}

/// The `[nginx]` of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NginxOptions {
    /// The main configuration.
    pub conf: PathBuf,
    /// The pid file; `None`: the one that the main configuration names.
    pub pid_file: Option<PathBuf>,
    /// The program.
    pub binary: PathBuf,
    /// How long a new generation may take to serve.
    pub deadline: Duration,
    /// With more old generations alive than this, the next reload waits.
    pub max_old_generations: usize,
    /// Whether members change without a reload.
    pub live: LiveMembership,
    /// The folder for what that needs.
    pub live_dir: PathBuf,
    /// How requests are spread over members.
    pub balancing: Balancing,
}

/// How requests are spread over the members of an `upstream` that a template names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balancing {
    /// So many failures within `fail_timeout` leave a member out; 0 for never.
    pub max_fails: u32,
    /// And for how long.
    pub fail_timeout: Duration,
    /// Over this time the share of a new member grows; zero for at once.
    pub slow_start: Duration,
    /// How long a request waits while there is no member.
    pub hold: Duration,
}

impl Default for Balancing {
    /// nginx's own, and no wait.
    fn default() -> Self {
        Self {
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            slow_start: Duration::ZERO,
            hold: Duration::ZERO,
        }
    }
}

impl Balancing {
    /// What of it nginx takes on its own `server` lines, where it is not the default.
    #[must_use]
    pub fn server_options(&self) -> String {
        let (default, mut options) = (Self::default(), String::new());
        if self.max_fails != default.max_fails {
            options.push_str(&format!(" max_fails={}", self.max_fails));
        }
        if self.fail_timeout != default.fail_timeout {
            // nginx takes whole seconds here.
            let seconds = self.fail_timeout.as_millis().div_ceil(1000);
            options.push_str(&format!(" fail_timeout={seconds}s"));
        }
        options
    }
}

/// Whether nginx changes its members without a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LiveMembership {
    /// Where it can.
    Auto,
    /// Always; a problem is reported where it cannot.
    Lua,
    /// Never.
    Off,
}

/// The `[haproxy]` of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HaproxyOptions {
    /// Its files and folders, in the order of `-f`.
    pub conf: Vec<PathBuf>,
    /// Its admin socket; `None`: what its configuration says, else that of the master.
    pub socket: Option<PathBuf>,
    /// Whether its servers are changed while it runs.
    pub is_live: bool,
    /// The pid file; `None`: the one that its configuration names.
    pub pid_file: Option<PathBuf>,
    /// The program.
    pub binary: PathBuf,
    /// How long a new worker may take to serve.
    pub deadline: Duration,
    /// With more old workers alive than this, the next reload waits.
    pub max_old_generations: usize,
}

/// A command of the operator, run by the shell as confd does it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShellCommand {
    /// The text.
    pub text: String,
    /// How long it may take.
    pub timeout: Duration,
}

impl Resource {
    /// Whether confsync knows its proxy (nginx, HAProxy), so that it needs no commands.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        self.nginx.is_some() || self.haproxy.is_some()
    }
}

/// Reads one resource file; `None` if there is a mistake in it.
pub(super) fn read(
    confdir: &Path,
    path: &Path,
    name: String,
    globals: &Globals,
) -> (Option<Resource>, Vec<Note>, Vec<String>) {
    let text = read_text_file(path).map_err(|e| e.to_string());
    read_text(confdir, path, name, globals, text)
}

/// The same, of a text that was read already.
pub(super) fn read_text(
    confdir: &Path,
    path: &Path,
    name: String,
    globals: &Globals,
    text: Result<String, String>,
) -> (Option<Resource>, Vec<Note>, Vec<String>) {
    let (file, ignored) = match text.and_then(|text| raw::parse(&text)) {
        Ok(read) => read,
        Err(mistake) => return (None, Vec::new(), vec![mistake]),
    };
    let note = |text| Note { file: path.to_owned(), text, ignored: true };
    let notes = ignored.into_iter().map(note).collect();
    let mut reader = ResourceReader { confdir, path, name, globals, mistakes: Vec::new(), notes };
    let resource = reader.resource(file);
    (resource.filter(|_| reader.mistakes.is_empty()), reader.notes, reader.mistakes)
}

struct ResourceReader<'a> {
    confdir: &'a Path,
    path: &'a Path,
    name: String,
    globals: &'a Globals,
    mistakes: Vec<String>,
    notes: Vec<Note>,
}

impl ResourceReader<'_> {
    /// Notes that something is ignored, which `confsync check` reports as a mistake.
    fn ignored(&mut self, text: impl Into<String>) {
        self.notes.push(Note { file: self.path.to_owned(), text: text.into(), ignored: true });
    }

    /// Notes something that an operator may not expect.
    fn advise(&mut self, text: impl Into<String>) {
        self.notes.push(Note { file: self.path.to_owned(), text: text.into(), ignored: false });
    }

    fn resource(&mut self, file: ResourceFile) -> Option<Resource> {
        self.refuse_other_backends(&file);
        let (is_ours, declared) = (file.has_own_tables(), file.declares_backends());
        let Some(raw) = file.template else {
            self.mistakes.push("there is no [template] table".into());
            return None;
        };
        let (nginx, haproxy) = self.proxies(file.nginx, file.haproxy, &raw);
        let (src, dest) = (self.src(&raw), self.dest(&raw));
        let policy = self.policy(&raw);
        let (mode, uid, gid) = self.access(&raw, is_ours);
        let reading = self.reading(&raw, nginx.is_some() || haproxy.is_some(), declared);
        let [check, reload, verify, quiesce] = self.commands(&raw);
        let [quiesce_after, splay, min_reload_interval, debounce] = self.spans(&raw);
        let output_format = self.output_format(raw.output_format.as_deref());
        let by_name = match (&nginx, &haproxy) {
            (Some(_), _) => Some(Escape::Nginx),
            (None, Some(_)) => Some(Escape::Haproxy),
            (None, None) => None,
        };
        let resource = Resource {
            name: self.name.clone(),
            file: self.path.to_owned(),
            engine: Engine::of(src.as_deref().unwrap_or(Path::new(""))),
            mode,
            uid,
            gid,
            make_directories: raw.make_directories.unwrap_or(false),
            allow_in_place: raw.allow_in_place.unwrap_or(false),
            reading,
            check,
            reload,
            verify,
            quiesce,
            quiesce_after,
            splay,
            min_reload_interval,
            debounce,
            output_format,
            escape: self.escape(raw.escape.as_deref(), by_name, dest.as_deref()),
            policy,
            nginx,
            is_for_haproxy: haproxy.is_some(),
            haproxy,
            src: src.unwrap_or_default(),
            dest: dest.unwrap_or_default(),
        };
        self.note(&resource, raw.dest.as_deref());
        Some(if self.globals.sync_only { resource.only_written() } else { resource })
    }

    /// Mode, owner and group of the file.
    fn access(
        &mut self,
        raw: &raw::RawTemplate,
        is_ours: bool,
    ) -> (Option<u32>, Option<u32>, Option<u32>) {
        let mode = self.mode(raw.mode.as_deref());
        let uid = self.owner(raw.owner.as_deref(), raw.uid, "uid", is_ours, users::uid);
        let gid = self.owner(raw.group.as_deref(), raw.gid, "gid", is_ours, users::gid);
        (mode, uid, gid)
    }

    /// The commands that check, reload, verify, and wait for old requests.
    fn commands(&mut self, raw: &raw::RawTemplate) -> [Option<ShellCommand>; 4] {
        let reload_timeout = raw.reload_cmd_timeout.as_ref();
        [
            self.check(raw),
            self.command(raw.reload_cmd.as_deref(), reload_timeout, "reload_cmd_timeout", 60),
            self.command(raw.verify_cmd.as_deref(), None, "verify_cmd", 30),
            self.command(raw.quiesce_cmd.as_deref(), None, "quiesce_cmd", 30),
        ]
    }

    /// `quiesce_after`, `splay`, `min_reload_interval` and `debounce`.
    fn spans(&mut self, raw: &raw::RawTemplate) -> [Duration; 4] {
        let (second, interval) = (Duration::from_secs(1), self.globals.min_reload_interval);
        [
            self.span(raw.quiesce_after.as_ref(), "quiesce_after", second),
            self.span(raw.splay.as_ref(), "splay", Duration::ZERO),
            self.span(raw.min_reload_interval.as_ref(), "min_reload_interval", interval),
            self.span(raw.debounce.as_ref(), "debounce", Duration::ZERO),
        ]
    }

    /// The proxy that a resource names. Without one, and without commands, it is the nginx that is
    /// our child.
    fn proxies(
        &mut self,
        nginx: Option<raw::RawNginx>,
        haproxy: Option<raw::RawHaproxy>,
        raw: &raw::RawTemplate,
    ) -> (Option<NginxOptions>, Option<HaproxyOptions>) {
        let commands = raw.check_cmd.is_some() || raw.reload_cmd.is_some();
        let implied = self.globals.nginx_is_our_child && !commands && haproxy.is_none();
        let nginx = nginx.or_else(|| implied.then(raw::RawNginx::default));
        let nginx = nginx.map(|nginx| self.nginx(nginx));
        let haproxy = haproxy.map(|haproxy| self.haproxy(haproxy));
        if nginx.is_some() && haproxy.is_some() {
            self.mistakes.push("[nginx] and [haproxy]: one resource has one of them".into());
        }
        (nginx, haproxy)
    }

    /// The fork lets a resource name another store; confsync supports etcd alone.
    fn refuse_other_backends(&mut self, file: &ResourceFile) {
        let Some(backend) = &file.backend else { return };
        let name = backend.get("backend").or_else(|| backend.get("name"));
        let name = name.and_then(toml::Value::as_str).unwrap_or("etcd");
        if !["etcd", "etcdv3"].contains(&name) {
            self.mistakes.push(format!("[backend] is `{name}`: only etcd is read here"));
        }
    }

    /// Advice on what is allowed but perhaps not meant.
    fn note(&mut self, resource: &Resource, dest: Option<&str>) {
        if resource.reading.trees.is_empty() {
            self.advise(
                "`keys` is empty or missing: the template sees no key and nothing is watched",
            );
        }
        if dest.is_some_and(|dest| Path::new(dest).is_relative()) {
            self.advise(format!("dest is relative; from here it is {}", resource.dest.display()));
        }
        let check = resource.check.as_ref().filter(|_| !resource.is_by_name());
        if check.is_some_and(|check| !crate::config::substitute::names_src(&check.text)) {
            self.advise(
                "check_cmd does not look at the candidate ({{.src}}), so it runs after the swap and the file \
                 is put back if it fails; for nginx, an [nginx] table checks before the swap",
            );
        }
        if resource.is_by_name() && (resource.check.is_some() || resource.reload.is_some()) {
            let table = if resource.nginx.is_some() { "nginx" } else { "haproxy" };
            self.advise(format!(
                "with [{table}], check_cmd and reload_cmd are not needed and not run"
            ));
        }
    }
}
