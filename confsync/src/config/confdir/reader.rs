//! How one resource file is read and interpreted. A mistake is noted and reading goes on, so that all
//! are reported at once.

mod fields;
mod loading;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::raw::{self, ResourceFile};
use super::resource::{HaproxyOptions, NginxOptions, Resource, ShellCommand};
use super::{Globals, Note, users};
use crate::install::Target;
use crate::local::read_text_file;
use crate::template::{Engine, Escape};

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
        let target = self.target(dest.clone().unwrap_or_default(), &raw, is_ours);
        let reading = self.reading(&raw, nginx.is_some() || haproxy.is_some(), declared);
        let [check, reload, verify, quiesce] = self.commands(&raw);
        let [quiesce_after, splay, min_reload_interval, debounce] = self.spans(&raw);
        let by_name = match (&nginx, &haproxy) {
            (Some(_), _) => Some(Escape::Nginx),
            (None, Some(_)) => Some(Escape::Haproxy),
            (None, None) => None,
        };
        let resource = Resource {
            name: self.name.clone(),
            file: self.path.to_owned(),
            engine: Engine::of(src.as_deref().unwrap_or(Path::new(""))),
            target,
            reading,
            check,
            reload,
            verify,
            quiesce,
            quiesce_after,
            splay,
            min_reload_interval,
            debounce,
            output_format: self.output_format(raw.output_format.as_deref()),
            escape: self.escape(raw.escape.as_deref(), by_name, dest.as_deref()),
            policy,
            nginx,
            is_for_haproxy: haproxy.is_some(),
            haproxy,
            src: src.unwrap_or_default(),
        };
        self.note(&resource, raw.dest.as_deref());
        Some(if self.globals.sync_only { resource.only_written() } else { resource })
    }

    /// The file to write, with its mode, owner and group.
    fn target(&mut self, dest: PathBuf, raw: &raw::RawTemplate, is_ours: bool) -> Target {
        Target {
            dest,
            mode: self.mode(raw.mode.as_deref()),
            uid: self.owner(raw.owner.as_deref(), raw.uid, "uid", is_ours, users::uid),
            gid: self.owner(raw.group.as_deref(), raw.gid, "gid", is_ours, users::gid),
            make_directories: raw.make_directories.unwrap_or(false),
            allow_in_place: raw.allow_in_place.unwrap_or(false),
        }
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
            self.mistakes.push(
                "[nginx] and [haproxy] cannot be in one resource; keep one of the two".into(),
            );
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
            self.advise(format!(
                "dest is relative; from here it is {}",
                resource.target.dest.display()
            ));
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
