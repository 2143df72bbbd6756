//! Settings of both daemons. Each is named once, in a table: its name in files, its flag,
//! its variables, its help and its default. The table makes the command line and reads
//! the environment and the files, so that they cannot drift apart.
//!
//! * [`Setting`] is a row of a table that [`settings!`](crate::settings!) makes, [`Group`] some rows
//!   under one heading;
//! * [`Layer`] is what one source says, or several laid over each other;
//! * [`Reader`] makes types of the texts and collects every mistake with its place;
//! * [`etcd`], [`log`], [`output`] and [`status`] are the settings that both programs have;
//! * [`cli`] is the frame of a program: words to matches, help, `version`, `completion`.
//!
//! What a setting means, and which values are wrong, is decided by the program.

pub mod cli;
pub mod etcd;
mod layer;
pub mod log;
mod mistakes;
pub mod output;
mod reader;
pub mod status;

pub use layer::{Given, Layer, Place};
pub use mistakes::{Mistake, Mistakes, both};
pub use reader::{Reader, YEAR};

use clap::builder::{BoolishValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction};

/// A variable of the environment, by its name; passed in, so that tests pass a map.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One setting: a row of a table.
#[derive(Debug)]
pub struct Setting {
    /// Its name in files; the flag has `-` for `_`.
    pub name: &'static str,
    pub(crate) env: &'static str,
    more_env: &'static [&'static str],
    value: &'static str,
    help: &'static str,
    details: &'static str,
    default: &'static str,
    default_words: &'static str,
    aliases: &'static [&'static str],
    old_names: &'static [&'static str],
    short: Option<char>,
    choices: &'static [&'static str],
    implied: &'static str,
    separator: Separator,
    empty_is_wrong: bool,
}

/// How a setting takes several values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Separator {
    /// Not at all.
    None,
    /// The flag again, or one a line in the environment.
    Lines,
    /// The flag again, or with commas.
    Commas,
}

impl Setting {
    /// A setting with one value. `value` is its placeholder in help, `SPAN` for
    /// example; empty for a switch.
    pub const fn new(
        name: &'static str,
        env: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            env,
            more_env: &[],
            value,
            help,
            details: "",
            default: "",
            default_words: "",
            aliases: &[],
            old_names: &[],
            short: None,
            choices: &[],
            implied: "",
            separator: Separator::None,
            empty_is_wrong: false,
        }
    }

    /// The default; it is parsed as if it had been written.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = text;
        self
    }

    /// A default that is worked out elsewhere, for the help.
    #[must_use]
    pub const fn default_in_words(mut self, words: &'static str) -> Self {
        self.default_words = words;
        self
    }

    /// More for `--help`; `-h` shows only the first line.
    #[must_use]
    pub const fn details(mut self, text: &'static str) -> Self {
        self.details = text;
        self
    }

    /// Variables that count where its own is not set, the first of them first.
    #[must_use]
    pub const fn also_from(mut self, names: &'static [&'static str]) -> Self {
        self.more_env = names;
        self
    }

    /// Other names of the flag, shown in the help.
    #[must_use]
    pub const fn aliases(mut self, names: &'static [&'static str]) -> Self {
        self.aliases = names;
        self
    }

    /// Former names, also in files. They still work, and are not shown.
    #[must_use]
    pub const fn formerly(mut self, names: &'static [&'static str]) -> Self {
        self.old_names = names;
        self
    }

    /// A flag of one letter.
    #[must_use]
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// The only values there are.
    #[must_use]
    pub const fn choices(mut self, all: &'static [&'static str]) -> Self {
        self.choices = all;
        self
    }

    /// The value of the flag when it is given without one.
    #[must_use]
    pub const fn implied(mut self, text: &'static str) -> Self {
        self.implied = text;
        self
    }

    /// May be given several times; in the environment one a line.
    #[must_use]
    pub const fn many(mut self) -> Self {
        self.separator = Separator::Lines;
        self
    }

    /// May be given several times, and with commas.
    #[must_use]
    pub const fn list(mut self) -> Self {
        self.separator = Separator::Commas;
        self
    }

    /// An empty variable is a mistake rather than none: nothing else could be meant.
    #[must_use]
    pub const fn never_empty(mut self) -> Self {
        self.empty_is_wrong = true;
        self
    }

    /// `--fast-interval` of `fast_interval`.
    pub fn flag(&self) -> String {
        format!("--{}", dashed(self.name))
    }

    /// The name by which a file means this setting, if `name` is one.
    pub fn named(&self, name: &str) -> Option<&'static str> {
        std::iter::once(&self.name).chain(self.old_names).find(|own| **own == name).copied()
    }

    /// Whether several values may be given.
    pub fn takes_many(&self) -> bool {
        self.separator != Separator::None
    }

    fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// As clap takes it.
    fn arg(&self) -> Arg {
        let mut arg = Arg::new(self.name)
            .long(dashed(self.name))
            .help(self.first_line())
            .visible_aliases(self.aliases.iter().copied())
            .aliases(self.old_names.iter().map(|name| dashed(name)));
        if !self.details.is_empty() {
            arg = arg.long_help(format!("{}\n\n{}", self.first_line(), self.details));
        }
        if !self.env.is_empty() {
            arg = arg.env(self.env);
        }
        if let Some(letter) = self.short {
            arg = arg.short(letter);
        }
        if self.is_switch() {
            return arg.action(ArgAction::SetTrue).value_parser(BoolishValueParser::new());
        }
        // `--port -1` is a mistake of its value, not an unknown flag.
        arg =
            arg.value_name(self.value).allow_negative_numbers(true).action(match self.separator {
                Separator::None => ArgAction::Set,
                Separator::Lines | Separator::Commas => ArgAction::Append,
            });
        if !self.implied.is_empty() {
            arg = arg.num_args(0..=1).default_missing_value(self.implied);
        }
        if !self.choices.is_empty() {
            arg = arg.value_parser(PossibleValuesParser::new(self.choices)).ignore_case(true);
        }
        arg
    }

    fn first_line(&self) -> String {
        match (self.default, self.default_words) {
            ("", "") => self.help.to_owned(),
            ("", words) => format!("{} [default: {words}]", self.help),
            (text, _) => format!("{} [default: {text}]", self.help),
        }
    }
}

/// Rows of a table of settings: the arguments of [`Setting::new`], then its further properties. The
/// help is the row's documentation.
#[macro_export]
macro_rules! settings {
    ($($row:ident: $name:literal, $env:literal, $value:literal, $help:literal
        $(.$with:ident($($what:expr)?))*;)*) => {
        $(
            #[doc = $help]
            pub static $row: $crate::settings::Setting =
                $crate::settings::Setting::new($name, $env, $value, $help)$(.$with($($what)?))*;
        )*
    };
}

/// Settings under one heading of the help.
#[derive(Debug)]
pub struct Group {
    /// The heading; empty for the general one.
    pub heading: &'static str,
    /// In the order of the help.
    pub settings: &'static [&'static Setting],
}

/// A command with the flags of these groups.
pub fn with_settings(mut command: clap::Command, groups: &[&Group]) -> clap::Command {
    for group in groups {
        for setting in group.settings {
            let arg = setting.arg();
            command = command.arg(match group.heading {
                "" => arg,
                heading => arg.help_heading(heading),
            });
        }
    }
    command
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}
