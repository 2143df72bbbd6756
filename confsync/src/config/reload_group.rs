//! Groups files that belong together: those of one nginx, or those that one command loads. A reload
//! group is checked, installed and loaded as a whole.
//!
//! Pure.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use common::model::Tree;

use crate::config::confdir::{HaproxyOptions, NginxOptions, Resource, ShellCommand};
use crate::config::program::CompiledResource;
use crate::install::Target;

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
    None(String),
}

/// Groups compiled resources.
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
        (None, None) => Loader::None(resource.name.clone()),
    }
}

impl ReloadGroup {
    /// The files of its resources.
    pub fn targets(&self) -> Vec<Target> {
        self.programs.iter().map(|program| program.resource.target.clone()).collect()
    }

    /// The trees that its resources read, each once.
    pub fn trees(&self) -> Vec<Tree> {
        let mut trees: Vec<Tree> =
            self.programs.iter().flat_map(|p| p.resource.reading.trees.clone()).collect();
        trees.sort();
        trees.dedup();
        fn path(tree: &Tree) -> &str {
            tree.path().trim_end_matches('/')
        }
        let all: HashSet<&str> = trees.iter().map(path).collect();
        let whole: HashSet<&str> =
            trees.iter().filter(|tree| !tree.is_below_only()).map(path).collect();
        // There may be thousands: each looks for those above it, and not at all others.
        let covered = |tree: &Tree| {
            let own = path(tree);
            let mut above = own.rmatch_indices('/').filter_map(|(end, _)| own.get(..end));
            tree.is_below_only() && whole.contains(own) || above.any(|above| all.contains(above))
        };
        trees.iter().filter(|tree| !covered(tree)).cloned().collect()
    }

    /// The longest that any of its resources asks for between two reloads.
    pub fn min_reload_interval(&self) -> Duration {
        let intervals = self.programs.iter().map(|p| p.resource.min_reload_interval);
        intervals.max().unwrap_or_default()
    }

    /// The longest random delay that any of its resources asks for.
    pub fn splay(&self) -> Duration {
        self.programs.iter().map(|p| p.resource.splay).max().unwrap_or_default()
    }

    /// The longest that any of its resources collects changes.
    pub fn debounce(&self) -> Duration {
        self.programs.iter().map(|p| p.resource.debounce).max().unwrap_or_default()
    }

    /// The longest grace of its resources after the store has regressed.
    pub fn grace(&self) -> Duration {
        self.programs.iter().map(|p| p.resource.policy.grace).max().unwrap_or_default()
    }

    /// Whether both are the same in every respect that matters.
    pub fn same_as(&self, other: &ReloadGroup) -> bool {
        self.loader == other.loader
            && self.programs.len() == other.programs.len()
            && self.programs.iter().zip(&other.programs).all(|(a, b)| a.same_as(b))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::sample::SampleConfdir;

    proptest! {
        #[test]
        fn trees_are_those_that_no_other_covers(
            wanted in proptest::collection::vec(("(/[ab]{1,2}){1,3}", any::<bool>()), 0..6),
        ) {
            let trees: Vec<Tree> = wanted
                .into_iter()
                .map(|(path, below)| match (path.parse().unwrap(), below) {
                    (prefix, true) => Tree::below(prefix),
                    (prefix, false) => Tree::from(prefix),
                })
                .collect();
            let mut group = SampleConfdir::new("keys = [\"/a\"]\n", "").group();
            group.programs[0].resource.reading.trees = trees.clone();
            let mut expected = trees.clone();
            expected.sort();
            expected.dedup();
            let all = expected.clone();
            expected.retain(|tree| !all.iter().any(|t| t != tree && t.covers(tree.path())));
            prop_assert_eq!(group.trees(), expected);
            let root = Tree::from("/".parse::<common::model::Prefix>().unwrap());
            group.programs[0].resource.reading.trees.push(root.clone());
            prop_assert_eq!(group.trees(), [root]);
        }
    }
}
