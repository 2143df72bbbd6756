//! The state of each resource of a reload group: its services in numbers, and the resource that a
//! failure is about. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::status::moments::maybe_millis;

/// One resource of a reload group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceState {
    /// Its name, as commands take it.
    pub name: String,
    /// The file it writes.
    pub file: String,
    pub template: String,
    /// Its services; none for a resource that is made of settings.
    pub services: Vec<ServiceState>,
    /// Its file names none of its backends' addresses, so it is unknown which of them it writes:
    /// all count.
    pub counted_by_keys: bool,
}

/// One service of a resource, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceState {
    /// Its name.
    pub service: Arc<str>,
    /// Backends that are wanted.
    pub backends: usize,
    /// Those of them that are proven to get new requests.
    pub in_rotation: usize,
    /// Those of them that are absent from etcd and still routed to.
    pub retained: usize,
    /// When the last of them left rotation; `None` while one is in it, or if none was.
    #[serde(serialize_with = "maybe_millis")]
    pub emptied: Option<SystemTime>,
}

/// The position of a failure: a line of a rendered file, or of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TroublePlace {
    pub resource: String,
    /// The file it writes.
    pub file: String,
    /// The line of that file, as it was rendered; `None` when the template failed.
    pub line: Option<usize>,
    pub template: String,
    /// The line of the template, where it is certain.
    pub template_line: Option<usize>,
}

/// Counts the services of each resource, as backends come and go. A service that had backends
/// stays listed when it has none left.
#[derive(Debug, Clone, Default)]
pub struct ServiceCounts {
    resources: BTreeMap<String, BTreeMap<Arc<str>, ServiceState>>,
}

impl ServiceCounts {
    /// The services that are known without any backend.
    pub fn expect(&mut self, resource: &str, service: &Arc<str>) {
        self.entry(resource, service);
    }

    /// A service as a predecessor has counted it, without its backends.
    pub fn go_on(&mut self, resource: &str, before: &ServiceState) {
        self.entry(resource, &before.service).emptied = before.emptied;
    }

    /// One backend of a service more.
    pub fn add(&mut self, resource: &str, service: &Arc<str>, in_rotation: bool, retained: bool) {
        let state = self.entry(resource, service);
        state.backends += 1;
        state.in_rotation += usize::from(in_rotation);
        state.emptied = state.emptied.filter(|_| !in_rotation);
        state.retained += usize::from(retained);
    }

    /// One backend of a service less, which was counted like this until now.
    pub fn subtract(
        &mut self,
        resource: &str,
        service: &Arc<str>,
        (in_rotation, retained): (bool, bool),
        now: SystemTime,
    ) {
        let state = self.entry(resource, service);
        state.backends = state.backends.saturating_sub(1);
        state.in_rotation = state.in_rotation.saturating_sub(usize::from(in_rotation));
        if in_rotation && state.in_rotation == 0 {
            state.emptied = Some(now);
        }
        state.retained = state.retained.saturating_sub(usize::from(retained));
    }

    /// The services of a resource, by name.
    pub fn of(&self, resource: &str) -> Vec<ServiceState> {
        self.resources.get(resource).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn entry(&mut self, resource: &str, service: &Arc<str>) -> &mut ServiceState {
        if !self.resources.contains_key(resource) {
            self.resources.insert(resource.to_owned(), BTreeMap::new());
        }
        let services = self.resources.entry(resource.to_owned()).or_default();
        let new = || ServiceState { service: Arc::clone(service), ..Default::default() };
        services.entry(Arc::clone(service)).or_insert_with(new)
    }
}

/// The line of the template that a line of its file was copied from: the only one with the same
/// text. `None` when that is not certain.
pub fn template_line(template: &[u8], rendered: &[u8], line: usize) -> Option<usize> {
    let lines = |text: &'_ [u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let wanted = lines(rendered).into_iter().nth(line.checked_sub(1)?)?;
    let template = lines(template);
    let mut same = template.iter().enumerate().filter(|(_, line)| **line == wanted);
    let (index, _) = same.next().filter(|_| !wanted.is_empty())?;
    same.next().is_none().then_some(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_had_backends_is_counted_on() {
        let mut counts = ServiceCounts::default();
        let (cart, web): (Arc<str>, Arc<str>) = ("cart".into(), "web".into());
        counts.add("site", &cart, true, false);
        counts.add("site", &cart, false, true);
        counts.expect("site", &web);
        let of = |counts: &ServiceCounts| -> Vec<_> {
            let all = counts.of("site").into_iter();
            all.map(|s| (s.service.to_string(), s.backends, s.in_rotation, s.retained)).collect()
        };
        assert_eq!(of(&counts), [("cart".into(), 2, 1, 1), ("web".into(), 0, 0, 0)]);
        let now = SystemTime::UNIX_EPOCH;
        counts.subtract("site", &cart, (true, false), now);
        counts.subtract("site", &cart, (false, true), now);
        assert_eq!(of(&counts), [("cart".into(), 0, 0, 0), ("web".into(), 0, 0, 0)]);
        let emptied = |counts: &ServiceCounts| -> Vec<_> {
            counts.of("site").into_iter().map(|s| s.emptied).collect()
        };
        assert_eq!(emptied(&counts), [Some(now), None], "web never had any");
        let mut next = ServiceCounts::default();
        counts.of("site").iter().for_each(|state| next.go_on("site", state));
        assert_eq!(emptied(&next), [Some(now), None]);
        next.add("site", &cart, false, false);
        assert_eq!(emptied(&next), [Some(now), None], "no request goes to it yet");
        next.add("site", &cart, true, false);
        assert_eq!(emptied(&next), [None, None]);
    }

    #[test]
    fn a_line_of_the_template_is_named_where_it_is_certain() {
        let template = b"{{#each x}}\n  server {{addr}};\n{{/each}}\n  proxy_pas x;\nlisten 1;\n";
        let rendered = b"server 10.0.0.1:1;\nproxy_pas x;\n\nlisten 1;\n";
        assert_eq!(template_line(template, rendered, 2), Some(4));
        assert_eq!(template_line(template, rendered, 4), Some(5));
        assert_eq!(template_line(template, rendered, 1), None, "made by the loop");
        assert_eq!(template_line(template, rendered, 3), None, "empty");
        assert_eq!(template_line(template, rendered, 9), None);
        assert_eq!(template_line(b"a\na\n", b"a\n", 1), None, "one of two");
    }
}
