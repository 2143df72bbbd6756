//! What may pass, what is rejected, and what is seen of changes.

use super::*;
use common::model::Revision;
use proptest::prelude::*;

fn entry(key: &str, value: &str) -> Entry {
    Entry::new(key, value, Revision(1))
}

fn reading(trees: &[&str], values: Values) -> KeySelection {
    KeySelection {
        prefix: "/".parse().unwrap(),
        services: "/services".parse().unwrap(),
        trees: trees.iter().map(|t| t.parse().unwrap()).collect(),
        values,
        declared: false,
        bookkeeping: "/confsync".parse().unwrap(),
        names: false,
    }
}

const POISON: &str = "10.0.0.9:80; } server { listen 81";

#[test]
fn one_invalid_value_is_rejected_and_named_and_the_others_stay() {
    let entries = [
        entry("/services/apache/a", "10.0.0.1:80"),
        entry("/services/apache/b", POISON),
        entry("/config/title", "Hello"),
        entry("/services2/x", "10.0.0.3:80"),
    ];
    let trees = &["/services/apache", "/config"];
    for values in [Values::Typed, Values::Endpoint] {
        let seen = reading(trees, values).see(&entries);
        assert!(seen.backends.keys().map(|key| &**key).eq(["/services/apache/a"]));
        assert!(!seen.entries.contains_key("/services/apache/b"));
        assert!(seen.rejected.contains_key("/services/apache/b"));
        let title = seen.entries.contains_key("/config/title");
        assert_eq!(title, values == Values::Typed, "{values:?}");
    }
    let raw = reading(trees, Values::Any).see(&entries);
    assert!(raw.entries.contains_key("/services/apache/b"), "as confd does it");
    assert!(!raw.backends.contains_key("/services/apache/b"), "never typed");
    let why: Vec<_> = raw.rejected.values().collect();
    assert!(matches!(why[..], [w] if w.ends_with("as it is: values = \"any\")")), "{why:?}");
}

#[test]
fn of_a_backend_in_json_templates_see_the_address_unless_all_may_pass() {
    let json = r#"{"addr":"10.0.0.1:80","weight":3,"meta":{"x":"; } access_log /trap; {"}}"#;
    let entries = [entry("/services/apache/a", json)];
    for values in [Values::Typed, Values::Endpoint] {
        let seen = reading(&["/services"], values).see(&entries);
        assert_eq!(seen.entries["/services/apache/a"], "10.0.0.1:80".into(), "{values:?}");
        let registered = &seen.backends["/services/apache/a"];
        assert_eq!((registered.backend.weight, registered.raw.clone()), (3, Some(json.into())));
    }
    let raw = reading(&["/services"], Values::Any).see(&entries);
    assert_eq!(raw.entries["/services/apache/a"], json.into());
    assert_eq!(raw.backends["/services/apache/a"].raw, None);
}

#[test]
fn the_service_comes_from_the_key() {
    let entries = [
        entry("/services/apache/a", "10.0.0.1:80"),
        entry("/services/apache/a/deeper", "10.0.0.1:80"),
        entry("/app/upstream/1", "10.0.0.2:80"),
    ];
    let mut reading = reading(&["/services", "/app/upstream"], Values::Typed);
    reading.declared = true;
    let seen = reading.see(&entries);
    let names: Vec<_> = seen.backends.iter().map(|(key, r)| (&**key, &*r.service)).collect();
    assert_eq!(names, [("/app/upstream/1", "upstream"), ("/services/apache/a", "apache")]);
}

#[test]
fn what_looks_like_an_endpoint_is_a_setting_until_something_declares_it() {
    let entries = [
        entry("/redis/master", "10.0.0.1:6379"),
        entry("/services/apache/a", "10.0.0.1:80"),
        entry("/maps/web", r#"{"addr":"10.0.0.2:80"}"#),
        entry("/confsync/acks/web/lb-1", "ours"),
    ];
    for trees in [&["/"][..], &["/redis", "/services", "/maps"]] {
        let mut reading = reading(trees, Values::Any);
        let seen = reading.see(&entries);
        assert!(seen.backends.keys().map(|key| &**key).eq(["/services/apache/a"]), "{trees:?}");
        assert_eq!(seen.entries.len(), 3);
        reading.declared = true;
        let declared = reading.see(&entries).backends.len();
        assert_eq!(declared, if trees.len() == 1 { 1 } else { 3 });
    }
}

proptest! {
    #[test]
    fn parsing_the_changes_equals_parsing_everything(
        steps in proptest::collection::vec((0usize..8, 0usize..6), 1..40), values in 0usize..3,
    ) {
        const KEYS: [&str; 8] = ["/services/a/1", "/services/a/2", "/services/b/1", "/config/x",
            "/services/a/1/deep", "/other/1", "/confsync/acks/a", "/services/c/1"];
        const VALUES: [&str; 5] = ["10.0.0.1:80", "10.0.0.2:80", POISON, "text",
            r#"{"addr":"10.0.0.3:80","weight":3}"#];
        let values = [Values::Any, Values::Typed, Values::Endpoint][values];
        let reading = reading(&["/services", "/config"], values);
        let (mut before, mut seen) = (Entries::new(), ParsedKeys::default());
        for (key, value) in steps {
            let mut now = before.clone();
            match VALUES.get(value) {
                Some(value) => drop(now.insert(KEYS[key].into(), entry(KEYS[key], value))),
                None => drop(now.remove(KEYS[key])),
            }
            reading.see_changes(&mut seen, &before, &now);
            prop_assert_eq!(&seen, &reading.see(now.values()));
            before = now;
        }
    }
}

#[test]
fn a_prefix_stands_before_the_services() {
    let mut reading = reading(&["/prod/services/apache"], Values::Typed);
    reading.prefix = "/prod".parse().unwrap();
    let seen = reading.see(&[entry("/prod/services/apache/a", "not one")]);
    assert_eq!(seen.rejected.len(), 1);
}
