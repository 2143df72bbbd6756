//! The end-to-end scenarios, in one binary. A new one belongs into the file whose line
//! here fits it.

/// The world around the daemons does what the scenarios trust in.
mod world;
