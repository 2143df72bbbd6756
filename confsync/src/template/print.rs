//! Values as Go's `fmt` prints them.
//!
//! Source: the package documentation of Go's `fmt` and `strconv`, checked against
//! Go itself in `tests/corpus`.

use super::value::{Record, Value};

/// A float in the shortest form that reads back the same, as `%v` has it: with
/// an exponent from a million on and below one ten-thousandth.
pub(crate) fn float(f: f64) -> String {
    general(f, 6)
}

/// The digits of a float without sign or point, and the place of its point:
/// `0.digits * 10^point`.
pub(super) fn digits(f: f64) -> (String, i32) {
    let text = format!("{:e}", f.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    (digits, exponent.parse::<i32>().unwrap_or(0) + 1)
}

/// `inf` and `nan` as Go writes them.
pub(super) fn not_a_number(f: f64) -> Option<&'static str> {
    match f {
        f if f.is_nan() => Some("NaN"),
        f if f == f64::INFINITY => Some("+Inf"),
        f if f == f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

/// Shortest form; an exponent is written when it is below -4 or at least `limit`.
pub(super) fn general(f: f64, limit: i32) -> String {
    if let Some(word) = not_a_number(f) {
        return word.into();
    }
    let (_, point) = digits(f);
    let exponent = point - 1;
    if f != 0.0 && (exponent < -4 || exponent >= limit) {
        let text = format!("{f:e}");
        let (mantissa, _) = text.split_once('e').unwrap_or((&text, "0"));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{f}")
}

/// The bound of a text is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// A text that never grows beyond its bound.
#[derive(Debug)]
pub(crate) struct BoundedText {
    text: Vec<u8>,
    limit: usize,
}

impl BoundedText {
    /// An empty text that may have this many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { text: Vec::new(), limit }
    }

    pub(crate) fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// Takes a piece of text.
    ///
    /// # Errors
    /// [`Full`] when the bound is reached.
    pub(crate) fn put(&mut self, text: impl AsRef<[u8]>) -> Result<(), Full> {
        let text = text.as_ref();
        if self.text.len() + text.len() > self.limit {
            return Err(Full);
        }
        self.text.extend_from_slice(text);
        Ok(())
    }
}

impl std::io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.put(bytes).map_err(|Full| std::io::Error::other("the text is too long"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Prints a value as an action does, and as `print` and `%v` do.
///
/// # Errors
/// [`Full`] when the text would be longer than the sink allows.
pub(crate) fn print(out: &mut BoundedText, value: &Value) -> Result<(), Full> {
    match value {
        Value::Absent | Value::Nil => out.put("<nil>"),
        Value::Bool(b) => out.put(if *b { "true" } else { "false" }),
        Value::Int(n) => out.put(n.to_string()),
        Value::Uint(n) => out.put(n.int().to_string()),
        Value::Float(f) => out.put(float(*f)),
        Value::Str(s) => out.put(&**s),
        Value::Time(time) => out.put(time.to_string()),
        Value::Record(record) => print_record(out, record),
        Value::List(list) => {
            out.put("[")?;
            for (i, item) in list.items().iter().enumerate() {
                if i > 0 {
                    out.put(" ")?;
                }
                print(out, item)?;
            }
            out.put("]")
        }
        Value::Map(map) => {
            out.put("map[")?;
            for (i, (key, item)) in map.entries().iter().enumerate() {
                if i > 0 {
                    out.put(" ")?;
                }
                out.put(&**key)?;
                out.put(":")?;
                print(out, item)?;
            }
            out.put("]")
        }
    }
}

fn print_record(out: &mut BoundedText, record: &Record) -> Result<(), Full> {
    out.put(if record.is_pointer() { "&{" } else { "{" })?;
    for (i, (_, field)) in record.fields.iter().enumerate() {
        if i > 0 {
            out.put(" ")?;
        }
        print(out, field)?;
    }
    out.put("}")
}
