//! Numbers: integer arithmetic, sequences, reading numbers and truth from text.

use super::{Call, Fault, Function, FunctionResult, MAX_ITEMS, Ty, int, text};
use crate::template::value::{Elem, List, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "add", params: &[Ty::Int, Ty::Int], rest: None, call: add },
    Function { name: "sub", params: &[Ty::Int, Ty::Int], rest: None, call: sub },
    Function { name: "mul", params: &[Ty::Int, Ty::Int], rest: None, call: mul },
    Function { name: "div", params: &[Ty::Int, Ty::Int], rest: None, call: div },
    Function { name: "mod", params: &[Ty::Int, Ty::Int], rest: None, call: modulo },
    Function { name: "seq", params: &[Ty::Int, Ty::Int], rest: None, call: seq },
    Function { name: "atoi", params: &[Ty::Str], rest: None, call: atoi },
    Function { name: "parseBool", params: &[Ty::Str], rest: None, call: parse_bool },
];

fn add(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Int(int(args, 0).wrapping_add(int(args, 1))))
}

fn sub(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Int(int(args, 0).wrapping_sub(int(args, 1))))
}

fn mul(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Int(int(args, 0).wrapping_mul(int(args, 1))))
}

fn not_zero(args: &[Value]) -> Result<i64, Fault> {
    match int(args, 1) {
        0 => Err(Fault::new("integer divide by zero", "test the divisor with `if` first")),
        n => Ok(n),
    }
}

fn div(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Int(int(args, 0).wrapping_div(not_zero(args)?)))
}

fn modulo(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Int(int(args, 0).wrapping_rem(not_zero(args)?)))
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
