//! The fields about the file, its keys and its losses.

use std::path::{Path, PathBuf};

use common::model::{Prefix, Tree};

use super::ResourceReader;
use crate::backends::loss_policy::{LossPolicy, OnEmpty};
use crate::backends::{KeySelection, Values};
use crate::config::confdir::raw::RawTemplate;
use crate::template::{self, ESCAPES, Escape};

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

    /// As Go reads a number whose prefix names its base, but octal without a prefix too:
    /// decimal is never meant.
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
        let default = if nginx { Values::Typed } else { Values::Any };
        let choices =
            [("endpoint", Values::Endpoint), ("typed", Values::Typed), ("any", Values::Any)];
        let values = self.choice("values", raw.values.as_deref(), &choices, default);
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

    pub(super) fn policy(&mut self, raw: &RawTemplate) -> LossPolicy {
        let default = LossPolicy::default();
        let choices = [("keep", OnEmpty::Keep), ("render", OnEmpty::Render)];
        let on_empty = self.choice("on_empty", raw.on_empty.as_deref(), &choices, default.on_empty);
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
        if let Some((_, escape)) = ESCAPES.iter().find(|(name, _)| *name == named) {
            return *escape;
        }
        let known = ESCAPES.map(|(name, _)| name).join(", ");
        self.mistakes.push(format!("escape = \"{named}\" is none of {known}"));
        by_dest
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
