//! The lines that name backends, as nginx and HAProxy have them. Pure.

use std::collections::HashSet;
use std::fmt::Write as _;

use common::model::Endpoint;

use super::runes::to_str;
use super::upstream_members::{UpstreamMember, UpstreamMembers};

/// The `server` lines of nginx for members, each with these options: never none, which nginx would
/// reject.
pub(super) fn nginx_lines(members: &UpstreamMembers, options: &str) -> String {
    if members.is_empty() {
        return "server 127.0.0.1:1 down;".to_owned();
    }
    let mut lines = String::new();
    for UpstreamMember { endpoint, weight } in members.values() {
        let _ = match weight {
            1 => writeln!(lines, "server {endpoint}{options};"),
            weight => writeln!(lines, "server {endpoint} weight={weight}{options};"),
        };
    }
    lines.truncate(lines.trim_end().len());
    lines
}

/// The lines, each indented as the line that they begin in.
pub(super) fn indented(lines: &str, before: &[u8]) -> String {
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let indent = if line.iter().all(|byte| matches!(byte, b' ' | b'\t')) { line } else { b"" };
    lines.replace('\n', &format!("\n{}", to_str(indent)))
}

/// The `server` lines of HAProxy for members; none is allowed. Two at one address are one.
pub fn haproxy_lines(members: &UpstreamMembers) -> String {
    let mut seen = HashSet::new();
    let mut lines = String::new();
    for UpstreamMember { endpoint, weight } in members.values() {
        if seen.insert(endpoint) {
            let name = haproxy_server_name(endpoint);
            let _ = writeln!(lines, "server {name} {endpoint} weight {weight}");
        }
    }
    lines.truncate(lines.trim_end().len());
    lines
}

/// What HAProxy's server at this address is called: the address without brackets, because a
/// name may not have them. So a backend that comes back elsewhere is another server, and what
/// is in flight to the old one is counted by itself.
pub fn haproxy_server_name(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host(), endpoint.port())
}

/// `upstream NAME { … }` without a line's end.
pub fn upstream_block(name: &str, lines: &str, more: &str) -> String {
    let inside = lines.lines().chain(more.trim().lines());
    let inside: String = inside.map(|line| format!("    {}\n", line.trim())).collect();
    format!("upstream {name} {{\n{inside}}}")
}
