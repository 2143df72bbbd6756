//! What the servers of a running HAProxy have had and have, for whoever watches: `show stat`.

use std::net::SocketAddr;

use super::command::RuntimeCommand;
use super::servers::{AGAIN, member};
use super::{Haproxy, RuntimeError};
use crate::proxy::pools::MemberTraffic;

/// The servers that we write, of all backends, and those that left and still have requests.
///
/// # Errors
/// When HAProxy does not answer.
pub async fn traffic(haproxy: &Haproxy) -> Result<Vec<MemberTraffic>, RuntimeError> {
    let socket = haproxy.runtime_socket().await?;
    let answer = socket.ask(&RuntimeCommand::AllCounters).await;
    let answer = answer.map_err(|error| RuntimeError::Retry(error.to_string()))?;
    read(&answer).ok_or_else(|| RuntimeError::Retry("`show stat` is not understood".into()))
}

/// Reads `show stat`; `None` if it is something else. The columns are found by their names.
fn read(answer: &str) -> Option<Vec<MemberTraffic>> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with("# "));
    let names = fields(lines.next()?.trim_start_matches("# "));
    let column = |name: &str| names.iter().position(|known| known == name);
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

/// Where a server is whose name is its address: one of those that we write.
fn addr_of_ours(name: &str, addr: &str) -> Option<String> {
    let at: SocketAddr = addr.parse().ok()?;
    let endpoint = at.to_string().parse().ok()?;
    let member_name = name.split_once(AGAIN).map_or(name, |(name, _)| name);
    (member(&endpoint, 1)?.0 == member_name).then(|| endpoint.to_string())
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
        assert_eq!(all, expected, "no server of somebody else, none in maintenance at rest");
        assert_eq!([read[0].ejected, read[1].ejected], [true, false]);
        assert_eq!([read[1].leaving, read[2].leaving], [false, true]);
        assert_eq!(super::read("Permission denied"), None);
    }
}
