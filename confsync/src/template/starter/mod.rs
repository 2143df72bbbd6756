//! The templates that `confsync init` writes.

/// Handlebars, with the defaults a careful operator of nginx would choose.
pub const NGINX_HBS: &str = include_str!("nginx.hbs");

/// The Go template of the CoreOS tutorial, and the format of its log, which the tutorial adds to
/// nginx.conf.
pub const NGINX_TMPL: &str = include_str!("nginx.tmpl");

/// Handlebars: the whole configuration of a HAProxy.
pub const HAPROXY_HBS: &str = include_str!("haproxy.hbs");

/// Handlebars: a site of Apache that balances.
pub const APACHE_HBS: &str = include_str!("apache.hbs");

/// The line of [`NGINX_HBS`] that only a newer nginx knows, as a comment and as a directive.
const KEEPALIVE: (&str, &str) = ("#keepalive_min_timeout ", "keepalive_min_timeout ");

/// The directive of that line.
pub const KEEPALIVE_DIRECTIVE: &str = "keepalive_min_timeout 2s;";

/// A file of the starter for an nginx that knows [`KEEPALIVE_DIRECTIVE`].
pub fn for_newer_nginx(text: &str) -> String {
    let (comment, directive) = KEEPALIVE;
    text.replace(comment, directive)
}

/// The proxies that there is a starter for.
pub const PROXIES: [&str; 3] = ["nginx", "haproxy", "apache"];

/// What `confsync init` writes for a proxy: name below the confdir, and text.
pub fn files(proxy: &str) -> Vec<(&'static str, &'static str)> {
    match proxy {
        "haproxy" => vec![
            ("conf.d/haproxy.toml", include_str!("haproxy.toml")),
            ("templates/haproxy.hbs", HAPROXY_HBS),
        ],
        "apache" => vec![
            ("conf.d/apache.toml", include_str!("apache.toml")),
            ("templates/apache.hbs", APACHE_HBS),
        ],
        _ => vec![
            ("conf.d/nginx.toml", include_str!("nginx.toml")),
            ("templates/nginx.hbs", NGINX_HBS),
            ("templates/nginx.tmpl", NGINX_TMPL),
        ],
    }
}
