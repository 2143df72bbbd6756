//! The rejected values of a reload group, and the resources that reject them. Pure, but for the
//! log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::model::changed_keys;

use crate::backends::RejectedValues;
use crate::status::state::RejectedState;

/// The rejected values of each resource, by its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rejections(BTreeMap<String, RejectedValues>);

/// Why a key is rejected, and the resources that reject it for that.
type Reasons<'r> = BTreeMap<&'r Arc<str>, Vec<&'r str>>;

impl Rejections {
    /// What this resource rejects now.
    pub(crate) fn set(&mut self, resource: &str, rejected: RejectedValues) {
        self.0.insert(resource.to_owned(), rejected);
    }

    /// How many this resource rejects now.
    pub(super) fn count(&self, resource: &str) -> usize {
        self.0.get(resource).map_or(0, |rejected| rejected.len())
    }

    /// Logs which are new since `before`, and which are no more: a line for each value, however
    /// many resources read it.
    pub(crate) fn log_since(&self, before: &Self) {
        for line in self.lines_since(before) {
            let LogLine { key, resource, why } = line;
            match why {
                Some(why) => tracing::warn!(key, resource, "value rejected: {why}"),
                None => tracing::info!(key, resource, "no longer rejected"),
            }
        }
    }

    fn lines_since<'r>(&'r self, before: &'r Self) -> Vec<LogLine<'r>> {
        let none = RejectedValues::new();
        let mut changed: BTreeSet<Arc<str>> = BTreeSet::new();
        for name in before.0.keys().chain(self.0.keys()) {
            let of = |all: &'r Self| all.0.get(name);
            let (was, is) = (of(before).unwrap_or(&none), of(self).unwrap_or(&none));
            changed.extend(changed_keys(was, is).cloned());
        }
        let mut lines = Vec::new();
        for key in changed {
            let (was, is) = (before.reasons(&key), self.reasons(&key));
            if is.is_empty() {
                let resource = was.into_values().flatten().collect::<Vec<_>>().join(", ");
                lines.push(LogLine { key: key.to_string(), resource, why: None });
                continue;
            }
            for (why, resources) in is {
                if was.get(why) != Some(&resources) {
                    let resource = resources.join(", ");
                    lines.push(LogLine { key: key.to_string(), resource, why: Some(why) });
                }
            }
        }
        lines
    }

    fn reasons(&self, key: &str) -> Reasons<'_> {
        let mut reasons = Reasons::new();
        for (resource, rejected) in &self.0 {
            if let Some(why) = rejected.get(key) {
                reasons.entry(why).or_default().push(resource);
            }
        }
        reasons
    }

    /// For the status.
    pub(super) fn states(&self) -> Vec<RejectedState> {
        let mut all: BTreeMap<(&Arc<str>, &Arc<str>), Vec<String>> = BTreeMap::new();
        for (resource, rejected) in &self.0 {
            for (key, why) in rejected {
                all.entry((key, why)).or_default().push(resource.clone());
            }
        }
        let state = |((key, why), resources): ((&Arc<str>, &Arc<str>), _)| RejectedState {
            key: key.to_string(),
            why: why.to_string(),
            resources,
        };
        all.into_iter().map(state).collect()
    }
}

/// One line of the log; `why` is none for a value that is used again.
#[derive(Debug, PartialEq, Eq)]
struct LogLine<'r> {
    key: String,
    resource: String,
    why: Option<&'r Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejections(all: &[(&str, &[(&str, &str)])]) -> Rejections {
        let mut rejections = Rejections::default();
        for (resource, values) in all {
            let value = |(key, why): &(&str, &str)| (Arc::from(*key), Arc::from(*why));
            rejections.set(resource, values.iter().map(value).collect());
        }
        rejections
    }

    fn lines(now: &Rejections, before: &Rejections) -> Vec<String> {
        let lines = now.lines_since(before).into_iter();
        let text = |line: LogLine<'_>| {
            format!("{} {}: {}", line.key, line.resource, line.why.map_or("good", |why| why))
        };
        lines.map(text).collect()
    }

    #[test]
    fn a_line_names_the_resources_that_reject_a_value() {
        let none = Rejections::default();
        let both = rejections(&[("api", &[("/a", "no port")]), ("web", &[("/a", "no port")])]);
        assert_eq!(lines(&both, &none), ["/a api, web: no port"]);
        assert!(lines(&both, &both).is_empty());
        let differ = rejections(&[("api", &[("/a", "no port")]), ("web", &[("/a", "a name")])]);
        assert_eq!(lines(&differ, &none), ["/a web: a name", "/a api: no port"]);
        assert_eq!(lines(&none, &both), ["/a api, web: good"]);
        let states = both.states();
        assert_eq!(states.len(), 1);
        assert_eq!(states[0].resources, ["api", "web"]);
        assert_eq!(["api", "other"].map(|resource| both.count(resource)), [1, 0]);
    }
}
