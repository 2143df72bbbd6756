//! What any daemon needs around its work: signals, logs, the service manager, exit codes, the
//! status server. It knows nothing of etcd, backends or nginx.

mod exit;
mod exposition;
mod gate;
mod liveness;
mod log;
mod notify;
pub mod orphans;
mod process;
mod reminder;
mod signals;
mod status_server;

pub use exit::{Exit, Usage, exit_on, print, print_bytes, print_error, printed};
pub use exposition::SharedMetrics;
pub use gate::Gate;
pub use liveness::{Heartbeat, Liveness, Overdue};
pub use log::{LogFormat, STEPS, log_filter, start_log};
pub use notify::ServiceManager;
pub use process::{PRIVATE, ProcessExit, ProcessGroup, group_leader, pid_of};
pub use reminder::{OutageLog, Reminder};
pub use signals::{Forwarded, Hangups, Signals};
pub use status_server::{
    AllowedHosts, Body, DocumentSource, Handler, HtmlPage, ListenAddress, Preparation,
    ServedStatus, SharedDocument, StatusResponse, StatusServer, health, plain,
};

/// The name of this machine.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
