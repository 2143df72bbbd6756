//! What a process and its children cost: memory and processor time, as the kernel counts
//! them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The kernel counts children's time in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    at: Instant,
    cpu: Duration,
    resident_kib: u64,
    peak_kib: u64,
    /// Of what is resident: the process's own, and pages of files (its program, libraries).
    anonymous_kib: u64,
    files_kib: u64,
}

impl Cost {
    /// Of a process, its threads, and the children that it has now or waited for.
    pub(crate) fn of(pid: i32) -> anyhow::Result<Self> {
        let mut cost = Self {
            at: Instant::now(),
            cpu: children(pid)?,
            resident_kib: 0,
            peak_kib: 0,
            anonymous_kib: 0,
            files_kib: 0,
        };
        cost.add(pid)?;
        for child in running_children(pid) {
            // It may be gone by now; then its parent has its time.
            let _ = cost.add(child);
        }
        Ok(cost)
    }

    fn add(&mut self, pid: i32) -> anyhow::Result<()> {
        self.cpu += own(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        self.resident_kib += field(&status, "VmRSS:")?;
        self.peak_kib += field(&status, "VmHWM:")?;
        self.anonymous_kib += field(&status, "RssAnon:")?;
        self.files_kib += field(&status, "RssFile:")?;
        Ok(())
    }

    /// Resident memory now and at its highest, in MiB.
    pub(crate) fn memory(&self) -> String {
        let [now, peak] = [self.resident_kib, self.peak_kib].map(mib);
        format!("{now:.1} MiB (peak {peak:.1})")
    }

    /// What the memory is: the process's own, and pages of files, most of which other
    /// processes share.
    pub(crate) fn split(&self) -> String {
        let [anonymous, files] = [self.anonymous_kib, self.files_kib].map(mib);
        format!("{anonymous:.1} + {files:.1} MiB")
    }

    /// The share of one core since an earlier reading, in percent.
    pub(crate) fn share_since(&self, before: &Self) -> f64 {
        let cpu = self.cpu.saturating_sub(before.cpu).as_secs_f64();
        100.0 * cpu / (self.at - before.at).as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The processor time of a process alone.
pub(crate) fn own(pid: i32) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path)?;
        let nanos = text.split_whitespace().next().context("schedstat is empty")?;
        sum += Duration::from_nanos(nanos.parse()?);
    }
    Ok(sum)
}

/// The processor time of a process, of those below it, and of those that have ended.
pub(crate) fn tree(pid: i32) -> anyhow::Result<Duration> {
    let mut sum = own(pid)? + children(pid)?;
    for child in running_children(pid) {
        // It may be gone by now; then its parent has its time.
        sum += tree(child).unwrap_or_default();
    }
    Ok(sum)
}

/// Those that ended and were waited for.
fn children(pid: i32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may have blanks and parentheses of its own.
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |nth: usize| -> anyhow::Result<u32> {
        Ok(fields.get(nth).context("stat is short")?.parse()?)
    };
    // cutime and cstime are the 16th and 17th field, of which two are before these.
    Ok(TICK * (ticks(13)? + ticks(14)?))
}

fn running_children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn field(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name} in status"))?.parse()?)
}
