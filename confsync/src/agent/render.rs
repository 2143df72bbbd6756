//! From keys to a file: which backends may be rendered, and which have to stay because their loss
//! is not certain. The agent and a single run go by these rules alike.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::Bookkeeping;
use common::store::Store;

use crate::backends::ParsedKeys;
use crate::backends::known::KnownBackends;
use crate::backends::loss_check::{LossCheck, LossOutcome};
use crate::config::last_render::LastRender;
use crate::config::program::CompiledResource;
use crate::config::rendered::RenderedFile;

/// Why files are not rendered, or not as etcd has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// For an operator.
    pub(crate) why: String,
    /// Nothing is wrong but that too few backends are registered.
    pub(crate) too_few_backends: bool,
}

impl From<String> for Withheld {
    fn from(why: String) -> Self {
        Self { why, too_few_backends: false }
    }
}

/// What the render of a resource depends on.
#[derive(Debug)]
pub(crate) struct RenderRules<'a, S> {
    /// Where leave markers and acceptances are.
    pub(crate) store: &'a S,
    pub(crate) bookkeeping: &'a Bookkeeping,
    /// etcd regressed less than the grace ago.
    pub(crate) regressed: bool,
    /// Whether it is decided again when the grace is over; not in a single run.
    pub(crate) may_wait: bool,
    /// There are files that can be kept.
    pub(crate) in_place: bool,
    /// Backends that refuse connections while etcd is unreachable.
    pub(crate) left_out: &'a BTreeSet<Arc<str>>,
}

/// A resource as it is to be.
#[derive(Debug)]
pub(crate) struct RenderedResource {
    pub(crate) file: RenderedFile,
    /// The keys that etcd has no more and that are in the file all the same.
    pub(crate) retained: BTreeSet<String>,
    /// Why that is not what etcd asks for: without the retained too few would be left, so only
    /// the settings beside them change.
    pub(crate) withheld: Option<Withheld>,
}

impl RenderedResource {
    /// For a single run: a resource that cannot be rendered as etcd has it keeps its last file.
    pub(crate) fn or_withheld(self) -> Result<Self, Withheld> {
        self.withheld.clone().map_or(Ok(self), Err)
    }

    /// Whether a loss is to be looked into again soon.
    pub(crate) fn is_unverified(&self) -> bool {
        !self.retained.is_empty() && self.withheld.is_none()
    }
}

impl<S: Store> RenderRules<'_, S> {
    /// Renders one resource from the keys that were `seen`; what is retained is added to them.
    pub(crate) async fn render(
        &self,
        program: &CompiledResource,
        last: &mut LastRender,
        known: &mut KnownBackends,
        seen: &mut ParsedKeys,
    ) -> Result<RenderedResource, Withheld> {
        let resource = &program.resource;
        let check = LossCheck {
            store: self.store,
            bookkeeping: self.bookkeeping,
            name: &resource.name,
            policy: &resource.policy,
            regressed: self.regressed,
            may_wait: self.may_wait,
            in_place: self.in_place,
            is_about_backends: resource.reading.is_about_backends(),
        };
        let LossOutcome { retained, too_few } = check.look(known, seen).await;
        let withheld = too_few.map(|why| Withheld { why, too_few_backends: true });
        if let Some(withheld) = withheld.as_ref().filter(|_| known.backends().is_empty()) {
            // Nothing of before could stay in the file instead.
            return Err(withheld.clone());
        }
        let shown = without(seen, self.left_out);
        let file = off_thread(program, last, shown).await?;
        Ok(RenderedResource { file, retained, withheld })
    }
}

/// What is to be rendered of `seen`.
fn without<'s>(seen: &'s ParsedKeys, left_out: &BTreeSet<Arc<str>>) -> Cow<'s, ParsedKeys> {
    if left_out.is_empty() {
        return Cow::Borrowed(seen);
    }
    let mut shown = seen.clone();
    for key in left_out {
        shown.backends.remove(key);
        shown.entries.remove(key);
    }
    Cow::Owned(shown)
}

/// Renders while the runtime goes on: a template may ask DNS, and a look-up may take 5 s, which would
/// stop the refreshing of leases, signals and the status page. A text that is repeated with other
/// members asks nothing of the system, and is not worth another thread.
async fn off_thread(
    program: &CompiledResource,
    last: &mut LastRender,
    shown: Cow<'_, ParsedKeys>,
) -> Result<RenderedFile, String> {
    if program.repeats_text(last) {
        return program.render_after(last, &shown);
    }
    let (program, mut own, shown) = (program.clone(), std::mem::take(last), shown.into_owned());
    let render = move || (program.render_after(&mut own, &shown), own);
    let (file, own) = tokio::task::spawn_blocking(render).await.map_err(|e| e.to_string())?;
    *last = own;
    file
}

/// What the newest render came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum RenderVerdict {
    /// The files are what etcd asks for.
    #[default]
    Settled,
    /// They are, but for backends that are retained, or soon after etcd regressed: the losses are
    /// looked into again.
    Unverified,
    /// They are not, and why.
    Withheld {
        cause: Withheld,
        /// When it is tried again though nothing changed.
        pause: Duration,
    },
}

/// How often a loss that is not certain is looked into again.
const LOSS_AGAIN: Duration = Duration::from_secs(2);
/// How often files that could not be rendered are tried again: a template may have asked DNS, or
/// looked at a file.
const RENDER_AGAIN: Duration = Duration::from_secs(10);

impl RenderVerdict {
    pub(super) fn new(withheld: Option<Withheld>, is_unverified: bool) -> Self {
        match withheld {
            Some(cause) => {
                let is_loss = cause.too_few_backends || is_unverified;
                let pause = if is_loss { LOSS_AGAIN } else { RENDER_AGAIN };
                Self::Withheld { cause, pause }
            }
            None if is_unverified => Self::Unverified,
            None => Self::Settled,
        }
    }

    /// Why the newest keys are not what is wanted.
    pub(super) fn withheld(&self) -> Option<&Withheld> {
        match self {
            Self::Withheld { cause, .. } => Some(cause),
            Self::Settled | Self::Unverified => None,
        }
    }

    /// After which pause it is decided again though nothing changed.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Settled => None,
            Self::Unverified => Some(LOSS_AGAIN),
            Self::Withheld { pause, .. } => Some(*pause),
        }
    }
}
