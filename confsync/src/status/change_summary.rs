//! The cause of a load, for an operator: how the backends have changed since the last one. Pure.

use std::sync::Arc;

use common::model::changed_keys;
use imbl::OrdMap;

/// Address and weight.
pub type Route = (Arc<str>, u16);

/// The address and weight for each key.
pub type Routes = OrdMap<Arc<str>, Route>;

/// How many are named before the rest is only counted.
const NAMED: usize = 3;

/// What differs `now`; `None` before anything was active.
pub fn summary(before: Option<&Routes>, now: &Routes) -> String {
    let Some(before) = before else { return "start".to_owned() };
    let (mut joined, mut left, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for key in changed_keys(before, now) {
        match (before.get(key), now.get(key)) {
            (None, Some((addr, _))) => joined.push(addr.to_string()),
            (Some((addr, _)), None) => left.push(addr.to_string()),
            (_, Some((addr, _))) => changed.push(addr.to_string()),
            (None, None) => {}
        }
    }
    let parts = [part(&joined, "joined"), part(&left, "left"), part(&changed, "changed")];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if text.is_empty() { "the same backends, other settings".to_owned() } else { text }
}

fn part(addrs: &[String], what: &str) -> Option<String> {
    let named = addrs.get(..NAMED).unwrap_or(addrs).join(", ");
    match addrs.len().saturating_sub(NAMED) {
        _ if addrs.is_empty() => None,
        0 => Some(format!("{named} {what}")),
        more => Some(format!("{named} and {more} more {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(all: &[(&str, u16)]) -> Routes {
        let route = |(a, w): &(&str, u16)| -> (Arc<str>, Route) {
            (format!("/services/web/{a}").into(), ((*a).into(), *w))
        };
        all.iter().map(route).collect()
    }

    #[test]
    fn what_changed_is_named_and_the_rest_is_counted() {
        let none = routes(&[]);
        let two = routes(&[("a:1", 1), ("b:1", 1)]);
        assert_eq!(summary(None, &two), "start");
        assert_eq!(summary(Some(&none), &two), "a:1, b:1 joined");
        assert_eq!(
            summary(Some(&two), &routes(&[("a:1", 2), ("c:1", 1)])),
            "c:1 joined, b:1 left, a:1 changed"
        );
        assert_eq!(summary(Some(&two), &two), "the same backends, other settings");
        let many = routes(&[("a:1", 1), ("b:1", 1), ("c:1", 1), ("d:1", 1), ("e:1", 1)]);
        assert_eq!(summary(Some(&many), &none), "a:1, b:1, c:1 and 2 more left");
    }
}
