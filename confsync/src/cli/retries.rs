//! `confsync check`: whether a template disables the retries that cover a backend which no longer
//! answers while etcd cannot say so: without a quorum no lease ends, so its server stays in the
//! file. Pure.

/// A note, if some requests are not passed to the next backend after a failed connection.
pub(super) fn note(template: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(template);
    let code = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = code.collect::<Vec<_>>().join("\n").replace(['{', '}'], " { ");
    let directive = words.split(';').find_map(without_retries)?;
    Some(format!(
        "`{directive}` passes no request on to the next backend after a failed connection; nothing \
         else covers a backend that is gone while etcd has no quorum: add `error`"
    ))
}

/// The directive that `statement` ends with, if it is one of these and does not retry. What a
/// template fills in is not judged.
fn without_retries(statement: &str) -> Option<String> {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let start = words.iter().rposition(|word| word.ends_with("_next_upstream"))?;
    let (name, when) = words.get(start..)?.split_first()?;
    let is_plain = !when.is_empty() && !when.contains(&"{");
    let retries = when.contains(&"error") && !when.contains(&"off");
    (is_plain && !retries).then(|| format!("{name} {}", when.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_takes_the_retries_away_is_noted() {
        for text in [
            "server { location / { proxy_next_upstream off; proxy_pass http://a; } }",
            "proxy_next_upstream http_502 timeout;",
            "proxy_next_upstream error;\nlocation /x {\n  fastcgi_next_upstream\n off;\n}",
            "{{range gets \"/a/*\"}}x;{{end}} grpc_next_upstream off;",
        ] {
            let note = note(text.as_bytes()).unwrap_or_else(|| panic!("nothing about {text}"));
            assert!(note.contains("_next_upstream "), "{note}");
        }
    }

    #[test]
    fn what_retries_or_cannot_be_judged_is_not() {
        for text in [
            "",
            "proxy_next_upstream error timeout http_503;",
            "# proxy_next_upstream off;\nproxy_next_upstream_tries 1;",
            "proxy_next_upstream {{getv \"/retries\"}};",
            "proxy_next_upstream_timeout 1s; proxy_pass http://a;",
        ] {
            assert_eq!(note(text.as_bytes()), None, "{text}");
        }
        let starter = include_bytes!("../template/starter/nginx.hbs");
        assert_eq!(note(starter), None);
    }
}
