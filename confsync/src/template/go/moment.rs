//! The methods of Go's `time.Time` that a template can call on `datetime`.
//!
//! Every other method of Go's is rejected by name.

use super::exec::Exec;
use super::tree::Operand;
use crate::template::error::TemplateError;
use crate::template::functions::{Fault, Ty};
use crate::template::runes::to_str;
use crate::template::time::Time;
use crate::template::value::Value;

/// What a method does.
enum MomentCall {
    Field(fn(Time) -> Value),
    /// With a number: nanoseconds.
    Span(fn(Time, i64) -> Value),
    /// With another time.
    Other(fn(Time, Time) -> Value),
    Format,
    AddDate,
}

use MomentCall::{AddDate, Field, Format, Other, Span};

impl MomentCall {
    fn params(&self) -> &'static [Ty] {
        match self {
            Field(_) => &[],
            Span(_) => &[Ty::Int],
            Other(_) => &[Ty::Raw],
            Format => &[Ty::Str],
            AddDate => &[Ty::Int, Ty::Int, Ty::Int],
        }
    }
}

const METHODS: &[(&str, MomentCall)] = &[
    ("Add", Span(|time, nanos| Value::Time(time.plus(nanos)))),
    ("AddDate", AddDate),
    ("After", Other(|time, other| Value::Bool(time > other))),
    ("Before", Other(|time, other| Value::Bool(time < other))),
    ("Compare", Other(|time, other| Value::Int(time.cmp(&other) as i64))),
    ("Day", Field(|time| Value::Int(time.civil().day))),
    ("Equal", Other(|time, other| Value::Bool(time == other))),
    ("Format", Format),
    ("Hour", Field(|time| Value::Int(time.civil().hour))),
    ("IsDST", Field(|_| Value::Bool(false))),
    ("IsZero", Field(|_| Value::Bool(false))),
    ("Local", Field(Value::Time)),
    ("Location", Field(|_| Value::str("UTC"))),
    ("Minute", Field(|time| Value::Int(time.civil().minute))),
    ("Month", Field(|time| Value::str(time.month()))),
    ("Nanosecond", Field(|time| Value::Int(time.nanos.into()))),
    ("Second", Field(|time| Value::Int(time.civil().second))),
    ("String", Field(|time| Value::str(time.to_string()))),
    ("Truncate", Span(|time, nanos| Value::Time(time.truncated(nanos)))),
    ("UTC", Field(Value::Time)),
    ("Unix", Field(|time| Value::Int(time.unix))),
    ("UnixMicro", Field(|time| Value::Int(time.since_1970(1_000)))),
    ("UnixMilli", Field(|time| Value::Int(time.since_1970(1_000_000)))),
    ("UnixNano", Field(|time| Value::Int(time.since_1970(1)))),
    ("Weekday", Field(|time| Value::str(time.weekday()))),
    ("Year", Field(|time| Value::Int(time.civil().year))),
    ("YearDay", Field(|time| Value::Int(time.civil().year_day))),
];

/// Methods that Go has too, but that a template cannot use: no useful result, or no argument for
/// them.
const MISSING: [&str; 20] = [
    "AppendBinary",
    "AppendFormat",
    "AppendText",
    "Clock",
    "Date",
    "GoString",
    "GobDecode",
    "GobEncode",
    "ISOWeek",
    "In",
    "MarshalBinary",
    "MarshalJSON",
    "MarshalText",
    "Round",
    "Sub",
    "UnmarshalBinary",
    "UnmarshalJSON",
    "UnmarshalText",
    "Zone",
    "ZoneBounds",
];

impl Exec<'_> {
    /// Calls a method of a time.
    pub(super) fn moment(
        &mut self,
        dot: &Value,
        at: usize,
        (time, name): (Time, &str),
        args: &[Operand],
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
            return Err(self.stop(at, unknown(name)));
        };
        let params = method.params();
        let count = args.len() + usize::from(piped.is_some());
        if count != params.len() {
            return Err(self.stop(at, wrong_count(name, params.len(), count)));
        }
        let mut values = Vec::with_capacity(count);
        for (ty, arg) in params.iter().zip(args) {
            values.push(self.argument(dot, *ty, arg)?);
        }
        if let (Some(piped), Some(ty)) = (piped, params.last()) {
            values.push(ty.accept(piped).map_err(|fault| self.stop(at, fault))?);
        }
        match (method, values.as_slice()) {
            (Field(read), _) => Ok(read(time)),
            (Span(call), [Value::Int(nanos)]) => Ok(call(time, *nanos)),
            (Other(call), [Value::Time(other)]) => Ok(call(time, *other)),
            (Format, [Value::Str(layout)]) => Ok(Value::str(time.format(&to_str(layout)))),
            (AddDate, [Value::Int(years), Value::Int(months), Value::Int(days)]) => {
                Ok(Value::Time(time.plus_date(*years, *months, *days)))
            }
            (_, values) => {
                let got = values.first().map_or("nil", Value::type_name);
                let what = format!("wrong type for value; expected time.Time; got {got}");
                Err(self.stop(at, Fault::new(what, "give it another `datetime`")))
            }
        }
    }
}

fn wrong_count(name: &str, want: usize, got: usize) -> Fault {
    let what = format!("wrong number of args for {name}: want {want} got {got}");
    Fault::new(what, "as in `datetime.Format \"2006-01-02\"`")
}

fn unknown(name: &str) -> Fault {
    let known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
    let there_are = format!("there are {}", known.join(", "));
    match MISSING.contains(&name) {
        true => Fault::new(format!("{name} of a time is not supported here"), there_are),
        false => Fault::new(format!("can't evaluate field {name} in type time.Time"), there_are),
    }
}
