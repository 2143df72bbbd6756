//! What stands of each resource, and which of them a failure is about.

use std::sync::Arc;

use common::store::Store;

use super::{Agent, Parts};
use crate::config::program::CompiledResource;
use crate::status::resources::{
    ResourceState, ServiceCounts, TroublePlace, named_line, template_line,
};

/// The services that are known before anything is read: those that the keys name, and those
/// of the group that this one replaces.
pub(super) fn services_before<S>(parts: &Parts<S>) -> ServiceCounts {
    let mut counts = ServiceCounts::default();
    for CompiledResource { resource, .. } in &parts.set.programs {
        for service in resource.reading.services_named() {
            counts.expect(&resource.name, &Arc::from(service));
        }
    }
    for resource in parts.before.iter().flat_map(|before| &before.resources) {
        for state in &resource.services {
            counts.expect(&resource.name, &state.service);
        }
    }
    counts
}

impl<S: Store> Agent<S> {
    pub(super) fn resources(&self) -> Vec<ResourceState> {
        let state = |CompiledResource { resource, .. }: &CompiledResource| ResourceState {
            name: resource.name.clone(),
            file: resource.dest.display().to_string(),
            template: resource.src.display().to_string(),
            services: self.services.of(&resource.name),
        };
        self.parts.set.programs.iter().map(state).collect()
    }

    /// Where a failure is, if its text names a file of ours and a line.
    pub(super) fn trouble_at(&self, text: &str) -> Option<TroublePlace> {
        let programs = &self.parts.set.programs;
        let path = |path: &std::path::Path| path.display().to_string();
        let place = |program: &CompiledResource| TroublePlace {
            resource: program.resource.name.clone(),
            file: path(&program.resource.dest),
            line: None,
            template: path(&program.resource.src),
            template_line: None,
        };
        let files: Vec<_> = programs.iter().map(|p| path(&p.resource.dest)).collect();
        if let Some((index, line)) = named_line(text, files.iter().map(String::as_str)) {
            let program = programs.get(index)?;
            let rendered = self.parts.pipeline.status().wanted_files.get(index);
            let template_line = rendered
                .and_then(|rendered| template_line(program.template(), &rendered.bytes, line));
            return Some(TroublePlace { line: Some(line), template_line, ..place(program) });
        }
        let templates: Vec<_> = programs.iter().map(|p| path(&p.resource.src)).collect();
        let (index, line) = named_line(text, templates.iter().map(String::as_str))?;
        Some(TroublePlace { template_line: Some(line), ..place(programs.get(index)?) })
    }
}
