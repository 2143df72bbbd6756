//! The runtime API of a real HAProxy: servers come, leave, change their weight and are
//! counted; what is refused is reported.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use confsync::config::confdir;
use confsync::proxy::command::Supervised;
use confsync::proxy::haproxy::{Haproxy, Runtime};
use confsync::proxy::pools::{Pools, PublishError};
use confsync::template::UpstreamMember;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// A HAProxy with a backend `app`; ended when it is dropped.
struct Site {
    folder: tempfile::TempDir,
    port: u16,
    process: Supervised,
    haproxy: Haproxy,
}

async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

impl Site {
    /// With these lines in its backend, and `global` in its global section.
    async fn start(global: &str, lines: &str, more: &[&str]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port().await);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "global\n    {global}\ndefaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    \
             timeout server 30s\n    default-server inter 200ms\nfrontend web\n    \
             bind 127.0.0.1:{port}\n    default_backend app\nbackend app\n    {lines}\n"
        );
        fs::write(at("haproxy.cfg"), text.replace("HERE", &at("admin.sock"))).unwrap();
        let line = ["haproxy", "-W", "-db", "-f", &at("haproxy.cfg"), "-p", &at("pid")];
        let more = more.iter().map(|word| word.replace("HERE", &at("master.sock")));
        let line: Vec<_> =
            line.iter().map(|word| (*word).to_owned()).chain(more).map(Into::into).collect();
        let process = Supervised::start(&line).unwrap();
        let options = confdir::HaproxyOptions {
            conf: vec![PathBuf::from(at("haproxy.cfg"))],
            socket: None,
            is_live: true,
            pid_file: Some(at("pid").into()),
            binary: "haproxy".into(),
            deadline: DEADLINE,
            max_old_generations: 8,
        };
        let site = Self { haproxy: Haproxy::of("app", &options, None), folder, port, process };
        site.until(|| site.haproxy.is_running()).await;
        // The port is open before there is a worker, and only a worker answers.
        timeout(DEADLINE, async {
            while TcpStream::connect(site.at()).await.is_err() {}
            assert!(site.request().await.unwrap().starts_with("HTTP/1."));
        })
        .await
        .unwrap();
        site
    }

    fn at(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    async fn until(&self, is: impl Fn() -> bool) {
        let wait = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap();
    }

    /// The servers at these, with their weights.
    fn pools(of: &[(&TcpListener, u16)]) -> Pools {
        let one = |(listener, weight): &(&TcpListener, u16)| {
            let at = listener.local_addr().unwrap().to_string();
            let member = UpstreamMember { endpoint: at.parse().unwrap(), weight: *weight };
            (at.into(), member)
        };
        Pools::from([("app".to_owned(), of.iter().map(one).collect())])
    }

    /// What an operator does by hand.
    async fn command(&self, commands: &str) -> String {
        let path = self.folder.path().join("admin.sock");
        let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
        socket.write_all(format!("{commands}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A request that is under way; it ends when the backend has answered.
    fn request(&self) -> tokio::task::JoinHandle<String> {
        let at = self.at();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        })
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// The next request that reaches a backend.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    let mut request = [0; 1024];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    stream
}

async fn answer(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nwell").await.unwrap();
}

async fn servers_come_leave_and_are_counted(global: &str, more: &[&str]) {
    let mut site = Site::start(global, "balance leastconn", more).await;
    let (one, two) = (listener().await, listener().await);
    let mut runtime = Runtime::new(site.haproxy.clone());
    let first_members = Site::pools(&[(&one, 1)]);
    // A master that has just started may not answer yet.
    timeout(DEADLINE, async {
        while let Err(PublishError::Retry(_)) = runtime.publish(&first_members).await {}
    })
    .await
    .unwrap();
    runtime.confirm().await.unwrap();
    let first = site.request();
    let held = accept(&one).await;

    // The other takes its place; what the first has goes on, and is counted.
    runtime.publish(&Site::pools(&[(&two, 7)])).await.unwrap();
    runtime.confirm().await.unwrap();
    let departed = runtime.departed();
    assert_eq!(departed.len(), 1);
    assert_eq!(runtime.in_flight(&departed[0]).await, Some(1));
    for _ in 0..3 {
        let request = site.request();
        answer(accept(&two).await).await;
        assert!(request.await.unwrap().ends_with("well"));
    }
    // Back with requests of before, it is another server, so that those are still counted.
    runtime.publish(&Site::pools(&[(&one, 1), (&two, 7)])).await.unwrap();
    runtime.confirm().await.unwrap();
    assert_eq!(runtime.in_flight(&departed[0]).await, Some(1));
    answer(held).await;
    assert!(first.await.unwrap().ends_with("well"));
    timeout(DEADLINE, async { while runtime.in_flight(&departed[0]).await != Some(0) {} })
        .await
        .unwrap();
    assert!(runtime.departed().is_empty());

    // Back again, and another weight.
    runtime.publish(&Site::pools(&[(&one, 256), (&two, 1)])).await.unwrap();
    runtime.confirm().await.unwrap();

    // Somebody reloads: the new worker knows nothing of it, is noticed, and is given it.
    assert_eq!(runtime.read_back().await, None);
    // A master that has just started may miss a signal while it executes itself anew.
    let lost = async {
        loop {
            site.process.signal(Signal::USR2).unwrap();
            for _ in 0..200 {
                if runtime.read_back().await.is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    timeout(DEADLINE, lost).await.unwrap();
    assert!(matches!(runtime.confirm().await, Err(PublishError::Retry(_))));
    runtime.publish(&Site::pools(&[(&one, 256), (&two, 1)])).await.unwrap();
    runtime.confirm().await.unwrap();
    site.process.stop(Signal::TERM, DEADLINE).await.unwrap();
    drop(site.folder);
}

#[tokio::test]
async fn servers_come_leave_and_are_counted_by_the_admin_socket() {
    servers_come_leave_and_are_counted("stats socket HERE level admin", &[]).await;
}

#[tokio::test]
async fn servers_come_leave_and_are_counted_by_the_masters_socket() {
    servers_come_leave_and_are_counted("nbthread 2", &["-S", "HERE"]).await;
}

#[tokio::test]
async fn what_others_did_to_a_server_is_found_by_the_next_change_of_it() {
    let site = Site::start("stats socket HERE level admin", "balance random", &[]).await;
    let (one, two) = (listener().await, listener().await);
    let mut runtime = Runtime::new(site.haproxy.clone());
    let both = |weight| Site::pools(&[(&one, weight), (&two, 1)]);
    runtime.publish(&both(1)).await.unwrap();
    runtime.confirm().await.unwrap();
    let server = format!("app/{}", one.local_addr().unwrap());
    let list = || site.command("show servers state app");

    // Its weight cannot be set: it is added again.
    let deleted = format!("set server {server} state maint; del server {server}");
    assert!(site.command(&deleted).await.contains("Server deleted."));
    runtime.publish(&both(2)).await.unwrap();
    runtime.confirm().await.unwrap();
    assert!(list().await.contains(&server[4..]));

    // It is given what it is to have; that somebody drains it is found when it is asked for.
    site.command(&format!("set server {server} state drain")).await;
    runtime.publish(&both(3)).await.unwrap();
    let why = runtime.confirm().await.unwrap_err();
    assert!(matches!(&why, PublishError::Retry(why) if why.contains("not ready")), "{why:?}");
    runtime.publish(&both(3)).await.unwrap();
    runtime.confirm().await.unwrap();
    assert_eq!(runtime.read_back().await, None);
}

#[tokio::test]
async fn what_the_running_haproxy_cannot_do_is_reported() {
    let site = Site::start("stats socket HERE level admin", "default-server cookie x", &[]).await;
    let one = listener().await;
    let mut runtime = Runtime::new(site.haproxy.clone());
    let error = runtime.publish(&Site::pools(&[(&one, 1)])).await.unwrap_err();
    let PublishError::NeedsReload(words) = &error else { panic!("{error:?}") };
    assert!(words.contains("'cookie' option is not accepted"), "{words}");
    let mut unknown = Site::pools(&[(&one, 1)]);
    let app = unknown.remove("app").unwrap();
    unknown.insert("other".into(), app);
    let error = runtime.publish(&unknown).await.unwrap_err();
    assert!(matches!(&error, PublishError::NeedsReload(words) if words.contains("other")));

    let mut site = site;
    site.process.stop(Signal::TERM, DEADLINE).await.unwrap();
    let site = Site::start("stats socket HERE level operator", "balance random", &[]).await;
    let error = Runtime::new(site.haproxy.clone()).publish(&unknown).await.unwrap_err();
    let PublishError::NeedsReload(words) = &error else { panic!("{error:?}") };
    assert!(words.contains("has no `level admin`"), "{words}");
}
