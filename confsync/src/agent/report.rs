//! What is reported of one reload group: its status, and what it acknowledges to backends that wait
//! to deregister. Pure.

use std::sync::Arc;
use std::time::SystemTime;

use common::handshake::{DriverInUse, Rejection};
use common::model::Revision;
use common::watch::StaleReason;

use super::rejections::Rejections;
use super::render::Withheld;
use crate::acks::members::Applied;
use crate::apply::named_line::named_line;
use crate::apply::pipeline::PipelineStatus;
use crate::apply::record::HISTORY;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::install::Digest;
use crate::status::resources::{ResourceState, ServiceState, TroublePlace, template_line};
use crate::status::state::{BackendCounts, BackendStates, GroupState, LoadState};

/// The longest reason that an acknowledgement gives, in characters.
const LONGEST_REASON: usize = 500;

/// How far a reload group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupProgress {
    /// The revision that was decided on last; none before the first.
    pub(super) decided: Option<Revision>,
    /// The newest revision that is active; nothing while the newest is withheld.
    pub(super) applied: Option<Revision>,
    pub(super) quiesced: Revision,
    pub(super) in_sync: bool,
    pub(super) old_generations: usize,
    /// How many absent keys requests may still be routed by.
    pub(super) lingering: usize,
    /// What a predecessor had active, until a load of anything else was tried.
    pub(super) active_before: Option<String>,
    pub(super) stale: Option<StaleReason>,
}

/// What a report is made of.
pub(super) struct ReportFacts<'a> {
    pub(super) group: &'a ReloadGroup,
    pub(super) progress: &'a GroupProgress,
    pub(super) pipeline: PipelineStatus<'a>,
    pub(super) withheld: Option<&'a Withheld>,
    pub(super) rejected: &'a Rejections,
}

impl ReportFacts<'_> {
    /// The status of the group. `pending_since`: since when something is; `loads_before`: the
    /// loads of a predecessor.
    pub(super) fn state(
        &self,
        (backends, counts): (BackendStates, BackendCounts),
        resources: Vec<ResourceState>,
        pending_since: Option<SystemTime>,
        loads_before: &[LoadState],
    ) -> GroupState {
        let Self { group, progress, pipeline, .. } = self;
        let short = |digest: Option<Digest>| digest.map(|digest| digest.short());
        let withheld = self.withheld.map(|withheld| withheld.why.as_str());
        let trouble = withheld.or(pipeline.trouble).map(str::to_owned);
        GroupState {
            name: group.name.clone(),
            files: group.programs.iter().map(dest).collect(),
            stale: progress.stale.as_ref().map(ToString::to_string),
            revision: progress.decided.unwrap_or_default().0,
            applied: progress.applied.unwrap_or_default().0,
            quiesced: progress.quiesced.0,
            wanted: short(pipeline.wanted),
            installed: short(pipeline.installed),
            live: short(pipeline.active).or_else(|| progress.active_before.clone()),
            in_sync: progress.in_sync,
            pending_since,
            trouble_at: trouble.as_ref().and_then(|text| self.trouble_place(text)),
            trouble,
            resources,
            backends,
            counts,
            rejected: self.rejected.states(),
            driver: pipeline.driver.0,
            driver_reason: pipeline.driver.1.map(str::to_owned),
            member_changes_total: pipeline.counts.member_changes,
            old_generations: progress.old_generations,
            loads: self.loads(loads_before),
            loads_total: pipeline.counts.loads,
            refusals_total: pipeline.counts.refusals,
            failures_total: pipeline.counts.failures,
            load_seconds: pipeline.load_seconds.clone(),
        }
    }

    /// The last loads, those of a predecessor among them.
    fn loads(&self, before: &[LoadState]) -> Vec<LoadState> {
        let loads = self.pipeline.loads.iter().map(|load| LoadState {
            at: load.at,
            took_ms: load.took.as_millis(),
            revision: load.revision.0,
            cause: load.cause.clone(),
            failed: load.failed.clone(),
            reload: load.is_reload,
            changes: Arc::clone(&load.changes),
        });
        let mut loads: Vec<LoadState> = before.iter().cloned().chain(loads).collect();
        loads.drain(..loads.len().saturating_sub(HISTORY));
        loads
    }

    /// Where a failure is, if its text names a file of ours and a line.
    fn trouble_place(&self, text: &str) -> Option<TroublePlace> {
        let programs = &self.group.programs;
        let place = |program: &CompiledResource| TroublePlace {
            resource: program.resource.name.clone(),
            file: dest(program),
            line: None,
            template: src(program),
            template_line: None,
        };
        let files: Vec<String> = programs.iter().map(dest).collect();
        if let Some((index, line)) = named_line(text, files.iter().map(String::as_str)) {
            let program = programs.get(index)?;
            let rendered = self.pipeline.wanted_files.and_then(|wanted| wanted.files().get(index));
            let template_line = rendered
                .and_then(|rendered| template_line(program.template(), &rendered.bytes, line));
            return Some(TroublePlace { line: Some(line), template_line, ..place(program) });
        }
        let templates: Vec<String> = programs.iter().map(src).collect();
        let (index, line) = named_line(text, templates.iter().map(String::as_str))?;
        Some(TroublePlace { template_line: Some(line), ..place(programs.get(index)?) })
    }

    /// What a resource acknowledges. `lingering`: absent keys that requests may still go by.
    pub(super) fn acknowledgement<'k>(
        &self,
        program: &CompiledResource,
        lingering: impl IntoIterator<Item = &'k String>,
        is_assumed: bool,
    ) -> Applied {
        let trees = &program.resource.reading.trees;
        let is_read = |key: &&String| trees.iter().any(|tree| tree.covers(key));
        // Nothing is quiesced that is not even applied.
        let is_withheld = self.withheld.is_some();
        Applied {
            applied: self.progress.applied.unwrap_or_default(),
            quiesced: if is_withheld { Revision::default() } else { self.progress.quiesced },
            assumed: is_assumed,
            retained: lingering.into_iter().filter(is_read).cloned().collect(),
            rejected: self.rejection(program),
            trouble: self.pipeline.failure.map(|why| why.chars().take(LONGEST_REASON).collect()),
            rejected_values: self.rejected.count(&program.resource.name),
            driver: self.progress.applied.map(|_| self.driver_in_use()),
        }
    }

    fn driver_in_use(&self) -> DriverInUse {
        let (name, reason) = self.pipeline.driver;
        // Templates without such a word need no reason.
        let reason = reason.filter(|_| self.pipeline.names_members).map(str::to_owned);
        DriverInUse { name: name.to_owned(), reason }
    }

    fn rejection(&self, program: &CompiledResource) -> Option<Rejection> {
        let rejection = self.pipeline.rejection.map(|why| Withheld::from(why.to_owned()));
        let Withheld { why, too_few_backends } = self.withheld.cloned().or(rejection)?;
        // The resources of a proxy are loaded together or not at all.
        let why = match self.trouble_place(&why) {
            Some(place) if place.resource != program.resource.name => {
                format!("because of {}: {why}", place.resource)
            }
            _ => why,
        };
        Some(Rejection {
            revision: self.progress.decided.unwrap_or_default(),
            reason: why.chars().take(LONGEST_REASON).collect(),
            too_few_backends,
        })
    }
}

/// A resource as the status has it, with its services in numbers.
pub(super) fn resource_state(
    program: &CompiledResource,
    services: Vec<ServiceState>,
    counted_by_keys: bool,
) -> ResourceState {
    let name = program.resource.name.clone();
    ResourceState { name, file: dest(program), template: src(program), services, counted_by_keys }
}

fn dest(program: &CompiledResource) -> String {
    program.resource.target.dest.display().to_string()
}

fn src(program: &CompiledResource) -> String {
    program.resource.src.display().to_string()
}
