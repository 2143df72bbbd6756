//! The flags that both daemons have, to be flattened into theirs.
//!
//! They are texts here; the methods validate them, and return every mistake at once. What only
//! the content of a file or an answer of a server can show is not looked at: it may change
//! while a daemon waits.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use clap::Args;

use crate::runtime::LogFormat;
use crate::store::{Api, Connection, Credentials, Password, Timeouts, TlsFiles, check_endpoint};

/// Where etcd is, and how to connect.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "etcd")]
pub struct StoreArgs {
    /// Address of an etcd member; repeat it or separate with commas. Without it,
    /// $HOST_IP:$ETCD_PORT (127.0.0.1 and 4001 where one of them is not set), else
    /// $ETCDCTL_ENDPOINTS, else http://127.0.0.1:2379
    #[arg(
        long = "etcd",
        visible_alias = "node",
        value_name = "URL",
        env = "ETCD_ENDPOINTS",
        value_delimiter = ','
    )]
    pub etcd: Vec<String>,

    /// Which API to speak; `auto` asks the server
    #[arg(long, value_name = "API", env = "ETCD_API", default_value = "auto", ignore_case = true)]
    pub etcd_api: Api,

    /// Domain whose SRV records name the members (_etcd-client-ssl._tcp, _etcd-client._tcp)
    #[arg(long, visible_alias = "srv-domain", value_name = "DOMAIN", env = "ETCD_SRV")]
    pub etcd_srv: Option<String>,

    /// File with the CA certificates that etcd's certificate must chain to
    #[arg(
        long = "etcd-ca",
        visible_alias = "client-ca-keys",
        value_name = "FILE",
        env = "ETCD_CA"
    )]
    pub etcd_ca: Option<PathBuf>,

    /// File with our client certificate
    #[arg(
        long = "etcd-cert",
        visible_alias = "client-cert",
        value_name = "FILE",
        env = "ETCD_CERT",
        requires = "etcd_key"
    )]
    pub etcd_cert: Option<PathBuf>,

    /// File with the key of our client certificate
    #[arg(
        long = "etcd-key",
        visible_alias = "client-key",
        value_name = "FILE",
        env = "ETCD_KEY",
        requires = "etcd_cert"
    )]
    pub etcd_key: Option<PathBuf>,

    /// User name; the password comes from $ETCD_PASSWORD or a file, never from an
    /// argument
    #[arg(long = "etcd-user", visible_alias = "username", value_name = "NAME", env = "ETCD_USER")]
    pub etcd_user: Option<String>,

    /// File whose first line is the password
    #[arg(long = "etcd-password-file", value_name = "FILE", env = "ETCD_PASSWORD_FILE")]
    pub etcd_password_file: Option<PathBuf>,
}

/// What is logged, and in which form.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// The form of the log lines
    #[arg(long, value_enum, value_name = "FORMAT", env = "LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// The lowest level that is logged: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "LOG_LEVEL")]
    pub log_level: Option<String>,
}

impl LogArgs {
    /// The lowest level that is logged.
    #[must_use]
    pub fn level(&self) -> &str {
        self.log_level.as_deref().filter(|level| !level.is_empty()).unwrap_or("info")
    }
}

/// Reads an environment variable; tests pass a map.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl StoreArgs {
    /// The connection that these flags describe.
    ///
    /// # Errors
    /// Every mistake found, each naming its flag or variable.
    pub fn connection(&self, environment: Environment<'_>) -> Result<Connection, Vec<String>> {
        let mut mistakes = Vec::new();
        let endpoints = self.endpoints(environment).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            Vec::new()
        });
        for endpoint in &endpoints {
            let wrong = check_endpoint(endpoint, self.etcd_api).err();
            mistakes.extend(wrong.map(|why| format!("--etcd (or $ETCD_ENDPOINTS): {why}")));
        }
        let credentials = self.credentials(environment).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        mistakes.extend(self.contradictions(&endpoints));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let tls = TlsFiles {
            ca: self.etcd_ca.clone(),
            cert: self.etcd_cert.clone(),
            key: self.etcd_key.clone(),
        };
        Ok(Connection {
            endpoints,
            discovery: self.etcd_srv.clone(),
            api: self.etcd_api,
            tls,
            credentials,
            timeouts: Timeouts::default(),
        })
    }

    /// Flags that cannot be right together.
    fn contradictions(&self, endpoints: &[String]) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.etcd_srv.is_some() && !self.etcd.is_empty() {
            mistakes.push("--etcd and --etcd-srv: one of them is enough".to_owned());
        }
        let tls = self.etcd_ca.is_some() || self.etcd_cert.is_some();
        let plain = |endpoint: &String| endpoint.to_ascii_lowercase().starts_with("http://");
        if tls && self.etcd_srv.is_none() && endpoints.iter().all(plain) {
            mistakes.push(
                "--etcd-ca and --etcd-cert are for TLS, and every endpoint begins with http://"
                    .to_owned(),
            );
        }
        mistakes
    }

    /// Flags first, then the tutorial's HOST_IP and ETCD_PORT, then etcd's default.
    fn endpoints(&self, environment: Environment<'_>) -> Result<Vec<String>, String> {
        let given: Vec<String> = self.etcd.iter().map(|e| e.trim().to_owned()).collect();
        if given.iter().any(String::is_empty) {
            return Err(
                "--etcd (or $ETCD_ENDPOINTS) is empty; is a variable in the unit file unset?"
                    .into(),
            );
        }
        if !given.is_empty() || self.etcd_srv.is_some() {
            return Ok(given);
        }
        match (environment("HOST_IP"), environment("ETCD_PORT")) {
            (Some(host), _) if host.is_empty() => {
                Err("$HOST_IP is set but empty; set it to etcd's address, or give --etcd".into())
            }
            (Some(host), port) => {
                let port = port.filter(|p| !p.is_empty()).unwrap_or_else(|| "4001".to_owned());
                let bare = host.parse::<Ipv6Addr>().is_ok();
                let host = if bare { format!("[{host}]") } else { host };
                Ok(vec![format!("http://{host}:{port}")])
            }
            (None, port) => Ok(without_host(port, environment("ETCDCTL_ENDPOINTS"))),
        }
    }

    fn credentials(&self, environment: Environment<'_>) -> Result<Option<Credentials>, String> {
        let Some(user) = &self.etcd_user else { return Ok(None) };
        if user.contains(':') {
            return Err(
                "--etcd-user (or $ETCD_USER): give the name alone; the password comes from \
                        $ETCD_PASSWORD or --etcd-password-file"
                    .into(),
            );
        }
        let password = match &self.etcd_password_file {
            Some(file) => Password::File(file.clone()),
            None => {
                let given = environment("ETCD_PASSWORD").filter(|p| !p.is_empty());
                Password::Given(given.ok_or_else(|| {
                    "--etcd-user needs a password: set $ETCD_PASSWORD or --etcd-password-file"
                        .to_owned()
                })?)
            }
        };
        Ok(Some(Credentials { user: user.clone(), password }))
    }
}

/// etcd is on this machine, or where etcd's own tool is told to look. Container
/// platforms set $ETCD_PORT too, to a URL that is for others.
fn without_host(port: Option<String>, tool: Option<String>) -> Vec<String> {
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        return vec![format!("http://127.0.0.1:{port}")];
    }
    match tool.filter(|list| !list.trim().is_empty()) {
        Some(list) => list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(),
        None => vec!["http://127.0.0.1:2379".to_owned()],
    }
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

    fn endpoints(args: &[&str], environment: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let environment: std::collections::BTreeMap<String, String> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let argv = std::iter::once(&"x").chain(args);
        let cli = Cli::try_parse_from(argv).map_err(|e| e.to_string())?;
        cli.store
            .connection(&|name| environment.get(name).cloned())
            .map(|c| c.endpoints)
            .map_err(|m| m.join("\n"))
    }

    #[test]
    fn flags_then_the_tutorials_variables_then_the_default() {
        let tutorial = [("HOST_IP", "172.17.42.1")];
        assert_eq!(endpoints(&["--etcd", "a:1,b:2"], &tutorial).unwrap(), ["a:1", "b:2"]);
        assert_eq!(endpoints(&[], &tutorial).unwrap(), ["http://172.17.42.1:4001"]);
        let both = [("HOST_IP", "10.0.0.1"), ("ETCD_PORT", "2379")];
        assert_eq!(endpoints(&[], &both).unwrap(), ["http://10.0.0.1:2379"]);
        assert_eq!(endpoints(&[], &[]).unwrap(), ["http://127.0.0.1:2379"]);
        assert_eq!(endpoints(&[], &[("ETCD_PORT", "4001")]).unwrap(), ["http://127.0.0.1:4001"]);
        let linked = [("ETCD_PORT", "tcp://172.17.0.5:4001"), ("ETCDCTL_ENDPOINTS", "a:1, b:2")];
        assert_eq!(endpoints(&[], &linked).unwrap(), ["a:1", "b:2"]);
        let six = [("HOST_IP", "2001:db8::1")];
        assert_eq!(endpoints(&[], &six).unwrap(), ["http://[2001:db8::1]:4001"]);
    }

    #[test]
    fn files_are_not_looked_at_before_a_connection_is_made() {
        let secure = ["--etcd", "https://a:1", "--etcd-ca", "/does/not/exist"];
        assert!(endpoints(&secure, &[]).is_ok());
        let password = ["--etcd-user", "me", "--etcd-password-file", "/does/not/exist"];
        assert!(endpoints(&password, &[]).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(endpoints(&["--etcd", ""], &[]).unwrap_err().contains("unset"));
        assert!(endpoints(&["--etcd", "http://"], &[]).unwrap_err().contains("has no host"));
        assert!(endpoints(&[], &[("HOST_IP", "a b")]).unwrap_err().contains("--etcd"));
        assert!(endpoints(&["--etcd-user", "me"], &[]).unwrap_err().contains("ETCD_PASSWORD"));
        let both = endpoints(&["--etcd-user", "me:s3cret"], &[]).unwrap_err();
        assert!(both.contains("name alone") && !both.contains("s3cret"), "{both}");
        let plain = endpoints(&["--etcd-ca", "/ca.pem"], &[]).unwrap_err();
        assert!(plain.contains("begins with http://"), "{plain}");
        let two = endpoints(&["--etcd", "a:1", "--etcd-srv", "example.org"], &[]).unwrap_err();
        assert!(two.contains("--etcd-srv"), "{two}");
    }
}
