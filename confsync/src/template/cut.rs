//! Cuts the output of a template at the marks that `upstream` and `servers` left in it. Pure.

use super::functions::members::{Mark, check};
use super::functions::{Fault, MAX_ITEMS};
use super::member_lines::{NamedService, Piece, RenderedText};
use super::runes::to_str;
use super::upstream_members::UpstreamMembers;

/// Cuts an output at its marks; the services have no members yet.
pub(super) fn cut(mark: &Mark, output: Vec<u8>) -> Result<RenderedText, Fault> {
    let (is_used, mark) = (mark.is_used(), mark.text().as_bytes());
    if !is_used {
        return Ok(RenderedText { pieces: vec![Piece::Text(output)] });
    }
    let mut pieces = Vec::new();
    let mut rest = output.as_slice();
    while let Some(begin) = memchr::memmem::find(rest, mark) {
        let (text, after) = rest.split_at(begin);
        let after = after.get(mark.len()..).unwrap_or_default();
        let end = memchr::memmem::find(after, mark).ok_or_else(changed)?;
        let (word, after) = after.split_at(end);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        if pieces.len() > MAX_ITEMS {
            return Err(Fault::new(
                format!("more than {MAX_ITEMS} times `servers` or `upstream`"),
                "write them outside of loops",
            ));
        }
        pieces.push(read(&to_str(word))?);
        rest = after.get(mark.len()..).unwrap_or_default();
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    let is_torn = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains(&1));
    if pieces.iter().any(is_torn) { Err(changed()) } else { Ok(RenderedText { pieces }) }
}

fn changed() -> Fault {
    Fault::new(
        "another function has changed what `servers` or `upstream` wrote",
        "write `{{servers …}}` and `{{upstream …}}` by themselves",
    )
}

/// Parses the text between two marks.
fn read(word: &str) -> Result<Piece, Fault> {
    let (path, more) = word.split_once('\n').ok_or_else(changed)?;
    check(path)?;
    let service = NamedService {
        path: path.to_owned(),
        members: UpstreamMembers::default(),
        server_options: String::new(),
    };
    match more.strip_prefix('\u{1}') {
        Some(more) => Ok(Piece::Upstream { service, more: more.to_owned() }),
        None if more.is_empty() => Ok(Piece::Servers(service)),
        None => Err(changed()),
    }
}
