//! What this load balancer writes about itself into etcd.

pub mod members;
pub mod pace;
