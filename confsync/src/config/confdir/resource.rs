//! One resource, validated.

use std::path::PathBuf;
use std::time::Duration;

use crate::backends::KeySelection;
use crate::backends::loss_policy::{LossPolicy, OnEmpty};
use crate::install::Target;
use crate::template::{Engine, Escape};

/// One template: what is rendered, from which keys, to which file, and how that is checked and
/// loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The stem of its file's name, with its folders where stems collide; its acknowledgements have
    /// this name.
    pub name: String,
    pub file: PathBuf,
    /// The template.
    pub src: PathBuf,
    /// The template language, by the ending of `src`.
    pub engine: Engine,
    /// The file to write.
    pub target: Target,
    /// Which keys are read, and which values may pass.
    pub reading: KeySelection,
    /// The nginx that reads the file; confsync checks, reloads and observes it.
    pub nginx: Option<NginxOptions>,
    /// HAProxy reads the file, even where confsync only writes it.
    pub is_for_haproxy: bool,
    /// The HAProxy that reads the file; likewise.
    pub haproxy: Option<HaproxyOptions>,
    /// Run before the swap; `{{.src}}` is the candidate.
    pub check: Option<ShellCommand>,
    /// Run after the swap.
    pub reload: Option<ShellCommand>,
    /// Run after the reload; its success is the evidence.
    pub verify: Option<ShellCommand>,
    /// Run after that until it succeeds: then no request is served by the files of before.
    pub quiesce: Option<ShellCommand>,
    /// Without `quiesce`: how long after applied it counts as quiesced.
    pub quiesce_after: Duration,
    /// The least time between two reloads.
    pub min_reload_interval: Duration,
    /// The longest random delay of a change.
    pub splay: Duration,
    /// How long changes are collected before the first is applied; 0 for at once.
    pub debounce: Duration,
    /// What happens when backends are lost.
    pub policy: LossPolicy,
    /// The fork's `output_format`: the render must parse as this.
    pub output_format: Option<String>,
    /// The syntax that a handlebars template escapes values for.
    pub escape: Escape,
}

impl Resource {
    /// The same resource, of which only the file is written: nothing is checked or loaded.
    pub(super) fn only_written(self) -> Self {
        let (nginx, haproxy, check, reload, verify) = Default::default();
        Self { nginx, haproxy, check, reload, verify, ..self }
    }

    /// Whether confsync knows its proxy (nginx, HAProxy), so that it needs no commands.
    pub fn is_by_name(&self) -> bool {
        self.nginx.is_some() || self.haproxy.is_some()
    }

    /// The services whose loss is guarded, in words; `None`: all keys are settings, whose removal
    /// is rendered at once, as confd does it.
    pub fn guarded(&self) -> Option<String> {
        let keys = if self.reading.declared {
            "endpoints in its keys".to_owned()
        } else {
            format!("keys below {}", self.reading.services_read()?)
        };
        let LossPolicy { max_loss, on_empty, .. } = self.policy;
        let on_empty = if on_empty == OnEmpty::Keep { "keep" } else { "render" };
        Some(format!(
            "{keys} are backends: if more than max_loss = {max_loss:?} of them vanish at once, those \
             that still accept connections are retained; if all do, on_empty = \"{on_empty}\" decides"
        ))
    }
}

/// The `[nginx]` of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NginxOptions {
    /// The main configuration.
    pub conf: PathBuf,
    /// The pid file; `None`: the one that the main configuration names.
    pub pid_file: Option<PathBuf>,
    /// The program.
    pub binary: PathBuf,
    /// How long a new generation may take to serve.
    pub deadline: Duration,
    /// With more old generations alive than this, the next reload waits.
    pub max_old_generations: usize,
    /// Whether members change without a reload.
    pub live: LiveMembership,
    /// The folder for what that needs.
    pub live_dir: PathBuf,
    /// How requests are spread over members.
    pub balancing: Balancing,
}

/// How requests are spread over the members of an `upstream` that a template names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balancing {
    /// So many failures within `fail_timeout` leave a member out; 0 for never.
    pub max_fails: u32,
    /// And for how long.
    pub fail_timeout: Duration,
    /// Over this time the share of a new member grows; zero for at once.
    pub slow_start: Duration,
    /// How long a request waits while there is no member.
    pub hold: Duration,
}

impl Default for Balancing {
    /// nginx's own, and no wait.
    fn default() -> Self {
        Self {
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            slow_start: Duration::ZERO,
            hold: Duration::ZERO,
        }
    }
}

impl Balancing {
    /// What of it nginx takes on its own `server` lines, where it is not the default.
    pub fn server_options(&self) -> String {
        let (default, mut options) = (Self::default(), String::new());
        if self.max_fails != default.max_fails {
            options.push_str(&format!(" max_fails={}", self.max_fails));
        }
        if self.fail_timeout != default.fail_timeout {
            // nginx takes whole seconds here.
            let seconds = self.fail_timeout.as_millis().div_ceil(1000);
            options.push_str(&format!(" fail_timeout={seconds}s"));
        }
        options
    }
}

/// Whether nginx changes its members without a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LiveMembership {
    /// Where it can.
    Auto,
    /// Always; a problem is reported where it cannot.
    Lua,
    /// Never.
    Off,
}

/// The `[haproxy]` of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HaproxyOptions {
    /// Its files and folders, in the order of `-f`.
    pub conf: Vec<PathBuf>,
    /// Its admin socket; `None`: what its configuration says, else that of the master.
    pub socket: Option<PathBuf>,
    /// Whether its servers are changed while it runs.
    pub is_live: bool,
    /// The pid file; `None`: the one that its configuration names.
    pub pid_file: Option<PathBuf>,
    /// The program.
    pub binary: PathBuf,
    /// How long a new worker may take to serve.
    pub deadline: Duration,
    /// With more old workers alive than this, the next reload waits.
    pub max_old_generations: usize,
}

/// A command of the operator, run by the shell as confd does it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShellCommand {
    pub text: String,
    /// How long it may take.
    pub timeout: Duration,
}
