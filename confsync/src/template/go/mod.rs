//! Go's `text/template`, as confd uses it.
//!
//! `lex` cuts a template into lexemes, `parse` and `pipeline` make a `tree` of them, which
//! `exec` walks and `eval` computes, on values that keep Go's types.

pub(crate) mod builtins;
mod eval;
mod exec;
mod include;
mod included_files;
mod lex;
mod literal;
mod moment;
mod parse;
mod pipeline;
mod syntax_error;
#[cfg(test)]
mod tests;
mod tree;

use std::path::{Path, PathBuf};

use common::model::StoredValue;

use super::error::{TemplateError, place};
use super::functions::{Budget, Call};
use super::value::{Map, Value};
use super::{Input, TemplateSources};
use exec::Exec;
use included_files::Includes;
use parse::Definitions;
use syntax_error::SyntaxError;

/// A Go template, read and checked.
#[derive(Debug)]
pub(super) struct GoTemplate {
    file: PathBuf,
    source: Vec<u8>,
    /// The name of the file's own body among the definitions.
    name: Vec<u8>,
    definitions: Definitions,
    folder: Option<PathBuf>,
}

impl GoTemplate {
    /// Reads and checks a template.
    pub(super) fn compile(
        name: &Path,
        text: &[u8],
        sources: &TemplateSources,
    ) -> Result<Self, TemplateError> {
        let program = Self::read(name, text)?;
        Ok(Self { folder: sources.templates.clone(), ..program })
    }

    fn read(file: &Path, text: &[u8]) -> Result<Self, TemplateError> {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes().to_owned();
        let definitions = parse::parse(&name, text)
            .map_err(|SyntaxError { at, fault }| TemplateError::at(file, place(text, at), fault))?;
        let (file, source) = (file.to_owned(), text.to_owned());
        Ok(Self { file, source, name, definitions, folder: None })
    }

    /// Whether it calls `lsdir "/"`, which finds nothing in confd and the top folders here.
    pub(super) fn lists_the_top(&self) -> bool {
        let (lexemes, _) = lex::lex(&self.source);
        lexemes.windows(3).any(|three| match three {
            [function, _, folder] => {
                function.text == b"lsdir" && matches!(folder.text, b"\"/\"" | b"`/`")
            }
            _ => false,
        })
    }

    /// Whether it may call `upstream` or `servers`, itself or in a file that it includes.
    pub(super) fn names_members(&self) -> bool {
        let (lexemes, _) = lex::lex(&self.source);
        let words: [&[u8]; 3] = [b"upstream", b"servers", b"include"];
        lexemes.iter().any(|lexeme| words.contains(&lexeme.text))
    }

    /// The file it was read from.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The output for these keys.
    pub(super) fn render(&self, input: &Input) -> Result<Vec<u8>, TemplateError> {
        self.run(input, &Value::Absent)
    }

    /// The output without keys, with these fields of the dot.
    pub(super) fn render_fields(&self, fields: &[(&str, &str)]) -> Result<Vec<u8>, TemplateError> {
        let fields =
            fields.iter().map(|(name, text)| (StoredValue::from(*name), Value::str(*text)));
        let dot = Map::new(fields.collect());
        let dot = dot.map_err(|error| TemplateError::at(&self.file, (0, 0), error.into()))?;
        self.run(&Input::default(), &Value::Map(dot))
    }

    fn run(&self, input: &Input, dot: &Value) -> Result<Vec<u8>, TemplateError> {
        let budget = Budget::default();
        let includes = Includes::new(self.folder.as_deref());
        Exec::new(self, Call::new(input, &budget), &includes).run(dot)
    }
}
