//! The rendered text of one resource, before its member lines get the form in which they are
//! installed. Pure.

use crate::install::{Candidate, Target};
use crate::template::RenderedText;

#[derive(Debug, Clone)]
pub struct RenderedFile {
    /// Where it goes.
    pub target: Target,
    /// The text, in pieces.
    pub text: RenderedText,
    /// Whether HAProxy reads it: its member lines have another form.
    pub is_for_haproxy: bool,
}

impl RenderedFile {
    /// The text for a proxy that is reloaded for each change.
    pub fn plain(&self) -> Candidate {
        let bytes = match self.is_for_haproxy {
            true => self.text.plain_for_haproxy(),
            false => self.text.plain(),
        };
        Candidate { target: self.target.clone(), bytes }
    }
}
