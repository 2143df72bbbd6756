//! `output_format`, as confd's fork has it: a render that must be JSON or TOML is
//! refused if it is not.

/// Whether `text` is well-formed.
///
/// # Errors
/// With the place, from the parser.
pub fn validate(format: &str, text: &str) -> Result<(), String> {
    match format {
        "json" => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
        }
        "toml" => text.parse::<toml::Table>().map(drop).map_err(|e| e.message().to_owned()),
        other => Err(format!("`{other}` is not a format that can be validated")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_parse_is_refused_with_the_place() {
        assert_eq!(validate("json", "{\"a\": [1, 2]}"), Ok(()));
        assert!(validate("json", "{\"a\": }").unwrap_err().contains("column"));
        assert!(validate("toml", "a = ").is_err());
    }
}
