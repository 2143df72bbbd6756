//! What a single run renders from, and what it is to remember of it.
//!
//! Thousands of backends are nothing special, and a run is over soon: what it need not
//! keep is let go.

use std::borrow::Borrow;
use std::sync::Arc;

use common::model::Entry;

use super::Run;
use crate::backends::known::KnownBackends;
use crate::backends::loss_check::LossCheck;
use crate::backends::{KeySelection, ParsedKeys, RegisteredBackend};
use crate::config::program::CompiledResource;
use crate::template::Texts;

/// What a program renders from.
pub(super) struct Picture {
    pub(super) seen: ParsedKeys,
    /// How many backends there are, the held included.
    pub(super) count: usize,
    /// The backends with the values' own words; none while somebody is held.
    pub(super) routed: Option<Arc<Texts>>,
}

/// Sorts the entries, and looks into losses if something was believed before.
pub(super) async fn look(
    run: &Run<'_>,
    program: &CompiledResource,
    belief: &mut KnownBackends,
    entries: impl Iterator<Item: Borrow<Entry>>,
) -> Picture {
    let resource = &program.resource;
    // Many a template knows keys alone, and to judge a picture by itself takes a number.
    if !program.asks_for_backends() && belief.backends().next().is_none() {
        return glance(&resource.reading, entries);
    }
    let mut seen = resource.reading.see(entries);
    say_refused(&seen);
    let check = LossCheck {
        store: run.store,
        bookkeeping: run.bookkeeping,
        name: &resource.name,
        policy: &resource.policy,
        regressed: true,
        // Too few are looked for by who asked, the retained included.
        in_place: false,
        is_about_backends: false,
    };
    let held = check.look(belief, &mut seen).await.retained;
    let routed = held.is_empty().then(|| {
        let value = |(key, r): (&Arc<str>, &Arc<RegisteredBackend>)| {
            let value = r.raw.as_ref().or_else(|| seen.entries.get(key))?;
            Some((Arc::clone(key), value.clone()))
        };
        Arc::new(seen.backends.iter().filter_map(value).collect())
    });
    Picture { count: seen.backends.len(), seen, routed }
}

/// Counts the backends and lets their records go. What they say is nearly always just what
/// templates see, and then kept once.
fn glance(reading: &KeySelection, entries: impl Iterator<Item: Borrow<Entry>>) -> Picture {
    let mut count = 0;
    let mut otherwise = Vec::new();
    let seen = reading.see_each(entries, |key, registered| {
        let registered = registered.filter(|r| !r.is_setting);
        count += usize::from(registered.is_some());
        match registered.map(|r| r.raw) {
            Some(None) => {}
            Some(raw) => otherwise.push((Arc::clone(key), raw)),
            None => otherwise.push((Arc::clone(key), None)),
        }
    });
    say_refused(&seen);
    let mut routed = Arc::clone(&seen.entries);
    for (key, raw) in otherwise {
        let routed = Arc::make_mut(&mut routed);
        match raw {
            Some(raw) => routed.insert(key, raw),
            None => routed.remove(&key),
        };
    }
    Picture { seen, count, routed: Some(routed) }
}

fn say_refused(seen: &ParsedKeys) {
    for refused in &seen.refused {
        tracing::warn!(key = refused.key, "value refused: {}", refused.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Revision;

    use crate::backends::Values;

    #[test]
    fn at_a_glance_backends_are_counted_and_remembered_in_their_own_words() {
        let reading = KeySelection {
            prefix: "/".parse().unwrap(),
            services: "/services".parse().unwrap(),
            trees: vec!["/services".parse().unwrap(), "/config".parse().unwrap()],
            values: Values::Typed,
            declared: false,
            bookkeeping: "/confsync".parse().unwrap(),
            names: false,
        };
        let json = r#"{"addr":"10.0.0.2:80","weight":3}"#;
        let look = |pairs: &[(&str, &str)]| {
            let entry = |(key, value): &(&str, &str)| Entry {
                key: (*key).into(),
                value: (*value).into(),
                created: Revision(1),
                modified: Revision(1),
                lease: 0,
                ttl: None,
            };
            glance(&reading, pairs.iter().map(entry))
        };
        let texts = |texts: &Texts| -> Vec<(String, String)> {
            texts.iter().map(|(key, value)| (key.to_string(), value.lossy().to_string())).collect()
        };
        let plain = ("/services/web/a", "10.0.0.1:80");
        let picture = look(&[plain]);
        let routed = picture.routed.unwrap();
        assert!(Arc::ptr_eq(&routed, &picture.seen.entries), "kept once");

        let poison = ("/services/web/c", "; }");
        let picture = look(&[("/config/title", "Hi"), plain, ("/services/web/b", json), poison]);
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(picture.count, 2);
        assert_eq!(texts(&picture.routed.unwrap()), own(&[plain, ("/services/web/b", json)]));
        let shown = [("/config/title", "Hi"), plain, ("/services/web/b", "10.0.0.2:80")];
        assert_eq!(texts(&picture.seen.entries), own(&shown));
        assert_eq!(picture.seen.refused.len(), 1);
    }
}
