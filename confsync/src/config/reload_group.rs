//! Groups files that belong together: those of one nginx, or those that one command loads. A reload
//! group is checked, installed and loaded as a whole.
//!
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::Tree;

use crate::config::confdir::{HaproxyOptions, NginxOptions, Resource, ShellCommand};
use crate::config::program::CompiledResource;

/// Files that are loaded together. Clones share the compiled templates.
#[derive(Debug, Clone)]
pub struct ReloadGroup {
    /// The names of its resources, joined.
    pub name: String,
    /// What loads them.
    pub loader: Loader,
    /// Its resources, by name.
    pub programs: Vec<CompiledResource>,
}

/// What loads a reload group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loader {
    /// nginx, by name.
    Nginx(NginxOptions),
    /// HAProxy, by name.
    Haproxy(HaproxyOptions),
    /// A command, shared by all resources that name the same.
    Command(String),
    /// Nothing: writing the file is enough. Each such resource is a group of its own.
    Nobody(String),
}

/// Groups compiled resources.
#[must_use]
pub fn group(programs: Vec<CompiledResource>) -> Vec<ReloadGroup> {
    let mut sets: BTreeMap<Loader, Vec<CompiledResource>> = BTreeMap::new();
    for program in programs {
        sets.entry(loader(&program.resource)).or_default().push(program);
    }
    let set = |(loader, programs): (Loader, Vec<CompiledResource>)| {
        let names: Vec<&str> = programs.iter().map(|p| p.resource.name.as_str()).collect();
        ReloadGroup { name: names.join("+"), loader, programs }
    };
    sets.into_iter().map(set).collect()
}

fn loader(resource: &Resource) -> Loader {
    if let Some(haproxy) = &resource.haproxy {
        return Loader::Haproxy(haproxy.clone());
    }
    match (&resource.nginx, &resource.reload) {
        (Some(nginx), _) => Loader::Nginx(nginx.clone()),
        (None, Some(ShellCommand { text, .. })) => Loader::Command(text.clone()),
        (None, None) => Loader::Nobody(resource.name.clone()),
    }
}

impl ReloadGroup {
    /// The trees that its resources read, each once.
    #[must_use]
    pub fn trees(&self) -> Vec<Tree> {
        let mut trees: Vec<Tree> =
            self.programs.iter().flat_map(|p| p.resource.reading.trees.clone()).collect();
        trees.sort();
        trees.dedup();
        let covered = |tree: &Tree| trees.iter().any(|t| t != tree && t.covers(tree.path()));
        trees.iter().filter(|tree| !covered(tree)).cloned().collect()
    }

    /// The longest that any of its resources asks for between two reloads.
    #[must_use]
    pub fn min_reload_interval(&self) -> Duration {
        let intervals = self.programs.iter().map(|p| p.resource.min_reload_interval);
        intervals.max().unwrap_or_default()
    }

    /// The longest random delay that any of its resources asks for.
    #[must_use]
    pub fn splay(&self) -> Duration {
        self.programs.iter().map(|p| p.resource.splay).max().unwrap_or_default()
    }

    /// The longest that any of its resources collects changes.
    #[must_use]
    pub fn debounce(&self) -> Duration {
        self.programs.iter().map(|p| p.resource.debounce).max().unwrap_or_default()
    }

    /// The longest grace of its resources after the store has regressed.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.programs.iter().map(|p| p.resource.policy.grace).max().unwrap_or_default()
    }

    /// Whether both are the same in every respect that matters.
    #[must_use]
    pub fn same_as(&self, other: &ReloadGroup) -> bool {
        self.loader == other.loader
            && self.programs.len() == other.programs.len()
            && self.programs.iter().zip(&other.programs).all(|(a, b)| a.same_as(b))
    }
}
