//! Settings as written, before anything is checked: a text and the place it came
//! from. Flags, environment and file all become this, so one set of rules reads
//! them and every complaint can name its place.

use std::collections::BTreeMap;
use std::fmt;

use clap::ArgMatches;
use clap::parser::ValueSource;

/// Whom a setting concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One service and no other: what it is called and where it listens.
    Identity,
    /// A service, or by `[defaults]` all of them.
    Service,
    /// The whole process: there is one lease and one drain.
    Process,
}

/// A setting: its name in TOML (the flag has `-` for `_`) and what may be done
/// with it.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) scope: Scope,
    /// Whether several values may be given.
    pub(super) many: bool,
}

const fn field(name: &'static str, scope: Scope) -> Field {
    Field { name, scope, many: false }
}

/// Every setting there is.
pub(super) const FIELDS: [Field; 29] = [
    field("service", Scope::Identity),
    field("port", Scope::Identity),
    field("host", Scope::Service),
    field("id", Scope::Service),
    field("prefix", Scope::Service),
    field("value", Scope::Service),
    field("weight", Scope::Service),
    field("zone", Scope::Service),
    Field { name: "meta", scope: Scope::Service, many: true },
    Field { name: "check", scope: Scope::Service, many: true },
    field("expect", Scope::Service),
    field("check_host", Scope::Service),
    field("check_body", Scope::Service),
    field("check_ca", Scope::Service),
    field("check_insecure", Scope::Service),
    field("interval", Scope::Service),
    field("fast_interval", Scope::Service),
    field("timeout", Scope::Service),
    field("rise", Scope::Service),
    field("fall", Scope::Service),
    field("grace", Scope::Service),
    field("ttl", Scope::Process),
    field("bookkeeping", Scope::Process),
    field("status", Scope::Process),
    field("wait_applied", Scope::Process),
    field("min_lbs", Scope::Process),
    field("drain_min", Scope::Process),
    field("drain_applied", Scope::Process),
    field("drain_quiesced", Scope::Process),
];

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Flag(&'static str),
    /// The variable, and the flag it stands for.
    Env(String, &'static str),
    /// As text: the file and the line; and whether it is in `[defaults]`.
    File {
        at: String,
        name: &'static str,
        default: bool,
    },
}

/// A setting's text and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) place: Place,
}

/// All settings of one source, or of several laid over each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Raw(BTreeMap<&'static str, Vec<Given>>);

impl Raw {
    pub(super) fn add(&mut self, name: &'static str, given: Given) {
        self.0.entry(name).or_default().push(given);
    }

    /// These settings, and `lower`'s where there are none.
    pub(super) fn over(&self, lower: &Raw) -> Raw {
        let mut both = lower.0.clone();
        both.extend(self.0.iter().map(|(name, given)| (*name, given.clone())));
        Raw(both)
    }

    pub(super) fn all(&self, name: &str) -> &[Given] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn one(&self, name: &str) -> Option<&Given> {
        self.all(name).first()
    }

    /// Flags and their environment, as clap found them (flags before environment).
    /// An empty variable counts as unset where there is a default; where there is
    /// none it is kept, to be complained about by name.
    pub(super) fn from_matches(matches: &ArgMatches) -> Self {
        let mut raw = Raw::default();
        for Field { name, many, .. } in &FIELDS {
            let Ok(Some(values)) = matches.try_get_many::<String>(name) else { continue };
            let env = matches.value_source(name) == Some(ValueSource::EnvVariable);
            for text in values {
                if !env {
                    raw.add(name, Given { text: text.clone(), place: Place::Flag(name) });
                    continue;
                }
                let needed = ["service", "host", "port"].contains(name);
                let place = Place::Env(format!("REGISTER_{}", name.to_uppercase()), name);
                let lines = text.lines().filter(|line| *many && !line.is_empty());
                let texts: Vec<&str> = if *many { lines.collect() } else { vec![text] };
                for text in texts.into_iter().filter(|text| needed || !text.is_empty()) {
                    raw.add(name, Given { text: text.to_owned(), place: place.clone() });
                }
            }
        }
        raw
    }
}

/// `--fast-interval` of `fast_interval`.
pub(super) fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(&flag(name)),
            Self::Env(variable, name) => write!(f, "{variable} (for {})", flag(name)),
            Self::File { at, name, .. } => write!(f, "{at}, `{name}`"),
        }
    }
}
