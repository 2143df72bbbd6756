//! The end-to-end scenarios, in one binary. A new one belongs into the file whose line
//! here fits it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
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

/// The rooms of confsync import downwards only, as the docs show it.
mod architecture;
/// Bad input: a clear message, the right exit code, the last good file untouched.
mod bad_config;
/// nginx's balancer in Lua on its own: choosing, counting, ejecting, holding.
mod balancer;
/// Every kind of request through the balancer is counted, and to the end.
mod balancer_counts;
/// What an upstream without members answers and holds, in all that nginx speaks to upstreams.
mod balancer_empty;
mod balancer_members;
/// The balancer's processes are killed, reloaded and upgraded.
mod balancer_processes;
mod balancer_scene;
/// The upstreams of one nginx, set and confirmed as confsync does it.
mod balancer_upstreams;
/// What the chaos has in common.
mod chaos;
/// Several files for one nginx: all or nothing.
mod chaos_files;
/// confsync is killed at every step, nginx goes on.
mod chaos_kill;
/// etcd is stopped, wiped and restored under a load.
mod chaos_store;
/// Hostile values.
mod chaos_values;
/// `check --host` with HAProxy, and as a user who is not root.
mod check_host;
/// confd's command lines, confd.toml and resources, and what operators do with the subcommands.
mod confd_thousands;
mod confd_users;
/// Images, the tutorial's units with a real Docker, compose.
mod containers;
/// The documentation: its flags, what it names, no command that is never run.
mod docs;
/// The commands of the documentation, run.
mod docs_commands;
/// The documentation explains every line that the daemons log or report.
mod docs_lines;
/// Faults by a seeded plan, several at a time.
mod faults;
/// The tutorial with a real fleet.
mod fleet;
/// One change, followed through every log and status.
mod followed;
/// Man pages and completions, as the packages have them.
mod generated;
mod given_etcd;
/// Leaving when etcd is far away, full, or without a quorum.
mod handshake_etcd;
/// Leaving with two load balancers, of which one is in trouble.
mod handshake_lbs;
/// Two load balancers of one name, and one that comes back.
mod handshake_names;
/// Rolling restarts under load.
mod handshake_rolling;
/// The messages of the handshake: refusals, no-ops, bounds, signals, flags.
mod handshake_words;
/// The real HAProxy, by commands.
mod haproxy;
/// The real HAProxy, by name: checked, reloaded, proven.
mod haproxy_by_name;
/// confd's hazards about the daemon itself: health, SIGHUP, packaging, PID 1, one-shot runs.
mod hazards_daemon;
/// confd's hazards about files: durable, atomic, faithful, cleaned up after.
mod hazards_files;
/// Losses that are not certain: the guard.
mod hazards_guard;
/// Which keys are backends, settings, or our own.
mod hazards_keys;
/// confd's hazards about an nginx that is reloaded: what it runs is proven.
mod hazards_nginx;
/// confd's hazards about checks and reloads: pending until proven, bounded, together.
mod hazards_reload;
/// A service known by its commands, for scenarios where nginx is not the point.
mod hazards_setup;
/// confd's hazards about etcd: lost events, lost history, expired tokens, late starts.
mod hazards_store;
/// Files that another process writes too.
mod hazards_writers;
/// Both daemons with the rights of the manual, and with one too few.
mod least_rights;
/// Backends that change without a reload, end to end.
mod live;
/// Changes without a reload, while another process changes nginx, its files, its processes.
mod live_disturbed;
/// Processes are killed at random moments while backends come and go without a reload.
mod live_kill;
/// Changes without a reload, seen from outside.
mod live_seen;
/// The tutorial on machines with a real systemd.
mod machines;
/// The load balancer's unit when confsync is killed.
mod machines_killed;
/// A rolling restart of the units, one after the other.
mod machines_rolling;
/// The units when something is missing or wrong, and when they are to read files again.
mod machines_units;
/// What cannot be written to standard output.
mod nginx_asked;
/// The etcd of the tutorial's time.
mod old_etcd;
mod output;
/// The packages, installed and removed.
mod packages;
/// The page of confsync, in a real browser.
mod page;
/// The page of register, in a real browser.
mod page_register;
/// The page of confsync in states that last, wide and narrow, light and dark.
mod page_states;
/// The page of confsync when something is wrong, with the commands that it shows.
mod page_trouble;
/// etcd refuses us at the start, or a file is missing: waited for, and nothing ends.
mod refused;
/// `register`: keys, values, variables, mistakes, and the small subcommands.
mod register_commands;
/// `register`: what counts as healthy.
mod register_health;
/// `register`: lost leases, etcd away, restarted, wiped, restored.
mod register_lease;
/// `register`: the connections to a backend, where no load balancer acknowledges.
mod register_quiet;
/// `register`: two instances of one key, restarts, stops at any moment.
mod register_rivals;
/// `register`: many services in one process.
mod register_services;
mod register_setup;
/// `register`: the backend as its child.
mod register_supervises;
/// Both daemons without files, or without memory: nothing else is blamed, nothing changes.
mod starved;
/// What confsync supervises, whatever starts it and however it is notified of changes.
mod supervised;
/// What is served to machines: health, readiness, metrics; and that its docs are true.
mod surface;
/// What the surface says is known: of an ended nginx, of a refusal that is over.
mod surface_truth;
/// The walk of the tutorial, in both APIs, key for key.
mod tutorial;
/// The unit files that people copy.
mod units;
/// Both daemons together: backends die and come back, etcd goes away, processes are stopped.
mod whole;
/// The world around the daemons does what the scenarios trust in.
mod world;
