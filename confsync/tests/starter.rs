//! The starter templates render what they should.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

use std::path::Path;

use confsync::proxy::nginx;
use confsync::template::{Engine, Input, NamedBackend, Template, TemplateSources, starter};

fn input() -> Input {
    let entries = [
        ("/services/apache/10.132.249.206", "10.132.249.206:7777"),
        ("/services/apache/10.132.249.212", "10.132.249.212:8888"),
    ];
    let backends = entries
        .iter()
        .map(|(key, value)| NamedBackend {
            key: (*key).into(),
            service: "apache".into(),
            backend: common::model::Backend::parse(value.as_bytes()).unwrap(),
        })
        .collect();
    Input::of_keys(entries).with_backends(backends)
}

fn render(name: &str, text: &str, input: &Input) -> String {
    let name = Path::new(name);
    let template = Template::compile(name, text, Engine::of(name), &TemplateSources::default());
    let text = template.unwrap_or_else(|e| panic!("{e}")).render(input);
    String::from_utf8(text.unwrap_or_else(|e| panic!("{e}"))).unwrap()
}

#[test]
fn the_tutorial_s_template_renders_as_confd_renders_it() {
    let got = render("nginx.tmpl", starter::NGINX_TMPL, &input());
    let (before, got) = got.split_once("upstream apache").unwrap();
    assert!(before.starts_with("log_format upstreamlog '") && before.ends_with("';\n\n"));
    let got = format!("upstream apache{got}");
    let head = "upstream apache_pool {\n\n    server 10.132.249.206:7777;\n\n    server 10.132.249.212:8888;\n\n}\n";
    assert_eq!(&got[..head.len()], head);
    let tail = starter::NGINX_TMPL.split_once("{{ end }}\n}\n").unwrap().1;
    assert_eq!(&got[head.len()..], tail);
}

#[test]
fn the_starter_for_haproxy_survives_none() {
    let none = render("haproxy.hbs", starter::HAPROXY_HBS, &Input::default());
    assert!(none.contains("backend apache\n    balance leastconn\n"), "{none}");
}

#[test]
fn our_own_starter_has_every_backend_and_survives_none() {
    let got = render("nginx.hbs", starter::NGINX_HBS, &input());
    assert!(
        got.contains(
            "    server 10.132.249.206:7777;\n    server 10.132.249.212:8888;\n    zone apache"
        ),
        "{got}"
    );
    let none = render("nginx.hbs", starter::NGINX_HBS, &Input::default());
    assert!(none.contains("    server 127.0.0.1:1 down;\n"), "{none}");
}

/// What nginx says to the starter's output, included as sites-enabled is.
#[expect(
    clippy::disallowed_methods,
    reason = "`nginx -t` resolves nothing here and ends by itself"
)]
fn nginx_takes(rendered: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = rendered
        .replace("[::]:80 default_server ipv6only=on", &format!("127.0.0.2:{port}"))
        .replace("listen 80 ", &format!("listen 127.0.0.1:{port} "))
        .replace("/var/log/nginx", &folder.path().display().to_string());
    std::fs::write(path("site.conf"), site).unwrap();
    let main = format!(
        "pid {}; error_log {}; events {{}} http {{ access_log off; include {}; }}",
        path("pid"),
        path("error.log"),
        path("site.conf")
    );
    std::fs::write(path("nginx.conf"), main).unwrap();
    let nginx =
        std::process::Command::new("nginx").args(["-t", "-c", &path("nginx.conf")]).output();
    nginx.unwrap().status.success()
}

#[tokio::test]
async fn the_starter_has_the_directive_that_a_newer_nginx_knows() {
    let newer = starter::for_newer_nginx(starter::NGINX_HBS);
    let lines = |text: &str| text.lines().filter(|l| l.contains("min_timeout 2s")).count();
    assert_eq!((lines(starter::NGINX_HBS), lines(&newer)), (1, 1));
    assert!(newer.contains(&format!("\n    {}\n", starter::KEEPALIVE_DIRECTIVE)), "{newer}");
    let known = nginx::knows(Path::new("nginx"), starter::KEEPALIVE_DIRECTIVE).await.unwrap();
    assert_eq!(nginx_takes(&render("nginx.hbs", &newer, &input())), known);
}

#[test]
fn nginx_takes_our_own_starter_with_backends_and_without() {
    assert!(nginx_takes(&render("nginx.hbs", starter::NGINX_HBS, &input())));
    assert!(nginx_takes(&render("nginx.hbs", starter::NGINX_HBS, &Input::default())));
    assert!(nginx_takes(&render("nginx.tmpl", starter::NGINX_TMPL, &input())));
}
