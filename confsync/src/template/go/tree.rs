//! The tree of a Go template: what the parser makes and the evaluator walks.
//!
//! Knows nothing of values. Every part that can fail has its position, in bytes from the start of
//! the source. The `Display` form of an expression parses as the same expression.

use std::fmt;
use std::sync::Arc;

use common::model::StoredValue;

use super::literal::NumberLiteral;
use crate::template::functions::Function;
use crate::template::sprintf;

/// The name of a field or a variable.
pub(super) type Name = Arc<str>;

/// What is written between the actions, and the actions.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum GoNode {
    Text(usize, Vec<u8>),
    Action(PipeNode),
    If(BranchNode),
    With(BranchNode),
    Range(BranchNode),
    Template(TemplateNode),
    Break,
    Continue,
}

/// `if`, `with` or `range`, up to its `end`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BranchNode {
    pub(super) at: usize,
    pub(super) pipe: PipeNode,
    pub(super) body: Vec<GoNode>,
    /// What is written instead; `else if` is an `if` in it.
    pub(super) otherwise: Option<Vec<GoNode>>,
}

/// `{{template "name" pipeline}}`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TemplateNode {
    pub(super) at: usize,
    pub(super) name: Vec<u8>,
    pub(super) pipe: Option<PipeNode>,
}

/// `$x := command | command`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PipeNode {
    pub(super) at: usize,
    pub(super) variables: Vec<Name>,
    /// `=` and not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<CommandNode>,
}

/// Operands with spaces between them, of which the first may be called with the others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CommandNode {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
}

/// One operand and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) kind: OperandKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Number(NumberLiteral),
    Text(StoredValue),
    /// `$x.a.b`
    Variable(Name, Vec<Name>),
    /// `.a.b`
    Field(Vec<Name>),
    /// `(pipeline).a.b`, or a function's.
    Chain(Box<Operand>, Vec<Name>),
    Function(Callee),
    Parenthesized(Box<PipeNode>),
}

/// The function that a name refers to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Callee {
    /// `and` and `or` do not evaluate arguments that they do not need.
    And,
    Or,
    /// Renders a file of the same folder.
    Include,
    Known(&'static Function),
}

impl PartialEq for Callee {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Callee {
    /// The name it is called by.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Include => "include",
            Self::Known(function) => function.name,
        }
    }
}

impl OperandKind {
    /// Whether it is a constant, which nothing can be piped into.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self, Self::Dot | Self::Nil | Self::Bool(_) | Self::Number(_) | Self::Text(_))
    }
}

fn dotted(f: &mut fmt::Formatter<'_>, fields: &[Name]) -> fmt::Result {
    fields.iter().try_for_each(|field| write!(f, ".{field}"))
}

impl fmt::Display for OperandKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dot => f.write_str("."),
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(&sprintf::quote(text)),
            Self::Variable(name, fields) => f.write_str(name).and_then(|()| dotted(f, fields)),
            Self::Field(fields) => dotted(f, fields),
            Self::Chain(inner, fields) => {
                write!(f, "{}", inner.kind).and_then(|()| dotted(f, fields))
            }
            Self::Function(callee) => f.write_str(callee.name()),
            Self::Parenthesized(pipe) => write!(f, "({pipe})"),
        }
    }
}

impl fmt::Display for CommandNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first.kind)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", argument.kind))
    }
}

impl fmt::Display for PipeNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.assigns { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            f.write_str(if i > 0 { " | " } else { "" })?;
            write!(f, "{command}")?;
        }
        Ok(())
    }
}

/// Whether a body would write nothing but white space: such a definition gives way to another.
pub(super) fn is_empty(body: &[GoNode]) -> bool {
    let blank =
        |text: &[u8]| crate::template::runes::runes(text).all(|(rune, _)| rune.is_whitespace());
    body.iter().all(|node| matches!(node, GoNode::Text(_, text) if blank(text)))
}
