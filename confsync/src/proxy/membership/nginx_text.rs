//! The lines of nginx's configuration that make an upstream use its table. Pure text.
//!
//! Names and folders come from us and from the operator's own files; no value from etcd is written
//! here.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::template::push_inside;

pub use crate::config::confdir::Balancing;

/// How the balancer works: what nginx takes from `server` lines and has no place for once
/// Lua chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BalancerSettings {
    /// How requests are spread.
    pub balancing: Balancing,
    /// Whether requests are counted: not where the user's own `log_by_lua*` hides ours.
    pub counted: bool,
}

impl BalancerSettings {
    /// Requests are spread in this way, and counted.
    pub fn with(balancing: Balancing) -> Self {
        Self { balancing, counted: true }
    }
}

impl Default for BalancerSettings {
    fn default() -> Self {
        Self::with(Balancing::default())
    }
}

/// The paths that the configuration names.
#[derive(Debug, Clone, Copy)]
pub struct BalancerFiles<'a> {
    /// The Lua file.
    pub lua: &'a Path,
    /// The folder of the tables.
    pub folder: &'a Path,
}

/// Seconds that a client is asked to wait while there is no backend.
const RETRY_AFTER: u32 = 5;

/// A string of Lua.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            character if character.is_control() => {
                let _ = write!(quoted, "\\{:03}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn seconds(span: Duration) -> String {
    span.as_secs_f64().to_string()
}

/// Loads the module as `m`. A failure is in the error log, and nginx falls back to its own `server`
/// lines.
fn loaded(files: BalancerFiles<'_>) -> String {
    let lua = quoted(&files.lua.display().to_string());
    format!(
        "local m, loaded = package.loaded[\"confsync.membership\"], true; \
         if not m then loaded, m = pcall(dofile, {lua}) end; \
         if not loaded then ngx.log(ngx.ERR, \"confsync: \", m); return end"
    )
}

/// What is needed once at http level: the variable that a request shares with its subrequests, the
/// one that is 1 where a request has been held (unset, nginx would warn of it at each request), a
/// hook at the end of every request, and the socket for queries.
pub fn http_level(files: BalancerFiles<'_>, counted: bool) -> String {
    let folder = files.folder.display().to_string();
    let mut text = String::from(
        "map $request_id $confsync_request { default $request_id; }\n\
         map \"\" $confsync_held { default 0; }\n",
    );
    if counted {
        text.push_str(
            "log_by_lua_block { local m = package.loaded[\"confsync.membership\"]; \
             if m then m.log() end }\n",
        );
    }
    let _ = write!(
        text,
        "server {{\n    listen unix:{folder}/state.sock;\n    access_log off;\n    \
         location / {{\n        content_by_lua_block {{ {}; m.state({}) }}\n    }}\n}}\n",
        loaded(files),
        quoted(&folder)
    );
    text
}

/// The members of an upstream in plain `server` lines, for an nginx that finds no table.
#[derive(Debug, Default)]
pub struct Servers {
    /// The lines, none of them indented.
    pub lines: String,
    /// How many of them name a member.
    pub members: usize,
}

/// One upstream; `more` has the operator's directives (`keepalive 64;`).
pub fn upstream(
    name: &str,
    servers: &Servers,
    more: &str,
    files: BalancerFiles<'_>,
    settings: &BalancerSettings,
) -> String {
    let folder = quoted(&files.folder.display().to_string());
    let Servers { lines, members } = servers;
    let pick = format!("m.pick({folder}, {}, {}, {members})", quoted(name), rules(settings));
    let mut text = format!("upstream {name} {{\n");
    if !lines.is_empty() {
        push_inside(&mut text, lines);
    }
    let _ = writeln!(text, "    balancer_by_lua_block {{ {}; {pick} }}", loaded(files));
    for line in more.trim().lines() {
        let _ = writeln!(text, "    {}", line.trim());
    }
    text.push_str("}\n");
    text.push_str(&empty(name, files, settings));
    text
}

/// By what a member is chosen and counted, as arguments of the Lua functions.
fn rules(settings: &BalancerSettings) -> String {
    let Balancing { max_fails, fail_timeout, slow_start, .. } = settings.balancing;
    let (fail_timeout, slow_start) = (seconds(fail_timeout), seconds(slow_start));
    format!("{max_fails}, {fail_timeout}, {slow_start}, {}", settings.counted)
}

/// The server that responds while the upstream has no member.
fn empty(name: &str, files: BalancerFiles<'_>, settings: &BalancerSettings) -> String {
    let folder = files.folder.display().to_string();
    let hold = format!(
        "m.hold({}, {}, {}, {RETRY_AFTER}, {})",
        quoted(&folder),
        quoted(name),
        seconds(settings.balancing.hold),
        rules(settings)
    );
    // Request and response pass through unchanged; the timeouts that count are those of the
    // operator's own server.
    format!(
        "server {{\n    listen unix:{folder}/{name}.sock;\n    access_log off;\n    \
         client_max_body_size 0;\n    error_page 599 /;\n    set $confsync_held 1;\n    \
         location / {{\n        access_by_lua_block {{ {}; {hold} }}\n        \
         proxy_http_version 1.1;\n        proxy_set_header Host $http_host;\n        \
         proxy_set_header Upgrade $http_upgrade;\n        \
         proxy_set_header Connection $http_connection;\n        \
         proxy_request_buffering off;\n        proxy_buffering off;\n        \
         proxy_read_timeout 1d;\n        proxy_send_timeout 1d;\n        \
         proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate \
         X-Accel-Buffering X-Accel-Charset Expires Cache-Control Set-Cookie Vary;\n        \
         proxy_pass_header Server;\n        proxy_pass_header Date;\n        \
         proxy_pass_header X-Accel-Redirect;\n        proxy_pass_header X-Accel-Expires;\n        \
         proxy_pass_header X-Accel-Limit-Rate;\n        \
         proxy_pass_header X-Accel-Buffering;\n        proxy_pass_header X-Accel-Charset;\n        \
         proxy_pass http://{name};\n    }}\n}}\n",
        loaded(files)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_string_of_lua() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\010\"");
    }

    #[test]
    fn spans_are_seconds() {
        assert_eq!(seconds(Duration::from_millis(1500)), "1.5");
        assert_eq!(seconds(Duration::from_secs(10)), "10");
    }
}
