//! One service: its key, its value, how it is checked and judged.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use common::model::{
    Backend, Endpoint, Host, Key, KeyError, MAX_WEIGHT, Prefix, format_span, port,
};

use super::errors::{Complaints, UsageErrors};
use super::reader::{EMPTY, Reader};
use crate::health::Policy;
use crate::probe::{Check, HttpOptions, Probe, Trust};

const PREFIX: &str = "/services";
const INTERVAL: Duration = Duration::from_secs(2);
const FAST: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(1_500);
const GRACE: Duration = Duration::from_secs(10);
const RISE: u32 = 2;
const FALL: u32 = 3;

const HOUR: Duration = Duration::from_secs(3_600);

/// What is registered, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The service's name: the folder under the prefix.
    pub service: String,
    /// The key of this instance.
    pub key: Key,
    /// Where it listens.
    pub addr: Endpoint,
}

/// One service to probe and register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What is registered, and where.
    pub target: Target,
    /// The bytes to write to the key.
    pub value: String,
    /// All of them must pass. At least one.
    pub checks: Vec<Check>,
    /// One probe's time, in total. Below the interval.
    pub timeout: Duration,
    /// When results change the state, and when to ask again.
    pub policy: Policy,
}

/// Makes the checks of services ready, in the same order: reads CA files, looks for
/// commands.
///
/// # Errors
/// Everything that an operator has to put right.
pub fn prepare(services: &[Service]) -> Result<Vec<Vec<Probe>>, UsageErrors> {
    let mut complaints = Complaints::default();
    let mut trust = Trust::default();
    let mut ready = Vec::new();
    for Service { target, checks, timeout, .. } in services {
        let mut probes = Vec::new();
        for check in checks {
            match Probe::prepare(check.clone(), *timeout, &mut trust) {
                Ok(probe) => probes.push(probe),
                Err(why) => complaints.add(format!("{}, `{check}`", target.key), why),
            }
        }
        ready.push(probes);
    }
    complaints.end(ready)
}

pub(super) fn read(
    mut from: Reader<'_>,
    hostname: &str,
    notes: &mut Vec<String>,
) -> Option<Service> {
    let target = target(&mut from, hostname, notes);
    let addr = target.as_ref().map(|target| target.addr.clone());
    let value = value(&mut from, addr.as_ref());
    let checks = checks(&mut from, addr.as_ref());
    let (timeout, policy) = policy(&mut from);
    Some(Service { target: target?, value: value?, checks, timeout, policy })
}

/// The key and the address, also of an instance that is only to be removed.
pub(super) fn target(
    from: &mut Reader<'_>,
    hostname: &str,
    notes: &mut Vec<String>,
) -> Option<Target> {
    let prefix = from.read("prefix", str::parse::<Prefix>);
    let prefix = prefix.or_else(|| PREFIX.parse().ok())?;
    let why = "the service's name, such as `apache`";
    let folder = from
        .need("service", why, |text| prefix.folder(text).map(|folder| (text.to_owned(), folder)));
    let why = "the address where load balancers reach this instance \
               (COREOS_PRIVATE_IPV4 is taken if it is set)";
    let host = from.need("host", why, |text| {
        let host = text.parse().map_err(|e: common::model::HostError| e.to_string())?;
        reachable(&host)?;
        Ok::<Host, String>(host)
    });
    let port = from.need("port", "the port where this instance listens", port);
    let (Some((service, folder)), Some(host), Some(port)) = (folder, host, port) else {
        return None;
    };
    notes.extend(doubtful(&host));
    let addr = Endpoint::new(host, port).ok()?;
    let plain = || folder.key(&addr.host().to_string());
    let key = match from.raw.one("id") {
        None => plain().map_err(|e| from.wrong("host", e)).ok()?,
        Some(_) => from.read("id", |text| id(text, &folder, &addr, hostname))?,
    };
    Some(Target { service, key, addr })
}

fn reachable(host: &Host) -> Result<(), String> {
    let (any, many) = match host {
        Host::V4(ip) => (ip.is_unspecified(), ip.is_multicast() || ip.is_broadcast()),
        Host::V6(ip) => (ip.is_unspecified(), ip.is_multicast()),
        Host::Name(_) => (false, false),
    };
    if any {
        return Err(format!(
            "{host} is where to listen, not where to connect; \
                            give the address that load balancers use"
        ));
    }
    if many { Err(format!("{host} is not the address of one machine")) } else { Ok(()) }
}

fn doubtful(host: &Host) -> Option<String> {
    let loopback = match host {
        Host::V4(ip) => ip.is_loopback(),
        Host::V6(ip) => ip.is_loopback(),
        Host::Name(name) => {
            return Some(format!(
                "the host `{name}` is a name: nginx resolves names only while it reads its \
                 configuration, so load balancers refuse them unless told otherwise"
            ));
        }
    };
    let said = "only a load balancer on this machine will reach it";
    loopback.then(|| format!("the host {host} is a loopback address: {said}"))
}

fn id(text: &str, folder: &Prefix, addr: &Endpoint, hostname: &str) -> Result<Key, String> {
    let id = text
        .replace("{host}", &addr.host().to_string())
        .replace("{port}", &addr.port().to_string())
        .replace("{hostname}", hostname);
    if id.contains(['{', '}']) {
        return Err(format!("`{id}`: only {{host}}, {{port}} and {{hostname}} are known"));
    }
    folder.key(&id).map_err(|e: KeyError| e.to_string())
}

fn value(from: &mut Reader<'_>, addr: Option<&Endpoint>) -> Option<String> {
    let json = from.read("value", |text| match text {
        "plain" => Ok(false),
        "json" => Ok(true),
        _ => Err("write plain (`host:port`) or json"),
    });
    let json = json.unwrap_or(false);
    let nowhere = Endpoint::new(Host::Name("nowhere".into()), 1).ok()?;
    let mut backend = Backend::at(addr.unwrap_or(&nowhere).clone());
    let top = u32::from(MAX_WEIGHT);
    backend.weight = u16::try_from(from.number("weight", 1, 1, top)).unwrap_or(1);
    backend.zone = from.read("zone", |text| {
        let judged = Backend { zone: Some(text.to_owned()), ..Backend::at(nowhere.clone()) };
        readable(&judged).map(|()| text.to_owned())
    });
    backend.meta = meta(from, &nowhere);
    for name in ["weight", "zone", "meta"] {
        if !json && from.meant(name) {
            from.wrong(name, "a plain value is only `host:port`; add --value json");
        }
    }
    addr.map(|addr| if json { backend.to_json() } else { addr.to_string() })
}

/// The grammar for readers decides what may be written.
fn readable(backend: &Backend) -> Result<(), String> {
    Backend::parse(backend.to_json().as_bytes()).map(drop).map_err(|e| e.to_string())
}

fn meta(from: &mut Reader<'_>, nowhere: &Endpoint) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for given in from.raw.all("meta") {
        let Some((key, text)) = given.text.split_once('=') else {
            from.complaints.add(&given.place, "write key=value");
            continue;
        };
        let one = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        if let Err(e) = readable(&Backend { meta: one, ..Backend::at(nowhere.clone()) }) {
            from.complaints.add(&given.place, e);
        } else if all.insert(key.to_owned(), text.to_owned()).is_some() {
            from.complaints.add(&given.place, format!("`{key}` is given twice"));
        }
    }
    all
}

fn checks(from: &mut Reader<'_>, addr: Option<&Endpoint>) -> Vec<Check> {
    let options = options(from);
    // With a bad address the checks are still looked at, for their own faults.
    let nowhere = Endpoint::new(Host::Name("nowhere".into()), 1).ok();
    let Some(own) = addr.or(nowhere.as_ref()) else { return Vec::new() };
    let mut checks = Vec::new();
    for given in from.raw.all("check") {
        if given.text.is_empty() {
            from.complaints.add(&given.place, EMPTY);
            continue;
        }
        match Check::parse(&given.text, own, &options) {
            Ok(check) => checks.push(check),
            Err(e) => from.complaints.add(&given.place, e),
        }
    }
    if from.raw.all("check").is_empty() {
        checks.extend(Check::parse("http", own, &options));
    }
    let http = |check: &Check| matches!(check, Check::Http(_));
    let tls = |check: &Check| check.is_tls();
    unused(from, &["expect", "check_host", "check_body"], checks.iter().any(http), "http");
    unused(from, &["check_ca", "check_insecure"], checks.iter().any(tls), "https");
    checks
}

fn options(from: &mut Reader<'_>) -> HttpOptions {
    let text = |text: &str| Ok::<_, String>(text.to_owned());
    let host = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\".contains(&b));
        if plain {
            Ok(text.to_owned())
        } else {
            Err("this is no Host header; write name or name:port")
        }
    };
    let options = HttpOptions {
        expect: from.read("expect", str::parse).unwrap_or_default(),
        body: from.read("check_body", text),
        host: from.read("check_host", host),
        ca: from.read("check_ca", |text| Ok::<_, String>(PathBuf::from(text))),
        insecure: from.yes("check_insecure"),
    };
    if options.insecure && options.ca.is_some() {
        from.wrong(
            "check_insecure",
            "any certificate is taken, so --check-ca means nothing; drop one",
        );
    }
    options
}

/// A setting without effect is a mistake, unless it was written for many.
fn unused(from: &mut Reader<'_>, names: &[&str], used: bool, kind: impl Display) {
    for name in names {
        if !used && from.meant(name) {
            from.wrong(name, format!("there is no {kind} check that it could apply to"));
        }
    }
}

fn policy(from: &mut Reader<'_>) -> (Duration, Policy) {
    let ms = Duration::from_millis;
    let interval = from.span("interval", INTERVAL, ms(100), HOUR);
    // Only what was written can be wrong together; defaults give way.
    let fast = from.span("fast_interval", FAST.min(interval), ms(50), HOUR);
    let timeout = from.span("timeout", TIMEOUT.min(interval * 3 / 4), ms(10), HOUR);
    if fast > interval {
        from.wrong(
            "fast_interval",
            format!(
                "{} is not faster than --interval {}",
                format_span(fast),
                format_span(interval)
            ),
        );
    }
    if timeout >= interval {
        from.wrong(
            "timeout",
            format!(
                "{} must be below --interval {}, or probes would run into each other",
                format_span(timeout),
                format_span(interval)
            ),
        );
    }
    let count = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    let rise = count(from.number("rise", RISE, 1, 1_000));
    let fall = count(from.number("fall", FALL, 1, 1_000));
    let grace = from.span("grace", GRACE, Duration::ZERO, HOUR);
    (timeout, Policy { rise, fall, interval, fast, grace })
}
