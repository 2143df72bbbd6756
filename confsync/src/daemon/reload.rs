//! The confdir is read again, and only what changed is begun anew.

use std::collections::BTreeMap;

use super::Daemon;
use super::join::{consumed_by, with_trees_of};
use super::waiting::NewGroup;
use crate::config::load::{Loaded, load};
use crate::config::program::CompiledResource;
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::status::totals::Totals;

impl Daemon {
    /// Reads the confdir again. What did not change is not touched, and a bad one
    /// changes nothing.
    pub(super) async fn reload(&mut self) {
        match load(&self.config.confdir, &self.config.globals) {
            Ok(loaded) => {
                self.unusable = None;
                self.take(loaded).await;
            }
            Err(error) => tracing::error!("the confdir is left as it was:\n{error:#}"),
        }
    }

    /// The same at each pass, as confd does it: nothing is said or tried again where nothing
    /// changed.
    pub(super) async fn reread(&mut self) {
        match load(&self.config.confdir, &self.config.globals) {
            Ok(loaded) => {
                self.unusable = None;
                let known: Vec<_> = self.sets().collect();
                let is_known = |set: &ReloadGroup| known.iter().any(|known| known.same_as(set));
                if loaded.sets.len() != known.len() || !loaded.sets.iter().all(is_known) {
                    self.take(loaded).await;
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.unusable.as_ref() != Some(&text) {
                    tracing::error!("the confdir is left as it was:\n{text}");
                }
                self.unusable = Some(text);
            }
        }
    }

    async fn take(&mut self, loaded: Loaded) {
        loaded.say_notes();
        let before: Vec<ReloadGroup> = self.sets().cloned().collect();
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for running in self.running.drain(..) {
            let same = loaded.sets.iter().any(|set| set.same_as(&running.set));
            if same { kept.push(running) } else { ended.push(running) }
        }
        self.running = kept;
        // Who asks for a reload may have mended what a set was refused for.
        self.running.iter().for_each(|running| running.again.notify_one());
        let (mut known_backends, mut last) = (BTreeMap::new(), Vec::new());
        for running in ended {
            tracing::info!(set = running.set.name, "changed or gone");
            running.stop.cancel();
            known_backends.extend(running.agent.await.unwrap_or_default());
            let state = running.state.borrow().clone();
            let totals = Totals::of(&state);
            self.about.send_modify(|about| {
                about.ended.insert(state.name.clone(), totals);
            });
            last.push((running.set.loader, state));
        }
        for waiting in self.waiting.drain(..) {
            known_backends.extend(waiting.new.known_backends);
            last.extend(waiting.new.before.map(|state| (waiting.new.set.loader, state)));
        }
        // What was read so far is routed by until the new files are live.
        let consumed = consumed_by(&loaded.sets);
        let routed = with_trees_of(consumed.clone(), &consumed_by(&before));
        self.then_consumed = (routed != consumed).then_some(consumed);
        let joined = self.join(routed).await;
        self.expect(&loaded.sets).await;
        let new =
            loaded.sets.into_iter().filter(|set| !self.running.iter().any(|r| r.set.same_as(set)));
        for set in new.collect::<Vec<_>>() {
            let belief = |program: &CompiledResource| {
                let (name, mut belief) = known_backends.remove_entry(&program.resource.name)?;
                let trees = &program.resource.reading.trees;
                belief.retain(|key| trees.iter().any(|tree| tree.covers(key)));
                Some((name, belief))
            };
            let known_backends = set.programs.iter().filter_map(belief).collect();
            let by_name = matches!(set.loader, Loader::Nginx(_) | Loader::Haproxy(_));
            let before = last.iter().find(|(loader, _)| by_name && *loader == set.loader);
            let before = before.map(|(_, state)| state.clone());
            self.begin_or_wait(NewGroup { set, known_backends, before }, &joined).await;
        }
        tracing::info!(sets = self.running.len(), "confdir read again");
    }

    /// All reload groups, also those that could not begin yet.
    pub(super) fn sets(&self) -> impl Iterator<Item = &ReloadGroup> {
        let waiting = self.waiting.iter().map(|waiting| &waiting.new.set);
        self.running.iter().map(|running| &running.set).chain(waiting)
    }
}
