//! A confdir in the lab: `conf.d/*.toml` and `templates/`, as an operator writes them.
//!
//! The tutorial's files are taken from `fleet-units/confdir`, so that what people copy is
//! what is tested; only the places (where to listen, what to write) become the lab's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::Lab;
use crate::nginx::Nginx;

const TUTORIAL_TOML: &str = include_str!("../../fleet-units/confdir/conf.d/nginx.toml");
const STARTER_HBS: &str = include_str!("../../confsync/src/template/starter/nginx.hbs");
const TUTORIAL_TMPL: &str = include_str!("../../fleet-units/confdir/templates/nginx.tmpl");

/// A folder for `--confdir`.
pub struct Confdir {
    path: PathBuf,
}

impl Confdir {
    /// An empty one.
    #[must_use]
    #[track_caller]
    pub fn empty(lab: &Lab) -> Self {
        let path = lab.folder(&format!("confdir-{:08x}", fastrand::u32(..)));
        let confdir = Self { path };
        fs::create_dir_all(confdir.path.join("conf.d")).expect("conf.d");
        fs::create_dir_all(confdir.path.join("templates")).expect("templates");
        confdir
    }

    /// The tutorial's resource and template for this nginx, with an `[nginx]` table in
    /// place of the two commands.
    #[must_use]
    #[track_caller]
    pub fn tutorial(lab: &Lab, nginx: &Nginx) -> Self {
        let confdir = Self::empty(lab);
        let table = format!(
            "\n[nginx]\nconf = \"{}\"\npid_file = \"{}\"\n",
            nginx.conf().display(),
            nginx.pid_file().display()
        );
        let toml = tutorial_toml(nginx)
            .lines()
            .filter(|line| !line.starts_with("check_cmd") && !line.starts_with("reload_cmd"))
            .fold(String::new(), |text, line| text + line + "\n");
        confdir.toml("nginx", &(toml + &table));
        confdir.template("nginx.tmpl", &tutorial_tmpl(nginx));
        confdir
    }

    /// The tutorial's resource with the handlebars template that `confsync init` writes.
    #[must_use]
    #[track_caller]
    pub fn handlebars(lab: &Lab, nginx: &Nginx) -> Self {
        let confdir = Self::tutorial(lab, nginx);
        let live = nginx.folder().join("live").display().to_string();
        confdir.edit("conf.d/nginx.toml", |toml| {
            swap(&toml, "\"nginx.tmpl\"", "\"nginx.hbs\"") + &format!("live_dir = \"{live}\"\n")
        });
        // The lab's nginx.conf has the format already.
        let own = swap(STARTER_HBS, crate::nginx::UPSTREAM_LOG, "");
        confdir.template("nginx.hbs", &at_home(&own, nginx));
        confdir
    }

    /// The same with the commands of the tutorial: nginx is known only by them.
    #[must_use]
    #[track_caller]
    pub fn tutorial_commands(lab: &Lab, nginx: &Nginx) -> Self {
        let confdir = Self::empty(lab);
        let conf = nginx.conf().display().to_string();
        let toml = tutorial_toml(nginx)
            .replace("/usr/sbin/nginx -t", &format!("/usr/sbin/nginx -t -c {conf}"))
            .replace(
                "/usr/sbin/service nginx reload",
                &format!("/usr/sbin/nginx -s reload -c {conf}"),
            );
        confdir.toml("nginx", &toml);
        confdir.template("nginx.tmpl", &tutorial_tmpl(nginx));
        confdir
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `conf.d/NAME.toml`.
    #[track_caller]
    pub fn toml(&self, name: &str, text: &str) {
        fs::write(self.path.join(format!("conf.d/{name}.toml")), text).expect("a resource");
    }

    /// Writes `templates/NAME`.
    #[track_caller]
    pub fn template(&self, name: &str, text: &str) {
        fs::write(self.path.join("templates").join(name), text).expect("a template");
    }

    /// Changes the text of a file below the confdir.
    #[track_caller]
    pub fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path).expect("the file to edit");
        fs::write(path, change(text)).expect("the edited file");
    }
}

/// The tutorial's resource, its file going to this nginx.
#[must_use]
#[track_caller]
pub fn tutorial_toml(nginx: &Nginx) -> String {
    let site = nginx.site().display().to_string();
    let toml = swap(TUTORIAL_TOML, "/etc/nginx/sites-enabled/app.conf", &site);
    // Only root may give files away, and only root has to say so.
    if rustix::process::geteuid().is_root() { toml } else { swap(&toml, "owner = \"root\"\n", "") }
}

/// The tutorial's template, listening where this nginx does.
#[must_use]
#[track_caller]
pub fn tutorial_tmpl(nginx: &Nginx) -> String {
    at_home(TUTORIAL_TMPL, nginx)
}

/// A template whose site listens and logs where this nginx does.
#[track_caller]
fn at_home(template: &str, nginx: &Nginx) -> String {
    let listen = format!("listen {} default", nginx.address());
    let text = swap(template, "listen 80 default", &listen);
    let text = swap(&text, "    listen [::]:80 default_server ipv6only=on;\n", "");
    let log = nginx.folder().join("logs/access.log").display().to_string();
    swap(&text, "/var/log/nginx/access.log", &log)
}

#[track_caller]
fn swap(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the tutorial's file has no `{from}` any more");
    text.replace(from, to)
}
