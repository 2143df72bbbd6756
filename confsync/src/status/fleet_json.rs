//! `confsync status --output json`: what the load balancers have written about themselves, with every
//! field in every row, and the state that the table shows. Pure.

use std::collections::BTreeMap;

use common::handshake::{Ack, DriverInUse, Member, Rejection};
use serde_json::{Value, json};

use crate::status::load_balancers::{Fleet, statuses};

/// The document. A field without a value is null, false or empty, and never absent.
pub fn fleet_json(fleet: &Fleet, revision: u64) -> Value {
    let mut states: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for status in statuses(fleet) {
        states.entry(status.lb).or_default().insert(status.resource, status.words);
    }
    let one = |(lb, (member_value, acks)): (&String, &(Member, BTreeMap<String, Ack>))| {
        let acks: BTreeMap<&String, Value> =
            acks.iter().map(|(resource, value)| (resource, ack(value))).collect();
        let states = states.remove(lb).unwrap_or_default();
        json!({ "name": lb, "member": member(member_value), "acks": acks, "states": states })
    };
    let load_balancers: Vec<Value> = fleet.iter().map(one).collect();
    json!({ "revision": revision, "load_balancers": load_balancers })
}

fn member(member: &Member) -> Value {
    let Member { host, version, instance_id, advertise, status, resources, left } = member;
    json!({
        "host": host,
        "version": version,
        "boot": instance_id,
        "advertise": advertise,
        "status": status,
        "resources": resources,
        "left": left,
    })
}

fn ack(ack: &Ack) -> Value {
    let Ack { instance_id, applied, quiesced, retained, assumed, rejected, .. } = ack;
    let Ack { trouble, rejected_values, driver, .. } = ack;
    let refused = rejected.as_ref().map(|Rejection { revision, reason, too_few_backends }| {
        json!({ "revision": revision, "why": reason, "too_few_backends": too_few_backends })
    });
    let driver = driver
        .as_ref()
        .map(|DriverInUse { name, reason }| json!({ "name": name, "reason": reason }));
    json!({
        "boot": instance_id,
        "applied": applied,
        "quiesced": quiesced,
        "assumed": assumed,
        "held": retained,
        "refused": refused,
        "trouble": trouble,
        "rejected_values": rejected_values,
        "driver": driver,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::handshake::Consumes;
    use common::model::Revision;

    #[test]
    fn every_field_is_there_whatever_was_written() {
        let member = Member {
            host: "edge-1".into(),
            version: "1".into(),
            instance_id: "b".into(),
            advertise: None,
            status: None,
            resources: vec![Consumes { name: "web".into(), trees: vec!["/services".into()] }],
            left: false,
        };
        let written = r#"{"boot":"b","applied":7,"quiesced":7}"#;
        let plain: Ack = serde_json::from_str(written).unwrap();
        let full = Ack {
            rejected: Some(Rejection {
                revision: Revision(8),
                reason: "no".into(),
                too_few_backends: false,
            }),
            driver: Some(DriverInUse { name: "reload".into(), reason: None }),
            ..plain.clone()
        };
        let fleet: Fleet = [("lb-1", plain), ("lb-2", full)]
            .map(|(lb, ack)| {
                let acks = BTreeMap::from([("web".to_owned(), ack)]);
                (lb.to_owned(), (member.clone(), acks))
            })
            .into_iter()
            .collect();
        let document = fleet_json(&fleet, 9);
        let (one, two) = (&document["load_balancers"][0], &document["load_balancers"][1]);
        let names =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(names(&one["acks"]["web"]), names(&two["acks"]["web"]));
        assert_eq!(
            names(&one["acks"]["web"]),
            [
                "applied",
                "assumed",
                "boot",
                "driver",
                "held",
                "quiesced",
                "refused",
                "rejected_values",
                "trouble"
            ]
        );
        assert_eq!(
            names(&one["member"]),
            ["advertise", "boot", "host", "left", "resources", "status", "version"]
        );
        let refused = &two["acks"]["web"]["refused"];
        assert_eq!(names(refused), ["revision", "too_few_backends", "why"]);
        assert_eq!(one["states"]["web"], "ok");
        assert_eq!(two["states"]["web"], "rejected revision 8: no");
    }
}
