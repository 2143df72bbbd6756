//! The servers of a running worker, as it lists them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use common::model::{Endpoint, Host};

use super::answers::table;

pub(super) use crate::template::haproxy_server_name as server_name;

/// The servers that a backend should have, by name, with address and weight.
pub type ServersByName = BTreeMap<String, (SocketAddr, u16)>;

/// A server of `show servers state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunningServer {
    /// Its number in the backend.
    pub(super) id: u32,
    pub(super) name: String,
    /// Its address; `None` for a name or a socket.
    pub(super) address: Option<SocketAddr>,
    /// Its administrative state: 0 is ready.
    pub(super) admin: u32,
    /// Its present weight.
    pub(super) weight: u16,
}

/// The server is in maintenance by a command.
const FORCED_MAINTENANCE: u32 = 0x01;
/// The server is in maintenance: by a command, or by the configuration.
const MAINTENANCE: u32 = 0x01 | 0x02 | 0x04 | 0x20;
/// The states set by an operator, as opposed to a name that does not resolve.
const BY_OPERATOR: u32 = 0x01 | 0x04 | 0x08 | 0x10;

impl RunningServer {
    /// Whether it gets no new requests.
    pub(super) fn is_out(&self) -> bool {
        self.admin & MAINTENANCE != 0
    }

    /// Whether it has not been taken out of rotation.
    pub(super) fn is_ready(&self) -> bool {
        self.admin & (BY_OPERATOR | MAINTENANCE) == 0
    }

    /// The name of the member that it is for: its own, or what that begins with where the
    /// member came back before the requests of before were done.
    pub(super) fn member_name(&self) -> &str {
        member_of(&self.name)
    }

    /// As it is when it serves with this weight.
    pub(super) fn serving(&self, weight: u16) -> Self {
        Self { admin: 0, weight, ..self.clone() }
    }

    /// As it is when it was taken out.
    pub(super) fn in_maintenance(&self) -> Self {
        Self { admin: self.admin | FORCED_MAINTENANCE, ..self.clone() }
    }

    /// Whether it is one of those that we write: it is named by its address.
    pub(super) fn is_ours(&self) -> bool {
        let endpoint = self.address.and_then(|address| endpoint(address.ip(), address.port()));
        endpoint.is_some_and(|endpoint| server_name(&endpoint) == self.member_name())
    }

    /// Whether it serves this member as it is to be.
    fn is_serving(&self, name: &str, (address, weight): &(SocketAddr, u16)) -> bool {
        self.member_name() == name
            && self.address == Some(*address)
            && self.is_ready()
            && self.weight == *weight
    }
}

/// Separates a member's name and a number, in the name of a server for a member that
/// came back before the requests of before were done. No address has it, and HAProxy takes it.
pub(super) const AGAIN: char = '_';

/// The member that a server of this name is for.
pub(super) fn member_of(name: &str) -> &str {
    name.split_once(AGAIN).map_or(name, |(member, _)| member)
}

/// A name that none of these servers has, for a member of this name.
pub(super) fn free_name(name: &str, running: &[RunningServer]) -> String {
    let is_free = |candidate: &String| running.iter().all(|server| server.name != *candidate);
    let numbered = (1_u32..).map(|number| format!("{name}{AGAIN}{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(is_free).unwrap_or_default()
}

fn endpoint(ip: IpAddr, port: u16) -> Option<Endpoint> {
    let host = match ip {
        IpAddr::V4(ip) => Host::V4(ip),
        IpAddr::V6(ip) => Host::V6(ip),
    };
    Endpoint::new(host, port).ok()
}

/// The address of an endpoint, if it is one.
pub(super) fn address(endpoint: &Endpoint) -> Option<SocketAddr> {
    let ip = match endpoint.host() {
        Host::V4(ip) => IpAddr::V4(*ip),
        Host::V6(ip) => IpAddr::V6(*ip),
        Host::Name(_) => return None,
    };
    Some(SocketAddr::new(ip, endpoint.port()))
}

/// Parses `show servers state`; `None` if it is something else.
pub(super) fn servers(answer: &str) -> Option<Vec<RunningServer>> {
    let (column, lines) = table(answer)?;
    let id = column("srv_id")?;
    let name = column("srv_name")?;
    let (addr, port) = (column("srv_addr")?, column("srv_port")?);
    let (admin, weight) = (column("srv_admin_state")?, column("srv_uweight")?);
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip: Option<IpAddr> = words.get(addr)?.parse().ok();
        let port = words.get(port)?.parse().ok()?;
        Some(RunningServer {
            id: words.get(id)?.parse().ok()?,
            name: (*words.get(name)?).to_owned(),
            address: ip.map(|ip| SocketAddr::new(ip, port)),
            admin: words.get(admin)?.parse().ok()?,
            weight: words.get(weight)?.parse().ok()?,
        })
    };
    lines.map(read).collect()
}

/// The requests that a server has, and those queued for it, from `show stat`; `None` if the answer
/// does not contain that.
pub(super) fn in_flight(answer: &str, server: &str) -> Option<u64> {
    let (column, mut lines) = table(answer)?;
    let (name, current, queued) = (column("svname")?, column("scur")?, column("qcur")?);
    lines.find_map(|line| {
        let words: Vec<&str> = line.split(',').collect();
        if words.get(name) != Some(&server) {
            return None;
        }
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some(number(current)? + number(queued)?)
    })
}

/// The name and address of the server for an endpoint; `None` for a DNS name, which HAProxy
/// resolves when it starts.
pub fn member(endpoint: &Endpoint, weight: u16) -> Option<(String, (SocketAddr, u16))> {
    Some((server_name(endpoint), (address(endpoint)?, weight)))
}

/// The first server that a backend lacks or has too many, in words.
pub(super) fn difference(members: &ServersByName, running: &[RunningServer]) -> Option<String> {
    let mut serving = std::collections::BTreeSet::new();
    for server in running.iter().filter(|server| server.is_ours()) {
        let name = server.member_name();
        match members.get(name) {
            Some(member) if server.is_serving(name, member) && serving.insert(name) => {}
            _ if server.is_out() => {}
            Some(member) if server.weight != member.1 => {
                return Some(format!("server {} has weight {}", server.name, server.weight));
            }
            Some(_) if !server.is_ready() => {
                return Some(format!("server {} is not ready", server.name));
            }
            _ => return Some(format!("server {} is still used", server.name)),
        }
    }
    let missing = members.keys().find(|name| !serving.contains(name.as_str()));
    missing.map(|name| format!("server {name} is missing or not ready"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 apache 1 127.0.0.1:18081 127.0.0.1 2 0 5 10 44 6 3 4 6 0 0 0 - 18081 - 0 0 - - 0
3 apache 10 ::1:18083 ::1 0 1 3 3 36 6 3 4 6 0 0 1 - 18083 - 0 0 - - 0
3 apache 5 sorry 127.0.0.9 2 0 256 256 20 1 0 0 0 0 0 0 - 18083 - 0 0 - - 0";

    #[test]
    fn show_servers_state_as_recorded() {
        let read = servers(STATE).unwrap();
        let shown: Vec<_> = read
            .iter()
            .map(|s| (s.id, s.name.as_str(), s.weight, s.is_out(), s.is_ready(), s.is_ours()))
            .collect();
        assert_eq!(
            shown,
            [
                (1, "127.0.0.1:18081", 5, false, true, true),
                (10, "::1:18083", 3, true, false, true),
                (5, "sorry", 256, false, true, false),
            ]
        );
        assert_eq!(servers("Can't find backend."), None);
        let empty = STATE.lines().take(2).collect::<Vec<_>>().join("\n");
        assert_eq!(servers(&empty), Some(vec![]));
        assert_eq!(servers(&format!("{empty}\n3 apache x")), None, "half a line");
    }

    #[test]
    fn names_are_addresses() {
        for text in ["10.0.0.1:80", "[::1]:80"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(address(&endpoint).unwrap().to_string(), text);
            assert!(!server_name(&endpoint).contains(['[', ']']));
        }
        assert_eq!(address(&"web.example:80".parse().unwrap()), None);
    }

    #[test]
    fn what_is_in_flight_and_what_waits() {
        let answer = "# pxname,svname,qcur,qmax,scur,smax\napache,b,1,0,2,2\napache,bb,0,0,9,9\n";
        assert_eq!(in_flight(answer, "b"), Some(3));
        assert_eq!(in_flight(answer, "c"), None);
        assert_eq!(in_flight("No such proxy.", "b"), None);
    }

    fn server(name: &str, admin: u32, weight: u16) -> RunningServer {
        let (ip, port) = name.rsplit_once(':').unwrap();
        let address = Some(SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap()));
        RunningServer { id: 1, name: name.to_owned(), address, admin, weight }
    }

    #[test]
    fn what_differs_is_named() {
        let at = |text: &str, weight| (text.parse::<SocketAddr>().unwrap(), weight);
        let members: ServersByName = [
            ("10.0.0.1:80".to_owned(), at("10.0.0.1:80", 1)),
            ("::1:80".to_owned(), at("[::1]:80", 3)),
        ]
        .into();
        let good = || vec![server("10.0.0.1:80", 0, 1), server("::1:80", 0, 3)];
        assert_eq!(difference(&members, &good()), None);
        let foreign = RunningServer { name: "sorry".into(), ..server("9.9.9.9:9", 0, 1) };
        let with = |more: RunningServer| good().into_iter().chain([more]).collect::<Vec<_>>();
        assert_eq!(difference(&members, &with(foreign)), None);
        assert_eq!(difference(&members, &with(server("9.9.9.9:9", 1, 1))), None, "in maintenance");
        let again = RunningServer { name: "10.0.0.1:80_1".into(), ..server("10.0.0.1:80", 0, 1) };
        let gone = vec![server("10.0.0.1:80", 1, 1), server("::1:80", 0, 3), again.clone()];
        assert_eq!(difference(&members, &gone), None, "it came back as another server");
        assert_eq!(free_name("10.0.0.1:80", &gone), "10.0.0.1:80_2");
        assert_eq!(free_name("10.0.0.2:80", &gone), "10.0.0.2:80");
        let twice = difference(&members, &with(again)).unwrap();
        assert_eq!(twice, "server 10.0.0.1:80_1 is still used");
        let stays = difference(&members, &with(server("9.9.9.9:9", 0, 1))).unwrap();
        assert_eq!(stays, "server 9.9.9.9:9 is still used");
        for (change, words) in [
            (server("10.0.0.1:80", 8, 1), "not ready"),
            (server("10.0.0.1:80", 0, 2), "has weight 2"),
        ] {
            let running = vec![change, server("::1:80", 0, 3)];
            assert!(difference(&members, &running).unwrap().contains(words));
        }
        assert!(difference(&members, &good()[..1]).unwrap().contains("::1:80 is missing"));
        let out = vec![server("10.0.0.1:80", 1, 1), server("::1:80", 0, 3)];
        assert!(difference(&members, &out).unwrap().contains("10.0.0.1:80 is missing"));
    }
}
