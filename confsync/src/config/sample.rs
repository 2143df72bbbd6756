//! A confdir for tests: one resource in a folder of its own.

use std::path::PathBuf;

use tempfile::TempDir;

use super::confdir::Globals;
use super::load::load;
use super::reload_group::ReloadGroup;

/// A confdir with one resource, `app`, and a dest beside it.
pub(crate) struct SampleConfdir {
    folder: TempDir,
}

impl SampleConfdir {
    /// `keys` and the commands are in `toml`, where `FOLDER` is replaced by the folder.
    pub(crate) fn new(toml: &str, template: &str) -> Self {
        let sample = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["conf.d", "templates"] {
            std::fs::create_dir(sample.path(folder)).unwrap();
        }
        sample.write("templates/app.tmpl", template);
        sample.resource(toml);
        sample
    }

    /// Writes the resource anew.
    pub(crate) fn resource(&self, toml: &str) {
        let head = "[template]\nsrc = \"app.tmpl\"\ndest = \"FOLDER/app.conf\"\n";
        let toml = format!("{head}{toml}").replace("FOLDER", &self.path("").display().to_string());
        self.write("conf.d/app.toml", &toml);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// What is in the resource's file.
    pub(crate) fn dest(&self) -> Option<String> {
        std::fs::read_to_string(self.path("app.conf")).ok()
    }

    /// The resource, compiled.
    pub(crate) fn group(&self) -> ReloadGroup {
        let loaded = load(&self.path(""), &Globals::default()).unwrap();
        loaded.sets.into_iter().next().unwrap()
    }
}
