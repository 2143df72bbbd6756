//! One question to one name server: in a datagram that is sent again while nothing comes, and over
//! TCP when the answer does not fit into one (RFC 1035, 4.2). It has no deadline of its own. What is
//! no answer to this question is not listened to: anybody may send a datagram.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long a datagram may take until it counts as lost.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest datagram that is not asked for otherwise, in bytes (RFC 1035, 2.3.4), and some.
const DATAGRAM: usize = 4096;

/// What `server` says of the SRV records of `name`.
pub(super) async fn ask(server: SocketAddr, name: &Name) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), RecordType::SRV));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let answer = by_datagram(server, &question, &bytes).await?;
    if answer.metadata.truncation { by_stream(server, &question, &bytes).await } else { Ok(answer) }
}

async fn by_datagram(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // What others send does not come through any more, and a port without a server is an error.
    socket.connect(server).await?;
    loop {
        socket.send(bytes).await?;
        if let Ok(answer) = timeout(AGAIN, receive(&socket, question)).await {
            return answer;
        }
    }
}

async fn receive(socket: &UdpSocket, question: &Message) -> io::Result<Message> {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..len).and_then(|bytes| answer_to(question, bytes)) {
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(bytes.len()).map_err(io::Error::other)?).await?;
    stream.write_all(bytes).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    answer_to(question, &answer).ok_or_else(|| io::Error::other("that is no answer"))
}

/// `bytes` as the answer to this question. One that only says that it was not understood may leave
/// the question out.
fn answer_to(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let failed = answer.metadata.response_code != ResponseCode::NoError;
    let ours = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && (answer.queries == question.queries || failed && answer.queries.is_empty());
    ours.then_some(answer)
}
