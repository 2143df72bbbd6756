//! The traffic that the tables of a folder have counted, for status and metrics. Writes nothing,
//! and needs no driver: tables of any run of confsync are read as they are.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::claims::WorkerColumns;
use super::folder::{TableFiles, open_known};
use super::layout::{COUNTS_DATA, HEALTH, SlotRecord, SlotState, WORKERS_MAGIC};
use super::table::{Traffic, traffic_of};
use crate::proxy::pools::{Ejection, MemberTraffic};

/// The members of all tables, and those that left and still have requests.
///
/// # Errors
/// When a file cannot be read.
pub fn read(folder: &Path, ejection: Ejection) -> io::Result<Vec<MemberTraffic>> {
    let Some((file, header)) = open_known(&folder.join("workers"), &WORKERS_MAGIC)? else {
        return Ok(Vec::new());
    };
    let workers = WorkerColumns::new(file, header.columns_of_workers());
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(pool) = name.to_str().and_then(|name| name.strip_suffix(".members")) {
            all.extend(table(folder, pool, &workers, ejection)?);
        }
    }
    Ok(all)
}

fn table(
    folder: &Path,
    pool: &str,
    workers: &WorkerColumns,
    ejection: Ejection,
) -> io::Result<Vec<MemberTraffic>> {
    let Some(found) = TableFiles::open(folder, pool, workers.columns())? else {
        return Ok(Vec::new());
    };
    let TableFiles { counts, capacity, head, records, .. } = found;
    let traffic = traffic_of(&counts, capacity, head.slots, workers)?;
    let ejected = ejected(&counts, head.slots, ejection)?;
    let is_exact = workers.is_exact()?;
    let all = records.into_iter().zip(traffic).zip(ejected);
    let one = |((record, traffic), ejected): ((SlotRecord, _), bool)| {
        let Traffic { in_flight, requests, failures } = traffic;
        let leaving = record.state == SlotState::Leaving;
        let is_shown = record.state == SlotState::Member || (leaving && in_flight > 0);
        is_shown.then(|| MemberTraffic {
            pool: pool.to_owned(),
            addr: format!("{}:{}", record.host, record.port),
            leaving,
            in_flight: is_exact.then_some(in_flight),
            requests: whole(requests),
            failures,
            ejected: ejected && !leaving,
        })
    };
    Ok(all.filter_map(one).collect())
}

/// Workers count in numbers of Lua.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(requests: f64) -> u64 {
    requests as u64
}

/// Which slots have failed so often and so recently that workers pass them over.
fn ejected(counts: &File, slots: u32, ejection: Ejection) -> io::Result<Vec<bool>> {
    let mut bytes = vec![0; slots as usize * HEALTH as usize];
    counts.read_exact_at(&mut bytes, COUNTS_DATA)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let one = |health: &[u8; HEALTH as usize]| {
        let [failures, checked, ..] = health.as_chunks::<8>().0 else { return false };
        let (failures, checked) = (f64::from_le_bytes(*failures), f64::from_le_bytes(*checked));
        ejection.max_fails > 0
            && failures >= f64::from(ejection.max_fails)
            && now - checked <= ejection.fail_timeout.as_secs_f64()
    };
    Ok(bytes.as_chunks().0.iter().map(one).collect())
}
