//! The frame around a daemon: signals, logs, the service manager, exit codes, the
//! HTTP surface. Knows nothing of etcd, backends or nginx.

mod exit;
mod http;
mod log;
mod notify;
mod pulse;
mod reminder;
mod signals;

pub use exit::{Exit, Usage, exit_on};
pub use http::{Answer, Body, Handler, HttpError, health, plain, serve};
pub use log::{LogFormat, start_log};
pub use notify::ServiceManager;
pub use pulse::{Heart, Late, Pulse};
pub use reminder::Reminder;
pub use signals::{Hangups, Signals};
