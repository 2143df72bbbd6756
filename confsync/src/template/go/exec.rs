//! Walks the tree of a Go template and writes its output.

use std::sync::Arc;

use super::GoTemplate;
use super::included_files::Includes;
use super::tree::{BranchNode, GoNode, Name, PipeNode, TemplateNode};
use crate::template::error::{TemplateError, place};
use crate::template::functions::{Budget, Call, Fault, MAX_TEXT, too_large};
use crate::template::print::{self, BoundedText};
use crate::template::value::Value;

/// How deep blocks and `template` calls may be nested while rendering.
const MAX_NESTING: usize = 1000;

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) type Walked = Result<Flow, TemplateError>;

/// One run of one file.
pub(super) struct Exec<'a> {
    pub(super) program: &'a GoTemplate,
    pub(super) call: Call<'a>,
    pub(super) includes: &'a Includes<'a>,
    pub(super) vars: Vec<(Name, Value)>,
    out: BoundedText,
    nesting: usize,
}

impl<'a> Exec<'a> {
    pub(super) fn new(program: &'a GoTemplate, call: Call<'a>, includes: &'a Includes<'a>) -> Self {
        let out = BoundedText::new(MAX_TEXT);
        Self { program, call, includes, vars: Vec::new(), out, nesting: 0 }
    }

    /// Renders the main body.
    pub(super) fn run(mut self, dot: &Value) -> Result<Vec<u8>, TemplateError> {
        self.vars.push(("$".into(), dot.clone()));
        if let Some(body) = self.program.definitions.get(&self.program.name) {
            self.walk(dot, body)?;
        }
        Ok(self.out.into_text())
    }

    pub(super) fn budget(&self) -> &'a Budget {
        self.call.budget
    }

    /// An error at a position in this file.
    pub(super) fn stop(&self, at: usize, fault: impl Into<Fault>) -> TemplateError {
        let place = place(&self.program.source, at);
        TemplateError::at(&self.program.file, place, fault.into())
    }

    fn walk(&mut self, dot: &Value, body: &[GoNode]) -> Walked {
        for node in body {
            match self.node(dot, node)? {
                Flow::Next => {}
                jump => return Ok(jump),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &GoNode) -> Walked {
        match node {
            GoNode::Text(at, text) => {
                self.out.put(text).map_err(|_| self.stop(*at, too_large()))?;
            }
            GoNode::Action(pipe) => self.action(dot, pipe)?,
            GoNode::If(branch) => return self.nested(branch.at, |e| e.branch(dot, branch, false)),
            GoNode::With(branch) => return self.nested(branch.at, |e| e.branch(dot, branch, true)),
            GoNode::Range(branch) => return self.nested(branch.at, |e| e.range(dot, branch)),
            GoNode::Template(node) => return self.template(dot, node),
            GoNode::Break => return Ok(Flow::Break),
            GoNode::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Writes the value, unless a variable takes it.
    fn action(&mut self, dot: &Value, pipe: &PipeNode) -> Result<(), TemplateError> {
        let value = self.pipe(dot, pipe)?;
        if !pipe.variables.is_empty() {
            return Ok(());
        }
        let printed = match &value {
            Value::Absent => self.out.put("<no value>"),
            value => print::print(&mut self.out, value),
        };
        printed.map_err(|_| self.stop(pipe.at, too_large()))
    }

    /// Runs one level deeper, within the limit. Variables of the level end with it.
    pub(super) fn nested<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.nesting >= MAX_NESTING {
            let fault = format!("blocks and templates are nested more than {MAX_NESTING} deep");
            return Err(
                self.stop(at, Fault::new(fault, "does a template call itself without end?"))
            );
        }
        self.budget().steps(1).map_err(|fault| self.stop(at, fault))?;
        self.nesting += 1;
        let outer = self.vars.len();
        let done = work(self);
        self.vars.truncate(outer);
        self.nesting -= 1;
        done
    }

    fn branch(&mut self, dot: &Value, branch: &BranchNode, moves_dot: bool) -> Walked {
        let value = self.pipe(dot, &branch.pipe)?;
        match (value.is_true(), &branch.otherwise) {
            (true, _) => self.walk(if moves_dot { &value } else { dot }, &branch.body),
            (false, Some(list)) => self.walk(dot, list),
            (false, None) => Ok(Flow::Next),
        }
    }

    fn range(&mut self, dot: &Value, branch: &BranchNode) -> Walked {
        let value = self.commands(dot, &branch.pipe)?;
        let decl = &branch.pipe.variables;
        // Until the first item each variable has the whole list, as in Go.
        self.set(&branch.pipe, &value)?;
        let ran = match &value {
            Value::Absent | Value::Nil => false,
            Value::List(list) => {
                let items = list.items().iter().enumerate();
                let items = items.map(|(i, v)| (Value::Int(i as i64), v.clone()));
                self.iterate(branch, items)?
            }
            Value::Map(map) => {
                let items = map.entries().iter();
                self.iterate(branch, items.map(|(k, v)| (Value::Str(k.clone()), v.clone())))?
            }
            Value::Int(_) | Value::Uint(_) if decl.len() > 1 => {
                let fault = "a number can be ranged over with one variable only";
                return Err(self.stop(branch.at, fault));
            }
            Value::Int(n) => {
                self.iterate(branch, (0..*n).map(|i| (Value::Absent, Value::Int(i))))?
            }
            Value::Uint(n) => {
                self.iterate(branch, n.below().map(|i| (Value::Absent, Value::Uint(i))))?
            }
            other => {
                let fault = format!("range can't iterate over a {}", other.type_name());
                let remedy =
                    "`range` needs a list or a map: `getvs`, `gets`, `ls`, `jsonArray`, `split`";
                return Err(self.stop(branch.at, Fault::new(fault, remedy)));
            }
        };
        match (&branch.otherwise, ran) {
            (Some(list), false) => self.walk(dot, list),
            _ => Ok(Flow::Next),
        }
    }

    /// Runs the body once for each item; whether there was one.
    fn iterate(
        &mut self,
        branch: &BranchNode,
        items: impl Iterator<Item = (Value, Value)>,
    ) -> Result<bool, TemplateError> {
        let mark = self.vars.len();
        let mut ran = false;
        for (index, item) in items {
            ran = true;
            self.budget().steps(1).map_err(|fault| self.stop(branch.at, fault))?;
            self.bind(branch, index, &item)?;
            let flow = self.walk(&item, &branch.body)?;
            self.vars.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(ran)
    }

    /// Gives the loop's variables their values. With one, it is the element.
    fn bind(
        &mut self,
        branch: &BranchNode,
        index: Value,
        item: &Value,
    ) -> Result<(), TemplateError> {
        let (first, second) = match branch.pipe.variables.as_slice() {
            [] => return Ok(()),
            [one] => (None, one),
            [first, second, ..] => (Some(first), second),
        };
        if let Some(name) = first {
            self.assign(branch.pipe.at, name, index)?;
        }
        self.assign(branch.pipe.at, second, item.clone())
    }

    /// Declares the variables of a pipeline, or sets them.
    pub(super) fn set(&mut self, pipe: &PipeNode, value: &Value) -> Result<(), TemplateError> {
        for name in &pipe.variables {
            match pipe.assigns {
                true => self.assign(pipe.at, name, value.clone())?,
                false => self.vars.push((Arc::clone(name), value.clone())),
            }
        }
        Ok(())
    }

    fn assign(&mut self, at: usize, name: &Name, value: Value) -> Result<(), TemplateError> {
        match self.vars.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => {
                let remedy = format!("declare it before: `{{{{ {name} := … }}}}`");
                let what = format!("undefined variable: {name}");
                return Err(self.stop(at, Fault::new(what, remedy)));
            }
        }
        Ok(())
    }

    fn template(&mut self, dot: &Value, node: &TemplateNode) -> Walked {
        let program = self.program;
        let Some(body) = program.definitions.get(&node.name) else {
            let fault = format!("template \"{}\" not defined", String::from_utf8_lossy(&node.name));
            return Err(self
                .stop(node.at, Fault::new(fault, "add {{define}}, or use `include` for a file")));
        };
        let dot = match &node.pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Absent,
        };
        let ours = std::mem::replace(&mut self.vars, vec![("$".into(), dot.clone())]);
        let done = self.nested(node.at, |exec| exec.walk(&dot, body));
        self.vars = ours;
        done.map(|_| Flow::Next)
    }
}
