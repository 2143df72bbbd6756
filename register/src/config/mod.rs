//! What the command line, the environment and `services.toml` mean together.
//! Flags beat environment beat file; for the host, `COREOS_PRIVATE_IPV4` comes last.
//!
//! Raw texts become types here and nowhere else. All complaints are collected and
//! reported at once, each with its place and a remedy, before anything starts. A
//! configuration that was refused changes nothing: on a reload the one before stays.
//!
//! Pure but for [`Sources::load`], which reads the file, and [`prepare`], which reads
//! what checks need.

mod diff;
mod errors;
mod file;
mod given;
mod process;
mod reader;
mod service;

use std::path::{Path, PathBuf};

use clap::ArgMatches;

pub use diff::Diff;
pub use errors::{UsageError, UsageErrors};
pub use process::{Drain, Process, Removal};
pub use service::{Service, Target, prepare};

use errors::Complaints;
use given::{Given, Place, Raw};
use reader::Reader;

/// The variable that names a machine's private address on CoreOS.
const COREOS_HOST: &str = "COREOS_PRIVATE_IPV4";

/// Everything `register run` and `register check` need, valid as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// At least one; no two with the same key.
    pub services: Vec<Service>,
    /// What holds for the whole process.
    pub process: Process,
    /// The backend to supervise; empty for none.
    pub command: Vec<String>,
    /// What is allowed but probably not meant, for the log.
    pub notes: Vec<String>,
}

/// Where the configuration comes from; kept to read the file again.
#[derive(Debug, Clone)]
pub struct Sources {
    flags: Raw,
    fallback: Raw,
    file: Option<PathBuf>,
    command: Vec<String>,
    hostname: String,
}

impl Sources {
    /// Takes over what clap read for a subcommand. `env` looks up a variable;
    /// `hostname` is what `{hostname}` stands for.
    #[must_use]
    pub fn new(
        matches: &ArgMatches,
        env: impl Fn(&str) -> Option<String>,
        hostname: String,
    ) -> Self {
        let mut fallback = Raw::default();
        if let Some(text) = env(COREOS_HOST) {
            fallback.add("host", Given { text, place: Place::Env(COREOS_HOST.into(), "host") });
        }
        let words = matches.try_get_many::<String>("command").ok().flatten();
        let file = matches.try_get_one::<String>("config").ok().flatten();
        Self {
            flags: Raw::from_matches(matches),
            fallback,
            file: file.filter(|file| !file.is_empty()).map(PathBuf::from),
            command: words.map(|words| words.cloned().collect()).unwrap_or_default(),
            hostname,
        }
    }

    /// The file that a reload reads again, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, if there is one, and makes sense of everything.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn load(&self) -> Result<Config, UsageErrors> {
        let Some(path) = &self.file else { return self.resolve(None) };
        let text = std::fs::read_to_string(path).map_err(|e| {
            let problem = format!("cannot read `{}`: {e}", path.display());
            UsageErrors(vec![UsageError { place: "--config".into(), problem }])
        })?;
        self.resolve(Some(&text))
    }

    /// The same, with the file's text given.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn resolve(&self, text: Option<&str>) -> Result<Config, UsageErrors> {
        let mut complaints = Complaints::default();
        let mut notes = Vec::new();
        let (defaults, tables) = self.tables(text, &mut complaints);
        let mut services = Vec::new();
        for (raw, origin) in &tables {
            let raw = self.flags.over(raw).over(&defaults).over(&self.fallback);
            let reader = Reader::new(&raw, origin, &mut complaints);
            services.extend(service::read(reader, &self.hostname, &mut notes));
        }
        let whole = self.flags.over(&defaults);
        let process = process::read(Reader::new(&whole, "", &mut complaints));
        if let Some(process) = &process {
            process::check(process, &services, &whole, &mut complaints);
        }
        let process = complaints.end(process)?.ok_or(UsageErrors(Vec::new()))?;
        notes.sort();
        notes.dedup();
        Ok(Config { services, process, command: self.command.clone(), notes })
    }

    /// The settings of each service, and where complaints about missing ones point.
    fn tables(&self, text: Option<&str>, complaints: &mut Complaints) -> (Raw, Vec<(Raw, String)>) {
        let Some(text) = text else {
            return (Raw::default(), vec![(Raw::default(), String::new())]);
        };
        let name = self.file.as_deref().unwrap_or(Path::new("services.toml"));
        let name = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy();
        for given in ["service", "port"].iter().filter_map(|field| self.flags.one(field)) {
            let problem = "cannot be given together with --config: it would be every service's; \
                           write it in the file";
            complaints.add(&given.place, problem);
        }
        let file::File { defaults, services, broken } = file::parse(&name, text, complaints);
        if services.is_empty() && !broken {
            complaints.add(name, "there is no service in it; write `[[service]]`");
        }
        (defaults, services)
    }

    /// What `register remove` needs.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn removal(&self) -> Result<Removal, UsageErrors> {
        let mut complaints = Complaints::default();
        let raw = self.flags.over(&self.fallback);
        let target = service::target(
            &mut Reader::new(&raw, "", &mut complaints),
            &self.hostname,
            &mut Vec::new(),
        );
        let process = process::read(Reader::new(&raw, "", &mut complaints));
        let removal = target.zip(process).map(|(target, process)| Removal { target, process });
        // Where one is missing there is a complaint, so the error is never empty.
        complaints.end(removal)?.ok_or(UsageErrors(Vec::new()))
    }
}

#[cfg(test)]
mod tests;
