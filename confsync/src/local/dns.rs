//! SRV records, the one look-up that the standard library does not offer.
//!
//! hickory-resolver asks the servers of `/etc/resolv.conf`; nothing is cached between look-ups.
//! Which server is asked for which name, and in which order, is decided here, because an empty
//! answer empties a file. The invariant: "no such name" is the answer of the first server that
//! responds, and counts only if none of the names failed. (The crate asks two servers at once and
//! takes the faster, and its search forgets a failure when the next name does not exist.)

use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::time::timeout;

/// The servers of a service, unordered; none when the name does not exist.
///
/// # Errors
/// When the name is none, or no resolver gives an answer in time.
pub(super) fn lookup(name: &str, patience: Duration) -> Result<Vec<SRV>, NetError> {
    let work = || {
        let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let (config, options) = configuration(&conf)?;
        let resolver = Resolver::new(config, &options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(resolver.find(name, patience))
    };
    // The caller's thread may belong to a runtime, inside of which no other can run.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().unwrap_or(Err(NetError::Message("the resolver panicked")))
    })
}

/// The settings of `resolv.conf`; without a server there, the local machine is asked.
fn configuration(conf: &str) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    parse_resolv_conf(conf)
        .or_else(|_| parse_resolv_conf(format!("{conf}\nnameserver 127.0.0.1\n")))
}

/// The servers to ask, and the suffixes for short names.
struct Resolver {
    /// One for each server.
    servers: Vec<TokioResolver>,
    search: Vec<Name>,
    dots: usize,
}

impl Resolver {
    fn new(config: ResolverConfig, options: &ResolverOpts) -> Result<Self, NetError> {
        let (_, search, servers) = config.into_parts();
        let alone = |server| {
            let config = ResolverConfig::from_name_servers(vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options.clone())
                .build()
        };
        let servers = servers.into_iter().map(alone).collect::<Result<_, _>>()?;
        Ok(Self { servers, search, dots: options.ndots })
    }

    /// The full names to try, in order.
    fn names(&self, name: &str) -> Result<Vec<Name>, NetError> {
        let name = Name::from_str_relaxed(name)?;
        if name.num_labels() == 0 {
            return Err(NetError::Message("not a DNS name"));
        }
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        let whole = name.clone().append_domain(&Name::root())?;
        let at = if usize::from(name.num_labels()) > self.dots { 0 } else { self.search.len() };
        let names = self.search.iter().map(|domain| name.clone().append_domain(domain));
        let mut names = names.collect::<Result<Vec<_>, _>>()?;
        names.insert(at, whole);
        Ok(names)
    }

    async fn find(&self, name: &str, patience: Duration) -> Result<Vec<SRV>, NetError> {
        let names = self.names(name)?;
        // A server that does not answer must leave time for the next.
        let share = patience / u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(1);
        let mut trouble = NetError::NoConnections;
        for server in &self.servers {
            match timeout(share, ask(server, &names)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => trouble = error,
                Err(_) => trouble = NetError::Timeout,
            }
        }
        Err(trouble)
    }
}

/// The records of the first name that has some.
async fn ask(server: &TokioResolver, names: &[Name]) -> Result<Vec<SRV>, NetError> {
    let mut trouble = None;
    for name in names {
        let answer = match server.srv_lookup(name.clone()).await {
            Ok(answer) => answer,
            Err(error) if is_none(&error) => continue,
            Err(error) => {
                trouble = Some(error);
                continue;
            }
        };
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(record) => Some(record.clone()),
            _ => None,
        });
        let records: Vec<SRV> = records.collect();
        if !records.is_empty() {
            return Ok(records);
        }
    }
    trouble.map_or(Ok(Vec::new()), Err)
}

/// Whether the name, or a record of this kind, does not exist.
fn is_none(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return false };
    matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::config::NameServerConfig;
    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::Record;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const NONE: Says = Ok(0);
    const FAILS: Says = Err(ResponseCode::ServFail);

    /// How many records a name has, or how asking for it fails.
    type Says = Result<u16, ResponseCode>;

    /// What a name server knows. Other names do not exist.
    type Zone = &'static [(&'static str, Says)];

    fn answer(zone: Zone, query: &[u8]) -> Message {
        let query = Message::from_vec(query).unwrap();
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.add_queries(query.queries.clone());
        let asked = query.queries[0].name();
        let known = zone.iter().find(|(name, _)| *asked == Name::from_ascii(name).unwrap());
        match known.map_or(Err(ResponseCode::NXDomain), |(_, says)| *says) {
            Err(code) => answer.metadata.response_code = code,
            Ok(count) => {
                for port in 1..=count {
                    let target = Name::from_ascii("h.example.").unwrap();
                    let data = RData::SRV(SRV::new(1, 5, port, target));
                    answer.add_answer(Record::from_rdata(asked.clone(), 60, data));
                }
            }
        }
        answer
    }

    /// A name server that needs TCP for what does not fit into a datagram.
    async fn name_server(zone: Zone) -> NameServerConfig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query).await {
                let answer = answer(zone, &query[..len]);
                let whole = answer.to_vec().unwrap();
                let cut = answer.truncate().to_vec().unwrap();
                let bytes = if whole.len() > 512 { cut } else { whole };
                socket.send_to(&bytes, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut query = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut query).await.unwrap();
            let bytes = answer(zone, &query).to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
        at(address.port())
    }

    fn at(port: u16) -> NameServerConfig {
        let mut server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        server.connections.iter_mut().for_each(|connection| connection.port = port);
        server
    }

    /// What these servers say to a name, with `resolv.conf`'s other lines.
    async fn find(
        servers: Vec<NameServerConfig>,
        conf: &str,
        name: &str,
    ) -> Result<Vec<SRV>, NetError> {
        let (config, options) = configuration(conf).unwrap();
        let (_, search, _) = config.into_parts();
        let config = ResolverConfig::from_parts(None, search, servers);
        let resolver = Resolver::new(config, &options).unwrap();
        resolver.find(name, PATIENCE).await
    }

    #[tokio::test]
    async fn records_are_found_also_those_that_need_tcp() {
        let zone: Zone = &[("_a._tcp.web.", Ok(1)), ("_b._tcp.web.", Ok(100))];
        let server = name_server(zone).await;
        let found = find(vec![server.clone()], "", "_A._tcp.WEB").await.unwrap();
        assert_eq!(found, [SRV::new(1, 5, 1, Name::from_ascii("h.example.").unwrap())]);
        // As Go prints it.
        assert_eq!(found[0].target.to_ascii(), "h.example.");
        assert_eq!(find(vec![server], "", "_b._tcp.web").await.unwrap().len(), 100);
    }

    #[tokio::test]
    async fn nothing_is_no_failure_and_a_failure_is_not_nothing() {
        let zone: Zone = &[("none.", NONE), ("fails.", FAILS), ("fails.a.", FAILS)];
        let server = || name_server(zone);
        assert_eq!(find(vec![server().await], "", "missing").await.unwrap().len(), 0);
        assert_eq!(find(vec![server().await], "", "none").await.unwrap().len(), 0);
        let error = find(vec![server().await], "", "fails").await.unwrap_err();
        assert!(error.to_string().contains("Server Failure"), "{error}");
        // A name after it that does not exist says nothing of the one that failed.
        assert!(find(vec![server().await], "search a b", "fails").await.is_err());
        assert!(find(vec![server().await], "search b a", "fails").await.is_err());
    }

    #[tokio::test]
    async fn the_search_list_is_used() {
        let zone: Zone = &[("_x._tcp.web.b.", Ok(2)), ("_x._tcp.web.a.", FAILS)];
        let server = name_server(zone).await;
        let conf = "search a b\noptions ndots:5\n";
        assert_eq!(find(vec![server.clone()], conf, "_x._tcp.web").await.unwrap().len(), 2);
        assert_eq!(find(vec![server], conf, "_x._tcp.web.").await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn the_first_server_s_answer_counts_and_the_next_is_asked_when_it_has_none() {
        let knows = name_server(&[("x.", Ok(3))]).await;
        let knows_not = name_server(&[]).await;
        let fails = name_server(&[("x.", FAILS)]).await;
        assert_eq!(find(vec![knows_not, knows.clone()], "", "x").await.unwrap().len(), 0);
        assert_eq!(find(vec![fails, knows], "", "x").await.unwrap().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = at(silent.local_addr().unwrap().port());
        let begun = tokio::time::Instant::now();
        let error = find(vec![server.clone(), server], "search a b c", "x").await.unwrap_err();
        assert!(matches!(error, NetError::Timeout), "{error}");
        assert!(begun.elapsed() <= PATIENCE + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_leaves_time_for_the_next() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = at(silent.local_addr().unwrap().port());
        let knows = name_server(&[("x.", Ok(3))]).await;
        assert_eq!(find(vec![server, knows], "", "x").await.unwrap().len(), 3);
    }

    #[test]
    fn resolv_conf_is_read() {
        let resolver = |conf: &str| {
            let (config, options) = configuration(conf).unwrap();
            Resolver::new(config, &options).unwrap()
        };
        let names = |resolver: &Resolver, name: &str| -> Vec<String> {
            resolver.names(name).unwrap().iter().map(Name::to_ascii).collect()
        };
        let full =
            resolver("# x\nnameserver 10.0.0.1\nnameserver bad\nsearch a b.\noptions ndots:2\n");
        assert_eq!(full.servers.len(), 1);
        assert_eq!(names(&full, "x.y"), ["x.y.a.", "x.y.b.", "x.y."]);
        assert_eq!(names(&full, "x.y.z"), ["x.y.z.", "x.y.z.a.", "x.y.z.b."]);
        assert_eq!(names(&full, "x."), ["x."]);
        let (config, _) = configuration("").unwrap();
        assert_eq!(config.name_servers()[0].ip, Ipv4Addr::LOCALHOST);
        assert_eq!(names(&resolver(""), "x"), ["x."]);
    }

    #[test]
    fn a_name_that_no_message_can_carry_is_refused() {
        let long = "x".repeat(64);
        for name in ["", ".", "a..b", ".a", "a b", "a\0", &long, &"x.".repeat(128)] {
            let (config, options) = configuration("").unwrap();
            let resolver = Resolver::new(config, &options).unwrap();
            assert!(resolver.names(name).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_thread_inside_a_runtime_may_ask() {
        assert!(lookup("a..b", PATIENCE).is_err());
    }
}
