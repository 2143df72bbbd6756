//! The hands on a real nginx: private prefix, free loopback ports, ended by handle.

#[cfg(test)]
#[path = "nginx/bench.rs"]
mod bench;
#[cfg(test)]
#[path = "nginx/check.rs"]
mod check;
#[cfg(test)]
#[path = "nginx/faithful.rs"]
mod faithful;
#[cfg(test)]
#[path = "nginx/measure.rs"]
mod measure;
#[cfg(test)]
#[path = "nginx/reload.rs"]
mod reload;
#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
pub mod skip;
