//! A service that is known by its commands: `app.conf` lists the backends, the reload
//! copies it to `live` and counts. What `live` holds is what the service runs.

use std::fs;
use std::path::PathBuf;

use tests::etcd::Ctl;
use tests::eventually::check;
use tests::{Api, Confdir, Daemon, Etcd, Lab, eventually};

pub(crate) struct Setup {
    pub(crate) etcd: Etcd,
    pub(crate) confdir: Confdir,
    pub(crate) folder: PathBuf,
}

pub(crate) const TEMPLATE: &str =
    "# backends\n{{range gets \"/services/apache/*\"}}server {{.Value}};\n{{end}}";

impl Setup {
    /// etcd runs; the resource has the counting reload.
    pub(crate) async fn start(lab: &Lab) -> Self {
        let setup = Self::prepare(lab, Etcd::start(lab).await);
        setup.resource("app", &setup.reload());
        setup
    }

    /// No resource yet, and etcd as it is.
    pub(crate) fn prepare(lab: &Lab, etcd: Etcd) -> Self {
        let setup = Self { etcd, confdir: Confdir::empty(lab), folder: lab.folder("service") };
        setup.confdir.template("app.tmpl", TEMPLATE);
        setup
    }

    /// `reload_cmd` that loads and counts.
    pub(crate) fn reload(&self) -> String {
        self.reload_after("true")
    }

    /// The same, with something before it; it fails if that does.
    pub(crate) fn reload_after(&self, first: &str) -> String {
        let folder = self.folder.display();
        format!(
            "reload_cmd = '''cd {folder} && {first} && cp {{{{.dest}}}} live.new && echo >> loads && mv live.new live'''\n"
        )
    }

    /// `conf.d/NAME.toml` for `NAME.conf` from `app.tmpl`, with these lines more.
    pub(crate) fn resource(&self, name: &str, more: &str) {
        let dest = self.file(&format!("{name}.conf"));
        let dest = dest.display();
        let keys = if more.contains("keys =") { "" } else { "keys = [\"/services/apache\"]\n" };
        let text = format!("[template]\nsrc = \"app.tmpl\"\ndest = \"{dest}\"\n{keys}{more}");
        self.confdir.toml(name, &text);
    }

    pub(crate) fn ctl(&self) -> Ctl {
        self.etcd.ctl(Api::V3)
    }

    /// Registers `10.0.0.N:80`, where nobody is.
    pub(crate) async fn put(&self, n: u8) {
        self.ctl().put(&format!("/services/apache/{n}"), &address(n)).await;
    }

    pub(crate) fn confsync(&self, lab: &Lab) -> Daemon {
        self.confsync_in(lab, Api::V3)
    }

    pub(crate) fn confsync_in(&self, lab: &Lab, api: Api) -> Daemon {
        Daemon::confsync(lab).etcd(&self.etcd, api).confdir(&self.confdir)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file that commands look for.
    pub(crate) fn flag(&self, name: &str) {
        fs::write(self.file(name), "").unwrap();
    }

    pub(crate) fn unflag(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    pub(crate) async fn appears(&self, name: &str) {
        let file = self.file(name);
        eventually(format!("{name} is there"), || async {
            check(file.exists(), || "no such file".to_owned())
        })
        .await;
    }

    /// A file of the folder, empty if it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// How often the service was reloaded.
    pub(crate) fn loads(&self) -> usize {
        self.text("loads").lines().count()
    }

    /// Waits until a file of the folder has exactly this text.
    #[track_caller]
    pub(crate) fn is(&self, file: &'static str, wanted: &str) -> impl Future<Output = ()> {
        let wanted = wanted.to_owned();
        eventually(format!("{file} is {wanted:?}"), move || {
            let (text, wanted) = (self.text(file), wanted.clone());
            async move { check(text == wanted, || text) }
        })
    }

    /// Waits until the service runs with exactly these.
    #[track_caller]
    pub(crate) fn live(&self, backends: &[u8]) -> impl Future<Output = ()> {
        let wanted = rendered(backends);
        eventually("the service runs what etcd says", move || {
            let (live, wanted) = (self.text("live"), wanted.clone());
            async move { check(live == wanted, || format!("it runs {live:?}, not {wanted:?}")) }
        })
    }
}

pub(crate) fn address(n: u8) -> String {
    // Nothing listens: a connection is refused at once.
    format!("127.0.0.{n}:9")
}

pub(crate) fn rendered(backends: &[u8]) -> String {
    let lines = backends.iter().map(|n| format!("server {};\n", address(*n)));
    "# backends\n".to_owned() + &lines.collect::<String>()
}

/// Commands that need root's rights are left out without them.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `docs/hazards.md` names scenarios; they must be there, and all 26 hazards on the page.
#[test]
fn the_page_names_scenarios_that_exist() {
    let page = include_str!("../../docs/hazards.md");
    let sources: String = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            format!("mod {stem};\n{}", fs::read_to_string(path).unwrap())
        })
        .collect();
    let sections: Vec<&str> = page.split("\n## ").skip(1).filter(|s| s.starts_with('H')).collect();
    assert_eq!(sections.len(), 26);
    for (n, section) in sections.iter().enumerate() {
        assert!(section.starts_with(&format!("H{}. ", n + 1)), "{section}");
        let (_, named) = section.split_once("* Shown by: ").expect("a scenario");
        let (named, _) = named.split_once("\n\n").unwrap_or((named, ""));
        let named = named.split('`').skip(1).step_by(2);
        for name in named {
            let bare = name.rsplit("::").next().unwrap();
            let there = [format!("fn {bare}("), format!("mod {bare};")];
            assert!(there.iter().any(|text| sources.contains(text)), "H{}: {name}", n + 1);
        }
    }
}
