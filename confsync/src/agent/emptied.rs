//! When a service lost its last backend, kept beside the file of its resource: a restart is no news
//! about it. Losing the file costs that alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::config::reload_group::ReloadGroup;
use crate::install::{InstallError, new_beside, note, real_path};
use crate::status::resources::ResourceState;

/// The part of the file's name that identifies it.
const WORD: &str = "emptied";
/// Older ones are no longer reported.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The services without backends, and since when, in milliseconds of Unix time.
type Emptied = BTreeMap<String, u64>;

/// The services of a reload group that have lost their last backend.
#[derive(Debug, Default)]
pub(super) struct EmptiedServices {
    /// Of each resource, as its file has them; with the path of what the resource writes.
    kept: BTreeMap<String, (PathBuf, Emptied)>,
    /// The resources whose files have others.
    outdated: Vec<(PathBuf, Emptied)>,
}

impl EmptiedServices {
    /// What an earlier run has kept. A file that is missing or not ours counts as none.
    pub(super) fn load(group: &ReloadGroup) -> Self {
        let kept = group.programs.iter().map(|program| {
            let dest = &program.resource.target.dest;
            let kept = fs::read(note(dest, WORD)).ok();
            let kept = kept.and_then(|text| serde_json::from_slice(&text).ok());
            (program.resource.name.clone(), (dest.clone(), kept.unwrap_or_default()))
        });
        Self { kept: kept.collect(), outdated: Vec::new() }
    }

    /// Resource, service, and when it lost its last backend, of those that are still reported at `now`.
    pub(super) fn reported(
        &self,
        now: SystemTime,
    ) -> impl Iterator<Item = (&str, &str, SystemTime)> {
        let all = self.kept.iter().flat_map(|(resource, (_, emptied))| {
            emptied.iter().map(|(service, at)| (resource.as_str(), service.as_str(), *at))
        });
        all.filter_map(move |(resource, service, at)| {
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at))?;
            now.duration_since(at).is_ok_and(|age| age < DAY).then_some((resource, service, at))
        })
    }

    /// These are the services now.
    pub(super) fn update(&mut self, resources: &[ResourceState]) {
        for resource in resources {
            let Some((dest, kept)) = self.kept.get_mut(&resource.name) else { continue };
            let emptied = resource.services.iter().filter_map(|service| {
                let since = service.emptied?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                Some((service.service.to_string(), u64::try_from(since.as_millis()).ok()?))
            });
            let emptied: Emptied = emptied.collect();
            if *kept != emptied {
                kept.clone_from(&emptied);
                self.outdated.push((dest.clone(), emptied));
            }
        }
    }

    /// Writes what has changed since the last time.
    pub(super) async fn keep(&mut self) {
        if self.outdated.is_empty() {
            return;
        }
        let outdated = std::mem::take(&mut self.outdated);
        let write = move || outdated.iter().try_for_each(|(dest, emptied)| write(dest, emptied));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "cannot keep which services are without a backend");
        }
    }
}

fn write(dest: &Path, emptied: &Emptied) -> Result<(), InstallError> {
    let path = note(dest, WORD);
    let io = |error: io::Error| InstallError::io("write", &path)(error);
    if emptied.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io(error)),
            _ => Ok(()),
        };
    }
    let mut file = new_beside(&real_path(dest))?;
    let text = serde_json::to_vec(emptied).map_err(|error| io(error.into()))?;
    file.write_all(&text).map_err(io)?;
    file.persist(&path).map_err(|error| io(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample::SampleConfdir;
    use crate::status::resources::ServiceState;

    fn resource(services: &[(&str, Option<SystemTime>)]) -> ResourceState {
        let service = |(name, emptied): &(&str, Option<SystemTime>)| ServiceState {
            service: (*name).into(),
            emptied: *emptied,
            ..ServiceState::default()
        };
        let services = services.iter().map(service).collect();
        let (file, template) = Default::default();
        ResourceState { name: "app".into(), file, template, services, counted_by_keys: false }
    }

    fn reported(group: &ReloadGroup, now: SystemTime) -> Vec<(String, SystemTime)> {
        let kept = EmptiedServices::load(group);
        kept.reported(now).map(|(_, service, at)| (service.to_owned(), at)).collect()
    }

    #[tokio::test]
    async fn an_emptied_service_is_reported_for_a_day_or_until_it_has_a_backend() {
        let sample = SampleConfdir::new("keys = [\"/services\"]\n", "");
        let group = sample.group();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut services = EmptiedServices::load(&group);
        services.update(&[resource(&[("web", Some(at)), ("api", None)])]);
        services.keep().await;
        assert_eq!(reported(&group, at), [("web".to_owned(), at)]);
        assert!(reported(&group, at + DAY).is_empty() && reported(&group, at - DAY).is_empty());
        services.update(&[resource(&[("web", None)])]);
        services.keep().await;
        assert!(reported(&group, at).is_empty());
        let path = note(&group.programs[0].resource.target.dest, WORD);
        assert!(!path.exists());
        fs::write(path, "{\"web\":").unwrap();
        assert!(reported(&group, at).is_empty(), "torn");
    }
}
