//! Expressions: Go's prefix calls, pipes, fields and variables as helpers and paths.

use gotmpl::parse::{CommandNode, Expr, Number, PipeNode, SmolStr};

use crate::template::go;

/// What is known of a value: whether its fields are named in lower case here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `{Key, Value}` or a service record.
    Record,
    /// A list of them.
    Records,
    /// What a `template` call hands over: a pair, as far as its fields look like one.
    Given,
    Other,
}

impl Kind {
    pub(super) fn element(self) -> Self {
        if self == Self::Records { Self::Record } else { Self::Other }
    }
}

/// Why there is no handlebars for something.
#[derive(Debug)]
pub(super) struct No {
    pub(super) construct: String,
    pub(super) why: String,
}

fn no<T>(construct: impl Into<String>, why: &str) -> Result<T, No> {
    Err(No { construct: construct.into(), why: why.into() })
}

/// An expression in handlebars.
#[derive(Debug, Clone)]
pub(super) struct Meaning {
    form: Form,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
enum Form {
    /// A path from a context: how deep that context is, and the fields.
    Path {
        depth: usize,
        fields: Vec<String>,
    },
    /// The name of a block's parameter, and fields of it.
    Parameter(Vec<String>),
    Text(String),
    Number(String),
    Bool(bool),
    /// A helper with its arguments, each ready to be one.
    Call(String, Vec<Meaning>),
}

impl Meaning {
    pub(super) fn dot(kind: Kind, depth: usize) -> Self {
        Self { form: Form::Path { depth, fields: Vec::new() }, kind }
    }

    pub(super) fn parameter(name: &str, kind: Kind) -> Self {
        Self { form: Form::Parameter(vec![name.to_owned()]), kind }
    }

    fn call(name: &str, args: Vec<Self>, kind: Kind) -> Self {
        Self { form: Form::Call(name.to_owned(), args), kind }
    }

    fn text(text: &str) -> Self {
        Self { form: Form::Text(text.to_owned()), kind: Kind::Other }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self.form, Form::Number(_))
    }

    /// Written as an argument of a helper or a block.
    pub(super) fn argument(&self) -> String {
        match &self.form {
            Form::Call(name, args) => format!("({})", written(name, args)),
            Form::Path { fields, .. } if fields.is_empty() => "this".into(),
            Form::Path { fields, .. } | Form::Parameter(fields) => fields.join("."),
            Form::Text(text) => quoted(text),
            Form::Number(digits) => digits.clone(),
            Form::Bool(b) => b.to_string(),
        }
    }

    /// Written as an action.
    pub(super) fn printed(&self) -> String {
        match &self.form {
            Form::Call(name, args) => format!("{{{{{}}}}}", written(name, args)),
            Form::Text(text) => text.replace("{{", "\\{{"),
            Form::Number(digits) => digits.clone(),
            Form::Bool(b) => b.to_string(),
            _ => format!("{{{{{}}}}}", self.argument()),
        }
    }

    /// The same, seen from a deeper context.
    fn seen_from(&self, depth: usize) -> Self {
        let form = match &self.form {
            Form::Path { depth: own, fields } if *own < depth => {
                let up = "../".repeat(depth - own);
                let mut fields = fields.clone();
                match fields.first_mut() {
                    Some(first) => *first = format!("{up}{first}"),
                    None => fields.push(format!("{up}this")),
                }
                Form::Path { depth, fields }
            }
            Form::Call(name, args) => {
                Form::Call(name.clone(), args.iter().map(|arg| arg.seen_from(depth)).collect())
            }
            other => other.clone(),
        };
        Self { form, kind: self.kind }
    }

    fn field(self, name: &str) -> Self {
        let lower = match self.kind {
            Kind::Record => true,
            Kind::Given => matches!(name, "Key" | "Value"),
            _ => false,
        };
        let name = if lower { name.to_lowercase() } else { name.to_owned() };
        let form = match self.form {
            Form::Path { depth, mut fields } => {
                fields.push(name);
                Form::Path { depth, fields }
            }
            Form::Parameter(mut fields) => {
                fields.push(name);
                Form::Parameter(fields)
            }
            form => {
                let whole = Self { form, kind: self.kind };
                return Self::call("lookup", vec![whole, Self::text(&name)], Kind::Other);
            }
        };
        Self { form, kind: Kind::Other }
    }
}

fn written(name: &str, args: &[Meaning]) -> String {
    let mut words = vec![name.to_owned()];
    words.extend(args.iter().map(Meaning::argument));
    words.join(" ")
}

/// A string literal of handlebars, which is one of JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The variables and contexts of a place.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) variables: Vec<(SmolStr, Meaning)>,
    contexts: Vec<Kind>,
    partial: bool,
}

impl Scope {
    pub(super) fn new() -> Self {
        Self { variables: Vec::new(), contexts: vec![Kind::Other], partial: false }
    }

    /// The body of a `define`, whose dot is what the call gives it.
    pub(super) fn of_define() -> Self {
        Self { variables: Vec::new(), contexts: vec![Kind::Given], partial: true }
    }

    pub(super) fn depth(&self) -> usize {
        self.contexts.len()
    }

    pub(super) fn enter(&mut self, kind: Kind) {
        self.contexts.push(kind);
    }

    pub(super) fn leave(&mut self) {
        self.contexts.pop();
    }

    pub(super) fn declare(&mut self, name: &SmolStr, meaning: Meaning) {
        self.variables.push((name.clone(), meaning));
    }

    /// A name for a block's parameter that hides no other.
    pub(super) fn fresh(&self, name: &str) -> String {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = if plain.is_empty() { "item".to_owned() } else { plain };
        let used = |name: &str| {
            let same = |m: &Meaning| matches!(&m.form, Form::Parameter(f) if f.first().is_some_and(|f| f == name));
            self.variables.iter().any(|(_, meaning)| same(meaning))
        };
        let numbered = (2..).map(|n| format!("{name}{n}"));
        std::iter::once(name.clone()).chain(numbered).find(|n| !used(n)).unwrap_or(name)
    }

    fn dot(&self) -> Meaning {
        Meaning::dot(self.contexts.last().copied().unwrap_or(Kind::Other), self.depth())
    }

    /// A pipeline: each stage is the last argument of the next.
    pub(super) fn pipe(&self, pipe: &PipeNode) -> Result<Meaning, No> {
        let mut piped = None;
        for command in &pipe.commands {
            piped = Some(self.command(command, piped, false)?);
        }
        piped.map_or_else(|| no("an empty pipeline", "it has no value"), Ok)
    }

    /// A pipeline that is only asked whether it is true.
    pub(super) fn condition(&self, pipe: &PipeNode) -> Result<Meaning, No> {
        match pipe.commands.as_slice() {
            [one] => self.command(one, None, true),
            _ => self.pipe(pipe),
        }
    }

    fn command(
        &self,
        command: &CommandNode,
        piped: Option<Meaning>,
        asked: bool,
    ) -> Result<Meaning, No> {
        let Some((first, rest)) = command.args.split_first() else {
            return no("an empty command", "it has no value");
        };
        if let (Expr::Chain(_, inner, fields), true) = (first, rest.len() == 1)
            && matches!(&**inner, Expr::Identifier(_, name) if name == "datetime")
            && fields.first().is_some_and(|f| f == "Format")
        {
            let layout = rest.iter().map(|arg| self.expr(arg)).collect::<Result<_, _>>()?;
            return Ok(Meaning::call("datetime", layout, Kind::Other));
        }
        let Expr::Identifier(_, name) = first else {
            if !rest.is_empty() || piped.is_some() {
                return no("a value with arguments", "only a function takes any");
            }
            return self.expr(first);
        };
        let mut args =
            rest.iter().map(|arg| self.argument(arg, asked)).collect::<Result<Vec<_>, _>>()?;
        args.extend(piped);
        call(name, args, asked)
    }

    /// An argument; those of `and`, `or`, `not` in a condition are asked as well.
    fn argument(&self, expr: &Expr, asked: bool) -> Result<Meaning, No> {
        match expr {
            Expr::Pipe(_, pipe) if asked => self.condition(pipe),
            other => self.expr(other),
        }
    }

    fn expr(&self, expr: &Expr) -> Result<Meaning, No> {
        let depth = self.depth();
        match expr {
            Expr::Dot(_) if depth == 1 && !self.partial => {
                no("the outermost `.`", "confd gives it no value")
            }
            Expr::Dot(_) => Ok(self.dot()),
            Expr::Field(_, fields) => Ok(walk(self.dot(), fields)),
            Expr::Variable(_, name, fields) if name == "$" && self.partial => {
                Ok(walk(Meaning::dot(Kind::Given, 1).seen_from(depth), fields))
            }
            Expr::Variable(_, name, _) if name == "$" => no("`$`", "confd gives it no value"),
            Expr::Variable(_, name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found {
                    Some((_, meaning)) => Ok(walk(meaning.seen_from(depth), fields)),
                    None => no(name.to_string(), "the variable could not be converted"),
                }
            }
            Expr::Identifier(_, name) => call(name, Vec::new(), false),
            Expr::String(_, text) => Ok(Meaning::text(&go::text(text))),
            Expr::Number(_, number) => {
                Ok(Meaning { form: Form::Number(digits(*number)), kind: Kind::Other })
            }
            Expr::Bool(_, b) => Ok(Meaning { form: Form::Bool(*b), kind: Kind::Other }),
            Expr::Nil(_) => no("nil", "test with `if` instead"),
            Expr::Pipe(_, pipe) if pipe.decl.is_empty() => self.pipe(pipe),
            Expr::Pipe(..) => no("a variable in parentheses", "declare it before"),
            Expr::Chain(_, inner, fields) => match &**inner {
                Expr::Identifier(_, name) if name == "datetime" => no(
                    format!("datetime.{}", fields.join(".")),
                    "write it with a layout: `(datetime \"2006\")`",
                ),
                inner => Ok(walk(self.expr(inner)?, fields)),
            },
        }
    }
}

fn walk(meaning: Meaning, fields: &[SmolStr]) -> Meaning {
    fields.iter().fold(meaning, |meaning, field| match (meaning.kind, field.as_str()) {
        (Kind::Records, "Len") => Meaning::call("len", vec![meaning], Kind::Other),
        _ => meaning.field(field),
    })
}

fn digits(number: Number) -> String {
    match number {
        Number::Int(n) => n.to_string(),
        Number::Uint(n) => n.to_string(),
        Number::Float(f) => f.to_string(),
    }
}

/// May fail where Go would not have looked.
fn risky(meaning: &Meaning) -> bool {
    match &meaning.form {
        Form::Call(name, args) => {
            matches!((name.as_str(), args.len()), ("get", _) | ("getv", 1) | ("index", _))
                || args.iter().any(risky)
        }
        _ => false,
    }
}

fn call(name: &str, mut args: Vec<Meaning>, asked: bool) -> Result<Meaning, No> {
    let kind = match (name, args.first().map(|a| a.kind)) {
        ("gets" | "lookupSRV", _) => Kind::Records,
        ("get", _) => Kind::Record,
        ("reverse" | "sortKVByLength" | "slice", Some(kind)) => kind,
        ("index", Some(kind)) => kind.element(),
        _ => Kind::Other,
    };
    if matches!(name, "and" | "or") && args.iter().skip(1).any(risky) {
        return no(
            format!("`{name}`"),
            "handlebars evaluates all of its arguments; nest `if`s instead",
        );
    }
    let name = match name {
        "include" => return no("`include`", "make the file a partial: `{{> name}}`"),
        "call" => return no("`call`", "there are no functions to call"),
        "printf" | "print"
            if args.len() == 1
                && matches!(args.first().map(|a| &a.form), Some(Form::Text(t)) if !t.contains('%')) =>
        {
            return Ok(args.remove(0));
        }
        "eq" if args.len() > 2 => {
            let first = args.remove(0);
            let equal = |other| Meaning::call("eq", vec![first.clone(), other], Kind::Other);
            return Ok(Meaning::call("or", args.into_iter().map(equal).collect(), Kind::Other));
        }
        // Go gives the value that decided, not a truth.
        "or" if !asked => return Ok(alternative(args)),
        "and" if !asked => return Ok(decided(args)),
        "le" => "lte",
        "ge" => "gte",
        "quote" => "goQuote",
        name => name,
    };
    Ok(Meaning::call(name, args, kind))
}

/// `or` as a value: the first that is true, else the last.
fn alternative(args: Vec<Meaning>) -> Meaning {
    let nest = |rest: Meaning, one: Meaning| Meaning::call("default", vec![rest, one], Kind::Other);
    let mut reversed = args.into_iter().rev();
    let last = reversed.next().unwrap_or_else(|| Meaning::text(""));
    reversed.fold(last, nest)
}

/// `and` as a value: the first that is not true, else the last.
fn decided(args: Vec<Meaning>) -> Meaning {
    let nest = |rest: Meaning, one: Meaning| {
        Meaning::call("ternary", vec![rest, one.clone(), one], Kind::Other)
    };
    let mut reversed = args.into_iter().rev();
    let last = reversed.next().unwrap_or_else(|| Meaning::text(""));
    reversed.fold(last, nest)
}
