//! Merges flags, environment and confd's `confd.toml` into the settings of each subcommand, and
//! reports all mistakes at once. Flags override the environment, which overrides the file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use common::model::Prefix;
use common::settings::{Environment, Layer, Mistakes, Reader, YEAR, both, etcd, log, status};
use common::store::Connection;

use crate::cli::args::{
    ADVERTISE, ALLOW_HOST, BOOKKEEPING, CONFD_CONFIG, CONFDIR, DIFF, DRY_RUN, INTERVAL, LISTEN,
    MIN_RELOAD_INTERVAL, NAME, ONCE, PREFIX, REREAD, RESOURCES, RUNNING, SERVICES, START_WITHIN,
    STOP_TIMEOUT, SYNC_ONLY, TTL,
};
use crate::cli::confd_toml::ConfdToml;
use crate::config::confdir::{Globals, Note};
use crate::config::run::{RunConfig, SingleRun};
use crate::proxy::nginx::NginxArgv;

/// The confdir, and the settings that apply to all its resources.
#[derive(Debug)]
pub struct ResourceSettings {
    /// The folder.
    pub confdir: PathBuf,
    /// What applies to all resources.
    pub globals: Globals,
}

/// The settings of `run`.
#[derive(Debug)]
pub struct RunSettings {
    /// Those of the daemon.
    pub config: RunConfig,
    /// The options of a single run; `None`: run as a daemon.
    pub once: Option<SingleRun>,
}

/// The command line of a subcommand, and the layers below it: the environment and `confd.toml`.
pub struct CommandLine<'a> {
    matches: &'a ArgMatches,
    environment: Environment<'a>,
    confd: ConfdToml,
    /// The mistakes in `confd.toml`.
    broken: Mistakes,
    all: Layer,
}

impl<'a> CommandLine<'a> {
    /// Reads `confd.toml`, which a flag may name or which is in the confdir.
    pub fn new(matches: &'a ArgMatches, environment: Environment<'a>) -> Self {
        let known = |id: &str| matches.try_contains_id(id).is_ok();
        let settings = RESOURCES.settings.iter().chain(RUNNING.settings);
        let settings = settings.filter(|setting| known(setting.name));
        let given = Layer::from_matches(matches, settings, environment);
        let mut broken = Mistakes::default();
        let path = |setting| {
            let text = given.one(setting).map(|given| given.text.as_str());
            text.filter(|text| !text.is_empty()).map(PathBuf::from)
        };
        let confd = ConfdToml::find(path(&CONFD_CONFIG).as_deref(), path(&CONFDIR).as_deref())
            .unwrap_or_else(|mistake| {
                broken.add(CONFD_CONFIG.flag(), mistake);
                ConfdToml::default()
            });
        let all = given.over(&confd.layer(environment));
        Self { matches, environment, confd, broken, all }
    }

    /// Notes on `confd.toml` for the operator.
    pub fn notes(&self) -> &[Note] {
        &self.confd.notes
    }

    /// How the log is written.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn log(&self) -> Result<log::LogSettings, Mistakes> {
        log::read(self.matches, self.environment, &self.confd.layer(self.environment))
    }

    /// How to connect to etcd.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn connection(&self) -> Result<Connection, Mistakes> {
        let password = |name: &str| {
            let ours = || self.confd.password().filter(|_| name == "ETCD_PASSWORD");
            (self.environment)(name).or_else(ours)
        };
        etcd::read(self.matches, &password, &self.confd.layer(self.environment))
    }

    /// The confdir, and the settings that apply to all its resources.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn resources(&self) -> Result<ResourceSettings, Mistakes> {
        let mut mistakes = self.broken.clone();
        let resources = resources(&mut Reader::new(&self.all, "", &mut mistakes));
        mistakes.none_or(resources)
    }

    /// The settings of `run`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn run(&self) -> Result<RunSettings, Mistakes> {
        let mut mistakes = self.broken.clone();
        let mut from = Reader::new(&self.all, "", &mut mistakes);
        let command = self.matches.get_many::<OsString>("command").unwrap_or_default();
        let settings = run(&mut from, command.cloned().collect());
        let (mut settings, connection) = both(mistakes.none_or_some(settings), self.connection())?;
        settings.config.connection = connection;
        Ok(settings)
    }
}

fn resources(from: &mut Reader<'_>) -> ResourceSettings {
    let default = Globals::default();
    let prefix = if from.is_given(&PREFIX) {
        from.get(&PREFIX, |text| rooted(text).parse::<Prefix>())
    } else {
        None
    };
    let globals = Globals {
        prefix,
        services: from.get(&SERVICES, str::parse).unwrap_or(default.services),
        bookkeeping: from.get(&BOOKKEEPING, str::parse).unwrap_or(default.bookkeeping),
        min_reload_interval: from.span(&MIN_RELOAD_INTERVAL, Duration::ZERO..=YEAR),
        nginx_is_our_child: false,
        sync_only: false,
    };
    let confdir = from.text(&CONFDIR).map(PathBuf::from).unwrap_or_default();
    ResourceSettings { confdir, globals }
}

/// confd adds a missing leading `/` to the prefix, and reduces several to one.
fn rooted(prefix: &str) -> String {
    let segments: Vec<&str> = prefix.split('/').filter(|s| !s.is_empty()).collect();
    format!("/{}", segments.join("/"))
}

fn run(from: &mut Reader<'_>, command: Vec<OsString>) -> Option<RunSettings> {
    let ResourceSettings { confdir, mut globals } = resources(from);
    globals.nginx_is_our_child = NginxArgv::read(&command).is_some();
    let once = once(from);
    globals.sync_only = once.is_none() && from.yes(&SYNC_ONLY);
    let bookkeeping = globals.bookkeeping.clone();
    if globals.services.strip(bookkeeping.as_str()).is_some() {
        let problem = format!(
            "{bookkeeping} is below {}; it must lie outside what is watched",
            globals.services
        );
        from.wrong(&BOOKKEEPING, problem);
    } else if bookkeeping == globals.services
        || bookkeeping.strip(globals.services.as_str()).is_some()
    {
        let problem = format!(
            "{} is below {bookkeeping}, whose keys no template sees; keep them apart",
            globals.services
        );
        from.wrong(&BOOKKEEPING, problem);
    }
    let config = RunConfig {
        confdir,
        globals,
        connection: Connection::default(),
        reconcile: from.span(&INTERVAL, Duration::from_millis(1)..=YEAR),
        reread: from.yes(&REREAD),
        name: if from.is_given(&NAME) { from.get(&NAME, name)? } else { String::new() },
        advertise: from.text(&ADVERTISE),
        bookkeeping,
        ttl: from.get(&TTL, str::parse)?,
        status: status::read(from, &LISTEN, &ALLOW_HOST),
        start_within: from.span(&START_WITHIN, Duration::ZERO..=YEAR),
        stop_timeout: from.span(&STOP_TIMEOUT, Duration::ZERO..=YEAR),
        command,
    };
    Some(RunSettings { config, once })
}

fn name(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return Err(format!("`{text}` must be one path segment, such as the host's name"));
    }
    Ok(text.to_owned())
}

fn once(from: &mut Reader<'_>) -> Option<SingleRun> {
    let (once, dry_run) = (from.yes(&ONCE), from.yes(&DRY_RUN));
    let how = SingleRun { dry_run, diff: from.yes(&DIFF), sync_only: from.yes(&SYNC_ONLY) };
    if how.diff && !dry_run {
        from.wrong(&DIFF, "needs --dry-run");
    }
    (once || dry_run).then_some(how)
}
