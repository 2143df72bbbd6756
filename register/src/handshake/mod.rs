//! The handshake with load balancers, from the backend's side: have all of them served
//! this backend, or drained it?
//!
//! * [`wait`] decides what an acknowledgement means and how long to wait (pure);
//! * [`state`] is what one load balancer has done (pure);
//! * [`result`] is how a wait ended, in types and in words (pure);
//! * [`follow`] watches etcd for as many waits as there are.
//!
//! The protocol and its reasons are in `docs/handshake.md`.

pub mod follow;
pub mod result;
pub mod state;
pub mod wait;

pub use follow::{WaitsEnd, names_or_all, trees_of, wait_for_all};
pub use result::{DrainResult, HandshakeResult};
pub use state::LoadBalancerState;
pub use wait::{Goal, LoadBalancerWait, MissingLoadBalancer, WaitBounds, WaitProgress};
