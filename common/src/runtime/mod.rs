//! The frame around a daemon: signals, logs, the service manager, exit codes, the
//! HTTP surface. Knows nothing of etcd, backends or nginx.

mod exit;
mod http;
mod log;
mod notify;
mod signals;

pub use exit::{Exit, Usage, exit_on};
pub use http::{Answer, Body, Handler, HttpError, plain, serve};
pub use log::{LogFormat, start_log};
pub use notify::ServiceManager;
pub use signals::{Hangups, Signals};
