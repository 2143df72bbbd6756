//! The templates that `confsync init` writes.

/// Handlebars, with the defaults a careful operator of nginx would choose.
pub const NGINX_HBS: &str = include_str!("nginx.hbs");

/// The Go template of the CoreOS tutorial, as it was published.
pub const NGINX_TMPL: &str = include_str!("nginx.tmpl");

/// What `confsync init` writes: name below the confdir, and text.
#[must_use]
pub fn files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("conf.d/nginx.toml", include_str!("nginx.toml")),
        ("templates/nginx.hbs", NGINX_HBS),
        ("templates/nginx.tmpl", NGINX_TMPL),
    ]
}
