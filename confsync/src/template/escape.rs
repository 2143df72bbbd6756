//! The syntaxes that handlebars templates escape for: which characters a value may have there, and
//! how other values are quoted. Pure.

use std::path::Path;

/// The kind of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Escape {
    /// A configuration of nginx.
    #[default]
    Nginx,
    /// A configuration of HAProxy.
    Haproxy,
    /// JSON.
    Json,
    /// A shell's assignments, as `EnvironmentFile=` of systemd reads them as well.
    Shell,
    /// Any text: values are written as they are.
    None,
}

/// Their names in a resource file.
pub const ESCAPES: [(&str, Escape); 5] = [
    ("nginx", Escape::Nginx),
    ("haproxy", Escape::Haproxy),
    ("json", Escape::Json),
    ("shell", Escape::Shell),
    ("none", Escape::None),
];

impl Escape {
    /// By the ending of the file to write.
    pub fn of(dest: &Path) -> Self {
        let name = dest.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "json" => Self::Json,
            "env" | "sh" => Self::Shell,
            "cfg" => Self::Haproxy,
            _ => Self::Nginx,
        }
    }

    /// The name of what reads the file, for messages.
    pub(crate) fn reader(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Json => "JSON",
            Self::Shell => "a shell",
            Self::None => "the file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_the_file_decides() {
        for (dest, escape) in [
            ("/etc/nginx/nginx.conf", Escape::Nginx),
            ("/etc/haproxy/haproxy.cfg", Escape::Haproxy),
            ("/srv/app/config.JSON", Escape::Json),
            ("/srv/app/.env", Escape::Shell),
            ("/etc/default/app.env", Escape::Shell),
            ("/etc/motd", Escape::Nginx),
        ] {
            assert_eq!(Escape::of(Path::new(dest)), escape, "{dest}");
        }
    }
}
