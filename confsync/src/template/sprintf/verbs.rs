//! One value, as its verb wants it.

use super::Spec;
use super::integer::integer;
use super::padding::pad;
use super::quote::quoted;
use super::real::real;
use crate::template::print::{BoundedText, Full};
use crate::template::runes::runes;
use crate::template::value::Value;

/// An element of a list, a map or a struct. Nothing is `<nil>` for every verb.
fn element(out: &mut BoundedText, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::Absent | Value::Nil => out.put("<nil>"),
        arg => value(out, spec, verb, arg),
    }
}

pub(super) fn value(
    out: &mut BoundedText,
    spec: Spec,
    verb: char,
    arg: &Value,
) -> Result<(), Full> {
    match (verb, arg) {
        ('T' | 'v', Value::Absent | Value::Nil) => pad(out, spec, "<nil>"),
        ('T', _) => pad(out, spec, cut(spec, arg.type_name().as_bytes())),
        (_, Value::Absent | Value::Nil) => out.put(format!("%!{verb}(<nil>)")),
        ('w', _) => {
            out.put(format!("%!w({}=", arg.type_name()))?;
            value(out, spec, 'v', arg)?;
            out.put(")")
        }
        (_, Value::List(_) | Value::Map(_) | Value::Record(_)) if spec.syntax => {
            syntax(out, spec, arg)
        }
        (_, Value::List(_) | Value::Map(_) | Value::Record(_)) => composite(out, spec, verb, arg),
        _ => leaf(out, spec, verb, arg),
    }
}

/// A list, a map or a struct: the verb is for what is in it.
fn composite(out: &mut BoundedText, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::List(list) => {
            spaced(out, ["[", "]"], list.items(), |out, item| element(out, spec, verb, item))
        }
        Value::Map(map) => spaced(out, ["map[", "]"], map.entries(), |out, (key, item)| {
            value(out, spec, verb, &Value::Str(key.clone()))?;
            out.put(":")?;
            element(out, spec, verb, item)
        }),
        Value::Record(record) => spaced(out, ["{", "}"], &record.fields, |out, (name, field)| {
            if spec.names {
                out.put(name)?;
                out.put(":")?;
            }
            element(out, spec, verb, field)
        }),
        _ => Ok(()),
    }
}

/// Items with a space between them, inside of brackets.
fn spaced<I>(
    out: &mut BoundedText,
    [open, close]: [&str; 2],
    items: impl IntoIterator<Item = I>,
    mut write: impl FnMut(&mut BoundedText, I) -> Result<(), Full>,
) -> Result<(), Full> {
    out.put(open)?;
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.put(" ")?;
        }
        write(out, item)?;
    }
    out.put(close)
}

fn leaf(out: &mut BoundedText, spec: Spec, verb: char, arg: &Value) -> Result<(), Full> {
    let done = match arg {
        Value::Bool(b) if matches!(verb, 't' | 'v') => {
            pad(out, spec, if *b { "true" } else { "false" })?;
            true
        }
        Value::Int(n) => integer(out, spec, verb, *n)?,
        // In Go's syntax a number without a sign is hexadecimal.
        Value::Uint(n) if verb == 'v' && spec.syntax => {
            integer(out, Spec { sharp: true, ..spec }, 'x', n.int())?
        }
        Value::Uint(n) => integer(out, spec, verb, n.int())?,
        Value::Float(f) => real(out, spec, verb, *f)?,
        Value::Str(s) => text(out, spec, verb, s)?,
        Value::Time(time) if matches!(verb, 's' | 'v' | 'q') => {
            text(out, spec, verb, time.to_string().as_bytes())?
        }
        _ => false,
    };
    if !done {
        // Go prints it after all, with the flags that were given.
        out.put(format!("%!{verb}({}=", arg.type_name()))?;
        leaf(out, spec, 'v', arg)?;
        out.put(")")?;
    }
    Ok(())
}

/// As many characters as the precision says.
fn cut(spec: Spec, text: &[u8]) -> &[u8] {
    let Some(most) = spec.precision else { return text };
    let end = runes(text).take(most).map(|(_, bytes)| bytes.len()).sum();
    text.get(..end).unwrap_or(text)
}

fn text(out: &mut BoundedText, spec: Spec, verb: char, s: &[u8]) -> Result<bool, Full> {
    match verb {
        'v' if !spec.syntax => pad(out, spec, cut(spec, s))?,
        's' => pad(out, spec, cut(spec, s))?,
        'q' | 'v' => {
            let s = cut(spec, s);
            match backquoted(s).filter(|_| spec.sharp) {
                Some(raw) => pad(out, spec, raw)?,
                None => pad(out, spec, quoted(s, spec.plus))?,
            }
        }
        'x' | 'X' => pad(out, spec, bytes(spec, verb, s))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The text in back quotes, if Go would write it so.
fn backquoted(s: &[u8]) -> Option<String> {
    let s = std::str::from_utf8(s).ok()?;
    let bad = |c| c == '`' || c == '\u{7f}' || c == '\u{feff}' || (c < ' ' && c != '\t');
    (!s.contains(bad)).then(|| format!("`{s}`"))
}

/// The bytes of a text in hexadecimal.
fn bytes(spec: Spec, verb: char, s: &[u8]) -> String {
    let prefix = if spec.sharp { "0x" } else { "" };
    let bytes = s.iter().take(spec.precision.unwrap_or(usize::MAX));
    let hex: Vec<String> = bytes.map(|b| format!("{b:02x}")).collect();
    let hex = match (hex.is_empty(), spec.space) {
        (true, _) => String::new(),
        (_, true) => format!("{prefix}{}", hex.join(&format!(" {prefix}"))),
        (_, false) => format!("{prefix}{}", hex.concat()),
    };
    if verb == 'X' { hex.to_uppercase() } else { hex }
}

/// `%#v`: the value in Go's syntax.
fn syntax(out: &mut BoundedText, spec: Spec, arg: &Value) -> Result<(), Full> {
    match arg {
        Value::Absent | Value::Nil => out.put("interface {}(nil)"),
        Value::List(list) if list.is_nil() => out.put(format!("{}(nil)", arg.type_name())),
        Value::Map(map) if map.is_nil() => out.put(format!("{}(nil)", arg.type_name())),
        Value::List(list) => {
            out.put(arg.type_name())?;
            out.put("{")?;
            for (i, item) in list.items().iter().enumerate() {
                out.put(if i > 0 { ", " } else { "" })?;
                syntax(out, spec, item)?;
            }
            out.put("}")
        }
        Value::Map(map) => {
            out.put(arg.type_name())?;
            out.put("{")?;
            for (i, (key, item)) in map.entries().iter().enumerate() {
                out.put(if i > 0 { ", " } else { "" })?;
                leaf(out, spec, 'v', &Value::Str(key.clone()))?;
                out.put(":")?;
                syntax(out, spec, item)?;
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
                syntax(out, spec, field)?;
            }
            out.put("}")
        }
        _ => leaf(out, spec, 'v', arg),
    }
}
