//! Rendered files in HAProxy's syntax. They are the same whether or not members are changed at run
//! time; that only decides which changes need a reload.

use std::collections::btree_map::Entry;

use super::conf::{SECTIONS, words};
use crate::install::{Candidate, Wanted};
use crate::proxy::pools::{Arrangement, Pools, RenderedFile};
use crate::template::{Piece, UpstreamMembers, haproxy_lines};

/// The files, and the members that a running HAProxy can be given: those of a `backend` or `listen`
/// section that are addresses.
pub fn arrange(files: &[RenderedFile]) -> Arrangement {
    let mut pools = Pools::new();
    let (mut structure, mut distinct) = (Vec::new(), Vec::new());
    for file in files {
        let bytes = file.text.write(|piece, out| match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Servers(service) => match backend_of(out) {
                Some(backend) => {
                    let (live, fixed) = split(&service.members);
                    out.extend_from_slice(haproxy_lines(&fixed).as_bytes());
                    out.extend_from_slice(format!("\u{1}{}\u{1}", service.path).as_bytes());
                    distinct.extend(live.fingerprint().bytes());
                    match pools.entry(backend) {
                        Entry::Vacant(pool) => drop(pool.insert(live)),
                        Entry::Occupied(mut pool) => pool.get_mut().extend(live.entries()),
                    }
                }
                None => out.extend_from_slice(haproxy_lines(&service.members).as_bytes()),
            },
            Piece::Upstream { more, .. } => out.extend_from_slice(more.as_bytes()),
        });
        structure.push(Candidate { target: file.target.clone(), bytes });
    }
    let files = files.to_vec();
    let plain = move || files.iter().map(RenderedFile::plain).collect();
    Arrangement { wanted: Wanted::in_parts(&structure, &distinct, plain), pools }
}

/// The members that are addresses, and those that are names, which HAProxy resolves when it starts.
fn split(members: &UpstreamMembers) -> (UpstreamMembers, UpstreamMembers) {
    if members.first_named().is_none() {
        return (members.clone(), UpstreamMembers::default());
    }
    members.entries().partition(|(_, member)| !member.is_named())
}

/// The section that the end of this text is in.
fn backend_of(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    for line in text.lines().rev() {
        let words = words(line);
        match words.first().map(String::as_str) {
            Some("backend" | "listen") => return words.get(1).cloned(),
            Some(section) if SECTIONS.contains(&section) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::install::Target;
    use crate::template::{NamedService, RenderedText, UpstreamMember};

    fn file(text: &str, members: &[&str]) -> RenderedFile {
        let member = |endpoint: &&str| {
            let endpoint = endpoint.parse().unwrap();
            let key: Arc<str> = format!("/services/web/{endpoint}").into();
            (key, UpstreamMember { endpoint, weight: 1 })
        };
        let members = members.iter().map(member).collect();
        let service = NamedService { path: "web".into(), members, server_options: String::new() };
        let pieces = vec![Piece::Text(text.as_bytes().to_vec()), Piece::Servers(service)];
        RenderedFile {
            target: Target::new("/x"),
            text: RenderedText { pieces },
            is_for_haproxy: true,
        }
    }

    const BACKEND: &str = "global\nbackend app # x\n    balance random\n    ";

    #[test]
    fn members_of_a_backend_need_no_reload() {
        let one = arrange(&[file(BACKEND, &["10.0.0.1:80"])]);
        let two = arrange(&[file(BACKEND, &["[::1]:80"])]);
        assert_eq!(one.wanted.structure(), two.wanted.structure());
        assert_ne!(one.wanted.digest(), two.wanted.digest());
        assert_eq!(one.pools.keys().collect::<Vec<_>>(), ["app"]);
        let text = String::from_utf8(two.wanted.files()[0].bytes.clone()).unwrap();
        assert_eq!(text, format!("{BACKEND}server ::1:80 [::1]:80 weight 1"));
        assert!(arrange(&[file(BACKEND, &[])]).pools.contains_key("app"), "empty is known");
    }

    #[test]
    fn names_and_what_is_in_no_backend_do() {
        let one = arrange(&[file(BACKEND, &["a.example:80"])]);
        let two = arrange(&[file(BACKEND, &["b.example:80"])]);
        assert_ne!(one.wanted.structure(), two.wanted.structure());
        assert!(one.pools["app"].is_empty());
        let one = arrange(&[file("frontend f\n", &["10.0.0.1:80"])]);
        let two = arrange(&[file("frontend f\n", &["10.0.0.2:80"])]);
        assert_ne!(one.wanted.structure(), two.wanted.structure());
        assert!(one.pools.is_empty());
    }
}
