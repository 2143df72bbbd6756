//! Members of an upstream in all that nginx speaks to one.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A member that says how long the body was which it got.
pub(crate) async fn member(listener: TcpListener, spoken: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let length = match spoken {
                "fastcgi" | "kept" => fastcgi_body(&mut stream).await,
                "uwsgi" => uwsgi_body(&mut stream).await,
                "scgi" => scgi_body(&mut stream).await,
                _ => return http_member(stream).await,
            };
            let text = format!("Status: 200 OK\r\n\r\ngot {length}\n");
            let text = match spoken {
                "fastcgi" | "kept" => fastcgi_answer(&text),
                _ => text.into_bytes(),
            };
            stream.write_all(&text).await.unwrap();
        });
    }
}

/// HTTP, and HTTP/2 if the client begins with that.
async fn http_member(stream: TcpStream) {
    let service = service_fn(async |request: Request<Incoming>| {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("got {length}\n")))))
    });
    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn skip(stream: &mut TcpStream, length: usize) {
    stream.read_exact(&mut vec![0; length]).await.unwrap();
}

async fn fastcgi_body(stream: &mut TcpStream) -> usize {
    const STDIN: u8 = 5;
    let mut length = 0;
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).await.unwrap();
        let [_, kind, _, _, high, low, padding, _] = head;
        let content = usize::from(u16::from_be_bytes([high, low]));
        skip(stream, content + usize::from(padding)).await;
        if kind == STDIN && content == 0 {
            return length;
        } else if kind == STDIN {
            length += content;
        }
    }
}

fn fastcgi_answer(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut records = vec![1, 6, 0, 1, 0, length, 0, 0];
    records.extend(text.bytes());
    records.extend([1, 6, 0, 1, 0, 0, 0, 0, 1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    records
}

/// Its one variable is the length.
async fn uwsgi_body(stream: &mut TcpStream) -> usize {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    let mut variables = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
    stream.read_exact(&mut variables).await.unwrap();
    let name = b"CONTENT_LENGTH";
    let at = variables.windows(name.len()).position(|bytes| bytes == name).unwrap();
    let value = &variables[at + name.len()..];
    let (size, value) = (usize::from(value[0]), &value[2..]);
    let length = std::str::from_utf8(&value[..size]).unwrap().parse().unwrap();
    skip(stream, length).await;
    length
}

/// The length is the first variable.
async fn scgi_body(stream: &mut TcpStream) -> usize {
    let mut size = 0;
    loop {
        match stream.read_u8().await.unwrap() {
            b':' => break,
            digit => size = size * 10 + usize::from(digit - b'0'),
        }
    }
    let mut variables = vec![0; size + 1];
    stream.read_exact(&mut variables).await.unwrap();
    let value = variables.split(|byte| *byte == 0).nth(1).unwrap();
    let length = std::str::from_utf8(value).unwrap().parse().unwrap();
    skip(stream, length).await;
    length
}

/// A call that says each message again, and ends well.
pub(crate) async fn echo(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = service_fn(async |request: Request<Incoming>| {
            let status = async {
                Some(Ok([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]
                    .into_iter()
                    .collect()))
            };
            let body = request.into_body().with_trailers(status);
            Ok::<_, Infallible>(
                Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
            )
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}
