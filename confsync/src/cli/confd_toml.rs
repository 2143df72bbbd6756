//! confd's own configuration, `confd.toml`, as far as it means something here.
//!
//! Says only what the file says; flags and environment are put before it in
//! `settings`. What asks for something we do not do is an error, what means nothing
//! here is a note.

use std::path::{Path, PathBuf};

use common::args::{Environment, StoreArgs};
use common::store::Api;
use serde::Deserialize;

use crate::cli::confd_flags::log_level;
use crate::cli::settings;
use crate::config::confdir::{Note, mistyped, say};

/// What a `confd.toml` says. An empty text is as good as none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfdToml {
    pub(crate) confdir: Option<PathBuf>,
    pub(crate) prefix: Option<String>,
    /// Seconds.
    pub(crate) interval: Option<u64>,
    pub(crate) noop: bool,
    /// Not in confd's documentation, and read by it all the same.
    pub(crate) onetime: bool,
    #[serde(rename = "sync-only", alias = "sync_only")]
    pub(crate) sync_only: bool,
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
    #[serde(skip)]
    pub(crate) notes: Vec<Note>,
}

/// confd's own, which is meant by who names a file of confd's and no folder.
const CONFDIR: &str = "/etc/confd";

/// What is read or always so, and what belongs to it.
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
    /// When it cannot be read, or asks for what we do not do.
    pub fn find(named: Option<&Path>, confdir: Option<&Path>) -> Result<Self, String> {
        let beside = confdir.unwrap_or(Path::new(settings::CONFDIR)).join("confd.toml");
        match named {
            Some(file) => Self::read(file),
            None if beside.is_file() => Self::read(&beside),
            None => Ok(Self::default()),
        }
    }

    /// confd goes on without a file that is not there; so do we, and say it.
    fn read(path: &Path) -> Result<Self, String> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = "there is no such file; going on without it".to_owned();
                let notes = vec![Note { file: path.to_owned(), text, ignored: true }];
                return Ok(Self { confdir: Some(beside(path)), notes, ..Self::default() });
            }
            read => read.map_err(|error| format!("--config-file {}: {error}", path.display()))?,
        };
        Self::parse(path, &text).map_err(|why| format!("--config-file {}: {why}", path.display()))
    }

    /// The tutorial hands a resource file to confd as its configuration; confd finds
    /// nothing of its own in it and reads its confdir. So do we, and take the confdir
    /// that the file lies in. A `confd.toml` that names none lies in it too.
    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| say(&e, text))?;
        let table: toml::Table =
            table.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
        let parent = path.parent().unwrap_or(Path::new(""));
        if table.contains_key("template") {
            let folder = Some(parent).filter(|parent| parent.ends_with("conf.d"));
            let confdir = folder.and_then(Path::parent).unwrap_or(Path::new(CONFDIR));
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
        let told = file.confdir.filter(|dir| !dir.as_os_str().is_empty());
        file.confdir = Some(told.unwrap_or_else(|| beside(path)));
        file.notes = notes;
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
        let said = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if said(&self.srv_record) {
            return Err("srv_record: _etcd-client-ssl._tcp and _etcd-client._tcp are looked up; \
                        set srv_domain to the domain"
                .into());
        }
        if said(&self.auth_token) {
            return Err("auth_token: it belongs to a store other than etcd".into());
        }
        Ok(())
    }

    /// The least level logged, in our words.
    #[must_use]
    pub fn log_level(&self) -> Option<&str> {
        self.log_level.as_deref().filter(|level| !level.is_empty()).map(log_level)
    }

    /// The password, for when the environment has none.
    pub(crate) fn password(&self) -> Option<String> {
        self.password.clone().filter(|password| !password.is_empty())
    }

    /// The flags, with confd's variables of the environment and then the file's values
    /// where they say nothing.
    pub(crate) fn under(&self, args: &StoreArgs, environment: Environment<'_>) -> StoreArgs {
        let variable = |name| environment(name).filter(|value| !value.is_empty());
        let mut args = args.clone();
        if args.etcd.is_empty() && args.etcd_srv.is_none() {
            if let Some(peers) = variable("ETCDCTL_PEERS") {
                args.etcd = peers.split(',').map(str::to_owned).collect();
            } else if variable("HOST_IP").is_none() {
                args.etcd.clone_from(&self.nodes);
                args.etcd_srv = self.srv_domain.clone().filter(|domain| !domain.is_empty());
            }
        }
        if args.etcd_api == Api::Auto && self.backend.as_deref() == Some("etcdv3") {
            args.etcd_api = Api::V3;
        }
        let path = |flag: Option<PathBuf>, name, file: &Option<PathBuf>| {
            let file = || file.clone().filter(|path| !path.as_os_str().is_empty());
            flag.or_else(|| variable(name).map(PathBuf::from)).or_else(file)
        };
        args.etcd_ca = path(args.etcd_ca, "CONFD_CLIENT_CAKEYS", &self.client_cakeys);
        args.etcd_cert = path(args.etcd_cert, "CONFD_CLIENT_CERT", &self.client_cert);
        args.etcd_key = path(args.etcd_key, "CONFD_CLIENT_KEY", &self.client_key);
        // confd speaks TLS to `host:port` where it has files for it.
        let tls = args.etcd_ca.is_some() || args.etcd_cert.is_some() || args.etcd_key.is_some();
        for node in args.etcd.iter_mut().filter(|node| tls && !node.contains("://")) {
            *node = format!("https://{}", node.trim());
        }
        let username = || self.username.clone().filter(|name| !name.is_empty());
        args.etcd_user = args.etcd_user.or_else(username);
        args
    }
}

/// The confdir of a file that names none.
fn beside(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| parent.join("conf.d").is_dir());
    parent.unwrap_or(Path::new(CONFDIR)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        store: StoreArgs,
    }

    fn parse(text: &str) -> Result<ConfdToml, String> {
        ConfdToml::parse(Path::new("/none/confd.toml"), text)
    }

    fn under(text: &str, flags: &[&str], environment: &[(&str, &str)]) -> StoreArgs {
        let cli = Cli::parse_from(std::iter::once(&"x").chain(flags));
        let find = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        parse(text).unwrap().under(&cli.store, &find)
    }

    #[test]
    fn the_whole_of_it_is_read() {
        let text = "backend = \"etcdv3\"\nconfdir = \"/c\"\nlog-level = \"panic\"\ninterval = 600\n\
                    prefix = \"/p\"\nnoop = true\nsync-only = true\nwatch = true\nscheme = \"https\"\n\
                    nodes = [\"https://a:2379\"]\nclient_cakeys = \"/ca\"\nclient_cert = \"/cert\"\n\
                    client_key = \"/key\"\nusername = \"me\"\npassword = \"secret\"\n";
        let file = parse(text).unwrap();
        assert!(file.notes.is_empty() && file.noop && file.sync_only);
        assert_eq!((file.log_level(), file.interval), (Some("error"), Some(600)));
        assert_eq!(file.password().as_deref(), Some("secret"));
        let args = under(text, &[], &[]);
        assert_eq!((args.etcd, args.etcd_api), (vec!["https://a:2379".to_owned()], Api::V3));
        assert_eq!(args.etcd_cert.as_deref(), Some(Path::new("/cert")));
        assert_eq!(args.etcd_user.as_deref(), Some("me"));
    }

    #[test]
    fn flags_beat_the_environment_and_that_beats_the_file() {
        let text = "Nodes = [\"file:1\"]\nclient_cakeys = \"/file\"\nsrv_domain = \"\"\n";
        let environment = [("ETCDCTL_PEERS", "env:1,env:2"), ("CONFD_CLIENT_CAKEYS", "/env")];
        let args = under(text, &["--node", "flag:1", "--etcd-ca", "/flag"], &environment);
        assert_eq!(
            (args.etcd, args.etcd_ca),
            (vec!["https://flag:1".to_owned()], Some("/flag".into()))
        );
        let args = under(text, &[], &environment);
        assert_eq!(args.etcd, ["https://env:1", "https://env:2"], "a CA means TLS");
        assert_eq!(args.etcd_ca, Some("/env".into()));
        assert!(under(text, &[], &[("HOST_IP", "10.0.0.1")]).etcd.is_empty());
        let args = under(text, &[], &[]);
        assert_eq!((args.etcd, args.etcd_srv), (vec!["https://file:1".to_owned()], None));
        assert_eq!(under("nodes = [\"a:1\"]\n", &[], &[]).etcd, ["a:1"]);
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
    fn a_file_that_is_not_there_is_said_and_gone_without() {
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
