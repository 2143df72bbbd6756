//! Numbers: integer arithmetic, sequences, reading numbers and truth from text.

use super::{Call, Fault, Function, FunctionResult, MAX_ITEMS, Ty, int, text};
use crate::template::value::{Elem, List, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("add", &[Ty::Int, Ty::Int], |_, args| ints(args, i64::wrapping_add)),
    Function::new("sub", &[Ty::Int, Ty::Int], |_, args| ints(args, i64::wrapping_sub)),
    Function::new("mul", &[Ty::Int, Ty::Int], |_, args| ints(args, i64::wrapping_mul)),
    Function::new("div", &[Ty::Int, Ty::Int], |_, args| divided(args, i64::wrapping_div)),
    Function::new("mod", &[Ty::Int, Ty::Int], |_, args| divided(args, i64::wrapping_rem)),
    Function::new("seq", &[Ty::Int, Ty::Int], seq),
    Function::new("atoi", &[Ty::Str], atoi),
    Function::new("parseBool", &[Ty::Str], parse_bool),
];

fn ints(args: &[Value], of: fn(i64, i64) -> i64) -> FunctionResult {
    Ok(Value::Int(of(int(args, 0), int(args, 1))))
}

fn divided(args: &[Value], of: fn(i64, i64) -> i64) -> FunctionResult {
    match int(args, 1) {
        0 => Err(Fault::new("integer divide by zero", "test the divisor with `if` first")),
        _ => ints(args, of),
    }
}

fn seq(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let (first, last) = (int(args, 0), int(args, 1));
    if i128::from(last) - i128::from(first) >= MAX_ITEMS as i128 {
        return Err(Fault::new(
            format!("a sequence may have at most {MAX_ITEMS} numbers"),
            "the order is `seq FIRST LAST`",
        ));
    }
    if first > last {
        return Ok(Value::List(List::nil(Elem::Int)));
    }
    Ok(Value::List(List::flat(Elem::Int, (first..=last).map(Value::Int).collect())))
}

fn atoi(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let digits = &*text(args, 0);
    digits.parse().map(Value::Int).map_err(|_| {
        Fault::new(
            format!("parsing {:?}: invalid syntax", digits.chars().take(80).collect::<String>()),
            "the text must be a whole decimal number, without spaces",
        )
    })
}

fn parse_bool(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    match &*text(args, 0) {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
        other => Err(Fault::new(
            format!("parsing {:?}: invalid syntax", other.chars().take(80).collect::<String>()),
            "the text must be `true` or `false` (or 1, 0, t, f)",
        )),
    }
}
