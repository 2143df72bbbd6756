//! The readers of what comes from outside, each for any bytes at all: `fuzz/` calls these with
//! what a fuzzer makes up, property tests with what chance does.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::confdir::read_any;
use crate::proxy::nginx::conf;
use crate::template::{Engine, Input, PANICKED, Template, TemplateSources};

/// A resource file: a resource, or what is wrong with it.
pub fn resource_file(data: &[u8]) {
    let (resource, mistakes) = read_any(&String::from_utf8_lossy(data));
    assert_ne!(resource.is_some(), !mistakes.is_empty(), "{mistakes:?}");
}

/// A Go template and, after a NUL, the value of the key `/a`.
pub fn go_template(data: &[u8]) {
    template("any.tmpl", data);
}

/// The same in handlebars.
pub fn handlebars_template(data: &[u8]) {
    template("any.hbs", data);
}

fn template(name: &str, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (text, value) = text.split_once('\0').unwrap_or((&text, "x"));
    let keys = BTreeMap::from([("/a".to_owned(), value.to_owned())]);
    any_template(name, text, keys);
}

/// A template, in the language that `name` says, on these keys.
pub fn any_template(name: &str, text: &str, keys: BTreeMap<String, String>) {
    let name = Path::new(name);
    let template = Template::compile(name, text, Engine::of(name), &TemplateSources::default());
    if let Err(error) = template.and_then(|t| t.render(&Input::of_keys(keys))) {
        // A panic inside is turned into an error, so that it stops no other resource.
        assert_ne!(error.what, PANICKED, "{error} in {text:?}");
    }
}

/// A configuration of nginx: directives that are parts of the text, or where it is wrong.
pub fn nginx_conf(data: &[u8]) {
    match conf::parse(data) {
        Ok(directives) => {
            for directive in &directives {
                assert!(data.get(directive.span.clone()).is_some(), "{directive:?}");
            }
        }
        Err(error) => assert!(error.line >= 1, "{error:?}"),
    }
    assert_eq!(conf::replace(data, &[]), data);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CONF: [&str; 22] = [
        "http",
        "server",
        "upstream",
        " ",
        ";",
        "{",
        "}",
        "\"",
        "'",
        "\\",
        "#",
        "\n",
        "$host",
        "${x}",
        "include",
        "*.conf",
        "content_by_lua_block",
        "[[",
        "]]",
        "--",
        "listen 80",
        "\r",
    ];
    const RESOURCE: [&str; 30] = [
        "[template]\n",
        "[nginx]\n",
        "[guard]\n",
        "[haproxy]\n",
        "[backend]\n",
        "src",
        "dest",
        "keys",
        "prefix",
        "mode",
        "\"0644\"",
        " = ",
        "\"/x\"",
        "[\"/\"]",
        "[\"a\", 1]",
        "\n",
        "uid",
        "-1",
        "check_cmd",
        "\"{{.src}}\"",
        "reload_cmd",
        "live",
        "\"auto\"",
        "max_loss",
        "0.5",
        "nan",
        "debounce",
        "\"2s\"",
        "deadline",
        "conf",
    ];

    fn words(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            8 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        vec(word, 0..24).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn any_conf(data in words(&CONF)) {
            nginx_conf(&data);
        }

        #[test]
        fn any_resource(data in words(&RESOURCE)) {
            resource_file(&data);
        }
    }

    #[test]
    fn a_resource_is_read_and_its_template_looked_for() {
        let text = "[template]\nsrc = \"a.tmpl\"\ndest = \"/tmp/x\"\nkeys = [\"/a\"]\n";
        let (resource, mistakes) = read_any(text);
        let only = matches!(&mistakes[..], [mistake] if mistake.contains("no template"));
        assert!(resource.is_none() && only, "{mistakes:?}");
    }
}
