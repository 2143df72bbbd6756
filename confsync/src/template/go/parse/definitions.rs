//! Named templates: `define`, `block` and `template`.

use super::{BodyEnd, Context, Parser, unexpected};
use crate::template::functions::Fault;
use crate::template::go::lex::LexemeKind;
use crate::template::go::literal;
use crate::template::go::syntax_error::{Parsed, SyntaxError, fault};
use crate::template::go::tree::{GoNode, TemplateNode, is_empty};

impl Parser<'_> {
    /// The name behind `template`, `block` or `define`.
    fn template_name(&mut self, context: &str) -> Parsed<Vec<u8>> {
        let lexeme = self.take_behind_space()?;
        match lexeme.kind {
            LexemeKind::Quoted => {
                literal::unquote(lexeme.text).map_err(|fault| SyntaxError { at: lexeme.at, fault })
            }
            _ => {
                let SyntaxError { at, fault } = unexpected(&lexeme, context);
                let remedy = format!("write `{{{{{context} \"name\"}}}}` with the name in quotes");
                Err(SyntaxError { at, fault: Fault::new(fault.what, remedy) })
            }
        }
    }

    pub(super) fn template(&mut self, at: usize) -> Parsed<TemplateNode> {
        let name = self.template_name("template")?;
        let pipe = match self.take_behind_space()?.kind {
            LexemeKind::RightDelim => None,
            _ => {
                self.back();
                Some(self.pipeline(Context::TemplateClause, LexemeKind::RightDelim)?)
            }
        };
        Ok(TemplateNode { at, name, pipe })
    }

    /// A body with a scope of its own, and the place of its `end`.
    fn own_body(&mut self, word: &'static str, open: usize) -> Parsed<(Vec<GoNode>, usize)> {
        self.open.push((word, open));
        let outer = std::mem::take(&mut self.scope);
        let (body, ended) = self.deeper(open, Self::body)?;
        self.scope = outer;
        self.open.pop();
        match ended {
            BodyEnd::End(at) => Ok((body, at)),
            BodyEnd::Else(at) => fault(at, "{{else}} outside `if`, `range` or `with`", "remove it"),
        }
    }

    /// Defines a template and calls it here.
    pub(super) fn block(&mut self, open: usize, at: usize) -> Parsed<TemplateNode> {
        let name = self.template_name("block")?;
        let pipe = self.pipeline(Context::Block("block"), LexemeKind::RightDelim)?;
        let (body, end) = self.own_body("block", open)?;
        self.define(name.clone(), body, end)?;
        Ok(TemplateNode { at, name, pipe: Some(pipe) })
    }

    pub(super) fn definition(&mut self, open: usize) -> Parsed<()> {
        let name = self.template_name("define")?;
        self.close("define clause")?;
        let (body, end) = self.own_body("define", open)?;
        self.define(name, body, end)
    }

    /// A later definition replaces an empty one. As in Go, a second one that is not empty is an
    /// error, reported at its end.
    pub(super) fn define(&mut self, name: Vec<u8>, body: Vec<GoNode>, at: usize) -> Parsed<()> {
        match self.definitions.get(&name) {
            Some(known) if !is_empty(known) => {
                if is_empty(&body) {
                    return Ok(());
                }
                let what = format!(
                    "multiple definition of template \"{}\"",
                    String::from_utf8_lossy(&name)
                );
                fault(at, what, "rename one of them")
            }
            _ => {
                self.definitions.insert(name, body);
                Ok(())
            }
        }
    }
}
