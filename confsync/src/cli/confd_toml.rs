//! confd's own configuration, `confd.toml`, as far as it applies here.
//!
//! It becomes a layer of settings below flags and environment. A setting that cannot be supported
//! is an error; one without a meaning here gives a note.

use std::path::{Path, PathBuf};

use common::settings::{Environment, Layer, Place, Setting, etcd, log};
use serde::Deserialize;

use crate::cli::args::{CONFDIR, DRY_RUN, INTERVAL, ONCE, PREFIX, REREAD, SYNC_ONLY};
use crate::cli::confd_flags::log_level;
use crate::config::confdir::{Note, explain, mistyped};

/// The contents of a `confd.toml`. An empty text counts as not set.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfdToml {
    confdir: Option<PathBuf>,
    prefix: Option<String>,
    /// Seconds.
    interval: Option<u64>,
    noop: bool,
    /// Not in confd's documentation, but confd reads it.
    onetime: bool,
    #[serde(rename = "sync-only", alias = "sync_only")]
    sync_only: bool,
    #[serde(rename = "log-level", alias = "log_level")]
    log_level: Option<String>,
    backend: Option<String>,
    nodes: Vec<String>,
    srv_domain: Option<String>,
    srv_record: Option<String>,
    client_cakeys: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    client_insecure: bool,
    username: Option<String>,
    password: Option<String>,
    auth_token: Option<String>,
    /// The file, for messages.
    #[serde(skip)]
    file: PathBuf,
    #[serde(skip)]
    pub(crate) notes: Vec<Note>,
}

/// confd's own folder: the default for a configuration file of confd's that names no confdir.
const CONFD: &str = "/etc/confd";

/// The keys that are read, or that need not be.
const KNOWN: &[&str] = &[
    "confdir",
    "prefix",
    "interval",
    "noop",
    "onetime",
    "sync-only",
    "sync_only",
    "log-level",
    "log_level",
    "backend",
    "nodes",
    "srv_domain",
    "srv_record",
    "client_cakeys",
    "client_cert",
    "client_key",
    "client_insecure",
    "username",
    "password",
    "auth_token",
    "watch",
    "basic_auth",
    "scheme",
];

impl ConfdToml {
    /// The file that was named, or the one in the confdir if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or asks for something unsupported.
    pub fn find(named: Option<&Path>, confdir: Option<&Path>) -> Result<Self, String> {
        let beside = confdir.unwrap_or(Path::new("/etc/confsync")).join("confd.toml");
        match named {
            Some(file) => Self::read(file),
            None if beside.is_file() => Self::read(&beside),
            None => Ok(Self::default()),
        }
    }

    /// Like confd, we run without a missing file, and log that.
    fn read(path: &Path) -> Result<Self, String> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = "there is no such file; going on without it".to_owned();
                let notes = vec![Note { file: path.to_owned(), text, ignored: true }];
                return Ok(Self { confdir: Some(beside(path)), notes, ..Self::default() });
            }
            read => read.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        Self::parse(path, &text).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The tutorial passes a resource file to confd as its configuration; confd finds none of its
    /// own keys in it and reads its confdir. So do we, with the confdir that contains the file;
    /// likewise for a `confd.toml` that names none.
    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| explain(&e, text))?;
        let table: toml::Table =
            table.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
        let parent = path.parent().unwrap_or(Path::new(""));
        if table.contains_key("template") {
            let folder = Some(parent).filter(|parent| parent.ends_with("conf.d"));
            let confdir = folder.and_then(Path::parent).unwrap_or(Path::new(CONFD));
            return Ok(Self { confdir: Some(confdir.to_owned()), ..Self::default() });
        }
        let ignored = table.keys().filter(|key| !KNOWN.contains(&key.as_str()));
        let note = |key: &String| Note {
            file: path.to_owned(),
            text: format!("`{key}` means nothing here and is ignored"),
            ignored: true,
        };
        let notes = ignored.map(note).collect();
        let mut file: Self =
            table.try_into().map_err(|e: toml::de::Error| mistyped(&e.to_string(), text))?;
        file.refuse()?;
        let named = file.confdir.filter(|dir| !dir.as_os_str().is_empty());
        file.confdir = Some(named.unwrap_or_else(|| beside(path)));
        file.notes = notes;
        file.file = path.to_owned();
        Ok(file)
    }

    fn refuse(&self) -> Result<(), String> {
        match self.backend.as_deref() {
            None | Some("" | "etcd" | "etcdv3") => {}
            Some(other) => {
                return Err(format!("backend `{other}`: only etcd is read here (etcd, etcdv3)"));
            }
        }
        if self.client_insecure {
            return Err("client_insecure: certificates are always checked; set client_cakeys to \
                        the CA that signed etcd's"
                .into());
        }
        let is_given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if is_given(&self.srv_record) {
            return Err("srv_record: _etcd-client-ssl._tcp and _etcd-client._tcp are looked up; \
                        set srv_domain to the domain"
                .into());
        }
        if is_given(&self.auth_token) {
            return Err("auth_token: it belongs to a store other than etcd".into());
        }
        Ok(())
    }

    /// The password, for when the environment has none.
    pub(crate) fn password(&self) -> Option<String> {
        self.password.clone().filter(|password| !password.is_empty())
    }

    /// The settings of the file, below confd's environment variables.
    pub(crate) fn layer(&self, environment: Environment<'_>) -> Layer {
        let mut variables = Layer::default();
        for (name, setting) in [
            ("CONFD_CLIENT_CAKEYS", &etcd::CA),
            ("CONFD_CLIENT_CERT", &etcd::CERT),
            ("CONFD_CLIENT_KEY", &etcd::KEY),
        ] {
            if let Some(text) = environment(name).filter(|text| !text.is_empty()) {
                variables.add(setting, text, Place::Env(name.to_owned(), setting.flag()));
            }
        }
        let at = self.file.display().to_string();
        let mut file = Layer::default();
        let mut put = |setting: &Setting, name: &'static str, text: Option<String>| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                file.add(setting, text, Place::File { at: at.clone(), name, default: true });
            }
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let switch = |on: bool| on.then(|| "true".to_owned());
        put(&CONFDIR, "confdir", path(&self.confdir));
        put(&PREFIX, "prefix", self.prefix.clone());
        put(&INTERVAL, "interval", self.interval.map(|seconds| seconds.to_string()));
        put(&REREAD, "interval", switch(self.interval.is_some()));
        put(&DRY_RUN, "noop", switch(self.noop));
        put(&ONCE, "onetime", switch(self.onetime));
        put(&SYNC_ONLY, "sync-only", switch(self.sync_only));
        let level = self.log_level.as_deref().filter(|level| !level.is_empty());
        put(&log::LEVEL, "log-level", level.map(|level| log_level(level).to_owned()));
        let v3 = self.backend.as_deref() == Some("etcdv3");
        put(&etcd::API, "backend", v3.then(|| "v3".to_owned()));
        self.nodes.iter().for_each(|node| put(&etcd::ENDPOINTS, "nodes", Some(node.clone())));
        put(&etcd::SRV, "srv_domain", self.srv_domain.clone());
        put(&etcd::CA, "client_cakeys", path(&self.client_cakeys));
        put(&etcd::CERT, "client_cert", path(&self.client_cert));
        put(&etcd::KEY, "client_key", path(&self.client_key));
        put(&etcd::USER, "username", self.username.clone());
        variables.over(&file)
    }
}

/// The confdir of a file that names none.
fn beside(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| parent.join("conf.d").is_dir());
    parent.unwrap_or(Path::new(CONFD)).to_owned()
}

#[cfg(test)]
mod tests {
    use common::settings::with_settings;
    use common::store::{Api, Connection};

    use super::*;

    fn parse(text: &str) -> Result<ConfdToml, String> {
        ConfdToml::parse(Path::new("/none/confd.toml"), text)
    }

    fn connect(text: &str, flags: &[&str], environment: &[(&str, &str)]) -> Connection {
        let find = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let command = with_settings(clap::Command::new("x"), &[&etcd::GROUP]);
        let matches = command.get_matches_from(std::iter::once(&"x").chain(flags));
        etcd::read(&matches, &find, &parse(text).unwrap().layer(&find)).unwrap()
    }

    #[test]
    fn the_whole_of_it_is_read() {
        let text = "backend = \"etcdv3\"\nconfdir = \"/c\"\nlog-level = \"panic\"\ninterval = 600\n\
                    prefix = \"/p\"\nnoop = true\nsync-only = true\nwatch = true\nscheme = \"https\"\n\
                    nodes = [\"https://a:2379\"]\nclient_cakeys = \"/ca\"\nclient_cert = \"/cert\"\n\
                    client_key = \"/key\"\nusername = \"me\"\npassword = \"secret\"\n";
        let file = parse(text).unwrap();
        assert!(file.notes.is_empty());
        assert_eq!(file.password().as_deref(), Some("secret"));
        let layer = file.layer(&|_| None);
        let text_of = |setting| layer.one(setting).map(|given| given.text.as_str());
        assert_eq!(
            (text_of(&DRY_RUN), text_of(&SYNC_ONLY), text_of(&ONCE)),
            (Some("true"), Some("true"), None)
        );
        assert_eq!((text_of(&log::LEVEL), text_of(&INTERVAL)), (Some("error"), Some("600")));
        assert_eq!((text_of(&CONFDIR), text_of(&PREFIX)), (Some("/c"), Some("/p")));
        let found = connect(text, &[], &[("ETCD_PASSWORD", "secret")]);
        assert_eq!((found.endpoints, found.api), (vec!["https://a:2379".to_owned()], Api::V3));
        assert_eq!(found.tls.cert.as_deref(), Some(Path::new("/cert")));
        assert_eq!(found.credentials.unwrap().user, "me");
    }

    #[test]
    fn flags_beat_the_environment_and_that_beats_the_file() {
        let text = "Nodes = [\"file:1\"]\nclient_cakeys = \"/file\"\nsrv_domain = \"\"\n";
        let environment = [("ETCDCTL_PEERS", "env:1,env:2"), ("CONFD_CLIENT_CAKEYS", "/env")];
        let found = connect(text, &["--node", "flag:1", "--etcd-ca", "/flag"], &environment);
        assert_eq!(
            (found.endpoints, found.tls.ca),
            (vec!["https://flag:1".to_owned()], Some("/flag".into()))
        );
        let found = connect(text, &[], &environment);
        assert_eq!(found.endpoints, ["https://env:1", "https://env:2"], "a CA means TLS");
        assert_eq!(found.tls.ca, Some("/env".into()));
        let found = connect(text, &[], &[("HOST_IP", "10.0.0.1")]);
        assert_eq!(found.endpoints, ["http://10.0.0.1:4001"]);
        let found = connect(text, &[], &[]);
        assert_eq!((found.endpoints, found.discovery), (vec!["https://file:1".to_owned()], None));
    }

    #[test]
    fn what_we_do_not_do_is_refused_and_the_rest_is_noted() {
        for (text, part) in [
            ("backend = \"vault\"", "vault"),
            ("client_insecure = true", "client_cakeys"),
            ("srv_record = \"_x._tcp.y\"", "srv_domain"),
            ("auth_token = \"x\"", "auth_token"),
            ("nodes = \"a:1\"", "`nodes`"),
            ("interval = -1", "`interval`"),
            ("nodes = [", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
        let file = parse("table = \"x\"\nauth_token = \"\"\n").unwrap();
        assert!(file.notes.len() == 1 && file.notes[0].text.contains("`table`"));
    }

    #[test]
    fn a_missing_file_is_reported_and_ignored() {
        let file = ConfdToml::find(Some(Path::new("/none/confd.toml")), None).unwrap();
        assert_eq!(file.confdir, Some("/etc/confd".into()));
        assert!(file.notes[0].ignored && file.notes[0].text.contains("no such file"));
        assert!(parse("OneTime = true\n").unwrap().onetime);
    }

    #[test]
    fn a_resource_in_place_of_a_confd_toml_names_the_confdir() {
        let text = "[template]\nsrc = \"a\"\n";
        let confdir = |path: &str| ConfdToml::parse(Path::new(path), text).unwrap().confdir;
        assert_eq!(confdir("/x/conf.d/nginx.toml"), Some("/x".into()));
        assert_eq!(confdir("/x/nginx.toml"), Some("/etc/confd".into()));
    }
}
