//! The kernel's table of TCP sockets, as text in `/proc/self/net`.

use std::fs;

/// The tables of IPv4 and IPv6. Those of the process itself are there also where the rest of
/// `/proc` is hidden.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TcpSocket {
    /// Its own address, as the kernel writes it.
    pub(super) address: String,
    pub(super) port: u16,
    /// The address of the other side, as the kernel writes it.
    pub(super) peer: String,
    /// The port of the other side.
    pub(super) peer_port: u16,
    /// Whether the process behind it may still read or write.
    pub(super) open: bool,
    /// Whether it waits for connections.
    pub(super) listens: bool,
}

impl TcpSocket {
    pub(super) fn as_open(&self, open: bool) -> Self {
        Self { open, ..self.clone() }
    }
}

pub(super) fn read() -> Result<Vec<TcpSocket>, String> {
    let mut all = Vec::new();
    let mut failed = None;
    for table in TABLES {
        match fs::read_to_string(table) {
            Ok(text) => all.extend(text.lines().skip(1).filter_map(parse)),
            // A kernel without IPv6 has one table.
            Err(error) => failed = Some(format!("cannot read {table}: {error}")),
        }
    }
    match failed {
        Some(why) if all.is_empty() => Err(why),
        _ => Ok(all),
    }
}

/// `0: 0100007F:1F90 0100007F:C350 01 …`: number, local, remote, state.
fn parse(line: &str) -> Option<TcpSocket> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let port = |text: &str| u16::from_str_radix(text, 16).ok();
    let (address, own_port) = local.split_once(':')?;
    let (peer, peer_port) = remote.split_once(':')?;
    Some(TcpSocket {
        address: address.to_owned(),
        port: port(own_port)?,
        peer: peer.to_owned(),
        peer_port: port(peer_port)?,
        // Established, being accepted, or closed by the other side alone.
        open: ["01", "03", "08", "0C"].contains(&state),
        listens: state == "0A",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = "  12: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 0 0";
        let wanted = TcpSocket {
            address: "0100007F".into(),
            port: 8080,
            peer: "0200007F".into(),
            peer_port: 50000,
            open: true,
            listens: false,
        };
        assert_eq!(parse(line), Some(wanted));
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
        let v6 =
            "0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A";
        assert!(parse(v6).is_some_and(|socket| socket.listens && socket.port == 80));
    }
}
