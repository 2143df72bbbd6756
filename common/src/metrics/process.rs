//! The `process_*` metrics that every Prometheus client has, read from `/proc` at each scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::number;

/// Registers what `/proc` has about this process; what it does not have is left out.
pub(super) fn register(registry: &mut Registry) {
    let process = registry.sub_registry_with_prefix("process");
    if let Some(usage) = ProcessUsage::read() {
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(usage.cpu_seconds);
        let help = "Processor time used, user and system";
        process.register_with_unit("cpu", help, Unit::Seconds, cpu);
        let help = "Start of the process, in Unix time";
        process.register_with_unit("start_time", help, Unit::Seconds, number(usage.start_time));
        let help = "Resident memory";
        process.register_with_unit("resident_memory", help, Unit::Bytes, number(usage.resident));
        let help = "Virtual memory";
        process.register_with_unit("virtual_memory", help, Unit::Bytes, number(usage.virtual_));
        process.register("threads", "Threads", number(usage.threads));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The folder itself is open while it is read.
        let open = u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX);
        process.register("open_fds", "Open files", number(open.into()));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit =
        limit.map_or(f64::INFINITY, |limit| u32::try_from(limit).map_or(f64::INFINITY, f64::from));
    process.register("max_fds", "Limit of open files", number(limit));
}

/// `/proc/self/stat`, in the units of Prometheus.
#[derive(Debug, PartialEq)]
struct ProcessUsage {
    cpu_seconds: f64,
    start_time: f64,
    resident: f64,
    virtual_: f64,
    threads: f64,
}

impl ProcessUsage {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot =
            boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        let page = u32::try_from(rustix::param::page_size()).ok()?;
        Self::parse(&stat, boot, ticks.into(), page.into())
    }

    /// Of `proc_pid_stat(5)`; `boot` is when the machine was started, in Unix time.
    fn parse(stat: &str, boot: f64, ticks: f64, page: f64) -> Option<Self> {
        // The name of the program may hold anything, also parentheses.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of them is field 3 of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            start_time: boot + field(22)? / ticks,
            resident: field(24)? * page,
            virtual_: field(23)?,
            threads: field(20)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1000 8192 \
                    25 18446744073709551615";
        let usage = ProcessUsage::parse(stat, 1_000_000.0, 100.0, 4096.0);
        let wanted = ProcessUsage {
            cpu_seconds: 3.0,
            start_time: 1_000_010.0,
            resident: 102_400.0,
            virtual_: 8192.0,
            threads: 3.0,
        };
        assert_eq!(usage, Some(wanted));
        assert_eq!(ProcessUsage::parse("42 (x) S 1", 0.0, 100.0, 4096.0), None);
        assert!(ProcessUsage::read().is_some_and(|usage| usage.resident > 0.0));
    }
}
