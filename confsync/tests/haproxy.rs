//! The hands on a real HAProxy: free loopback ports, ended by handle.

#[cfg(test)]
#[path = "haproxy/runtime.rs"]
mod runtime;
