//! What Go finds while it parses and the parser does not: names that nobody
//! defined, and jumps out of no loop.

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, SmolStr};

use super::balance::Found;
use super::builtins;
use crate::template::functions::{self, Fault};

/// Checks one body: the main one, or that of a `define`.
///
/// # Errors
/// The first name that is unknown.
pub(super) fn check(body: &ListNode) -> Result<(), Found> {
    let mut walk = Walk { variables: vec!["$".into()], loops: 0 };
    walk.list(body)
}

struct Walk {
    variables: Vec<SmolStr>,
    loops: usize,
}

impl Walk {
    fn list(&mut self, list: &ListNode) -> Result<(), Found> {
        list.nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node) -> Result<(), Found> {
        match node {
            Node::Text(_) | Node::Define(_) => Ok(()),
            Node::List(list) => self.list(list),
            Node::Action(action) => self.pipe(&action.pipe, 1),
            Node::If(branch) | Node::With(branch) => self.branch(branch, false),
            Node::Range(branch) => self.branch(branch, true),
            Node::Template(call) => call.pipe.iter().try_for_each(|pipe| self.pipe(pipe, 1)),
            Node::Break(pos) if self.loops == 0 => Err(jump(pos.offset, "break")),
            Node::Continue(pos) if self.loops == 0 => Err(jump(pos.offset, "continue")),
            Node::Break(_) | Node::Continue(_) => Ok(()),
        }
    }

    fn branch(&mut self, branch: &BranchNode, is_loop: bool) -> Result<(), Found> {
        let outer = self.variables.len();
        self.pipe(&branch.pipe, if is_loop { 2 } else { 1 })?;
        let inner = self.variables.len();
        self.loops += usize::from(is_loop);
        self.list(&branch.body)?;
        self.loops -= usize::from(is_loop);
        self.variables.truncate(inner);
        branch.else_body.iter().try_for_each(|list| self.list(list))?;
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipe(&mut self, pipe: &PipeNode, most: usize) -> Result<(), Found> {
        pipe.commands.iter().try_for_each(|command| self.command(command))?;
        if pipe.decl.len() > most {
            let fault = "more variables than this place can declare";
            return Err((pipe.pos.offset, Fault::new(fault, "only `range` has two")));
        }
        if pipe.is_assign {
            return pipe.decl.iter().try_for_each(|name| self.known(name, pipe.pos.offset));
        }
        self.variables.extend(pipe.decl.iter().cloned());
        Ok(())
    }

    fn command(&mut self, command: &CommandNode) -> Result<(), Found> {
        command.args.iter().try_for_each(|arg| self.expr(arg))
    }

    fn expr(&mut self, expr: &Expr) -> Result<(), Found> {
        match expr {
            Expr::Variable(pos, name, _) => self.known(name, pos.offset),
            Expr::Identifier(pos, name) => function(name, pos.offset),
            Expr::Pipe(_, pipe) => self.pipe(pipe, 1),
            Expr::Chain(_, inner, _) => self.expr(inner),
            _ => Ok(()),
        }
    }

    fn known(&self, name: &SmolStr, at: usize) -> Result<(), Found> {
        if self.variables.contains(name) {
            return Ok(());
        }
        let remedy =
            format!("declare it before: `{{{{ {name} := … }}}}`; a variable ends with its block");
        Err((at, Fault::new(format!("undefined variable \"{name}\""), remedy)))
    }
}

/// What a misspelt word may have been meant to be, besides a function.
const KEYWORDS: &[&str] =
    &["if", "else", "end", "range", "with", "define", "block", "template", "break", "continue"];

fn jump(at: usize, word: &str) -> Found {
    (at, Fault::new(format!("{{{{{word}}}}} outside {{{{range}}}}"), "remove it"))
}

fn function(name: &str, at: usize) -> Result<(), Found> {
    let names = || functions::all().chain(builtins::FUNCTIONS).map(|f| f.name);
    if name == "include" || matches!(name, "and" | "or") || names().any(|known| known == name) {
        return Ok(());
    }
    let remedy = match functions::nearest(name, names().chain(KEYWORDS.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None if name.starts_with("cget") => {
            "encrypted values are not supported; store them readable, behind etcd's roles".into()
        }
        None => "the documentation of confd's templates lists what there is".into(),
    };
    Err((at, Fault::new(format!("function \"{name}\" not defined"), remedy)))
}
