//! `services.toml` to settings as written: `[[service]]` tables and `[defaults]`,
//! with the flags' names in snake_case.
//!
//! Read from the parsed document rather than through serde, because all
//! mistakes are wanted at once, with their lines, and a misspelt key with the
//! name that was probably meant.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use common::settings::{Layer, Mistakes, Place, Setting};

use crate::settings::{META, Scope, in_file, scope};

/// The contents of `services.toml`.
#[derive(Debug, Default)]
pub(super) struct ServicesFile {
    /// For all services, and for the process.
    pub(super) defaults: Layer,
    /// One for each `[[service]]`, with its file and line.
    pub(super) services: Vec<(Layer, String)>,
    /// It is no TOML, so nothing is known of what it holds.
    pub(super) broken: bool,
}

/// Any text is a file or has mistakes; for [`crate::fuzz`].
pub(crate) fn read_any(text: &str) {
    let mut mistakes = Mistakes::default();
    let file = parse("any.toml", text, &mut mistakes);
    assert!(!file.broken || mistakes.none_or(()).is_err(), "broken, and no mistake is reported");
}

pub(super) fn parse(name: &str, text: &str, mistakes: &mut Mistakes) -> ServicesFile {
    let (document, errors) = DeTable::parse_recoverable(text);
    let reader = ServicesFileReader { name, text };
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        mistakes.add(reader.line(at), error.message());
    }
    let mut file = ServicesFile::default();
    if !errors.is_empty() {
        // What could be read of a broken document would only bring mistakes
        // that are not true.
        file.broken = true;
        return file;
    }
    for (key, value) in in_order(document.get_ref()) {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("defaults", DeValue::Table(table)) => {
                file.defaults = reader.table(table, true, mistakes);
            }
            ("service", DeValue::Array(tables)) => {
                for table in tables {
                    reader.service(table, &mut file, mistakes);
                }
            }
            ("service", _) => {
                mistakes.add(reader.line(key.span().start), "write `[[service]]`");
            }
            ("defaults", _) => mistakes.add(reader.line(key.span().start), "write `[defaults]`"),
            (other, _) => {
                let near = nearest(other, ["service", "defaults"].into_iter());
                let problem = format!("`{}` is unknown{near}", other.escape_debug());
                mistakes.add(reader.line(key.span().start), problem);
            }
        }
    }
    file
}

/// The entries as they were written, so that mistakes follow the file.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct ServicesFileReader<'a> {
    name: &'a str,
    text: &'a str,
}

impl ServicesFileReader<'_> {
    fn line(&self, at: usize) -> String {
        let before = self.text.as_bytes().iter().take(at);
        format!("{} line {}", self.name, before.filter(|b| **b == b'\n').count() + 1)
    }

    fn service(
        &self,
        table: &Spanned<DeValue<'_>>,
        file: &mut ServicesFile,
        mistakes: &mut Mistakes,
    ) {
        let at = self.line(table.span().start);
        match table.get_ref() {
            DeValue::Table(inner) => {
                file.services.push((self.table(inner, false, mistakes), at));
            }
            _ => mistakes.add(at, "write `[[service]]`"),
        }
    }

    fn table(&self, table: &DeTable<'_>, default: bool, mistakes: &mut Mistakes) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in in_order(table) {
            let at = self.line(key.span().start);
            let written = key.get_ref().as_ref();
            let named = |setting: &&'static Setting| Some((*setting, setting.named(written)?));
            let Some((setting, name)) = in_file().find_map(named) else {
                let near = nearest(written, in_file().map(|setting| setting.name));
                mistakes.add(at, format!("`{}` is unknown{near}", written.escape_debug()));
                continue;
            };
            match (scope(setting), default) {
                (Scope::Process, false) => mistakes
                    .add(at, format!("`{written}` is for all services: write it in `[defaults]`")),
                (Scope::Identity, true) => mistakes
                    .add(at, format!("`{written}` is for one service: write it in `[[service]]`")),
                _ => {
                    for text in texts((setting, name), value.get_ref(), &at, mistakes) {
                        let place = Place::File { at: at.clone(), name, default };
                        layer.add(setting, text, place);
                    }
                }
            }
        }
        layer
    }
}

/// A value's texts, as they could have been written after the flag.
fn texts(
    (setting, name): (&Setting, &str),
    value: &DeValue<'_>,
    at: &str,
    mistakes: &mut Mistakes,
) -> Vec<String> {
    let read = match value {
        DeValue::Array(values) if setting.takes_many() => {
            values.iter().map(|value| scalar(value.get_ref())).collect()
        }
        DeValue::Table(pairs) if name == META.name => pairs
            .iter()
            .map(|(key, value)| Some(format!("{}={}", key.get_ref(), scalar(value.get_ref())?)))
            .collect(),
        one => scalar(one).map(|text| vec![text]),
    };
    read.unwrap_or_else(|| {
        let wanted = match name {
            "meta" => "strings `\"key=value\"`, or a table of strings",
            "check" => "a string, or an array of strings",
            _ => "one string, number or boolean",
        };
        mistakes.add(at, format!("`{name}` must be {wanted}"));
        Vec::new()
    })
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// `; did you mean …`, if any name is near enough.
fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> String {
    names
        .map(|name| (strsim::jaro_winkler(name, written), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mistakes_of(text: &str) -> String {
        let mut mistakes = Mistakes::default();
        parse("services.toml", text, &mut mistakes);
        mistakes.none_or(()).map_or_else(|errors| errors.to_string(), |()| String::new())
    }

    #[test]
    fn all_mistakes_of_a_file_are_reported_at_once_with_lines() {
        let text = "\
[default]
[[service]]
service = \"apache\"
intervall = \"5s\"
ttl = \"30s\"
check = { url = \"x\" }
port = [1, 2]
";
        assert_eq!(
            mistakes_of(text),
            "services.toml line 1: `default` is unknown; did you mean `defaults`?\n\
             services.toml line 4: `intervall` is unknown; did you mean `interval`?\n\
             services.toml line 5: `ttl` is for all services: write it in `[defaults]`\n\
             services.toml line 6: `check` must be a string, or an array of strings\n\
             services.toml line 7: `port` must be one string, number or boolean"
        );
    }

    #[test]
    fn a_document_that_is_not_toml_is_named_with_its_line() {
        let message = mistakes_of("[defaults]\nttl = \n");
        assert!(message.starts_with("services.toml line 2: "), "{message}");
        assert!(mistakes_of("service = 1").contains("write `[[service]]`"));
        assert!(mistakes_of("zzz = 1").ends_with("`zzz` is unknown"));
    }

    #[test]
    fn numbers_booleans_arrays_and_tables_become_texts() {
        let text = "[[service]]\nport = 7_777\ncheck_insecure = true\n\
                    check = [\"tcp\", \"none\"]\nmeta = { a = 1, b = \"x\" }\n";
        let mut mistakes = Mistakes::default();
        let file = parse("f", text, &mut mistakes);
        mistakes.none_or(()).unwrap();
        let (layer, at) = &file.services[0];
        let texts =
            |setting| layer.all(setting).iter().map(|g| g.text.as_str()).collect::<Vec<_>>();
        assert_eq!(at, "f line 1");
        assert_eq!(texts(&crate::settings::PORT), ["7777"]);
        assert_eq!(texts(&crate::settings::CHECK_INSECURE), ["true"]);
        assert_eq!(texts(&crate::settings::CHECK), ["tcp", "none"]);
        assert_eq!(texts(&crate::settings::META), ["a=1", "b=x"]);
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_and_never_a_panic(text in "\\PC{0,80}|(\\[|\\]|=|\"|[a-z]|\n){0,60}") {
            mistakes_of(&text);
        }
    }
}
