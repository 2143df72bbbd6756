//! The JSON schema of resource files, for editors and `confsync schema`.

/// The schema, as it is printed.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use super::super::raw::{GUARD, HAPROXY, NGINX, TABLES, TEMPLATE};
    use super::SCHEMA;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// What an editor offers is what is read.
    #[test]
    fn it_names_every_table_and_key_that_is_read() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let names = |at: &str| -> BTreeSet<String> {
            schema.pointer(at).and_then(Value::as_object).unwrap().keys().cloned().collect()
        };
        for (at, known) in [
            ("/properties", TABLES),
            ("/properties/template/properties", TEMPLATE),
            ("/properties/nginx/properties", NGINX),
            ("/properties/haproxy/properties", HAPROXY),
            ("/properties/guard/properties", GUARD),
        ] {
            let known: BTreeSet<String> = known.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(names(at), known, "schema.json at {at}");
        }
    }
}
