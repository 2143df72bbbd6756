//! The resources of one reload group, and the backends that each is known to have: rendered as
//! one, for the files of one proxy change together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::handshake::Bookkeeping;
use common::model::Snapshot;
use common::store::Store;

use super::rejections::Rejections;
use super::render::{RenderRules, RenderVerdict, RenderedResource, Withheld};
use super::route_table::{RouteTable, Unwritten};
use crate::backends::known::KnownBackends;
use crate::backends::saved::{BackendValues, SavedBackends};
use crate::backends::{Entries, KeySelection, ParsedKeys};
use crate::config::last_render::LastRender;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::config::rendered::RenderedFile;
use crate::config::written::UnwrittenBackends;
use crate::status::change_summary::Routes;

/// One reload group from keys to rendered files.
#[derive(Debug)]
pub(super) struct GroupRenderer<S> {
    pub(super) group: ReloadGroup,
    store: S,
    bookkeeping: Bookkeeping,
    /// What each resource routes to, by its name.
    known: BTreeMap<String, KnownBackends>,
    /// What of the last render of each resource need not be made again.
    last: BTreeMap<String, LastResource>,
    rejected: Rejections,
    routes: RouteTable,
    unwritten: Unwritten,
}

/// A resource as it was read and rendered last.
#[derive(Debug, Default)]
struct LastResource {
    entries: Entries,
    seen: ParsedKeys,
    render: LastRender,
    unwritten: UnwrittenBackends,
    values: BackendValues,
}

impl LastResource {
    /// The keys as etcd has them now.
    fn see(&mut self, reading: &KeySelection, entries: &Entries) -> ParsedKeys {
        reading.see_changes(&mut self.seen, &self.entries, entries);
        self.entries = entries.clone();
        self.seen.clone()
    }
}

/// What a render depends on besides the keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// etcd regressed less than the grace ago.
    pub(super) regressed: bool,
    /// There are files that can be kept.
    pub(super) in_place: bool,
    /// Backends that refuse connections while etcd is unreachable.
    pub(super) left_out: &'a BTreeSet<Arc<str>>,
}

impl<'a> Circumstances<'a> {
    fn rules<S>(&self, store: &'a S, bookkeeping: &'a Bookkeeping) -> RenderRules<'a, S> {
        let Self { regressed, in_place, left_out } = *self;
        RenderRules { store, bookkeeping, regressed, may_wait: true, in_place, left_out }
    }
}

/// The files of all resources.
#[derive(Debug)]
pub(super) struct GroupRender {
    /// `None`: those of before stay.
    pub(super) files: Option<Vec<RenderedFile>>,
    pub(super) verdict: RenderVerdict,
}

impl GroupRender {
    /// No file is wanted, for this cause.
    fn withheld(cause: Withheld, is_unverified: bool) -> Self {
        Self { files: None, verdict: RenderVerdict::new(Some(cause), is_unverified) }
    }
}

impl<S: Store> GroupRenderer<S> {
    pub(super) fn new(
        group: ReloadGroup,
        store: S,
        bookkeeping: Bookkeeping,
        known: BTreeMap<String, KnownBackends>,
    ) -> Self {
        let (last, rejected, routes, unwritten) = Default::default();
        Self { group, store, bookkeeping, known, last, rejected, routes, unwritten }
    }

    /// Renders all resources, or none: a mistake in one withholds all.
    pub(super) async fn render(
        &mut self,
        snapshot: &Snapshot,
        circumstances: Circumstances<'_>,
    ) -> GroupRender {
        let rules = circumstances.rules(&self.store, &self.bookkeeping);
        let (mut files, mut rejected) = (Vec::new(), Rejections::default());
        let (mut adopted, mut unwritten) = (Vec::new(), Unwritten::new());
        let (mut withheld, mut is_unverified) = (None, circumstances.regressed);
        for program in &self.group.programs {
            let name = &program.resource.name;
            let known = self.known.entry(name.clone()).or_default();
            let last = self.last.entry(name.clone()).or_default();
            let mut seen = last.see(&program.resource.reading, &snapshot.entries);
            let rendered = match rules.render(program, &mut last.render, known, &mut seen).await {
                Ok(rendered) => rendered,
                Err(cause) => {
                    if cause.too_few_backends {
                        self.rejected.set(name, seen.rejected);
                    }
                    return GroupRender::withheld(self.named(program, cause), is_unverified);
                }
            };
            is_unverified |= rendered.is_unverified();
            let RenderedResource { file, retained, withheld: cause } = rendered;
            let prefix = &program.resource.reading.prefix;
            if let Some(keys) = last.unwritten.update(&file.text, &seen.backends, prefix) {
                unwritten.insert(name.clone(), keys.clone());
            }
            withheld = cause.map(|cause| self.named(program, cause)).or(withheld);
            files.push(file);
            rejected.set(name, seen.rejected.clone());
            adopted.push((name.clone(), seen, retained));
        }
        rejected.log_since(&self.rejected);
        (self.rejected, self.unwritten) = (rejected, unwritten);
        for (name, seen, retained) in adopted {
            self.known.entry(name).or_default().adopt(&seen, retained);
        }
        GroupRender { files: Some(files), verdict: RenderVerdict::new(withheld, is_unverified) }
    }

    /// A loss is of one resource. Alone, it has the group's name, which leads every line anyway.
    fn named(&self, program: &CompiledResource, cause: Withheld) -> Withheld {
        if self.group.programs.len() == 1 || !cause.too_few_backends {
            return cause;
        }
        Withheld { why: format!("{}: {}", program.resource.name, cause.why), ..cause }
    }

    /// At the start: whether etcd regressed while it was not watched. What was known before then is
    /// known again, and so verified. What a predecessor hands over is newer.
    pub(super) fn recall(&mut self, now: &Snapshot) -> bool {
        let mut is_ahead = false;
        for program in &self.group.programs {
            let resource = &program.resource;
            let Some(saved) = SavedBackends::load_if_ahead(&resource.target.dest, now.point())
            else {
                continue;
            };
            if !self.known.contains_key(&resource.name) {
                tracing::warn!(
                    resource = resource.name,
                    "etcd regressed while confsync was not running: it was wiped, or restored \
                     from a backup"
                );
                self.known.insert(resource.name.clone(), saved.known(&resource.reading));
                is_ahead = true;
            }
        }
        is_ahead
    }

    /// Keeps what is proven for the next start. A failure is logged, and costs nothing else.
    pub(super) async fn save(&mut self, now: &Snapshot) {
        let saved = |program: &CompiledResource| {
            let CompiledResource { resource, .. } = program;
            let known = self.known.get(&resource.name)?;
            let last = self.last.entry(resource.name.clone()).or_default();
            Some((resource.target.dest.clone(), last.values.at(now, known)))
        };
        let all: Vec<_> = self.group.programs.iter().filter_map(saved).collect();
        let save = move || all.iter().try_for_each(|(dest, saved)| saved.save(dest));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(save).await {
            tracing::warn!(%error, "cannot save the last-known backends");
        }
    }

    pub(super) fn known(&self) -> &BTreeMap<String, KnownBackends> {
        &self.known
    }

    pub(super) fn into_known(self) -> BTreeMap<String, KnownBackends> {
        self.known
    }

    pub(super) fn rejected(&self) -> &Rejections {
        &self.rejected
    }

    /// Whether the backends of a resource count by their keys, because its file names none of them.
    pub(super) fn counts_by_keys(&self, resource: &str) -> bool {
        let has_backends =
            self.known.get(resource).is_some_and(|known| !known.backends().is_empty());
        has_backends && self.last.contains_key(resource) && !self.unwritten.contains_key(resource)
    }

    /// Where requests are to go.
    pub(super) fn routes(&mut self, left_out: &BTreeSet<Arc<str>>) -> Routes {
        self.routes.update(&self.known, &self.unwritten, left_out)
    }
}
