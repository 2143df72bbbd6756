//! Bodies of loops that are text and fields alone, written without handlebars.
//!
//! Most of a config is one such loop. For each field of each item handlebars copies a
//! path, looks a helper up, and copies the value twice; here it is found and written.
//! What must hold: output, faults with their places, and what is paid are the same.

use handlebars::template::{HelperTemplate, Parameter, Template, TemplateElement};
use handlebars::{Output, Path, PathSeg, RenderContext, RenderError};
use serde_json::Value as Json;

use super::helpers::{RAW, SAFE, State, TICK, fail, safe_text};
use super::item::Item;

/// A body of text and fields.
pub(super) struct Plain<'t> {
    body: &'t Template,
    pieces: Vec<(usize, Piece<'t>)>,
}

enum Piece<'t> {
    Tick,
    Text(&'t str),
    Field {
        path: Vec<&'t str>,
        name: &'t str,
        /// The expression as it was written, if its value must be safe.
        checked: Option<&'t str>,
    },
}

/// What was written last, as handlebars wants to know it.
#[derive(Default)]
pub(super) struct Written {
    ends_line: Option<bool>,
}

impl Written {
    fn write(&mut self, text: &str, out: &mut dyn Output) -> Result<(), RenderError> {
        if !text.is_empty() {
            out.write(text)?;
            self.ends_line = Some(text.ends_with(['\n', '\r']));
        }
        Ok(())
    }

    /// Tells whoever indents partials what handlebars itself would have told.
    pub(super) fn tell(&self, context: &mut RenderContext<'_, '_>) {
        if let Some(ends_line) = self.ends_line {
            context.set_content_produced(true);
            context.set_trailing_newline(ends_line);
            context.set_indent_before_write(ends_line);
        }
    }
}

impl<'t> Plain<'t> {
    /// Takes a body apart, if it is plain. `item` is the name that its block gives items.
    pub(super) fn of(body: &'t Template, item: Option<&str>) -> Option<Self> {
        let mut pieces = Vec::with_capacity(body.elements.len());
        for (place, element) in body.elements.iter().enumerate() {
            let piece = match element {
                TemplateElement::RawString(text) => Piece::Text(text),
                TemplateElement::Comment(_) => continue,
                TemplateElement::HtmlExpression(call) => Piece::of(call, item)?,
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
    pub(super) fn write(
        &self,
        item: &impl Item,
        state: &State<'_>,
        written: &mut Written,
        out: &mut dyn Output,
    ) -> Result<(), RenderError> {
        for (place, piece) in &self.pieces {
            piece.write(item, state, written, out).map_err(|mut error| {
                if let Some(mapping) = self.body.mapping.get(*place) {
                    error.line_no = Some(mapping.0);
                    error.column_no = Some(mapping.1);
                }
                error
            })?;
        }
        Ok(())
    }
}

impl<'t> Piece<'t> {
    fn of(call: &'t HelperTemplate, item: Option<&str>) -> Option<Self> {
        let helper = call.name.as_name()?;
        if helper == TICK {
            return Some(Self::Tick);
        }
        let [
            Parameter::Path(Path::Relative((path, name))),
            Parameter::Literal(Json::String(shown)),
        ] = call.params.as_slice()
        else {
            return None;
        };
        let checked = match helper {
            SAFE => Some(shown.as_str()),
            RAW => None,
            _ => return None,
        };
        let named = path.iter().map(|segment| match segment {
            PathSeg::Named(name) => Some(name.as_str()),
            _ => None,
        });
        let mut path: Vec<&str> = named.collect::<Option<_>>()?;
        if item.is_some() && path.first().copied() == item {
            path.remove(0);
        }
        Some(Self::Field { path, name, checked })
    }

    fn write(
        &self,
        item: &impl Item,
        state: &State<'_>,
        written: &mut Written,
        out: &mut dyn Output,
    ) -> Result<(), RenderError> {
        match self {
            Self::Tick => state.tick().map_err(fail),
            Self::Text(text) => written.write(text, out),
            Self::Field { path, name, checked } => {
                let missing = || RenderError::strict_error(Some(&(*name).to_owned()));
                let leaf = item.at(path)?.ok_or_else(missing)?;
                if let Some(expression) = checked {
                    safe_text(&leaf, expression, &state.budget).map_err(fail)?;
                }
                written.write(&leaf.shown(), out)
            }
        }
    }
}
