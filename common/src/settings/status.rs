//! Where status is served, and under which names it may be asked.

use super::{Reader, Setting};
use crate::runtime::{AllowedHosts, ListenAddress, StatusServer};

/// `--listen`, read from these variables as well, the first of them first.
pub const fn listen(
    env: &'static str,
    older_env: &'static [&'static str],
    help: &'static str,
) -> Setting {
    Setting::new("listen", env, "ADDR", help)
        .details(
            "host:port, :port for every address of this machine, or unix:/run/NAME.sock with the \
             mode of the socket, as in unix:/run/NAME.sock,mode=660.",
        )
        .also_from(older_env)
        .formerly(&["status"])
}

/// `--allow-host`, read from this variable as well.
pub const fn allow_host(env: &'static str) -> Setting {
    Setting::new(
        "allow_host",
        env,
        "NAME",
        "A host name that requests to --listen may use, besides addresses and local names",
    )
    .details(
        "Without this, a web page could read the status through a browser that can reach it, \
         under a domain of the page's own.",
    )
    .list()
}

/// The server that these settings ask for.
pub fn read(from: &mut Reader<'_>, listen: &Setting, allow_host: &Setting) -> Option<StatusServer> {
    let names = from.get_all(allow_host, |name| Ok::<_, String>(name.to_owned()));
    let address = from.get(listen, str::parse::<ListenAddress>)?;
    Some(StatusServer { address, hosts: AllowedHosts::new(names) })
}
