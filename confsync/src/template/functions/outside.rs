//! The functions that query the system: environment, names, files, the clock.
//!
//! Every result may differ from render to render, so none belongs in a template whose output should
//! change only with its keys.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::{Call, Fault, Function, FunctionResult, Ty, bytes, text};
use crate::template::system::ServiceRecord;
use crate::template::time::Time;
use crate::template::value::{Elem, List, Record, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "getenv", params: &[Ty::Str], rest: Some(Ty::Str), call: getenv },
    Function { name: "datetime", params: &[], rest: None, call: datetime },
    Function { name: "hostname", params: &[], rest: None, call: hostname },
    Function { name: "fileExists", params: &[Ty::Str], rest: None, call: file_exists },
    Function { name: "lookupIP", params: &[Ty::Str], rest: None, call: lookup_ip },
    Function { name: "lookupIPV4", params: &[Ty::Str], rest: None, call: lookup_ipv4 },
    Function { name: "lookupIPV6", params: &[Ty::Str], rest: None, call: lookup_ipv6 },
    Function {
        name: "lookupSRV",
        params: &[Ty::Str, Ty::Str, Ty::Str],
        rest: None,
        call: lookup_srv,
    },
    Function { name: "lookupIfaceIPV4", params: &[Ty::Str], rest: None, call: iface_ipv4 },
    Function { name: "lookupIfaceIPV6", params: &[Ty::Str], rest: None, call: iface_ipv6 },
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

/// The addresses of a name that fit, sorted as text.
fn addresses(call: &Call<'_>, args: &[Value], fits: fn(&IpAddr) -> bool) -> FunctionResult {
    let name = &*text(args, 0);
    let found = match name.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => call.system().addresses(name).map_err(|why| unsure(name, &why))?,
    };
    let mut found: Vec<String> =
        found.iter().filter(|ip| fits(ip)).map(IpAddr::to_string).collect();
    found.sort_unstable();
    found.dedup();
    // Go's has made no list where it has found nothing, and `toJson` shows it.
    let none = found.is_empty();
    Ok(Value::List(if none { List::nil(Elem::Str) } else { List::strings(found) }))
}

fn lookup_ip(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    addresses(call, args, |_| true)
}

fn lookup_ipv4(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    addresses(call, args, IpAddr::is_ipv4)
}

fn lookup_ipv6(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    addresses(call, args, IpAddr::is_ipv6)
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
            ("Port", Value::Int(record.port.into())),
            ("Priority", Value::Int(record.priority.into())),
            ("Weight", Value::Int(record.weight.into())),
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

fn iface_ipv4(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    interface(call, args, IpAddr::is_ipv4)
}

fn iface_ipv6(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    interface(call, args, IpAddr::is_ipv6)
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
                [("Target", Value::Str(ref target)), ("Port", Value::Int(port))] => {
                    format!("{} {port}", target.lossy())
                }
                _ => panic!("{record:?}"),
            },
            _ => panic!("{service:?}"),
        });
        assert_eq!(fields.collect::<Vec<_>>(), [". 1", "a.x. 9", "b.x. 80", "b.x. 90"]);
    }
}
