//! What one reload group is to have: its files as they were rendered, and in the form in which
//! they are installed.

use common::model::Revision;

use crate::install::Wanted;
use crate::proxy::driver::RenderedFile;

/// The wanted files of one reload group.
#[derive(Debug)]
pub(super) struct WantedFiles {
    /// As rendered, before a driver gave them its form.
    pub(super) rendered: Vec<RenderedFile>,
    /// As they are to be installed; none before the first render.
    pub(super) files: Option<Wanted>,
    /// The revision that they were rendered from.
    pub(super) revision: Revision,
    /// What made the next load due, for operators.
    pub(super) cause: String,
}

impl Default for WantedFiles {
    fn default() -> Self {
        let (rendered, revision) = (Vec::new(), Revision::default());
        Self { rendered, files: None, revision, cause: "start".to_owned() }
    }
}
