//! The traffic of a running HAProxy's servers, for the status page: `show stat`.

use std::net::SocketAddr;

use super::Haproxy;
use super::answers::table;
use super::command::RuntimeCommand;
use super::servers::{RunningServer, member, member_of};
use crate::proxy::pools::MemberTraffic;

/// The servers that we write, of all backends, and those that left and still have requests; `None`
/// where HAProxy does not answer.
pub async fn traffic(haproxy: &Haproxy) -> Option<Vec<MemberTraffic>> {
    let socket = haproxy.runtime_socket().await.ok()?;
    read(&socket.ask(&RuntimeCommand::AllCounters).await.ok()?)
}

/// Reads `show stat`; `None` if it is something else.
fn read(answer: &str) -> Option<Vec<MemberTraffic>> {
    let (column, lines) = table(answer)?;
    let (pool, server, addr) = (column("pxname")?, column("svname")?, column("addr")?);
    let (current, queued) = (column("scur")?, column("qcur")?);
    let (total, connect, response) = (column("stot")?, column("econ")?, column("eresp")?);
    let status = column("status")?;
    let one = |line: &str| {
        let words = fields(line);
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let addr = addr_of_ours(words.get(server)?, words.get(addr)?)?;
        let in_flight = number(current)? + number(queued).unwrap_or(0);
        let leaving = words.get(status)?.starts_with("MAINT");
        (!leaving || in_flight > 0).then_some(MemberTraffic {
            pool: words.get(pool)?.clone(),
            addr,
            leaving,
            in_flight: Some(in_flight),
            requests: number(total)?,
            failures: number(connect).unwrap_or(0) + number(response).unwrap_or(0),
            ejected: words.get(status)?.starts_with("DOWN"),
        })
    };
    Some(lines.filter_map(one).collect())
}

/// Whether the answer to `show stat` shows this server as it is here: where, with which weight, and
/// whether it takes requests.
pub(super) fn shows(answer: &str, server: &RunningServer) -> bool {
    let row = || {
        let (column, lines) = table(answer)?;
        let (name, status) = (column("svname")?, column("status")?);
        let (addr, weight) = (column("addr")?, column("uweight")?);
        let row = lines.map(fields).find(|row| row.get(name) == Some(&server.name))?;
        Some((row.get(status)?.clone(), row.get(addr)?.parse().ok(), row.get(weight)?.parse().ok()))
    };
    let Some((status, address, weight)) = row() else { return false };
    let is_out = status.starts_with("MAINT");
    let is_ready = !is_out && !status.starts_with("DRAIN");
    (is_out, is_ready) == (server.is_out(), server.is_ready())
        && address == server.address
        && weight == Some(server.weight)
}

/// Where a server is whose name is its address: one of those that we write.
fn addr_of_ours(name: &str, addr: &str) -> Option<String> {
    let at: SocketAddr = addr.parse().ok()?;
    let endpoint = at.to_string().parse().ok()?;
    (member(&endpoint, 1)?.0 == member_of(name)).then(|| endpoint.to_string())
}

/// The fields of a line of CSV as HAProxy writes it: quoted where there is a comma in one.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 2.6, shortened.
    const ANSWER: &str = "\
# pxname,svname,qcur,scur,stot,econ,eresp,status,last_chk,addr,
app,127.0.0.1:1,0,0,7,3,1,DOWN,\"a, \"\"b\"\"\",127.0.0.1:1,
app,::1:80,1,2,4,,0,no check,,[::1]:80,
app,10.0.0.1:80,0,1,9,0,0,MAINT,,10.0.0.1:80,
app,10.0.0.2:80,0,0,9,0,0,MAINT,,10.0.0.2:80,
app,fixed,0,1,9,0,0,UP,,10.0.0.3:80,

";

    /// Of 2.6, shortened.
    const ONE: &str = "\
# pxname,svname,status,weight,sid,addr,uweight,
app,127.0.0.1:1,no check,7,1,127.0.0.1:1,7,

";

    #[test]
    fn one_server_is_as_it_is_to_be() {
        let (name, address) = ("127.0.0.1:1".to_owned(), "127.0.0.1:1".parse().ok());
        let good = RunningServer { id: 1, name, address, admin: 0, weight: 7 };
        assert!(shows(ONE, &good));
        assert!(shows(&ONE.replace("no check", "UP 1/3"), &good));
        assert!(shows(&ONE.replace("no check", "MAINT"), &good.in_maintenance()));
        for (answer, server) in [
            (ONE, &good.serving(8)),
            (ONE, &good.in_maintenance()),
            (&ONE.replace("no check", "MAINT"), &good),
            (&ONE.replace("no check", "DRAIN"), &good),
            (&ONE.replace(",127.0.0.1:1,7", ",127.0.0.1:2,7"), &good),
            (&ONE.replace(",uweight", ",x"), &good),
            (ONE.lines().next().unwrap(), &good),
            ("No such server.", &good),
            ("", &good),
        ] {
            assert!(!shows(answer, server), "{answer} {server:?}");
        }
    }

    #[test]
    fn show_stat_as_recorded() {
        let read = read(ANSWER).unwrap();
        let one = |t: &MemberTraffic| (t.addr.clone(), t.in_flight, t.requests, t.failures);
        let all: Vec<_> = read.iter().map(one).collect();
        let expected = [
            ("127.0.0.1:1".into(), Some(0), 7, 4),
            ("[::1]:80".into(), Some(3), 4, 0),
            ("10.0.0.1:80".into(), Some(1), 9, 0),
        ];
        assert_eq!(all, expected, "no foreign server, none in maintenance without requests");
        assert_eq!([read[0].ejected, read[1].ejected], [true, false]);
        assert_eq!([read[1].leaving, read[2].leaving], [false, true]);
        assert_eq!(super::read("Permission denied"), None);
    }
}
