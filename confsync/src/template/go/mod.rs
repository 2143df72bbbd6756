//! Go's `text/template`, as confd uses it.
//!
//! `gotmpl` reads the template; `balance` and `check` refuse what Go refuses and
//! it does not; `exec` and `eval` run the tree on values that keep Go's types.

mod balance;
pub(crate) mod builtins;
mod check;
mod eval;
mod exec;
mod include;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gotmpl::parse::{ListNode, Parser};

use super::error::{TemplateError, place};
use super::functions::{Budget, Call, Fault};
use super::value::Value;
use super::{Input, Sources};
use exec::Exec;
use include::Includes;

/// A Go template, read and checked.
#[derive(Debug)]
pub(super) struct Program {
    file: PathBuf,
    source: String,
    main: ListNode,
    bodies: BTreeMap<String, ListNode>,
    folder: Option<PathBuf>,
}

impl Program {
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
        let at = |(offset, fault)| TemplateError::at(name, place(text, offset), fault);
        balance::check(text).map_err(at)?;
        let parsed = Parser::new(text, "{{", "}}").and_then(Parser::parse);
        let (main, defines) = parsed.map_err(|error| parse_error(name, error))?;
        check::check(&main).map_err(at)?;
        let mut bodies = BTreeMap::new();
        for define in defines {
            check::check(&define.body).map_err(at)?;
            let known =
                bodies.get(define.name.as_str()).is_some_and(|b: &ListNode| !b.is_empty_tree());
            if known && !define.body.is_empty_tree() {
                let fault = format!("multiple definition of template \"{}\"", define.name);
                return Err(at((define.pos.offset, Fault::new(fault, "rename one of them"))));
            }
            if !known {
                bodies.insert(define.name.to_string(), define.body);
            }
        }
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

/// Whether a template reads.
pub(super) fn check(text: &str) -> Result<(), TemplateError> {
    Program::read(Path::new("template"), text).map(drop)
}

fn parse_error(name: &Path, error: gotmpl::TemplateError) -> TemplateError {
    let (place, what) = match error {
        gotmpl::TemplateError::Lex { line, col, message, .. }
        | gotmpl::TemplateError::Parse { line, col, message, .. } => ((line, col), message),
        other => ((0, 0), other.to_string()),
    };
    TemplateError::at(name, place, what.into())
}
