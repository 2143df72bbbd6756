//! One value, as its verb wants it.

use super::Spec;
use super::quote::{ascii, quote, quote_char};
use crate::template::print::{self, Bounded, Full, Sink};
use crate::template::value::Value;

/// An element of a list, a map or a struct. Nothing is `<nil>` for every verb.
fn element(out: &mut Bounded, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::Absent | Value::Nil => out.put("<nil>"),
        arg => value(out, spec, verb, arg),
    }
}

pub(super) fn value(out: &mut Bounded, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match (verb, arg) {
        ('T', Value::Absent | Value::Nil) => pad(out, spec, "<nil>"),
        ('T', _) => pad(out, spec, arg.type_name()),
        ('v', Value::Absent | Value::Nil) => pad(out, spec, "<nil>"),
        ('v', _) if spec.sharp => syntax(out, arg),
        (_, Value::Absent | Value::Nil) => out.put(&format!("%!{verb}(<nil>)")),
        (_, Value::List(_) | Value::Map(_) | Value::Record(_)) => composite(out, spec, verb, arg),
        _ => leaf(out, spec, verb, arg),
    }
}

/// A list, a map or a struct: the verb is for what is in it.
fn composite(out: &mut Bounded, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::List(list) => {
            out.put("[")?;
            for (i, item) in list.items().iter().enumerate() {
                if i > 0 {
                    out.put(" ")?;
                }
                element(out, spec, verb, item)?;
            }
            out.put("]")
        }
        Value::Map(map) => {
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
        Value::Record(record) => {
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
        _ => Ok(()),
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
