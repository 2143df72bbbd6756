//! Reads and compiles the confdir, and reports everything that is wrong with it at once, before
//! anything acts on it.

use std::path::Path;

use crate::config::confdir::{self, Confdir, ConfdirError, ConfdirMistake, Globals, Note};
use crate::config::program::CompiledResource;
use crate::config::reload_group::{Loader, ReloadGroup, group};

/// A confdir, ready to use.
#[derive(Debug)]
pub struct Loaded {
    pub sets: Vec<ReloadGroup>,
    /// Notes for the operator.
    pub notes: Vec<Note>,
}

/// Reads a confdir and compiles its templates.
///
/// # Errors
/// Every mistake in every file.
pub fn load(path: &Path, globals: &Globals) -> Result<Loaded, ConfdirError> {
    let (loaded, mistakes) = read(path, globals)?;
    if mistakes.is_empty() { Ok(loaded) } else { Err(ConfdirError(mistakes)) }
}

/// Reads a confdir for a single run, which writes what it can, as confd does. Files of one nginx
/// are loaded together, so a mistake in one of them rejects them all; a file that cannot be read
/// may be one of them.
///
/// # Errors
/// When the folder itself cannot be read.
pub fn load_usable(
    path: &Path,
    globals: &Globals,
) -> Result<(Loaded, Vec<ConfdirMistake>), ConfdirError> {
    let (mut loaded, mistakes) = read(path, globals)?;
    let is_wrong = |program: &CompiledResource| {
        mistakes.iter().any(|mistake| mistake.file == program.resource.file)
    };
    loaded.sets.retain_mut(|set| {
        let by_name = matches!(set.loader, Loader::Nginx(_) | Loader::Haproxy(_));
        set.programs.retain(|program| !is_wrong(program));
        !set.programs.is_empty() && (mistakes.is_empty() || !by_name)
    });
    Ok((loaded, mistakes))
}

/// Whether there is no resource file at all.
pub fn has_no_resources(path: &Path) -> bool {
    confdir::has_no_files(path)
}

/// The valid part of a confdir, and the mistakes in the rest.
///
/// # Errors
/// When the folder itself cannot be read.
pub(crate) fn read(
    path: &Path,
    globals: &Globals,
) -> Result<(Loaded, Vec<ConfdirMistake>), ConfdirError> {
    let (Confdir { resources, mut notes, .. }, mut mistakes) = confdir::read(path, globals)?;
    let mut programs = Vec::new();
    for resource in resources {
        match CompiledResource::compile(resource, path) {
            Ok(program) => {
                let advice = program.advice().map(|text| Note {
                    file: program.resource.src.clone(),
                    text: text.to_owned(),
                    ignored: false,
                });
                notes.extend(advice);
                programs.push(program);
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Ok((Loaded { sets: group(programs), notes }, mistakes))
}

impl Loaded {
    /// The files of all resources.
    pub fn dests(&self) -> impl Iterator<Item = &Path> {
        self.sets.iter().flat_map(|set| &set.programs).map(|program| &*program.resource.target.dest)
    }

    /// Logs the notes.
    pub fn log_notes(&self) {
        for note in &self.notes {
            tracing::warn!(file = %note.file.display(), "{}", note.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confdir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn resource(name: &str, more: &str) -> String {
        format!("[template]\nsrc=\"{name}\"\ndest=\"/nowhere/{name}\"\nkeys=[\"/a\"]\n{more}")
    }

    /// The names of the resources that a single run uses, and how many mistakes there are.
    fn usable(files: &[(&str, &str)]) -> (Vec<String>, usize) {
        let folder = confdir(files);
        let (loaded, mistakes) = load_usable(folder.path(), &Globals::default()).unwrap();
        let names = loaded.sets.iter().flat_map(|set| &set.programs);
        (names.map(|program| program.resource.name.clone()).collect(), mistakes.len())
    }

    #[test]
    fn one_bad_resource_does_not_keep_the_others_back() {
        let (good, other) = (resource("t", ""), resource("bad", ""));
        let twice = good.replace("src=\"t\"", "src=\"t2\"");
        let files = [("templates/t", "x"), ("templates/t2", "x"), ("templates/bad", "{{end}}")];
        for bad in [&*other, "[template", "[template]\nsrc=\"t\"\n", &*twice] {
            let mut all = vec![("conf.d/a.toml", &*good), ("conf.d/b.toml", bad)];
            all.extend(files);
            assert_eq!(usable(&all), (vec!["a".to_owned()], 1), "{bad}");
        }
    }

    #[test]
    fn of_one_nginx_all_or_nothing_is_used() {
        let (nginx, plain) = (resource("t", "[nginx]\n"), resource("u", ""));
        let all = [
            ("conf.d/a.toml", &*nginx),
            ("conf.d/b.toml", "[template"),
            ("conf.d/c.toml", &*plain),
            ("templates/t", "x"),
            ("templates/u", "x"),
        ];
        assert_eq!(usable(&all), (vec!["c".to_owned()], 1));
    }

    #[test]
    fn a_loop_over_the_top_is_warned_of() {
        let folder = confdir(&[
            ("conf.d/a.toml", &resource("t", "")),
            ("templates/t", "{{ range lsdir \"/\" }}{{ . }}{{ end }}"),
        ]);
        let notes = load(folder.path(), &Globals::default()).unwrap().notes;
        assert!(notes.iter().any(|note| note.text.starts_with("`lsdir \"/\"` lists")), "{notes:?}");
    }

    #[test]
    fn a_confdir_without_resources_is_known_as_such() {
        assert!(has_no_resources(Path::new("/nowhere")));
        assert!(has_no_resources(confdir(&[("conf.d/readme", "x")]).path()));
        assert!(!has_no_resources(confdir(&[("conf.d/a.toml", "x")]).path()));
    }
}
