//! The status of a pipeline.

use std::collections::VecDeque;

use prometheus_client::metrics::histogram::Histogram;

use super::Pipeline;
use crate::apply::record::{Counts, Load};
use crate::install::{Digest, Wanted};
use crate::proxy::Proxy;

/// What a pipeline knows at one moment.
#[derive(Debug, Clone, Copy)]
pub struct PipelineStatus<'p> {
    /// The files that are wanted; none before the first render.
    pub wanted: Option<Digest>,
    /// Those in place.
    pub installed: Option<Digest>,
    /// Those that the proxy is proven to run.
    pub active: Option<Digest>,
    /// Whether what is wanted is active.
    pub in_sync: bool,
    /// Why what is wanted is not active, if it was rejected.
    pub rejection: Option<&'p str>,
    /// Why the last step failed, until one succeeds.
    pub trouble: Option<&'p str>,
    /// The same, while the step is tried again, without the time of the next try.
    pub failure: Option<&'p str>,
    /// What made the last load due.
    pub cause: &'p str,
    /// Who changes members, and why it is no better one.
    pub driver: (&'static str, Option<&'p str>),
    /// Whether a template has a word whose lines a driver could change.
    pub names_members: bool,
    /// Older generations that are still at work.
    pub old_generations: usize,
    /// Whether the proxy runs and nothing was loaded into it yet.
    pub is_untouched: bool,
    /// The last loads, newest last.
    pub loads: &'p VecDeque<Load>,
    /// Steps since the start.
    pub counts: Counts,
    /// How long proven loads took.
    pub load_seconds: &'p Histogram,
    /// The files as they are wanted, in the group's order.
    pub wanted_files: Option<&'p Wanted>,
}

impl Pipeline {
    /// What is known now.
    pub fn status(&self) -> PipelineStatus<'_> {
        PipelineStatus {
            wanted: self.ledger.wanted(),
            installed: self.ledger.installed(),
            active: self.ledger.active(),
            in_sync: self.ledger.in_sync(),
            rejection: self.ledger.rejection().map(|rejection| rejection.why.as_str()),
            trouble: self.record.trouble(),
            failure: self.record.failure(),
            cause: &self.wanted.cause,
            driver: self.members.driver(),
            names_members: self.wanted.rendered.iter().any(|file| file.text.names_members()),
            old_generations: self.old.count(),
            is_untouched: !self.pacing.has_loaded() && self.proxy.is_running(),
            loads: self.record.loads(),
            counts: self.record.counts(),
            load_seconds: self.record.load_seconds(),
            wanted_files: self.wanted.files.as_ref(),
        }
    }

    /// Whether all files of the group are in place, whatever is in them.
    pub fn has_files_in_place(&self) -> bool {
        self.ledger.installed().is_some()
    }

    /// Whether an earlier run left files in place that nothing has proven.
    pub fn has_unproven_files(&self) -> bool {
        self.files.are_unproven()
    }

    /// How its files are loaded.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}
