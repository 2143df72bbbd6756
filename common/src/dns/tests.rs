use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::SRV;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);
const NONE: Says = Ok(0);
const FAILS: Says = Err(ResponseCode::ServFail);

/// How many records a name has, or how asking for it fails.
type Says = Result<u16, ResponseCode>;

/// What a name server says to one name.
pub(crate) type Answer = Result<Vec<SRV>, ResponseCode>;

pub(crate) fn record(priority: u16, port: u16, target: &str) -> SRV {
    SRV::new(priority, 5, port, Name::from_ascii(target).unwrap())
}

fn message(query: &[u8], says: &impl Fn(&Name) -> Answer) -> Message {
    let query = Message::from_vec(query).unwrap();
    assert!(query.metadata.recursion_desired);
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_queries(query.queries.clone());
    let asked = query.queries[0].name();
    match says(asked) {
        Err(code) => answer.metadata.response_code = code,
        Ok(records) => {
            for record in records {
                answer.add_answer(Record::from_rdata(asked.clone(), 60, RData::SRV(record)));
            }
        }
    }
    answer
}

/// A name server that needs TCP for what does not fit into a datagram. Before each answer come a
/// datagram that is none, and the answer to another question.
pub(crate) async fn name_server(
    says: impl Fn(&Name) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let says = Arc::new(says);
    let by_stream = says.clone();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut query).await {
            let answer = message(&query[..len], &*says);
            let mut other = answer.clone();
            other.metadata.id = other.metadata.id.wrapping_add(1);
            let whole = answer.to_vec().unwrap();
            let cut = answer.truncate().to_vec().unwrap();
            let bytes = if whole.len() > 512 { cut } else { whole };
            for bytes in [vec![0; 3], other.truncate().to_vec().unwrap(), bytes] {
                socket.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut query = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut query).await.unwrap();
        let bytes = message(&query, &*by_stream).to_vec().unwrap();
        stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    address
}

/// How many records a name has, or how asking for it fails. Other names do not exist.
async fn zone(names: &'static [(&'static str, Says)]) -> SocketAddr {
    let known = |asked: &Name| {
        names.iter().find(|(name, _)| *asked == Name::from_ascii(name).unwrap()).map(|it| it.1)
    };
    name_server(move |asked| {
        let count = known(asked).unwrap_or(Err(ResponseCode::NXDomain))?;
        Ok((1..=count).map(|port| record(1, port, "h.example.")).collect())
    })
    .await
}

/// What these servers say to a name, with `resolv.conf`'s other lines.
async fn find(
    servers: Vec<SocketAddr>,
    conf: &str,
    name: &str,
) -> Result<Vec<ServiceRecord>, LookupError> {
    Resolver::new(conf.as_bytes()).with_servers(servers).services(name, PATIENCE).await
}

#[tokio::test]
async fn records_are_found_also_those_that_need_tcp() {
    let server = zone(&[("_a._tcp.web.", Ok(1)), ("_b._tcp.web.", Ok(100))]).await;
    let found = find(vec![server], "", "_A._tcp.WEB").await.unwrap();
    // The target as Go prints it.
    let target = "h.example.".to_owned();
    assert_eq!(found, [ServiceRecord { target, port: 1, priority: 1, weight: 5 }]);
    assert_eq!(find(vec![server], "", "_b._tcp.web").await.unwrap().len(), 100);
}

#[tokio::test]
async fn nothing_is_no_failure_and_a_failure_is_not_nothing() {
    let server = zone(&[("none.", NONE), ("fails.", FAILS), ("fails.a.", FAILS)]).await;
    assert_eq!(find(vec![server], "", "missing").await.unwrap().len(), 0);
    assert_eq!(find(vec![server], "", "none").await.unwrap().len(), 0);
    let error = find(vec![server], "", "fails").await.unwrap_err();
    assert!(error.to_string().contains("Server Failure"), "{error}");
    // A name after it that does not exist says nothing of the one that failed.
    assert!(find(vec![server], "search a b", "fails").await.is_err());
    assert!(find(vec![server], "search b a", "fails").await.is_err());
}

#[tokio::test]
async fn the_search_list_is_used() {
    let server = zone(&[("_x._tcp.web.b.", Ok(2)), ("_x._tcp.web.a.", FAILS)]).await;
    let conf = "search a b\noptions ndots:5\n";
    assert_eq!(find(vec![server], conf, "_x._tcp.web").await.unwrap().len(), 2);
    assert_eq!(find(vec![server], conf, "_x._tcp.web.").await.unwrap().len(), 0);
}

#[tokio::test]
async fn the_first_server_s_answer_counts_and_the_next_is_asked_when_it_has_none() {
    let knows = zone(&[("x.", Ok(3))]).await;
    let knows_not = zone(&[]).await;
    let fails = zone(&[("x.", FAILS)]).await;
    let nobody = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    assert_eq!(find(vec![knows_not, knows], "", "x").await.unwrap().len(), 0);
    assert_eq!(find(vec![fails, nobody, knows], "", "x").await.unwrap().len(), 3);
    let error = find(vec![fails, nobody], "", "x").await.unwrap_err();
    assert!(matches!(error, LookupError::Unreachable(server, _) if server == nobody), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = silent.local_addr().unwrap();
    let begun = tokio::time::Instant::now();
    let error = find(vec![server, server], "search a b c", "x").await.unwrap_err();
    assert!(matches!(error, LookupError::Timeout), "{error}");
    assert!(begun.elapsed() <= PATIENCE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_leaves_time_for_the_next() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let knows = zone(&[("x.", Ok(3))]).await;
    let servers = vec![silent.local_addr().unwrap(), knows];
    assert_eq!(find(servers, "", "x").await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_datagram_is_sent_again() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let answers = async {
        let mut query = [0; 512];
        socket.recv_from(&mut query).await.unwrap();
        let (len, from) = socket.recv_from(&mut query).await.unwrap();
        let answer = message(&query[..len], &|_: &Name| Ok(vec![record(1, 80, "h.example.")]));
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    };
    let (found, ()) = tokio::join!(find(vec![server], "", "x."), answers);
    assert_eq!(found.unwrap().len(), 1);
}

#[test]
fn resolv_conf_is_read() {
    let resolver = |conf: &str| Resolver::new(conf.as_bytes());
    let names = |resolver: &Resolver, name: &str| -> Vec<String> {
        resolver.names(name).unwrap().iter().map(Name::to_ascii).collect()
    };
    let full =
        resolver("# x\nnameserver 10.0.0.1\nnameserver bad\nsearch a b. --\noptions ndots:2\n");
    assert_eq!(full.servers, ["10.0.0.1:53".parse().unwrap()]);
    assert_eq!(names(&full, "x.y"), ["x.y.a.", "x.y.b.", "x.y."]);
    assert_eq!(names(&full, "x.y.z"), ["x.y.z.", "x.y.z.a.", "x.y.z.b."]);
    assert_eq!(names(&full, "x."), ["x."]);
    assert_eq!(resolver("").servers[0], (Ipv4Addr::LOCALHOST, 53).into());
    assert_eq!(names(&resolver(""), "x"), ["x."]);
}

#[test]
fn a_name_that_no_message_can_carry_is_refused() {
    let long = "x".repeat(64);
    for name in ["", ".", "a..b", ".a", "a b", "a\0", &long, &"x.".repeat(128)] {
        assert_eq!(Resolver::new(b"").names(name), None, "{name}");
    }
}
