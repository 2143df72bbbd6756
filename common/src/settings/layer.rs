//! Settings as written, before anything is checked: texts, and where each came from.
//! Flags, environment and files all become this, so that one set of rules reads them.

use std::collections::BTreeMap;
use std::fmt;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{Environment, Separator, Setting};

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Flag(String),
    /// This environment variable, the counterpart of this flag.
    Env(String, String),
    /// This systemd credential, the counterpart of this flag.
    Credential(String, String),
    /// A file and the line in it, as text.
    File {
        /// `services.toml line 3`.
        at: String,
        /// Its name there.
        name: &'static str,
        /// Whether it is among the defaults for all services.
        default: bool,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(variable, flag) => write!(f, "{variable} (for {flag})"),
            Self::Credential(name, flag) => write!(f, "credential {name} (for {flag})"),
            Self::File { at, name, .. } => write!(f, "{at}, `{name}`"),
        }
    }
}

/// A setting's text and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As written.
    pub text: String,
    pub place: Place,
}

/// The settings of one source, or of several merged by precedence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer(BTreeMap<&'static str, Vec<Given>>);

impl Layer {
    /// Adds a value.
    pub fn add(&mut self, setting: &Setting, text: impl Into<String>, place: Place) {
        let given = Given { text: text.into(), place };
        self.0.entry(setting.name).or_default().push(given);
    }

    /// These settings, and those of `lower` where there are none.
    pub fn over(&self, lower: &Self) -> Self {
        let mut both = lower.0.clone();
        both.extend(self.0.iter().map(|(name, given)| (*name, given.clone())));
        Self(both)
    }

    /// Every value of a setting.
    pub fn all(&self, setting: &Setting) -> &[Given] {
        self.0.get(setting.name).map_or(&[], Vec::as_slice)
    }

    /// The value of a setting, if it is given.
    pub fn one(&self, setting: &Setting) -> Option<&Given> {
        self.all(setting).first()
    }

    /// What clap found of these settings: flags, and the variables of their names; where
    /// there is neither, the other variables of the setting.
    pub fn from_matches<'s>(
        matches: &ArgMatches,
        settings: impl IntoIterator<Item = &'s &'static Setting>,
        environment: Environment<'_>,
    ) -> Self {
        let mut layer = Self::default();
        for setting in settings {
            match matches.value_source(setting.name) {
                Some(ValueSource::CommandLine) => {
                    layer.add_matches(setting, matches, &Place::Flag(setting.flag()));
                }
                Some(ValueSource::EnvVariable) => {
                    layer.add_matches(setting, matches, &variable(setting, setting.env));
                }
                _ => {
                    let set = |name: &&&str| environment(name).is_some_and(|text| !text.is_empty());
                    let Some(name) = setting.more_env.iter().find(set) else { continue };
                    let text = environment(name).unwrap_or_default();
                    layer.add_texts(setting, &text, &variable(setting, name));
                }
            }
        }
        layer
    }

    fn add_matches(&mut self, setting: &Setting, matches: &ArgMatches, place: &Place) {
        if setting.is_switch() {
            let text = matches.get_flag(setting.name).to_string();
            return self.add(setting, text, place.clone());
        }
        for text in matches.get_many::<String>(setting.name).into_iter().flatten() {
            self.add_texts(setting, text, place);
        }
    }

    /// A text of a flag or a variable, which may hold several values. An empty variable
    /// is as good as none, unless nothing else can be meant.
    fn add_texts(&mut self, setting: &Setting, text: &str, place: &Place) {
        let variable = matches!(place, Place::Env(..));
        let texts: Vec<&str> = match setting.separator {
            Separator::Commas => text.split(',').map(str::trim).collect(),
            Separator::Lines if variable => text.lines().collect(),
            _ => vec![text],
        };
        let counts = |text: &&str| !variable || setting.empty_is_wrong || !text.is_empty();
        for text in texts.into_iter().filter(counts) {
            self.add(setting, text, place.clone());
        }
    }
}

fn variable(setting: &Setting, name: &str) -> Place {
    Place::Env(name.to_owned(), setting.flag())
}
