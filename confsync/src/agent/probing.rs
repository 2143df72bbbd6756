//! While etcd is away nobody can be told that a backend died. A resource may have its backends
//! asked then (`probe_when_stale`): who refuses connections is left out until it answers again,
//! or etcd is back, which is right about everybody.
//!
//! Only a refusal counts. Silence may as well be our own lost network, like that of etcd.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::model::Endpoint;
use common::store::Store;
use tokio::time::Instant;

use super::Agent;
use crate::backends::known::KnownBackends;
use crate::backends::{ParsedKeys, loss_check};

/// How often in a row a backend refuses before it is left out.
const REFUSALS: u8 = 2;

/// The service of each backend.
type Services = BTreeMap<Arc<str>, Arc<str>>;

/// What the backends answered while etcd is away.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// When to ask next; `None` while etcd is followed.
    pub(super) next: Option<Instant>,
    /// How often in a row each has refused.
    refusals: BTreeMap<Arc<str>, u8>,
    /// Those that are left out of the files.
    out: BTreeSet<Arc<str>>,
    /// Others are to be left out than in what was rendered last.
    pub(super) is_news: bool,
}

impl Probing {
    /// Counts answers, `true` for a refusal, of backends of these services. Whether others are
    /// left out than before.
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
        let changed = out != self.out;
        self.out = out;
        changed
    }

    /// Whether a backend is left out.
    pub(super) fn is_out(&self, key: &str) -> bool {
        self.out.contains(key)
    }

    /// What is to be rendered of `seen`.
    pub(super) fn without<'s>(&self, seen: &'s ParsedKeys) -> Cow<'s, ParsedKeys> {
        if self.out.is_empty() {
            return Cow::Borrowed(seen);
        }
        let mut shown = seen.clone();
        for key in &self.out {
            shown.backends.remove(key);
            Arc::make_mut(&mut shown.entries).remove(key);
        }
        Cow::Owned(shown)
    }
}

impl<S: Store> Agent<S> {
    /// Asks the backends if etcd has been away for long enough. `true`: others are to be left
    /// out than before, so the files are to be made again.
    pub(super) async fn probe_while_stale(&mut self) -> bool {
        let spans = self.parts.set.programs.iter().map(|p| p.resource.policy.probe_when_stale);
        let Some(span) = spans.filter(|span| !span.is_zero()).min() else { return false };
        let away = self.parts.view.borrow().stale.as_ref().map(|stale| stale.since);
        let Some(since) = away.filter(|_| self.decided.0 > 0) else {
            return self.end_probing();
        };
        let now = Instant::now();
        if now < *self.probing.next.get_or_insert(since + span) {
            return false;
        }
        let (asked, services) = self.probed();
        let answers = loss_check::refusing(asked).await;
        self.probing.next = Some(Instant::now() + span);
        let changed = self.probing.count(&answers, &services);
        if changed && self.probing.out.is_empty() {
            tracing::info!(set = self.parts.set.name, "no backend is left out any more");
        } else if changed {
            let out = self.probing.out.iter().map(|key| &**key).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                set = self.parts.set.name,
                out,
                "etcd is away; backends that refuse connections are left out"
            );
        }
        self.probing.is_news |= changed;
        changed
    }

    /// etcd is right about everybody.
    fn end_probing(&mut self) -> bool {
        let had = !self.probing.out.is_empty();
        self.probing = Probing { is_news: had, ..Probing::default() };
        had
    }

    fn probed(&self) -> (Vec<(Arc<str>, Endpoint)>, Services) {
        let programs = self.parts.set.programs.iter();
        let probed = programs.filter(|p| !p.resource.policy.probe_when_stale.is_zero());
        let beliefs = probed.filter_map(|p| self.parts.known_backends.get(&p.resource.name));
        let (mut asked, mut services) = (Vec::new(), Services::new());
        for (key, registered) in beliefs.flat_map(KnownBackends::backends) {
            asked.push((Arc::clone(key), registered.backend.addr.clone()));
            services.insert(Arc::clone(key), Arc::clone(&registered.service));
        }
        (asked, services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_twice_is_out_until_it_answers() {
        let keys: [Arc<str>; 2] = ["/services/apache/1".into(), "/services/apache/2".into()];
        let [one, two] = keys.each_ref();
        let services = keys.iter().map(|key| (Arc::clone(key), "apache".into())).collect();
        let answer = |key: &Arc<str>, refuses| BTreeMap::from([(Arc::clone(key), refuses)]);
        let mut probing = Probing::default();
        assert!(!probing.count(&answer(one, true), &services));
        assert!(probing.count(&answer(one, true), &services) && probing.is_out(one));
        assert!(!probing.count(&BTreeMap::new(), &services), "silence changes nothing");
        // Of a service whose backends all refuse, all stay.
        assert!(!probing.count(&answer(two, true), &services));
        assert!(probing.count(&answer(two, true), &services) && !probing.is_out(one));
        assert!(probing.count(&answer(one, false), &services) && probing.is_out(two));
    }
}
