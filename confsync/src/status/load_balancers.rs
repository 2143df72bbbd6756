//! The load balancers as they describe themselves in etcd: which there are, and what each has
//! applied. Pure; for `confsync status` and the page.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use common::handshake::{Ack, Bookkeeping, LeaveMarker, Member};
use common::model::{Snapshot, plural};
use common::runtime::hostname;
use common::table::{self, Line, Paint, escaped};
use serde::Serialize;

/// Every load balancer by name, with its acknowledgements by resource.
pub type Fleet = BTreeMap<String, (Member, BTreeMap<String, Ack>)>;

/// The state of one resource of one load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadBalancerStatus {
    pub lb: String,
    pub host: String,
    /// Its status page, if it can be reached from here.
    pub page: Option<String>,
    pub resource: String,
    /// The revision it has applied; `None` before the first.
    pub applied: Option<u64>,
    /// The revision of which no older worker is left.
    pub quiesced: Option<u64>,
    /// Who changes backends in its proxy, once it says so.
    pub driver: Option<String>,
    /// Why every change of backends needs a reload, or which do.
    pub driver_reason: Option<String>,
    /// How urgent its state is.
    #[serde(rename = "mood")]
    pub severity: Severity,
    /// Its state, for an operator.
    pub words: String,
}

/// What is followed in etcd while a client has the page open.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The load balancers.
    pub fleet: Fleet,
    /// The backends that deregister on purpose, by key.
    pub draining: Vec<DrainState>,
}

/// One backend that deregisters on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainState {
    pub key: String,
    /// When the drain began, in milliseconds of Unix time, if its sidekick reports it.
    pub since: Option<u64>,
    /// When its sidekick stops waiting at the latest.
    pub until: Option<u64>,
}

impl Followed {
    /// Parses the bookkeeping keys; what does not parse is left out.
    pub fn read(found: &Snapshot, bookkeeping: &Bookkeeping) -> Self {
        let markers = bookkeeping.leave_markers();
        let marks = found.entries.values().filter(|entry| markers.covers(&entry.key));
        let drain = |entry: &common::model::Entry| {
            let LeaveMarker { key, times } = serde_json::from_slice(&entry.value).ok()?;
            Some(DrainState { key, since: times.since, until: times.until })
        };
        Self { fleet: read(found, bookkeeping), draining: marks.filter_map(drain).collect() }
    }
}

/// How urgent a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// It passes by itself.
    Wait,
    /// It needs an operator.
    Bad,
}

/// Parses the bookkeeping keys; what does not parse is left out.
pub fn read(found: &Snapshot, bookkeeping: &Bookkeeping) -> Fleet {
    let mut fleet = Fleet::new();
    for entry in found.entries.values() {
        if let Some(lb) = bookkeeping.member_name(&entry.key)
            && let Ok(member) = serde_json::from_slice(&entry.value)
        {
            fleet.insert(lb.to_owned(), (member, BTreeMap::new()));
        }
    }
    for entry in found.entries.values() {
        if let Some((resource, lb)) = bookkeeping.ack_parts(&entry.key)
            && let Some((_, acks)) = fleet.get_mut(lb)
            && let Ok(ack) = serde_json::from_slice(&entry.value)
        {
            acks.insert(resource.to_owned(), ack);
        }
    }
    fleet
}

/// One line per resource, ordered by name.
pub fn statuses(fleet: &Fleet) -> Vec<LoadBalancerStatus> {
    let of = |(lb, (member, acks)): (&String, &(Member, BTreeMap<String, Ack>))| {
        let one = |resource: &common::handshake::Consumes| {
            // An acknowledgement of an earlier instance does not count.
            let ack = acks.get(&resource.name).filter(|ack| ack.instance_id == member.instance_id);
            let (severity, words) = state_of(member, ack);
            let known = ack.filter(|ack| ack.applied.0 > 0);
            let driver = known.and_then(|ack| ack.driver.as_ref());
            LoadBalancerStatus {
                lb: lb.clone(),
                host: member.host.clone(),
                page: page(member),
                resource: resource.name.clone(),
                applied: known.map(|ack| ack.applied.0),
                quiesced: known.map(|ack| ack.quiesced.0),
                driver: driver.map(|driver| driver.name.clone()),
                driver_reason: driver.and_then(|driver| driver.reason.clone()),
                severity,
                words,
            }
        };
        member.resources.iter().map(one).collect::<Vec<_>>()
    };
    fleet.iter().flat_map(of).collect()
}

/// A loopback address refers to the client's own machine, so it is a valid link only for ours.
fn page(member: &Member) -> Option<String> {
    let at = member.status.as_ref()?;
    let loopback = at.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().is_loopback());
    (!loopback || hostname() == member.host).then(|| format!("http://{at}/"))
}

const NOTHING_YET: &str = "has not applied anything yet";

fn state_of(member: &Member, ack: Option<&Ack>) -> (Severity, String) {
    match ack {
        _ if member.left => (Severity::Wait, "left".into()),
        None => (Severity::Wait, NOTHING_YET.into()),
        Some(Ack { rejected: Some(refusal), .. }) => {
            (Severity::Bad, format!("rejected revision {}: {}", refusal.revision, refusal.reason))
        }
        Some(Ack { trouble: Some(why), .. }) => {
            (Severity::Bad, format!("not loaded, retrying: {why}"))
        }
        // One that was retained is named until the last old worker has ended.
        Some(ack) if !ack.retained.is_empty() && ack.quiesced < ack.applied => {
            (Severity::Wait, format!("old workers finish requests, also to {}", absent(ack)))
        }
        Some(ack) if !ack.retained.is_empty() => {
            (Severity::Bad, format!("retains {}", absent(ack)))
        }
        Some(ack) if ack.quiesced < ack.applied => {
            (Severity::Wait, "old workers finish requests".into())
        }
        Some(ack) if ack.applied.0 == 0 => (Severity::Wait, NOTHING_YET.into()),
        Some(Ack { rejected_values: some @ 1.., .. }) => {
            (Severity::Wait, format!("ok, without {} that it rejects", plural(*some, "value")))
        }
        Some(ack) if ack.assumed => {
            (Severity::Good, "ok, assumed: only commands say that it is loaded".into())
        }
        Some(_) => (Severity::Good, "ok".into()),
    }
}

fn absent(ack: &Ack) -> String {
    format!("{} absent from etcd", plural(ack.retained.len(), "backend"))
}

const HEADINGS: [&str; 6] = ["LOAD BALANCER", "HOST", "RESOURCE", "APPLIED", "QUIESCED", "DRIVER"];

/// An aligned table; `colours` for a terminal.
pub fn table(fleet: &Fleet, revision: u64, colours: bool) -> String {
    if fleet.is_empty() {
        return "no load balancer is registered\n".to_owned();
    }
    let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    let headings = HEADINGS.map(str::to_owned).to_vec();
    let mut lines = vec![Line { cells: headings, note: "STATE".to_owned(), paint: Paint::Bold }];
    let statuses = statuses(fleet);
    lines.extend(statuses.iter().map(|s| {
        let paint = match s.severity {
            Severity::Good => Paint::Plain,
            Severity::Wait => Paint::Yellow,
            Severity::Bad => Paint::Red,
        };
        let (applied, quiesced) = (number(s.applied), number(s.quiesced));
        let driver = s.driver.as_deref().map_or("-".to_owned(), escaped);
        let (lb, host, resource) = (escaped(&s.lb), escaped(&s.host), escaped(&s.resource));
        let cells = vec![lb, host, resource, applied, quiesced, driver];
        Line { cells, note: escaped(&s.words), paint }
    }));
    table::table(&lines, colours)
        + &reasons(&statuses)
        + &format!("etcd is at revision {revision}\n")
}

/// Why changes are reloads: one line a reason.
fn reasons(statuses: &[LoadBalancerStatus]) -> String {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for status in statuses {
        if let Some(reason) = &status.driver_reason {
            let reason = match status.driver.as_deref() {
                Some("reload") => format!("every change of backends needs a reload: {reason}"),
                _ => reason.clone(),
            };
            let lbs = reasons.entry(reason).or_default();
            if !lbs.contains(&status.lb.as_str()) {
                lbs.push(&status.lb);
            }
        }
    }
    let line = |(reason, lbs): (String, Vec<&str>)| {
        let lbs = lbs.into_iter().map(escaped).collect::<Vec<_>>().join(", ");
        format!("{lbs}: {}\n", escaped(&reason))
    };
    reasons.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::handshake::{Consumes, DriverInUse, Rejection};
    use common::model::Revision;

    fn fleet() -> Fleet {
        let member = |host: &str, left| Member {
            host: host.into(),
            version: "1".into(),
            instance_id: "b".into(),
            advertise: None,
            status: None,
            resources: vec![Consumes { name: "web".into(), trees: vec!["/services".into()] }],
            left,
        };
        let ack = |instance: &str, applied, quiesced, reason: Option<&str>| Ack {
            instance_id: instance.into(),
            applied: Revision(applied),
            quiesced: Revision(quiesced),
            retained: vec![],
            assumed: false,
            rejected: reason.map(|reason| Rejection {
                revision: Revision(9),
                reason: reason.into(),
                too_few_backends: false,
            }),
            trouble: None,
            rejected_values: 0,
            driver: (instance == "b").then(|| DriverInUse {
                name: if applied == 7 { "reload" } else { "nginx-lua" }.into(),
                reason: (applied == 7).then(|| "nginx has no Lua module".into()),
            }),
        };
        let all = [
            ("lb-1", "edge-1", Some(ack("b", 8, 8, None))),
            ("lb-2", "edge-2", Some(ack("b", 8, 7, None))),
            ("lb-3", "e\u{1b}3", Some(ack("b", 7, 7, Some("no `upstream`\nhere")))),
            ("lb-4", "edge-4", Some(ack("earlier", 8, 8, None))),
            ("lb-5", "edge-5", Some(ack("b", 0, 0, None))),
            ("lb-6", "edge-6", Some(Ack { assumed: true, ..ack("b", 8, 8, None) })),
            (
                "lb-7",
                "edge-7",
                Some(Ack { trouble: Some("no pid".into()), ..ack("b", 8, 8, None) }),
            ),
            ("lb-8", "edge-8", Some(Ack { retained: vec!["a".into()], ..ack("b", 8, 8, None) })),
            ("lb-A", "edge-A", Some(Ack { rejected_values: 2, ..ack("b", 8, 8, None) })),
            ("lb-9", "edge-9", Some(Ack { retained: vec!["a".into()], ..ack("b", 8, 7, None) })),
        ];
        let entry = |(lb, host, ack): (&str, &str, Option<Ack>)| {
            let acks = ack.into_iter().map(|ack| ("web".to_owned(), ack)).collect();
            (lb.to_owned(), (member(host, false), acks))
        };
        all.into_iter().map(entry).collect()
    }

    #[test]
    fn a_table_is_aligned_and_says_what_is_wrong() {
        assert_eq!(
            table(&fleet(), 9, false),
            "\
LOAD BALANCER  HOST      RESOURCE  APPLIED  QUIESCED  DRIVER     STATE
lb-1           edge-1    web       8        8         nginx-lua  ok
lb-2           edge-2    web       8        7         nginx-lua  old workers finish requests
lb-3           e\\u{1b}3  web       7        7         reload     rejected revision 9: no `upstream`\\nhere
lb-4           edge-4    web       -        -         -          has not applied anything yet
lb-5           edge-5    web       -        -         -          has not applied anything yet
lb-6           edge-6    web       8        8         nginx-lua  ok, assumed: only commands say that it is loaded
lb-7           edge-7    web       8        8         nginx-lua  not loaded, retrying: no pid
lb-8           edge-8    web       8        8         nginx-lua  retains 1 backend absent from etcd
lb-9           edge-9    web       8        7         nginx-lua  old workers finish requests, also to 1 backend absent from etcd
lb-A           edge-A    web       8        8         nginx-lua  ok, without 2 values that it rejects
lb-3: every change of backends needs a reload: nginx has no Lua module
etcd is at revision 9
"
        );
        assert_eq!(table(&Fleet::new(), 9, true), "no load balancer is registered\n");
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert!(!table(&fleet(), 9, false).contains('\u{1b}'));
        let painted = table(&fleet(), 9, true);
        assert!(painted.contains("\u{1b}[31mlb-3"), "{painted}");
        assert!(painted.contains("\nlb-1 "), "{painted}");
    }
}
