//! The parser of Go templates: lexemes to trees.
//!
//! It reads from front to back and stops at the first error that Go would report, so that the first
//! mistake is reported. Names of functions and variables are resolved here, as in Go. Nesting is
//! bounded, so that no template exhausts the stack.

mod definitions;

use std::collections::BTreeMap;

use super::builtins;
use super::lex::{KEYWORDS, Lexeme, LexemeKind, lex};
use super::syntax_error::{Parsed, SyntaxError, fault};
use super::tree::{BranchNode, Callee, GoNode, Name};
use crate::template::error::place;
use crate::template::functions::{self, Fault};

/// How deep blocks and parentheses may be nested.
const MAX_NESTING: usize = 1000;

/// Where a pipeline is, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    Command,
    /// `if`, `with`, `range`, `block`
    Block(&'static str),
    TemplateClause,
    Parentheses,
}

impl Context {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Block(word) => word,
            Self::TemplateClause => "template clause",
            Self::Parentheses => "parenthesized pipeline",
        }
    }
}

/// The bodies of a file by name: that of the file itself, and those it defines.
pub(super) type Definitions = BTreeMap<Vec<u8>, Vec<GoNode>>;

/// Reads a template that is called `name`.
///
/// # Errors
/// The first mistake.
pub(super) fn parse(name: &[u8], source: &[u8]) -> Parsed<Definitions> {
    let (lexemes, wrong) = lex(source);
    let mut parser = Parser {
        source,
        lexemes,
        wrong,
        next: 0,
        scope: VariableScope::default(),
        open: Vec::new(),
        nesting: 0,
        definitions: BTreeMap::new(),
    };
    let body = parser.top()?;
    parser.define(name.to_owned(), body, source.len())?;
    Ok(parser.definitions)
}

/// The variables in scope at a position; each definition has its own.
#[derive(Debug)]
pub(super) struct VariableScope {
    pub(super) variables: Vec<Name>,
    loops: usize,
}

impl Default for VariableScope {
    fn default() -> Self {
        Self { variables: vec!["$".into()], loops: 0 }
    }
}

pub(super) struct Parser<'s> {
    source: &'s [u8],
    lexemes: Vec<Lexeme<'s>>,
    /// What ended the lexemes before the end of the source.
    wrong: Option<SyntaxError>,
    next: usize,
    pub(super) scope: VariableScope,
    /// The blocks that have no `end` yet: keyword and place.
    open: Vec<(&'static str, usize)>,
    nesting: usize,
    definitions: Definitions,
}

/// What ended a body, and where.
enum BodyEnd {
    Else(usize),
    End(usize),
}

/// The role of an action in the block that contains it.
enum BlockItem {
    Node(GoNode),
    Else(usize),
    End(usize),
}

impl<'s> Parser<'s> {
    /// The next lexeme, which stays.
    pub(super) fn peek(&self) -> Parsed<Lexeme<'s>> {
        match (self.lexemes.get(self.next), &self.wrong) {
            (Some(lexeme), _) => Ok(*lexeme),
            (None, Some(wrong)) => Err(wrong.clone()),
            (None, None) => Ok(Lexeme { kind: LexemeKind::Eof, at: self.source.len(), text: b"" }),
        }
    }

    pub(super) fn take(&mut self) -> Parsed<Lexeme<'s>> {
        let lexeme = self.peek()?;
        self.next += 1;
        Ok(lexeme)
    }

    /// Puts the last lexeme back.
    pub(super) fn back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    /// A position to return to with [`Self::go_back_to`].
    pub(super) fn next_place(&self) -> usize {
        self.next
    }

    pub(super) fn go_back_to(&mut self, place: usize) {
        self.next = place;
    }

    pub(super) fn peek_behind_space(&mut self) -> Parsed<Lexeme<'s>> {
        while self.peek()?.kind == LexemeKind::Space {
            self.next += 1;
        }
        self.peek()
    }

    pub(super) fn take_behind_space(&mut self) -> Parsed<Lexeme<'s>> {
        self.peek_behind_space()?;
        self.take()
    }

    /// Runs `work` one level deeper, within the limit.
    pub(super) fn deeper<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            let what = format!("blocks and parentheses are nested more than {MAX_NESTING} deep");
            return fault(at, what, "split the template with {{define}} and {{template}}");
        }
        self.nesting += 1;
        let done = work(self);
        self.nesting -= 1;
        done
    }

    /// The outermost body; definitions are allowed nowhere else.
    fn top(&mut self) -> Parsed<Vec<GoNode>> {
        let mut body = Vec::new();
        loop {
            let lexeme = self.peek()?;
            match lexeme.kind {
                LexemeKind::Eof => return Ok(body),
                LexemeKind::LeftDelim => {
                    let place = self.next_place();
                    self.take()?;
                    let word = self.take_behind_space()?;
                    if word.kind == LexemeKind::Keyword && word.name() == "define" {
                        self.definition(lexeme.at)?;
                        continue;
                    }
                    self.go_back_to(place);
                }
                _ => {}
            }
            match self.item()? {
                BlockItem::Node(node) => body.push(node),
                BlockItem::Else(at) => {
                    return fault(at, "{{else}} outside `if`, `range` or `with`", "remove it");
                }
                BlockItem::End(at) => {
                    let remedy = "remove it, or add the `if`, `range` or `with` it belongs to";
                    return fault(at, "{{end}} without a block to end", remedy);
                }
            }
        }
    }

    /// Text or an action.
    fn item(&mut self) -> Parsed<BlockItem> {
        let first = self.take()?;
        match first.kind {
            LexemeKind::Text => {
                return Ok(BlockItem::Node(GoNode::Text(first.at, first.text.to_owned())));
            }
            LexemeKind::LeftDelim => {}
            _ => return Err(unexpected(&first, "input")),
        }
        let word = self.peek_behind_space()?;
        if word.kind == LexemeKind::Keyword {
            self.take()?;
            return self.keyword(word, first.at);
        }
        let pipe = self.pipeline(Context::Command, LexemeKind::RightDelim)?;
        Ok(BlockItem::Node(GoNode::Action(pipe)))
    }

    fn keyword(&mut self, word: Lexeme<'s>, open: usize) -> Parsed<BlockItem> {
        let at = word.at;
        let node = match word.name() {
            "if" => GoNode::If(self.branch("if", open, at)?),
            "with" => GoNode::With(self.branch("with", open, at)?),
            "range" => GoNode::Range(self.branch("range", open, at)?),
            "template" => GoNode::Template(self.template(at)?),
            "block" => GoNode::Template(self.block(open, at)?),
            "break" => self.jump(word, GoNode::Break)?,
            "continue" => self.jump(word, GoNode::Continue)?,
            "else" => return self.otherwise(open),
            "end" => {
                self.close("end")?;
                return Ok(BlockItem::End(open));
            }
            "define" => {
                let what = "{{define}} inside another block";
                return fault(open, what, "move it to the end of the file");
            }
            _ => {
                self.back();
                GoNode::Action(self.pipeline(Context::Command, LexemeKind::RightDelim)?)
            }
        };
        Ok(BlockItem::Node(node))
    }

    /// The closing braces, and nothing before them.
    fn close(&mut self, context: &str) -> Parsed<()> {
        let lexeme = self.take_behind_space()?;
        match lexeme.kind {
            LexemeKind::RightDelim => Ok(()),
            _ => Err(unexpected(&lexeme, context)),
        }
    }

    fn jump(&mut self, word: Lexeme<'s>, node: GoNode) -> Parsed<GoNode> {
        let name = word.name();
        self.close(&format!("{{{{{name}}}}}"))?;
        if self.scope.loops == 0 {
            return fault(word.at, format!("{{{{{name}}}}} outside {{{{range}}}}"), "remove it");
        }
        Ok(node)
    }

    /// Behind `else`: its braces, or the `if` or `with` that continues the block.
    fn otherwise(&mut self, open: usize) -> Parsed<BlockItem> {
        let next = self.peek_behind_space()?;
        let chains = next.kind == LexemeKind::Keyword && matches!(next.name(), "if" | "with");
        if !chains {
            self.close("else")?;
        }
        Ok(BlockItem::Else(open))
    }

    /// A body up to its `end` or `else`, and which it was.
    fn body(&mut self) -> Parsed<(Vec<GoNode>, BodyEnd)> {
        let mut body = Vec::new();
        loop {
            if self.peek_behind_space()?.kind == LexemeKind::Eof {
                return Err(self.unclosed());
            }
            match self.item()? {
                BlockItem::Node(node) => body.push(node),
                BlockItem::Else(at) => return Ok((body, BodyEnd::Else(at))),
                BlockItem::End(at) => return Ok((body, BodyEnd::End(at))),
            }
        }
    }

    fn unclosed(&self) -> SyntaxError {
        let (word, at) = self.open.last().copied().unwrap_or(("if", 0));
        let (line, _) = place(self.source, at);
        let what = format!("the {{{{{word}}}}} of line {line} has no {{{{end}}}}");
        SyntaxError { at, fault: Fault::new(what, "add the missing {{end}}") }
    }

    /// `if`, `with` and `range` behind their keyword; their variables end with them.
    fn branch(&mut self, word: &'static str, open: usize, at: usize) -> Parsed<BranchNode> {
        self.open.push((word, open));
        let outer = self.scope.variables.len();
        let branch = self.deeper(at, |parser| parser.branch_inside(word, open, at))?;
        self.scope.variables.truncate(outer);
        self.open.pop();
        Ok(branch)
    }

    fn branch_inside(&mut self, word: &'static str, open: usize, at: usize) -> Parsed<BranchNode> {
        let is_loop = usize::from(word == "range");
        let pipe = self.pipeline(Context::Block(word), LexemeKind::RightDelim)?;
        self.scope.loops += is_loop;
        let (body, ended) = self.body()?;
        self.scope.loops -= is_loop;
        if let BodyEnd::End(_) = ended {
            return Ok(BranchNode { at, pipe, body, otherwise: None });
        }
        let next = self.peek()?;
        let chained = next.kind == LexemeKind::Keyword && next.name() == word && is_loop == 0;
        if chained {
            // One `end` is for both.
            self.take()?;
            let inner = self.branch(word, open, next.at)?;
            let inner = if word == "if" { GoNode::If(inner) } else { GoNode::With(inner) };
            return Ok(BranchNode { at, pipe, body, otherwise: Some(vec![inner]) });
        }
        if next.kind == LexemeKind::Keyword && matches!(next.name(), "if" | "with") {
            let what = format!("{{{{else {}}}}} in {{{{{word}}}}}", next.name());
            let remedy = "`else if` belongs to `if` and `else with` to `with`; here write `{{else}}` and a block of its own";
            return fault(next.at, what, remedy);
        }
        let (otherwise, ended) = self.body()?;
        if let BodyEnd::Else(second) = ended {
            let what = format!("a second {{{{else}}}} in one {{{{{word}}}}}");
            return fault(second, what, "is an {{end}} missing before it?");
        }
        Ok(BranchNode { at, pipe, body, otherwise: Some(otherwise) })
    }
}

/// Resolves the name of a function.
///
/// # Errors
/// An unknown name, with the most similar one.
pub(super) fn callee(name: &str, at: usize) -> Parsed<Callee> {
    match name {
        "and" => return Ok(Callee::And),
        "or" => return Ok(Callee::Or),
        "include" => return Ok(Callee::Include),
        _ => {}
    }
    let mut known = functions::all().chain(builtins::FUNCTIONS);
    if let Some(function) = known.find(|function| function.name == name) {
        return Ok(Callee::Known(function));
    }
    let names = functions::all().chain(builtins::FUNCTIONS).map(|function| function.name);
    let remedy = match functions::nearest(name, names.chain(KEYWORDS)) {
        _ if name.starts_with("cget") => {
            "encrypted values are not supported; store them readable, behind etcd's roles".into()
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => "docs/confd.md lists what there is".into(),
    };
    fault(at, format!("function \"{name}\" not defined"), remedy)
}

/// The error for a lexeme that is not allowed here.
pub(super) fn unexpected(lexeme: &Lexeme<'_>, context: &str) -> SyntaxError {
    let text = String::from_utf8_lossy(lexeme.text);
    let shown = match lexeme.kind {
        LexemeKind::Eof => "the end of the file".to_owned(),
        LexemeKind::Keyword => format!("<{text}>"),
        _ => format!("{:?}", text.chars().take(20).collect::<String>()),
    };
    let remedy = match (lexeme.kind, &*text) {
        (LexemeKind::Keyword, _) => "a keyword must come first in its braces",
        (LexemeKind::Char, ",") => "arguments have spaces between them, no commas",
        (LexemeKind::Char, "&") => "write `and (…) (…)`",
        (LexemeKind::Char, "!") => "write `not (…)` or `ne … …`",
        (LexemeKind::Char, "<" | ">") => "write `lt … …`, `le`, `gt` or `ge`",
        (LexemeKind::Char, "*" | "%") => "write `mul … …`, `div … …` or `mod … …`",
        (LexemeKind::Char, "{" | "}") => "an action ends with `}}`; text needs double quotes",
        (LexemeKind::Char, _) => "text, such as a key, needs double quotes",
        (LexemeKind::Assign, _) => "to compare write `eq … …`; a variable is declared with `:=`",
        (LexemeKind::Declare, _) => "a variable must come first: `$x := …`, or `range $i, $x := …`",
        (LexemeKind::RightParen | LexemeKind::RightDelim | LexemeKind::Pipe, _) => {
            "a value is missing before it"
        }
        _ => "is a space missing before it, or a pair of parentheses?",
    };
    let fault = Fault::new(format!("unexpected {shown} in {context}"), remedy);
    SyntaxError { at: lexeme.at, fault }
}
