//! How etcd is reached: flags, the variables of etcd's own tool and of the tutorial,
//! credentials of systemd.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use super::{Environment, Group, Layer, Mistakes, Place, Reader};
use crate::store::{Api, Connection, Credentials, Password, Timeouts, check_endpoint};
use crate::tls::TlsFiles;

// The former names are those of etcdctl's v2.
crate::settings! {
    ENDPOINTS: "etcd", "ETCD_ENDPOINTS", "URL",
        "Address of an etcd member; repeat it or separate with commas"
        .details("Without it, $ETCDCTL_PEERS, else $HOST_IP:$ETCD_PORT (127.0.0.1 and 4001 where \
                 one of them is not set), else $ETCDCTL_ENDPOINTS.")
        .default_in_words("http://127.0.0.1, port 2379 or 4001").aliases(&["endpoints", "node"]).formerly(&["endpoint", "peers"])
        .list().never_empty();
    API: "etcd_api", "ETCD_API", "API", "API version; `auto` asks the server"
        .also_from(&["ETCDCTL_API"]).choices(&["auto", "v3", "v2"]).default("auto");
    SRV: "etcd_srv", "ETCD_SRV", "DOMAIN",
        "Domain whose SRV records name the members (_etcd-client-ssl._tcp, _etcd-client._tcp)"
        .also_from(&["ETCDCTL_DISCOVERY_SRV"]).aliases(&["srv-domain", "discovery-srv"]);
    AUTO_SYNC: "etcd_auto_sync", "ETCD_AUTO_SYNC", "",
        "Learn the other members from the cluster, and use them too when those given fail"
        .details("Their client URLs must be reachable from here: many clusters name addresses that \
                  only their own machines know. URLs with another scheme are ignored, and so are \
                  wildcard and loopback addresses (0.0.0.0, 127.0.0.1), unless etcd runs on this \
                  machine.");
    CA: "etcd_ca", "ETCD_CA", "FILE",
        "File with the CA certificates that etcd's certificate must chain to"
        .also_from(&["ETCDCTL_CACERT", "ETCDCTL_CA_FILE"]).aliases(&["cacert", "client-ca-keys"]).formerly(&["ca_file"]);
    CERT: "etcd_cert", "ETCD_CERT", "FILE", "File with our client certificate"
        .also_from(&["ETCDCTL_CERT", "ETCDCTL_CERT_FILE"]).aliases(&["cert", "client-cert"]).formerly(&["cert_file"]);
    KEY: "etcd_key", "ETCD_KEY", "FILE", "File with the key of our client certificate"
        .also_from(&["ETCDCTL_KEY", "ETCDCTL_KEY_FILE"]).aliases(&["key", "client-key"]).formerly(&["key_file"]);
    USER: "etcd_user", "ETCD_USER", "NAME",
        "User name; the password comes from $ETCD_PASSWORD or a file, never from an argument"
        .also_from(&["ETCDCTL_USER", "ETCDCTL_USERNAME"]).aliases(&["user", "username"]);
    PASSWORD_FILE: "etcd_password_file", "ETCD_PASSWORD_FILE", "FILE",
        "File whose first line is the password";
}

pub static GROUP: Group = Group {
    heading: "etcd",
    settings: &[&ENDPOINTS, &API, &SRV, &AUTO_SYNC, &CA, &CERT, &KEY, &USER, &PASSWORD_FILE],
};

/// Variables that hold the password, the first of them first.
const PASSWORDS: [&str; 2] = ["ETCD_PASSWORD", "ETCDCTL_PASSWORD"];

/// Where etcd is and how it is reached according to variables that are not ours alone, and
/// to credentials of systemd: to be laid under flags and variables.
fn from_surroundings(environment: Environment<'_>) -> Layer {
    let mut layer = Layer::default();
    for (name, endpoint) in endpoint_variables(environment) {
        let place = Place::Env(name.to_owned(), ENDPOINTS.flag());
        layer.add(&ENDPOINTS, endpoint, place);
    }
    let Some(folder) = environment("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty())
    else {
        return layer;
    };
    let mut credentials = Layer::default();
    for (name, setting) in [
        ("etcd-ca", &CA),
        ("etcd-cert", &CERT),
        ("etcd-key", &KEY),
        ("etcd-password", &PASSWORD_FILE),
    ] {
        let file = Path::new(&folder).join(name);
        if file.is_file() {
            let place = Place::Credential(name.to_owned(), setting.flag());
            credentials.add(setting, file.display().to_string(), place);
        }
    }
    layer.over(&credentials)
}

/// Variables of others that say where etcd is. Container platforms set `$ETCD_PORT` too,
/// to a URL that is for others.
fn endpoint_variables(environment: Environment<'_>) -> Vec<(&'static str, String)> {
    let split = |name: &'static str, list: &str| {
        list.split(',').map(|endpoint| (name, endpoint.trim().to_owned())).collect()
    };
    let set = |name: &str| environment(name).filter(|text| !text.trim().is_empty());
    if let Some(list) = set("ETCDCTL_PEERS") {
        return split("ETCDCTL_PEERS", &list);
    }
    match (environment("HOST_IP"), environment("ETCD_PORT")) {
        // Empty, and found to be so by who reads it: the tutorial's units set it.
        (Some(host), _) if host.is_empty() => vec![("HOST_IP", host)],
        (Some(host), port) => {
            let port = port.filter(|p| !p.is_empty()).unwrap_or_else(|| "4001".to_owned());
            let bare = host.parse::<Ipv6Addr>().is_ok();
            let host = if bare { format!("[{host}]") } else { host };
            vec![("HOST_IP", format!("http://{host}:{port}"))]
        }
        (None, port) => match port.and_then(|port| port.parse::<u16>().ok()) {
            Some(port) => vec![("ETCD_PORT", format!("http://127.0.0.1:{port}"))],
            None => ["ETCDCTL_ENDPOINTS", "ETCDCTL_ENDPOINT"]
                .into_iter()
                .find_map(|name| set(name).map(|list| split(name, &list)))
                .unwrap_or_default(),
        },
    }
}

/// How etcd is reached, by flags, environment and what is `below` them (a file).
///
/// # Errors
/// All mistakes at once.
pub fn read(
    matches: &clap::ArgMatches,
    environment: Environment<'_>,
    below: &Layer,
) -> Result<Connection, Mistakes> {
    let layer = Layer::from_matches(matches, GROUP.settings, environment);
    let layer = layer.over(&from_surroundings(environment)).over(below);
    let mut mistakes = Mistakes::default();
    let connection = connection(&mut Reader::new(&layer, "", &mut mistakes), environment);
    mistakes.none_or(connection)
}

/// The connection that these settings describe; with mistakes in `from` it is of no use.
fn connection(from: &mut Reader<'_>, environment: Environment<'_>) -> Connection {
    let api = from.get(&API, api).unwrap_or_default();
    let discovery = from.text(&SRV);
    let auto_sync = from.yes(&AUTO_SYNC);
    let checked = |text: &str| check_endpoint(text, api).map(|()| text.trim().to_owned());
    let mut endpoints = from.get_all(&ENDPOINTS, checked);
    if endpoints.is_empty() && discovery.is_none() {
        endpoints.push("http://127.0.0.1".to_owned());
    }
    let mut path = |setting| from.text(setting).map(PathBuf::from);
    let tls = TlsFiles { ca: path(&CA), cert: path(&CERT), key: path(&KEY) };
    for (one, other, there) in [(&CERT, &KEY, tls.key.is_some()), (&KEY, &CERT, tls.cert.is_some())]
    {
        if from.is_given(one) && !there {
            from.wrong(one, format!("needs {} as well", other.flag()));
        }
    }
    if discovery.is_some() && from.is_given(&ENDPOINTS) {
        from.wrong(&SRV, "is given together with --etcd: one of them is enough");
    }
    let tls_is_meant = from.is_meant(&CA) || from.is_meant(&CERT);
    let plain = |endpoint: &String| endpoint.to_ascii_lowercase().starts_with("http://");
    if tls_is_meant && discovery.is_none() && endpoints.iter().all(plain) {
        let setting = if from.is_meant(&CA) { &CA } else { &CERT };
        from.wrong(setting, "is for TLS, and every endpoint begins with http://");
    }
    // As confd has it: with files for TLS, wherever they are named, `host:port` is an endpoint
    // that speaks it. A credential of the service manager may be there for another use.
    let named = |setting| from.is_given(setting) && !from.is_credential(setting);
    if named(&CA) || named(&CERT) {
        for endpoint in endpoints.iter_mut().filter(|endpoint| !endpoint.contains("://")) {
            *endpoint = format!("https://{endpoint}");
        }
    }
    let credentials = credentials(from, environment);
    let timeouts = Timeouts::default();
    Connection { endpoints, discovery, auto_sync, api, tls, credentials, timeouts }
}

/// `2` and `3` as etcdctl has them.
fn api(text: &str) -> Result<Api, String> {
    match text {
        "2" => Ok(Api::V2),
        "3" => Ok(Api::V3),
        text => <Api as clap::ValueEnum>::from_str(text, true).map_err(|_| {
            let text: String = text.chars().take(40).collect();
            format!("`{}` is not an etcd API; write `auto`, `v3` or `v2`", text.escape_debug())
        }),
    }
}

/// The tool's `--user name:password` is taken from the environment alone: everybody can
/// read arguments.
fn credentials(from: &mut Reader<'_>, environment: Environment<'_>) -> Option<Credentials> {
    let user = from.text(&USER)?;
    let (user, with_name) = match user.split_once(':') {
        Some((name, password)) => (name.to_owned(), Some(password.to_owned())),
        None => (user, None),
    };
    let from_tool =
        ["ETCDCTL_USER", "ETCDCTL_USERNAME"].iter().any(|name| from.is_from(&USER, name));
    if with_name.is_some() && !from_tool {
        from.wrong(
            &USER,
            "give the name alone; the password comes from $ETCD_PASSWORD or --etcd-password-file",
        );
        return None;
    }
    let password = match from.text(&PASSWORD_FILE) {
        Some(file) => Password::File(PathBuf::from(file)),
        None => {
            let set = |name: &&str| environment(name).filter(|text| !text.is_empty());
            let found = PASSWORDS.iter().find_map(set).or(with_name);
            let missing = "needs a password: set $ETCD_PASSWORD or give --etcd-password-file";
            Password::Given(found.or_else(|| {
                from.wrong(&USER, missing);
                None
            })?)
        }
    };
    Some(Credentials { user, password })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::with_settings;
    use super::*;

    fn connect(args: &[&str], environment: &[(&str, &str)]) -> Result<Connection, String> {
        let environment: BTreeMap<String, String> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let find = |name: &str| environment.get(name).cloned();
        let command = with_settings(clap::Command::new("x"), &[&GROUP]);
        let matches = command.try_get_matches_from(std::iter::once(&"x").chain(args));
        let matches = matches.map_err(|e| e.to_string())?;
        read(&matches, &find, &Layer::default()).map_err(|mistakes| mistakes.to_string())
    }

    fn endpoints(args: &[&str], environment: &[(&str, &str)]) -> Result<Vec<String>, String> {
        connect(args, environment).map(|connection| connection.endpoints)
    }

    #[test]
    fn flags_then_the_tutorials_variables_then_the_default() {
        let tutorial = [("HOST_IP", "172.17.42.1")];
        assert_eq!(endpoints(&["--etcd", "a:1,b:2"], &tutorial).unwrap(), ["a:1", "b:2"]);
        assert_eq!(endpoints(&[], &tutorial).unwrap(), ["http://172.17.42.1:4001"]);
        let both = [("HOST_IP", "10.0.0.1"), ("ETCD_PORT", "2379")];
        assert_eq!(endpoints(&[], &both).unwrap(), ["http://10.0.0.1:2379"]);
        assert_eq!(endpoints(&[], &[]).unwrap(), ["http://127.0.0.1"]);
        assert_eq!(endpoints(&[], &[("ETCD_PORT", "4001")]).unwrap(), ["http://127.0.0.1:4001"]);
        let linked = [("ETCD_PORT", "tcp://172.17.0.5:4001"), ("ETCDCTL_ENDPOINTS", "a:1, b:2")];
        assert_eq!(endpoints(&[], &linked).unwrap(), ["a:1", "b:2"]);
        let six = [("HOST_IP", "2001:db8::1")];
        assert_eq!(endpoints(&[], &six).unwrap(), ["http://[2001:db8::1]:4001"]);
        let peers = [("ETCDCTL_PEERS", "p:1"), ("HOST_IP", "10.0.0.1")];
        assert_eq!(endpoints(&[], &peers).unwrap(), ["p:1"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(endpoints(&["--etcd", ""], &[]).unwrap_err().contains("unset"));
        assert!(endpoints(&["--etcd", "http://"], &[]).unwrap_err().contains("has no host"));
        assert!(endpoints(&[], &[("HOST_IP", "a b")]).unwrap_err().starts_with("HOST_IP (for"));
        assert!(endpoints(&[], &[("HOST_IP", "")]).unwrap_err().contains("unset"));
        assert!(endpoints(&["--etcd-user", "me"], &[]).unwrap_err().contains("ETCD_PASSWORD"));
        let both = endpoints(&["--user", "me:s3cret"], &[]).unwrap_err();
        assert!(both.contains("name alone") && !both.contains("s3cret"), "{both}");
        let half = endpoints(&["--etcd", "https://a", "--cert", "/c"], &[]).unwrap_err();
        assert_eq!(half, "--etcd-cert needs --etcd-key as well");
    }

    #[test]
    fn what_cannot_be_right_together_is_named() {
        let plain = endpoints(&["--etcd-ca", "/ca.pem"], &[]).unwrap_err();
        assert!(plain.starts_with("--etcd-ca is for TLS"), "{plain}");
        let two = endpoints(&["--etcd", "a:1", "--etcd-srv", "example.org"], &[]).unwrap_err();
        assert!(two.starts_with("--etcd-srv is given together with --etcd"), "{two}");
        // Files are read when a connection is made.
        let secure = ["--etcd", "https://a:1", "--etcd-ca", "/does/not/exist"];
        assert!(endpoints(&secure, &[]).is_ok());
    }

    #[test]
    fn the_names_of_etcds_own_tool_are_understood() {
        let tool = [
            ("ETCDCTL_API", "2"),
            ("ETCDCTL_CACERT", "/ca"),
            ("ETCDCTL_CERT", "/cert"),
            ("ETCDCTL_KEY", "/key"),
            ("ETCDCTL_USER", "me:s3cret"),
        ];
        let from_tool = connect(&[], &tool).unwrap();
        assert_eq!((from_tool.api, from_tool.tls.ca), (Api::V2, Some("/ca".into())));
        let credentials = from_tool.credentials.unwrap();
        assert!(matches!(credentials.password, Password::Given(text) if text == "s3cret"));
        assert_eq!(credentials.user, "me");
        let of_v2 = [("ETCDCTL_ENDPOINT", "a:1,b:1"), ("ETCDCTL_USERNAME", "me:s3cret")];
        let from_v2 = connect(&[], &of_v2).unwrap();
        assert_eq!(from_v2.endpoints, ["a:1", "b:1"]);
        assert_eq!(from_v2.credentials.unwrap().user, "me");
        let line = ["--peers", "a:1", "--ca-file", "/x", "--cert-file", "/y", "--key-file", "/z"];
        assert_eq!(connect(&line, &[]).unwrap().tls.ca, Some("/x".into()));
        let line = ["--endpoints", "a:1", "--cacert", "/x", "--cert", "/y", "--key", "/z"];
        let by_flags = connect(&line, &tool).unwrap();
        assert_eq!(
            (by_flags.endpoints, by_flags.tls.ca),
            (vec!["https://a:1".into()], Some("/x".into()))
        );
    }

    #[test]
    fn credentials_of_systemd_apply_where_nothing_else_is_set() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd-ca"), "").unwrap();
        std::fs::write(folder.path().join("etcd-password"), "s3cret\n").unwrap();
        let password = folder.path().join("etcd-password");
        let variables = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
        let found = connect(&["--etcd-user", "me"], &variables).unwrap();
        assert_eq!(found.tls.ca, Some(folder.path().join("etcd-ca")));
        let credentials = found.credentials.unwrap();
        assert!(matches!(credentials.password, Password::File(file) if file == password));
        let found = connect(&["--etcd", "a:1", "--etcd-ca", "/mine"], &variables).unwrap();
        assert_eq!(found.tls.ca, Some("/mine".into()));
    }
}
