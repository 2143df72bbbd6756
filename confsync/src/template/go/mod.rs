//! Go's `text/template`, as confd uses it.
//!
//! `gotmpl` reads the template, which `plain` and `literal` put in the form that it reads
//! as Go would; `balance` and `check` refuse what Go refuses and it does not; `order` sees
//! that the first mistake is the one that is told; `exec` and `eval` run the tree on values
//! that keep Go's types.

mod balance;
pub(crate) mod builtins;
mod check;
mod eval;
mod exec;
mod include;
mod literal;
mod order;
mod plain;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gotmpl::parse::ListNode;

use super::error::{TemplateError, place};
use super::functions::{Budget, Call};
use super::value::Value;
use super::{Input, Sources};
use exec::Exec;
use include::Includes;

/// A Go template, read and checked.
#[derive(Debug)]
pub(super) struct GoTemplate {
    file: PathBuf,
    source: String,
    main: ListNode,
    bodies: BTreeMap<String, ListNode>,
    folder: Option<PathBuf>,
}

impl GoTemplate {
    /// Reads and checks a template.
    pub(super) fn compile(
        name: &Path,
        text: &str,
        sources: &Sources,
    ) -> Result<Self, TemplateError> {
        let program = Self::read(name, text)?;
        Ok(Self { folder: sources.templates.clone(), ..program })
    }

    fn read(name: &Path, text: &str) -> Result<Self, TemplateError> {
        let (main, mut bodies) = order::read(text)
            .map_err(|(offset, fault)| TemplateError::at(name, place(text, offset), fault))?;
        let own = name.file_name().map(|n| n.to_string_lossy().into_owned());
        bodies.entry(own.unwrap_or_default()).or_insert_with(|| main.clone());
        Ok(Self { file: name.to_owned(), source: text.to_owned(), main, bodies, folder: None })
    }

    /// The file it was read from.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The output for these keys.
    pub(super) fn render(&self, input: &Input) -> Result<String, TemplateError> {
        let budget = Budget::default();
        let includes = Includes::new(self.folder.as_deref());
        let call = Call { kv: &input.kv, budget: &budget };
        Exec::new(self, call, &includes).run(&Value::Absent)
    }
}
