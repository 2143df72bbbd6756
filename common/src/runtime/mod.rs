//! The frame around a daemon: signals, logs, the service manager, exit codes, the
//! HTTP surface. Knows nothing of etcd, backends or nginx.

mod exit;
mod exposition;
mod http;
mod liveness;
mod log;
mod notify;
mod reminder;
mod signals;

pub use exit::{Exit, Usage, exit_on, print, print_bytes, printed, tell};
pub use exposition::metrics;
pub use http::{Body, Handler, HttpError, StatusResponse, health, listens_at, plain, serve};
pub use liveness::{Heartbeat, Liveness, Overdue};
pub use log::{LogFormat, start_log};
pub use notify::ServiceManager;
pub use reminder::Reminder;
pub use signals::{Forwarded, Hangups, Signals};

/// Variables that are for us alone: a secret, and the line to the service manager,
/// which would take a child's READY=1 for ours. What we start does not inherit them.
pub const PRIVATE: [&str; 4] = ["ETCD_PASSWORD", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];
