//! While etcd is unreachable, no sidekick can report that a backend failed. A resource may have its
//! backends probed then (`probe_when_stale`): one that refuses connections is left out until it
//! accepts them again, or until etcd is back, whose keys then decide.
//!
//! Only a refusal counts. Silence may as well be our own lost network, like that of etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::model::Endpoint;
use tokio::time::Instant;

use crate::backends::known::KnownBackends;
use crate::backends::loss_check;
use crate::config::reload_group::ReloadGroup;

/// How often in a row a backend refuses before it is left out.
const REFUSALS: u8 = 2;

/// The service of each backend.
type Services = BTreeMap<Arc<str>, Arc<str>>;

/// What the backends answered while etcd is unreachable.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// When to ask next; `None` while etcd is followed.
    next: Option<Instant>,
    /// How often in a row each has refused.
    refusals: BTreeMap<Arc<str>, u8>,
    left_out: BTreeSet<Arc<str>>,
    /// Others are to be left out than in what was rendered last.
    is_news: bool,
}

impl Probing {
    /// Asks the backends if etcd has been away for long enough. Whether others are to be left out
    /// than before.
    pub(super) async fn probe(
        &mut self,
        group: &ReloadGroup,
        known: &BTreeMap<String, KnownBackends>,
        away_since: Option<Instant>,
    ) -> bool {
        let Some(span) = interval(group) else { return false };
        let Some(since) = away_since else { return self.end() };
        if Instant::now() < *self.next.get_or_insert(since + span) {
            return false;
        }
        let (asked, services) = to_ask(group, known);
        let answers = loss_check::refusing(asked).await;
        self.next = Some(Instant::now() + span);
        let is_changed = self.count(&answers, &services);
        if is_changed && self.left_out.is_empty() {
            tracing::info!(set = group.name, "etcd answers again; no backend is left out any more");
        } else if is_changed {
            let out = self.left_out.iter().map(|key| &**key).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                set = group.name,
                out,
                "etcd is unreachable; leaving out backends that refuse connections"
            );
        }
        self.is_news |= is_changed;
        is_changed
    }

    /// etcd is followed again: its keys decide.
    fn end(&mut self) -> bool {
        let had = !self.left_out.is_empty();
        *self = Self { is_news: had, ..Self::default() };
        had
    }

    /// Counts answers, `true` for a refusal, of backends of these services. Of a service whose
    /// backends all refuse, all stay.
    fn count(&mut self, answers: &BTreeMap<Arc<str>, bool>, services: &Services) -> bool {
        for (key, refuses) in answers {
            let times = self.refusals.entry(Arc::clone(key)).or_default();
            *times = if *refuses { times.saturating_add(1) } else { 0 };
        }
        let refuses = |key: &str| self.refusals.get(key).is_some_and(|times| *times >= REFUSALS);
        let served: BTreeSet<&str> =
            services.iter().filter(|(key, _)| !refuses(key)).map(|(_, name)| &**name).collect();
        let out = services.iter().filter(|(key, name)| refuses(key) && served.contains(&***name));
        let out: BTreeSet<Arc<str>> = out.map(|(key, _)| Arc::clone(key)).collect();
        let is_changed = out != self.left_out;
        self.left_out = out;
        is_changed
    }

    /// Whether others are left out than in what was rendered last; resets that.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    pub(super) fn left_out(&self) -> &BTreeSet<Arc<str>> {
        &self.left_out
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// The shortest that any resource asks for; `None` where none does.
fn interval(group: &ReloadGroup) -> Option<Duration> {
    let spans = group.programs.iter().map(|program| program.resource.policy.probe_when_stale);
    spans.filter(|span| !span.is_zero()).min()
}

fn to_ask(
    group: &ReloadGroup,
    known: &BTreeMap<String, KnownBackends>,
) -> (Vec<(Arc<str>, Endpoint)>, Services) {
    let programs = group.programs.iter();
    let probed = programs.filter(|program| !program.resource.policy.probe_when_stale.is_zero());
    let known = probed.filter_map(|program| known.get(&program.resource.name));
    let (mut asked, mut services) = (Vec::new(), Services::new());
    for (key, registered) in known.flat_map(KnownBackends::backends) {
        asked.push((Arc::clone(key), registered.backend.addr.clone()));
        services.insert(Arc::clone(key), Arc::clone(&registered.service));
    }
    (asked, services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_refuses_twice_is_left_out_until_it_answers() {
        let keys: [Arc<str>; 2] = ["/services/apache/1".into(), "/services/apache/2".into()];
        let [one, two] = keys.each_ref();
        let services = keys.iter().map(|key| (Arc::clone(key), "apache".into())).collect();
        let answer = |key: &Arc<str>, refuses| BTreeMap::from([(Arc::clone(key), refuses)]);
        let mut probing = Probing::default();
        assert!(!probing.count(&answer(one, true), &services));
        assert!(probing.count(&answer(one, true), &services));
        assert!(probing.left_out().contains(one));
        assert!(!probing.count(&BTreeMap::new(), &services), "silence changes nothing");
        // Of a service whose backends all refuse, all stay.
        assert!(!probing.count(&answer(two, true), &services));
        assert!(probing.count(&answer(two, true), &services));
        assert!(!probing.left_out().contains(one));
        assert!(probing.count(&answer(one, false), &services));
        assert!(probing.left_out().contains(two));
    }
}
