//! Which keys a resource reads, which of them name backends, and what values they must have.
//!
//! Pure: it knows keys alone, and no values.

use common::model::{Prefix, Tree};

/// Which values templates may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// All, as confd has it.
    Any,
    /// Those in the services' folder must be backends. The default with `[nginx]`.
    Typed,
    /// All must be backends.
    Endpoint,
}

/// How the keys of a resource are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySelection {
    /// Put before the resource's keys; `/` for none.
    pub prefix: Prefix,
    /// The services' folder below `prefix`, `/services` by default.
    pub services: Prefix,
    /// The trees of the resource, with the prefix.
    pub trees: Vec<Tree>,
    /// Our own keys, which no template sees, whatever is read.
    pub bookkeeping: Tree,
    /// Which values may pass.
    pub values: Values,
    /// The resource declares that its keys are backends (`[nginx]`, `[guard]`, `values`). Otherwise
    /// only the keys below the services' folder are backends; what a value looks like does not
    /// matter.
    pub declared: bool,
    /// Whether a DNS name may be given instead of an address.
    pub names: bool,
}

impl KeySelection {
    /// Whether having no backends is a loss: a file made of settings has none to lose.
    pub fn is_about_backends(&self) -> bool {
        let prefix = self.prefix.as_str().trim_end_matches('/');
        let about = |tree: &Tree| {
            let bare = tree.path().strip_prefix(prefix).unwrap_or(tree.path());
            bare == self.services.as_str() || self.services.strip(bare).is_some()
        };
        self.trees.iter().any(about)
    }

    /// The services that its keys name: `/services/cart` is `cart`. They are known even before a
    /// backend registers.
    pub fn services_named(&self) -> impl Iterator<Item = &str> {
        let prefix = self.prefix.as_str().trim_end_matches('/');
        let paths = self.trees.iter().map(move |tree| tree.path().strip_prefix(prefix));
        let named = |path: &&str| !path.contains('/');
        paths.flatten().filter_map(|path| self.services.strip(path)).filter(named)
    }

    /// The folder whose keys are backends by default, if any of them is read.
    pub fn services_read(&self) -> Option<String> {
        let prefix = self.prefix.as_str().trim_end_matches('/');
        let services = format!("{prefix}{}", self.services);
        let read = |tree: &Tree| tree.covers(&services);
        let is_read = self.is_about_backends() || self.trees.iter().any(read);
        is_read.then_some(services)
    }

    /// Splits the key of a backend: `<services>/<service>/<id>`, or directly below a tree of the
    /// resource.
    pub(super) fn place<'k>(&'k self, key: &'k str) -> Option<BackendKey<'k>> {
        let bare =
            if self.prefix.as_str() == "/" { key } else { key.strip_prefix(self.prefix.as_str())? };
        if let Some(rest) = self.services.strip(bare) {
            let (service, id) = rest.split_once('/')?;
            return BackendKey::new(service, id, true);
        }
        let direct = |tree: &'k Tree| {
            let folder: Prefix = tree.path().parse().ok()?;
            let service = tree.path().rsplit('/').next()?;
            BackendKey::new(service, folder.strip(key)?, false)
        };
        self.trees.iter().find_map(direct)
    }
}

/// The key of something that may be a backend.
pub(super) struct BackendKey<'k> {
    pub(super) service: &'k str,
    pub(super) in_services: bool,
}

impl<'k> BackendKey<'k> {
    /// The key of a backend ends with its id, and nothing is below it.
    fn new(service: &'k str, id: &str, in_services: bool) -> Option<Self> {
        let whole = !id.is_empty() && !id.contains('/') && !service.is_empty();
        whole.then_some(Self { service, in_services })
    }
}
