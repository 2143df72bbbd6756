//! Walks a Go template and writes its output.
//!
//! The parser is `gotmpl`'s; the walk is ours. `gotmpl`'s own knows one kind of
//! list and no structs, prints large floats in full, hands the dot to a `template`
//! called without one, and says no line when it stops.

use gotmpl::parse::{BranchNode, ListNode, Node, Pos, SmolStr, TemplateNode};

use super::GoTemplate;
use super::include::Includes;
use crate::template::error::{TemplateError, place};
use crate::template::functions::{Budget, Call, Fault, MAX_TEXT, too_large};
use crate::template::print::{self, Bounded, Sink};
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
    pub(super) vars: Vec<(SmolStr, Value)>,
    out: Bounded,
    nesting: usize,
}

impl<'a> Exec<'a> {
    pub(super) fn new(program: &'a GoTemplate, call: Call<'a>, includes: &'a Includes<'a>) -> Self {
        let out = Bounded::new(MAX_TEXT);
        Self { program, call, includes, vars: Vec::new(), out, nesting: 0 }
    }

    /// Renders the main body.
    pub(super) fn run(mut self, dot: &Value) -> Result<String, TemplateError> {
        self.vars.push(("$".into(), dot.clone()));
        self.walk(dot, &self.program.main)?;
        Ok(self.out.into_text())
    }

    pub(super) fn budget(&self) -> &'a Budget {
        self.call.budget
    }

    /// An error at a place of this file.
    pub(super) fn stop(&self, pos: Pos, fault: impl Into<Fault>) -> TemplateError {
        let place = place(&self.program.source, pos.offset);
        TemplateError::at(&self.program.file, place, fault.into())
    }

    fn walk(&mut self, dot: &Value, list: &ListNode) -> Walked {
        for node in &list.nodes {
            match self.node(dot, node)? {
                Flow::Next => {}
                jump => return Ok(jump),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &Node) -> Walked {
        match node {
            Node::Text(text) => {
                self.out.put(&text.text).map_err(|_| self.stop(text.pos, too_large()))?;
            }
            Node::Action(action) => {
                let value = self.pipe(dot, &action.pipe)?;
                if action.pipe.decl.is_empty() {
                    let printed = match &value {
                        Value::Absent => self.out.put("<no value>"),
                        value => print::print(&mut self.out, value),
                    };
                    printed.map_err(|_| self.stop(action.pos, too_large()))?;
                }
            }
            Node::List(list) => return self.walk(dot, list),
            Node::If(branch) => return self.nested(branch.pos, |e| e.branch(dot, branch, false)),
            Node::With(branch) => return self.nested(branch.pos, |e| e.branch(dot, branch, true)),
            Node::Range(branch) => return self.nested(branch.pos, |e| e.range(dot, branch)),
            Node::Template(node) => return self.nested(node.pos, |e| e.template(dot, node)),
            Node::Break(_) => return Ok(Flow::Break),
            Node::Continue(_) => return Ok(Flow::Continue),
            Node::Define(_) => {}
        }
        Ok(Flow::Next)
    }

    /// One level deeper, if there may be one. Variables of the level end with it.
    pub(super) fn nested<T>(
        &mut self,
        pos: Pos,
        work: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.nesting >= MAX_NESTING {
            let fault = format!("blocks and templates are nested more than {MAX_NESTING} deep");
            return Err(self.stop(pos, Fault::new(fault, "does a template call itself for ever?")));
        }
        self.budget().steps(1).map_err(|fault| self.stop(pos, fault))?;
        self.nesting += 1;
        let outer = self.vars.len();
        let done = work(self);
        self.vars.truncate(outer);
        self.nesting -= 1;
        done
    }

    fn branch(&mut self, dot: &Value, branch: &BranchNode, moves_dot: bool) -> Walked {
        let value = self.pipe(dot, &branch.pipe)?;
        match (value.is_true(), &branch.else_body) {
            (true, _) => self.walk(if moves_dot { &value } else { dot }, &branch.body),
            (false, Some(list)) => self.walk(dot, list),
            (false, None) => Ok(Flow::Next),
        }
    }

    fn range(&mut self, dot: &Value, branch: &BranchNode) -> Walked {
        let value = self.commands(dot, &branch.pipe)?;
        let decl = &branch.pipe.decl;
        // Until the first item each variable has the whole list, as in Go.
        for name in decl {
            if branch.pipe.is_assign {
                self.assign(name, value.clone());
            } else {
                self.vars.push((name.clone(), value.clone()));
            }
        }
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
            Value::Int(_) if decl.len() > 1 => {
                let fault = "a number can be ranged over with one variable only";
                return Err(self.stop(branch.pos, fault));
            }
            Value::Int(n) => {
                self.iterate(branch, (0..*n).map(|i| (Value::Absent, Value::Int(i))))?
            }
            other => {
                let fault = format!("range can't iterate over a {}", other.type_name());
                let remedy =
                    "`range` needs a list or a map: `getvs`, `gets`, `ls`, `jsonArray`, `split`";
                return Err(self.stop(branch.pos, Fault::new(fault, remedy)));
            }
        };
        match (&branch.else_body, ran) {
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
            self.budget().steps(1).map_err(|fault| self.stop(branch.pos, fault))?;
            self.bind(branch, index, &item);
            let flow = self.walk(&item, &branch.body)?;
            self.vars.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(ran)
    }

    /// Gives the loop's variables their values. With one, it is the element.
    fn bind(&mut self, branch: &BranchNode, index: Value, item: &Value) {
        let (first, second) = match branch.pipe.decl.as_slice() {
            [] => return,
            [one] => (None, one),
            [first, second, ..] => (Some(first), second),
        };
        if let Some(name) = first {
            self.assign(name, index);
        }
        self.assign(second, item.clone());
    }

    pub(super) fn assign(&mut self, name: &SmolStr, value: Value) {
        if let Some((_, old)) = self.vars.iter_mut().rev().find(|(known, _)| known == name) {
            *old = value;
        }
    }

    fn template(&mut self, dot: &Value, node: &TemplateNode) -> Walked {
        let program = self.program;
        let Some(body) = program.bodies.get(node.name.as_str()) else {
            let fault = format!("template \"{}\" not defined", node.name);
            return Err(self
                .stop(node.pos, Fault::new(fault, "add {{define}}, or use `include` for a file")));
        };
        let dot = match &node.pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Absent,
        };
        let ours = std::mem::replace(&mut self.vars, vec![("$".into(), dot.clone())]);
        let done = self.walk(&dot, body);
        self.vars = ours;
        done.map(|_| Flow::Next)
    }
}
