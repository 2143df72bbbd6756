//! Rendered files with the blocks that make nginx ask the balancer. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::nginx_text::{BalancerFiles, BalancerSettings, Servers, http_level, upstream};
use crate::install::Candidate;
use crate::proxy::nginx::conf;
use crate::proxy::pools::RenderedFile;
use crate::template::{Piece, RenderedText, upstream_block};

/// Writes files for one nginx.
#[derive(Debug)]
pub(super) struct FileWriter {
    /// The balancer's file.
    pub(super) lua: PathBuf,
    /// Where the tables are.
    pub(super) folder: PathBuf,
    pub(super) settings: BalancerSettings,
    /// The upstreams whose members the balancer changes.
    pub(super) live: BTreeSet<String>,
}

/// Whether the members that the balancer changes are written: nginx reads them only where it
/// starts without a table. The rest is what needs a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberLines {
    Written,
    LeftOut,
}

impl FileWriter {
    pub(super) fn write(&self, files: &[RenderedFile], lines: MemberLines) -> Vec<Candidate> {
        let http = || http_level(self.files(), &self.settings);
        let mut once = (!self.live.is_empty()).then(http);
        let file = |file: &RenderedFile| {
            let bytes = file.text.write(|piece, out| match piece {
                Piece::Upstream { service, more } if self.live.contains(service.upstream()) => {
                    let servers = match lines {
                        MemberLines::Written => {
                            Servers { lines: service.nginx_lines(), members: service.members.len() }
                        }
                        MemberLines::LeftOut => Servers::default(),
                    };
                    out.extend_from_slice(once.take().unwrap_or_default().as_bytes());
                    let block = self.block(service.upstream(), &servers, more);
                    out.extend_from_slice(block.trim_end().as_bytes());
                }
                Piece::Upstream { service, more } => {
                    let block = upstream_block(service.upstream(), &service.nginx_lines(), more);
                    out.extend_from_slice(block.as_bytes());
                }
                Piece::Text(_) | Piece::Servers(_) => {
                    let one = RenderedText { pieces: vec![piece.clone()] };
                    out.extend_from_slice(&one.plain());
                }
            });
            Candidate { target: file.target.clone(), bytes }
        };
        files.iter().map(file).collect()
    }

    fn block(&self, name: &str, servers: &Servers, more: &str) -> String {
        let kept = kept_directives(more).unwrap_or_default();
        upstream(name, servers, &kept, self.files(), &self.settings)
    }

    fn files(&self) -> BalancerFiles<'_> {
        BalancerFiles { lua: &self.lua, folder: &self.folder }
    }
}

/// The directives of an upstream that also work with a balancer. The choice of a peer is the
/// balancer's; a directive that promises another one cannot be kept.
pub(super) fn kept_directives(more: &str) -> Result<String, String> {
    let directives =
        conf::parse(more.as_bytes()).map_err(|error| format!("what is in it: {error}"))?;
    let mut kept = String::new();
    for directive in directives {
        let name = String::from_utf8_lossy(&directive.name).into_owned();
        match name.as_str() {
            "random" | "least_conn" | "zone" => {}
            _ if name.starts_with("keepalive") => {
                kept.push_str(more.get(directive.span).unwrap_or_default());
                kept.push('\n');
            }
            _ => return Err(format!("`{name}` cannot be combined with changes without a reload")),
        }
    }
    Ok(kept)
}
