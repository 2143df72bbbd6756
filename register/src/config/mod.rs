//! What the command line, the environment and `services.toml` mean together.
//! Flags beat environment beat file; for the host, `COREOS_PRIVATE_IPV4` comes last.
//!
//! Texts become types here and nowhere else. All mistakes are collected and reported at
//! once, each with its place and a remedy, before anything starts. A configuration that
//! was rejected changes nothing: on a reload the one before stays.
//!
//! Pure but for [`ConfigSources::load`], which reads the file, and [`prepare`], which reads
//! what checks need.

mod diff;
mod file;
mod process;
mod service;

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use common::model::{Key, Prefix};
use common::settings::{Environment, Layer, Mistakes, Place, Reader};

pub use diff::Diff;
pub(crate) use file::read_any as read_any_file;
pub use process::{DrainSpans, Process, Removal, process};
pub use service::{RegistrationTarget, Service, prepare};

use crate::probe::Probe;
use crate::settings::{CONFIG, HOST, PORT, SERVICE, SERVICES, in_file};

/// The variable that names a machine's private address on CoreOS.
const COREOS_HOST: &str = "COREOS_PRIVATE_IPV4";

/// Everything `register run` and `register probe` need, valid as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterConfig {
    /// At least one; no two with the same key.
    pub services: Vec<Service>,
    /// What holds for the whole process.
    pub process: Process,
    /// The backend to supervise; empty for none.
    pub command: Vec<String>,
    /// What is allowed but probably not meant, for the log.
    pub notes: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Unusable {
    /// The command line or the environment: to try again does not help.
    CommandLine(Mistakes),
    /// What the file says: people correct files.
    File(Mistakes),
}

/// Where the configuration comes from; kept to read the file again.
#[derive(Debug, Clone)]
pub struct ConfigSources {
    flags: Layer,
    fallback: Layer,
    file: Option<PathBuf>,
    command: Vec<String>,
    hostname: String,
}

impl ConfigSources {
    /// What clap read for a subcommand. `hostname` is what `{hostname}` means.
    pub fn new(matches: &ArgMatches, environment: Environment<'_>, hostname: String) -> Self {
        let known = |id: &str| matches.try_contains_id(id).is_ok();
        let settings = in_file().filter(|setting| known(setting.name));
        let mut fallback = Layer::default();
        if let Some(text) = environment(COREOS_HOST) {
            fallback.add(&HOST, text, Place::Env(COREOS_HOST.into(), HOST.flag()));
        }
        let words = matches.try_get_many::<String>("command").ok().flatten();
        let file = matches.try_get_one::<String>(CONFIG.name).ok().flatten();
        Self {
            flags: Layer::from_matches(matches, settings, environment),
            fallback,
            file: file.filter(|file| !file.is_empty()).map(PathBuf::from),
            command: words.map(|words| words.cloned().collect()).unwrap_or_default(),
            hostname,
        }
    }

    /// The file that a reload reads again, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The backend to supervise; empty for none.
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// All that a sidekick starts with.
    ///
    /// # Errors
    /// [`Unusable`]. A file that is not there is a mistake of the command line.
    pub fn prepared(&self) -> Result<(RegisterConfig, Vec<Vec<Probe>>), Unusable> {
        let config = self.load().map_err(|mistakes| match self.are_of_file(&mistakes) {
            true => Unusable::File(mistakes),
            false => Unusable::CommandLine(mistakes),
        })?;
        match prepare(&config.services) {
            Ok(probes) => Ok((config, probes)),
            Err(mistakes) if self.file.is_some() => Err(Unusable::File(mistakes)),
            Err(mistakes) => Err(Unusable::CommandLine(mistakes)),
        }
    }

    /// Mistakes are at a line of the file, or at a key that several of its services have.
    fn are_of_file(&self, mistakes: &Mistakes) -> bool {
        let name = self.file_name();
        let is_of_file = |place: &str| place.starts_with(&name) || place.starts_with('/');
        self.file.is_some() && mistakes.places().all(is_of_file)
    }

    /// As mistakes name it.
    fn file_name(&self) -> String {
        let path = self.file.as_deref().unwrap_or(Path::new("services.toml"));
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Reads the file, if there is one, and makes sense of everything.
    ///
    /// # Errors
    /// All mistakes at once; a file that cannot be read is one.
    pub fn load(&self) -> Result<RegisterConfig, Mistakes> {
        let Some(path) = &self.file else { return self.resolve(None) };
        let text = std::fs::read_to_string(path).map_err(|e| {
            let mut mistakes = Mistakes::default();
            mistakes.add(CONFIG.flag(), format!("cannot read `{}`: {e}", path.display()));
            mistakes
        })?;
        self.resolve(Some(&text))
    }

    /// The same, with the file's text given.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn resolve(&self, text: Option<&str>) -> Result<RegisterConfig, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut notes = Vec::new();
        let (defaults, tables) = self.tables(text, &mut mistakes);
        let mut services = Vec::new();
        for (table, origin) in &tables {
            let all = self.flags.over(table).over(&defaults).over(&self.fallback);
            let reader = Reader::new(&all, origin, &mut mistakes);
            services.extend(service::read(reader, &self.hostname, &mut notes));
        }
        let whole = self.flags.over(&defaults);
        let mut reader = Reader::new(&whole, "", &mut mistakes);
        let process = process(&mut reader);
        if let Some(process) = &process {
            process::check(process, &services, &mut reader);
        }
        let process = mistakes.none_or_some(process)?;
        notes.sort();
        notes.dedup();
        Ok(RegisterConfig { services, process, command: self.command.clone(), notes })
    }

    /// The settings of each service, and where one that is missing should be.
    fn tables(&self, text: Option<&str>, mistakes: &mut Mistakes) -> (Layer, Vec<(Layer, String)>) {
        let Some(text) = text else {
            return (Layer::default(), vec![(Layer::default(), String::new())]);
        };
        let name = self.file_name();
        for given in [&SERVICE, &PORT].into_iter().filter_map(|setting| self.flags.one(setting)) {
            let problem = "cannot be given together with --config: it would be every service's; \
                           write it in the file";
            mistakes.add(&given.place, problem);
        }
        let file::ServicesFile { defaults, services, broken } = file::parse(&name, text, mistakes);
        if services.is_empty() && !broken {
            mistakes.add(name, "there is no service in it; write `[[service]]`");
        }
        (defaults, services)
    }

    /// What `register remove` needs.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn removal(&self, key: Option<&str>, force: bool) -> Result<Removal, Mistakes> {
        let mut mistakes = Mistakes::default();
        let all = self.flags.over(&self.fallback);
        let mut reader = Reader::new(&all, "", &mut mistakes);
        let of = match key {
            Some(key) => named_key(key, force, &mut reader).map(|key| (key, None)),
            None => {
                let target = service::target(&mut reader, &self.hostname, &mut Vec::new());
                target.map(|target| (target.key, (!force).then_some(target.addr)))
            }
        };
        let process = process(&mut reader);
        let removal = of.zip(process);
        mistakes.none_or_some(removal.map(|((key, owner), process)| Removal {
            key,
            owner,
            process,
        }))
    }
}

/// `/services/apache/10.0.0.1`, or `apache/10.0.0.1`.
fn named_key(text: &str, force: bool, from: &mut Reader<'_>) -> Option<Key> {
    if !force {
        let problem = "whose key it is can only be checked with --service, --host and --port; add \
                       --force to remove it all the same";
        from.mistake("KEY", problem);
    }
    let prefix: Prefix = from.get(&SERVICES, str::parse)?;
    let whole = match text.strip_prefix('/') {
        Some(_) => text.to_owned(),
        None => format!("{prefix}/{text}"),
    };
    let key = whole.parse::<Key>().map_err(|why| from.mistake("KEY", why)).ok()?;
    let below = prefix.strip(key.as_str()).is_some_and(|rest| rest.contains('/'));
    if !below {
        from.mistake("KEY", format!("{key} is no key of a service below {prefix}"));
    }
    Some(key)
}

#[cfg(test)]
mod tests;
