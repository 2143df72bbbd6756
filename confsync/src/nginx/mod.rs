//! nginx by name.
pub mod conf;
mod lua;
