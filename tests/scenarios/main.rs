//! The end-to-end scenarios, in one binary. A new one belongs into the file whose line
//! here fits it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a step that fails, fails its test"
)]

/// Two tests of one scenario, `name::v2` and `name::v3`.
macro_rules! in_both_apis {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn v2() {
                super::$name(tests::Api::V2).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn v3() {
                super::$name(tests::Api::V3).await;
            }
        })+
    };
}

/// Bad input: a clear message, the right exit code, the last good file untouched.
mod bad_config;
/// Leaving with two load balancers, of which one is in trouble.
mod handshake_lbs;
/// Rolling restarts under load.
mod handshake_rolling;
/// The words of the handshake: refusals, no-ops, bounds, signals, flags.
mod handshake_words;
/// The walk of the tutorial, in both APIs, key for key.
mod tutorial;
/// The unit files that people copy.
mod units;
/// Both daemons together: backends die and come back, etcd goes away, processes are stopped.
mod whole;
/// The world around the daemons does what the scenarios trust in.
mod world;
