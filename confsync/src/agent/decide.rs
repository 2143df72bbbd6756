//! What the newest picture of the keys asks for.

use std::sync::Arc;
use std::time::Duration;

use common::model::{Revision, Snapshot};
use common::store::Store;
use common::watch::StaleReason;
use tokio::time::Instant;

use super::{Agent, remember};
use crate::backends::RejectedValue;
use crate::backends::loss_check::{LossCheck, LossOutcome};
use crate::config::rendered::RenderedFile;
use crate::status::change_summary;

/// How often a doubt is looked into again.
const DOUBT_AGAIN: Duration = Duration::from_secs(2);
/// How often a picture that could not be rendered is tried again: a template may have
/// asked DNS, or looked at a file.
const RENDER_AGAIN: Duration = Duration::from_secs(10);

/// Why the newest picture is not rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Withheld {
    /// In the operator's words.
    pub(super) why: String,
    /// Nothing is wrong but that too few backends are registered.
    pub(super) too_few_backends: bool,
}

/// What a picture comes to.
#[derive(Default)]
struct Rendered {
    files: Vec<RenderedFile>,
    refused: Vec<RejectedValue>,
    /// Backends that etcd has no more are in it, because without them too few are left.
    withheld: Option<Withheld>,
}

impl From<String> for Withheld {
    fn from(why: String) -> Self {
        Self { why, too_few_backends: false }
    }
}

impl<S: Store> Agent<S> {
    /// Makes of the newest picture what is wanted.
    pub(super) async fn decide(&mut self) {
        (self.first_change, self.look_again) = (None, None);
        self.has_worked = true;
        let view = self.parts.view.borrow_and_update().clone();
        let Some(snapshot) = view.snapshot.clone() else {
            // etcd is away at the start: what is in place is better than nothing.
            if view.stale.is_some_and(|stale| stale.reason != StaleReason::NotReadYet) {
                self.parts.pipeline.want_what_is_in_place();
            }
            return;
        };
        let same = self.seen.as_ref().is_some_and(|seen| seen.same_values(&snapshot));
        let news =
            std::mem::take(&mut self.probing.is_news) || view.regressions != self.regressions;
        if same && self.is_settled() && !news {
            // Others wrote. A template that looks at the clock is not rendered for that.
            self.seen = Some(Arc::clone(&snapshot));
            self.decided = snapshot.revision;
            self.parts.pipeline.want_same_at(snapshot.revision);
            return;
        }
        self.seen = Some(snapshot.clone());
        if view.regressions != self.regressions {
            self.regressions = view.regressions;
            self.parts.pipeline.forget_revisions();
        }
        if self.decided == Revision::default()
            && remember::recall(&self.parts.set, &mut self.parts.known_backends, &snapshot)
        {
            self.went_back = Some(Instant::now());
        }
        let grace = self.parts.set.grace();
        let went_back = view.regressed_at.max(self.went_back);
        let regressed = went_back.is_some_and(|at| at.elapsed() < grace);
        self.decided = snapshot.revision;
        self.doubting = regressed;
        match self.render(&snapshot, regressed).await {
            Ok(rendered) => {
                self.say_withheld(rendered.withheld.as_ref());
                self.withheld = rendered.withheld;
                self.refused = rendered.refused;
                let cause = change_summary::words(self.served.as_ref(), &self.routes());
                self.parts.pipeline.want_rendered(rendered.files, snapshot.revision, cause);
            }
            Err(withheld) => {
                self.say_withheld(Some(&withheld));
                self.withheld = Some(withheld);
                self.parts.pipeline.want_what_is_in_place();
            }
        }
        let lost = self.withheld.as_ref().is_some_and(|withheld| withheld.too_few_backends);
        let pause = if self.doubting || lost { DOUBT_AGAIN } else { RENDER_AGAIN };
        self.look_again = (!self.is_settled()).then(|| Instant::now() + pause);
    }

    /// Whether the newest picture is believed and rendered.
    fn is_settled(&self) -> bool {
        !self.doubting && self.withheld.is_none()
    }

    fn say_withheld(&self, withheld: Option<&Withheld>) {
        if let Some(withheld) = withheld.filter(|new| self.withheld.as_ref() != Some(new)) {
            tracing::warn!(set = self.parts.set.name, "{}; the last files stay", withheld.why);
        }
    }

    /// All files of the set, or why not: one resource speaks for all. Where too few backends
    /// are left, those of before stay in the files, and only the settings beside them change.
    async fn render(&mut self, snapshot: &Snapshot, regressed: bool) -> Result<Rendered, Withheld> {
        let in_place = self.parts.pipeline.has_files_in_place();
        let (mut rendered, mut adopted) = (Rendered::default(), Vec::new());
        for program in &self.parts.set.programs {
            let resource = &program.resource;
            let mut seen = resource.reading.see(snapshot.entries.values());
            let belief = self.parts.known_backends.entry(resource.name.clone()).or_default();
            let check = LossCheck {
                store: &self.parts.store,
                bookkeeping: &self.parts.bookkeeping,
                name: &resource.name,
                policy: &resource.policy,
                regressed,
                in_place,
                is_about_backends: resource.reading.is_about_backends(),
            };
            let LossOutcome { retained, too_few } = check.look(belief, &mut seen).await;
            self.doubting |= !retained.is_empty() && too_few.is_none();
            if let Some(why) = too_few {
                self.doubting |= regressed;
                // Alone, it has the set's name, which leads every line anyway.
                let alone = self.parts.set.programs.len() == 1;
                let why = if alone { why } else { format!("{}: {why}", resource.name) };
                let withheld = Withheld { why, too_few_backends: true };
                if belief.backends().next().is_none() {
                    self.refused = seen.refused;
                    return Err(withheld);
                }
                rendered.withheld = Some(withheld);
            }
            rendered.files.push(program.render(&self.probing.without(&seen))?);
            rendered.refused.extend(seen.refused.clone());
            adopted.push((resource.name.clone(), seen, retained));
        }
        say_refused(&self.refused, &rendered.refused);
        for (name, seen, retained) in adopted {
            self.parts.known_backends.entry(name).or_default().adopt(&seen, retained);
        }
        Ok(rendered)
    }

    /// Keeps what is proven for the next start; not while any of it is doubted.
    pub(super) async fn remember(&mut self) {
        let Some(snapshot) = self.parts.view.borrow().snapshot.clone() else { return };
        let applied = self.applied();
        if self.doubting || applied != Some(snapshot.revision) || applied == self.remembered {
            return;
        }
        self.remembered = applied;
        remember::keep(&self.parts.set, &self.parts.known_backends, &snapshot).await;
    }
}

fn say_refused(before: &[RejectedValue], now: &[RejectedValue]) {
    for refused in now.iter().filter(|r| !before.contains(r)) {
        tracing::warn!(key = refused.key, "value refused: {}", refused.why);
    }
    for mended in before.iter().filter(|r| !now.iter().any(|n| n.key == r.key)) {
        tracing::info!(key = mended.key, "no longer refused");
    }
}
