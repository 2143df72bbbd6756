//! The lines of nginx's configuration that make an upstream use its table. Pure text.
//!
//! Names and folders come from us and from the operator's own files; no value from etcd is written
//! here.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::proxy::nginx::TlsServer;
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
    /// How nginx's servers are configured for TLS.
    pub tls: TlsServer,
}

impl BalancerSettings {
    /// Requests are spread in this way, and counted, by nginx 1.22.
    pub fn with(balancing: Balancing) -> Self {
        Self { balancing, counted: true, tls: TlsServer::Http2Listen }
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

/// What is shown to a `proxy_pass https://` or `grpc_pass grpcs://` that has no member. Everybody
/// may know the key: the certificate proves nothing, and no client is to trust it. Fixed, because
/// another one would be another configuration, and in the text, because files in the folder of the
/// tables are gone after a boot.
const CERTIFICATE: &str = include_str!("../../../lua/empty.crt");
const KEY: &str = include_str!("../../../lua/empty.key");

/// Where our servers send what is no HTTP/1, as a broken request.
const OTHER: &str = "/.confsync-other";

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
/// one that is 1 where a request has been held (unset, nginx would warn of it at each request), the
/// one that shows which protocol a location uses to its upstream (Lua finds `$proxy_port` by no other way),
/// a hook at the end of every request, the socket for queries, and the one that answers for any
/// upstream without members.
pub fn http_level(files: BalancerFiles<'_>, settings: &BalancerSettings) -> String {
    let folder = files.folder.display().to_string();
    let mut text = String::from(
        "map $request_id $confsync_request { default $request_id; }\n\
         map \"\" $confsync_held { default 0; }\n\
         map $proxy_port $confsync_port { volatile; default $proxy_port; }\n",
    );
    if settings.counted {
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
    text.push_str(&at_once(files, settings.tls));
    text
}

/// The server that responds for any upstream without members, at once, also in TLS. Plain HTTP, an
/// error where TLS is expected, is answered alike.
fn at_once(files: BalancerFiles<'_>, tls: TlsServer) -> String {
    let folder = files.folder.display();
    let (listen, certificate) = match tls {
        TlsServer::Unknown => ("", String::new()),
        TlsServer::Http1 => (" ssl", certificate()),
        TlsServer::Http2Listen => (" ssl http2", certificate()),
        TlsServer::Http2Directive => (" ssl", format!("    http2 on;\n{}", certificate())),
    };
    format!(
        "server {{\n    listen unix:{folder}/.empty.sock{listen};\n    access_log off;\n{certificate}    \
         keepalive_timeout 0;\n    client_max_body_size 0;\n    error_page 400 {OTHER};\n    error_page 497 /;\n    \
         location / {{\n        access_by_lua_block {{ }}\n        content_by_lua_block {{ \
         ngx.header[\"Retry-After\"] = {RETRY_AFTER}; ngx.exit(503) }}\n    }}\n{}}}\n",
        other(files, &format!("nil, nil, 0, {RETRY_AFTER}"))
    )
}

/// What the operator may have set for all servers is set here as it is by default.
fn certificate() -> String {
    format!(
        "    ssl_certificate \"data:{CERTIFICATE}\";\n    ssl_certificate_key \"data:{KEY}\";\n    \
         ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;\n    ssl_ciphers HIGH:!aNULL:!MD5;\n    \
         ssl_verify_client off;\n    ssl_stapling off;\n"
    )
}

/// The place of what is no HTTP/1: nginx takes it for a broken request.
fn other(files: BalancerFiles<'_>, arguments: &str) -> String {
    format!(
        "    location = {OTHER} {{\n        internal;\n        access_by_lua_block {{ }}\n        recursive_error_pages off;\n        \
         lua_socket_log_errors off;\n        lua_check_client_abort off;\n        \
         content_by_lua_block {{ {}; m.other({arguments}) }}\n    }}\n",
        loaded(files)
    )
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
    let (rules, hold) = (rules(settings), seconds(settings.balancing.hold));
    let pick = format!("m.pick({folder}, {}, {rules}, {members}, {hold})", quoted(name));
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
    let arguments = format!(
        "{}, {}, {}, {RETRY_AFTER}, {}",
        quoted(&folder),
        quoted(name),
        seconds(settings.balancing.hold),
        rules(settings)
    );
    // Request and response pass through unchanged; the timeouts that count are those of the
    // operator's own server.
    format!(
        "server {{\n    listen unix:{folder}/{name}.sock;\n    access_log off;\n    \
         keepalive_timeout 0;\n    client_max_body_size 0;\n    error_page 400 {OTHER};\n    set $confsync_held 1;\n    \
         location / {{\n        access_by_lua_block {{ {}; m.hold({arguments}) }}\n        \
         proxy_intercept_errors off;\n        \
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
         proxy_pass http://{name};\n    }}\n{}}}\n",
        loaded(files),
        other(files, &arguments)
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
