//! What a template may ask of the machine: environment, names, files, the clock.
//!
//! Every answer may differ from render to render, so none belongs in a template
//! whose output should change only with its keys. Look-ups have a deadline.

use std::ffi::OsStr;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use hickory_resolver::proto::rr::rdata::SRV;

use super::{Call, Fault, Function, Outcome, Ty, bytes, dns, text};
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

/// How long one look-up of a name may take.
const LOOKUP: Duration = Duration::from_secs(5);

fn getenv(_: &Call<'_>, args: &[Value]) -> Outcome {
    let name = &*text(args, 0);
    // `std::env::var_os` panics on neither, but says nothing useful for them.
    let value = if name.is_empty() || name.contains(['=', '\0']) {
        None
    } else {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    };
    Ok(value.map_or_else(|| args.get(1).cloned().unwrap_or(Value::str("")), Value::str))
}

fn datetime(_: &Call<'_>, _: &[Value]) -> Outcome {
    Ok(Value::Time(Time::from(SystemTime::now())))
}

fn hostname(_: &Call<'_>, _: &[Value]) -> Outcome {
    let name = rustix::system::uname();
    Ok(Value::str(name.nodename().to_string_lossy().into_owned()))
}

fn file_exists(_: &Call<'_>, args: &[Value]) -> Outcome {
    let missing = std::fs::metadata(OsStr::from_bytes(bytes(args, 0)))
        .is_err_and(|e| matches!(e.kind(), std::io::ErrorKind::NotFound));
    Ok(Value::Bool(!missing))
}

/// No answer is not the answer "none": that would empty the rendered file.
fn unsure(name: &str, why: &str) -> Fault {
    let what = format!("looking up `{}`: {why}", name.escape_debug());
    Fault::new(what, "is the name right, and the resolver in /etc/resolv.conf reachable?")
}

/// The addresses of a name, sorted as text. A name that does not exist has none;
/// a resolver that does not answer is an error.
fn addresses(host: &str) -> Result<Vec<String>, Fault> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![ip.to_string()]);
    }
    let (answer, asked) = mpsc::sync_channel(1);
    let name = host.to_owned();
    let worker = move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        // Nobody listens any more when the deadline has passed.
        let _ = answer.send(found.map(|all| all.map(|a| a.ip().to_string()).collect()));
    };
    std::thread::Builder::new().spawn(worker).map_err(|e| unsure(host, &e.to_string()))?;
    let answer: std::io::Result<Vec<String>> =
        asked.recv_timeout(LOOKUP).map_err(|_| unsure(host, "no answer in time"))?;
    match answer {
        Ok(mut found) => {
            found.sort_unstable();
            found.dedup();
            Ok(found)
        }
        Err(e) if e.to_string().contains("Temporary failure") => Err(unsure(host, &e.to_string())),
        Err(_) => Ok(Vec::new()),
    }
}

fn looked_up(args: &[Value], keep: fn(&String) -> bool) -> Outcome {
    let found = addresses(&text(args, 0))?.into_iter().filter(keep);
    Ok(Value::List(List::strings(found)))
}

fn lookup_ip(_: &Call<'_>, args: &[Value]) -> Outcome {
    looked_up(args, |_| true)
}

fn lookup_ipv4(_: &Call<'_>, args: &[Value]) -> Outcome {
    looked_up(args, |ip| ip.contains('.'))
}

fn lookup_ipv6(_: &Call<'_>, args: &[Value]) -> Outcome {
    looked_up(args, |ip| ip.contains(':'))
}

fn lookup_srv(_: &Call<'_>, args: &[Value]) -> Outcome {
    let (service, proto, name) = (text(args, 0), text(args, 1), text(args, 2));
    let target = if service.is_empty() && proto.is_empty() {
        name.into_owned()
    } else {
        format!("_{service}._{proto}.{name}")
    };
    let found = dns::lookup(&target, LOOKUP).map_err(|e| unsure(&target, &e.to_string()))?;
    Ok(Value::List(services(found)))
}

/// The servers of a service, sorted as confd sorts them: by all fields as one text.
fn services(mut found: Vec<SRV>) -> List {
    found.sort_by_cached_key(|r| {
        format!("{}{}{}{}", r.target.to_ascii(), r.port, r.priority, r.weight)
    });
    let records = found.into_iter().map(|r| {
        let fields = vec![
            // With a dot at the end, as Go prints it.
            ("Target", Value::str(r.target.to_ascii())),
            ("Port", Value::Int(r.port.into())),
            ("Priority", Value::Int(r.priority.into())),
            ("Weight", Value::Int(r.weight.into())),
        ];
        Value::Record(Arc::new(Record { name: "*net.SRV", fields }))
    });
    List::flat(Elem::Service, records.collect())
}

/// The first address of an interface that fits; none is the empty text.
fn iface(args: &[Value], keep: fn(&IpAddr) -> bool) -> Outcome {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let found = all.into_iter().filter(|i| i.name == *text(args, 0)).map(|i| i.ip()).find(keep);
    Ok(Value::str(found.map(|ip| ip.to_string()).unwrap_or_default()))
}

fn iface_ipv4(_: &Call<'_>, args: &[Value]) -> Outcome {
    iface(args, IpAddr::is_ipv4)
}

fn iface_ipv6(_: &Call<'_>, args: &[Value]) -> Outcome {
    iface(args, IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;

    use super::*;

    #[test]
    fn services_are_sorted_by_all_fields_as_one_text() {
        let record = |port, target| SRV::new(0, 1, port, Name::from_ascii(target).unwrap());
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
