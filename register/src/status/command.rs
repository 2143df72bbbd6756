//! The commands that a running sidekick accepts: `PUT /weight/N?key=KEY`, over a unix socket only.
//! Pure: what is published comes in, a change or an error comes out.

use std::collections::BTreeMap;

use common::model::{Backend, Key, MAX_WEIGHT};

use super::ServiceStatus;

/// Another weight for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightChange {
    pub key: Key,
    pub weight: u16,
}

/// Reads a command; `Err` is the status of the answer and its text.
pub(super) fn read(
    path: &str,
    query: &str,
    services: &BTreeMap<Key, ServiceStatus>,
) -> Result<WeightChange, (u16, String)> {
    let Some(weight) = path.strip_prefix("/weight/") else {
        return Err((404, "not found; the only command is PUT /weight/N\n".to_owned()));
    };
    let weight = weight.parse().ok().filter(|n| (1..=MAX_WEIGHT).contains(n));
    let weight = weight.ok_or_else(|| (400, format!("a weight is from 1 to {MAX_WEIGHT}\n")))?;
    let key = named_key(query, services)?;
    let value = services.get(&key).map_or("", |service| service.value.as_str());
    if with_weight(value, weight).is_none() {
        return Err((
            409,
            format!(
                "{key} has a plain value, host:port, without a weight: start it with --value json\n"
            ),
        ));
    }
    Ok(WeightChange { key, weight })
}

/// The instance that a command is for: by its key or the end of it, else the only one.
fn named_key(query: &str, services: &BTreeMap<Key, ServiceStatus>) -> Result<Key, (u16, String)> {
    let asked = url::form_urlencoded::parse(query.as_bytes());
    let asked = asked.filter(|(name, _)| name == "key").map(|(_, key)| key.into_owned()).next();
    let fits = |key: &&Key| {
        let whole = key.as_str();
        asked.as_ref().is_none_or(|asked| {
            whole == asked
                || whole.strip_suffix(asked.as_str()).is_some_and(|rest| rest.ends_with('/'))
        })
    };
    let mut found = services.keys().filter(fits);
    let names: Vec<&str> = services.keys().map(Key::as_str).collect();
    let names = names.join(", ");
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key.clone()),
        (None, _) => Err((404, format!("no such key here; there are: {names}\n"))),
        (Some(_), Some(_)) => {
            let text =
                format!("there are several instances; add --instance with one of: {names}\n");
            Err((409, text))
        }
    }
}

/// The value with another weight; `None` for a plain one.
pub fn with_weight(value: &str, weight: u16) -> Option<String> {
    let backend = Backend::parse(value.as_bytes()).ok().filter(|_| value.starts_with('{'))?;
    Some(Backend { weight, ..backend }.to_json())
}

#[cfg(test)]
mod tests {
    use common::claim::KeyStatus;
    use tokio::sync::watch;

    use super::*;
    use crate::prober::ProbeReport;

    fn services(all: &[(&str, &str)]) -> BTreeMap<Key, ServiceStatus> {
        let report = ProbeReport::new(tokio::time::Instant::now());
        let service = |value: &str| ServiceStatus {
            probes: watch::channel(report.clone()).1,
            registration: KeyStatus::Pending,
            value: value.to_owned(),
            checks: Vec::new(),
        };
        let entry = |(key, value): &(&str, &str)| (key.parse().unwrap(), service(value));
        all.iter().map(entry).collect()
    }

    #[tokio::test]
    async fn a_weight_is_for_one_key_with_a_value_that_has_weights() {
        let json = r#"{"addr":"10.0.0.1:80","weight":1,"zone":"a"}"#;
        let one = services(&[("/services/web/10.0.0.1", json)]);
        let change = read("/weight/7", "", &one).unwrap();
        assert_eq!((change.key.as_str(), change.weight), ("/services/web/10.0.0.1", 7));
        let value = with_weight(json, 7).unwrap();
        assert_eq!(Backend::parse(value.as_bytes()).unwrap().weight, 7);
        assert!(value.contains("\"zone\":\"a\""), "{value}");

        let two = services(&[("/services/web/1", json), ("/services/plain/1", "10.0.0.1:80")]);
        assert_eq!(read("/weight/7", "key=web%2F1", &two).unwrap().key.id(), "1");
        for (path, query, status, part) in [
            (
                "/weight/7",
                "",
                409,
                "add --instance with one of: /services/plain/1, /services/web/1",
            ),
            ("/weight/7", "key=other", 404, "no such key"),
            ("/weight/7", "key=plain/1", 409, "--value json"),
            ("/weight/0", "key=web/1", 400, "from 1 to"),
            ("/weight/x", "", 400, "from 1 to"),
            ("/stop", "", 404, "PUT /weight/N"),
        ] {
            let (message, text) = read(path, query, &two).unwrap_err();
            assert_eq!(message, status, "{path}?{query}: {text}");
            assert!(text.contains(part), "{text}");
        }
    }
}
