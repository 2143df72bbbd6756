//! Parses what HAProxy answers on its sockets, strictly: an answer that is not understood is never
//! taken for success.

/// The column of a name in a table that HAProxy prints, and the lines below its head; `None` if it
/// is something else. Columns are found by name: their number differs between versions.
pub(super) fn table(
    answer: &str,
) -> Option<(impl Fn(&str) -> Option<usize>, impl Iterator<Item = &str>)> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with("# "));
    let names: Vec<_> = lines.next()?.trim_start_matches("# ").split([' ', ',']).collect();
    let column = move |name: &str| names.iter().position(|known| *known == name);
    Some((column, lines.filter(|line| !line.trim().is_empty())))
}

/// `show proc` of a master.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Processes {
    /// How often it has reloaded.
    pub(super) reloads: u64,
    /// How many of the last of these failed.
    pub(super) failed: u64,
    /// The workers of its current configuration.
    pub(super) workers: Vec<i32>,
    /// Workers of earlier configurations, which finish their requests.
    pub(super) old_workers: Vec<i32>,
}

impl Processes {
    /// Parses it; `None` if it is something else.
    pub(super) fn read(answer: &str) -> Option<Self> {
        let mut found = Self::default();
        let mut old = false;
        let mut master = false;
        for line in answer.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["#", "workers"] => old = false,
                ["#", "old", "workers"] => old = true,
                [_, "master", reloads, rest @ ..] => {
                    master = true;
                    found.reloads = reloads.parse().ok()?;
                    // `[failed: 1]`; not reported before 2.5.
                    if let ["[failed:", failed, ..] = rest {
                        found.failed = failed.trim_end_matches(']').parse().ok()?;
                    }
                }
                [pid, "worker", ..] => {
                    let list = if old { &mut found.old_workers } else { &mut found.workers };
                    list.push(pid.parse().ok()?);
                }
                _ => {}
            }
        }
        master.then_some(found)
    }
}

/// `show info` of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    /// Which process answered.
    pub(super) pid: i32,
    /// It accepts no connections any more.
    pub(super) stopping: bool,
}

impl Info {
    /// Parses it; `None` if it is something else.
    pub(super) fn read(answer: &str) -> Option<Self> {
        let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name));
        let pid = value("Pid: ")?.trim().parse().ok()?;
        Some(Self { pid, stopping: value("Stopping: ")?.trim() != "0" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSES: &str = "\
#<PID>          <type>          <reloads>       <uptime>        <version>      
1489            master          2 [failed: 1]   0d00h00m36s     2.6.12-1+deb12u4
# workers
3528            worker          1               0d00h00m05s     2.6.12-1+deb12u4
# old workers
1496            worker          2               0d00h00m36s     2.6.12-1+deb12u4
# programs
77              dataplane-api   0               0d00h00m36s     -";

    #[test]
    fn show_proc_as_recorded() {
        let read = Processes::read(PROCESSES).unwrap();
        let expected =
            Processes { reloads: 2, failed: 1, workers: vec![3528], old_workers: vec![1496] };
        assert_eq!(read, expected);
        assert_eq!(Processes::read("Permission denied"), None);
        assert_eq!(Processes::read(""), None);
        let before_2_5 = "1 master 5 0d00h02m07s 2.4\n# workers\n9 worker 0 0d00h00m00s 2.4";
        let read = Processes::read(before_2_5).unwrap();
        assert_eq!((read.reloads, read.failed, read.workers), (5, 0, vec![9]));
    }

    #[test]
    fn show_info_as_recorded() {
        let info = |text| Info::read(text).map(|info| (info.pid, info.stopping));
        let text = "Name: HAProxy\nPid: 1496\nUptime: 0d 0h00m06s\nStopping: 1\nIdle_pct: 100";
        assert_eq!(info(text), Some((1496, true)));
        assert_eq!(info("Pid: 7\nStopping: 0"), Some((7, false)));
        assert_eq!(info("Can't find the target PID matching the prefix '@!99'."), None);
    }
}
