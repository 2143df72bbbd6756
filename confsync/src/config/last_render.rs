//! What a render takes over from the one before it, so that a change of backends costs what has
//! changed: the text of a template that depends on nothing but itself, and the members of the
//! services that it names. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::model::{Prefix, changed_keys};

use crate::backends::{Backends, ParsedKeys};
use crate::template::{RenderedText, UpstreamMember, UpstreamMembers, is_named_by};

/// The last render of one resource; empty before the first.
#[derive(Debug, Clone, Default)]
pub struct LastRender {
    text: Option<RenderedText>,
    members: BTreeMap<String, NamedMembers>,
}

/// The members that a path in the template names, and what they were made of.
#[derive(Debug, Clone, Default)]
struct NamedMembers {
    backends: Backends,
    settings: Backends,
    members: UpstreamMembers,
}

impl LastRender {
    /// The text without members, if it would be the same again.
    pub(super) fn text(&self) -> Option<RenderedText> {
        self.text.clone()
    }

    /// Whether the text without members would be the same again.
    pub(super) fn has_text(&self) -> bool {
        self.text.is_some()
    }

    /// The text that was rendered, if it would be the same whatever the keys are.
    pub(super) fn keep(&mut self, text: Option<RenderedText>) {
        self.text = text;
    }

    /// Gives each service in `text` its members.
    ///
    /// # Errors
    /// When there would be too many lines.
    pub(super) fn fill(
        &mut self,
        text: &mut RenderedText,
        seen: &ParsedKeys,
        prefix: &Prefix,
    ) -> Result<(), String> {
        let mut before = std::mem::take(&mut self.members);
        text.fill(|path| {
            if !self.members.contains_key(path) {
                let mut named = before.remove(path).unwrap_or_default();
                named.update(path, seen, prefix);
                self.members.insert(path.to_owned(), named);
            }
            self.members.get(path).map(|named| named.members.clone()).unwrap_or_default()
        })
    }
}

impl NamedMembers {
    fn update(&mut self, path: &str, seen: &ParsedKeys, prefix: &Prefix) {
        let Self { backends, settings, members } = self;
        for (before, now) in [(backends, &seen.backends), (settings, &seen.settings)] {
            for key in changed_keys(before, now) {
                let name = key_in_templates(key, prefix);
                let registered = now.get(key).filter(|r| is_named_by(path, &name, &r.service));
                match registered.map(|registered| &registered.backend) {
                    Some(backend) => {
                        let (endpoint, weight) = (backend.addr.clone(), backend.weight);
                        members.insert(name, UpstreamMember { endpoint, weight });
                    }
                    None => members.remove(&name),
                }
            }
            *before = now.clone();
        }
    }
}

/// A key as templates see it: without the prefix.
pub(super) fn key_in_templates(key: &Arc<str>, prefix: &Prefix) -> Arc<str> {
    match prefix.strip(key) {
        Some(rest) if prefix.as_str() != "/" => format!("/{rest}").into(),
        _ => Arc::clone(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::program::CompiledResource;
    use crate::config::sample::SampleConfdir;
    use common::model::{Entry, Revision};
    use proptest::prelude::*;

    fn program(template: &str) -> (SampleConfdir, CompiledResource) {
        let sample = SampleConfdir::new("prefix = \"/app\"\nkeys = [\"/\"]\n", template);
        let program = sample.group().programs.remove(0);
        (sample, program)
    }

    fn render(program: &CompiledResource, last: &mut LastRender, keys: &[(&str, &str)]) -> String {
        let seen = program
            .resource
            .reading
            .see(keys.iter().map(|(key, value)| Entry::new(*key, *value, Revision(1))));
        let text = program.render_after(last, &seen).unwrap().plain().bytes;
        String::from_utf8(text).unwrap()
    }

    const WEB: (&str, &str) = ("/app/services/web/1", "10.0.0.1:80");

    #[test]
    fn a_template_that_reads_nothing_but_members_is_run_once() {
        let (_folder, program) = program("{{upstream \"web\"}}{{upstream \"/services/web\"}}");
        let mut last = LastRender::default();
        let one = render(&program, &mut last, &[WEB]);
        assert_eq!(one.matches("server 10.0.0.1:80;").count(), 2, "{one}");
        assert!(last.text().is_some());
        let none = render(&program, &mut last, &[]);
        assert_eq!(none.matches("server 127.0.0.1:1 down;").count(), 2, "{none}");
    }

    #[test]
    fn a_template_that_reads_more_is_run_each_time() {
        for template in [
            "{{upstream \"web\"}}{{getv \"/title\" \"none\"}}",
            "{{upstream \"web\"}}{{hostname}}",
            "{{upstream \"web\"}}{{if exists \"/services/web/1\"}}x{{end}}",
        ] {
            let (_folder, program) = program(template);
            let mut last = LastRender::default();
            render(&program, &mut last, &[WEB]);
            assert!(last.text().is_none(), "{template}");
        }
        let (_folder, program) = program("{{upstream \"web\"}}{{getv \"/title\" \"none\"}}");
        let mut last = LastRender::default();
        assert!(render(&program, &mut last, &[WEB]).ends_with("none"));
        assert!(render(&program, &mut last, &[WEB, ("/app/title", "new")]).ends_with("new"));
    }

    proptest! {
        #[test]
        fn what_follows_a_render_is_what_would_be_rendered_anew(
            steps in proptest::collection::vec((0usize..5, 0usize..4), 1..30),
        ) {
            const KEYS: [&str; 5] = ["/app/services/web/1", "/app/services/web/2",
                "/app/services/api/1", "/app/web/1", "/app/services/web/3"];
            const VALUES: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "no address"];
            let (_folder, program) =
                program("{{upstream \"web\"}}{{servers \"api\"}}{{servers \"/web\"}}");
            let (mut keys, mut last) = (BTreeMap::new(), LastRender::default());
            for (key, value) in steps {
                match VALUES.get(value) {
                    Some(value) => drop(keys.insert(KEYS[key], *value)),
                    None => drop(keys.remove(KEYS[key])),
                }
                let all: Vec<_> = keys.iter().map(|(key, value)| (*key, *value)).collect();
                let anew = render(&program, &mut LastRender::default(), &all);
                prop_assert_eq!(render(&program, &mut last, &all), anew);
            }
        }
    }
}
