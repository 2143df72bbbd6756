//! Reads one setting after the other into types, complaining without stopping.

use std::fmt::Display;
use std::time::Duration;

use common::model::{format_span, parse_span};

use super::errors::Complaints;
use super::given::{Given, Place, Raw, flag};

/// What an empty text most likely is.
pub(super) const EMPTY: &str = "is empty; is a variable in the unit file unset?";

/// The same of a host.
const EMPTY_HOST: &str =
    "is empty; is a variable in the unit file, such as $COREOS_PRIVATE_IPV4, unset?";

/// The settings being read, and where complaints go.
pub(super) struct Reader<'a> {
    pub(super) raw: &'a Raw,
    /// Where the settings are from, for what is missing; empty for the command line.
    origin: &'a str,
    pub(super) complaints: &'a mut Complaints,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a Raw, origin: &'a str, complaints: &'a mut Complaints) -> Self {
        Self { raw, origin, complaints }
    }

    /// A setting, if it is given and good.
    pub(super) fn read<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let given = self.raw.one(name)?;
        if given.text.is_empty() {
            self.complaints.add(&given.place, if name == "host" { EMPTY_HOST } else { EMPTY });
            return None;
        }
        parse(&given.text).map_err(|problem| self.complaints.add(&given.place, problem)).ok()
    }

    /// A setting without which nothing goes.
    pub(super) fn need<T, E: Display>(
        &mut self,
        name: &str,
        why: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.raw.one(name).is_none() {
            let problem = if self.origin.is_empty() {
                format!("is missing: {why}")
            } else {
                format!("`{name}` is missing: {why}")
            };
            let flag = flag(name);
            let place = if self.origin.is_empty() { flag.as_str() } else { self.origin };
            self.complaints.add(place, problem);
        }
        self.read(name, parse)
    }

    /// A time span within bounds.
    pub(super) fn span(
        &mut self,
        name: &str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let parse = |text: &str| {
            let span = parse_span(text).map_err(|e| e.to_string())?;
            if (least..=most).contains(&span) {
                return Ok(span);
            }
            Err(format!(
                "{} is outside {} to {}",
                format_span(span),
                format_span(least),
                format_span(most)
            ))
        };
        self.read(name, parse).unwrap_or(default)
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, name: &str, default: u32, least: u32, most: u32) -> u32 {
        let parse = |text: &str| {
            let number = text.parse().ok().filter(|n| (least..=most).contains(n));
            number.ok_or_else(|| {
                format!("`{}` is not a number from {least} to {most}", text.escape_debug())
            })
        };
        self.read(name, parse).unwrap_or(default)
    }

    /// Yes or no.
    pub(super) fn yes(&mut self, name: &str) -> bool {
        self.read(name, |text| match text {
            "true" | "yes" | "1" => Ok(true),
            "false" | "no" | "0" => Ok(false),
            _ => Err("write true or false"),
        })
        .unwrap_or(false)
    }

    /// Whether a setting was written for just this service, so that it is a mistake
    /// if it has no effect here. In `[defaults]`, in the environment, or as a flag
    /// beside `--config` it is for those services that it fits.
    pub(super) fn meant(&self, name: &str) -> bool {
        self.raw.one(name).is_some_and(|given| match given.place {
            Place::Flag(_) => self.origin.is_empty(),
            Place::Env(..) => false,
            Place::File { default, .. } => !default,
        })
    }

    /// Complains about a setting where it was written.
    pub(super) fn wrong(&mut self, name: &str, problem: impl Display) {
        match self.raw.one(name) {
            Some(Given { place, .. }) => self.complaints.add(place, problem),
            None => self.complaints.add(flag(name), problem),
        }
    }
}
