//! The one question the standard library cannot ask a resolver: SRV records.
//!
//! Speaks to the servers of `/etc/resolv.conf` over UDP, and over TCP when the answer
//! does not fit. Pure apart from `ask`: `query` and `records` turn names to bytes and
//! bytes to records. Source: RFC 1035, RFC 2782.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const SRV: u16 = 33;
const INTERNET: u16 = 1;

/// One server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) target: String,
    pub(super) port: u16,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

/// What a resolver said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Records(Vec<Record>),
    /// The name, or a record of this kind, does not exist.
    Nothing,
    /// Longer than a datagram.
    Truncated,
}

/// Whom to ask, and what to append to short names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolver {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Resolver {
    /// Reads `resolv.conf`; without a server there it is this machine's.
    pub(super) fn parse(text: &str) -> Self {
        let mut resolver = Self { servers: Vec::new(), search: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    resolver.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.find_map(|w| w.strip_prefix("ndots:")?.parse().ok());
                    resolver.dots = dots.unwrap_or(resolver.dots);
                }
                _ => {}
            }
        }
        if resolver.servers.is_empty() {
            resolver.servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        resolver
    }

    /// The full names to try, in order.
    fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|s| format!("{name}.{}.", s.trim_end_matches('.'))).collect();
        let whole = format!("{name}.");
        let at = if name.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(at, whole);
        names
    }

    /// The servers of a service, in no order; none when the name does not exist.
    ///
    /// # Errors
    /// When no resolver gives an answer in time.
    pub(super) fn lookup(&self, name: &str, deadline: Instant) -> io::Result<Vec<Record>> {
        let mut trouble = None;
        for name in self.names(name) {
            for server in &self.servers {
                match ask(*server, &name, deadline) {
                    Ok(Answer::Records(records)) => return Ok(records),
                    Ok(_) => break,
                    Err(error) => trouble = Some(error),
                }
            }
        }
        trouble.map_or(Ok(Vec::new()), Err)
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn ask(server: SocketAddr, name: &str, deadline: Instant) -> io::Result<Answer> {
    let id = fastrand::u16(..);
    let question = query(id, name).ok_or(io::ErrorKind::InvalidInput)?;
    let local: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.send(&question)?;
    let mut buffer = [0; 4096];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let size = socket.recv(&mut buffer)?;
        // A stray datagram is no answer; wait on.
        match records(id, buffer.get(..size).unwrap_or_default()) {
            Some(Ok(Answer::Truncated)) => return ask_stream(server, id, &question, deadline),
            Some(answer) => return answer,
            None => {}
        }
    }
}

fn ask_stream(
    server: SocketAddr,
    id: u16,
    question: &[u8],
    deadline: Instant,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_read_timeout(Some(left(deadline)?))?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let size = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&size.to_be_bytes())?;
    stream.write_all(question)?;
    let mut size = [0; 2];
    stream.read_exact(&mut size)?;
    let mut bytes = vec![0; u16::from_be_bytes(size).into()];
    stream.read_exact(&mut bytes)?;
    records(id, &bytes).unwrap_or_else(|| Err(io::ErrorKind::InvalidData.into()))
}

/// A question; nothing for a name that no message can carry.
fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // One question, recursion wanted.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..64).contains(n))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    for word in [SRV, INTERNET] {
        bytes.extend(word.to_be_bytes());
    }
    (bytes.len() <= 271).then_some(bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The name at a place, and where what follows it begins.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut end = None;
    // A name may point to another; more jumps than this are a circle.
    for _ in 0..128 {
        let length = usize::from(*bytes.get(at)?);
        if length == 0 {
            return Some((text, end.unwrap_or(at + 1)));
        }
        if length >= 0xC0 {
            end.get_or_insert(at + 2);
            at = usize::from(word(bytes, at)? & 0x3FFF);
            continue;
        }
        let label = bytes.get(at + 1..at + 1 + length)?;
        text.push_str(&String::from_utf8_lossy(label));
        text.push('.');
        at += 1 + length;
    }
    None
}

/// What a message answers, if it is the answer to this question.
fn records(id: u16, bytes: &[u8]) -> Option<io::Result<Answer>> {
    let flags = word(bytes, 2)?;
    if word(bytes, 0)? != id || flags & 0x8000 == 0 {
        return None;
    }
    Some(match flags & 0xF {
        _ if flags & 0x0200 != 0 => Ok(Answer::Truncated),
        0 => body(bytes).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        3 => Ok(Answer::Nothing),
        code => Err(io::Error::other(format!("the resolver answers with code {code}"))),
    })
}

fn body(bytes: &[u8]) -> Option<Answer> {
    let (questions, answers) = (word(bytes, 4)?, word(bytes, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name(bytes, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = name(bytes, at)?.1;
        let (kind, length) = (word(bytes, at)?, usize::from(word(bytes, at + 8)?));
        let data = at + 10;
        if kind == SRV {
            let (priority, weight) = (word(bytes, data)?, word(bytes, data + 2)?);
            let (port, target) = (word(bytes, data + 4)?, name(bytes, data + 6)?.0);
            found.push(Record { target, port, priority, weight });
        }
        at = data + length;
    }
    Some(if found.is_empty() { Answer::Nothing } else { Answer::Records(found) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The question's bytes turned into an answer with one record, its target
    /// pointing back into the question.
    fn answer(question: &[u8], code: u8) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2] = 0x81;
        bytes[3] = 0x80 | code;
        if code == 0 {
            bytes[7] = 1;
            bytes.extend([0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10]);
            bytes.extend([0, 1, 0, 5, 0x1F, 0x90, 1, b'h', 0xC0, 18]);
        }
        bytes
    }

    #[test]
    fn a_resolver_s_answer_is_read() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver = Resolver {
            servers: vec![server.local_addr().unwrap()],
            search: vec!["example".into()],
            dots: 5,
        };
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            for code in [3, 0] {
                let (size, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(b"noise", from).unwrap();
                server.send_to(&answer(&buffer[..size], code), from).unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let found = resolver.lookup("_http._tcp.web", deadline).unwrap();
        thread.join().unwrap();
        let want = Record { target: "h._tcp.web.".into(), port: 8080, priority: 1, weight: 5 };
        assert_eq!(found, [want]);
    }

    #[test]
    fn resolv_conf_is_read() {
        let resolver = Resolver::parse(
            "# x\nnameserver 10.0.0.1\nnameserver bad\nsearch a b.\noptions ndots:2\n",
        );
        assert_eq!(resolver.servers, ["10.0.0.1:53".parse().unwrap()]);
        assert_eq!(resolver.names("x.y"), ["x.y.a.", "x.y.b.", "x.y."]);
        assert_eq!(resolver.names("x.y.z"), ["x.y.z.", "x.y.z.a.", "x.y.z.b."]);
        assert_eq!(resolver.names("x."), ["x."]);
        assert_eq!(Resolver::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn any_message_is_an_answer_or_none(mut bytes: Vec<u8>, id: u16) {
            if let Some(start) = bytes.get_mut(..4) {
                start[..2].copy_from_slice(&id.to_be_bytes());
                start[2] = 0x81;
                start[3] &= 0xF0;
            }
            let _ = records(id, &bytes);
        }

        #[test]
        fn any_name_is_asked_or_refused(name: String) {
            let _ = query(1, &name);
        }
    }
}
