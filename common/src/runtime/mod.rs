//! What any daemon needs around its work: signals, logs, the service manager, exit codes, the
//! status server. It knows nothing of etcd, backends or nginx.

mod exit;
mod exposition;
mod gate;
mod liveness;
mod log;
mod notify;
pub mod orphans;
mod process_metrics;
mod reminder;
mod signals;
mod status_server;

pub use exit::{Exit, Usage, exit_on, print, print_bytes, print_error, printed};
pub use exposition::SharedMetrics;
pub use gate::Gate;
pub use liveness::{Heartbeat, Liveness, Overdue};
pub use log::{LogFormat, start_log};
pub use notify::ServiceManager;
pub use process_metrics::process_metrics;
pub use reminder::{OutageLog, Reminder};
pub use signals::{Forwarded, Hangups, Signals};
pub use status_server::{
    AllowedHosts, Body, DocumentSource, Handler, HtmlPage, ListenAddress, Preparation,
    SharedDocument, StatusResponse, StatusServer, health, plain,
};

/// Environment variables that children do not inherit: secrets, and the connection to the
/// service manager, which would take a child's READY=1 for ours.
pub const PRIVATE: [&str; 6] = [
    "ETCD_PASSWORD",
    "ETCDCTL_PASSWORD",
    // `name:password`, if its owner writes it so.
    "ETCDCTL_USER",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
