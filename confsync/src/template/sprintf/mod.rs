//! `printf` as Go's `fmt.Sprintf` has it: flags, width, precision, the verbs, and
//! the `%!d(string=x)` that a wrong verb leaves in the text.
//!
//! Here the format is read; `verbs` writes the values, `real` the floats, `quote` the
//! quoted ones. Not had: complex numbers and pointers.

mod integer;
mod padding;
mod quote;
mod real;
mod verbs;

pub(crate) use quote::quote;

use bstr::ByteSlice;

use super::print::{self, BoundedText, Full};
use super::runes::decode;
use super::value::Value;

/// Go's bound for a width or a precision.
const MAX_WIDTH: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    /// `%#v`: in Go's syntax.
    syntax: bool,
    /// `%+v`: with the names of fields.
    names: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats the arguments.
///
/// # Errors
/// [`Full`] when the text would have more than `limit` bytes.
pub(crate) fn sprintf(format: &[u8], args: &[Value], limit: usize) -> Result<Vec<u8>, Full> {
    formatted(format, args, limit, false)
}

/// The same, but `%f` takes an int and `%d` a whole float.
pub(crate) fn loose(format: &[u8], args: &[Value], limit: usize) -> Result<Vec<u8>, Full> {
    formatted(format, args, limit, true)
}

fn formatted(format: &[u8], args: &[Value], limit: usize, loose: bool) -> Result<Vec<u8>, Full> {
    let mut out = BoundedText::new(limit);
    let mut state = Args { args, next: 0, reordered: false, good: true, loose };
    let mut rest = format;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (before, after) = rest.split_at(at);
        out.put(before)?;
        rest = directive(&mut out, after.get(1..).unwrap_or_default(), &mut state)?;
    }
    out.put(rest)?;
    if !state.reordered && state.next < args.len() {
        extra(&mut out, args.get(state.next..).unwrap_or_default())?;
    }
    Ok(out.into_text())
}

struct Args<'a> {
    args: &'a [Value],
    next: usize,
    reordered: bool,
    /// Whether every index of this directive names an argument.
    good: bool,
    loose: bool,
}

impl<'a> Args<'a> {
    fn take(&mut self) -> Option<&'a Value> {
        let value = self.args.get(self.next)?;
        self.next += 1;
        Some(value)
    }

    /// `[3]`: the number of the next argument. True when a number is there.
    fn index(&mut self, rest: &mut &[u8]) -> bool {
        let Some(inner) = rest.strip_prefix(b"[") else { return false };
        self.reordered = true;
        // Go looks for a bracket only where one with a number could be.
        let closed = inner.split_once_str("]").filter(|_| inner.len() > 1);
        let Some((number, after)) = closed else {
            *rest = inner;
            self.good = false;
            return false;
        };
        *rest = after;
        let mut left = number;
        let number = written(&mut left).filter(|_| left.is_empty()).map(usize::try_from);
        match number {
            Some(Ok(n)) if (1..=self.args.len()).contains(&n) => self.next = n - 1,
            _ => self.good = false,
        }
        number.is_some()
    }
}

fn extra(out: &mut BoundedText, args: &[Value]) -> Result<(), Full> {
    out.put("%!(EXTRA ")?;
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.put(", ")?;
        }
        if !matches!(arg, Value::Absent | Value::Nil) {
            out.put(arg.type_name())?;
            out.put("=")?;
        }
        print::print(out, arg)?;
    }
    out.put(")")
}

/// One directive after its `%`; gives back what follows it.
fn directive<'f>(
    out: &mut BoundedText,
    mut rest: &'f [u8],
    args: &mut Args<'_>,
) -> Result<&'f [u8], Full> {
    let mut spec = Spec::default();
    flags(&mut spec, &mut rest);
    args.good = true;
    // An index is of what comes next, and a written number or a point is no argument.
    let mut after_index = args.index(&mut rest);
    let star = rest.starts_with(b"*");
    let wide = width(out, &mut spec, &mut rest, args)?;
    args.good &= !(after_index && wide && !star);
    after_index &= !star;
    if let Some(after) = rest.strip_prefix(b".").filter(|after| !after.is_empty()) {
        args.good &= !after_index;
        rest = after;
        after_index = args.index(&mut rest);
        after_index &= !rest.starts_with(b"*");
        precision(out, &mut spec, &mut rest, args)?;
    }
    if !after_index {
        args.index(&mut rest);
    }
    let Some((verb, length)) = decode(rest) else {
        out.put("%!(NOVERB)")?;
        return Ok(b"");
    };
    verb_of(out, spec, verb, args)?;
    Ok(rest.get(length..).unwrap_or_default())
}

fn verb_of(
    out: &mut BoundedText,
    mut spec: Spec,
    verb: char,
    args: &mut Args<'_>,
) -> Result<(), Full> {
    if verb == '%' {
        out.put("%")
    } else if !args.good {
        out.put(format!("%!{verb}(BADINDEX)"))
    } else if let Some(arg) = args.take() {
        let other = if args.loose { other_number(verb, arg) } else { None };
        // `%w` is for errors, of which a template has none: it is refused, and shown as `%v`.
        if matches!(verb, 'v' | 'w') {
            (spec.syntax, spec.sharp) = (spec.sharp, false);
            (spec.names, spec.plus) = (spec.plus, false);
        }
        verbs::value(out, spec, verb, other.as_ref().unwrap_or(arg))
    } else {
        out.put(format!("%!{verb}(MISSING)"))
    }
}

/// An int for a verb of floats as a float, and the reverse.
fn other_number(verb: char, arg: &Value) -> Option<Value> {
    match arg {
        #[expect(clippy::cast_precision_loss, reason = "what the verb asks for")]
        Value::Int(n) if "eEfFgG".contains(verb) => Some(Value::Float(*n as f64)),
        #[expect(clippy::cast_possible_truncation, reason = "whole, and checked to be exact")]
        Value::Float(f) if "dboxX".contains(verb) && f.fract() == 0.0 && f.abs() < 9e15 => {
            Some(Value::Int(*f as i64))
        }
        _ => None,
    }
}

fn flags(spec: &mut Spec, rest: &mut &[u8]) {
    while let Some(c) = rest.first() {
        match c {
            b'-' => spec.minus = true,
            b'+' => spec.plus = true,
            b'#' => spec.sharp = true,
            b' ' => spec.space = true,
            b'0' => spec.zero = true,
            _ => return,
        }
        *rest = rest.get(1..).unwrap_or_default();
    }
}

/// A number written in the format, or an argument where it says `*`.
fn number(rest: &mut &[u8], args: &mut Args<'_>) -> Option<Result<i64, ()>> {
    if let Some(after) = rest.strip_prefix(b"*") {
        *rest = after;
        return Some(match args.take() {
            Some(value) => {
                let n = value.as_whole();
                n.filter(|n| n.unsigned_abs() <= MAX_WIDTH.unsigned_abs()).ok_or(())
            }
            None => Err(()),
        });
    }
    written(rest).map(Ok)
}

/// A number in the format, as Go reads it: one that gets too long takes all the rest with it.
fn written(rest: &mut &[u8]) -> Option<i64> {
    let mut number = None;
    while let Some(digit) = rest.first().filter(|c| c.is_ascii_digit()) {
        let before = number.unwrap_or(0);
        if before > MAX_WIDTH {
            *rest = b"";
            return None;
        }
        number = Some(before * 10 + i64::from(digit - b'0'));
        *rest = rest.get(1..).unwrap_or_default();
    }
    number
}

fn width(
    out: &mut BoundedText,
    spec: &mut Spec,
    rest: &mut &[u8],
    args: &mut Args<'_>,
) -> Result<bool, Full> {
    let number = number(rest, args);
    match number {
        Some(Ok(n)) => {
            if n < 0 {
                (spec.minus, spec.zero) = (true, false);
            }
            spec.width = usize::try_from(n.unsigned_abs()).ok();
        }
        Some(Err(())) => out.put("%!(BADWIDTH)")?,
        None => {}
    }
    Ok(number.is_some())
}

fn precision(
    out: &mut BoundedText,
    spec: &mut Spec,
    rest: &mut &[u8],
    args: &mut Args<'_>,
) -> Result<(), Full> {
    spec.precision = match number(rest, args) {
        Some(Ok(n)) if n >= 0 => usize::try_from(n).ok(),
        Some(_) => {
            out.put("%!(BADPREC)")?;
            None
        }
        None => Some(0),
    };
    Ok(())
}
