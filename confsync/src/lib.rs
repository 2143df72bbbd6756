//! Renders the proxy's configuration from etcd and proves that the proxy runs it.

pub mod template;
