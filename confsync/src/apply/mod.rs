//! From rendered files to files that a proxy has been proven to run.

pub mod ledger;
pub mod pipeline;
pub mod quiescence;
