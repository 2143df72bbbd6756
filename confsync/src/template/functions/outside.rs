//! The functions that query the system: environment, names, files, the clock.
//!
//! Every result may differ from render to render, so none belongs in a template whose output should
//! change only with its keys.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use common::dns::ServiceRecord;

use super::{Call, Fault, Function, FunctionResult, Ty, bytes, text};
use crate::template::time::Time;
use crate::template::value::{Elem, List, Record, Uint, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::variadic("getenv", &[Ty::Str], Ty::Str, getenv),
    Function::new("datetime", &[], datetime),
    Function::new("hostname", &[], hostname),
    Function::new("fileExists", &[Ty::Str], file_exists),
    Function::new("lookupIP", &[Ty::Str], |call, args| addresses(call, args, |_| true)),
    Function::new("lookupIPV4", &[Ty::Str], |call, args| addresses(call, args, IpAddr::is_ipv4)),
    Function::new("lookupIPV6", &[Ty::Str], |call, args| addresses(call, args, IpAddr::is_ipv6)),
    Function::new("lookupSRV", &[Ty::Str, Ty::Str, Ty::Str], lookup_srv),
    Function::new("lookupIfaceIPV4", &[Ty::Str], |call, args| {
        interface(call, args, IpAddr::is_ipv4)
    }),
    Function::new("lookupIfaceIPV6", &[Ty::Str], |call, args| {
        interface(call, args, IpAddr::is_ipv6)
    }),
];

fn getenv(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let found = call.system().variable(&text(args, 0)).filter(|value| !value.is_empty());
    Ok(found.map_or_else(|| args.get(1).cloned().unwrap_or(Value::str("")), Value::str))
}

fn datetime(call: &Call<'_>, _: &[Value]) -> FunctionResult {
    Ok(Value::Time(Time::from(call.system().now())))
}

fn hostname(call: &Call<'_>, _: &[Value]) -> FunctionResult {
    Ok(Value::str(call.system().hostname()))
}

fn file_exists(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let path = Path::new(OsStr::from_bytes(bytes(args, 0)));
    Ok(Value::Bool(call.system().file_exists(path)))
}

/// A failed look-up must not count as "none": that would empty the rendered file.
fn unsure(name: &str, why: &str) -> Fault {
    let what = format!("looking up `{}`: {why}", name.escape_debug());
    Fault::new(what, "is the name right, and the resolver in /etc/resolv.conf reachable?")
}

/// The address that a name is, without its zone.
fn literal(name: &str) -> Option<IpAddr> {
    match name.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address.parse().ok().map(IpAddr::V6),
        _ => name.parse().ok(),
    }
}

/// Whether the system's resolver would take it for an address (`127.1`, `99`, `0x7f.1`), which
/// is no name to Go.
fn is_shortened(name: &str) -> bool {
    name.split('.').all(|part| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
    })
}

/// The addresses of a name that fit, sorted as text.
fn addresses(call: &Call<'_>, args: &[Value], fits: fn(&IpAddr) -> bool) -> FunctionResult {
    let name = &*text(args, 0);
    let found = match literal(name) {
        Some(address) => vec![address],
        None if is_shortened(name) => Vec::new(),
        None => call.system().addresses(name).map_err(|why| unsure(name, &why))?,
    };
    // To Go an address of v4 in v6 is one of v4.
    let found = found.iter().map(IpAddr::to_canonical).filter(fits);
    let mut found: Vec<String> = found.map(|ip| ip.to_string()).collect();
    found.sort_unstable();
    found.dedup();
    // Go's has made no list where it has found nothing, and `toJson` shows it.
    let none = found.is_empty();
    Ok(Value::List(if none { List::nil(Elem::Str) } else { List::strings(found) }))
}

fn lookup_srv(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let (service, proto, name) = (text(args, 0), text(args, 1), text(args, 2));
    let target = match service.is_empty() && proto.is_empty() {
        true => name.into_owned(),
        false => format!("_{service}._{proto}.{name}"),
    };
    let found = call.system().services(&target).map_err(|why| unsure(&target, &why))?;
    Ok(Value::List(services(found)))
}

/// The servers of a service, sorted as confd sorts them: by all fields as one text.
fn services(mut found: Vec<ServiceRecord>) -> List {
    found.sort_by_cached_key(|record| {
        let ServiceRecord { target, port, priority, weight } = record;
        format!("{target}{port}{priority}{weight}")
    });
    let records = found.into_iter().map(|record| {
        let fields = vec![
            ("Target", Value::str(record.target)),
            ("Port", Value::Uint(Uint::Short(record.port))),
            ("Priority", Value::Uint(Uint::Short(record.priority))),
            ("Weight", Value::Uint(Uint::Short(record.weight))),
        ];
        Value::Record(Arc::new(Record { name: "*net.SRV", fields }))
    });
    List::flat(Elem::Service, records.collect())
}

/// The first address of an interface that fits; none is the empty text.
fn interface(call: &Call<'_>, args: &[Value], fits: fn(&IpAddr) -> bool) -> FunctionResult {
    let found = call.system().interface(&text(args, 0)).into_iter().find(fits);
    Ok(Value::str(found.map(|ip| ip.to_string()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_sorted_by_all_fields_as_one_text() {
        let record = |port, target: &str| ServiceRecord {
            target: target.to_owned(),
            port,
            priority: 0,
            weight: 1,
        };
        let found = vec![record(90, "b.x."), record(9, "a.x."), record(80, "b.x."), record(1, ".")];
        let services = services(found);
        let fields = services.items().iter().map(|service| match service {
            Value::Record(record) => match record.fields[..2] {
                [("Target", Value::Str(ref target)), ("Port", Value::Uint(Uint::Short(port)))] => {
                    format!("{} {port}", target.lossy())
                }
                _ => panic!("{record:?}"),
            },
            _ => panic!("{service:?}"),
        });
        assert_eq!(fields.collect::<Vec<_>>(), [". 1", "a.x. 9", "b.x. 80", "b.x. 90"]);
    }
}
