//! Evaluates the expressions of a Go template.

use super::exec::Exec;
use super::literal::IdealNumber;
use super::tree::{Callee, CommandNode, Name, Operand, OperandKind, PipeNode};
use crate::template::error::TemplateError;
use crate::template::functions::{Fault, Function, Ty};
use crate::template::runes::to_str;
use crate::template::value::{Elem, Value};

type Evaluated = Result<Value, TemplateError>;

impl Exec<'_> {
    /// A pipeline, and the variables it declares or sets.
    pub(super) fn pipe(&mut self, dot: &Value, pipe: &PipeNode) -> Evaluated {
        let value = self.commands(dot, pipe)?;
        self.set(pipe, &value)?;
        Ok(value)
    }

    /// A pipeline without its variables.
    pub(super) fn commands(&mut self, dot: &Value, pipe: &PipeNode) -> Evaluated {
        let mut piped = None;
        for command in &pipe.commands {
            piped = Some(self.command(dot, command, piped)?.or_absent());
        }
        Ok(piped.unwrap_or(Value::Absent))
    }

    fn command(&mut self, dot: &Value, command: &CommandNode, piped: Option<Value>) -> Evaluated {
        let CommandNode { first, arguments: args } = command;
        let at = first.at;
        match &first.kind {
            OperandKind::Function(callee) => self.function(dot, at, *callee, args, piped),
            OperandKind::Field(fields) => self.fields(dot, dot.clone(), at, fields, args, piped),
            OperandKind::Chain(inner, fields) => {
                let value = self.argument(dot, Ty::Raw, inner)?;
                self.fields(dot, value, at, fields, args, piped)
            }
            OperandKind::Variable(name, fields) if !fields.is_empty() => {
                let value = self.variable(at, name)?;
                self.fields(dot, value, at, fields, args, piped)
            }
            other if !args.is_empty() || piped.is_some() => {
                let fault = format!("can't give argument to non-function {other}");
                let remedy =
                    "the function comes first: `function argument`, or `argument | function`";
                Err(self.stop(at, Fault::new(fault, remedy)))
            }
            OperandKind::Nil => Err(self.stop(at, "nil is not a command")),
            _ => self.argument(dot, Ty::Raw, first),
        }
    }

    fn variable(&self, at: usize, name: &Name) -> Evaluated {
        let found = self.vars.iter().rev().find(|(known, _)| known == name);
        let value = found.map(|(_, value)| value.clone());
        value.ok_or_else(|| self.stop(at, format!("undefined variable: {name}")))
    }

    /// `.a.b.c` on a value; only the last may be a method with arguments.
    fn fields(
        &mut self,
        dot: &Value,
        mut value: Value,
        at: usize,
        fields: &[Name],
        args: &[Operand],
        piped: Option<Value>,
    ) -> Evaluated {
        let Some((last, front)) = fields.split_last() else { return Ok(value) };
        for field in front {
            value = match value {
                Value::Time(time) => self.moment(dot, at, (time, field), &[], None)?,
                value => self.field(at, &value, field)?,
            };
        }
        if matches!(value, Value::Absent) {
            // Nothing has every field; what it would be called with is not looked at.
            return Ok(Value::Absent);
        }
        if let Value::Time(time) = value {
            return self.moment(dot, at, (time, last), args, piped);
        }
        if !args.is_empty() || piped.is_some() {
            let fault = format!("{last} has arguments but cannot be invoked as function");
            return Err(self.stop(at, fault));
        }
        self.field(at, &value, last)
    }

    fn field(&self, at: usize, value: &Value, name: &str) -> Evaluated {
        let found = match value {
            Value::Absent => Some(Value::Absent),
            Value::Map(map) => {
                Some(map.entries().get(name.as_bytes()).cloned().unwrap_or(Value::Absent))
            }
            Value::Record(record) => record.field(name).cloned(),
            Value::List(list) if list.elem == Elem::Pairs && name == "Len" => {
                Some(Value::Int(list.items().len() as i64))
            }
            Value::Nil => {
                let fault = format!("nil pointer evaluating interface {{}}.{name}");
                return Err(
                    self.stop(at, Fault::new(fault, "the value is null; test it with `if` first"))
                );
            }
            _ => None,
        };
        found.ok_or_else(|| {
            let fault = format!("can't evaluate field {name} in type {}", value.type_name());
            let remedy = match value {
                Value::Str(_) if matches!(name, "Key" | "Value") => {
                    "`getvs` and `ls` give plain text, so write `.`; for `.Key` and `.Value` use `gets`"
                }
                Value::Str(_) => "text has no fields; to read JSON use `json`",
                Value::Record(_) => "a pair has `.Key` and `.Value`; to read JSON use `json .Value`",
                Value::List(_) => "a list has no fields; use `range` or `index`",
                _ => "inside `range` and `with` the dot is another; `$` is the outermost",
            };
            self.stop(at, Fault::new(fault, remedy))
        })
    }

    fn function(
        &mut self,
        dot: &Value,
        at: usize,
        callee: Callee,
        args: &[Operand],
        piped: Option<Value>,
    ) -> Evaluated {
        let known = match callee {
            Callee::And => return self.and_or(dot, at, false, args, piped),
            Callee::Or => return self.and_or(dot, at, true, args, piped),
            Callee::Include => return self.include(dot, at, args, piped),
            Callee::Known(known) => known,
        };
        let values = self.arguments(dot, at, known, args, piped)?;
        let made = (known.call)(&self.call, &values).and_then(|value| {
            self.budget().made(&value)?;
            Ok(value)
        });
        made.map_err(|fault| {
            self.stop(at, Fault { what: called(known.name, &values, &fault.what), ..fault })
        })
    }

    fn arguments(
        &mut self,
        dot: &Value,
        at: usize,
        known: &Function,
        args: &[Operand],
        piped: Option<Value>,
    ) -> Result<Vec<Value>, TemplateError> {
        let count = args.len() + usize::from(piped.is_some());
        let fixed = known.params.len();
        if count < fixed || (count > fixed && known.rest.is_none()) {
            let least = if known.rest.is_some() { "at least " } else { "" };
            let fault =
                format!("wrong number of args for {}: want {least}{fixed} got {count}", known.name);
            let calls = |arg: &Operand| matches!(arg.kind, OperandKind::Function(_));
            let mut help = signature(known);
            // `eq getv "/a" "x"`: each word is an argument of `eq`.
            if count == 0 {
                help = format!("{help}; as an argument it needs parentheses: `({} …)`", known.name);
            } else if args.iter().any(calls) {
                help = format!(
                    "{help}; a call that is an argument needs parentheses: `{} (getv \"/key\")`",
                    known.name
                );
            }
            return Err(self.stop(at, Fault::new(fault, help)));
        }
        let ty = |i: usize| known.params.get(i).copied().or(known.rest).unwrap_or(Ty::Raw);
        let mut values = Vec::with_capacity(count);
        for (i, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, ty(i), arg)?);
        }
        if let Some(piped) = piped {
            let value = ty(args.len()).accept(piped);
            values.push(value.map_err(|fault| {
                self.stop(at, Fault { what: format!("{}: {}", known.name, fault.what), ..fault })
            })?);
        }
        Ok(values)
    }

    /// `and` and `or` stop at the first argument that decides.
    fn and_or(
        &mut self,
        dot: &Value,
        at: usize,
        or: bool,
        args: &[Operand],
        piped: Option<Value>,
    ) -> Evaluated {
        let mut value = None;
        for arg in args {
            let one = self.argument(dot, Ty::Raw, arg)?;
            if one.is_true() == or {
                return Ok(one);
            }
            value = Some(one);
        }
        let word = if or { "or" } else { "and" };
        piped.or(value).ok_or_else(|| {
            self.stop(at, format!("wrong number of args for {word}: want at least 1 got 0"))
        })
    }

    /// An argument, as the type of its parameter wants it.
    pub(super) fn argument(&mut self, dot: &Value, ty: Ty, operand: &Operand) -> Evaluated {
        let at = operand.at;
        let value = match &operand.kind {
            OperandKind::Dot => dot.clone(),
            OperandKind::Field(fields) => self.fields(dot, dot.clone(), at, fields, &[], None)?,
            OperandKind::Variable(name, fields) => {
                let value = self.variable(at, name)?;
                self.fields(dot, value, at, fields, &[], None)?
            }
            OperandKind::Function(callee) => self.function(dot, at, *callee, &[], None)?,
            OperandKind::Parenthesized(pipe) => self.nested_pipe(dot, at, pipe)?,
            OperandKind::Chain(inner, fields) => {
                let value = self.argument(dot, Ty::Raw, inner)?;
                self.fields(dot, value, at, fields, &[], None)?
            }
            literal => return self.literal(ty, at, literal),
        };
        ty.accept(value).map_err(|fault| self.stop(at, fault))
    }

    /// In parentheses; a variable declared there lives on in the block.
    fn nested_pipe(&mut self, dot: &Value, at: usize, pipe: &PipeNode) -> Evaluated {
        self.budget().steps(1).map_err(|fault| self.stop(at, fault))?;
        self.pipe(dot, pipe)
    }

    fn literal(&self, ty: Ty, at: usize, literal: &OperandKind) -> Evaluated {
        let any = matches!(ty, Ty::Any | Ty::Raw);
        match (literal, ty) {
            (OperandKind::Text(text), Ty::Str | Ty::Any | Ty::Raw) => Ok(Value::Str(text.clone())),
            (OperandKind::Bool(b), Ty::Bool | Ty::Any | Ty::Raw) => Ok(Value::Bool(*b)),
            (OperandKind::Number(number), Ty::Int) if number.int().is_some() => {
                Ok(Value::Int(number.int().unwrap_or_default()))
            }
            (OperandKind::Number(number), _) if any => match number.ideal() {
                IdealNumber::Int(n) => Ok(Value::Int(n)),
                IdealNumber::Float(f) => Ok(Value::Float(f)),
                IdealNumber::Overflows => Err(self.stop(at, format!("{number} overflows int"))),
            },
            (OperandKind::Nil, Ty::Any) => Ok(Value::Nil),
            (OperandKind::Nil, Ty::Str | Ty::Int | Ty::Bool) => {
                Err(self.stop(at, format!("cannot assign nil to {}", ty.name())))
            }
            (OperandKind::Nil, _) => ty.accept(Value::Absent).map_err(|fault| self.stop(at, fault)),
            _ => {
                let what = format!("expected {}; found {literal}", ty.name());
                Err(self.stop(at, Fault::new(what, "give it a value of that type")))
            }
        }
    }
}

/// `getv "/a": …`: the call with its first text, which is the key if it has one.
fn called(name: &str, args: &[Value], what: &str) -> String {
    match args.first() {
        Some(Value::Str(s)) => {
            let short: String = to_str(s).chars().take(80).collect();
            format!("{name} {short:?}: {what}")
        }
        _ => format!("{name}: {what}"),
    }
}

fn signature(function: &Function) -> String {
    let params = function.params.iter().map(|ty| ty.name().to_owned());
    let rest = function.rest.map(|ty| format!("{}…", ty.name()));
    let all: Vec<String> = params.chain(rest).collect();
    format!("it is `{} {}`", function.name, all.join(" ")).trim_end().to_owned()
}
