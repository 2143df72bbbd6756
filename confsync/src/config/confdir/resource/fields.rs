//! The fields of a resource file, interpreted. A mistake is noted and reading continues, so that
//! all are reported at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::model::{Prefix, Tree, parse_span};

use super::{
    Balancing, HaproxyOptions, LiveMembership, NginxOptions, ResourceReader, ShellCommand,
};
use crate::backends::loss_policy::{LossPolicy, OnEmpty};
use crate::backends::{KeySelection, Values};
use crate::config::confdir::raw::{self, RawTemplate};
use crate::config::substitute::check_line;
use crate::template::{self, ESCAPES, Escape};

/// Stands for "no limit", since every wait has to be bounded.
const NO_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

impl ResourceReader<'_> {
    fn required<'t>(&mut self, value: Option<&'t str>, name: &str) -> Option<&'t str> {
        let value = value.filter(|v| !v.is_empty());
        if value.is_none() {
            self.mistakes.push(format!("`{name}` is missing in [template]"));
        }
        value
    }

    /// Relative to `templates`, also with a leading `/`, as confd joins it; an absolute path that
    /// exists is used as it is, as confd's documentation has it.
    pub(super) fn src(&mut self, raw: &RawTemplate) -> Option<PathBuf> {
        let src = self.required(raw.src.as_deref(), "src")?;
        let below = self.confdir.join("templates").join(src.trim_start_matches('/'));
        let itself = PathBuf::from(src);
        if !below.is_file() && itself.is_absolute() && itself.is_file() {
            return Some(itself);
        }
        if !below.is_file() {
            let text = format!("src = \"{src}\": there is no template {}", below.display());
            self.mistakes.push(text);
        }
        Some(below)
    }

    /// A relative one is taken from the working directory, as in confd.
    pub(super) fn dest(&mut self, raw: &RawTemplate) -> Option<PathBuf> {
        let written = self.required(raw.dest.as_deref(), "dest")?;
        let dest = std::path::absolute(written);
        let dest =
            dest.map_err(|e| self.mistakes.push(format!("dest = \"{written}\": {e}"))).ok()?;
        if dest.is_dir() || written.ends_with('/') {
            self.mistakes.push(format!("dest = \"{written}\" is a folder; name the file in it"));
        }
        Some(dest)
    }

    /// As Go reads a number whose prefix names its base, but octal without a prefix too: nobody
    /// means decimal.
    pub(super) fn mode(&mut self, mode: Option<&str>) -> Option<u32> {
        let text = mode.filter(|m| !m.is_empty())?;
        let (radix, digits) = match text.split_at_checked(2) {
            Some(("0x" | "0X", digits)) => (16, digits),
            Some(("0b" | "0B", digits)) => (2, digits),
            Some(("0o" | "0O", digits)) => (8, digits),
            _ => (8, text),
        };
        match u32::from_str_radix(digits, radix) {
            Ok(mode) if mode <= 0o7777 && !digits.starts_with('+') => {
                if !text.starts_with('0') {
                    self.advise(format!(
                        "mode = \"{text}\" is read as octal, {mode:04o}; confd reads a mode without a \
                         leading 0 as decimal. Write \"{mode:04o}\""
                    ));
                }
                Some(mode)
            }
            _ => {
                self.mistakes
                    .push(format!("mode = \"{text}\" is not an octal mode such as \"0644\""));
                None
            }
        }
    }

    /// A name goes before a number, as in confd's fork. `-1` is confd's "unset". confd itself
    /// knows no names: there a name that does not exist is no mistake.
    pub(super) fn owner(
        &mut self,
        name: Option<&str>,
        id: Option<i64>,
        what: &str,
        strict: bool,
        find: impl Fn(&str) -> Result<u32, String>,
    ) -> Option<u32> {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            match find(name) {
                Ok(id) => return Some(id),
                Err(mistake) if strict => self.mistakes.push(mistake),
                Err(mistake) => self.ignored(format!("{mistake}; ignored, as confd does it")),
            }
        }
        let id = id.filter(|id| *id != -1)?;
        u32::try_from(id)
            .map_err(|_| self.mistakes.push(format!("{what} = {id} is not a user or group number")))
            .ok()
    }

    pub(super) fn reading(
        &mut self,
        raw: &RawTemplate,
        nginx: bool,
        declared: bool,
    ) -> KeySelection {
        let own = raw.prefix.as_deref().unwrap_or_default().trim_matches('/');
        let (joined, prefix) = match &self.globals.prefix {
            Some(global) => (global.to_string(), global.clone()),
            None => {
                let joined = format!("/{own}");
                // Keys are requested by their cleaned names, but only a cleaned prefix is removed
                // from them, as in confd.
                let prefix = if template::is_clean(&joined) { &*joined } else { "/" };
                let prefix = self.path_in_etcd(prefix, "prefix");
                (joined, prefix.unwrap_or_else(|| self.globals.services.clone()))
            }
        };
        let keys = raw.keys.clone().unwrap_or_default();
        // confd reads nothing without keys; yet a template may need none.
        let trees = keys.iter().filter_map(|key| self.tree(&joined, key)).collect();
        let values = match raw.values.as_deref() {
            None if nginx => Values::Typed,
            None | Some("any") => Values::Any,
            Some("typed") => Values::Typed,
            Some("endpoint") => Values::Endpoint,
            Some(other) => {
                self.mistakes.push(format!(
                    "values = \"{other}\" is none of \"endpoint\", \"typed\", \"any\""
                ));
                Values::Endpoint
            }
        };
        let services = self.globals.services.clone();
        let bookkeeping = self.globals.bookkeeping.clone().into();
        let names = raw.names.unwrap_or(false);
        KeySelection { prefix, services, trees, bookkeeping, values, declared, names }
    }

    fn path_in_etcd(&mut self, text: &str, what: &str) -> Option<Prefix> {
        text.parse()
            .map_err(|error| self.mistakes.push(format!("{what} = \"{text}\": {error}")))
            .ok()
    }

    /// The tree of a key, joined to the prefix and cleaned as confd does it.
    fn tree(&mut self, prefix: &str, key: &str) -> Option<Tree> {
        let cleaned = template::clean(&format!("{prefix}/{key}"));
        let has_dots = |path: &str| path.split('/').any(|part| matches!(part, "." | ".."));
        if has_dots(key) || has_dots(prefix) || key.contains("//") {
            self.ignored(format!("keys = \"{key}\" is read as {cleaned}"));
        }
        if let Some(at) = cleaned.find(['*', '?', '[']) {
            let (before, pattern) = cleaned.split_at(at);
            let sign = pattern.chars().take(1).collect::<String>();
            let above = template::dir(&format!("{before}x"));
            self.ignored(format!(
                "keys = \"{key}\": a `{sign}` is no pattern here but a part of the name; the keys \
                 below {above} are read with keys = \"{above}\""
            ));
        }
        if Tree::from(self.globals.bookkeeping.clone()).covers(&cleaned) {
            self.ignored(format!(
                "keys = \"{key}\": {} has confsync's own keys, which no template sees",
                self.globals.bookkeeping
            ));
        }
        self.path_in_etcd(&cleaned, "keys").map(Tree::from)
    }

    pub(super) fn nginx(&mut self, raw: raw::RawNginx) -> NginxOptions {
        let path = |text: Option<String>, default: &str| {
            PathBuf::from(text.unwrap_or_else(|| default.into()))
        };
        let seconds = Duration::from_secs;
        NginxOptions {
            conf: path(raw.conf, "/etc/nginx/nginx.conf"),
            pid_file: raw.pid_file.map(PathBuf::from),
            binary: path(raw.binary, "nginx"),
            deadline: self.span(raw.deadline.as_ref(), "deadline", Duration::from_secs(10)),
            max_old_generations: self.count(raw.max_old_generations, "max_old_generations", 8),
            live: self.live(raw.live.as_deref()),
            live_dir: path(raw.live_dir, "/run/confsync"),
            balancing: Balancing {
                max_fails: u32::try_from(self.count(raw.max_fails, "max_fails", 1))
                    .unwrap_or(u32::MAX),
                fail_timeout: self.span(raw.fail_timeout.as_ref(), "fail_timeout", seconds(10)),
                slow_start: self.span(raw.slow_start.as_ref(), "slow_start", Duration::ZERO),
                hold: self.span(raw.hold.as_ref(), "hold", Duration::ZERO),
            },
        }
    }

    fn live(&mut self, text: Option<&str>) -> LiveMembership {
        match text {
            None | Some("auto") => LiveMembership::Auto,
            Some("lua") => LiveMembership::Lua,
            Some("off") => LiveMembership::Off,
            Some(other) => {
                let mistake = format!("live = \"{other}\" is none of \"auto\", \"lua\", \"off\"");
                self.mistakes.push(mistake);
                LiveMembership::Off
            }
        }
    }

    pub(super) fn haproxy(&mut self, raw: raw::RawHaproxy) -> HaproxyOptions {
        let one = |value: &toml::Value| value.as_str().filter(|t| !t.is_empty()).map(PathBuf::from);
        let conf = match &raw.conf {
            None => Some(vec![PathBuf::from("/etc/haproxy/haproxy.cfg")]),
            Some(toml::Value::Array(list)) => list.iter().map(one).collect(),
            Some(value) => one(value).map(|path| vec![path]),
        };
        let conf = conf.filter(|conf| !conf.is_empty()).unwrap_or_else(|| {
            self.mistakes.push("conf in [haproxy] is neither a path nor a list of paths".into());
            Vec::new()
        });
        let is_live = match raw.live.as_deref() {
            None | Some("auto") => true,
            Some("off") => false,
            Some(other) => {
                self.mistakes.push(format!("live = \"{other}\" is neither \"auto\" nor \"off\""));
                false
            }
        };
        HaproxyOptions {
            conf,
            socket: raw.socket.map(PathBuf::from),
            is_live,
            pid_file: raw.pid_file.map(PathBuf::from),
            binary: PathBuf::from(raw.binary.unwrap_or_else(|| "haproxy".into())),
            deadline: self.span(raw.deadline.as_ref(), "deadline", Duration::from_secs(30)),
            max_old_generations: self.count(raw.max_old_generations, "max_old_generations", 8),
        }
    }

    fn count(&mut self, value: Option<i64>, what: &str, default: usize) -> usize {
        let Some(value) = value else { return default };
        usize::try_from(value).unwrap_or_else(|_| {
            self.mistakes.push(format!("{what} = {value} is negative"));
            default
        })
    }

    pub(super) fn command(
        &mut self,
        text: Option<&str>,
        timeout: Option<&toml::Value>,
        what: &str,
        default: u64,
    ) -> Option<ShellCommand> {
        let timeout = self.timeout(timeout, what, default);
        let text = text.filter(|t| !t.trim().is_empty())?.to_owned();
        Some(ShellCommand { text, timeout })
    }

    /// `check_cmd`, which is a Go template: a syntax error in it is a mistake.
    pub(super) fn check(&mut self, raw: &RawTemplate) -> Option<ShellCommand> {
        let timeout = raw.check_cmd_timeout.as_ref();
        let check = self.command(raw.check_cmd.as_deref(), timeout, "check_cmd_timeout", 30)?;
        let probe = Path::new("/dest");
        if let Err(error) = check_line(&check.text, probe, probe) {
            self.mistakes
                .push(format!("check_cmd is no template: column {}: {}", error.column, error.what));
        }
        Some(check)
    }

    /// How long a command may take; `0s` is no limit, as in confd's fork, and then a day.
    fn timeout(&mut self, value: Option<&toml::Value>, what: &str, default: u64) -> Duration {
        match self.span(value, what, Duration::from_secs(default)) {
            Duration::ZERO => NO_LIMIT,
            timeout => timeout,
        }
    }

    /// `"30s"`, or a bare number of seconds as the fork has it.
    pub(super) fn span(
        &mut self,
        value: Option<&toml::Value>,
        what: &str,
        default: Duration,
    ) -> Duration {
        let parsed = match value {
            None => return default,
            Some(toml::Value::Integer(secs)) => u64::try_from(*secs)
                .map(Duration::from_secs)
                .map_err(|_| format!("{secs} is negative")),
            Some(toml::Value::String(text)) => parse_span(text).map_err(|e| e.to_string()),
            Some(other) => Err(format!("`{other}` is not a time span; write \"30s\"")),
        };
        parsed.unwrap_or_else(|mistake| {
            self.mistakes.push(format!("{what}: {mistake}"));
            default
        })
    }

    pub(super) fn policy(&mut self, raw: &RawTemplate) -> LossPolicy {
        let default = LossPolicy::default();
        let on_empty = match raw.on_empty.as_deref() {
            None | Some("keep") => OnEmpty::Keep,
            Some("render") => OnEmpty::Render,
            Some(other) => {
                self.mistakes
                    .push(format!("on_empty = \"{other}\" is neither \"keep\" nor \"render\""));
                OnEmpty::Keep
            }
        };
        let max_loss = raw.max_loss.unwrap_or(default.max_loss);
        if !(0.0..=1.0).contains(&max_loss) {
            self.mistakes.push(format!("max_loss = {max_loss} is not a share from 0.0 to 1.0"));
        }
        LossPolicy {
            on_empty,
            max_loss,
            min_backends: self.count(raw.min_backends, "min_backends", default.min_backends),
            grace: self.span(raw.grace.as_ref(), "grace", default.grace),
            probe_when_stale: self.span(
                raw.probe_when_stale.as_ref(),
                "probe_when_stale",
                default.probe_when_stale,
            ),
        }
    }

    pub(super) fn escape(
        &mut self,
        named: Option<&str>,
        proxy: Option<Escape>,
        dest: Option<&Path>,
    ) -> Escape {
        let by_dest = proxy.or_else(|| dest.map(Escape::of)).unwrap_or_default();
        let Some(named) = named else { return by_dest };
        named.parse().unwrap_or_else(|()| {
            let known = ESCAPES.join(", ");
            self.mistakes.push(format!("escape = \"{named}\" is none of {known}"));
            by_dest
        })
    }

    pub(super) fn output_format(&mut self, format: Option<&str>) -> Option<String> {
        let format = format.filter(|f| !f.is_empty())?;
        if !crate::config::output_format::FORMATS.contains(&format) {
            self.mistakes
                .push(format!("output_format = \"{format}\" is none of json, toml, yaml, xml"));
        }
        Some(format.to_owned())
    }
}
