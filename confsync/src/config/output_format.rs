//! `output_format`, as in confd's fork: a render that must be JSON, YAML, TOML or XML is rejected
//! unless it is well-formed.

use saphyr_parser::Parser;

/// The values of `output_format`.
pub const FORMATS: &[&str] = &["json", "yaml", "yml", "toml", "xml"];

/// Whether `text` is well-formed.
///
/// # Errors
/// With line and column, from the parser.
pub fn validate(format: &str, text: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    match format {
        "json" => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
        }
        "yaml" | "yml" => yaml(text),
        "toml" => text.parse::<toml::Table>().map(drop).map_err(|e| e.to_string()),
        "xml" => roxmltree::Document::parse(text).map(drop).map_err(|e| e.to_string()),
        other => Err(format!("`{other}` is not a format that can be validated")),
    }
}

/// Event by event: an alias is looked up, never copied.
fn yaml(text: &str) -> Result<(), String> {
    Parser::new_from_str(text).try_for_each(|event| event.map(drop)).map_err(|error| {
        let at = error.marker();
        format!("line {}, column {}: {}", at.line(), at.col() + 1, error.info())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_text_passes() {
        for (format, text) in [
            ("json", "{\"a\": [1, 2]}"),
            ("yaml", "a: &x [1, 2]\nb: *x\n---\nc: |\n  text\n"),
            ("yml", ""),
            ("toml", "a = [1, 2]\n[b]\nc = \"d\"\n"),
            ("xml", "<?xml version=\"1.0\"?>\n<a b=\"c\"><!-- x --><d/>&amp;</a>\n"),
        ] {
            assert_eq!(validate(format, text.as_bytes()), Ok(()), "{format}: {text}");
        }
    }

    #[test]
    fn malformed_text_is_rejected_with_the_place() {
        for (format, text, place) in [
            ("json", "{\"a\":\n }", "line 2 column 2"),
            ("yaml", "a: [1,\nb: }\n", "line 2"),
            ("yaml", "a: *nobody\n", "line 1"),
            ("toml", "a = 1\nb = \n", "line 2"),
            ("xml", "<a>\n<b></a>", "2:4"),
            ("xml", "", "root"),
            ("ini", "", "`ini`"),
        ] {
            let why = validate(format, text.as_bytes()).unwrap_err();
            assert!(why.contains(place), "{format}: {text}: {why}");
        }
    }

    #[test]
    fn hostile_documents_are_an_answer() {
        let many = 100_000;
        for (format, text) in [
            ("yaml", "[".repeat(many)),
            ("yaml", "- ".repeat(many)),
            ("xml", "<a>".repeat(many)),
            ("json", "[".repeat(many)),
            ("toml", format!("a = {}", "[".repeat(many))),
        ] {
            assert!(validate(format, text.as_bytes()).is_err() || format == "yaml", "{format}");
        }
        let entities = "<!DOCTYPE a [<!ENTITY b \"&c;&c;\"><!ENTITY c \"&b;&b;\">]><a>&b;</a>";
        assert!(validate("xml", entities.as_bytes()).is_err());
    }
}
