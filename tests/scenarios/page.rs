//! The page at `/` of confsync in a real browser: it shows who is registered and
//! follows the backends that deregister, without a reload and without an error.
//!
//! `PAGE_SCREENSHOTS=DIR` keeps pictures of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use tests::{Api, Backend, Browser, Confdir, Daemon, Etcd, Lab, Nginx, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_follows_the_backends() {
    let lab = Lab::new();
    let Some(mut browser) = Browser::start(&lab).await else { return };
    let etcd = Etcd::start(&lab).await;
    // A value that is no address, and that would be markup if anybody let it.
    let hostile = "<img src=x onerror=alert(1)>";
    etcd.ctl(Api::V3).put("/services/apache/stray", hostile).await;
    let one = Backend::start_at((lab.another_ip(), 7777).into(), "one").await;
    let two = Backend::start_at((lab.another_ip(), 8888).into(), "two").await;
    let sidekick = |of: &Backend| {
        let register = Daemon::register(&lab).backend("apache", of.address());
        register.etcd(&etcd, Api::V3).start()
    };
    let first = sidekick(&one);
    first.ready().await;
    let balancer = |name: &str, status: SocketAddr, nginx: &Nginx, confdir: &Confdir| {
        let daemon = Daemon::confsync(&lab).named(name).etcd(&etcd, Api::V3).confdir(confdir);
        let daemon = daemon.flag("--name", name).flag("--status", status.to_string());
        daemon.supervising(nginx).start()
    };
    let (nginx, other) = (Nginx::prepare(&lab), Nginx::prepare(&lab));
    let confdir = Confdir::handlebars(&lab, &nginx);
    let status = lab.free();
    let lb1 = balancer("edge-1", status, &nginx, &confdir);
    let lb2 = balancer("edge-2", lab.free(), &other, &Confdir::handlebars(&lab, &other));
    lb1.ready().await;
    lb2.ready().await;

    browser.look(1100, 900, false).await;
    browser.open(&format!("http://{status}/")).await;
    browser.shows(&live(&one)).await;
    browser.shows("document.querySelector('#link-words').textContent === 'connected'").await;
    browser.shows("document.querySelector('#others').innerText.includes('edge-2')").await;
    // The same page from here on.
    browser.eval("window.stayed = true").await;

    let second = sidekick(&two);
    browser.shows(&live(&two)).await;
    first.stop().await;
    let gone = format!(
        "!document.querySelector('[data-addr=\"{0}\"]') && \
         !!document.querySelector('[data-left=\"{0}\"]')",
        one.address()
    );
    browser.shows(&gone).await;
    let again = sidekick(&one);
    browser.shows(&live(&one)).await;
    let cause = format!("document.body.innerText.includes('{} joined')", one.address());
    browser.shows(&cause).await;
    assert_eq!(browser.eval("window.stayed").await, true, "the page was loaded again");
    assert_eq!(browser.eval("document.querySelectorAll('img').length").await, 0);
    assert_eq!(
        browser.eval("document.body.innerText.includes('/services/apache/stray')").await,
        true
    );
    // What is looked for is in the address of the page.
    browser.eval(&format!("location.hash = '#q={}'", two.address())).await;
    browser.shows("document.querySelectorAll('[data-addr]').length === 1").await;
    browser.eval("location.hash = '#state=retained'").await;
    browser.shows("document.querySelectorAll('[data-addr]').length === 0").await;
    browser.eval("location.hash = ''").await;
    browser.shows("document.querySelectorAll('[data-addr]').length === 2").await;
    // Nothing sticks out on a phone.
    for (name, width, dark) in
        [("desktop", 1100, false), ("dark", 1100, true), ("phone", 375, false)]
    {
        browser.look(width, 900, dark).await;
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.eval(fits).await, true, "wider than {width}");
        if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
            browser.screenshot(&PathBuf::from(folder).join(format!("{name}.png"))).await;
        }
    }
    // A template that nginx refuses: in nginx's words, while the backends stay in rotation.
    confdir.edit("templates/nginx.hbs", |text| text.replace("proxy_pass ", "proxy_pas "));
    lb1.signal(Signal::HUP);
    browser
        .shows(
            "(document.querySelector('.note') || {innerText: ''}).innerText.includes('proxy_pas')",
        )
        .await;
    browser.shows("document.querySelectorAll('svg .no').length > 0").await;
    // Which template and line, and the command that shows the candidate.
    let note = browser.eval("document.querySelector('.note').innerText").await.to_string();
    assert!(note.contains("templates/nginx.hbs line "), "{note}");
    assert!(note.contains("confsync render nginx --confdir "), "{note}");
    if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
        browser.look(1100, 900, true).await;
        browser.screenshot(&PathBuf::from(folder).join("refused.png")).await;
    }
    let states =
        "[...document.querySelectorAll('[data-addr]')].map((row) => row.dataset.state).join()";
    assert_eq!(browser.eval(states).await, "in rotation,in rotation");

    let quiet: &[String] = &[];
    assert_eq!(browser.complaints(), quiet);

    // Its process ends: nothing looks any more as if it were known.
    lb1.stop().await;
    browser.shows("document.querySelector('#link').className.includes('bad')").await;
    assert_eq!(browser.eval("document.title").await, "Not connected to edge-1");
    let hero = "getComputedStyle(document.querySelector('h1')).color";
    let grey = browser.eval(hero).await;
    // It comes back: the page finds it again by itself.
    confdir.edit("templates/nginx.hbs", |text| text.replace("proxy_pas ", "proxy_pass "));
    let _lb1 = balancer("edge-1", status, &nginx, &confdir);
    browser.shows("document.title === '2 backends in rotation · edge-1'").await;
    assert_ne!(browser.eval(hero).await, grey);
    assert_eq!(browser.eval("window.stayed").await, true, "the page was loaded again");
    let asks = full_page(status, &mut browser).await;
    assert!(asks.contains("polls every 10 s"), "{asks}");
    again.stop().await;
    second.stop().await;
}

/// As many follow the page as there are places: one more sees the same, and why it is slower.
async fn full_page(status: SocketAddr, browser: &mut Browser) -> String {
    browser.open("about:blank").await;
    let mut streams = Vec::new();
    while streams.len() < 24 {
        let mut stream = TcpStream::connect(status).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        // The page of before may still have its place.
        streams.extend(first.ends_with(b"200").then_some(stream));
    }
    browser.open(&format!("http://{status}/")).await;
    browser.shows("document.querySelectorAll('[data-addr]').length === 2").await;
    browser.shows("document.querySelector('#link').className.includes('wait')").await;
    browser.eval("document.querySelector('#link-words').textContent").await.to_string()
}

fn live(backend: &Backend) -> String {
    format!(
        "(document.querySelector('[data-addr=\"{}\"]') || {{dataset: {{}}}}).dataset.state === 'in rotation'",
        backend.address()
    )
}
