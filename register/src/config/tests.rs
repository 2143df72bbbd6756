use std::time::Duration;

use common::runtime::ListenAddress;
use proptest::prelude::*;

use super::*;
use crate::cli;
use crate::handshake::WaitBounds;

/// What a command line means, with these variables set, and `services.toml` if any.
fn sources(line: &[&str], env: &[(&str, &str)]) -> ConfigSources {
    let words = ["register"].iter().chain(line);
    let matches = cli::command().try_get_matches_from(words).unwrap();
    let (_, inner) = matches.subcommand().unwrap();
    let find = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    ConfigSources::new(inner, &find, "box-1".into())
}

fn run(line: &str) -> Result<RegisterConfig, String> {
    let words: Vec<&str> = ["run"].into_iter().chain(line.split_whitespace()).collect();
    sources(&words, &[]).resolve(None).map_err(|e| e.to_string())
}

const APACHE: &str = "--service apache --host 10.0.0.1 --port 7777";

fn apache(more: &str) -> Result<RegisterConfig, String> {
    run(&format!("{APACHE} {more}"))
}

fn file(text: &str) -> Result<RegisterConfig, String> {
    sources(&["run", "--config", "services.toml"], &[])
        .resolve(Some(text))
        .map_err(|e| e.to_string())
}

#[test]
fn the_short_command_line_has_careful_defaults() {
    let config = apache("").unwrap();
    let service = &config.services[0];
    assert_eq!(service.target.key.as_str(), "/services/apache/10.0.0.1");
    assert_eq!(service.value, "10.0.0.1:7777");
    assert_eq!(service.checks[0].to_string(), "http://10.0.0.1:7777/");
    assert_eq!((service.policy.rise.get(), service.policy.fall.get()), (2, 3));
    assert_eq!(service.timeout, Duration::from_millis(1_500));
    assert_eq!(config.process.ttl.secs(), 30);
    assert_eq!(config.process.bookkeeping.as_str(), "/confsync");
    assert_eq!((config.process.wait_applied, config.process.drain.min), (None, Duration::ZERO));
    assert_eq!(config.process.bounds(), WaitBounds::default(), "as `register remove` waits");
    assert!(config.notes.is_empty());
}

#[test]
fn every_setting_can_be_given() {
    let config = apache(
        "--id {host}:{port}-{hostname} --prefix /web --value json --weight 3 --zone a --meta v=2 \
         --meta x=a=b --check /health --check tcp --expect 200 --interval 10s --fast-interval 2s \
         --timeout 3s --rise 1 --fall 4 --grace 1m --ttl 60s --wait-applied=20s --min-lbs 2 \
         --drain-min 1s --drain-applied 5s --drain-quiesced 6s --bookkeeping /lb \
         --status 127.0.0.1:8080 -- apache2 -DFOREGROUND",
    )
    .unwrap();
    let service = &config.services[0];
    assert_eq!(service.target.key.as_str(), "/web/apache/10.0.0.1:7777-box-1");
    assert_eq!(
        service.value,
        r#"{"addr":"10.0.0.1:7777","weight":3,"zone":"a","meta":{"v":"2","x":"a=b"}}"#
    );
    let checks: Vec<_> = service.checks.iter().map(ToString::to_string).collect();
    assert_eq!(checks, ["http://10.0.0.1:7777/health", "tcp://10.0.0.1:7777"]);
    assert_eq!(config.process.wait_applied, Some(Duration::from_secs(20)));
    assert_eq!(config.command, ["apache2", "-DFOREGROUND"]);
    for (text, addr) in [(":9090", "0.0.0.0:9090"), ("localhost:9090", "127.0.0.1:9090")] {
        let config = apache(&format!("--status {text}")).unwrap();
        assert_eq!(
            config.process.status.unwrap().address,
            ListenAddress::Tcp(addr.parse().unwrap())
        );
    }
    let spaced = apache("--wait-applied 20s").unwrap();
    assert_eq!(spaced.process.wait_applied, Some(Duration::from_secs(20)));
    let bare = apache("--wait-applied").unwrap();
    assert_eq!(bare.process.wait_applied, Some(Duration::from_secs(30)));
}

#[test]
fn an_unset_variable_in_a_unit_is_named() {
    let words = ["run", "--service", "apache", "--host", "", "--port", ""];
    let message = sources(&words, &[]).resolve(None).unwrap_err().to_string();
    assert_eq!(
        message,
        "--host is empty; is a variable in the unit file unset?\n\
         --port is empty; is a variable in the unit file unset?"
    );
    let words = ["run", "--service", "apache", "--port", "80"];
    let message = sources(&words, &[("COREOS_PRIVATE_IPV4", "")]).resolve(None).unwrap_err();
    assert!(
        message.to_string().starts_with("COREOS_PRIVATE_IPV4 (for --host) is empty"),
        "{message}"
    );
    let message = sources(&words, &[]).resolve(None).unwrap_err().to_string();
    assert!(
        message.starts_with("--host is required") && message.contains("COREOS_PRIVATE_IPV4"),
        "{message}"
    );
}

#[test]
fn the_machine_of_the_tutorial_is_understood_and_comes_last() {
    let env = [("COREOS_PRIVATE_IPV4", "10.132.249.206")];
    let config = sources(&["run", "--service", "apache", "--port", "7777"], &env).resolve(None);
    assert_eq!(config.unwrap().services[0].value, "10.132.249.206:7777");
    let words: Vec<&str> = ["run"].into_iter().chain(APACHE.split(' ')).collect();
    let config = sources(&words, &env).resolve(None).unwrap();
    assert_eq!(config.services[0].value, "10.0.0.1:7777");
}

#[test]
fn each_mistake_is_refused_with_a_remedy() {
    for (line, part) in [
        ("--ttl 5s", "--ttl: 5s is below three probe intervals of 2s"),
        ("--timeout 2s", "--timeout: 2s must be below --interval 2s"),
        ("--fast-interval 3s", "--fast-interval: 3s is not faster than --interval 2s"),
        ("--interval 10ms", "--interval: `10ms` is not between 100ms and 1h"),
        ("--interval 5x", "--interval: `5x` is not a time span"),
        ("--rise 0", "--rise: `0` is not a number from 1"),
        ("--fall x", "--fall: `x` is not a number"),
        ("--check http:///health", "has no host; is a variable in the unit file unset?"),
        ("--check http://:7777/", "--check: `http://:7777/` has no host"),
        ("--check exec:", "--check: `exec:` names no command"),
        ("--check htp://x/", "is not a check; write http://"),
        ("--check tcp --expect 200", "--expect: there is no http check that it applies to"),
        ("--check-ca /ca.pem", "--check-ca: there is no https check"),
        ("--expect 2xx", "--expect: `2xx` is not a set of HTTP statuses"),
        ("--weight 3", "--weight: a plain value is only `host:port`; add --value json"),
        ("--value json --weight 257", "--weight: `257` is not a number from 1 to 256"),
        ("--value json --meta x", "--meta: `x` is not KEY=VALUE"),
        ("--value json --meta x=1 --meta x=2", "--meta: `x` is given twice"),
        ("--value json --zone a;b", "--zone: `a;b` is not a plain word"),
        ("--value xml", "--value: `xml` is neither plain (`host:port`) nor json"),
        ("--id {ip}", "--id: `{ip}`: only {host}, {port} and {hostname}"),
        ("--id a/b", "--id: `a/b` must be one path segment"),
        ("--prefix /a//b", "--services: `/a//b` has an empty"),
        (
            "--bookkeeping /services",
            "--bookkeeping: the key /services/apache/10.0.0.1 is inside it",
        ),
        ("--status 80", "--listen: `80` is not an address"),
        ("--wait-applied=0s", "--wait-applied: the wait is from 1s to 1h"),
        (
            "--check https --check-insecure=maybe",
            "--check-insecure: `maybe` is neither true nor false",
        ),
    ] {
        let message = apache(line).unwrap_err();
        assert!(message.contains(part), "{line}: {message}");
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
    }
    for (host, part) in
        [("0.0.0.0", "where to listen"), ("224.0.0.1", "one machine"), ("::", "listen")]
    {
        let message = run(&format!("--service apache --host {host} --port 80")).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let message = run("--service a/b --port 0 --ttl 1s --check exec: --rise x").unwrap_err();
    let places: Vec<_> = message.lines().filter_map(|line| line.split([':', ' ']).next()).collect();
    assert_eq!(places, ["--service", "--host", "--port", "--check", "--rise", "--ttl"]);
}

#[test]
fn unusual_hosts_are_noted_and_taken() {
    for (host, part) in [("127.0.0.1", "loopback"), ("::1", "loopback"), ("web1", "is a name")] {
        let config = run(&format!("--service apache --host {host} --port 80")).unwrap();
        assert!(config.notes[0].contains(part), "{:?}", config.notes);
    }
}

const SERVICES: &str = r#"
[defaults]
ttl = "60s"
host = "10.0.0.1"
expect = "200"
interval = "10s"

[[service]]
service = "apache"
port = 7777

[[service]]
service = "redis"
port = 6379
check = "tcp"
host = "10.0.0.2"
interval = "4s"
"#;

#[test]
fn a_file_holds_many_services() {
    let config = file(SERVICES).unwrap();
    let shown: Vec<_> = config
        .services
        .iter()
        .map(|s| (s.target.key.as_str(), s.checks[0].to_string(), s.policy.interval.as_secs()))
        .collect();
    assert_eq!(
        shown,
        [
            ("/services/apache/10.0.0.1", "http://10.0.0.1:7777/".to_owned(), 10),
            ("/services/redis/10.0.0.2", "tcp://10.0.0.2:6379".to_owned(), 4),
        ]
    );
    assert_eq!(config.process.ttl.secs(), 60);
}

#[test]
fn flags_beat_the_file_and_the_file_beats_the_machine() {
    let env = [("COREOS_PRIVATE_IPV4", "10.9.9.9")];
    let words = ["run", "--config", "x/services.toml", "--ttl", "40s", "--interval", "9s"];
    let config = sources(&words, &env).resolve(Some(SERVICES)).unwrap();
    assert_eq!(config.process.ttl.secs(), 40);
    assert!(config.services.iter().all(|s| s.policy.interval.as_secs() == 9));
    assert_eq!(config.services[1].value, "10.0.0.2:6379");
    let words = ["run", "--config", "x/services.toml", "--service", "apache"];
    let message = sources(&words, &[]).resolve(Some(SERVICES)).unwrap_err().to_string();
    assert!(message.starts_with("--service cannot be given together with --config"), "{message}");
}

#[test]
fn a_file_is_judged_as_a_whole() {
    let message = file(
        "[defaults]\nhost = \"10.0.0.1\"\nttl = \"20s\"\nzone = \"\"\n\
         [[service]]\nservice = \"a\"\nport = 1\ninterval = \"8s\"\n\
         [[service]]\nservice = \"a\"\nport = 2\n\
         [[service]]\nport = 3\nexpect = \"x\"\n",
    )
    .unwrap_err();
    assert_eq!(
        message,
        "services.toml line 4, `zone` is empty; is a variable in the unit file unset?\n\
         services.toml line 12: `service` is required: the service's name, such as `apache`\n\
         services.toml line 14, `expect`: `x` is not a set of HTTP statuses from 200 to 599; \
         write `200`, or `200-299,304`\n\
         services.toml line 3, `ttl`: 20s is below three probe intervals of 8s; raise it, or \
         lower --interval\n\
         /services/a/10.0.0.1: two services would write this key (10.0.0.1:1 and 10.0.0.1:2); \
         give them different ids, such as id = \"{host}:{port}\""
    );
    assert!(file("").unwrap_err().contains("there is no service in it"));
    assert_eq!(file("[[service").unwrap_err().lines().count(), 1);
}

#[test]
fn a_missing_file_is_reported_with_its_name() {
    let message = sources(&["run", "--config", "/nowhere/s.toml"], &[]).load().unwrap_err();
    assert!(message.to_string().contains("cannot read `/nowhere/s.toml`"), "{message}");
}

#[test]
fn a_reload_knows_what_changed() {
    let old = file(SERVICES).unwrap();
    let new = SERVICES
        .replace("interval = \"4s\"", "interval = \"3s\"")
        .replace("\"apache\"", "\"nginx\"")
        .replace("ttl = \"60s\"", "ttl = \"45s\"");
    let diff = old.diff(&file(&new).unwrap());
    let keys = |services: &[Service]| {
        services.iter().map(|s| s.target.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&diff.added), ["/services/nginx/10.0.0.1"]);
    assert_eq!(keys(&diff.removed), ["/services/apache/10.0.0.1"]);
    assert_eq!(diff.changed.len(), 1);
    assert_eq!(diff.changed[0].0.value, diff.changed[0].1.value);
    assert_eq!((diff.unchanged.len(), diff.restart), (0, vec!["ttl"]));
    let same = old.diff(&old);
    assert_eq!((same.unchanged.len(), same.changed.len()), (2, 0));
}

#[test]
fn remove_needs_only_the_instance() {
    let words: Vec<&str> = ["remove"].into_iter().chain(APACHE.split(' ')).collect();
    let removal = sources(&words, &[]).removal(None, false).unwrap();
    assert_eq!(removal.key.as_str(), "/services/apache/10.0.0.1");
    assert!(removal.owner.is_some());
    let named = |key, force| sources(&["remove"], &[]).removal(Some(key), force);
    for key in ["apache/10.0.0.1", "/services/apache/10.0.0.1"] {
        let removal = named(key, true).unwrap();
        assert_eq!((removal.key.as_str(), removal.owner), ("/services/apache/10.0.0.1", None));
    }
    for (key, force, part) in [
        ("apache/10.0.0.1", false, "--force"),
        ("apache", true, "no key of a service"),
        ("/confsync/members/lb", true, "no key of a service"),
    ] {
        let message = named(key, force).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let message =
        sources(&["remove", "--drain-min", "x"], &[]).removal(None, false).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 4, "{message}");
}

proptest! {
    #[test]
    fn any_file_is_an_answer_and_never_a_panic(
        value in "\\PC{0,20}", nth in 0..in_file().count(), number: i64,
    ) {
        let name = in_file().nth(nth).unwrap().name;
        let quoted = toml::Value::String(value).to_string();
        for value in [quoted, number.to_string(), format!("[{number}]")] {
            let text = format!("[[service]]\nservice = \"a\"\nport = 1\n{name} = {value}\n");
            let _ = file(&text);
            let _ = file(&format!("[defaults]\n{name} = {value}\n[[service]]\nhost = \"h\"\n"));
        }
    }
}

#[test]
fn a_mistake_in_a_file_has_the_name_that_the_file_uses() {
    let of = |key: &str, value: &str| {
        file(&format!(
            "[[service]]\nservice = \"a\"\nhost = \"10.0.0.1\"\nport = 1\n{key} = {value}"
        ))
        .unwrap_err()
    };
    for key in ["prefix", "services"] {
        let wrong = of(key, "\"/a//b\"");
        assert!(wrong.starts_with(&format!("services.toml line 5, `{key}`: ")), "{wrong}");
        let wrong = of(key, "[1]");
        assert!(wrong.contains(&format!("`{key}` must be")), "{wrong}");
    }
}

#[test]
fn a_service_name_that_no_upstream_can_have_is_reported_at_the_start() {
    let named = |name: &str| {
        let text = format!("[[service]]\nservice = \"{name}\"\nhost = \"10.0.0.1\"\nport = 1\n");
        file(&text)
    };
    for name in ["web", "web-2.a_b"] {
        assert!(named(name).unwrap().notes.is_empty(), "{name}");
    }
    for name in ["my app", "caf\u{e9}", "a;b", "a:b", "_x"] {
        let notes = named(name).unwrap().notes.join("\n");
        assert!(notes.contains(&format!("`{name}` cannot name an upstream")), "{notes}");
    }
    for name in [" ", "web ", "\u{a0}web"] {
        let wrong = named(name).unwrap_err();
        assert!(wrong.starts_with("services.toml line 2, `service`"), "{wrong}");
        assert!(wrong.ends_with("begins or ends with a space"), "{wrong}");
    }
}
