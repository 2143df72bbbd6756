//! `printf` as Go's `fmt.Sprintf` has it: flags, width, precision, the verbs, and
//! the `%!d(string=x)` that a wrong verb leaves in the text.
//!
//! Not had: complex numbers, pointers, binary floats (`%b`, `%x` of a float).

use super::print::{self, Bounded, Full, Sink};
use super::value::Value;

/// Go's bound for a width or a precision.
const MAX_WIDTH: usize = 1_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats the arguments.
///
/// # Errors
/// [`Full`] when the text would have more than `limit` bytes.
pub(crate) fn sprintf(format: &str, args: &[Value], limit: usize) -> Result<String, Full> {
    formatted(format, args, limit, false)
}

/// The same, but `%f` takes an int and `%d` a whole float.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn loose(format: &str, args: &[Value], limit: usize) -> Result<String, Full> {
    formatted(format, args, limit, true)
}

fn formatted(format: &str, args: &[Value], limit: usize, loose: bool) -> Result<String, Full> {
    let mut out = Bounded::new(limit);
    let mut state = Args { args, next: 0, reordered: false, loose };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
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
    loose: bool,
}

impl<'a> Args<'a> {
    fn take(&mut self) -> Option<&'a Value> {
        let value = self.args.get(self.next)?;
        self.next += 1;
        Some(value)
    }

    /// `[3]`: the number of the next argument. False when it is not one.
    fn index(&mut self, rest: &mut &str) -> bool {
        let Some(inner) = rest.strip_prefix('[') else { return true };
        self.reordered = true;
        let Some((number, after)) = inner.split_once(']') else {
            *rest = inner;
            return false;
        };
        *rest = after;
        match number.parse::<usize>() {
            Ok(n) if (1..=self.args.len()).contains(&n) => {
                self.next = n - 1;
                true
            }
            _ => false,
        }
    }
}

fn extra(out: &mut impl Sink, args: &[Value]) -> Result<(), Full> {
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
    out: &mut Bounded,
    mut rest: &'f str,
    args: &mut Args<'_>,
) -> Result<&'f str, Full> {
    let mut spec = Spec::default();
    flags(&mut spec, &mut rest);
    let mut good = args.index(&mut rest);
    width(out, &mut spec, &mut rest, args)?;
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        good &= args.index(&mut rest);
        precision(out, &mut spec, &mut rest, args)?;
    }
    good &= args.index(&mut rest);
    let Some(verb) = rest.chars().next() else {
        out.put("%!(NOVERB)")?;
        return Ok("");
    };
    let rest = rest.get(verb.len_utf8()..).unwrap_or_default();
    if verb == '%' {
        out.put("%")?;
    } else if !good {
        out.put(&format!("%!{verb}(BADINDEX)"))?;
    } else if let Some(arg) = args.take() {
        let other = if args.loose { other_number(verb, arg) } else { None };
        value(out, spec, verb, other.as_ref().unwrap_or(arg))?;
    } else {
        out.put(&format!("%!{verb}(MISSING)"))?;
    }
    Ok(rest)
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

fn flags(spec: &mut Spec, rest: &mut &str) {
    while let Some(c) = rest.chars().next() {
        match c {
            '-' => spec.minus = true,
            '+' => spec.plus = true,
            '#' => spec.sharp = true,
            ' ' => spec.space = true,
            '0' => spec.zero = true,
            _ => return,
        }
        *rest = rest.get(1..).unwrap_or_default();
    }
}

/// A number written in the format, or an argument where it says `*`.
fn number(rest: &mut &str, args: &mut Args<'_>) -> Option<Result<i64, ()>> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return Some(match args.take() {
            Some(Value::Int(n)) if n.unsigned_abs() <= MAX_WIDTH as u64 => Ok(*n),
            _ => Err(()),
        });
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    if digits.is_empty() {
        return None;
    }
    *rest = after;
    digits.parse().ok().filter(|n| *n <= MAX_WIDTH as i64).map(Ok)
}

fn width(
    out: &mut Bounded,
    spec: &mut Spec,
    rest: &mut &str,
    args: &mut Args<'_>,
) -> Result<(), Full> {
    match number(rest, args) {
        Some(Ok(n)) => {
            spec.minus |= n < 0;
            spec.width = usize::try_from(n.unsigned_abs()).ok();
        }
        Some(Err(())) => out.put("%!(BADWIDTH)")?,
        None => {}
    }
    Ok(())
}

fn precision(
    out: &mut Bounded,
    spec: &mut Spec,
    rest: &mut &str,
    args: &mut Args<'_>,
) -> Result<(), Full> {
    spec.precision = match number(rest, args) {
        Some(Ok(n)) => usize::try_from(n).ok(),
        Some(Err(())) => {
            out.put("%!(BADPREC)")?;
            None
        }
        None => Some(0),
    };
    Ok(())
}

/// An element of a list, a map or a struct. Nothing is `<nil>` for every verb.
fn element(out: &mut Bounded, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::Absent | Value::Nil => out.put("<nil>"),
        arg => value(out, spec, verb, arg),
    }
}

fn value(out: &mut Bounded, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match (verb, arg) {
        ('T', Value::Absent | Value::Nil) => pad(out, spec, "<nil>"),
        ('T', _) => pad(out, spec, arg.type_name()),
        ('v', Value::Absent | Value::Nil) => pad(out, spec, "<nil>"),
        ('v', _) if spec.sharp => syntax(out, arg),
        (_, Value::Absent | Value::Nil) => out.put(&format!("%!{verb}(<nil>)")),
        (_, Value::List(list)) => {
            out.put("[")?;
            for (i, item) in list.items().iter().enumerate() {
                if i > 0 {
                    out.put(" ")?;
                }
                element(out, spec, verb, item)?;
            }
            out.put("]")
        }
        (_, Value::Map(map)) => {
            out.put("map[")?;
            for (i, (key, item)) in map.entries().iter().enumerate() {
                if i > 0 {
                    out.put(" ")?;
                }
                value(out, spec, verb, &Value::Str(key.clone()))?;
                out.put(":")?;
                element(out, spec, verb, item)?;
            }
            out.put("]")
        }
        (_, Value::Record(record)) => {
            out.put("{")?;
            for (i, (name, field)) in record.fields.iter().enumerate() {
                if i > 0 {
                    out.put(" ")?;
                }
                if spec.plus {
                    out.put(name)?;
                    out.put(":")?;
                }
                element(out, spec, verb, field)?;
            }
            out.put("}")
        }
        _ => leaf(out, spec, verb, arg),
    }
}

fn leaf(out: &mut Bounded, mut spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    // `%+v` asks for the names of fields, not for signs.
    spec.plus &= verb != 'v';
    let done = match arg {
        Value::Bool(b) if matches!(verb, 't' | 'v') => {
            pad(out, spec, if *b { "true" } else { "false" })?;
            true
        }
        Value::Int(n) => integer(out, spec, verb, *n)?,
        Value::Float(f) => real(out, spec, verb, *f)?,
        Value::Str(s) => text(out, spec, verb, s)?,
        Value::Time(time) if matches!(verb, 's' | 'v' | 'q') => {
            text(out, spec, verb, &time.to_string())?
        }
        _ => false,
    };
    if !done {
        // Go prints it after all, with the width and precision that were asked for.
        out.put(&format!("%!{verb}({}=", arg.type_name()))?;
        leaf(out, Spec { sharp: false, ..spec }, 'v', arg)?;
        out.put(")")?;
    }
    Ok(())
}

/// Fills up to the width, on the left unless `-` says right.
fn pad(out: &mut Bounded, spec: Spec, text: &str) -> Result<(), Full> {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if spec.zero && !spec.minus { "0" } else { " " }.repeat(missing);
    if spec.minus {
        out.put(text)?;
        out.put(&fill)
    } else {
        out.put(&fill)?;
        out.put(text)
    }
}

/// A number with its sign: zeros go between the two.
fn pad_number(out: &mut Bounded, spec: Spec, negative: bool, body: &str) -> Result<(), Full> {
    let sign = match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    if spec.zero && !spec.minus {
        let missing = spec.width.unwrap_or(0).saturating_sub(sign.len() + body.chars().count());
        out.put(sign)?;
        out.put(&"0".repeat(missing))?;
        return out.put(body);
    }
    pad(out, Spec { zero: false, ..spec }, &format!("{sign}{body}"))
}

fn integer(out: &mut Bounded, spec: Spec, verb: char, n: i64) -> Result<bool, Full> {
    let size = n.unsigned_abs();
    let sharp = |prefix: &str, digits: String| {
        if spec.sharp { format!("{prefix}{digits}") } else { digits }
    };
    let mut body = match verb {
        'd' | 'v' => size.to_string(),
        'b' => sharp("0b", format!("{size:b}")),
        'o' => sharp("0", format!("{size:o}")),
        'O' => format!("0o{size:o}"),
        'x' => sharp("0x", format!("{size:x}")),
        'X' => sharp("0X", format!("{size:X}")),
        'c' | 'q' => {
            let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or('\u{FFFD}');
            let text = if verb == 'c' { c.to_string() } else { quote_char(c) };
            pad(out, spec, &text)?;
            return Ok(true);
        }
        'U' => {
            pad(out, Spec { zero: false, ..spec }, &format!("U+{size:04X}"))?;
            return Ok(true);
        }
        _ => return Ok(false),
    };
    if let Some(least) = spec.precision {
        if least == 0 && n == 0 {
            body.clear();
        }
        body.insert_str(0, &"0".repeat(least.saturating_sub(body.len())));
    }
    let zero = spec.zero && spec.precision.is_none();
    pad_number(out, Spec { zero, ..spec }, n < 0, &body)?;
    Ok(true)
}

fn real(out: &mut Bounded, spec: Spec, verb: char, f: f64) -> Result<bool, Full> {
    let size = f.abs();
    let body = match (verb, spec.precision) {
        _ if !matches!(verb, 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') => return Ok(false),
        _ if print::not_a_number(f).is_some() => {
            let word = if f.is_nan() { "NaN" } else { "Inf" };
            let plus = spec.plus || f == f64::INFINITY;
            pad_number(out, Spec { zero: false, plus, ..spec }, f < 0.0, word)?;
            return Ok(true);
        }
        ('f' | 'F', precision) => format!("{size:.*}", precision.unwrap_or(6)),
        ('e' | 'E', precision) => exponent(&format!("{size:.*e}", precision.unwrap_or(6))),
        (_, None) => print::general(size, 6),
        (_, Some(precision)) => significant(size, precision.max(1)),
    };
    let body = if verb.is_ascii_uppercase() { body.to_uppercase() } else { body };
    pad_number(out, spec, f.is_sign_negative(), &body)?;
    Ok(true)
}

/// Rust's `1e5` in Go's form, `1e+05`.
fn exponent(text: &str) -> String {
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// `%.3g`: so many digits, without the zeros at the end.
fn significant(size: f64, precision: usize) -> String {
    let text = format!("{size:.*e}", precision - 1);
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let trim = |t: &str| {
        if t.contains('.') {
            t.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            t.to_owned()
        }
    };
    let places = i32::try_from(precision).unwrap_or(i32::MAX);
    if size != 0.0 && (power < -4 || power >= places) {
        return exponent(&format!("{}e{power}", trim(mantissa)));
    }
    let decimals = usize::try_from(places - 1 - power).unwrap_or(0);
    trim(&format!("{size:.decimals$}"))
}

fn text(out: &mut Bounded, spec: Spec, verb: char, s: &str) -> Result<bool, Full> {
    let cut = match spec.precision {
        Some(n) => s.char_indices().nth(n).map_or(s, |(at, _)| s.get(..at).unwrap_or(s)),
        None => s,
    };
    match verb {
        's' | 'v' => pad(out, spec, cut)?,
        'q' if spec.sharp && !cut.contains('`') && !cut.contains(char::is_control) => {
            pad(out, spec, &format!("`{cut}`"))?;
        }
        'q' if spec.plus => pad(out, spec, &ascii(&quote(cut)))?,
        'q' => pad(out, spec, &quote(cut))?,
        'x' | 'X' => {
            let bytes = s.bytes().take(spec.precision.unwrap_or(usize::MAX));
            let gap = if spec.space { " " } else { "" };
            let hex: Vec<String> = bytes.map(|b| format!("{b:02x}")).collect();
            let hex = hex.join(gap);
            let hex = if spec.sharp { format!("0x{hex}") } else { hex };
            pad(out, spec, &if verb == 'X' { hex.to_uppercase() } else { hex })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A string in Go's double quotes.
#[must_use]
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        escape(&mut quoted, c, '"');
    }
    quoted.push('"');
    quoted
}

/// `%+q`: what is left outside ASCII as escapes.
fn ascii(quoted: &str) -> String {
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match u32::from(c) {
            0..0x80 => out.push(c),
            n @ 0x80..0x1_0000 => out.push_str(&format!("\\u{n:04x}")),
            n => out.push_str(&format!("\\U{n:08x}")),
        }
    }
    out
}

fn quote_char(c: char) -> String {
    let mut quoted = String::from("'");
    escape(&mut quoted, c, '\'');
    quoted.push('\'');
    quoted
}

fn escape(out: &mut String, c: char, around: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        c if c == around => out.extend(['\\', c]),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if printable(c) => out.push(c),
        c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

/// Roughly `strconv.IsPrint`: no control, no invisible space.
fn printable(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

/// `%#v`: the value in Go's syntax.
fn syntax(out: &mut Bounded, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::Absent | Value::Nil => out.put("interface {}(nil)"),
        Value::Str(s) => out.put(&quote(s)),
        Value::List(list) => {
            out.put(arg.type_name())?;
            out.put("{")?;
            for (i, item) in list.items().iter().enumerate() {
                out.put(if i > 0 { ", " } else { "" })?;
                syntax(out, item)?;
            }
            out.put("}")
        }
        Value::Map(map) => {
            out.put(arg.type_name())?;
            out.put("{")?;
            for (i, (key, item)) in map.entries().iter().enumerate() {
                out.put(if i > 0 { ", " } else { "" })?;
                out.put(&quote(key))?;
                out.put(":")?;
                syntax(out, item)?;
            }
            out.put("}")
        }
        Value::Record(record) => {
            out.put(record.name)?;
            out.put("{")?;
            for (i, (name, field)) in record.fields.iter().enumerate() {
                out.put(if i > 0 { ", " } else { "" })?;
                out.put(name)?;
                out.put(":")?;
                syntax(out, field)?;
            }
            out.put("}")
        }
        _ => print::print(out, arg),
    }
}
