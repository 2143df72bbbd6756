//! The functions `upstream` and `servers`: lines that name the backends of one service.
//!
//! While a template runs, each is a mark in its output. Afterwards the text is cut there, so that
//! these lines can be written in the form that the proxy's driver needs, and a change in them can
//! be distinguished from a change in the rest. Pure.

use super::functions::MAX_ITEMS;
use super::server_lines::{haproxy_lines, indented, nginx_lines, upstream_block};
use super::upstream_members::UpstreamMembers;

/// A service that a template names, and its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedService {
    /// As the template has it: a service, or a path.
    pub path: String,
    /// Its backends now.
    pub members: UpstreamMembers,
    /// What each `server` line of nginx ends with.
    pub server_options: String,
}

impl NamedService {
    /// The name of its upstream: the last part of the path.
    pub fn upstream(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Its `server` lines for nginx.
    pub fn nginx_lines(&self) -> String {
        nginx_lines(&self.members, &self.server_options)
    }
}

/// A part of a rendered text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Text(Vec<u8>),
    /// The `server` lines of a service.
    Servers(NamedService),
    /// A whole `upstream`.
    Upstream {
        service: NamedService,
        /// The template's other directives in it.
        more: String,
    },
}

/// A rendered text, cut at the lines that name backends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RenderedText {
    /// The parts, in their order.
    pub pieces: Vec<Piece>,
}

impl RenderedText {
    /// The text for a proxy that is reloaded for each change.
    pub fn plain(&self) -> Vec<u8> {
        self.write(|piece, out| match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Servers(service) => {
                let lines = indented(&service.nginx_lines(), out);
                out.extend_from_slice(lines.as_bytes());
            }
            Piece::Upstream { service, more } => {
                let block = upstream_block(service.upstream(), &service.nginx_lines(), more);
                out.extend_from_slice(block.as_bytes());
            }
        })
    }

    /// The text for HAProxy: members are `server` lines of its own.
    pub fn plain_for_haproxy(&self) -> Vec<u8> {
        self.write(|piece, out| match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Servers(service) => {
                let lines = indented(&haproxy_lines(&service.members), out);
                out.extend_from_slice(lines.as_bytes());
            }
            Piece::Upstream { more, .. } => out.extend_from_slice(more.as_bytes()),
        })
    }

    /// The text, each part written by `write` behind those before it. A block ends its line.
    pub fn write(&self, mut write: impl FnMut(&Piece, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut block = false;
        for piece in &self.pieces {
            let ends_line = matches!(piece, Piece::Text(text) if text.starts_with(b"\n"));
            if std::mem::take(&mut block) && !ends_line {
                out.push(b'\n');
            }
            write(piece, &mut out);
            block = matches!(piece, Piece::Upstream { .. });
        }
        if block {
            out.push(b'\n');
        }
        out
    }

    /// Whether any of its lines depends on the proxy's driver.
    pub fn names_members(&self) -> bool {
        self.services().next().is_some()
    }

    /// Each `server` line of nginx ends with this.
    #[must_use]
    pub fn with_server_options(mut self, options: &str) -> Self {
        for service in self.services_mut() {
            options.clone_into(&mut service.server_options);
        }
        self
    }

    /// Gives each service its backends, which `members` finds by the path that the template has.
    ///
    /// # Errors
    /// When there would be too many lines.
    pub fn fill(&mut self, mut members: impl FnMut(&str) -> UpstreamMembers) -> Result<(), String> {
        let mut named = 0;
        for service in self.services_mut() {
            service.members = members(&service.path);
            named += service.members.len();
            if named > MAX_ITEMS {
                return Err(format!(
                    "more than {MAX_ITEMS} lines of servers (write `servers` and `upstream` outside \
                     of loops)"
                ));
            }
        }
        Ok(())
    }

    fn services_mut(&mut self) -> impl Iterator<Item = &mut NamedService> {
        self.pieces.iter_mut().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Servers(service) | Piece::Upstream { service, .. } => Some(service),
        })
    }

    /// The services that it names.
    pub fn services(&self) -> impl Iterator<Item = &NamedService> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Servers(service) | Piece::Upstream { service, .. } => Some(service),
        })
    }
}

/// Whether a backend of `service` with this key, as templates see it, is one of those that `path`
/// names: a service, or the folder of keys.
pub fn is_named_by(path: &str, key: &str, service: &str) -> bool {
    match path.starts_with('/') {
        true => key.rsplit_once('/').is_some_and(|(folder, _)| folder == path),
        false => service == path,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::template::{Engine, Input, NamedBackend, Template, TemplateSources};
    use common::model::Backend;

    fn input(values: &[(&str, &str)]) -> Input {
        let backend = |(key, value): &(&str, &str)| NamedBackend {
            key: (*key).into(),
            service: key.split('/').nth(2).unwrap().into(),
            backend: Backend::parse(value.as_bytes()).unwrap(),
        };
        Input::default().with_backends(values.iter().map(backend).collect())
    }

    fn render(file: &str, template: &str) -> Result<RenderedText, String> {
        let (name, sources) = (Path::new(file), TemplateSources::default());
        let compiled = Template::compile(name, template, Engine::of(name), &sources);
        let compiled = compiled.map_err(|e| e.to_string())?;
        assert!(compiled.asks_for_backends(), "{template}");
        let input = input(&[
            ("/services/api/1", "10.0.1.1:80"),
            ("/services/web/1", "10.0.0.1:80"),
            ("/services/web/2", r#"{"addr":"[::2]:80","weight":3}"#),
        ]);
        compiled.render_pieces(&input).map_err(|e| e.to_string())
    }

    fn plain(file: &str, template: &str) -> String {
        String::from_utf8(render(file, template).unwrap().plain()).unwrap()
    }

    const WEB: &str = "upstream web {\n    server 10.0.0.1:80;\n    server [::2]:80 weight=3;\n    \
                       keepalive 8;\n}\n";

    #[test]
    fn an_upstream_is_written_alike_by_both_languages_and_in_all_their_forms() {
        for (file, template) in [
            ("t.tmpl", "{{upstream \"web\" \"keepalive 8;\"}}\n"),
            ("t.tmpl", "{{ upstream \"/services/web\" \"keepalive 8;\" }}"),
            ("t.hbs", "{{upstream \"web\" \"keepalive 8;\"}}\n"),
            ("t.hbs", "{{#upstream \"web\"}} keepalive 8; {{/upstream}}\n"),
            ("t.hbs", "{{#upstream \"/services/web\"}}\n  keepalive 8;\n{{/upstream}}\n"),
        ] {
            assert_eq!(plain(file, template), WEB, "{template}");
        }
        let two = plain("t.hbs", "{{#upstream \"web\"}}\nkeepalive 8;\n{{/upstream}}\nx\n");
        assert_eq!(two, format!("{WEB}x\n"));
    }

    #[test]
    fn servers_are_indented_as_their_first_line_is() {
        let want = "a {\n  server 10.0.0.1:80;\n  server [::2]:80 weight=3;\n}";
        for file in ["t.tmpl", "t.hbs"] {
            assert_eq!(plain(file, "a {\n  {{servers \"web\"}}\n}"), want);
            assert_eq!(plain(file, "{{servers \"none\"}}"), "server 127.0.0.1:1 down;");
        }
    }

    #[test]
    fn servers_of_haproxy_have_names() {
        let rendered = render("t.hbs", "backend web\n  {{servers \"web\"}}\n").unwrap();
        assert_eq!(
            String::from_utf8(rendered.plain_for_haproxy()).unwrap(),
            "backend web\n  server 10.0.0.1:80 10.0.0.1:80 weight 1\n  server ::2:80 [::2]:80 weight 3\n"
        );
        let none = render("t.hbs", "backend web\n  {{servers \"none\"}}\n").unwrap();
        assert_eq!(none.plain_for_haproxy(), b"backend web\n  \n");
    }

    #[test]
    fn each_piece_names_the_service_of_its_members() {
        let rendered = render("t.tmpl", "a{{servers \"api\"}}b{{upstream \"web\"}}").unwrap();
        let paths: Vec<_> = rendered.services().map(|s| (s.upstream(), s.members.len())).collect();
        assert_eq!(paths, [("api", 1), ("web", 2)]);
        assert_eq!(rendered.pieces[0], Piece::Text(b"a".to_vec()));
    }

    #[test]
    fn what_cannot_be_written_is_an_error_with_its_place() {
        for (file, template, want) in [
            ("t.tmpl", "{{upstream \"a b\"}}", "t.tmpl:1:3: executing"),
            ("t.tmpl", "{{upstream \"../a\"}}", "is not the name of a service"),
            ("t.hbs", "{{servers \"a;\"}}", "is not the name of a service"),
            ("t.tmpl", "{{servers \"a\" | printf \"%.5s\"}}", "has changed what"),
            ("t.tmpl", "{{upstream \"a\" (servers \"b\")}}", "is inside an `upstream`"),
            ("t.hbs", "{{#upstream \"a\"}}{{servers \"b\"}}{{/upstream}}", "is inside"),
            ("t.tmpl", "{{upstream \"a\" \"b\" \"c\"}}", "one or two arguments"),
        ] {
            let error = render(file, template).unwrap_err();
            assert!(error.contains(want) || want.ends_with("executing"), "{template}: {error}");
        }
    }
}
