//! What is between the braces of an action: pipelines, commands, operands.

use std::sync::Arc;

use common::model::StoredValue;

use super::lex::{Lexeme, LexemeKind};
use super::literal::{self, NumberLiteral};
use super::parse::{Context, Parser, callee, unexpected};
use super::syntax_error::{Parsed, SyntaxError, fault};
use super::tree::{CommandNode, Name, Operand, OperandKind, PipeNode};

impl<'s> Parser<'s> {
    /// A pipeline up to `end`, which is taken.
    pub(super) fn pipeline(&mut self, context: Context, end: LexemeKind) -> Parsed<PipeNode> {
        let at = self.peek_behind_space()?.at;
        let (variables, assigns) = self.variables(context)?;
        let mut commands = Vec::new();
        loop {
            let lexeme = self.take_behind_space()?;
            if lexeme.kind == end {
                break;
            }
            self.back();
            if !begins_operand(&lexeme) {
                return Err(unexpected(&lexeme, context.name()));
            }
            commands.push(self.command()?);
        }
        check(&commands, context, at)?;
        Ok(PipeNode { at, variables, assigns, commands })
    }

    /// `$x :=`, `$x =`, and in `range` `$i, $x :=`.
    fn variables(&mut self, context: Context) -> Parsed<(Vec<Name>, bool)> {
        let mut variables: Vec<Name> = Vec::new();
        loop {
            let variable = self.peek_behind_space()?;
            if variable.kind != LexemeKind::Variable {
                return Ok((variables, false));
            }
            self.take()?;
            let behind = self.next_place();
            let sign = self.peek_behind_space()?;
            let comma = sign.kind == LexemeKind::Char && sign.text == b",";
            let assigns = sign.kind == LexemeKind::Assign;
            if !comma && !assigns && sign.kind != LexemeKind::Declare {
                // An operand; the space behind it counts.
                self.go_back_to(behind);
                self.back();
                return Ok((variables, false));
            }
            self.take()?;
            let name: Name = variable.name().into();
            self.scope.variables.push(Arc::clone(&name));
            variables.push(name);
            if !comma {
                return Ok((variables, assigns));
            }
            if context != Context::Block("range") || variables.len() > 1 {
                let what = format!("too many declarations in {}", context.name());
                return fault(sign.at, what, "only `range` declares two variables");
            }
            let next = self.peek_behind_space()?;
            let ends = matches!(
                next.kind,
                LexemeKind::Variable | LexemeKind::RightDelim | LexemeKind::RightParen
            );
            if !ends {
                let remedy = "write `range $i, $x := …`";
                return fault(next.at, "range can only initialize variables", remedy);
            }
        }
    }

    /// Operands with space between them, up to a `|`, which is taken, or an end, which stays.
    fn command(&mut self) -> Parsed<CommandNode> {
        let mut operands = Vec::new();
        loop {
            self.peek_behind_space()?;
            operands.extend(self.operand()?);
            let lexeme = self.take()?;
            match lexeme.kind {
                LexemeKind::Space => {}
                LexemeKind::RightDelim | LexemeKind::RightParen => {
                    self.back();
                    break;
                }
                LexemeKind::Pipe => break,
                _ => return Err(unexpected(&lexeme, "operand")),
            }
        }
        let mut operands = operands.into_iter();
        match operands.next() {
            Some(first) => Ok(CommandNode { first, arguments: operands.collect() }),
            None => {
                let at = self.peek()?.at;
                fault(at, "empty command", "write a value or a function between the bars")
            }
        }
    }

    /// A term and the fields behind it; nothing where none begins.
    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(term) = self.term()? else { return Ok(None) };
        let mut fields: Vec<Name> = Vec::new();
        let dot = self.peek()?.at;
        while self.peek()?.kind == LexemeKind::Field {
            fields.push(field_name(&self.take()?));
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        let Operand { at, kind } = term;
        let kind = match kind {
            OperandKind::Field(mut first) => {
                first.extend(fields);
                OperandKind::Field(first)
            }
            OperandKind::Variable(name, _) => OperandKind::Variable(name, fields),
            kind if kind.is_literal() => {
                let what = format!("unexpected . after term \"{kind}\"");
                let remedy = "a value written out has no fields; is a space missing?";
                return fault(dot, what, remedy);
            }
            kind => OperandKind::Chain(Box::new(Operand { at, kind }), fields),
        };
        Ok(Some(Operand { at, kind }))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let lexeme = self.take_behind_space()?;
        let at = lexeme.at;
        let wrong = |fault| SyntaxError { at, fault };
        let kind = match lexeme.kind {
            LexemeKind::Identifier => OperandKind::Function(callee(lexeme.name(), at)?),
            LexemeKind::Dot => OperandKind::Dot,
            LexemeKind::Keyword if lexeme.name() == "nil" => OperandKind::Nil,
            LexemeKind::Bool => OperandKind::Bool(lexeme.name() == "true"),
            LexemeKind::Variable => self.variable(&lexeme)?,
            LexemeKind::Field => OperandKind::Field(vec![field_name(&lexeme)]),
            LexemeKind::Number => {
                OperandKind::Number(NumberLiteral::read(lexeme.name()).map_err(wrong)?)
            }
            LexemeKind::Character => {
                OperandKind::Number(NumberLiteral::read_character(lexeme.text).map_err(wrong)?)
            }
            LexemeKind::Quoted => {
                let text = literal::unquote(lexeme.text).map_err(wrong)?;
                OperandKind::Text(StoredValue::from(text.as_slice()))
            }
            LexemeKind::LeftParen => {
                let inner = |parser: &mut Self| {
                    parser.pipeline(Context::Parentheses, LexemeKind::RightParen)
                };
                OperandKind::Parenthesized(Box::new(self.deeper(at, inner)?))
            }
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Operand { at, kind }))
    }

    /// A variable that was declared before.
    fn variable(&self, lexeme: &Lexeme<'_>) -> Parsed<OperandKind> {
        let name = lexeme.name();
        match self.scope.variables.iter().find(|known| ***known == *name) {
            Some(known) => Ok(OperandKind::Variable(Arc::clone(known), Vec::new())),
            None => {
                let what = format!("undefined variable \"{name}\"");
                let remedy = format!(
                    "declare it before: `{{{{ {name} := … }}}}`; a variable ends with its block"
                );
                fault(lexeme.at, what, remedy)
            }
        }
    }
}

fn begins_operand(lexeme: &Lexeme<'_>) -> bool {
    match lexeme.kind {
        LexemeKind::Keyword => lexeme.name() == "nil",
        LexemeKind::Bool
        | LexemeKind::Character
        | LexemeKind::Dot
        | LexemeKind::Field
        | LexemeKind::Identifier
        | LexemeKind::Number
        | LexemeKind::Quoted
        | LexemeKind::Variable
        | LexemeKind::LeftParen => true,
        _ => false,
    }
}

fn field_name(lexeme: &Lexeme<'_>) -> Name {
    lexeme.name().trim_start_matches('.').into()
}

/// A pipeline has a value, and only its first command may be no function.
fn check(commands: &[CommandNode], context: Context, at: usize) -> Parsed<()> {
    if commands.is_empty() {
        let what = format!("missing value for {}", context.name());
        let remedy = "nothing is written behind `if`, `range`, `with` or `|`, or in the braces";
        return fault(at, what, remedy);
    }
    for (stage, command) in commands.iter().enumerate().skip(1) {
        if command.first.kind.is_literal() {
            let what = format!("non executable command in pipeline stage {}", stage + 1);
            return fault(command.first.at, what, "a function must follow `|`");
        }
    }
    Ok(())
}
