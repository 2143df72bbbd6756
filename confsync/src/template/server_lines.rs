//! The lines that name backends, as nginx and HAProxy have them. Pure.

use std::collections::HashSet;
use std::fmt::Write as _;

use common::model::{Endpoint, Host};
use foldhash::fast::RandomState;

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
        lines.push_str("server ");
        endpoint.push_to(&mut lines);
        if *weight != 1 {
            let _ = write!(lines, " weight={weight}");
        }
        lines.push_str(options);
        lines.push_str(";\n");
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
#[must_use]
pub fn haproxy_lines(members: &UpstreamMembers) -> String {
    let mut seen = HashSet::with_capacity_and_hasher(members.len(), RandomState::default());
    let mut lines = String::new();
    for UpstreamMember { endpoint, weight } in members.values() {
        if seen.insert(endpoint) {
            lines.push_str("server ");
            match endpoint.host() {
                Host::V6(_) => lines.push_str(&haproxy_server_name(endpoint)),
                Host::V4(_) | Host::Name(_) => endpoint.push_to(&mut lines),
            }
            lines.push(' ');
            endpoint.push_to(&mut lines);
            let _ = writeln!(lines, " weight {weight}");
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
    let mut block = format!("upstream {name} {{\n");
    push_inside(&mut block, lines);
    for line in more.trim().lines() {
        push_inside(&mut block, line.trim());
    }
    block.push('}');
    block
}

/// Appends lines, indented as what is in a block. There may be thousands: they are copied as one.
pub fn push_inside(block: &mut String, lines: &str) {
    block.push_str("    ");
    block.push_str(&lines.replace('\n', "\n    "));
    block.push('\n');
}
