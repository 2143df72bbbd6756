//! Loop bodies that are only text, fields and `if`, written without handlebars.
//!
//! Most of a configuration is one such loop. For each field of each item, handlebars copies a path,
//! looks up a helper, and copies the value twice; here the field is looked up and written. The
//! invariant: output, faults with their positions, and costs are the same.

use handlebars::template::{HelperTemplate, Parameter, Template, TemplateElement};
use handlebars::{Output, Path, PathSeg, RenderContext, RenderError};
use serde_json::Value as Json;

use super::checks::{RAW, SAFE, TICK, safe_text};
use super::definition::{RenderState, fail};
use super::item::{Ask, Item, Turn};

/// A body of text, fields and `if`.
pub(super) struct PlainBody<'t> {
    body: &'t Template,
    pieces: Vec<(usize, PlainPiece<'t>)>,
}

/// What a block calls its items, and their places.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Names<'n> {
    pub(super) item: Option<&'n str>,
    pub(super) place: Option<&'n str>,
}

enum PlainPiece<'t> {
    Tick,
    Text(&'t str),
    Value {
        ask: Ask<'t>,
        name: &'t str,
        /// The expression as it was written, if its value must be safe.
        checked: Option<&'t str>,
    },
    If {
        ask: Ask<'t>,
        /// What is written if it is true, and if it is not.
        bodies: [Option<PlainBody<'t>>; 2],
    },
}

/// The end of the last output, which handlebars needs to know.
#[derive(Default)]
pub(super) struct LastWritten {
    ends_line: Option<bool>,
}

impl LastWritten {
    fn write(&mut self, text: &str, out: &mut dyn Output) -> Result<(), RenderError> {
        if !text.is_empty() {
            out.write(text)?;
            self.ends_line = Some(text.ends_with(['\n', '\r']));
        }
        Ok(())
    }

    /// Updates handlebars' own state, which it uses to indent partials.
    pub(super) fn tell(&self, context: &mut RenderContext<'_, '_>) {
        if let Some(ends_line) = self.ends_line {
            context.set_content_produced(true);
            context.set_trailing_newline(ends_line);
            context.set_indent_before_write(ends_line);
        }
    }
}

impl<'t> PlainBody<'t> {
    /// Splits a body, if it is plain.
    pub(super) fn of(body: &'t Template, names: Names<'_>) -> Option<Self> {
        let mut pieces = Vec::with_capacity(body.elements.len());
        for (place, element) in body.elements.iter().enumerate() {
            let piece = match element {
                TemplateElement::RawString(text) => PlainPiece::Text(text),
                TemplateElement::Comment(_) => continue,
                TemplateElement::HtmlExpression(call) => PlainPiece::value(call, names)?,
                TemplateElement::HelperBlock(call) => PlainPiece::condition(call, names)?,
                _ => return None,
            };
            pieces.push((place, piece));
        }
        Some(Self { body, pieces })
    }

    /// Writes it for one item.
    ///
    /// # Errors
    /// As handlebars has them, each at its place.
    pub(super) fn write<I: Item>(
        &self,
        turn: &Turn<'_, I>,
        state: &RenderState<'_>,
        written: &mut LastWritten,
        out: &mut dyn Output,
    ) -> Result<(), RenderError> {
        for (place, piece) in &self.pieces {
            piece.write(turn, state, written, out).map_err(|mut error| {
                if let (None, Some(mapping)) = (error.line_no, self.body.mapping.get(*place)) {
                    error.line_no = Some(mapping.0);
                    error.column_no = Some(mapping.1);
                }
                error
            })?;
        }
        Ok(())
    }
}

impl<'t> PlainPiece<'t> {
    fn value(call: &'t HelperTemplate, names: Names<'_>) -> Option<Self> {
        let helper = call.name.as_name()?;
        if helper == TICK {
            return Some(Self::Tick);
        }
        let [value, Parameter::Literal(Json::String(shown))] = call.params.as_slice() else {
            return None;
        };
        let checked = match helper {
            SAFE => Some(shown.as_str()),
            RAW => None,
            _ => return None,
        };
        Some(Self::Value { ask: ask(value, names)?, name: value.as_name()?, checked })
    }

    fn condition(call: &'t HelperTemplate, names: Names<'_>) -> Option<Self> {
        let is_if = match call.name.as_name()? {
            "if" => true,
            "unless" => false,
            _ => return None,
        };
        let [value] = call.params.as_slice() else { return None };
        if !call.hash.is_empty() || call.block_param.is_some() {
            return None;
        }
        let body = |body: &'t Option<Template>| match body {
            Some(body) => PlainBody::of(body, names).map(Some),
            None => Some(None),
        };
        let mut bodies = [body(&call.template)?, body(&call.inverse)?];
        if !is_if {
            bodies.reverse();
        }
        Some(Self::If { ask: ask(value, names)?, bodies })
    }

    fn write<I: Item>(
        &self,
        turn: &Turn<'_, I>,
        state: &RenderState<'_>,
        written: &mut LastWritten,
        out: &mut dyn Output,
    ) -> Result<(), RenderError> {
        match self {
            Self::Tick => state.tick().map_err(fail),
            Self::Text(text) => written.write(text, out),
            Self::Value { ask, name, checked } => {
                let missing = || RenderError::strict_error(Some(&(*name).to_owned()));
                let leaf = turn.answer(ask)?.ok_or_else(missing)?;
                if let Some(expression) = checked {
                    safe_text(&leaf, expression, state).map_err(fail)?;
                }
                written.write(&leaf.shown(), out)
            }
            Self::If { ask, bodies: [then, otherwise] } => {
                let is_true = turn.answer(ask)?.is_some_and(|leaf| leaf.is_true());
                match if is_true { then } else { otherwise } {
                    Some(body) => body.write(turn, state, written, out),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The query that a parameter makes, if it is one.
fn ask<'t>(parameter: &'t Parameter, names: Names<'_>) -> Option<Ask<'t>> {
    let path = match parameter {
        Parameter::Path(Path::Relative((path, _))) => path,
        Parameter::Path(Path::Local((0, name, _))) => {
            return match name.as_str() {
                "first" => Some(Ask::First),
                "last" => Some(Ask::Last),
                "index" => Some(Ask::Index),
                "key" => Some(Ask::Key),
                _ => None,
            };
        }
        _ => return None,
    };
    let named = path.iter().map(|segment| match segment {
        PathSeg::Named(name) => Some(name.as_str()),
        _ => None,
    });
    let path: Vec<&str> = named.collect::<Option<_>>()?;
    match path.split_first() {
        Some((first, rest)) if Some(*first) == names.place => rest.is_empty().then_some(Ask::Place),
        Some((first, rest)) if Some(*first) == names.item => Some(Ask::Field(rest.to_vec())),
        _ => Some(Ask::Field(path)),
    }
}
