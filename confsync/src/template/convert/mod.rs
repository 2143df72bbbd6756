//! A Go template as handlebars, or the list of what stands against it.
//!
//! Handlebars has no variables, so each is written out where it is used; one that is
//! set twice cannot be. Lines that hold a tag alone leave an empty line in Go and none
//! in handlebars; apart from that, and from numbers (`1e+06` becomes `1000000`), the
//! output is the same.

mod expr;
mod lines;

use gotmpl::parse::{BranchNode, ListNode, Node, PipeNode, Pos, TemplateNode};

use super::error::place;
use super::go;
use super::{Engine, Sources, Template};
use expr::{Kind, Meaning, Scope};

/// Something that handlebars has no words for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconvertible {
    /// The line in the Go template, from 1.
    pub line: usize,
    /// What it is.
    pub construct: String,
    /// Why not, and what to write instead.
    pub why: String,
}

impl std::fmt::Display for Unconvertible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.construct, self.why)
    }
}

/// Writes a Go template as handlebars.
///
/// # Errors
/// Everything that cannot be converted, each with its line.
pub fn convert(go_template: &str) -> Result<String, Vec<Unconvertible>> {
    let all = |line, what: String| {
        vec![Unconvertible { line, construct: "the template".into(), why: what }]
    };
    let (main, defines) = go::tree(go_template).map_err(|e| all(e.line, e.what))?;
    let mut writer = Writer { source: go_template, out: String::new(), against: Vec::new() };
    // An empty body never replaces another of its name.
    let twice = |name: &str| defines.iter().filter(|d| d.name == name).count() > 1;
    let bodies = defines.iter().filter(|d| !(d.body.is_empty_tree() && twice(&d.name)));
    for define in bodies {
        writer.out.push_str(&format!("{{{{#*inline {}}}}}", expr::quoted(&define.name)));
        writer.list(&define.body, &mut Scope::of_define());
        writer.out.push_str("{{/inline}}");
    }
    if !defines.is_empty() {
        writer.out.push('\n');
    }
    writer.list(&main, &mut Scope::new());
    if !writer.against.is_empty() {
        writer.against.sort_by_key(|u| u.line);
        return Err(writer.against);
    }
    let written = lines::keep(&writer.out);
    let read = Template::compile(
        std::path::Path::new("converted.hbs"),
        &written,
        Engine::Handlebars,
        &Sources::default(),
    );
    read.map_err(|e| all(0, format!("the conversion does not read: {e}")))?;
    Ok(written)
}

struct Writer<'a> {
    source: &'a str,
    out: String,
    against: Vec<Unconvertible>,
}

impl Writer<'_> {
    fn no(&mut self, pos: Pos, construct: &str, why: &str) {
        let (line, _) = place(self.source, pos.offset);
        let (construct, why) = (construct.to_owned(), why.to_owned());
        self.against.push(Unconvertible { line, construct, why });
    }

    /// Writes a tag. A `{` just before it would make it another one.
    fn tag(&mut self, tag: &str) {
        if tag.starts_with("{{") && self.out.ends_with('{') {
            self.out.pop();
            self.out.push_str("{{{concat \"{\"}}}");
        }
        self.out.push_str(tag);
    }

    /// The text of an expression, or a note that there is none.
    fn meaning(&mut self, pipe: &PipeNode, scope: &Scope) -> Option<Meaning> {
        match scope.pipe(pipe) {
            Ok(meaning) => Some(meaning),
            Err(no) => {
                self.no(pipe.pos, &no.construct, &no.why);
                None
            }
        }
    }

    fn list(&mut self, list: &ListNode, scope: &mut Scope) {
        let outer = scope.variables.len();
        for (i, node) in list.nodes.iter().enumerate() {
            let last = i + 1 == list.nodes.len();
            self.node(node, scope, last);
        }
        scope.variables.truncate(outer);
    }

    fn node(&mut self, node: &Node, scope: &mut Scope, last: bool) {
        match node {
            Node::Text(text) if text.text.ends_with('\\') && !last => {
                self.no(text.pos, "a backslash before `{{`", "handlebars takes it for an escape");
            }
            Node::Text(text) => self.out.push_str(&text.text.replace("{{", "\\{{")),
            Node::Action(action) if action.pipe.decl.is_empty() => {
                if let Some(meaning) = self.meaning(&action.pipe, scope) {
                    self.tag(&meaning.printed());
                }
            }
            Node::Action(action) => self.declare(&action.pipe, scope),
            Node::If(branch) => {
                self.tag("{{#if ");
                self.branch(branch, scope);
                self.tag("{{/if}}");
            }
            Node::With(branch) => self.with(branch, scope),
            Node::Range(branch) => self.range(branch, scope),
            Node::Template(call) => self.template(call, scope),
            Node::List(list) => self.list(list, scope),
            Node::Break(pos) => self.no(*pos, "{{break}}", "`each` always runs to the end"),
            Node::Continue(pos) => self.no(*pos, "{{continue}}", "put the rest into an `if`"),
            Node::Define(_) => {}
        }
    }

    /// Remembers a variable; where it is used its expression is written.
    fn declare(&mut self, pipe: &PipeNode, scope: &mut Scope) {
        if pipe.is_assign {
            let why = "handlebars has no variables that change; compute the value where it is used";
            return self.no(pipe.pos, "a variable that is set again", why);
        }
        if let (Some(name), Some(meaning)) = (pipe.decl.first(), self.meaning(pipe, scope)) {
            scope.declare(name, meaning);
        }
    }

    /// The condition, the body, and what follows `else`.
    fn branch(&mut self, branch: &BranchNode, scope: &mut Scope) {
        let outer = scope.variables.len();
        if let Some(meaning) = self.condition(&branch.pipe, scope) {
            self.out.push_str(&meaning.argument());
        }
        self.out.push_str("}}");
        if let (Some(name), Ok(meaning)) = (branch.pipe.decl.first(), scope.pipe(&branch.pipe)) {
            scope.declare(name, meaning);
        }
        self.list(&branch.body, scope);
        if let Some(list) = &branch.else_body {
            match list.nodes.as_slice() {
                [Node::If(next)] => {
                    self.tag("{{else if ");
                    self.branch(next, scope);
                }
                _ => {
                    self.tag("{{else}}");
                    self.list(list, scope);
                }
            }
        }
        scope.variables.truncate(outer);
    }

    fn condition(&mut self, pipe: &PipeNode, scope: &Scope) -> Option<Meaning> {
        match scope.condition(pipe) {
            Ok(meaning) => Some(meaning),
            Err(no) => {
                self.no(pipe.pos, &no.construct, &no.why);
                None
            }
        }
    }

    fn with(&mut self, branch: &BranchNode, scope: &mut Scope) {
        let Some(meaning) = self.meaning(&branch.pipe, scope) else { return };
        let outer = scope.variables.len();
        self.tag(&format!("{{{{#with {}}}}}", meaning.argument()));
        scope.enter(meaning.kind);
        if let Some(name) = branch.pipe.decl.first() {
            scope.declare(name, Meaning::dot(meaning.kind, scope.depth()));
        }
        self.list(&branch.body, scope);
        scope.leave();
        scope.variables.truncate(outer);
        if branch.else_body.is_none() {
            // Strict handlebars wants to be told that nothing is to be written.
            self.tag("{{else}}");
        }
        self.otherwise(branch, scope);
        self.tag("{{/with}}");
    }

    fn otherwise(&mut self, branch: &BranchNode, scope: &mut Scope) {
        if let Some(list) = &branch.else_body {
            self.tag("{{else}}");
            self.list(list, scope);
        }
    }

    fn range(&mut self, branch: &BranchNode, scope: &mut Scope) {
        if branch.pipe.is_assign {
            return self.no(branch.pos, "`range` that sets outer variables", "handlebars has none");
        }
        let Some(meaning) = self.meaning(&branch.pipe, scope) else { return };
        if meaning.is_number() {
            return self.no(branch.pos, "`range` over a number", "write `{{#each (seq 0 N)}}`");
        }
        let outer = scope.variables.len();
        let names: Vec<String> =
            branch.pipe.decl.iter().map(|name| scope.fresh(name.trim_start_matches('$'))).collect();
        let params = match names.as_slice() {
            [] => String::new(),
            [item] => format!(" as |{item}|"),
            [index, item, ..] => format!(" as |{item} {index}|"),
        };
        self.tag(&format!("{{{{#each {}{params}}}}}", meaning.argument()));
        scope.enter(meaning.kind.element());
        for (i, (name, param)) in branch.pipe.decl.iter().zip(&names).enumerate() {
            let is_item = i + 1 == names.len();
            let kind = if is_item { meaning.kind.element() } else { Kind::Other };
            scope.declare(name, Meaning::parameter(param, kind));
        }
        self.list(&branch.body, scope);
        scope.leave();
        scope.variables.truncate(outer);
        self.otherwise(branch, scope);
        self.tag("{{/each}}");
    }

    fn template(&mut self, call: &TemplateNode, scope: &Scope) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if !call.name.chars().all(plain) {
            return self.no(call.pos, "the name of a template", "use letters, digits, `_` and `-`");
        }
        let argument = match &call.pipe {
            None => String::new(),
            Some(pipe) => match self.meaning(pipe, scope) {
                Some(meaning) => format!(" {}", meaning.argument()),
                None => return,
            },
        };
        self.tag(&format!("{{{{> {}{argument}}}}}", call.name));
    }
}

#[cfg(test)]
mod tests;
