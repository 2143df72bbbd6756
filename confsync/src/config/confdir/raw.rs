//! The contents of a resource file: TOML as people write it for confd and its fork.
//!
//! Keys match in any case, because confd's TOML library does that. Types are as loose as in confd;
//! `resource` interprets them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::template::place;

/// A table, all of whose keys may be missing; and the names of its keys.
macro_rules! table {
    (#[$doc:meta] $raw:ident, $names:ident { $($(#[$note:meta])* $key:ident: $kind:ty,)* }) => {
        #[$doc]
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $raw {
            $($(#[$note])* pub $key: Option<$kind>,)*
        }
        pub(super) const $names: &[&str] = &[$(stringify!($key)),*];
    };
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ResourceFile {
    pub template: Option<RawTemplate>,
    pub nginx: Option<RawNginx>,
    pub haproxy: Option<RawHaproxy>,
    /// Whether there was a `[guard]`, whose keys are in `template`.
    #[serde(skip)]
    pub guard: bool,
    pub backend: Option<BTreeMap<String, toml::Value>>,
}

table! {
    /// `[template]`, and `[guard]` as another place for the last five.
    RawTemplate, TEMPLATE {
        src: String,
        dest: String,
        keys: Vec<String>,
        prefix: String,
        mode: String,
        uid: i64,
        gid: i64,
        owner: String,
        group: String,
        check_cmd: String,
        reload_cmd: String,
        verify_cmd: String,
        check_cmd_timeout: toml::Value,
        reload_cmd_timeout: toml::Value,
        quiesce_cmd: String,
        quiesce_after: toml::Value,
        min_reload_interval: toml::Value,
        splay: toml::Value,
        debounce: toml::Value,
        output_format: String,
        escape: String,
        values: String,
        names: bool,
        make_directories: bool,
        allow_in_place: bool,
        on_empty: String,
        min_backends: i64,
        max_loss: f64,
        grace: toml::Value,
        probe_when_stale: toml::Value,
    }
}

table! {
    /// `[nginx]`.
    RawNginx, NGINX {
        conf: String,
        pid_file: String,
        binary: String,
        deadline: toml::Value,
        max_old_generations: i64,
        live: String,
        live_dir: String,
        max_fails: i64,
        fail_timeout: toml::Value,
        slow_start: toml::Value,
        hold: toml::Value,
    }
}

table! {
    /// `[haproxy]`.
    RawHaproxy, HAPROXY {
        /// A path, or a list of them.
        conf: toml::Value,
        socket: String,
        live: String,
        pid_file: String,
        binary: String,
        deadline: toml::Value,
        max_old_generations: i64,
    }
}

impl ResourceFile {
    /// Whether it uses anything that confd does not have: then it was written for confsync.
    pub(super) fn has_own_tables(&self) -> bool {
        let is_ours = |template: &RawTemplate| {
            template.values.is_some() || template.on_empty.is_some() || template.max_loss.is_some()
        };
        self.nginx.is_some()
            || self.haproxy.is_some()
            || self.guard
            || self.template.as_ref().is_some_and(is_ours)
    }

    /// Whether it declares that its keys are backends. A table for a proxy, a `[guard]` or a rule
    /// for values does; what a value looks like does not.
    pub(super) fn declares_backends(&self) -> bool {
        let guards = |template: &RawTemplate| {
            template.values.is_some()
                || template.on_empty.is_some()
                || template.min_backends.is_some()
                || template.max_loss.is_some()
                || template.grace.is_some()
                || template.probe_when_stale.is_some()
        };
        let is_by_name = self.nginx.is_some() || self.haproxy.is_some();
        is_by_name || self.guard || self.template.as_ref().is_some_and(guards)
    }
}

pub(super) const TABLES: &[&str] = &["template", "nginx", "haproxy", "guard", "backend"];
pub(super) const GUARD: &[&str] =
    &["on_empty", "min_backends", "max_loss", "grace", "probe_when_stale"];
/// Reads a file's text; the notes name keys that are ignored.
///
/// # Errors
/// With line and column, from the TOML parser.
pub(super) fn parse(text: &str) -> Result<(ResourceFile, Vec<String>), String> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| explain(&e, text))?;
    let mut notes = Vec::new();
    let mut file = toml::Table::new();
    let mut guard = false;
    for (name, value) in table {
        let lower = name.to_lowercase();
        guard |= lower == "guard";
        let known = match lower.as_str() {
            "template" => TEMPLATE,
            "nginx" => NGINX,
            "haproxy" => HAPROXY,
            "guard" => GUARD,
            "backend" => {
                file.insert(lower, value);
                continue;
            }
            _ => {
                notes.push(ignored(&name, TABLES, text));
                continue;
            }
        };
        let toml::Value::Table(inner) = value else {
            return Err(format!("`{name}` must be a table: write it as [{lower}]"));
        };
        let target = if lower == "guard" { "template" } else { &lower };
        let merged = file.entry(target).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let Some(merged) = merged.as_table_mut() {
            merge(merged, inner, known, text, &mut notes);
        }
    }
    let mut file =
        ResourceFile::deserialize(file).map_err(|error| mistyped(&error.to_string(), text))?;
    file.guard = guard;
    Ok((file, notes))
}

/// Adds the known keys of one table, in lower case.
fn merge(
    into: &mut toml::Table,
    table: toml::Table,
    known: &[&str],
    text: &str,
    notes: &mut Vec<String>,
) {
    for (key, value) in table {
        let lower = key.to_lowercase();
        if !known.contains(&lower.as_str()) {
            notes.push(ignored(&key, known, text));
        } else if into.insert(lower.clone(), value).is_some() {
            // Upper case sorts first, so the lower-case spelling wins.
            let what =
                format!("`{lower}` is given twice; `{key}` is used (confd picks one at random)");
            notes.push(what);
        }
    }
}

/// Adds key and line to an error about a wrong type: the parser appends the key as ``in
/// `template.mode` ``.
pub(crate) fn mistyped(error: &str, text: &str) -> String {
    let (what, rest) = error.trim().split_once("\nin `").unwrap_or((error.trim(), ""));
    let key = rest.trim_end_matches('`').rsplit('.').next().unwrap_or_default();
    let remedy = match what.rsplit_once("expected ").map(|(_, ty)| ty) {
        Some("a string") => "; put it in quotes",
        Some("a sequence") => "; write a list: `[\"…\"]`",
        Some("i64" | "u64") => "; write a whole number without quotes",
        _ => "",
    };
    if key.is_empty() {
        return what.to_owned();
    }
    format!("{}`{key}`: {what}{remedy}", line_of(key, text))
}

/// A mistake in the TOML itself, with its line and column.
pub(crate) fn explain(error: &toml::de::Error, text: &str) -> String {
    let (line, column) = place(text.as_bytes(), error.span().map_or(0, |span| span.start));
    format!("line {line}, column {column}: {}", error.message().trim())
}

fn ignored(key: &str, known: &[&str], text: &str) -> String {
    let line = line_of(key, text);
    let near = known
        .iter()
        .map(|k| (strsim::osa_distance(&key.to_lowercase(), k), k))
        .filter(|(d, _)| *d <= 2)
        .min()
        .map_or(String::new(), |(_, k)| format!("; did you mean `{k}`?"));
    format!("{line}`{key}` is not known here and is ignored{near}")
}

/// The line that a key begins, as the start of a message.
fn line_of(key: &str, text: &str) -> String {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key))
    };
    text.lines().position(begins).map_or(String::new(), |n| format!("line {}: ", n + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_are_named_with_line_and_remedy() {
        let (file, notes) =
            parse("[template]\nSRC = \"a\"\ndest = \"b\"\nreload_cmnd = \"x\"\n").unwrap();
        assert_eq!(file.template.unwrap().src.as_deref(), Some("a"));
        assert_eq!(
            notes,
            ["line 4: `reload_cmnd` is not known here and is ignored; did you mean `reload_cmd`?"]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_key() {
        let error = parse("[template]\nsrc = \"a\"\nMode = 644\n").unwrap_err();
        assert_eq!(
            error,
            "line 3: `mode`: invalid type: integer `644`, expected a string; put it in quotes"
        );
        let error = parse("[template]\nkeys = \"/a\"\n").unwrap_err();
        assert!(error.starts_with("line 2: `keys`: invalid type: string \"/a\""), "{error}");
    }

    #[test]
    fn bad_toml_is_placed() {
        let error = parse("[template]\nsrc = \n").unwrap_err();
        assert!(error.starts_with("line 2, column 7"), "{error}");
    }

    /// The names that the list below a heading begins its items with.
    fn documented(heading: &str) -> Vec<&'static str> {
        let page = include_str!("../../../../docs/configuration.md");
        let after = page.split_once(heading).unwrap().1;
        let section = after.split("\n## ").next().unwrap();
        let items = section.lines().filter(|line| line.starts_with("* `"));
        let names = items.filter_map(|line| line.split(" (").next());
        names.flat_map(|names| names.split('`').skip(1).step_by(2)).collect()
    }

    #[test]
    fn every_key_is_on_the_page_and_no_other() {
        let tables =
            [("## `[template]`", TEMPLATE), ("## `[nginx]`", NGINX), ("## `[haproxy]`", HAPROXY)];
        for (heading, known) in tables {
            let mut page = documented(heading);
            let mut known = known.to_vec();
            page.sort_unstable();
            known.sort_unstable();
            assert_eq!(page, known, "{heading}");
        }
        assert!(GUARD.iter().all(|key| TEMPLATE.contains(key)));
    }
}
