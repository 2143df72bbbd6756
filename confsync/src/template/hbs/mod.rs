//! Handlebars: strict, and safe for nginx.
//!
//! An undefined name is an error, found before the first render where possible. `{{x}}` writes only
//! values that are plain text to nginx both inside and outside quotes, and rejects others;
//! `{{{x}}}` writes anything.

mod asks;
mod backend;
mod checks;
mod definition;
mod helpers;
mod invoke;
mod json;
mod nesting;
mod own;
mod safe;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use handlebars::template::Template;
use handlebars::{Context, Handlebars, RenderErrorReason};
use serde_json::Value as Json;

use super::error::{TemplateError, place};
use super::escape::Escape;
use super::functions::{Budget, Fault, MAX_TEXT, nearest, too_large};
use super::print::BoundedText;
use super::{Input, TemplateSources};
use asks::Asks;
use definition::{Carried, RenderState};
use helpers::Helpers;
use tree::{NameScope, TemplateTree};

/// A handlebars template with its partials, read and checked.
#[derive(Debug)]
pub(super) struct HandlebarsTemplate {
    file: PathBuf,
    name: String,
    templates: BTreeMap<String, Template>,
    asks: Asks,
    escape: Escape,
}

/// The names of all helpers.
pub(super) fn names() -> Vec<&'static str> {
    Helpers::new().names().collect()
}

/// The names in the outermost context.
const NAMES: [&str; 1] = ["backends"];

impl HandlebarsTemplate {
    /// Reads and checks a template and all partials.
    pub(super) fn compile(
        file: &Path,
        text: &[u8],
        sources: &TemplateSources,
    ) -> Result<Self, TemplateError> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let fault = Fault::new("this is not UTF-8", "save the template as UTF-8");
            TemplateError::at(file, place(text, error.valid_up_to()), fault)
        })?;
        // A partial cannot have this name: names of partials come from files.
        let name = format!("/{}", file.display());
        let mut reader = TemplateReader {
            sources,
            helpers: Helpers::new(),
            uses: BTreeMap::new(),
            asks: Asks::default(),
        };
        let mut templates = BTreeMap::new();
        for (partial, text) in &sources.partials {
            let file = PathBuf::from(format!("partials/{partial}.hbs"));
            templates.insert(partial.clone(), reader.read(&file, partial, text)?);
        }
        templates.insert(name.clone(), reader.read(file, &name, text)?);
        if let Some(partial) = circle(&reader.uses) {
            let what = format!("the partial `{partial}` uses itself, directly or through others");
            return Err(TemplateError::at(file, (0, 0), what.as_str().into()));
        }
        let escape = sources.escape;
        Ok(Self { file: file.to_owned(), name, templates, asks: reader.asks, escape })
    }

    /// The file it was read from.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether it uses backend data at all.
    pub(super) fn asks_for_backends(&self) -> bool {
        self.asks.any
    }

    /// The output for these keys and backends.
    pub(super) fn render(&self, input: &Input) -> Result<Vec<u8>, TemplateError> {
        let state = Arc::new(RenderState { input, budget: Budget::default(), escape: self.escape });
        let mut registry = Handlebars::new();
        registry.set_strict_mode(true);
        registry.register_escape_fn(handlebars::no_escape);
        for (name, template) in &self.templates {
            registry.register_template(name, template.clone());
        }
        helpers::register(&mut registry, &state);
        let mut all = serde_json::Map::new();
        if self.asks.values {
            all.insert("backends".into(), input.backends().iter().map(backend::json).collect());
        }
        let context = Context::from(Json::Object(all));
        let mut out = BoundedText::new(MAX_TEXT);
        let done = registry.render_with_context_to_write(&self.name, &context, &mut out);
        done.map_err(|error| self.failed(&error))?;
        Ok(out.into_text())
    }

    fn failed(&self, error: &handlebars::RenderError) -> TemplateError {
        let fault = match error.reason() {
            RenderErrorReason::NestedError(inner) => match inner.downcast_ref::<Carried>() {
                Some(Carried(fault)) => fault.clone(),
                None => inner.to_string().into(),
            },
            RenderErrorReason::MissingVariable(path) => missing(path.as_deref()),
            RenderErrorReason::IOError(_) => too_large(),
            other => other.to_string().into(),
        };
        let file = match &error.template_name {
            Some(name) if *name != self.name => PathBuf::from(format!("partials/{name}.hbs")),
            _ => self.file.clone(),
        };
        let place = (error.line_no.unwrap_or(0), error.column_no.unwrap_or(0));
        TemplateError::at(file, place, fault)
    }
}

fn missing(path: Option<&str>) -> Fault {
    let Some(path) = path else {
        return Fault::new("a value is missing", "test it with `{{#if}}` first");
    };
    let near = nearest(path, NAMES.into_iter());
    let remedy = near.map_or_else(
        || {
            "keys are read with `getv`; a field that may be missing is tested with `{{#if}}` first"
                .into()
        },
        |near| format!("did you mean `{near}`?"),
    );
    Fault::new(format!("`{path}` is not there"), remedy)
}

/// Compiles files, one after the other, and notes what they use.
struct TemplateReader<'a> {
    sources: &'a TemplateSources,
    helpers: Helpers,
    uses: BTreeMap<String, BTreeSet<String>>,
    asks: Asks,
}

impl TemplateReader<'_> {
    fn read(&mut self, file: &Path, name: &str, text: &str) -> Result<Template, TemplateError> {
        nesting::check(text).map_err(|(offset, fault)| {
            TemplateError::at(file, place(text.as_bytes(), offset), fault)
        })?;
        let mut template = Template::compile_with_name(text, name.to_owned()).map_err(|error| {
            if let Some((offset, fault)) = nesting::unclosed(text) {
                return TemplateError::at(file, place(text.as_bytes(), offset), fault);
            }
            let what = error.reason().to_string();
            let what = what.lines().next().unwrap_or_default().to_owned();
            TemplateError::at(file, error.pos().unwrap_or((0, 0)), what.into())
        })?;
        let partials: BTreeSet<_> = self.sources.partials.keys().cloned().collect();
        let scope = NameScope::default();
        let scope = if partials.contains(name) { scope.lent() } else { scope };
        let mut tree = TemplateTree {
            lines: text.lines().collect(),
            helpers: &self.helpers,
            partials,
            uses: BTreeSet::new(),
            inline: BTreeMap::new(),
            scope,
            asks: self.asks,
        };
        tree.names(&template);
        tree.body(&mut template).map_err(|(place, fault)| TemplateError::at(file, place, fault))?;
        let TemplateTree { uses, inline, asks, .. } = tree;
        self.asks = asks;
        self.uses.entry(name.to_owned()).or_default().extend(uses);
        for (inline, used) in inline {
            self.uses.entry(inline).or_default().extend(used);
        }
        Ok(template)
    }
}

/// A partial that includes itself, directly or not: rendering it would not end.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<&str> {
    uses.keys().map(String::as_str).find(|start| {
        let mut seen = BTreeSet::new();
        let mut open = vec![*start];
        while let Some(name) = open.pop() {
            for next in uses.get(name).into_iter().flatten() {
                if next == start {
                    return true;
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    })
}
