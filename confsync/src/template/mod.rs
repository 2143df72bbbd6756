//! Templates: text in, keys in, text out.
//!
//! Two languages with the same functions. Go's `text/template`, so that a confd
//! installation renders byte for byte as before; and handlebars, our own, strict and
//! safe for nginx. Knows nothing of etcd, TOML, files to write or processes to signal; what
//! a template may ask of the system (clock, environment, names, files) is passed in.
//!
//! Invariants: no template and no data makes it panic, hang, or grow without bound; an error says
//! where, what, and what to do.

mod cut;
mod error;
mod escape;
mod functions;
mod go;
mod hbs;
mod kv;
mod member_lines;
mod path;
mod print;
mod runes;
mod server_lines;
mod sprintf;
pub mod starter;
mod system;
mod time;
mod upstream_members;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::model::{Backend, StoredValue};

pub(crate) use error::place;
pub use error::{RenderError, TemplateError};
pub use escape::{ESCAPES, Escape};
use functions::members::Mark;
pub use kv::{Collision, Keys, Texts, keys};
pub use member_lines::{NamedService, Piece, RenderedText, is_named_by};
pub use path::{BadPattern, Pattern, base, clean, dir, is_clean, matches};
pub use server_lines::{haproxy_lines, haproxy_server_name, push_inside, upstream_block};
pub use system::{IncludeError, IncludedFile, NoSystem, System};
pub use upstream_members::{UpstreamMember, UpstreamMembers};

use functions::Fault;

/// The stack a render runs on. Nesting is bounded well below what fits.
const STACK: usize = 64 << 20;

/// The language of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Go's `text/template` with confd's functions.
    Go,
    /// Handlebars, strict, nginx-safe.
    Handlebars,
}

impl Engine {
    /// By the ending: `.hbs` is handlebars, everything else is Go.
    pub fn of(src: &Path) -> Self {
        if src.extension().is_some_and(|e| e == "hbs") { Self::Handlebars } else { Self::Go }
    }
}

/// What a template renders.
#[derive(Debug, Clone)]
pub struct Input {
    kv: Texts,
    backends: Vec<NamedBackend>,
    system: Arc<dyn System>,
    /// The placeholder for lines that name backends, while the template runs.
    mark: Mark,
    is_read: Arc<AtomicBool>,
}

impl Default for Input {
    fn default() -> Self {
        Self::new(Texts::new(), Vec::new(), Arc::new(NoSystem))
    }
}

impl Input {
    /// The resource's keys in confd's form, which [`keys`] makes; the backends among them, in the
    /// order of their keys; the system that may be queried.
    pub fn new(kv: Texts, backends: Vec<NamedBackend>, system: Arc<dyn System>) -> Self {
        Self { kv, backends, system, mark: Mark::default(), is_read: Arc::default() }
    }

    /// Keys in confd's form, without backends, on [`NoSystem`].
    pub fn of_keys<K: Into<Arc<str>>, V: Into<StoredValue>>(
        kv: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let text = |(key, value): (K, V)| -> (Arc<str>, StoredValue) { (key.into(), value.into()) };
        Self { kv: kv.into_iter().map(text).collect(), ..Self::default() }
    }

    /// On this system.
    #[must_use]
    pub fn with_system(self, system: Arc<dyn System>) -> Self {
        Self { system, ..self }
    }

    /// With these backends among the keys.
    #[must_use]
    pub fn with_backends(self, backends: Vec<NamedBackend>) -> Self {
        Self { backends, ..self }
    }

    /// Whether a template has read anything of it: what did not depends on nothing but itself.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    fn keys(&self) -> &Texts {
        self.is_read.store(true, Ordering::Relaxed);
        &self.kv
    }

    fn backends(&self) -> &[NamedBackend] {
        self.is_read.store(true, Ordering::Relaxed);
        &self.backends
    }

    fn system(&self) -> &dyn System {
        self.is_read.store(true, Ordering::Relaxed);
        &*self.system
    }

    fn members(&self, path: &str) -> UpstreamMembers {
        let is_named = |named: &&NamedBackend| is_named_by(path, &named.key, &named.service);
        let member = |named: &NamedBackend| {
            let (endpoint, weight) = (named.backend.addr.clone(), named.backend.weight);
            (Arc::clone(&named.key), UpstreamMember { endpoint, weight })
        };
        self.backends.iter().filter(is_named).map(member).collect()
    }
}

/// A backend with the names of its key. There may be thousands: texts are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedBackend {
    /// The key in confd's form.
    pub key: Arc<str>,
    /// The service the key names.
    pub service: Arc<str>,
    /// Its parsed value.
    pub backend: Backend,
}

impl NamedBackend {
    /// The instance the key names.
    pub fn id(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// The files that a template may include.
#[derive(Debug, Clone, Default)]
pub struct TemplateSources {
    /// Handlebars partials: name to text, from `templates/partials`.
    pub partials: BTreeMap<String, String>,
    /// The folder that `include` in a Go template may read from; none forbids it.
    pub templates: Option<PathBuf>,
    /// The syntax that handlebars escapes for.
    pub escape: Escape,
}

/// A template, read and checked.
#[derive(Debug)]
pub struct Template {
    program: Program,
}

#[derive(Debug)]
enum Program {
    Go(go::GoTemplate),
    Handlebars(Box<hbs::HandlebarsTemplate>),
}

impl Template {
    /// Reads and checks a template. `name` is its file, for messages.
    ///
    /// # Errors
    /// When it is not a template, with the place and what to do.
    pub fn compile(
        name: &Path,
        text: &(impl AsRef<[u8]> + ?Sized),
        engine: Engine,
        sources: &TemplateSources,
    ) -> Result<Self, TemplateError> {
        let text = text.as_ref();
        let compile = || match engine {
            Engine::Go => go::GoTemplate::compile(name, text, sources).map(Program::Go),
            Engine::Handlebars => hbs::HandlebarsTemplate::compile(name, text, sources)
                .map(|program| Program::Handlebars(Box::new(program))),
        };
        on_own_stack(name, compile).map(|program| Self { program })
    }

    /// Whether it uses typed backends; a Go template does only by `upstream` and `servers`.
    pub fn asks_for_backends(&self) -> bool {
        match &self.program {
            Program::Go(program) => program.names_members(),
            Program::Handlebars(program) => program.asks_for_backends(),
        }
    }

    /// Where the output deliberately differs from confd's, in words for the template's author.
    pub fn advice(&self) -> Option<&'static str> {
        match &self.program {
            Program::Go(program) if program.lists_the_top() => Some(
                "`lsdir \"/\"` lists the names at the top here; confd finds none there, so a loop over \
                 them begins to write what it never wrote",
            ),
            _ => None,
        }
    }

    /// The output for these keys and backends, for a proxy that is reloaded for each change.
    ///
    /// # Errors
    /// When a key is missing, a value does not fit, or a bound is reached.
    pub fn render(&self, input: &Input) -> Result<Vec<u8>, RenderError> {
        let mut rendered = self.render_pieces(input)?;
        match rendered.pieces.as_mut_slice() {
            [Piece::Text(text)] => Ok(std::mem::take(text)),
            _ => Ok(rendered.plain()),
        }
    }

    /// The output, cut at the lines that name backends.
    pub fn render_pieces(&self, input: &Input) -> Result<RenderedText, RenderError> {
        let mut rendered = self.render_without_members(input)?;
        let filled = rendered.fill(|path| input.members(path));
        filled.map_err(|what| TemplateError::at(self.file(), (0, 0), what.into()))?;
        Ok(rendered)
    }

    /// The output, cut at the lines that name backends; no service has any yet.
    pub fn render_without_members(&self, input: &Input) -> Result<RenderedText, RenderError> {
        let file = self.file();
        let output = on_own_stack(file, || match &self.program {
            Program::Go(program) => program.render(input),
            Program::Handlebars(program) => program.render(input),
        })?;
        let rendered = cut::cut(&input.mark, output);
        rendered.map_err(|fault| TemplateError::at(file, (0, 0), fault))
    }

    fn file(&self) -> &Path {
        match &self.program {
            Program::Go(program) => program.file(),
            Program::Handlebars(program) => program.file(),
        }
    }
}

/// Renders a command line that is a Go template, with these texts as the fields of its dot.
///
/// # Errors
/// When it is no template, or fails.
pub fn command_line(line: &str, fields: &[(&str, &str)]) -> Result<String, TemplateError> {
    if !line.contains("{{") {
        return Ok(line.to_owned());
    }
    let name = Path::new("command");
    let render = || {
        let program = go::GoTemplate::compile(name, line.as_bytes(), &TemplateSources::default())?;
        program.render_fields(fields)
    };
    let text = on_own_stack(name, render)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What the error of a template says that panicked.
pub(crate) const PANICKED: &str = "the template panicked";

/// Runs on a stack of known size, whatever thread called. A panic, which would be
/// a mistake of ours or of a crate, becomes an error of this template alone.
fn on_own_stack<T: Send>(
    file: &Path,
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    let failed = |fault| Err(TemplateError::at(file, (0, 0), fault));
    let mistake = "this is a mistake in the program, not in the template";
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(handle) => handle.join().unwrap_or_else(|_| failed(Fault::new(PANICKED, mistake))),
            Err(error) => failed(no_thread(&error)),
        }
    })
}

/// What the process wants says nothing of the template.
fn no_thread(error: &std::io::Error) -> Fault {
    Fault::new(
        format!("cannot render: no thread: {error}"),
        "the template is not at fault: this process lacks memory or tasks, see its limits",
    )
}

/// The names of all functions of Go templates, without Go's own.
pub fn functions() -> Vec<&'static str> {
    let mut names: Vec<&str> = functions::all().map(|f| f.name).chain(["include"]).collect();
    names.sort_unstable();
    names
}

/// The names of all helpers of handlebars templates, blocks included.
pub fn helpers() -> Vec<&'static str> {
    hbs::names()
}
