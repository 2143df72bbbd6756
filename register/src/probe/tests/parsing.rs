//! What may be written after `--check`.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Check, CheckError> {
    Check::parse(text, &"10.0.0.1:7777".parse().unwrap(), &HttpOptions::default())
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    for (text, shown) in [
        ("http", "http://10.0.0.1:7777/"),
        ("http://10.0.0.1:80/health?token=s3cret", "http://10.0.0.1:80/health?…"),
        ("http://unix:/run/app.sock:/up?k=s3cret", "http://unix:/run/app.sock:/up?…"),
        ("tcp", "tcp://10.0.0.1:7777"),
        ("exec:/usr/lib/check.sh", "exec:/usr/lib/check.sh"),
        ("exec:mysqladmin ping -ps3cret", "exec:mysqladmin …"),
        ("none", "none: always healthy"),
    ] {
        assert_eq!(parse(text).unwrap().shown(), shown, "{text}");
    }
}

#[test]
fn every_form_is_read() {
    for (text, shown) in [
        ("http", "http://10.0.0.1:7777/"),
        ("https", "https://10.0.0.1:7777/"),
        ("h2c", "h2c://10.0.0.1:7777/"),
        ("/health?a=b", "http://10.0.0.1:7777/health?a=b"),
        ("http://{host}:{port}/x", "http://10.0.0.1:7777/x"),
        ("http://web.example", "http://web.example:80/"),
        ("https://web.example/a", "https://web.example:443/a"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("http://unix:/run/app.sock:/x", "http://unix:/run/app.sock:/x"),
        ("http://unix:/run/app.sock", "http://unix:/run/app.sock:/"),
        ("tcp", "tcp://10.0.0.1:7777"),
        ("tcp://[::1]:80", "tcp://[::1]:80"),
        ("tcp:10.0.0.2:80", "tcp://10.0.0.2:80"),
        ("HTTP://web.example/A", "http://web.example:80/A"),
        ("TCP", "tcp://10.0.0.1:7777"),
        ("tcp://unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("exec:/bin/check -p '{port} x'", "exec:/bin/check -p '7777 x'"),
        ("none", "none"),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), shown, "{text}");
    }
    let own: Endpoint = "[::1]:80".parse().unwrap();
    let v6 = Check::parse("http://{host}:{port}/", &own, &HttpOptions::default()).unwrap();
    assert_eq!(v6.to_string(), "http://[::1]:80/");
}

#[test]
fn the_host_header_is_as_a_browser_would_send_it() {
    for (text, host, name) in [
        ("http://web.example:80/", "web.example", "web.example"),
        ("http://web.example:8080/", "web.example:8080", "web.example"),
        ("http://[::1]:8080/", "[::1]:8080", "::1"),
        ("http://unix:/run/a.sock", "localhost", "localhost"),
    ] {
        let Ok(Check::Http(http)) = parse(text) else { panic!("{text}") };
        assert_eq!((http.authority.as_str(), http.server_name.as_str()), (host, name));
    }
}

#[test]
fn an_invalid_check_is_rejected() {
    for (text, part) in [
        ("", "is not a check"),
        ("htp://x", "is not a check"),
        ("10.0.0.1:80", "is not a check"),
        ("http://", "has no host"),
        ("http:///health", "has no host"),
        ("http://:7777/", "has no host"),
        ("https://:443", "has no host"),
        ("tcp://:80", "has no host"),
        ("tcp://10.0.0.1", "has no port"),
        ("tcp://10.0.0.1:0", "port `0`"),
        ("http://10.0.0.1:0/", "has no port"),
        ("http://10.0.0.1:99999/", "invalid port"),
        ("http://user:secret@web/", "visible in the process list"),
        ("unix:app.sock", "absolute path"),
        ("http://unix::/x", "absolute path"),
        ("exec:", "names no command"),
        ("exec:   ", "names no command"),
        ("exec:'", "without its partner"),
    ] {
        let message = parse(text).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    assert!(parse(&format!("unix:/{}", "x".repeat(107))).is_err());
}

proptest! {
    #[test]
    fn any_text_is_an_answer_and_never_a_panic(text in "(http|https|h2c|tcp|unix|exec)?:?/?/?\\PC{0,40}") {
        if let Ok(check) = parse(&text) {
            prop_assert_eq!(parse(&check.to_string()).unwrap().to_string(), check.to_string());
        }
    }
}
