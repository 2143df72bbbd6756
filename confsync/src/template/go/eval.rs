//! What an expression in a Go template is worth.

use std::borrow::Cow;

use gotmpl::parse::{CommandNode, Expr, Number, PipeNode, Pos, SmolStr};

use super::builtins;
use super::exec::Exec;
use super::literal;
use crate::template::error::TemplateError;
use crate::template::functions::{self, Fault, Function, Ty};
use crate::template::value::{Elem, Value};

type Evaluated = Result<Value, TemplateError>;

impl Exec<'_> {
    /// A pipeline, and the variables it declares or sets.
    pub(super) fn pipe(&mut self, dot: &Value, pipe: &PipeNode) -> Evaluated {
        let value = self.commands(dot, pipe)?;
        for name in &pipe.decl {
            if pipe.is_assign {
                self.assign(name, value.clone());
            } else {
                self.vars.push((name.clone(), value.clone()));
            }
        }
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
        let Some((first, args)) = command.args.split_first() else {
            return Ok(Value::Absent);
        };
        match first {
            Expr::Identifier(pos, name) => self.function(dot, *pos, name, args, piped),
            Expr::Field(pos, fields) => self.fields(dot, dot.clone(), *pos, fields, args, piped),
            Expr::Chain(pos, inner, fields) => {
                let value = self.argument(dot, Ty::Raw, inner)?;
                self.fields(dot, value, *pos, fields, args, piped)
            }
            Expr::Variable(pos, name, fields) if !fields.is_empty() => {
                let value = self.variable(*pos, name)?;
                self.fields(dot, value, *pos, fields, args, piped)
            }
            other if !args.is_empty() || piped.is_some() => {
                let fault = format!("can't give argument to non-function {}", shown(other));
                let remedy =
                    "the function comes first: `function argument`, or `argument | function`";
                Err(self.stop(other.pos(), Fault::new(fault, remedy)))
            }
            Expr::Nil(pos) => Err(self.stop(*pos, "nil is not a command")),
            other => self.argument(dot, Ty::Raw, other),
        }
    }

    fn variable(&self, pos: Pos, name: &SmolStr) -> Evaluated {
        let found = self.vars.iter().rev().find(|(known, _)| known == name);
        let value = found.map(|(_, value)| value.clone());
        value.ok_or_else(|| self.stop(pos, format!("undefined variable: {name}")))
    }

    /// `.a.b.c` on a value; only the last may be a method with arguments.
    fn fields(
        &mut self,
        dot: &Value,
        mut value: Value,
        pos: Pos,
        fields: &[SmolStr],
        args: &[Expr],
        piped: Option<Value>,
    ) -> Evaluated {
        let Some((last, front)) = fields.split_last() else { return Ok(value) };
        for field in front {
            value = self.field(pos, &value, field)?;
        }
        if let Value::Time(time) = &value
            && last == "Format"
        {
            let layout = match (args, piped) {
                ([arg], None) => self.argument(dot, Ty::Str, arg)?,
                ([], Some(piped)) => piped,
                _ => Value::Absent,
            };
            return match layout {
                Value::Str(layout) => Ok(Value::str(time.format(&layout))),
                _ => Err(self.stop(
                    pos,
                    Fault::new("Format needs one layout", "as in `datetime.Format \"2006-01-02\"`"),
                )),
            };
        }
        if !args.is_empty() || piped.is_some() {
            let fault = format!("{last} has arguments but cannot be invoked as function");
            return Err(self.stop(pos, fault));
        }
        self.field(pos, &value, last)
    }

    fn field(&self, pos: Pos, value: &Value, name: &str) -> Evaluated {
        let found = match value {
            Value::Absent => Some(Value::Absent),
            Value::Map(map) => Some(map.entries().get(name).cloned().unwrap_or(Value::Absent)),
            Value::Record(record) => record.field(name).cloned(),
            Value::List(list) if list.elem == Elem::Pair && name == "Len" => {
                Some(Value::Int(list.items().len() as i64))
            }
            Value::Time(time) => time_field(*time, name),
            Value::Nil => {
                let fault = format!("nil pointer evaluating interface {{}}.{name}");
                return Err(
                    self.stop(pos, Fault::new(fault, "the value is null; test it with `if` first"))
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
            self.stop(pos, Fault::new(fault, remedy))
        })
    }

    fn function(
        &mut self,
        dot: &Value,
        pos: Pos,
        name: &str,
        args: &[Expr],
        piped: Option<Value>,
    ) -> Evaluated {
        match name {
            "and" | "or" => return self.and_or(dot, pos, name == "or", args, piped),
            "include" => return self.include(dot, pos, args, piped),
            _ => {}
        }
        let known = functions::find(name)
            .or_else(|| builtins::FUNCTIONS.iter().find(|f| f.name == name))
            .ok_or_else(|| self.stop(pos, format!("\"{name}\" is not a defined function")))?;
        let values = self.arguments(dot, pos, known, args, piped)?;
        let made = (known.call)(&self.call, &values).and_then(|value| {
            self.budget().made(&value)?;
            Ok(value)
        });
        made.map_err(|fault| {
            self.stop(pos, Fault { what: called(name, &values, &fault.what), ..fault })
        })
    }

    fn arguments(
        &mut self,
        dot: &Value,
        pos: Pos,
        known: &Function,
        args: &[Expr],
        piped: Option<Value>,
    ) -> Result<Vec<Value>, TemplateError> {
        let count = args.len() + usize::from(piped.is_some());
        let fixed = known.params.len();
        if count < fixed || (count > fixed && known.rest.is_none()) {
            let least = if known.rest.is_some() { "at least " } else { "" };
            let fault =
                format!("wrong number of args for {}: want {least}{fixed} got {count}", known.name);
            return Err(self.stop(pos, Fault::new(fault, signature(known))));
        }
        let ty = |i: usize| known.params.get(i).copied().or(known.rest).unwrap_or(Ty::Raw);
        let mut values = Vec::with_capacity(count);
        for (i, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, ty(i), arg)?);
        }
        if let Some(piped) = piped {
            let value = ty(args.len()).accept(piped);
            values.push(value.map_err(|fault| {
                self.stop(pos, Fault { what: format!("{}: {}", known.name, fault.what), ..fault })
            })?);
        }
        Ok(values)
    }

    /// `and` and `or` stop at the first argument that decides.
    fn and_or(
        &mut self,
        dot: &Value,
        pos: Pos,
        or: bool,
        args: &[Expr],
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
            self.stop(pos, format!("wrong number of args for {word}: want at least 1 got 0"))
        })
    }

    /// An argument, as the type of its parameter wants it.
    pub(super) fn argument(&mut self, dot: &Value, ty: Ty, expr: &Expr) -> Evaluated {
        let value = match expr {
            Expr::Dot(_) => dot.clone(),
            Expr::Field(pos, fields) => self.fields(dot, dot.clone(), *pos, fields, &[], None)?,
            Expr::Variable(pos, name, fields) => {
                let value = self.variable(*pos, name)?;
                self.fields(dot, value, *pos, fields, &[], None)?
            }
            Expr::Identifier(pos, name) => self.function(dot, *pos, name, &[], None)?,
            Expr::Pipe(pos, pipe) => self.nested_pipe(dot, *pos, pipe)?,
            Expr::Chain(pos, inner, fields) => {
                let value = self.argument(dot, Ty::Raw, inner)?;
                self.fields(dot, value, *pos, fields, &[], None)?
            }
            literal => return self.literal(ty, literal),
        };
        ty.accept(value).map_err(|fault| self.stop(expr.pos(), fault))
    }

    /// In parentheses; a variable declared there lives on in the block.
    fn nested_pipe(&mut self, dot: &Value, pos: Pos, pipe: &PipeNode) -> Evaluated {
        self.budget().steps(1).map_err(|fault| self.stop(pos, fault))?;
        self.pipe(dot, pipe)
    }

    fn literal(&self, ty: Ty, expr: &Expr) -> Evaluated {
        let any = matches!(ty, Ty::Any | Ty::Raw);
        match (expr, ty) {
            (Expr::String(_, s), Ty::Str | Ty::Any | Ty::Raw) => Ok(match literal::text(s) {
                Cow::Borrowed(_) => Value::Str(s.clone()),
                Cow::Owned(text) => Value::str(text),
            }),
            (Expr::Bool(_, b), Ty::Bool | Ty::Any | Ty::Raw) => Ok(Value::Bool(*b)),
            (Expr::Number(_, Number::Int(n)), Ty::Int | Ty::Any | Ty::Raw) => Ok(Value::Int(*n)),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole, and checked to be in range"
            )]
            (Expr::Number(_, Number::Float(f)), Ty::Int) if f.fract() == 0.0 && f.abs() < 9e15 => {
                Ok(Value::Int(*f as i64))
            }
            (Expr::Number(_, Number::Float(f)), _) if any => Ok(Value::Float(*f)),
            (Expr::Number(pos, Number::Uint(n)), _) if any => {
                Err(self.stop(*pos, format!("{n} overflows int")))
            }
            (Expr::Nil(_), Ty::Any) => Ok(Value::Nil),
            (Expr::Nil(_), Ty::Str | Ty::Int | Ty::Bool) => {
                Err(self.stop(expr.pos(), format!("cannot assign nil to {}", ty.name())))
            }
            (Expr::Nil(_), _) => {
                ty.accept(Value::Absent).map_err(|fault| self.stop(expr.pos(), fault))
            }
            _ => Err(self.stop(
                expr.pos(),
                Fault::new(
                    format!("expected {}; found {}", ty.name(), shown(expr)),
                    "give it a value of that type",
                ),
            )),
        }
    }
}

fn time_field(time: crate::template::time::Time, name: &str) -> Option<Value> {
    let civil = time.civil();
    Some(match name {
        "Year" => Value::Int(civil.year),
        "Month" => Value::str(time.month()),
        "Day" => Value::Int(civil.day),
        "Hour" => Value::Int(civil.hour),
        "Minute" => Value::Int(civil.minute),
        "Second" => Value::Int(civil.second),
        "Nanosecond" => Value::Int(time.nanos.into()),
        "Weekday" => Value::str(time.weekday()),
        "YearDay" => Value::Int(civil.year_day),
        "Unix" => Value::Int(time.unix),
        "UnixNano" => Value::Int(time.unix.wrapping_mul(1_000_000_000) + i64::from(time.nanos)),
        "UTC" | "Local" => Value::Time(time),
        "String" => Value::str(time.to_string()),
        _ => return None,
    })
}

/// A literal or a short name of an expression, for a message.
fn shown(expr: &Expr) -> String {
    match expr {
        Expr::Dot(_) => ".".into(),
        Expr::String(_, s) => format!("{:?}", s.chars().take(40).collect::<String>()),
        Expr::Number(_, Number::Int(n)) => n.to_string(),
        Expr::Number(_, Number::Uint(n)) => n.to_string(),
        Expr::Number(_, Number::Float(f)) => f.to_string(),
        Expr::Bool(_, b) => b.to_string(),
        Expr::Nil(_) => "nil".into(),
        Expr::Variable(_, name, _) => name.to_string(),
        Expr::Field(_, fields) | Expr::Chain(_, _, fields) => format!(".{}", fields.join(".")),
        Expr::Identifier(_, name) => name.to_string(),
        Expr::Pipe(..) => "(…)".into(),
    }
}

/// `getv "/a": …`: the call with its first text, which is the key if it has one.
fn called(name: &str, args: &[Value], what: &str) -> String {
    match args.first() {
        Some(Value::Str(s)) => {
            let short: String = s.chars().take(80).collect();
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
