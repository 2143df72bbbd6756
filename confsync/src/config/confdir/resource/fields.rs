//! The fields of a resource file, each given its meaning. A mistake is noted and reading goes
//! on, so that all are told at once.

use std::path::PathBuf;
use std::time::Duration;

use common::model::{Prefix, Tree, parse_span};

use super::{Command, Nginx, Reader};
use crate::backends::loss_policy::{LossPolicy, OnEmpty};
use crate::backends::{KeySelection, Values};
use crate::config::confdir::raw::{self, Template};

impl Reader<'_> {
    fn required<'t>(&mut self, value: Option<&'t str>, name: &str) -> Option<&'t str> {
        let value = value.filter(|v| !v.is_empty());
        if value.is_none() {
            self.mistakes.push(format!("`{name}` is missing in [template]"));
        }
        value
    }

    /// An absolute `src` stands for itself, as in confd's documentation.
    pub(super) fn src(&mut self, raw: &Template) -> Option<PathBuf> {
        let src = self.required(raw.src.as_deref(), "src")?;
        let path = self.confdir.join("templates").join(src);
        if !path.is_file() {
            self.mistakes.push(format!("src = \"{src}\": there is no template {}", path.display()));
        }
        Some(path)
    }

    /// A relative one is taken from the working directory, as in confd.
    pub(super) fn dest(&mut self, raw: &Template) -> Option<PathBuf> {
        let told = self.required(raw.dest.as_deref(), "dest")?;
        let dest = std::path::absolute(told);
        let dest = dest.map_err(|e| self.mistakes.push(format!("dest = \"{told}\": {e}"))).ok()?;
        if dest.is_dir() || told.ends_with('/') {
            self.mistakes.push(format!("dest = \"{told}\" is a folder; name the file in it"));
        }
        Some(dest)
    }

    /// Octal, with or without the leading zero: nobody means decimal.
    pub(super) fn mode(&mut self, mode: Option<&str>) -> Option<u32> {
        let text = mode.filter(|m| !m.is_empty())?;
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o7777 && !digits.starts_with('+') => Some(mode),
            _ => {
                self.mistakes
                    .push(format!("mode = \"{text}\" is not an octal mode such as \"0644\""));
                None
            }
        }
    }

    /// A name goes before a number, as in confd's fork. `-1` is confd's "unset".
    pub(super) fn owner(
        &mut self,
        name: Option<&str>,
        id: Option<i64>,
        what: &str,
        find: impl Fn(&str) -> Result<u32, String>,
    ) -> Option<u32> {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            return find(name).map_err(|mistake| self.mistakes.push(mistake)).ok();
        }
        let id = id.filter(|id| *id != -1)?;
        u32::try_from(id)
            .map_err(|_| self.mistakes.push(format!("{what} = {id} is not a user or group number")))
            .ok()
    }

    pub(super) fn reading(&mut self, raw: &Template, nginx: bool) -> KeySelection {
        let own = raw.prefix.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let prefix = match &self.globals.prefix {
            Some(global) => global.clone(),
            None => {
                self.path_in_etcd(own, "prefix").unwrap_or_else(|| self.globals.services.clone())
            }
        };
        let keys = raw.keys.clone().unwrap_or_default();
        // confd reads nothing without keys; a template may still need none.
        let trees = keys.iter().filter_map(|key| self.tree(&prefix, key)).collect();
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
        KeySelection { prefix, services, trees, values, names: raw.names.unwrap_or(false) }
    }

    fn path_in_etcd(&mut self, text: &str, what: &str) -> Option<Prefix> {
        let collapsed = text.split('/').filter(|s| !s.is_empty()).collect::<Vec<_>>().join("/");
        format!("/{collapsed}")
            .parse()
            .map_err(|error| self.mistakes.push(format!("{what} = \"{text}\": {error}")))
            .ok()
    }

    fn tree(&mut self, prefix: &Prefix, key: &str) -> Option<Tree> {
        let joined = format!("{prefix}/{key}");
        self.path_in_etcd(&joined, "keys").map(Tree::from)
    }

    pub(super) fn nginx(&mut self, raw: raw::Nginx) -> Nginx {
        let path = |text: Option<String>, default: &str| {
            PathBuf::from(text.unwrap_or_else(|| default.into()))
        };
        Nginx {
            conf: path(raw.conf, "/etc/nginx/nginx.conf"),
            pid_file: raw.pid_file.map(PathBuf::from),
            binary: path(raw.binary, "nginx"),
            deadline: self.span(raw.deadline.as_ref(), "deadline", Duration::from_secs(10)),
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
    ) -> Option<Command> {
        let timeout = self.span(timeout, what, Duration::from_secs(default));
        let text = text.filter(|t| !t.trim().is_empty())?.to_owned();
        Some(Command { text, timeout })
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

    pub(super) fn policy(&mut self, raw: &Template) -> LossPolicy {
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
        }
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
