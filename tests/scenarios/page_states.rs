//! The page at `/` of confsync in states that an operator meets: three, three hundred and three
//! thousand backends, a drain, backends that no template uses, an etcd that is away; wide, on a
//! phone and in the dark. Nothing sticks out, the browser has nothing to complain about, and
//! axe-core, where `.ci/setup` has found it, no violation.
//!
//! `PAGE_SCREENSHOTS=DIR` keeps pictures of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use etcd_client::{Client, Txn, TxnOp};
use tests::{
    Api, Backend, Behaviour, Browser, Confdir, Daemon, Etcd, Lab, Load, Nginx, skip::skip,
};

/// All services but one, so that the template leaves backends out.
const TEMPLATE: &str = r#"{{range lsdir "/services"}}{{if ne . "spare"}}{{upstream . "keepalive 4;"}}
{{end}}{{end}}
server { listen LISTEN; location / { proxy_pass http://apache; } }
"#;

const VIEWS: [(&str, u32, bool); 4] =
    [("wide", 1100, false), ("dark", 1100, true), ("phone", 390, false), ("phone-dark", 390, true)];

/// Six services with so many backends in all; etcd takes 128 changes in one transaction.
async fn register(etcd: &Etcd, backends: usize) {
    let mut client = Client::connect([etcd.url()], None).await.unwrap();
    let services = ["api", "auth", "cart", "media", "search", "web"];
    let put = |n: usize| {
        let service = services[n % services.len()];
        let (a, b) = (n / 250, n % 250 + 1);
        TxnOp::put(format!("/services/{service}/10.2.{a}.{b}"), format!("10.2.{a}.{b}:80"), None)
    };
    let all: Vec<TxnOp> = (0..backends).map(put).collect();
    for some in all.chunks(100) {
        client.txn(Txn::new().and_then(some)).await.unwrap();
    }
}

pub(crate) struct Scene {
    pub(crate) browser: Browser,
    axe: Option<String>,
}

impl Scene {
    pub(crate) fn new(browser: Browser) -> Self {
        Self { browser, axe: axe_core() }
    }

    pub(crate) async fn open(&mut self, status: SocketAddr) {
        self.browser.open(&format!("http://{status}/")).await;
    }

    pub(crate) async fn looks_right(&mut self, state: &str) {
        for (name, width, dark) in VIEWS {
            self.browser.look(width, 900, dark).await;
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(self.browser.eval(fits).await, true, "{state}: wider than {width}");
            if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
                let file = PathBuf::from(folder).join(format!("{state}-{name}.png"));
                self.browser.screenshot(&file).await;
            }
            self.accessible(&format!("{state}, {name}")).await;
        }
        let quiet: &[String] = &[];
        assert_eq!(self.browser.complaints(), quiet, "{state}");
    }

    async fn accessible(&mut self, state: &str) {
        let Some(axe) = &self.axe else { return };
        self.browser.eval(axe).await;
        let run = "window.found = null; axe.run().then((run) => { window.found = \
                   run.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' '))\
                   .join('\\n') }); 0";
        self.browser.eval(run).await;
        self.browser.shows("window.found !== null").await;
        assert_eq!(self.browser.eval("window.found").await, "", "{state}");
    }

    pub(crate) async fn shows(&mut self, text: &str) {
        let text = serde_json::to_string(text).unwrap();
        // There is no body before the page has come.
        let shown = format!("!!document.body && document.body.innerText.includes({text})");
        self.browser.shows(&shown).await;
    }

    async fn rows(&mut self) -> u64 {
        let rows = self.browser.eval("document.querySelectorAll('[data-addr]').length").await;
        rows.as_u64().unwrap()
    }
}

/// The rules, if they are there; the programs of the tests are below the same folder.
fn axe_core() -> Option<String> {
    let program = std::env::current_exe().unwrap();
    let files = program.ancestors().map(|folder| folder.join("axe-core/package/axe.min.js"));
    let rules = files.into_iter().find_map(|file| std::fs::read_to_string(file).ok());
    if rules.is_none() {
        skip(
            "axe-core is not in the build folder (.ci/setup with SETUP_ALL=1 and npm puts it there)",
        );
    }
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_read_in_every_state() {
    let lab = Lab::new();
    let Some(browser) = Browser::start(&lab).await else { return };
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(Api::V3);
    let backends = [
        Backend::start_at((lab.another_ip(), 7777).into(), "one").await,
        Backend::start_at((lab.another_ip(), 8888).into(), "two").await,
    ];
    let sidekick = |of: &Backend| {
        let register =
            Daemon::register(&lab).backend("apache", of.address()).flag("--check", "none");
        register.etcd(&etcd, Api::V3).start()
    };
    let (first, second) = (sidekick(&backends[0]), sidekick(&backends[1]));
    first.ready().await;
    second.ready().await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let listen = nginx.address().to_string();
    confdir.template("nginx.tmpl", &TEMPLATE.replace("LISTEN", &listen));
    confdir.edit("conf.d/nginx.toml", |toml| {
        toml.replace("\"/services/apache\"", "\"/services\"") + "live = \"off\"\n"
    });
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--name", "edge-1").flag("--listen", status.to_string());
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;

    let mut scene = Scene::new(browser);
    scene.open(status).await;
    scene.shows("2 backends in rotation").await;
    // Nothing is going to be done for a backend that the template does not write.
    ctl.put("/services/spare/a", "10.9.9.9:80").await;
    scene.shows("1 not used").await;
    scene.looks_right("three").await;
    ctl.del("/services/spare/a").await;

    register(&etcd, 300).await;
    scene.shows("302 backends in rotation").await;
    assert_eq!(scene.rows().await, 0, "closed while all is well");
    scene.looks_right("hundreds").await;
    register(&etcd, 3000).await;
    scene.shows("3002 backends in rotation").await;
    assert_eq!(scene.rows().await, 0, "closed while all is well");
    scene.looks_right("thousands").await;

    // A stop waits for requests that last.
    backends.iter().for_each(|backend| backend.behave(Behaviour::Hang));
    let load = Load::on(nginx.address()).clients(8).start();
    load_reaches(&backends).await;
    first.signal(tests::Signal::TERM);
    scene.shows("Drains").await;
    scene.shows("old workers finish requests").await;
    scene.looks_right("draining").await;
    backends.iter().for_each(|backend| backend.behave(Behaviour::Healthy));
    drop(load);

    etcd.stop().await;
    scene.shows("Serving what was known last").await;
    scene.shows("etcd not watched").await;
    // What others said in etcd may be over.
    scene.shows("the last revision that each applied · as last seen in etcd").await;
    scene.looks_right("etcd-away").await;
}

pub(crate) async fn load_reaches(backends: &[Backend]) {
    tests::eventually("requests in flight at both", || async {
        let all = backends.iter().map(Backend::in_flight).collect::<Vec<_>>();
        tests::eventually::check(all.iter().all(|n| *n > 0), || format!("{all:?}"))
    })
    .await;
}
