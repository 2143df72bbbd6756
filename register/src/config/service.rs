//! One service: its key, its value, how it is checked and judged.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use common::model::{
    Backend, Endpoint, Host, HostError, Key, KeyError, MAX_WEIGHT, Prefix, format_span,
    is_upstream_name, port,
};
use common::settings::{Mistakes, Reader, Setting};

use crate::health::HealthPolicy;
use crate::probe::{Check, HttpOptions, Probe, Trust};
use crate::settings::{
    CHECK, CHECK_BODY, CHECK_CA, CHECK_HOST, CHECK_INSECURE, EXPECT, FALL, FAST_INTERVAL, GRACE,
    HOST, ID, INTERVAL, META, PORT, RISE, SERVICE, SERVICES, TIMEOUT, VALUE, WEIGHT, ZONE,
};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// What is registered, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationTarget {
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
    pub target: RegistrationTarget,
    /// The bytes to write to the key.
    pub value: String,
    /// All of them must pass. At least one.
    pub checks: Vec<Check>,
    /// One probe's time, in total. Below the interval.
    pub timeout: Duration,
    /// When results change the state, and when to ask again.
    pub policy: HealthPolicy,
}

/// Makes the checks of services ready, in the same order: settles whom they trust, looks for
/// commands.
///
/// # Errors
/// Everything that an operator has to put right.
pub fn prepare(services: &[Service]) -> Result<Vec<Vec<Probe>>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut trust = Trust::default();
    let mut ready = Vec::new();
    for Service { target, checks, timeout, .. } in services {
        let mut probes = Vec::new();
        for check in checks {
            match Probe::prepare(check.clone(), *timeout, &mut trust) {
                Ok(probe) => probes.push(probe),
                Err(why) => mistakes.add(format!("{}, `{check}`", target.key), why),
            }
        }
        ready.push(probes);
    }
    mistakes.none_or(ready)
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
) -> Option<RegistrationTarget> {
    let prefix: Option<Prefix> = from.get(&SERVICES, str::parse);
    // With a bad prefix the name is looked at all the same, for its own mistakes.
    let prefix = prefix.or_else(|| "/services".parse().ok())?;
    let folder = from.need(&SERVICE, "the service's name, such as `apache`", |text| {
        if text.trim() != text {
            return Err(format!("`{}` begins or ends with a space", text.escape_debug()));
        }
        let folder = prefix.folder(text).map_err(|e| e.to_string())?;
        Ok((text.to_owned(), folder))
    });
    let why = "the address where load balancers reach this instance \
               (COREOS_PRIVATE_IPV4 is used if it is set)";
    let host = from.need(&HOST, why, host);
    let port = from.need(&PORT, "the port where this instance listens", port);
    let (Some((service, folder)), Some(host), Some(port)) = (folder, host, port) else {
        return None;
    };
    notes.extend(advice_on(&host).into_iter().chain(advice_on_service(&service)));
    let addr = Endpoint::new(host, port).ok()?;
    // Without an id it is the host that makes a bad key.
    let key = if from.is_given(&ID) {
        from.get(&ID, |text| id(text, &folder, &addr, hostname))?
    } else {
        folder.key(&addr.host().to_string()).map_err(|e| from.wrong(&HOST, e)).ok()?
    };
    Some(RegistrationTarget { service, key, addr })
}

fn host(text: &str) -> Result<Host, String> {
    let host = text.parse().map_err(|e: HostError| e.to_string())?;
    reachable(&host)?;
    Ok(host)
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

fn advice_on(host: &Host) -> Option<String> {
    let loopback = match host {
        Host::V4(ip) => ip.is_loopback(),
        Host::V6(ip) => ip.is_loopback(),
        Host::Name(name) => {
            return Some(format!(
                "the host `{name}` is a name: nginx resolves names only while it reads its \
                 configuration, so load balancers reject them unless configured otherwise"
            ));
        }
    };
    loopback.then(|| {
        format!(
            "the host {host} is a loopback address: only a load balancer on this machine can \
             reach it"
        )
    })
}

/// A template may read any key, and has to find another name for its upstream then.
fn advice_on_service(name: &str) -> Option<String> {
    (!is_upstream_name(name)).then(|| {
        format!(
            "the service name `{}` cannot name an upstream: `upstream` and `servers` in templates \
             reject it, and so does HAProxy; use letters, digits, `_`, `-` and `.`, a letter or \
             digit first",
            name.escape_debug()
        )
    })
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
    let json = from.get(&VALUE, |text| match text {
        "plain" => Ok(false),
        "json" => Ok(true),
        _ => Err(format!("`{text}` is neither plain (`host:port`) nor json")),
    });
    let json = json.unwrap_or(false);
    let nowhere = Endpoint::new(Host::Name("nowhere".into()), 1).ok()?;
    let mut backend = Backend::at(addr.unwrap_or(&nowhere).clone());
    let weight = from.number(&WEIGHT, 1..=u32::from(MAX_WEIGHT));
    backend.weight = u16::try_from(weight).unwrap_or(1);
    backend.zone = from.get(&ZONE, |text| {
        let judged = Backend { zone: Some(text.to_owned()), ..Backend::at(nowhere.clone()) };
        readable(&judged).map(|()| text.to_owned())
    });
    backend.meta = meta(from, &nowhere);
    for setting in [&WEIGHT, &ZONE, &META] {
        if !json && from.is_meant(setting) {
            from.wrong(setting, "a plain value is only `host:port`; add --value json");
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
    from.get_all(&META, |text| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
        let one = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        readable(&Backend { meta: one, ..Backend::at(nowhere.clone()) })?;
        match all.insert(key.to_owned(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(format!("`{key}` is given twice")),
        }
    });
    all
}

fn checks(from: &mut Reader<'_>, addr: Option<&Endpoint>) -> Vec<Check> {
    let options = options(from);
    // With a bad address the checks are still looked at, for their own mistakes.
    let nowhere = Endpoint::new(Host::Name("nowhere".into()), 1).ok();
    let Some(own) = addr.or(nowhere.as_ref()) else { return Vec::new() };
    let mut checks = from.get_all(&CHECK, |text| Check::parse(text, own, &options));
    if !from.is_given(&CHECK) {
        checks.extend(Check::parse("http", own, &options));
    }
    let http = |check: &Check| matches!(check, Check::Http(_));
    let tls = |check: &Check| check.is_tls();
    unused(from, &[&EXPECT, &CHECK_HOST, &CHECK_BODY], checks.iter().any(http), "http");
    unused(from, &[&CHECK_CA, &CHECK_INSECURE], checks.iter().any(tls), "https");
    checks
}

fn options(from: &mut Reader<'_>) -> HttpOptions {
    let host = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\".contains(&b));
        if plain { Ok(text.to_owned()) } else { Err("not a Host header; write name or name:port") }
    };
    let options = HttpOptions {
        expect: from.get(&EXPECT, str::parse).unwrap_or_default(),
        body: from.text(&CHECK_BODY),
        host: from.get(&CHECK_HOST, host),
        ca: from.text(&CHECK_CA).map(PathBuf::from),
        insecure: from.yes(&CHECK_INSECURE),
    };
    if options.insecure && options.ca.is_some() {
        let problem =
            "any certificate is accepted, so --check-ca has no effect; remove one of the two";
        from.wrong(&CHECK_INSECURE, problem);
    }
    options
}

/// A setting without effect is a mistake, unless it was written for many services.
fn unused(from: &mut Reader<'_>, settings: &[&Setting], used: bool, kind: &str) {
    for setting in settings {
        if !used && from.is_meant(setting) {
            from.wrong(setting, format!("there is no {kind} check that it applies to"));
        }
    }
}

fn policy(from: &mut Reader<'_>) -> (Duration, HealthPolicy) {
    let ms = Duration::from_millis;
    let interval = from.span(&INTERVAL, ms(100)..=HOUR);
    let mut fast = from.span(&FAST_INTERVAL, ms(50)..=HOUR);
    let mut timeout = from.span(&TIMEOUT, ms(10)..=HOUR);
    // Only what was written can be wrong together; defaults give way.
    if !from.is_given(&FAST_INTERVAL) {
        fast = fast.min(interval);
    }
    if !from.is_given(&TIMEOUT) {
        timeout = timeout.min(interval * 3 / 4);
    }
    if fast > interval {
        let (fast, interval) = (format_span(fast), format_span(interval));
        from.wrong(&FAST_INTERVAL, format!("{fast} is not faster than --interval {interval}"));
    }
    if timeout >= interval {
        let (timeout, interval) = (format_span(timeout), format_span(interval));
        let problem =
            format!("{timeout} must be below --interval {interval}, or probes would overlap");
        from.wrong(&TIMEOUT, problem);
    }
    let mut count =
        |setting| NonZeroU32::new(from.number(setting, 1..=1_000)).unwrap_or(NonZeroU32::MIN);
    let (rise, fall) = (count(&RISE), count(&FALL));
    let grace = from.span(&GRACE, Duration::ZERO..=HOUR);
    (timeout, HealthPolicy { rise, fall, interval, fast, grace })
}
