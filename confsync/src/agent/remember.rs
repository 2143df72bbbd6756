//! What a group routed to, kept beside its files for the next start.

use std::collections::BTreeMap;

use common::model::Snapshot;

use crate::backends::known::KnownBackends;
use crate::backends::saved::SavedBackends;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;

/// At the start: whether the store went backwards while nobody looked. What was believed
/// before then is believed again, and so doubted. A belief handed over is newer.
pub(super) fn recall(
    set: &ReloadGroup,
    known_backends: &mut BTreeMap<String, KnownBackends>,
    now: &Snapshot,
) -> bool {
    let mut ahead = false;
    for program in &set.programs {
        let resource = &program.resource;
        let Some(memory) = SavedBackends::load_if_ahead(&resource.dest, now) else { continue };
        if !known_backends.contains_key(&resource.name) {
            tracing::warn!(
                resource = resource.name,
                "etcd went backwards while we were away: it was wiped, or restored from a backup"
            );
            known_backends.insert(resource.name.clone(), memory.belief(&resource.reading));
            ahead = true;
        }
    }
    ahead
}

/// Keeps what is proven for the next start. A failure is told, and costs nothing else.
pub(super) async fn keep(
    set: &ReloadGroup,
    known_backends: &BTreeMap<String, KnownBackends>,
    now: &Snapshot,
) {
    let memory = |program: &CompiledResource| {
        let belief = known_backends.get(&program.resource.name)?;
        Some((program.resource.dest.clone(), SavedBackends::of(now, belief)))
    };
    let memories: Vec<_> = set.programs.iter().filter_map(memory).collect();
    let save = move || memories.iter().try_for_each(|(dest, memory)| memory.save(dest));
    if let Ok(Err(error)) = tokio::task::spawn_blocking(save).await {
        tracing::warn!(%error, "what is routed to is not remembered for the next start");
    }
}
