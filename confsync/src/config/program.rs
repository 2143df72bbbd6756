//! One resource's compiled template, and how it renders parsed keys.
//!
//! Pure, except that it reads the template's files once, at the start or when the confdir is read
//! again: a broken template prevents a start, but never stops a running daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::model::Tree;

use crate::backends::{ParsedKeys, RegisteredBackend};
use crate::config::confdir::{ConfdirMistake, Resource};
use crate::config::last_render::{LastRender, key_in_templates};
use crate::config::rendered::RenderedFile;
use crate::local::{LocalSystem, read_file, read_text_file};
use crate::template::{Engine, Input, NamedBackend, RenderedText, Template, TemplateSources, keys};

/// A resource ready to render.
#[derive(Debug, Clone)]
pub struct CompiledResource {
    /// The resource's settings.
    pub resource: Resource,
    template: Arc<Template>,
    text: Vec<u8>,
    sources: TemplateSources,
}

impl CompiledResource {
    /// Reads and compiles a resource's template and partials.
    ///
    /// # Errors
    /// When a file cannot be read or is not a template, with the place.
    pub fn compile(resource: Resource, confdir: &Path) -> Result<Self, ConfdirMistake> {
        let src = resource.src.clone();
        let mistake = |file: &Path, text: String| ConfdirMistake { file: file.to_owned(), text };
        let text = read_file(&src).map_err(|e| mistake(&src, unreadable(&e)))?;
        let templates = confdir.join("templates");
        let partials = match resource.engine {
            Engine::Handlebars => partials(&templates.join("partials"))
                .map_err(|(file, error)| mistake(&file, unreadable(&error)))?,
            Engine::Go => BTreeMap::new(),
        };
        let escape = resource.escape;
        let sources = TemplateSources { partials, templates: Some(templates), escape };
        let template =
            Template::compile(&src, &text, resource.engine, &sources).map_err(|error| {
                // The error names the file already; a mistake would name it again.
                let named = error.to_string();
                let bare =
                    named.strip_prefix(&format!("{}:", error.file.display())).unwrap_or(&named);
                mistake(&error.file, bare.trim_start().to_owned())
            })?;
        Ok(Self { resource, template: Arc::new(template), text, sources })
    }

    /// Whether both render the same from the same keys, and are installed and loaded the same way.
    pub fn same_as(&self, other: &CompiledResource) -> bool {
        self.resource == other.resource
            && self.text == other.text
            && self.sources.partials == other.sources.partials
    }

    /// The text of its template, as it was read.
    pub fn template(&self) -> &[u8] {
        &self.text
    }

    /// A note on something that the template's author may not expect.
    pub fn advice(&self) -> Option<&'static str> {
        self.template.advice()
    }

    /// Renders the resource's file.
    ///
    /// # Errors
    /// The template's error, with its position.
    pub fn render(&self, seen: &ParsedKeys) -> Result<RenderedFile, String> {
        self.render_after(&mut LastRender::default(), seen)
    }

    /// Whether the next render runs no template: only members may differ from the `last` one.
    #[must_use]
    pub fn repeats_text(&self, last: &LastRender) -> bool {
        last.has_text() && self.resource.output_format.is_none()
    }

    /// As [`Self::render`]; what the `last` render has in common with this one is not made again.
    ///
    /// # Errors
    /// The template's error, with its position.
    pub fn render_after(
        &self,
        last: &mut LastRender,
        seen: &ParsedKeys,
    ) -> Result<RenderedFile, String> {
        let mut text = match last.text() {
            Some(text) => text,
            None => self.render_without_members(last, seen)?,
        };
        let prefix = &self.resource.reading.prefix;
        let filled = last.fill(&mut text, seen, prefix);
        filled.map_err(|why| format!("{}: {why}", self.resource.src.display()))?;
        let balancing = self.resource.nginx.as_ref().map(|nginx| nginx.balancing);
        let text = text.with_server_options(&balancing.unwrap_or_default().server_options());
        self.check_covered(&text)?;
        if let Some(format) = &self.resource.output_format {
            crate::config::output_format::validate(format, &text.plain()).map_err(|why| {
                format!("{}: output_format = \"{format}\": {why}", self.resource.src.display())
            })?;
        }
        let is_for_haproxy = self.resource.is_for_haproxy;
        Ok(RenderedFile { target: self.resource.target.clone(), text, is_for_haproxy })
    }

    fn render_without_members(
        &self,
        last: &mut LastRender,
        seen: &ParsedKeys,
    ) -> Result<RenderedText, String> {
        let input = self.input(seen);
        let text = self.template.render_without_members(&input).map_err(|e| e.to_string())?;
        last.keep((!input.is_read()).then(|| text.clone()));
        Ok(text)
    }

    /// A service whose keys are not read would never have a backend.
    fn check_covered(&self, text: &RenderedText) -> Result<(), String> {
        let reading = &self.resource.reading;
        let prefix = reading.prefix.as_str().trim_end_matches('/');
        let services = reading.services.as_str();
        for service in text.services().filter(|service| service.members.is_empty()) {
            let path = match service.path.strip_prefix('/') {
                Some(path) => format!("{prefix}/{path}"),
                None => format!("{prefix}{services}/{}", service.path),
            };
            let is_read = |tree: &Tree| {
                tree.covers(&path) || path.rsplit('/').next() == tree.path().rsplit('/').next()
            };
            if !reading.trees.iter().any(is_read) {
                return Err(format!(
                    "{}: the backends of \"{}\" are not read: add \"{path}\" to keys",
                    self.resource.src.display(),
                    service.path
                ));
            }
        }
        Ok(())
    }

    /// Whether the template uses typed backends: otherwise they may be left out of the parsed keys.
    pub fn asks_for_backends(&self) -> bool {
        self.template.asks_for_backends()
    }

    fn input(&self, seen: &ParsedKeys) -> Input {
        let prefix = &self.resource.reading.prefix;
        let bare = if prefix.as_str() == "/" { "" } else { prefix.as_str() };
        let store = keys(&seen.entries, bare);
        for collision in &store.collisions {
            tracing::warn!(
                kept = collision.kept,
                dropped = collision.dropped,
                "two keys have the same name in templates; remove one of them"
            );
        }
        let named = |(key, registered): (&Arc<str>, &Arc<RegisteredBackend>)| NamedBackend {
            key: key_in_templates(key, prefix),
            service: Arc::clone(&registered.service),
            backend: registered.backend.clone(),
        };
        // Thousands of copies are not free.
        let backends = match self.asks_for_backends() {
            true => seen.backends.iter().chain(&seen.settings).map(named).collect(),
            false => Vec::new(),
        };
        Input::new(store.kv, backends, Arc::new(LocalSystem))
    }
}

fn unreadable(error: &std::io::Error) -> String {
    let advice = match error.kind() {
        std::io::ErrorKind::NotFound => "; is src right?",
        std::io::ErrorKind::PermissionDenied => "; run as a user that may read it",
        _ => "",
    };
    format!("cannot be read: {error}{advice}")
}

/// `templates/partials/NAME.hbs` is `{{> NAME}}`.
fn partials(folder: &Path) -> Result<BTreeMap<String, String>, (PathBuf, std::io::Error)> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err((folder.to_owned(), error)),
    };
    let mut partials = BTreeMap::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "hbs")
            && let Some(stem) = path.file_stem()
        {
            let text = read_text_file(&path).map_err(|e| (path.clone(), e))?;
            partials.insert(stem.to_string_lossy().into_owned(), text);
        }
    }
    Ok(partials)
}
