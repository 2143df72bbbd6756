//! Reads one setting after the other into types, and goes on after a mistake.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Setting;
use super::layer::{Given, Layer, Place};
use super::mistakes::Mistakes;
use crate::model::{format_span, parse_span};

/// The longest span that any setting takes.
pub const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What an empty text most likely is.
const EMPTY: &str = "is empty; is a variable in the unit file unset?";

/// The settings being read, and where mistakes go.
#[derive(Debug)]
pub struct Reader<'a> {
    layer: &'a Layer,
    /// Where the settings are from, for what is missing; empty for the command line.
    origin: &'a str,
    mistakes: &'a mut Mistakes,
}

impl<'a> Reader<'a> {
    /// Reads `layer`. `origin` is where a missing setting should be, `services.toml line 3`
    /// for example; empty for the command line.
    pub fn new(layer: &'a Layer, origin: &'a str, mistakes: &'a mut Mistakes) -> Self {
        Self { layer, origin, mistakes }
    }

    /// A setting as given, or its default. `None`: neither, or a mistake.
    pub fn get<T, E: Display>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match self.layer.one(setting) {
            Some(given) => parsed(given, parse, self.mistakes),
            None if setting.default.is_empty() => None,
            // A default that cannot be read is caught by the first test of its command line.
            None => parse(setting.default).map_err(|e| self.wrong(setting, e)).ok(),
        }
    }

    /// Every value of a setting that may have several.
    pub fn get_all<T, E: Display>(
        &mut self,
        setting: &Setting,
        mut parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for given in self.layer.all(setting) {
            all.extend(parsed(given, &mut parse, self.mistakes));
        }
        all
    }

    /// A setting without which nothing can be done; `why` says what it is.
    pub fn need<T, E: Display>(
        &mut self,
        setting: &Setting,
        why: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.is_given(setting) && setting.default.is_empty() {
            match self.origin {
                "" => self.mistakes.add(setting.flag(), format!("is required: {why}")),
                origin => {
                    self.mistakes.add(origin, format!("`{}` is required: {why}", setting.name));
                }
            }
        }
        self.get(setting, parse)
    }

    /// A time span within bounds.
    pub fn span(&mut self, setting: &Setting, bounds: RangeInclusive<Duration>) -> Duration {
        let parse = |text: &str| {
            let span = parse_span(text).map_err(|e| e.to_string())?;
            if bounds.contains(&span) {
                return Ok(span);
            }
            let name = |span: Duration| match span {
                YEAR => "a year".to_owned(),
                span => format_span(span),
            };
            let (least, most) = (name(*bounds.start()), name(*bounds.end()));
            Err(format!("`{text}` is not between {least} and {most}"))
        };
        self.get_or_default(setting, parse)
    }

    /// A whole number within bounds.
    pub fn number(&mut self, setting: &Setting, bounds: RangeInclusive<u32>) -> u32 {
        let parse = |text: &str| {
            let number = text.parse().ok().filter(|n| bounds.contains(n));
            let (least, most) = (bounds.start(), bounds.end());
            number.ok_or_else(|| {
                format!("`{}` is not a number from {least} to {most}", text.escape_debug())
            })
        };
        self.get_or_default(setting, parse)
    }

    /// A bad value gives the default, so that it causes no further complaints.
    fn get_or_default<T: Default, E: Display>(
        &mut self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> T {
        let given = self.get(setting, &parse);
        given.or_else(|| parse(setting.default).ok()).unwrap_or_default()
    }

    /// Yes or no; no if it is not set.
    pub fn yes(&mut self, setting: &Setting) -> bool {
        let parse = |text: &str| match text {
            "true" | "yes" | "1" => Ok(true),
            "false" | "no" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        };
        self.get(setting, parse).unwrap_or_default()
    }

    /// A text as it is, if it is not empty.
    pub fn text(&mut self, setting: &Setting) -> Option<String> {
        self.get(setting, |text| Ok::<_, String>(text.to_owned()))
    }

    /// Whether the setting is set anywhere.
    pub fn is_given(&self, setting: &Setting) -> bool {
        self.layer.one(setting).is_some()
    }

    /// Whether it is from this variable of the environment.
    pub fn is_from(&self, setting: &Setting, variable: &str) -> bool {
        let place = self.layer.one(setting).map(|given| &given.place);
        matches!(place, Some(Place::Env(name, _)) if name == variable)
    }

    /// Whether it is a file that the service manager provides (`LoadCredential=`).
    pub fn is_credential(&self, setting: &Setting) -> bool {
        let place = self.layer.one(setting).map(|given| &given.place);
        matches!(place, Some(Place::Credential(..)))
    }

    /// Whether a setting was written for just this service, so that it is a mistake
    /// if it has no effect here. Among the defaults of a file, in the environment, or as a
    /// flag beside a file it is for those services that it fits.
    pub fn is_meant(&self, setting: &Setting) -> bool {
        self.layer.one(setting).is_some_and(|given| match given.place {
            Place::Flag(_) => self.origin.is_empty(),
            Place::Env(..) | Place::Credential(..) => false,
            Place::File { default, .. } => !default,
        })
    }

    /// Remembers a mistake in a setting, where it was written.
    pub fn wrong(&mut self, setting: &Setting, problem: impl Display) {
        match self.layer.one(setting) {
            Some(given) => self.mistakes.add(&given.place, problem),
            None => self.mistakes.add(setting.flag(), problem),
        }
    }

    /// Remembers a mistake that is no single setting's.
    pub fn mistake(&mut self, place: impl Display, problem: impl Display) {
        self.mistakes.add(place, problem);
    }
}

fn parsed<T, E: Display>(
    given: &Given,
    parse: impl FnOnce(&str) -> Result<T, E>,
    mistakes: &mut Mistakes,
) -> Option<T> {
    if given.text.is_empty() {
        mistakes.add(&given.place, EMPTY);
        return None;
    }
    parse(&given.text).map_err(|problem| mistakes.add(&given.place, problem)).ok()
}
