//! The fields about the proxy and the commands that load the file, each with its deadline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::model::parse_span;

use super::ResourceReader;
use crate::config::confdir::raw::{self, RawTemplate};
use crate::config::confdir::resource::{
    Balancing, HaproxyOptions, LiveMembership, NginxOptions, ShellCommand,
};
use crate::config::substitute::check_line;

/// Means "no limit", since every wait has to be bounded.
const NO_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

const LIVE: [(&str, LiveMembership); 3] =
    [("auto", LiveMembership::Auto), ("lua", LiveMembership::Lua), ("off", LiveMembership::Off)];

impl ResourceReader<'_> {
    pub(super) fn nginx(&mut self, raw: raw::RawNginx) -> NginxOptions {
        let path = |text: Option<String>, default: &str| {
            PathBuf::from(text.unwrap_or_else(|| default.into()))
        };
        let default = Balancing::default();
        NginxOptions {
            conf: path(raw.conf, "/etc/nginx/nginx.conf"),
            pid_file: raw.pid_file.map(PathBuf::from),
            binary: path(raw.binary, "nginx"),
            deadline: self.span(raw.deadline.as_ref(), "deadline", Duration::from_secs(10)),
            max_old_generations: self.count(raw.max_old_generations, "max_old_generations", 8),
            live: self.choice("live", raw.live.as_deref(), &LIVE, LiveMembership::Auto),
            live_dir: path(raw.live_dir, "/run/confsync"),
            balancing: Balancing {
                max_fails: u32::try_from(self.count(
                    raw.max_fails,
                    "max_fails",
                    default.max_fails as usize,
                ))
                .unwrap_or(u32::MAX),
                fail_timeout: self.span(
                    raw.fail_timeout.as_ref(),
                    "fail_timeout",
                    default.fail_timeout,
                ),
                slow_start: self.span(raw.slow_start.as_ref(), "slow_start", default.slow_start),
                hold: self.span(raw.hold.as_ref(), "hold", default.hold),
            },
        }
    }

    /// A value out of a few that have names.
    pub(super) fn choice<T: Copy>(
        &mut self,
        what: &str,
        text: Option<&str>,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(text) = text else { return default };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let wrong = match names.as_slice() {
            [one, other] => format!("neither {one} nor {other}"),
            _ => format!("none of {}", names.join(", ")),
        };
        self.mistakes.push(format!("{what} = \"{text}\" is {wrong}"));
        default
    }

    pub(super) fn haproxy(&mut self, raw: raw::RawHaproxy) -> HaproxyOptions {
        let one = |value: &toml::Value| value.as_str().filter(|t| !t.is_empty()).map(PathBuf::from);
        let conf = match &raw.conf {
            None => Some(vec![PathBuf::from("/etc/haproxy/haproxy.cfg")]),
            Some(toml::Value::Array(list)) => list.iter().map(one).collect(),
            Some(value) => one(value).map(|path| vec![path]),
        };
        let conf = conf.filter(|conf| !conf.is_empty()).unwrap_or_else(|| {
            self.mistakes.push("conf in [haproxy] is neither a path nor a list of paths".into());
            Vec::new()
        });
        let choices = [("auto", true), ("off", false)];
        let is_live = self.choice("live", raw.live.as_deref(), &choices, true);
        HaproxyOptions {
            conf,
            socket: raw.socket.map(PathBuf::from),
            is_live,
            pid_file: raw.pid_file.map(PathBuf::from),
            binary: PathBuf::from(raw.binary.unwrap_or_else(|| "haproxy".into())),
            deadline: self.span(raw.deadline.as_ref(), "deadline", Duration::from_secs(30)),
            max_old_generations: self.count(raw.max_old_generations, "max_old_generations", 8),
        }
    }

    pub(super) fn count(&mut self, value: Option<i64>, what: &str, default: usize) -> usize {
        let Some(value) = value else { return default };
        usize::try_from(value).unwrap_or_else(|_| {
            self.mistakes.push(format!("{what} = {value} is negative"));
            default
        })
    }

    pub(super) fn command(
        &mut self,
        text: Option<&str>,
        timeout: Option<&toml::Value>,
        what: &str,
        default: u64,
    ) -> Option<ShellCommand> {
        let timeout = self.timeout(timeout, what, default);
        let text = text.filter(|t| !t.trim().is_empty())?.to_owned();
        Some(ShellCommand { text, timeout })
    }

    /// `check_cmd`, which is a Go template: a syntax error in it is a mistake.
    pub(super) fn check(&mut self, raw: &RawTemplate) -> Option<ShellCommand> {
        let timeout = raw.check_cmd_timeout.as_ref();
        let check = self.command(raw.check_cmd.as_deref(), timeout, "check_cmd_timeout", 30)?;
        let probe = Path::new("/dest");
        if let Err(error) = check_line(&check.text, probe, probe) {
            self.mistakes
                .push(format!("check_cmd is no template: column {}: {}", error.column, error.what));
        }
        Some(check)
    }

    /// How long a command may take; `0s` is no limit, as in confd's fork, and then a day.
    fn timeout(&mut self, value: Option<&toml::Value>, what: &str, default: u64) -> Duration {
        match self.span(value, what, Duration::from_secs(default)) {
            Duration::ZERO => NO_LIMIT,
            timeout => timeout,
        }
    }

    /// `"30s"`, or a bare number of seconds as the fork has it.
    pub(super) fn span(
        &mut self,
        value: Option<&toml::Value>,
        what: &str,
        default: Duration,
    ) -> Duration {
        let parsed = match value {
            None => return default,
            Some(toml::Value::Integer(secs)) => u64::try_from(*secs)
                .map(Duration::from_secs)
                .map_err(|_| format!("{secs} is negative")),
            Some(toml::Value::String(text)) => parse_span(text).map_err(|e| e.to_string()),
            Some(other) => Err(format!("`{other}` is not a time span; write \"30s\"")),
        };
        parsed.unwrap_or_else(|mistake| {
            self.mistakes.push(format!("{what}: {mistake}"));
            default
        })
    }
}
